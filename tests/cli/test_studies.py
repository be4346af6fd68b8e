"""studies: the list, one file, a file of one's own."""

import unittest

from cli_case import CliCase

OWN = "name: mine\nquestion: why?\nprompt: Hi\nsettings: {do_sample: true}\n"


class Studies(CliCase):
    def own(self, text):
        path = self.folder / "own.yaml"
        path.write_text(text)
        return path

    def test_the_list_has_every_study_and_fits(self):
        listed = self.run_json("studies")["studies"]
        names = [study["name"] for study in listed]
        self.assertEqual(names[-1], "lesson-01")
        self.assertEqual(listed[-1]["studies"], names[:-1])
        for key in ("runs", "new_tokens_at_most"):
            self.assertEqual(listed[-1][key], sum(study[key] for study in listed[:-1]))
        for columns in ("100", "60"):
            text = self.run_ok("studies", env=self.environment(COLUMNS=columns))
            self.assertLessEqual(max(map(len, text.splitlines())), int(columns))
            # A narrow table breaks long names too.
            for name in names if columns == "100" else ():
                self.assertIn(name, text)

    def test_a_name_prints_its_file(self):
        text = self.run_ok("studies", "top-k")
        self.assertTrue(text.startswith("name: top-k\n"))
        document = self.run_json("studies", "top-k")
        self.assertEqual(document["yaml"], text)
        self.assertEqual([setting["name"] for setting in document["settings"]],
                         ["greedy"] + [f"top_k={k}" for k in range(1, 6)])
        self.assertEqual(document["runs"], 16)
        # What was printed is a file of one's own.
        self.assertEqual(self.run_json("studies", self.own(text))["settings"], document["settings"])

    def test_a_bad_file_is_refused_by_line_and_name(self):
        path = self.own(OWN + "sweep: {tempreture: [0.2]}\n")
        self.assertIn(f'{path}:5: "tempreture": no such name here; did you mean temperature?',
                      self.refused(3, "studies", path))
        self.assertIn(f"{path}:5: runs: -1 found, want a whole number from 1 to 100000",
                      self.refused(3, "studies", self.own(OWN + "runs: -1\n")))
        self.assertIn("did you mean top-k?", self.refused(3, "studies", "top-kk"))
        self.assertIn("no-such.yaml", self.refused(3, "studies", "./no-such.yaml"))


if __name__ == "__main__":
    unittest.main()
