#!/usr/bin/env python3
"""Writes the seeds below tests/fuzz/corpus/. Standard library only; the same bytes every time."""
import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def write(target, name, content):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


def safetensors(header, data):
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def string(text):
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf(fields, tensors=(), data=b"", version=3, alignment=32):
    out = b"GGUF" + struct.pack("<Iqq", version, len(tensors), len(fields))
    for key, kind, value in fields:
        out += string(key) + struct.pack("<I", kind) + value
    for name, sizes, kind, offset in tensors:
        out += string(name) + struct.pack("<I", len(sizes))
        out += b"".join(struct.pack("<q", size) for size in sizes)
        out += struct.pack("<IQ", kind, offset)
    return out + b"\0" * (-len(out) % alignment) + data


def array(kind, values):
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def safetensors_seeds():
    tensor = lambda dtype, shape, begin, end: {
        "dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    one = {"w": tensor("F32", [2, 3], 0, 24)}
    write("fuzz_safetensors", "one", safetensors(one, bytes(24)))
    many = {"__metadata__": {"format": "pt"}, "a": tensor("BF16", [3], 0, 6),
            "b": tensor("BOOL", [1], 6, 7), "c": tensor("I64", [], 7, 15),
            "d": tensor("F8_E4M3", [0, 5], 15, 15)}
    write("fuzz_safetensors", "many", safetensors(many, bytes(15)))
    write("fuzz_safetensors", "empty", safetensors({}, b""))
    write("fuzz_safetensors", "overlap", safetensors(
        {"a": tensor("U8", [4], 0, 4), "b": tensor("U8", [4], 2, 6)}, bytes(6)))
    write("fuzz_safetensors", "overflow", safetensors(
        {"a": tensor("F64", [4611686018427387904, 4], 0, 4)}, bytes(4)))
    write("fuzz_safetensors", "huge_header", struct.pack("<Q", 1 << 32) + b"{}")


def gguf_seeds():
    text = lambda value: string(value)
    u32 = lambda value: struct.pack("<I", value)
    vocab = [
        ("general.architecture", 8, text("llama")), ("general.alignment", 4, u32(32)),
        ("llama.block_count", 4, u32(2)), ("llama.rope.freq_base", 6, struct.pack("<f", 1e5)),
        ("tokenizer.ggml.model", 8, text("gpt2")), ("tokenizer.ggml.pre", 8, text("smollm")),
        ("tokenizer.ggml.tokens", 9, array(8, [string("a"), string("b"), string("<s>")])),
        ("tokenizer.ggml.token_type", 9, array(5, [u32(1), u32(1), u32(3)])),
        ("tokenizer.ggml.scores", 9, array(6, [struct.pack("<f", -i) for i in range(3)])),
        ("tokenizer.ggml.merges", 9, array(8, [string("a b")])),
        ("tokenizer.ggml.bos_token_id", 4, u32(2)),
        ("tokenizer.ggml.add_bos_token", 7, b"\1"),
        ("tokenizer.chat_template", 8, text("{{ messages[0].content }}")),
        ("tokenizer.chat_template.tool", 8, text("x")),
    ]
    write("fuzz_gguf", "vocab", gguf(vocab))
    tensors = [("token_embd.weight", [32, 2], 8, 0), ("blk.0.ffn_down.weight", [256, 1], 12, 96),
               ("output_norm.weight", [3], 0, 256)]
    write("fuzz_gguf", "tensors", gguf(vocab[:3], tensors, bytes(268)))
    write("fuzz_gguf", "version2", gguf(vocab[:1], [("t", [1, 2, 3, 1], 1, 0)], bytes(12), version=2))
    scalars = [(f"k{kind}", kind, bytes(size)) for kind, size in
               [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1), (8, 8), (10, 8),
                (11, 8), (12, 8)]]
    write("fuzz_gguf", "scalars", gguf(scalars))
    nested = array(9, [array(9, [array(4, [u32(1)])])])
    write("fuzz_gguf", "nested", gguf([("n", 9, nested)]))
    write("fuzz_gguf", "aligned64", gguf([("general.alignment", 4, u32(64))],
                                         [("a", [4], 0, 0), ("b", [4], 0, 64)], bytes(80),
                                         alignment=64))
    write("fuzz_gguf", "absurd", b"GGUF" + struct.pack("<Iqq", 3, 1 << 40, -1))


