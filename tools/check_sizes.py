#!/usr/bin/env python3
"""Checks that sources stay short: .cc and scripts 800 lines, headers 300, functions 80.

A function's lines are counted from the line of its opening brace to the line of its closing brace
(Python: from `def` to the last line of its body).

usage: check_sizes.py [ROOT]     exit code 0: clean, 1: findings
"""

import ast
import os
import re
import sys

import source_tree
from source_tree import Finding

MAX_FUNCTION_LINES = 80
MAX_FILE_LINES = {
    ".cc": 800, ".cu": 800, ".cpp": 800, ".py": 800, ".ts": 800, ".rs": 800, ".sh": 800,
    ".h": 300, ".cuh": 300, ".hpp": 300,
}
MAX_SCRIPT_LINES = 800  # a script without a suffix, known by its first line
# Generated files, with the program that makes them.
GENERATED = {}
# Functions that are one list, with the reason why it is not cut.
LISTS = {("src/sampling/generation_fields.cc", "make_fields"): "the field table of the settings"}

_CONTROL = re.compile(r"^(?:\}?\s*else\s+)?(?:if|for|while|switch|catch|do|else|try|return)\b")
_CONTAINER = re.compile(r"^(?:template\b.*>\s*)?(?:inline\s+)?"
                        r"(?:namespace|class|struct|union|enum|extern)\b")
_INIT_LIST = re.compile(r"\)[^;{}]*?(?<!:):(?!:)[^;{}]*[\w>]\s*$", re.DOTALL)
_FUNCTION_TAIL = re.compile(
    r"\)\s*(?:const|noexcept(?:\s*\([^()]*\))?|override|final|mutable|&{1,2}|->[^{};]*|"
    r"requires[^{};]*|:(?!:)[^;{}]*[)}]|[A-Z_]+(?:\([^()]*\))?|\s)*$", re.DOTALL)


def matching_brace(code, start):
    """The offset of the brace that closes the one at `start`, or the end of the text."""
    depth = 0
    for match in re.finditer(r"[{}]", code[start:]):
        depth += 1 if match.group(0) == "{" else -1
        if depth == 0:
            return start + match.start()
    return len(code) - 1


def without_preprocessor(code):
    """Blanks preprocessor lines, and the #else branches, whose braces would be counted twice."""
    lines, skipping, continued = [], 0, False
    for line in code.split("\n"):
        stripped = line.strip()
        is_directive = continued or stripped.startswith("#")
        if stripped.startswith("#") and not continued:
            word = re.match(r"#\s*(\w*)", stripped).group(1)
            if word in ("else", "elif") and not skipping:
                skipping = 1
            elif skipping and word in ("if", "ifdef", "ifndef"):
                skipping += 1
            elif skipping and word == "endif":
                skipping -= 1
        continued = is_directive and stripped.endswith("\\")
        lines.append("" if is_directive or skipping else line)
    return "\n".join(lines)


def cpp_functions(text):
    """(name, first line, number of lines) of every function body in C++ text."""
    code = without_preprocessor(source_tree.split_text(text).code)
    found, position, head = [], 0, 0
    for_scan = re.compile(r"[{};]")
    while True:
        match = for_scan.search(code, position)
        if not match:
            return found
        position = match.end()
        if match.group(0) != "{":
            head = position
            continue
        header = re.sub(r"\s+", " ", code[head:match.start()]).strip()
        header = re.sub(r"^(?:(?:public|private|protected)\s*:\s*)+", "", header)
        if _is_init_list_brace(header):
            position = matching_brace(code, match.start()) + 1
            continue
        if _is_function(header):
            end = matching_brace(code, match.start())
            first, last = (source_tree.line_of(code, o) for o in (match.start(), end))
            found.append((_function_name(header), first, last - first + 1))
            position = head = end + 1
        elif _CONTAINER.match(header) and not header.endswith(("=", ")")):
            head = position
        else:
            position = matching_brace(code, match.start()) + 1


