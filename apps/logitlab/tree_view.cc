#include "tree_view.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include "base/utf8.h"
#include "json_out.h"
#include "text_layout.h"

namespace logitlab {
namespace {

constexpr size_t kWidest = 100;
constexpr std::array<int64_t, 5> kNumbersOfRuns = {2, 3, 5, 10, 100};
// Below it the ends of a range are shown as one number.
constexpr double kNarrow = 5e-4;

size_t width_of(const Terminal& terminal) {
  return std::min(kWidest, static_cast<size_t>(std::max(20, terminal.columns())));
}

std::string probability_text(double p) {
  return p > 0 && p < 0.001 ? fmt::format("{:.1e}", p) : fmt::format("{:.3f}", p);
}

std::string range_text(const Interval& range, int digits) {
  if (range.high - range.low < kNarrow) {
    return fmt::format("{:.{}f}", (range.low + range.high) / 2, digits);
  }
  return fmt::format("{:.{}f} to {:.{}f}", range.low, digits, range.high, digits);
}

std::string text_of(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  return tokenizer.decode(ids, true).value_or("");
}

std::string pieces_of(const Tokenizer& tokenizer, std::span<const TokenId> ids) {
  std::string text;
  for (const TokenId id : ids) {
    text += tokenizer.piece(id).value_or("?");
  }
  return text;
}

void print_lines(Terminal* terminal, std::string_view text, Style style) {
  for (const std::string& line : wrap(text, width_of(*terminal))) {
    terminal->print(terminal->paint(style, line) + "\n");
  }
}

// "95.1 %"; never rounded up to a whole that is not there.
std::string percent(double share) {
  if (share > 0.9995 && share < 1 - 1e-9) {
    return "more than 99.9 %";
  }
  return share > 0 && share < 0.0005 ? "less than 0.1 %" : fmt::format("{:.1f} %", 100 * share);
}

std::string answer_sentence(const ContinuationTree& tree) {
  if (tree.n_texts == 0) {
    return fmt::format("No text has ended within {} nodes; what is known are its beginnings.",
                       with_commas(tree.nodes));
  }
  const Interval ten = expected_distinct(tree, 10);
  return fmt::format(
      "{} text{} up {} of what these settings allow; two runs give the same text with "
      "probability {}; ten runs are expected to give {} different texts.",
      with_commas(tree.n_texts), tree.n_texts == 1 ? " makes" : "s make", percent(tree.mass),
      range_text(tree.same_text, 2), range_text(ten, 1));
}

void print_texts(Terminal* terminal, const Tokenizer& tokenizer, const ContinuationTree& tree) {
  Table table({{"#", Align::kRight},
               {"probability", Align::kRight},
               {"so far", Align::kRight},
               {"tokens", Align::kRight},
               {"ended by", Align::kLeft},
               {"text", Align::kLeft}});
  double sum = 0;
  const size_t shown = std::min(kTextsInTable, tree.leaves.size());
  constexpr size_t kOtherColumns = 52;
  const size_t room = std::max<size_t>(
      20, width_of(*terminal) - std::min<size_t>(kOtherColumns, width_of(*terminal)));
  for (size_t i = 0; i < shown; ++i) {
    const TreeLeaf& leaf = tree.leaves[i];
    sum += leaf.probability;
    table.add_row({fmt::format("{}", i + 1), probability_text(leaf.probability),
                   probability_text(sum), fmt::format("{}", leaf.ids.size()),
                   std::string(name(leaf.stop_reason)),
                   shortened(text_of(tokenizer, leaf.ids), room)});
  }
  if (table.empty()) {
    return;
  }
  terminal->print("\n" + table.render(*terminal));
  const int64_t more = tree.n_texts - static_cast<int64_t>(shown);
  if (more > 0) {
    print_lines(terminal,
                fmt::format("and {} more with {} together; --json lists up to {}",
                            with_commas(more), percent(std::max(0.0, tree.mass - sum)),
                            with_commas(static_cast<int64_t>(ContinuationTree::kMostTexts))),
                Style::kDim);
  }
}

// Texts [first, last), sorted by ids, that share their first `depth` tokens.
class SharedBeginnings {
 public:
  SharedBeginnings(Terminal* terminal, const Tokenizer& tokenizer,
                   std::vector<const TreeLeaf*> texts)
      : terminal_(*terminal), tokenizer_(tokenizer), texts_(std::move(texts)) {
    std::sort(texts_.begin(), texts_.end(),
              [](const TreeLeaf* a, const TreeLeaf* b) { return a->ids < b->ids; });
  }

