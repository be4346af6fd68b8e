#include "ledger_view.h"

#include <algorithm>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "sampling/generation_fields.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kLongestValue = 40;

std::string entry_text(const LedgerEntry& entry) {
  std::string text =
      fmt::format("{}={} ({}", entry.name, shortened(entry.value, kLongestValue), entry.origin);
  if (!entry.acts) {
    text += entry.why.empty() ? ", does not act" : fmt::format(", does not act: {}", entry.why);
  }
  return text + ")";
}

}  // namespace

std::string ledger_lines(const Terminal& terminal, const std::vector<LedgerEntry>& ledger,
                         const std::vector<TracedStopId>& stop_ids,
                         const std::function<std::string(TokenId)>& quoted) {
  std::string settings;
  for (const LedgerEntry& entry : ledger) {
    // The stop ids have a line of their own.
    const bool is_shown = entry.value != "none" && entry.name != "eos_token_id" &&
                          (entry.acts || entry.origin == "given");
    if (is_shown) {
      settings += (settings.empty() ? "" : ", ") + entry_text(entry);
    }
  }
  std::string stops;
  for (const TracedStopId& stop : stop_ids) {
    stops += fmt::format("{}{} {} ({})", stops.empty() ? "" : ", ", stop.id, quoted(stop.id),
                         stop.origin);
  }
  const auto columns = static_cast<size_t>(terminal.columns());
  const auto paragraph = [&](const std::string& text) {
    std::string out;
    for (const std::string& line : wrap(text, columns)) {
      out += terminal.paint_note(Style::kDim, line) + "\n";
    }
    return out;
  };
  return paragraph("settings: " + (settings.empty() ? "all at rest, greedy" : settings)) +
         paragraph("stops at: " + (stops.empty() ? "no token" : stops));
}

std::string ledger_table(const Terminal& terminal, const std::vector<LedgerEntry>& ledger) {
  Table table({{"setting", Align::kLeft},
               {"value", Align::kLeft},
               {"from", Align::kLeft},
               {"acts", Align::kLeft},
               {"why", Align::kLeft}});
  for (const LedgerEntry& entry : ledger) {
    table.add_row({Cell(entry.name, entry.acts ? Style::kAccent : Style::kPlain),
                   shortened(entry.value, kLongestValue), entry.origin,
                   std::string(entry.acts ? "yes" : "no"), Cell(entry.why, Style::kDim)});
  }
  return table.render(terminal);
}

Json ledger_json(const EffectiveConfig& effective, const std::vector<LedgerEntry>& ledger) {
  const Json values = to_json(effective.config);
  Json out = Json::object();
  for (const LedgerEntry& entry : ledger) {
    const auto value = values.find(entry.name);
    if (value != values.end()) {
      out[entry.name] = {
          {"value", *value}, {"origin", entry.origin}, {"acts", entry.acts}, {"why", entry.why}};
    }
  }
  return out;
}

}  // namespace logitlab
