#include "nn/moe.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "nn/work_rows.h"

namespace logitlab {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Index of the largest value, the lowest of equal ones; NaN is never larger.
int64_t largest(std::span<const float> values) {
  size_t best = 0;
  for (size_t i = 1; i < values.size(); ++i) {
    if (values[i] > values[best]) {
      best = i;
    }
  }
  return static_cast<int64_t>(best);
}

// Sets the choices of all groups but the best to -inf.
void keep_best_groups(const Routing& routing, std::vector<float>* choices) {
  const auto size = static_cast<size_t>(routing.n_experts / routing.n_groups);
  std::vector<float> scores;
  for (size_t first = 0; first < choices->size(); first += size) {
    float best = kNever;
    float second = kNever;
    for (size_t i = first; i < first + size; ++i) {
      const float choice = (*choices)[i];
      if (choice > best) {
        second = best;
        best = choice;
      } else if (choice > second) {
        second = choice;
      }
    }
    scores.push_back(size > 1 ? best + second : best);
  }
  std::vector<bool> kept(scores.size(), false);
  for (int64_t k = 0; k < routing.kept_groups; ++k) {
    const auto group = static_cast<size_t>(largest(scores));
    kept[group] = true;
    scores[group] = kNever;
  }
  for (size_t i = 0; i < choices->size(); ++i) {
    if (!kept[i / size]) {
      (*choices)[i] = kNever;
    }
  }
}

// The rows of a call, sorted by the expert that they go to.
struct Dispatch {
  std::vector<ChosenExpert> chosen;  // [rows, n_chosen], ascending within a row
  std::vector<int64_t> slots;        // [rows, n_chosen]: where the pair lies in expert order
  std::vector<int64_t> first;        // [n_experts + 1]: first slot of each expert
};

Dispatch dispatch(const Routing& routing, int64_t rows, const float* logits,
                  const float* correction) {
  const auto k = static_cast<size_t>(routing.n_chosen);
  Dispatch plan;
  plan.chosen.resize(static_cast<size_t>(rows) * k);
  plan.slots.resize(plan.chosen.size());
  plan.first.assign(static_cast<size_t>(routing.n_experts) + 1, 0);
  for (int64_t r = 0; r < rows; ++r) {
    route(routing, logits + r * routing.n_experts, correction,
          {plan.chosen.data() + static_cast<size_t>(r) * k, k});
  }
  for (const ChosenExpert& pair : plan.chosen) {
    ++plan.first[static_cast<size_t>(pair.expert) + 1];
  }
  for (size_t e = 1; e < plan.first.size(); ++e) {
    plan.first[e] += plan.first[e - 1];
  }
  std::vector<int64_t> next(plan.first.begin(), plan.first.end() - 1);
  for (size_t i = 0; i < plan.chosen.size(); ++i) {
    plan.slots[i] = next[static_cast<size_t>(plan.chosen[i].expert)]++;
  }
  return plan;
}

}  // namespace

void Mlp::apply(ExecContext& context, int64_t rows, const float* x, float* residual) const {
  WorkRows hidden(rows, up.out());
  const LinearPart in = up.part(hidden.data());
  context.backend.linear(context, x, rows, {&in, 1});
  context.backend.activate(context, activation, hidden.data(), rows * up.out());
  const LinearPart out = down.part(residual, /*accumulate=*/true);
  context.backend.linear(context, hidden.data(), rows, {&out, 1});
}

void route(const Routing& routing, const float* logits, const float* correction,
           std::span<ChosenExpert> chosen) {
  const auto n = static_cast<size_t>(routing.n_experts);
  std::vector<float> scores(n);
  for (size_t e = 0; e < n; ++e) {
    scores[e] = 1.0F / (1.0F + std::exp(-logits[e]));
  }
  std::vector<float> choices = scores;
  for (size_t e = 0; correction != nullptr && e < n; ++e) {
    choices[e] += correction[e];
  }
  if (routing.n_groups > 1) {
    keep_best_groups(routing, &choices);
  }
  std::vector<bool> taken(n, false);
  float sum = 0;
  for (ChosenExpert& pair : chosen) {
    auto best = static_cast<size_t>(largest(choices));
    while (taken[best]) {
      // All that is left is -inf (or NaN): any expert will do, but none twice.
      best = (best + 1) % n;
    }
    pair = {static_cast<int64_t>(best), scores[best]};
    taken[best] = true;
    choices[best] = kNever;
    sum += pair.weight;
  }
  for (ChosenExpert& pair : chosen) {
    pair.weight = (routing.normalises ? pair.weight / (sum + 1e-20F) : pair.weight) * routing.scale;
  }
  std::sort(chosen.begin(), chosen.end(),
            [](const ChosenExpert& a, const ChosenExpert& b) { return a.expert < b.expert; });
}

