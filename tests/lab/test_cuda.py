"""./lab and the CUDA compiler, and the scripts around a GPU: what they take, and what they refuse."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import zipfile

from lab_tree import ROOT, LabTree, sha256

FAKE_NVCC = """#!/bin/bash
echo 'Cuda compilation tools, release {version}, V{version}.88'
"""
FAKE_UNAME = """#!/bin/bash
echo {machine}
"""


class Compiler(LabTree):
    def make_nvcc(self, path, version):
        return self.write(path, FAKE_NVCC.format(version=version), is_program=True)

    def find(self, code=0, **changes):
        return self.bash("find_nvcc", code=code, PATH=self.plain_path(), **changes)[0]

    def test_one_in_the_path_that_is_new_enough(self):
        nvcc = self.make_nvcc("bin/nvcc", "13.1")
        self.assertEqual(self.find(), nvcc)

    def test_an_old_one_is_passed_over(self):
        self.make_nvcc("bin/nvcc", "12.4")
        if not os.path.exists("/usr/local/cuda/bin/nvcc"):
            self.assertEqual(self.find(code=1), "")
        other = self.make_nvcc("other/nvcc", "13.0")
        self.assertEqual(self.find(LOGITLAB_NVCC=other), other)

    def test_no_wheels_for_this_machine(self):
        if os.path.exists("/usr/local/cuda/bin/nvcc"):
            self.skipTest("this machine has a CUDA compiler of its own")
        self.write("bin/uname", FAKE_UNAME.format(machine="riscv64"), is_program=True)
        _, err = self.bash("resolve_home; ensure_nvcc", code=4, PATH=self.plain_path())
        self.assertIn("none to fetch for riscv64", err)


@unittest.skipIf(os.path.exists("/usr/local/cuda/bin/nvcc"), "this machine has a CUDA compiler")
class Fetching(LabTree):
    def make_wheel(self, with_nvcc=True):
        """A wheel of the one package that the script is made to want."""
        path = os.path.join(self.links, "nvidia_cuda_nvcc-13.0.88-py3-none-any.whl")
        info = "nvidia_cuda_nvcc-13.0.88.dist-info/"
        with zipfile.ZipFile(path, "w") as package:
            if with_nvcc:
                package.writestr("nvidia/cu13/bin/nvcc", FAKE_NVCC.format(version="13.0"))
            package.writestr(info + "METADATA",
                             "Metadata-Version: 2.1\nName: nvidia-cuda-nvcc\nVersion: 13.0.88\n")
            package.writestr(info + "WHEEL",
                             "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            package.writestr(info + "RECORD", "")
        with open(path, "rb") as file:
            return sha256(file.read())

    def want(self, wheel_hash):
        """The real script, with that wheel in place of the five."""
        path = os.path.join(self.root, "lab")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        head, rest = text.split("readonly CUDA_WHEELS='", 1)
        _, tail = rest.split("'\n", 1)
        lines = "\n".join(f"{machine} nvidia-cuda-nvcc==13.0.88 {wheel_hash}"
                          for machine in ("x86_64", "aarch64"))
        self.write("project/lab", f"{head}readonly CUDA_WHEELS='\n{lines}'\n{tail}",
                   is_program=True)

    def fetch(self, code=0, **changes):
        script = "resolve_home; use_own_caches; find_nvcc() { false; }; ensure_nvcc; " \
                 "printf '%s' \"$LOGITLAB_NVCC\""
        return self.bash(script, code=code, **changes)

    def test_fetched_once(self):
        self.want(self.make_wheel())
        out, err = self.fetch()
        self.assertTrue(out.startswith(self.cache + "/cuda-"), out)
        self.assertTrue(os.access(out, os.X_OK))
        self.assertIn("fetching the CUDA compiler", err)
        self.assertEqual(self.fetch(PIP_FIND_LINKS=None), (out, ""))
        self.assertEqual([name for name in os.listdir(self.cache) if "stage" in name], [])

    def test_another_wheel_than_pinned(self):
        self.make_wheel()
        self.want("0" * 64)
        _, err = self.fetch(code=4)
        self.assertIn("could not be fetched", err)
        self.assertIn("LOGITLAB_NVCC", err)

    def test_a_wheel_without_the_compiler(self):
        self.want(self.make_wheel(with_nvcc=False))
        self.assertIn("could not be fetched", self.fetch(code=4)[1])


class Running(LabTree):
    def test_the_cuda_build_runs_once_it_was_asked_for(self):
        self.make_built()
        self.assertEqual(self.bash("run_preset")[0], "release")
        self.write("project/build/cuda/apps/logitlab/logitlab", "#!/bin/bash\necho with CUDA\n",
                   is_program=True)
        self.write("project/build/cuda/.lab-built", "")
        self.assertEqual(self.lab("doctor")[0], "with CUDA\n")


# A machine without a GPU, as `logitlab doctor --json` tells of it.
NO_GPU = """#!/bin/bash
echo '{"findings": [{"group": "gpu", "name": "NVIDIA", "found": "none found",
  "values": {"usable_by_this_build": false}}]}'
