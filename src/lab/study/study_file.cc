#include "lab/study/study_file.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/file.h"
#include "base/utf8.h"
#include "lab/study/bundled_files.h"
#include "lab/study/study_knob.h"
#include "lab/study/study_overrides.h"
#include "lab/study/study_reader.h"
#include "lab/study/yaml_tree.h"

namespace logitlab {
namespace {

// The course that lists the others in the order in which they are learned.
constexpr std::string_view kCourse = "lesson-01";

bool is_path(std::string_view name) {
  return name.find('/') != std::string_view::npos || name.ends_with(".yaml") ||
         name.ends_with(".yml");
}

const BundledStudy* find_bundled(std::string_view name) {
  for (const BundledStudy& study : bundled_files()) {
    if (study.name == name) {
      return &study;
    }
  }
  return nullptr;
}

Error no_such_study(std::string_view name) {
  std::vector<std::string_view> names;
  for (const BundledStudy& study : bundled_files()) {
    names.push_back(study.name);
  }
  Error error = unknown_name(name, names, "no bundled study has this name");
  error.code = ErrorCode::kNotFound;
  error.message += "; a file of your own is given by its path, as ./my-study.yaml";
  return error;
}

// The line of an element of a list below the top of the file.
int line_of(const YamlNode& root, std::string_view key, size_t index) {
  const YamlNode* list = root.find(key);
  return list == nullptr || index >= list->items.size() ? root.line : list->items[index].line;
}

// Those that no course lists come after the others.
std::vector<BundledStudy> in_order() {
  const BundledStudy* course = find_bundled(kCourse);
  std::vector<std::string> names;
  if (course != nullptr) {
    if (auto parsed = parse_study(course->yaml, course->name)) {
      names = std::move(parsed->studies);
    }
  }
  std::vector<BundledStudy> studies;
  for (const std::string& name : names) {
    if (const BundledStudy* study = find_bundled(name)) {
      studies.push_back(*study);
    }
  }
  for (const BundledStudy& study : bundled_files()) {
    if (study.name != kCourse && std::find(names.begin(), names.end(), study.name) == names.end()) {
      studies.push_back(study);
    }
  }
  if (course != nullptr) {
    studies.push_back(*course);
  }
  return studies;
}

}  // namespace

Result<Study> parse_study(std::string_view yaml, std::string_view where,
                          const StudyOverrides& overrides) {
  const std::string place = printable(where);
  ASSIGN_OR_RETURN(const StudyChanges changes, read_overrides(overrides));
  ASSIGN_OR_RETURN(const YamlNode root, parse_yaml(yaml, place));
  ASSIGN_OR_RETURN(Study study, read_study(root, place, changes));
  for (size_t i = 0; i < study.studies.size(); ++i) {
    const std::string& name = study.studies[i];
    if (!is_path(name) && find_bundled(name) == nullptr) {
      Error error = no_such_study(name);
      error.code = ErrorCode::kInvalidArgument;
      return fail_at(fmt::format("{}:{}", place, line_of(root, "studies", i)), std::move(error));
    }
  }
  study.source = std::string(yaml);
  return study;
}

Result<Study> read_study_file(const std::string& path, const StudyOverrides& overrides) {
  ASSIGN_OR_RETURN(const std::string yaml, read_text_file(path, kMostYamlBytes));
  return parse_study(yaml, path, overrides);
}

std::span<const BundledStudy> bundled_studies() {
  static const std::vector<BundledStudy> studies = in_order();
  return studies;
}

Result<Study> find_study(std::string_view name_or_path, const StudyOverrides& overrides) {
  if (const BundledStudy* study = find_bundled(name_or_path)) {
    return parse_study(study->yaml, fmt::format("{}.yaml", study->name), overrides);
  }
  if (is_path(name_or_path)) {
    return read_study_file(std::string(name_or_path), overrides);
  }
  return tl::unexpected(no_such_study(name_or_path));
}

}  // namespace logitlab
