#include "generate/strategies/device_steps.h"

#include <string_view>

#include "base/check.h"
#include "generate/sequence_run.h"

namespace logitlab {

bool DeviceSteps::can_choose(const RunSettings& settings, const ProcessorChain& chain) {
  const GenerateOptions& options = settings.options;
  if (settings.model.device_model() == nullptr || options.trace.sink != nullptr ||
      (options.on_step && options.on_step_needs_rows) || !options.processors.empty() ||
      settings.config.logits_dtype.value_or(LogitsDtype::kFloat32) != LogitsDtype::kFloat32) {
    return false;
  }
  const std::vector<std::string_view> names = chain.names();
  return names.empty() || (names == std::vector<std::string_view>{"temperature"} &&
                           settings.config.do_sample.value_or(false));
}

DeviceDraw DeviceSteps::draw_of(const DeviceRow& row) const {
  const GenerationConfig& config = settings_.config;
  const std::optional<Draw> draw = logitlab::draw_of(config, row.sequence_index, step_);
  if (!draw) {
    return {};
  }
  return {.samples = true,
          .temperature = static_cast<float>(config.temperature.value_or(1)),
          .seed = draw->seed,
          .sequence_index = draw->sequence_index,
          .first_step = draw->step};
}

Result<std::vector<TokenId>> DeviceSteps::take(std::span<const DeviceRow> rows, int64_t step,
                                               int64_t n) {
  rows_.assign(rows.begin(), rows.end());
  step_ = step;
  lengths_.clear();
  snapshots_.clear();
  std::vector<DeviceState*> states;
  std::vector<TokenId> first;
  std::vector<DeviceDraw> draws;
  for (const DeviceRow& row : rows_) {
    lengths_.push_back(row.state->length());
    snapshots_.emplace_back();
    if (row.keeps_state && !row.state->can_truncate()) {
      snapshots_.back() = row.state->fork();
    }
    if (const Status reserved = row.state->reserve(n); !reserved) {
      snapshots_.clear();
      if (reserved.error().code == ErrorCode::kResourceExhausted) {
        return std::vector<TokenId>{};
      }
      return tl::unexpected<Error>(reserved.error());
    }
    states.push_back(row.state->device());
    first.push_back(row.last);
    draws.push_back(draw_of(row));
  }
  std::vector<TokenId> ids(rows_.size() * static_cast<size_t>(n));
  RETURN_IF_ERROR(
      settings_.model.device_model()->decode_steps(states, first, draws, n, ids.data()));
  return ids;
}

Status DeviceSteps::cut(size_t row, int64_t n) {
  CHECK(row < rows_.size() && rows_[row].keeps_state && n > 0) << row << " " << n;
  DecodeState* state = rows_[row].state;
  if (state->can_truncate()) {
    state->truncate(lengths_[row] + n);
    return {};
  }
  // A running summary has no positions to cut: the same steps again, as far as they are wanted.
  state->restore(*snapshots_[row]);
  RETURN_IF_ERROR(state->reserve(n));
  DeviceState* const device = state->device();
  const DeviceDraw draw = draw_of(rows_[row]);
  std::vector<TokenId> same(static_cast<size_t>(n));
  return settings_.model.device_model()->decode_steps({&device, 1}, {&rows_[row].last, 1},
                                                      {&draw, 1}, n, same.data());
}

}  // namespace logitlab
