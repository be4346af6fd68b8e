"""Figures and verdict of compare_transformers.py.

What is compared, with `exact` for transformers in float32 (keys and values rounded to BF16, as
logitlab keeps them), `bf16` for transformers in BF16, `decode` and `prefill` for logitlab with the
prompt id by id and at once. All four see the same ids. KL(p||q) is between distributions of one
position; for near distributions it is half the variance of the logits' differences, so its square
root adds up as a distance does.

Bounds, and why:
- decode splits each input of a matrix in two BF16 parts and leaves 2^-17 of it, transformers in
  BF16 2^-9, 256 times as much. KL goes with the square while both choose the same experts; choices
  that change are as many times rarer as the noise is smaller, and each costs about the same. So
  decode's mean KL lies 256 times lower, its median 65,536 times: a tenth and a thousandth are asked
  for.
- prefill rounds the inputs of matrices and nothing else; transformers in BF16 rounds those, the
  results, the residual and what lies between. Its KL may not be above that of transformers.
- KL(bf16||ours) is at most the square of the sum of both roots, by half for the mean over
  positions.
- An arg-max may differ from that of exact where the two lead logits of exact lie nearer than the
  noise: the difference of two errors of a row's root mean square s is within 6 sqrt(2) s (one in
  10^9). transformers' own BF16 logits have steps of 2^-7 of their value on top.
- How many may differ: an exact lead g is turned with probability erfc(g / (2 s)) / 2; the sum over
  positions, doubled for the logits behind the second, and three of its deviations and one on top.
- Greedy ids of transformers in BF16 (with its cache) are those of logitlab until a lead of exact
  that lies within the noise of both."""

import math


class Report:
    """Takes the runs one by one; torch tensors of logits are [positions, vocab_size]."""

    def __init__(self, torch, prompts, config):
        self.torch, self.prompts = torch, prompts
        self.mixtures = [i for i, kind in enumerate(config["hybrid_override_pattern"])
                         if kind == "E"]
        self.runs, self.greedy, self.kept = [], [], {}

    def kl(self, p, q):
        """KL(p||q) of each row, from logits."""
        parts = []
        for first in range(0, len(p), 64):  # float64: rows of 131,072
            a = p[first:first + 64].double().log_softmax(-1)
            b = q[first:first + 64].double().log_softmax(-1)
            parts.append((a.exp() * (a - b)).sum(-1))
        return self.torch.cat(parts)

    def noise(self, a, b):
        """Root mean square of the logits' differences, each row's mean taken out."""
        difference = a - b
        return (difference - difference.mean(-1, keepdim=True)).square().mean(-1).sqrt()

    def against_exact(self, exact, rows):
        best = exact.topk(2, dim=-1)
        gaps = best.values[:, 0] - best.values[:, 1]
        noise = self.noise(exact, rows)
        differs = rows.argmax(-1) != best.indices[:, 0]
        turned = 0.5 * self.torch.erfc(gaps / (2 * noise).clamp_min(1e-12)).sum().item()
        allowed = 2 * turned + 3 * math.sqrt(2 * turned) + 1
        kl = self.kl(exact, rows)
        far = differs & (gaps > 6 * math.sqrt(2) * noise)
        return {"kl_mean": kl.mean().item(), "kl_median": kl.median().item(),
                "kl_max": kl.max().item(), "noise": noise.mean().item(),
                "positions": len(kl), "top1_differs": int(differs.sum()),
                "top1_differs_allowed": allowed, "top1_differs_beyond_noise": int(far.sum()),
                "kl": [round(value, 9) for value in kl.tolist()]}

    def add_run(self, run, ours, bf16, exact, leads):
        """leads: [mixtures, positions] of exact's choice of experts."""
        self.kept[(run["prompt"], run["mode"])] = (run, ours, bf16, exact, leads)
        between = self.kl(bf16, ours)
        self.runs.append({
            "prompt": run["prompt"], "mode": run["mode"],
            "logit_deviation": exact.std(-1).mean().item(),
            "ours": self.against_exact(exact, ours), "bf16": self.against_exact(exact, bf16),
            "between": {"kl_mean": between.mean().item(), "kl_max": between.max().item(),
                        "top1_equal": (bf16.argmax(-1) == ours.argmax(-1)).float().mean().item()}})

    def add_greedy(self, index, ids, rows):
        """transformers' greedy ids in BF16 and the logits that chose them, against the run whose
        prompt went through at once."""
        run, ours, _, exact, leads = self.kept[(index, "prefill")]
        same = 0
        while same < len(ids) and ids[same] == run["ids"][same]:
            same += 1
        entry = {"prompt": index, "ids": len(ids), "same": same, "tie": None, "is_tie": True}
        if same < len(ids):
            at = len(self.prompts[index]) - 1 + same
            theirs, mine, truth = rows[same], ours[at], exact[at]
            noise = (self.noise(truth[None], theirs[None]) + self.noise(truth[None], mine[None]))[0]
            pair = self.torch.tensor([ids[same], run["ids"][same]], device=truth.device)
            gaps = {name: (row[pair[0]] - row[pair[1]]).item()
                    for name, row in (("bf16", theirs), ("ours", mine), ("exact", truth))}
            step = 2.0 ** (math.floor(math.log2(max(theirs.abs().max().item(), 1e-9))) - 7)
            bound = 6 * math.sqrt(2) * noise.item() + step
            lead, layer = leads[:, at].min(0)
            entry["tie"] = {"step": same, "id_bf16": ids[same], "id_ours": run["ids"][same],
                            "gaps_bf16_over_ours": gaps, "bound": bound,
                            "nearest_expert_lead": lead.item(),
                            "nearest_expert_layer": self.mixtures[int(layer)]}
            entry["is_tie"] = abs(gaps["exact"]) <= bound
        self.greedy.append(entry)

    def mean(self, mode, who, what):
        values = [run[who][what] for run in self.runs if run["mode"] == mode]
        return sum(values) / len(values)

    def document(self):
        checks = []

        def check(name, value, bound):
            checks.append({"check": name, "value": value, "bound": bound,
                           "passed": bool(value <= bound)})

        bf16 = {mode: self.mean(mode, "bf16", "kl_mean") for mode in ("decode", "prefill")}
        check("decode: mean KL(exact||ours)", self.mean("decode", "ours", "kl_mean"),
              bf16["decode"] / 10)
        check("decode: median KL(exact||ours)", self.mean("decode", "ours", "kl_median"),
              self.mean("decode", "bf16", "kl_median") / 1000)
        check("prefill: mean KL(exact||ours)", self.mean("prefill", "ours", "kl_mean"),
              bf16["prefill"])
        for mode in ("decode", "prefill"):
            distance = (math.sqrt(self.mean(mode, "ours", "kl_mean")) + math.sqrt(bf16[mode])) ** 2
            check(f"{mode}: mean KL(bf16||ours)", self.mean(mode, "between", "kl_mean"),
                  1.5 * distance)
        for run in self.runs:
            what = f"prompt {run['prompt']}, {run['mode']}"
            check(f"{what}: arg-max not that of exact", run["ours"]["top1_differs"],
                  run["ours"]["top1_differs_allowed"])
            check(f"{what}: of these beyond the noise", run["ours"]["top1_differs_beyond_noise"], 0)
        for entry in self.greedy:
            check(f"prompt {entry['prompt']}: greedy ids part without a tie",
                  0 if entry["is_tie"] else 1, 0)
        finite = all(math.isfinite(row["value"]) for row in checks)
        return {"verdict": {"passed": finite and all(row["passed"] for row in checks),
                            "checks": checks},
                "runs": self.runs, "greedy": self.greedy}


