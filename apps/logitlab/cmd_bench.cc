// bench: how fast the model runs here, and how far that is from what the memory allows.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "backend/bandwidth.h"
#include "base/env.h"
#include "bench_device.h"
#include "bench_no_cache.h"
#include "bench_runs.h"
#include "build_version.h"
#include "command.h"
#include "interrupt.h"
#include "json_out.h"
#include "model_options.h"
#include "progress_bar.h"
#include "sampling/generation_fields.h"
#include "streamed_answer.h"
#include "text_layout.h"
#include "trace/trace_file.h"

namespace logitlab {
namespace {

// Larger than the last cache of most machines.
constexpr size_t kProbeBuffer = size_t{512} << 20;
constexpr size_t kSmallestBuffer = size_t{64} << 20;
// On a shared machine the memory's speed changes by a half within seconds, so many short probes say
// more than a long one: each is at least three passes through the buffer, and they add a fifth to
// the time of the decode steps.
constexpr double kProbeSeconds = 0.1;
constexpr double kStretchSeconds = 0.5;

constexpr int64_t kTraceCandidates = 20;
// A short prompt: its steps are the cheapest, so the share is the largest that a user meets.
constexpr int64_t kTracePromptTokens = 16;
// A few percent are looked for, which is what single runs differ by.
constexpr int kLeastTracePairs = 5;

struct BenchOptions {
  ModelOptions model;
  std::optional<int64_t> given_prompt_tokens;
  int64_t new_tokens = 64;
  int reps = 3;
  bool no_trace = false;
  bool no_cache = false;
  int64_t batch = 1;
  bool profile = false;

  // Without the state the time grows with the square of the length.
  [[nodiscard]] int64_t prompt_tokens() const {
    return given_prompt_tokens.value_or(no_cache ? 16 : 512);
  }
};

struct Rep {
  double prefill_rate = 0;  // tokens per second
  double decode_rate = 0;
  double first_token_seconds = 0;
  ProbedWork decode;

  [[nodiscard]] double bandwidth() const { return decode.bandwidth(); }
  [[nodiscard]] double share() const { return decode.share(); }
};

// What a full trace costs: pairs of runs, one with a trace to a file and one without.
struct TraceCost {
  std::vector<double> shares;  // per pair: time with over time without, less 1
  double share = 0;            // their median
  double bytes_per_token = 0;  // of the file
};

struct Figures {
  std::vector<Rep> reps;
  std::optional<TraceCost> trace;
  size_t weight_bytes = 0;
  double kv_bytes = 0;     // per new token, on average over the run
  double mamba_bytes = 0;  // per new token

