// The flags that say which model, from where, and on what it runs; and the loading with a bar.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "command.h"
#include "engine/engine.h"
#include "formats/model_source.h"

namespace logitlab {

struct ModelOptions {
  std::string model = "default";
  std::string revision;
  std::string cache_dir;
  std::string device = "auto";
  std::string dtype = "auto";
  std::string weights = "auto";
  bool offload = false;
  bool random_weights = false;  // of bench
  int threads = 0;

  // --model, --revision, --cache-dir.
  void declare_source(CLI::App& app);
  // --device, --dtype, --threads, and declare_placement's.
  void declare_compute(CLI::App& app);
  // --weights, --offload.
  void declare_placement(CLI::App& app, const std::string& group);

  // How the weights are loaded, without progress.
  [[nodiscard]] LoadOptions load_options() const {
    return {.dtype = dtype, .weights = weights, .offload = offload};
  }
  // The files; nothing is read but their names.
  [[nodiscard]] Result<ModelSource> resolve() const;
  // Loads all of it, with a progress bar on standard error when that is a terminal, and notes what
  // the model warns of. `check`, `text`: as in EngineOptions.
  using CheckSettings = std::function<Status(const GenerationConfig&, const ModelConfig&)>;
  [[nodiscard]] Result<std::unique_ptr<Engine>> load(Invocation& invocation,
                                                     CheckSettings check = {},
                                                     TextNeed text = TextNeed::kRequired) const;
};

// Which bytes a result came from: FNV-1a (64 bit) over name, length, first and last MiB of every
// file of the model. Reads a few MiB however large the model is, so it tells models apart and does
// not prove that a file is undamaged. "fnv1a64:0123456789abcdef".
[[nodiscard]] Result<std::string> model_fingerprint(const ModelSource& source);

// The hash of one text, in the same spelling.
[[nodiscard]] std::string fnv1a64_text(std::string_view text);

// {"spec", "kind", "path", "repo_id", "revision", "commit", "fingerprint"}; null for what is not
// known.
[[nodiscard]] Json json_of(const ModelSource& source);

// "SmolLM2-135M-Instruct.Q4_1.gguf", "org/name".
[[nodiscard]] std::string short_name(const ModelSource& source);

}  // namespace logitlab
