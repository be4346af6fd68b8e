// report: a study of the store as one HTML file or as Markdown.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/file.h"
#include "command.h"
#include "json_out.h"
#include "lab/measures/study_results.h"
#include "lab/report/report.h"
#include "store_options.h"

namespace logitlab {
namespace {

struct ReportOptions {
  int64_t study = 0;
  std::string out;
  std::string reading;
  bool markdown = false;
  StoreOptions store;
};

Result<std::vector<StudyResults>> results_of(Store* store, const StudyRecord& record) {
  std::vector<StudyResults> results;
  ASSIGN_OR_RETURN(const std::vector<StudyRecord> parts, store->parts(record.id));
  for (const StudyRecord& part : parts) {
    ASSIGN_OR_RETURN(results.emplace_back(), analyse_study(store, part.id));
  }
  if (parts.empty()) {
    ASSIGN_OR_RETURN(results.emplace_back(), analyse_study(store, record.id));
  }
  return results;
}

Result<int> run_report(const ReportOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Store> store, options.store.open());
  if (!options.reading.empty()) {
    RETURN_IF_ERROR(store->set_reading(options.study, options.reading));
  }
  ASSIGN_OR_RETURN(const StudyRecord record, store->study(options.study));
  ASSIGN_OR_RETURN(std::vector<StudyResults> results, results_of(store.get(), record));

  const size_t studies = results.size();
  ASSIGN_OR_RETURN(const Report report, make_report(store.get(), record.id, std::move(results)));
  const std::string text = options.markdown ? to_markdown(report) : to_html(report);
  const std::string path =
      !options.out.empty()
          ? options.out
          : fmt::format("study-{}-{}.{}", record.name, record.id, options.markdown ? "md" : "html");
  RETURN_IF_ERROR(write_file_atomically(path, text));
  if (invocation.json) {
    Json document = Json::object();
    document["study"] = record.id;
    document["name"] = record.name;
    document["studies"] = studies;
    document["file"] = path;
    document["bytes"] = text.size();
    print_json(&invocation.terminal, document);
  } else {
    invocation.terminal.print(terminal_safe(path) + "\n");
  }
  return 0;
}

Action declare_report(CLI::App& app) {
  auto options = std::make_shared<ReportOptions>();
  app.add_option("STUDY_ID", options->study, "Number of a study or a course in the store.")
      ->required()
      ->type_name("ID")
      ->check(CLI::PositiveNumber);
  app.add_option("--out", options->out,
                 "Where to write it. Default: study-NAME-ID.html in this folder (.md with "
                 "--markdown).")
      ->type_name("FILE")
      ->group("Result");
  app.add_flag("--markdown", options->markdown, "Markdown in place of HTML; without charts.")
      ->group("Result");
  app.add_option("--reading", options->reading,
                 "Keeps this text with the study, as what was read from it afterwards.")
      ->type_name("TEXT")
      ->group("Result");
  options->store.declare(app);
  return [options](Invocation& invocation) { return run_report(*options, invocation); };
}

}  // namespace

Command report_command() {
  return {"report",
          "a study of the store as one HTML file, or as Markdown",
          "Writes the figures, charts and texts of a study into one file that needs no network and "
          "no scripts: the answer first, then what it rests on, then how to do it again. A course "
          "gets one page with contents. Prints the path of the file.",
          {{"report 3", "study 3 as study-NAME-3.html in this folder"},
           {"report 3 --markdown --out notes.md", "the same as Markdown"},
           {"report 3 --reading 'Only the temperature mattered.'", "with what you read from it"}},
          declare_report};
}

}  // namespace logitlab
