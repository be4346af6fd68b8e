#include "base/json.h"

#include <cmath>
#include <limits>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/utf8.h"

namespace logitlab {
namespace {

struct TextPosition {
  size_t line = 1;
  size_t column = 1;
};

TextPosition position_of(std::string_view text, size_t offset) {
  TextPosition position;
  for (size_t i = 0; i < offset && i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++position.line;
      position.column = 1;
    } else {
      ++position.column;
    }
  }
  return position;
}

// Python's bare words become numbers that overflow a double: 1e999 parses as infinity, and NaN as a
// private marker string that is turned into NaN after parsing.
constexpr std::string_view kNanMarker = "\x01logitlab-nan";
constexpr std::string_view kInfinityMarker = "\x01logitlab-inf";
constexpr std::string_view kNegativeInfinityMarker = "\x01logitlab-neginf";

struct BareWord {
  std::string_view word;
  std::string_view json;
};
constexpr BareWord kBareWords[] = {
    {"-Infinity", "\"\\u0001logitlab-neginf\""},
    {"Infinity", "\"\\u0001logitlab-inf\""},
    {"NaN", "\"\\u0001logitlab-nan\""},
};

// Replaces the bare words outside strings.
std::string quote_bare_words(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (in_string) {
      out.push_back(c);
      if (c == '\\' && i + 1 < text.size()) {
        out.push_back(text[++i]);
      } else if (c == '"') {
        in_string = false;
      }
      ++i;
      continue;
    }
    bool replaced = false;
    for (const BareWord& bare : kBareWords) {
      if (text.substr(i, bare.word.size()) == bare.word) {
        out += bare.json;
        i += bare.word.size();
        replaced = true;
        break;
      }
    }
    if (!replaced) {
      in_string = c == '"';
      out.push_back(c);
      ++i;
    }
  }
  return out;
}

// Depth is bounded by the parse, so this recursion is too.
void restore_numbers(Json* value) {
  if (value->is_string()) {
    const std::string& text = value->get_ref<const std::string&>();
    if (text == kNanMarker) {
      *value = std::numeric_limits<double>::quiet_NaN();
    } else if (text == kInfinityMarker) {
      *value = std::numeric_limits<double>::infinity();
    } else if (text == kNegativeInfinityMarker) {
      *value = -std::numeric_limits<double>::infinity();
    }
    return;
  }
  if (value->is_structured()) {
    for (auto& child : *value) {
      restore_numbers(&child);
    }
  }
}

// Depth of nesting outside strings; the library's own parser would recurse on destruction.
int nesting_depth(std::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = ++depth > deepest ? depth : deepest;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

// The library's text is "[json.exception.parse_error.101] parse error at line 1, column 2: syntax
// error while parsing value - unexpected end of input; expected ..."; keep what follows the colon.
std::string reason_of(std::string_view what) {
  const size_t colon = what.rfind("syntax error");
  // It quotes what it read last, which may be any bytes.
  return printable(colon == std::string_view::npos ? what : what.substr(colon));
}

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view where, const JsonLimits& limits) {
  if (const int depth = nesting_depth(text); depth > limits.max_depth) {
    return fail(ErrorCode::kInvalidArgument, "{}: JSON nested {} deep, want at most {}", where,
                depth, limits.max_depth);
  }
  std::string quoted;
  if (limits.allow_python_numbers) {
    quoted = quote_bare_words(text);
    text = quoted;
  }
  try {
    Json value = Json::parse(text.begin(), text.end());
    if (limits.allow_python_numbers) {
      restore_numbers(&value);
    }
    return value;
  } catch (const Json::parse_error& error) {
    const TextPosition at = position_of(text, error.byte == 0 ? 0 : error.byte - 1);
    return fail(ErrorCode::kInvalidArgument, "{}: not JSON at line {}, column {}: {}", where,
                at.line, at.column, reason_of(error.what()));
  } catch (const Json::exception& error) {
    return fail(ErrorCode::kInvalidArgument, "{}: not usable as JSON: {}", where,
                printable(error.what()));
  }
}

std::string dump_json(const Json& value, int indent) {
  return value.dump(indent, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

std::string quoted_json(const Json& value, size_t max_bytes) {
  std::string text = dump_json(value);
  if (text.size() > max_bytes) {
    text = replace_invalid_utf8(text.substr(0, max_bytes)) + "...";
  }
  return printable(text);
}

}  // namespace logitlab
