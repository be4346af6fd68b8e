"""study: runs into the store, the same shared and one by one, stopped and resumed."""

import json
import signal
import sqlite3
import subprocess
import time
import unittest

from cli_case import CliCase

SMALL = """name: small
title: A small study
question: Do runs differ?
expect: They do.
prompt: Hello there
settings: {do_sample: true, top_k: 0, max_new_tokens: 10, eos_token_id: []}
sweep: {temperature: [0.05, 1.0, 2.0]}
variants:
  greedy: {settings: {do_sample: false}, control: true, runs: 2}
  one thread: {settings: {do_sample: false}, execution: {threads: 1}, runs: 1}
runs: 4
measures: [texts, candidates, hashes, next-token]
"""

# Takes some seconds even where it runs fast.
LONG = """name: long
title: A long study
question: Can it be stopped?
prompt: Hello there
settings: {do_sample: true, top_k: 0, max_new_tokens: 200, eos_token_id: []}
runs: 300
candidates: 2
measures: [texts]
"""


class StudyCommand(CliCase):
    def file(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    def runs(self, store):
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            found = connection.execute("select * from run left join trace on trace.run = run.id "
                                       "order by run_index")
            names = [column[0] for column in found.description]
            rows = found.fetchall()
        # A run has no time of its own in a shared tree.
        return [{name: value for name, value in zip(names, row) if name not in ("id", "run", "seconds")}
                for row in rows]

    def study(self, store, *args, **options):
        return self.run_json("study", *args, "--model", self.model, "--store", store, **options)

    def test_answers_first_and_fits(self):
        path = self.file("small.yaml", SMALL)
        store = self.folder / "view.db"
        for columns in (100, 60, 20):
            text = self.run_ok("study", path, "--model", self.model, "--store", store,
                               env=self.environment(COLUMNS=str(columns)))
            self.assertLessEqual(max(map(len, text.splitlines())), columns)
            self.assertLess(text.index("Do runs"), text.index("settings\n"))
        self.assertIn("temperature=0.05", self.run_ok("study", path, "--model", self.model,
                                                      "--store", store,
                                                      env=self.environment(COLUMNS="100")))

    def test_shared_and_one_by_one_leave_the_same_runs(self):
        path = self.file("small.yaml", SMALL)
        shared, alone = self.folder / "shared.db", self.folder / "alone.db"
        first = self.study(shared, path)["studies"][0]
        second = self.study(alone, path, "--one-by-one")["studies"][0]
        tight = self.folder / "tight.db"
        self.study(tight, path, "--state-mib", "1")
        self.assertEqual(self.runs(shared), self.runs(alone))
        self.assertEqual(self.runs(shared), self.runs(tight))
        self.assertEqual(len(self.runs(shared)), 4 * 3 + 3)
        for setting in first["settings"] + second["settings"]:
            del setting["run_ids"]  # numbered as they ended
        self.assertEqual(first["settings"], second["settings"])
        self.assertEqual(first["status"], "done")
        self.assertLess(first["totals"]["decode_rows"], second["totals"]["decode_rows"])
        self.assertLess(first["totals"]["computed_share"], second["totals"]["computed_share"])
        names = {setting["setting"]: setting for setting in first["settings"]}
        self.assertEqual(names["greedy"]["unique_ids"], 1)
        self.assertGreater(names["temperature=2"]["unique_ids"], 1)
        self.assertEqual(names["greedy"]["hashes"][0], names["one thread"]["hashes"][0])

    def test_says_what_it_would_cost(self):
        path = self.file("small.yaml", SMALL)
        store = self.folder / "dry.db"
        rows = self.study(store, path, "--dry-run", "--runs", "7")
        self.assertEqual(rows[0]["runs"], 5 * 7)
        self.assertEqual(rows[0]["new_tokens_at_most"], 5 * 7 * 10)
        text = self.run_ok("study", path, "--model", self.model, "--store", store, "--dry-run")
        self.assertIn("15 runs", text)
        self.assertEqual(self.runs(store), [])

    def test_overrides(self):
        store = self.folder / "set.db"
        path = self.file("small.yaml", SMALL)
        result = self.study(store, path, "--set", "temperature=0.5", "--set", "max_new_tokens=3",
                            "--runs", "2")["studies"][0]
        self.assertEqual({s["lengths"]["maximum"] for s in result["settings"]}, {3})
        self.assertIn("did you mean", self.refused(3, "study", path, "--model", self.model,
                                                   "--store", store, "--set", "tempreture=1"))

    def stopped(self, store, path, stop):
        """Starts the study, ends it by `stop` when some runs are there, returns its exit code."""
        process = subprocess.Popen(
            [self.binary, "study", str(path), "--model", str(self.model), "--store", str(store)],
            env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process:
            time.sleep(0.7)
            process.send_signal(stop)
            _, error = process.communicate(timeout=60)
        return process.returncode, error.decode()

    def test_goes_on_after_an_interruption(self):
        path = self.file("long.yaml", LONG)
        for stop in (signal.SIGINT, signal.SIGKILL):
            with self.subTest(stop):
                store = self.folder / f"{stop.name}.db"
                whole = self.folder / "whole.db"
                code, error = self.stopped(store, path, stop)
                if code == 0:
                    self.skipTest("the machine was faster than the signal")
                if stop == signal.SIGINT:
                    self.assertEqual(code, 130)
                    self.assertIn("--resume 1", error)
                before = len(self.runs(store)) if store.exists() else 0
                self.assertLess(before, 300)
                if stop == signal.SIGKILL and not store.exists():
                    continue
                self.study(store, "--resume", "1")
                if not whole.exists():
                    self.study(whole, path)
                self.assertEqual(len(self.runs(store)), 300)
                ids = lambda runs: sorted((run["run_index"], run["ids"]) for run in runs)
                self.assertEqual(ids(self.runs(store)), ids(self.runs(whole)))
                # What is done is not done again.
                self.study(store, "--resume", "1")
                self.assertEqual(len(self.runs(store)), 300)

    def test_refusals(self):
        path = self.file("small.yaml", SMALL)
        store = self.folder / "bad.db"
        model = ("--model", self.model, "--store", store)
        self.assertIn("want the name of a study", self.refused(2, "study", *model))
        self.assertIn("leave --set and --runs out",
                      self.refused(2, "study", "--resume", "1", "--runs", "2", *model))
        self.assertIn("99", self.refused(3, "study", "--resume", "99", *model))
        self.assertIn("no-such-model", self.refused(3, "study", path, "--store", store, "--model",
                                                    "./no-such-model"))
        bad = self.file("bad.yaml", SMALL.replace("max_new_tokens: 10", "min_p: 7"))
        self.assertIn("bad.yaml:6", self.refused(3, "study", bad, *model))
        text = self.folder / "text.db"
        text.write_text("no store at all, but long enough to be looked at" * 40)
        self.assertIn("text.db", self.refused(3, "study", path, "--model", self.model, "--store",
                                              text))

    def test_a_course_runs_its_parts(self):
        store = self.folder / "course.db"
        course = self.file("course.yaml",
                           "name: course\ntitle: Two\nquestion: What now?\n"
                           "studies: [greedy-seeds, max-new-tokens]\n")
        result = self.study(store, course, "--set", "max_new_tokens=4")
        self.assertEqual([s["name"] for s in result["studies"]], ["greedy-seeds", "max-new-tokens"])
        self.assertEqual(result["course"], 1)
        again = self.study(store, "--resume", "1")
        self.assertEqual(json.dumps(again["studies"]), json.dumps(result["studies"]))


if __name__ == "__main__":
    unittest.main()