  [[nodiscard]] double bytes_per_token() const {
    return static_cast<double>(weight_bytes) + kv_bytes + mamba_bytes;
  }
  size_t peak_memory_bytes = 0;
};

// `of`: a member of Rep, or a function of it.
template <class Of>
std::vector<double> values_of(const std::vector<Rep>& reps, Of of) {
  std::vector<double> values;
  for (const Rep& rep : reps) {
    values.push_back(std::invoke(of, rep));
  }
  return values;
}

template <class Of>
double median_of(const std::vector<Rep>& reps, Of of) {
  return median(values_of(reps, of));
}

double median_probe(const std::vector<Rep>& reps) {
  std::vector<double> probes;
  for (const Rep& rep : reps) {
    probes.insert(probes.end(), rep.decode.probes.begin(), rep.decode.probes.end());
  }
  return median(std::move(probes));
}

// What the Mamba layers keep; a step reads (and writes) all of it.
double mamba_read_bytes(const Model& model) {
  return static_cast<double>(model.state_bytes(0));
}

// The first probe stands between prompt and decode steps, not before the prompt: a long prompt
// takes longer than the memory's speed lasts.
Result<Rep> run_once(Engine& engine, const BenchOptions& options,
                     const std::vector<TokenId>& prompt, double bytes_per_token,
                     BandwidthProbe* probe) {
  GenerationConfig config;
  config.do_sample = false;
  Rep rep;
  GenerateOptions generate_options;
  const double start = monotonic_seconds();
  double stretch_start = 0;
  generate_options.on_step = [&](const StepEvent& event) {
    const double now = monotonic_seconds();
    if (event.step == 0) {
      rep.first_token_seconds = now - start;
    } else if (event.step == options.new_tokens || now - stretch_start >= kStretchSeconds) {
      rep.decode.seconds.push_back(now - stretch_start);
    } else {
      return true;
    }
    rep.decode.probes.push_back(probe->measure(kProbeSeconds));
    stretch_start = monotonic_seconds();
    return true;
  };
  ASSIGN_OR_RETURN(const GenerationResult result,
                   generate_without_end(engine, config, prompt, options.new_tokens,
                                        std::move(generate_options)));
  const auto new_tokens = static_cast<double>(options.new_tokens);
  rep.prefill_rate = static_cast<double>(options.prompt_tokens()) / result.prefill_seconds;
  rep.decode_rate = new_tokens / rep.decode.total_seconds();
  rep.decode.bytes = bytes_per_token * new_tokens;
  return rep;
}

// A usual draw, with and without a trace.
GenerationConfig trace_settings() {
  GenerationConfig config;
  config.do_sample = true;
  config.temperature = 0.7;
  config.top_k = 50;
  config.top_p = 0.9;
  return config;
}

// Decode seconds of one run with a trace; adds the bytes of its file.
Result<double> traced_seconds(Engine& engine, const BenchOptions& options,
                              const std::vector<TokenId>& prompt, double* bytes) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
  if (error) {
    return fail(ErrorCode::kNotFound,
                "bench: no folder for temporary files: {}; --no-trace does without",
                error.message());
  }
  const std::string path = folder / fmt::format("logitlab-bench-{}.jsonl", ::getpid());
  ASSIGN_OR_RETURN(const auto file, TraceFileWriter::create(path));
  GenerateOptions generate_options;
  generate_options.trace.sink = file.get();
  generate_options.trace.n_candidates = kTraceCandidates;
  auto result = generate_without_end(engine, trace_settings(), prompt, options.new_tokens,
                                     std::move(generate_options));
  RETURN_IF_ERROR(result);
  const Status closed = file->close();
  std::filesystem::remove(path, error);
  RETURN_IF_ERROR(closed);
  *bytes += static_cast<double>(file->bytes());
  return result->decode_seconds;
}

// The order changes from pair to pair, so that a machine that becomes slower or faster favours
// neither side.
Result<TraceCost> measure_trace(Engine& engine, const BenchOptions& options, ProgressBar* bar) {
  const std::vector<TokenId> prompt = bench_prompt(
      std::min(options.prompt_tokens(), kTracePromptTokens), engine.model().config().vocab_size);
  TraceCost cost;
  double bytes = 0;
  const int pairs = std::max(options.reps, kLeastTracePairs);
  for (int pair = 0; pair < pairs; ++pair) {
    double with = 0;
    double without = 0;
    for (int turn = 0; turn < 2; ++turn) {
      if ((turn + pair) % 2 == 0) {
        ASSIGN_OR_RETURN(
            const GenerationResult result,
            generate_without_end(engine, trace_settings(), prompt, options.new_tokens, {}));
        without = result.decode_seconds;
      } else {
        ASSIGN_OR_RETURN(with, traced_seconds(engine, options, prompt, &bytes));
      }
    }
    cost.shares.push_back(with / without - 1);
    bar->update("measuring the trace", static_cast<uint64_t>(pair) + 1,
                static_cast<uint64_t>(pairs), "pairs");
  }
  cost.share = median(cost.shares);
  cost.bytes_per_token =
      bytes / (static_cast<double>(pairs) * static_cast<double>(options.new_tokens + 1));
  return cost;
}

Status check_length(const Engine& engine, const BenchOptions& options) {
  const int64_t limit = engine.model().config().max_position_embeddings;
  const int64_t wanted = options.prompt_tokens() + options.new_tokens + 1;
  if (limit > 0 && wanted > limit) {
    return fail(ErrorCode::kInvalidArgument,
                "bench: -p {} and -n {} need {} positions, the model has {}",
                options.prompt_tokens(), options.new_tokens, wanted, limit);
  }
  return {};
}

Json document_of(const BenchOptions& options, const Engine& engine, const Figures& figures) {
  Json document = Json::object();
  document["model"] = json_of(engine.source());
  document["machine"] = machine_json(engine);
  document["prompt_tokens"] = options.prompt_tokens();
  document["new_tokens"] = options.new_tokens;
  document["load_seconds"] = engine.load_seconds();
  document["prefill_tokens_per_second"] = median_of(figures.reps, &Rep::prefill_rate);
  document["decode_tokens_per_second"] = median_of(figures.reps, &Rep::decode_rate);
  document["first_token_seconds"] = median_of(figures.reps, &Rep::first_token_seconds);
  document["bytes_per_token"] = figures.bytes_per_token();
  document["weight_bytes_per_token"] = figures.weight_bytes;
  document["kv_bytes_per_token"] = figures.kv_bytes;
  document["mamba_bytes_per_token"] = figures.mamba_bytes;
  document["read_bandwidth_bytes_per_second"] = median_probe(figures.reps);
  document["read_bandwidth_probe_seconds"] = kProbeSeconds;
  document["bandwidth_share"] = median_of(figures.reps, &Rep::share);
  document["peak_memory_bytes"] = figures.peak_memory_bytes;
  document["trace_overhead_share"] = figures.trace ? Json(figures.trace->share) : Json();
  document["trace_bytes_per_token"] = figures.trace ? Json(figures.trace->bytes_per_token) : Json();
  document["trace_pair_shares"] = figures.trace ? Json(figures.trace->shares) : Json();
  document["trace_settings"] = figures.trace ? to_json(trace_settings()) : Json();
  document["reps"] = Json::array();
  for (const Rep& rep : figures.reps) {
    document["reps"].push_back({{"prefill_tokens_per_second", rep.prefill_rate},
                                {"decode_tokens_per_second", rep.decode_rate},
                                {"first_token_seconds", rep.first_token_seconds},
                                {"decode_stretch_seconds", rep.decode.seconds},
                                {"probe_bytes_per_second", rep.decode.probes},
                                {"read_bandwidth_bytes_per_second", rep.bandwidth()},
                                {"bandwidth_share", rep.share()}});
  }
  return document;
}

void print_figures(Terminal* terminal, const BenchOptions& options, const Engine& engine,
                   const Figures& figures) {
  // of: what Rep has; unit: of the text.
  const auto spread = [&](auto of, double unit = 1) {
    std::vector<double> values = values_of(figures.reps, of);
    for (double& value : values) {
      value /= unit;
    }
    return fmt::format("runs: {:.1f}", fmt::join(values, " "));
  };
  Table table({{"", Align::kLeft}, {"", Align::kLeft}, {"", Align::kLeft}});
  const auto add = [&table](std::string what, std::string value, std::string detail) {
    table.add_row({{std::move(what), Style::kDim},
                   {std::move(value), Style::kBold},
                   {std::move(detail), Style::kDim}});
  };
  add("prefill", fmt::format("{:.1f} tokens/s", median_of(figures.reps, &Rep::prefill_rate)),
      fmt::format("{} tokens; {}", options.prompt_tokens(), spread(&Rep::prefill_rate)));
  add("decode", fmt::format("{:.1f} tokens/s", median_of(figures.reps, &Rep::decode_rate)),
      fmt::format("{} tokens; {}", options.new_tokens, spread(&Rep::decode_rate)));
  add("first token", fmt::format("{:.3f} s", median_of(figures.reps, &Rep::first_token_seconds)),
      "");
  add("read per token", human_bytes(static_cast<size_t>(figures.bytes_per_token())),
      fmt::format("weights {}, keys and values {}{}", human_bytes(figures.weight_bytes),
                  human_bytes(static_cast<size_t>(figures.kv_bytes)),
                  figures.mamba_bytes > 0
                      ? ", Mamba " + human_bytes(static_cast<size_t>(figures.mamba_bytes))
                      : ""));
  add("bandwidth", fmt::format("{:.1f} GB/s", median_probe(figures.reps) / 1e9),
      "read by all threads in probes among the steps; " + spread(&Rep::bandwidth, 1e9));
  add("share of it", fmt::format("{:.0f} %", 100 * median_of(figures.reps, &Rep::share)),
      "what decoding reads, over what the memory gave meanwhile; " + spread(&Rep::share, 0.01));
  if (figures.trace) {
    std::string pairs;
    for (const double share : figures.trace->shares) {
      pairs += fmt::format(" {:.1f}", 100 * share);
    }
    add("full trace", fmt::format("{:+.1f} %", 100 * figures.trace->share),
        fmt::format("of the time of a draw (temperature 0.7, top_k 50, top_p 0.9), {} a token; "
                    "pairs:{}",
                    human_bytes(static_cast<size_t>(figures.trace->bytes_per_token)), pairs));
  }
  add("peak memory", human_bytes(figures.peak_memory_bytes), "");
  terminal->print(fmt::format("{}\n{}\n",
                              terminal->paint(Style::kHeading, short_name(engine.source())),
                              terminal->paint(Style::kDim, machine_line(engine))));
  terminal->print(table.render(*terminal));
}

// Everything but the figures that follow from the model alone.
Status measure(const BenchOptions& options, Engine& engine, const std::vector<TokenId>& prompt,
               Figures* figures, Terminal* terminal) {
  ProgressBar bar(terminal, true);
  const MemoryReading memory = read_memory();
  ASSIGN_OR_RETURN(
      BandwidthProbe probe,
      BandwidthProbe::make(&engine.context().threads,
                           std::clamp(memory.available_bytes / 8, kSmallestBuffer, kProbeBuffer)));
  const auto total = static_cast<uint64_t>(options.reps) + 1;
  for (int i = 0; i < options.reps; ++i) {
    ASSIGN_OR_RETURN(const Rep rep,
                     run_once(engine, options, prompt, figures->bytes_per_token(), &probe));
    figures->reps.push_back(rep);
    bar.update("measuring", static_cast<uint64_t>(i) + 1, total, "runs");
  }
  if (!options.no_trace) {
    ASSIGN_OR_RETURN(figures->trace, measure_trace(engine, options, &bar));
  }
  // The probe's buffer is there from the first peak on, and is not the model's.
  const size_t peak = read_memory().peak_resident_bytes;
  figures->peak_memory_bytes =
      std::max(memory.peak_resident_bytes, peak - std::min(peak, probe.bytes()));
  return {};
}

Result<int> run_bench(const BenchOptions& options, Invocation& invocation) {
  InterruptGuard interrupts;
  // Ids alone go through the model.
  ASSIGN_OR_RETURN(const auto engine, options.model.load(invocation, {}, TextNeed::kOptional));
  RETURN_IF_ERROR(check_length(*engine, options));
  const std::vector<TokenId> prompt =
      bench_prompt(options.prompt_tokens(), engine->model().config().vocab_size);
  if (engine->model().device_model() != nullptr && !options.no_cache) {
    return bench_device({prompt, options.new_tokens, options.reps, options.batch, options.profile},
                        *engine, invocation);
  }
  if (options.batch > 1 || options.profile) {
    return fail(ErrorCode::kInvalidArgument,
                "bench: --batch and --profile measure a model on a GPU (and not with --no-cache); "
                "this one runs on {}",
                engine->backend().name());
  }
  if (options.no_cache) {
    return bench_no_cache({prompt, options.new_tokens, options.reps}, *engine, invocation);
  }
  Figures figures;
  figures.weight_bytes = engine->model().weight_bytes_per_token();
  figures.kv_bytes = kv_read_bytes(engine->model(), options.prompt_tokens(), options.new_tokens);
  figures.mamba_bytes = mamba_read_bytes(engine->model());
  RETURN_IF_ERROR(measure(options, *engine, prompt, &figures, &invocation.terminal));
  if (invocation.json) {
    print_json(&invocation.terminal, document_of(options, *engine, figures));
  } else {
    print_figures(&invocation.terminal, options, *engine, figures);
  }
  return 0;
}

Action declare_bench(CLI::App& app) {
  auto options = std::make_shared<BenchOptions>();
  app.add_option("-p,--prompt-tokens", options->given_prompt_tokens,
                 "Length of the prompt, 1 to 1000000: random ids, the same on every machine. "
                 "Default 512; with --no-cache 16.")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000))
      ->group("Measurement");
  app.add_option("-n,--new-tokens", options->new_tokens,
                 "Tokens that are decoded after the first one, 1 to 1000000. Default 64.")
      ->type_name("N")
      ->check(CLI::Range(1, 1000000))
      ->group("Measurement");
  app.add_option("--reps", options->reps, "Runs; the median is reported. 1 to 1000. Default 3.")
      ->type_name("N")
      ->check(CLI::Range(1, 1000))
      ->group("Measurement");
  app.add_flag("--no-trace", options->no_trace,
               "Leaves out what a full trace (20 candidates, every stage of every step, written to "
               "a temporary file) adds to the time of a token.")
      ->group("Measurement");
  app.add_flag("--no-cache", options->no_cache,
               "Why was it slow? Decodes the same tokens twice: with the state, and as a program "
               "without one does, that reads the whole prefix again for every token. Gives both "
               "times per token against the length.")
      ->group("Measurement");
  app.add_option("--batch", options->batch,
                 "Sequences of one decode step, 1 to 64, on a GPU. Default 1.")
      ->type_name("N")
      ->check(CLI::Range(1, 64))
      ->group("Measurement");
  app.add_flag("--profile", options->profile,
               "Where the time of a decode step goes on a GPU: per kind of phase launches, bytes, "
               "microseconds, share of the read rate measured in the same run, and the bubble.")
      ->group("Measurement");
  app.add_flag("--random-weights", options->model.random_weights,
               "Makes the matrices on the GPU in place of reading them, to measure a size without "
               "its files' content (headers and vectors are read).")
      ->group("Model");
  options->model.declare_source(app);
  options->model.declare_compute(app);
  return [options](Invocation& invocation) { return run_bench(*options, invocation); };
}

}  // namespace

