// What a model's own files say about generation.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "formats/gguf_vocab.h"
#include "formats/model_source.h"
#include "logitlab/generation_config.h"

namespace logitlab {

// One end-of-sequence id in force and the file or key that says so.
struct StopId {
  TokenId id = 0;
  std::string origin;  // "generation_config.json", "config.json", "tokenizer.ggml.eos_token_id"
};

struct ModelDefaults {
  GenerationConfig config;
  std::vector<StopId> stop_ids;
  // Settings that would act in transformers and that do not act here ("repetition_penalty=1.05").
  std::vector<std::string> ignored;
};

// generation_config.json; without that file, what config.json says, as transformers derives it.
[[nodiscard]] Result<ModelDefaults> read_defaults_from_folder(const std::filesystem::path& folder);

// A GGUF names one end token, and perhaps an end of turn and an end of message: all of them stop.
[[nodiscard]] ModelDefaults defaults_from_gguf(const GgufVocab& vocab);

}  // namespace logitlab
