#include "generate/guidance_source.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace logitlab {

class GuidanceRows::Row final : public GuidanceSource {
 public:
  Row(DecodeState state, std::vector<float> logits)
      : state_(std::move(state)), first_(std::move(logits)), logits_(first_) {}

  [[nodiscard]] std::span<const float> unguided_logits(const SequenceView& /*sequence*/) override {
    return logits_;
  }
  [[nodiscard]] DecodeState* state() { return &state_; }
  void set_logits(std::span<const float> logits) { logits_ = logits; }

 private:
  DecodeState state_;
  std::vector<float> first_;
  std::span<const float> logits_;
};

namespace {

Result<std::vector<float>> read_context(const RunSettings& settings, std::span<const TokenId> ids,
                                        DecodeState* state) {
  const auto chunk = static_cast<size_t>(settings.prefill_chunk());
  Logits logits;
  for (size_t at = 0; at < ids.size(); at += chunk) {
    const size_t n = std::min(chunk, ids.size() - at);
    const SequenceChunk part{state, ids.subspan(at, n),
                             at + n == ids.size() ? LogitRows::kLast : LogitRows::kNone};
    ASSIGN_OR_RETURN(logits, settings.forward({&part, 1}));
  }
  return std::move(logits.values);
}

}  // namespace

Status GuidanceRows::check(const GenerationConfig& config, int64_t vocab_size) {
  for (const TokenId id : config.negative_prompt_ids.value_or(TokenIds{})) {
    if (id < 0 || id >= vocab_size) {
      return fail(ErrorCode::kInvalidArgument,
                  "negative_prompt_ids: token id {} is outside the vocabulary, want 0 to {}", id,
                  vocab_size - 1);
    }
  }
  return {};
}

Result<GuidanceRows> GuidanceRows::make(const RunSettings& settings,
                                        std::span<const PromptRun> prompts,
                                        int64_t rows_per_prompt) {
  GuidanceRows guidance;
  if (settings.config.guidance_scale.value_or(1) == 1) {
    return guidance;
  }
  const TokenIds negative = settings.config.negative_prompt_ids.value_or(TokenIds{});
  for (const PromptRun& prompt : prompts) {
    const std::span<const TokenId> ids =
        negative.empty() ? prompt.ids.last(1) : std::span<const TokenId>(negative);
    DecodeState state = settings.model.make_state();
    ASSIGN_OR_RETURN(const std::vector<float> logits, read_context(settings, ids, &state));
    for (int64_t row = 0; row < rows_per_prompt; ++row) {
      guidance.rows_.push_back(std::make_shared<Row>(state.fork(), logits));
    }
  }
  return guidance;
}

GuidanceSource* GuidanceRows::row(size_t index) const {
  return rows_.empty() ? nullptr : rows_[index].get();
}

Status GuidanceRows::advance(const RunSettings& settings, std::span<const Chosen> chosen) {
  if (rows_.empty()) {
    return {};
  }
  batch_.clear();
  for (const Chosen& item : chosen) {
    batch_.push_back({rows_[item.row]->state(), {&item.id, 1}, LogitRows::kLast});
  }
  ASSIGN_OR_RETURN(logits_, settings.forward(batch_));
  for (size_t i = 0; i < chosen.size(); ++i) {
    rows_[chosen[i].row]->set_logits(logits_.row(static_cast<int64_t>(i)));
  }
  return {};
}

}  // namespace logitlab
