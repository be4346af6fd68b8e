"""Records what transformers computes for the checkpoints of tests/data/models: logits and greedy
continuations, in float32 on the CPU. tests/conformance/models compares ours with the recordings.

    python tools/oracle/make_tiny_models.py tests/data/models
    python tools/oracle/record_models.py tests/data/models [--default-model FILE.gguf] [--only NAME]

golden.json of a model holds
  made_with      versions of the libraries
  same_as        the checkpoint that has the same numbers (then nothing else is recorded)
  prompts        ids, columns (the recorded vocabulary entries; null: all), offset (of the prompt's
                 first row in logits.npy, in floats), top (the five best ids of each row)
  greedy         prompt, continuation, gap: the least distance of the best two logits on the way,
                 divided by the largest |logit| of that step
A row of logits.npy is the largest |logit| of the position over the whole vocabulary, then the
columns.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

import make_tiny_models as tiny
import nemotron_h_models as hybrid

N_GREEDY = 20
N_NEW = 64
N_NEW_HYBRID = 128  # a running state has no end of its memory
# Two programs that are within 1e-4 of the largest logit of a third agree on every arg-max that
# leads by 2e-4; prompts that come closer to a tie are not recorded.
MIN_GAP = 3e-4
DEFAULT_NAME = "smollm2_135m_instruct"

DEFAULT_LOGIT_TEXTS = [
    "The capital of France is",
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n<|im_start|>user\nHello. In one sentence, who are you?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "def fibonacci(n):\n    \"\"\"Returns the n-th number, 1 1 2 3 5 8.\"\"\"\n    if n < 2:\n",
]

DEFAULT_GREEDY_TEXTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea, there lived",
    "Water boils at",
    "The three primary colors are",
    "def fibonacci(n):\n",
    "import numpy as np\n\ndef softmax(x):\n",
    "Dear Professor Smith,\n\nI am writing to",
    "In 1969, the first humans",
    "The mitochondria is",
    "To make a simple tomato soup, you need",
    "Photosynthesis is the process by which",
    "1, 2, 3, 4, 5,",
    "The opposite of hot is",
    "A train leaves the station at 9:00 and travels at 60 miles per hour.",
    "My favorite book is",
    "The largest planet in the solar system is",
    "Shakespeare wrote",
    "SELECT name, age FROM users WHERE",
    "The quick brown fox",
    "Gravity is a force that",
    "La capitale de l'Italie est",
    "She opened the old wooden door and saw",
    "The meaning of the word 'ephemeral' is",
    "There are seven days in a week:",
    "An atom consists of",
    "Question: What is the boiling point of water?\nAnswer:",
    "The stock market fell today because",
    "World War II ended in",
    "<div class=\"container\">\n  <h1>",
    "Roses are red, violets are blue,",
    "Once the experiment was finished, the scientists",
    "The best way to learn a new language is",
    "{\"name\": \"Alice\", \"age\":",
    "If it rains tomorrow, we will",
    "The Great Wall of China was built",
    "The cat sat on the",
    "<|im_start|>user\nWhat is gravity?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nWrite a short poem about the moon.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nExplain how a bicycle stays upright.<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>user\nList five fruits.<|im_end|>\n<|im_start|>assistant\n",
]


def made_with():
    return {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__,
            "dtype": "float32"}


def all_logits(model, ids):
    """float32 [positions, vocabulary], one forward without cache."""
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0].float().numpy()


def relative_gaps(logits):
    """Lead of the best logit over the second, divided by the largest |logit|; last axis gone."""
    best = torch.topk(logits, 2, dim=-1).values
    return (best[..., 0] - best[..., 1]) / logits.abs().amax(dim=-1)


def greedy(model, prompts, n_new=N_NEW, eos=None):
    """Greedy continuations of prompts of one length, by transformers' generate. Returns
    [(continuation, relative gap of every step)]. eos None: none."""
    ids = torch.tensor(prompts)
    model.generation_config.eos_token_id = eos
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             max_new_tokens=n_new, pad_token_id=0, eos_token_id=eos,
                             return_dict_in_generate=True, output_logits=True)
    gaps = relative_gaps(torch.stack(out.logits, dim=1).float()).tolist()
    results = []
    for row, sequence in enumerate(out.sequences[:, ids.shape[1]:].tolist()):
        if eos is not None and eos in sequence:
            sequence = sequence[:sequence.index(eos) + 1]
        results.append((sequence, gaps[row][:len(sequence)]))
    return results


def random_ids(rng, n, vocab_size):
    return rng.integers(0, vocab_size, size=n).tolist()


def greedy_prompts(rng, n_each, vocab_size):
    """Prompts of lengths 1, 4, 9 and 20."""
    return [[random_ids(rng, n, vocab_size) for _ in range(n_each)] for n in (1, 4, 9, 20)]


class Recording:
    """The content of one model's golden.json and logits.npy."""

    def __init__(self):
        self.prompts, self.floats, self.n_floats = [], [], 0

    def add(self, ids, logits, columns=None, with_top=False):
        rows = np.abs(logits).max(axis=1, keepdims=True)
        kept = logits if columns is None else logits[:, columns]
        block = np.concatenate([rows, kept], axis=1).astype("<f4")
        entry = {"ids": ids, "columns": columns, "offset": self.n_floats}
        if with_top:
            entry["top"] = np.argsort(-logits, axis=1)[:, :5].tolist()
        self.prompts.append(entry)
        self.floats.append(block.reshape(-1))
        self.n_floats += block.size

    def write(self, folder, vocab_size, greedy_entries, **extra):
        golden = {"made_with": made_with(), "vocab_size": vocab_size, **extra,
                  "prompts": self.prompts, "greedy": greedy_entries}
        write_json(folder / "golden.json", golden)
        np.save(folder / "logits.npy", np.concatenate(self.floats))


