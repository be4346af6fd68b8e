"""Every study that comes with logitlab leaves the same store with shared prefixes and without."""

import json
import os
import pathlib
import sqlite3
import subprocess
import sys
import unittest

import tiny_hybrid
from cli_case import CliCase

COMPARE = pathlib.Path(__file__).resolve().parents[2] / "tools/compare_stores.py"
COURSE = "lesson-01"


class Sharing(CliCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.hybrid = tiny_hybrid.write_model(cls.folder / "hybrid", thinking=True)

    def course(self, name, model, *arguments):
        store = self.folder / f"{name}.db"
        done = subprocess.run(
            [self.binary, "study", COURSE, "--model", str(model), "--store", str(store), "--json",
             "--no-report", *arguments],
            env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=1500,
            check=False)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return store, json.loads(done.stdout)["studies"]

    def compare(self, first, second):
        done = subprocess.run([sys.executable, COMPARE, first, second], capture_output=True,
                              text=True, check=False)
        return done.returncode, done.stdout.strip()

    def check_both_ways(self, model, *arguments):
        """Runs the course both ways; returns what of the tokens asked for was computed."""
        shared, studies = self.course(f"shared-{len(arguments)}", model, *arguments)
        alone, apart = self.course(f"alone-{len(arguments)}", model, "--one-by-one", *arguments)
        code, text = self.compare(shared, alone)
        self.assertEqual(code, 0, text)
        bundled = [study["name"] for study in self.run_json("studies")["studies"]]
        self.assertEqual(sorted([COURSE, *(study["name"] for study in studies)]), sorted(bundled))
        self.assertEqual([study["status"] for study in studies], ["done"] * len(studies))
        share = []
        for course in (studies, apart):
            totals = [study["totals"] for study in course]
            asked = sum(t["prompt_tokens_asked"] + t["new_tokens_asked"] for t in totals)
            share.append(sum(t["prefill_tokens"] + t["decode_rows"] for t in totals) / asked)
        self.assertLess(share[0], share[1])
        return shared, share[0]

    def test_on_a_hybrid(self):
        shared, _ = self.check_both_ways(self.hybrid)
        # The comparison sees one changed bit of one token.
        changed = self.folder / "changed.db"
        with sqlite3.connect(f"file:{shared}?mode=ro", uri=True) as source, \
                sqlite3.connect(changed) as copy:
            source.backup(copy)
            (ids,) = copy.execute("SELECT ids FROM run WHERE id = 7").fetchone()
            copy.execute("UPDATE run SET ids = ? WHERE id = 7", (bytes([ids[0] ^ 1]) + ids[1:],))
        code, text = self.compare(shared, changed)
        self.assertEqual(code, 1)
        self.assertIn("ids differs", text)

    @unittest.skipUnless(os.path.exists(os.environ.get("LOGITLAB_DEFAULT_MODEL", "")),
                         "wants LOGITLAB_DEFAULT_MODEL")
    def test_on_the_default_model(self):
        # All of it takes minutes; twelve tokens are enough for runs to part.
        model = os.environ["LOGITLAB_DEFAULT_MODEL"]
        self.check_both_ways(model, "--runs", "2", "--set", "max_new_tokens=12",
                             "--set", "candidates=4")


if __name__ == "__main__":
    unittest.main()
