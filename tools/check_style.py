#!/usr/bin/env python3
"""Checks the rules of the house style that a pattern can find.

src/ reads the environment, the clock and the terminal only through src/base; nobody throws, uses
new or delete, or writes a TODO without its issue; names, macros and comments are as agreed; no
committed text names a folder of one machine.

usage: check_style.py [ROOT]     exit code 0: clean, 1: findings
"""

import os
import re
import sys

import source_tree
from source_tree import Finding

# (path, rule) -> reason. A path that ends in "/" is a folder. Keep this list short.
EXCEPTIONS = {
    ("src/text/text_probe.cc", "base-only"): "a program for tests, not a part of the library",
    ("src/generate/search_probe.cc", "base-only"): "a program for tests, not a part of the library",
    ("tools/check_style.py", "todo"): "names the words that it looks for",
    ("tests/lab/test_checks.py", "todo"): "plants violations",
    ("tests/lab/test_checks.py", "machine-path"): "plants violations",
}

CPP_SUFFIXES = (".h", ".cc", ".cuh", ".cu", ".cpp", ".hpp")
SOURCE_SUFFIXES = CPP_SUFFIXES + (".py", ".rs", ".sh", ".ts", ".cmake", "CMakeLists.txt")

BANNED_FOLDERS = {"common", "util", "utils", "misc", "helper", "helpers"}
BANNED_TYPE = re.compile(
    r"\b(?:class|struct|union|enum(?:\s+class)?|using|concept)\s+(?:\[\[[^\]]*\]\]\s*)?"
    r"(?:GUARDED_BY\([^)]*\)\s*)?(?P<name>\w*[a-z0-9](?:Manager|Helper|Info|Data|Util|Utils))\b")

# Only src/base may: the environment, the terminal, the end of the process, the clock.
BASE_ONLY = (
    (re.compile(r"\b(?:std::)?(?:secure_)?(?:getenv|setenv|putenv)\s*\("), "the environment"),
    (re.compile(r"\bstd::(?:cout|cerr|clog)\b"), "the terminal"),
    (re.compile(r"(?<![\w.>:])(?:std::|fmt::)?(?:v?f?printf|puts|putchar|fputs|print|println)\s*\("),
     "the terminal"),
    (re.compile(r"(?<![\w.>:])(?:std::|::)?(?:exit|_exit|_Exit|quick_exit|abort|terminate)\s*\("),
     "the end of the process"),
    (re.compile(r"(?<![\w.>:])(?:std::|::)?(?:time|clock|clock_gettime|gettimeofday|localtime|"
                r"localtime_r|gmtime|gmtime_r)\s*\("), "the clock"),
    (re.compile(r"\b(?:system|steady|high_resolution)_clock\b"), "the clock"),
)

# The one use of new that is owned before anything else can happen: a constructor that is private.
OWNED_NEW = re.compile(r"(?:unique|shared)_ptr<[^;<>]*>\s*\w*\(\s*new\b|\.reset\(\s*new\b")

NO_SUCH_CODE = (
    ("throw", re.compile(r"\bthrow\b"), "our code does not throw, want fail(...)"),
    ("raw-new", re.compile(r"(?<!operator )\bnew\b"), "new, want make_unique or a container"),
    ("raw-new", re.compile(r"(?<!operator )(?<!= )(?<!=)\bdelete\b"), "delete, want an owner"),
    ("library", re.compile(r"#\s*include\s*<(?:format|expected)>"),
     "GCC 12 has no such header in C++20, want {fmt} and tl::expected"),
    ("library", re.compile(r"\bstd::views::|\bstd::ranges::views::"),
     "Clang 14 cannot compile std::views"),
    ("library", re.compile(r"\busing\s+namespace\s+std\b"), "using namespace std"),
)

# HWY_ONCE says which of the compilations of one file this is, not what the machine can do.
BACKEND_CONDITION = re.compile(
    r"^[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif)\b[^\n]*?"
    r"(?P<name>\b\w*(?:CUDA|AVX|SSE\d|NEON|HIP|METAL|VULKAN)\w*|\bHWY_(?!ONCE\b)\w+)",
    re.MULTILINE)

