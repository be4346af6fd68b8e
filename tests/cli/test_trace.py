"""generate --trace, --explain, --ledger, several answers; the refusals of bad settings."""

import json
import os
import shutil
import signal
import subprocess
import time
import unittest

import tiny_model
from cli_case import CliCase

NO_END = ["--eos-token-id", "none"]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


class Trace(CliCase):
    def generate(self, *arguments, **options):
        return self.run_json("generate", "--raw", "Hi", "--model", self.model, *NO_END, *arguments,
                             **options)

    def test_the_file_tells_what_the_document_tells(self):
        path = self.folder / "run.jsonl"
        document = self.generate("--max-new-tokens", 7, "--do-sample", "--seed", 3, "--top-k", 9,
                                 "--trace", path, "--trace-candidates", 12)
        lines = records(path)
        self.assertEqual(len(lines), 1 + 7 + 1)
        ids = [line["id"] for line in lines[1:-1]]
        self.assertEqual(ids, document["ids"])
        for line in lines[1:-1]:
            self.assertIn(len(line["candidates"]), (12, 13))
            self.assertNotIn("logits", {key for key, value in line.items() if value})
        self.assertEqual(document["trace"], str(path))
        self.assertEqual([item for item in path.parent.iterdir()
                          if item.name.startswith("run.jsonl") and item != path], [])

    def test_the_trace_does_not_change_the_run(self):
        arguments = ["--max-new-tokens", 12, "--do-sample", "--seed", 5]
        plain = self.generate(*arguments)
        traced = self.generate(*arguments, "--trace", self.folder / "same.jsonl", "--trace-full")
        self.assertEqual(plain["ids"], traced["ids"])
        row = records(self.folder / "same.jsonl")[1]["logits"]
        self.assertTrue(row)

    def test_beams_leave_their_steps(self):
        path = self.folder / "beams.jsonl"
        document = self.generate("--max-new-tokens", 4, "--num-beams", 3,
                                 "--num-return-sequences", 2, "--trace", path)
        self.assertEqual(len(document["sequences"]), 2)
        scores = [sequence["beam_score"] for sequence in document["sequences"]]
        self.assertEqual(scores, sorted(scores, reverse=True))
        self.assertTrue(document["beam_stop"])
        self.assertGreater(len(records(path)), 3)
        line = self.refused(3, "whatif", path, "--top-k", 3)
        self.assertIn("num_beams", line)

    def test_nothing_is_left_of_a_run_that_was_killed(self):
        folder = self.folder / "killed"
        folder.mkdir()
        path = folder / "run.jsonl"
        process = subprocess.Popen(
            [self.binary, "generate", "--raw", "Hi", "--model", str(self.model), *NO_END,
             "--max-new-tokens", "900000", "--trace", str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment())
        try:
            self.assertTrue(process.stdout.read(64))  # it is at work
            time.sleep(0.2)
            process.send_signal(signal.SIGKILL)
        finally:
            process.stdout.close()
            process.wait()
        self.assertFalse(path.exists())

    def test_a_run_that_was_stopped_leaves_a_whole_trace(self):
        path = self.folder / "stopped.jsonl"
        process = subprocess.Popen(
            [self.binary, "generate", "--raw", "Hi", "--model", str(self.model), *NO_END,
             "--max-new-tokens", "900000", "--trace", str(path)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self.environment())
        self.assertTrue(process.stdout.read(64))
        process.send_signal(signal.SIGINT)
        process.communicate()
        self.assertEqual(process.returncode, 130)
        lines = records(path)
        self.assertGreater(len(lines), 2)
        self.assertEqual(lines[-1]["sequences"][0]["stop_reason"], "cancelled")
        self.run_ok("whatif", path, "--top-k", 3)

    def test_places_that_cannot_be_written_are_refused_before_the_model_is_read(self):
        nowhere = self.folder / "no/such/folder/run.jsonl"
        missing = self.folder / "no-model"
        line = self.refused(3, "generate", "Hi", "--model", missing, "--trace", nowhere)
        self.assertIn(str(nowhere), line)
        line = self.refused(3, "generate", "Hi", "--model", missing, "--trace", self.folder)
        self.assertIn(str(self.folder), line)
        if os.geteuid() != 0:
            locked = self.folder / "locked"
            locked.mkdir(mode=0o500)
            self.assertIn(str(locked), self.refused(3, "generate", "Hi", "--model", missing,
                                                    "--trace", locked / "run.jsonl"))

    def test_a_full_disk_is_said(self):
        if not os.path.exists("/dev/full"):
            self.skipTest("no /dev/full here")
        done = self.run_cli("generate", "--raw", "Hi", "--model", self.model, *NO_END,
                            "--max-new-tokens", 400, "--trace", "/dev/full")
        self.assertEqual(done.returncode, 4)
        self.assertIn(b"/dev/full", done.stderr)

    def test_flags_that_need_a_trace(self):
        self.assertIn("--trace FILE", self.refused(2, "generate", "Hi", "--trace-full", "--model",
                                                   self.model))
        self.refused(2, "generate", "Hi", "--trace-candidates", "5", "--model", self.model)
        self.refused(2, "generate", "Hi", "--trace", "x", "--trace-candidates", "1001", "--model",
                     self.model)


class Answers(CliCase):
    def test_several_answers_are_numbered(self):
        arguments = ["generate", "--raw", "Hi", "--model", self.model, *NO_END, "--max-new-tokens",
                     5, "--do-sample", "--num-return-sequences", 3]
        text = self.run_ok(*arguments)
        for heading in ("[1] stop=length\n", "[2] stop=length\n", "[3] stop=length\n"):
            self.assertIn(heading, text)
        document = self.run_json(*arguments)
        self.assertEqual(len({tuple(item["ids"]) for item in document["sequences"]}), 3)
        self.assertEqual(document["sequences"][0]["ids"], document["ids"])
        rows = self.run_ok(*arguments, "--ids").splitlines()
        self.assertEqual([[int(word) for word in row.split(",")] for row in rows],
                         [item["ids"] for item in document["sequences"]])

    def test_more_answers_than_the_memory_holds(self):
        if not self.run_json("inspect", "--model", self.model)["memory_plan"]["system_bytes"]:
            self.skipTest("the system does not say how much memory it has")
        for arguments in (["--num-beams", 10**12],
                          ["--do-sample", "--num-return-sequences", 10**12]):
            line = self.refused(4, "generate", "Hi", "--model", self.model, *arguments)
            self.assertIn(f"{arguments[-2].lstrip('-').replace('-', '_')}: {10**12} found", line)
            self.assertIn("GiB are missing", line)

    def test_prompts_from_a_file_are_answered_as_they_would_be_alone(self):
        path = self.folder / "prompts.jsonl"
        path.write_text('"Hi"\n\n{"prompt": "A longer one"}\n')
        arguments = ["--raw", "--model", self.model, *NO_END, "--max-new-tokens", 6]
        both = self.run_json("generate", *arguments, "--prompts-file", path)
        alone = [self.run_json("generate", text, *arguments)["ids"]
                 for text in ("Hi", "A longer one")]
        self.assertEqual([item["ids"] for item in both["sequences"]], alone)
        self.assertEqual([item["prompt"] for item in both["sequences"]], [0, 1])
        self.assertIn("[2] prompt 2", self.run_ok("generate", *arguments, "--prompts-file", path))
        path.write_text('"Hi"\n17\n')
        self.assertIn("line 2", self.refused(3, "generate", *arguments, "--prompts-file", path))
        self.refused(2, "generate", "Hi", *arguments, "--prompts-file", path)

    def test_ids_as_the_prompt(self):
        arguments = ["--model", self.model, *NO_END, "--max-new-tokens", 4]
        by_ids = self.run_json("generate", "--ids-in", "72,105", *arguments)
        self.assertEqual(by_ids["prompt"], {"text": "Hi", "ids": [72, 105]})
        self.assertEqual(by_ids["ids"],
                         self.run_json("generate", "--raw", "Hi", *arguments)["ids"])
        self.refused(2, "generate", "--ids-in", "1,x", *arguments)
        self.refused(2, "generate", "--ids-in", "1", "--chat", *arguments)
        self.assertIn("9999", self.refused(3, "generate", "--ids-in", "9999", *arguments))

    def test_stop_strings_are_collected(self):
        arguments = ["generate", "--raw", "Hi", "--model", self.model, *NO_END, "--max-new-tokens",
                     40]
        text = self.run_json(*arguments)["text"]
        stop = next(letter for letter in text[3:] if " " < letter < "~")
        stopped = self.run_json(*arguments, "--stop-strings", "never this", "--stop-strings", stop)
        self.assertEqual(stopped["settings"]["stop_strings"]["value"], ["never this", stop])
        self.assertEqual(stopped["stop_reason"], "stop_string")
        self.assertEqual(stopped["sequences"][0]["stop_string"], stop)
        self.assertTrue(stopped["text"].endswith(stop))
        self.assertLess(len(stopped["text"]), len(text))

    def test_lists_are_read_as_they_are_typed(self):
        document = self.run_json("generate", "--raw", "Hi", "--model", self.model, *NO_END,
                                 "--max-new-tokens", 3, "--bad-words-ids", "[[5],[7,8]]",
                                 "--logit-bias", "50:-100,11:5", "--suppress-tokens", "1,2",
                                 "--sequence-bias", "[[[7,8],-2.5]]")
        settings = document["settings"]
        self.assertEqual(settings["bad_words_ids"]["value"], [[5], [7, 8]])
        self.assertEqual(settings["suppress_tokens"]["value"], [1, 2])
        self.assertIs(settings["suppress_tokens"]["acts"], True)


class Ledger(CliCase):
    def test_what_acts_is_said_with_every_run(self):
        done = self.run_cli("generate", "Hi", "--model", self.model, "--max-new-tokens", 2,
                            "--do-sample", env=self.environment(COLUMNS="200"))
        text = done.stderr.decode()
        self.assertIn("top_k=50 (default)", text)  # acts, though nobody asked for it
        self.assertIn("max_new_tokens=2 (given)", text)
        self.assertIn(f"stops at: {tiny_model.END_ID} '<|end|>' (generation_config.json)", text)

    def test_what_does_not_act_is_said_when_it_was_given(self):
        document = self.run_json("generate", "Hi", "--model", self.model, "--max-new-tokens", 2,
                                 "--temperature", 0.5)
        entry = document["settings"]["temperature"]
        self.assertEqual((entry["value"], entry["origin"], entry["acts"]), (0.5, "given", False))
        self.assertTrue(entry["why"])
        self.assertTrue(any("temperature" in warning for warning in document["warnings"]))
        self.assertEqual(document["stop_ids"], [{"id": tiny_model.END_ID, "text": "<|end|>",
                                                 "origin": "generation_config.json"}])

    def test_the_whole_table(self):
        done = self.run_cli("generate", "Hi", "--model", self.model, "--max-new-tokens", 2,
                            "--ledger", env=self.environment(COLUMNS="200"))
        text = done.stderr.decode()
        for name in ("temperature", "num_beams", "repetition_penalty", "thinking_budget"):
            self.assertRegex(text, rf"(?m)^{name} ")


class BadSettings(CliCase):
    """Refused with name, value and range, before the weights are read."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broken = cls.folder / "broken"
        shutil.copytree(cls.model, cls.broken)
        for path in cls.broken.glob("*.safetensors"):
            path.write_bytes(b"no weights here")

    def refused_setting(self, *arguments):
        return self.refused(3, "generate", "Hi", "--model", self.broken, *arguments)

    def test_the_weights_really_cannot_be_read(self):
        self.assertIn("safetensors", self.refused_setting())

    def test_ranges(self):
        for arguments, words in [
                (["--do-sample", "--top-p", "-0.1"], ["top_p", "-0.1"]),
                (["--do-sample", "--temperature", "0"], ["temperature", "0"]),
                (["--do-sample", "--temperature", "-1"], ["temperature", "-1"]),
                (["--do-sample", "--top-k", "-5"], ["top_k", "-5"]),
                (["--do-sample", "--min-p", "1.5"], ["min_p", "1.5"]),
                (["--do-sample", "--typical-p", "-0.2"], ["typical_p", "-0.2"]),
                (["--repetition-penalty", "-1"], ["repetition_penalty", "-1"]),
                (["--max-new-tokens", "-3"], ["max_new_tokens", "-3"]),
                (["--max-new-tokens", "0"], ["max_new_tokens", "0"]),
                (["--min-new-tokens", "-1"], ["min_new_tokens", "-1"]),
                (["--num-beams", "0"], ["num_beams", "0"]),
                (["--num-return-sequences", "0"], ["num_return_sequences", "0"]),
                (["--num-beams", "2", "--num-return-sequences", "3"],
                 ["num_return_sequences", "3", "2"]),
                (["--num-return-sequences", "2"], ["num_return_sequences", "2", "do_sample"]),
                (["--presence-penalty", "3"], ["presence_penalty", "3"]),
                (["--early-stopping", "perhaps"], ["early_stopping", "perhaps"]),
                (["--semantics", "other"], ["semantics", "other"]),
                (["--bad-words-ids", "[[]]"], ["bad_words_ids"]),
                (["--num-beams", "2", "--top", "3"], ["--top", "num_beams=2"]),
                (["--num-beams", "2", "--explain"], ["--explain", "num_beams"]),
        ]:
            with self.subTest(arguments=arguments):
                line = self.refused_setting(*arguments)
                for word in words:
                    self.assertIn(word, line)
                self.assertNotIn("safetensors", line)

    def test_above_one_top_p_is_off_as_in_transformers(self):
        arguments = ["--raw", "Hi", "--model", self.model, *NO_END, "--max-new-tokens", 8,
                     "--do-sample", "--seed", 2]
        document = self.run_json("generate", *arguments, "--top-p", "1.5")
        self.assertEqual(document["ids"], self.run_json("generate", *arguments)["ids"])
        self.assertIs(document["settings"]["top_p"]["acts"], False)

    def test_unknown_names(self):
        self.assertIn("did you mean --top-k?",
                      self.refused(2, "generate", "Hi", "--topk", "3", "--model", self.broken))
        self.assertIn("did you mean --num-beams?",
                      self.refused(2, "generate", "Hi", "--num-beam=3", "--model", self.broken))


if __name__ == "__main__":
    unittest.main()
