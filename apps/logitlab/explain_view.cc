#include "explain_view.h"

#include <algorithm>
#include <cmath>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/utf8.h"
#include "json_out.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kDoubtfulSteps = 5;
constexpr size_t kShownCandidates = 20;              // and the chosen one
constexpr std::string_view kMostDoubtful = "doubt";  // value of a bare --explain

// Bands of the probability that the model gave a token.
struct Band {
  double lowest;
  Style style;
  std::string_view label;
};
constexpr Band kBands[] = {
    {0.9, Style::kPlain, "90% or more"},
    {0.5, Style::kGood, "50 to 90%"},
    {0.2, Style::kWarn, "20 to 50%"},
    {0.0, Style::kBad, "below 20%"},
};

const Band& band_of(double probability) {
  for (const Band& band : kBands) {
    if (probability >= band.lowest) {
      return band;
    }
  }
  return kBands[std::size(kBands) - 1];
}

bool has_colors(const Terminal& terminal) {
  return terminal.paint(Style::kBad, "x") != "x";
}

// Four digits, and never "0.0000" for what is not 0.
std::string share(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  return value != 0 && value < 0.0001 ? fmt::format("{:.1e}", value) : fmt::format("{:.4f}", value);
}

std::string number(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-inf" : "inf";
  }
  return fmt::format("{:.4f}", value);
}

std::string percent(double probability) {
  const double value = 100 * probability;
  return value < 0.95 ? fmt::format("{:.1g}%", value) : fmt::format("{:.0f}%", value);
}

