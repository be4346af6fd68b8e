// From what a user calls a model to the files on this machine. Never any network.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "formats/hub_cache.h"

namespace logitlab {

enum class ModelKind { kHuggingFace, kGguf };
[[nodiscard]] std::string_view name(ModelKind kind);  // "huggingface", "gguf"

struct ModelSource {
  ModelKind kind = ModelKind::kHuggingFace;
  std::string spec;            // as asked
  std::filesystem::path path;  // the folder (kHuggingFace) or the .gguf file (its first part)
  std::string repo_id;         // these three are empty unless the hub cache gave the files
  std::string revision;
  std::string commit;
};

struct ResolveOptions {
  // Empty: "main". Anything else is refused for a source that has no revisions.
  std::string revision;
  std::optional<std::filesystem::path> cache_dir;
};

// `spec` is, in this order of preference:
//   default        $LOGITLAB_HOME/models/SmolLM2-135M-Instruct.Q4_1.gguf
//   a .gguf file   also any part of a split one
//   a folder       a model folder, a hub cache's models--org--name, or a folder with one GGUF model
//   org/name       a hub id in the local cache
// An existing folder wins over a hub id, as in transformers. What a kHuggingFace source needs
// (config.json and all weights) is there when this returns. kNotFound says what was looked for and
// where, and names every missing file; kInvalidArgument when the spec cannot name a model or leaves
// a choice.
[[nodiscard]] Result<ModelSource> resolve_model(std::string_view spec,
                                                const ResolveOptions& options = {});

// Path of the model that `default` means.
[[nodiscard]] std::filesystem::path default_model_path();

struct ModelFile {
  std::string name;  // "model-00001-of-00002.safetensors"
  FilePresence presence = FilePresence::kMissing;
  size_t bytes = 0;      // of the file that a link leads to
  bool required = true;  // the model cannot be computed without it
  bool is_weights = false;
};

// What a Hugging Face model folder needs and may have, in a fixed order: config.json, weights (the
// single file, or the index and all its shards), generation_config.json, tokenizer.json,
// tokenizer_config.json, chat_template.jinja. kInvalidArgument when the index cannot be read.
[[nodiscard]] Result<std::vector<ModelFile>> list_model_files(const std::filesystem::path& folder);

}  // namespace logitlab
