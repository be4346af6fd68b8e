"""Every command does what its help says, as text and as JSON."""

import json
import statistics
import struct
import unittest

import tiny_model
from cli_case import COMMANDS, CliCase


class Generate(CliCase):
    def setting(self, document, name):
        entry = document["settings"][name]
        self.assertEqual(set(entry), {"value", "origin", "acts", "why"})
        return entry["value"], entry["origin"]

    def test_document_holds_what_a_rerun_needs(self):
        document = self.run_json("generate", "Hi", "--model", self.model, "--max-new-tokens", 6)
        self.assertEqual(document["prompt"]["text"],
                         "<|start|>user\nHi<|end|>\n<|start|>assistant\n")
        self.assertLessEqual(len(document["ids"]), 6)
        self.assertIn(document["stop_reason"], ["eos_token", "length"])
        self.assertEqual(self.setting(document, "max_new_tokens"), (6, "given"))
        self.assertEqual(self.setting(document, "eos_token_id"), ([tiny_model.END_ID], "model"))
        self.assertEqual(document["settings"]["temperature"]["origin"], "default")
        self.assertEqual(document["timings"]["prompt_tokens"], len(document["prompt"]["ids"]))
        self.assertEqual(document["timings"]["new_tokens"], len(document["ids"]))
        self.assertTrue(document["model"]["fingerprint"].startswith("fnv1a64:"))
        for key in ("isa", "device", "threads", "commit"):
            self.assertIn(key, document["machine"])

    def test_text_and_receipt_go_to_different_streams(self):
        done = self.run_cli("generate", "Hi", "--model", self.model, "--max-new-tokens", 5)
        self.assertEqual(done.returncode, 0)
        receipt = done.stderr.decode().splitlines()[-1]
        self.assertRegex(receipt, r"^prompt_tokens=\d+ new_tokens=\d+ first_token_s=\d+\.\d+ "
                                  r"tok_per_s=\d+\.\d peak_memory_mib=\d+ stop=\w+$")
        self.assertNotIn(b"prompt_tokens", done.stdout)

    def test_same_text_for_any_number_of_threads_and_the_same_seed(self):
        arguments = ["generate", "Hi", "--model", self.model, "--max-new-tokens", 30,
                     "--do-sample", "--ids", "--eos-token-id", "none"]
        one = self.run_ok(*arguments, "--seed", 3, "--threads", 1)
        two = self.run_ok(*arguments, "--seed", 3, "--threads", 2)
        other = self.run_ok(*arguments, "--seed", 4, "--threads", 1)
        self.assertEqual(one, two)
        self.assertNotEqual(one, other)
        self.assertEqual(len(one.split(",")), 30)

    def test_settings_take_both_spellings_and_a_switch(self):
        document = self.run_json("generate", "Hi", "--model", self.model, "--max_new_tokens", 2,
                                 "--no-do-sample")
        self.assertEqual(document["settings"]["max_new_tokens"]["value"], 2)
        self.assertEqual(self.setting(document, "do_sample"), (False, "given"))

    def test_system_message_and_thinking_reach_the_template(self):
        document = self.run_json("generate", "Hi", "--model", self.model, "--max-new-tokens", 1,
                                 "--system", "Be brief.", "--think", "off",
                                 "--template-var", 'mood="calm"')
        self.assertEqual(document["prompt"]["text"],
                         "<|start|>system\nBe brief.<|end|>\n<|start|>user\nHi<|end|>\n"
                         "think:False\nmood:calm\n<|start|>assistant\n")

    def test_raw_prompt_is_the_prompt(self):
        document = self.run_json("generate", "--raw", "Hi", "--model", self.model,
                                 "--max-new-tokens", 1)
        self.assertEqual(document["prompt"], {"text": "Hi", "ids": [72, 105]})
        without = self.run_json("generate", "Hi", "--model", self.plain_model,
                                "--max-new-tokens", 1)
        self.assertEqual(without["prompt"]["ids"], [72, 105])

    def test_alternatives_of_every_step(self):
        document = self.run_json("generate", "Hi", "--model", self.model, "--max-new-tokens", 3,
                                 "--eos-token-id", "none", "--top", 4)
        self.assertEqual(len(document["steps"]), 3)
        for step, chosen in zip(document["steps"], document["ids"]):
            best = step["alternatives"]
            self.assertEqual(len(best), 4)
            self.assertEqual(best[0]["id"], chosen)
            self.assertEqual(step["id"], chosen)
            probabilities = [item["probability"] for item in best]
            self.assertEqual(probabilities, sorted(probabilities, reverse=True))
            self.assertAlmostEqual(step["probability"], probabilities[0], places=9)

    def test_prompt_from_file_and_standard_input(self):
        path = self.folder / "prompt.txt"
        path.write_bytes(b"Hi\n")
        arguments = ["generate", "--raw", "--model", self.model, "--max-new-tokens", 1]
        from_file = self.run_json(*arguments, "--file", path)
        from_stdin = self.run_json(*arguments, "-", stdin=b"Hi\n")
        self.assertEqual(from_file["prompt"], {"text": "Hi\n", "ids": [72, 105, 10]})
        self.assertEqual(from_stdin["prompt"], from_file["prompt"])

    def test_default_limit_is_named(self):
        done = self.run_cli("generate", "Hi", "--model", self.model, "--eos-token-id", "none")
        self.assertEqual(done.returncode, 0)
        self.assertIn("new_tokens=20 ", done.stderr.decode())
        self.assertIn("--max-new-tokens", done.stderr.decode())


