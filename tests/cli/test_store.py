"""What can be asked of the store: runs, show, compare, explain, verify, export, report."""

import csv
import html.parser
import io
import json
import re
import sqlite3
import unittest

import tiny_model
from cli_case import CliCase

STUDY = """name: asked
title: Asked of the store
question: Do <b>runs</b> & settings differ?
expect: They do.
prompt: Hello there
settings: {do_sample: true, top_k: 0, max_new_tokens: 12, eos_token_id: []}
variants:
  greedy: {settings: {do_sample: false, top_k: null}, control: true, runs: 2}
  beams: {settings: {do_sample: false, top_k: null, num_beams: 2}, runs: 1}
  neighbours: {settings: {top_k: 3}, execution: {neighbours: 2, prefill_chunk: 4}, runs: 2}
sweep: {temperature: [0.6, 1.5]}
runs: 4
measures: [texts, candidates, divergence, hashes, beams, next-token]
exact: {mass: 0.5, max_nodes: 40}
"""


class Page(html.parser.HTMLParser):
    """Collects the tags; fails on one that is closed out of order."""

    VOID = {"meta", "br", "link", "hr", "img"}

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text += data


class AskTheStore(CliCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.store = cls.folder / "asked.db"
        (cls.folder / "asked.yaml").write_text(STUDY)
        case = cls("run_ok")
        case.run_ok("study", cls.folder / "asked.yaml", "--model", cls.model, "--store", cls.store)
        cls.runs = case.ask("runs", "--study", 1, "--limit", 0)["runs"]

    def ask(self, *arguments):
        return self.run_json(*arguments, "--store", self.store)

    def of_setting(self, name):
        return [run for run in self.runs if run["setting_name"] == name]

    def apart(self, first, second):
        """Two runs, one of each setting, whose tokens differ."""
        return next((a, b) for a in self.of_setting(first) for b in self.of_setting(second)
                    if a["ids"] != b["ids"])

    def widths(self, *arguments):
        for columns in (100, 60, 20):
            text = self.run_ok(*arguments, "--store", self.store,
                               env=self.environment(COLUMNS=str(columns)))
            # The model writes any bytes: only line feeds end a line here.
            widest = max(text.split("\n"), key=len)
            self.assertLessEqual(len(widest), columns, repr(widest))

    # ---- runs, show

    def test_runs_are_listed(self):
        self.assertEqual(len(self.runs), 2 + 1 + 2 + 2 * 4)
        self.assertEqual([run["index"] for run in self.runs], list(range(13)))
        newest = self.ask("runs", "--limit", 3)["runs"]
        self.assertEqual([run["run"] for run in newest], [13, 12, 11])
        (study,) = self.ask("runs", "--studies")["studies"]
        self.assertEqual((study["name"], study["runs"], study["status"]), ("asked", 13, "done"))
        self.widths("runs")
        self.widths("runs", "--studies")

    def test_a_run_is_shown(self):
        run = self.of_setting("temperature=0.6")[0]
        self.assertEqual(self.ask("show", run["run"]), run)
        text = self.run_ok("show", run["run"], "--store", self.store)
        for part in ("temperature=0.6", str(run["seed"]), run["logits_hash"], "length"):
            self.assertIn(part, text)
        self.widths("show", run["run"])
        trace = self.folder / "run.jsonl"
        self.run_ok("show", run["run"], "--trace", trace, "--store", self.store)
        steps = [json.loads(line) for line in trace.read_text().splitlines()]
        self.assertEqual([step["id"] for step in steps if step["record"] == "step"], run["ids"])
        self.assertEqual(self.run_ok("show", run["run"], "--trace", "-", "--store", self.store),
                         trace.read_text())
        self.assertIn("temperature=0.6", self.run_ok("whatif", trace, "--explain"))

    def test_runs_are_removed(self):
        copy = self.folder / "copy.db"
        with sqlite3.connect(self.store) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        self.run_ok("runs", "--delete", 5, "--store", copy)
        self.assertIn("run 5", self.refused(3, "show", 5, "--store", copy))
        self.run_ok("runs", "--delete-study", 1, "--store", copy)
        self.assertEqual(self.run_json("runs", "--store", copy)["runs"], [])
        self.assertIn("study 1", self.refused(3, "report", 1, "--store", copy))

    # ---- compare, explain

    def test_runs_are_compared(self):
        a, b = self.apart("greedy", "temperature=1.5")
        found = self.ask("compare", a["run"], b["run"])
        step = next(i for i, (x, y) in enumerate(zip(a["ids"], b["ids"])) if x != y)
        self.assertEqual(found["first_difference"], step)
        self.assertIn("do_sample: false -> true", found["settings_that_differ"])
        first, second = self.of_setting("greedy")
        found = self.ask("compare", first["run"], second["run"])
        self.assertTrue(found["same_tokens"] and found["same_logits_hash"])
        self.assertEqual(found["jaccard_words"], 1)
        self.widths("compare", a["run"], b["run"])

    def test_a_draw_is_explained(self):
        a, b = self.apart("temperature=1.5", "temperature=1.5")
        found = self.ask("explain", a["run"], b["run"])
        step = next(i for i, (x, y) in enumerate(zip(a["ids"], b["ids"])) if x != y)
        self.assertEqual((found["cause"], found["step"]), ("draw", step))
        self.assertEqual(found["common_tokens"], step)
        self.assertTrue(found["equal_logits"])
        self.assertEqual(found["changed_settings"], [])
        for number, run in enumerate((a, b)):
            chosen, other = found["runs"][number]["tokens"][::1 if number == 0 else -1]
            self.assertTrue(chosen["chosen"])
            self.assertEqual(chosen["id"], run["ids"][step])
            # The chosen token's key is the larger one wherever the trace lists both.
            if chosen["key"] is not None and other["key"] is not None:
                self.assertGreater(chosen["key"], other["key"])
        self.assertIn(f"Step {step}: ", found["verdict"])
        text = self.run_ok("explain", a["run"], b["run"], "--store", self.store)
        self.assertTrue(text.startswith(f"Step {step}: "), text)
        self.widths("explain", a["run"], b["run"])

    def test_equal_runs_have_nothing_to_explain(self):
        first, second = self.of_setting("greedy")
        found = self.ask("explain", first["run"], second["run"])
        self.assertEqual((found["cause"], found["verdict"]),
                         ("none", "All 12 tokens are the same."))

    def test_a_filter_is_explained(self):
        store, study = self.folder / "filter.db", self.folder / "filter.yaml"
        study.write_text("name: filter\nquestion: Does k act?\nprompt: Hello there\n"
                         "settings: {do_sample: true, max_new_tokens: 12, temperature: 3.0, "
                         "eos_token_id: []}\nsweep: {top_k: [1, 0]}\n")
        self.run_ok("study", study, "--model", self.model, "--store", store)
        found = self.run_json("explain", 1, 2, "--store", store)
        self.assertEqual(found["cause"], "filter")
        self.assertIn("top_k: 1 -> 0", found["changed_settings"])
        self.assertIn("top_k removed", found["verdict"])

    def test_beams_are_not_explained_step_by_step(self):
        run = self.of_setting("beams")[0]["run"]
        self.assertIn("beam search", self.refused(3, "explain", run, 1, "--store", self.store))

    # ---- verify

    def verify(self, *arguments, code=0, **changes):
        done = self.run_cli("verify", *arguments, "--store", self.store, "--json", "--model",
                            self.model, env=self.environment(**changes))
        self.assertEqual(done.returncode, code, done.stderr.decode())
        return json.loads(done.stdout)

    def test_every_run_can_be_made_again(self):
        found = self.verify("--study", 1)
        self.assertEqual((found["equal"], found["all_equal"]), (13, True))
        self.assertEqual({run["same_tokens"] for run in found["runs"]}, {True})
        beams = self.of_setting("beams")[0]["run"]
        for run in found["runs"]:
            self.assertEqual(run["same_logits_hash"], None if run["run"] == beams else True)
        self.assertTrue(self.verify(4, 5, "--threads", 1)["all_equal"])
        text = self.run_ok("verify", 4, "--model", self.model, "--store", self.store)
        self.assertRegex(text, r"^Run 4: Equal tokens \(12\), equal logits hash \([0-9a-f]{16}\)\.")

    def test_another_way_of_computing_is_named(self):
        run = self.of_setting("greedy")[0]["run"]
        isa = json.loads(self.run_ok("show", run, "--trace", "-", "--store",
                                     self.store).splitlines()[0])["isa"]
        if isa == "SSE4":
            self.skipTest("this processor has one kind of instructions")
        found = self.verify(run, code=1, LOGITLAB_CPU_ISA="SSE4")["runs"][0]
        self.assertFalse(found["equal"])
        self.assertIn(isa, found["verdict"])
        self.assertIn("SSE4", found["verdict"])
        self.assertIsNotNone(found["first_difference"])

    def test_a_changed_store_is_seen(self):
        changed = self.folder / "changed.db"
        run = self.of_setting("greedy")[0]["run"]
        with sqlite3.connect(self.store) as source, sqlite3.connect(changed) as target:
            source.backup(target)
            target.execute("UPDATE run SET ids = zeroblob(length(ids)) WHERE id = ?", (run,))
        done = self.run_cli("verify", run, "--store", changed, "--model", self.model)
        self.assertEqual(done.returncode, 1)
        self.assertIn("other tokens than its trace", done.stdout.decode())

    def test_verify_refuses(self):
        model = ("--model", self.model, "--store", self.store)
        self.assertIn("neither", self.refused(2, "verify", *model))
        self.assertIn("99", self.refused(3, "verify", 99, *model))
        self.refused(2, "verify", 0, *model)
        other = tiny_model.write_model(self.folder / "other", seed=2)
        line = self.refused(3, "verify", 1, "--model", other, "--store", self.store)
        self.assertIn("--model", line)
        self.assertIn("logitlab study asked", line)

    # ---- export

    def test_json_and_csv_hold_the_same_runs(self):
        whole = json.loads(self.run_ok("export", "--study", 1, "--traces", "--store", self.store))
        self.assertEqual(whole["study"]["name"], "asked")
        self.assertEqual(len(whole["runs"]), 13)
        for run, listed in zip(whole["runs"], self.runs):
            trace = run.pop("trace")
            self.assertEqual(run, listed)
            self.assertEqual(trace[0]["record"], "run")
            self.assertEqual(trace[-1]["record"], "end")
        table = self.folder / "runs.csv"
        self.run_ok("export", "--study", 1, "--format", "csv", "--out", table, "--store",
                    self.store)
        rows = list(csv.DictReader(io.StringIO(table.read_bytes().decode())))
        for row, run in zip(rows, self.runs):
            self.assertEqual(row["text"], run["text"].replace("\0", "\0"))
            self.assertEqual([int(i) for i in row["ids"].split()], run["ids"])
            self.assertEqual(json.loads(row["settings"]), run["settings"])
            self.assertEqual(row["logits_hash"], run["logits_hash"])
        self.assertEqual(len(rows), 13)
        self.assertIn("neither", self.refused(2, "export", "--store", self.store))
        self.refused(3, "export", 99, "--store", self.store)
        missing = self.folder / "no/such/folder/x.json"
        self.refused(3, "export", 1, "--out", missing, "--store", self.store)

    # ---- report

    def report(self, *arguments, name="report.html"):
        path = self.folder / name
        self.assertEqual(self.run_ok("report", 1, "--out", path, *arguments, "--store",
                                     self.store).strip(), str(path))
        return path.read_text()

    def test_a_report_needs_nothing_but_itself(self):
        text = self.report()
        page = Page()
        page.feed(text)
        page.close()
        self.assertEqual(page.open, [])
        self.assertNotIn("script", page.tags)
        self.assertNotIn("link", page.tags)
        self.assertNotIn("b", page.tags)  # the question is text, not markup
        for name, value in page.attributes:
            self.assertNotRegex(name, "^on")
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.assertRegex(value, "^#")
        self.assertNotRegex(text, r"url\(|@import|https?://(?!www\.w3\.org/)")
        for part in ("Do <b>runs</b> & settings differ?", "They do.", "temperature=0.6",
                     "Likeness of texts", "Different texts per setting", "Entropy by step",
                     "Where runs part"):
            self.assertIn(part, page.text)
        self.assertIn("prefers-color-scheme:dark", text)
        self.assertIn("@media print", text)

    def test_the_figures_of_a_report_are_those_of_the_store(self):
        page = Page()
        page.feed(self.report())
        settings = {}
        for run in self.runs:
            settings.setdefault(run["setting_name"], []).append(tuple(run["ids"]))
        for name, texts in settings.items():
            self.assertRegex(page.text, re.escape(name))
            self.assertIn(f"{len(set(texts))} of {len(texts)}", page.text)

    def test_markdown_and_a_reading(self):
        copy = self.folder / "reading.db"
        with sqlite3.connect(self.store) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        path = self.folder / "report.md"
        self.run_ok("report", 1, "--markdown", "--out", path, "--reading", "Only *heat* mattered.",
                    "--store", copy)
        text = path.read_text()
        self.assertIn("They do.", text)
        self.assertIn(r"Only \*heat\* mattered.", text)
        html_path = self.folder / "reading.html"
        self.run_ok("report", 1, "--out", html_path, "--store", copy)
        self.assertIn("Only *heat* mattered.", html_path.read_text())

    def test_report_refuses(self):
        self.assertIn("study 99", self.refused(3, "report", 99, "--store", self.store))
        self.refused(3, "report", 1, "--out", self.folder, "--store", self.store)
        self.refused(3, "runs", "--store", self.folder / "absent.db")
        self.assertFalse((self.folder / "absent.db").exists())


if __name__ == "__main__":
    unittest.main()
