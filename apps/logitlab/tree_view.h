// What the terminal and the JSON document show of a tree of continuations.
#pragma once

#include "base/json.h"
#include "lab/continuation_tree.h"
#include "terminal.h"
#include "text/tokenizer.h"

namespace logitlab {

// Likeliest texts in the table, and in the tree of shared beginnings.
inline constexpr size_t kTextsInTable = 20;
inline constexpr size_t kTextsInTree = 12;

// The answer in one sentence, the likeliest texts, what they share, when two runs part. Lines of at
// most 100 columns.
void print_tree(Terminal* terminal, const Tokenizer& tokenizer, const ContinuationTree& tree);
[[nodiscard]] Json tree_json(const Tokenizer& tokenizer, const ContinuationTree& tree);

}  // namespace logitlab
