"""Loading: what is refused before a weight is read, where weights lie, what stays behind."""

import json
import mmap
import os
import shutil
import struct
import unittest

import tiny_model
from cli_case import CliCase

INDEX = "model.safetensors.index.json"


def shard(number):
    return f"model-{number:05}-of-00003.safetensors"


def page_is_resident(path):
    """Bytes of a file in the page cache, by mincore; None where Python cannot ask."""
    import ctypes
    size = os.path.getsize(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE,
                                             prot=mmap.PROT_READ | mmap.PROT_WRITE) as view:
        pages = (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE
        states = (ctypes.c_ubyte * pages)()
        start = ctypes.c_char.from_buffer(view)
        done = ctypes.CDLL(None, use_errno=True).mincore(
            ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(size), states)
        del start
        if done != 0:
            return None
        return sum(state & 1 for state in states) * mmap.PAGESIZE


class LoadErrors(CliCase):
    def setUp(self):
        self.sharded = tiny_model.write_model(self.folder / self.id(), shards=3)

    def refused_everywhere(self, *parts, code=3):
        for command in (["inspect"], ["generate", "Hi"], ["logits", "Hi"]):
            line = self.refused(code, *command, "--model", self.sharded)
            for part in parts:
                self.assertIn(part, line)

    def rewrite_json(self, name, change):
        path = self.sharded / name
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    def test_missing_shard(self):
        (self.sharded / shard(2)).unlink()
        self.refused_everywhere("incomplete", shard(2) + " (missing)")

    def test_dangling_link_in_a_hub_cache(self):
        root = self.folder / "hub"
        repo = root / "models--org--tiny"
        snapshot = repo / "snapshots" / ("0" * 39 + "1")
        (repo / "blobs").mkdir(parents=True)
        (repo / "refs").mkdir()
        (repo / "refs/main").write_text(snapshot.name)
        snapshot.mkdir(parents=True)
        for file in self.sharded.iterdir():
            shutil.move(file, repo / "blobs" / ("blob-" + file.name))
            (snapshot / file.name).symlink_to(f"../../blobs/blob-{file.name}")
        arguments = ["--model", "org/tiny", "--cache-dir", root]
        self.run_ok("inspect", *arguments)
        (repo / "blobs" / ("blob-" + shard(3))).unlink()
        for command in (["inspect"], ["generate", "Hi"]):
            line = self.refused(3, *command, *arguments)
            self.assertIn(shard(3) + " (a link to a missing file)", line)

    def test_shard_of_another_revision(self):
        # Another split of the same model: the names in the shard are not those of the index.
        other = tiny_model.write_model(self.folder / "other", shards=2)
        shutil.copy(other / "model-00001-of-00002.safetensors", self.sharded / shard(1))
        self.refused_everywhere("should be in " + shard(1), "does not hold it",
                                "seems to be of another revision than the index")

    def test_unexpected_shape(self):
        self.rewrite_json("config.json", lambda config: config.update(intermediate_size=49))
        self.refused_everywhere("model.layers.0.mlp.gate_proj.weight: shape [48, 32], want [49, 32]")

    def test_truncated_shard(self):
        path = self.sharded / shard(2)
        path.write_bytes(path.read_bytes()[:-10])
        self.refused_everywhere(shard(2), "truncated")
        path.write_bytes(path.read_bytes()[:20])
        self.refused_everywhere(shard(2), "truncated")

    def test_unknown_architecture(self):
        self.rewrite_json("config.json", lambda config: config.update(model_type="octopus"))
        self.refused_everywhere("model_type 'octopus' is not supported", "known are", "llama")

    def test_wrong_total_size_is_a_warning(self):
        self.rewrite_json(INDEX, lambda index: index.update(metadata={"total_size": 7}))
        text = "total_size 7, but the tensors take"
        shown = " ".join(self.run_ok("inspect", "--model", self.sharded).split())
        self.assertIn(text, shown)
        self.assertIn(text, self.run_json("inspect", "--model", self.sharded)["warnings"][0])
        done = self.run_cli("generate", "Hi", "--max-new-tokens", 2, "--model", self.sharded)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stderr.decode().count(text), 1)

    def test_more_than_the_memory(self):
        """Refused by size alone: the shard is a hole, whose reading would take minutes."""
        system = self.run_json("inspect", "--model", self.model)["memory_plan"]["system_bytes"]
        if not system:
            self.skipTest("the system does not say how much memory it has")
        hidden = 65536
        rows = 2 * system // (4 * hidden)
        names = {name: [hidden if length == tiny_model.HIDDEN and "_proj" not in name else length
                        for length in shape]
                 for name, shape in tiny_model.tensor_shapes().items()}
        for name, shape in names.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                shape[0] = hidden
            elif "_proj" in name:
                shape[1] = hidden
        names["model.embed_tokens.weight"] = [rows, hidden]
        header, at = {}, 0
        for name, shape in names.items():
            size = 4
            for length in shape:
                size *= length
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        folder = tiny_model.write_model(self.folder / "huge")
        config = json.loads((folder / "config.json").read_text())
        config.update(vocab_size=rows, hidden_size=hidden)
        (folder / "config.json").write_text(json.dumps(config))
        text = json.dumps(header).encode()
        with open(folder / "model.safetensors", "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            try:
                file.truncate(8 + len(text) + at)
            except OSError:
                self.skipTest("the file system holds no file of this size")
        plan = self.run_json("inspect", "--model", folder)["memory_plan"]
        self.assertEqual(plan["placement"], "refused")
        self.assertFalse(plan["fits"])
        self.assertGreater(plan["missing_bytes"], system)
        offloaded = self.run_json("inspect", "--offload", "--model", folder)["memory_plan"]
        self.assertEqual(offloaded["placement"], "offloaded")
        line = self.refused(4, "generate", "Hi", "--model", folder)
        self.assertRegex(line, r"need \d+\.\d\d GiB of memory .* \d+\.\d\d GiB are missing")
        self.assertIn("offload", line)


class Placement(CliCase):
    def test_weights_and_ledger(self):
        arguments = ["generate", "Hi", "--max-new-tokens", 6, "--eos-token-id", "none", "--model",
                     self.model, "--threads", 2]
        documents = {place: self.run_json(*arguments, "--weights", place)
                     for place in ("map", "read", "auto")}
        self.assertEqual(documents["map"]["ids"], documents["read"]["ids"])
        count = sum(4 * self.elements(shape) for shape in tiny_model.tensor_shapes().values())
        for place, document in documents.items():
            memory = document["memory"]
            self.assertEqual(memory["placement"], {"read": "read"}.get(place, "mapped"))
            self.assertEqual(memory["weights_bytes"], count)
            self.assertEqual(memory["sequences"], 1)
            self.assertEqual(memory["positions"], len(document["prompt"]["ids"]) + 6)
            self.assertEqual(memory["state_bytes"], 0)
            page = 32 * 2 * 4 * tiny_model.LAYERS * tiny_model.KV_HEADS * tiny_model.HEAD_DIM
            self.assertEqual(memory["kv_bytes"], -(-memory["positions"] // 32) * page)
            self.assertGreater(memory["peak_bytes"], memory["scratch_bytes"])
            self.assertGreater(memory["available_before_load_bytes"], 0)
            self.assertGreater(memory["available_after_load_bytes"], 0)
        self.assertEqual(documents["read"]["memory"]["weights_mapped_bytes"], 0)
        self.assertFalse(documents["read"]["memory"]["file_cache_stays"])
        self.assertTrue(documents["map"]["memory"]["file_cache_stays"])

    @staticmethod
    def elements(shape):
        count = 1
        for size in shape:
            count *= size
        return count

    def test_the_receipt_has_a_line_of_memory(self):
        done = self.run_cli("generate", "Hi", "--max-new-tokens", 2, "--model", self.model)
        lines = [line for line in done.stderr.decode().splitlines() if line.startswith("memory: ")]
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r"weights [\d.]+ KiB mapped .*; state 0 B \+ keys and values "
                                   r"[\d.]+ KiB; scratch .*; peak .*; page cache of the files .*; "
                                   r"available [\d.]+ .iB, after loading [\d.]+ .iB$")

    def test_reading_leaves_nothing_in_the_page_cache(self):
        model = tiny_model.write_model(self.folder / "cold")
        weights = model / "model.safetensors"
        with open(weights, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if page_is_resident(weights) != 0:
            self.skipTest("this file system's files stay in memory")
        arguments = ["generate", "Hi", "--max-new-tokens", 2, "--model", model, "--json"]
        self.run_ok(*arguments, "--weights", "map")
        self.assertGreater(page_is_resident(weights), 0)
        document = json.loads(self.run_ok(*arguments, "--weights", "read"))
        self.assertEqual(document["memory"]["file_cache_bytes"], 0)
        self.assertEqual(page_is_resident(weights), 0)

    def test_unknown_place(self):
        self.refused(2, "generate", "Hi", "--weights", "swap", "--model", self.model)


if __name__ == "__main__":
    unittest.main()