class Chat(CliCase):
    def test_script_keeps_the_state(self):
        document = self.run_json("chat", "--model", self.model, "--max-new-tokens", 4,
                                 stdin=b"Hello\nAnd again\n")
        roles = [message["role"] for message in document["messages"]]
        self.assertEqual(roles, ["user", "assistant", "user", "assistant"])
        first, second = document["turns"]
        self.assertEqual(first["reused_prompt_tokens"], 0)
        # At the least the whole first prompt is not computed again.
        self.assertGreaterEqual(second["reused_prompt_tokens"], first["prompt_tokens"])
        self.assertLess(second["reused_prompt_tokens"], second["prompt_tokens"])

    def test_reuse_does_not_change_the_answer(self):
        document = self.run_json("chat", "--model", self.model, "--max-new-tokens", 12,
                                 stdin=b"Hello\nAnd again\n")
        messages = self.folder / "messages.json"
        messages.write_text(json.dumps(document["messages"][:3]))
        prompt = self.run_json("template", "--messages", messages, "--model", self.model)
        raw = self.run_json("generate", "--raw", "--model", self.model, "--max-new-tokens", 12,
                            prompt["text"])
        self.assertEqual(raw["prompt"]["ids"], prompt["ids"])
        self.assertEqual(raw["ids"], document["turns"][1]["ids"])

    def test_commands(self):
        path = self.folder / "saved.json"
        script = (f"/system Be kind.\nHello\n/set max_new_tokens 3\n/set\nAgain\n/save {path}\n"
                  "/reset\n/help\n//slash\n/quit\nnever read\n")
        done = self.run_cli("chat", "--model", self.model, "--max-new-tokens", 5, "--json",
                            stdin=script.encode())
        self.assertEqual(done.returncode, 0, done.stderr)
        document = json.loads(done.stdout)
        contents = [message["content"] for message in document["messages"]]
        self.assertEqual(contents[:2], ["Be kind.", "/slash"])
        self.assertEqual(len(contents), 3)
        saved = json.loads(path.read_text())
        self.assertEqual(len(saved["messages"]), 5)
        self.assertEqual(saved["settings"]["max_new_tokens"]["value"], 3)
        self.assertIn("/reset", done.stderr.decode())

    def test_no_prompt_sign_without_a_terminal(self):
        done = self.run_cli("chat", "--model", self.model, "--max-new-tokens", 2, stdin=b"\n\nHi")
        self.assertEqual(done.returncode, 0)
        self.assertNotIn(b"> ", done.stderr)
        self.assertIn(b"reused_tokens=0", done.stderr)

    def test_first_error_ends_a_script(self):
        self.assertIn("/wrong", self.refused(3, "chat", "--model", self.model, stdin=b"/wrong\n"))
        self.assertIn("temperature", self.refused(3, "chat", "--model", self.model,
                                                  stdin=b"/set temperature warm\n"))

    def test_needs_a_template(self):
        self.assertIn("template", self.refused(3, "chat", "--model", self.plain_model))


