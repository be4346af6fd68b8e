// Steps that a model on a device makes without the host, several at a time: it chooses there and
// feeds the choice back.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "generate/prompt_run.h"
#include "sampling/processor_chain.h"
#include "state/decode_state.h"

namespace logitlab {

// A sequence that goes on after `last`, its newest id.
struct DeviceRow {
  DecodeState* state = nullptr;
  TokenId last = 0;
  uint32_t sequence_index = 0;  // of its draws
  // The state is used after the call: it is brought back to where the sequence ended.
  bool keeps_state = false;
};

// One-thread; for one call of generate, whose model is on a device.
class DeviceSteps {
 public:
  // Whether a device may choose for these sequences: the model is on one, nobody looks at rows (a
  // trace, on_step), logits stay float32, and no processor acts but a temperature before a draw.
  // Then it chooses what the host would: the same bits of logits, the same arg-max, the same draws.
  [[nodiscard]] static bool can_choose(const RunSettings& settings, const ProcessorChain& chain);

  explicit DeviceSteps(const RunSettings& settings) : settings_(settings) {}

  // n ids of each row, [rows, n], the first of them being step number `step`; among them
  // kNoDeviceChoice as decode_steps says. Empty: there is no memory for n more positions; nothing
  // has changed but what is reserved. rows: 1 to kMostDeviceSequences.
  [[nodiscard]] Result<std::vector<TokenId>> take(std::span<const DeviceRow> rows, int64_t step,
                                                  int64_t n);

  // After take(), for a row that keeps its state and needs but the first `n` of its ids, 1 or more:
  // the state is as if no more had been taken.
  [[nodiscard]] Status cut(size_t row, int64_t n);

 private:
  [[nodiscard]] DeviceDraw draw_of(const DeviceRow& row) const;

  const RunSettings& settings_;
  std::vector<DeviceRow> rows_;
  int64_t step_ = 0;
  std::vector<int64_t> lengths_;                       // of the states before
  std::vector<std::optional<DecodeState>> snapshots_;  // of states that cannot be truncated
};

}  // namespace logitlab
