#!/usr/bin/env python3
"""Compares the hybrid model of logitlab with that of transformers at full size, on one GPU.

Both fill the same synthetic checkpoint: matrices by the formula of src/backend/device_model.h, made
on the device; vectors from files of tools/make_checkpoint.py. Prompts run in logitlab at once and
id by id, with greedy ids after them; transformers then runs the same ids in BF16 and in float32.
transformers_figures.py says what is compared and within which bounds.
"""

import argparse
import gc
import importlib.util
import json
import math
import os
import pathlib
import random
import struct
import subprocess
import sys
import time

import transformers_figures as figures

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import checkpoint_shapes  # noqa: E402

MASK = 0xFFFFFFFF
SCALE = float.fromhex("0x1.1bc77ap-28")
SLICE = 1 << 26  # elements that are made at once
# Kept in F32 by the checkpoint, and by transformers only in a float32 model.
NARROWED = ("A_log", "mixer.D")
# Norms before mixtures. With 1 an expert more or less moves the residual of these weights so much
# that the layers behind choose others too, and no two roundings agree: KL(float32||BF16) of
# transformers itself is 0.15 on a model of the same depth and an eighth of the widths; with 1/4 it
# is 2e-3, and an expert still counts.
MIXTURE_GAIN = 0.25


# ---- the formula ------------------------------------------------------------------------------

def mixed(h):
    h ^= h >> 16
    h = h * 0x85EBCA6B & MASK
    h ^= h >> 13
    h = h * 0xC2B2AE35 & MASK
    return h ^ h >> 16


def signed(word):
    return word - (1 << 32) if word >= 1 << 31 else word


def mix_(h):
    """mixed() of an int32 tensor, in place; shifts are made logical with masks."""
    h ^= (h >> 16) & 0xFFFF
    h *= signed(0x85EBCA6B)
    h ^= (h >> 13) & 0x7FFFF
    h *= signed(0xC2B2AE35)
    h ^= (h >> 16) & 0xFFFF
    return h


class Filler:
    """Fills tensors as DeviceModelSpec says; the mixed indices of the last size are kept."""

    def __init__(self, torch, device):
        self.torch, self.device = torch, device
        self.kept = (0, 0, None)

    def indices(self, first, n):
        if self.kept[:2] != (first, n):
            self.kept = (0, 0, None)
            numbers = self.torch.arange(first, first + n, dtype=self.torch.int64,
                                        device=self.device)
            self.kept = (first, n, mix_(numbers.to(self.torch.int32)))
        return self.kept[2]

    def fill(self, out, number):
        """out: any shape, contiguous; values are those of BF16 whatever its type."""
        flat = out.view(-1)
        key = signed(mixed(number + 1))
        for first in range(0, flat.numel(), SLICE):
            part = flat[first:first + SLICE]
            x = mix_(self.indices(first, part.numel()) ^ key)
            centred = ((x >> 8) & 0xFFFFFF) - (1 << 23)
            part.copy_((centred.to(self.torch.float32) * SCALE).to(self.torch.bfloat16))


def matrix_numbers(config):
    """Number of each matrix by its name in transformers; of stacked experts that of the first."""
    numbers, count = {"model.embeddings.weight": 0, "lm_head.weight": 1}, 2
    experts = config["n_routed_experts"]
    parts = {"M": ["in_proj", "out_proj"], "*": ["q_proj", "k_proj", "v_proj", "o_proj"],
             "E": ["gate", "experts.up_proj", "experts.down_proj", "shared_experts.up_proj",
                   "shared_experts.down_proj"], "-": ["up_proj", "down_proj"]}
    for layer, letter in enumerate(config["hybrid_override_pattern"]):
        for part in parts[letter]:
            stacked = part.startswith("experts.")
            numbers[f"model.layers.{layer}.mixer.{part}{'' if stacked else '.weight'}"] = count
            count += experts if stacked else 1
    return numbers


