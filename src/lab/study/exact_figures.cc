#include "lab/study/exact_figures.h"

#include <algorithm>
#include <set>

#include "lab/continuation_tree.h"

namespace logitlab {

Result<ExactFigures> exact_figures(Engine* engine, const ExactCell& cell,
                                   const ExactRequest& request,
                                   const std::function<bool()>& is_cancelled) {
  TreeRequest wanted;
  wanted.prompt.assign(cell.prompt.begin(), cell.prompt.end());
  wanted.config = *cell.config;
  wanted.mass = request.mass;
  wanted.max_nodes = request.max_nodes;
  wanted.is_cancelled = is_cancelled;
  ASSIGN_OR_RETURN(const ContinuationTree tree, expand_tree(engine, wanted));
  ExactFigures figures;
  figures.prompt_name = cell.prompt_name;
  figures.setting_name = cell.setting_name;
  figures.mass = tree.mass;
  figures.nodes = tree.nodes;
  figures.texts = tree.n_texts;
  figures.is_complete = tree.is_complete;
  figures.same_text = tree.same_text;
  figures.parted_by_step = tree.parted_by_step;
  for (const int64_t runs : std::set<int64_t>{2, 3, 5, 10, 100, cell.runs}) {
    figures.expected_distinct.emplace_back(runs, expected_distinct(tree, runs));
  }
  const size_t shown = std::min(tree.leaves.size(), ExactFigures::kLikeliest);
  for (size_t i = 0; i < shown; ++i) {
    const TreeLeaf& leaf = tree.leaves[i];
    ASSIGN_OR_RETURN(std::string text, engine->tokenizer().decode(leaf.ids, true));
    figures.likeliest.push_back({leaf.probability, std::move(text)});
  }
  return figures;
}

}  // namespace logitlab
