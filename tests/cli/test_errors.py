"""What cannot be done ends with one line, the right exit code, and never a crash."""

import json
import os
import pathlib
import struct
import subprocess
import unittest

import tiny_model
from cli_case import COMMANDS, CliCase


class Usage(CliCase):
    def test_unknown_command(self):
        self.assertIn("did you mean `generate`?", self.refused(2, "generat"))
        self.assertIn("did you mean `tokenize`?", self.refused(2, "tokenise"))
        line = self.refused(2, "xyzzy")
        for command in COMMANDS:
            self.assertIn(command, line)
        self.refused(2, "study")

    def test_no_command(self):
        done = self.run_cli()
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"Usage", done.stdout)
        self.assertIn("--model", self.refused(2, "--model", "x", "generate"))

    def test_unknown_flag(self):
        self.assertIn("did you mean --temperature?",
                      self.refused(2, "generate", "Hi", "--temperatur", "1"))
        self.assertIn("there is no flag --zzzzzz", self.refused(2, "doctor", "--zzzzzz"))

    def test_arguments(self):
        self.assertIn("too many", self.refused(2, "generate", "two", "words"))
        self.assertIn("no prompt", self.refused(2, "generate", "--model", self.model))
        self.refused(2, "generate", "Hi", "--raw", "--chat", "--model", self.model)
        self.refused(2, "generate", "Hi", "--file", "x", "--model", self.model)
        self.refused(2, "generate", "Hi", "--threads", "-1", "--model", self.model)
        self.refused(2, "generate", "Hi", "--model")
        self.refused(2, "generate", "Hi", "--think", "maybe", "--model", self.model)
        self.refused(2, "generate", "Hi", "--template-var", "nonsense", "--model", self.model)
        self.refused(2, "generate", "Hi", "--do-sample", "--no-do-sample", "--model", self.model)
        self.refused(2, "logits", "--model", self.model)
        self.refused(2, "logits", "--ids", "1,x", "--model", self.model)
        self.refused(2, "logits", "--ids", "1", "text", "--model", self.model)
        self.refused(2, "tokenize", "--decode", "99999999999", "--model", self.model)
        self.refused(2, "bench", "-p", "0", "--model", self.model)
        self.refused(2, "doctor", "--color", "mauve")

    def test_text_that_looks_like_a_flag(self):
        document = json.loads(
            self.run_ok("tokenize", "--model", self.model, "--json", "--", "--json"))
        self.assertEqual(bytes(document["ids"]), b"--json")
        self.refused(2, "tokenize", "--model", self.model, "--zz")