def bf16(values):
    """Floats rounded to BF16, nearest even."""
    def one(value):
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        return struct.unpack("<f", struct.pack("<I", bits))[0]
    return [one(value) for value in values]


# ---- the checkpoint ---------------------------------------------------------------------------

def tensor_places(folder):
    """(file, entry of the header, offset in the file) of each tensor by its name."""
    places = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(length))
        for name, entry in header.items():
            if name != "__metadata__":
                places[name] = (path, entry, 8 + length + entry["data_offsets"][0])
    return places


def read_vector(place):
    path, entry, offset = place
    n = math.prod(entry["shape"])
    width = {"F32": 4, "BF16": 2}[entry["dtype"]]
    with open(path, "rb") as file:
        file.seek(offset)
        data = file.read(n * width)
    if width == 4:
        return list(struct.unpack(f"<{n}f", data))
    words = struct.unpack(f"<{n}H", data)
    return list(struct.unpack(f"<{n}f", struct.pack(f"<{n}I", *(word << 16 for word in words))))


def write_vector(place, values):
    """values: of BF16."""
    path, entry, offset = place
    data = struct.pack(f"<{len(values)}f", *values)
    if entry["dtype"] == "BF16":
        data = b"".join(data[i + 2:i + 4] for i in range(0, len(data), 4))
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def make_checkpoint(options):
    """Files with vectors and without matrices; returns (config, places)."""
    folder = options.work / "model"
    command = [sys.executable, str(ROOT / "tools/make_checkpoint.py"), str(folder), "--plain",
               "--preset", options.preset, "--sparse-matrices", "--set", "time_step_min=0.0"]
    for change in options.set:
        command += ["--set", change]
    subprocess.run(command, check=True)
    config = json.loads((folder / "config.json").read_text())
    places = tensor_places(folder)
    for name, place in places.items():
        if name.endswith(NARROWED):
            write_vector(place, bf16(read_vector(place)))
    for layer, letter in enumerate(config["hybrid_override_pattern"]):
        if letter == "E":
            place = places[f"backbone.layers.{layer}.norm.weight"]
            write_vector(place, bf16([MIXTURE_GAIN * x for x in read_vector(place)]))
    return config, places


def write_matrices(torch, config, places):
    """The same matrices in the files, for a device that does not make them. Small models alone."""
    filler = Filler(torch, "cpu")
    for name, number in matrix_numbers(config).items():
        base = name.replace("model.", "backbone.", 1) if name.startswith("model.") else name
        names = [base]
        if ".experts." in base:
            stem, part = base.split(".experts.")
            names = [f"{stem}.experts.{e}.{part}.weight" for e in range(config["n_routed_experts"])]
        for i, single in enumerate(names):
            path, entry, offset = places[single]
            values = torch.empty(entry["shape"], dtype=torch.bfloat16)
            filler.fill(values, number + i)
            with open(path, "r+b") as file:
                file.seek(offset)
                file.write(values.view(torch.int16).numpy().tobytes())


# ---- transformers -----------------------------------------------------------------------------

