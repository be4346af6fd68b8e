"""The checkpoint that this project is for, at its full size: what inspect says of it, and how soon."""

import json
import os
import resource
import subprocess
import time
import unittest

import sparse_model
from cli_case import CliCase

REPO = "org/full-size"
PARAMETERS = 31_577_940_288
# Of the routed experts 6 of 128; of the embedding one row.
ACTIVE = 3_227_757_504
BYTES_PER_TOKEN = 6_455_526_784
STATE_BYTES = 23 * 4 * (64 * 64 * 128 + 3 * 6144)
KV_BYTES = 6 * 2 * 256 * 4


class FullSize(CliCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.cache = cls.folder / "hub"
        try:
            cls.repo = sparse_model.write_hub_cache(cls.cache, REPO)
        except OSError as error:
            raise unittest.SkipTest(f"no room for holes: {error}") from error

    def arguments(self, *more):
        return ["inspect", "--model", REPO, "--cache-dir", self.cache, *more]

    def test_figures(self):
        document = self.run_json(*self.arguments("--positions", 1000))
        self.assertEqual(document["parameters"], PARAMETERS)
        self.assertEqual(document["active_parameters"], ACTIVE)
        self.assertEqual(document["weight_bytes_per_token"], BYTES_PER_TOKEN)
        self.assertEqual(document["state_bytes_per_sequence"], STATE_BYTES)
        self.assertEqual(document["kv_bytes_per_position"], KV_BYTES)
        self.assertEqual(document["shards"], 13)
        shards = [file for file in document["files"] if file["name"].endswith(".safetensors")]
        self.assertEqual(len(shards), 13)
        self.assertTrue(all(file["status"] == "present" for file in shards))
        self.assertGreater(sum(file["bytes"] for file in shards), 63_155_892_352)
        self.assertEqual(document["tensor_types"]["F32"]["bytes"], 23_552)
        self.assertEqual(sum(row["tensors"] for row in document["tensor_types"].values()), 6243)
        self.assertEqual(document["config"]["layer_kinds"],
                         {"mamba": 23, "moe": 23, "attention": 6})
        self.assertEqual(document["config"]["layer_pattern"], sparse_model.PATTERN)
        self.assertEqual(document["config"]["moe"]["n_routed_experts"], 128)
        self.assertEqual(document["unused_tensors"], [])
        self.assertEqual(document["warnings"], [])
        plan = document["memory_plan"]
        self.assertEqual(plan["state_bytes"], STATE_BYTES)
        self.assertEqual(plan["kv_bytes"], 1024 * KV_BYTES)

    def test_what_people_read(self):
        text = self.run_ok(*self.arguments(), env=self.environment(COLUMNS="100"))
        for part in ("31,577,940,288 (31.6 G)", "3,227,757,504 (3.2 G) per token",
                     "52: 23 mamba, 23 moe, 6 attention", sparse_model.PATTERN,
                     "128 of width 1856, 6 chosen per token", "6.46 GB", "47.6 MiB whatever",
                     "12.0 KiB per position", "model-00013-of-00013.safetensors"):
            self.assertIn(part, text)
        for columns in (30, 60, 200):
            narrow = self.run_ok(*self.arguments(), env=self.environment(COLUMNS=str(columns)))
            self.assertLessEqual(max(map(len, narrow.splitlines())), columns)
            self.assertIn("6.46 GB", " ".join(narrow.split()))

    def test_time_and_memory(self):
        best, peak = 1e9, 0
        for _ in range(3):
            start = time.monotonic()
            with subprocess.Popen([self.binary, *map(str, self.arguments("--json"))],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  env=self.environment()) as process:
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            best = min(best, time.monotonic() - start)
            peak = max(peak, usage.ru_maxrss * 1024)
            self.assertEqual(process.returncode, 0)
        self.assertLess(best, 3)
        # A sanitizer's own memory is not the program's.
        if "ASAN_OPTIONS" not in os.environ:
            self.assertLess(peak, 200_000_000)
        self.assertGreater(peak, resource.getpagesize())

    def test_tensors_that_are_not_used_are_named(self):
        cache = self.folder / "with-draft-head"
        extra = {"mtp.layers.0.norm.weight": [2688], "mtp.layers.0.eh_proj.weight": [2688, 5376]}
        sparse_model.write_hub_cache(cache, REPO, extra)
        document = self.run_json("inspect", "--model", REPO, "--cache-dir", cache)
        self.assertEqual(sorted(document["unused_tensors"]), sorted(extra))
        self.assertEqual(document["parameters"], PARAMETERS)
        text = self.run_ok("inspect", "--model", REPO, "--cache-dir", cache)
        self.assertIn("not used", text)
        self.assertIn("mtp.layers.0.", text)

    def change(self, name, **config):
        """The same checkpoint with other values in its config.json."""
        cache = self.folder / name
        repo = sparse_model.write_hub_cache(cache, REPO)
        (repo / "blobs/config.json").write_text(json.dumps(sparse_model.CONFIG | config))
        return ["--model", REPO, "--cache-dir", cache]

    def test_refusals(self):
        pattern = sparse_model.PATTERN[:20] + "Q" + sparse_model.PATTERN[21:]
        cases = [
            ("letter", {"hybrid_override_pattern": pattern}, ["Q", "20"]),
            ("shape", {"moe_shared_expert_intermediate_size": 3711},
             ["shared_experts.up_proj.weight: shape [3712, 2688], want [3711, 2688]"]),
            ("order", {"hybrid_override_pattern": "EM" + sparse_model.PATTERN[2:]},
             ["backbone.layers.0."]),
            ("architecture", {"model_type": "nemotron_x"}, ["model_type 'nemotron_x'", "known are"]),
        ]
        for name, config, parts in cases:
            arguments = self.change(name, **config)
            for command in (["inspect"], ["generate", "Hi"]):
                line = self.refused(3, *command, *arguments)
                for part in parts:
                    self.assertIn(part, line)


if __name__ == "__main__":
    unittest.main()
