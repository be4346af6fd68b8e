// YAML as far as study files need it: mappings, lists and plain values with their lines. What could
// make a small file large or unclear is refused: anchors and aliases, tags, names that occur twice,
// tabs as indentation, deep nesting, several documents.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace logitlab {

struct YamlEntry;

struct YamlNode {
  enum class Kind { kScalar, kList, kMap };
  Kind kind = Kind::kScalar;
  int line = 0;            // from 1
  std::string text;        // of a scalar
  bool is_quoted = false;  // a scalar that is a text whatever it looks like
  std::vector<YamlNode> items;
  std::vector<YamlEntry> entries;  // keys are scalars, each once

  // Null when the mapping has no such key.
  [[nodiscard]] const YamlNode* find(std::string_view key) const;
  [[nodiscard]] bool is_null() const;
};

struct YamlEntry {
  YamlNode key;
  YamlNode value;
};

// Scalars by YAML's core schema: null, true, false, whole numbers, numbers; a number that a double
// does not hold, infinities and NaN stay texts.
[[nodiscard]] Json to_json(const YamlNode& node);

inline constexpr size_t kMostYamlBytes = size_t{1} << 20;
inline constexpr size_t kMostYamlDepth = 32;
inline constexpr size_t kMostYamlNodes = 250'000;
inline constexpr size_t kMostYamlKeys = 1'000;  // of one mapping

// One document, whose top is a mapping. `where` starts every message, a line follows it:
// "study.yaml:3: ...". kInvalidArgument.
[[nodiscard]] Result<YamlNode> parse_yaml(std::string_view text, std::string_view where);

}  // namespace logitlab
