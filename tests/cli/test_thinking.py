"""Thinking and answer are told apart by ids: opened by the prompt or by the model, closed, cut."""

import unittest

import tiny_model
from cli_case import CliCase

END, OPEN, CLOSE = tiny_model.END_ID, tiny_model.OPEN_ID, tiny_model.CLOSE_ID
LETTER = ord("k")
KEYS = ("thinking_tokens", "answer_tokens", "thinking_outcome")


class Thinking(CliCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.thinker = tiny_model.write_model(cls.folder / "thinker", thinking=True)

    def generate(self, *arguments, bias=(), **options):
        """A run whose tokens are steered by biases that no logit of a tiny model reaches."""
        pairs = ",".join(f"{token}:{value}" for token, value in bias)
        return self.run_json("generate", "Hi", "--model", self.thinker,
                             *(["--logit-bias", pairs] if pairs else []), *arguments, **options)

    def outcome(self, document):
        sequence = document["sequences"][0]
        return tuple(sequence[key] for key in KEYS)

    def test_opened_by_the_prompt_and_cut(self):
        document = self.generate("--max-new-tokens", 5, bias=[(LETTER, 50)])
        self.assertTrue(document["prompt"]["text"].endswith("<think>\n"))
        self.assertEqual(document["ids"], [LETTER] * 5)
        self.assertEqual(self.outcome(document), (5, 0, "cut_in_thinking"))
        sequence = document["sequences"][0]
        self.assertEqual((sequence["thinking_text"], sequence["answer_text"]), ("kkkkk", ""))
        self.assertIn("limit of tokens", sequence["thinking_remark"])
        self.assertIn("5 tokens", sequence["thinking_remark"])

    def test_budget_closes_it_and_an_answer_follows(self):
        document = self.generate("--max-new-tokens", 8, "--thinking-budget", 4,
                                 bias=[(LETTER, 50)])
        # The line break of the template is a token after the mark, so three more are left.
        self.assertEqual(document["ids"], [LETTER] * 3 + [CLOSE] + [LETTER] * 4)
        self.assertEqual(self.outcome(document), (4, 4, "answered"))
        sequence = document["sequences"][0]
        self.assertEqual((sequence["thinking_text"], sequence["answer_text"]), ("kkk", "kkkk"))
        self.assertIsNone(sequence["thinking_remark"])
        self.assertEqual(document["settings"]["thinking_budget"]["acts"], True)

    def test_said_nothing_after_it(self):
        document = self.generate("--max-new-tokens", 9, "--thinking-budget", 3,
                                 "--min-new-tokens", 3, bias=[(LETTER, 50), (END, 100)])
        self.assertEqual(document["ids"], [LETTER] * 2 + [CLOSE, END])
        self.assertEqual(document["stop_reason"], "eos_token")
        self.assertEqual(self.outcome(document), (3, 0, "said_nothing"))
        self.assertIn("said nothing", document["sequences"][0]["thinking_remark"])

    def test_white_space_is_no_answer(self):
        document = self.generate("--max-new-tokens", 6, "--thinking-budget", 3,
                                 bias=[(ord("\n"), 50)])
        self.assertEqual(self.outcome(document), (3, 3, "said_nothing"))

    def test_end_token_inside_it(self):
        document = self.generate("--max-new-tokens", 9, "--min-new-tokens", 2,
                                 bias=[(LETTER, 50), (END, 100)])
        self.assertEqual(document["ids"], [LETTER, LETTER, END])
        self.assertEqual(self.outcome(document), (2, 0, "ended_in_thinking"))

    def test_switched_off(self):
        document = self.generate("--max-new-tokens", 3, "--think", "off", bias=[(LETTER, 50)])
        self.assertTrue(document["prompt"]["text"].endswith("<think></think>"))
        self.assertEqual(self.outcome(document), (0, 3, None))
        for key in ("thinking_remark", "thinking_text", "answer_text"):
            self.assertIsNone(document["sequences"][0][key])

    def test_opened_by_the_model(self):
        document = self.run_json("generate", "--ids-in", 72, "--model", self.thinker,
                                 "--max-new-tokens", 6, "--forced-bos-token-id", OPEN,
                                 "--thinking-budget", 2, "--logit-bias", f"{LETTER}:50")
        self.assertEqual(document["ids"], [OPEN, LETTER, LETTER, CLOSE, LETTER, LETTER])
        self.assertEqual(self.outcome(document), (4, 2, "answered"))
        sequence = document["sequences"][0]
        self.assertEqual((sequence["thinking_text"], sequence["answer_text"]), ("kk", "kk"))

    def test_sequences_count_apart_and_beams_too(self):
        for setting in ("--num-return-sequences", "--num-beams"):
            sampling = ["--do-sample"] if setting == "--num-return-sequences" else [
                "--num-return-sequences", 2]
            document = self.generate("--max-new-tokens", 4, setting, 2, *sampling,
                                     bias=[(LETTER, 50)])
            for sequence in document["sequences"]:
                self.assertEqual(tuple(sequence[key] for key in KEYS),
                                 (4, 0, "cut_in_thinking"))

    def test_remark_and_receipt_on_standard_error(self):
        done = self.run_cli("generate", "Hi", "--model", self.thinker, "--max-new-tokens", 5,
                            "--logit-bias", f"{LETTER}:50", env=self.environment(COLUMNS="200"))
        text = done.stderr.decode()
        self.assertIn("the limit of tokens came inside the thinking (5 tokens): there is no answer",
                      text)
        self.assertIn("--thinking-budget", text)
        self.assertIn("thinking_tokens=5 answer_tokens=0", text)


class ThinkingInChat(CliCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.thinker = tiny_model.write_model(cls.folder / "thinker", thinking=True)

    def chat(self, *arguments, lines=b"Hello\nAgain\n"):
        return self.run_json("chat", "--model", self.thinker, "--logit-bias", f"{LETTER}:50",
                             *arguments, stdin=lines)

    def test_thoughts_are_apart_from_the_answer(self):
        document = self.chat("--max-new-tokens", 8, "--thinking-budget", 4)
        answers = [message for message in document["messages"] if message["role"] == "assistant"]
        for answer in answers:
            self.assertEqual(answer, {"role": "assistant", "content": "kkkk",
                                      "reasoning_content": "kkk"})
        for turn in document["turns"]:
            self.assertEqual(tuple(turn[key] for key in KEYS), (4, 4, "answered"))

    def test_dropped_thoughts_leave_the_state_true(self):
        document = self.chat("--max-new-tokens", 8, "--thinking-budget", 4)
        second = document["turns"][1]
        # Everything before the first answer's thinking is reused, and nothing after it.
        first_messages = "<|start|>user\nHello<|end|>\n<|start|>assistant\n<think>"
        shared = len(self.run_json("tokenize", first_messages, "--model", self.thinker)["ids"])
        self.assertEqual(second["reused_prompt_tokens"], shared)
        prompt = first_messages + "</think>kkkk<|end|>\n<|start|>user\nAgain<|end|>\n" \
                                  "<|start|>assistant\n<think>\n"
        raw = self.run_json("generate", "--raw", prompt, "--model", self.thinker,
                            "--max-new-tokens", 8, "--thinking-budget", 4,
                            "--logit-bias", f"{LETTER}:50")
        self.assertEqual(len(raw["prompt"]["ids"]), second["prompt_tokens"])
        self.assertEqual(raw["ids"], second["ids"])

    def test_silence_is_named(self):
        done = self.run_cli("chat", "--model", self.thinker, "--max-new-tokens", 4,
                            "--logit-bias", f"{LETTER}:50", stdin=b"Hello\n")
        text = done.stderr.decode()
        self.assertIn("came inside the thinking (4 tokens)", text)
        self.assertIn("/set thinking_budget", text)
        self.assertNotIn("the answer was cut", text)


if __name__ == "__main__":
    unittest.main()
