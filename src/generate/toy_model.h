// Models without weights, for tests.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "generate/generator.h"
#include "models/batch.h"
#include "models/model.h"
#include "sampling/effective_config.h"

namespace logitlab {

class WeightlessModel : public Model {
 public:
  [[nodiscard]] const ModelConfig& config() const override { return config_; }
  [[nodiscard]] const std::vector<WeightEntry>& weights() const override { return none_; }
  [[nodiscard]] const std::vector<std::string>& warnings() const override { return warnings_; }
  [[nodiscard]] int64_t parameter_count() const override { return 0; }
  [[nodiscard]] size_t weight_bytes_per_token() const override { return 0; }
  [[nodiscard]] size_t state_bytes(int64_t /*n*/) const override { return 0; }

  void set_max_positions(int64_t n) { config_.max_position_embeddings = n; }

 protected:
  explicit WeightlessModel(int64_t vocab_size) {
    config_.vocab_size = vocab_size;
    config_.num_hidden_layers = 1;
    config_.max_position_embeddings = 1000;
  }

 private:
  ModelConfig config_;
  std::vector<WeightEntry> none_;
  std::vector<std::string> warnings_;
};

// The next logits depend on the last id alone.
class TableModel final : public WeightlessModel {
 public:
  explicit TableModel(std::vector<std::vector<float>> table)
      : WeightlessModel(static_cast<int64_t>(table.size())), table_(std::move(table)) {}
  [[nodiscard]] DecodeState make_state() const override {
    return DecodeState({LayerStateKind::kKv}, {.n_layers = 1, .n_kv_heads = 1, .head_dim = 2});
  }
  [[nodiscard]] Result<Logits> forward(ExecContext& /*context*/,
                                       std::span<const SequenceChunk> batch) const override {
    RETURN_IF_ERROR(check_batch(batch, config().vocab_size));
    ++calls_;
    Logits logits;
    logits.vocab_size = config().vocab_size;
    for (const SequenceChunk& chunk : batch) {
      rows_ += static_cast<int64_t>(chunk.ids.size());
      RETURN_IF_ERROR(chunk.state->reserve(static_cast<int64_t>(chunk.ids.size())));
      chunk.state->advance(static_cast<int64_t>(chunk.ids.size()));
      if (chunk.logit_rows == LogitRows::kLast) {
        const auto& row = table_[static_cast<size_t>(chunk.ids.back())];
        logits.values.insert(logits.values.end(), row.begin(), row.end());
        ++logits.rows;
      }
    }
    return logits;
  }

  // Forward passes, and rows of all of them.
  [[nodiscard]] int64_t calls() const { return calls_; }
  [[nodiscard]] int64_t rows() const { return rows_; }

 private:
  mutable int64_t calls_ = 0;
  mutable int64_t rows_ = 0;
  std::vector<std::vector<float>> table_;
};

// Model M of the reference cases: after 0 comes 2, after 1 comes 3, after 2 comes 3, after 3 comes
// 1.
inline TableModel model_m() {
  return TableModel({{0, 0, 5, 0}, {0, 0, 0, 9}, {0, 0, 0, 5}, {0, 5, 0, 0}});
}

// From a table of probabilities.
inline TableModel model_of_probabilities(const std::vector<std::vector<double>>& table) {
  std::vector<std::vector<float>> logits;
  for (const auto& row : table) {
    logits.emplace_back();
    for (const double p : row) {
      logits.back().push_back(static_cast<float>(std::log(p)));
    }
  }
  return TableModel(std::move(logits));
}

// Texts of some ids.
class ToyTexts final : public TokenTexts {
 public:
  explicit ToyTexts(std::map<TokenId, std::string> texts) : texts_(std::move(texts)) {}
  [[nodiscard]] std::optional<std::string> text(TokenId id) const override {
    const auto found = texts_.find(id);
    return found == texts_.end() ? std::nullopt : std::optional<std::string>(found->second);
  }

 private:
  std::map<TokenId, std::string> texts_;
};

// Keeps everything that it is told.
class CollectedTrace final : public TraceSink {
 public:
  void begin(const RunTrace& told) override {
    run = told;
    ++n_begun;
  }
  void step(const TracedStep& told) override { steps.push_back(told); }
  void beam_step(const TracedBeamStep& told) override { beam_steps.push_back(told); }
  void end(const RunEnd& told) override {
    last = told;
    ++n_ended;
  }

  RunTrace run;
  std::vector<TracedStep> steps;
  std::vector<TracedBeamStep> beam_steps;
  RunEnd last;
  int n_begun = 0;
  int n_ended = 0;
};

struct ToyFixture {
  std::unique_ptr<Backend> backend = make_reference_backend();
  ThreadPool threads{1};
  ExecContext context{*backend, threads};

  Result<GenerationResult> run_all(const Model& model,
                                   const std::vector<std::vector<TokenId>>& prompts,
                                   const GenerationConfig& config,
                                   const GenerateOptions& options = {}) {
    std::vector<PromptInput> inputs;
    for (const std::vector<TokenId>& prompt : prompts) {
      inputs.push_back({prompt, nullptr});
    }
    return generate(context, model, inputs, merge_generation_config(config, {}).config, options);
  }

  Result<GenerationResult> run(const Model& model, std::vector<TokenId> prompt,
                               const GenerationConfig& config,
                               const GenerateOptions& options = {}) {
    return run_all(model, {std::move(prompt)}, config, options);
  }
};

}  // namespace logitlab
