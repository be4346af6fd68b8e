#include "lab/measures/setting_figures.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace logitlab {
namespace {

constexpr std::string_view kAllStages = "all";
constexpr size_t kNextTokens = 10;

std::string piece_of(const TraceMemory& trace, TokenId id) {
  const auto& pieces = trace.ended().pieces;
  const auto known = std::lower_bound(pieces.begin(), pieces.end(), id,
                                      [](const std::pair<TokenId, std::string>& piece,
                                         TokenId wanted) { return piece.first < wanted; });
  return known != pieces.end() && known->first == id ? known->second : std::string();
}

std::vector<NextToken> next_tokens(const TraceMemory& trace) {
  std::vector<NextToken> out;
  if (trace.steps().empty()) {
    return out;
  }
  for (const TracedCandidate& candidate : trace.steps().front().candidates) {
    if (out.size() == kNextTokens) {
      break;
    }
    out.push_back({candidate.id, piece_of(trace, candidate.id), candidate.raw_probability,
                   candidate.probability});
  }
  return out;
}

std::optional<BeamFigures> beams_of(const TraceMemory& trace) {
  if (trace.beam_steps().empty()) {
    return std::nullopt;
  }
  BeamFigures beams;
  for (const TracedSequence& sequence : trace.ended().sequences) {
    std::string text;
    for (const TokenId id : sequence.ids) {
      text += piece_of(trace, id);
    }
    beams.hypotheses.push_back(
        {sequence.ids, std::move(text), sequence.beam_score, sequence.beam_indices});
  }
  beams.stopped_because = trace.ended().beam_stop;
  beams.steps = trace.beam_steps();
  return beams;
}

}  // namespace

std::string collapse_space(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool is_space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!is_space) {
      out.push_back(c);
    } else if (!out.empty() && out.back() != ' ') {
      out.push_back(' ');
    }
  }
  if (!out.empty() && out.back() == ' ') {
    out.pop_back();
  }
  return out;
}

void SettingAccumulator::ByStep::add(size_t step, double value) {
  if (std::isnan(value)) {
    return;
  }
  if (step >= sums.size()) {
    sums.resize(step + 1, 0);
    counts.resize(step + 1, 0);
  }
  sums[step] += value;
  ++counts[step];
}

std::vector<double> SettingAccumulator::ByStep::means() const {
  std::vector<double> out(sums.size(), kNoNumber);
  for (size_t step = 0; step < sums.size(); ++step) {
    if (counts[step] > 0) {
      out[step] = sums[step] / static_cast<double>(counts[step]);
    }
  }
  return out;
}

SettingAccumulator::Stage& SettingAccumulator::add_stage(const std::string& name, size_t step,
                                                         double survivors, double mass) {
  const auto [known, is_new] = stages_.try_emplace(name);
  Stage& stage = known->second;
  if (is_new) {
    stage.order = stages_.size();
  }
  stage.survivors.push_back(survivors);
  stage.by_step.add(step, survivors);
  stage.mass += std::isnan(mass) ? 0 : mass;
  return stage;
}

void SettingAccumulator::add_steps(const TraceMemory& trace) {
  for (const TracedStep& traced : trace.steps()) {
    const auto step = static_cast<size_t>(traced.step);
    entropy_.add(step, traced.entropy);
    raw_entropy_.add(step, traced.raw_entropy);
    tied_steps_ += traced.n_tied_at_max > 1 ? 1 : 0;
    overruled_steps_ += traced.raw_rank > 1 ? 1 : 0;
    double survivors = static_cast<double>(trace.run().vocab_size);
    double mass = 1;
    for (const TracedStage& stage : traced.stages) {
      const double before = survivors;
      survivors = static_cast<double>(stage.survivors);
      mass = stage.mass;
      Stage& sums = add_stage(stage.name, step, survivors, mass);
      sums.removed += before - survivors;
      if (stage.changed >= 0) {
        ++sums.counted;
        sums.changed += static_cast<double>(stage.changed);
        sums.changed_in_prompt += static_cast<double>(stage.changed_in_prompt);
        sums.changed_in_answer += static_cast<double>(stage.changed_in_answer);
      }
    }
    add_stage(std::string(kAllStages), step, survivors, mass);
  }
}

// What of the answer prompt or answer held already.
void SettingAccumulator::add_repeats(const RunRecord& run) {
  std::vector<TokenId> all = run.prompt_ids;
  all.insert(all.end(), run.ids.begin(), run.ids.end());
  std::set<TokenId> tokens(run.prompt_ids.begin(), run.prompt_ids.end());
  std::set<std::pair<TokenId, TokenId>> pairs;
  for (size_t i = 1; i < run.prompt_ids.size(); ++i) {
    pairs.emplace(all[i - 1], all[i]);
  }
  int64_t tokens_before = 0;
  int64_t pairs_before = 0;
  int64_t n_pairs = 0;
  for (size_t i = run.prompt_ids.size(); i < all.size(); ++i) {
    tokens_before += tokens.insert(all[i]).second ? 0 : 1;
    if (i > 0) {
      ++n_pairs;
      pairs_before += pairs.emplace(all[i - 1], all[i]).second ? 0 : 1;
    }
  }
  if (!run.ids.empty()) {
    said_before_.push_back(static_cast<double>(tokens_before) /
                           static_cast<double>(run.ids.size()));
    pairs_before_.push_back(static_cast<double>(pairs_before) /
                            static_cast<double>(std::max<int64_t>(1, n_pairs)));
  }
}