Command bench_command() {
  return {
      "bench",
      "tokens per second, and the share of the machine's memory bandwidth",
      "Runs prefill and greedy decoding of one sequence through the same code as generate, "
      "measures how fast this machine reads memory with the same threads, and sets both "
      "against each other. Decoding one sequence reads all weights for every token, so the "
      "share says how far from the limit it is (a model that fits into the caches can exceed "
      "100 %).\n\n"
      "Memory that others use as well is fast now and slow then. So its speed is probed for 0.1 s "
      "before the decode steps of each run, after every half second of them and at their end; the "
      "share is what the steps read, over what the memory could have given in their time. The "
      "median of the runs is reported; the JSON document has every reading.\n\n"
      "The JSON document names commit, instruction set, threads and the model's fingerprint "
      "(FNV-1a over name, length, first and last MiB of every file), so that two of them can be "
      "compared.",
      {{"bench", "the default model, 512 prompt tokens, 64 new ones"},
       {"bench --model ./my-model -p 2048 -n 128 --reps 5", "another model, longer and calmer"},
       {"bench --no-trace", "without what a trace costs, which takes ten runs more"},
       {"bench --no-cache", "what the state saves: time per token with it and without it"},
       {"bench --device cuda:0 --batch 16 --profile", "16 sequences on a GPU, phase by phase"},
       {"bench --threads 1 --json", "one thread, as JSON"}},
      declare_bench};
}

}  // namespace logitlab