Json finite(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

std::vector<const TracedStep*> steps_of(const TraceMemory& trace, int64_t sequence) {
  std::vector<const TracedStep*> steps;
  for (const TracedStep& step : trace.steps()) {
    if (step.sequence == sequence) {
      steps.push_back(&step);
    }
  }
  return steps;
}

// "top_k=1", or the name alone when the run had no such setting.
std::string setting(const RunTrace& run, const std::string& name) {
  for (const LedgerEntry& entry : run.ledger) {
    if (entry.name == name && entry.value != "none") {
      return fmt::format("{}={}", name, entry.value);
    }
  }
  return name;
}

std::string setting_value(const RunTrace& run, std::string_view name, std::string fallback) {
  for (const LedgerEntry& entry : run.ledger) {
    if (entry.name == name && entry.value != "none") {
      return entry.value;
    }
  }
  return fallback;
}

std::string counted(int64_t n, std::string_view word) {
  return fmt::format("{} {}{}", with_commas(n), word, n == 1 ? "" : "s");
}

// The tokens of a character that spans several are one unit.
struct Unit {
  std::string text;
  double probability = 1;
};

std::vector<Unit> units_of(const std::vector<const TracedStep*>& steps, const PieceTexts& pieces) {
  constexpr size_t kLongestCharacter = 4;
  std::vector<Unit> units;
  bool is_open = false;
  for (const TracedStep* step : steps) {
    const std::string text = pieces.text(step->id);
    const bool joins = is_open && units.back().text.size() < kLongestCharacter;
    if (!joins) {
      units.emplace_back();
    }
    Unit& unit = units.back();
    unit.text += text.empty() ? fmt::format("<{}>", step->id) : text;
    unit.probability = std::min(unit.probability, step->raw_probability);
    is_open = first_invalid_utf8(unit.text) != unit.text.size();
  }
  return units;
}

// A style that covers a line break would colour the margin of the next line in some terminals.
std::string painted_unit(const Terminal& terminal, Style style, const std::string& text) {
  std::string out;
  size_t start = 0;
  while (start <= text.size()) {
    const size_t end = std::min(text.find('\n', start), text.size());
    out += terminal.paint(style, text.substr(start, end - start));
    out += end < text.size() ? "\n" : "";
    start = end + 1;
  }
  return out;
}

void print_heading(Terminal* terminal, const std::string& title) {
  terminal->print("\n");
  const auto columns = static_cast<size_t>(terminal->columns());
  for (const std::string& line : wrap(title, columns)) {
    terminal->print(terminal->paint(Style::kHeading, line) + "\n");
  }
}

void print_lines(Terminal* terminal, std::string_view text, Style style, std::string_view first,
                 std::string_view rest) {
  const std::string lines =
      wrap_with_prefix(text, static_cast<size_t>(terminal->columns()), first, rest);
  terminal->print(painted_unit(*terminal, style, lines));
}

void print_legend(Terminal* terminal) {
  if (!has_colors(*terminal)) {
    print_lines(terminal, "{62%}: what the model gave the token before it, when that is below 90%",
                Style::kDim, "", "");
    return;
  }
  const auto columns = static_cast<size_t>(terminal->columns());
  const std::string_view title = "probability of the token:";
  terminal->print(terminal->paint(Style::kDim, title));
  size_t used = title.size();
  for (const Band& band : kBands) {
    if (used + 2 + band.label.size() > columns) {
      terminal->print("\n" + terminal->paint(band.style, band.label));
      used = band.label.size();
    } else {
      terminal->print((used == title.size() ? " " : "  ") +
                      terminal->paint(band.style, band.label));
      used += 2 + band.label.size();
    }
  }
  terminal->print("\n");
}

void print_answer(Terminal* terminal, const std::vector<const TracedStep*>& steps,
                  const PieceTexts& pieces) {
  print_heading(terminal, "The answer, by doubt");
  print_legend(terminal);
  const bool is_colored = has_colors(*terminal);
  bool ends_line = true;
  for (const Unit& unit : units_of(steps, pieces)) {
    const std::string text = terminal_safe(unit.text);
    terminal->print(painted_unit(*terminal, band_of(unit.probability).style, text));
    if (!is_colored && !(unit.probability >= kBands[0].lowest)) {
      terminal->print(fmt::format("{{{}}}", percent(unit.probability)));
      ends_line = false;
    } else {
      ends_line = !text.empty() && text.back() == '\n';
    }
  }
  terminal->print(ends_line ? "" : "\n");
}

void print_doubtful(Terminal* terminal, std::vector<const TracedStep*> steps,
                    const PieceTexts& pieces) {
  const size_t n = std::min(kDoubtfulSteps, steps.size());
  std::partial_sort(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(n), steps.end(),
                    [](const TracedStep* a, const TracedStep* b) {
                      return a->raw_probability != b->raw_probability
                                 ? a->raw_probability < b->raw_probability
                                 : a->step < b->step;
                    });
  steps.resize(n);
  print_heading(terminal, "Its least likely tokens");
  Table table({{"step", Align::kRight},
               {"token", Align::kLeft},
               {"probability", Align::kRight},
               {"rank", Align::kRight},
               {"entropy", Align::kRight}});
  for (const TracedStep* step : steps) {
    table.add_row({fmt::format("{}", step->step),
                   {pieces.quoted(step->id), band_of(step->raw_probability).style},
                   share(step->raw_probability),
                   with_commas(step->raw_rank),
                   fmt::format("{:.2f}", step->raw_entropy)});
  }
  terminal->print(table.render(*terminal));
}

std::string cut_text(const TracedStage& stage) {
  if (std::isnan(stage.threshold) || stage.measure == "none" || stage.measure.empty()) {
    return "";
  }
  return fmt::format("{} {:.4g}", stage.measure, stage.threshold);
}

std::string stage_remark(const TracedStage& stage) {
  if (stage.tied_dropped > 0) {
    return fmt::format("cut through {} equal tokens: {} stay", stage.tied_kept + stage.tied_dropped,
                       stage.tied_kept);
  }
  if (stage.tied_kept > 1) {
    return fmt::format("{} equal tokens at the cut stay", stage.tied_kept);
  }
  if (stage.changed > 0) {
    return fmt::format("changed {}: {} of the prompt, {} of the answer alone",
                       counted(stage.changed, "token"),
                       std::max<int64_t>(stage.changed_in_prompt, 0),
                       std::max<int64_t>(stage.changed_in_answer, 0));
  }
  return "";
}

void print_funnel(Terminal* terminal, const RunTrace& run, const TracedStep& step) {
  if (step.stages.empty()) {
    print_lines(terminal,
                "No setting touches the logits: the choice is made from them as they are.",
                Style::kDim, "", "");
    return;
  }
  Table table({{"stage", Align::kLeft},
               {"tokens", Align::kRight},
               {"mass", Align::kRight},
               {"cut at", Align::kLeft},
               {"", Align::kLeft}});
  table.add_row(
      {std::string("logits"), with_commas(run.vocab_size), share(1), std::string(), std::string()});
  int64_t before = run.vocab_size;
  for (const TracedStage& stage : step.stages) {
    const Style style = stage.survivors < before ? Style::kAccent : Style::kDim;
    table.add_row({Cell(setting(run, stage.name), style), with_commas(stage.survivors),
                   share(stage.mass), cut_text(stage), Cell(stage_remark(stage), Style::kWarn)});
    before = stage.survivors;
  }
  terminal->print(table.render(*terminal));
}

std::string fate(const TracedStep& step, const TracedCandidate& candidate) {
  if (candidate.id == step.id) {
    return "chosen";
  }
  if (candidate.dropped_by < 0) {
    return "";
  }
  const auto stage = static_cast<size_t>(candidate.dropped_by);
  return stage < step.stages.size() ? fmt::format("dropped by {}", step.stages[stage].name)
                                    : "dropped";
}

// The same in a word of a table.
std::string mark(const TracedStep& step, const TracedCandidate& candidate) {
  const auto stage = static_cast<size_t>(std::max(candidate.dropped_by, 0));
  const bool was_cut = candidate.dropped_by >= 0 && stage < step.stages.size();
  return was_cut && candidate.id != step.id ? "cut: " + step.stages[stage].name
                                            : fate(step, candidate);
}

std::string seen_in(const TracedCandidate& candidate) {
  return candidate.in_prompt ? (candidate.in_answer ? "prompt, answer" : "prompt")
                             : (candidate.in_answer ? "answer" : "");
}

void print_candidates(Terminal* terminal, const TracedStep& step, const PieceTexts& pieces) {
  if (step.candidates.empty()) {
    return;
  }
  const bool has_seen =
      std::any_of(step.candidates.begin(), step.candidates.end(),
                  [](const TracedCandidate& item) { return item.in_prompt || item.in_answer; });
  std::vector<Table::Column> columns = {{"token", Align::kLeft},     {"id", Align::kRight, 1},
                                        {"logit", Align::kRight, 3}, {"raw p", Align::kRight},
                                        {"score", Align::kRight, 2}, {"final p", Align::kRight},
                                        {"", Align::kLeft}};
  if (has_seen) {
    columns.push_back({"seen in", Align::kLeft, 4});
  }
  Table table(columns);
  size_t n_seen = 0;
  size_t n_hidden = 0;
  for (const TracedCandidate& item : step.candidates) {
    const bool is_chosen = item.id == step.id;
    if (++n_seen > kShownCandidates && !is_chosen) {
      ++n_hidden;
      continue;
    }
    const Style style = is_chosen             ? Style::kGood
                        : item.dropped_by < 0 ? Style::kAccent
                                              : Style::kDim;
    std::vector<Cell> cells = {{pieces.quoted(item.id), style},
                               fmt::format("{}", item.id),
                               number(item.logit),
                               share(item.raw_probability),
                               number(item.score),
                               share(item.probability),
                               {mark(step, item), is_chosen ? Style::kGood : Style::kDim}};
    if (has_seen) {
      cells.emplace_back(seen_in(item), Style::kDim);
    }
    table.add_row(std::move(cells));
  }
  terminal->print("\n" + table.render(*terminal));
  if (n_hidden > 0) {
    terminal->print(terminal->paint(Style::kDim, fmt::format("and {} more", n_hidden)) + "\n");
  }
}

// What stands before the step, as much as fits in a line.
std::string text_before(const std::vector<const TracedStep*>& steps, const TracedStep& step,
                        const PieceTexts& pieces, size_t width) {
  std::string text;
  for (const TracedStep* other : steps) {
    if (other->step < step.step) {
      text += pieces.text(other->id);
    }
  }
  std::string line = printable(text);
  while (display_width(line) > width) {
    line.erase(0, std::max<size_t>(prefix_of_width(line, 1), 1));
  }
  return line;
}

void add_tie_words(const RunTrace& run, const TracedStep& step, const PieceTexts& pieces,
                   std::vector<std::string>* words) {
  if (step.n_tied_at_max > 1) {
    std::string names;
    constexpr size_t kNamed = 4;
    for (size_t i = 0; i < std::min(kNamed, step.tied_at_max.size()); ++i) {
      names += (i == 0 ? "" : ", ") + pieces.quoted(step.tied_at_max[i]);
    }
    const bool is_greedy = std::isnan(step.draw);
    words->push_back(fmt::format("{} tie at the maximum: their {} logits are equal ({}{}){}",
                                 counted(step.n_tied_at_max, "token"),
                                 setting_value(run, "logits_dtype", "float32"), names,
                                 step.n_tied_at_max > static_cast<int64_t>(kNamed) ? ", ..." : "",
                                 is_greedy ? "; greedy decoding takes the lowest id" : ""));
  }
  for (const TracedStage& stage : step.stages) {
    if (stage.tied_dropped > 0) {
      words->push_back(fmt::format("{} cut through a group of {} equal tokens: {} kept, {} dropped",
                                   setting(run, stage.name), stage.tied_kept + stage.tied_dropped,
                                   stage.tied_kept, stage.tied_dropped));
    } else if (stage.tied_kept > 1) {
      words->push_back(fmt::format("{} kept {} equal tokens at its cut", setting(run, stage.name),
                                   stage.tied_kept));
    }
  }
}

void add_choice_words(const RunTrace& run, const TracedStep& step, const PieceTexts& pieces,
                      std::vector<std::string>* words) {
  const int64_t survivors = step.stages.empty() ? run.vocab_size : step.stages.back().survivors;
  if (survivors == 1) {
    words->push_back("one token was left: nothing was there to choose");
  }
  const TracedCandidate* best = step.candidates.empty() ? nullptr : &step.candidates.front();
  if (best == nullptr || step.raw_rank <= 1 || best->id == step.id) {
    return;
  }
  if (best->dropped_by >= 0) {
    words->push_back(fmt::format("the model's best token {} was {}", pieces.quoted(best->id),
                                 fate(step, *best)));
  } else if (std::isnan(step.draw)) {
    words->push_back(fmt::format("the settings moved the model's best token {} behind {}",
                                 pieces.quoted(best->id), pieces.quoted(step.id)));
  } else {
    words->push_back(fmt::format(
        "the model's best token {} had {} and was not drawn: chance took {}, which had {}",
        pieces.quoted(best->id), percent(best->probability), pieces.quoted(step.id),
        percent(step.probability)));
  }
}

Json stage_json(const TracedStage& stage) {
  return {{"name", stage.name},
          {"survivors", stage.survivors},
          {"mass", finite(stage.mass)},
          {"measure", stage.measure},
          {"threshold", finite(stage.threshold)},
          {"cut_score", finite(stage.cut_score)},
          {"tied_kept", stage.tied_kept},
          {"tied_dropped", stage.tied_dropped},
          {"changed", stage.changed},
          {"changed_in_prompt", stage.changed_in_prompt},
          {"changed_in_answer", stage.changed_in_answer}};
}

Json candidate_json(const TracedStep& step, const TracedCandidate& candidate,
                    const PieceTexts& pieces) {
  const auto stage = static_cast<size_t>(std::max(candidate.dropped_by, 0));
  const bool was_dropped = candidate.dropped_by >= 0 && stage < step.stages.size();
  return {{"id", candidate.id},
          {"text", pieces.json(candidate.id)},
          {"logit", finite(candidate.logit)},
          {"score", finite(candidate.score)},
          {"raw_probability", finite(candidate.raw_probability)},
          {"probability", finite(candidate.probability)},
          {"dropped_by", was_dropped ? Json(step.stages[stage].name) : Json()},
          {"in_prompt", candidate.in_prompt},
          {"in_answer", candidate.in_answer}};
}

}  // namespace

