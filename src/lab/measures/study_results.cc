#include "lab/measures/study_results.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "lab/measures/findings.h"
#include "lab/measures/setting_figures.h"
#include "lab/study/stored_study.h"

namespace logitlab {
namespace {

// With more settings only neighbours and controls are compared.
constexpr size_t kAllPairs = 12;
// Texts that are compared: the work grows with their square.
constexpr size_t kMostCompared = 2'000;
constexpr size_t kMostOfASetting = 100;
constexpr size_t kFewestOfASetting = 4;
constexpr size_t kMostDivergences = 40;

// One prompt with one setting, in the order of the study.
struct Cell {
  size_t prompt = 0;
  size_t setting = 0;
  SettingAccumulator runs;
  std::vector<size_t> members;  // into the matrix of all texts
};

class Analysis {
 public:
  explicit Analysis(StudyResults* results) : results_(*results) {}

  Status read(Store* store);
  void compare();
  // The samples beside the exact trees.
  void compare_with_trees();
  // Where runs part, and why.
  Status take_apart(Store* store);

 private:
  Status add_divergence(Store* store, std::pair<size_t, size_t> first,
                        std::pair<size_t, size_t> second);
  Cell* cell_of(const RunRecord& run);
  [[nodiscard]] bool is_pair_wanted(size_t first, size_t second) const;
  void add_pair(size_t first, size_t second);

