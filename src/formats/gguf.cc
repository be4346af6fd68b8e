#include "formats/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>

#include <fmt/ranges.h>

#include "base/utf8.h"

namespace logitlab {

static_assert(std::endian::native == std::endian::little, "files are read in place");

namespace {

constexpr uint32_t kOldestVersion = 2;
constexpr uint32_t kNewestVersion = 3;
constexpr int kMaxArrayDepth = 4;
constexpr size_t kDefaultAlignment = 32;
// Least bytes of one entry: an empty name, its type, the shortest value; for a tensor also the
// count of dimensions and the offset.
constexpr uint64_t kLeastFieldBytes = 8 + 4 + 1;
constexpr uint64_t kLeastTensorBytes = 8 + 4 + 4 + 8;

struct ValueType {
  GgufType type;
  std::string_view name;
  size_t bytes;  // 0: not fixed
};
constexpr std::array<ValueType, 13> kValueTypes = {{
    {GgufType::kU8, "u8", 1},
    {GgufType::kI8, "i8", 1},
    {GgufType::kU16, "u16", 2},
    {GgufType::kI16, "i16", 2},
    {GgufType::kU32, "u32", 4},
    {GgufType::kI32, "i32", 4},
    {GgufType::kF32, "f32", 4},
    {GgufType::kBool, "bool", 1},
    {GgufType::kString, "string", 0},
    {GgufType::kArray, "array", 0},
    {GgufType::kU64, "u64", 8},
    {GgufType::kI64, "i64", 8},
    {GgufType::kF64, "f64", 8},
}};

const ValueType& row_of(GgufType type) {
  return kValueTypes[static_cast<size_t>(type)];
}

struct TensorType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;
};
constexpr std::array<TensorType, 36> kTensorTypes = {{
    {0, "F32", DType::kF32},        {1, "F16", DType::kF16},        {2, "Q4_0", DType::kQ4_0},
    {3, "Q4_1", DType::kQ4_1},      {6, "Q5_0", DType::kQ5_0},      {7, "Q5_1", DType::kQ5_1},
    {8, "Q8_0", DType::kQ8_0},      {9, "Q8_1", std::nullopt},      {10, "Q2_K", std::nullopt},
    {11, "Q3_K", std::nullopt},     {12, "Q4_K", DType::kQ4_K},     {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},     {15, "Q8_K", std::nullopt},     {16, "IQ2_XXS", std::nullopt},
    {17, "IQ2_XS", std::nullopt},   {18, "IQ3_XXS", std::nullopt},  {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", std::nullopt},   {21, "IQ3_S", std::nullopt},    {22, "IQ2_S", std::nullopt},
    {23, "IQ4_XS", std::nullopt},   {24, "I8", DType::kI8},         {25, "I16", DType::kI16},
    {26, "I32", DType::kI32},       {27, "I64", DType::kI64},       {28, "F64", DType::kF64},
    {29, "IQ1_M", std::nullopt},    {30, "BF16", DType::kBF16},     {31, "Q4_0_4_4", std::nullopt},
    {32, "Q4_0_4_8", std::nullopt}, {33, "Q4_0_8_8", std::nullopt}, {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},    {39, "MXFP4", std::nullopt},    {40, "NVFP4", std::nullopt},
}};

std::string readable_tensor_types() {
  std::vector<std::string_view> names;
  for (const TensorType& row : kTensorTypes) {
    if (row.dtype) {
      names.push_back(row.name);
    }
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

}  // namespace

std::string_view name(GgufType type) {
  return row_of(type).name;
}

// Walks the file once. Every read is checked against the end; every count against what the rest of
// the file can hold.
class GgufParser {
 public:
  GgufParser(std::span<const std::byte> file, std::string_view where, int file_index)
      : file_(file), where_(where), file_index_(file_index) {}

  Result<GgufContent> parse();

 private:
  struct TensorPlace {
    TensorEntry entry;
    uint64_t offset = 0;  // in the data section
  };

  [[nodiscard]] size_t remaining() const { return file_.size() - at_; }

  template <typename T>
  Result<T> read(std::string_view what) {
    if (remaining() < sizeof(T)) {
      return truncated(what, sizeof(T));
    }
    const T value = load<T>(file_.data() + at_);
    at_ += sizeof(T);
    return value;
  }

  [[nodiscard]] tl::unexpected<Error> truncated(std::string_view what, uint64_t wanted) const {
    return fail(ErrorCode::kDataLoss,
                "{}: {} at byte {} wants {} bytes, but {} are left; the file is truncated, or no "
                "GGUF file",
                where_, what, at_, wanted, remaining());
  }

  Result<std::string_view> read_string(std::string_view what);
  Result<GgufType> read_type(std::string_view key);
  Status skip_elements(std::string_view key, GgufType type, uint64_t count, int depth);
  Status read_header();
  Status read_field();
  Status index_fields();
  Status read_alignment();
  Status read_tensor(std::vector<TensorPlace>* places);
  Status read_sizes(TensorEntry* entry, const TensorType& type);
  Status place_tensors(std::vector<TensorPlace> places);

  std::span<const std::byte> file_;
  std::string where_;
  int file_index_;
  size_t at_ = 0;
  uint64_t n_tensors_ = 0;
  uint64_t n_fields_ = 0;
  GgufContent content_;
};

Result<std::string_view> GgufParser::read_string(std::string_view what) {
  ASSIGN_OR_RETURN(const auto length, read<uint64_t>(what));
  if (length > remaining()) {
    return truncated(what, length);
  }
  const std::string_view text(reinterpret_cast<const char*>(file_.data() + at_),
                              static_cast<size_t>(length));
  at_ += text.size();
  return text;
}

Result<GgufType> GgufParser::read_type(std::string_view key) {
  ASSIGN_OR_RETURN(const auto id, read<uint32_t>("a value type"));
  if (id >= kValueTypes.size()) {
    return fail(ErrorCode::kDataLoss, "{}: key {} has value type {}, want 0 to {}", where_,
                quote(key), id, kValueTypes.size() - 1);
  }
  return static_cast<GgufType>(id);
}

Status GgufParser::skip_elements(std::string_view key, GgufType type, uint64_t count, int depth) {
  const size_t element_bytes = row_of(type).bytes;
  // A string is at least its length; an array at least its type and count.
  const size_t least = element_bytes != 0 ? element_bytes : type == GgufType::kString ? 8 : 12;
  if (count > remaining() / least) {
    return fail(ErrorCode::kDataLoss,
                "{}: key {} announces {} elements of type {}, but the {} bytes that are left hold "
                "at most {}",
                where_, quote(key), count, name(type), remaining(), remaining() / least);
  }
  if (element_bytes != 0) {
    at_ += static_cast<size_t>(count) * element_bytes;
    return {};
  }
  if (type == GgufType::kString) {
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t length = remaining() < 8 ? 0 : load<uint64_t>(file_.data() + at_);
      if (remaining() < 8 || length > remaining() - 8) {
        return truncated(fmt::format("string {} of key {}", i, quote(key)), length);
      }
      at_ += 8 + static_cast<size_t>(length);
    }
    return {};
  }
  if (depth >= kMaxArrayDepth) {
    return fail(ErrorCode::kDataLoss, "{}: key {} nests arrays more than {} deep", where_,
                quote(key), kMaxArrayDepth);
  }
  for (uint64_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const GgufType inner, read_type(key));
    ASSIGN_OR_RETURN(const auto inner_count, read<uint64_t>("an array's length"));
    RETURN_IF_ERROR(skip_elements(key, inner, inner_count, depth + 1));
  }
  return {};
}

Status GgufParser::read_header() {
  constexpr std::string_view kMagic = "GGUF";
  if (file_.size() < kMagic.size() ||
      std::memcmp(file_.data(), kMagic.data(), kMagic.size()) != 0) {
    const std::string_view head(reinterpret_cast<const char*>(file_.data()),
                                std::min(file_.size(), kMagic.size()));
    return fail(ErrorCode::kInvalidArgument,
                "{}: starts with {}, want 'GGUF'; this is no GGUF file", where_,
                file_.empty() ? std::string("nothing (0 bytes)") : quote(head));
  }
  at_ = kMagic.size();
  ASSIGN_OR_RETURN(content_.version, read<uint32_t>("the version"));
  const uint32_t version = content_.version;
  if (version < kOldestVersion || version > kNewestVersion) {
    const uint32_t swapped = __builtin_bswap32(version);
    const bool is_swapped = swapped >= 1 && swapped <= kNewestVersion;
    return fail(ErrorCode::kUnsupported, "{}: GGUF version {}, want 2 or 3{}", where_, version,
                is_swapped     ? "; the file was written for the other byte order (big-endian)"
                : version == 1 ? "; convert the model again with a newer converter"
                               : "");
  }
  ASSIGN_OR_RETURN(n_tensors_, read<uint64_t>("the number of tensors"));
  ASSIGN_OR_RETURN(n_fields_, read<uint64_t>("the number of keys"));
  if (n_fields_ > remaining() / kLeastFieldBytes) {
    return fail(ErrorCode::kDataLoss,
                "{}: announces {} keys, but the {} bytes that follow hold at most {}", where_,
                n_fields_, remaining(), remaining() / kLeastFieldBytes);
  }
  if (n_tensors_ > remaining() / kLeastTensorBytes) {
    return fail(ErrorCode::kDataLoss,
                "{}: announces {} tensors, but the {} bytes that follow hold at most {}", where_,
                n_tensors_, remaining(), remaining() / kLeastTensorBytes);
  }
  return {};
}

Status GgufParser::read_field() {
  GgufField field;
  ASSIGN_OR_RETURN(field.key, read_string("a key"));
  ASSIGN_OR_RETURN(field.type, read_type(field.key));
  if (field.type == GgufType::kArray) {
    ASSIGN_OR_RETURN(field.element_type, read_type(field.key));
    ASSIGN_OR_RETURN(field.count, read<uint64_t>("an array's length"));
    const size_t begin = at_;
    RETURN_IF_ERROR(skip_elements(field.key, field.element_type, field.count, 1));
    field.value = file_.subspan(begin, at_ - begin);
  } else {
    const size_t begin = at_;
    RETURN_IF_ERROR(skip_elements(field.key, field.type, 1, 1));
    field.value = file_.subspan(begin, at_ - begin);
  }
  content_.metadata.fields_.push_back(field);
  return {};
}

Status GgufParser::index_fields() {
  GgufMetadata& metadata = content_.metadata;
  metadata.where_ = where_;
  const std::vector<GgufField>& fields = metadata.fields_;
  metadata.by_key_.resize(fields.size());
  std::iota(metadata.by_key_.begin(), metadata.by_key_.end(), 0U);
  std::sort(metadata.by_key_.begin(), metadata.by_key_.end(),
            [&](uint32_t a, uint32_t b) { return fields[a].key < fields[b].key; });
  for (size_t i = 1; i < fields.size(); ++i) {
    if (fields[metadata.by_key_[i - 1]].key == fields[metadata.by_key_[i]].key) {
      return fail(ErrorCode::kDataLoss, "{}: key {} is there twice, want every key once", where_,
                  quote(fields[metadata.by_key_[i]].key));
    }
  }
  return {};
}

Status GgufParser::read_alignment() {
  ASSIGN_OR_RETURN(const auto alignment, content_.metadata.get_int("general.alignment"));
  const int64_t value = alignment.value_or(static_cast<int64_t>(kDefaultAlignment));
  if (value <= 0 || value > static_cast<int64_t>(UINT32_MAX) ||
      !std::has_single_bit(static_cast<uint64_t>(value))) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: general.alignment is {}, want a power of two below 2^32", where_, value);
  }
  content_.alignment = static_cast<size_t>(value);
  return {};
}

