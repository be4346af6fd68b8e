// Test tool: generation over a pipe, for comparisons with transformers (tests/oracle, recordings).
//
//   search_probe [THREADS]
//
// One JSON object a line on stdin, one answer a line on stdout:
//   {"model": FOLDER|GGUF, "prompts": [[id, ...], ...], "config": {...}, "runs": n}
//     -> {"sequences": [{"prompt": i, "ids": [...], "score": x|null, "beam_indices": [...],
//                        "stop_reason": word}, ...], "beam_stop": text}
// or {"error": message}. "runs" (1): so many times with seeds from config.seed on; the sequences of
// all follow each other. The last model stays loaded.
#include <cmath>
#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "formats/model_source.h"
#include "generate/generator.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

class Probe {
 public:
  Probe(std::unique_ptr<Backend> backend, int n_threads)
      : backend_(std::move(backend)), threads_(n_threads), context_{*backend_, threads_} {}

  Result<Json> answer(const std::string& line);

 private:
  Status load(const std::string& path);

  std::unique_ptr<Backend> backend_;
  ThreadPool threads_;
  ExecContext context_;
  std::string path_;
  std::shared_ptr<const Model> model_;
};

Status Probe::load(const std::string& path) {
  if (path == path_) {
    return {};
  }
  ASSIGN_OR_RETURN(const ModelSource source, resolve_model(path));
  ASSIGN_OR_RETURN(model_, load_model(source, {}, context_));
  path_ = path;
  return {};
}

Json json_of_sequence(const SequenceResult& sequence) {
  return {{"prompt", sequence.prompt},
          {"ids", sequence.ids},
          {"score", std::isnan(sequence.beam_score) ? Json() : Json(sequence.beam_score)},
          {"beam_indices", sequence.beam_indices},
          {"stop_reason", std::string(name(sequence.stop_reason))}};
}

Result<Json> Probe::answer(const std::string& line) {
  ASSIGN_OR_RETURN(const Json request, parse_json(line, "request"));
  RETURN_IF_ERROR(load(request.at("model").get<std::string>()));
  const auto prompts = request.at("prompts").get<std::vector<std::vector<TokenId>>>();
  std::vector<PromptInput> inputs;
  for (const std::vector<TokenId>& prompt : prompts) {
    inputs.push_back({prompt, nullptr});
  }
  ASSIGN_OR_RETURN(
      const ParsedConfig parsed,
      generation_config_from_json(request.at("config"), "config", UnknownKeys::kRefuse));
  GenerationConfig config = merge_generation_config(parsed.config, {}).config;
  Json answer = {{"sequences", Json::array()}};
  for (int64_t run = request.value("runs", int64_t{1}); run > 0; --run) {
    ASSIGN_OR_RETURN(const GenerationResult result,
                     generate(context_, *model_, inputs, config, {}));
    for (const SequenceResult& sequence : result.sequences) {
      answer["sequences"].push_back(json_of_sequence(sequence));
    }
    answer["beam_stop"] = result.beam_stop;
    config.seed = config.seed.value_or(0) + 1;
  }
  return answer;
}

int run(int n_threads) {
  Result<std::unique_ptr<Backend>> backend = make_backend("cpu");
  if (!backend) {
    std::cerr << backend.error().message << "\n";
    return exit_code(backend.error().code);
  }
  Probe probe(std::move(*backend), n_threads);
  for (std::string line; std::getline(std::cin, line);) {
    Result<Json> result = probe.answer(line);
    std::cout << dump_json(result ? *result : Json{{"error", result.error().message}}) << "\n"
              << std::flush;
  }
  return 0;
}

}  // namespace
}  // namespace logitlab

int main(int argc, char** argv) {
  try {
    return logitlab::run(argc > 1 ? std::stoi(argv[1]) : 1);
  } catch (const std::exception& error) {  // a request with a value of the wrong type
    std::cerr << error.what() << "\n";
    return 3;
  }
}