"""


class Scripts(unittest.TestCase):
    """bench/cuda/run.sh, summarise.py and tools/bundle_cuda.sh in a tree of their own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name).resolve()
        self.root = self.top / "project"
        for name in ("bench/cuda/run.sh", "bench/cuda/summarise.py", "tools/bundle_cuda.sh"):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(os.path.join(ROOT, name), self.root / name)
        program = self.root / "build/cuda/apps/logitlab/logitlab"
        program.parent.mkdir(parents=True)
        program.write_text(NO_GPU)
        program.chmod(0o755)
        self.mine = self.top / "mine"
        self.mine.mkdir()
        (self.mine / "thesis.txt").write_text("years of work")

    def call(self, code, *words, script="bench/cuda/run.sh"):
        """From the folder above; returns what was said."""
        before = [sys.executable] if script.endswith(".py") else ["bash"]
        done = subprocess.run([*before, str(self.root / script), *map(str, words)], cwd=self.top,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def test_folders_that_hold_something_else_stay(self):
        for script in ("bench/cuda/run.sh", "tools/bundle_cuda.sh"):
            for folder in (self.mine, "mine", "mine/", "project", ".", self.mine / "thesis.txt"):
                with self.subTest(script, folder=folder):
                    self.assertIn("nothing was removed", self.call(2, folder, script=script))
        self.assertTrue((self.mine / "thesis.txt").exists())
        # Not even with the mark of results in it.
        (self.top / ".steps").mkdir()
        self.assertIn("nothing was removed", self.call(2, "."))

    def test_wrong_usage(self):
        for words in (["--only"], ["--only", "x"], ["--bogus"], ["a", "b"], [""]):
            with self.subTest(words):
                self.assertIn("usage:", self.call(2, *words))

    def test_without_a_gpu_it_ends_at_once(self):
        for folder in ("results", "results", self.root / "build/cuda-results"):
            self.assertIn("no GPU that this build can use", self.call(1, folder))
            self.assertTrue((self.top / folder / "summary.json").exists())
            (self.top / folder / "old.json").write_text("{}")
        self.call(1, "results")
        self.assertFalse((self.top / "results/old.json").exists())

    def test_a_signal_ends_it_and_what_it_started(self):
        program = self.root / "build/cuda/apps/logitlab/logitlab"
        program.write_text('#!/bin/bash\necho $$ >"$PIDS/pid.new"\nmv "$PIDS/pid.new" "$PIDS/pid"\n'
                           "exec sleep 50\n")
        for sent, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            with self.subTest(sent):
                pid = self.top / "pid"
                pid.unlink(missing_ok=True)
                run = subprocess.Popen(  # pylint: disable=consider-using-with
                    ["bash", self.root / "bench/cuda/run.sh", self.top / "results"],
                    env={**os.environ, "PIDS": str(self.top)}, stdout=subprocess.DEVNULL,
                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
                self.addCleanup(run.kill)
                deadline = time.monotonic() + 30
                while not pid.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                run.send_signal(sent)
                self.assertEqual(run.wait(timeout=30), code)
                # It got the signal before; it may still be on its way out.
                program_folder = pathlib.Path("/proc", pid.read_text().strip())
                deadline = time.monotonic() + 10
                while program_folder.exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
                self.assertFalse(program_folder.exists())

    def test_a_bundle_stays_where_no_new_one_can_be_made(self):
        bundle = self.root / "build/cuda-bundle"
        bundle.mkdir()
        for name in ("run", "name", "content.tar.gz"):
            (bundle / name).write_text("")
        self.assertIn("./lab build cuda", self.call(1, script="tools/bundle_cuda.sh"))
        self.assertEqual(len(list(bundle.iterdir())), 3)
        self.assertEqual(list(bundle.parent.glob("cuda-bundle.*")), [])

    def summarise(self, document, step="0 1 60 1.0"):
        """Exit code 1 for a decode step with that text in its JSON."""
        folder = self.top / "results"
        (folder / ".steps").mkdir(parents=True, exist_ok=True)
        (folder / ".steps/decode-a").write_text(step)
        (folder / "decode-a.json").write_text(document)
        said = self.call(1, folder, script="bench/cuda/summarise.py")
        self.assertEqual(json.loads((folder / "summary.json").read_text())["failed"], 1)
        return said

    def test_figures_that_are_not_there_are_no_success(self):
        self.assertIn("decode-a.json: no JSON document", self.summarise(""))
        self.assertIn("decode-a.json: KeyError", self.summarise("{}"))
        self.assertIn("decode-a.json: IndexError", self.summarise(json.dumps({
            "read_bandwidth_bytes_per_second": 1, "prompt_tokens": 1, "batch": 1,
            "decode_step_seconds": [], "step_bytes": 1})))
        self.assertIn("failed", self.summarise("{}", step="x"))

    def test_no_folder_of_results(self):
        for folder in (self.mine, self.top / "absent"):
            self.assertIn("holds no results",
                          self.call(2, folder, script="bench/cuda/summarise.py"))


if __name__ == "__main__":
    unittest.main()
