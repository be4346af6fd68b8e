// GGUF versions 2 and 3, whole or split into parts. Untrusted bytes in, checked metadata and
// tensors out. Everything is checked against the file's length before memory is taken.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "formats/checkpoint.h"
#include "formats/gguf_vocab.h"

namespace logitlab {

// Value types as the file numbers them.
enum class GgufType : uint8_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
[[nodiscard]] std::string_view name(GgufType type);

// One key of the metadata; everything points into the file. The value was bounds-checked.
struct GgufField {
  std::string_view key;
  GgufType type = GgufType::kU8;
  GgufType element_type = GgufType::kU8;  // of an array
  uint64_t count = 1;                     // elements of an array
  std::span<const std::byte> value;       // without type and count
};

// The key-value part of a GGUF file. Immutable, safe to read from any thread. Views are valid while
// the bytes that were parsed live.
//
// The getters are lenient about widths as other readers are (any integer type for get_int, any
// number for get_float, 0 and 1 for get_bool) and strict about kinds. nullopt: no such key.
// kInvalidArgument names file, key, type found and type wanted, or the value that does not fit.
class GgufMetadata {
 public:
  GgufMetadata() = default;

  [[nodiscard]] const std::vector<GgufField>& fields() const { return fields_; }  // file order
  [[nodiscard]] const GgufField* find(std::string_view key) const;  // nullptr if absent

  [[nodiscard]] Result<std::optional<int64_t>> get_int(std::string_view key) const;
  [[nodiscard]] Result<std::optional<double>> get_float(std::string_view key) const;
  [[nodiscard]] Result<std::optional<bool>> get_bool(std::string_view key) const;
  [[nodiscard]] Result<std::optional<std::string_view>> get_string(std::string_view key) const;
  // Arrays; a scalar counts as an array of one (per-layer keys are written both ways).
  [[nodiscard]] Result<std::optional<std::vector<int64_t>>> get_ints(std::string_view key) const;
  [[nodiscard]] Result<std::optional<std::vector<float>>> get_floats(std::string_view key) const;
  // Views into the file; strings are not copied and need not be UTF-8.
  [[nodiscard]] Result<std::optional<std::vector<std::string_view>>> get_strings(
      std::string_view key) const;
  // The value as one line for people: scalars and strings as they are (printable, shortened),
  // arrays as "[f32; 3] 1, 2, 3" with at most eight elements.
  [[nodiscard]] std::string describe(const GgufField& field) const;

  // general.architecture; kInvalidArgument when it is absent or not a string.
  [[nodiscard]] Result<std::string> architecture() const;
  [[nodiscard]] const std::string& where() const { return where_; }

 private:
  friend class GgufParser;
  std::vector<GgufField> fields_;
  std::vector<uint32_t> by_key_;  // indices into fields_
  std::string where_;
};

// One file's content.
struct GgufContent {
  uint32_t version = 0;
  size_t alignment = 32;
  size_t data_offset = 0;  // of the data section, from the start of the file
  GgufMetadata metadata;
  std::vector<TensorEntry> tensors;  // shapes in PyTorch order; data points into the file
};

// Parses a file that is in memory. kInvalidArgument (not GGUF), kUnsupported (version 1, the other
// byte order, a tensor type that is not read: the tensor and the type are named), kDataLoss
// (truncated, counts or ranges beyond the file, overlaps, duplicates).
[[nodiscard]] Result<GgufContent> parse_gguf(std::span<const std::byte> file,
                                             std::string_view where, int file_index = 0);

// The tokenizer keys. kInvalidArgument when there is no tokenizer, when a key has another kind,
// when scores or types are not one a token, or when an id lies outside the vocabulary.
[[nodiscard]] Result<GgufVocab> read_gguf_vocab(const GgufMetadata& metadata);

// An opened GGUF model: metadata of the first part, tensors of all parts. Move-only, immutable,
// thread-safe.
class GgufFile {
 public:
  // `path` is a whole file or any part `<prefix>-00001-of-00003.gguf` of a split one; the other
  // parts are looked for beside it and every missing one is named. Errors as of parse_gguf.
  [[nodiscard]] static Result<GgufFile> open(const std::filesystem::path& path);

  [[nodiscard]] uint32_t version() const { return version_; }
  [[nodiscard]] const GgufMetadata& metadata() const { return metadata_; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }
  // The tensors with their mappings; the metadata's views stay valid while the result lives.
  [[nodiscard]] Checkpoint take_checkpoint() && { return std::move(checkpoint_); }
  [[nodiscard]] Result<std::string> architecture() const { return metadata_.architecture(); }
  [[nodiscard]] Result<GgufVocab> read_vocab() const { return read_gguf_vocab(metadata_); }

 private:
  uint32_t version_ = 0;
  GgufMetadata metadata_;
  Checkpoint checkpoint_;
};

// `<prefix>-00002-of-00003.gguf`; nullopt when the name is not of that form or the numbers make no
// sense (0, or part > count).
struct GgufPartName {
  std::string prefix;
  int part = 0;  // from 1
  int count = 0;
};
[[nodiscard]] std::optional<GgufPartName> parse_gguf_part_name(std::string_view file_name);

}  // namespace logitlab