PieceTexts::PieceTexts(const RunEnd& end) {
  for (const auto& [id, text] : end.pieces) {
    texts_.emplace(id, text);
  }
}

std::string PieceTexts::text(TokenId id) const {
  const auto found = texts_.find(id);
  return found == texts_.end() ? "" : found->second;
}

std::string PieceTexts::quoted(TokenId id) const {
  const auto found = texts_.find(id);
  return found == texts_.end() ? fmt::format("#{}", id)
                               : fmt::format("'{}'", printable(found->second));
}

Json PieceTexts::json(TokenId id) const {
  const auto found = texts_.find(id);
  return found == texts_.end() ? Json() : Json(found->second);
}

void ExplainFlag::declare(CLI::App& app, const std::string& meaning) {
  app.add_flag(fmt::format("--explain{{{}}}", kMostDoubtful), text,
               meaning +
                   ": the text by doubt, then one step taken apart, with its candidates and what "
                   "became of each. --explain=N names the step (0 is the first token), or "
                   "SEQUENCE:STEP; without it the least likely token's.")
      ->group("Result");
}

Result<ExplainedStep> ExplainFlag::step() const {
  ExplainedStep wanted;
  if (text.empty() || text == kMostDoubtful) {
    return wanted;
  }
  const auto read = [](std::string_view word) -> std::optional<int64_t> {
    constexpr size_t kDigits = 15;
    if (word.empty() || word.size() > kDigits ||
        word.find_first_not_of("0123456789") != std::string_view::npos) {
      return std::nullopt;
    }
    return std::stoll(std::string(word));
  };
  const size_t colon = text.find(':');
  const std::string_view whole = text;
  const auto sequence = colon == std::string::npos ? 0 : read(whole.substr(0, colon));
  wanted.step = read(colon == std::string::npos ? whole : whole.substr(colon + 1));
  if (!sequence || !wanted.step) {
    return fail(ErrorCode::kUsage,
                "--explain: `{}` found, want the number of a step (0 is the first token) or "
                "SEQUENCE:STEP",
                printable(text));
  }
  wanted.sequence = *sequence;
  return wanted;
}

