// A trace as a person reads it: the answer coloured by doubt, and one step taken apart.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "command.h"
#include "logitlab/trace.h"
#include "terminal.h"
#include "trace/trace_file.h"

namespace logitlab {

// Texts of the ids of a run, as its trace holds them.
class PieceTexts {
 public:
  explicit PieceTexts(const RunEnd& end);
  // Empty when the trace has none.
  [[nodiscard]] std::string text(TokenId id) const;
  // "' sky'", or "#123" when the trace has no text for it.
  [[nodiscard]] std::string quoted(TokenId id) const;
  // null when the trace has none.
  [[nodiscard]] Json json(TokenId id) const;

 private:
  std::unordered_map<TokenId, std::string> texts_;
};

// Which step of which sequence; none: the one whose token was the least likely.
struct ExplainedStep {
  int64_t sequence = 0;
  std::optional<int64_t> step;
};

// The flag --explain, --explain=12 or --explain=1:12 (sequence:step). Its value is not a word of
// its own, so that it cannot be mistaken for the prompt.
struct ExplainFlag {
  std::string text;

  void declare(CLI::App& app, const std::string& meaning);
  [[nodiscard]] bool is_given() const { return !text.empty(); }
  // kUsage when the value is neither.
  [[nodiscard]] Result<ExplainedStep> step() const;
};

// Null when the trace has no such step (of any step: no steps at all, as in beam search).
[[nodiscard]] const TracedStep* find_step(const TraceMemory& trace, const ExplainedStep& wanted);
// The same; kInvalidArgument says which there are.
[[nodiscard]] Result<const TracedStep*> require_step(const TraceMemory& trace,
                                                     const ExplainedStep& wanted);

// What happened at the step, one sentence each: ties, what was cut, what was drawn and what not.
[[nodiscard]] std::vector<std::string> step_words(const RunTrace& run, const TracedStep& step,
                                                  const PieceTexts& pieces);

// The whole sequence by doubt, its least likely tokens, then the step.
void print_explanation(Terminal* terminal, const TraceMemory& trace, const TracedStep& step);
// The step with the names of the trace's schema, and "words".
[[nodiscard]] Json explanation_json(const TraceMemory& trace, const TracedStep& step);

}  // namespace logitlab
