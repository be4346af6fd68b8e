#include "model_options.h"

#include <algorithm>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/file.h"
#include "formats/gguf.h"
#include "json_out.h"
#include "progress_bar.h"

namespace logitlab {
namespace {

constexpr size_t kFingerprintBytes = size_t{1} << 20;

class Fnv1a64 {
 public:
  void add(const std::byte* data, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      hash_ = (hash_ ^ std::to_integer<uint64_t>(data[i])) * 0x100000001b3ULL;
    }
  }
  void add(std::string_view text) {
    add(reinterpret_cast<const std::byte*>(text.data()), text.size());
  }
  [[nodiscard]] uint64_t value() const { return hash_; }

 private:
  uint64_t hash_ = 0xcbf29ce484222325ULL;
};

// The parts of a split GGUF, or the file; the files of a folder that are there.
Result<std::vector<std::filesystem::path>> files_of(const ModelSource& source) {
  std::vector<std::filesystem::path> paths;
  if (source.kind == ModelKind::kHuggingFace) {
    ASSIGN_OR_RETURN(const auto files, list_model_files(source.path));
    for (const ModelFile& file : files) {
      if (file.presence == FilePresence::kPresent) {
        paths.push_back(source.path / file.name);
      }
    }
    return paths;
  }
  const auto part = parse_gguf_part_name(source.path.filename().string());
  if (!part) {
    return std::vector<std::filesystem::path>{source.path};
  }
  for (int i = 1; i <= part->count; ++i) {
    paths.push_back(source.path.parent_path() /
                    fmt::format("{}-{:05}-of-{:05}.gguf", part->prefix, i, part->count));
  }
  return paths;
}

}  // namespace

void ModelOptions::declare_source(CLI::App& app) {
  app.add_option("-m,--model", model,
                 "A model folder, a .gguf file, a hub id (org/name) that is in the local cache, or "
                 "`default` (SmolLM2-135M-Instruct). Nothing is ever downloaded. Default: default.")
      ->type_name("MODEL")
      ->group("Model");
  app.add_option("--revision", revision, "Branch, tag or commit of a hub id. Default: main.")
      ->type_name("REV")
      ->group("Model");
  app.add_option("--cache-dir", cache_dir,
                 "The hub cache to look in. Default: HF_HUB_CACHE, HF_HOME/hub, or "
                 "~/.cache/huggingface/hub.")
      ->type_name("DIR")
      ->group("Model");
}

void ModelOptions::declare_compute(CLI::App& app) {
  app.add_option("--device", device,
                 "auto (the first GPU if this build can use it, it takes the model and has room; "
                 "else cpu), cpu, cuda:N (a GPU, in a build with CUDA), or reference (the slow "
                 "scalar code that the others are compared with). Default: auto.")
      ->type_name("DEVICE")
      ->group("Model");
  app.add_option("--dtype", dtype,
                 "How weights are kept in memory: auto (as stored), float32 or bfloat16. "
                 "Default: auto.")
      ->type_name("TYPE")
      ->group("Model");
  app.add_option("--threads", threads,
                 "Threads, 1 or more; 0: all processors that this process may use. Results are the "
                 "same for any number. Default: 0.")
      ->type_name("N")
      ->check(CLI::Range(0, 1024))
      ->group("Model");
  declare_placement(app, "Model");
}

void ModelOptions::declare_placement(CLI::App& app, const std::string& group) {
  app.add_option("--weights", weights,
                 "Where weights lie that need no conversion: map (in the page cache, which stays "
                 "when the command ends), read (in memory of their own; nothing stays), or auto "
                 "(read when the model is large and there is room). Default: auto.")
      ->type_name("PLACE")
      ->check(CLI::IsMember({"auto", "map", "read"}))
      ->group(group);
  app.add_flag("--offload", offload,
               "Runs a model that does not fit in memory all the same: its weights stay on the "
               "disk and are read again at every step, which is slow.")
      ->group(group);
}

Result<ModelSource> ModelOptions::resolve() const {
  ResolveOptions options;
  options.revision = revision;
  if (!cache_dir.empty()) {
    options.cache_dir = expand_path(cache_dir);
  }
  return resolve_model(model, options);
}

Result<std::unique_ptr<Engine>> ModelOptions::load(Invocation& invocation, CheckSettings check,
                                                   TextNeed text) const {
  ProgressBar bar(&invocation.terminal, true);
  EngineOptions options;
  options.model = model;
  if (!revision.empty()) {
    options.revision = revision;
  }
  if (!cache_dir.empty()) {
    options.cache_dir = expand_path(cache_dir);
  }
  options.device = device;
  options.dtype = dtype;
  options.weights = weights;
  options.offload = offload;
  options.random_weights = random_weights;
  options.threads = threads;
  options.text = text;
  options.progress = &bar;
  options.check_settings = std::move(check);
  ASSIGN_OR_RETURN(std::unique_ptr<Engine> engine, Engine::load(options));
  if (!engine->device_note().empty()) {
    invocation.terminal.note(
        fmt::format("logitlab: not on the GPU: {}\n", terminal_safe(engine->device_note())));
  }
  for (const std::string& warning : engine->model().warnings()) {
    invocation.terminal.note(fmt::format("logitlab: {}\n", terminal_safe(warning)));
  }
  return engine;
}

Result<std::string> model_fingerprint(const ModelSource& source) {
  ASSIGN_OR_RETURN(const auto paths, files_of(source));
  Fnv1a64 hash;
  for (const std::filesystem::path& path : paths) {
    ASSIGN_OR_RETURN(const MappedFile map, MappedFile::open(path));
    const auto bytes = map.bytes();
    // A file that was not in the page cache is not left there.
    const bool was_cold = map.cached_bytes().value_or(1) == 0;
    hash.add(fmt::format("{}\n{}\n", path.filename().string(), bytes.size()));
    const size_t head = std::min(bytes.size(), kFingerprintBytes);
    const size_t tail = std::min(bytes.size() - head, kFingerprintBytes);
    hash.add(bytes.data(), head);
    hash.add(bytes.data() + (bytes.size() - tail), tail);
    if (was_cold) {
      map.release_cached();
    }
  }
  return fmt::format("fnv1a64:{:016x}", hash.value());
}

std::string fnv1a64_text(std::string_view text) {
  Fnv1a64 hash;
  hash.add(text);
  return fmt::format("fnv1a64:{:016x}", hash.value());
}

Json json_of(const ModelSource& source) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? Json() : Json(text);
  };
  Json out = Json::object();
  out["spec"] = source.spec;
  out["kind"] = std::string(name(source.kind));
  out["path"] = source.path.string();
  out["repo_id"] = text_or_null(source.repo_id);
  out["revision"] = text_or_null(source.revision);
  out["commit"] = text_or_null(source.commit);
  const auto fingerprint = model_fingerprint(source);
  out["fingerprint"] = fingerprint ? Json(*fingerprint) : Json();
  return out;
}

std::string short_name(const ModelSource& source) {
  return source.repo_id.empty() ? source.path.filename().string() : source.repo_id;
}

}  // namespace logitlab
