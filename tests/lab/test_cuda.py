"""./lab and the CUDA compiler: which one is taken, and what is said when there is none."""

import os
import unittest
import zipfile

from lab_tree import LabTree, sha256

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


if __name__ == "__main__":
    unittest.main()
