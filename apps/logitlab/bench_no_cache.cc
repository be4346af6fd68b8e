#include "bench_no_cache.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>

#include <fmt/format.h>

#include "base/env.h"
#include "bench_runs.h"
#include "interrupt.h"
#include "json_out.h"
#include "lab/measures/cache_cost.h"
#include "model_options.h"
#include "progress_bar.h"
#include "streamed_answer.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kTableRows = 8;
constexpr size_t kChartHeight = 10;
constexpr size_t kChartWidth = 60;

double sum(const StepSeconds& seconds) {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

double median_total(const std::vector<StepSeconds>& runs) {
  std::vector<double> totals;
  for (const StepSeconds& run : runs) {
    totals.push_back(sum(run));
  }
  return median(std::move(totals));
}

// Of `cells` equal parts of the run the number `cell`: its first step and the step after it.
std::pair<size_t, size_t> part(size_t n_steps, size_t cells, size_t cell) {
  return {cell * n_steps / cells, (cell + 1) * n_steps / cells};
}

double mean(const StepSeconds& seconds, std::pair<size_t, size_t> steps) {
  double total = 0;
  for (size_t step = steps.first; step < steps.second; ++step) {
    total += seconds[step];
  }
  return total / static_cast<double>(steps.second - steps.first);
}

Json side_json(const std::vector<StepSeconds>& runs) {
  const double seconds = median_total(runs);
  Json out = Json::object();
  out["seconds"] = seconds;
  out["tokens_per_second"] = static_cast<double>(runs.front().size()) / seconds;
  out["step_seconds"] = median_steps(runs);
  return out;
}

Json document_of(const NoCacheBench& bench, const Engine& engine, const CacheCost& curves) {
  Json document = Json::object();
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  document["prompt_tokens"] = bench.prompt.size();
  document["new_tokens"] = bench.new_tokens;
  document["load_seconds"] = engine.load_seconds();
  Json lengths = Json::array();
  for (size_t step = 0; step < curves.n_steps(); ++step) {
    lengths.push_back(curves.length(step));
  }
  document["lengths"] = std::move(lengths);
  document["cached"] = side_json(curves.cached);
  document["uncached"] = side_json(curves.uncached);
  document["ratio"] = median_total(curves.uncached) / median_total(curves.cached);
  document["same_tokens"] = curves.n_same;
  document["compared_tokens"] = curves.n_steps() * curves.uncached.size();
  document["peak_memory_bytes"] = read_memory().peak_resident_bytes;
  document["reps"] = Json::array();
  for (size_t rep = 0; rep < curves.cached.size(); ++rep) {
    document["reps"].push_back({{"cached_seconds", sum(curves.cached[rep])},
                                {"uncached_seconds", sum(curves.uncached[rep])}});
  }
  return document;
}

std::string totals_table(const Terminal& terminal, const CacheCost& curves) {
  Table table({{"", Align::kLeft}, {"", Align::kLeft}, {"", Align::kLeft}});
  const auto add = [&](const std::string& what, const std::vector<StepSeconds>& runs) {
    std::string rates;
    for (const StepSeconds& run : runs) {
      rates += fmt::format(" {:.1f}", static_cast<double>(run.size()) / sum(run));
    }
    const double seconds = median_total(runs);
    table.add_row({{what, Style::kDim},
                   {fmt::format("{:.1f} tokens/s", static_cast<double>(curves.n_steps()) / seconds),
                    Style::kBold},
                   {fmt::format("{} tokens in {:.2f} s; runs:{}", curves.n_steps(), seconds, rates),
                    Style::kDim}});
  };
  add("with the state", curves.cached);
  add("without it", curves.uncached);
  const size_t compared = curves.n_steps() * curves.uncached.size();
  table.add_row(
      {{"times slower", Style::kDim},
       {fmt::format("{:.1f}", median_total(curves.uncached) / median_total(curves.cached)),
        Style::kBold},
       {fmt::format("both chose the same token in {} of {} steps", curves.n_same, compared),
        Style::kDim}});
  return table.render(terminal);
}

std::string steps_table(const Terminal& terminal, const CacheCost& curves,
                        const StepSeconds& cached, const StepSeconds& uncached) {
  Table table({{"tokens before", Align::kRight},
               {"with (ms)", Align::kRight},
               {"without (ms)", Align::kRight},
               {"ratio", Align::kRight}});
  const size_t rows = std::min(kTableRows, curves.n_steps());
  for (size_t row = 0; row < rows; ++row) {
    const auto steps = part(curves.n_steps(), rows, row);
    const size_t last = curves.length(steps.second - 1);
    const size_t first = curves.length(steps.first);
    const double with = mean(cached, steps);
    const double without = mean(uncached, steps);
    table.add_row({first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last),
                   fmt::format("{:.2f}", 1e3 * with), fmt::format("{:.2f}", 1e3 * without),
                   fmt::format("{:.1f}", without / with)});
  }
  return table.render(terminal);
}

