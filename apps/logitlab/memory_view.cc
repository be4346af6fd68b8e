#include "memory_view.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "text_layout.h"

namespace logitlab {
namespace {

std::string weights_text(const MemoryLedger& ledger) {
  std::string text;
  const auto add = [&](size_t bytes, std::string_view what) {
    if (bytes > 0) {
      text += fmt::format("{}{} {}", text.empty() ? "" : " + ", human_bytes(bytes), what);
    }
  };
  add(ledger.weights.device, "on the device");
  add(ledger.weights.mapped, ledger.placement.offloads ? "on the disk" : "mapped");
  add(ledger.weights.own, "of their own");
  add(ledger.weights.converted, "converted");
  return text.empty() ? "none" : text;
}

Json bytes_or_null(size_t bytes) {
  return bytes == 0 ? Json() : Json(bytes);
}

Json shared_json(const MemoryLedger& ledger) {
  Json out = Json::object();
  out["placement"] = std::string(ledger.placement_name());
  out["weights_device_bytes"] = ledger.weights.device;
  out["weights_mapped_bytes"] = ledger.weights.mapped;
  out["weights_own_bytes"] = ledger.weights.own + ledger.weights.converted;
  out["weights_converted_bytes"] = ledger.weights.converted;
  out["weights_bytes"] = ledger.weights.total();
  out["sequences"] = ledger.n_sequences;
  out["positions"] = ledger.n_positions;
  out["state_bytes"] = ledger.state_bytes;
  out["kv_bytes"] = ledger.kv_bytes;
  out["scratch_bytes"] = ledger.scratch_bytes;
  out["file_cache_bytes"] = ledger.file_cache_bytes ? Json(*ledger.file_cache_bytes) : Json();
  out["file_cache_stays"] = ledger.file_cache_stays();
  out["device"] = Json();
  if (ledger.device) {
    const DeviceMemory& device = *ledger.device;
    out["device"] = {
        {"total_bytes", device.total_bytes},   {"free_bytes", device.free_bytes},
        {"weight_bytes", device.weight_bytes}, {"state_bytes", device.state_bytes},
        {"pool_bytes", device.pool_bytes},     {"scratch_bytes", device.scratch_bytes}};
  }
  out["available_bytes"] = bytes_or_null(ledger.now.available_bytes);
  out["system_bytes"] = bytes_or_null(ledger.now.total_bytes);
  return out;
}

}  // namespace

std::string memory_line(const MemoryLedger& ledger) {
  if (ledger.device) {
    return fmt::format(
        "memory: weights {}; state {} + keys and values {} (taken for sequences {}); scratch {}; "
        "device free {} of {}; peak of the host {}",
        weights_text(ledger), human_bytes(ledger.state_bytes), human_bytes(ledger.kv_bytes),
        human_bytes(ledger.device->pool_bytes), human_bytes(ledger.scratch_bytes),
        human_bytes(ledger.device->free_bytes), human_bytes(ledger.device->total_bytes),
        human_bytes(ledger.now.peak_resident_bytes));
  }
  const size_t cached = ledger.file_cache_bytes.value_or(0);
  const std::string cache =
      !ledger.file_cache_bytes ? std::string("not known")
                               : fmt::format("{}{}", human_bytes(cached),
                                             cached == 0                 ? ""
                                             : ledger.file_cache_stays() ? ", stays"
                                                                         : ", released at the end");
  return fmt::format(
      "memory: weights {}; state {} + keys and values {}; scratch {}; peak {}; page cache of the "
      "files {}; available {}, after loading {}",
      weights_text(ledger), human_bytes(ledger.state_bytes), human_bytes(ledger.kv_bytes),
      human_bytes(ledger.scratch_bytes), human_bytes(ledger.now.peak_resident_bytes), cache,
      human_bytes(ledger.available_before_load_bytes),
      human_bytes(ledger.available_after_load_bytes));
}

std::string memory_note(const Terminal& terminal, const MemoryLedger& ledger) {
  std::string text = memory_line(ledger);
  if (terminal.err_is_terminal()) {
    text = wrap_with_prefix(text, static_cast<size_t>(terminal.columns()), "", "");
    text.pop_back();
  }
  return text;
}

Json memory_json(const MemoryLedger& ledger) {
  Json out = shared_json(ledger);
  out["resident_bytes"] = bytes_or_null(ledger.now.resident_bytes);
  out["peak_bytes"] = bytes_or_null(ledger.now.peak_resident_bytes);
  out["available_before_load_bytes"] = bytes_or_null(ledger.available_before_load_bytes);
  out["available_after_load_bytes"] = bytes_or_null(ledger.available_after_load_bytes);
  out["read_bytes"] = ledger.traffic.bytes;
  out["read_seconds"] = ledger.traffic.seconds;
  out["read_files"] = ledger.traffic.n_files;
  return out;
}

Json memory_plan_json(const MemoryLedger& ledger) {
  Json out = shared_json(ledger);
  out["total_bytes"] = ledger.needed_bytes();
  out["fits"] = ledger.fits();
  out["missing_bytes"] =
      ledger.fits() ? size_t{0} : ledger.needed_bytes() - ledger.available_bytes();
  return out;
}

}  // namespace logitlab
