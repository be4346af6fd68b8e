#include "formats/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/utf8.h"
#include "formats/hub_cache.h"

namespace logitlab {
namespace {

constexpr size_t kLengthBytes = 8;
constexpr int kMaxHeaderDepth = 16;
constexpr std::string_view kMetadataKey = "__metadata__";

struct DTypeName {
  std::string_view name;
  DType dtype;
};
constexpr std::array<DTypeName, 15> kDTypes = {{
    {"F64", DType::kF64},
    {"F32", DType::kF32},
    {"F16", DType::kF16},
    {"BF16", DType::kBF16},
    {"F8_E4M3", DType::kF8E4M3},
    {"F8_E5M2", DType::kF8E5M2},
    {"I64", DType::kI64},
    {"I32", DType::kI32},
    {"I16", DType::kI16},
    {"I8", DType::kI8},
    {"U64", DType::kU64},
    {"U32", DType::kU32},
    {"U16", DType::kU16},
    {"U8", DType::kU8},
    {"BOOL", DType::kBool},
}};

std::string dtype_names() {
  std::vector<std::string_view> names;
  for (const DTypeName& row : kDTypes) {
    names.push_back(row.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

// One tensor's object as the header says it, before it is believed.
struct RawTensor {
  std::string name;
  std::optional<std::string> dtype;
  std::optional<std::vector<uint64_t>> shape;    // the first kMaxRank + 1 sizes
  std::optional<std::vector<uint64_t>> offsets;  // the first three
};

// Reads the header as a stream: a header of 100 MB never becomes a tree of values. Stops at the
// first thing that is wrong and leaves it in `error`.
class HeaderReader final : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(std::string_view where, std::span<const std::byte> data, size_t data_start,
               int file_index, std::vector<TensorEntry>* out)
      : where_(where), data_(data), data_start_(data_start), file_index_(file_index), out_(out) {}

  std::optional<Error> error;

  bool start_object(std::size_t /*elements*/) override {
    if (++depth_ > kMaxHeaderDepth) {
      return refuse("JSON nested more than {} deep", kMaxHeaderDepth);
    }
    if (depth_ == 2 && !in_metadata_) {
      tensor_ = RawTensor{};
      tensor_.name = name_;
    }
    if (depth_ <= 2 || in_metadata_ || field_ == Field::kOther) {
      return true;
    }
    --depth_;  // the message speaks of the place that holds the object
    return refuse_value("an object", wanted());
  }

  bool key(std::string& text) override {
    if (depth_ == 1) {
      name_ = text;
      in_metadata_ = text == kMetadataKey;
      return true;
    }
    if (depth_ != 2 || in_metadata_) {
      return true;
    }
    field_ = text == "dtype"          ? Field::kDType
             : text == "shape"        ? Field::kShape
             : text == "data_offsets" ? Field::kOffsets
                                      : Field::kOther;
    if ((field_ == Field::kDType && tensor_.dtype) || (field_ == Field::kShape && tensor_.shape) ||
        (field_ == Field::kOffsets && tensor_.offsets)) {
      return refuse("tensor {}: {} twice, want it once", quote(name_), quote(text));
    }
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ == 1) {
      const bool was_metadata = in_metadata_;
      in_metadata_ = false;
      return was_metadata || add_tensor();
    }
    return true;
  }

  bool start_array(std::size_t /*elements*/) override {
    if (++depth_ > kMaxHeaderDepth) {
      return refuse("JSON nested more than {} deep", kMaxHeaderDepth);
    }
    if (depth_ == 3 && !in_metadata_ && field_ == Field::kShape) {
      tensor_.shape.emplace();
      return true;
    }
    if (depth_ == 3 && !in_metadata_ && field_ == Field::kOffsets) {
      tensor_.offsets.emplace();
      return true;
    }
    if (depth_ > 2 && (in_metadata_ || field_ == Field::kOther)) {
      return true;
    }
    --depth_;
    return refuse_value("an array", wanted());
  }

  bool end_array() override {
    --depth_;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (is_ignored()) {
      return true;
    }
    if (depth_ == 3 && field_ == Field::kShape) {
      if (tensor_.shape->size() <= static_cast<size_t>(Shape::kMaxRank)) {
        tensor_.shape->push_back(value);
      }
      return true;
    }
    if (depth_ == 3 && field_ == Field::kOffsets) {
      if (tensor_.offsets->size() <= 2) {
        tensor_.offsets->push_back(value);
      }
      return true;
    }
    return refuse_value(fmt::format("{}", value), wanted());
  }

  bool string(std::string& text) override {
    if (is_ignored()) {
      return true;
    }
    if (depth_ == 2 && field_ == Field::kDType) {
      tensor_.dtype = text;
      return true;
    }
    return refuse_value(quote(text), wanted());
  }

  bool number_integer(number_integer_t value) override {
    return is_ignored() || refuse_value(fmt::format("{}", value), wanted());
  }
  bool number_float(number_float_t /*value*/, const std::string& text) override {
    return is_ignored() || refuse_value(text.substr(0, 40), wanted());
  }
  bool boolean(bool value) override {
    return is_ignored() || refuse_value(value ? "true" : "false", wanted());
  }
  bool null() override { return is_ignored() || refuse_value("null", wanted()); }
  bool binary(binary_t& /*value*/) override { return refuse_value("binary", wanted()); }

  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& /*reason*/) override {
    error = Error{
        ErrorCode::kInvalidArgument,
        fmt::format("{}: the header is not JSON at byte {}: found {}, want an object of "
                    "tensors",
                    where_, kLengthBytes + (position == 0 ? 0 : position - 1), quote(last_token))};
    return false;
  }

 private:
  enum class Field { kDType, kShape, kOffsets, kOther };

  // Values below __metadata__ and below keys that the format does not know say nothing to us.
  [[nodiscard]] bool is_ignored() const {
    return (depth_ >= 2 && in_metadata_) || (depth_ >= 2 && field_ == Field::kOther);
  }

  [[nodiscard]] std::string_view wanted() const {
    if (depth_ < 2) {
      return "an object with dtype, shape and data_offsets";
    }
    switch (field_) {
      case Field::kDType:
        return "a dtype such as \"BF16\"";
      case Field::kShape:
        return "a list of sizes from 0 to 9223372036854775807";
      case Field::kOffsets:
        return "two offsets from 0 to the length of the data";
      case Field::kOther:
        break;
    }
    return "a value";
  }

  template <typename... Args>
  bool refuse(fmt::format_string<Args...> format, Args&&... args) {
    error = Error{ErrorCode::kInvalidArgument,
                  fmt::format("{}: {}", where_, fmt::format(format, std::forward<Args>(args)...))};
    return false;
  }

  bool refuse_value(std::string_view found, std::string_view want) {
    if (depth_ == 0) {
      return refuse("the header holds {}, want an object of tensors", found);
    }
    if (depth_ == 1) {
      return refuse("{}: found {}, want {}", quote(name_), found, want);
    }
    const std::string_view field = field_ == Field::kDType     ? "dtype"
                                   : field_ == Field::kShape   ? "shape"
                                   : field_ == Field::kOffsets ? "data_offsets"
                                                               : "a value";
    return refuse("tensor {}: {} holds {}, want {}", quote(name_), field, found, want);
  }

  bool refuse_tensor(ErrorCode code, std::string_view message) {
    error = Error{code, fmt::format("{}: tensor {}: {}", where_, quote(name_), message)};
    return false;
  }

  bool add_tensor();
  bool check_sizes(const DTypeTraits& dtype, Shape* shape, size_t* bytes);

  std::string_view where_;
  std::span<const std::byte> data_;  // the bytes after the header
  size_t data_start_;
  int file_index_;
  std::vector<TensorEntry>* out_;
  int depth_ = 0;
  bool in_metadata_ = false;
  Field field_ = Field::kOther;
  std::string name_;
  RawTensor tensor_;
};

// The shape as Shape, and the bytes that it takes. Sizes of 0 count as 1 in the overflow check, so
// that no order of multiplication can overflow later.
bool HeaderReader::check_sizes(const DTypeTraits& dtype, Shape* shape, size_t* bytes) {
  const std::vector<uint64_t>& sizes = *tensor_.shape;
  if (sizes.size() > static_cast<size_t>(Shape::kMaxRank)) {
    return refuse_tensor(
        ErrorCode::kUnsupported,
        fmt::format("shape [{}, ...] has more than {} dimensions, which this build "
                    "does not read",
                    fmt::join(sizes.begin(), sizes.end() - 1, ", "), Shape::kMaxRank));
  }
  int64_t product = static_cast<int64_t>(dtype.block_bytes);
  bool is_empty = false;
  bool overflows = false;
  for (const uint64_t size : sizes) {
    overflows = overflows || size > static_cast<uint64_t>(INT64_MAX) ||
                __builtin_mul_overflow(product, static_cast<int64_t>(std::max<uint64_t>(size, 1)),
                                       &product);
    is_empty = is_empty || size == 0;
  }
  if (overflows) {
    return refuse_tensor(
        ErrorCode::kInvalidArgument,
        fmt::format("shape [{}] of {} takes more than 2^63 bytes, want at most the "
                    "{} bytes of data in the file",
                    fmt::join(sizes, ", "), dtype.name, data_.size()));
  }
  for (const uint64_t size : sizes) {
    shape->append(static_cast<int64_t>(size));
  }
  *bytes = is_empty ? 0 : static_cast<size_t>(product);
  return true;
}

bool HeaderReader::add_tensor() {
  if (!tensor_.dtype || !tensor_.shape || !tensor_.offsets) {
    return refuse_tensor(ErrorCode::kInvalidArgument,
                         fmt::format("no {}, want dtype, shape and data_offsets",
                                     !tensor_.dtype   ? "dtype"
                                     : !tensor_.shape ? "shape"
                                                      : "data_offsets"));
  }
  const auto row = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeName& known) {
    return known.name == *tensor_.dtype;
  });
  if (row == kDTypes.end()) {
    return refuse_tensor(
        ErrorCode::kUnsupported,
        fmt::format("dtype {}, want one of {}", quote(*tensor_.dtype), dtype_names()));
  }
  TensorEntry entry;
  if (!check_sizes(traits(row->dtype), &entry.shape, &entry.bytes)) {
    return false;
  }
  const std::vector<uint64_t>& offsets = *tensor_.offsets;
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return refuse_tensor(ErrorCode::kDataLoss,
                         fmt::format("data_offsets [{}], want [begin, end] with begin <= end",
                                     fmt::join(offsets, ", ")));
  }
  if (offsets[1] > data_.size()) {
    return refuse_tensor(
        ErrorCode::kDataLoss,
        fmt::format("data_offsets [{}, {}] end after the {} bytes of data in the file; the file is "
                    "truncated, or its header is wrong: copy or download it again",
                    offsets[0], offsets[1], data_.size()));
  }
  if (offsets[1] - offsets[0] != entry.bytes) {
    return refuse_tensor(ErrorCode::kDataLoss,
                         fmt::format("data_offsets [{}, {}] hold {} bytes, want {} for {} {}",
                                     offsets[0], offsets[1], offsets[1] - offsets[0], entry.bytes,
                                     *tensor_.dtype, entry.shape.to_string()));
  }
  entry.name = std::move(tensor_.name);
  entry.dtype = row->dtype;
  entry.data = data_.data() + offsets[0];
  entry.file_index = file_index_;
  entry.offset = data_start_ + static_cast<size_t>(offsets[0]);
  out_->push_back(std::move(entry));
  return true;
}