  StudyResults& results_;
  std::vector<std::unique_ptr<Cell>> cells_;
  std::map<std::pair<std::string, std::string>, Cell*> by_name_;
  SimilarityMatrix texts_;
};

Cell* Analysis::cell_of(const RunRecord& run) {
  Cell*& cell = by_name_[{run.prompt_name, run.setting_name}];
  if (cell == nullptr) {
    auto made = std::make_unique<Cell>();
    const auto& settings = results_.plan.settings;
    const auto& prompts = results_.plan.prompts;
    made->setting = static_cast<size_t>(
        std::find_if(settings.begin(), settings.end(),
                     [&](const StudySetting& one) { return one.name == run.setting_name; }) -
        settings.begin());
    made->prompt = static_cast<size_t>(
        std::find_if(prompts.begin(), prompts.end(),
                     [&](const StudyPrompt& one) { return one.name == run.prompt_name; }) -
        prompts.begin());
    cell = made.get();
    cells_.push_back(std::move(made));
  }
  return cell;
}

Status Analysis::read(Store* store) {
  RETURN_IF_ERROR(store->visit_runs(
      results_.study.id, [this](const RunRecord& run) { return cell_of(run)->runs.add(run); }));
  std::stable_sort(cells_.begin(), cells_.end(), [](const auto& a, const auto& b) {
    return std::pair(a->prompt, a->setting) < std::pair(b->prompt, b->setting);
  });
  std::vector<std::string> texts;
  const size_t most = std::clamp(kMostCompared / std::max<size_t>(1, cells_.size()),
                                 kFewestOfASetting, kMostOfASetting);
  for (const auto& cell : cells_) {
    const size_t n = std::min(most, cell->runs.texts().size());
    for (size_t i = 0; i < n; ++i) {
      cell->members.push_back(texts.size());
      texts.push_back(cell->runs.texts()[i]);
    }
    if (n < cell->runs.texts().size()) {
      results_.compared_runs = static_cast<int64_t>(most);
    }
  }
  texts_ = jaccard_matrix(texts);
  for (const auto& cell : cells_) {
    SettingFigures figures = cell->runs.figures();
    if (cell->setting < results_.plan.settings.size()) {
      figures.swept = results_.plan.settings[cell->setting].swept;
    }
    if (cell->members.size() > 1) {
      figures.within = within(texts_, cell->members, {});
    }
    results_.settings.push_back(std::move(figures));
  }
  return {};
}

bool Analysis::is_pair_wanted(size_t first, size_t second) const {
  if (cells_[first]->prompt != cells_[second]->prompt) {
    return false;
  }
  return cells_.size() <= kAllPairs || second == first + 1 || results_.settings[first].is_control ||
         results_.settings[second].is_control;
}

void Analysis::add_pair(size_t first, size_t second) {
  const Cell& a = *cells_[first];
  const Cell& b = *cells_[second];
  PairFigures pair;
  pair.first = first;
  pair.second = second;
  pair.is_adjacent = second == first + 1;
  pair.between = between(texts_, a.members, b.members, {});
  pair.test = permutation_test(texts_, a.members, b.members, 0);
  pair.runs_to_settle = runs_to_settle(texts_, a.members, b.members);
  std::map<std::vector<TokenId>, int64_t> known;
  for (const std::vector<TokenId>& one : a.runs.ids()) {
    ++known[one];
  }
  for (const std::vector<TokenId>& one : b.runs.ids()) {
    const auto same = known.find(one);
    pair.equal_texts += same == known.end() ? 0 : same->second;
  }
  results_.pairs.push_back(std::move(pair));
}

void Analysis::compare() {
  const size_t n = cells_.size();
  results_.similarity.n = n;
  results_.similarity.values.assign(n * n, kNoNumber);
  for (size_t first = 0; first < n; ++first) {
    const auto& inside = results_.settings[first].within;
    results_.similarity.values[first * n + first] = inside ? inside->mean : kNoNumber;
    for (size_t second = first + 1; second < n; ++second) {
      double sum = 0;
      for (const size_t i : cells_[first]->members) {
        for (const size_t j : cells_[second]->members) {
          sum += texts_.at(i, j);
        }
      }
      const double pairs =
          static_cast<double>(cells_[first]->members.size() * cells_[second]->members.size());
      const double mean = pairs > 0 ? sum / pairs : kNoNumber;
      results_.similarity.values[first * n + second] = mean;
      results_.similarity.values[second * n + first] = mean;
      if (is_pair_wanted(first, second)) {
        add_pair(first, second);
      }
    }
  }
}

void Analysis::compare_with_trees() {
  for (const ExactFigures& exact : results_.extras.exact) {
    if (exact.likeliest.empty()) {
      continue;
    }
    for (size_t i = 0; i < cells_.size(); ++i) {
      const SettingFigures& setting = results_.settings[i];
      if (setting.name != exact.setting_name || setting.prompt_name != exact.prompt_name) {
        continue;
      }
      ExactAgreement agreement;
      const std::string likeliest = collapse_space(exact.likeliest.front().text);
      // Two sequences of tokens may spell one text.
      for (const ExactFigures::Text& text : exact.likeliest) {
        agreement.exact += collapse_space(text.text) == likeliest ? text.probability : 0;
      }
      const auto& texts = cells_[i]->runs.texts();
      agreement.exact = std::min(1.0, agreement.exact);
      agreement.setting = i;
      agreement.runs = static_cast<int64_t>(texts.size());
      agreement.hits = std::count(texts.begin(), texts.end(), likeliest);
      agreement.sampled = share_interval(agreement.hits, agreement.runs);
      results_.agreement.push_back(agreement);
    }
  }
}

// Each is (setting, run of it).
Status Analysis::add_divergence(Store* store, std::pair<size_t, size_t> first,
                                std::pair<size_t, size_t> second) {
  DivergenceFigures figures;
  std::array<TraceMemory, 2> traces;
  std::array<RunRecord, 2> runs;
  const std::array<std::pair<size_t, size_t>, 2> wanted = {first, second};
  for (size_t i = 0; i < 2; ++i) {
    const SettingFigures& setting = results_.settings[wanted[i].first];
    ASSIGN_OR_RETURN(runs[i], store->run(setting.run_ids[wanted[i].second]));
    if (runs[i].trace.empty()) {
      return {};
    }
    RETURN_IF_ERROR(parse_trace(runs[i].trace, fmt::format("run {}", runs[i].id), &traces[i]));
    if (!traces[i].beam_steps().empty()) {
      return {};  // no token decides there
    }
    (i == 0 ? figures.first_run : figures.second_run) = runs[i].id;
    (i == 0 ? figures.first_name : figures.second_name) =
        results_.plan.prompts.size() > 1
            ? fmt::format("{}: {} #{}", setting.prompt_name, setting.name, runs[i].run + 1)
            : fmt::format("{} #{}", setting.name, runs[i].run + 1);
  }
  const auto input = [&](size_t i) -> DivergenceInput {
    return {&traces[i].run(), &traces[i].steps(), &traces[i].ended(), 0, runs[i].execution_json};
  };
  ASSIGN_OR_RETURN(figures.divergence, find_divergence(input(0), input(1)));
  results_.divergences.push_back(std::move(figures));
  return {};
}

Status Analysis::take_apart(Store* store) {
  const auto& measures = results_.plan.measures;
  if (std::find(measures.begin(), measures.end(), MeasureKind::kDivergence) == measures.end()) {
    return {};
  }
  const auto has_room = [this] { return results_.divergences.size() < kMostDivergences; };
  for (size_t cell = 0; cell < cells_.size() && has_room(); ++cell) {
    const auto& ids = cells_[cell]->runs.ids();
    const auto other = std::find_if(ids.begin(), ids.end(),
                                    [&ids](const auto& one) { return one != ids.front(); });
    if (other != ids.end()) {
      RETURN_IF_ERROR(
          add_divergence(store, {cell, 0}, {cell, static_cast<size_t>(other - ids.begin())}));
    }
  }
  for (size_t cell = 0; cell + 1 < cells_.size() && has_room(); ++cell) {
    if (cells_[cell]->prompt == cells_[cell + 1]->prompt) {
      RETURN_IF_ERROR(add_divergence(store, {cell, 0}, {cell + 1, 0}));
    }
  }
  return {};
}

}  // namespace

Result<StudyResults> analyse_study(Store* store, int64_t study) {
  StudyResults results;
  ASSIGN_OR_RETURN(results.study, store->study(study));
  ASSIGN_OR_RETURN(results.plan, plan_of(results.study));
  ASSIGN_OR_RETURN(results.extras, parse_study_extras(results.study.extras_json));
  Analysis analysis(&results);
  RETURN_IF_ERROR(analysis.read(store));
  analysis.compare();
  analysis.compare_with_trees();
  RETURN_IF_ERROR(analysis.take_apart(store));
  add_findings(&results);
  return results;
}

}  // namespace logitlab
