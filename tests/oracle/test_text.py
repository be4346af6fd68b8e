"""text/ against the installed transformers and tokenizers, live.

Runs in the oracle environment. LOGITLAB_TEXT_PROBE names the built text_probe (a default is looked
for under build/); LOGITLAB_DEFAULT_MODEL, when set, names a GGUF file whose whole vocabulary is
compared too.
"""

import difflib
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "oracle"))

tokenizers = pytest.importorskip("tokenizers")
pytest.importorskip("transformers")
import record_outside_template  # noqa: E402
import record_templates  # noqa: E402
import record_tokenizers  # noqa: E402

TOKENIZERS = ROOT / "tests" / "data" / "tokenizers"
TEMPLATES = ROOT / "tests" / "data" / "templates"
KINDS = sorted(path.name.split(".")[0] for path in TOKENIZERS.glob("*.tokenizer.json"))


def probe_path():
    named = os.environ.get("LOGITLAB_TEXT_PROBE")
    if named:
        return named
    built = sorted(ROOT.glob("build/*/src/text/text_probe"), key=lambda path: path.stat().st_mtime)
    if not built:
        pytest.skip("text_probe is not built; set LOGITLAB_TEXT_PROBE")
    return str(built[-1])


class Probe:
    """One running text_probe; ask() sends many requests and gives their answers in order."""

    def __init__(self, model):
        self.command = [probe_path(), str(model)]

    def ask(self, requests):
        lines = "".join(json.dumps(request) + "\n" for request in requests)
        done = subprocess.run(self.command, input=lines, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        # Only "\n" ends an answer: texts may hold other line separators.
        answers = [json.loads(line) for line in done.stdout.split("\n") if line]
        assert len(answers) == len(requests)
        return answers


def check_tokenizer(reference, probe, texts, rows):
    """Ids in both modes, decoded and streamed texts of `texts` and of the id rows."""
    for literal in (False, True):
        reference.encode_special_tokens = literal
        want = [reference.encode(text, add_special_tokens=not literal).ids for text in texts]
        answers = probe.ask([
            {"op": "encode", "text": text, "add_special_tokens": not literal, "parse_special": not literal}
            for text in texts
        ])
        for text, ids, answer in zip(texts, want, answers):
            assert answer.get("ids") == ids, repr(text)
        rows = rows + want[:400]
    reference.encode_special_tokens = False
    for skip in (False, True):
        answers = probe.ask([{"op": "decode", "ids": ids, "skip_special_tokens": skip} for ids in rows])
        for ids, answer in zip(rows, answers):
            text = reference.decode(ids, skip_special_tokens=skip)
            assert answer["text"] == text
            assert answer["stream"] == text


@pytest.mark.parametrize("kind", KINDS)
def test_recorded_kinds_live(kind):
    path = TOKENIZERS / f"{kind}.tokenizer.json"
    reference = tokenizers.Tokenizer.from_file(str(path))
    rows = record_tokenizers.random_ids(reference.get_vocab_size())
    check_tokenizer(reference, Probe(path), record_tokenizers.make_strings(), rows)


def test_folder_as_auto_tokenizer(tmp_path):
    """A model folder: what AutoTokenizer adds to a tokenizer.json, and which template it takes."""
    from transformers import AutoTokenizer

    source = (TOKENIZERS / "llama3.tokenizer.json").read_bytes()
    (tmp_path / "tokenizer.json").write_bytes(source)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": {"__type": "AddedToken", "content": "<|eot_id|>", "lstrip": False, "rstrip": False,
                      "normalized": False, "single_word": False, "special": True},
        "pad_token": "<new_pad>",
        "add_bos_token": False,
        "extra_special_tokens": ["<extra_a>", "<extra_b>"],
        "clean_up_tokenization_spaces": True,
        "chat_template": "from the config",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_bytes((TEMPLATES / "llama31.jinja").read_bytes())
    reference = AutoTokenizer.from_pretrained(str(tmp_path))
    probe = Probe(tmp_path)
    texts = record_tokenizers.make_strings()[:400] + ["<new_pad> a<extra_a><extra_b> . b"]
    answers = probe.ask([{"op": "encode", "text": text} for text in texts])
    for text, answer in zip(texts, answers):
        ids = reference(text)["input_ids"]
        assert answer["ids"] == ids, repr(text)
        for skip in (False, True):
            decoded = probe.ask([{"op": "decode", "ids": ids, "skip_special_tokens": skip}]) if "new_pad" in text else None
            if decoded:
                assert decoded[0]["text"] == reference.decode(ids, skip_special_tokens=skip)
    messages = record_templates.CONVERSATIONS["system_user"]
    answer = probe.ask([{"op": "render", "messages": messages, "tools": record_templates.TOOLS,
                         "add_generation_prompt": True}])[0]
    assert answer["text"] == reference.apply_chat_template(
        messages, tools=record_templates.TOOLS, add_generation_prompt=True, tokenize=False)