Status require_unique_names(const std::vector<TensorEntry>& entries, std::string_view where) {
  std::vector<std::string_view> names;
  names.reserve(entries.size());
  for (const TensorEntry& entry : entries) {
    names.push_back(entry.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) {
    return fail(ErrorCode::kDataLoss, "{}: tensor {} is there twice, want every name once", where,
                quote(*twice));
  }
  return {};
}

// `entries` sorted by offset and without overlaps.
Status require_full_cover(const std::vector<TensorEntry>& entries, std::string_view where,
                          size_t data_start, size_t file_bytes) {
  size_t covered = data_start;
  for (const TensorEntry& entry : entries) {
    if (entry.offset > covered) {
      return fail(
          ErrorCode::kDataLoss,
          "{}: bytes [{}, {}) before tensor {} belong to no tensor, want data without holes", where,
          covered, entry.offset, quote(entry.name));
    }
    covered = std::max(covered, entry.offset + entry.bytes);
  }
  if (covered != file_bytes) {
    return fail(ErrorCode::kDataLoss,
                "{}: found {} bytes, want {}: {} bytes after the last tensor belong to no tensor",
                where, file_bytes, covered, file_bytes - covered);
  }
  return {};
}

Result<std::string_view> header_of(std::span<const std::byte> file, std::string_view where) {
  if (file.size() < kLengthBytes) {
    return fail(ErrorCode::kDataLoss,
                "{}: found {} bytes, want a safetensors file (8 bytes of header length, a JSON "
                "header, data)",
                where, file.size());
  }
  uint64_t length = 0;
  std::memcpy(&length, file.data(), kLengthBytes);
  if (length > kMaxSafetensorsHeaderBytes) {
    return fail(
        ErrorCode::kInvalidArgument,
        "{}: header length {}, want at most {} (the format's limit); this is no safetensors "
        "file",
        where, length, kMaxSafetensorsHeaderBytes);
  }
  if (length > file.size() - kLengthBytes) {
    return fail(ErrorCode::kDataLoss,
                "{}: header length {}, but only {} bytes follow; the file is truncated, or no "
                "safetensors file",
                where, length, file.size() - kLengthBytes);
  }
  const std::string_view header(reinterpret_cast<const char*>(file.data() + kLengthBytes),
                                static_cast<size_t>(length));
  if (header.empty() || header.front() != '{') {
    return fail(ErrorCode::kInvalidArgument,
                "{}: the header starts with {}, want '{{'; this is no safetensors file", where,
                header.empty() ? std::string("nothing") : quote(header.substr(0, 8)));
  }
  if (const size_t nul = header.find('\0'); nul != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "{}: the header is not JSON at byte {}: found a NUL",
                where, kLengthBytes + nul);
  }
  return header;
}

}  // namespace