class Input(CliCase):
    def test_models(self):
        line = self.refused(3, "generate", "Hi", "--model", self.folder / "nowhere")
        self.assertIn("nowhere", line)
        self.refused(3, "inspect", "--model", "no-such-org/no-such-model")
        self.refused(3, "generate", "Hi", "--revision", "v2", "--model", self.model)
        line = self.refused(3, "generate", "Hi")
        self.assertIn("SmolLM2", line)

    def test_settings(self):
        self.assertIn("temperature", self.refused(3, "generate", "Hi", "--do-sample",
                                                  "--temperature", "0", "--model", self.model))
        self.assertIn("top_k", self.refused(3, "generate", "Hi", "--top-k", "many", "--model",
                                            self.model))
        self.assertIn("max_new_tokens", self.refused(3, "generate", "Hi", "--max-new-tokens", "0",
                                                     "--model", self.model))

    def test_devices_and_types(self):
        self.assertIn("bfloat15", self.refused(3, "logits", "Hi", "--dtype", "bfloat15", "--model",
                                               self.model))
        self.refused(3, "logits", "Hi", "--device", "toaster", "--model", self.model)
        self.refused(4, "logits", "Hi", "--device", "cuda:0", "--model", self.model)

    def test_prompts(self):
        self.refused(3, "generate", "--file", self.folder / "missing.txt", "--model", self.model)
        self.refused(3, "generate", "--file", self.folder, "--model", self.model)
        self.assertIn("0xff", self.refused(3, "tokenize", "-", "--model", self.model,
                                           stdin=b"ab\xff"))
        self.refused(3, "generate", "--raw", "", "--model", self.model)
        self.refused(3, "logits", "--ids", "260", "--model", self.model)
        self.refused(3, "tokenize", "--decode", "100000", "--model", self.model)

    def test_templates(self):
        bad = self.folder / "bad.json"
        bad.write_text("{")
        self.assertIn("bad.json", self.refused(3, "template", "--messages", bad, "--model",
                                               self.model))
        bad.write_text("{}")
        self.assertIn("list", self.refused(3, "template", "--messages", bad, "--model",
                                           self.model))
        self.refused(3, "template", "Hi", "--model", self.plain_model)
        self.refused(3, "generate", "Hi", "--chat", "--model", self.plain_model)
        self.refused(3, "generate", "Hi", "--system", "x", "--model", self.plain_model)

    def test_endless_template(self):
        folder = tiny_model.write_model(self.folder / "endless")
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = ("{% for a in range(90000) %}{% for b in range(90000) %}"
                                   "{% endfor %}{% endfor %}")
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        self.refused(3, "generate", "Hi", "--model", folder)

    def test_damaged_models(self):
        damages = {
            "not json": lambda f: (f / "config.json").write_text("{"),
            "no architecture": lambda f: (f / "config.json").write_text("{}"),
            "no tokenizer": lambda f: (f / "tokenizer.json").unlink(),
            "odd tokenizer": lambda f: (f / "tokenizer.json").write_text("[]"),
            "truncated": lambda f: os.truncate(f / "model.safetensors", 5000),
            "huge header": lambda f: (f / "model.safetensors").write_bytes(
                struct.pack("<Q", 1 << 32) + b"{}"),
        }
        for name, damage in damages.items():
            with self.subTest(name):
                folder = tiny_model.write_model(self.folder / name)
                damage(folder)
                self.assertIn(str(folder), self.refused(3, "generate", "Hi", "--model", folder))

    def test_control_characters_of_a_name_do_not_reach_the_terminal(self):
        line = self.refused(3, "inspect", "--model", "/no\x1b[31m/where")
        self.assertNotIn("\x1b", line)

    def test_too_long_for_the_model(self):
        folder = tiny_model.write_model(self.folder / "short")
        config = json.loads((folder / "config.json").read_text())
        config["max_position_embeddings"] = 64
        (folder / "config.json").write_text(json.dumps(config))
        line = self.refused(3, "bench", "-p", 60, "-n", 10, "--model", folder)
        self.assertIn("64", line)
        line = self.refused(3, "chat", "--model", folder, stdin=b"x" * 80 + b"\n")
        self.assertIn("64", line)


class JsonErrors(CliCase):
    def test_document_and_line(self):
        for code, name, arguments in [
                (2, "usage", ["generate", "--json"]),
                (2, "usage", ["nonsense", "--json"]),
                (2, "usage", ["generate", "--json", "--no-such-flag"]),
                (3, "not_found", ["inspect", "--model", "/no/where", "--json"]),
        ]:
            with self.subTest(arguments):
                done = self.run_cli(*arguments)
                self.assertEqual(done.returncode, code)
                error = json.loads(done.stdout)["error"]
                self.assertEqual(error["code"], name)
                self.assertIn(error["message"], done.stderr.decode())


class Files(CliCase):
    def test_unwritable_places(self):
        self.refused(3, "logits", "Hi", "--out", self.folder / "no/such/x.npy", "--model",
                     self.model)
        self.refused(3, "chat", "--model", self.model, stdin=b"/save /no/such/folder/x.json\n")

    @unittest.skipUnless(pathlib.Path("/dev/full").exists(), "needs /dev/full")
    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([self.binary, "tokenize", "Hi", "--model", str(self.model)],
                                  stdout=full, stderr=subprocess.PIPE, env=self.environment(),
                                  timeout=60, check=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn(b"No space left", done.stderr)


if __name__ == "__main__":
    unittest.main()
