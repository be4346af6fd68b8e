#include "models/weight_store.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace logitlab {
namespace {

std::string gibibytes(size_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1U << 30U));
}

constexpr size_t kAlignment = 64;

size_t rounded(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A model larger than this is read into huge pages of our own. Measured on two cores with the
// file in the page cache (bfloat16, decode, medians of three): 2.0 GB read 17.4 and mapped 16.5
// tokens/s, loaded in 1.2 and 0.7 s; 92 MB read 219 and mapped 212 tokens/s, in 0.14 and 0.19 s.
// A small model gains little and keeps its warm start instead; a large one would also leave its
// size in the page cache, where a device that shares the memory cannot take it.
constexpr size_t kReadAbove = size_t{1} << 30;

}  // namespace

WeightPlacement choose_placement(const LoadOptions& options, size_t in_place_bytes,
                                 size_t copied_bytes, size_t available_bytes) {
  WeightPlacement placement;
  const size_t needed = in_place_bytes + copied_bytes;
  const bool is_large = in_place_bytes > kReadAbove;
  if (available_bytes != 0 && needed > available_bytes) {
    placement.missing = needed - available_bytes;
    placement.offloads = options.offload && copied_bytes <= available_bytes;
    placement.releases_on_close = true;
    return placement;
  }
  const size_t kept_free = available_bytes / 8;
  const bool has_room = available_bytes == 0 || needed <= available_bytes - kept_free;
  placement.reads =
      options.weights == "read" || (options.weights == "auto" && is_large && has_room);
  placement.releases_on_close = options.weights == "auto" && is_large && !has_room;
  return placement;
}

Result<WeightStore> WeightStore::make(Checkpoint checkpoint, const LoadOptions& options,
                                      const Backend& backend) {
  WeightStore store;
  store.checkpoint_ = std::move(checkpoint);
  store.backend_ = &backend;
  store.options_ = options;
  store.warnings_ = store.checkpoint_.warnings();
  if (options.random_weights && !backend.runs_whole_models()) {
    return fail(ErrorCode::kUnsupported,
                "random weights are made on a device; backend {} runs models on the host",
                backend.name());
  }
  if (options.weights != "auto" && options.weights != "map" && options.weights != "read") {
    return fail(ErrorCode::kInvalidArgument,
                "weights '{}' is not known; use auto, map (in the files' mapping) or read (in "
                "memory of our own)",
                options.weights);
  }
  if (options.dtype == "float32") {
    store.converts_ = true;
    store.target_ = DType::kF32;
  } else if (options.dtype == "bfloat16") {
    store.converts_ = true;
    store.target_ = DType::kBF16;
  } else if (options.dtype != "auto") {
    return fail(ErrorCode::kInvalidArgument,
                "dtype '{}' is not known; use auto (as stored), float32 or bfloat16",
                options.dtype);
  }
  return store;
}

Result<const TensorEntry*> WeightStore::checked_entry(std::string_view name,
                                                      const Shape& want) const {
  ASSIGN_OR_RETURN(const TensorEntry* entry, checkpoint_.require(name));
  if (entry->shape != want) {
    return fail(ErrorCode::kInvalidArgument, "{}: {}: shape {}, want {} as the configuration says",
                checkpoint_.files()[static_cast<size_t>(entry->file_index)].path.string(), name,
                entry->shape.to_string(), want.to_string());
  }
  if (!is_weight_type(entry->dtype)) {
    return fail(ErrorCode::kUnsupported,
                "{}: {}: weights of type {} are not supported; want F32, F16, BF16 or a GGUF block "
                "type",
                checkpoint_.files()[static_cast<size_t>(entry->file_index)].path.string(), name,
                logitlab::name(entry->dtype));
  }
  return entry;
}

Result<Tensor> WeightStore::matrix(std::string_view name, int64_t out, int64_t in, Op op) {
  return matrix_of(name, Shape{out, in}, op);
}