Result<std::vector<TensorEntry>> parse_safetensors(std::span<const std::byte> file,
                                                   std::string_view where, int file_index) {
  ASSIGN_OR_RETURN(const std::string_view header, header_of(file, where));
  const size_t data_start = kLengthBytes + header.size();
  std::vector<TensorEntry> entries;
  HeaderReader reader(where, file.subspan(data_start), data_start, file_index, &entries);
  bool is_done = false;
  try {
    is_done = Json::sax_parse(header.begin(), header.end(), &reader);
  } catch (const Json::exception& exception) {
    return fail(ErrorCode::kInvalidArgument, "{}: the header is not usable as JSON: {}", where,
                printable(exception.what()));
  }
  if (reader.error) {
    return tl::unexpected<Error>(std::move(*reader.error));
  }
  if (!is_done) {
    return fail(ErrorCode::kInvalidArgument, "{}: the header is not JSON", where);
  }
  RETURN_IF_ERROR(require_unique_names(entries, where));
  std::sort(entries.begin(), entries.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.bytes < b.bytes;
  });
  RETURN_IF_ERROR(require_no_overlap(entries, where));
  RETURN_IF_ERROR(require_full_cover(entries, where, data_start, file.size()));
  return entries;
}

namespace {

// The shards of an index, opened; which of their tensors count; what the index says too much.
class ShardReader {
 public:
  ShardReader(const std::filesystem::path& folder, const SafetensorsIndex& index)
      : folder_(folder), index_(index), is_seen_(index.weight_map.size(), false) {}

