"""Terminals, pipes, colours, widths and Ctrl-C."""

import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
import unicodedata
import unittest
from fcntl import ioctl

from cli_case import COMMANDS, CliCase


def width(text):
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF"
               else 1 for c in text)


def start_endless(case, *more):
    """A generation that goes on until somebody stops it."""
    return subprocess.Popen(
        [case.binary, "generate", "Hi", "--model", str(case.model), "--max-new-tokens", "500000",
         "--eos-token-id", "none", *more],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=case.environment())


class Colors(CliCase):
    def test_none_into_a_pipe(self):
        self.assertNotIn("\x1b", self.run_ok("inspect", "--model", self.model))

    def test_always_and_never(self):
        self.assertIn("\x1b[", self.run_ok("inspect", "--color", "always", "--model", self.model))
        self.assertNotIn("\x1b", self.run_ok("inspect", "--color", "never", "--model", self.model))

    def test_no_color_wins_on_a_terminal(self):
        plain, _ = run_on_terminal(self, ["doctor"], NO_COLOR="1")
        self.assertNotIn(b"\x1b[3", plain)
        coloured, _ = run_on_terminal(self, ["doctor"])
        self.assertIn(b"\x1b[", coloured)

    def test_json_is_never_coloured(self):
        text = self.run_ok("inspect", "--json", "--color", "always", "--model", self.model)
        json.loads(text)


def run_on_terminal(case, arguments, columns=80, typed=b"", **changes):
    """Runs with all three streams on a terminal; its output and exit status."""
    try:
        process, descriptor = pty.fork()
    except OSError as error:  # a container without /dev/pts
        case.skipTest(f"no terminal to be had: {error}")
    if process == 0:
        try:
            os.execve(case.binary, [case.binary, *map(str, arguments)],
                      case.environment(**changes))
        finally:
            os._exit(127)
    ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    output = b""
    waiting = typed
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([descriptor], [], [], 0.5)
        if ready:
            try:
                part = os.read(descriptor, 65536)
            except OSError:
                break
            if not part:
                break
            output += part
        if waiting and output.endswith(b"> \x1b[0m"):
            line, _, waiting = waiting.partition(b"\n")
            os.write(descriptor, line + b"\n")
    _, status = os.waitpid(process, 0)
    os.close(descriptor)
    return output, os.waitstatus_to_exitcode(status)


class Terminals(CliCase):
    def test_chat_on_a_terminal(self):
        output, code = run_on_terminal(self, ["chat", "--model", self.model, "--max-new-tokens", 3],
                                       typed=b"Hello\n/set\n/quit\n")
        self.assertEqual(code, 0, output)
        self.assertIn(b"/help lists the commands", output)
        self.assertIn(b"reused_tokens=0", output)
        self.assertIn(b"max_new_tokens", output)

    def test_the_receipt_fits_the_terminal(self):
        output, code = run_on_terminal(self, ["generate", "Hi", "--max-new-tokens", 3, "--model",
                                              self.model], columns=60, NO_COLOR="1")
        self.assertEqual(code, 0, output)
        lines = output.decode(errors="replace").splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("settings: "))
        end = next(i for i, line in enumerate(lines) if line.startswith("prompt_tokens="))
        self.assertTrue(any(line.startswith("memory: ") for line in lines[start:end]))
        for line in lines[start:end]:
            self.assertLessEqual(len(line), 60, line)

    def test_model_text_cannot_move_the_cursor(self):
        output, code = run_on_terminal(
            self, ["tokenize", "--decode", "27,91,50,74", "--model", self.model])
        self.assertEqual(code, 0)
        self.assertIn(b"\\x1b[2J", output)
        self.assertNotIn(b"\x1b[2J", output)


class Widths(CliCase):
    def test_lines_fit(self):
        commands = [["--help"], ["doctor"], ["inspect", "--model", self.model],
                    ["logits", "Hello", "--model", self.model],
                    ["tokenize", "Hello 你好 é", "--model", self.model]]
        commands += [[command, "--help"] for command in COMMANDS]
        for columns in (20, 40, 80, 120):
            for arguments in commands:
                with self.subTest(columns=columns, arguments=arguments[0]):
                    text = self.run_ok(*arguments, env=self.environment(COLUMNS=str(columns)))
                    for line in text.splitlines():
                        # A flag's name is not broken.
                        if not line.lstrip().startswith("-"):
                            self.assertLessEqual(width(line), columns, line)


class Pipes(CliCase):
    def test_reader_that_goes_away(self):
        path = self.folder / "long.txt"
        path.write_text("word " * 100_000)
        process = subprocess.Popen(
            [self.binary, "tokenize", "--file", str(path), "--model", str(self.model)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment())
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(60), 0, errors)
        self.assertEqual(errors, b"")

    def test_generation_ends_with_its_reader(self):
        process = start_endless(self)
        process.stdout.read(1)
        process.stdout.close()
        process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(60), 0)

    def test_closed_standard_output(self):
        done = subprocess.run(["sh", "-c", '"$0" doctor >&-', self.binary],
                              stderr=subprocess.PIPE, env=self.environment(), timeout=60,
                              check=False)
        self.assertEqual(done.returncode, 4)
        self.assertIn(b"standard output is closed", done.stderr)

    def test_closed_standard_input_and_error(self):
        done = subprocess.run(
            ["sh", "-c", '"$0" tokenize Hi --model "$1" <&- 2>&-', self.binary, str(self.model)],
            stdout=subprocess.PIPE, env=self.environment(), timeout=60, check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"2 tokens", done.stdout)


class Interrupts(CliCase):
    def test_first_interrupt_keeps_what_is_there(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                process = start_endless(self)
                first = process.stdout.read(1)
                process.send_signal(number)
                rest, errors = process.communicate(timeout=60)
                self.assertEqual(process.returncode, 130, errors)
                self.assertTrue(first + rest)
                self.assertIn(b"stop=cancelled", errors)

    def test_interrupted_document_is_whole(self):
        process = start_endless(self, "--json")
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        text, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertEqual(json.loads(text)["stop_reason"], "cancelled")


if __name__ == "__main__":
    unittest.main()
