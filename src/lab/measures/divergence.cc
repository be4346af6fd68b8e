#include "lab/measures/divergence.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <span>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "sampling/sampler.h"

namespace logitlab {
namespace {

// The steps of one sequence of a run, with what a question about it needs.
struct Side {
  const RunTrace& run;
  const RunEnd& end;
  std::vector<const TracedStep*> steps;  // by number
  Json config;
  Json execution;
  int64_t sequence = 0;

  [[nodiscard]] const std::vector<TokenId>& prompt() const {
    return run.prompts[static_cast<size_t>(run.sequence_prompts[static_cast<size_t>(sequence)])];
  }
  [[nodiscard]] bool is_sampled() const {
    const auto found = config.find("do_sample");
    return found != config.end() && found->is_boolean() && found->get<bool>();
  }
  [[nodiscard]] bool is_bfloat16() const {
    const auto found = config.find("logits_dtype");
    return found != config.end() && *found == "bfloat16";
  }
  [[nodiscard]] std::string piece(TokenId id) const {
    const auto& pieces = end.pieces;
    const auto known = std::lower_bound(pieces.begin(), pieces.end(), id,
                                        [](const std::pair<TokenId, std::string>& one,
                                           TokenId wanted) { return one.first < wanted; });
    return known != pieces.end() && known->first == id ? known->second : fmt::format("#{}", id);
  }
};

Result<Side> side_of(const DivergenceInput& input) {
  const auto n_sequences = static_cast<int64_t>(input.run->sequence_prompts.size());
  if (input.sequence < 0 || input.sequence >= n_sequences) {
    return fail(ErrorCode::kInvalidArgument, "sequence {} found, want 0 to {}", input.sequence,
                n_sequences - 1);
  }
  Side side{*input.run, *input.end, {}, Json(), Json(), input.sequence};
  ASSIGN_OR_RETURN(side.config, parse_json(input.run->config_json, "settings of the run"));
  ASSIGN_OR_RETURN(side.execution, parse_json(input.execution_json, "execution of the run"));
  if (!side.config.is_object() || !side.execution.is_object()) {
    return fail(ErrorCode::kDataLoss, "settings of the run: no object");
  }
  if (side.config.value("num_beams", Json(1)) != 1) {
    return fail(ErrorCode::kInvalidArgument,
                "num_beams found: beam search chooses among whole continuations, no token decides; "
                "want runs without beams");
  }
  for (const TracedStep& step : *input.steps) {
    if (step.sequence == input.sequence) {
      side.steps.push_back(&step);
    }
  }
  return side;
}

const TracedCandidate* find(const TracedStep& step, TokenId id) {
  const auto known = std::find_if(step.candidates.begin(), step.candidates.end(),
                                  [id](const TracedCandidate& one) { return one.id == id; });
  return known == step.candidates.end() ? nullptr : &*known;
}

// Distance in steps of the format that the logits are rounded to, at the larger of the two.
double ulps(double gap, double larger, bool is_bfloat16) {
  const int digits = is_bfloat16 ? 8 : 24;
  const double magnitude = std::abs(larger);
  if (gap == 0 || !(magnitude > 0)) {
    return gap == 0 ? 0 : kNoNumber;
  }
  return gap / std::ldexp(1.0, std::ilogb(magnitude) - (digits - 1));
}

std::vector<std::string> changed_settings(const Side& first, const Side& second) {
  std::vector<std::string> out;
  Json names = first.config;
  names.update(second.config);
  for (const auto& item : names.items()) {
    const Json a = first.config.value(item.key(), Json());
    const Json b = second.config.value(item.key(), Json());
    if (a != b) {
      out.push_back(fmt::format("{}: {} -> {}", item.key(), a.is_null() ? "none" : dump_json(a),
                                b.is_null() ? "none" : dump_json(b)));
    }
  }
  return out;
}

class Autopsy {
 public:
  Autopsy(const Side& first, const Side& second) : sides_{&first, &second} {}

  Divergence run();