  Result<Checkpoint> read();

 private:
  Status require_shards() const;
  Status read_shard(const std::string& file_name);
  [[nodiscard]] std::string where() const {
    return (folder_ / "model.safetensors.index.json").string();
  }

  const std::filesystem::path& folder_;
  const SafetensorsIndex& index_;
  std::vector<bool> is_seen_;                // by weight_map entry
  std::map<size_t, std::string> elsewhere_;  // entries that another shard than theirs holds
  std::vector<MappedFile> maps_;
  std::vector<TensorEntry> entries_;
};

Status ShardReader::require_shards() const {
  std::vector<std::string> absent;
  for (const std::string& file_name : index_.file_names) {
    const FilePresence presence = file_presence(folder_, file_name);
    if (presence != FilePresence::kPresent) {
      absent.push_back(fmt::format("{} ({})", file_name, name(presence)));
    }
  }
  if (!absent.empty()) {
    return fail(ErrorCode::kNotFound, "{}: {} of {} shards of the index are not there: {}",
                folder_.string(), absent.size(), index_.file_names.size(), list_names(absent));
  }
  return {};
}

Status ShardReader::read_shard(const std::string& file_name) {
  ASSIGN_OR_RETURN(MappedFile map, MappedFile::open(folder_ / file_name));
  const int file_index = static_cast<int>(maps_.size());
  ASSIGN_OR_RETURN(auto found, parse_safetensors(map.bytes(), map.path().string(), file_index));
  maps_.push_back(std::move(map));
  for (TensorEntry& entry : found) {
    const auto at =
        std::lower_bound(index_.weight_map.begin(), index_.weight_map.end(), entry.name,
                         [](const auto& row, const std::string& want) { return row.first < want; });
    if (at == index_.weight_map.end() || at->first != entry.name) {
      continue;
    }
    const auto row = static_cast<size_t>(at - index_.weight_map.begin());
    if (at->second == file_name) {
      is_seen_[row] = true;
      entries_.push_back(std::move(entry));
    } else {
      elsewhere_.emplace(row, file_name);
    }
  }
  return {};
}

std::string dtype_histogram(const std::vector<TensorEntry>& entries) {
  std::map<std::string_view, std::pair<size_t, size_t>> totals;
  for (const TensorEntry& entry : entries) {
    auto& [count, bytes] = totals[name(entry.dtype)];
    ++count;
    bytes += entry.bytes;
  }
  std::vector<std::string> parts;
  for (const auto& [dtype, total] : totals) {
    parts.push_back(fmt::format("{} {} ({} bytes)", total.first, dtype, total.second));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

Result<Checkpoint> ShardReader::read() {
  RETURN_IF_ERROR(require_shards());
  for (const std::string& file_name : index_.file_names) {
    RETURN_IF_ERROR(read_shard(file_name));
  }
  const auto unseen = std::find(is_seen_.begin(), is_seen_.end(), false);
  if (unseen != is_seen_.end()) {
    const auto row = static_cast<size_t>(unseen - is_seen_.begin());
    const auto& [tensor, file_name] = index_.weight_map[row];
    const auto found = elsewhere_.find(row);
    return fail(ErrorCode::kDataLoss,
                "{}: tensor {} should be in {}, but that shard does not hold it{} ({} tensors of "
                "the index are not where it says); the shard seems to be of another revision than "
                "the index: want all files of one revision",
                where(), quote(tensor), printable(file_name),
                found == elsewhere_.end() ? std::string()
                                          : fmt::format(", {} does", printable(found->second)),
                std::count(is_seen_.begin(), is_seen_.end(), false));
  }
  std::vector<std::string> warnings;
  size_t total_bytes = 0;
  for (const TensorEntry& entry : entries_) {
    total_bytes += entry.bytes;
  }
  if (index_.total_size && static_cast<size_t>(*index_.total_size) != total_bytes) {
    warnings.push_back(fmt::format("{}: total_size {}, but the tensors take {} bytes: {}", where(),
                                   *index_.total_size, total_bytes, dtype_histogram(entries_)));
  }
  return Checkpoint::assemble(std::move(maps_), std::move(entries_), std::move(warnings));
}

}  // namespace

Result<Checkpoint> open_safetensors_file(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(MappedFile map, MappedFile::open(path));
  ASSIGN_OR_RETURN(auto entries, parse_safetensors(map.bytes(), path.string()));
  std::vector<MappedFile> maps;
  maps.push_back(std::move(map));
  return Checkpoint::assemble(std::move(maps), std::move(entries));
}

Result<Checkpoint> open_safetensors(const std::filesystem::path& folder) {
  const FilePresence single = file_presence(folder, "model.safetensors");
  if (single == FilePresence::kPresent || single == FilePresence::kNotAFile) {
    return open_safetensors_file(folder / "model.safetensors");
  }
  const std::filesystem::path index_path = folder / "model.safetensors.index.json";
  const FilePresence sharded = file_presence(folder, "model.safetensors.index.json");
  if (sharded == FilePresence::kPresent || sharded == FilePresence::kNotAFile) {
    ASSIGN_OR_RETURN(const SafetensorsIndex index, read_safetensors_index(index_path));
    return ShardReader(folder, index).read();
  }
  return fail(ErrorCode::kNotFound,
              "{}: no weights: looked for model.safetensors ({}) and model.safetensors.index.json "
              "({})",
              folder.string(), name(single), name(sharded));
}

}  // namespace logitlab
