"""What every test of the command line shares: the binary, a clean environment, tiny models."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import tiny_model

COMMANDS = ["first-contact", "generate", "chat", "tokenize", "template", "logits", "process",
            "inspect", "tree", "whatif", "studies", "report", "study", "runs", "show", "compare",
            "explain", "verify", "export", "doctor", "bench"]


class CliCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.binary = os.environ["LOGITLAB_BINARY"]
        cls._folder = tempfile.TemporaryDirectory(prefix="logitlab-cli-")
        cls.folder = pathlib.Path(cls._folder.name)
        cls.model = tiny_model.write_model(cls.folder / "tiny")
        cls.plain_model = tiny_model.write_model(cls.folder / "plain", with_template=False)

    @classmethod
    def tearDownClass(cls):
        cls._folder.cleanup()

    def environment(self, **changes):
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder / "home"),
                       "LOGITLAB_HOME": str(self.folder / "home/logitlab"), "LANG": "C.UTF-8",
                       "TERM": "xterm", "COLUMNS": "80"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LOGITLAB_CPU_ISA"):
            if name in os.environ:
                environment[name] = os.environ[name]
        environment.update(changes)
        return {name: value for name, value in environment.items() if value is not None}

    def run_cli(self, *args, stdin=b"", env=None, **options):
        return subprocess.run([self.binary, *map(str, args)], input=stdin, capture_output=True,
                              env=env or self.environment(), timeout=120, check=False, **options)

    def run_ok(self, *args, **options):
        done = self.run_cli(*args, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done.stdout.decode()

    def run_json(self, *args, **options):
        return json.loads(self.run_ok(*args, "--json", **options))

    def refused(self, code, *args, **options):
        """The command ends with `code` and one line on standard error, which is returned."""
        done = self.run_cli(*args, **options)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, code, text + done.stdout.decode(errors="replace"))
        lines = text.splitlines()
        self.assertEqual(len(lines), 1, text)
        self.assertTrue(lines[0].startswith("logitlab: "), text)
        return lines[0]
