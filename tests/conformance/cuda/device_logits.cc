// Test tool: logits and greedy ids of given prompts from one load of a model, for comparisons with
// other programs (bench/cuda/compare_transformers.py).
//
//   device_logits REQUEST.json FOLDER
//
// REQUEST.json: {"model": FOLDER, "device": "cuda:0", "random_weights": true, "new_tokens": n,
// "prompts": [[id, ...], ...]}. Each prompt runs twice, its ids all at once ("prefill") and one by
// one ("decode"), and n greedy ids follow, one by one. FOLDER gets a file of float32
// [prompt + n - 1, vocab_size] for each run, whose row i are the logits after i + 1 ids, and
// runs.json: {"device", "isa", "runs": [{"prompt": i, "mode": word, "ids": [...], "gaps": [the
// chosen logit over the second, ...], "logits": file}]}.
#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "backend/backend.h"
#include "base/env.h"
#include "base/file.h"
#include "base/json.h"
#include "base/thread_pool.h"
#include "formats/model_source.h"
#include "formats/npy.h"
#include "models/model.h"

namespace logitlab {
namespace {

constexpr size_t kMostRequestBytes = size_t{16} << 20;

struct Choice {
  TokenId id = 0;
  float gap = 0;  // to the second
};

// Equal ones: the lowest id.
Choice best_of(std::span<const float> row) {
  const auto best = std::max_element(row.begin(), row.end());
  float second = -std::numeric_limits<float>::infinity();
  for (auto it = row.begin(); it != row.end(); ++it) {
    second = it != best ? std::max(second, *it) : second;
  }
  return {static_cast<TokenId>(best - row.begin()), *best - second};
}

class Runner {
 public:
  Runner(const Model& model, ExecContext* context, int64_t n_new, std::filesystem::path folder)
      : model_(model), context_(*context), n_new_(n_new), folder_(std::move(folder)) {}

  Result<Json> run(size_t index, const std::vector<TokenId>& prompt, bool at_once) {
    rows_.clear();
    DecodeState state = model_.make_state();
    const size_t piece = at_once ? prompt.size() : 1;
    for (size_t at = 0; at < prompt.size(); at += piece) {
      RETURN_IF_ERROR(append(&state, std::span(prompt).subspan(at, piece)));
    }
    std::vector<TokenId> ids;
    std::vector<float> gaps;
    for (int64_t step = 0; step < n_new_; ++step) {
      const auto vocab = static_cast<size_t>(model_.config().vocab_size);
      const Choice choice = best_of(std::span(rows_).last(vocab));
      ids.push_back(choice.id);
      gaps.push_back(choice.gap);
      if (step + 1 < n_new_) {
        RETURN_IF_ERROR(append(&state, {&choice.id, 1}));
      }
    }
    const std::string mode = at_once ? "prefill" : "decode";
    const std::string file = fmt::format("run-{}-{}.npy", index, mode);
    const int64_t vocab = model_.config().vocab_size;
    const int64_t shape[] = {static_cast<int64_t>(rows_.size()) / vocab, vocab};
    RETURN_IF_ERROR(write_npy(folder_ / file, std::span<const float>(rows_), shape));
    return Json{{"prompt", index}, {"mode", mode}, {"ids", ids}, {"gaps", gaps}, {"logits", file}};
  }

 private:
  Status append(DecodeState* state, std::span<const TokenId> ids) {
    const SequenceChunk chunk{state, ids, LogitRows::kAll};
    RETURN_IF_ERROR(state->reserve(static_cast<int64_t>(ids.size())));
    ASSIGN_OR_RETURN(const Logits logits, model_.forward(context_, {&chunk, 1}));
    rows_.insert(rows_.end(), logits.values.begin(), logits.values.end());
    return {};
  }

  const Model& model_;
  ExecContext& context_;
  int64_t n_new_;
  std::filesystem::path folder_;
  std::vector<float> rows_;  // logits of all positions so far
};

Status run(const std::filesystem::path& request_path, const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(request_path, kMostRequestBytes));
  ASSIGN_OR_RETURN(const Json request, parse_json(text, request_path.string()));
  ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                   make_backend(request.at("device").get<std::string>()));
  ThreadPool threads(available_processors());
  ExecContext context{*backend, threads};
  ASSIGN_OR_RETURN(const ModelSource source, resolve_model(request.at("model").get<std::string>()));
  LoadOptions options;
  options.random_weights = request.at("random_weights").get<bool>();
  const double start = monotonic_seconds();
  ASSIGN_OR_RETURN(const auto model, load_model(source, options, context));
  Json document = {{"device", std::string(backend->name())},
                   {"isa", std::string(backend->isa())},
                   {"load_seconds", monotonic_seconds() - start},
                   {"runs", Json::array()}};
  Runner runner(*model, &context, request.at("new_tokens").get<int64_t>(), folder);
  const auto prompts = request.at("prompts").get<std::vector<std::vector<TokenId>>>();
  for (size_t i = 0; i < prompts.size(); ++i) {
    for (const bool at_once : {true, false}) {
      ASSIGN_OR_RETURN(Json done, runner.run(i, prompts[i], at_once));
      document["runs"].push_back(std::move(done));
    }
  }
  document["seconds"] = monotonic_seconds() - start;
  return write_file_atomically(folder / "runs.json", dump_json(document) + "\n");
}

}  // namespace
}  // namespace logitlab

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: device_logits REQUEST.json FOLDER\n";
    return 2;
  }
  try {
    const logitlab::Status done = logitlab::run(argv[1], argv[2]);
    if (!done) {
      std::cerr << done.error().message << "\n";
      return logitlab::exit_code(done.error().code);
    }
    return 0;
  } catch (const std::exception& error) {  // a request with a value of the wrong type
    std::cerr << error.what() << "\n";
    return 3;
  }
}