def _is_init_list_brace(header):
    """Whether the brace starts `a_{1}` in a constructor's list rather than the body."""
    if not _INIT_LIST.search(header) or _CONTAINER.match(header):
        return False
    tail = header[header.rindex(")") + 1:] if header.count(")") else ""
    words = re.findall(r"[A-Za-z_]\w*", tail)
    return not words or words[-1] not in ("const", "noexcept", "override", "final", "mutable")


def _is_function(header):
    if "(" not in header or _CONTROL.match(header) or header.endswith(("=", ",", "(")):
        return False
    if re.search(r"=\s*(?:\w+\s*)?$", header):
        return False
    return bool(_FUNCTION_TAIL.search(header)) or re.search(r"\)\s*->[^{}]*$", header) is not None


def _function_name(header):
    names = re.findall(r"([~\w:]+|operator\s*[^\s\w(]+)\s*\(([^,()]*(?:,[^,()]*)?)", header)
    if not names:
        return header[:40]
    name, arguments = names[0]
    return f"{name}({arguments})" if name.startswith("TEST") else name


def rust_functions(text):
    code = source_tree.split_text(text, "rust").code
    found = []
    for match in re.finditer(r"\bfn\s+(\w+)", code):
        brace = re.compile(r"[{;]").search(code, match.end())
        if not brace or brace.group(0) == ";":
            continue
        end = matching_brace(code, brace.start())
        first, last = (source_tree.line_of(code, o) for o in (brace.start(), end))
        found.append((match.group(1), first, last - first + 1))
    return found


def python_functions(text):
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append((node.name, node.lineno, node.end_lineno - node.lineno + 1))
    return found


def shell_functions(text):
    found, name, first = [], None, 0
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r"(?:function\s+)?([\w-]+)\s*\(\)\s*[{(]\s*$", line)
        if match:
            name, first = match.group(1), number
        elif name and line[:1] in ("}", ")"):
            found.append((name, first, number - first + 1))
            name = None
    return found


def functions_of(path, text, is_shell):
    suffix = os.path.splitext(path)[1]
    if suffix in (".cc", ".cu", ".cpp", ".h", ".cuh", ".hpp"):
        return cpp_functions(text)
    if suffix == ".rs":
        return rust_functions(text)
    if suffix == ".py":
        return python_functions(text)
    return shell_functions(text) if is_shell else []


def check_file(path, text):
    """Findings of one file, or None when it is no source."""
    suffix = os.path.splitext(path)[1]
    is_shell = suffix == ".sh" or re.match(r"#!.*\b(?:ba)?sh\b", text) is not None
    limit = MAX_FILE_LINES.get(suffix)
    if path.endswith("-inl.h"):  # holds bodies for one instruction set, no contracts
        limit = MAX_FILE_LINES[".cc"]
    if limit is None and not suffix and text.startswith("#!"):
        limit = MAX_SCRIPT_LINES
    if limit is None:
        return None
    findings = []
    n_lines = text.count("\n") + (0 if text.endswith("\n") or not text else 1)
    if n_lines > limit:
        findings.append(Finding(path, limit + 1, f"{n_lines} lines, want at most {limit}"))
    try:
        functions = functions_of(path, text, is_shell)
    except SyntaxError as error:
        return findings + [Finding(path, error.lineno or 1, f"not Python: {error.msg}")]
    for name, line, length in functions:
        if length > MAX_FUNCTION_LINES and (path, name) not in LISTS:
            findings.append(Finding(path, line, f"{name}: {length} lines, "
                                                f"want at most {MAX_FUNCTION_LINES}"))
    return findings


def check(root):
    findings, n_files = [], 0
    for path in source_tree.list_files(root):
        if path in GENERATED:
            continue
        text = source_tree.read_text(root, path)
        of_file = None if text is None else check_file(path, text)
        if of_file is not None:
            n_files += 1
            findings += of_file
    return findings, n_files


def main(argv):
    root = argv[1] if len(argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    findings, n_files = check(root)
    return source_tree.report("sizes", findings, n_files, sys.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
