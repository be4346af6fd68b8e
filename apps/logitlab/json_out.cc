#include "json_out.h"

#include <algorithm>
#include <string>

namespace logitlab {
namespace {

// An object of plain values that is not longer stays on one line.
constexpr size_t kShortObject = 90;

bool is_flat(const Json& value) {
  return std::none_of(value.begin(), value.end(),
                      [](const Json& item) { return item.is_structured(); });
}

void append(std::string* out, const Json& value, size_t indent) {
  if (!value.is_structured() || value.empty()) {
    *out += dump_json(value);
    return;
  }
  if (is_flat(value)) {
    const std::string line = dump_json(value);
    if (value.is_array() || line.size() <= kShortObject) {
      *out += line;
      return;
    }
  }
  const std::string margin(indent + 2, ' ');
  *out += value.is_object() ? "{\n" : "[\n";
  bool is_first = true;
  for (const auto& item : value.items()) {
    *out += is_first ? "" : ",\n";
    is_first = false;
    *out += margin;
    if (value.is_object()) {
      *out += dump_json(Json(item.key()));
      *out += ": ";
    }
    append(out, item.value(), indent + 2);
  }
  *out += '\n';
  out->append(indent, ' ');
  *out += value.is_object() ? '}' : ']';
}

}  // namespace

void print_json(Terminal* terminal, const Json& document) {
  std::string text;
  append(&text, document, 0);
  text += '\n';
  terminal->print(text);
}

Json json_of(const Error& error) {
  Json out = Json::object();
  out["code"] = std::string(code_name(error.code));
  out["message"] = error.message;
  return out;
}

}  // namespace logitlab
