#include <algorithm>
#include <charconv>

#include "formats/gguf.h"
#include "formats/hub_cache.h"

namespace logitlab {
namespace {

constexpr size_t kDigits = 5;  // of each number in a part's name

std::optional<int> parse_digits(std::string_view text) {
  int value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || text.front() == '-') {
    return std::nullopt;
  }
  return value;
}

// All parts in order, or the path alone.
Result<std::vector<std::filesystem::path>> part_paths(const std::filesystem::path& path) {
  const auto part = parse_gguf_part_name(path.filename().string());
  if (!part) {
    return std::vector<std::filesystem::path>{path};
  }
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::vector<std::filesystem::path> paths;
  std::vector<std::string> absent;
  for (int i = 1; i <= part->count; ++i) {
    const std::string file_name =
        fmt::format("{}-{:05}-of-{:05}.gguf", part->prefix, i, part->count);
    const FilePresence presence = file_presence(folder, file_name);
    if (presence != FilePresence::kPresent) {
      absent.push_back(fmt::format("{} ({})", file_name, name(presence)));
    }
    paths.push_back(folder / file_name);
  }
  if (!absent.empty()) {
    return fail(ErrorCode::kNotFound, "{}: {} of {} parts of the model are not there: {}",
                folder.string(), absent.size(), part->count, list_names(absent));
  }
  return paths;
}

// What a part says about itself has to fit its name and its place.
Status check_part(const GgufMetadata& metadata, size_t index, size_t count) {
  ASSIGN_OR_RETURN(const auto split_count, metadata.get_int("split.count"));
  ASSIGN_OR_RETURN(const auto split_no, metadata.get_int("split.no"));
  if (count == 1) {
    if (split_count.value_or(1) > 1) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: this is part {} of {}; want the parts' own names, "
                  "<prefix>-00001-of-{:05}.gguf and so on, in one folder",
                  metadata.where(), split_no.value_or(0) + 1, *split_count, *split_count);
    }
    return {};
  }
  if (split_count.value_or(static_cast<int64_t>(count)) != static_cast<int64_t>(count) ||
      split_no.value_or(static_cast<int64_t>(index)) != static_cast<int64_t>(index)) {
    return fail(ErrorCode::kDataLoss,
                "{}: says split.no {} of split.count {}, want {} of {} as in its name",
                metadata.where(), split_no.value_or(0), split_count.value_or(0), index, count);
  }
  return {};
}

}  // namespace

std::optional<GgufPartName> parse_gguf_part_name(std::string_view file_name) {
  constexpr std::string_view kSuffix = ".gguf";
  constexpr std::string_view kOf = "-of-";
  constexpr size_t kTailBytes = 1 + kDigits + kOf.size() + kDigits + kSuffix.size();
  if (file_name.size() <= kTailBytes || !file_name.ends_with(kSuffix)) {
    return std::nullopt;
  }
  const std::string_view tail = file_name.substr(file_name.size() - kTailBytes);
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf) {
    return std::nullopt;
  }
  const auto part = parse_digits(tail.substr(1, kDigits));
  const auto count = parse_digits(tail.substr(1 + kDigits + kOf.size(), kDigits));
  if (!part || !count || *part < 1 || *part > *count) {
    return std::nullopt;
  }
  return GgufPartName{std::string(file_name.substr(0, file_name.size() - kTailBytes)), *part,
                      *count};
}

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const auto paths, part_paths(path));
  GgufFile file;
  std::vector<MappedFile> maps;
  std::vector<TensorEntry> entries;
  for (size_t i = 0; i < paths.size(); ++i) {
    ASSIGN_OR_RETURN(MappedFile map, MappedFile::open(paths[i]));
    ASSIGN_OR_RETURN(GgufContent content,
                     parse_gguf(map.bytes(), paths[i].string(), static_cast<int>(i)));
    RETURN_IF_ERROR(check_part(content.metadata, i, paths.size()));
    maps.push_back(std::move(map));
    std::move(content.tensors.begin(), content.tensors.end(), std::back_inserter(entries));
    if (i == 0) {
      file.version_ = content.version;
      file.metadata_ = std::move(content.metadata);
    }
  }
  ASSIGN_OR_RETURN(const auto n_tensors, file.metadata_.get_int("split.tensors.count"));
  if (paths.size() > 1 && n_tensors &&
      static_cast<uint64_t>(*n_tensors) != static_cast<uint64_t>(entries.size())) {
    return fail(ErrorCode::kDataLoss,
                "{}: split.tensors.count {}, but the {} parts hold {} tensors", paths[0].string(),
                *n_tensors, paths.size(), entries.size());
  }
  ASSIGN_OR_RETURN(file.checkpoint_, Checkpoint::assemble(std::move(maps), std::move(entries)));
  return file;
}

}  // namespace logitlab
