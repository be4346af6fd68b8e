"""Records what transformers' logits processors do to random rows of scores.

    python tools/oracle/record_processors.py          (in the oracle environment)

Writes tests/data/sampling/processors.json. A case holds what `logitlab process` would read, with its
row of logits named by [kind, size, seed] (processor_cases.py and the C++ test make the same bits from
it), and the outcome:

    refused       transformers raises; nothing else is there
    processors    names, in the order of the chain; survivors: scores above -inf after each
    kept          a bit per id, lowest bit of the first byte first, as hex; for more than 256 ids
                  the CRC-32 of those bytes
    crc32         of the processed float32 row, little endian; only where no exponential or
                  logarithm is in the scores, so that the same bits are due
    scores        [id, score] of a few survivors; tolerance: what their difference may be besides a
                  relative 1e-6
    max_length, min_tokens_to_keep, is_beam   what generate() gives to the chain

Cases without one right answer are left out and counted (processor_reference.py says which).
"""

import collections
import json
import pathlib
import random
import zlib

import numpy
import torch
import transformers

import processor_cases
from processor_reference import LeftOut, Refused, reference

TARGET = pathlib.Path(__file__).resolve().parents[2] / "tests" / "data" / "sampling"
SEED = "recorded"
# How many cases of which vocabularies.
GROUPS = ((2000, (8, 9, 13, 16, 17, 33, 50, 64, 100, 101, 128, 257)), (160, (500, 1000, 2000)),
          (60, (50257, 150000)))
LISTED_SCORES = 5


def kept_bits(scores):
    kept = ~numpy.isneginf(scores)
    return numpy.packbits(kept, bitorder="little").tobytes()


def outcome_json(outcome, rng):
    bits = kept_bits(outcome.scores)
    survivors = numpy.flatnonzero(~numpy.isneginf(outcome.scores))
    chosen = sorted(rng.sample(list(survivors), min(len(survivors), LISTED_SCORES)))
    chosen = [i for i in chosen if numpy.isfinite(outcome.scores[i])]
    document = {
        "processors": outcome.names,
        "survivors": outcome.survivors,
        "kept": bits.hex() if len(outcome.scores) <= 256 else zlib.crc32(bits),
        "max_length": outcome.max_length,
    }
    if outcome.min_tokens_to_keep > 1:
        document["min_tokens_to_keep"] = outcome.min_tokens_to_keep
        document["is_beam"] = outcome.is_beam
    if outcome.is_exact and not numpy.isnan(outcome.scores).any():
        document["crc32"] = zlib.crc32(outcome.scores.astype("<f4").tobytes())
    else:
        document["scores"] = [[int(i), float(str(outcome.scores[i]))] for i in chosen]
        document["tolerance"] = float(f"{outcome.absolute_tolerance:.3g}")
    return document


def main():
    torch.set_num_threads(1)
    cases, left_out = [], collections.Counter()
    rng = random.Random(SEED)
    for wanted, sizes in GROUPS:
        for case in processor_cases.make_cases(f"{SEED} {sizes[0]}", 2 * wanted, sizes):
            if wanted == 0:
                break
            outcome = reference(case)
            if isinstance(outcome, LeftOut):
                left_out[f"{outcome.reason} {outcome.processor}"] += 1
                continue
            wanted -= 1
            result = {"refused": True} if isinstance(outcome, Refused) else outcome_json(outcome, rng)
            cases.append({**{key: value for key, value in case.items() if key != "about"}, **result})
    TARGET.mkdir(parents=True, exist_ok=True)
    head = {"versions": {"transformers": transformers.__version__, "torch": torch.__version__},
            "left_out": dict(left_out)}
    path = TARGET / "processors.json"
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path.write_text(json.dumps(head, separators=(",", ":"))[:-1] + f',"cases":[\n{lines}\n]}}\n')
    print(f"{path.name}: {len(cases)} cases, {sum(case.get('refused', False) for case in cases)} refused, "
          f"{sum(left_out.values())} left out, {path.stat().st_size} bytes")
    for reason, count in left_out.most_common():
        print(f"  left out: {reason} {count}")


if __name__ == "__main__":
    main()
