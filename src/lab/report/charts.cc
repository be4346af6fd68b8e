#include "lab/report/charts.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "lab/measures/answers.h"
#include "lab/report/svg.h"

namespace logitlab {
namespace {

constexpr size_t kMostInHeatMap = 40;
constexpr size_t kMostSeries = 8;
constexpr double kRow = 22;

std::string of_series(size_t n) {
  return n > kMostSeries ? fmt::format(" The first {} of {} settings.", kMostSeries, n) : "";
}

}  // namespace

std::string setting_label(const StudyResults& results, const SettingFigures& setting) {
  return name_of(results, setting);
}

std::string similarity_chart(const StudyResults& results) {
  const size_t all = std::min(results.similarity.n, results.settings.size());
  const size_t n = std::min(all, kMostInHeatMap);
  if (n < 2) {
    return "";
  }
  const double cell = std::clamp(480.0 / static_cast<double>(n), 14.0, 46.0);
  const double left = 34;
  const double size = cell * static_cast<double>(n);
  Svg svg("Likeness of texts, setting by setting",
          "Mean Jaccard similarity of words between the texts of two settings; on the diagonal "
          "within one. Numbers are the rows of the table of settings.",
          left + size + 8, left + size + 8);
  for (size_t i = 0; i < n; ++i) {
    const double at = left + cell * (static_cast<double>(i) + 0.5);
    svg.text(left - 6, at + 4, "end", "label", fmt::format("{}", i + 1));
    svg.text(at, left - 8, "middle", "label", fmt::format("{}", i + 1));
    for (size_t j = 0; j < n; ++j) {
      const double value = results.similarity.at(i, j);
      const double x = left + cell * static_cast<double>(j);
      const double y = left + cell * static_cast<double>(i);
      const std::string tip =
          fmt::format("{} and {}: {}", setting_label(results, results.settings[i]),
                      setting_label(results, results.settings[j]),
                      std::isfinite(value) ? fmt::format("{:.3f}", value) : "not compared");
      const bool is_known = std::isfinite(value);
      svg.rect(x, y, cell - 1, cell - 1, is_known ? "heat" : "unknown", tip,
               is_known ? 0.08 + 0.92 * std::clamp(value, 0.0, 1.0) : 1);
      if (cell >= 34 && is_known) {
        svg.text(x + cell / 2, y + cell / 2 + 4, "middle", value > 0.55 ? "on-heat" : "in-heat",
                 fmt::format("{:.2f}", value));
      }
    }
  }
  return svg.str();
}

std::string uniqueness_chart(const StudyResults& results) {
  if (results.settings.empty()) {
    return "";
  }
  constexpr double kLeft = 220;
  constexpr double kWidth = 320;
  Svg svg("Different texts per setting", "Distinct sequences of tokens as a share of the runs.",
          kLeft + kWidth + 90, kRow * static_cast<double>(results.settings.size()) + 8);
  for (size_t i = 0; i < results.settings.size(); ++i) {
    const SettingFigures& setting = results.settings[i];
    const double y = 4 + kRow * static_cast<double>(i);
    const std::string label = fmt::format("{} {}", i + 1, setting_label(results, setting));
    // One run cannot differ from itself: its bar stays empty.
    const double share = setting.runs > 1 ? static_cast<double>(setting.unique_ids) /
                                                static_cast<double>(setting.runs)
                                          : 0;
    svg.text(kLeft - 8, y + 15, "end", "label", cut_text(label, 32));
    svg.rect(kLeft, y + 3, kWidth, kRow - 6, "track", label);
    svg.rect(kLeft, y + 3, kWidth * share, kRow - 6, "c0", label);
    svg.text(kLeft + kWidth + 8, y + 15, "start", "label",
             fmt::format("{} of {}", setting.unique_ids, setting.runs));
  }
  return svg.str();
}

std::vector<std::pair<std::string, std::string>> survivor_charts(const StudyResults& results) {
  std::vector<std::string> names;
  for (const SettingFigures& setting : results.settings) {
    for (const StageSurvivors& stage : setting.stages) {
      const bool has_removed = stage.mean_mass < 1 - 1e-9;
      if (has_removed && std::find(names.begin(), names.end(), stage.name) == names.end()) {
        names.push_back(stage.name);
      }
    }
  }
  std::vector<std::pair<std::string, std::string>> charts;
  for (const std::string& name : names) {
    LineChart chart;
    chart.title = name == "all" ? "Tokens left to choose from, after all filters"
                                : fmt::format("Tokens left after {}", name);
    chart.unit = "tokens, logarithmic";
    chart.is_log = true;
    for (const SettingFigures& setting : results.settings) {
      for (const StageSurvivors& stage : setting.stages) {
        if (stage.name == name) {
          chart.series.push_back({setting_label(results, setting), stage.by_step});
        }
      }
    }
    chart.description =
        "Mean over the runs that reached the step." + of_series(chart.series.size());
    charts.emplace_back(chart.title, line_chart(chart));
  }
  return charts;
}

std::string entropy_chart(const StudyResults& results) {
  LineChart chart;
  chart.title = "Entropy of the distribution that the choice saw";
  chart.unit = "nats";
  for (const SettingFigures& setting : results.settings) {
    if (!setting.entropy_by_step.empty()) {
      chart.series.push_back({setting_label(results, setting), setting.entropy_by_step});
    }
  }
  chart.description = "Mean over the runs that reached the step." + of_series(chart.series.size());
  return line_chart(chart);
}

std::string divergence_chart(const StudyResults& results) {
  int64_t steps = 1;
  for (const DivergenceFigures& one : results.divergences) {
    steps = std::max(steps, one.divergence.common_tokens + 1);
  }
  if (results.divergences.empty()) {
    return "";
  }
  constexpr double kLeft = 240;
  constexpr double kWidth = 320;
  Svg svg("Where runs part", "Tokens in common, then the first difference and its cause.",
          kLeft + kWidth + 110, kRow * static_cast<double>(results.divergences.size()) + 8);
  for (size_t i = 0; i < results.divergences.size(); ++i) {
    const DivergenceFigures& one = results.divergences[i];
    const double y = 4 + kRow * static_cast<double>(i);
    const double end =
        kWidth * static_cast<double>(one.divergence.common_tokens) / static_cast<double>(steps);
    svg.text(kLeft - 8, y + 15, "end", "label",
             cut_text(one.first_name + " | " + one.second_name, 36));
    svg.rect(kLeft, y + 8, end, kRow - 16, "c0", one.divergence.verdict);
    if (one.divergence.cause != DivergenceCause::kNone) {
      svg.circle(kLeft + end, y + 11, 5, "mark", one.divergence.verdict);
    }
    svg.text(kLeft + kWidth + 14, y + 15, "start", "label",
             fmt::format("{} {}", one.divergence.step, name(one.divergence.cause)));
  }
  return svg.str();
}

std::string beam_chart(const BeamFigures& beams, const std::string& label) {
  constexpr double kStep = 30;
  size_t most = 0;
  for (const TracedBeamStep& step : beams.steps) {
    most = std::max(most, step.running.size());
  }
  if (most == 0) {
    return "";
  }
  Svg svg(
      "Lineage of the beams: " + label,
      "A column per step, a row per running beam, best on top; lines lead to the beam that each "
      "came from.",
      60 + kStep * static_cast<double>(beams.steps.size()), 34 + kStep * static_cast<double>(most));
  const auto x_of = [&](size_t step) { return 40 + kStep * static_cast<double>(step); };
  const auto y_of = [&](int64_t beam) { return 20 + kStep * static_cast<double>(beam); };
  for (size_t s = 0; s < beams.steps.size(); ++s) {
    const std::vector<TracedBeam>& running = beams.steps[s].running;
    for (size_t b = 0; b < running.size(); ++b) {
      if (s > 0) {
        svg.line(x_of(s - 1), y_of(running[b].parent), x_of(s), y_of(static_cast<int64_t>(b)),
                 "line c0");
      }
    }
    for (size_t b = 0; b < running.size(); ++b) {
      svg.circle(x_of(s), y_of(static_cast<int64_t>(b)), 5, "c0",
                 fmt::format("step {}, beam {}: token {}, score {}", s, b, running[b].id,
                             short_number(running[b].score)));
    }
    if (s % 5 == 0) {
      svg.text(x_of(s), 30 + kStep * static_cast<double>(most), "middle", "label",
               fmt::format("{}", s));
    }
  }
  return svg.str();
}

std::string next_token_chart(const SettingFigures& setting, const std::string& label) {
  if (setting.next_tokens.empty()) {
    return "";
  }
  constexpr double kLeft = 150;
  constexpr double kWidth = 340;
  Svg svg("Likeliest next tokens: " + label,
          "Pale: raw probability. Full: what the choice saw, after temperature and filters.",
          kLeft + kWidth + 140, kRow * static_cast<double>(setting.next_tokens.size()) + 8);
  const auto share = [](double value) {
    return std::isfinite(value) ? std::clamp(value, 0.0, 1.0) : 0;
  };
  for (size_t i = 0; i < setting.next_tokens.size(); ++i) {
    const NextToken& token = setting.next_tokens[i];
    const double y = 4 + kRow * static_cast<double>(i);
    svg.text(
        kLeft - 8, y + 15, "end", "mono",
        token.piece.empty() ? fmt::format("#{}", token.id) : cut_text("'" + token.piece + "'", 18));
    svg.rect(kLeft, y + 3, kWidth * share(token.raw_probability), kRow - 6, "c0", "", 0.3);
    svg.rect(kLeft, y + 7, kWidth * share(token.probability), kRow - 14, "c0");
    svg.text(kLeft + kWidth + 8, y + 15, "start", "label",
             fmt::format("{} (raw {})", short_number(token.probability),
                         short_number(token.raw_probability)));
  }
  return svg.str();
}

std::string cache_chart(const CacheFigures& cache) {
  LineChart chart;
  chart.title = "Seconds of a step, with the decode state and without it";
  chart.description = "Medians of the repetitions.";
  chart.unit = "seconds";
  chart.series = {{"with the state", cache.cached_seconds}, {"without it", cache.uncached_seconds}};
  return line_chart(chart);
}

}  // namespace logitlab
