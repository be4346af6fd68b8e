"""tree: exact probabilities of all texts, through the real binary."""

import math
import unittest

from cli_case import CliCase

# No end token: a tree of top_k=2 and three tokens has eight texts.
SMALL = ["--raw", "Hi", "--do-sample", "--top-k", 2, "--max-new-tokens", 3,
         "--eos-token-id", "none"]


class Tree(CliCase):
    def tree(self, *arguments):
        return self.run_json("tree", *arguments, "--model", self.model)

    def test_a_whole_tree_has_all_texts(self):
        found = self.tree(*SMALL, "--mass", 1)
        self.assertTrue(found["is_complete"])
        self.assertEqual(found["n_texts"], 8)
        # Eight products of three quotients: far fewer roundings than 1e-12 / 2^-53.
        self.assertAlmostEqual(sum(text["probability"] for text in found["texts"]), 1, delta=1e-12)
        same = sum(text["probability"] ** 2 for text in found["texts"])
        self.assertAlmostEqual(found["same_text"]["low"], same, delta=1e-12)
        # Two runs differ with probability 1 - same: that many texts more than one are expected.
        two = next(item for item in found["expected_distinct"] if item["runs"] == 2)
        self.assertAlmostEqual(two["low"], 2 - same, delta=1e-12)
        self.assertEqual(found["nodes"], 6)

    def test_greedy_has_the_text_of_generate(self):
        words = ["--raw", "Hi", "--no-do-sample", "--max-new-tokens", 5]
        found = self.tree(*words)
        self.assertEqual(found["n_texts"], 1)
        self.assertEqual(found["texts"][0]["probability"], 1)
        self.assertEqual(found["texts"][0]["ids"],
                         self.run_json("generate", *words, "--model", self.model)["ids"])

    def test_a_budget_leaves_ranges(self):
        whole = self.tree(*SMALL, "--mass", 1)
        part = self.tree(*SMALL, "--mass", 1, "--max-nodes", 3)
        self.assertFalse(part["is_complete"])
        self.assertEqual(part["nodes"], 3)
        self.assertLess(part["same_text"]["low"], part["same_text"]["high"])
        self.assertLessEqual(part["same_text"]["low"], whole["same_text"]["low"])
        self.assertGreaterEqual(part["same_text"]["high"], whole["same_text"]["high"])

    def test_the_answer_comes_first_and_fits(self):
        env = self.environment(COLUMNS="100")
        text = self.run_ok("tree", *SMALL, "--mass", 1, "--model", self.model, env=env)
        self.assertTrue(text.startswith("8 texts make up 100.0 % of what these settings allow"),
                        text)
        self.assertLessEqual(max(map(len, text.splitlines())), 100)
        self.assertIn("Two runs have parted by step", text)

    def test_samples_agree_with_the_tree(self):
        path, store = self.folder / "exact.yaml", self.folder / "exact.db"
        path.write_text("name: exact\nquestion: Do samples follow the tree?\nprompt: Hi\n"
                        "chat: false\nsettings: {do_sample: true, top_k: 2, max_new_tokens: 3, "
                        "eos_token_id: []}\nsweep: {temperature: [0.3, 0.6, 1.0, 2.0]}\n"
                        "runs: 5000\nexact: {mass: 1.0, max_nodes: 50}\n")
        (study,) = self.run_json("study", path, "--model", self.model, "--store", store,
                                 "--no-report", "--set", "candidates=2")["studies"]
        self.assertEqual(len(study["exact_agreement"]), 4)
        for one, setting in zip(study["exact_agreement"], study["settings"]):
            self.assertEqual(one["runs"], 5000)
            # A share further off than 4.5 standard deviations comes once in 147,000 times. The
            # settings share their draws, so 95 % intervals would fail together.
            spread = math.sqrt(one["exact"] * (1 - one["exact"]) / one["runs"])
            self.assertAlmostEqual(one["hits"] / one["runs"], one["exact"], delta=4.5 * spread)
            low, high = one["sampled"]
            self.assertEqual(one["agrees"], low <= one["exact"] <= high)
            self.assertLess(high - low, 0.03)
            self.assertEqual(setting["unique_ids"], 8)

    def test_refusals(self):
        self.refused(2, "tree", "Hi", "--raw", "--chat")
        self.refused(2, "tree", "Hi", "--mass", 1.5)
        line = self.refused(3, "tree", "--raw", "Hi", "--num-beams", 2, "--model", self.model)
        self.assertIn("num_beams", line)


if __name__ == "__main__":
    unittest.main()
