#include "lab/step_rerun.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

#include <fmt/format.h>

#include "sampling/logits_dtype.h"

namespace logitlab {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();
// Share of the whole mass within which a comparison is not trusted: the trace's sums are right to
// 1e-6, float32 softmax and its running sums add a few units of 2^-24 each.
constexpr double kSlack = 1e-5;

constexpr std::array<std::string_view, 8> kBans = {
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "bad_words_ids",        "min_length",
    "min_new_tokens",       "begin_suppress_tokens",
    "suppress_tokens",      "prefix_allowed_tokens"};
// Add to the scores of single tokens what does not depend on the score.
constexpr std::array<std::string_view, 5> kAdditive = {"sequence_bias", "logit_bias",
                                                       "presence_penalty", "frequency_penalty",
                                                       "presence_frequency_penalty"};
// Change the scores of single tokens by an amount that has one sign whatever the score is.
constexpr std::array<std::string_view, 3> kMonotone = {
    "repetition_penalty", "encoder_repetition_penalty", "exponential_decay_length_penalty"};
// Leave a few tokens, with scores of their own.
constexpr std::array<std::string_view, 3> kForcing = {"forced_bos_token_id", "forced_eos_token_id",
                                                      "thinking_budget"};

template <size_t n>
bool is_one_of(std::string_view name, const std::array<std::string_view, n>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

double log_add(double a, double b) {
  const double large = std::max(a, b);
  return large == kMinusInfinity ? large : large + std::log1p(std::exp(std::min(a, b) - large));
}

// log(exp(a) - exp(b)); -inf when nothing is left.
double log_subtract(double a, double b) {
  return b >= a ? kMinusInfinity : a + std::log1p(-std::exp(b - a));
}

float rounded(float value, LogitsDtype dtype) {
  round_logits({&value, 1}, dtype);
  return value;
}

// Relative error of one rounding.
double rounding_error(LogitsDtype dtype) {
  switch (dtype) {
    case LogitsDtype::kBfloat16:
      return 0x1p-9;
    case LogitsDtype::kFloat16:
      return 0x1p-12;
    case LogitsDtype::kFloat32:
      break;
  }
  return 0;
}

// Follows the chain. The unseen tokens stand in the row at one common level, which is one of the
// rows that the trace allows; a filter's outcome in that row counts only when every allowed row has
// the same.
class Follower final : public StageObserver {
 public:
  Follower(const RerunInput& input, std::span<float> row);

  void after_stage(int64_t stage, const LogitsProcessor& processor,
                   std::span<const float> scores) override;

  [[nodiscard]] RerunChoice take() && { return std::move(choice_); }

 private:
  struct Range {
    double low;
    double high;
  };

  [[nodiscard]] bool is_exact() const { return !choice_.unseen.are_alive && !has_unsure_; }
  [[nodiscard]] std::vector<bool> unseen_mask() const;
  void place_unseen(std::span<float> row);
  void copy_scores(std::string_view stage, std::span<const float> scores);
  void transform(std::string_view name, std::span<const float> scores);
  void change_single_tokens(std::string_view name, std::span<const float> scores);
  void force(std::span<const float> scores);
  void scale(double factor);
  void filter(std::string_view name, std::span<const float> scores);
  void top_k(int64_t k);
  void top_p(double p, std::span<const float> scores);
  void min_p(double share);
  void epsilon(double cutoff);
  void all_but_best_unsure(bool best_stays);

  // Weights relative to the largest score.
  [[nodiscard]] double weight(double score) const { return std::exp(score - reference_); }
  [[nodiscard]] Range whole_mass() const;
  // Of what stands before `token` when sorted by score.
  [[nodiscard]] Range mass_before(const RerunToken& token) const;
  [[nodiscard]] bool is_best(const RerunToken& token) const;
  [[nodiscard]] bool top_p_is_settled(double target_low, double target_high) const;
  void keep(RerunToken* token) const;
  void drop(RerunToken* token) const;
  void doubt(RerunToken* token);
  void open(std::string_view stage, std::string reason);
  void settle(std::string_view stage, std::span<const float> scores);

  const RerunInput& input_;
  RerunChoice choice_;
  std::vector<bool> is_known_;
  std::vector<float> before_;  // the row before the stage
  bool has_unsure_ = false;
  bool trusts_row_ = false;  // the stage's outcome is that of the row
  double reference_ = 0;
  std::string_view stage_;
};

Follower::Follower(const RerunInput& input, std::span<float> row) : input_(input) {
  const TracedStep& step = *input.step;
  is_known_.assign(row.size(), false);
  if (!step.logits.empty()) {
    std::transform(step.logits.begin(), step.logits.end(), row.begin(),
                   [&](float logit) { return rounded(logit, input.rounding); });
    is_known_.assign(row.size(), true);
  } else {
    for (const TracedCandidate& candidate : step.candidates) {
      is_known_[static_cast<size_t>(candidate.id)] = true;
      row[static_cast<size_t>(candidate.id)] = rounded(candidate.logit, input.rounding);
    }
  }
  for (size_t id = 0; id < row.size(); ++id) {
    if (is_known_[id]) {
      RerunToken& token = choice_.tokens.emplace_back();
      token.id = static_cast<TokenId>(id);
      token.score = row[id];
      token.is_alive = token.score > kMinusInfinity;
    }
  }
  place_unseen(row);
  before_.assign(row.begin(), row.end());
}

void Follower::place_unseen(std::span<float> row) {
  const TracedStep& step = *input_.step;
  UnseenTokens& unseen = choice_.unseen;
  unseen.n = static_cast<int64_t>(row.size() - choice_.tokens.size());
  unseen.are_alive = unseen.n > 0 && step.tail_log_sum_exp > kMinusInfinity;
  float level = -std::numeric_limits<float>::infinity();
  if (unseen.are_alive) {
    // The chosen token stands behind the M largest when it is not among them.
    const size_t n_largest =
        std::min(step.candidates.size(), static_cast<size_t>(input_.n_candidates));
    double top = step.largest_logit;
    if (n_largest > 0) {
      top = step.candidates[n_largest - 1].logit;
    }
    unseen.top = std::min(top, step.tail_log_sum_exp + 2e-6);
    unseen.low = step.tail_log_sum_exp - 2e-6;
    unseen.high = step.tail_log_sum_exp + 2e-6;
    const double error = rounding_error(input_.rounding);
    if (error > 0) {
      unseen.top =
          std::max<double>(rounded(static_cast<float>(unseen.top), input_.rounding), unseen.top);
      // Positive logits grow by at most this, negative ones rise by at most that.
      const double n = std::log(static_cast<double>(unseen.n));
      const double grown = unseen.high + error * std::max(unseen.top, 0.0);
      const double risen = n + (1 - error) * (unseen.high - n);
      unseen.high = log_add(grown, risen);
      unseen.low = kMinusInfinity;
    }
    level = static_cast<float>(step.tail_log_sum_exp - std::log(static_cast<double>(unseen.n)));
    // At exactly 0 a factor would not show its direction.
    level = std::abs(level) < 1e-6F ? -1e-3F : level;
    level = std::min(level, static_cast<float>(unseen.top));
  }
  for (size_t id = 0; id < row.size(); ++id) {
    row[id] = is_known_[id] ? row[id] : level;
  }
}

void Follower::open(std::string_view stage, std::string reason) {
  if (choice_.open_stage.empty()) {
    choice_.open_stage = stage;
    choice_.open_reason = std::move(reason);
  }
}

void Follower::copy_scores(std::string_view stage, std::span<const float> scores) {
  for (RerunToken& token : choice_.tokens) {
    const float score = scores[static_cast<size_t>(token.id)];
    const bool is_alive = score > -std::numeric_limits<float>::infinity() || std::isnan(score);
    if (token.is_alive && !is_alive) {
      token.dropped_by = stage;
    }
    token.score = score;
    token.is_alive = is_alive;
  }
}

void Follower::after_stage(int64_t /*stage*/, const LogitsProcessor& processor,
                           std::span<const float> scores) {
  stage_ = processor.name();
  if (is_exact()) {
    copy_scores(stage_, scores);
  } else if (stage_ == "renormalize_logits" || stage_ == "remove_invalid_values") {
    // The first takes the same from every score, the second finds nothing in a row of numbers.
  } else if (stage_ == "temperature") {
    scale(1 / input_.config->temperature.value_or(1.0));
    if (!has_unsure_) {
      copy_scores(stage_, scores);
    }
  } else if (is_one_of(stage_, kBans) || is_one_of(stage_, kAdditive) ||
             is_one_of(stage_, kMonotone) || is_one_of(stage_, kForcing)) {
    transform(stage_, scores);
  } else {
    filter(stage_, scores);
  }
  before_.assign(scores.begin(), scores.end());
}

void Follower::transform(std::string_view name, std::span<const float> scores) {
  if (has_unsure_) {
    choice_.unseen.blind = true;
    open(name, fmt::format("{} comes after a filter that could not be settled", name));
    return;
  }
  copy_scores(name, scores);
  if (is_one_of(name, kForcing)) {
    force(scores);
  } else {
    change_single_tokens(name, scores);
  }
}

// A forced token that the trace does not list is known all the same: nothing else is left.
void Follower::force(std::span<const float> scores) {
  constexpr float kDropped = -std::numeric_limits<float>::infinity();
  bool was_forced = false;
  for (size_t id = 0; id < scores.size() && !was_forced; ++id) {
    was_forced = !is_known_[id] && before_[id] > kDropped && scores[id] == kDropped;
  }
  if (!was_forced) {
    return;
  }
  for (size_t id = 0; id < scores.size(); ++id) {
    if (!is_known_[id] && scores[id] > kDropped) {
      is_known_[id] = true;
      choice_.tokens.push_back({static_cast<TokenId>(id), scores[id], true, true, {}});
    }
  }
  choice_.unseen.are_alive = false;
}

void Follower::change_single_tokens(std::string_view name, std::span<const float> scores) {
  UnseenTokens& unseen = choice_.unseen;
  int64_t n_lowered = 0;
  double highest = unseen.top;
  double added = kMinusInfinity;
  for (size_t id = 0; id < scores.size(); ++id) {
    if (is_known_[id] || scores[id] == before_[id]) {
      continue;
    }
    if (scores[id] < before_[id]) {
      ++n_lowered;
    } else if (is_one_of(name, kAdditive)) {
      const double raised = unseen.top + static_cast<double>(scores[id]) - before_[id] + kSlack;
      highest = std::max(highest, raised);
      added = log_add(added, raised);
    } else {
      unseen.blind = true;
      open(name, fmt::format("{} raises tokens that the trace does not list", name));
    }
  }
  if (n_lowered > 0) {
    unseen.low = log_subtract(unseen.low, unseen.top + std::log(static_cast<double>(n_lowered)));
  }
  unseen.top = highest;
  unseen.high = log_add(unseen.high, added);
}

// With x = exp(score) <= X, sum x = S over n tokens, and a the factor: sum x^a lies between
// n (S / n)^a, all equal, and S X^(a - 1), as few as possible; the first is the smaller one for
// a >= 1, where x^a is convex.
void Follower::scale(double factor) {
  for (RerunToken& token : choice_.tokens) {
    token.score *= token.is_alive ? factor : 1;
  }
  UnseenTokens& unseen = choice_.unseen;
  if (!unseen.are_alive) {
    return;
  }
  const double n = std::log(static_cast<double>(unseen.n));
  const auto spread = [&](double mass) { return n + factor * (mass - n); };
  const auto gathered = [&](double mass) { return mass + (factor - 1) * unseen.top; };
  const double low = factor >= 1 ? spread(unseen.low) : gathered(unseen.low);
  const double high = factor >= 1 ? gathered(unseen.high) : spread(unseen.high);
  unseen.low = unseen.low == kMinusInfinity ? kMinusInfinity : low;
  unseen.high = high;
  // The processor rounds to float32, and a token that ties with an unseen one must not seem above.
  unseen.top = unseen.top * factor + 1e-6 * std::abs(unseen.top * factor);
}

Follower::Range Follower::whole_mass() const {
  Range mass{0, 0};
  for (const RerunToken& token : choice_.tokens) {
    if (token.is_alive) {
      mass.low += token.is_sure ? weight(token.score) : 0;
      mass.high += weight(token.score);
    }
  }
  if (choice_.unseen.are_alive) {
    mass.low += weight(choice_.unseen.low);
    mass.high += weight(choice_.unseen.high);
  }
  return mass;
}

Follower::Range Follower::mass_before(const RerunToken& token) const {
  Range mass{0, 0};
  for (const RerunToken& other : choice_.tokens) {
    if (&other == &token || !other.is_alive || other.score < token.score) {
      continue;
    }
    mass.high += weight(other.score);
    mass.low += other.is_sure && other.score > token.score ? weight(other.score) : 0;
  }
  if (choice_.unseen.are_alive && choice_.unseen.top >= token.score) {
    mass.high += weight(choice_.unseen.high);
  }
  return mass;
}

bool Follower::is_best(const RerunToken& token) const {
  return !(choice_.unseen.are_alive && choice_.unseen.top >= token.score) &&
         std::none_of(choice_.tokens.begin(), choice_.tokens.end(), [&](const RerunToken& other) {
           return &other != &token && other.is_alive && other.score >= token.score;
         });
}

void Follower::drop(RerunToken* token) const {
  token->is_alive = false;
  token->dropped_by = stage_;
}

void Follower::doubt(RerunToken* token) {
  token->is_sure = false;
  has_unsure_ = true;
}

void Follower::filter(std::string_view name, std::span<const float> scores) {
  reference_ = choice_.unseen.are_alive ? choice_.unseen.top : kMinusInfinity;
  for (const RerunToken& token : choice_.tokens) {
    reference_ = token.is_alive ? std::max(reference_, token.score) : reference_;
  }
  trusts_row_ = false;
  const GenerationConfig& config = *input_.config;
  if (name == "top_k") {
    top_k(config.top_k.value_or(0));
  } else if (name == "top_p") {
    top_p(config.top_p.value_or(1), scores);
  } else if (name == "min_p") {
    min_p(config.min_p.value_or(0));
  } else if (name == "epsilon_cutoff") {
    epsilon(config.epsilon_cutoff.value_or(0));
  } else {
    all_but_best_unsure(name == "eta_cutoff" || name == "top_h");
    open(name, fmt::format("{} looks at the whole distribution", name));
  }
  settle(name, scores);
}

// Where the row that was really processed shows another outcome than the bounds, neither counts.
void Follower::settle(std::string_view stage, std::span<const float> scores) {
  if (trusts_row_) {
    choice_.unseen.are_alive = false;
    copy_scores(stage, scores);
    return;
  }
  constexpr float kDropped = -std::numeric_limits<float>::infinity();
  const bool had_unsure = has_unsure_;
  for (RerunToken& token : choice_.tokens) {
    const bool row_keeps = scores[static_cast<size_t>(token.id)] > kDropped;
    if (token.is_sure && !had_unsure && token.is_alive != row_keeps) {
      token.is_alive = true;
      doubt(&token);
    }
  }
  for (size_t id = 0; id < scores.size() && !choice_.unseen.are_alive; ++id) {
    if (!is_known_[id] && scores[id] > kDropped) {
      choice_.unseen.are_alive = true;
      choice_.unseen.low = kMinusInfinity;
    }
  }
  if (has_unsure_ || choice_.unseen.are_alive) {
    open(stage, fmt::format("{} may keep tokens that the trace does not list", stage));
  }
}

void Follower::top_k(int64_t k) {
  UnseenTokens& unseen = choice_.unseen;
  const auto n_alive = std::count_if(choice_.tokens.begin(), choice_.tokens.end(),
                                     [](const RerunToken& token) { return token.is_alive; });
  const auto n_above =
      std::count_if(choice_.tokens.begin(), choice_.tokens.end(), [&](const RerunToken& token) {
        return token.is_alive && token.is_sure && !(unseen.are_alive && token.score <= unseen.top);
      });
  if (!has_unsure_ && n_above >= k) {
    trusts_row_ = true;
    return;
  }
  open("top_k",
       fmt::format("top_k={} reaches beyond the {} tokens that the trace lists", k, n_alive));
  const std::vector<RerunToken> entering = choice_.tokens;
  for (RerunToken& token : choice_.tokens) {
    if (!token.is_alive) {
      continue;
    }
    int64_t most_before = unseen.are_alive && unseen.top >= token.score ? unseen.n : 0;
    int64_t least_before = 0;
    for (const RerunToken& other : entering) {
      if (other.id != token.id && other.is_alive) {
        most_before += other.score >= token.score ? 1 : 0;
        least_before += other.is_sure && other.score > token.score ? 1 : 0;
      }
    }
    if (least_before >= k) {
      drop(&token);
    } else if (most_before >= k) {
      doubt(&token);
    }
  }
  if (n_above >= k) {
    unseen.are_alive = false;
  } else if (k > n_alive && unseen.are_alive) {
    // The best of the unseen stay, so at least their even share of the mass.
    const auto kept = static_cast<double>(std::min(k - n_alive, unseen.n));
    unseen.low += std::log(kept / static_cast<double>(unseen.n));
  } else {
    unseen.low = kMinusInfinity;
  }
}

// Whether the number of tokens from the best down that reach the target is the same for all rows,
// and all of them are listed and above the unseen.
bool Follower::top_p_is_settled(double target_low, double target_high) const {
  if (has_unsure_) {
    return false;
  }
  std::vector<double> scores;
  for (const RerunToken& token : choice_.tokens) {
    if (token.is_alive && !(choice_.unseen.are_alive && token.score <= choice_.unseen.top)) {
      scores.push_back(token.score);
    }
  }
  std::sort(scores.rbegin(), scores.rend());
  double mass = 0;
  for (const double score : scores) {
    mass += weight(score);
    if (mass >= target_low) {
      return mass >= target_high;
    }
  }
  return false;
}

void Follower::top_p(double p, std::span<const float> scores) {
  UnseenTokens& unseen = choice_.unseen;
  const Range whole = whole_mass();
  const double target_low = (p - kSlack) * whole.low;
  const double target_high = (p + kSlack) * whole.high;
  if (top_p_is_settled(target_low, target_high)) {
    // The row's own unseen tokens are among the allowed ones, so it shows the one outcome.
    const auto survives = [&](size_t id) {
      return !is_known_[id] && scores[id] > -std::numeric_limits<float>::infinity();
    };
    bool row_agrees = true;
    for (size_t id = 0; id < scores.size() && row_agrees; ++id) {
      row_agrees = !survives(id);
    }
    trusts_row_ = row_agrees;
    if (row_agrees) {
      return;
    }
  }
  open("top_p",
       fmt::format("where top_p={} cuts depends on tokens that the trace does not list", p));
  double clear = 0;
  std::vector<Range> before;
  for (const RerunToken& token : choice_.tokens) {
    before.push_back(mass_before(token));
    if (token.is_alive && token.is_sure && !(unseen.are_alive && token.score <= unseen.top)) {
      clear += weight(token.score);
    }
  }
  std::vector<bool> best;
  for (const RerunToken& token : choice_.tokens) {
    best.push_back(is_best(token));
  }
  for (size_t i = 0; i < choice_.tokens.size(); ++i) {
    RerunToken& token = choice_.tokens[i];
    if (!token.is_alive || best[i] || before[i].high < target_low) {
      continue;
    }
    if (before[i].low >= target_high) {
      drop(&token);
    } else {
      doubt(&token);
    }
  }
  unseen.are_alive = unseen.are_alive && clear < target_high;
  unseen.low = kMinusInfinity;
}

void Follower::min_p(double share) {
  UnseenTokens& unseen = choice_.unseen;
  if (share <= 0) {
    return;
  }
  const RerunToken* best = nullptr;
  for (const RerunToken& token : choice_.tokens) {
    if (token.is_alive && (best == nullptr || token.score > best->score)) {
      best = &token;
    }
  }
  if (best == nullptr || !best->is_sure || (unseen.are_alive && unseen.top >= best->score)) {
    all_but_best_unsure(true);
    open("min_p", "the most likely token is not among those that the trace lists");
    return;
  }
  const double threshold = best->score + std::log(share);
  for (RerunToken& token : choice_.tokens) {
    if (!token.is_alive || &token == best || token.score >= threshold + kSlack) {
      continue;
    }
    if (token.score < threshold - kSlack) {
      drop(&token);
    } else {
      doubt(&token);
    }
  }
  unseen.are_alive = unseen.are_alive && unseen.top >= threshold - kSlack;
  unseen.low = kMinusInfinity;
}

void Follower::epsilon(double cutoff) {
  UnseenTokens& unseen = choice_.unseen;
  const Range whole = whole_mass();
  std::vector<bool> best;
  for (const RerunToken& token : choice_.tokens) {
    best.push_back(is_best(token));
  }
  for (size_t i = 0; i < choice_.tokens.size(); ++i) {
    RerunToken& token = choice_.tokens[i];
    if (!token.is_alive || best[i] || weight(token.score) / whole.high >= cutoff * (1 + kSlack)) {
      continue;
    }
    if (weight(token.score) / whole.low < cutoff * (1 - kSlack)) {
      drop(&token);
    } else {
      doubt(&token);
    }
  }
  const bool may_hold_best = std::find(best.begin(), best.end(), true) == best.end();
  unseen.are_alive = unseen.are_alive &&
                     (may_hold_best || weight(unseen.top) / whole.low >= cutoff * (1 - kSlack));
  unseen.low = kMinusInfinity;
}

void Follower::all_but_best_unsure(bool best_stays) {
  std::vector<bool> best;
  for (const RerunToken& token : choice_.tokens) {
    best.push_back(best_stays && is_best(token));
  }
  for (size_t i = 0; i < choice_.tokens.size(); ++i) {
    if (choice_.tokens[i].is_alive && !best[i]) {
      doubt(&choice_.tokens[i]);
    }
  }
  choice_.unseen.low = kMinusInfinity;
}

// The smallest random number among the unseen tokens: no key of theirs is above top - log of it.
double smallest_unseen_exponential(const RerunChoice& choice, int64_t vocab_size,
                                   const Draw& draw) {
  std::vector<bool> is_known(static_cast<size_t>(vocab_size), false);
  for (const RerunToken& token : choice.tokens) {
    is_known[static_cast<size_t>(token.id)] = true;
  }
  double smallest = std::numeric_limits<double>::infinity();
  for (TokenId id = 0; id < vocab_size; ++id) {
    if (!is_known[static_cast<size_t>(id)]) {
      smallest = std::min(smallest, draw_exponential(draw, id));
    }
  }
  return smallest;
}

// The best key among sure tokens against all that might beat it.
void choose(const RerunInput& input, RerunChoice* choice) {
  const auto key_of = [&](const RerunToken& token) {
    return input.draw ? token.score - std::log(draw_exponential(*input.draw, token.id))
                      : token.score;
  };
  double best = kMinusInfinity;
  double rival = kMinusInfinity;
  std::optional<TokenId> id;
  for (const RerunToken& token : choice->tokens) {
    if (!token.is_alive || !token.is_sure) {
      continue;
    }
    const double key = key_of(token);
    if (!id || key > best || (key == best && token.id < *id)) {
      rival = best;
      best = key;
      id = token.id;
    } else {
      rival = std::max(rival, key);
    }
  }
  double uncertain = kMinusInfinity;
  for (const RerunToken& token : choice->tokens) {
    if (token.is_alive && !token.is_sure) {
      uncertain = std::max(uncertain, key_of(token));
    }
  }
  if (choice->unseen.are_alive) {
    const double gumbel =
        input.draw ? -std::log(smallest_unseen_exponential(*choice, input.vocab_size, *input.draw))
                   : 0;
    uncertain = std::max(uncertain, choice->unseen.top + gumbel);
  }
  choice->margin = best - std::max(rival, uncertain);
  // Scores of unsettled steps lack the rounding of a late normalisation.
  const double needed = choice->open_stage.empty() ? 0 : kSlack;
  const bool is_settled = id && !choice->unseen.blind && best > uncertain + needed &&
                          (needed == 0 || best > rival + needed);
  choice->id = is_settled ? id : std::nullopt;
}

bool is_a_row_of_numbers(const TracedStep& step) {
  const auto is_bad = [](float logit) {
    return std::isnan(logit) || (std::isinf(logit) && logit > 0);
  };
  return std::none_of(step.logits.begin(), step.logits.end(), is_bad) &&
         std::none_of(step.candidates.begin(), step.candidates.end(),
                      [&](const TracedCandidate& candidate) { return is_bad(candidate.logit); }) &&
         !is_bad(step.largest_logit);
}

}  // namespace

Result<RerunChoice> rerun_step(const RerunInput& input, ProcessorChain* chain) {
  const TracedStep& step = *input.step;
  std::vector<float> row(static_cast<size_t>(input.vocab_size));
  if (!is_a_row_of_numbers(step) && step.logits.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "the logits hold NaN or infinity, and the trace lists {} of them; record it with "
                "--trace-full",
                step.candidates.size());
  }
  Follower follower(input, row);
  chain->apply(row, input.sequence, &follower);
  RerunChoice choice = std::move(follower).take();
  if (choice.unseen.are_alive || !choice.open_stage.empty()) {
    choose(input, &choice);
    if (choice.unseen.are_alive && !choice.id && choice.open_stage.empty()) {
      choice.open_reason = input.draw ? "nothing limits the draw to the tokens that the trace lists"
                                      : "the trace does not list the best tokens";
    }
    return choice;
  }
  // Nothing is unseen, so the row is what a run would have had.
  if (input.draw) {
    ASSIGN_OR_RETURN(choice.id, sample(row, *input.draw));
  } else {
    choice.id = arg_max(row);
  }
  double own = 0;
  double rival = kMinusInfinity;
  for (const RerunToken& token : choice.tokens) {
    if (token.is_alive) {
      const double key = input.draw
                             ? token.score - std::log(draw_exponential(*input.draw, token.id))
                             : token.score;
      (token.id == *choice.id ? own : rival) = token.id == *choice.id ? key : std::max(rival, key);
    }
  }
  choice.margin = own - rival;
  return choice;
}

}  // namespace logitlab
