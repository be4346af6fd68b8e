#include <algorithm>

#include <fmt/format.h>

#include "base/utf8.h"
#include "lab/report/charts.h"
#include "lab/report/report.h"
#include "lab/report/svg.h"

namespace logitlab {
namespace {

// One line in which no character is markup of Markdown or HTML.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : replace_invalid_utf8(text)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += ' ';
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      // The second list holds what is markup at the beginning of a line alone.
      const bool is_markup =
          std::string_view("\\`*_[]|~#>").find(c) != std::string_view::npos ||
          (out.empty() && std::string_view("+-!").find(c) != std::string_view::npos);
      if (is_markup && !(c == '>' && !out.empty())) {
        out += '\\';
      }
      out += c;
    }
  }
  return out;
}

std::string row(const std::vector<std::string>& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) {
    out += " " + plain(cell) + " |";
  }
  return out + "\n";
}

std::string rule(size_t n) {
  std::string out = "|";
  for (size_t i = 0; i < n; ++i) {
    out += " --- |";
  }
  return out + "\n";
}

// The source as it is, in a fence longer than any run of backticks inside it.
std::string fenced(std::string_view text) {
  size_t longest = 0;
  size_t now = 0;
  for (const char c : text) {
    now = c == '`' ? now + 1 : 0;
    longest = std::max(longest, now);
  }
  const std::string fence(std::max<size_t>(3, longest + 1), '`');
  return fence + "\n" + replace_invalid_utf8(text) + "\n" + fence + "\n";
}

std::string study_text(const StudyResults& results, const std::vector<ReportText>& texts) {
  const Study& plan = results.plan;
  std::string out = "\n## " + plain(plan.title.empty() ? plan.name : plan.title) + "\n\n";
  const auto paragraph = [&out](std::string_view before, std::string_view text) {
    if (!text.empty()) {
      out += fmt::format("{}{}\n\n", before, plain(text));
    }
  };
  paragraph("", plan.question);
  paragraph("**Answer:** ", results.headline);
  for (const std::string& finding : results.findings) {
    out += "- " + plain(finding) + "\n";
  }
  for (const std::string& warning : results.warnings) {
    out += "- **Mind:** " + plain(warning) + "\n";
  }
  out += "\n";
  paragraph("Expected before the run: ", plan.expectation);
  paragraph("Read afterwards: ",
            results.study.reading.empty() ? plan.reading : results.study.reading);
  paragraph("", plan.notes);
  if (!results.settings.empty()) {
    out += row({"setting", "different", "runs", "likeness within", "tokens, mean"}) + rule(5);
    for (const SettingFigures& one : results.settings) {
      out += row({setting_label(results, one), fmt::format("{}", one.unique_ids),
                  fmt::format("{}", one.runs),
                  one.within && one.within->n > 0 ? short_number(one.within->mean) : "n/a",
                  short_number(one.lengths.mean)});
    }
    out += "\n";
  }
  if (!results.pairs.empty()) {
    out += row({"first", "second", "min", "mean", "max", "p"}) + rule(6);
    for (const PairFigures& pair : results.pairs) {
      out += row({setting_label(results, results.settings[pair.first]),
                  setting_label(results, results.settings[pair.second]),
                  short_number(pair.between.minimum), short_number(pair.between.mean),
                  short_number(pair.between.maximum), short_number(pair.test.p_value)});
    }
    out += "\n";
  }
  for (const DivergenceFigures& one : results.divergences) {
    out += fmt::format("- {} and {}: {}\n", plain(one.first_name), plain(one.second_name),
                       plain(one.divergence.verdict));
  }
  for (const ReportText& text : texts) {
    std::string whole;
    for (const ReportText::Token& token : text.tokens) {
      whole += token.text;
    }
    out += "\n" + plain(text.label) + "\n\n" + fenced(whole);
  }
  const RunOrigin& origin = results.study.origin;
  paragraph("\nMade with ",
            fmt::format("{} ({}), {} {}, {} threads, {}: {}", origin.model, origin.model_hash,
                        origin.device, origin.isa, origin.threads, origin.build, origin.command));
  return out + fenced(results.study.source);
}

}  // namespace

std::string to_markdown(const Report& report) {
  std::string out = "# " + plain(report.title) + "\n";
  if (report.studies.size() > 1) {
    for (const std::string& text :
         {report.course.question, report.course.reading, cost_text(report)}) {
      out += text.empty() ? "" : "\n" + plain(text) + "\n";
    }
    out += "\n";
    for (const StudyResults& one : report.studies) {
      out += fmt::format("1. {} {}\n",
                         plain(one.plan.question.empty() ? one.plan.name : one.plan.question),
                         plain(one.headline));
    }
  }
  const std::vector<ReportText> none;
  for (size_t i = 0; i < report.studies.size(); ++i) {
    out += study_text(report.studies[i], i < report.texts.size() ? report.texts[i] : none);
  }
  return out;
}

}  // namespace logitlab
