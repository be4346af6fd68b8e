// The Hugging Face hub cache, read without network:
// <root>/models--<org>--<name>/{refs,snapshots,blobs,.no_exist}.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace logitlab {

// The folder that holds models--*: `cache_dir` when given, else the first that is set of
// $HF_HUB_CACHE, $HUGGINGFACE_HUB_CACHE, $HF_HOME/hub, $XDG_CACHE_HOME/huggingface/hub,
// ~/.cache/huggingface/hub. `~` and $VAR are expanded as Python does.
[[nodiscard]] std::filesystem::path hub_cache_root(
    const std::optional<std::filesystem::path>& cache_dir = std::nullopt);

// Python's expanduser and expandvars: a leading ~, $NAME and ${NAME}; unknown variables stay as
// they are.
[[nodiscard]] std::string expand_path(std::string_view text);

// `org/name` or `name`: letters, digits, '-', '_', '.'; at most one '/', 96 characters; no "..", no
// "--", no part that starts or ends with '-' or '.'. kInvalidArgument says what is odd.
[[nodiscard]] Status check_repo_id(std::string_view repo_id);

// A branch, tag, "refs/pr/1" or commit: a relative path without "." or ".." parts or control
// characters, at most 255 characters.
[[nodiscard]] Status check_revision(std::string_view revision);

// "models--org--name".
[[nodiscard]] std::string repo_folder_name(std::string_view repo_id);
// "org/name" of a folder name as above; nullopt when it is not one.
[[nodiscard]] std::optional<std::string> repo_id_of_folder(std::string_view folder_name);

struct ResolvedSnapshot {
  std::string repo_id;
  std::string revision;          // as asked: "main", "refs/pr/1", 40 hex digits
  std::string commit;            // 40 hex digits
  std::filesystem::path folder;  // <root>/models--.../snapshots/<commit>
  std::filesystem::path root;
};

// The snapshot of a revision. kNotFound says which folder was looked for, and, when the repository
// is there but not the revision, which revisions are. Another snapshot is never guessed.
[[nodiscard]] Result<ResolvedSnapshot> resolve_snapshot(std::string_view repo_id,
                                                        std::string_view revision,
                                                        const std::filesystem::path& root);

// What a cached repository folder offers: its refs ("main"), then commits that have a snapshot but
// no ref. Sorted.
[[nodiscard]] std::vector<std::string> available_revisions(
    const std::filesystem::path& repo_folder);

enum class FilePresence {
  kPresent,      // a regular file, or a link that leads to one
  kDangling,     // a link whose blob is gone: an incomplete download
  kMissing,      // never downloaded
  kKnownAbsent,  // .no_exist says that the repository has no such file
  kNotAFile,     // a folder, a pipe, a device
};
// "present", "dangling link", ...
[[nodiscard]] std::string_view name(FilePresence presence);

// State of `file_name` in a snapshot or plain folder (.no_exist is asked when the folder is a
// snapshot of a hub cache).
[[nodiscard]] FilePresence file_presence(const std::filesystem::path& folder,
                                         std::string_view file_name);

}  // namespace logitlab
