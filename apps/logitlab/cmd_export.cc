// export: a stored run or study as JSON or CSV.
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/file.h"
#include "base/utf8.h"
#include "command.h"
#include "json_out.h"
#include "run_json.h"
#include "store_options.h"

namespace logitlab {
namespace {

struct ExportOptions {
  StoreOptions store;
  int64_t run = 0;
  int64_t study = 0;
  std::string format = "json";
  std::string out;
  bool traces = false;
};

using Write = std::function<void(std::string_view)>;

std::string csv_cell(std::string_view text) {
  std::string valid = replace_invalid_utf8(text);
  if (valid.find_first_of(",\"\r\n") == std::string::npos) {
    return valid;
  }
  std::string out = "\"";
  for (const char c : valid) {
    out += c;
    if (c == '"') {
      out += '"';
    }
  }
  return out + '"';
}

constexpr std::string_view kCsvHeader =
    "run,study,index,prompt_name,setting_name,repetition,seed,is_control,stop_reason,stop_id,"
    "prompt_tokens,tokens,thinking_tokens,answer_tokens,logits_hash,seconds,settings,execution,"
    "ids,text\r\n";

std::string csv_line(const RunRecord& run) {
  return fmt::format(
      "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{:016x},{},{},{},{},{}\r\n", run.id,
      run.study == 0 ? "" : std::to_string(run.study), run.index, csv_cell(run.prompt_name),
      csv_cell(run.setting_name), run.run, run.seed, run.is_control, csv_cell(run.stop_reason),
      run.stop_id < 0 ? "" : std::to_string(run.stop_id), run.prompt_ids.size(), run.ids.size(),
      run.thinking_tokens, run.answer_tokens, run.hash, run.seconds, csv_cell(run.config_json),
      csv_cell(run.execution_json), fmt::join(run.ids, " "), csv_cell(run.text));
}

// The trace's lines stand in the document as they are: each is a JSON object.
std::string json_text(const RunRecord& run, bool with_trace) {
  std::string text = dump_json(json_of(run));
  if (!with_trace || run.trace.empty()) {
    return text;
  }
  text.back() = ',';
  text += "\"trace\":[";
  for (const char c : run.trace) {
    text += c == '\n' ? ',' : c;
  }
  text.back() = ']';
  return text + '}';
}

// One run in memory at a time.
Status write_runs(const ExportOptions& options, Store* store, const Write& write) {
  const bool is_csv = options.format == "csv";
  if (options.run > 0) {
    ASSIGN_OR_RETURN(const RunRecord run, store->run(options.run));
    write(is_csv ? std::string(kCsvHeader) + csv_line(run) : json_text(run, options.traces) + "\n");
    return {};
  }
  ASSIGN_OR_RETURN(const StudyRecord study, store->study(options.study));
  write(is_csv ? std::string(kCsvHeader)
               : "{\"study\":" + dump_json(json_of(study)) + ",\"runs\":[");
  bool is_first = true;
  RETURN_IF_ERROR(store->visit_runs(
      study.id,
      [&](const RunRecord& run) -> Status {
        write(is_csv ? csv_line(run) : (is_first ? "\n" : ",\n") + json_text(run, options.traces));
        is_first = false;
        return {};
      },
      options.traces));
  write(is_csv ? "" : "\n]}\n");
  return {};
}

Result<int> run_export(const ExportOptions& options, Invocation& invocation) {
  if ((options.run > 0) == (options.study > 0)) {
    return fail(ErrorCode::kUsage, "export: found {}, want a run's number or --study ID",
                options.run > 0 ? "both a run and a study" : "neither a run nor a study");
  }
  if (options.traces && options.format == "csv") {
    return fail(ErrorCode::kUsage,
                "export: --traces: a table has no place for traces; want --format json");
  }
  ASSIGN_OR_RETURN(const auto store, open_to_read(options.store));
  if (options.out.empty() || options.out == "-") {
    RETURN_IF_ERROR(write_runs(options, store.get(),
                               [&](std::string_view text) { invocation.terminal.print(text); }));
    return 0;
  }
  std::string text;
  RETURN_IF_ERROR(write_runs(options, store.get(), [&](std::string_view part) { text += part; }));
  RETURN_IF_ERROR(write_file_atomically(options.out, text));
  if (invocation.json) {
    Json document = Json::object();
    document["out"] = options.out;
    document["bytes"] = text.size();
    print_json(&invocation.terminal, document);
  }
  return 0;
}

Action declare_export(CLI::App& app) {
  auto options = std::make_shared<ExportOptions>();
  const auto positive = CLI::Range(int64_t{1}, std::numeric_limits<int64_t>::max());
  app.add_option("RUN", options->run, "A run of the store.")->check(positive)->type_name("ID");
  app.add_option("--study", options->study, "A study of the store, with all its runs.")
      ->check(positive)
      ->type_name("ID");
  app.add_option("--format", options->format, "json or csv. Default: json.")
      ->check(CLI::IsMember({"json", "csv"}))
      ->type_name("FORMAT");
  app.add_option("--out", options->out, "Where to write; - or nothing: standard output.")
      ->type_name("FILE");
  app.add_flag("--traces", options->traces, "With the traces, as lists of records (JSON alone).");
  options->store.declare(app);
  return [options](Invocation& invocation) { return run_export(*options, invocation); };
}

}  // namespace

Command export_command() {
  return {"export",
          "a stored run or study as JSON or CSV",
          "Writes a run, or a study with all its runs, for other programs. A file is there whole "
          "or not at all. A CSV has one line per run.",
          {{"export 12 --traces", "run 12 with every step"},
           {"export --study 3 --format csv --out study.csv", "a table of the runs of study 3"}},
          declare_export};
}

}  // namespace logitlab
