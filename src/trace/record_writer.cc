#include "trace/record_writer.h"

#include <cmath>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "base/utf8.h"
#include "trace/trace_fields.h"

namespace logitlab {
namespace {

using Buffer = fmt::memory_buffer;

void put(Buffer* out, std::string_view text) {
  out->append(text.data(), text.data() + text.size());
}

void put_string(Buffer* out, std::string_view text) {
  if (first_invalid_utf8(text) != text.size()) {
    put_string(out, replace_invalid_utf8(text));
    return;
  }
  out->push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      fmt::format_to(fmt::appender(*out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

template <typename T>
void put_number(Buffer* out, T value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(value)) {
      put(out, "null");
      return;
    }
    if (std::isinf(value)) {
      put(out, value > 0 ? "\"inf\"" : "\"-inf\"");
      return;
    }
  }
  // The shortest digits that read back as the same number.
  fmt::format_to(fmt::appender(*out), "{}", value);
}

// Writes an object's fields in the order of trace_fields.h.
class FieldWriter {
 public:
  explicit FieldWriter(Buffer* out) : out_(*out) {}

  template <typename T>
  void field(std::string_view name, const T& value) {
    out_.push_back(is_first_ ? '{' : ',');
    is_first_ = false;
    out_.push_back('"');
    put(&out_, name);
    put(&out_, "\":");
    write(value);
  }

  void close() { out_.push_back('}'); }

 private:
  void write(bool value) { put(&out_, value ? "true" : "false"); }
  void write(int32_t value) { put_number(&out_, value); }
  void write(int64_t value) { put_number(&out_, value); }
  void write(uint64_t value) { put_number(&out_, value); }
  void write(float value) { put_number(&out_, value); }
  void write(double value) { put_number(&out_, value); }
  void write(const std::string& value) { put_string(&out_, value); }
  void write(std::string_view value) { put_string(&out_, value); }
  void write(JsonText<const std::string> value) {
    if (value.text.empty()) {
      put(&out_, "null");
      return;
    }
    const auto json = parse_json(value.text, "config_json");
    CHECK(json.has_value()) << json.error().message;
    put(&out_, dump_json(*json));  // on one line, whatever it was before
  }
  void write(HexNumber<const uint64_t> value) {
    fmt::format_to(fmt::appender(out_), "\"{:016x}\"", value.value);
  }
  template <typename Pieces>
  void write(PieceList<Pieces> list) {
    out_.push_back('[');
    for (const auto& piece : list.pieces) {
      fmt::format_to(fmt::appender(out_), "{}[{},", &piece == list.pieces.data() ? "" : ",",
                     piece.first);
      put_string(&out_, piece.second);
      out_.push_back(']');
    }
    out_.push_back(']');
  }
  template <typename T>
  void write(const std::vector<T>& values) {
    out_.push_back('[');
    bool is_first = true;
    for (const auto& value : values) {
      if (!is_first) {
        out_.push_back(',');
      }
      is_first = false;
      if constexpr (std::is_same_v<T, bool>) {
        write(static_cast<bool>(value));
      } else {
        write(value);
      }
    }
    out_.push_back(']');
  }
  template <typename T>
  requires(std::is_class_v<T>) void write(const T& record) {
    FieldWriter fields(&out_);
    visit_fields(fields, record);
    fields.close();
  }

  Buffer& out_;
  bool is_first_ = true;
};

template <typename Record>
void append_record(std::string_view kind, const Record& record, Buffer* out) {
  FieldWriter fields(out);
  fields.field("record", kind);
  if constexpr (std::is_same_v<Record, RunTrace>) {
    fields.field("schema", kTraceSchema);
  }
  visit_fields(fields, record);
  fields.close();
  out->push_back('\n');
}

}  // namespace

void append_line(const RunTrace& run, fmt::memory_buffer* out) {
  append_record(kRunRecord, run, out);
}

void append_line(const TracedStep& step, fmt::memory_buffer* out) {
  append_record(kStepRecord, step, out);
}

void append_line(const TracedBeamStep& step, fmt::memory_buffer* out) {
  append_record(kBeamStepRecord, step, out);
}

void append_line(const RunEnd& end, fmt::memory_buffer* out) {
  append_record(kEndRecord, end, out);
}

}  // namespace logitlab
