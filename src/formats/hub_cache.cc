#include "formats/hub_cache.h"

#include <algorithm>

#include "base/env.h"
#include "base/file.h"
#include "formats/checkpoint.h"

namespace logitlab {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kRepoPrefix = "models--";
constexpr size_t kMaxRepoIdBytes = 96;
constexpr size_t kMaxRevisionBytes = 255;
constexpr size_t kMaxRefBytes = 4096;
constexpr size_t kCommitDigits = 40;

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

bool is_commit(std::string_view text) {
  return text.size() == kCommitDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) {
    return {};
  }
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// Without exceptions: an unreadable folder has no entries.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    paths.push_back(it->path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void collect_refs(const fs::path& folder, const std::string& prefix, int depth,
                  std::vector<std::string>* names, std::vector<std::string>* commits) {
  constexpr int kMaxDepth = 8;
  for (const fs::path& path : entries_of(folder)) {
    const std::string ref_name = prefix + path.filename().string();
    std::error_code error;
    if (fs::is_directory(fs::symlink_status(path, error))) {
      if (depth < kMaxDepth) {
        collect_refs(path, ref_name + "/", depth + 1, names, commits);
      }
    } else if (auto text = read_text_file(path, kMaxRefBytes)) {
      names->push_back(ref_name);
      commits->emplace_back(trimmed(*text));
    }
  }
}

std::string revisions_text(const fs::path& repo_folder) {
  const std::vector<std::string> revisions = available_revisions(repo_folder);
  return revisions.empty() ? "there is none" : "there is " + list_names(revisions);
}

Result<std::string> commit_of(const fs::path& repo_folder, std::string_view repo_id,
                              std::string_view revision) {
  if (is_commit(revision)) {
    return std::string(revision);
  }
  const fs::path ref = repo_folder / "refs" / revision;
  const auto text = read_text_file(ref, kMaxRefBytes);
  if (!text) {
    if (text.error().code != ErrorCode::kNotFound &&
        text.error().code != ErrorCode::kInvalidArgument) {
      return tl::unexpected<Error>(text.error());
    }
    return fail(ErrorCode::kNotFound,
                "model {}: revision {} is not in the cache (looked for {}); {}", repo_id,
                quote(revision), ref.string(), revisions_text(repo_folder));
  }
  const std::string_view commit = trimmed(*text);
  if (!is_commit(commit)) {
    return fail(ErrorCode::kDataLoss, "{}: found {}, want a commit of 40 hex digits", ref.string(),
                quote(commit));
  }
  return std::string(commit);
}

}  // namespace

std::string expand_path(std::string_view text) {
  std::string in(text);
  if (in == "~" || in.starts_with("~/")) {
    if (const auto home = env_var("HOME")) {
      in = *home + in.substr(1);
    }
  }
  std::string out;
  for (size_t i = 0; i < in.size();) {
    if (in[i] != '$') {
      out.push_back(in[i++]);
      continue;
    }
    const bool has_brace = i + 1 < in.size() && in[i + 1] == '{';
    const size_t begin = i + (has_brace ? 2 : 1);
    size_t end = begin;
    while (end < in.size() && (has_brace ? in[end] != '}' : is_word(in[end]))) {
      ++end;
    }
    const bool is_closed = !has_brace || end < in.size();
    const size_t after = has_brace ? end + 1 : end;
    const auto value =
        is_closed && end > begin ? env_var(in.substr(begin, end - begin).c_str()) : std::nullopt;
    if (!value) {
      out.push_back(in[i++]);
      continue;
    }
    out += *value;
    i = after;
  }
  return out;
}

fs::path hub_cache_root(const std::optional<fs::path>& cache_dir) {
  if (cache_dir) {
    return expand_path(cache_dir->string());
  }
  for (const char* variable : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (const auto value = env_var(variable)) {
      return expand_path(*value);
    }
  }
  if (const auto home = env_var("HF_HOME")) {
    return fs::path(expand_path(*home)) / "hub";
  }
  if (const auto cache_home = env_var("XDG_CACHE_HOME")) {
    return fs::path(expand_path(*cache_home)) / "huggingface" / "hub";
  }
  return fs::path(expand_path("~/.cache")) / "huggingface" / "hub";
}

Status check_repo_id(std::string_view repo_id) {
  const auto refuse = [&](std::string_view reason) {
    return fail(ErrorCode::kInvalidArgument, "model {}: {}; want a hub id such as org/name",
                quote(repo_id), reason);
  };
  if (repo_id.empty()) {
    return refuse("the name is empty");
  }
  if (repo_id.size() > kMaxRepoIdBytes) {
    return refuse(fmt::format("{} characters, want at most {}", repo_id.size(), kMaxRepoIdBytes));
  }
  for (const char c : repo_id) {
    if (!is_word(c) && c != '-' && c != '.' && c != '/') {
      return refuse(fmt::format("a hub id does not hold {}", quote(std::string_view(&c, 1))));
    }
  }
  if (std::count(repo_id.begin(), repo_id.end(), '/') > 1) {
    return refuse("more than one '/'");
  }
  if (repo_id.find("..") != std::string_view::npos ||
      repo_id.find("--") != std::string_view::npos) {
    return refuse("'..' or '--' inside");
  }
  const size_t slash = repo_id.find('/');
  const auto is_good_part = [](std::string_view part) {
    return !part.empty() && is_word(part.front()) && is_word(part.back());
  };
  if (!is_good_part(repo_id.substr(0, slash)) ||
      (slash != std::string_view::npos && !is_good_part(repo_id.substr(slash + 1)))) {
    return refuse("a part is empty, or starts or ends with '-' or '.'");
  }
  return {};
}