void SettingAccumulator::take_first(const RunRecord& run, const TraceMemory& trace) {
  first_.prompt_name = run.prompt_name;
  first_.name = run.setting_name;
  first_.is_control = run.is_control;
  first_.sample_text = run.text;
  first_.next_tokens = next_tokens(trace);
  first_.beams = beams_of(trace);
  for (const TracedStopId& stop : trace.run().stop_ids) {
    first_.stop_ids.push_back({stop.id, "", stop.origin});
  }
  for (const LedgerEntry& entry : trace.run().ledger) {
    // What a value turns off by itself needs no word.
    const bool is_off = entry.value == "none" || entry.why.find("is off") != std::string::npos;
    if (entry.origin == "given" && !entry.acts && !is_off) {
      first_.idle_settings.push_back(entry.name + "=" + entry.value +
                                     (entry.why.empty() ? "" : ": " + entry.why));
    }
  }
  if (!trace.steps().empty()) {
    first_.log_probability = 0;
    for (const TracedStep& step : trace.steps()) {
      first_.log_probability += std::log(step.raw_probability);
    }
  }
}

Status SettingAccumulator::add(const RunRecord& run) {
  TraceMemory trace;
  if (!run.trace.empty()) {
    RETURN_IF_ERROR(parse_trace(run.trace, "run " + std::to_string(run.id), &trace));
  }
  if (texts_.empty()) {
    take_first(run, trace);
  }
  first_.run_ids.push_back(run.id);
  first_.hashes.push_back(run.hash);
  texts_.push_back(collapse_space(run.text));
  ids_.push_back(run.ids);
  lengths_.push_back(static_cast<double>(run.ids.size()));
  thinking_.push_back(static_cast<double>(run.thinking_tokens));
  answers_.push_back(static_cast<double>(run.answer_tokens));
  add_repeats(run);
  ++stops_[run.stop_reason];
  if (run.stop_id >= 0) {
    ++stopped_by_[run.stop_id];
    for (StopFigures& stop : first_.stop_ids) {
      stop.piece = stop.id == run.stop_id ? piece_of(trace, stop.id) : stop.piece;
    }
  }
  const bool is_cut = run.stop_reason == "length" || run.stop_reason == "time";
  truncated_ += is_cut ? 1 : 0;
  thinking_cut_ += is_cut && run.thinking_tokens > 0 && run.answer_tokens == 0 ? 1 : 0;
  add_steps(trace);
  return {};
}

std::vector<StageSurvivors> SettingAccumulator::stages() const {
  std::vector<StageSurvivors> out;
  std::vector<std::pair<size_t, StageSurvivors>> ordered;
  for (const auto& [name, stage] : stages_) {
    StageSurvivors one;
    one.name = name;
    one.survivors = summarize(stage.survivors);
    const auto n = static_cast<double>(stage.survivors.size());
    one.share_above_one =
        static_cast<double>(std::count_if(stage.survivors.begin(), stage.survivors.end(),
                                          [](double count) { return count > 1; })) /
        n;
    one.by_step = stage.by_step.means();
    one.mean_mass = stage.mass / n;
    one.mean_removed = stage.removed / n;
    const double counted = stage.counted > 0 ? static_cast<double>(stage.counted) : kNoNumber;
    one.mean_changed = stage.changed / counted;
    one.mean_changed_in_prompt = stage.changed_in_prompt / counted;
    one.mean_changed_in_answer = stage.changed_in_answer / counted;
    ordered.emplace_back(stage.order, std::move(one));
  }
  // In the order of the chain, the outcome of all last.
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    const bool a_is_all = a.second.name == kAllStages;
    const bool b_is_all = b.second.name == kAllStages;
    return a_is_all != b_is_all ? b_is_all : a.first < b.first;
  });
  for (auto& [order, stage] : ordered) {
    out.push_back(std::move(stage));
  }
  return out;
}

SettingFigures SettingAccumulator::figures() const {
  SettingFigures out = first_;
  out.runs = static_cast<int64_t>(texts_.size());
  out.unique_ids =
      static_cast<int64_t>(std::set<std::vector<TokenId>>(ids_.begin(), ids_.end()).size());
  out.unique_texts =
      static_cast<int64_t>(std::set<std::string>(texts_.begin(), texts_.end()).size());
  out.lengths = summarize(lengths_);
  out.thinking_tokens = summarize(thinking_);
  out.answer_tokens = summarize(answers_);
  out.truncated = truncated_;
  out.thinking_cut = thinking_cut_;
  out.tied_steps = tied_steps_;
  out.overruled_steps = overruled_steps_;
  out.said_before = summarize(said_before_);
  out.pairs_before = summarize(pairs_before_);
  for (StopFigures& stop : out.stop_ids) {
    const auto ended = stopped_by_.find(stop.id);
    stop.runs = ended == stopped_by_.end() ? 0 : ended->second;
  }
  out.stop_reasons.assign(stops_.begin(), stops_.end());
  std::stable_sort(out.stop_reasons.begin(), out.stop_reasons.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  out.entropy_by_step = entropy_.means();
  out.raw_entropy_by_step = raw_entropy_.means();
  out.stages = stages();
  return out;
}

}  // namespace logitlab
