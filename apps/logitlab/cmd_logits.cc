// logits: the raw output of the model for given ids or text.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/env.h"
#include "command.h"
#include "formats/npy.h"
#include "json_out.h"
#include "model_options.h"
#include "sampling/distribution.h"
#include "streamed_answer.h"
#include "text_input.h"
#include "text_layout.h"

namespace logitlab {
namespace {

struct LogitsOptions {
  ModelOptions model;
  TextInput input;
  std::vector<std::string> ids;
  bool no_add_special = false;
  bool all = false;
  bool full = false;
  int64_t top = 10;
  std::string out;
};

Result<std::vector<TokenId>> input_ids(const LogitsOptions& options, const Tokenizer& tokenizer) {
  std::vector<TokenId> ids;
  if (!options.ids.empty()) {
    if (options.input.is_given()) {
      return fail(ErrorCode::kUsage, "logits: --ids and a text were given; want one of them");
    }
    ASSIGN_OR_RETURN(ids, parse_ids(options.ids));
  } else {
    ASSIGN_OR_RETURN(const std::string text, options.input.read("text"));
    EncodeOptions encode;
    encode.add_special_tokens = !options.no_add_special;
    ASSIGN_OR_RETURN(ids, tokenizer.encode(text, encode));
  }
  if (ids.empty()) {
    return fail(ErrorCode::kInvalidArgument, "the input has no tokens; want at least one");
  }
  return ids;
}

// All rows at once may be more than the machine has: said before the work, not after.
Status check_memory(int64_t rows, int64_t vocab_size) {
  const size_t wanted = static_cast<size_t>(rows) * static_cast<size_t>(vocab_size) * sizeof(float);
  const size_t available = read_memory().available_bytes;
  if (available != 0 && wanted > available / 2) {
    return fail(
        ErrorCode::kResourceExhausted,
        "{} rows of {} logits take {}, and {} of memory are available; give fewer tokens or "
        "leave --all out",
        rows, vocab_size, human_bytes(wanted), human_bytes(available));
  }
  return {};
}

// Of the token that really follows: its rank (1 is the best) among the row.
int64_t rank_of(std::span<const float> row, TokenId id) {
  const float own = row[static_cast<size_t>(id)];
  return 1 + std::count_if(row.begin(), row.end(), [own](float other) { return other > own; });
}

void print_last(Terminal* terminal, const Tokenizer& tokenizer, std::span<const float> row,
                int64_t top) {
  Table table({{"rank", Align::kRight},
               {"id", Align::kRight},
               {"logit", Align::kRight},
               {"probability", Align::kRight},
               {"text", Align::kLeft}});
  int64_t rank = 0;
  for (const Alternative& item : top_alternatives(row, top)) {
    table.add_row({fmt::format("{}", ++rank),
                   fmt::format("{}", item.id),
                   fmt::format("{:.4f}", item.logit),
                   fmt::format("{:.6f}", item.probability),
                   {quoted_piece(tokenizer, item.id), Style::kAccent}});
  }
  terminal->print(table.render(*terminal));
}

void print_all(Terminal* terminal, const Tokenizer& tokenizer, const Logits& logits,
               const std::vector<TokenId>& ids) {
  Table table({{"position", Align::kRight},
               {"token", Align::kLeft},
               {"best next", Align::kLeft},
               {"probability", Align::kRight},
               {"real next", Align::kLeft},
               {"rank", Align::kRight}});
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto row = logits.row(static_cast<int64_t>(i));
    const std::vector<Alternative> best = top_alternatives(row, 1);
    const bool has_next = i + 1 < ids.size();
    table.add_row({fmt::format("{}", i),
                   quoted_piece(tokenizer, ids[i]),
                   {quoted_piece(tokenizer, best.front().id), Style::kAccent},
                   fmt::format("{:.4f}", best.front().probability),
                   has_next ? quoted_piece(tokenizer, ids[i + 1]) : "",
                   has_next ? fmt::format("{}", rank_of(row, ids[i + 1])) : ""});
  }
  terminal->print(table.render(*terminal));
}

Json document_of(const LogitsOptions& options, const Engine& engine, const Logits& logits,
                 const std::vector<TokenId>& ids) {
  Json document = Json::object();
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  document["ids"] = ids;
  document["vocab_size"] = logits.vocab_size;
  document["rows"] = Json::array();
  const auto first = static_cast<int64_t>(ids.size()) - logits.rows;
  for (int64_t i = 0; i < logits.rows; ++i) {
    const auto row = logits.row(i);
    Json item = Json::object();
    item["position"] = first + i;
    item["id"] = ids[static_cast<size_t>(first + i)];
    item["entropy_nats"] = entropy(row);
    item["top"] = alternatives_json(engine.tokenizer(), top_alternatives(row, options.top));
    if (options.full) {
      item["logits"] = std::vector<float>(row.begin(), row.end());
    }
    document["rows"].push_back(std::move(item));
  }
  document["out"] = options.out.empty() ? Json() : Json(options.out);
  return document;
}

Result<int> run_logits(const LogitsOptions& options, Invocation& invocation) {
  if (options.ids.empty() && !options.input.is_given()) {
    return fail(ErrorCode::kUsage,
                "logits: nothing to read; give a TEXT, --file FILE, `-` for standard input, or "
                "--ids 1,2,3");
  }
  if (options.full && !invocation.json) {
    return fail(ErrorCode::kUsage, "logits: --full belongs to --json; for a file use --out x.npy");
  }
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation));
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids, input_ids(options, engine->tokenizer()));
  if (options.all) {
    RETURN_IF_ERROR(
        check_memory(static_cast<int64_t>(ids.size()), engine->model().config().vocab_size));
  }
  ASSIGN_OR_RETURN(const Logits logits, engine->logits(ids, options.all));
  if (!options.out.empty()) {
    const int64_t shape[] = {logits.rows, logits.vocab_size};
    RETURN_IF_ERROR(write_npy(options.out, std::span<const float>(logits.values), shape));
  }
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    print_json(&terminal, document_of(options, *engine, logits, ids));
  } else if (!options.out.empty()) {
    terminal.print(
        fmt::format("{}: float32 [{}, {}]\n", options.out, logits.rows, logits.vocab_size));
  } else if (options.all) {
    print_all(&terminal, engine->tokenizer(), logits, ids);
  } else {
    print_last(&terminal, engine->tokenizer(), logits.row(logits.rows - 1), options.top);
  }
  return 0;
}

