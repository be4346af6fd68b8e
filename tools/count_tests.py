#!/usr/bin/env python3
"""Counts the tests of a JUnit file, with the cases of each GoogleTest binary counted one by one.

usage: count_tests.py JUNIT_FILE [GTEST_XML_FOLDER]
Prints "passed failed skipped" on the first line and the failed tests below it, one a line.
A binary that ended badly without a failed case (a crash, a leak found at exit) is one failure.
exit code 0: counted (whatever the counts), 1: the file cannot be read
"""

import os
import sys
import xml.etree.ElementTree as ElementTree


def case_outcome(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def outcomes(path):
    """(name, outcome) of each test case in a JUnit or GoogleTest XML file."""
    found = []
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        for case in suite.findall("testcase"):
            name = case.get("name", "?")
            if case.get("classname") and case.get("classname") != name:
                name = f"{case.get('classname')}.{name}"
            outcome = case_outcome(case)
            # GoogleTest says "skipped" in an attribute.
            if outcome == "passed" and case.get("result") in ("skipped", "suppressed"):
                outcome = "skipped"
            found.append((name, outcome))
    return found


def count(junit_path, gtest_folder=None):
    """({"passed": n, "failed": n, "skipped": n}, [names of failed tests])"""
    totals = {"passed": 0, "failed": 0, "skipped": 0}
    failed = []

    def add(name, outcome):
        totals[outcome] += 1
        if outcome == "failed":
            failed.append(name)

    for name, outcome in outcomes(junit_path):
        cases = []
        inner = os.path.join(gtest_folder, f"{name}.xml") if gtest_folder else None
        if inner and os.path.exists(inner):
            try:
                cases = outcomes(inner)
            except ElementTree.ParseError:
                cases = []  # cut off by a crash: the binary itself counts
        for inner_name, inner_outcome in cases:
            add(f"{name}: {inner_name}", inner_outcome)
        if not cases or (outcome == "failed" and all(o != "failed" for _, o in cases)):
            add(name, outcome)
    return totals, failed


def main(argv):
    if len(argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 1
    try:
        totals, failed = count(*argv[1:])
    except (OSError, ElementTree.ParseError) as error:
        print(f"count_tests: {argv[1]}: {error}", file=sys.stderr)
        return 1
    print(totals["passed"], totals["failed"], totals["skipped"])
    for name in failed:
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
