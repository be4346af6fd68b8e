"""tools/make_checkpoint.py: the layout, the totals of the published model, the numbers."""

import hashlib
import json
import math
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "make_checkpoint.py"


def run(*arguments, code=0):
    done = subprocess.run([sys.executable, str(TOOL), *map(str, arguments)], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == code, (done.returncode, done.stderr)
    return done


def make(folder, *arguments):
    return json.loads(run(folder, "--json", *arguments).stdout)


def read_header(path):
    """An independent reader: header, start of the data, length of the file."""
    with open(path, "rb") as file:
        n = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(n))
    header.pop("__metadata__")
    return header, 8 + n, os.path.getsize(path)


def floats_of(path, name):
    header, start, _ = read_header(path)
    entry = header[name]
    begin, end = entry["data_offsets"]
    with open(path, "rb") as file:
        file.seek(start + begin)
        raw = file.read(end - begin)
    if entry["dtype"] == "F32":
        return list(struct.unpack(f"<{len(raw) // 4}f", raw))
    if entry["dtype"] == "F16":
        return list(struct.unpack(f"<{len(raw) // 2}e", raw))
    words = struct.unpack(f"<{len(raw) // 2}H", raw)
    return list(struct.unpack(f"<{len(words)}f", struct.pack(f"<{len(words)}I",
                                                             *(w << 16 for w in words))))


class MakeCheckpoint(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def test_only_matrices_may_be_holes(self):
        made = make(self.folder, "--preset", "tiny-nemotron-h", "--sparse-matrices", "--plain")
        shards = sorted(pathlib.Path(made["path"]).glob("*.safetensors"))
        kinds = set()
        for shard in shards:
            header, start, length = read_header(shard)
            content = shard.read_bytes()
            self.assertEqual(len(content), length)
            for tensor, entry in header.items():
                begin, end = entry["data_offsets"]
                has_values = any(content[start + begin:start + end])
                is_matrix = len(entry["shape"]) == 2 and entry["shape"][-1] > 1
                kinds.add(is_matrix)
                self.assertEqual(has_values, not is_matrix, tensor)
        self.assertEqual(kinds, {True, False})

    def test_the_published_model_has_its_totals(self):
        made = make(self.folder, "--preset", "nemotron-3-nano", "--sparse")
        self.assertEqual((made["tensors"], made["elements"], made["bytes"], made["shards"]),
                         (6243, 31577940288, 63155892352, 13))
        snapshot = pathlib.Path(made["path"])
        index = json.loads((snapshot / "model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"]["total_size"], 63155892352)
        self.assertEqual(len(index["weight_map"]), 6243)
        float32, on_disk = set(), 0
        for name in sorted(set(index["weight_map"].values())):
            header, start, length = read_header(snapshot / name)
            self.assertEqual(start % 8, 0)
            self.assertEqual(length, start + max(e["data_offsets"][1] for e in header.values()))
            for tensor, entry in header.items():
                self.assertEqual(index["weight_map"][tensor], name)
                if entry["dtype"] == "F32":
                    float32.add(tensor.rsplit(".", 1)[-1])
            on_disk += os.stat(snapshot / name).st_blocks * 512
        self.assertEqual(float32, {"A_log", "D", "e_score_correction_bias"})
        self.assertLess(on_disk, 64 << 20, "holes take no disk")

    def test_the_layout_is_the_cache_of_the_hub(self):
        made = make(self.folder, "--preset", "tiny-nemotron-h", "--repo", "some/model")
        root = self.folder / "models--some--model"
        self.assertEqual((root / "refs/main").read_text(), made["commit"])
        self.assertEqual(pathlib.Path(made["path"]), root / "snapshots" / made["commit"])
        shards = 0
        for link in pathlib.Path(made["path"]).iterdir():
            self.assertTrue(link.is_symlink(), link)
            target = os.readlink(link)
            self.assertTrue(target.startswith("../../blobs/"), target)
            content = link.read_bytes()
            blob = target.rsplit("/", 1)[-1]
            if link.name.endswith(".safetensors"):
                shards += 1
                self.assertEqual(blob, hashlib.sha256(content).hexdigest())
                header, _, _ = read_header(link)
                order = [(e["dtype"] != "F32", name) for name, e in header.items()]
                self.assertEqual(order, sorted(order), "wide types first, then by name")
            else:
                self.assertEqual(len(blob), 40)
        self.assertEqual(shards, 2)
        self.assertFalse(list(root.rglob("*.incomplete")))

    def test_the_same_seed_gives_the_same_files(self):
        names = []
        for seed, sub in ((3, "a"), (3, "b"), (4, "c")):
            made = make(self.folder / sub, "--preset", "tiny-qwen3", "--seed", seed)
            names.append(sorted(os.readlink(link) for link in pathlib.Path(made["path"]).iterdir()
                                if link.name.endswith(".safetensors")))
        self.assertEqual(names[0], names[1])
        self.assertNotEqual(names[0], names[2])

    def test_numbers_have_the_scale_of_their_layer(self):
        for dtype in ("F32", "BF16", "F16"):
            made = make(self.folder / dtype, "--preset", "tiny-nemotron-h", "--plain", "--shards", 1,
                        "--dtype", dtype)
            path = pathlib.Path(made["path"]) / "model.safetensors"
            values = floats_of(path, "backbone.layers.1.mixer.shared_experts.up_proj.weight")
            rms = math.sqrt(sum(v * v for v in values) / len(values))
            # An exponent is one of every other power of two: within a factor of two of 1/sqrt(64).
            self.assertTrue(0.0625 <= rms <= 0.25, (dtype, rms))
            self.assertLess(abs(sum(values) / len(values)), 5 * rms / math.sqrt(len(values)))
            self.assertGreater(len(set(values)), 200)
            for value in floats_of(path, "backbone.layers.3.mixer.A_log"):
                self.assertTrue(0 <= value <= math.log(16))

    def test_settings_and_refusals(self):
        made = make(self.folder / "a", "--preset", "tiny-llama", "--plain", "--set",
                    "num_hidden_layers=5", "--set", "attention_bias=true", "--set",
                    "tie_word_embeddings=true")
        config = json.loads((pathlib.Path(made["path"]) / "config.json").read_text())
        self.assertEqual(config["num_hidden_layers"], 5)
        header, _, _ = read_header(pathlib.Path(made["path"]) / "model.safetensors")
        self.assertIn("model.layers.4.self_attn.o_proj.bias", header)
        self.assertNotIn("lm_head.weight", header)
        for arguments, code, words in (
                (["--preset", "tiny-llama", "--set", "hidden_size=0"], 3, "hidden_size is 0"),
                (["--preset", "tiny-llama", "--set", "model_type=bert"], 3, "model_type is 'bert'"),
                (["--preset", "tiny-nemotron-h", "--set", "hybrid_override_pattern=MX"], 3,
                 "layer 1 is 'X'"),
                (["--preset", "tiny-llama", "--shards", "5000"], 3, "would hold no tensor"),
                (["--preset", "nothing"], 2, "invalid choice"),
                (["--preset", "tiny-llama", "--repo", "../up"], 2, "want ORG/NAME")):
            done = run(self.folder / "b", *arguments, code=code)
            self.assertIn(words, done.stderr)
            self.assertNotIn("Traceback", done.stderr)


if __name__ == "__main__":
    unittest.main()