// Sizes as the file has them, fastest first, become a Shape, outermost first.
Status GgufParser::read_sizes(TensorEntry* entry, const TensorType& type) {
  const DTypeTraits& dtype = traits(entry->dtype);
  if (entry->shape.rank() > 0) {
    const int64_t row = entry->shape[entry->shape.rank() - 1];
    if (row % dtype.block_elements != 0) {
      return fail(ErrorCode::kDataLoss,
                  "{}: tensor {}: {} elements a row, want a multiple of {} for type {}", where_,
                  quote(entry->name), row, dtype.block_elements, type.name);
    }
  } else if (dtype.block_elements != 1) {
    return fail(ErrorCode::kDataLoss, "{}: tensor {}: no dimensions, want at least one for type {}",
                where_, quote(entry->name), type.name);
  }
  // Sizes of 0 count as 1 here, so that no order of multiplication can overflow later.
  int64_t product = 1;
  bool is_empty = false;
  bool overflows = false;
  for (int axis = 0; axis < entry->shape.rank(); ++axis) {
    overflows = overflows ||
                __builtin_mul_overflow(product, std::max<int64_t>(entry->shape[axis], 1), &product);
    is_empty = is_empty || entry->shape[axis] == 0;
  }
  int64_t bytes = 0;
  overflows = overflows || __builtin_mul_overflow(product / dtype.block_elements,
                                                  static_cast<int64_t>(dtype.block_bytes), &bytes);
  if (overflows) {
    return fail(ErrorCode::kDataLoss,
                "{}: tensor {}: shape {} of {} takes more than 2^63 bytes, want at most the {} "
                "bytes of the file",
                where_, quote(entry->name), entry->shape.to_string(), type.name, file_.size());
  }
  entry->bytes = is_empty ? 0 : static_cast<size_t>(bytes);
  return {};
}

