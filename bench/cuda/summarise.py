#!/usr/bin/env python3
"""Closes a run of run.sh: puts device and commit into every JSON of its folder, prints the table of
steps and the table of figures, and writes both to summary.json. Exit code 1: a step went wrong."""

import argparse
import json
import pathlib
import re
import sys

# The last line that says how a step's program sees itself.
VERDICTS = re.compile(r"ERROR SUMMARY|RACECHECK SUMMARY|^\d+ failures$|^not run|"
                      r"\[  (PASSED  |FAILED  |SKIPPED )\]")


def read_json(path):
    """The document, or None for a file that is not there or not whole."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def origin(folder):
    """What ran: (text about the device, commit of the build)."""
    device, commit = "not known", "not known"
    document = read_json(folder / "doctor.json")
    for finding in document.get("findings", []) if isinstance(document, dict) else []:
        if finding["group"] == "gpu":
            device = " ".join(finding["found"].split())
        if finding["name"] == "logitlab" and finding["group"] == "build":
            commit = finding["values"]["commit"]
    return device, commit


def stamp(folder, device, commit):
    """Documents by name, with device and commit at their end; names of files that hold none."""
    documents, unreadable = {}, []
    for path in sorted(folder.glob("*.json")):
        document = read_json(path)
        if path.name == "summary.json":
            continue
        if not isinstance(document, dict):
            unreadable.append(path.stem)
            continue
        documents[path.stem] = {**document, "gpu": device, "commit": commit}
        path.write_text(json.dumps(documents[path.stem], indent=1) + "\n")
    return documents, unreadable


def verdict_of(path, has_passed):
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    said = [line.strip("= ") for line in lines if VERDICTS.search(line)]
    if not said and not has_passed:
        said = [line.strip() for line in lines if line.strip()]
    return said[-1][:100] if said else ""


def read_steps(folder):
    """In the order in which they ended."""
    steps = []
    for path in (folder / ".steps").iterdir():
        try:
            *numbers, ended = path.read_text().split()
            status, seconds, limit = map(int, numbers)
        except ValueError:  # stopped while it was written
            status, seconds, limit, ended = 1, 0, 1, 0
        result = {0: "passed", 124: "time over", 137: "time over"}.get(status, "failed")
        steps.append({"step": path.name, "result": result if limit else "not run",
                      "exit_code": status, "seconds": seconds, "limit_seconds": limit,
                      "ended": float(ended),
                      "says": verdict_of(folder / f"{path.name}.txt", status == 0)})
    return sorted(steps, key=lambda step: step["ended"])


def median(values):
    values = sorted(values)
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def figures_of(name, document):
    """Rows for the table from one document of `logitlab bench`: a decode step, and the prompt. A
    prompt of some hundred tokens reads the weights of nearly all experts: all weights count."""
    rate = document["read_bandwidth_bytes_per_second"]

    def row(what, tokens, seconds, moved):
        return {"figure": what, "tokens": tokens, "seconds": seconds, "bytes": moved,
                "tokens_per_second": tokens / seconds, "read_rate": rate,
                "share_of_read_rate": moved / seconds / rate}

    rows = []
    prompt, batch = document["prompt_tokens"], document["batch"]
    if name.startswith("decode"):
        rows.append(row(f"decode, batch {batch}, context {prompt}", batch,
                        median(document["decode_step_seconds"]), document["step_bytes"]))
    if name.startswith("prefill"):
        rows.append(row(f"prefill {prompt}", prompt, median(document["prefill_seconds"]),
                        document["device_memory"]["weight_bytes"]))
    return rows


def print_tables(steps, figures, repeat):
    print(f"\n{'step':<28} {'result':<10} {'seconds':>7}  says")
    for step in steps:
        print(f"{step['step']:<28} {step['result']:<10} {step['seconds']:>7}  {step['says']}")
    if figures:
        print(f"\n{'figure':<34} {'tokens/s':>10} {'seconds':>10} {'GB':>8} {'TB/s read':>9} "
              f"{'share':>6}")
    for row in figures:
        print(f"{row['figure']:<34} {row['tokens_per_second']:>10.1f} {row['seconds']:>10.6f} "
              f"{row['bytes'] / 1e9:>8.2f} {row['read_rate'] / 1e12:>9.3f} "
              f"{row['share_of_read_rate']:>6.2f}")
    for run in (repeat or {}).get("runs", []):
        print(f"{run['steps']} steps of {run['batch']}, twice: "
              f"{'the same bits' if run['same_bits'] else 'OTHER BITS'}; the first sequence "
              f"{'as alone' if run['first_as_alone'] else 'NOT AS ALONE'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=0, help="of the whole run")
    options = parser.parse_args()
    if not (options.folder / ".steps").is_dir():
        parser.error(f"{options.folder} holds no results of run.sh")
    device, commit = origin(options.folder)
    documents, unreadable = stamp(options.folder, device, commit)
    steps = read_steps(options.folder)
    passed = {step["step"] for step in steps if step["result"] == "passed"}
    figures = []
    broken = [f"{name}.json: no JSON document" for name in unreadable if name in passed]
    for name, document in documents.items():
        if name.startswith(("decode-", "prefill-")) and name in passed:
            try:
                figures += figures_of(name, document)
            except (IndexError, KeyError, TypeError, ZeroDivisionError) as error:
                broken.append(f"{name}.json: {error!r}")
    figures.sort(key=lambda row: (row["figure"].split()[0], row["tokens"], row["figure"]))
    print(f"\n{device}\ncommit {commit}")
    print_tables(steps, figures, documents.get("repeat"))
    for line in broken:
        print(line)
    n_failed = sum(step["result"] != "passed" for step in steps) + len(broken)
    print(f"\n{len(steps)} steps, {n_failed} failed, {options.seconds} s")
    summary = {"gpu": device, "commit": commit, "seconds": options.seconds, "failed": n_failed,
               "steps": steps, "figures": figures,
               "repeat": (documents.get("repeat") or {}).get("runs"),
               "transformers": (documents.get("transformers") or {}).get("verdict")}
    (options.folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    return 0 if steps and n_failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