class TextCommands(CliCase):
    def test_tokenize(self):
        document = self.run_json("tokenize", "é!<|end|>", "--model", self.model)
        self.assertEqual(document["ids"], [0xC3, 0xA9, 33, tiny_model.END_ID])
        self.assertEqual(document["count"], 4)
        self.assertEqual(document["tokens"][0]["bytes"], "c3")
        self.assertEqual([token["special"] for token in document["tokens"]],
                         [False, False, False, True])
        plain = self.run_json("tokenize", "<|end|>", "--no-special", "--model", self.model)
        self.assertEqual(bytes(plain["ids"]), b"<|end|>")

    def test_tokenize_shows_control_characters_as_escapes(self):
        text = self.run_ok("tokenize", "a\x1b\n", "--model", self.model)
        self.assertIn("'\\x1b'", text)
        self.assertIn("'\\n'", text)
        self.assertNotIn("\x1b", text)
        self.assertIn("3 tokens, 3 bytes", text)

    def test_decode(self):
        self.assertEqual(self.run_ok("tokenize", "--decode", "72,105", "--model", self.model),
                         "Hi\n")
        self.assertEqual(
            self.run_ok("tokenize", "--decode", "72", "105", "256", "--skip-special", "--model",
                        self.model), "Hi\n")
        self.assertEqual(self.run_ok("tokenize", "Hi", "--ids", "--model", self.model), "72,105\n")

    def test_template(self):
        self.assertEqual(self.run_ok("template", "Hi", "--model", self.model),
                         "<|start|>user\nHi<|end|>\n<|start|>assistant\n")
        tools = self.folder / "tools.json"
        tools.write_text('[{"type": "function", "function": {"name": "f"}}]')
        document = self.run_json("template", "Hi", "--tools", tools, "--think", "on",
                                 "--no-generation-prompt", "--model", self.model)
        self.assertEqual(document["text"],
                         "<|start|>user\nHi<|end|>\ntools:1\nthink:True\n")
        self.assertEqual(document["count"], len(document["ids"]))

    def test_template_source(self):
        source = self.run_ok("template", "--show-source", "--model", self.model)
        self.assertEqual(source, tiny_model.TEMPLATE + "\n")
        self.assertIn("256 '<|end|>'",
                      self.run_ok("template", "Hi", "--ids", "--model", self.model))


class Logits(CliCase):
    def test_rows_agree_with_each_other(self):
        whole = self.run_json("logits", "--ids", "72,105,33", "--all", "--full", "--model",
                              self.model)
        self.assertEqual(whole["ids"], [72, 105, 33])
        self.assertEqual([row["position"] for row in whole["rows"]], [0, 1, 2])
        self.assertEqual(len(whole["rows"][2]["logits"]), tiny_model.VOCAB_SIZE)
        last = self.run_json("logits", "Hi!", "--full", "--top", 3, "--model", self.model)
        self.assertEqual(last["rows"][0]["position"], 2)
        self.assertEqual(last["rows"][0]["logits"], whole["rows"][2]["logits"])
        best = last["rows"][0]["top"]
        self.assertEqual(len(best), 3)
        self.assertEqual(best[0]["logit"], max(last["rows"][0]["logits"]))
        self.assertNotIn("logits", self.run_json("logits", "Hi!", "--model", self.model)["rows"][0])

    def test_npy(self):
        path = self.folder / "x.npy"
        text = self.run_ok("logits", "Hi!", "--all", "--out", path, "--model", self.model)
        self.assertIn("float32 [3, 260]", text)
        data = path.read_bytes()
        self.assertEqual(data[:6], b"\x93NUMPY")
        size = struct.unpack("<H", data[8:10])[0]
        self.assertEqual(len(data), 10 + size + 3 * 260 * 4)
        row = self.run_json("logits", "Hi!", "--full", "--model", self.model)["rows"][0]["logits"]
        stored = struct.unpack("<260f", data[-260 * 4:])
        for left, right in zip(stored, row):
            self.assertAlmostEqual(left, right, places=5)

    def test_reference_device_agrees(self):
        arguments = ["logits", "Hello", "--full", "--model", self.model]
        fast = self.run_json(*arguments)["rows"][0]["logits"]
        slow = self.run_json(*arguments, "--device", "reference")["rows"][0]["logits"]
        largest = max(map(abs, slow))
        for left, right in zip(fast, slow):
            self.assertAlmostEqual(left, right, delta=1e-4 * largest)


