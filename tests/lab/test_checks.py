"""The checks of tools/ find what is planted, and leave alone what looks like it."""

import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))

import check_layers  # noqa: E402
import check_sizes  # noqa: E402
import check_style  # noqa: E402
import count_tests  # noqa: E402
import source_tree  # noqa: E402


class Tree(unittest.TestCase):
    """A tree of files made for one test."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(text)

    def messages(self, module):
        return [str(finding) for finding in module.check(self.root)[0]]

    def assert_finds(self, module, *wanted):
        """Each wanted "path:line" is found, with its words, and nothing else is."""
        found = self.messages(module)
        self.assertEqual(len(found), len(wanted), found)
        for place, words in wanted:
            self.assertTrue(any(f.startswith(place + ":") and words in f for f in found),
                            f"{place} with {words!r} is not in {found}")


class Layers(Tree):
    def setUp(self):
        super().setUp()
        for path in ("base/error.h", "tensor/tensor.h", "nn/linear.h", "models/model.h",
                     "backend/backend.h", "backend/cpu/kernels.h", "state/kv_cache.h",
                     "sampling/draw.h", "engine/engine.h"):
            self.write("src/" + path, "#pragma once\n")
        self.write("include/logitlab/types.h", "#include <string>\n")

    def test_allowed_includes_are_quiet(self):
        self.write("src/nn/linear.cc", '#include "nn/linear.h"\n#include <vector>\n'
                   '#include "backend/backend.h"\n#include "logitlab/types.h"\n')
        self.write("src/backend/registry.cc", '#include "backend/cpu/kernels.h"\n')
        self.write("apps/logitlab/main.cc", '#include "engine/engine.h"\n#include "flags.h"\n')
        self.write("apps/logitlab/flags.h", "")
        self.assert_finds(check_layers)

    def test_upward_include(self):
        self.write("src/tensor/tensor.cc", '#include "base/error.h"\n#include "nn/linear.h"\n')
        self.assert_finds(check_layers, ("src/tensor/tensor.cc:2", "may use: base"))

    def test_lower_but_not_named(self):
        self.write("src/sampling/draw.cc", '#include "models/model.h"\n')
        self.assert_finds(check_layers, ("src/sampling/draw.cc:1", "may use"))

    def test_base_uses_nothing(self):
        self.write("src/base/error.cc", '#include "tensor/tensor.h"\n')
        self.assert_finds(check_layers, ("src/base/error.cc:1", "may use: include"))

    def test_installed_headers_use_the_standard_library_only(self):
        self.write("include/logitlab/engine.h", '#include "base/error.h"\n')
        self.assert_finds(check_layers, ("include/logitlab/engine.h:1", "standard library only"))

    def test_backend_private_header(self):
        self.write("src/nn/linear.cc", '#include "backend/cpu/kernels.h"\n')
        self.write("apps/logitlab/main.cc", '#include "backend/cpu/kernels.h"\n')
        self.assert_finds(check_layers, ("src/nn/linear.cc:1", "private"),
                          ("apps/logitlab/main.cc:1", "private"))

    def test_path_not_from_src(self):
        self.write("src/nn/linear.cc", '#include "linear.h"\n#include "../base/error.h"\n'
                   '#include <base/error.h>\n#include "nn/absent.h"\n')
        self.assert_finds(check_layers, ("src/nn/linear.cc:1", "path from src/"),
                          ("src/nn/linear.cc:2", "path from src/"),
                          ("src/nn/linear.cc:3", "file of this project"),
                          ("src/nn/linear.cc:4", "not in src/"))

    def test_include_in_a_comment_is_quiet(self):
        self.write("src/base/error.cc", '// #include "nn/linear.h"\n/*\n#include "nn/linear.h"\n*/\n')
        self.assert_finds(check_layers)

    def test_foreign_header(self):
        self.write("src/text/tokenizer.cc", '#include "logitlab_text.h"\n')
        self.write("src/models/model.cc", '#include "logitlab_text.h"\n')
        self.assert_finds(check_layers, ("src/models/model.cc:1", "for text only"))

    def test_cmake_deps(self):
        self.write("src/tensor/CMakeLists.txt",
                   "# DEPS nn in a comment\nlogitlab_library(\n  NAME tensor\n  DEPS base nn\n"
                   "  SRCS a.cc)\n")
        self.write("src/state/CMakeLists.txt", "logitlab_library(NAME states DEPS base)\n")
        self.assert_finds(check_layers, ("src/tensor/CMakeLists.txt:2", "DEPS nn"),
                          ("src/state/CMakeLists.txt:1", "library states"))

    def test_unknown_folder(self):
        self.write("src/extras/a.cc", "\n")
        self.write("src/loose.cc", "\n")
        self.assert_finds(check_layers, ("src/extras/a.cc:1", "table of layers"),
                          ("src/loose.cc:1", "table of layers"))

    def test_architecture_names(self):
        self.write("src/models/arch/llama.cc", 'auto n = "llama"; struct LlamaModel {};\n')
        self.write("src/models/registry.cc", '#include "models/model.h"\nauto n = "qwen3";\n')
        self.write("src/text/vocab.cc", 'auto n = "llama-bpe";\n')
        self.write("src/nn/nn_test.cc", 'auto n = "mistral";\n')
        self.write("apps/logitlab/main.cc", 'auto a = "the format of llama.cpp";  // llama\n')
        self.write("src/nn/mamba2.cc", 'struct Mamba2 {};\nauto n = "Mamba layers";\n')
        self.assert_finds(check_layers)
        self.write("src/models/model.cc", '\nif (name == "llama") {}\nauto kind = Kind::kQwen3;\n')
        self.assert_finds(check_layers, ("src/models/model.cc:2", "names an architecture"),
                          ("src/models/model.cc:3", "kQwen3"))
        self.write("src/models/model.cc", "\n")
        self.write("src/nn/mamba2.cc", 'auto n = "nemotron_h";\nauto kind = Kind::kNemotronH;\n')
        self.assert_finds(check_layers, ("src/nn/mamba2.cc:1", "names an architecture"),
                          ("src/nn/mamba2.cc:2", "kNemotronH"))


LONG_BODY = "  x += 1;\n" * 90


class Sizes(Tree):
    def test_file_lengths(self):
        self.write("src/base/a.cc", "int a;\n" * 800)
        self.write("src/base/a.h", "int a;\n" * 300)
        self.write("src/backend/k-inl.h", "int a;\n" * 800)
        self.assert_finds(check_sizes)
        self.write("src/base/a.cc", "int a;\n" * 801)
        self.write("src/base/a.h", "int a;\n" * 301)
        self.write("tool", "#!/usr/bin/env bash\n" * 801)
        self.assert_finds(check_sizes, ("src/base/a.cc:801", "801 lines"),
                          ("src/base/a.h:301", "301 lines"), ("tool:801", "801 lines"))

    def test_long_cpp_functions(self):
        self.write("a.cc", "namespace n {\nvoid f(int x) {\n" + LONG_BODY + "}\n"
                   "class C {\n public:\n  int g() const override {\n" + LONG_BODY + "  }\n"
                   "  int h_ = 0;\n};\n"
                   "C::C(int x) : a_{x}, b_(x) {\n" + LONG_BODY + "}\n"
                   "auto k(int x) -> int {\n" + LONG_BODY + "}\n"
                   "TEST(Suite, Case) {\n" + LONG_BODY + "}\n}\n")
        self.assert_finds(check_sizes, ("a.cc:2", "f: 92"), ("a.cc:96", "g: 92"),
                          ("a.cc:190", "C::C: 92"), ("a.cc:282", "k: 92"),
                          ("a.cc:374", "TEST(Suite, Case): 92"))

    def test_long_but_no_function(self):
        self.write("a.cc", "const int kTable[] = {\n" + "  1,\n" * 200 + "};\n"
                   "struct S {\n" + "  int a;\n" * 100 + "};\n"
                   "enum class E {\n" + "  kA,\n" * 100 + "};\n"
                   'const char* text = R"(' + "void f() {\n" * 100 + ')";\n'
                   "void g() {\n" + "  x();\n" * 78 + "}\n")
        self.assert_finds(check_sizes)

    def test_braces_in_literals_and_conditions_do_not_confuse(self):
        body = ("  if (c == '{') {\n" + LONG_BODY + '  }\n  s = "}}}";  // }}}\n')
        self.write("a.cc", "void f(int x) {\n" + body + "}\nvoid g() {\n  y();\n}\n")
        self.assertEqual(check_sizes.cpp_functions("void f(int x) {\n" + body + "}\nvoid g() {\n"
                                                   "  y();\n}\n"),
                         [("f", 1, 95), ("g", 96, 3)])

    def test_preprocessor_branches(self):
        text = "void f(\n#ifdef A\n    int x) {\n#else\n    long x) {\n#endif\n  y();\n}\nint g() {\n}\n"
        self.assertEqual([f[0] for f in check_sizes.cpp_functions(text)], ["f", "g"])

    def test_long_rust_python_and_shell_functions(self):
        self.write("a.rs", "impl<'a> S<'a> {\n  fn f(c: char) {\n    let q = '{';\n" + LONG_BODY +
                   "  }\n}\nfn g();\n")
        self.write("a.py", "def f():\n" + "  x = 1\n" * 90)
        self.write("a.sh", "f() {\n" + "  x\n" * 90 + "}\ng() (\n  x\n)\n")
        self.assert_finds(check_sizes, ("a.rs:2", "f: 93"), ("a.py:1", "f: 91"),
                          ("a.sh:1", "f: 92"))

    def test_python_that_does_not_parse(self):
        self.write("a.py", "def f(:\n")
        self.assert_finds(check_sizes, ("a.py:1", "not Python"))


class Style(Tree):
    def rule(self, path, line, words):
        """The line alone is found at that path; a quiet line beside it is not."""
        self.write(path, "int quiet;\n" + line + "\n")
        self.assert_finds(check_style, (f"{path}:2", words))
        os.remove(os.path.join(self.root, path))

    def quiet(self, path, text):
        self.write(path, text)
        self.assert_finds(check_style)
        os.remove(os.path.join(self.root, path))

    def test_environment_terminal_exit_clock(self):
        for line, words in ((' auto a = std::getenv("A");', "environment"),
                            ("std::cout << 1;", "terminal"), ('printf("x");', "terminal"),
                            ('std::fprintf(stderr, "x");', "terminal"),
                            ('fmt::print("x");', "terminal"), ("std::exit(1);", "end of the"),
                            ("abort();", "end of the"), ("time(nullptr);", "clock"),
                            ("std::chrono::steady_clock::now();", "clock")):
            with self.subTest(line):
                self.rule("src/nn/a.cc", line, words)
                self.quiet("src/base/a.cc", line + "\n")
                self.quiet("src/nn/a_test.cc", line + "\n")
                self.quiet("apps/logitlab/a.cc", line + "\n")
                self.quiet("src/nn/a.cc", "// " + line + "\n")
        self.quiet("src/nn/a.cc", 'out.print(1); step_time(2); a = fmt::format("exit(1)");\n')

    def test_new_delete_throw(self):
        self.rule("src/nn/a.cc", "auto* a = new A;", "new, want")
        self.rule("src/nn/a.cc", "delete a;", "delete, want")
        self.rule("src/nn/a.cc", "throw std::runtime_error(x);", "does not throw")
        self.rule("apps/logitlab/a.cc", "throw;", "does not throw")
        self.quiet("src/nn/a.cc", "#include <new>\nA(const A&) = delete;  // new and delete\n"
                   'int news; auto s = "throw new";\nstd::unique_ptr<A> a(new A(1));\n')

    def test_library(self):
        self.rule("src/nn/a.cc", "#include <format>", "GCC 12")
        self.rule("src/nn/a_test.cc", "using namespace std;", "using namespace")
        self.rule("src/nn/a.cc", "for (auto x : std::views::iota(1)) {}", "Clang 14")

    def test_backend_conditions(self):
        for line in ("#ifdef LOGITLAB_CUDA", "#if defined(__AVX2__)", "#  elif HWY_TARGET == 1",
                     "#ifndef __ARM_NEON"):
            with self.subTest(line):
                self.rule("src/nn/a.cc", line, "belongs in")
                self.quiet("src/backend/cpu/a.cc", line + "\n")
        self.quiet("src/nn/a.h", "#ifndef NDEBUG\n#endif\n")
        self.quiet("src/sampling/a.cc", "#if HWY_ONCE\n#endif\n")
        self.rule("src/sampling/a.cc", "#if HWY_ONCE && HWY_TARGET == HWY_AVX2", "belongs in")

    def test_type_names(self):
        for name in ("struct TensorInfo {", "class CacheManager final {", "enum class PathUtil {",
                     "using FileData = int;", "class JsonHelper;"):
            with self.subTest(name):
                self.rule("include/logitlab/a.h", name, "type ")
        self.quiet("src/nn/a.h", "struct Database {};\nstruct Information {};\nauto d = x.data();\n")

    def test_macros(self):
        self.rule("include/logitlab/a.h", "#define MAX(a) a", "want LOGITLAB_")
        self.quiet("include/logitlab/a.h", "#define LOGITLAB_MAX(a) a\n")
        self.quiet("src/base/a.h", "#define CHECK(a) a\n")

    def test_comments_are_ascii(self):
        self.rule("src/nn/a.cc", "int b;  // na\u00efve", "plain ASCII")
        self.rule("src/nn/a_test.cc", "/* a\u2014b */", "plain ASCII")
        self.quiet("src/nn/a.cc", 'auto s = "na\u00efve";\n')

    def test_todo(self):
        self.rule("src/nn/a.cc", "// TODO: later", "TODO without")
        self.rule("tools/a.py", "# FIXME later", "FIXME without")
        self.rule("cmake/a.cmake", "# XXX", "XXX without")
        self.quiet("src/nn/a.cc", "// TODO(#12): later\n")
        self.quiet("a.sh", "mktemp fetch-XXXXXX\n")

    def test_folders(self):
        self.write("src/nn/utils/a.cc", "")
        self.write("src/nn/utils/b.cc", "")
        self.assert_finds(check_style, ("src/nn/utils/a.cc:1", "folder utils/"))

    def test_machine_paths(self):
        for path in ("/work/main/x", "/root/.cache/x", "/home/alice/x"):
            with self.subTest(path):
                self.rule("docs/a.md", f"see {path}", "one machine")
        self.quiet("docs/a.md", "docs/work/a.md $HOME/work/x ~/work/x https://a.b/root/x /home/you/x\n")


class Splitting(unittest.TestCase):
    def test_lines_stay(self):
        text = 'a; // one\n/* two\nthree */ b = "x//y\\"";\nauto r = R"(z\n"//)"; c = \'"\';  // four\n'
        split = source_tree.split_text(text)
        self.assertEqual(split.code.count("\n"), text.count("\n"))
        self.assertEqual([line for line, _ in split.comments], [1, 2, 5])
        self.assertEqual([line for line, _ in split.strings], [3, 4])
        self.assertNotIn("three", split.code)
        self.assertIn("b = ", split.code)

    def test_digit_separators_are_no_literals(self):
        split = source_tree.split_text("a = 1'000'000; // c\nb = '\\'';\n")
        self.assertIn("1'000'000", split.code)
        self.assertEqual(len(split.comments), 1)

    def test_rust_lifetimes_are_no_literals(self):
        split = source_tree.split_text("fn f<'a>(x: &'a str) { let c = '}'; let s = r#\"{\"#; }", "rust")
        self.assertEqual(split.code.count("{"), 1)
        self.assertEqual(split.code.count("}"), 1)


class Counting(Tree):
    JUNIT = ('<testsuite tests="3">{}</testsuite>')

    def count(self, cases, gtest=None):
        self.write("junit.xml", self.JUNIT.format(cases))
        for name, text in (gtest or {}).items():
            self.write(f"gtest/{name}.xml", text)
        return count_tests.count(os.path.join(self.root, "junit.xml"),
                                 os.path.join(self.root, "gtest"))

    def test_plain(self):
        totals, failed = self.count(
            '<testcase name="a" status="run"/><testcase name="b"><failure/></testcase>'
            '<testcase name="c"><skipped/></testcase><testcase name="d"><error/></testcase>')
        self.assertEqual(totals, {"passed": 1, "failed": 2, "skipped": 1})
        self.assertEqual(failed, ["b", "d"])

    def test_cases_of_a_binary(self):
        totals, failed = self.count(
            '<testcase name="a"/><testcase name="b"><failure/></testcase>',
            {"a": '<testsuites><testsuite><testcase name="x" classname="S"/>'
                  '<testcase name="y" classname="S" result="skipped"/></testsuite></testsuites>',
             "b": '<testsuites><testsuite><testcase name="x" classname="S"/><testcase name="z" '
                  'classname="S"><failure/></testcase></testsuite></testsuites>'})
        self.assertEqual(totals, {"passed": 2, "failed": 1, "skipped": 1})
        self.assertEqual(failed, ["b: S.z"])

    def test_a_crash_counts_once_more(self):
        whole = '<testsuites><testsuite><testcase name="x"/></testsuite></testsuites>'
        bad = '<testcase name="a"><failure/></testcase>'
        self.assertEqual(self.count(bad, {"a": whole})[0], {"passed": 1, "failed": 1, "skipped": 0})
        self.assertEqual(self.count(bad, {"a": whole[:30]})[0],
                         {"passed": 0, "failed": 1, "skipped": 0})


if __name__ == "__main__":
    unittest.main()
