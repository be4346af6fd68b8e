// docs/study.schema.json says what the reader reads, and every bundled file obeys it.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <regex.h>

#include "base/file.h"
#include "base/utf8.h"
#include "lab/study/study_file.h"
#include "lab/study/study_keys.h"
#include "lab/study/study_knob.h"
#include "lab/study/yaml_tree.h"

namespace logitlab {
namespace {

Json load_schema() {
  const auto text =
      read_text_file(std::string(LOGITLAB_SOURCE_DIR) + "/docs/study.schema.json", 1 << 20);
  EXPECT_TRUE(text);
  const auto json = parse_json(*text, "schema");
  EXPECT_TRUE(json) << json.error().message;
  return *json;
}

// POSIX's: GCC 12 takes std::regex under the sanitizers for a use of uninitialised memory.
bool matches(const std::string& text, const std::string& pattern) {
  regex_t compiled;
  const int outcome = regcomp(&compiled, pattern.c_str(), REG_EXTENDED | REG_NOSUB);
  EXPECT_EQ(outcome, 0) << pattern;
  if (outcome != 0) {
    return false;
  }
  const bool is_match = regexec(&compiled, text.c_str(), 0, nullptr, 0) == 0;
  regfree(&compiled);
  return is_match;
}

// The keywords that the schema uses; an unknown one is a finding.
class Validator {
 public:
  explicit Validator(const Json& root) : root_(root) {}

  // Empty: `value` obeys `schema`.
  std::string check(const Json& value, const Json& schema, const std::string& at) const {
    for (const auto& [keyword, wanted] : schema.items()) {
      const std::string finding = check_keyword(value, keyword, wanted, schema, at);
      if (!finding.empty()) {
        return finding;
      }
    }
    return "";
  }

 private:
  static bool is_type(const Json& value, const std::string& type) {
    return (type == "string" && value.is_string()) || (type == "object" && value.is_object()) ||
           (type == "array" && value.is_array()) || (type == "boolean" && value.is_boolean()) ||
           (type == "null" && value.is_null()) || (type == "number" && value.is_number()) ||
           (type == "integer" && value.is_number_integer());
  }

  std::string check_keyword(const Json& value, const std::string& keyword, const Json& wanted,
                            const Json& schema, const std::string& at) const {
    const std::set<std::string> words = {"$schema", "$id", "title", "description", "$defs"};
    if (words.count(keyword) > 0 || keyword == "additionalProperties") {
      return keyword == "additionalProperties" ? check_others(value, wanted, schema, at) : "";
    }
    if (keyword == "$ref") {
      const std::string name = wanted.get<std::string>().substr(std::string("#/$defs/").size());
      return check(value, root_.at("$defs").at(name), at);
    }
    if (keyword == "anyOf") {
      for (const Json& option : wanted) {
        if (check(value, option, at).empty()) {
          return "";
        }
      }
      return at + ": none of anyOf";
    }
    return check_value(value, keyword, wanted, at);
  }

  std::string check_others(const Json& value, const Json& wanted, const Json& schema,
                           const std::string& at) const {
    for (const auto& [key, item] : value.items()) {
      if (value.is_object() &&
          !(schema.contains("properties") && schema.at("properties").contains(key))) {
        if (wanted.is_boolean()) {
          return at + "." + key + ": unknown";
        }
        const std::string finding = check(item, wanted, at + "." + key);
        if (!finding.empty()) {
          return finding;
        }
      }
    }
    return "";
  }

  std::string check_value(const Json& value, const std::string& keyword, const Json& wanted,
                          const std::string& at) const {
    bool is_good = true;
    const double number = value.is_number() ? value.get<double>() : 0;
    if (keyword == "type") {
      is_good = wanted.is_string()
                    ? is_type(value, wanted)
                    : std::any_of(wanted.begin(), wanted.end(),
                                  [&](const Json& type) { return is_type(value, type); });
    } else if (keyword == "const") {
      is_good = value == wanted;
    } else if (keyword == "enum") {
      is_good = std::find(wanted.begin(), wanted.end(), value) != wanted.end();
    } else if (keyword == "minimum") {
      is_good = !value.is_number() || number >= wanted.get<double>();
    } else if (keyword == "exclusiveMinimum") {
      is_good = !value.is_number() || number > wanted.get<double>();
    } else if (keyword == "maximum") {
      is_good = !value.is_number() || number <= wanted.get<double>();
    } else if (keyword == "minLength") {
      is_good = !value.is_string() || value.get<std::string>().size() >= wanted.get<size_t>();
    } else if (keyword == "maxLength") {
      is_good = !value.is_string() || value.get<std::string>().size() <= wanted.get<size_t>();
    } else if (keyword == "minItems" || keyword == "minProperties") {
      is_good = value.size() >= wanted.get<size_t>();
    } else if (keyword == "pattern") {
      is_good = matches(value.get<std::string>(), wanted.get<std::string>());
    } else if (keyword == "required") {
      is_good = std::all_of(wanted.begin(), wanted.end(), [&](const Json& key) {
        return value.contains(key.get<std::string>());
      });
    } else if (keyword == "items" || keyword == "properties") {
      return check_children(value, keyword, wanted, at);
    } else {
      return "the schema has an unknown keyword: " + keyword;
    }
    return is_good ? "" : at + ": " + keyword + " " + dump_json(wanted) + ", " + dump_json(value);
  }