  void print() { print_below(0, texts_.size(), 0, ""); }

 private:
  struct Branch {
    size_t first = 0;
    size_t last = 0;
    double probability = 0;
  };

  [[nodiscard]] std::vector<Branch> branches(size_t first, size_t last, size_t depth) const {
    std::vector<Branch> out;
    for (size_t i = first; i < last; ++i) {
      // A text that ends here is no branch; it is what its line says already.
      if (texts_[i]->ids.size() <= depth) {
        continue;
      }
      if (out.empty() || texts_[out.back().first]->ids[depth] != texts_[i]->ids[depth]) {
        out.push_back({i, i, 0});
      }
      out.back().last = i + 1;
      out.back().probability += texts_[i]->probability;
    }
    std::stable_sort(out.begin(), out.end(), [](const Branch& a, const Branch& b) {
      return a.probability > b.probability;
    });
    return out;
  }

  // Tokens that all of them have in common, at least `depth`.
  [[nodiscard]] size_t common(const Branch& branch, size_t depth) const {
    const std::vector<TokenId>& a = texts_[branch.first]->ids;
    const std::vector<TokenId>& b = texts_[branch.last - 1]->ids;
    const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
    return std::max(depth, static_cast<size_t>(end - a.begin()));
  }

  void print_below(size_t first, size_t last, size_t depth, const std::string& indent) {
    const std::vector<Branch> below = branches(first, last, depth);
    for (size_t i = 0; i < below.size(); ++i) {
      const bool is_last = i + 1 == below.size();
      const size_t end = common(below[i], depth + 1);
      const auto ids = std::span(texts_[below[i].first]->ids).subspan(depth, end - depth);
      const std::string head = fmt::format("{}{}- {} ", indent, is_last ? '`' : '|',
                                           probability_text(below[i].probability));
      const size_t width = width_of(terminal_);
      const size_t room = width > head.size() + 8 ? width - head.size() : 8;
      terminal_.print(terminal_.paint(Style::kDim, head) +
                      shortened(quoted(pieces_of(tokenizer_, ids)), room) + "\n");
      print_below(below[i].first, below[i].last, end, indent + (is_last ? "   " : "|  "));
    }
  }

  [[nodiscard]] static std::string quoted(const std::string& text) { return "\"" + text + "\""; }

