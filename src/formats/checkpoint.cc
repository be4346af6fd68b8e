#include "formats/checkpoint.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/edit_distance.h"
#include "base/utf8.h"

namespace logitlab {
namespace {

constexpr size_t kMaxQuotedBytes = 100;
constexpr size_t kMaxListedNames = 100;
// Spelling distances are for a message only, so their cost is capped.
constexpr size_t kMaxComparedBytes = 100;
constexpr size_t kMaxComparedNames = 10000;

std::filesystem::path real_path_of(const std::filesystem::path& path) {
  std::error_code error;
  auto real = std::filesystem::canonical(path, error);
  return error ? path : real;
}

}  // namespace

std::string quote(std::string_view text) {
  std::string out = "'" + printable(text.substr(0, kMaxQuotedBytes));
  out += text.size() > kMaxQuotedBytes ? "...'" : "'";
  return out;
}

std::string list_names(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < kMaxListedNames; ++i) {
    out += (i == 0 ? "" : ", ") + printable(names[i]);
  }
  if (names.size() > kMaxListedNames) {
    out += fmt::format(" and {} more", names.size() - kMaxListedNames);
  }
  return out;
}

Status require_no_overlap(const std::vector<TensorEntry>& entries, std::string_view where) {
  std::vector<const TensorEntry*> order;
  order.reserve(entries.size());
  for (const TensorEntry& entry : entries) {
    if (entry.bytes > 0) {
      order.push_back(&entry);
    }
  }
  std::sort(order.begin(), order.end(),
            [](const TensorEntry* a, const TensorEntry* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorEntry& before = *order[i - 1];
    const TensorEntry& after = *order[i];
    if (before.offset + before.bytes > after.offset) {
      return fail(ErrorCode::kDataLoss,
                  "{}: tensors {} and {} overlap: found bytes [{}, {}) and [{}, {}) of the file, "
                  "want ranges of their own",
                  where, quote(before.name), quote(after.name), before.offset,
                  before.offset + before.bytes, after.offset, after.offset + after.bytes);
    }
  }
  return {};
}

Result<Checkpoint> Checkpoint::assemble(std::vector<MappedFile> maps,
                                        std::vector<TensorEntry> entries,
                                        std::vector<std::string> warnings) {
  CHECK(entries.size() < std::numeric_limits<uint32_t>::max()) << entries.size();
  Checkpoint checkpoint;
  checkpoint.maps_ = std::move(maps);
  checkpoint.tensors_ = std::move(entries);
  checkpoint.warnings_ = std::move(warnings);
  for (const MappedFile& map : checkpoint.maps_) {
    checkpoint.files_.push_back({map.path(), real_path_of(map.path()), map.bytes().size()});
  }
  std::vector<TensorEntry>& tensors = checkpoint.tensors_;
  std::sort(tensors.begin(), tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.file_index, a.offset, a.name) < std::tie(b.file_index, b.offset, b.name);
  });
  checkpoint.by_name_.resize(tensors.size());
  std::iota(checkpoint.by_name_.begin(), checkpoint.by_name_.end(), 0U);
  std::sort(checkpoint.by_name_.begin(), checkpoint.by_name_.end(),
            [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; });
  for (size_t i = 1; i < tensors.size(); ++i) {
    const TensorEntry& a = tensors[checkpoint.by_name_[i - 1]];
    const TensorEntry& b = tensors[checkpoint.by_name_[i]];
    if (a.name == b.name) {
      const auto path_of = [&](const TensorEntry& entry) {
        return checkpoint.files_.at(static_cast<size_t>(entry.file_index)).path.string();
      };
      return fail(ErrorCode::kDataLoss, "{} and {}: both hold tensor {}, want it once", path_of(a),
                  path_of(b), quote(a.name));
    }
  }
  for (const TensorEntry& entry : tensors) {
    checkpoint.total_bytes_ += entry.bytes;
  }
  return checkpoint;
}

const TensorEntry* Checkpoint::find(std::string_view name) const {
  const auto at = std::lower_bound(by_name_.begin(), by_name_.end(), name,
                                   [&](uint32_t index, std::string_view want) {
                                     return std::string_view(tensors_[index].name) < want;
                                   });
  if (at == by_name_.end() || tensors_[*at].name != name) {
    return nullptr;
  }
  return &tensors_[*at];
}

Result<const TensorEntry*> Checkpoint::require(std::string_view name) const {
  if (const TensorEntry* entry = find(name)) {
    return entry;
  }
  std::string_view closest;
  size_t closest_distance = name.size() / 2 + 1;
  if (name.size() <= kMaxComparedBytes && tensors_.size() <= kMaxComparedNames) {
    for (const TensorEntry& entry : tensors_) {
      if (entry.name.size() > kMaxComparedBytes) {
        continue;
      }
      const size_t distance = edit_distance(name, entry.name);
      if (distance < closest_distance) {
        closest_distance = distance;
        closest = entry.name;
      }
    }
  }
  const std::string place =
      files_.empty() ? std::string("no file")
      : files_.size() == 1
          ? files_[0].path.string()
          : fmt::format("{} and {} more", files_[0].path.string(), files_.size() - 1);
  return fail(
      ErrorCode::kNotFound, "{}: tensor {} is not there among {} tensors{}", place, quote(name),
      tensors_.size(),
      closest.empty() ? std::string() : fmt::format("; the closest name is {}", quote(closest)));
}

void Checkpoint::will_need(const TensorEntry& entry) const {
  will_need(entry.file_index, entry.offset, entry.bytes);
}

void Checkpoint::will_need(int file_index, size_t offset, size_t length) const {
  maps_.at(static_cast<size_t>(file_index)).will_need(offset, length);
}

Status Checkpoint::read_at(int file_index, size_t offset, std::span<std::byte> out) const {
  return maps_.at(static_cast<size_t>(file_index)).read_at(offset, out);
}

void Checkpoint::release_cached(int file_index, size_t offset, size_t length) const {
  maps_.at(static_cast<size_t>(file_index)).release_cached(offset, length);
}

void Checkpoint::release_cached() const {
  for (const MappedFile& map : maps_) {
    map.release_cached();
  }
}

void Checkpoint::expect_sequential_reads(bool is_sequential) const {
  for (const MappedFile& map : maps_) {
    map.expect_sequential_reads(is_sequential);
  }
}

void Checkpoint::set_release_on_close() {
  for (MappedFile& map : maps_) {
    map.set_release_on_close();
  }
}

std::optional<size_t> Checkpoint::cached_bytes() const {
  size_t sum = 0;
  for (const MappedFile& map : maps_) {
    const auto cached = map.cached_bytes();
    if (!cached) {
      return std::nullopt;
    }
    sum += *cached;
  }
  return sum;
}

}  // namespace logitlab
