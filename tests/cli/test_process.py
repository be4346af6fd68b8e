"""process: rows of logits through the processors, one JSON line in, one out."""

import base64
import json
import math
import os
import struct
import subprocess
import unittest

from cli_case import CliCase

ROW_A = [2, 1, 0, -1]
LIMIT_BYTES = 64 << 20


def lines_of(text):
    return [json.loads(line) for line in text.split("\n") if line]


def floats(text):
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


class ProcessCase(CliCase):
    def answers(self, *requests, arguments=(), code=0):
        """What is answered to objects, or to lines that are given as text."""
        text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n"
                       for line in requests)
        done = self.run_cli("process", *arguments, stdin=text.encode())
        self.assertEqual(done.returncode, code, done.stderr.decode())
        return lines_of(done.stdout.decode())

    def answer(self, request, *arguments):
        return self.answers(request, arguments=arguments)[0]

    def error(self, request):
        answer = self.answers(request, code=3)[0]
        self.assertEqual(set(answer), {"id", "line", "error"})
        return answer["error"]["message"]


class Answers(ProcessCase):
    def test_one_row(self):
        answer = self.answer({"id": "a", "logits": ROW_A, "input_ids": [0],
                              "config": {"do_sample": True, "top_p": 0.9}}, "--kept")
        self.assertEqual(answer["id"], "a")
        self.assertEqual(answer["scores"], [2, 1, 0, "-inf"])
        # The default of transformers: top_k is 50 and stands in the chain.
        self.assertEqual([stage["name"] for stage in answer["stages"]], ["top_k", "top_p"])
        self.assertEqual([stage["survivors"] for stage in answer["stages"]], [4, 3])
        self.assertEqual([stage["kept"] for stage in answer["stages"]], [[0, 1, 2, 3], [0, 1, 2]])
        self.assertEqual(answer["survivors"], 3)
        self.assertEqual(answer["greedy"], 0)
        total = sum(math.exp(x) for x in (2, 1, 0))
        for found, x in zip(answer["probabilities"], (2, 1, 0)):
            self.assertAlmostEqual(found, math.exp(x) / total, places=12)
        self.assertEqual(answer["probabilities"][3], 0)
        self.assertTrue(any("top_k=50" in text for text in answer["warnings"]), answer["warnings"])
        silent = self.answer({"logits": ROW_A, "config": {"do_sample": True, "top_k": 0}})
        self.assertEqual((silent["stages"], silent["warnings"]), ([], []))

    def test_ties(self):
        answer = self.answer({"logits": [3, 3, 1, 1, 0], "config": {"do_sample": True, "top_k": 3}})
        self.assertEqual(answer["ties"], {"n_logits_at_max": 2, "logits_at_max": [0, 1],
                                          "n_at_max": 2, "at_max": [0, 1]})
        stage = answer["stages"][0]
        self.assertEqual((stage["measure"], stage["threshold"]), ("score", 1))
        self.assertEqual((stage["cut_score"], stage["n_tied_kept"], stage["tied_kept"],
                          stage["n_tied_dropped"]), (1, 2, [2, 3], 0))
        cut = self.answer({"logits": [1] * 8, "config": {"do_sample": True, "top_k": 0, "top_p": 0.5}})
        self.assertEqual(cut["stages"][0]["n_tied_kept"], 4)
        self.assertEqual(cut["stages"][0]["n_tied_dropped"], 4)
        self.assertEqual(cut["ties"]["n_logits_at_max"], 8)
        self.assertEqual(cut["ties"]["n_at_max"], 4)

    def test_numbers_that_are_not_finite(self):
        answer = self.answer('{"logits": [1, null, NaN, Infinity, -Infinity, "nan", "inf", "-inf"]}')
        self.assertEqual(answer["scores"], [1, "-inf", "nan", "inf", "-inf", "nan", "inf", "-inf"])
        self.assertIsNone(answer["probabilities"])
        self.assertEqual(answer["greedy"], 2)
        again = self.answer({"logits": answer["scores"]})
        self.assertEqual(again["scores"], answer["scores"])
        mended = self.answer({"logits": answer["scores"], "config": {"remove_invalid_values": True}})
        largest = struct.unpack("<f", b"\xff\xff\x7f\x7f")[0]
        self.assertEqual([struct.unpack("<f", struct.pack("<f", x))[0] for x in mended["scores"]],
                         [1, -largest, 0, largest, -largest, 0, largest, -largest])

    def test_base64(self):
        packed = base64.b64encode(struct.pack("<4f", *ROW_A)).decode()
        request = {"logits_base64": packed, "config": {"do_sample": True, "temperature": 2.0}}
        answer = self.answer(request, "--encoding", "base64")
        self.assertEqual(floats(answer["scores_base64"]), [1, 0.5, 0, -0.5])
        self.assertAlmostEqual(sum(floats(answer["probabilities_base64"])), 1, places=6)
        self.assertNotIn("scores", answer)
        self.assertEqual(self.answer(request)["scores"], [1, 0.5, 0, -0.5])
        bare = self.answer(request, "--no-probabilities")
        self.assertNotIn("probabilities", bare)

    def test_sequence_and_prompt(self):
        request = {"logits": ROW_A, "input_ids": [1, 0, 1], "prompt_length": 1,
                   "config": {"min_new_tokens": 3, "eos_token_id": 0}}
        self.assertEqual(self.answer(request)["scores"], ["-inf", 1, 0, -1])
        # All ids are the prompt when nothing else is said; no answer token yet either.
        del request["prompt_length"]
        self.assertEqual(self.answer(request)["scores"], ["-inf", 1, 0, -1])
        request.update(prompt_length=0)
        self.assertEqual(self.answer(request)["scores"], ROW_A)
        penalised = self.answer({"logits": ROW_A, "input_ids": [0, 3, 3],
                                 "config": {"repetition_penalty": 2.0}})
        self.assertEqual(penalised["scores"], [1, 1, 0, -2])

    def test_p19_padding_would_be_penalised(self):
        request = {"logits": [1, 0.9, 0, 0], "config": {"repetition_penalty": 2.0}}
        self.assertEqual(self.answer({**request, "input_ids": [2]})["greedy"], 0)
        # As a left-padded batch of transformers sees it, with 0 as the padding.
        self.assertEqual(self.answer({**request, "input_ids": [0, 2]})["greedy"], 1)

    def test_forced_end_at_the_limit(self):
        request = {"logits": ROW_A, "input_ids": [1, 2], "config": {"forced_eos_token_id": 3}}
        self.assertEqual(self.answer({**request, "max_length": 3})["scores"],
                         ["-inf", "-inf", "-inf", 0])
        self.assertEqual(self.answer({**request, "max_length": 4})["scores"], ROW_A)
        config = {"forced_eos_token_id": 3, "max_new_tokens": 1}
        self.assertEqual(self.answer({**request, "config": config})["scores"],
                         ["-inf", "-inf", "-inf", 0])

    def test_model_config_and_warnings(self):
        answer = self.answer({"logits": ROW_A, "config": {"top_p": 0.5},
                              "model_config": {"do_sample": True, "top_k": 1, "top_p": 0.99,
                                               "watermarking_config": {"bias": 2.0},
                                               "transformers_version": "5"}})
        self.assertEqual([stage["name"] for stage in answer["stages"]], ["top_k", "top_p"])
        self.assertEqual(answer["survivors"], 1)
        self.assertTrue(any("watermarking_config" in text for text in answer["warnings"]))
        greedy = self.answer({"logits": ROW_A, "config": {"temperature": 0.5}})
        self.assertEqual(greedy["scores"], ROW_A)
        self.assertTrue(any("temperature" in text for text in greedy["warnings"]))

    def test_guidance_takes_the_other_row(self):
        answer = self.answer({"logits": [2, 0], "unguided_logits": [0, 0],
                              "config": {"guidance_scale": 2.0}})
        for found, want in zip(answer["scores"], (0.43929, -3.56071)):
            self.assertAlmostEqual(found, want, places=4)
        self.assertIn("unguided_logits",
                      self.error({"logits": [2, 0], "config": {"guidance_scale": 2.0}}))

    def test_beams_see_log_probabilities(self):
        answer = self.answer({"logits": ROW_A, "config": {"num_beams": 2}})
        self.assertEqual([stage["name"] for stage in answer["stages"]], ["log_softmax"])
        for found, want in zip(answer["scores"], (-.44019, -1.44019, -2.44019, -3.44019)):
            self.assertAlmostEqual(found, want, places=4)
        # Beam sampling keeps one token more than there are end tokens.
        kept = self.answer({"logits": ROW_A, "config": {"num_beams": 2, "do_sample": True,
                                                        "top_k": 1, "eos_token_id": [1, 2]}})
        self.assertEqual(kept["survivors"], 3)

    def test_logits_dtype(self):
        row = [10.01, 10.02, 0]
        self.assertEqual(self.answer({"logits": row})["ties"]["n_logits_at_max"], 1)
        rounded = self.answer({"logits": row, "config": {"logits_dtype": "bfloat16"}})
        self.assertEqual(rounded["scores"], [10, 10, 0])
        self.assertEqual(rounded["ties"]["logits_at_max"], [0, 1])
        self.assertEqual(rounded["greedy"], 0)

    def test_large_vocabulary(self):
        row = [((i * 7919) % 150001) / 1000 for i in range(150000)]
        packed = base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
        answer = self.answer({"logits_base64": packed, "config": {"do_sample": True}},
                             "--encoding", "base64")
        self.assertEqual(answer["survivors"], 50)
        self.assertEqual(answer["greedy"], max(range(len(row)), key=row.__getitem__))


