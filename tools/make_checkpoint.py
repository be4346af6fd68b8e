#!/usr/bin/env python3
"""Writes a checkpoint of random weights as it would lie in a Hugging Face cache.

The files are those of a published model: shards with an index, config.json, generation_config.json
and a byte-level tokenizer, under models--ORG--NAME with blobs, snapshots and refs. The weights are
a function of the seed and of their names; they are scaled so that activations stay finite. Needs
nothing but Python.

Examples
  make_checkpoint.py /tmp/cache --preset nemotron-3-nano --sparse
    the 13 shards of Nemotron-3-Nano, 63 GB of holes that take no disk
  make_checkpoint.py /tmp/cache --preset nemotron-3-nano/8
    about an eighth of it, 8.4 GB, to time
  make_checkpoint.py /tmp/cache --preset tiny-qwen3 --set num_hidden_layers=4 --plain
    a small model in a plain folder

Exit codes: 0 done, 2 usage, 3 a configuration that makes no model, 4 no room on the disk.
"""

import argparse
import hashlib
import json
import math
import os
import pathlib
import random
import shutil
import struct
import sys

import checkpoint_shapes

WIDTH = {"F32": 4, "BF16": 2, "F16": 2}
# Sign, the lowest bit of the exponent and the mantissa are random; the rest is set: magnitudes of
# two neighbouring powers of two.
RANDOM_BITS = {"F32": 0x80FFFFFF, "BF16": 0x80FF, "F16": 0x87FF}
EXPONENT_AT = {"F32": 23, "BF16": 7, "F16": 10}
EXPONENT_BIAS = {"F32": 127, "BF16": 127, "F16": 15}
# Root mean square of such numbers, over the smaller power of two: sqrt(7/3 * (1 + 4) / 2).
SPREAD = math.sqrt(7 / 3 * 2.5)
PIECE = 1 << 20


class Refusal(Exception):
    """A request that cannot be met: one line for the user, and the exit code."""

    def __init__(self, message, code=3):
        super().__init__(message)
        self.code = code


# ---- numbers ----------------------------------------------------------------------------------

def pack(dtype, values):
    """Floats as the file has them, rounded to nearest (BF16 ties upward)."""
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    words = struct.pack(f"<{len(values)}f", *values)
    if dtype == "F32":
        return words
    bits = struct.unpack(f"<{len(values)}I", words)
    return struct.pack(f"<{len(values)}H", *(min((b + 0x8000) >> 16, 0xFFFF) for b in bits))


def exponent_field(dtype, rms):
    """The even exponent whose numbers have a root mean square nearest to `rms`."""
    wanted = math.log2(rms / SPREAD) + EXPONENT_BIAS[dtype]
    highest = 28 if dtype == "F16" else 252
    return max(2, min(highest, 2 * round(wanted / 2)))


class Bits:
    """Random matrices of one type, in pieces; the masks of a whole piece are made once."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.count = PIECE // WIDTH[dtype]
        self.mask = self.repeated(RANDOM_BITS[dtype])
        self.fixed = {}

    def repeated(self, word):
        return int.from_bytes(word.to_bytes(WIDTH[self.dtype], "little") * self.count, "little")

    def pieces(self, source, n, rms):
        width = WIDTH[self.dtype]
        field = exponent_field(self.dtype, rms)
        if field not in self.fixed:
            self.fixed[field] = self.repeated(field << EXPONENT_AT[self.dtype])
        mask, fixed = self.mask, self.fixed[field]
        while n > 0:
            count = min(n, self.count)
            if count < self.count:
                cut = (1 << (8 * width * count)) - 1
                mask, fixed = mask & cut, fixed & cut
            drawn = int.from_bytes(source.randbytes(count * width), "little")
            yield (drawn & mask | fixed).to_bytes(count * width, "little")
            n -= count


def inverse_softplus(step):
    return step + math.log(-math.expm1(-step))


def vector_values(role, n, source):
    """Values as trained models have them, by what the tensor is for."""
    draw = {
        "norm": lambda: 1 + source.gauss(0, 0.1),
        "bias": lambda: source.gauss(0, 0.02),
        "a_log": lambda: math.log(source.uniform(1, 16)),
        "d": lambda: 1 + source.gauss(0, 0.1),
        # Time steps of 0.001 to 0.1, evenly in their logarithm.
        "dt_bias": lambda: inverse_softplus(math.exp(source.uniform(math.log(1e-3), math.log(0.1)))),
        "conv": lambda: source.uniform(-0.5, 0.5),
        "correction": lambda: source.gauss(0, 0.05),
    }[role]
    return [draw() for _ in range(n)]


def tensor_bytes(tensor, seed, bits):
    """The tensor's bytes in pieces of at most PIECE."""
    source = random.Random(f"{seed}/{tensor.name}")
    n = math.prod(tensor.shape)
    if tensor.role == "matrix":
        yield from bits[tensor.dtype].pieces(source, n, 1 / math.sqrt(tensor.shape[-1]))
        return
    step = PIECE // 4
    for first in range(0, n, step):
        yield pack(tensor.dtype, vector_values(tensor.role, min(step, n - first), source))