const TracedStep* find_step(const TraceMemory& trace, const ExplainedStep& wanted) {
  const TracedStep* found = nullptr;
  for (const TracedStep& step : trace.steps()) {
    if (step.sequence != wanted.sequence || (wanted.step && step.step != *wanted.step)) {
      continue;
    }
    // A NaN is the most doubtful of all.
    if (found == nullptr || std::isnan(step.raw_probability) ||
        step.raw_probability < found->raw_probability) {
      found = &step;
    }
  }
  return found;
}

Result<const TracedStep*> require_step(const TraceMemory& trace, const ExplainedStep& wanted) {
  const TracedStep* step = find_step(trace, wanted);
  if (step != nullptr) {
    return step;
  }
  if (trace.steps().empty()) {
    return fail(ErrorCode::kInvalidArgument, "--explain: the run has no steps of its own{}",
                trace.beam_steps().empty() ? ""
                                           : "; beam search chooses among whole continuations, "
                                             "and --trace FILE keeps how");
  }
  const auto n = static_cast<int64_t>(steps_of(trace, wanted.sequence).size());
  if (n == 0) {
    return fail(ErrorCode::kInvalidArgument, "--explain: sequence {} found, want one below {}",
                wanted.sequence, trace.run().sequence_prompts.size());
  }
  return fail(ErrorCode::kInvalidArgument, "--explain: step {} found, want 0 to {}",
              wanted.step.value_or(0), n - 1);
}