class OtherCommands(CliCase):
    def test_inspect(self):
        document = self.run_json("inspect", "--tensors", "--positions", 64, "--model", self.model)
        count = sum(self.elements(shape) for shape in tiny_model.tensor_shapes().values())
        self.assertEqual(document["parameters"], count)
        self.assertEqual(document["config"]["num_hidden_layers"], tiny_model.LAYERS)
        self.assertEqual(len(document["tensors"]), len(tiny_model.tensor_shapes()))
        self.assertEqual(document["tensor_types"]["F32"]["elements"], count)
        self.assertEqual(document["stop_ids"],
                         [{"id": tiny_model.END_ID, "origin": "generation_config.json"}])
        self.assertEqual(document["tokenizer"]["vocab_size"], tiny_model.VOCAB_SIZE)
        plan = document["memory_plan"]
        self.assertEqual(plan["positions"], 64)
        self.assertEqual(plan["kv_bytes"],
                         64 * 2 * 4 * tiny_model.LAYERS * tiny_model.KV_HEADS * tiny_model.HEAD_DIM)
        matrices = sum(4 * self.elements(shape) for shape in tiny_model.tensor_shapes().values()
                       if len(shape) == 2)
        self.assertEqual(plan["weights_mapped_bytes"], matrices)
        self.assertEqual(plan["weights_own_bytes"], 4 * count - matrices)
        present = {file["name"]: file["status"] for file in document["files"]}
        self.assertEqual(present["model.safetensors"], "present")

    @staticmethod
    def elements(shape):
        count = 1
        for size in shape:
            count *= size
        return count

    def test_inspect_names_shards(self):
        folder = tiny_model.write_model(self.folder / "sharded", shards=3)
        text = self.run_ok("inspect", "--model", folder)
        for shard in (1, 2, 3):
            self.assertIn(f"model-{shard:05}-of-00003.safetensors", text)
        (folder / "model-00002-of-00003.safetensors").unlink()
        line = self.refused(3, "inspect", "--model", folder)
        self.assertIn("model-00002-of-00003.safetensors", line)

    def test_doctor(self):
        document = self.run_json("doctor")
        by_name = {(item["group"], item["name"]): item for item in document["findings"]}
        self.assertEqual(by_name["models", "default"]["status"], "missing")
        self.assertGreater(by_name["memory", "available"]["values"]["total_bytes"], 0)
        self.assertIn(by_name["processor", "instruction set"]["values"]["chosen"],
                      by_name["processor", "instruction set"]["values"]["available"])
        for item in document["findings"]:
            self.assertIn(item["status"], ["ok", "warn", "missing"])
        self.assertIn("processor", self.run_ok("doctor"))

    def test_bench(self):
        document = self.run_json("bench", "-p", 16, "-n", 4, "--reps", 2, "--model", self.model)
        self.assertEqual(len(document["reps"]), 2)
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second",
                    "read_bandwidth_bytes_per_second", "peak_memory_bytes", "bytes_per_token",
                    "bandwidth_share", "first_token_seconds"):
            self.assertGreater(document[key], 0, key)
        self.assertEqual(document["prompt_tokens"], 16)
        rates = sorted(rep["decode_tokens_per_second"] for rep in document["reps"])
        self.assertAlmostEqual(document["decode_tokens_per_second"], sum(rates) / 2)
        self.check_probes(document)
        # A tiny model's steps say nothing about the share; that a trace was written can be seen.
        self.assertGreater(document["trace_bytes_per_token"], 1000)
        shares = sorted(document["trace_pair_shares"])
        self.assertEqual(len(shares), 5)
        self.assertEqual(document["trace_overhead_share"], shares[2])
        self.assertEqual(document["trace_settings"],
                         {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9})

    def check_probes(self, document):
        """The readings are there, and the figures follow from them."""
        probes, shares = [], []
        for rep in document["reps"]:
            seconds, around = rep["decode_stretch_seconds"], rep["probe_bytes_per_second"]
            self.assertEqual(len(around), len(seconds) + 1)
            self.assertGreater(min(around), 0)
            tokens = rep["decode_tokens_per_second"] * sum(seconds)
            self.assertAlmostEqual(tokens, document["new_tokens"])
            given = sum(s * (a + b) / 2 for s, a, b in zip(seconds, around, around[1:]))
            self.assertAlmostEqual(rep["read_bandwidth_bytes_per_second"] * sum(seconds) / given, 1)
            share = document["bytes_per_token"] * document["new_tokens"] / given
            self.assertAlmostEqual(rep["bandwidth_share"] / share, 1)
            probes += around
            shares.append(rep["bandwidth_share"])
        self.assertAlmostEqual(
            document["read_bandwidth_bytes_per_second"] / statistics.median(probes), 1)
        self.assertAlmostEqual(document["bandwidth_share"] / statistics.median(shares), 1)
        self.assertGreater(document["read_bandwidth_probe_seconds"], 0)

    def test_bench_probes_the_memory_among_the_steps(self):
        document = self.run_json("bench", "-p", 16, "-n", 1500, "--reps", 1, "--no-trace",
                                 "--device", "reference", "--model", self.model)
        self.check_probes(document)
        stretches = document["reps"][0]["decode_stretch_seconds"]
        self.assertGreaterEqual(min(stretches[:-1], default=0.5), 0.5)
        if sum(stretches) > 1:
            self.assertGreater(len(stretches), 1)

    def test_bench_leaves_the_trace_out_when_asked(self):
        document = self.run_json("bench", "-p", 4, "-n", 2, "--reps", 1, "--no-trace", "--model",
                                 self.model)
        self.assertIsNone(document["trace_overhead_share"])
        self.assertIsNone(document["trace_bytes_per_token"])

    def test_bench_with_the_state_and_without(self):
        document = self.run_json("bench", "--no-cache", "-p", 8, "-n", 40, "--reps", 2, "--model",
                                 self.model)
        self.assertEqual(document["lengths"], list(range(9, 49)))
        for side in ("cached", "uncached"):
            steps = document[side]["step_seconds"]
            self.assertEqual(len(steps), 40)
            self.assertGreater(min(steps), 0)
            totals = sorted(rep[f"{side}_seconds"] for rep in document["reps"])
            self.assertAlmostEqual(document[side]["seconds"], sum(totals) / 2)
            self.assertAlmostEqual(document[side]["tokens_per_second"] * sum(totals) / 2, 40)
        self.assertAlmostEqual(
            document["ratio"], document["uncached"]["seconds"] / document["cached"]["seconds"])
        # The state changes the time alone.
        self.assertEqual((document["same_tokens"], document["compared_tokens"]), (80, 80))

    def test_bench_without_the_state_reads_more(self):
        # 1500 tokens against one: no noise of a machine makes up for it.
        document = self.run_json("bench", "--no-cache", "-p", 1500, "-n", 3, "--reps", 1,
                                 "--model", self.model)
        self.assertGreater(document["ratio"], 3)

    def test_bench_shows_both_curves(self):
        text = self.run_ok("bench", "--no-cache", "-p", 300, "-n", 30, "--reps", 1, "--model",
                           self.model)
        self.assertIn("times slower", text)
        self.assertIn("30 of 30 steps", text)
        chart = text[text.index("ms a token"):].splitlines()
        self.assertEqual(len(chart), 13)
        rows = [line.partition("|")[2] for line in chart[1:11]]
        self.assertEqual(sum(row.count("*") for row in rows), 30)
        self.assertIn("o", "".join(rows))
        self.assertTrue(all(len(line) <= 80 for line in text.splitlines()), text)
        narrow = self.run_ok("bench", "--no-cache", "-p", 4, "-n", 30, "--reps", 1, "--model",
                             self.model, env=self.environment(COLUMNS="20"))
        self.assertNotIn("ms a token", narrow)
        self.assertEqual(self.run_cli("bench", "--no-cache", "-n", 0).returncode, 2)

    def test_first_contact(self):
        text = self.run_ok("first-contact", "--model", self.model)
        self.assertIn("Hello. In one sentence, who are you?", text)
        self.assertRegex(text, r"prompt_tokens=\d+ new_tokens=\d+ first_token_s=")
        document = self.run_json("first-contact", "--model", self.model)
        self.assertEqual(len(document["first_token_alternatives"]), 5)
        self.assertEqual(document["first_token_alternatives"][0]["id"], document["ids"][0])

    def test_first_contact_suggests_commands_that_exist(self):
        lines = self.run_ok("first-contact", "--model", self.model).splitlines()
        suggested = [line.split()[1] for line in lines if line.startswith("  logitlab ")]
        self.assertGreaterEqual(len(suggested), 3)
        for command in suggested:
            self.assertIn(command, [*COMMANDS, "--help"])


class Help(CliCase):
    def test_every_command_teaches(self):
        for command in COMMANDS:
            with self.subTest(command):
                page = self.run_ok(command, "--help")
                self.assertIn(f"logitlab {command}", page)
                self.assertIn("Examples", page)
                self.assertIn("--json", page)
                self.assertEqual(page, self.run_ok("help", command))

    def test_settings_show_range_and_default(self):
        page = " ".join(self.run_ok("generate", "--help").split())
        for word in ("--temperature", "--top-k", "--min-p", "--no-do-sample", "--seed", "Range:",
                     "Default:"):
            self.assertIn(word, page)

    def test_overview_lists_what_exists(self):
        page = self.run_ok("--help")
        for command in COMMANDS:
            self.assertIn(f"  {command} ", page)

    def test_version(self):
        self.assertRegex(self.run_ok("--version"),
                         r"^logitlab \d+\.\d+\.\d+ commit (unknown|[0-9a-f]{40}(-dirty)?) \(.+\)\n$")


if __name__ == "__main__":
    unittest.main()