Status check_revision(std::string_view revision) {
  const auto refuse = [&](std::string_view reason) {
    return fail(ErrorCode::kInvalidArgument,
                "revision {}: {}; want a branch, a tag, refs/pr/N or 40 hex digits",
                quote(revision), reason);
  };
  if (revision.empty() || revision.size() > kMaxRevisionBytes) {
    return refuse(fmt::format("{} characters, want 1 to {}", revision.size(), kMaxRevisionBytes));
  }
  for (const char c : revision) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '\\') {
      return refuse("a control character or backslash inside");
    }
  }
  size_t begin = 0;
  while (begin <= revision.size()) {
    const size_t end = std::min(revision.find('/', begin), revision.size());
    const std::string_view part = revision.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") {
      return refuse("an empty, '.' or '..' part");
    }
    begin = end + 1;
  }
  return {};
}

std::string repo_folder_name(std::string_view repo_id) {
  std::string folder(kRepoPrefix);
  for (const char c : repo_id) {
    c == '/' ? (void)folder.append("--") : folder.push_back(c);
  }
  return folder;
}

std::optional<std::string> repo_id_of_folder(std::string_view folder_name) {
  if (!folder_name.starts_with(kRepoPrefix)) {
    return std::nullopt;
  }
  std::string repo_id(folder_name.substr(kRepoPrefix.size()));
  if (const size_t dashes = repo_id.find("--"); dashes != std::string::npos) {
    repo_id.replace(dashes, 2, "/");
  }
  if (!check_repo_id(repo_id)) {
    return std::nullopt;
  }
  return repo_id;
}

std::vector<std::string> available_revisions(const fs::path& repo_folder) {
  std::vector<std::string> names;
  std::vector<std::string> commits;
  collect_refs(repo_folder / "refs", "", 0, &names, &commits);
  std::sort(names.begin(), names.end());
  for (const fs::path& snapshot : entries_of(repo_folder / "snapshots")) {
    const std::string commit = snapshot.filename().string();
    if (is_commit(commit) && std::find(commits.begin(), commits.end(), commit) == commits.end()) {
      names.push_back(commit);
    }
  }
  return names;
}

Result<ResolvedSnapshot> resolve_snapshot(std::string_view repo_id, std::string_view revision,
                                          const fs::path& root) {
  RETURN_IF_ERROR(check_repo_id(repo_id));
  RETURN_IF_ERROR(check_revision(revision));
  const fs::path repo_folder = root / repo_folder_name(repo_id);
  std::error_code error;
  if (!fs::is_directory(repo_folder, error)) {
    return fail(ErrorCode::kNotFound,
                "model {}: not in the hub cache (looked for {}); nothing is downloaded here: fetch "
                "it with `hf download {}`, or point HF_HOME, HF_HUB_CACHE or the cache folder "
                "option at the cache that holds it",
                repo_id, repo_folder.string(), repo_id);
  }
  ASSIGN_OR_RETURN(const std::string commit, commit_of(repo_folder, repo_id, revision));
  const fs::path folder = repo_folder / "snapshots" / commit;
  if (!fs::is_directory(folder, error)) {
    return fail(ErrorCode::kNotFound, "model {}: revision {}: no snapshot {}; {}", repo_id,
                quote(revision), folder.string(), revisions_text(repo_folder));
  }
  return ResolvedSnapshot{std::string(repo_id), std::string(revision), commit, folder, root};
}

std::string_view name(FilePresence presence) {
  switch (presence) {
    case FilePresence::kPresent:
      return "present";
    case FilePresence::kDangling:
      return "a link to a missing file";
    case FilePresence::kMissing:
      return "missing";
    case FilePresence::kKnownAbsent:
      return "not in the repository";
    case FilePresence::kNotAFile:
      return "not a regular file";
  }
  return "unknown";
}

FilePresence file_presence(const fs::path& folder, std::string_view file_name) {
  const fs::path path = folder / file_name;
  std::error_code error;
  const fs::file_status target = fs::status(path, error);
  if (fs::is_regular_file(target)) {
    return FilePresence::kPresent;
  }
  if (fs::exists(target)) {
    return FilePresence::kNotAFile;
  }
  if (fs::is_symlink(fs::symlink_status(path, error))) {
    return FilePresence::kDangling;
  }
  const fs::path snapshots = folder.parent_path();
  if (snapshots.filename() == "snapshots" &&
      fs::exists(snapshots.parent_path() / ".no_exist" / folder.filename() / file_name, error)) {
    return FilePresence::kKnownAbsent;
  }
  return FilePresence::kMissing;
}

}  // namespace logitlab
