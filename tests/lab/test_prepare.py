"""./lab: what it installs, when it builds, how it counts its tests. The tools are fake."""

import os
import subprocess
import time
import unittest

from lab_tree import FAKE_LOGITLAB, ROOT, LabTree

# Logs its arguments. The first install finds no package lists; afterwards cmake is there.
FAKE_APT_GET = """#!/bin/bash
echo "$*" >>{top}/apt
case "$*" in
  *' install '*cargo-web*) printf '#!/bin/bash\\necho cargo 1.96.0 x\\n' >{top}/bin/cargo ;;
  *' install '*)
    [[ -f {top}/lists ]] || exit 100
    for name in cmake ninja ccache g++ pkg-config; do
      printf '#!/bin/bash\\n' >{top}/bin/$name; chmod +x {top}/bin/$name
    done ;;
  *' update'*) touch {top}/lists ;;
esac
"""

FAKE_CMAKE = """#!/bin/bash
echo "$*" >>{top}/cmake-calls
case "$1" in
  --version) echo cmake version 3.25.1 ;;
  --preset) mkdir -p build/$2; echo CMAKE_HOME_DIRECTORY:INTERNAL=$PWD >build/$2/CMakeCache.txt
            touch build/$2/build.ninja ;;
  --build)
    if grep -q broken src/a.cc; then echo 'src/a.cc:1: error: broken'; exit 1; fi
    mkdir -p build/release/apps/logitlab
    cp {top}/fake-logitlab build/release/apps/logitlab/logitlab ;;
esac
"""


class Packages(LabTree):
    def read(self, name):
        with open(os.path.join(self.top, name), encoding="utf-8") as file:
            return file.read()

    def test_without_apt_get_it_says_what_is_missing(self):
        _, err = self.lab("build", code=4, PATH=self.plain_path())
        for words in ("no apt-get", "cmake: build description", "g++: C++ compiler"):
            self.assertIn(words, err)

    @unittest.skipUnless(os.geteuid() == 0, "asks sudo otherwise")
    def test_installs_only_what_is_missing_and_says_so(self):
        self.write("bin/apt-get", FAKE_APT_GET.format(top=self.top), is_program=True)
        self.write("bin/g++", "#!/bin/bash\n", is_program=True)
        _, err = self.bash('resolve_home; use_own_caches; ensure "\ncmake|cmd:cmake|building\n'
                           'g++|cmd:g++|C++"', PATH=self.plain_path())
        self.assertIn("installing 1 Debian packages:\n  cmake: building\n", err)
        calls = self.read("apt").splitlines()
        self.assertEqual([call.split("120 ")[1] for call in calls],
                         ["install --no-install-recommends cmake", "update",
                          "install --no-install-recommends cmake"])
        _, err = self.bash('resolve_home; use_own_caches; ensure "\ncmake|cmd:cmake|building"',
                           PATH=self.plain_path())
        self.assertEqual((err, self.read("apt").splitlines()), ("", calls))

    @unittest.skipUnless(os.geteuid() == 0, "asks sudo otherwise")
    def test_a_package_that_cannot_be_had(self):
        self.write("bin/apt-get", "#!/bin/bash\necho E: Unable to locate package\nexit 100\n",
                   is_program=True)
        _, err = self.lab("build", code=4, PATH=self.plain_path())
        self.assertIn("Unable to locate", err)
        self.assertIn("could not install: ", err)

    def test_a_tool_that_is_too_old(self):
        self.write("bin/cmake", "#!/bin/bash\necho cmake version 3.22.1\n", is_program=True)
        _, err = self.bash("check_compilers", code=4, PATH=self.plain_path())
        self.assertIn("cmake 3.22.1, want 3.25 or newer", err)

    def test_versions(self):
        for have, want, is_enough in (("1.95.0", "1.85", True), ("1.85", "1.85", True),
                                      ("1.9", "1.85", False), ("3.25.1", "3.25", True),
                                      ("0.66.0", "1.85", False), ("12.2.0", "12", True)):
            with self.subTest((have, want)):
                self.bash(f"version_at_least {have} {want}", code=0 if is_enough else 1)


class Rust(LabTree):
    PREPARE = "resolve_home; use_own_caches; ensure_rust; echo has $(cargo --version)"

    def test_present(self):
        self.write("bin/cargo", "#!/bin/bash\necho cargo 1.90.0 x\n", is_program=True)
        out, err = self.bash(self.PREPARE, PATH=self.plain_path())
        self.assertEqual((out, err), ("has cargo 1.90.0 x\n", ""))

    def test_found_in_the_home_folder(self):
        self.write("home/.cargo/bin/cargo", "#!/bin/bash\necho cargo 1.90.0 x\n", is_program=True)
        self.assertIn("has cargo 1.90.0", self.bash(self.PREPARE, PATH=self.plain_path())[0])

    @unittest.skipUnless(os.geteuid() == 0, "asks sudo otherwise")
    def test_too_old_and_debian_has_a_newer_one(self):
        self.write("bin/cargo", "#!/bin/bash\necho cargo 1.63.0 x\n", is_program=True)
        self.write("bin/apt-get", FAKE_APT_GET.format(top=self.top), is_program=True)
        self.write("bin/apt-cache", "#!/bin/bash\ncase $2 in\n"
                   "cargo) echo '  Candidate: 0.66.0+ds1-1' ;;\n"
                   "cargo-web) echo '  Candidate: 1.96.0+dfsg1-1~deb12u2' ;;\nesac\n",
                   is_program=True)
        out, err = self.bash(self.PREPARE, PATH=self.plain_path())
        self.assertIn("has cargo 1.96.0", out)
        self.assertIn("found: ", err)
        self.assertIn("1.63.0", err)
        self.assertIn("Debian package cargo-web", err)

    def test_the_crate_says_which_version(self):
        self.write("project/crates/text/Cargo.toml", '[package]\nrust-version = "1.99.1"\n')
        self.write("bin/cargo", "#!/bin/bash\necho cargo 1.95.0 x\n", is_program=True)
        _, err = self.bash(self.PREPARE, code=4, PATH=self.plain_path())
        self.assertIn("Rust 1.99.1 or newer is needed", err)
        self.assertIn("cargo 1.95.0", err)
        self.assertIn("could not be installed", err)

    def test_the_configuration_of_the_user_stays_in_force(self):
        self.write("home/.cargo/config.toml", "[net]\nretry = 5\n")
        self.bash("resolve_home; use_own_caches; use_own_caches")
        self.assertEqual(self.files_in(os.path.join(self.cache, "cargo")), ["config.toml"])