Action declare_logits(CLI::App& app) {
  auto options = std::make_shared<LogitsOptions>();
  options->input.declare(app, "TEXT", "The text whose next token is asked about.");
  app.add_option("--ids", options->ids,
                 "Token ids in place of a text: 1,2,3. They are used as they are.")
      ->type_name("IDS")
      ->allow_extra_args(false)
      ->group("Input");
  app.add_flag("--no-add-special", options->no_add_special,
               "Leaves out what the tokenizer puts around a text (BOS, EOS).")
      ->group("Input");
  app.add_flag("--all", options->all,
               "Every position, not the last one alone: one row a token of the input.")
      ->group("Result");
  app.add_option("--top", options->top,
                 "How many of the best tokens are listed, 1 to 1000. Default 10.")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->group("Result");
  app.add_option("--out", options->out,
                 "Writes the raw logits as NumPy float32 [rows, vocab_size].")
      ->type_name("FILE.npy")
      ->group("Result");
  app.add_flag("--full", options->full, "With --json: whole rows, not the best tokens alone.")
      ->group("Result");
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_logits(*options, invocation); };
}

}  // namespace

Command logits_command() {
  return {
      "logits",
      "the raw logits of the next token, for a text or for token ids",
      "Runs the model once over the input and shows what it says about the next token, before "
      "any setting touches it: the raw logit, and the probability that softmax gives over the "
      "whole vocabulary. No chat template is applied; `logitlab template` renders one.",
      {{"logits \"The capital of France is\"", "the ten likeliest next tokens"},
       {"logits --ids 504,3575,282 --all", "one line a position: the best token and the real one"},
       {"logits \"Hello\" --all --out hello.npy", "every logit, for NumPy"},
       {"logits \"Hello\" --json --full", "one whole row as JSON"}},
      declare_logits};
}

}  // namespace logitlab
