#!/usr/bin/env python3
"""Checks that every folder uses only the folders below it.

Looks at the #include lines of C++ sources and at DEPS of logitlab_library() in CMakeLists.txt, and
checks that the name of a model architecture stands only in its own file and in the registry.

usage: check_layers.py [ROOT]     exit code 0: clean, 1: findings
"""

import os
import re
import sys

import source_tree
from source_tree import SOURCE_FOLDERS, Finding

_MODELS_USES = ("base", "trace", "tensor", "formats", "backend", "state", "nn")
_GENERATE_USES = _MODELS_USES + ("models", "sampling", "text")
_ENGINE_USES = _GENERATE_USES + ("generate",)

# What each folder of src/ may include, besides itself and include/logitlab.
ALLOWED = {
    "base": (),
    "trace": ("base",),
    "tensor": ("base",),
    "formats": ("base", "tensor"),
    "backend": ("base", "trace", "tensor"),
    "text": ("base", "formats"),
    "state": ("base", "tensor", "backend"),
    "nn": ("base", "tensor", "backend", "state"),
    "models": _MODELS_USES,
    "sampling": ("base", "tensor", "trace", "text"),
    "generate": _GENERATE_USES,
    "engine": _ENGINE_USES,
    "lab": _ENGINE_USES + ("engine",),
    "server": ("base", "engine", "lab"),
}

# Headers that do not live in src/ or include/, and who may include them: the C ABI of the Rust
# crate, Highway (whose own documentation has them in quotes), what the build writes.
FOREIGN_HEADERS = (
    (re.compile(r"logitlab_text\.h"), ("text",)),
    (re.compile(r"hwy/[\w./-]+"), ("backend", "sampling")),
    (re.compile(r"build_commit\.h"), ("apps",)),
)

# Families of models. Words of layers (Mamba-2, a mixture of experts) belong to src/nn and below.
ARCHITECTURE_NAME = re.compile(
    r"(?<![a-z])(llama|mistral|qwen|smollm|gemma|phi3|mixtral|deepseek|nemotron|zamba|jamba)",
    re.IGNORECASE)

# Where such a name may stand, with the reason. A path that ends in "/" is a folder.
ARCHITECTURE_HOMES = (
    ("src/models/arch/", "an architecture's own file"),
    ("src/models/registry.cc", "the one line of the registry"),
    ("src/models/CMakeLists.txt", "the list of files"),
    ("src/nn/rope.cc", "llama3 is a value of rope_scaling.rope_type in config.json"),
    ("src/text/", "names of GGUF tokenizer models and pre-tokenizers, which are file format words"),
    ("src/sampling/engine_semantics.cc", "the rules of llama.cpp, which is another program"),
)
# Words that hold such a name and mean something else: another program, a file name, a hub id.
OTHER_MEANINGS = re.compile(
    r"llama\.cpp|llama[-_]?cpp|[\w.-]+/[\w.-]+|[\w.-]+\.gguf|SmolLM2-[\w.-]+", re.IGNORECASE)

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?P<open>["<])(?P<name>[^">\n]+)[">]',
                      re.MULTILINE)
_CPP_SUFFIXES = (".h", ".cc", ".cuh", ".cu", ".cpp", ".hpp")
_LIBRARY = re.compile(r"\blogitlab_library\s*\((?P<body>[^)]*)\)", re.DOTALL)
_KEYWORDS = {"NAME", "DEPS", "SRCS", "TESTS", "LIBS", "TEST_LIBS"}


def owner_of(path):
    """The layer that a file belongs to: a folder of src/, "include", "apps", or None (anything)."""
    parts = path.split("/")
    if parts[0] == "src" and len(parts) > 2:
        return parts[1]
    if parts[0] in ("include", "apps"):
        return parts[0]
    return None


def check_include(root, path, line, name, is_angled):
    owner = owner_of(path)
    first = name.split("/")[0]
    if is_angled:
        if first in SOURCE_FOLDERS and os.path.exists(os.path.join(root, "src", name)):
            yield Finding(path, line, f'<{name}> is a file of this project, want "{name}"')
        return
    for pattern, homes in FOREIGN_HEADERS:
        if pattern.fullmatch(name):
            if owner is not None and owner not in homes:
                yield Finding(path, line, f'"{name}" is for {", ".join(homes)} only')
            return
    if first == "logitlab" and os.path.exists(os.path.join(root, "include", name)):
        return
    if first not in SOURCE_FOLDERS or "/" not in name:
        # Outside src/ a folder is one program: its files know each other by their plain names.
        if path.startswith(("apps/", "tests/", "bench/")) and os.path.exists(
                os.path.join(root, os.path.dirname(path), name)):
            return
        yield Finding(path, line, f'"{name}": want the path from src/, as in "state/kv_cache.h", '
                                  'or "logitlab/x.h"')
        return
    if not os.path.exists(os.path.join(root, "src", name)):
        yield Finding(path, line, f'"{name}" is not in src/')
    yield from check_edge(path, line, owner, name)


