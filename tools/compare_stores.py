#!/usr/bin/env python3
"""Compares two stores: the same studies with the same runs, tokens, traces and hashes.

What a way of running may change is left out: ids of rows (runs are numbered as they end), times,
memory, what went through the model, and the times that the study of the cache measures.

usage: compare_stores.py A.db B.db     exit code 0: equal, 1: a difference, which is named
"""

import json
import sqlite3
import sys

STUDY_COLUMNS = ("name", "source", "overrides", "status", "model", "model_hash", "device", "isa",
                 "build", "prompt_tokens_asked", "new_tokens_asked", "extras")
RUN_COLUMNS = ("run_index", "prompt_name", "setting_name", "repetition", "seed", "is_control",
               "config", "execution", "prompt_ids", "ids", "text", "stop_reason", "stop_id",
               "thinking_tokens", "answer_tokens", "hash", "trace_bytes", "zstd")


def untimed(extras):
    """The exact trees stay, the seconds of the cache do not."""
    found = json.loads(extras) if extras else {}
    cache = found.get("cache")
    if cache:
        found["cache"] = {name: value for name, value in cache.items() if "seconds" not in name}
    return found


def studies_of(connection):
    rows = connection.execute(f"SELECT id, {', '.join(STUDY_COLUMNS)} FROM study ORDER BY id")
    return [(row[0], {**dict(zip(STUDY_COLUMNS, row[1:])), "extras": untimed(row[-1])})
            for row in rows]


def runs_of(connection, study):
    return connection.execute(
        f"SELECT {', '.join(RUN_COLUMNS)} FROM run LEFT JOIN trace ON trace.run = run.id "
        "WHERE study = ? ORDER BY run_index", (study,))


def first_difference(a, b, columns):
    return next((name for name, x, y in zip(columns, a, b) if x != y), None)


def compare(first, second):
    """The number of studies and of runs; ValueError names the first difference."""
    a, b = studies_of(first), studies_of(second)
    if len(a) != len(b):
        raise ValueError(f"{len(a)} studies and {len(b)}")
    n_runs = 0
    for (first_id, one), (second_id, other) in zip(a, b):
        for name in STUDY_COLUMNS:
            if one[name] != other[name]:
                raise ValueError(f"study {one['name']}: {name} differs")
        runs = list(runs_of(first, first_id)), list(runs_of(second, second_id))
        if len(runs[0]) != len(runs[1]):
            raise ValueError(f"study {one['name']}: {len(runs[0])} runs and {len(runs[1])}")
        for mine, its in zip(*runs):
            name = first_difference(mine, its, RUN_COLUMNS)
            if name:
                raise ValueError(f"study {one['name']}, run {mine[0]} ({mine[2]}): {name} differs")
        n_runs += len(runs[0])
    return len(a), n_runs


def main(arguments):
    if len(arguments) != 2:
        print(__doc__.strip().splitlines()[-1], file=sys.stderr)
        return 2
    first, second = (sqlite3.connect(f"file:{path}?mode=ro", uri=True) for path in arguments)
    try:
        n_studies, n_runs = compare(first, second)
    except ValueError as difference:
        print(difference)
        return 1
    finally:
        first.close()
        second.close()
    print(f"{n_runs} runs of {n_studies} studies: tokens, texts, settings, hashes and traces are "
          "the same")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
