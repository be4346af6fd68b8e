#include "engine/memory_ledger.h"

#include <algorithm>

#include "state/kv_cache.h"

namespace logitlab {
namespace {

// Rows of a prefill chunk, as the generator runs them.
constexpr int64_t kPrefillRows = 512;

// The residual stream, what a layer reads and writes of it, the widest inner rows twice (a product
// and what is made of it), and one row of logits.
size_t estimated_activations(const ModelPlan& plan, int64_t n_positions) {
  const ModelConfig& config = plan.config;
  int64_t widest = config.hidden_size;
  for (const WeightEntry& weight : plan.weights) {
    const bool is_head = weight.shape.rank() == 2 && weight.shape[0] == config.vocab_size;
    if (weight.shape.rank() == 2 && !is_head) {
      widest = std::max(widest, weight.shape[0]);
    }
  }
  if (config.moe) {
    widest = std::max(widest, config.moe->num_experts_per_tok * config.moe->moe_intermediate_size);
  }
  const int64_t rows = std::clamp<int64_t>(n_positions, 1, kPrefillRows);
  return static_cast<size_t>(rows * (3 * config.hidden_size + 2 * widest) + config.vocab_size) *
         sizeof(float);
}

size_t above(size_t value, size_t part) {
  return value - std::min(value, part);
}

}  // namespace

WeightBytes sum_weights(std::span<const WeightEntry> weights) {
  WeightBytes sum;
  for (const WeightEntry& entry : weights) {
    (entry.is_on_device               ? sum.device
     : entry.is_mapped                ? sum.mapped
     : entry.resident == entry.stored ? sum.own
                                      : sum.converted) += entry.bytes;
  }
  return sum;
}

std::string_view MemoryLedger::placement_name() const {
  if (device) {
    return "device";
  }
  if (placement.missing > 0) {
    return placement.offloads ? "offloaded" : "refused";
  }
  return placement.reads ? "read" : "mapped";
}

MemoryLedger plan_memory(const ModelPlan& plan, const LoadOptions& options, int64_t n_positions,
                         const MemoryReading& now, const std::optional<DeviceMemory>& device) {
  MemoryLedger ledger;
  ledger.now = now;
  ledger.device = device;
  ledger.weights = sum_weights(plan.weights);
  // A plan has what needs no conversion as mapped; where it goes depends on the room for all.
  ledger.placement =
      choose_placement(options, ledger.weights.mapped,
                       ledger.weights.own + ledger.weights.converted, now.available_bytes);
  if (ledger.placement.reads) {
    ledger.weights.own += ledger.weights.mapped;
    ledger.weights.mapped = 0;
  }
  ledger.n_sequences = 1;
  ledger.n_positions = n_positions;
  const int64_t kPage = device ? kDevicePagePositions : KvCache::kPagePositions;
  const int64_t in_pages = (n_positions + kPage - 1) / kPage * kPage;
  ledger.state_bytes = plan.state.fixed_bytes;
  ledger.kv_bytes = static_cast<size_t>(in_pages) * plan.state.position_bytes;
  ledger.scratch_bytes = estimated_activations(plan, n_positions);
  return ledger;
}

MemoryLedger measure_memory(const Engine& engine, std::span<const int64_t> sequence_lengths) {
  MemoryLedger ledger;
  const Model& model = engine.model();
  ledger.now = read_memory();
  ledger.available_before_load_bytes = engine.memory_before_load().available_bytes;
  ledger.available_after_load_bytes = engine.memory_after_load().available_bytes;
  ledger.weights = sum_weights(model.weights());
  if (const WeightStore* store = model.weight_store()) {
    ledger.placement = store->placement();
    ledger.traffic = store->traffic();
    ledger.file_cache_bytes = store->checkpoint().cached_bytes();
  }
  const size_t fixed = model.state_bytes(0);
  for (const int64_t length : sequence_lengths) {
    ++ledger.n_sequences;
    ledger.n_positions += length;
    ledger.state_bytes += fixed;
    ledger.kv_bytes += model.state_bytes(length) - fixed;
  }
  if (const DeviceModel* device = model.device_model()) {
    ledger.device = device->memory();
    ledger.scratch_bytes = ledger.device->scratch_bytes;
    return ledger;
  }
  // Pages of files in the peak: the program's, and what is mapped of the weights.
  const size_t known = ledger.now.resident_file_bytes + ledger.weights.own +
                       ledger.weights.converted + ledger.state_bytes + ledger.kv_bytes;
  ledger.scratch_bytes = above(ledger.now.peak_resident_bytes, known);
  return ledger;
}

MemoryLedger measure_memory(const Engine& engine, const GenerationResult& result) {
  int64_t n_prompts = 1;
  for (const SequenceResult& sequence : result.sequences) {
    n_prompts = std::max(n_prompts, sequence.prompt + 1);
  }
  std::vector<int64_t> lengths;
  for (const SequenceResult& sequence : result.sequences) {
    lengths.push_back(result.prompt_tokens / n_prompts + static_cast<int64_t>(sequence.ids.size()));
  }
  return measure_memory(engine, lengths);
}

}  // namespace logitlab
