#include "divergence_view.h"

#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "text_layout.h"

namespace logitlab {
namespace {

bool has_choice(const Divergence& divergence) {
  return divergence.sides[0][0].id >= 0;
}

Json number(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

std::string quoted(const DivergenceSide& token) {
  return fmt::format("'{}'", printable(token.piece));
}

std::string gap_text(const Divergence& divergence) {
  const DivergenceSide& first = divergence.sides[0][0];
  const DivergenceSide& second = divergence.sides[0][1];
  if (!first.is_known || !second.is_known) {
    return "gap: not known, the trace of the first run does not list both tokens";
  }
  if (divergence.gap == 0) {
    return fmt::format("gap: none, {} and {} have the same logit", quoted(first), quoted(second));
  }
  return fmt::format("gap: {} is {:.4g} logits {} {} in the first run ({:.4g} units of last place)",
                     quoted(first), std::abs(divergence.gap),
                     divergence.gap > 0 ? "above" : "below", quoted(second),
                     std::abs(divergence.gap_ulps));
}

// By how much the draw put one token before the other; empty where nothing was drawn.
std::string draw_text(const Divergence& divergence, size_t run, const std::string& name) {
  const auto& keys = divergence.key[run];
  if (!std::isfinite(keys[0]) || !std::isfinite(keys[1])) {
    return "";
  }
  const size_t ahead = keys[0] >= keys[1] ? 0 : 1;
  return fmt::format(
      "draw of {}: {} came {:.4g} ahead of {} (score - log E: {:.4g} and {:.4g}); by that much "
      "its score had to be lower to lose",
      name, quoted(divergence.sides[run][ahead]), std::abs(keys[0] - keys[1]),
      quoted(divergence.sides[run][1 - ahead]), keys[ahead], keys[1 - ahead]);
}

std::string tokens_table(const Terminal& terminal, const Divergence& divergence,
                         const std::array<std::string, 2>& runs) {
  Table table({{"run", Align::kLeft},
               {"token", Align::kLeft},
               {"id", Align::kRight},
               {"logit", Align::kRight},
               {"p", Align::kRight},
               {"rank", Align::kRight},
               {"left", Align::kRight},
               {"", Align::kLeft}});
  for (size_t run = 0; run < 2; ++run) {
    for (size_t token = 0; token < 2; ++token) {
      const DivergenceSide& side = divergence.sides[run][token];
      const bool is_first = token == 0;
      std::vector<Cell> row = {is_first ? runs[run] : "", quoted(side), fmt::format("{}", side.id)};
      if (side.is_known) {
        row.insert(row.end(),
                   {fmt::format("{:.6g}", side.logit), fmt::format("{:.4f}", side.probability),
                    fmt::format("{}", side.rank)});
      } else {
        row.insert(row.end(), {std::string("?"), std::string("?"), std::string("?")});
      }
      row.emplace_back(is_first ? with_commas(divergence.survivors[run]) : "");
      if (run == token) {
        row.emplace_back("chosen", Style::kGood);
      } else if (!side.dropped_by.empty()) {
        row.emplace_back("removed by " + side.dropped_by, Style::kWarn);
      } else {
        row.emplace_back(side.is_known ? "" : "not in the trace", Style::kDim);
      }
      table.add_row(std::move(row));
    }
  }
  return table.render(terminal);
}

Json json_of(const DivergenceSide& side) {
  Json out = Json::object();
  out["id"] = side.id;
  out["text"] = side.piece;
  out["known"] = side.is_known;
  out["logit"] = side.is_known ? number(side.logit) : Json();
  out["probability"] = side.is_known ? number(side.probability) : Json();
  out["rank"] = side.is_known ? Json(side.rank) : Json();
  out["dropped_by"] = side.dropped_by.empty() ? Json() : Json(side.dropped_by);
  return out;
}

}  // namespace

void print_divergence(Terminal* terminal, const Divergence& divergence,
                      const std::array<std::string, 2>& runs) {
  const auto columns = static_cast<size_t>(terminal->columns());
  const auto line = [&](const std::string& text) {
    if (!text.empty()) {
      terminal->print(wrap_with_prefix(text, columns, "", "  "));
    }
  };
  if (has_choice(divergence)) {
    terminal->print("\n" + tokens_table(*terminal, divergence, runs) + "\n");
    line(gap_text(divergence));
    line(draw_text(divergence, 0, runs[0]));
    line(draw_text(divergence, 1, runs[1]));
  }
  if (divergence.first_hash_change >= 0) {
    line(fmt::format("logits: other ones from step {} on", divergence.first_hash_change));
  } else if (divergence.cause != DivergenceCause::kPrompt) {
    line("logits: the same at every step that both have");
  }
  for (const std::string& setting : divergence.changed_settings) {
    terminal->print(wrap_with_prefix("setting: " + printable(setting), columns, "", "  "));
  }
}

Json json_of(const Divergence& divergence) {
  Json out = Json::object();
  out["cause"] = name(divergence.cause);
  out["verdict"] = divergence.verdict;
  out["step"] = divergence.step < 0 ? Json() : Json(divergence.step);
  out["common_tokens"] = divergence.common_tokens;
  out["first_other_logits"] =
      divergence.first_hash_change < 0 ? Json() : Json(divergence.first_hash_change);
  out["changed_settings"] = divergence.changed_settings;
  if (!has_choice(divergence)) {
    return out;
  }
  const bool is_gap_known = divergence.sides[0][0].is_known && divergence.sides[0][1].is_known;
  out["gap"] = is_gap_known ? number(divergence.gap) : Json();
  out["gap_ulps"] = is_gap_known ? number(divergence.gap_ulps) : Json();
  out["equal_logits"] = divergence.logits_equal;
  out["runs"] = Json::array();
  for (size_t run = 0; run < 2; ++run) {
    Json one = Json::object();
    one["survivors"] = divergence.survivors[run];
    one["draw"] = number(divergence.draw[run]);
    one["tokens"] = Json::array();
    for (size_t token = 0; token < 2; ++token) {
      Json side = json_of(divergence.sides[run][token]);
      side["chosen"] = run == token;
      side["key"] = number(divergence.key[run][token]);
      one["tokens"].push_back(std::move(side));
    }
    out["runs"].push_back(std::move(one));
  }
  return out;
}

}  // namespace logitlab