Result<Tensor> WeightStore::matrix_of(std::string_view name, const Shape& shape, Op op) {
  ASSIGN_OR_RETURN(const TensorEntry* entry, checked_entry(name, shape));
  const DType resident_type = converts_ ? target_ : entry->dtype;
  if (!backend_->supports(op, resident_type)) {
    return fail(ErrorCode::kUnsupported, "{}: backend {} ({}) has no kernel for {} weights{}", name,
                backend_->name(), backend_->isa(), logitlab::name(resident_type),
                backend_->runs_whole_models() ? "; dtype bfloat16 converts them" : "");
  }
  if (const auto known = matrices_.find(entry); known != matrices_.end()) {
    return resident_[known->second];
  }
  const bool is_converted = resident_type != entry->dtype;
  Tensor resident{nullptr, resident_type, shape};
  const size_t bytes = resident.bytes();
  if (mode_ == Mode::kCheck) {
    (is_converted ? copied_bytes_ : in_place_bytes_) += bytes;
    (is_converted ? converted_room_ : in_place_room_) += rounded(bytes);
  } else if (options_.random_weights) {
    resident.data = nullptr;
  } else if (is_converted || placement_.reads) {
    std::byte* room = take(bytes);
    targets_.push_back({entry, resident_type, room});
    resident.data = room;
  } else {
    resident.data = entry->data;
  }
  record(*entry, resident, !is_converted && !placement_.reads, &matrices_);
  return resident;
}

std::byte* WeightStore::take(size_t bytes) {
  CHECK(memory_used_ + rounded(bytes) <= memory_.size())
      << "a matrix was asked for that was not there when the sizes were added up";
  std::byte* room = memory_.data() + memory_used_;
  memory_used_ += rounded(bytes);
  return room;
}

Result<std::vector<Tensor>> WeightStore::experts(std::string_view stacked,
                                                 const std::function<std::string(int64_t)>& single,
                                                 int64_t n_experts, int64_t out, int64_t in) {
  std::vector<Tensor> experts;
  if (!has(stacked)) {
    for (int64_t e = 0; e < n_experts; ++e) {
      ASSIGN_OR_RETURN(const Tensor expert, matrix(single(e), out, in, Op::kLinear));
      experts.push_back(expert);
    }
    return experts;
  }
  ASSIGN_OR_RETURN(const Tensor all, matrix_of(stacked, Shape{n_experts, out, in}, Op::kLinear));
  const size_t bytes = static_cast<size_t>(out) * all.row_stride_bytes();
  for (int64_t e = 0; e < n_experts; ++e) {
    const std::byte* data =
        all.data == nullptr ? nullptr : all.data + static_cast<size_t>(e) * bytes;
    experts.push_back({data, all.dtype, Shape{out, in}});
  }
  return experts;
}

Result<const float*> WeightStore::values(std::string_view name, std::span<const Shape> accepted) {
  const TensorEntry* found = checkpoint_.find(name);
  const bool fits = found != nullptr &&
                    std::find(accepted.begin(), accepted.end(), found->shape) != accepted.end();
  ASSIGN_OR_RETURN(const TensorEntry* entry,
                   checked_entry(name, fits ? found->shape : accepted.front()));
  Tensor resident{nullptr, DType::kF32, entry->shape};
  if (const auto known = value_lists_.find(entry); known != value_lists_.end()) {
    return reinterpret_cast<const float*>(resident_[known->second].data);
  }
  if (mode_ == Mode::kCheck) {
    copied_bytes_ += resident.bytes();
  } else {
    auto buffer = Buffer::allocate(resident.bytes());
    if (!buffer) {
      return fail_at(name, std::move(buffer).error());
    }
    std::vector<std::byte> scratch;
    RETURN_IF_ERROR(read_rows(checkpoint_, *entry, 0, entry->view().rows(), DType::kF32,
                              buffer->data(), &scratch));
    values_.push_back(std::move(*buffer));
    resident.data = values_.back().data();
  }
  record(*entry, resident, /*is_mapped=*/false, &value_lists_);
  return reinterpret_cast<const float*>(resident.data);
}

Result<const float*> WeightStore::vector(std::string_view name, int64_t n) {
  const Shape shape{n};
  return values(name, {&shape, 1});
}

Result<const float*> WeightStore::optional_vector(std::string_view name, int64_t n) {
  if (!has(name)) {
    return nullptr;
  }
  return vector(name, n);
}

Result<Linear> WeightStore::linear(std::string_view weight_name, std::string_view bias_name,
                                   int64_t out, int64_t in) {
  Linear layer;
  ASSIGN_OR_RETURN(layer.weight, matrix(weight_name, out, in, Op::kLinear));
  ASSIGN_OR_RETURN(layer.bias, optional_vector(bias_name, out));
  return layer;
}

