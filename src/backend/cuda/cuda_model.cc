#include "backend/cuda/cuda_model.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "backend/cuda/cuda_state.h"
#include "backend/cuda/decode.h"
#include "backend/cuda/device_text.h"
#include "backend/cuda/model_view.h"
#include "backend/cuda/prefill.h"
#include "backend/cuda/read_rate.h"
#include "backend/cuda/weight_upload.h"
#include "base/check.h"

namespace logitlab::cuda {
namespace {

static_assert(kMostDeviceSequences == size_t{kMaxDecodeRows});

// What a load makes sure of beside weights and work space: one sequence this long.
constexpr int64_t kLeastPositions = 4096;
// Of keys and values, unless the caller says how much.
constexpr size_t kMostKvBytes = size_t{16} << 30;
// A model without attention layers has pages of no bytes, whose number bounds a sequence all the
// same.
constexpr int kPagesWithoutBytes = 16384;
// Chunks are not made shorter than this when memory is scarce; such a device is too small.
constexpr int kLeastChunk = 512;
// Besides what is asked for: the driver's own needs, fragments.
constexpr size_t kReserve = size_t{256} << 20;
constexpr int kProfileRepeats = 7;
// Much more than any cache; a weight matrix is smaller than that.
constexpr size_t kReadRateBytes = size_t{8} << 30;

// Bytes that a load will take, before it takes any.
struct Needs {
  size_t weights = 0;
  size_t decode = 0;
  size_t chunk = 0;  // work space of a chunk
  size_t sequence = 0;
  int chunk_rows = kMaxPrefillRows;

  [[nodiscard]] size_t total() const { return weights + decode + chunk + sequence + kReserve; }
};

size_t chunk_bytes(const ModelView& view, int rows) {
  return prefill_workspace_bytes(view, rows) +
         static_cast<size_t>(rows) * static_cast<size_t>(view.hidden_size) * sizeof(float) +
         static_cast<size_t>(rows) * sizeof(int);
}

Needs needs_of(const ModelView& view, size_t weight_bytes, size_t free_bytes) {
  Needs needs;
  needs.weights = weight_bytes;
  // Decoder::make takes it; logits of all rows are most of it.
  needs.decode =
      (static_cast<size_t>(view.vocab_size) + 16U * static_cast<size_t>(view.hidden_size)) *
      kMaxDecodeRows * sizeof(float);
  const StateShape shape = state_shape_of(view);
  needs.sequence = shape.summary_bytes() + shape.page_bytes() * (kLeastPositions / kPagePositions);
  // The longest chunk whose work space takes no more than a quarter of what the weights leave.
  const size_t left = free_bytes - std::min(free_bytes, weight_bytes);
  needs.chunk = chunk_bytes(view, needs.chunk_rows);
  while (needs.chunk_rows > kLeastChunk && needs.chunk > left / 4) {
    needs.chunk_rows /= 2;
    needs.chunk = chunk_bytes(view, needs.chunk_rows);
  }
  return needs;
}

class CudaModel final : public DeviceModel {
 public:
  static Result<std::unique_ptr<DeviceModel>> make(const GpuDevice& device,
                                                   const DeviceModelSpec& spec,
                                                   const DeviceLoadOptions& options);

  [[nodiscard]] std::unique_ptr<DeviceState> make_state() const override {
    return std::make_unique<CudaState>(pool_);
  }
  [[nodiscard]] size_t state_bytes(int64_t n_positions) const override {
    const auto n_pages = static_cast<size_t>((n_positions + kPagePositions - 1) / kPagePositions);
    return pool_->shape().summary_bytes() + n_pages * pool_->shape().page_bytes();
  }
  [[nodiscard]] int64_t max_chunk() const override { return chunk_rows_; }
  [[nodiscard]] Status forward(std::span<const DeviceChunk> chunks, float* logits) const override;
  [[nodiscard]] Status decode_steps(std::span<DeviceState* const> states,
                                    std::span<const TokenId> first,
                                    std::span<const DeviceDraw> draws, int64_t n_steps,
                                    TokenId* out) const override;
  [[nodiscard]] Result<std::vector<DevicePhase>> profile(
      std::span<DeviceState* const> states) const override;
  [[nodiscard]] Result<double> measure_read_rate() const override;
  [[nodiscard]] DeviceMemory memory() const override;

 private:
  CudaModel() = default;
  [[nodiscard]] Status allocate(const GpuDevice& device, const Needs& needs,
                                const DeviceLoadOptions& options);
  [[nodiscard]] Status decode_rows(std::span<const DeviceChunk> chunks,
                                   std::span<const size_t> group,
                                   std::span<float* const> out) const;
  [[nodiscard]] Status prefill_chunk(const DeviceChunk& chunk, float* out) const;
  // Rows [first, first + n) of the logits on the device to `out`, in host memory.
  [[nodiscard]] Status fetch_logits(int64_t first, int64_t n, float* out) const;

