"""generate --explain and whatif --explain: the trace as a person reads it."""

import json
import re
import unittest

from cli_case import CliCase

NO_END = ["--eos-token-id", "none"]


class Explain(CliCase):
    def arguments(self, *more):
        return ["generate", "--raw", "Hi", "--model", self.model, *NO_END, "--max-new-tokens", 8,
                "--do-sample", "--seed", 2, "--top-k", 6, "--repetition-penalty", 1.2, *more]

    def test_the_default_is_the_least_likely_token(self):
        document = self.run_json(*self.arguments("--explain", "--top", 1))
        explained = document["explained"]
        likely = [step["probability"] for step in document["steps"]]
        self.assertEqual(explained["step"], likely.index(min(likely)))
        self.assertEqual(explained["id"], document["ids"][explained["step"]])
        self.assertAlmostEqual(explained["raw_probability"], min(likely), places=5)

    def test_a_step_as_json(self):
        step = self.run_json(*self.arguments("--explain=3"))["explained"]
        self.assertEqual(step["step"], 3)
        self.assertEqual([stage["name"] for stage in step["stages"]],
                         ["repetition_penalty", "top_k"])
        survivors = step["stages"][-1]["survivors"]
        self.assertGreaterEqual(survivors, 6)
        kept = [item for item in step["candidates"] if item["dropped_by"] is None]
        self.assertEqual(len(kept), survivors)
        self.assertAlmostEqual(sum(item["probability"] for item in kept), 1, places=5)
        for item in step["candidates"]:
            if item["dropped_by"] is not None:
                self.assertEqual(item["dropped_by"], "top_k")
                self.assertEqual(item["probability"], 0)
        self.assertIn(step["id"], [item["id"] for item in kept])
        self.assertTrue(any("draw" in sentence for sentence in step["words"]))

    def test_as_text(self):
        text = self.run_ok(*self.arguments("--explain=3"))
        for part in ("The answer, by doubt", "Its least likely tokens", "Step 3: ", "top_k=6",
                     "repetition_penalty=1.2", "cut: top_k", "chosen", "the draw: "):
            self.assertIn(part, text)
        # Without colours the doubt is written out.
        self.assertRegex(text, r"\{\d+%\}")
        self.assertNotIn("\x1b", text)

    def test_a_stored_run_reads_the_same(self):
        path = self.folder / "explained.jsonl"
        live = self.run_json(*self.arguments("--explain=3", "--trace", path))["explained"]
        stored = self.run_json("whatif", path, "--explain=3")
        self.assertEqual(len(live["words"]), len(stored["words"]))
        # A file is UTF-8: half a character has no text of its own there.
        for document in (live, stored):
            for item in (document, *document["candidates"]):
                item.pop("text")
            document.pop("words")
        self.assertEqual(live, stored)
        text = self.run_ok("whatif", path, "--explain=3")
        for part in ("The answer, by doubt", "Step 3: ", "top_k=6", "cut: top_k"):
            self.assertIn(part, text)

    def test_every_width(self):
        for columns in (40, 80, 200):
            text = self.run_ok(*self.arguments("--explain=3"),
                               env=self.environment(COLUMNS=str(columns)))
            view = text[text.index("\nIts least likely"):]
            self.assertLessEqual(max(map(len, view.splitlines())), columns)

    def test_candidates_stay_a_table_where_it_is_narrow(self):
        for columns, headers in ((38, ["token", "raw p", "final p"]),
                                 (60, ["token", "logit", "raw p", "final p"]),
                                 (100, ["token", "id", "logit", "raw p", "score", "final p"])):
            text = self.run_ok(*self.arguments("--explain=3"),
                               env=self.environment(COLUMNS=str(columns)))
            lines = [line for line in text.splitlines() if line.startswith("token ")]
            self.assertEqual(len(lines), 1, columns)
            for header in headers:
                self.assertIn(header, lines[0])

    def test_no_line_ends_inside_a_token(self):
        # A token that begins with a space is quoted as ' x'.
        for columns in range(38, 110, 3):
            text = self.run_ok(*self.arguments("--explain=3", "--logit-bias", "32:8"),
                               env=self.environment(COLUMNS=str(columns)))
            words = text[text.index("\nStep "):text.index("\nstage")]
            self.assertIn("' '", words)
            for line in words.splitlines():
                self.assertNotRegex(line, r"(^|[ (])'$")

    def test_colours_say_the_same(self):
        plain = self.run_ok(*self.arguments("--explain=3"))
        painted = self.run_ok(*self.arguments("--explain=3", "--color", "always"))
        self.assertIn("\x1b[31m", painted)
        bare = re.sub(r"\x1b\[[0-9;]*m", "", painted)
        self.assertEqual(bare[bare.index("\nIts least"):], plain[plain.index("\nIts least"):])

    def test_the_prompt_is_not_taken_for_a_step(self):
        text = self.run_ok("generate", "--explain", "Hi", "--raw", "--model", self.model, *NO_END,
                           "--max-new-tokens", 2)
        self.assertIn("Step ", text)

    def test_ties_are_said(self):
        # bfloat16 has so few numbers that a wide cut goes through equal logits somewhere.
        path = self.folder / "ties.jsonl"
        self.run_ok("generate", "--raw", "Hi", "--model", self.model, *NO_END, "--max-new-tokens",
                    40, "--do-sample", "--logits-dtype", "bfloat16", "--top-k", 100, "--trace", path)
        steps = [json.loads(line) for line in path.read_text().splitlines()[1:-1]]
        tied = [step["step"] for step in steps
                if any((stage.get("tied_kept") or 0) > 1 for stage in step["stages"])]
        self.assertTrue(tied)
        text = self.run_ok("whatif", path, f"--explain={tied[0]}")
        self.assertRegex(" ".join(text.split()), r"top_k=100 kept \d+ equal tokens at its cut")

    def test_a_tie_at_the_maximum_is_said(self):
        # Hot draws visit many contexts, so that two best logits are equal in some of them.
        path = self.folder / "maximum.jsonl"
        arguments = ["generate", "--raw", "Hi", "--model", self.model, *NO_END, "--do-sample",
                     "--temperature", 5, "--top-k", 0, "--max-new-tokens", 150]

        def tied_steps(seed, dtype):
            self.run_ok(*arguments, "--seed", seed, "--logits-dtype", dtype, "--trace", path)
            steps = [json.loads(line) for line in path.read_text().splitlines()[1:-1]]
            return [step["step"] for step in steps if step["n_tied_at_max"] > 1]

        self.assertEqual(tied_steps(1, "float32"), [])
        tied = next(filter(None, (tied_steps(seed, "bfloat16") for seed in range(1, 21))), [])
        self.assertTrue(tied, "no two best logits were equal in 3000 steps")
        text = self.run_ok("whatif", path, f"--explain={tied[0]}")
        self.assertIn("tie at the maximum: their bfloat16 logits are equal", " ".join(text.split()))

    def test_steps_that_are_not_there(self):
        self.assertIn("0 to 7", self.refused_step("--explain=8"))
        self.assertIn("sequence", self.refused_step("--explain=1:0"))
        self.refused(2, *self.arguments("--explain=x"))
        self.refused(2, *self.arguments("--explain=-1"))

    def refused_step(self, flag):
        done = self.run_cli(*self.arguments(flag))
        self.assertEqual(done.returncode, 3)
        return done.stderr.decode().splitlines()[-1]

    def test_several_sequences(self):
        text = self.run_ok(*self.arguments("--num-return-sequences", 2, "--explain=1:3"))
        self.assertIn("Step 1:3: ", text)


if __name__ == "__main__":
    unittest.main()