void WeightStore::record(const TensorEntry& entry, const Tensor& resident, bool is_mapped,
                         ByTensor* index) {
  index->emplace(&entry, entries_.size());
  const bool is_on_device = backend_->runs_whole_models();
  entries_.push_back({entry.name, entry.shape, entry.dtype, resident.dtype, resident.bytes(),
                      is_mapped && !is_on_device, is_on_device, index == &value_lists_});
  resident_.push_back(resident);
}

Status WeightStore::begin_load(size_t available_bytes) {
  // A device's weights pass through the mapping; only converted ones are in host memory for a
  // while.
  const bool is_for_device = backend_->runs_whole_models();
  if (options_.random_weights) {
    converted_room_ = 0;
    copied_bytes_ = 0;
  }
  if (is_for_device) {
    in_place_bytes_ = 0;
    in_place_room_ = 0;
  }
  placement_ = choose_placement(options_, in_place_bytes_, copied_bytes_, available_bytes);
  if (is_for_device) {
    placement_.reads = false;
    placement_.releases_on_close = true;
  }
  const size_t needed = in_place_bytes_ + copied_bytes_;
  if (placement_.missing > 0 && !placement_.offloads) {
    return fail(ErrorCode::kResourceExhausted,
                "the weights need {} of memory ({} as stored, {} converted), the system has {} "
                "available: {} are missing{}",
                gibibytes(needed), gibibytes(in_place_bytes_), gibibytes(copied_bytes_),
                gibibytes(available_bytes), gibibytes(placement_.missing),
                copied_bytes_ <= available_bytes
                    ? "; offload leaves what needs no conversion on the disk, to be read again at "
                      "every step"
                    : "; want a smaller dtype, or a smaller model");
  }
  if (placement_.offloads) {
    warnings_.push_back(fmt::format(
        "the weights need {} of memory, the system has {} available: {} are missing, so the "
        "weights stay on the disk and are read from there again at every step",
        gibibytes(needed), gibibytes(available_bytes), gibibytes(placement_.missing)));
  }
  if (placement_.releases_on_close) {
    checkpoint_.set_release_on_close();
  }
  const size_t room = converted_room_ + (placement_.reads ? in_place_room_ : 0);
  ASSIGN_OR_RETURN(memory_, PageMemory::allocate(room));
  entries_.clear();
  resident_.clear();
  matrices_.clear();
  value_lists_.clear();
  mode_ = Mode::kLoad;
  return {};
}

const TensorEntry* WeightStore::entry_at(const std::byte* data) const {
  const std::vector<TensorEntry>& tensors = checkpoint_.tensors();
  // By address within a file; a binary search over each file would gain nothing.
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const TensorEntry& entry) {
    return data >= entry.data && data < entry.data + entry.bytes;
  });
  return found == tensors.end() ? nullptr : &*found;
}

void WeightStore::will_need(const std::byte* data, size_t bytes) const {
  if (const TensorEntry* entry = entry_at(data)) {
    checkpoint_.will_need(entry->file_index,
                          entry->offset + static_cast<size_t>(data - entry->data), bytes);
  }
}

void WeightStore::release(const std::byte* data, size_t bytes) const {
  if (const TensorEntry* entry = entry_at(data)) {
    checkpoint_.release_cached(entry->file_index,
                               entry->offset + static_cast<size_t>(data - entry->data), bytes);
  }
}

Status WeightStore::finish_load(ExecContext& context) {
  ProgressSink& progress = options_.progress != nullptr ? *options_.progress : null_progress();
  // A file keeps its pages when some of its tensors are used in place.
  std::vector<bool> releases(checkpoint_.files().size(), true);
  std::vector<const TensorEntry*> mapped;
  for (const auto& [entry, index] : matrices_) {
    if (entries_[index].is_mapped) {
      mapped.push_back(entry);
      releases[static_cast<size_t>(entry->file_index)] = false;
    }
  }
  if (!targets_.empty()) {
    ASSIGN_OR_RETURN(traffic_,
                     read_weights(checkpoint_, targets_, releases, context.threads, progress));
    targets_.clear();
  }
  if (!mapped.empty() && options_.progress != nullptr && !placement_.offloads) {
    const WeightTraffic touched =
        touch_weights(checkpoint_, mapped, context.threads, *options_.progress);
    traffic_.bytes += touched.bytes;
    traffic_.seconds += touched.seconds;
    traffic_.n_files = std::max(traffic_.n_files, touched.n_files);
  }
  return {};
}

}  // namespace logitlab
