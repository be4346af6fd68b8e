"""What the checks share: the list of the project's files, and C++ and Rust text without comments.

Nothing here prints. `Finding` is one broken rule at one line of one file.
"""

import os
import re
import subprocess
from typing import NamedTuple

SKIPPED_FOLDERS = {".git", "build", "target", "node_modules", "__pycache__", ".pytest_cache"}

# The folders of src/, lowest first. A folder uses only folders that stand before it.
SOURCE_FOLDERS = (
    "base", "trace", "tensor", "formats", "backend", "text", "state", "nn", "models", "sampling",
    "generate", "engine", "lab", "server",
)


class Finding(NamedTuple):
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message}"


def list_files(root):
    """Paths relative to root, sorted: what git tracks or would add; without git, every file."""
    if os.path.exists(os.path.join(root, ".git")):
        command = ["git", "-C", root, "ls-files", "-z", "--cached", "--others",
                   "--exclude-standard"]
        try:
            out = subprocess.run(command, capture_output=True, check=True).stdout
            names = {os.fsdecode(name) for name in out.split(b"\0") if name}
            return sorted(n for n in names if os.path.isfile(os.path.join(root, n)))
        except (OSError, subprocess.CalledProcessError):
            pass
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders
                      if f not in SKIPPED_FOLDERS and not f.startswith("build-")]
        found += [os.path.relpath(os.path.join(folder, f), root) for f in files]
    return sorted(found)


def read_text(root, path):
    """The file's text, or None when it is not UTF-8 text (a picture, a model)."""
    with open(os.path.join(root, path), "rb") as file:
        raw = file.read()
    if b"\0" in raw[:8192]:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


_CPP_TOKEN = re.compile(
    r"""(?P<line>//(?:\\\n|[^\n])*)
      | (?P<block>/\*.*?(?:\*/|\Z))
      | (?P<raw>(?:u8|[uUL])?R"(?P<tag>[^\s()\\]{0,16})\(.*?\)(?P=tag)")
      | (?P<string>"(?:\\.|[^"\\\n])*")
      | (?P<char>(?<![0-9A-Fa-f])'(?:\\.[^'\n]*|[^'\\\n])')
    """,
    re.VERBOSE | re.DOTALL)

_RUST_TOKEN = re.compile(
    r"""(?P<line>//[^\n]*)
      | (?P<block>/\*.*?(?:\*/|\Z))
      | (?P<raw>b?r(?P<tag>\#*)".*?"(?P=tag))
      | (?P<string>b?"(?:\\.|[^"\\])*")
      | (?P<char>b?'(?:\\(?:u\{[0-9A-Fa-f_]+\}|x[0-9A-Fa-f]{2}|.)|[^'\\\n])')
    """,
    re.VERBOSE | re.DOTALL)


class SplitText(NamedTuple):
    code: str       # comments and the inside of literals are blanks; line breaks stand as they were
    comments: list  # (line, text)
    strings: list   # (line, text between the quotes)


def split_text(text, language="cpp"):
    """Separates code, comments and string literals. Lines keep their numbers."""
    pattern = _RUST_TOKEN if language == "rust" else _CPP_TOKEN
    comments, strings, pieces = [], [], []
    last, line = 0, 1
    for match in pattern.finditer(text):
        line += text.count("\n", last, match.start())
        pieces.append(text[last:match.start()])
        token = match.group(0)
        if match.lastgroup in ("line", "block") or token.startswith(("//", "/*")):
            comments.append((line, token))
            pieces.append(_blank(token))
        else:
            quote = "'" if match.group("char") else '"'
            if quote == '"':
                inner = token[token.index('"') + 1:token.rindex('"')]
                strings.append((line, inner))
            pieces.append(quote + _blank(token[2:]) + quote)
        line += token.count("\n")
        last = match.end()
    pieces.append(text[last:])
    return SplitText("".join(pieces), comments, strings)


def _blank(token):
    return re.sub(r"[^\n]", " ", token)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def is_test_source(path):
    return path.endswith(("_test.cc", "_bench.cc")) or path.startswith(("tests/", "bench/"))


def report(name, findings, n_files, out):
    """Prints the findings, or one line that says what was checked. Returns the exit code."""
    for finding in findings:
        print(finding, file=out)
    if findings:
        print(f"{name}: {len(findings)} finding(s) in {n_files} files", file=out)
        return 1
    print(f"{name}: {n_files} files, nothing found", file=out)
    return 0
