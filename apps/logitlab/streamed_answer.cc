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
  record.id = event.id;
  record.logit = event.logits[static_cast<size_t>(event.id)];
  record.probability = std::exp(static_cast<double>(record.logit) - log_sum_exp(event.logits));
  record.alternatives = top_alternatives(event.logits, n_alternatives);
  return record;
}

}  // namespace

Result<Answer> stream_answer(Engine& engine, Invocation& invocation, const AnswerRequest& request) {
  Answer answer;
  answer.settings = merge_generation_config(request.config, engine.defaults());
  Terminal& terminal = invocation.terminal;
  StreamDecoder decoder(borrowed(engine.tokenizer()), !request.shows_special);
  Status decoded;
  ProgressBar bar(&terminal, true);
  const auto take = [&](Result<std::string> delta) {
    if (!delta) {
      decoded = tl::unexpected<Error>(std::move(delta).error());
      return false;
    }
    answer.text += *delta;
    if (request.prints_text && !delta->empty()) {
      terminal.print_untrusted(*delta);
      terminal.flush();
    }
    return terminal.is_writable();
  };
  GenerateOptions options;
  options.progress = &bar;
  options.is_cancelled = [&] {
    return InterruptGuard::was_interrupted() || !terminal.is_writable();
  };
  options.on_step = [&](const StepEvent& event) {
    if (request.n_alternatives > 0) {
      answer.steps.push_back(record_of(event, request.n_alternatives));
    }
    return take(decoder.push(event.id));
  };
  ASSIGN_OR_RETURN(answer.result,
                   engine.generate(request.prompt, request.config, options, request.state));
  if (decoded) {
    take(decoder.flush());
  }
  if (!decoded) {
    return tl::unexpected<Error>(std::move(decoded).error());
  }
  return answer;
}

double decode_rate(const GenerationResult& result) {
  return result.first().ids.size() > 1 && result.decode_seconds > 0
             ? static_cast<double>(result.first().ids.size() - 1) / result.decode_seconds
             : 0;
}

std::string receipt_line(const GenerationResult& result) {
  return fmt::format(
      "prompt_tokens={} new_tokens={} first_token_s={:.3f} tok_per_s={:.1f} peak_memory_mib={} "
      "stop={}",
      result.prompt_tokens, result.first().ids.size(), result.first_token_seconds, decode_rate(result),
      read_memory().peak_resident_bytes >> 20, name(result.first().stop_reason));
}

Json timings_json(const GenerationResult& result) {
  Json out = Json::object();
  out["prompt_tokens"] = result.prompt_tokens;
  out["reused_prompt_tokens"] = result.reused_prompt_tokens;
  out["new_tokens"] = result.first().ids.size();
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