// Milliseconds a token, upwards, against the length of the prefix.
std::string chart(const Terminal& terminal, const CacheCost& curves, const StepSeconds& cached,
                  const StepSeconds& uncached) {
  constexpr size_t kMargin = 11;
  const auto columns = static_cast<size_t>(terminal.columns());
  if (columns < kMargin + 10) {
    return "";
  }
  const size_t width = std::min({columns - kMargin, kChartWidth, curves.n_steps()});
  std::vector<std::string> lines(kChartHeight, std::string(width, ' '));
  double top = 0;
  for (size_t x = 0; x < width; ++x) {
    const auto steps = part(curves.n_steps(), width, x);
    top = std::max({top, mean(cached, steps), mean(uncached, steps)});
  }
  const auto put = [&](size_t x, double seconds, char mark) {
    const auto y = static_cast<size_t>(std::lround(seconds / top * (kChartHeight - 1)));
    lines[kChartHeight - 1 - y][x] = mark;
  };
  for (size_t x = 0; x < width; ++x) {
    const auto steps = part(curves.n_steps(), width, x);
    put(x, mean(uncached, steps), 'o');
    put(x, mean(cached, steps), '*');
  }
  std::string out =
      terminal.paint(Style::kDim, "  ms a token: o without the state, * with it") + "\n";
  for (size_t y = 0; y < kChartHeight; ++y) {
    const std::string label = y == 0                  ? fmt::format("{:.1f}", 1e3 * top)
                              : y + 1 == kChartHeight ? "0"
                                                      : "";
    const std::string line = fmt::format("{:>8} |{}", label, lines[y]);
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  const std::string first = fmt::format("{}", curves.length(0));
  const std::string last = fmt::format("{} tokens before", curves.length(curves.n_steps() - 1));
  const size_t gap = width > first.size() + last.size() ? width - first.size() - last.size() : 1;
  return out + fmt::format("{:>8} +{}\n{:10}{}{}{}\n", "", std::string(width, '-'), "", first,
                           std::string(gap, ' '), last);
}

}  // namespace

Result<int> bench_no_cache(const NoCacheBench& bench, Engine& engine, Invocation& invocation) {
  CacheCost curves;
  {
    ProgressBar bar(&invocation.terminal, true);
    CacheCostOptions options;
    options.new_tokens = bench.new_tokens;
    options.reps = bench.reps;
    options.is_cancelled = InterruptGuard::was_interrupted;
    options.on_step = [&bar](size_t step, size_t n_steps) {
      bar.update("decoding without the state", step, n_steps, "tokens");
    };
    auto measured = measure_cache_cost(&engine, bench.prompt, options);
    if (!measured) {
      return fail_at("bench", std::move(measured).error());
    }
    curves = std::move(*measured);
  }
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    print_json(&terminal, document_of(bench, engine, curves));
    return 0;
  }
  const StepSeconds cached = median_steps(curves.cached);
  const StepSeconds uncached = median_steps(curves.uncached);
  terminal.print(fmt::format("{}\n{}\n",
                             terminal.paint(Style::kHeading, short_name(engine.source())),
                             terminal.paint(Style::kDim, machine_line(engine))));
  terminal.print(totals_table(terminal, curves) + "\n");
  terminal.print(steps_table(terminal, curves, cached, uncached) + "\n");
  terminal.print(chart(terminal, curves, cached, uncached));
  return 0;
}

}  // namespace logitlab
