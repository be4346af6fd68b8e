"""A real model's chat template that is not part of the project, where it is at hand.

tests/data/templates/nemotron3.json holds conversations and, of each rendering by transformers, length
and SHA-256. The template itself is looked for in LOGITLAB_SHARED, else in shared/ beside the project.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDING = json.loads((ROOT / "tests/data/templates/nemotron3.json").read_text(encoding="utf-8"))


def template_path():
    folder = os.environ.get("LOGITLAB_SHARED") or ROOT.parent / "shared"
    return pathlib.Path(folder, "data", RECORDING["template"]["file"])


class OutsideTemplate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        path = template_path()
        if not path.is_file():
            raise unittest.SkipTest(
                f"{path.name} is not at hand: LOGITLAB_SHARED names the folder with data/{path.name}")
        content = path.read_bytes()
        cls.hash = hashlib.sha256(content).hexdigest()
        cls.source = content.decode("utf-8")

    def ask(self, requests):
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run([os.environ["LOGITLAB_TEXT_PROBE"], "-"], input=lines.encode(),
                              capture_output=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [json.loads(line) for line in done.stdout.decode().split("\n") if line]

    def test_it_is_the_recorded_template(self):
        self.assertEqual(self.hash, RECORDING["template"]["sha256"],
                         "another version: tools/oracle/record_outside_template.py records it")

    def test_renderings_are_those_of_transformers(self):
        requests = []
        for case in RECORDING["cases"]:
            setting = RECORDING["settings"][case["setting"]]
            requests.append({
                "op": "render", "template": self.source,
                "messages": RECORDING["conversations"][case["conversation"]],
                "tools": RECORDING["tools"].get(setting.get("tools")),
                "add_generation_prompt": setting.get("add_generation_prompt", False),
                "variables": {**RECORDING["special_tokens"], **setting.get("variables", {})}})
        answers = self.ask(requests)
        self.assertEqual(len(answers), len(RECORDING["cases"]))
        for case, answer in zip(RECORDING["cases"], answers):
            with self.subTest(conversation=case["conversation"], setting=case["setting"]):
                if "error" in case:
                    self.assertIn("error", answer)
                    continue
                self.assertIn("text", answer)
                text = answer["text"].encode()
                digest = hashlib.sha256(text).hexdigest()
                self.assertEqual((len(text), digest), (case["bytes"], case["sha256"]), answer["text"])

    def test_thinking_on_and_off(self):
        messages = [{"role": "user", "content": "Hi"}]
        ends = []
        for variables in ({}, {"enable_thinking": True}, {"enable_thinking": False}):
            answer, = self.ask([{"op": "render", "template": self.source, "messages": messages,
                                 "add_generation_prompt": True, "variables": variables}])
            ends.append(answer["text"].rpartition("<|im_start|>assistant\n")[2])
        self.assertEqual(ends, ["<think>\n", "<think>\n", "<think></think>"])

    def test_recording_covers_what_the_template_knows(self):
        self.assertGreaterEqual(len(RECORDING["conversations"]), 30)
        renderings = {case.get("sha256") for case in RECORDING["cases"]}
        self.assertGreater(len(renderings), 150)


if __name__ == "__main__":
    unittest.main()
