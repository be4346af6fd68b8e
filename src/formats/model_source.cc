#include "formats/model_source.h"

#include <algorithm>
#include <cstring>

#include "base/env.h"
#include "base/file.h"
#include "formats/checkpoint.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"

namespace logitlab {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kDefaultSpec = "default";
constexpr std::string_view kMainRevision = "main";
constexpr std::string_view kWeights = "model.safetensors";
constexpr std::string_view kIndex = "model.safetensors.index.json";

constexpr std::string_view kOptionalFiles[] = {"generation_config.json", "tokenizer.json",
                                               "tokenizer_config.json", "chat_template.jinja"};

ModelFile look_at(const fs::path& folder, std::string_view file_name, bool required,
                  bool is_weights) {
  ModelFile file;
  file.name = std::string(file_name);
  file.presence = file_presence(folder, file_name);
  file.required = required;
  file.is_weights = is_weights;
  if (file.presence == FilePresence::kPresent) {
    std::error_code error;
    const auto bytes = fs::file_size(folder / file_name, error);
    file.bytes = error ? 0 : static_cast<size_t>(bytes);
  }
  return file;
}

// The models among the folder's .gguf files: a split one counts once, by its first part.
std::vector<fs::path> gguf_models(const fs::path& folder) {
  std::vector<fs::path> models;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    std::error_code status_error;
    if (path.extension() != ".gguf" || !fs::is_regular_file(path, status_error)) {
      continue;
    }
    const auto part = parse_gguf_part_name(path.filename().string());
    const fs::path first =
        part ? folder / fmt::format("{}-{:05}-of-{:05}.gguf", part->prefix, 1, part->count) : path;
    if (std::find(models.begin(), models.end(), first) == models.end()) {
      models.push_back(first);
    }
  }
  std::sort(models.begin(), models.end());
  return models;
}

// Other frameworks' weights, for the message alone.
std::string other_weights_hint(const fs::path& folder) {
  for (const std::string_view file_name :
       {"pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack",
        "consolidated.safetensors"}) {
    if (file_presence(folder, file_name) == FilePresence::kPresent) {
      return fmt::format("; {} is there, but is not read: convert it to model.safetensors or GGUF",
                         file_name);
    }
  }
  return "";
}

Status require_complete(const fs::path& folder, std::string_view what) {
  ASSIGN_OR_RETURN(const auto files, list_model_files(folder));
  bool lacks_required = false;
  bool lacks_weights = false;
  std::vector<std::string> absent;
  for (const ModelFile& file : files) {
    if (file.presence == FilePresence::kPresent) {
      continue;
    }
    lacks_required = lacks_required || file.required;
    lacks_weights = lacks_weights || file.is_weights;
    if (file.required || file.name == "tokenizer.json") {
      absent.push_back(fmt::format("{} ({})", file.name, name(file.presence)));
    }
  }
  if (!lacks_required) {
    return {};
  }
  return fail(ErrorCode::kNotFound, "{}: {} is incomplete; these files are wanted: {}{}",
              folder.string(), what, list_names(absent),
              lacks_weights ? other_weights_hint(folder) : "");
}

// A folder that holds the files themselves. Fills kind and path.
Status resolve_files(const fs::path& folder, std::string_view what, ModelSource* source) {
  const bool has_weights = file_presence(folder, kWeights) != FilePresence::kMissing ||
                           file_presence(folder, kIndex) == FilePresence::kPresent ||
                           file_presence(folder, kIndex) == FilePresence::kDangling;
  source->kind = ModelKind::kHuggingFace;
  source->path = folder;
  if (!has_weights) {
    const std::vector<fs::path> models = gguf_models(folder);
    if (models.size() == 1) {
      source->kind = ModelKind::kGguf;
      source->path = models[0];
      return {};
    }
    if (models.size() > 1) {
      std::vector<std::string> names;
      for (const fs::path& path : models) {
        names.push_back(path.filename().string());
      }
      return fail(ErrorCode::kInvalidArgument,
                  "{}: holds {} GGUF models, want one; name the file: {}", folder.string(),
                  models.size(), list_names(names));
    }
    if (file_presence(folder, "config.json") == FilePresence::kMissing) {
      return fail(ErrorCode::kNotFound,
                  "{}: no model in this folder: looked for config.json with {} or {}, and for a "
                  ".gguf file{}",
                  folder.string(), kWeights, kIndex, other_weights_hint(folder));
    }
  }
  return require_complete(folder, what);
}

Status resolve_cached(std::string_view repo_id, std::string_view revision, const fs::path& root,
                      ModelSource* source) {
  ASSIGN_OR_RETURN(const ResolvedSnapshot snapshot, resolve_snapshot(repo_id, revision, root));
  source->repo_id = snapshot.repo_id;
  source->revision = snapshot.revision;
  source->commit = snapshot.commit;
  return resolve_files(
      snapshot.folder,
      fmt::format("the cached snapshot of {} at {}", snapshot.repo_id, snapshot.revision), source);
}

Status refuse_revision(const ResolveOptions& options, std::string_view spec,
                       std::string_view what) {
  if (!options.revision.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: revision {} was asked for, but {} has no revisions; leave it out, or give a "
                "hub id",
                spec, quote(options.revision), what);
  }
  return {};
}