def write_json(path, golden):
    """One line an entry: small, and a change shows."""
    lines = []
    for key, value in golden.items():
        if isinstance(value, list):
            inner = ",\n  ".join(json.dumps(entry) for entry in value)
            lines.append(f'"{key}": [\n  {inner}\n ]')
        else:
            lines.append(f'"{key}": {json.dumps(value)}')
    path.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")


def record_tiny(name, model, folder):
    vocab_size = model.config.vocab_size
    n_new = N_NEW_HYBRID if is_hybrid(model) else N_NEW
    rng = np.random.default_rng(tiny.spec_seed(name) + 1)
    recording = Recording()
    for n, step in ((5, None), (11, None), (31, 2), (100, 9)):
        ids = random_ids(rng, n, vocab_size)
        ids[-1] = vocab_size - 1  # the last row of the tables
        columns = None if step is None else list(range(0, vocab_size, step))
        recording.add(ids, all_logits(model, ids), columns)
    entries, n_tried, distinct = [], 0, []
    for prompts in greedy_prompts(rng, 16, vocab_size):
        for prompt, (ids, gaps) in zip(prompts, greedy(model, prompts, n_new, tiny.EOS)):
            n_tried += 1
            gap = min(gaps)
            if gap >= MIN_GAP and len(ids) == n_new:
                entries.append({"prompt": prompt, "continuation": ids, "gap": round(gap, 5)})
                distinct.append(len(set(ids)))
    n_good = len(entries)
    assert n_good >= N_GREEDY, f"{name}: {n_good} of {n_tried} prompts keep a distance from ties"
    entries = [entries[i * n_good // N_GREEDY] for i in range(N_GREEDY)]
    recording.write(folder, vocab_size, entries)
    print(f"{name}: {n_good} of {n_tried} prompts usable, distinct ids a continuation "
          f"{np.mean(distinct):.1f}, bytes {recording.n_floats * 4}", flush=True)


def load_reference(folder):
    """float32 on the CPU, whatever the type on the disk."""
    config = json.loads((Path(folder) / "config.json").read_text())
    options = hybrid.REFERENCE_OPTIONS if config["model_type"] == "nemotron_h" else {}
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", **options).eval()


def is_hybrid(model):
    return model.config.model_type == "nemotron_h"


def max_difference(a, b):
    return float((np.abs(a - b).max(axis=1) / np.abs(a).max(axis=1)).max())


def check_old_config(name, folder, model):
    """config_4x.json must mean the same model to transformers."""
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        (copy / "config.json").write_text((folder / "config_4x.json").read_text())
        (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        old = load_reference(copy)
    ids = list(range(3, 63))
    assert np.array_equal(all_logits(model, ids), all_logits(old, ids)), name


def check_gguf(name, folder, model):
    """transformers' own reading of the GGUF must agree with the values that we encoded. Its
    reading of the metadata is left out: it takes Qwen3's head_dim for 128 always."""
    loaded = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file="model.gguf", config=model.config, dtype=torch.float32,
        attn_implementation="eager").eval()
    ids = list(range(3, 63))
    difference = max_difference(all_logits(model, ids), all_logits(loaded, ids))
    assert difference < 1e-5, f"{name}: {difference}"


def record_default(path, folder):
    """The default model, read from its GGUF file by transformers."""
    parent, file = str(path.parent), path.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(parent, gguf_file=file)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        parent, gguf_file=file, dtype=torch.float32, attn_implementation="eager").eval()
    vocab_size = model.config.vocab_size
    rng = np.random.default_rng(tiny.SEED)
    columns = sorted(rng.choice(vocab_size, size=62, replace=False).tolist() + [0, vocab_size - 1])
    recording = Recording()
    for text in DEFAULT_LOGIT_TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        recording.add(ids, all_logits(model, ids), columns, with_top=True)
    entries = []
    # No end token: every continuation has its 64 ids.
    for text in DEFAULT_GREEDY_TEXTS:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        (continuation, gaps), = greedy(model, [ids])
        gap = min(gaps)
        print(f"{gap:.5f} {len(continuation)} {text!r}: {tokenizer.decode(continuation)[:60]!r}",
              flush=True)
        if gap >= MIN_GAP:
            entries.append({"prompt": ids, "continuation": continuation, "gap": round(gap, 5)})
        if len(entries) >= N_GREEDY + 2:
            break
    assert len(entries) >= N_GREEDY, len(entries)
    folder.mkdir(parents=True, exist_ok=True)
    recording.write(folder, vocab_size, entries, file=file, file_bytes=path.stat().st_size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="one name")
    parser.add_argument("--default-model", type=Path, help="SmolLM2-135M-Instruct.Q4_1.gguf")
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # a second thread only waits in models this small
    for name in tiny.SPECS:
        if args.only not in (None, name):
            continue
        folder = args.folder / name
        model = load_reference(folder)
        if tiny.SPECS[name].old_config:
            check_old_config(name, folder, model)
        record_tiny(name, model, folder)
    for name, source in tiny.GGUF_TWINS.items():
        if args.only not in (None, name):
            continue
        folder = args.folder / name
        # transformers reads no rope_freqs.weight and no scaling keys, and leaves the biases of q
        # and k in the order of the file.
        if source in ("qwen2", "qwen3"):
            check_gguf(name, folder, load_reference(args.folder / source))
        write_json(folder / "golden.json", {"made_with": made_with(), "same_as": source})
    for name in tiny.GGUF_QUANTS:
        if args.only not in (None, name):
            continue
        folder = args.folder / name
        with tempfile.TemporaryDirectory() as temporary:
            model = tiny.make_quantised(name, Path(temporary))
        if not is_hybrid(model):  # transformers reads no GGUF of these
            check_gguf(name, folder, model)
        record_tiny(name, model, folder)
    if args.default_model:
        torch.set_num_threads(2)
        record_default(args.default_model, args.folder / DEFAULT_NAME)


if __name__ == "__main__":
    main()
