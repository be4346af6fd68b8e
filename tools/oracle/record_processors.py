"""Records what transformers' logits processors do to random rows of scores.

    python tools/oracle/record_processors.py          (in the oracle environment)

Writes tests/data/sampling/processors.json: rows of logits, and for every row the outcome of many
settings. The chain is the one that generate() builds, in its order. An outcome holds the names of
the processors, the kept tokens (a bit per id, lowest bit of the first byte first, as hex) and the
CRC-32 of the processed float32 row, little endian.

Left out are cases that have no one right answer: a group of equal scores cut by top_p (torch's order
within it is arbitrary), and sums or probabilities within float32 rounding of their threshold (there
torch itself differs between instruction sets).
"""

import json
import math
import pathlib
import random
import types
import zlib

import torch
import transformers
from transformers.generation import logits_process
from transformers.generation.utils import GenerationMixin

TARGET = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "sampling"
PROMPT_LENGTH = 3
SUM_MARGIN = 1e-6
SHARE_MARGIN = 1e-5


class Chain:
    """The processors of generate() for one setting, without a model."""

    def __init__(self, setting):
        config = transformers.GenerationConfig(
            **{key: setting.get(key) for key in
               ("do_sample", "temperature", "top_k", "top_p", "min_p", "min_new_tokens")},
            num_beams=2 if setting["min_tokens_to_keep"] > 1 else 1)
        config._eos_token_tensor = torch.tensor(setting["eos_token_id"])
        model = types.SimpleNamespace(
            config=types.SimpleNamespace(is_encoder_decoder=False),
            _merge_criteria_processor_list=lambda default, custom: default)
        self.processors = GenerationMixin._get_logits_processor(
            model, config, input_ids_seq_length=PROMPT_LENGTH, device="cpu")

    def run(self, row, generated):
        """The processed scores, or None when the case has no one right answer."""
        ids = torch.zeros((1, PROMPT_LENGTH + generated), dtype=torch.long)
        scores = row[None, :]
        for processor in self.processors:
            before = scores
            scores = processor(ids, before)
            if is_borderline(processor, before[0], scores[0]):
                return None
        return scores[0]

    def names(self):
        known = {
            logits_process.MinNewTokensLengthLogitsProcessor: "min_new_tokens",
            logits_process.TemperatureLogitsWarper: "temperature",
            logits_process.TopKLogitsWarper: "top_k",
            logits_process.TopPLogitsWarper: "top_p",
            logits_process.MinPLogitsWarper: "min_p",
        }
        return [known[type(processor)] for processor in self.processors]


def is_borderline(processor, before, after):
    if isinstance(processor, logits_process.TopPLogitsWarper):
        sums = before.sort().values.softmax(-1).double().cumsum(-1)
        if bool(((sums - (1 - processor.top_p)).abs() < SUM_MARGIN).any()) and processor.top_p > 0:
            return True
        kept, gone = before[~after.isneginf()], before[after.isneginf() & ~before.isneginf()]
        return bool(torch.isin(gone, kept).any())
    if isinstance(processor, logits_process.MinPLogitsWarper):
        probabilities = before.softmax(-1).double()
        bound = processor.min_p * probabilities.max()
        gap = (probabilities - bound).abs()
        if bool(((gap > 0) & (gap < SHARE_MARGIN * bound)).any()):
            return True
        # Which of several equal tokens min_tokens_to_keep restores is arbitrary.
        kept, gone = before[~after.isneginf()], before[after.isneginf() & ~before.isneginf()]
        return bool(torch.isin(gone, kept).any())
    return False


def make_row(rng, size, kind):
    if kind == "peaked":
        values = [rng.gauss(0, 4) for _ in range(size)]
    elif kind == "flat":
        values = [rng.gauss(0, 0.1) for _ in range(size)]
    elif kind == "tied":
        values = [rng.randrange(-8, 9) / 4 for _ in range(size)]
    elif kind == "tied_at_top":
        values = [min(rng.gauss(0, 2), 3.0) for _ in range(size)]
    elif kind == "holes":
        values = [rng.gauss(0, 3) if rng.random() < 0.5 else -math.inf for _ in range(size)]
        values[rng.randrange(size)] = 1.0
    else:
        raise ValueError(kind)
    return [value if math.isinf(value) else round(value, 3) for value in values]


def make_setting(rng):
    def maybe(values, chance=0.5):
        return rng.choice(values) if rng.random() < chance else None

    setting = {
        "do_sample": rng.random() < 0.95,
        "temperature": maybe([0.1, 0.25, 0.6, 0.7, 1.0, 1.3, 2.0, 7.5]),
        "top_k": maybe([1, 2, 3, 5, 20, 50, 200, 5000]),
        "top_p": maybe([0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 0.95, 0.999, 1.0, 1.5]),
        "min_p": maybe([0.0, 0.01, 0.05, 0.1, 0.5, 1.0], 0.35),
        "min_new_tokens": maybe([1, 4], 0.2),
        "eos_token_id": rng.choice([[0], [2, 5]]),
        "generated": rng.choice([0, 2, 4]),
    }
    is_beam = rng.random() < 0.15
    setting["min_tokens_to_keep"] = len(setting["eos_token_id"]) + 1 if is_beam else 1
    return setting


def kept_bits(scores):
    bits = bytearray((len(scores) + 7) // 8)
    for i, score in enumerate(scores.tolist()):
        if score != -math.inf:
            bits[i // 8] |= 1 << (i % 8)
    return bits.hex()


def main():
    rng = random.Random(20)
    sizes = [7, 8, 13, 16, 17, 33, 50, 64, 100, 257, 500, 1000, 2000]
    rows, left_out = [], 0
    for size in sizes:
        for kind in ("peaked", "flat", "tied", "tied_at_top", "holes"):
            values = make_row(rng, size, kind)
            row = torch.tensor(values, dtype=torch.float32)
            cases = []
            while len(cases) < 16:
                setting = make_setting(rng)
                chain = Chain(setting)
                scores = chain.run(row, setting["generated"])
                if scores is None:
                    left_out += 1
                    continue
                cases.append({
                    "setting": {k: v for k, v in setting.items() if v is not None},
                    "processors": chain.names(),
                    "kept": kept_bits(scores),
                    "crc32": zlib.crc32(scores.numpy().astype("<f4").tobytes()),
                })
            rows.append({
                "name": f"{kind}_{size}",
                # null is -inf.
                "logits": [None if math.isinf(v) else v for v in values],
                "cases": cases,
            })
    TARGET.mkdir(parents=True, exist_ok=True)
    document = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "prompt_length": PROMPT_LENGTH,
        "left_out": left_out,
        "rows": rows,
    }
    path = TARGET / "processors.json"
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n")
    print(f"{path.name}: {sum(len(r['cases']) for r in rows)} cases, {left_out} left out, "
          f"{path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
