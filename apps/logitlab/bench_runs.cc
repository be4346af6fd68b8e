#include "bench_runs.h"

#include <algorithm>
#include <utility>

#include "backend/device_model.h"
#include "base/philox.h"
#include "interrupt.h"

namespace logitlab {

std::vector<TokenId> bench_prompt(int64_t n, int64_t vocab_size) {
  std::vector<TokenId> ids;
  for (uint32_t i = 0; static_cast<int64_t>(ids.size()) < n; ++i) {
    for (const uint32_t word : philox4x32({i, 0, 0, 0}, {512, 64})) {
      ids.push_back(static_cast<TokenId>(word % static_cast<uint64_t>(vocab_size)));
    }
  }
  ids.resize(static_cast<size_t>(n));
  return ids;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

double kv_read_bytes(const Model& model, int64_t prompt_tokens, int64_t new_tokens) {
  const ModelConfig& config = model.config();
  const int64_t layers = config.count(LayerKind::kDecoder) + config.count(LayerKind::kAttention);
  if (layers == 0) {
    return 0;
  }
  const double per_position =
      static_cast<double>(model.state_bytes(kDevicePagePositions) - model.state_bytes(0)) /
      static_cast<double>(kDevicePagePositions * layers);  // of one layer; whole pages everywhere
  const double seen = static_cast<double>(prompt_tokens) + static_cast<double>(new_tokens + 1) / 2;
  double bytes = 0;
  for (size_t layer = 0; layer < config.layer_kinds.size(); ++layer) {
    const LayerKind kind = config.layer_kinds[layer];
    if (kind == LayerKind::kDecoder || kind == LayerKind::kAttention) {
      const int64_t window = layer < config.layer_windows.size() ? config.layer_windows[layer] : 0;
      bytes += per_position * (window > 0 ? std::min(seen, static_cast<double>(window)) : seen);
    }
  }
  return bytes;
}

Result<GenerationResult> generate_without_end(Engine& engine, GenerationConfig config,
                                              const std::vector<TokenId>& prompt,
                                              int64_t new_tokens, GenerateOptions options) {
  config.eos_token_id = std::vector<TokenId>{};
  config.max_new_tokens = new_tokens + 1;
  config.min_new_tokens = 0;
  options.is_cancelled = InterruptGuard::was_interrupted;
  ASSIGN_OR_RETURN(GenerationResult result, engine.generate(prompt, config, options));
  if (result.first().stop_reason == StopReason::kCancelled) {
    return fail(ErrorCode::kCancelled, "bench: stopped by the user");
  }
  return result;
}

}  // namespace logitlab