def config_seeds():
    config = {"model_type": "llama", "hidden_size": 64, "rms_norm_eps": 1e-5,
              "rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "eos_token_id": [2, 11],
              "time_step_limit": [0.0, {"__float__": "Infinity"}], "tie_word_embeddings": True,
              "none": None}
    write("fuzz_config", "config", json.dumps(config).encode())
    write("fuzz_config", "python_numbers", b'{"a": [Infinity, -Infinity, NaN], "b": -0.0}')
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "m-1.safetensors",
                                                           "b": "m-2.safetensors"}}
    write("fuzz_config", "index", json.dumps(index).encode())
    write("fuzz_config", "escape", b'{"weight_map": {"a": "../x"}}')
    write("fuzz_config", "strings", b'{"s": "\\u00e9\\ud83d\\ude00\\n", "big": 18446744073709551616}')
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n"
    write("fuzz_config", "npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(8))


def trace_seeds():
    run = {"record": "run", "schema": "logitlab.trace/1", "model": "m", "model_hash": "h",
           "device": "cpu", "isa": "AVX2", "build": "b", "config": {"top_k": 2},
           "ledger": [{"name": "top_k", "value": "2", "origin": "given", "acts": True, "why": ""}],
           "stop_ids": [{"id": 2, "origin": "given"}], "warnings": ["w"], "seed": 1,
           "vocab_size": 4, "n_candidates": 1, "prompts": [[1, 2]], "sequence_prompts": [0],
           "think_open": -1, "think_close": -1}
    stage = {"name": "top_k", "survivors": 2, "mass": 0.9, "measure": "score", "threshold": 1.5,
             "cut_score": 1.5, "tied_kept": 1, "tied_dropped": 0, "changed": -1,
             "changed_in_prompt": -1, "changed_in_answer": -1}
    candidate = {"id": 3, "logit": 1.5, "score": "-inf", "raw_probability": 0.25, "probability": 0,
                 "dropped_by": 0, "in_prompt": False, "in_answer": True}
    step = {"record": "step", "sequence": 0, "step": 0, "id": 2, "logit": 1.5, "score": 1.5,
            "raw_probability": 0.5, "probability": 1, "raw_rank": 1, "rank": 1, "raw_entropy": 0.1,
            "entropy": 0, "log_sum_exp": 2.5, "tail_log_sum_exp": "-inf", "largest_logit": None,
            "tied_at_max": [2], "n_tied_at_max": 1, "draw": 0.7, "draw_key": 1.86,
            "draw_margin": None, "draw_runner_up": -1, "logits_hash": "0123456789abcdef",
            "is_thinking": False, "stages": [stage], "candidates": [candidate],
            "logits": [1, 2, "inf", None]}
    beam = {"id": 2, "parent": 0, "score": -0.5}
    beam_step = {"record": "beam_step", "prompt": 0, "step": 0, "candidates": [beam, beam],
                 "candidate_stops": [True, False], "running": [beam], "finished": [-0.5],
                 "improvable": True}
    sequence = {"sequence": 0, "prompt": 0, "ids": [2], "stop_reason": "eos_token", "stop_id": 2,
                "stop_string": "", "thinking_tokens": 0, "answer_tokens": 0, "beam_score": None,
                "beam_indices": [0]}
    end = {"record": "end", "sequences": [sequence], "beam_stop": "", "seconds": 0.5,
           "pieces": [[2, "</s>"]]}

    def lines(*records):
        return "".join(json.dumps(record, separators=(",", ":")) + "\n"
                       for record in records).encode()

    write("fuzz_trace", "steps", lines(run, step, end))
    write("fuzz_trace", "beams", lines(run, beam_step, end))
    write("fuzz_trace", "cut_off", lines(run, step))
    write("fuzz_trace", "version", lines({**run, "schema": "logitlab.trace/2"}, end))


def process_seeds():
    config = {"do_sample": True, "temperature": 0.7, "top_h": 0.9, "top_k": 3, "top_p": 0.9, "min_p": 0.1,
              "typical_p": 0.9, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1, "renormalize_logits": True}
    penalties = {"sequence_bias": {"1,2": -1.5, "0": 1.0}, "repetition_penalty": 1.3,
                 "no_repeat_ngram_size": 2, "bad_words_ids": [[1, 2]], "min_new_tokens": 2,
                 "eos_token_id": [3], "forced_eos_token_id": 3, "suppress_tokens": [0], "num_beams": 2,
                 "exponential_decay_length_penalty": [0, 1.5], "logit_bias": {"1": 2.0},
                 "presence_penalty": 1.0, "thinking_budget": 1}
    row = {"id": 1, "logits": [2.0, 1.0, None, "nan"], "input_ids": [1, 2, 1], "prompt_length": 2}
    huge = {"max_new_tokens": 2**63 - 1, "min_new_tokens": 2**63 - 1, "no_repeat_ngram_size": 2**63 - 1,
            "top_k": 2**63 - 1, "eos_token_id": [3], "do_sample": True,
            "exponential_decay_length_penalty": [2**63 - 1, 1e308]}
    for name, line in (
            ("filters", {**row, "logits": [2, 1, 0, -1.5], "config": config}),
            ("penalties", {**row, "config": penalties, "thinking_ids": [0, 1], "max_length": 4}),
            ("guidance", {"logits_base64": "AACAPwAAAEA=", "unguided_logits": [0, 1],
                          "config": {"guidance_scale": 2.0}, "model_config": config}),
            ("vllm", {**row, "config": {"semantics": "vllm", "do_sample": True, "top_p": 0.5}}),
            ("llama_cpp", {**row, "config": {"semantics": "llama.cpp", "do_sample": True}}),
            ("huge", {**row, "config": huge})):
        write("fuzz_process", name, json.dumps(line, separators=(",", ":")).encode())


def study_seeds():
    start = "name: s\nquestion: why?\n"
    everything = start + """title: "A: b"
expect: >-
  Two
  lines.
prompts:
  - One
  - {name: two, messages: [{role: user, content: Two}]}
  - {name: raw, text: Three, chat: false}
thinking: false
settings: {do_sample: true, top_p: 1.0, eos_token_id: [2, 11], stop_strings: ["\\n"]}
execution: {threads: 2}
sweep:
  temperature: [0.2, 1e0]
  neighbours: [0, 3]
variants:
  greedy: {settings: {do_sample: false, top_p: null}, runs: 1, control: true, prompt: two}
  seeds: {seeds: [1, 18446744073709551615]}
seeds: {policy: running, base: 7}
runs: 2
measures: [texts, next-token]
exact: {mass: 0.5, max_nodes: 10}
candidates: 5
published_jaccard: true
"""
    for name, text in (
            ("everything", everything),
            ("course", start + "studies:\n  - top-k\n  - ./other.yaml\n"),
            ("list", start + "prompt: |\n  a\n  b\nvariants:\n- name: a\n- name: b\n  thinking: true\n"),
            ("aliases", "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n"),
            ("endless", " &$a:, *name: [*b, *b]\n"),
            ("nested", start + "settings: " + "[" * 600 + "]" * 600),
            ("large", start + "prompt: p\nruns: 99999\nsweep: {top_k: [1, 2]}\n"),
            ("numbers", start + "prompt: p\nsettings: {temperature: .nan, top_k: 1e999, min_p: +.5}\n")):
        write("fuzz_study", name, text.encode())


if __name__ == "__main__":
    safetensors_seeds()
    gguf_seeds()
    config_seeds()
    trace_seeds()
    process_seeds()
    study_seeds()
