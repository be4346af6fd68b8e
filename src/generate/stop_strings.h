// Whether the newest token completes a stop string.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "generate/generator.h"
#include "logitlab/types.h"

namespace logitlab {

// A stop string is looked for in the bytes of the newest tokens, the prompt's included; it counts
// when its last byte belongs to the newest token. So it may begin and end inside of tokens, and one
// that an earlier token completed does not count again. Special tokens stand for their own text.
// Immutable; shared by the sequences of a call; as thread-safe as `tokens`.
class StopTexts {
 public:
  // kInvalidArgument: an empty string, no texts, or no token of `vocab_size` could be the end
  // of any of the strings. `tokens` must outlive it.
  [[nodiscard]] static Result<std::shared_ptr<const StopTexts>> make(
      const std::vector<std::string>& strings, const TokenTexts* tokens, int64_t vocab_size);

  // Index of the first string (in the order given) that `newest` completes after `earlier`.
  [[nodiscard]] std::optional<size_t> match(std::span<const TokenId> earlier, TokenId newest) const;

  [[nodiscard]] const std::string& string(size_t index) const { return strings_[index]; }

 private:
  StopTexts(std::vector<std::string> strings, const TokenTexts* tokens);

  std::vector<std::string> strings_;
  const TokenTexts* tokens_;
  size_t longest_ = 0;  // bytes
};

}  // namespace logitlab