  std::string check_children(const Json& value, const std::string& keyword, const Json& wanted,
                             const std::string& at) const {
    if (keyword == "items" ? !value.is_array() : !value.is_object()) {
      return "";
    }
    for (const auto& [key, item] : value.items()) {
      const bool is_known = keyword == "items" || wanted.contains(key);
      const std::string finding =
          is_known ? check(item, keyword == "items" ? wanted : wanted.at(key), at + "." + key) : "";
      if (!finding.empty()) {
        return finding;
      }
    }
    return "";
  }

  const Json& root_;
};

std::string check_text(const Json& schema, std::string_view yaml) {
  const auto tree = parse_yaml(yaml, "f");
  EXPECT_TRUE(tree) << tree.error().message;
  return tree ? Validator(schema).check(to_json(*tree), schema, "study") : "no YAML";
}

template <typename Names>
void expect_properties(const Json& object, const Names& names) {
  std::set<std::string> found;
  for (const auto& item : object.at("properties").items()) {
    found.insert(item.key());
  }
  EXPECT_EQ(found, std::set<std::string>(names.begin(), names.end()));
  EXPECT_EQ(object.at("additionalProperties"), Json(false));
}

TEST(StudySchema, EveryBundledFileObeysIt) {
  const Json schema = load_schema();
  for (const BundledStudy& study : bundled_studies()) {
    EXPECT_EQ(check_text(schema, study.yaml), "") << study.name;
  }
}

TEST(StudySchema, RefusesWhatTheReaderRefuses) {
  const Json schema = load_schema();
  const std::string start = "name: s\nquestion: q\nprompt: p\n";
  EXPECT_EQ(check_text(schema, start), "");
  for (const std::string rest :
       {"x: 1\n", "settings: {x: 1}\n", "settings: {do_sample: 1}\n", "settings: {seed: 1}\n",
        "settings: {do_sample: true, temperature: 0}\n", "runs: 0\n", "sweep: {top_k: 3}\n",
        "sweep: {do_sample: [true], min_p: [2]}\n", "measures: [x]\n", "seeds: {policy: x}\n",
        "exact: {mass: 2}\n", "variants: {a: {x: 1}}\n", "execution: {threads: 0}\n",
        "candidates: -1\n", "variants: []\n"}) {
    EXPECT_NE(check_text(schema, start + rest), "") << rest;
    EXPECT_FALSE(parse_study(start + rest, "f")) << rest;
  }
}

TEST(StudySchema, ListsTheNamesOfTheReader) {
  const Json schema = load_schema();
  const Json& defs = schema.at("$defs");
  expect_properties(schema, kStudyKeys);
  expect_properties(defs.at("variant"), kVariantKeys);
  expect_properties(defs.at("prompt"), kPromptKeys);
  expect_properties(defs.at("message"), kMessageKeys);
  expect_properties(defs.at("seeds"), kSeedsKeys);
  expect_properties(defs.at("exact"), kExactKeys);
  expect_properties(defs.at("execution"), kExecutionKeys);
  expect_properties(defs.at("settings"), knob_names(KnobPlace::kSettings));
  expect_properties(defs.at("sweep"), knob_names(KnobPlace::kAnywhere));
  Json measures = Json::array();
  for (const MeasureKind kind : kMeasureKinds) {
    measures.push_back(std::string(name(kind)));
  }
  EXPECT_EQ(schema.at("properties").at("measures").at("items").at("enum"), measures);
}

TEST(StudySchema, RepeatsTheRangesOfTheSettings) {
  const Json schema = load_schema();
  for (const GenerationField& field : generation_fields()) {
    if (field.name == "seed") {
      continue;
    }
    const Json& value =
        schema.at("$defs").at("setting_" + std::string(field.name)).at("anyOf").at(0);
    Json found = Json::object();
    for (const char* keyword : {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"}) {
      if (value.contains(keyword)) {
        found[keyword] = value.at(keyword).get<double>();
      }
    }
    Json wanted = Json::object();
    if (field.range) {
      wanted[field.range->lowest_is_excluded ? "exclusiveMinimum" : "minimum"] =
          field.range->lowest;
      if (std::isfinite(field.range->highest)) {
        wanted[field.range->highest_is_excluded ? "exclusiveMaximum" : "maximum"] =
            field.range->highest;
      }
    }
    EXPECT_EQ(found, wanted) << field.name;
  }
}

}  // namespace
}  // namespace logitlab