class Streams(ProcessCase):
    def test_file_and_standard_input(self):
        path = self.folder / "rows.jsonl"
        path.write_text('{"id": 1, "logits": [1, 2]}\r\n\n{"id": 2, "logits": [2, 1]}')
        text = self.run_ok("process", path)
        self.assertEqual([answer["id"] for answer in lines_of(text)], [1, 2])
        self.assertEqual(self.run_ok("process", stdin=path.read_bytes()), text)
        self.assertEqual(self.run_ok("process", "-", stdin=path.read_bytes()), text)
        self.assertEqual(self.run_ok("process", "--json", path), text)

    def test_answers_before_the_input_ends(self):
        process = subprocess.Popen([self.binary, "process"], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, env=self.environment())
        try:
            for number in range(3):
                process.stdin.write(json.dumps({"id": number, "logits": [1, 2]}).encode() + b"\n")
                process.stdin.flush()
                self.assertEqual(json.loads(process.stdout.readline())["id"], number)
        finally:
            process.stdin.close()
            process.stdout.close()
            self.assertEqual(process.wait(timeout=60), 0)

    def test_empty_input(self):
        for text in (b"", b"\n \n"):
            done = self.run_cli("process", stdin=text)
            self.assertEqual((done.returncode, done.stdout), (0, b""))
            self.assertIn(b"no line", done.stderr)

    def test_files_that_cannot_be_read(self):
        self.assertIn("nowhere", self.refused(3, "process", self.folder / "nowhere"))
        self.assertIn("directory", self.refused(3, "process", self.folder))
        self.refused(2, "process", "--encoding", "hex")
        self.refused(2, "process", "one", "two")