class Building(LabTree):
    def setUp(self):
        super().setUp()
        self.write("fake-logitlab", FAKE_LOGITLAB, is_program=True)
        self.write("bin/cmake", FAKE_CMAKE.format(top=self.top), is_program=True)
        self.write("bin/cargo", "#!/bin/bash\necho cargo 1.90.0 x\n", is_program=True)
        self.write("project/src/a.cc", "fine\n")

    def n_builds(self):
        with open(os.path.join(self.top, "cmake-calls"), encoding="utf-8") as file:
            return sum(line.startswith("--build") for line in file)

    def touch_later(self, path):
        later = time.time() + 5
        os.utime(os.path.join(self.root, path), (later, later))

    def test_builds_once_and_again_after_an_edit(self):
        out, _ = self.lab("doctor")
        self.assertIn("<doctor>", out)
        self.assertEqual(self.n_builds(), 1)
        self.lab("doctor")
        self.assertEqual(self.n_builds(), 1)
        self.touch_later("src/a.cc")
        self.lab("doctor")
        self.assertEqual(self.n_builds(), 2)

    def test_a_build_that_breaks(self):
        self.write("project/src/a.cc", "broken\n")
        out, err = self.lab("doctor", code=4)
        self.assertEqual(out, "")
        self.assertIn("src/a.cc:1: error: broken", err)
        self.assertIn(os.path.join(self.cache, "logs", "build-release.log"), err)
        self.write("project/src/a.cc", "fine\n")
        self.assertIn("<doctor>", self.lab("doctor")[0])

    def test_a_moved_clone_is_configured_anew(self):
        self.lab("doctor")
        cache = os.path.join(self.root, "build", "release", "CMakeCache.txt")
        self.write(cache, "CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere\n")
        self.touch_later("src/a.cc")
        self.lab("doctor")
        with open(cache, encoding="utf-8") as file:
            self.assertIn(self.root, file.read())


class Steps(LabTree):
    START = "resolve_home; make_home; load_tests; STEPS=3; "

    def test_counts_and_closing_line(self):
        out, _ = self.bash(self.START + "two() { PASSED=2 SKIPPED=1; }; step one true; step two two; "
                           "after one three true; summary")
        self.assertEqual(out.splitlines()[-1], "4 passed, 0 failed, 1 skipped")
        self.assertRegex(out, r"\[1/3\] one +ok")

    def test_what_goes_wrong_is_shown_and_counted(self):
        out, _ = self.bash(self.START + "bad() { echo the reason; PASSED=3 FAILED=2; return 1; }; "
                           "dies() { die no package; }; step one bad; after one two true; "
                           "step three dies; summary", code=1)
        self.assertIn("    | the reason", out)
        self.assertIn("    | lab: no package", out)
        self.assertRegex(out, r"\[2/3\] two +not run, see: one")
        self.assertEqual(out.splitlines()[-1], "3 passed, 3 failed")

    def test_a_bad_end_without_a_count_is_a_failure(self):
        out, _ = self.bash(self.START + "odd() { PASSED=5; return 1; }; step one odd; summary", code=1)
        self.assertEqual(out.splitlines()[-1], "5 passed, 1 failed")


class ContinuousIntegration(LabTree):
    def run_ci(self, first, second, code):
        with open(os.path.join(ROOT, ".ci", "run"), encoding="utf-8") as file:
            self.write("project/.ci/run", file.read(), is_program=True)
        self.write("project/lab", "#!/bin/bash\n"
                   f"if [[ $* == 'test --oracle' ]]; then {second}; else {first}; fi\n",
                   is_program=True)
        result = subprocess.run(["bash", os.path.join(self.root, ".ci", "run")], text=True,
                                env=self.environment(CI="true"), stdin=subprocess.DEVNULL,
                                capture_output=True, timeout=60, check=False)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout.splitlines()[-1]

    def test_adds_both_up(self):
        self.assertEqual(self.run_ci("echo 10 passed, 0 failed, 1 skipped", "echo 5 passed, 0 failed",
                                     0), "15 passed, 0 failed, 1 skipped")

    def test_failures(self):
        self.assertEqual(self.run_ci("echo 9 passed, 1 failed; exit 1", "echo 5 passed, 0 failed", 1),
                         "14 passed, 1 failed")

    def test_a_suite_that_dies_is_a_failure(self):
        self.assertEqual(self.run_ci("echo 9 passed, 0 failed", "echo boom; exit 4", 1),
                         "9 passed, 1 failed")

    def test_a_bad_exit_with_clean_counts_is_no_success(self):
        self.run_ci("echo 9 passed, 0 failed; exit 1", "echo 5 passed, 0 failed", 1)


if __name__ == "__main__":
    unittest.main()
