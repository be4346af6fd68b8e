// studies: the studies that are built in.
#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "command.h"
#include "json_out.h"
#include "lab/study/study_file.h"
#include "sampling/generation_fields.h"
#include "text_layout.h"

namespace logitlab {
namespace {

// A course counts what its studies count.
struct StudySize {
  int64_t runs = 0;
  int64_t new_tokens_at_most = 0;
};

Result<StudySize> size_of(const Study& study) {
  StudySize size{static_cast<int64_t>(plan_runs(study).size()), new_tokens_at_most(study)};
  for (const std::string& name : study.studies) {
    ASSIGN_OR_RETURN(const Study part, find_study(name));
    size.runs += static_cast<int64_t>(plan_runs(part).size());
    size.new_tokens_at_most += new_tokens_at_most(part);
  }
  return size;
}

Json summary_json(const Study& study, const StudySize& size) {
  Json item = Json::object();
  item["name"] = study.name;
  item["title"] = study.title;
  item["question"] = study.question;
  item["runs"] = size.runs;
  item["new_tokens_at_most"] = size.new_tokens_at_most;
  item["studies"] = study.studies;
  return item;
}

Json document_of(const Study& study, const StudySize& size) {
  Json item = summary_json(study, size);
  item["expect"] = study.expectation;
  item["reading"] = study.reading;
  item["notes"] = study.notes;
  item["prompts"] = Json::array();
  for (const StudyPrompt& prompt : study.prompts) {
    Json messages = Json::array();
    for (const StudyMessage& message : prompt.messages) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
    item["prompts"].push_back({{"name", prompt.name},
                               {"text", prompt.text},
                               {"messages", std::move(messages)},
                               {"chat", prompt.is_chat}});
  }
  item["settings"] = Json::array();
  for (const StudySetting& setting : study.settings) {
    item["settings"].push_back({{"name", setting.name},
                                {"config", to_json(setting.config)},
                                {"runs", setting.runs},
                                {"control", setting.is_control}});
  }
  item["yaml"] = study.source;
  return item;
}

Result<int> list_studies(Invocation& invocation) {
  Terminal& terminal = invocation.terminal;
  Table table({{"study", Align::kLeft},
               {"question", Align::kLeft},
               {"runs", Align::kRight},
               {"tokens", Align::kRight}});
  Json document = Json::object();
  document["studies"] = Json::array();
  for (const BundledStudy& bundled : bundled_studies()) {
    ASSIGN_OR_RETURN(const Study study, find_study(bundled.name));
    ASSIGN_OR_RETURN(const StudySize size, size_of(study));
    document["studies"].push_back(summary_json(study, size));
    table.add_row({Cell(study.name, Style::kAccent), study.question, with_commas(size.runs),
                   with_commas(size.new_tokens_at_most)});
  }
  if (invocation.json) {
    print_json(&terminal, document);
    return 0;
  }
  terminal.print(table.render(terminal));
  for (const std::string& line :
       wrap("tokens: new ones at most, before shared beginnings are counted once. `logitlab study "
            "NAME` runs one, `logitlab studies NAME` prints its file.",
            static_cast<size_t>(terminal.columns()))) {
    terminal.print(terminal.paint(Style::kDim, line) + "\n");
  }
  return 0;
}

Result<int> run_studies(const std::string& name, Invocation& invocation) {
  if (name.empty()) {
    return list_studies(invocation);
  }
  ASSIGN_OR_RETURN(const Study study, find_study(name));
  if (!invocation.json) {
    invocation.terminal.print_untrusted(study.source);
    return 0;
  }
  ASSIGN_OR_RETURN(const StudySize size, size_of(study));
  print_json(&invocation.terminal, document_of(study, size));
  return 0;
}

Action declare_studies(CLI::App& app) {
  auto name = std::make_shared<std::string>();
  app.add_option("NAME", *name, "Prints the file of this study; a path checks a file of your own.");
  return [name](Invocation& invocation) { return run_studies(*name, invocation); };
}

}  // namespace

Command studies_command() {
  return {
      "studies",
      "the studies that are built in: their questions and what they cost",
      "Lists the built-in studies in the order of the first lesson, each with its question, the "
      "number of its runs and the new tokens they may make. With a name it prints that study's "
      "file, which is the best start for one of your own (docs/studies.md): change it, check "
      "it with `logitlab studies ./FILE.yaml`, run it with `logitlab study ./FILE.yaml`.",
      {{"studies", "all of them"},
       {"studies top-k > my-study.yaml", "a copy to change"},
       {"studies ./my-study.yaml --json", "what a file means, setting by setting"}},
      declare_studies};
}

}  // namespace logitlab