  int ordinal_ = 0;
  int chunk_rows_ = 0;
  Stream stream_;
  DeviceBytes weights_;
  ModelView view_;
  DeviceBytes workspace_;
  DeviceBytes residual_;  // [chunk_rows, hidden_size]
  DeviceBytes ids_;       // [chunk_rows]
  PinnedBytes pinned_;    // logits of kMaxDecodeRows rows
  std::shared_ptr<StatePool> pool_;
  std::unique_ptr<Decoder> decoder_;  // refers to view_
};

Status refuse_lack(const GpuDevice& device, const Needs& needs) {
  return fail(ErrorCode::kResourceExhausted,
              "device cuda:{} ({}, {}): the model needs {} ({} weights, {} work space, {} one "
              "sequence of {} positions, {} spare), {} are free: {} are missing",
              device.ordinal, device.name, gibibytes(device.total_bytes), gibibytes(needs.total()),
              gibibytes(needs.weights), gibibytes(needs.decode + needs.chunk),
              gibibytes(needs.sequence), kLeastPositions, gibibytes(kReserve),
              gibibytes(device.free_bytes), gibibytes(needs.total() - device.free_bytes));
}

Result<std::unique_ptr<DeviceModel>> CudaModel::make(const GpuDevice& device,
                                                     const DeviceModelSpec& spec,
                                                     const DeviceLoadOptions& options) {
  GpuDevice now = device;
  CUDA_OR_RETURN(cudaSetDevice(device.ordinal), "the device");
  CUDA_OR_RETURN(cudaMemGetInfo(&now.free_bytes, &now.total_bytes), "the device's memory");
  WeightRoom measure(nullptr);
  ASSIGN_OR_RETURN(const ModelView measured, lay_out(spec, &measure));
  const Needs needs = needs_of(measured, measure.bytes(), now.free_bytes);
  if (needs.total() > now.free_bytes) {
    RETURN_IF_ERROR(refuse_lack(now, needs));
  }
  std::unique_ptr<CudaModel> model(new CudaModel);
  model->ordinal_ = device.ordinal;
  model->chunk_rows_ = needs.chunk_rows;
  ASSIGN_OR_RETURN(model->stream_, Stream::make());
  ASSIGN_OR_RETURN(model->weights_, DeviceBytes::allocate(measure.bytes(), "the weights"));
  WeightRoom room(model->weights_.data());
  ASSIGN_OR_RETURN(model->view_, lay_out(spec, &room));
  RETURN_IF_ERROR(model->allocate(now, needs, options));
  if (options.prepare) {
    RETURN_IF_ERROR(options.prepare());
  }
  RETURN_IF_ERROR(upload_weights(room.uploads(), options, model->stream_.get()));
  return model;
}

Status CudaModel::allocate(const GpuDevice& device, const Needs& needs,
                           const DeviceLoadOptions& options) {
  const auto d = static_cast<size_t>(view_.hidden_size);
  const auto rows = static_cast<size_t>(chunk_rows_);
  ASSIGN_OR_RETURN(workspace_, DeviceBytes::allocate(prefill_workspace_bytes(view_, chunk_rows_),
                                                     "the work space of prompts"));
  ASSIGN_OR_RETURN(residual_,
                   DeviceBytes::allocate(rows * d * sizeof(float), "a chunk's residual"));
  ASSIGN_OR_RETURN(ids_, DeviceBytes::allocate(rows * sizeof(int), "a chunk's ids"));
  ASSIGN_OR_RETURN(pinned_,
                   PinnedBytes::allocate(static_cast<size_t>(kMaxDecodeRows) *
                                             static_cast<size_t>(view_.vocab_size) * sizeof(float),
                                         "logits"));
  const StateShape shape = state_shape_of(view_);
  int n_pages = kPagesWithoutBytes;
  if (shape.page_bytes() > 0) {
    // The decoder takes its memory after the pages: both are in `needs`.
    const size_t spoken_for = needs.total() - needs.sequence;
    const size_t left = device.free_bytes - std::min(device.free_bytes, spoken_for);
    const size_t wanted =
        options.kv_bytes > 0 ? options.kv_bytes : std::min(left / 2, kMostKvBytes);
    const size_t least = shape.page_bytes() * (kLeastPositions / kPagePositions);
    const size_t n =
        std::max(wanted, options.kv_bytes > 0 ? size_t{0} : least) / shape.page_bytes();
    n_pages = static_cast<int>(std::clamp<size_t>(n, 1, size_t{1} << 20));
  }
  ASSIGN_OR_RETURN(pool_, StatePool::make(shape, n_pages, ordinal_, stream_.get()));
  view_.kv.pages = pool_->kv().pages;
  CUDA_OR_RETURN(Decoder::make(view_, &decoder_), "the decoder of this model");
  return {};
}

Status CudaModel::forward(std::span<const DeviceChunk> chunks, float* logits) const {
  CUDA_OR_RETURN(cudaSetDevice(ordinal_), "the device");
  const auto vocab = static_cast<size_t>(view_.vocab_size);
  std::vector<size_t> singles;
  std::vector<float*> places;  // of every chunk's logits; null: none wanted
  for (size_t i = 0; i < chunks.size(); ++i) {
    const DeviceChunk& chunk = chunks[i];
    const auto* state = static_cast<const CudaState*>(chunk.state);
    const auto n = static_cast<int64_t>(chunk.ids.size());
    CHECK(n > 0 && state->length() + n <= state->capacity())
        << n << " positions after " << state->length() << " were not reserved";
    places.push_back(chunk.no_logits ? nullptr : logits);
    logits += chunk.no_logits ? 0 : vocab * (chunk.last_only ? 1 : chunk.ids.size());
    if (chunk.ids.size() == 1) {
      singles.push_back(i);
    }
  }
  for (size_t at = 0; at < singles.size(); at += kMaxDecodeRows) {
    const size_t n = std::min<size_t>(kMaxDecodeRows, singles.size() - at);
    RETURN_IF_ERROR(decode_rows(chunks, {singles.data() + at, n}, places));
  }
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (chunks[i].ids.size() > 1) {
      RETURN_IF_ERROR(prefill_chunk(chunks[i], places[i]));
    }
  }
  CUDA_OR_RETURN(cudaStreamSynchronize(stream_.get()), "a forward pass");
  // Lengths grow at the end: what an error left behind in the memory of positions is not there.
  for (const DeviceChunk& chunk : chunks) {
    static_cast<CudaState*>(chunk.state)->advance(static_cast<int64_t>(chunk.ids.size()));
  }
  return {};
}

Status CudaModel::decode_rows(std::span<const DeviceChunk> chunks, std::span<const size_t> group,
                              std::span<float* const> out) const {
  std::vector<Sequence> sequences;
  std::vector<int> ids;
  for (const size_t i : group) {
    sequences.push_back(static_cast<const CudaState*>(chunks[i].state)->sequence());
    ids.push_back(chunks[i].ids[0]);
  }
  CUDA_OR_RETURN(decoder_->step(sequences, ids, stream_.get()), "a decode step");
  // Runs of rows that are wanted and lie one behind the other are fetched together.
  for (size_t row = 0; row < group.size();) {
    float* const first = out[group[row]];
    if (first == nullptr) {
      ++row;
      continue;
    }
    size_t n = 1;
    while (row + n < group.size() &&
           out[group[row + n]] == first + n * static_cast<size_t>(view_.vocab_size)) {
      ++n;
    }
    RETURN_IF_ERROR(fetch_logits(static_cast<int64_t>(row), static_cast<int64_t>(n), first));
    row += n;
  }
  return {};
}

Status CudaModel::prefill_chunk(const DeviceChunk& chunk, float* out) const {
  const auto d = static_cast<size_t>(view_.hidden_size);
  const auto vocab = static_cast<size_t>(view_.vocab_size);
  Sequence sequence = static_cast<const CudaState*>(chunk.state)->sequence();
  static_assert(sizeof(TokenId) == sizeof(int));
  for (size_t at = 0; at < chunk.ids.size();) {
    const size_t n = std::min(static_cast<size_t>(chunk_rows_), chunk.ids.size() - at);
    CUDA_OR_RETURN(cudaMemcpyAsync(ids_.data(), chunk.ids.data() + at, n * sizeof(int),
                                   cudaMemcpyHostToDevice, stream_.get()),
                   "the ids of a chunk");
    CUDA_OR_RETURN(prefill(view_, sequence, ids_.as<int>(), static_cast<int>(n), workspace_.data(),
                           residual_.as<float>(), stream_.get()),
                   "a chunk of a prompt");
    at += n;
    sequence.length += static_cast<int>(n);
    const bool is_last = at == chunk.ids.size();
    if (out == nullptr || (chunk.last_only && !is_last)) {
      continue;
    }
    size_t row = chunk.last_only ? n - 1 : 0;
    while (row < n) {
      const size_t rows = std::min<size_t>(kMaxDecodeRows, n - row);
      CUDA_OR_RETURN(
          decoder_->head(residual_.as<float>() + row * d, static_cast<int>(rows), stream_.get()),
          "the logits of a chunk");
      RETURN_IF_ERROR(fetch_logits(0, static_cast<int64_t>(rows), out));
      out += rows * vocab;
      row += rows;
    }
  }
  return {};
}

Status CudaModel::fetch_logits(int64_t first, int64_t n, float* out) const {
  const auto vocab = static_cast<size_t>(view_.vocab_size);
  const size_t bytes = static_cast<size_t>(n) * vocab * sizeof(float);
  CUDA_OR_RETURN(
      cudaMemcpyAsync(pinned_.data(), decoder_->logits() + static_cast<size_t>(first) * vocab,
                      bytes, cudaMemcpyDeviceToHost, stream_.get()),
      "logits");
  CUDA_OR_RETURN(cudaStreamSynchronize(stream_.get()), "a forward pass");
  std::memcpy(out, pinned_.data(), bytes);
  return {};
}

Status CudaModel::decode_steps(std::span<DeviceState* const> states, std::span<const TokenId> first,
                               std::span<const DeviceDraw> draws, int64_t n_steps,
                               TokenId* out) const {
  CHECK(states.size() == first.size() && states.size() == draws.size() && !states.empty() &&
        states.size() <= kMostDeviceSequences && n_steps > 0)
      << states.size() << " states, " << first.size() << " ids, " << draws.size() << " draws";
  CUDA_OR_RETURN(cudaSetDevice(ordinal_), "the device");
  std::vector<Sequence> sequences;
  std::vector<Draw> device_draws;
  for (size_t i = 0; i < states.size(); ++i) {
    const auto* state = static_cast<const CudaState*>(states[i]);
    CHECK(state->length() + n_steps <= state->capacity())
        << n_steps << " positions after " << state->length() << " were not reserved";
    sequences.push_back(state->sequence());
    Draw draw;
    draw.samples = draws[i].samples;
    draw.temperature = draws[i].temperature;
    draw.seed = draws[i].seed;
    draw.sequence_index = draws[i].sequence_index;
    draw.first_step = draws[i].first_step;
    device_draws.push_back(draw);
  }
  CUDA_OR_RETURN(decoder_->steps(sequences, first, device_draws, static_cast<int>(n_steps), out,
                                 stream_.get()),
                 "decode steps");
  CUDA_OR_RETURN(cudaStreamSynchronize(stream_.get()), "decode steps");
  for (DeviceState* state : states) {
    static_cast<CudaState*>(state)->advance(n_steps);
  }
  return {};
}

Result<std::vector<DevicePhase>> CudaModel::profile(std::span<DeviceState* const> states) const {
  CUDA_OR_RETURN(cudaSetDevice(ordinal_), "the device");
  std::vector<Sequence> sequences;
  for (const DeviceState* state : states) {
    const auto* ours = static_cast<const CudaState*>(state);
    CHECK(ours->length() < ours->capacity()) << "no position was reserved";
    sequences.push_back(ours->sequence());
  }
  std::vector<PhaseTime> times;
  CUDA_OR_RETURN(decoder_->profile(sequences, kProfileRepeats, &times, stream_.get()),
                 "a profile of decode steps");
  std::vector<DevicePhase> phases;
  for (PhaseTime& time : times) {
    phases.push_back({std::move(time.name), time.count, time.bytes, time.microseconds});
  }
  return phases;
}

Result<double> CudaModel::measure_read_rate() const {
  CUDA_OR_RETURN(cudaSetDevice(ordinal_), "the device");
  double rate = 0;
  CUDA_OR_RETURN(
      read_rate(weights_.data(), std::min(weights_.size(), kReadRateBytes), kProfileRepeats, &rate),
      "the read rate");
  return rate;
}

DeviceMemory CudaModel::memory() const {
  DeviceMemory memory;
  if (cudaSetDevice(ordinal_) != cudaSuccess ||
      cudaMemGetInfo(&memory.free_bytes, &memory.total_bytes) != cudaSuccess) {
    (void)cudaGetLastError();
  }
  memory.weight_bytes = weights_.size();
  memory.state_bytes = pool_->used_bytes();
  memory.pool_bytes = pool_->taken_bytes();
  memory.scratch_bytes =
      workspace_.size() + residual_.size() + ids_.size() + decoder_->scratch_bytes();
  const size_t one = state_bytes(kLeastPositions);
  size_t n_sequences =
      static_cast<size_t>(pool_->pages().n_free()) / (kLeastPositions / kPagePositions);
  if (pool_->shape().summary_bytes() > 0) {
    const size_t for_summaries =
        memory.free_bytes - std::min(memory.free_bytes, kReserve) + pool_->free_summary_bytes();
    n_sequences = std::min(n_sequences, for_summaries / pool_->shape().summary_bytes());
  }
  memory.room_bytes = n_sequences * one;
  return memory;
}

}  // namespace

Result<std::unique_ptr<DeviceModel>> make_cuda_model(const GpuDevice& device,
                                                     const DeviceModelSpec& spec,
                                                     const DeviceLoadOptions& options) {
  return CudaModel::make(device, spec, options);
}

}  // namespace logitlab::cuda
