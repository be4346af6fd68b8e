"""Greedy decoding and beam search against transformers' generate, on checkpoints and settings that
nobody has seen before and on the default model: the same tokens, the same beams, scores within
1e-4; beam sampling against the distribution of transformers' draws.

LOGITLAB_SEARCH_PROBE names the built search_probe (a default is looked for in build/).
"""

import collections
import json
import os
import random
import subprocess

import make_tiny_models as tiny
import pytest
import record_models as reference
import record_search
import torch
import transformers
from conftest import ROOT

CASES_EACH = 40
DEFAULT_CASES = 4
# Of a score. A negative length_penalty multiplies the sum of log-probabilities by a power of the
# length, and what two programs differ by with it.
SCORE_BOUND = 1e-4


@pytest.fixture(scope="module", autouse=True)
def quiet_transformers():
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def probe():
    named = os.environ.get("LOGITLAB_SEARCH_PROBE")
    built = sorted(ROOT.glob("build/*/src/generate/search_probe"),
                   key=lambda path: path.stat().st_mtime)
    if not named and not built:
        pytest.skip("search_probe is not built; set LOGITLAB_SEARCH_PROBE")
    command = [named or str(built[-1]), "2"]

    def ask(requests):
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run(command, input=lines, capture_output=True, encoding="utf-8",
                              timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.split("\n") if line]
        assert len(answers) == len(requests)
        return answers

    return ask


def check(probe, path, cases):
    answers = probe([{"model": str(path), "prompts": case["prompts"], "config": case["config"]}
                     for case in cases])
    for case, answer in zip(cases, answers):
        told = f"{case['prompts']} {case['config']}"
        assert "error" not in answer, f"{told}: {answer}"
        assert len(answer["sequences"]) == len(case["sequences"]), told
        for ours, theirs in zip(answer["sequences"], case["sequences"]):
            assert ours["ids"] == theirs["ids"], told
            if "score" in theirs:
                assert ours["beam_indices"] == theirs["beam_indices"], told
                factor = len(theirs["ids"]) ** -case["config"]["length_penalty"]
                bound = SCORE_BOUND * max(1, factor)
                assert abs(ours["score"] - theirs["score"]) <= bound, told


@pytest.mark.parametrize("name", record_search.TINY)
def test_random_searches(name, run_seed, probe, tmp_path):
    seed = (run_seed * 1000003 + tiny.spec_seed(name)) % 2**31
    print(f"seed {seed}")
    folder = tmp_path / "model"
    spec = tiny.SPECS[name]
    tiny.write_checkpoint(spec, seed, folder, spec.shard_size, torch.float32)
    model = reference.load_reference(folder)
    cases = record_search.random_cases(model, name, random.Random(seed), CASES_EACH,
                                       record_search.MIN_GAP)
    check(probe, folder, cases)


def test_random_guidance(run_seed, probe):
    path = ROOT / "tests" / "data" / "models" / "qwen2"
    cases = record_search.random_cases(
        reference.load_reference(path), "qwen2", random.Random(run_seed), CASES_EACH,
        record_search.MIN_GAP, make=record_search.random_guidance)
    check(probe, path, cases)


def test_default_model_searches(default_model, run_seed, probe):
    torch.set_num_threads(2)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        str(default_model.parent), gguf_file=default_model.name, dtype=torch.float32,
        attn_implementation="eager").eval()
    cases = record_search.random_cases(model, "default", random.Random(run_seed), DEFAULT_CASES,
                                       record_search.DEFAULT_MIN_GAP, max_new=8, max_beams=8)
    check(probe, default_model, cases)


def test_beam_sampling_draws_like_transformers(probe):
    """The first returned sequence of two-token beam samplings: a two-sample chi-square over the
    sequences that both find often. With fixed seeds the outcome is always the same."""
    path = ROOT / "tests" / "data" / "models" / "qwen3"
    model = reference.load_reference(path)
    prompt, config = [3, 4, 5], {"num_beams": 2, "max_new_tokens": 2, "do_sample": True,
                                 "top_k": 6, "temperature": 2.0}
    n_runs = 1500
    answer, = probe([{"model": str(path), "prompts": [prompt], "config": {**config, "seed": 1},
                      "runs": n_runs}])
    ours = collections.Counter(tuple(s["ids"]) for s in answer["sequences"])
    torch.manual_seed(1)
    model.generation_config.eos_token_id = None
    theirs = collections.Counter()
    ids = torch.tensor([prompt] * 100)
    for _ in range(n_runs // 100):
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0,
                                 **config)
        theirs.update(map(tuple, out[:, len(prompt):].tolist()))
    assert sum(ours.values()) == sum(theirs.values()) == n_runs
    often = [key for key in ours | theirs if ours[key] + theirs[key] >= 20]
    rest = [sum(n for key, n in counts.items() if key not in often) for counts in (ours, theirs)]
    pairs = [(ours[key], theirs[key]) for key in often] + ([tuple(rest)] if sum(rest) > 20 else [])
    statistic = sum((a - b) ** 2 / (a + b) for a, b in pairs)
    freedom = len(pairs) - 1
    assert freedom >= 3, "too few different sequences to say anything"
    # Chance of a worse one when both draw from the same distribution.
    p_value = float(torch.special.gammaincc(torch.tensor(freedom / 2.0, dtype=torch.float64),
                                            torch.tensor(statistic / 2.0, dtype=torch.float64)))
    assert p_value > 1e-6, (statistic, freedom, pairs)
