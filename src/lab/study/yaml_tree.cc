#include "lab/study/yaml_tree.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <exception>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include "base/utf8.h"

namespace logitlab {
namespace {

// Of a text that a message quotes.
constexpr size_t kQuotedBytes = 60;

tl::unexpected<Error> refuse(std::string_view where, int line, std::string_view what) {
  return fail(ErrorCode::kInvalidArgument, "{}:{}: {}", where, line, what);
}

// What the scanner of the library would read in its own way, or not at all.
Status check_text(std::string_view text, std::string_view where) {
  if (text.size() > kMostYamlBytes) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} bytes found, want at most {}", where,
                text.size(), kMostYamlBytes);
  }
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    return refuse(where, 1, "a text in UTF-16 found, want UTF-8");
  }
  const size_t invalid = first_invalid_utf8(text);
  int line = 1;
  bool is_indentation = true;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (i == invalid) {
      return refuse(where, line, fmt::format("byte 0x{:02x} found, want UTF-8", byte));
    }
    if (byte == '\n') {
      ++line;
      is_indentation = true;
      continue;
    }
    if (byte == '\t' && is_indentation) {
      return refuse(where, line, "a tab at the start of a line found, want spaces");
    }
    if ((byte < 0x20 && byte != '\t' && byte != '\r') || byte == 0x7f) {
      return refuse(where, line,
                    fmt::format("byte 0x{:02x} found, want a text file; \"\\x{:02x}\" in double "
                                "quotes stands for it",
                                byte, byte));
    }
    is_indentation = is_indentation && byte == ' ';
  }
  return {};
}

// Builds the tree from the events of the library, and stops building at the first thing to refuse.
class TreeBuilder final : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string_view where) : where_(where) {}

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (++n_documents_ > 1) {
      stop(mark, "a second document found, want one study in a file");
    }
  }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    YamlNode node = begin(YamlNode::Kind::kScalar, mark, "", anchor);
    add(mark, std::move(node));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    stop(mark, "an alias (*name) found, want the value itself");
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    YamlNode node = begin(YamlNode::Kind::kScalar, mark, tag, anchor);
    node.is_quoted = tag == "!";
    if (is_open()) {
      node.text = value;
    }
    add(mark, std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    open(mark, begin(YamlNode::Kind::kList, mark, tag, anchor));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    open(mark, begin(YamlNode::Kind::kMap, mark, tag, anchor));
  }
  void OnMapEnd() override { close(); }

  // Nothing was refused.
  [[nodiscard]] bool is_open() const { return status_.has_value(); }

  Result<YamlNode> take() {
    RETURN_IF_ERROR(status_);
    if (!root_ || root_->kind != YamlNode::Kind::kMap) {
      return refuse(where_, root_ ? root_->line : 1,
                    fmt::format("{} found, want a mapping, as `name: my-study`",
                                !root_ || root_->is_null()               ? "nothing"
                                : root_->kind == YamlNode::Kind::kScalar ? "a single value"
                                                                         : "a list"));
    }
    return std::move(*root_);
  }

 private:
  // A collection that is being filled, and the key whose value comes next.
  struct Level {
    YamlNode node;
    std::optional<YamlNode> key;
    std::set<std::string> keys;
  };

  static int line_of(const YAML::Mark& mark) { return mark.line + 1; }

  void stop(const YAML::Mark& mark, std::string_view what) {
    if (is_open()) {
      status_ = refuse(where_, line_of(mark), what);
    }
  }

  YamlNode begin(YamlNode::Kind kind, const YAML::Mark& mark, const std::string& tag,
                 YAML::anchor_t anchor) {
    if (anchor != 0) {
      stop(mark, "an anchor (&name) found, want the value written out where it is used");
    }
    if (!tag.empty() && tag != "?" && tag != "!") {
      stop(mark, fmt::format("the tag {} found, want a plain value, or a text in quotes",
                             quoted_json(tag, kQuotedBytes)));
    }
    if (++n_nodes_ > kMostYamlNodes) {
      stop(mark, fmt::format("more than {} values found, want fewer", kMostYamlNodes));
    }
    YamlNode node;
    node.kind = kind;
    node.line = line_of(mark);
    return node;
  }

  void open(const YAML::Mark& mark, YamlNode node) {
    // Counted beyond the limit too, so that close() finds its partner.
    if (++depth_ > kMostYamlDepth) {
      stop(mark, fmt::format("more than {} levels of nesting found, want fewer", kMostYamlDepth));
    }
    if (is_open()) {
      levels_.push_back({std::move(node), {}, {}});
    }
  }

  void close() {
    --depth_;
    if (!is_open()) {
      return;
    }
    YamlNode node = std::move(levels_.back().node);
    levels_.pop_back();
    YAML::Mark mark;
    mark.line = node.line - 1;
    add(mark, std::move(node));
  }

  void add(const YAML::Mark& mark, YamlNode node) {
    if (!is_open()) {
      return;
    }
    if (levels_.empty()) {
      root_ = std::move(node);
      return;
    }
    Level& level = levels_.back();
    if (level.node.kind == YamlNode::Kind::kList) {
      level.node.items.push_back(std::move(node));
    } else if (level.key) {
      level.node.entries.push_back({*std::move(level.key), std::move(node)});
      level.key.reset();
    } else {
      if (node.kind != YamlNode::Kind::kScalar || node.text.empty()) {
        stop(mark, "a mapping whose key is no name found, want `name: value`");
      } else if (level.keys.size() == kMostYamlKeys) {
        stop(mark, fmt::format("more than {} names in a mapping found, want fewer", kMostYamlKeys));
      } else if (!level.keys.insert(node.text).second) {
        stop(mark, fmt::format("{} found twice, want it once", quoted_json(node.text)));
      }
      level.key = std::move(node);
    }
  }

  std::string_view where_;
  Status status_;
  std::optional<YamlNode> root_;
  std::vector<Level> levels_;
  size_t depth_ = 0;
  size_t n_nodes_ = 0;
  int n_documents_ = 0;
};