Status GgufParser::read_tensor(std::vector<TensorPlace>* places) {
  TensorPlace place;
  ASSIGN_OR_RETURN(const std::string_view tensor_name, read_string("a tensor's name"));
  place.entry.name = std::string(tensor_name);
  ASSIGN_OR_RETURN(const auto rank, read<uint32_t>("a tensor's number of dimensions"));
  if (rank > static_cast<uint32_t>(Shape::kMaxRank)) {
    return fail(ErrorCode::kDataLoss, "{}: tensor {}: {} dimensions, want at most {}", where_,
                quote(tensor_name), rank, Shape::kMaxRank);
  }
  std::array<int64_t, Shape::kMaxRank> sizes{};
  for (uint32_t axis = 0; axis < rank; ++axis) {
    ASSIGN_OR_RETURN(sizes[axis], read<int64_t>("a tensor's size"));
    if (sizes[axis] < 0) {
      return fail(ErrorCode::kDataLoss, "{}: tensor {}: size {} of dimension {}, want 0 or more",
                  where_, quote(tensor_name), sizes[axis], axis);
    }
  }
  for (uint32_t axis = rank; axis > 0; --axis) {
    place.entry.shape.append(sizes[axis - 1]);
  }
  ASSIGN_OR_RETURN(const auto type_id, read<uint32_t>("a tensor's type"));
  const auto type = std::find_if(kTensorTypes.begin(), kTensorTypes.end(),
                                 [&](const TensorType& row) { return row.id == type_id; });
  if (type == kTensorTypes.end() || !type->dtype) {
    return fail(ErrorCode::kUnsupported,
                "{}: tensor {} has type {}, which this build does not read; "
                "want one of {}",
                where_, quote(tensor_name),
                type == kTensorTypes.end() ? fmt::format("{}", type_id) : std::string(type->name),
                readable_tensor_types());
  }
  place.entry.dtype = *type->dtype;
  place.entry.file_index = file_index_;
  RETURN_IF_ERROR(read_sizes(&place.entry, *type));
  ASSIGN_OR_RETURN(place.offset, read<uint64_t>("a tensor's offset"));
  places->push_back(std::move(place));
  return {};
}