def check_edge(path, line, owner, name):
    target = name.split("/")[0]
    if target == "backend" and name.count("/") > 1 and owner not in ("backend", None):
        yield Finding(path, line, f'"{name}" is private to src/backend, want "backend/x.h"')
    if owner == "include":
        yield Finding(path, line, f'"{name}": include/ uses the standard library only')
    elif owner in ALLOWED and target != owner and target not in ALLOWED[owner]:
        yield Finding(path, line, f'src/{owner} includes "{name}", may use: '
                                  f'{" ".join(ALLOWED[owner]) or "include"}')


def check_cmake(path, text):
    """DEPS of each library, and that its NAME is its folder's."""
    folder = os.path.dirname(path).removeprefix("src/")
    text = re.sub(r"#[^\n]*", lambda m: " " * len(m.group(0)), text)
    for match in _LIBRARY.finditer(text):
        line = source_tree.line_of(text, match.start())
        values, key = {}, None
        for word in match.group("body").split():
            if word in _KEYWORDS:
                key = word
            else:
                values.setdefault(key, []).append(word)
        name = " ".join(values.get("NAME", []))
        owner = folder.split("/")[0]
        if owner not in ALLOWED:
            yield Finding(path, line, f"folder src/{folder} is not in the table of layers")
            continue
        if name.split("_")[0] != owner:
            yield Finding(path, line, f"library {name} in src/{folder}, want {owner}")
        for dep in values.get("DEPS", []):
            if dep.split("_")[0] != owner and dep not in ALLOWED[owner]:
                yield Finding(path, line, f"library {name} has DEPS {dep}, may use: "
                                          f"{' '.join(ALLOWED[owner]) or 'nothing'}")


def check_architecture_names(path, split):
    if source_tree.is_test_source(path) or not path.startswith(("src/", "include/", "apps/")):
        return
    if any(path == home or (home.endswith("/") and path.startswith(home))
           for home, _ in ARCHITECTURE_HOMES):
        return
    for line, text in split.strings:
        match = ARCHITECTURE_NAME.search(OTHER_MEANINGS.sub(" ", text))
        if match:
            yield Finding(path, line, f'"{text}" names an architecture, which belongs in '
                                      "src/models/arch/ and src/models/registry.cc")
    code = re.sub(r"^[ \t]*#[ \t]*include[^\n]*", "", split.code, flags=re.MULTILINE)
    for match in re.finditer(r"\b[A-Za-z_]\w*", code):
        name = re.search(r"(?:^|_|k|[a-z])(Llama|Mistral|Qwen|SmolLM|Nemotron)|"
                         r"(?:^|_)(llama|mistral|qwen\d?|smollm\d?|nemotron)(?:_|$)",
                         OTHER_MEANINGS.sub(" ", match.group(0)))
        if name:
            yield Finding(path, source_tree.line_of(code, match.start()),
                          f"{match.group(0)} names an architecture, which belongs in "
                          "src/models/arch/ and src/models/registry.cc")


def check(root):
    """All findings of the tree, and the number of files looked at."""
    findings, n_files = [], 0
    for path in source_tree.list_files(root):
        parts = path.split("/")
        is_cmake = parts[-1] == "CMakeLists.txt" and parts[0] == "src"
        if not is_cmake and not path.endswith(_CPP_SUFFIXES):
            continue
        text = source_tree.read_text(root, path)
        if text is None:
            findings.append(Finding(path, 1, "not UTF-8 text"))
            continue
        n_files += 1
        if is_cmake:
            findings += check_cmake(path, text)
            continue
        if parts[0] == "src" and (len(parts) < 3 or parts[1] not in ALLOWED):
            findings.append(Finding(path, 1, "not in a folder of the table of layers"))
        split = source_tree.split_text(text)
        live = {source_tree.line_of(split.code, m.start())
                for m in re.finditer(r"#[ \t]*include", split.code)}
        for match in _INCLUDE.finditer(text):
            line = source_tree.line_of(text, match.start("name"))
            if line in live:
                findings += check_include(root, path, line, match.group("name"),
                                          match.group("open") == "<")
        findings += check_architecture_names(path, split)
    return findings, n_files


def main(argv):
    root = argv[1] if len(argv) > 1 else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    findings, n_files = check(root)
    return source_tree.report("layers", findings, n_files, sys.stdout)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