def random_conversations(count):
    rng = random.Random(99)
    strings = [text for text in record_tokenizers.make_strings() if text]

    def message(role):
        content = rng.choice(strings)
        if role == "assistant" and rng.random() < 0.3:
            arguments = {rng.choice(strings)[:8] or "k": rng.choice([1, -2.5, 1e-9, None, True, [1, "x"], rng.choice(strings)])}
            return {"role": role, "content": rng.choice([None, "", content]),
                    "tool_calls": [record_templates.call("add", arguments)]}
        return {"role": role, "content": content}

    for _ in range(count):
        messages = [message("system")] if rng.random() < 0.5 else []
        for turn in range(rng.randrange(1, 5)):
            messages.append(message("assistant" if turn % 2 else "user"))
        yield json.loads(json.dumps(messages))


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_templates_on_random_conversations(path):
    source = path.read_text(encoding="utf-8")
    reference = record_templates.make_tokenizer()
    rng = random.Random(path.stem)
    requests, wanted = [], []
    for messages in random_conversations(120):
        tools = record_templates.TOOLS if rng.random() < 0.5 else None
        variables = rng.choice([{}, {"enable_thinking": True}, {"enable_thinking": False}])
        prompt = rng.random() < 0.5
        wanted.append(record_templates.outcome(lambda: reference.apply_chat_template(
            messages, tools=tools, chat_template=source, add_generation_prompt=prompt, tokenize=False, **variables)))
        requests.append({"op": "render", "template": source, "messages": messages, "tools": tools,
                         "add_generation_prompt": prompt,
                         "variables": {**record_templates.SPECIAL_TOKENS, **variables}})
    for request, want, answer in zip(requests, wanted, Probe("-").ask(requests)):
        if "error" in want:
            assert "error" in answer, request["messages"]
        else:
            assert answer == want, request["messages"]


def show(name, want, got):
    lines = difflib.unified_diff(want.splitlines(keepends=True), got.splitlines(keepends=True),
                                 "transformers", "logitlab")
    return f"{name}\n{''.join(lines)}"


def test_outside_template_live():
    """Nemotron-3's own template, which is not part of the project: every recorded conversation and
    random ones, as texts; and the recording is what this transformers gives."""
    path = record_outside_template.template_path()
    if not path.is_file():
        pytest.skip(f"{path.name} is not at hand; LOGITLAB_SHARED names the folder with data/{path.name}")
    source = path.read_text(encoding="utf-8")
    reference = record_templates.make_tokenizer()
    recorded = {(case["conversation"], case["setting"]): case
                for case in json.loads(record_outside_template.RECORDING.read_text(encoding="utf-8"))["cases"]}
    inputs = [(name, messages, number) for name, messages in record_outside_template.CONVERSATIONS.items()
              for number in range(len(record_outside_template.SETTINGS))]
    rng = random.Random(3)
    inputs += [(f"random {i}", messages, rng.randrange(len(record_outside_template.SETTINGS)))
               for i, messages in enumerate(random_conversations(200))]
    requests, wanted = [], []
    for name, messages, number in inputs:
        setting = record_outside_template.SETTINGS[number]
        wanted.append(record_outside_template.outcome_of(reference, source, messages, setting))
        requests.append({"op": "render", "template": source, "messages": messages,
                         "tools": record_outside_template.TOOL_LISTS.get(setting.get("tools")),
                         "add_generation_prompt": setting.get("add_generation_prompt", False),
                         "variables": {**record_templates.SPECIAL_TOKENS, **setting.get("variables", {})}})
    for (name, _, number), want, answer in zip(inputs, wanted, Probe("-").ask(requests)):
        if "error" in want:
            assert "error" in answer, (name, number)
            continue
        assert "text" in answer, (name, number, answer)
        assert answer["text"] == want["text"], show((name, number), want["text"], answer["text"])
        if (name, number) in recorded:
            assert recorded[name, number]["bytes"] == len(want["text"].encode()), (name, number)


def test_default_model():
    """The real SmolLM2 vocabulary inside a GGUF file: Digits, then ByteLevel, as its tokenizer.json has
    it (transformers' own GGUF conversion leaves the Digits step out, so it is not the reference)."""
    path = os.environ.get("LOGITLAB_DEFAULT_MODEL")
    if not path:
        pytest.skip("LOGITLAB_DEFAULT_MODEL is not set")
    gguf = pytest.importorskip("gguf")
    fields = gguf.GGUFReader(path).fields
    strings = {key: [bytes(fields[key].parts[i]).decode() for i in fields[key].data]
               for key in ("tokenizer.ggml.tokens", "tokenizer.ggml.merges")}
    tokens = strings["tokenizer.ggml.tokens"]
    types = [int(fields["tokenizer.ggml.token_type"].parts[i][0]) for i in fields["tokenizer.ggml.token_type"].data]
    merges = [tuple(merge.split(" ")) for merge in strings["tokenizer.ggml.merges"]]
    reference = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    reference.pre_tokenizer = record_tokenizers.digits()
    reference.decoder = tokenizers.decoders.ByteLevel()
    reference.add_special_tokens([
        tokenizers.AddedToken(token, normalized=False, special=True) for token, kind in zip(tokens, types) if kind == 3
    ])
    assert reference.get_vocab_size() == len(tokens)
    rows = record_tokenizers.random_ids(len(tokens))
    check_tokenizer(reference, Probe(path), record_tokenizers.make_strings(), rows)