bool is_digits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string_view without_sign(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) {
    text.remove_prefix(1);
  }
  return text;
}

template <typename T>
bool parse_whole(std::string_view text, T* value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return code == std::errc() && end == text.data() + text.size();
}

// 1.5, .5, 1e3; not the words that from_chars knows.
bool looks_like_number(std::string_view text) {
  text = without_sign(text);
  const size_t exponent = text.find_first_of("eE");
  if (exponent != std::string_view::npos && !is_digits(without_sign(text.substr(exponent + 1)))) {
    return false;
  }
  const std::string_view mantissa = text.substr(0, exponent);
  const size_t point = mantissa.find('.');
  const std::string_view whole = mantissa.substr(0, point);
  const std::string_view part =
      point == std::string_view::npos ? std::string_view() : mantissa.substr(point + 1);
  return (is_digits(whole) && (part.empty() || is_digits(part))) ||
         (whole.empty() && is_digits(part));
}

Json scalar_json(const YamlNode& node) {
  const std::string& text = node.text;
  if (node.is_quoted) {
    return text;
  }
  if (node.is_null()) {
    return nullptr;
  }
  if (text == "true" || text == "True" || text == "TRUE") {
    return true;
  }
  if (text == "false" || text == "False" || text == "FALSE") {
    return false;
  }
  const std::string_view unsigned_text = text.starts_with('+') ? without_sign(text) : text;
  if (is_digits(without_sign(text))) {
    uint64_t whole = 0;
    int64_t negative = 0;
    if (parse_whole(unsigned_text, &whole)) {
      return whole;
    }
    if (parse_whole(unsigned_text, &negative)) {
      return negative;
    }
  }
  double number = 0;
  if (looks_like_number(text) && parse_whole(unsigned_text, &number) && std::isfinite(number)) {
    return number;
  }
  return text;
}

}  // namespace

const YamlNode* YamlNode::find(std::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name.text == key) {
      return &value;
    }
  }
  return nullptr;
}

bool YamlNode::is_null() const {
  constexpr std::array<std::string_view, 5> kWords = {"", "~", "null", "Null", "NULL"};
  return kind == Kind::kScalar && !is_quoted &&
         std::find(kWords.begin(), kWords.end(), text) != kWords.end();
}

Json to_json(const YamlNode& node) {
  if (node.kind == YamlNode::Kind::kScalar) {
    return scalar_json(node);
  }
  if (node.kind == YamlNode::Kind::kList) {
    Json out = Json::array();
    for (const YamlNode& item : node.items) {
      out.push_back(to_json(item));
    }
    return out;
  }
  Json out = Json::object();
  for (const auto& [key, value] : node.entries) {
    out[key.text] = to_json(value);
  }
  return out;
}

Result<YamlNode> parse_yaml(std::string_view text, std::string_view where) {
  RETURN_IF_ERROR(check_text(text, where));
  TreeBuilder builder(where);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    // Of some texts the library makes documents without end.
    while (builder.is_open() && parser.HandleNextDocument(builder)) {
    }
  } catch (const YAML::Exception& exception) {
    const bool has_line = !exception.mark.is_null();
    return refuse(where, has_line ? exception.mark.line + 1 : 1,
                  fmt::format("this is not YAML: {}", printable(exception.msg)));
  } catch (const std::exception& exception) {
    return refuse(where, 1, fmt::format("this is not YAML: {}", printable(exception.what())));
  }
  return builder.take();
}

}  // namespace logitlab