class Errors(ProcessCase):
    def test_the_run_goes_on(self):
        good = {"id": "x", "logits": [1, 2]}
        binary = bytes(range(128, 200)).decode("latin-1")
        text = (json.dumps(good) + "\n" + '{"id": 5, "logits": [1, "two"]}\n' + "nonsense\n").encode()
        text += b"\x00\xff\xfe" + binary.encode("latin-1") + b"\n"
        text += json.dumps(good).encode() + b"\n" + b'{"id": 9, "logits": [1, 2], "conf'
        done = self.run_cli("process", stdin=text)
        self.assertEqual(done.returncode, 3)
        answers = lines_of(done.stdout.decode())
        self.assertEqual([answer["id"] for answer in answers], ["x", 5, None, None, "x", None])
        self.assertEqual([answer.get("line") for answer in answers], [None, 2, 3, 4, None, 6])
        self.assertTrue(all(answer["error"]["code"] == "invalid_argument"
                            for answer in answers if "error" in answer))
        self.assertEqual(done.stderr.decode(), "logitlab: process: 4 of 6 lines are wrong; "
                                               "their answers say why\n")

    def test_what_is_wrong_is_named(self):
        row = {"logits": [1, 2]}
        for request, words in (
                ([1], ["array", "object"]),
                ({}, ["logits", "none"]),
                ({"logits": []}, ["logits"]),
                ({"logits": 3}, ["logits", "array"]),
                ({"logits": [1, True]}, ["logits[1]", "true"]),
                ({"logits": [1, "1"]}, ["logits[1]"]),
                ({"logits": [1e39]}, ["logits[0]", "float32"]),
                ({"logits_base64": "AAAA"}, ["logits_base64", "multiple of 4"]),
                ({"logits_base64": "A*=="}, ["logits_base64", "base64"]),
                ({"logits_base64": 1}, ["logits_base64", "string"]),
                ({"logits": [1], "logits_base64": "AAAAAA=="}, ["one of them"]),
                ({**row, "unguided_logits": [1]}, ["unguided_logits", "2"]),
                ({**row, "input_ids": [0, 2]}, ["input_ids[1]", "0 to 1"]),
                ({**row, "input_ids": [-1]}, ["input_ids[0]"]),
                ({**row, "input_ids": [0.5]}, ["input_ids[0]"]),
                ({**row, "input_ids": "0"}, ["input_ids"]),
                ({**row, "input_ids": [0], "prompt_length": 2}, ["prompt_length", "at most 1"]),
                ({**row, "prompt_length": -1}, ["prompt_length"]),
                ({**row, "max_length": "5"}, ["max_length"]),
                ({**row, "thinking_ids": [0]}, ["thinking_ids"]),
                ({**row, "thinking_ids": [0, 2]}, ["thinking_ids", "0 to 1"]),
                ({**row, "logit": [1]}, ["logit", "input_ids"]),
                ({**row, "config": 3}, ["config", "object"]),
                ({**row, "config": {"top_q": 1}}, ["top_q", "did you mean"]),
                ({**row, "config": {"top_k": "5"}}, ["top_k", "whole number"]),
                ({**row, "config": {"do_sample": True, "top_p": -0.1}}, ["top_p", "-0.1", ">= 0"]),
                ({**row, "config": {"do_sample": True, "temperature": 0.0}}, ["temperature", "0"]),
                ({**row, "config": {"max_new_tokens": 0}}, ["max_new_tokens", "0"]),
                ({**row, "input_ids": [0], "config": {"max_length": 1}}, ["max_length", "1"]),
                ({**row, "config": {"sequence_bias": [[[7], 1.0]]}}, ["sequence_bias", "7"]),
        ):
            with self.subTest(request=request):
                message = self.error(request)
                for word in words:
                    self.assertIn(word, message)

    def test_deep_nesting(self):
        self.assertIn("nested", self.error('{"logits": ' + "[" * 5000 + "]" * 5000 + "}"))

    def test_line_that_is_too_long(self):
        path = self.folder / "long.jsonl"
        with open(path, "wb") as file:
            file.write(b'{"id": 1, "logits": [' + b"1" * (LIMIT_BYTES + 5) + b"]}\n")
            file.write(b'{"id": 2, "logits": [1, 2]}\n')
        try:
            done = self.run_cli("process", path)
        finally:
            os.unlink(path)
        first, second = lines_of(done.stdout.decode())
        self.assertEqual(done.returncode, 3)
        self.assertEqual((first["line"], first["error"]["code"]), (1, "resource_exhausted"))
        self.assertEqual(second["id"], 2)


if __name__ == "__main__":
    unittest.main()
