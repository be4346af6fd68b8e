#include "streamed_answer.h"

#include <cmath>

#include <fmt/format.h>

#include "base/env.h"
#include "base/utf8.h"
#include "build_version.h"
#include "interrupt.h"
#include "json_out.h"
#include "progress_bar.h"
#include "text/stream_decoder.h"

namespace logitlab {
namespace {

// A pointer that does not own: the engine outlives the decoder.
std::shared_ptr<const Tokenizer> borrowed(const Tokenizer& tokenizer) {
  return {std::shared_ptr<const void>(), &tokenizer};
}

StepRecord record_of(const StepEvent& event, int64_t n_alternatives) {
  StepRecord record;
  record.sequence = event.sequence;
  record.id = event.id;
  record.logit = event.logits[static_cast<size_t>(event.id)];
  record.probability = std::exp(static_cast<double>(record.logit) - log_sum_exp(event.logits));
  record.alternatives = top_alternatives(event.logits, n_alternatives);
  return record;
}

// The text of one sequence while it is made.
class TextStream {
 public:
  TextStream(const Engine& engine, Terminal* terminal, bool prints, bool shows_special)
      : terminal_(terminal),
        prints_(prints),
        decoder_(borrowed(engine.tokenizer()), !shows_special) {}

  // False: there is no use in going on.
  bool push(TokenId id) { return take(decoder_.push(id)); }
  [[nodiscard]] Result<std::string> finish() {
    if (status_) {
      take(decoder_.flush());
    }
    RETURN_IF_ERROR(status_);
    return std::move(text_);
  }

 private:
  bool take(Result<std::string> delta) {
    if (!delta) {
      status_ = tl::unexpected<Error>(std::move(delta).error());
      return false;
    }
    text_ += *delta;
    if (prints_ && !delta->empty()) {
      terminal_->print_untrusted(*delta);
      terminal_->flush();
    }
    return terminal_->is_writable();
  }