class Theirs:
    """transformers' model with the checkpoint's numbers. rounds_kv: keys and values are rounded to
    BF16, as logitlab keeps them."""

    def __init__(self, torch, options, config, places, dtype, rounds_kv=False):
        import transformers  # pylint: disable=import-outside-toplevel
        start = time.monotonic()
        self.torch, self.device = torch, options.torch_device
        settings = transformers.AutoConfig.from_pretrained(options.work / "model")
        # Grouped products are for BF16 alone; a fused attention may round float32 to TF32.
        is_exact = dtype == torch.float32
        self.experts = "eager" if is_exact or self.device == "cpu" else options.experts
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(
                settings, dtype=dtype, experts_implementation=self.experts,
                **({"attn_implementation": "eager"} if is_exact else {}))
        assert model.config._experts_implementation == self.experts
        self.model = model.to_empty(device=self.device).eval()
        self.fill(config, places)
        for module in self.model.modules():
            if hasattr(module, "time_step_limit"):
                assert module.time_step_limit[0] == 0.0, module.time_step_limit
            if rounds_kv:
                for part in ("k_proj", "v_proj"):
                    if hasattr(module, part):
                        getattr(module, part).register_forward_hook(
                            lambda _module, _inputs, out: out.to(torch.bfloat16).to(out.dtype))
        self.synchronise()
        self.fill_seconds = time.monotonic() - start

    def synchronise(self):
        if self.device != "cpu":
            self.torch.cuda.synchronize()

    def fill(self, config, places):
        torch, filler = self.torch, Filler(self.torch, self.device)
        numbers = matrix_numbers(config)
        tensors = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        with torch.no_grad():
            for name, tensor in tensors.items():
                if name in numbers:
                    number = numbers.pop(name)
                    for i, single in enumerate(tensor if ".experts." in name else [tensor]):
                        filler.fill(single, number + i)
                    continue
                values = read_vector(places[name.replace("model.", "backbone.", 1)])
                values = torch.tensor(values, dtype=torch.float32).view(tensor.shape)
                if name.endswith("e_score_correction_bias"):
                    module = self.model.get_submodule(name.rpartition(".")[0])
                    module.e_score_correction_bias = values.to(self.device)
                else:
                    tensor.copy_(values)
        assert not numbers, f"not in transformers' model: {sorted(numbers)}"

    def logits(self, ids):
        """float32 [ids, vocab_size] on the device, of one call without a cache."""
        with self.torch.no_grad():
            out = self.model(self.torch.tensor([ids], device=self.device), use_cache=False)
        return out.logits[0].float()

    def leads(self, ids):
        """logits(), and [mixtures, ids]: by how much the last chosen expert's score leads the first
        not chosen."""
        torch, found = self.torch, []

        def hook(router, _inputs, outputs):
            scores = outputs[0].float().sigmoid() + router.e_score_correction_bias
            best = scores.topk(router.top_k + 1, dim=-1).values
            found.append(best[:, -2] - best[:, -1])

        handles = [module.register_forward_hook(hook) for module in self.model.modules()
                   if hasattr(module, "e_score_correction_bias")]
        logits = self.logits(ids)
        for handle in handles:
            handle.remove()
        return logits, torch.stack(found)

    def greedy(self, prompt, n, deadline):
        """n ids with a cache, fewer when time is over; and the logits that chose them."""
        import transformers  # pylint: disable=import-outside-toplevel
        torch = self.torch
        cache = transformers.DynamicCache(config=self.model.config)
        ids, rows, inputs = [], [], prompt
        with torch.no_grad():
            while len(ids) < n and time.monotonic() < deadline:
                out = self.model(torch.tensor([inputs], device=self.device), past_key_values=cache,
                                 use_cache=True, logits_to_keep=1)
                rows.append(out.logits[0, -1].float())
                ids.append(int(rows[-1].argmax()))
                inputs = ids[-1:]
        return ids, torch.stack(rows)


# ---- the comparison ---------------------------------------------------------------------------

def run_ours(options, prompts):
    """Starts logitlab's program; it writes options.work / ours."""
    folder = options.work / "ours"
    folder.mkdir(exist_ok=True)
    request = options.work / "request.json"
    request.write_text(json.dumps({
        "model": str(options.work / "model"), "device": options.device,
        "random_weights": options.device != "cpu", "new_tokens": options.new_tokens,
        "prompts": prompts}))
    environment = dict(os.environ)
    if options.libraries:
        environment["LD_LIBRARY_PATH"] = options.libraries
    return subprocess.Popen([*options.program.split(), str(request), str(folder)], env=environment)


def make_prompts(options, vocab_size):
    source = random.Random(options.seed)
    return [[source.randrange(vocab_size) for _ in range(n)] for n in options.lengths]


