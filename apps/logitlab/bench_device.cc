#include "bench_device.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include <fmt/format.h>

#include "backend/device_model.h"
#include "backend/device_profile.h"
#include "base/check.h"
#include "base/env.h"
#include "bench_runs.h"
#include "interrupt.h"
#include "json_out.h"
#include "model_options.h"
#include "progress_bar.h"
#include "streamed_answer.h"
#include "text_layout.h"

namespace logitlab {
namespace {

// Steps that are not counted: the first ones build what later ones repeat.
constexpr int64_t kWarmSteps = 8;

struct DeviceFigures {
  std::vector<double> prefill_seconds;
  std::vector<double> step_seconds;  // of one decode step, per rep
  double read_rate = 0;              // bytes per second
  DeviceProfile profile;             // of one step
  double kv_bytes = 0;               // keys and values of one step, on average over the steps
  DeviceMemory memory;

  [[nodiscard]] double step_bytes() const { return profile.sum().bytes + kv_bytes; }
  [[nodiscard]] double share() const { return step_bytes() / median(step_seconds) / read_rate; }
};

class Measurement {
 public:
  Measurement(const DeviceBench& bench, Engine* engine)
      : bench_(bench), engine_(*engine), device_(*engine->model().device_model()) {}

  Result<DeviceFigures> run(ProgressBar* bar) {
    ASSIGN_OR_RETURN(figures_.read_rate, device_.measure_read_rate());
    // Twice as many as are counted: the first prompt and the first steps wake the device up.
    const auto total = static_cast<uint64_t>(2 * bench_.reps) + 2;
    uint64_t done = 0;
    for (int rep = 0; rep <= bench_.reps; ++rep) {
      RETURN_IF_ERROR(check_interrupt());
      RETURN_IF_ERROR(time_prompt(/*counts=*/rep > 0));
      bar->update("measuring", ++done, total, "runs");
    }
    for (int rep = 0; rep <= bench_.reps; ++rep) {
      RETURN_IF_ERROR(check_interrupt());
      RETURN_IF_ERROR(rep == 0 ? time_steps(kWarmSteps, /*counts=*/false)
                               : time_steps(bench_.new_tokens, /*counts=*/true));
      bar->update("measuring", ++done, total, "runs");
    }
    RETURN_IF_ERROR(take_profile());
    figures_.memory = device_.memory();
    return std::move(figures_);
  }

 private:
  static Status check_interrupt() {
    if (InterruptGuard::was_interrupted()) {
      return fail(ErrorCode::kCancelled, "bench: stopped by the user");
    }
    return {};
  }

  Status time_prompt(bool counts) {
    root_ = engine_.model().make_state();
    RETURN_IF_ERROR(root_->reserve(static_cast<int64_t>(bench_.prompt.size())));
    const SequenceChunk chunk{&*root_, bench_.prompt, LogitRows::kLast};
    const double start = monotonic_seconds();
    RETURN_IF_ERROR(engine_.model().forward(engine_.context(), {&chunk, 1}));
    if (counts) {
      figures_.prefill_seconds.push_back(monotonic_seconds() - start);
    }
    return {};
  }

  // States that continue the prompt, with room for n positions each.
  Status fork_states(int64_t n) {
    forks_.clear();
    states_.clear();
    first_.clear();
    for (int64_t i = 0; i < bench_.batch; ++i) {
      forks_.push_back(root_->fork());
      RETURN_IF_ERROR(forks_.back().reserve(n));
      first_.push_back(static_cast<TokenId>((i + 1) % engine_.model().config().vocab_size));
    }
    for (DecodeState& fork : forks_) {
      states_.push_back(fork.device());
    }
    return {};
  }

  Status time_steps(int64_t n, bool counts) {
    RETURN_IF_ERROR(fork_states(n));
    const std::vector<DeviceDraw> draws(states_.size());
    std::vector<TokenId> out(states_.size() * static_cast<size_t>(n));
    const double start = monotonic_seconds();
    RETURN_IF_ERROR(device_.decode_steps(states_, first_, draws, n, out.data()));
    if (counts) {
      figures_.step_seconds.push_back((monotonic_seconds() - start) / static_cast<double>(n));
    }
    return {};
  }

