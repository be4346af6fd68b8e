#include "models/weight_store.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/env.h"

namespace logitlab {
namespace {

std::string gibibytes(size_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1U << 30U));
}

}  // namespace

Result<WeightStore> WeightStore::make(Checkpoint checkpoint, const LoadOptions& options,
                                      const Backend& backend) {
  WeightStore store;
  store.checkpoint_ = std::move(checkpoint);
  store.backend_ = &backend;
  store.progress_ = options.progress != nullptr ? options.progress : &null_progress();
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
    return fail(ErrorCode::kInvalidArgument, "{}: {}: shape {}, want {}",
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
    return fail(ErrorCode::kUnsupported, "{}: backend {} ({}) has no kernel for {} weights", name,
                backend_->name(), backend_->isa(), logitlab::name(resident_type));
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (entries_[i].name == name) {
      return resident_[i];
    }
  }
  if (resident_type == entry->dtype) {
    const Tensor view = entry->view();
    record(*entry, view, /*is_mapped=*/true);
    return view;
  }
  return convert(*entry, resident_type);
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
  ASSIGN_OR_RETURN(const Tensor copy, convert(*entry, DType::kF32));
  return reinterpret_cast<const float*>(copy.data);
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

Result<Tensor> WeightStore::convert(const TensorEntry& entry, DType dtype) {
  const size_t bytes =
      static_cast<size_t>(entry.view().rows()) * row_bytes(dtype, entry.view().columns());
  Tensor resident{nullptr, dtype, entry.shape};
  if (mode_ == Mode::kCheck) {
    record(entry, resident, /*is_mapped=*/false);
    return resident;
  }
  auto buffer = Buffer::allocate(bytes);
  if (!buffer) {
    return fail_at(entry.name, std::move(buffer).error());
  }
  const Tensor source = entry.view();
  const int64_t columns = source.columns();
  std::vector<float> row(static_cast<size_t>(columns));
  std::byte* out = buffer->data();
  for (int64_t r = 0; r < source.rows(); ++r, out += row_bytes(dtype, columns)) {
    row_to_float(source.dtype, source.row(r), row.data(), columns);
    row_from_float(dtype, row.data(), out, columns);
  }
  copies_.push_back(std::move(*buffer));
  resident.data = copies_.back().data();
  record(entry, resident, /*is_mapped=*/false);
  copied_done_ += bytes;
  if (converts_) {
    progress_->update("converting weights", copied_done_, copied_bytes_, "bytes");
  }
  return resident;
}

void WeightStore::record(const TensorEntry& entry, const Tensor& resident, bool is_mapped) {
  const size_t bytes =
      static_cast<size_t>(resident.rows()) * row_bytes(resident.dtype, resident.columns());
  entries_.push_back({entry.name, entry.shape, entry.dtype, resident.dtype, bytes, is_mapped});
  resident_.push_back(resident);
  if (mode_ == Mode::kCheck) {
    (is_mapped ? mapped_bytes_ : copied_bytes_) += bytes;
  }
}

Status WeightStore::begin_load() {
  const size_t available = read_memory().available_bytes;
  const size_t needed = copied_bytes_ + mapped_bytes_;
  if (available != 0 && needed > available) {
    return fail(
        ErrorCode::kResourceExhausted,
        "the weights need {} of memory ({} mapped from the file, {} copied), the system has "
        "{} available: {} are missing",
        gibibytes(needed), gibibytes(mapped_bytes_), gibibytes(copied_bytes_), gibibytes(available),
        gibibytes(needed - available));
  }
  entries_.clear();
  resident_.clear();
  mode_ = Mode::kLoad;
  return {};
}

void WeightStore::read_ahead(ExecContext& context, ProgressSink& progress) const {
  constexpr size_t kPiece = size_t{8} << 20;
  constexpr size_t kPage = 4096;
  struct Piece {
    const std::byte* data;
    size_t bytes;
  };
  std::vector<Piece> pieces;
  for (size_t i = 0; i < entries_.size(); ++i) {
    for (size_t at = 0; entries_[i].is_mapped && at < entries_[i].bytes; at += kPiece) {
      pieces.push_back({resident_[i].data + at, std::min(kPiece, entries_[i].bytes - at)});
    }
  }
  uint64_t done = 0;
  const auto n_threads = static_cast<size_t>(context.threads.n_threads());
  std::atomic<uint64_t> sum{0};
  for (size_t first = 0; first < pieces.size(); first += n_threads) {
    const size_t count = std::min(n_threads, pieces.size() - first);
    context.threads.parallel_for(static_cast<int64_t>(count), [&](int64_t i, int /*thread*/) {
      const Piece& piece = pieces[first + static_cast<size_t>(i)];
      uint64_t local = 0;
      for (size_t at = 0; at < piece.bytes; at += kPage) {
        local += static_cast<uint64_t>(piece.data[at]);
      }
      // The sum is only there so that the reads happen.
      sum.fetch_add(local, std::memory_order_relaxed);
    });
    for (size_t i = 0; i < count; ++i) {
      done += pieces[first + i].bytes;
    }
    progress.update("reading weights", done, mapped_bytes_, "bytes");
  }
  progress.finish("reading weights");
}

}  // namespace logitlab
