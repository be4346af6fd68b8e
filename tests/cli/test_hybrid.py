"""The commands on a model whose state cannot be cut back: Mamba, experts, attention."""

import json
import math
import unittest

import tiny_hybrid
import tiny_model
from cli_case import CliCase


class Hybrid(CliCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hybrid = tiny_hybrid.write_model(cls.folder / "hybrid")
        cls.thinker = tiny_hybrid.write_model(cls.folder / "hybrid-thinker", thinking=True)

    def generate(self, prompt, *arguments, model=None):
        return self.run_json("generate", "--raw", prompt, "--model", model or self.hybrid,
                             "--eos-token-id", "none", *arguments)

    def test_state_changes_the_time_alone(self):
        document = self.run_json("bench", "--no-cache", "-p", 20, "-n", 30, "--reps", 1,
                                 "--model", self.hybrid)
        self.assertEqual((document["same_tokens"], document["compared_tokens"]), (30, 30))

    def test_bench_needs_no_tokenizer(self):
        folder = tiny_hybrid.write_model(self.folder / "bare")
        (folder / "tokenizer.json").unlink()
        document = self.run_json("bench", "-p", 8, "-n", 4, "--reps", 1, "--model", folder)
        self.assertGreater(document["trace_bytes_per_token"], 0)
        document = self.run_json("bench", "--no-cache", "-p", 8, "-n", 4, "--reps", 1, "--model",
                                 folder)
        self.assertEqual(document["same_tokens"], 4)
        self.assertIn("tokenizer.json", self.refused(3, "generate", "Hi", "--model", folder))

    def test_bench_counts_the_state(self):
        document = self.run_json("bench", "-p", 8, "-n", 4, "--reps", 1, "--no-trace", "--model",
                                 self.hybrid)
        n_mamba = tiny_hybrid.LAYERS.count("M")
        inner = tiny_hybrid.MAMBA_HEADS * tiny_hybrid.MAMBA_HEAD_DIM
        convolved = inner + 2 * tiny_hybrid.GROUPS * tiny_hybrid.STATE
        floats = inner * tiny_hybrid.STATE + (tiny_hybrid.KERNEL - 1) * convolved
        self.assertEqual(document["mamba_bytes_per_token"], 4 * n_mamba * floats)
        # Two heads of 8, keys and values; the steps see 9 to 12 positions; float32 or bfloat16.
        self.assertIn(document["kv_bytes_per_token"] / (2 * 16 * 10.5), (2, 4))
        self.assertAlmostEqual(
            document["bytes_per_token"],
            document["weight_bytes_per_token"] + document["mamba_bytes_per_token"]
            + document["kv_bytes_per_token"])

    def test_threads_neighbours_and_copies_change_nothing(self):
        alone = [self.generate(prompt, "--max-new-tokens", 12)["ids"]
                 for prompt in ("Hi", "Hello you")]
        prompts = self.folder / "prompts.jsonl"
        prompts.write_text('"Hi"\n"Hello you"\n')
        together = self.run_json("generate", "--raw", "--prompts-file", prompts, "--model",
                                 self.hybrid, "--max-new-tokens", 12, "--eos-token-id", "none",
                                 "--threads", 1)
        self.assertEqual([one["ids"] for one in together["sequences"]], alone)
        drawn = ["--max-new-tokens", 12, "--do-sample", "--seed", 5]
        three = self.generate("Hi", *drawn, "--num-return-sequences", 3)["sequences"]
        self.assertEqual(three[0]["ids"], self.generate("Hi", *drawn)["ids"])
        self.assertNotEqual(three[1]["ids"], three[2]["ids"])

    def rows(self, ids):
        """Logits of every position, from a state that has seen nothing else."""
        document = self.run_json("logits", "--ids", ",".join(map(str, ids)), "--all", "--full",
                                 "--model", self.hybrid)
        return [row["logits"] for row in document["rows"]]

    def test_copies_of_a_state_do_not_see_each_other(self):
        three = self.generate("Hi", "--max-new-tokens", 10, "--do-sample", "--seed", 9,
                              "--num-return-sequences", 3, "--temperature", 3.0, "--top", 1)
        for number, sequence in enumerate(three["sequences"]):
            steps = [step for step in three["steps"] if step["sequence"] == number]
            rows = self.rows(three["prompt"]["ids"] + sequence["ids"][:-1])[-len(steps):]
            for step, row in zip(steps, rows):
                # Token by token and in one go: float32 sums in another order.
                self.assertAlmostEqual(step["logit"], row[step["id"]],
                                       delta=1e-4 * max(map(abs, row)))

    def test_beams(self):
        document = self.generate("Hi", "--max-new-tokens", 8, "--num-beams", 4,
                                 "--num-return-sequences", 4)
        scores = [one["beam_score"] for one in document["sequences"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        n_prompt = len(document["prompt"]["ids"])
        for one in document["sequences"]:
            rows = self.rows(document["prompt"]["ids"] + one["ids"])[n_prompt - 1:]
            total = 0.0
            bound = 0.0
            for row, token in zip(rows, one["ids"]):
                top = max(row)
                total += row[token] - top - math.log(sum(math.exp(x - top) for x in row))
                # A logit and the log of the sum may each be off by the bound of a logit.
                bound += 2e-4 * max(map(abs, row))
            self.assertAlmostEqual(one["beam_score"], total / 8, delta=bound / 8)

    def test_guidance(self):
        guided = self.generate("Hi there", "--max-new-tokens", 10, "--guidance-scale", 2.0)
        again = self.generate("Hi there", "--max-new-tokens", 10, "--guidance-scale", 2.0,
                              "--threads", 1)
        self.assertEqual(guided["ids"], again["ids"])
        self.assertTrue(guided["settings"]["guidance_scale"]["acts"])

    def test_whatif(self):
        path = self.folder / "run.jsonl"
        self.generate("Hi", "--max-new-tokens", 6, "--do-sample", "--seed", 2, "--trace", path)
        document = self.run_json("whatif", path, "--top-k", 1)
        self.assertEqual(len(document["sequences"][0]["steps"]) if "sequences" in document
                         else len(document["steps"]), 6)

    def test_chat_restores_a_snapshot_where_the_answer_changed(self):
        arguments = ["--max-new-tokens", 10, "--thinking-budget", 4, "--logit-bias",
                     f"{tiny_model.END_ID}:-100"]
        document = self.run_json("chat", "--model", self.thinker, *arguments,
                                 stdin=b"Hello\nAgain\nAnd again\n")
        # Thoughts leave the history, so each turn goes back to the end of the message before them.
        prompt = ""
        for number, turn in enumerate(document["turns"]):
            if number == 0:
                self.assertEqual(turn["reused_prompt_tokens"], 0)
            else:
                kept = len(self.run_json("tokenize", prompt, "--model", self.thinker)["ids"])
                self.assertEqual(turn["reused_prompt_tokens"], kept)
            path = self.folder / "messages.json"
            path.write_text(json.dumps(document["messages"][:2 * number + 1]))
            rendered = self.run_json("template", "--messages", path, "--model", self.thinker)
            raw = self.run_json("generate", "--ids-in", ",".join(map(str, rendered["ids"])),
                                "--model", self.thinker, *arguments)
            self.assertEqual(raw["ids"], turn["ids"])
            prompt = rendered["text"].removesuffix("<|start|>assistant\n<think>\n")
            self.assertNotEqual(prompt, rendered["text"])

    def test_chat_goes_on_from_its_end(self):
        # No end token and no thinking: the answer's ids come back as they were.
        document = self.run_json("chat", "--model", self.hybrid, "--max-new-tokens", 6,
                                 "--logit-bias", f"{ord('k')}:50", stdin=b"Hello\nAgain\n")
        first, second = document["turns"]
        self.assertEqual(second["reused_prompt_tokens"],
                         first["prompt_tokens"] + len(first["ids"]) - 1)

    def test_reset_forgets_the_state(self):
        document = self.run_json("chat", "--model", self.hybrid, "--max-new-tokens", 6,
                                 stdin=b"Hello\n/reset\nHello\n")
        first, second = document["turns"]
        self.assertEqual(second["reused_prompt_tokens"], 0)
        self.assertEqual(first["ids"], second["ids"])


if __name__ == "__main__":
    unittest.main()