# ---- files ------------------------------------------------------------------------------------

def tensor_size(tensor):
    return math.prod(tensor.shape) * WIDTH[tensor.dtype]


def split_into_shards(tensors, n_shards):
    """Consecutive tensors, about as many bytes in each shard."""
    total = sum(tensor_size(tensor) for tensor in tensors)
    shards, done = [[] for _ in range(n_shards)], 0
    for tensor in tensors:
        size = tensor_size(tensor)
        shards[min(n_shards - 1, (done + size // 2) * n_shards // max(1, total))].append(tensor)
        done += size
    empty = [i + 1 for i, shard in enumerate(shards) if not shard]
    if empty:
        raise Refusal(f"--shards {n_shards}: shard {empty[0]} would hold no tensor; ask for fewer")
    # Writers put wide types first, then go by name.
    return [sorted(shard, key=lambda t: (-WIDTH[t.dtype], t.name)) for shard in shards]


def header_of(shard):
    """The length and the JSON, padded so that the data starts on 8 bytes."""
    fields, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in shard:
        end = offset + tensor_size(tensor)
        fields[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape),
                               "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(fields, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offset


class Progress:
    """One line on standard error, for a terminal alone."""

    def __init__(self, total):
        self.total, self.done, self.shown = max(1, total), 0, -1
        self.draws = sys.stderr.isatty()

    def add(self, n, what):
        self.done += n
        percent = 100 * self.done // self.total
        if self.draws and percent != self.shown:
            self.shown = percent
            print(f"\r\x1b[K{what}  {percent} %  {self.done / 1e9:.2f} of {self.total / 1e9:.2f} GB",
                  end="", file=sys.stderr, flush=True)

    def finish(self):
        if self.draws:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def write_shard(path, shard, options, bits, progress):
    """Writes one shard; returns the name of its blob."""
    header, data_bytes = header_of(shard)
    digest = hashlib.sha256(header)
    with open(path, "wb") as out:
        out.write(header)
        if options.sparse:
            out.truncate(len(header) + data_bytes)
            progress.add(data_bytes, path.name)
            return digest.hexdigest()
        for tensor in shard:
            if options.sparse_matrices and tensor.role == "matrix":
                out.seek(tensor_size(tensor), os.SEEK_CUR)
                progress.add(tensor_size(tensor), path.name)
                continue
            for piece in tensor_bytes(tensor, options.seed, bits):
                out.write(piece)
                digest.update(piece)
                progress.add(len(piece), path.name)
        out.truncate(len(header) + data_bytes)
    return digest.hexdigest()


def git_blob_name(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Layout:
    """Where files go: a plain folder, or a hub cache with blobs and links."""

    def __init__(self, folder, repo_id, commit, plain):
        self.plain = plain
        self.root = folder if plain else folder / ("models--" + repo_id.replace("/", "--"))
        self.snapshot = self.root if plain else self.root / "snapshots" / commit
        self.commit = commit
        self.snapshot.mkdir(parents=True, exist_ok=True)
        if not plain:
            (self.root / "blobs").mkdir(exist_ok=True)
            (self.root / "refs").mkdir(exist_ok=True)

    def scratch(self, name):
        return (self.snapshot if self.plain else self.root / "blobs") / (name + ".incomplete")

    def place(self, name, scratch, blob):
        """Moves a finished file to its place."""
        if self.plain:
            os.replace(scratch, self.snapshot / name)
            return
        os.replace(scratch, self.root / "blobs" / blob)
        link = self.snapshot / name
        link.unlink(missing_ok=True)
        link.symlink_to(pathlib.Path("../../blobs") / blob)

    def write(self, name, content):
        scratch = self.scratch(name)
        scratch.write_bytes(content)
        self.place(name, scratch, git_blob_name(content))

    def finish(self):
        if not self.plain:
            scratch = self.root / "refs" / ".main.incomplete"
            scratch.write_text(self.commit)
            os.replace(scratch, self.root / "refs" / "main")


def as_json(value):
    return (json.dumps(value, indent=2) + "\n").encode()


def check_room(folder, needed):
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise Refusal(f"{folder}: the weights need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
                      "free; choose another folder, a smaller model or --sparse", code=4)


def write_checkpoint(options, config):
    tensors = checkpoint_shapes.tensors(config, options.dtype)
    sizes = [tensor_size(tensor) for tensor in tensors]
    kind = "matrices" if options.sparse_matrices else options.sparse
    commit = hashlib.sha1(json.dumps([config, options.seed, options.dtype, kind],
                                     sort_keys=True).encode()).hexdigest()
    shards = split_into_shards(tensors, options.shards or 1)
    layout = Layout(options.folder, options.repo, commit, options.plain)
    if not (options.sparse or options.sparse_matrices):
        check_room(layout.root, sum(sizes))
    bits = {dtype: Bits(dtype) for dtype in {tensor.dtype for tensor in tensors}}
    progress, weight_map = Progress(sum(sizes)), {}
    for number, shard in enumerate(shards, 1):
        name = (f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1
                else "model.safetensors")
        scratch = layout.scratch(name)
        blob = write_shard(scratch, shard, options, bits, progress)
        layout.place(name, scratch, blob)
        weight_map.update((tensor.name, name) for tensor in shard)
    progress.finish()
    if len(shards) > 1:
        layout.write("model.safetensors.index.json", as_json(
            {"metadata": {"total_size": sum(sizes)}, "weight_map": dict(sorted(weight_map.items()))}))
    layout.write("config.json", as_json(config))
    layout.write("generation_config.json", as_json(checkpoint_shapes.generation_config(config)))
    for name, content in checkpoint_shapes.tokenizer_files(config).items():
        layout.write(name, as_json(content))
    layout.finish()
    return {"path": str(layout.snapshot), "repo": None if options.plain else options.repo,
            "commit": None if options.plain else commit, "shards": len(shards),
            "tensors": len(tensors), "elements": sum(math.prod(t.shape) for t in tensors),
            "bytes": sum(sizes), "sparse": options.sparse,
            "sparse_matrices": options.sparse_matrices}


# ---- command line -----------------------------------------------------------------------------

def setting(text):
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r}: want KEY=VALUE")
    try:
        return key, json.loads(value)
    except json.JSONDecodeError:
        return key, value


def shard_count(text):
    try:
        n = int(text)
    except ValueError:
        n = 0
    if not 1 <= n <= 99999:
        raise argparse.ArgumentTypeError(f"{text!r}: want 1 to 99999")
    return n


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path,
                        help="the cache's root, or with --plain the model's own folder")
    parser.add_argument("--preset", choices=sorted(checkpoint_shapes.PRESETS), required=True,
                        help="which configuration to start from")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="KEY=VALUE",
                        dest="changes", help="changes a key of config.json; the value is JSON, or "
                        "a plain word; null removes the key")
    parser.add_argument("--dtype", choices=sorted(WIDTH), default="BF16",
                        help="type of the weights (what models keep in F32 stays so). Default BF16")
    parser.add_argument("--shards", type=shard_count, default=None,
                        help="number of weight files. Default: the preset's, else 1")
    parser.add_argument("--repo", default=None, metavar="ORG/NAME",
                        help="the model's name in the cache. Default: logitlab/PRESET")
    parser.add_argument("--seed", type=int, default=0, help="of the weights. Default 0")
    parser.add_argument("--sparse", action="store_true",
                        help="files of full size without their data: zeros that take no disk")
    parser.add_argument("--sparse-matrices", action="store_true",
                        help="the same for matrices alone: norms, biases and the like have values")
    parser.add_argument("--plain", action="store_true", help="a folder with the files themselves")
    parser.add_argument("--json", action="store_true", help="prints what was written as JSON")
    options = parser.parse_args(arguments)
    options.repo = options.repo or "logitlab/" + options.preset.replace("/", "-")
    parts = options.repo.split("/")
    if len(parts) > 2 or any(not part or part.startswith(".") for part in parts):
        parser.error(f"--repo {options.repo!r}: want ORG/NAME")
    return options


def short(n):
    """Three digits and a unit: 31.6 G, 250 k."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= unit:
            return f"{n / unit:.3g} {letter}"
    return f"{n} "


def main(arguments=None):
    options = parse(arguments)
    preset = checkpoint_shapes.PRESETS[options.preset]
    config = dict(preset.config)
    for key, value in options.changes:
        config[key] = value
        if value is None:
            del config[key]
    options.shards = options.shards or preset.shards
    try:
        made = write_checkpoint(options, config)
    except Refusal as refusal:
        print(f"make_checkpoint: {refusal}", file=sys.stderr)
        return refusal.code
    except checkpoint_shapes.BadConfig as bad:
        print(f"make_checkpoint: {bad}", file=sys.stderr)
        return 3
    except OSError as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 4
    if options.json:
        print(json.dumps(made))
    else:
        print(f"{made['path']}: {made['tensors']} tensors, {short(made['elements'])} parameters, "
              f"{short(made['bytes'])}B in {made['shards']} file(s)"
              + (", without data" if made["sparse"] else
                 ", without the data of matrices" if made["sparse_matrices"] else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