void MixtureOfExperts::apply(ExecContext& context, int64_t rows, const float* x,
                             float* residual) const {
  const Backend& backend = context.backend;
  const int64_t d = router.weight.columns();
  const int64_t f = up.front().rows();
  const int64_t w = up.front().columns();
  const int64_t k = routing.n_chosen;
  const int64_t n_pairs = rows * k;
  const int64_t shared_width = has_shared ? shared.up.out() : 0;

  WorkRows logits(rows, routing.n_experts);
  WorkRows latent(has_latent ? rows : 0, w);
  std::vector<LinearPart> from_x = {router.part(logits.data())};
  if (has_latent) {
    from_x.push_back(latent_in.part(latent.data()));
  }
  backend.linear(context, x, rows, from_x);
  const Dispatch plan = dispatch(routing, rows, logits.data(), correction);

  // One row is the input of all its experts; more of them are packed, expert by expert.
  const float* source = has_latent ? latent.data() : x;
  WorkRows packed(rows > 1 ? n_pairs : 0, w);
  if (rows > 1) {
    context.threads.parallel_for(rows, [&](int64_t r, int /*thread*/) {
      for (int64_t j = r * k; j < (r + 1) * k; ++j) {
        std::copy_n(source + r * w, w, packed.row(plan.slots[static_cast<size_t>(j)]));
      }
    });
  }
  WorkRows hidden(1, n_pairs * f + rows * shared_width);
  float* const shared_hidden = hidden.data() + n_pairs * f;
  WorkRows expert_out(n_pairs, w);
  WorkRows shared_out(has_shared ? rows : 0, d);
  std::vector<GroupedPart> ups;
  std::vector<GroupedPart> downs;
  if (has_shared) {
    ups.push_back({shared.up.weight, shared.up.bias, x, rows, shared_hidden});
    downs.push_back({shared.down.weight, shared.down.bias, shared_hidden, rows, shared_out.data()});
  }
  for (int64_t e = 0; e < routing.n_experts; ++e) {
    const auto index = static_cast<size_t>(e);
    const int64_t first = plan.first[index];
    const int64_t n = plan.first[index + 1] - first;
    if (n > 0) {
      ups.push_back({up[index], nullptr, rows > 1 ? packed.row(first) : source, n,
                     hidden.data() + first * f});
      downs.push_back({down[index], nullptr, hidden.data() + first * f, n, expert_out.row(first)});
    }
  }
  backend.grouped_linear(context, ups);
  backend.activate(context, activation, hidden.data(), n_pairs * f + rows * shared_width);
  backend.grouped_linear(context, downs);

  WorkRows mixed(rows, w);
  context.threads.parallel_for(rows, [&](int64_t r, int /*thread*/) {
    float* sum = mixed.row(r);
    std::fill_n(sum, w, 0.0F);
    for (int64_t j = r * k; j < (r + 1) * k; ++j) {
      const float weight = plan.chosen[static_cast<size_t>(j)].weight;
      const float* out = expert_out.row(plan.slots[static_cast<size_t>(j)]);
      for (int64_t i = 0; i < w; ++i) {
        sum[i] += weight * out[i];
      }
    }
    float* total = residual + r * d;
    const float* extra = has_shared ? shared_out.row(r) : nullptr;
    for (int64_t i = 0; i < d && !has_latent; ++i) {
      total[i] += sum[i] + (extra != nullptr ? extra[i] : 0.0F);
    }
    for (int64_t i = 0; i < d && has_latent && extra != nullptr; ++i) {
      total[i] += extra[i];
    }
  });
  if (has_latent) {
    const LinearPart out = latent_out.part(residual, /*accumulate=*/true);
    backend.linear(context, mixed.data(), rows, {&out, 1});
  }
}

}  // namespace logitlab