  // Of the sequences that the last steps left: each has gone a way of its own, so that they choose
  // experts as those of the timed steps do. Forks of one prompt would all choose the same.
  Status take_profile() {
    for (DecodeState& fork : forks_) {
      RETURN_IF_ERROR(fork.reserve(1));
    }
    ASSIGN_OR_RETURN(std::vector<DevicePhase> phases, device_.profile(states_));
    figures_.profile = DeviceProfile::from(std::move(phases));
    figures_.kv_bytes = static_cast<double>(bench_.batch) *
                        kv_read_bytes(engine_.model(), static_cast<int64_t>(bench_.prompt.size()),
                                      bench_.new_tokens);
    return {};
  }

  const DeviceBench& bench_;
  Engine& engine_;
  const DeviceModel& device_;
  DeviceFigures figures_;
  std::optional<DecodeState> root_;  // holds the prompt
  std::vector<DecodeState> forks_;
  std::vector<DeviceState*> states_;
  std::vector<TokenId> first_;
};

Json document_of(const DeviceBench& bench, const Engine& engine, const DeviceFigures& figures) {
  const double step = median(figures.step_seconds);
  const auto prompt = static_cast<double>(bench.prompt.size());
  Json document = Json::object();
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  document["prompt_tokens"] = bench.prompt.size();
  document["new_tokens"] = bench.new_tokens;
  document["batch"] = bench.batch;
  document["load_seconds"] = engine.load_seconds();
  document["prefill_tokens_per_second"] = prompt / median(figures.prefill_seconds);
  document["prefill_seconds"] = figures.prefill_seconds;
  document["decode_tokens_per_second"] = static_cast<double>(bench.batch) / step;
  document["decode_step_seconds"] = figures.step_seconds;
  document["weight_bytes_per_token"] = engine.model().weight_bytes_per_token();
  document["step_bytes"] = figures.step_bytes();
  document["kv_bytes_per_step"] = figures.kv_bytes;
  document["read_bandwidth_bytes_per_second"] = figures.read_rate;
  document["bandwidth_share"] = figures.share();
  document["device_memory"] = {{"total_bytes", figures.memory.total_bytes},
                               {"free_bytes", figures.memory.free_bytes},
                               {"weight_bytes", figures.memory.weight_bytes},
                               {"state_bytes", figures.memory.state_bytes},
                               {"pool_bytes", figures.memory.pool_bytes},
                               {"scratch_bytes", figures.memory.scratch_bytes}};
  document["profile_step_microseconds"] = figures.profile.step_microseconds;
  document["phases"] = Json::array();
  for (const DevicePhase& phase : figures.profile.phases) {
    document["phases"].push_back({{"name", phase.name},
                                  {"launches", phase.count},
                                  {"bytes", phase.bytes},
                                  {"microseconds", phase.microseconds},
                                  {"read_microseconds", phase.bytes / figures.read_rate * 1e6}});
  }
  return document;
}

std::string percent(double share) {
  return fmt::format("{:.0f} %", 100 * share);
}

void print_phases(Terminal* terminal, const DeviceFigures& figures) {
  Table table({{"phase", Align::kLeft},
               {"launches", Align::kRight},
               {"MB", Align::kRight},
               {"us", Align::kRight},
               {"of the read rate", Align::kRight},
               {"bubble us", Align::kRight}});
  const auto add = [&](const DevicePhase& phase) {
    const double reading = phase.bytes / figures.read_rate * 1e6;
    table.add_row({phase.name, fmt::format("{}", phase.count),
                   fmt::format("{:.2f}", phase.bytes / 1e6),
                   fmt::format("{:.1f}", phase.microseconds),
                   percent(phase.microseconds > 0 ? reading / phase.microseconds : 0),
                   fmt::format("{:.1f}", phase.microseconds - reading)});
  };
  for (const DevicePhase& phase : figures.profile.phases) {
    add(phase);
  }
  const DevicePhase sum = figures.profile.sum();
  add(sum);
  add({"in one graph", sum.count, sum.bytes, figures.profile.step_microseconds});
  const double step = median(figures.step_seconds) * 1e6;
  const double reading = figures.step_bytes() / figures.read_rate * 1e6;
  terminal->print("\n" + terminal->paint(Style::kHeading, "One decode step") + "\n" +
                  table.render(*terminal, 2));
  terminal->print(fmt::format(
      "  measured without marks {:.1f} us, of which reading (with keys and values, {:.2f} MB) "
      "{:.1f} us: the bubble is {:.1f} us\n",
      step, figures.kv_bytes / 1e6, reading, step - reading));
}

void print_figures(Terminal* terminal, const DeviceBench& bench, const Engine& engine,
                   const DeviceFigures& figures) {
  const double step = median(figures.step_seconds);
  const auto rates = [](const std::vector<double>& seconds, double tokens) {
    std::string text;
    for (const double value : seconds) {
      text += (text.empty() ? "" : " ") + fmt::format("{:.1f}", tokens / value);
    }
    return text;
  };
  const auto prompt = static_cast<double>(bench.prompt.size());
  const auto batch = static_cast<double>(bench.batch);
  Table table({{"", Align::kLeft}, {"", Align::kLeft}, {"", Align::kLeft}});
  const auto add = [&table](std::string what, std::string value, std::string detail) {
    table.add_row({{std::move(what), Style::kDim},
                   {std::move(value), Style::kBold},
                   {std::move(detail), Style::kDim}});
  };
  add("prefill", fmt::format("{:.1f} tokens/s", prompt / median(figures.prefill_seconds)),
      fmt::format("{} tokens; runs: {}", bench.prompt.size(),
                  rates(figures.prefill_seconds, prompt)));
  add("decode", fmt::format("{:.1f} tokens/s", batch / step),
      fmt::format("{} steps of {} sequence{}; runs: {}", bench.new_tokens, bench.batch,
                  bench.batch == 1 ? "" : "s", rates(figures.step_seconds, batch)));
  add("step", fmt::format("{:.3f} ms", step * 1e3),
      fmt::format("moves {}, of which keys and values {}",
                  human_bytes(static_cast<size_t>(figures.step_bytes())),
                  human_bytes(static_cast<size_t>(figures.kv_bytes))));
  add("read rate", fmt::format("{:.3f} TB/s", figures.read_rate / 1e12),
      "of the device's memory, measured in this run");
  add("share of it", percent(figures.share()), "what a step moves, over what the memory gives");
  add("device memory",
      human_bytes(figures.memory.weight_bytes + figures.memory.pool_bytes +
                  figures.memory.scratch_bytes),
      fmt::format("weights {}, sequences {}, work space {}",
                  human_bytes(figures.memory.weight_bytes), human_bytes(figures.memory.pool_bytes),
                  human_bytes(figures.memory.scratch_bytes)));
  terminal->print(fmt::format("{}\n{}\n",
                              terminal->paint(Style::kHeading, short_name(engine.source())),
                              terminal->paint(Style::kDim, machine_line(engine))));
  terminal->print(table.render(*terminal));
  if (bench.profile) {
    print_phases(terminal, figures);
  }
}

}  // namespace

Result<int> bench_device(const DeviceBench& bench, Engine& engine, Invocation& invocation) {
  CHECK(engine.model().device_model() != nullptr) << "the model is not on a device";
  DeviceFigures figures;
  {
    ProgressBar bar(&invocation.terminal, true);
    ASSIGN_OR_RETURN(figures, Measurement(bench, &engine).run(&bar));
  }
  if (invocation.json) {
    print_json(&invocation.terminal, document_of(bench, engine, figures));
  } else {
    print_figures(&invocation.terminal, bench, engine, figures);
  }
  return 0;
}

}  // namespace logitlab