Status GgufParser::place_tensors(std::vector<TensorPlace> places) {
  const size_t alignment = content_.alignment;
  content_.data_offset = (at_ + alignment - 1) / alignment * alignment;
  const size_t data_bytes =
      file_.size() > content_.data_offset ? file_.size() - content_.data_offset : 0;
  for (TensorPlace& place : places) {
    TensorEntry& entry = place.entry;
    if (place.offset % alignment != 0) {
      return fail(ErrorCode::kDataLoss,
                  "{}: tensor {}: offset {}, want a multiple of the alignment {}", where_,
                  quote(entry.name), place.offset, alignment);
    }
    if (place.offset > data_bytes || entry.bytes > data_bytes - place.offset) {
      return fail(ErrorCode::kDataLoss,
                  "{}: tensor {} ({} {}): {} bytes at offset {} of the data, but the file holds {} "
                  "bytes of data; it is truncated: copy or download it again",
                  where_, quote(entry.name), name(entry.dtype), entry.shape.to_string(),
                  entry.bytes, place.offset, data_bytes);
    }
    // With no data at all the section may start past the end of the file; nothing is read there.
    entry.offset = std::min(content_.data_offset + static_cast<size_t>(place.offset), file_.size());
    entry.data = file_.data() + entry.offset;
    content_.tensors.push_back(std::move(entry));
  }
  std::vector<std::string_view> names;
  for (const TensorEntry& entry : content_.tensors) {
    names.push_back(entry.name);
  }
  std::sort(names.begin(), names.end());
  if (const auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end()) {
    return fail(ErrorCode::kDataLoss, "{}: tensor {} is there twice, want every name once", where_,
                quote(*twice));
  }
  return require_no_overlap(content_.tensors, where_);
}

Result<GgufContent> GgufParser::parse() {
  RETURN_IF_ERROR(read_header());
  for (uint64_t i = 0; i < n_fields_; ++i) {
    RETURN_IF_ERROR(read_field());
  }
  RETURN_IF_ERROR(index_fields());
  RETURN_IF_ERROR(read_alignment());
  std::vector<TensorPlace> places;
  for (uint64_t i = 0; i < n_tensors_; ++i) {
    RETURN_IF_ERROR(read_tensor(&places));
  }
  RETURN_IF_ERROR(place_tensors(std::move(places)));
  return std::move(content_);
}

Result<GgufContent> parse_gguf(std::span<const std::byte> file, std::string_view where,
                               int file_index) {
  return GgufParser(file, where, file_index).parse();
}

}  // namespace logitlab