std::vector<std::string> step_words(const RunTrace& run, const TracedStep& step,
                                    const PieceTexts& pieces) {
  std::vector<std::string> words;
  if (std::isnan(step.raw_probability) || std::isnan(step.largest_logit)) {
    words.emplace_back("the logits hold NaN or infinity: probabilities do not exist here");
    return words;
  }
  add_tie_words(run, step, pieces, &words);
  for (const TracedStage& stage : step.stages) {
    if (stage.changed > 0) {
      words.push_back(fmt::format("{} {}", setting(run, stage.name), stage_remark(stage)));
    }
  }
  add_choice_words(run, step, pieces, &words);
  if (!std::isnan(step.draw_margin) && step.draw_runner_up >= 0) {
    words.push_back(
        fmt::format("the draw: {} came out ahead of {} by {:.3g} (E = {:.4g}, key {:.4g})",
                    pieces.quoted(step.id), pieces.quoted(step.draw_runner_up), step.draw_margin,
                    step.draw, step.draw_key));
  }
  return words;
}

void print_explanation(Terminal* terminal, const TraceMemory& trace, const TracedStep& step) {
  const PieceTexts pieces(trace.ended());
  const RunTrace& run = trace.run();
  const std::vector<const TracedStep*> steps = steps_of(trace, step.sequence);
  print_answer(terminal, steps, pieces);
  print_doubtful(terminal, steps, pieces);

  const bool is_only = run.sequence_prompts.size() <= 1;
  print_heading(terminal, fmt::format("Step {}{}: {}, id {}",
                                      is_only ? "" : fmt::format("{}:", step.sequence), step.step,
                                      pieces.quoted(step.id), step.id));
  const auto columns = static_cast<size_t>(terminal->columns());
  const std::string before = text_before(steps, step, pieces, columns > 12 ? columns - 8 : 4);
  if (!before.empty()) {
    terminal->print(terminal->paint(Style::kDim, "after: " + before) + "\n");
  }
  print_lines(
      terminal,
      fmt::format("the model gave it {} (rank {}); after the settings {} (rank {}); entropy "
                  "{:.2f} nats, then {:.2f}",
                  percent(step.raw_probability), with_commas(step.raw_rank),
                  percent(step.probability), with_commas(step.rank), step.raw_entropy,
                  step.entropy),
      Style::kPlain, "", "");
  for (const std::string& sentence : step_words(run, step, pieces)) {
    print_lines(terminal, sentence, Style::kWarn, "- ", "  ");
  }
  terminal->print("\n");
  print_funnel(terminal, run, step);
  print_candidates(terminal, step, pieces);
}

