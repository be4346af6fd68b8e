"""Which device a command runs on: what is refused, what `auto` becomes, what is said of it."""

import unittest

from cli_case import CliCase


class Device(CliCase):
    def test_a_device_that_is_not_there(self):
        for command in (["generate", "hi"], ["bench"], ["inspect"], ["logits", "--ids", "1"]):
            with self.subTest(command[0]):
                line = self.refused(4, *command, "--model", self.model, "--device", "cuda:99")
                self.assertIn("device cuda:99", line)

    def test_a_name_of_no_device(self):
        line = self.refused(3, "generate", "hi", "--model", self.model, "--device", "gpu")
        self.assertIn("want one of cpu, cuda:N, reference, auto", line)

    def test_auto_is_settled_and_named(self):
        # The tiny model is F32, which no GPU takes as it is.
        for device in ("auto", "cpu"):
            made = self.run_json("generate", "hi", "--model", self.model, "--device", device,
                                 "--max-new-tokens", "1")
            self.assertEqual(made["machine"]["device"], "cpu")
            plan = self.run_json("inspect", "--model", self.model, "--device", device)
            self.assertEqual(plan["device"], "cpu")
            self.assertIsNone(plan["memory_plan"]["device"])
            self.assertEqual(plan["memory_plan"]["weights_device_bytes"], 0)

    def test_what_only_a_gpu_can_measure(self):
        for flags in (["--batch", "2"], ["--profile"]):
            line = self.refused(3, "bench", "--model", self.model, "--device", "cpu", *flags)
            self.assertIn("on a GPU", line)
        line = self.refused(3, "bench", "--model", self.model, "--device", "cpu",
                            "--random-weights")
        self.assertIn("random weights are made on a device", line)

    def test_doctor_says_what_there_is(self):
        findings = [f for f in self.run_json("doctor")["findings"] if f["group"] == "gpu"]
        self.assertGreaterEqual(len(findings), 1)
        for finding in findings:
            self.assertIn("usable_by_this_build", finding["values"])
            if not finding["values"]["usable_by_this_build"]:
                self.assertTrue(finding["hint"])


if __name__ == "__main__":
    unittest.main()
