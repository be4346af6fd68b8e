"""whatif: questions to a stored run; every decided step is checked against a real run."""

import json
import unittest

from cli_case import CliCase

NO_END = ["--eos-token-id", "none"]


def flags(settings):
    """{"top_k": 3, "do_sample": False} as flags."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", value]
    return words


class WhatIf(CliCase):
    def setUp(self):
        self.path = self.folder / f"{self.id().rsplit('.', 1)[-1]}.jsonl"

    def run_model(self, *arguments):
        return self.run_json("generate", "--raw", "Hi", "--model", self.model, *NO_END,
                             "--max-new-tokens", 16, *arguments)

    def ask(self, *arguments):
        return self.run_json("whatif", self.path, *arguments)

    def check_against_a_run(self, arguments, changed, trace=()):
        """The first change is where a run with those settings really leaves the old one."""
        old = self.run_model(*flags(arguments), "--trace", self.path, *trace)["ids"]
        new = self.run_model(*flags({**arguments, **changed}))["ids"]
        answer = self.ask(*flags(changed))
        self.assertEqual([step["old_id"] for step in answer["steps"]], old)
        first = next((i for i, pair in enumerate(zip(old, new)) if pair[0] != pair[1]), None)
        said = answer["first_changes"][0] if answer["first_changes"] else None
        if said is not None and answer["steps"][said]["verdict"] == "undecided":
            # All before it must stay.
            self.assertTrue(first is None or first >= said)
            return None
        self.assertEqual(said, first)
        if first is not None:
            step = answer["steps"][first]
            self.assertEqual(step["verdict"], "differs")
            self.assertEqual(step["new_id"], new[first])
            self.assertGreater(step["flip"]["high"], 0)
            self.assertTrue(step["why"])
        return first

    def test_candidates_are_enough_where_a_filter_is_narrow(self):
        sampling = {"do_sample": True, "top_k": 8, "seed": 11}
        for changed in ({"temperature": 0.4}, {"do_sample": False}, {"seed": 12}, {"top_k": 2}):
            with self.subTest(changed=changed):
                self.assertIsNotNone(self.check_against_a_run(sampling, changed))

    def test_whole_rows_settle_everything(self):
        for seed in range(4):
            sampling = {"do_sample": True, "top_k": 0, "seed": seed}
            for changed in ({"temperature": 0.7}, {"top_p": 0.5}, {"top_k": 40},
                            {"repetition_penalty": 1.3}, {"logit_bias": "65:3"},
                            {"typical_p": 0.6}, {"semantics": "vllm", "min_p": 0.2}):
                with self.subTest(seed=seed, changed=changed):
                    self.check_against_a_run(sampling, changed, ["--trace-full"])
                    verdicts = {step["verdict"] for step in self.ask(*flags(changed))["steps"]}
                    self.assertNotIn("undecided", verdicts)

    def test_what_a_trace_cannot_tell_is_bounded_not_guessed(self):
        self.run_model("--do-sample", "--top-k", 5, "--seed", 1, "--trace", self.path,
                       "--trace-candidates", 6)
        answer = self.ask("--top-k", 60)
        self.assertEqual(answer["settings"]["top_k"], {"value": 60, "origin": "given"})
        self.assertEqual(answer["settings"]["seed"], {"value": 1, "origin": "run"})
        open_steps = [step for step in answer["steps"] if step["verdict"] == "undecided"]
        self.assertTrue(open_steps)
        for step in open_steps:
            self.assertIsNone(step["new_id"])
            self.assertLess(step["flip"]["low"], step["flip"]["high"])
        self.assertIn("--trace-full", answer["remedy"])
        text = self.run_ok("whatif", self.path, "--top-k", 60)
        self.assertIn("the trace cannot tell", text)
        self.assertIn("--trace-candidates", text)

    def test_a_trace_holds_enough_for_the_top_k_of_its_run(self):
        # Without --trace-candidates: the default top_k of 50 acts.
        sampling = {"do_sample": True, "seed": 4}
        for changed in ({"temperature": 0.5}, {"top_k": 30}, {"top_p": 0.5}):
            with self.subTest(changed=changed):
                self.check_against_a_run(sampling, changed)
                verdicts = {step["verdict"] for step in self.ask(*flags(changed))["steps"]}
                self.assertNotIn("undecided", verdicts)

    def test_in_words(self):
        self.run_model("--do-sample", "--seed", 3, "--top-k", 10, "--trace", self.path)
        text = self.run_ok("whatif", self.path, "--no-do-sample")
        self.assertIn("What if do_sample=false", text)
        self.assertRegex(text, r"Step \d+ is the first to change: ")
        same = self.run_ok("whatif", self.path, "--top-k", 10)
        self.assertIn("No step would have chosen otherwise", same)
        for columns in ("40", "200"):
            narrow = self.run_ok("whatif", self.path, "--no-do-sample", "--all",
                                 env=self.environment(COLUMNS=columns))
            self.assertLessEqual(max(map(len, narrow.splitlines())), int(columns))

    def test_questions_that_cannot_be_asked(self):
        self.run_model("--do-sample", "--seed", 3, "--logits-dtype", "bfloat16", "--trace",
                       self.path)
        self.assertIn("num_beams", self.refused(3, "whatif", self.path, "--num-beams", 2))
        self.assertIn("guidance_scale",
                      self.refused(3, "whatif", self.path, "--guidance-scale", 1.5))
        self.assertIn("float32",
                      self.refused(3, "whatif", self.path, "--logits-dtype", "float32"))
        self.assertIn("top_p", self.refused(3, "whatif", self.path, "--top-p", "-0.1"))
        self.refused(2, "whatif", self.path)
        self.refused(2, "whatif", self.path, "--explain", "--top-k", 1)
        self.refused(2, "whatif")

    def test_broken_traces(self):
        self.run_model("--trace", self.path)
        good = self.path.read_text().splitlines()
        broken = self.folder / "broken.jsonl"

        def refused(lines, word=""):
            broken.write_text("\n".join(lines) + "\n")
            line = self.refused(3, "whatif", broken, "--top-k", 1)
            self.assertIn(str(broken), line)
            self.assertIn(word, line)

        refused(good[:-1])
        refused(good[1:])
        refused(good[:3] + [good[3][:40]] + good[4:], "4")
        refused(["{}"])
        refused([""])
        first = json.loads(good[0])
        refused([json.dumps(dict(first, schema="logitlab.trace/999"))] + good[1:],
                "999")
        refused([json.dumps(dict(first, surprise=1))] + good[1:], "surprise")
        self.refused(3, "whatif", self.folder / "nowhere.jsonl", "--top-k", 1)
        self.refused(3, "whatif", self.folder, "--top-k", 1)

    def test_a_changed_draw_is_noticed(self):
        self.run_model("--do-sample", "--seed", 3, "--trace", self.path)
        lines = self.path.read_text().splitlines()
        step = json.loads(lines[2])
        step["draw"] = step["draw"] * 1.5 + 0.1
        self.path.write_text("\n".join([*lines[:2], json.dumps(step), *lines[3:]]) + "\n")
        self.assertIn("step 1", self.refused(3, "whatif", self.path, "--top-k", 1))


if __name__ == "__main__":
    unittest.main()
