#include "lab/measures/verification.h"

#include <algorithm>
#include <string_view>

#include <fmt/format.h>

#include "trace/trace_file.h"

namespace logitlab {
namespace {

bool is_same(const TracedBeam& a, const TracedBeam& b) {
  return a.id == b.id && a.parent == b.parent && a.score == b.score;
}

bool is_same(const TracedBeamStep& a, const TracedBeamStep& b) {
  return a.prompt == b.prompt && a.finished == b.finished &&
         std::equal(a.running.begin(), a.running.end(), b.running.begin(), b.running.end(),
                    [](const TracedBeam& x, const TracedBeam& y) { return is_same(x, y); });
}

// Index of the first beam step that differs; -1: none.
int64_t first_other_beams(const TraceMemory& stored, const TraceMemory& again) {
  const auto& a = stored.beam_steps();
  const auto& b = again.beam_steps();
  const size_t shared = std::min(a.size(), b.size());
  for (size_t i = 0; i < shared; ++i) {
    if (!is_same(a[i], b[i])) {
      return a[i].step;
    }
  }
  return a.size() == b.size() ? -1 : static_cast<int64_t>(shared);
}

// What the two were made with, where it is not the same.
std::string circumstances(const RunTrace& stored, const RunTrace& again) {
  std::string out;
  const auto add = [&out](std::string_view what, const std::string& then, const std::string& now) {
    if (then != now) {
      out += fmt::format("{}{} {} then, {} now", out.empty() ? "" : "; ", what, then, now);
    }
  };
  add("model", stored.model + " " + stored.model_hash, again.model + " " + again.model_hash);
  add("device", stored.device, again.device);
  add("instructions", stored.isa, again.isa);
  add("build", stored.build, again.build);
  return out.empty() ? "model, device, instructions and build are the same" : out;
}

std::vector<TokenId> traced_ids(const TraceMemory& trace) {
  return trace.ended().sequences.empty() ? std::vector<TokenId>()
                                         : trace.ended().sequences.front().ids;
}

// The steps tell where the two part, and why.
Status explain(const RunRecord& stored, const RunRecord& again, const TraceMemory& then,
               const TraceMemory& now, Verification* out) {
  ASSIGN_OR_RETURN(
      out->divergence,
      find_divergence({&then.run(), &then.steps(), &then.ended(), 0, stored.execution_json},
                      {&now.run(), &now.steps(), &now.ended(), 0, again.execution_json}));
  const Divergence& found = *out->divergence;
  if (found.cause != DivergenceCause::kNone) {
    out->first_difference = found.step;
    out->verdict = found.verdict;
    return {};
  }
  if (found.first_hash_change >= 0) {
    out->first_difference = found.first_hash_change;
    out->verdict =
        fmt::format("Equal tokens ({}), but other logits from step {} on: {}.", out->n_tokens,
                    found.first_hash_change, circumstances(then.run(), now.run()));
  }
  return {};
}

Status explain_beams(const TraceMemory& then, const TraceMemory& now, Verification* out) {
  out->first_difference = first_other_beams(then, now);
  out->has_same_beams = out->first_difference < 0;
  if (!out->has_same_beams) {
    out->verdict = fmt::format("Beam search parts at step {}: {}.", out->first_difference,
                               circumstances(then.run(), now.run()));
  } else if (out->has_same_tokens) {
    out->verdict = fmt::format(
        "Equal tokens ({}) and equal beams with equal scores at all {} steps; beam search keeps no "
        "hash of the logits.",
        out->n_tokens, then.beam_steps().size());
  }
  return {};
}

}  // namespace

Result<Verification> verify_run(const RunRecord& stored, const RunRecord& again) {
  Verification out;
  out.has_same_tokens = stored.ids == again.ids;
  out.has_same_hash = stored.hash == again.hash;
  out.n_tokens = static_cast<int64_t>(stored.ids.size());
  if (stored.trace.empty()) {
    out.verdict = fmt::format(
        "{} tokens ({}), {} logits hash; the run has no trace that could say "
        "more.",
        out.has_same_tokens ? "Equal" : "Other", out.n_tokens,
        out.has_same_hash ? "equal" : "another");
    return out;
  }
  TraceMemory then;
  TraceMemory now;
  RETURN_IF_ERROR(parse_trace(stored.trace, fmt::format("run {}", stored.id), &then));
  RETURN_IF_ERROR(parse_trace(again.trace, "the run made again", &now));
  out.is_beam_search = !then.beam_steps().empty();
  if (out.is_beam_search) {
    RETURN_IF_ERROR(explain_beams(then, now, &out));
  } else if (out.is_equal()) {
    out.verdict =
        fmt::format("Equal tokens ({}), equal logits hash ({:016x}).", out.n_tokens, stored.hash);
  } else {
    RETURN_IF_ERROR(explain(stored, again, then, now, &out));
  }
  if (traced_ids(then) != stored.ids) {
    out.has_same_tokens = false;
    out.verdict = fmt::format(
        "The store contradicts itself: run {} has other tokens than its trace.", stored.id);
  } else if (out.verdict.empty()) {
    out.verdict = fmt::format(
        "The store contradicts itself: run {} has another logits hash than its "
        "trace.",
        stored.id);
  }
  return out;
}

}  // namespace logitlab