Json explanation_json(const TraceMemory& trace, const TracedStep& step) {
  const PieceTexts pieces(trace.ended());
  Json out = Json::object();
  out["sequence"] = step.sequence;
  out["step"] = step.step;
  out["id"] = step.id;
  out["text"] = pieces.json(step.id);
  out["logit"] = finite(step.logit);
  out["score"] = finite(step.score);
  out["raw_probability"] = finite(step.raw_probability);
  out["probability"] = finite(step.probability);
  out["raw_rank"] = step.raw_rank;
  out["rank"] = step.rank;
  out["raw_entropy"] = finite(step.raw_entropy);
  out["entropy"] = finite(step.entropy);
  out["log_sum_exp"] = finite(step.log_sum_exp);
  out["tail_log_sum_exp"] = finite(step.tail_log_sum_exp);
  out["largest_logit"] = finite(step.largest_logit);
  out["tied_at_max"] = step.tied_at_max;
  out["n_tied_at_max"] = step.n_tied_at_max;
  out["draw"] = finite(step.draw);
  out["draw_key"] = finite(step.draw_key);
  out["draw_margin"] = finite(step.draw_margin);
  out["draw_runner_up"] = step.draw_runner_up >= 0 ? Json(step.draw_runner_up) : Json();
  out["is_thinking"] = step.is_thinking;
  out["stages"] = Json::array();
  for (const TracedStage& stage : step.stages) {
    out["stages"].push_back(stage_json(stage));
  }
  out["candidates"] = Json::array();
  for (const TracedCandidate& candidate : step.candidates) {
    out["candidates"].push_back(candidate_json(step, candidate, pieces));
  }
  out["words"] = step_words(trace.run(), step, pieces);
  return out;
}

}  // namespace logitlab
