// The metadata keys of one architecture: "<architecture>.<key>".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/gguf.h"

namespace logitlab {

// Bounds that no real model reaches; they keep products of two sizes far from overflow.
inline constexpr int64_t kMaxModelSize = int64_t{1} << 24;
inline constexpr int64_t kMaxModelLayers = 4096;

// Refers to the metadata, which outlives it.
class GgufKeys {
 public:
  GgufKeys(const GgufMetadata& metadata, std::string architecture)
      : metadata_(metadata), architecture_(std::move(architecture)) {}

  [[nodiscard]] std::string key(std::string_view suffix) const;
  // An integer in [low, high]; `missing` < 0: it must be there. kInvalidArgument names file and
  // key.
  [[nodiscard]] Result<int64_t> size(std::string_view suffix, int64_t missing,
                                     int64_t high = kMaxModelSize, int64_t low = 1) const;
  [[nodiscard]] Result<double> number(std::string_view suffix, double missing) const;
  // As `number`, finite and above 0.
  [[nodiscard]] Result<double> positive(std::string_view suffix, double missing) const;
  // One number a layer, each in [0, kMaxModelSize]: an array of at least `n_layers` (of which the
  // first count), or one number for all. `missing` < 0: it must be there.
  [[nodiscard]] Result<std::vector<int64_t>> per_layer(std::string_view suffix, int64_t n_layers,
                                                       int64_t missing) const;

 private:
  const GgufMetadata& metadata_;
  std::string architecture_;
};

}  // namespace logitlab