  Terminal& terminal_;
  const Tokenizer& tokenizer_;
  std::vector<const TreeLeaf*> texts_;
};

void print_shared(Terminal* terminal, const Tokenizer& tokenizer, const ContinuationTree& tree) {
  std::vector<const TreeLeaf*> texts;
  for (const TreeLeaf& leaf : tree.leaves) {
    if (texts.size() < kTextsInTree) {
      texts.push_back(&leaf);
    }
  }
  if (texts.size() < 2) {
    return;
  }
  terminal->print("\n");
  print_lines(terminal,
              fmt::format("Where the {} likeliest part (probability of those shown)",
                          with_commas(static_cast<int64_t>(texts.size()))),
              Style::kHeading);
  SharedBeginnings(terminal, tokenizer, std::move(texts)).print();
}

// At most kRows steps, the first and the last among them.
void print_parting(Terminal* terminal, const ContinuationTree& tree) {
  constexpr size_t kRows = 12;
  constexpr double kBar = 40;
  // After the last text or open beginning nothing changes any more.
  size_t n = tree.parted_by_step.size();
  while (n > 1 && tree.parted_by_step[n - 2].low == tree.parted_by_step[n - 1].low &&
         tree.parted_by_step[n - 2].high == tree.parted_by_step[n - 1].high) {
    --n;
  }
  if (n == 0) {
    return;
  }
  terminal->print("\n");
  print_lines(terminal, "Two runs have parted by step", Style::kHeading);
  const size_t rows = std::min(kRows, n);
  for (size_t row = 0; row < rows; ++row) {
    const size_t step = rows == 1 ? 0 : row * (n - 1) / (rows - 1);
    const Interval& parted = tree.parted_by_step[step];
    const auto sure = static_cast<size_t>(parted.low * kBar + 0.5);
    const auto possible = std::max(sure, static_cast<size_t>(parted.high * kBar + 0.5));
    const std::string bar = std::string(sure, '#') + std::string(possible - sure, '-');
    const std::string number = range_text(parted, 3);
    terminal->print(fmt::format("{:>6} ", step) +
                    terminal->paint(Style::kAccent, fmt::format("{:<40}", bar)) + " " + number +
                    "\n");
  }
}

void print_expected(Terminal* terminal, const ContinuationTree& tree) {
  Table table({{"runs", Align::kRight}, {"different texts expected", Align::kRight}});
  for (const int64_t n : kNumbersOfRuns) {
    table.add_row({fmt::format("{}", n), range_text(expected_distinct(tree, n), 2)});
  }
  terminal->print("\n" + table.render(*terminal));
}

Json interval_json(const Interval& range) {
  return {{"low", range.low}, {"high", range.high}};
}

Json leaf_json(const Tokenizer& tokenizer, const TreeLeaf& leaf) {
  Json out = Json::object();
  out["probability"] = leaf.probability;
  out["text"] = text_of(tokenizer, leaf.ids);
  out["ids"] = leaf.ids;
  return out;
}

}  // namespace

void print_tree(Terminal* terminal, const Tokenizer& tokenizer, const ContinuationTree& tree) {
  print_lines(terminal, answer_sentence(tree), Style::kBold);
  print_texts(terminal, tokenizer, tree);
  print_shared(terminal, tokenizer, tree);
  if (!tree.is_complete && !tree.open.empty()) {
    terminal->print("\n");
    print_lines(
        terminal,
        fmt::format("{} of the probability lies in texts that were not followed to their "
                    "end; the likeliest beginning of one has {}: {}",
                    percent(tree.open_mass), probability_text(tree.open.front().probability),
                    shortened(pieces_of(tokenizer, tree.open.front().ids), 60)),
        Style::kWarn);
  }
  print_parting(terminal, tree);
  print_expected(terminal, tree);
}

Json tree_json(const Tokenizer& tokenizer, const ContinuationTree& tree) {
  Json out = Json::object();
  out["answer"] = answer_sentence(tree);
  out["n_texts"] = tree.n_texts;
  out["mass"] = tree.mass;
  out["is_complete"] = tree.is_complete;
  out["is_cancelled"] = tree.is_cancelled;
  out["nodes"] = tree.nodes;
  out["replayed"] = tree.replayed;
  out["texts"] = Json::array();
  for (const TreeLeaf& leaf : tree.leaves) {
    Json item = leaf_json(tokenizer, leaf);
    item["stop_reason"] = std::string(name(leaf.stop_reason));
    out["texts"].push_back(std::move(item));
  }
  out["open_mass"] = tree.open_mass;
  out["open"] = Json::array();
  for (const TreeLeaf& open : tree.open) {
    out["open"].push_back(leaf_json(tokenizer, open));
  }
  out["same_text"] = interval_json(tree.same_text);
  out["parted_by_step"] = Json::array();
  for (const Interval& parted : tree.parted_by_step) {
    out["parted_by_step"].push_back(interval_json(parted));
  }
  out["expected_distinct"] = Json::array();
  for (const int64_t n : kNumbersOfRuns) {
    Json item = interval_json(expected_distinct(tree, n));
    item["runs"] = n;
    out["expected_distinct"].push_back(std::move(item));
  }
  return out;
}

}  // namespace logitlab