 private:
  void align();
  void describe_tokens();
  void decide();
  bool decide_by_logits();
  bool decide_by_filter();
  [[nodiscard]] std::string cut_by_rank(size_t run) const;
  bool decide_by_tie();
  void decide_by_choice();
  [[nodiscard]] bool differs(const char* name) const {
    return sides_[0]->execution.value(name, Json()) != sides_[1]->execution.value(name, Json());
  }
  [[nodiscard]] bool has_changed(std::string_view setting) const {
    return std::any_of(out_.changed_settings.begin(), out_.changed_settings.end(),
                       [setting](const std::string& text) {
                         return text.compare(0, setting.size() + 1, std::string(setting) + ":") ==
                                0;
                       });
  }
  [[nodiscard]] std::string quoted(int token) const {
    return fmt::format("'{}'", out_.sides[token][token].piece);
  }
  void settle(DivergenceCause cause, std::string verdict) {
    out_.cause = cause;
    out_.verdict = fmt::format("Step {}: {}", out_.step, verdict);
  }
  [[nodiscard]] std::string chooser(int run) const;

  std::array<const Side*, 2> sides_;
  std::array<const TracedStep*, 2> steps_{};
  Divergence out_;
};

std::string Autopsy::chooser(int run) const {
  return sides_[static_cast<size_t>(run)]->is_sampled()
             ? fmt::format("the draw of seed {}", sides_[static_cast<size_t>(run)]->run.seed)
             : "the largest score";
}

void Autopsy::align() {
  const auto& first = sides_[0]->steps;
  const auto& second = sides_[1]->steps;
  const size_t shared = std::min(first.size(), second.size());
  size_t step = 0;
  for (; step < shared && first[step]->id == second[step]->id; ++step) {
    if (out_.first_hash_change < 0 && first[step]->logits_hash != second[step]->logits_hash) {
      out_.first_hash_change = static_cast<int64_t>(step);
    }
  }
  out_.common_tokens = static_cast<int64_t>(step);
  out_.step = out_.common_tokens;
  if (step < shared) {
    steps_ = {first[step], second[step]};
  }
}

void Autopsy::describe_tokens() {
  const std::array<TokenId, 2> ids = {steps_[0]->id, steps_[1]->id};
  out_.logits_equal = steps_[0]->logits_hash == steps_[1]->logits_hash;
  for (size_t run = 0; run < 2; ++run) {
    const TracedStep& step = *steps_[run];
    const Side& side = *sides_[run];
    out_.survivors[run] = step.stages.empty() ? side.run.vocab_size : step.stages.back().survivors;
    out_.draw[run] = step.draw;
    for (size_t token = 0; token < 2; ++token) {
      DivergenceSide& one = out_.sides[run][token];
      one.id = ids[token];
      one.piece = side.piece(ids[token]);
      const TracedCandidate* known = find(step, ids[token]);
      if (known == nullptr) {
        one.dropped_by = out_.logits_equal && token != run ? cut_by_rank(run) : "";
        continue;
      }
      one.is_known = true;
      one.logit = known->logit;
      one.probability = known->probability;
      one.rank = 1 + std::count_if(step.candidates.begin(), step.candidates.end(),
                                   [known](const TracedCandidate& other) {
                                     return other.score > known->score;
                                   });
      if (known->dropped_by >= 0 && static_cast<size_t>(known->dropped_by) < step.stages.size()) {
        one.dropped_by = step.stages[static_cast<size_t>(known->dropped_by)].name;
      }
      if (side.is_sampled() && one.dropped_by.empty()) {
        const Draw draw{side.run.seed, static_cast<uint32_t>(side.sequence),
                        static_cast<uint32_t>(step.step)};
        out_.key[run][token] =
            static_cast<double>(known->score) - std::log(draw_exponential(draw, ids[token]));
      }
    }
  }
  const auto& mine = out_.sides[0];
  if (mine[0].is_known && mine[1].is_known) {
    out_.gap = mine[0].logit - mine[1].logit;
    const double larger = std::max(std::abs(mine[0].logit), std::abs(mine[1].logit));
    out_.gap_ulps = ulps(out_.gap, larger, sides_[0]->is_bfloat16());
  }
  if (out_.first_hash_change < 0 && !out_.logits_equal) {
    out_.first_hash_change = out_.step;
  }
}

// The same prefix and other logits: what was computed differs, whatever the settings are.
bool Autopsy::decide_by_logits() {
  if (out_.logits_equal) {
    return false;
  }
  const std::string since =
      out_.first_hash_change < out_.step
          ? fmt::format(" (they differ from step {} on)", out_.first_hash_change)
          : "";
  const RunTrace& a = sides_[0]->run;
  const RunTrace& b = sides_[1]->run;
  if (a.model_hash != b.model_hash) {
    settle(DivergenceCause::kNumerics,
           fmt::format("the logits differ{}: the models are not the same ({}, {})", since, a.model,
                       b.model));
  } else if (has_changed("logits_dtype")) {
    settle(DivergenceCause::kNumerics,
           fmt::format("the logits were rounded to different types{}, and {} is {:.4g} ahead of {} "
                       "in the first",
                       since, quoted(0), out_.gap, quoted(1)));
  } else if (has_changed("guidance_scale")) {
    settle(DivergenceCause::kPenalty, "guidance_scale differs, which changes the logits");
  } else if (differs("neighbours") || differs("threads")) {
    settle(DivergenceCause::kBatch,
           fmt::format("the logits differ{}: the runs had other neighbours or threads", since));
  } else if (differs("prefill_chunk") || differs("cache")) {
    settle(DivergenceCause::kCache,
           fmt::format("the logits differ{}: the prompt was read in other pieces, or without its "
                       "state",
                       since));
  } else {
    settle(
        DivergenceCause::kNumerics,
        fmt::format("the logits differ{} though model and prefix are the same: device {} and {}, "
                    "{} and {}, build {} and {}",
                    since, a.device, b.device, a.isa, b.isa, a.build, b.build));
  }
  return true;
}

bool Autopsy::decide_by_tie() {
  const auto& mine = out_.sides[0];
  const bool is_tied = mine[0].is_known && mine[1].is_known && out_.gap == 0 &&
                       out_.sides[1][0].dropped_by.empty() && mine[1].dropped_by.empty();
  if (!is_tied) {
    return false;
  }
  const bool both_sampled = sides_[0]->is_sampled() && sides_[1]->is_sampled();
  const char* dtype = sides_[0]->is_bfloat16() ? "bfloat16" : "float32";
  if (both_sampled) {
    settle(DivergenceCause::kTie,
           fmt::format("{} and {} have exactly the same logit ({}), both survive, and the draw "
                       "decides: seed {} took the first, seed {} the second",
                       quoted(0), quoted(1), dtype, sides_[0]->run.seed, sides_[1]->run.seed));
    return true;
  }
  settle(DivergenceCause::kTie,
         fmt::format("{} and {} have exactly the same logit ({}); greedy decoding takes the lower "
                     "id, a draw takes either",
                     quoted(0), quoted(1), dtype));
  return true;
}

// A token that the trace of `run` does not list: the filter that cut above its rank. Only where no
// stage moved scores, so that the ranks are those of the logits, and among filters that keep the
// best.
std::string Autopsy::cut_by_rank(size_t run) const {
  constexpr std::array<std::string_view, 5> kKeepTheBest = {"top_k", "top_p", "min_p",
                                                            "epsilon_cutoff", "eta_cutoff"};
  const size_t other = 1 - run;
  for (const TracedStage& stage : steps_[run]->stages) {
    if (stage.changed > 0) {
      return "";
    }
    const bool keeps_the_best =
        std::find(kKeepTheBest.begin(), kKeepTheBest.end(), stage.name) != kKeepTheBest.end();
    if (stage.survivors < steps_[other]->raw_rank) {
      return keeps_the_best ? stage.name : "";
    }
  }
  return "";
}

bool Autopsy::decide_by_filter() {
  for (int run = 0; run < 2; ++run) {
    const int other = 1 - run;
    // The token of the other run, as this one saw it.
    const DivergenceSide& token = out_.sides[run][other];
    if (!token.dropped_by.empty()) {
      settle(DivergenceCause::kFilter,
             fmt::format("{} removed {} in the {} run; the {} run kept it and chose it",
                         token.dropped_by, quoted(other), run == 0 ? "first" : "second",
                         run == 0 ? "second" : "first"));
      return true;
    }
  }
  return false;
}

void Autopsy::decide_by_choice() {
  bool is_changed = false;
  for (size_t token = 0; token < 2; ++token) {
    const DivergenceSide& a = out_.sides[0][token];
    const DivergenceSide& b = out_.sides[1][token];
    is_changed = is_changed || (a.is_known && b.is_known && a.probability != b.probability);
  }
  const bool same_draw =
      sides_[0]->run.seed == sides_[1]->run.seed && sides_[0]->sequence == sides_[1]->sequence;
  if (sides_[0]->is_sampled() != sides_[1]->is_sampled()) {
    settle(DivergenceCause::kDraw,
           fmt::format("{} chose {}, {} chose {}", chooser(0), quoted(0), chooser(1), quoted(1)));
    return;
  }
  if (is_changed && (same_draw || !sides_[0]->is_sampled())) {
    std::string settings = "the settings";
    if (!out_.changed_settings.empty()) {
      settings = fmt::format("{}", fmt::join(out_.changed_settings, ", "));
    }
    settle(DivergenceCause::kPenalty,
           fmt::format("the same logits became other scores by {}: {} in place of {}", settings,
                       quoted(1), quoted(0)));
    return;
  }
  if (sides_[0]->is_sampled() && !same_draw) {
    settle(DivergenceCause::kDraw,
           fmt::format("{} chose {} (probability {:.3g}), {} chose {} ({:.3g})", chooser(0),
                       quoted(0), out_.sides[0][0].probability, chooser(1), quoted(1),
                       out_.sides[1][1].probability));
    return;
  }
  settle(
      DivergenceCause::kUnknown,
      fmt::format("{} against {}; the traces do not hold what decided it", quoted(0), quoted(1)));
}

void Autopsy::decide() {
  if (steps_[0] == nullptr) {
    const size_t a = sides_[0]->steps.size();
    const size_t b = sides_[1]->steps.size();
    if (a == b) {
      out_.cause = DivergenceCause::kNone;
      out_.verdict = fmt::format("All {} tokens are the same.", a);
    } else {
      out_.cause = DivergenceCause::kLength;
      out_.verdict = fmt::format(
          "The first {} tokens are the same; then the {} run had ended, and the other went on.",
          out_.common_tokens, a < b ? "first" : "second");
    }
    return;
  }
  describe_tokens();
  if (!decide_by_logits() && !decide_by_filter() && !decide_by_tie()) {
    decide_by_choice();
  }
  out_.verdict += ".";
}

Divergence Autopsy::run() {
  out_.changed_settings = changed_settings(*sides_[0], *sides_[1]);
  if (sides_[0]->prompt() != sides_[1]->prompt()) {
    out_.cause = DivergenceCause::kPrompt;
    out_.step = 0;
    out_.verdict = "The prompts differ.";
    return out_;
  }
  align();
  decide();
  return out_;
}

}  // namespace

std::string_view name(DivergenceCause cause) {
  constexpr std::array<std::string_view, 11> kNames = {"none",  "length", "prompt",  "tie",
                                                       "draw",  "filter", "penalty", "numerics",
                                                       "cache", "batch",  "unknown"};
  return kNames[static_cast<size_t>(cause)];
}

Result<Divergence> find_divergence(const DivergenceInput& first, const DivergenceInput& second) {
  ASSIGN_OR_RETURN(const Side a, side_of(first));
  ASSIGN_OR_RETURN(const Side b, side_of(second));
  return Autopsy(a, b).run();
}

}  // namespace logitlab