Status resolve_folder(const fs::path& asked, const ResolveOptions& options, ModelSource* source) {
  std::error_code error;
  fs::path folder = fs::absolute(asked, error).lexically_normal();
  if (!folder.has_filename()) {
    folder = folder.parent_path();  // "x/" has an empty last part
  }
  const auto repo_id = repo_id_of_folder(folder.filename().string());
  if (repo_id && fs::is_directory(folder / "snapshots", error)) {
    return resolve_cached(
        *repo_id, options.revision.empty() ? kMainRevision : std::string_view(options.revision),
        folder.parent_path(), source);
  }
  RETURN_IF_ERROR(refuse_revision(options, source->spec, "a plain folder"));
  RETURN_IF_ERROR(resolve_files(asked, "the model", source));
  const fs::path repo_folder = folder.parent_path().parent_path();
  const auto owner = repo_id_of_folder(repo_folder.filename().string());
  if (owner && folder.parent_path().filename() == "snapshots") {
    source->repo_id = *owner;
    source->commit = folder.filename().string();
    source->revision = source->commit;
  }
  return {};
}

Status resolve_file(const fs::path& path, const ResolveOptions& options, ModelSource* source) {
  RETURN_IF_ERROR(refuse_revision(options, source->spec, "a file"));
  // The magic decides, not the name: blobs of a hub cache have no suffix.
  ASSIGN_OR_RETURN(const MappedFile map, MappedFile::open(path));
  constexpr std::string_view kMagic = "GGUF";
  if (map.bytes().size() < kMagic.size() ||
      std::memcmp(map.bytes().data(), kMagic.data(), kMagic.size()) != 0) {
    const std::string_view head(reinterpret_cast<const char*>(map.bytes().data()),
                                std::min(map.bytes().size(), kMagic.size()));
    return fail(ErrorCode::kInvalidArgument, "{}: starts with {}, want a GGUF file{}",
                path.string(), map.bytes().empty() ? "nothing (0 bytes)" : quote(head),
                path.extension() == ".safetensors" ? "; name the folder of a safetensors model"
                                                   : ", or the folder of a model");
  }
  source->kind = ModelKind::kGguf;
  source->path = path;
  if (const auto part = parse_gguf_part_name(path.filename().string()); part && part->part != 1) {
    source->path =
        path.parent_path() / fmt::format("{}-{:05}-of-{:05}.gguf", part->prefix, 1, part->count);
  }
  return {};
}

bool looks_like_path(std::string_view spec) {
  return spec.front() == '/' || spec.front() == '.' || spec.front() == '~' ||
         std::count(spec.begin(), spec.end(), '/') > 1 || spec.ends_with("/") ||
         spec.ends_with(".gguf") || spec.ends_with(".safetensors");
}

Status resolve_spec(std::string_view spec, const ResolveOptions& options, ModelSource* source) {
  const fs::path path = spec.starts_with("~/") ? fs::path(expand_path(spec)) : fs::path(spec);
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::is_directory(status)) {
    return resolve_folder(path, options, source);
  }
  if (fs::exists(status)) {
    return resolve_file(path, options, source);
  }
  if (looks_like_path(spec)) {
    return fail(ErrorCode::kNotFound, "{}: {}", path.string(),
                fs::is_symlink(fs::symlink_status(path, error))
                    ? "this is a link to a file that is not there"
                    : "no such file or folder");
  }
  if (auto checked = check_repo_id(spec); !checked) {
    checked.error().message += ", a folder or a .gguf file";
    return checked;
  }
  return resolve_cached(
      spec, options.revision.empty() ? kMainRevision : std::string_view(options.revision),
      hub_cache_root(options.cache_dir), source);
}

}  // namespace

std::string_view name(ModelKind kind) {
  return kind == ModelKind::kGguf ? "gguf" : "huggingface";
}

fs::path default_model_path() {
  return logitlab_home() / "models" / "SmolLM2-135M-Instruct.Q4_1.gguf";
}

Result<ModelSource> resolve_model(std::string_view spec, const ResolveOptions& options) {
  ModelSource source;
  source.spec = std::string(spec);
  if (spec.empty() || spec.find('\0') != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "model {}: want `default`, a folder, a .gguf file or a hub id such as org/name",
                quote(spec));
  }
  if (spec == kDefaultSpec) {
    const fs::path path = default_model_path();
    std::error_code error;
    if (!fs::exists(path, error)) {
      return fail(
          ErrorCode::kNotFound,
          "the default model is not there (looked for {}); run `./lab first-contact`, which "
          "puts it there",
          path.string());
    }
    RETURN_IF_ERROR(resolve_file(path, options, &source));
    return source;
  }
  RETURN_IF_ERROR(resolve_spec(spec, options, &source));
  return source;
}

Result<std::vector<ModelFile>> list_model_files(const fs::path& folder) {
  std::vector<ModelFile> files;
  files.push_back(look_at(folder, "config.json", /*required=*/true, /*is_weights=*/false));
  const FilePresence single = file_presence(folder, kWeights);
  const FilePresence sharded = file_presence(folder, kIndex);
  const bool has_single = single == FilePresence::kPresent || single == FilePresence::kDangling ||
                          single == FilePresence::kNotAFile;
  if (has_single || (sharded != FilePresence::kPresent && sharded != FilePresence::kDangling)) {
    files.push_back(look_at(folder, kWeights, /*required=*/true, /*is_weights=*/true));
  } else {
    files.push_back(look_at(folder, kIndex, /*required=*/true, /*is_weights=*/false));
    if (sharded == FilePresence::kPresent) {
      ASSIGN_OR_RETURN(const SafetensorsIndex index, read_safetensors_index(folder / kIndex));
      for (const std::string& shard : index.file_names) {
        files.push_back(look_at(folder, shard, /*required=*/true, /*is_weights=*/true));
      }
    }
  }
  for (const std::string_view file_name : kOptionalFiles) {
    files.push_back(look_at(folder, file_name, /*required=*/false, /*is_weights=*/false));
  }
  return files;
}

}  // namespace logitlab
