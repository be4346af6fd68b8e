// Filters that follow vLLM or llama.cpp where they differ from transformers; sampling/
// engine_semantics.h says when they are used, docs/semantics.md where the rules come from.
#pragma once

#include <cstdint>
#include <vector>

#include "sampling/logits_processor.h"

namespace logitlab {

// Keeps the best token alone, the lowest id among equals: what these engines do at temperature 0.
class BestOnly final : public LogitsProcessor {
 public:
  [[nodiscard]] std::string_view name() const override { return "temperature"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  Cut cut_;
};

// Keeps the best tokens, from the top, until their mass reaches top_p; the token that reaches it
// stays, and the lower id goes before an equal one. At least min_tokens_to_keep stay. Without a
// softmax (NaN, +inf, nothing but -inf) nothing is removed. The mass is summed in float32, rounded
// after every token, and compared with float32(top_p): on a boundary it differs from transformers,
// which sums from the small end.
class DescendingTopP final : public LogitsProcessor {
 public:
  DescendingTopP(double top_p, int64_t min_tokens_to_keep);  // >= 0, >= 1

  [[nodiscard]] std::string_view name() const override { return "top_p"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  // How many of best_ reach the mass; 0 when all of them together do not.
  [[nodiscard]] int64_t tokens_to_mass(float* mass) const;

  float top_p_;
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<TokenId> best_;
  std::vector<float> kept_scores_;
  Cut cut_;
};

// llama.cpp's min_p: removes tokens whose score is below the largest one plus log(min_p). There is
// no softmax, so the boundary is exact in float32. The min_tokens_to_keep best stay in any case.
// With a NaN, a +inf or nothing but -inf nothing is removed.
class LogitMinP final : public LogitsProcessor {
 public:
  LogitMinP(double min_p, int64_t min_tokens_to_keep);  // above 0, at most 1; >= 1

  [[nodiscard]] std::string_view name() const override { return "min_p"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  float log_min_p_;
  int64_t min_tokens_to_keep_;
  std::vector<TokenId> best_;
  Cut cut_;
};

// llama.cpp's typical_p: tokens in the order of | -log p - entropy |, and the one whose sum goes
// beyond p, strictly, is the last that stays; others that are as near go. Among equally near ones
// the better token comes first, then the lower id. Tokens of probability 0 take no part and go.
// Float32 sums in that order. O(V log V).
class StrictTypicalP final : public LogitsProcessor {
 public:
  StrictTypicalP(double typical_p, int64_t min_tokens_to_keep);  // between 0 and 1; >= 1

  [[nodiscard]] std::string_view name() const override { return "typical_p"; }
  [[nodiscard]] ProcessorKind kind() const override { return ProcessorKind::kFilter; }
  void apply(std::span<float> scores, const SequenceView& sequence) override;
  [[nodiscard]] Cut cut() const override { return cut_; }
  [[nodiscard]] std::unique_ptr<LogitsProcessor> clone() const override;

 private:
  struct Candidate {
    TokenId id;
    float probability;
    float distance;
  };

  float typical_p_;
  int64_t min_tokens_to_keep_;
  std::vector<float> probabilities_;
  std::vector<TokenId> order_;
  std::vector<Candidate> candidates_;
  Cut cut_;
};

}  // namespace logitlab
