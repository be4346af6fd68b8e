#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/safetensors.h"

namespace logitlab {
namespace {

constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr int kMaxIndexDepth = 64;
constexpr size_t kMaxFileNameBytes = 255;

// A name in the folder itself: what an index says must not lead anywhere else.
bool is_plain_file_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxFileNameBytes && text != "." && text != ".." &&
         std::none_of(text.begin(), text.end(), [](char c) {
           return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
         });
}

// Reads the index as a stream, since an index has as many keys as a model has tensors.
class IndexReader final : public nlohmann::json_sax<Json> {
 public:
  IndexReader(std::string_view where, SafetensorsIndex* out) : where_(where), out_(out) {}

  std::optional<Error> error;
  bool has_weight_map = false;

  bool start_object(std::size_t /*elements*/) override {
    if (++depth_ > kMaxIndexDepth) {
      return refuse("JSON nested more than {} deep", kMaxIndexDepth);
    }
    if (depth_ == 2 && section_ == Section::kWeightMap) {
      if (has_weight_map) {
        return refuse("weight_map is there twice, want it once");
      }
      has_weight_map = true;
      return true;
    }
    return depth_ <= 2 || section_ != Section::kWeightMap || refuse_value("an object");
  }
  bool key(std::string& text) override {
    if (depth_ == 1) {
      section_ = text == "weight_map" ? Section::kWeightMap
                 : text == "metadata" ? Section::kMetadata
                                      : Section::kOther;
    } else if (depth_ == 2) {
      key_ = text;
    }
    return true;
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t /*elements*/) override {
    if (++depth_ > kMaxIndexDepth) {
      return refuse("JSON nested more than {} deep", kMaxIndexDepth);
    }
    return value("an array", /*depth_of_value=*/depth_ - 1);
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool string(std::string& text) override {
    if (depth_ == 2 && section_ == Section::kWeightMap) {
      if (!is_plain_file_name(text)) {
        return refuse(
            "weight_map: tensor {} is in {}, want a file name of the same folder, without "
            "a path",
            quote(key_), quote(text));
      }
      out_->weight_map.emplace_back(key_, text);
      return true;
    }
    return value(quote(text), depth_);
  }
  bool number_unsigned(number_unsigned_t number) override {
    if (is_total_size() && number <= static_cast<uint64_t>(INT64_MAX)) {
      out_->total_size = static_cast<int64_t>(number);
      return true;
    }
    return value(fmt::format("{}", number), depth_);
  }
  bool number_float(number_float_t number, const std::string& text) override {
    // Some writers sum the sizes as floats.
    constexpr double kExact = 9007199254740992.0;
    if (is_total_size() && number >= 0 && number <= kExact && std::floor(number) == number) {
      out_->total_size = static_cast<int64_t>(number);
      return true;
    }
    return value(text.substr(0, 40), depth_);
  }
  bool number_integer(number_integer_t number) override {
    return value(fmt::format("{}", number), depth_);
  }
  bool boolean(bool truth) override { return value(truth ? "true" : "false", depth_); }
  bool null() override { return value("null", depth_); }
  bool binary(binary_t& /*bytes*/) override { return value("binary", depth_); }
  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& /*reason*/) override {
    return refuse("not JSON at byte {}: found {}, want an index with a weight_map",
                  position == 0 ? 0 : position - 1, quote(last_token));
  }

 private:
  enum class Section { kWeightMap, kMetadata, kOther };

  [[nodiscard]] bool is_total_size() const {
    return depth_ == 2 && section_ == Section::kMetadata && key_ == "total_size";
  }

  template <typename... Args>
  bool refuse(fmt::format_string<Args...> format, Args&&... args) {
    error = Error{ErrorCode::kInvalidArgument,
                  fmt::format("{}: {}", where_, fmt::format(format, std::forward<Args>(args)...))};
    return false;
  }
  bool refuse_value(std::string_view found) {
    return refuse("weight_map: {} holds {}, want a file name", quote(key_), found);
  }
  // Anything else that stands at `depth_of_value`: wrong at the root and in the weight map.
  bool value(std::string_view found, int depth_of_value) {
    if (depth_of_value == 0) {
      return refuse("found {}, want an object with a weight_map", found);
    }
    if (section_ != Section::kWeightMap) {
      return true;
    }
    return depth_of_value == 1 ? refuse("weight_map is {}, want an object", found)
                               : refuse_value(found);
  }

  std::string_view where_;
  SafetensorsIndex* out_;
  int depth_ = 0;
  Section section_ = Section::kOther;
  std::string key_;
};

}  // namespace

Result<SafetensorsIndex> parse_safetensors_index(std::string_view text, std::string_view where) {
  if (const size_t nul = text.find('\0'); nul != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "{}: not JSON at byte {}: found a NUL", where, nul);
  }
  SafetensorsIndex index;
  IndexReader reader(where, &index);
  bool is_done = false;
  try {
    is_done = Json::sax_parse(text.begin(), text.end(), &reader);
  } catch (const Json::exception& exception) {
    return fail(ErrorCode::kInvalidArgument, "{}: not usable as JSON: {}", where,
                printable(exception.what()));
  }
  if (reader.error) {
    return tl::unexpected<Error>(std::move(*reader.error));
  }
  if (!is_done || !reader.has_weight_map || index.weight_map.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: found no weight_map entries, want an object "
                "of tensor names and file names",
                where);
  }
  std::sort(index.weight_map.begin(), index.weight_map.end());
  const auto twice =
      std::adjacent_find(index.weight_map.begin(), index.weight_map.end(),
                         [](const auto& a, const auto& b) { return a.first == b.first; });
  if (twice != index.weight_map.end()) {
    return fail(ErrorCode::kInvalidArgument, "{}: weight_map names tensor {} twice, want it once",
                where, quote(twice->first));
  }
  for (const auto& row : index.weight_map) {
    index.file_names.push_back(row.second);
  }
  std::sort(index.file_names.begin(), index.file_names.end());
  index.file_names.erase(std::unique(index.file_names.begin(), index.file_names.end()),
                         index.file_names.end());
  return index;
}

Result<SafetensorsIndex> read_safetensors_index(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxIndexBytes));
  return parse_safetensors_index(text, path.string());
}

}  // namespace logitlab