TODO = re.compile(r"\b(?P<word>TODO|FIXME|HACK|XXX)\b(?P<issue>\(#\d+\))?")
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(?P<name>\w+)", re.MULTILINE)
MACHINE_PATH = re.compile(r"(?<![\w.~$}])/(?:work|root|home/(?!user\b|you\b|me\b|name\b)[a-z]\w*)"
                          r"/[\w.]")
MAX_SCANNED_BYTES = 4 << 20


def is_excepted(path, rule):
    return any(rule == r and (path == p or (p.endswith("/") and path.startswith(p)))
               for p, r in EXCEPTIONS)


def each(pattern, text):
    for match in pattern.finditer(text):
        yield source_tree.line_of(text, match.start()), match


def _blank_new(match):
    return match.group(0)[:-3] + "   "


def check_cpp(path, text):
    split = source_tree.split_text(text)
    code = split.code
    in_src = path.startswith("src/")
    is_test = source_tree.is_test_source(path)
    # Includes of <new> and the like are not uses.
    plain = re.sub(r"#[ \t]*include[^\n]*", "", code)
    if in_src and not path.startswith("src/base/") and not is_test:
        for pattern, what in BASE_ONLY:
            for line, match in each(pattern, plain):
                yield "base-only", line, f"{match.group(0).strip()}: {what} belongs to src/base"
    for rule, pattern, message in NO_SUCH_CODE:
        searched = code if rule == "library" else OWNED_NEW.sub(_blank_new, plain)
        if not is_test or rule == "library":
            for line, _ in each(pattern, searched):
                yield rule, line, message
    if not path.startswith("src/backend/"):
        for line, match in each(BACKEND_CONDITION, code):
            yield "backend-ifdef", line, (f"condition on {match.group('name')}, which belongs in "
                                          "src/backend or CMake")
    for line, match in each(BANNED_TYPE, code):
        yield "type-name", line, (f"type {match.group('name')}: no ...Manager, ...Helper, "
                                  "...Info, ...Data, ...Util")
    if path.startswith("include/"):
        for line, match in each(MACRO, code):
            if not match.group("name").startswith("LOGITLAB_"):
                yield "macro", line, f"macro {match.group('name')}, want LOGITLAB_..."
    for line, comment in split.comments:
        for offset, character in enumerate(comment):
            if ord(character) > 126:
                yield ("ascii", line + comment.count("\n", 0, offset),
                       f"comment has {character!r}, want plain ASCII")
                break


def check_text(path, text):
    if path.endswith(SOURCE_SUFFIXES) or text.startswith("#!"):
        for line, match in each(TODO, text):
            if match.group("word") != "TODO" or not match.group("issue"):
                yield "todo", line, f"{match.group('word')} without its issue, want TODO(#12)"
    for line, match in each(MACHINE_PATH, text):
        yield "machine-path", line, f"{match.group(0)}...: a folder of one machine"


def check_file(path, text):
    found = list(check_text(path, text))
    if path.endswith(CPP_SUFFIXES):
        found += check_cpp(path, text)
    return [Finding(path, line, message) for rule, line, message in found
            if not is_excepted(path, rule)]


def check(root):
    findings, n_files, folders = [], 0, set()
    for path in source_tree.list_files(root):
        folder = os.path.dirname(path)
        banned = BANNED_FOLDERS.intersection(folder.split("/"))
        if banned and folder not in folders:
            findings.append(Finding(path, 1, f"folder {banned.pop()}/: name it by what it is for"))
        folders.add(folder)
        if os.path.getsize(os.path.join(root, path)) > MAX_SCANNED_BYTES:
            continue
        text = source_tree.read_text(root, path)
        if text is None:
            if path.endswith(SOURCE_SUFFIXES):
                findings.append(Finding(path, 1, "not UTF-8 text"))
            continue
        n_files += 1
        findings += check_file(path, text)
    return findings, n_files


def main(argv):
    root = argv[1] if len(argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    findings, n_files = check(root)
    return source_tree.report("style", findings, n_files, sys.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