def print_report(document):
    for run in document["runs"]:
        print(f"prompt {run['prompt']}, {run['mode']}: {run['ours']['positions']} positions")
        for who in ("ours", "bf16"):
            row = run[who]
            print(f"  KL(exact||{who}) mean {row['kl_mean']:.2e} median {row['kl_median']:.2e} max "
                  f"{row['kl_max']:.2e}, noise {row['noise']:.1e} of logits of deviation "
                  f"{run['logit_deviation']:.2f}, arg-max differs {row['top1_differs']}")
        print(f"  KL(bf16||ours) mean {run['between']['kl_mean']:.2e}, arg-max equal "
              f"{run['between']['top1_equal']:.3f}")
    for entry in document["greedy"]:
        line = f"greedy, prompt {entry['prompt']}: {entry['same']} of {entry['ids']} ids the same"
        if entry["tie"]:
            tie = entry["tie"]
            gaps = ", ".join(f"{name} {gap:+.4f}"
                             for name, gap in tie["gaps_bf16_over_ours"].items())
            line += (f"; step {tie['step']}: {tie['id_bf16']} over {tie['id_ours']} by {gaps}; "
                     f"a tie up to {tie['bound']:.4f}; nearest choice of experts: layer "
                     f"{tie['nearest_expert_layer']}, {tie['nearest_expert_lead']:.1e}")
        print(line)
    for row in document["verdict"]["checks"]:
        print(f"{'ok ' if row['passed'] else 'BAD'} {row['check']}: {row['value']:.3g}, at most "
              f"{row['bound']:.3g}")
    print("seconds: " + ", ".join(f"{name} {value:.1f}"
                                  for name, value in document["seconds"].items()))
    print("passed" if document["verdict"]["passed"] else "NOT PASSED")