def compare(options):
    start = time.monotonic()
    config, places = make_checkpoint(options)
    prompts = make_prompts(options, config["vocab_size"])
    if options.device == "cpu":
        import torch
        write_matrices(torch, config, places)
    program = run_ours(options, prompts)
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    import numpy
    import torch
    import transformers
    transformers.utils.logging.set_verbosity_error()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if program.wait() != 0:
        raise SystemExit(f"{options.program}: exit code {program.returncode}")
    seconds = {"ours": time.monotonic() - start}
    ours = json.loads((options.work / "ours/runs.json").read_text())
    for run in ours["runs"]:
        run["rows"] = numpy.load(options.work / "ours" / run["logits"], mmap_mode="r")
        run["sequence"] = prompts[run["prompt"]] + run["ids"][:-1]

    theirs = Theirs(torch, options, config, places, torch.bfloat16)
    seconds["fill_bf16"] = theirs.fill_seconds
    deadline = time.monotonic() + options.greedy_seconds
    their_greedy = [theirs.greedy(prompt, options.new_tokens, deadline) for prompt in prompts]
    seconds["greedy_bf16"] = time.monotonic() - start
    rounded = [theirs.logits(run["sequence"]) for run in ours["runs"]]
    experts = theirs.experts
    del theirs
    gc.collect()
    if options.torch_device != "cpu":
        torch.cuda.empty_cache()

    exact = Theirs(torch, options, config, places, torch.float32, rounds_kv=True)
    seconds["fill_float32"] = exact.fill_seconds
    report = figures.Report(torch, prompts, config)
    for run, bf16_rows in zip(ours["runs"], rounded):
        rows, leads = exact.leads(run["sequence"])
        rows_of_ours = torch.from_numpy(numpy.array(run["rows"])).to(options.torch_device)
        report.add_run(run, rows_of_ours, bf16_rows, rows, leads)
    for index, (ids, rows) in enumerate(their_greedy):
        report.add_greedy(index, ids, rows)
    seconds["all"] = time.monotonic() - start
    if options.keep:
        for index, (ids, rows) in enumerate(their_greedy):
            numpy.save(options.work / f"their-greedy-{index}.npy", rows.cpu().numpy())
    document = report.document()
    document["settings"] = {
        "preset": options.preset, "seed": options.seed, "prompt_lengths": options.lengths,
        "new_tokens": options.new_tokens, "experts_implementation": experts,
        "torch": torch.__version__, "transformers": transformers.__version__,
        "device": torch.cuda.get_device_name() if options.torch_device != "cpu" else "cpu",
        "ours": {key: ours[key] for key in ("device", "isa", "load_seconds", "seconds")}}
    document["seconds"] = seconds
    document["prompts"] = prompts
    document["greedy_ids"] = {
        "transformers_bf16": [ids for ids, _ in their_greedy],
        **{f"{run['mode']}_{run['prompt']}": run["ids"] for run in ours["runs"]}}
    return document


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/cuda-bundle/run device_logits",
                        help="the test tool device_logits, with words before it if it needs them")
    parser.add_argument("--libraries", help="folder of shared libraries for the program")
    parser.add_argument("--out", type=pathlib.Path, help="JSON of all figures")
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("/tmp/logitlab-compare"))
    parser.add_argument("--preset", default="nemotron-3-nano")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="changes the configuration, as in tools/make_checkpoint.py")
    parser.add_argument("--device", default="cuda:0", help="cuda:0, or cpu for a small model")
    parser.add_argument("--experts", default="grouped_mm", help="transformers' product of experts")
    parser.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")],
                        default=[64, 130, 200], help="of the prompts")
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--greedy-seconds", type=float, default=60,
                        help="after which transformers' greedy ids end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="writes transformers' logits too")
    options = parser.parse_args(arguments)
    options.torch_device = "cpu" if options.device == "cpu" else "cuda"
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def main(arguments=None):
    options = parse(arguments)
    missing = [name for name in ("numpy", "torch", "transformers")
               if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(f"compare_transformers.py: this Python lacks {', '.join(missing)}")
    document = compare(options)
    if options.out:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    figures.print_report(document)
    return 0 if document["verdict"]["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
