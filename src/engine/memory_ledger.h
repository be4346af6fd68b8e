// Where a model's memory goes: planned from its headers, or read off while it is loaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/env.h"
#include "engine/engine.h"
#include "models/model.h"
#include "models/weight_store.h"

namespace logitlab {

struct WeightBytes {
  size_t mapped = 0;     // in the files' mapping, that is in the page cache
  size_t own = 0;        // as stored, in memory of our own
  size_t converted = 0;  // in memory of our own too
  size_t device = 0;     // in the memory of a device
  [[nodiscard]] size_t total() const { return mapped + own + converted + device; }
};
[[nodiscard]] WeightBytes sum_weights(std::span<const WeightEntry> weights);

struct MemoryLedger {
  WeightBytes weights;
  WeightPlacement placement;
  int64_t n_sequences = 0;
  int64_t n_positions = 0;  // of all sequences
  size_t state_bytes = 0;   // of all sequences, whatever their length (convolution, SSM)
  size_t kv_bytes = 0;      // keys and values; pages that sequences share count for each of them
  // Activations, tokenizer, the program. Planned: an estimate of the activations alone. Measured:
  // what the peak holds besides the above.
  size_t scratch_bytes = 0;
  // Of the model's files in the page cache now; nullopt when the system does not say.
  std::optional<size_t> file_cache_bytes;
  MemoryReading now;
  // Of a model that lies on a device, states and work space with it. Planned: what the device has.
  std::optional<DeviceMemory> device;

  // Of a loaded model.
  size_t available_before_load_bytes = 0;
  size_t available_after_load_bytes = 0;
  WeightTraffic traffic;

  [[nodiscard]] size_t needed_bytes() const {
    return weights.total() + state_bytes + kv_bytes + scratch_bytes;
  }
  // What is to hold all that: of the device or of the system; 0: not known.
  [[nodiscard]] size_t available_bytes() const {
    return device ? device->free_bytes : now.available_bytes;
  }
  [[nodiscard]] bool fits() const {
    return available_bytes() == 0 || needed_bytes() <= available_bytes();
  }
  // "device", "mapped", "read", or, of what does not fit, "offloaded" or "refused".
  [[nodiscard]] std::string_view placement_name() const;
  // What the page cache holds of the files stays there when the model has gone.
  [[nodiscard]] bool file_cache_stays() const {
    return weights.mapped > 0 && !placement.releases_on_close;
  }
};

// What loading with `options` would come to, for one sequence of `n_positions`. device: what it
// has, of a plan for a device that takes whole models.
[[nodiscard]] MemoryLedger plan_memory(const ModelPlan& plan, const LoadOptions& options,
                                       int64_t n_positions, const MemoryReading& now,
                                       const std::optional<DeviceMemory>& device = std::nullopt);

// The lengths of the sequences that were generated (or are held), one each.
[[nodiscard]] MemoryLedger measure_memory(const Engine& engine,
                                          std::span<const int64_t> sequence_lengths);
// Of what `result` generated; a prompt's length is the average of the prompts'.
[[nodiscard]] MemoryLedger measure_memory(const Engine& engine, const GenerationResult& result);

}  // namespace logitlab