  Terminal* terminal_;
  bool prints_;
  StreamDecoder decoder_;
  std::string text_;
  Status status_;
};

Result<std::string> text_of(const Engine& engine, Terminal* terminal, bool shows_special,
                            const std::vector<TokenId>& ids) {
  TextStream stream(engine, terminal, false, shows_special);
  for (const TokenId id : ids) {
    stream.push(id);
  }
  return stream.finish();
}

Result<AnswerParts> parts_of(const Engine& engine, bool shows_special,
                             std::span<const TokenId> prompt, const SequenceResult& sequence) {
  ThinkingCounter counter(engine.thinking_ids(), prompt);
  std::vector<TokenId> thinking;
  std::vector<TokenId> answer;
  const std::optional<ThinkingIds> marks = engine.thinking_ids();
  for (size_t i = 0; i < sequence.ids.size(); ++i) {
    const TokenId id = sequence.ids[i];
    const bool is_end = sequence.stop_reason == StopReason::kEos && i + 1 == sequence.ids.size();
    const bool is_inside = counter.push(id, is_end);
    const bool is_mark = is_inside && (id == marks->open || id == marks->close);
    if (!is_mark) {
      (is_inside ? thinking : answer).push_back(id);
    }
  }
  AnswerParts parts;
  ASSIGN_OR_RETURN(parts.thinking, engine.tokenizer().decode(thinking, !shows_special));
  ASSIGN_OR_RETURN(parts.answer, engine.tokenizer().decode(answer, !shows_special));
  ASSIGN_OR_RETURN(const std::string plain, engine.tokenizer().decode(answer, true));
  parts.outcome =
      thinking_outcome(sequence, plain.find_first_not_of(" \t\r\n") == std::string::npos);
  return parts;
}

bool is_lone(const AnswerRequest& request, const GenerationConfig& config) {
  return request.prompts.size() == 1 && config.num_return_sequences.value_or(1) == 1 &&
         config.num_beams.value_or(1) == 1;
}

}  // namespace

Result<Answer> stream_answer(Engine& engine, Invocation& invocation, const AnswerRequest& request) {
  Answer answer;
  answer.settings = merge_generation_config(request.config, engine.defaults());
  Terminal& terminal = invocation.terminal;
  answer.was_streamed = request.prints_text && is_lone(request, answer.settings.config);
  TextStream stream(engine, &terminal, answer.was_streamed, request.shows_special);
  ProgressBar bar(&terminal, true);
  GenerateOptions options;
  options.progress = &bar;
  options.trace = request.trace;
  options.is_cancelled = [&] {
    return InterruptGuard::was_interrupted() || !terminal.is_writable();
  };
  options.on_step_needs_rows = request.n_alternatives > 0;
  options.on_step = [&](const StepEvent& event) {
    answer.has_nan = answer.has_nan || (!event.logits.empty() &&
                                        std::isnan(event.logits[static_cast<size_t>(event.id)]));
    if (request.n_alternatives > 0) {
      answer.steps.push_back(record_of(event, request.n_alternatives));
    }
    return !answer.was_streamed || stream.push(event.id);
  };
  ASSIGN_OR_RETURN(answer.result, engine.generate(request.prompts, request.config, options));
  for (const SequenceResult& sequence : answer.result.sequences) {
    ASSIGN_OR_RETURN(std::string text,
                     answer.was_streamed
                         ? stream.finish()
                         : text_of(engine, &terminal, request.shows_special, sequence.ids));
    answer.texts.push_back(std::move(text));
    const auto& prompt = request.prompts[static_cast<size_t>(sequence.prompt)];
    ASSIGN_OR_RETURN(answer.parts.emplace_back(),
                     parts_of(engine, request.shows_special, prompt.ids, sequence));
  }
  return answer;
}

double decode_rate(const GenerationResult& result) {
  const auto n_later = result.new_tokens() - static_cast<int64_t>(result.sequences.size());
  return n_later > 0 && result.decode_seconds > 0
             ? static_cast<double>(n_later) / result.decode_seconds
             : 0;
}

std::string thinking_remark(const SequenceResult& sequence, ThinkingOutcome outcome) {
  switch (outcome) {
    case ThinkingOutcome::kNone:
    case ThinkingOutcome::kAnswered:
      return "";
    case ThinkingOutcome::kSaidNothing:
      return fmt::format("it thought ({} tokens) and then said nothing (stop={})",
                         sequence.thinking_tokens, name(sequence.stop_reason));
    case ThinkingOutcome::kCut:
      return fmt::format(
          "the limit of tokens came inside the thinking ({} tokens): there is no answer",
          sequence.thinking_tokens);
    case ThinkingOutcome::kBrokenOff:
      return fmt::format("it ended inside the thinking ({} tokens, stop={}): there is no answer",
                         sequence.thinking_tokens, name(sequence.stop_reason));
  }
  return "";
}

void add_thinking_json(const SequenceResult& sequence, const AnswerParts& parts, Json* out) {
  const bool has_thinking = parts.outcome != ThinkingOutcome::kNone;
  const std::string remark = thinking_remark(sequence, parts.outcome);
  (*out)["thinking_tokens"] = sequence.thinking_tokens;
  (*out)["answer_tokens"] = sequence.answer_tokens;
  (*out)["thinking_outcome"] = has_thinking ? Json(std::string(name(parts.outcome))) : Json();
  (*out)["thinking_remark"] = remark.empty() ? Json() : Json(remark);
  (*out)["thinking_text"] = has_thinking ? Json(parts.thinking) : Json();
  (*out)["answer_text"] = has_thinking ? Json(parts.answer) : Json();
}

std::string receipt_line(const GenerationResult& result) {
  std::string line =
      fmt::format("prompt_tokens={} new_tokens={} ", result.prompt_tokens, result.new_tokens());
  int64_t thinking = 0;
  int64_t answered = 0;
  std::string stops;
  for (const SequenceResult& sequence : result.sequences) {
    thinking += sequence.thinking_tokens;
    answered += sequence.answer_tokens;
    const std::string_view stop = name(sequence.stop_reason);
    if (stops.find(stop) == std::string::npos) {
      stops += fmt::format("{}{}", stops.empty() ? "" : ",", stop);
    }
  }
  if (thinking > 0) {
    line += fmt::format("thinking_tokens={} answer_tokens={} ", thinking, answered);
  }
  if (result.sequences.size() > 1) {
    line += fmt::format("sequences={} ", result.sequences.size());
  }
  return line + fmt::format("first_token_s={:.3f} tok_per_s={:.1f} peak_memory_mib={} stop={}",
                            result.first_token_seconds, decode_rate(result),
                            read_memory().peak_resident_bytes >> 20, stops);
}

Json timings_json(const GenerationResult& result) {
  Json out = Json::object();
  out["prompt_tokens"] = result.prompt_tokens;
  out["reused_prompt_tokens"] = result.reused_prompt_tokens;
  out["new_tokens"] = result.new_tokens();
  out["prefill_seconds"] = result.prefill_seconds;
  out["first_token_seconds"] = result.first_token_seconds;
  out["decode_seconds"] = result.decode_seconds;
  out["decode_tokens_per_second"] = decode_rate(result);
  out["peak_memory_bytes"] = read_memory().peak_resident_bytes;
  return out;
}

std::string machine_line(const Engine& engine) {
  return fmt::format("device {}, {}, {} thread{}", engine.backend().name(), engine.backend().isa(),
                     engine.n_threads(), engine.n_threads() == 1 ? "" : "s");
}

Json machine_json(const Engine& engine) {
  Json out = Json::object();
  out["device"] = std::string(engine.backend().name());
  out["isa"] = std::string(engine.backend().isa());
  out["threads"] = engine.n_threads();
  out["cpu"] = cpu_model_name();
  out["version"] = std::string(build_version());
  out["commit"] = std::string(build_commit());
  out["compiler"] = std::string(build_compiler());
  out["build_type"] = std::string(build_type());
  return out;
}

std::string quoted_piece(const Tokenizer& tokenizer, TokenId id) {
  const auto piece = tokenizer.piece(id);
  return piece ? fmt::format("'{}'", printable(*piece)) : "(not in the vocabulary)";
}

Json alternatives_json(const Tokenizer& tokenizer, std::span<const Alternative> alternatives) {
  Json out = Json::array();
  for (const Alternative& item : alternatives) {
    const auto piece = tokenizer.piece(item.id);
    out.push_back({{"id", item.id},
                   {"logit", item.logit},
                   {"probability", item.probability},
                   {"text", piece ? Json(*piece) : Json()}});
  }
  return out;
}

}  // namespace logitlab
