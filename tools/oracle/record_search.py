"""Records what transformers' greedy decoding and beam search find: sequences, scores and the beams
that every token came from, in float32 on the CPU.

    python tools/oracle/record_search.py tests/data/search [--default-model FILE.gguf]

A file of tests/data/search holds made_with and cases:
  model      name of a checkpoint in tests/data/models
  prompts    token ids; all of one length, because a batch of transformers would be padded
  config     settings with transformers' names
  sequences  per prompt and returned sequence: ids (generated, without padding), and with beams
             score and beam_indices
Cases in which two numbers that are compared come closer than MIN_GAP (the K + 1 best candidates of
a step among themselves, the finished hypotheses, the best running against the worst finished one)
are left out: programs that round otherwise may part there.
"""

import argparse
import json
import random
from pathlib import Path

import torch
import transformers

import record_models as reference

# The scores that two programs find for the cases here differ by 7e-5 at most, where
# length_penalty -1 does not multiply them. The default model has larger logits, and its weights are
# summed in other orders.
MIN_GAP = 1e-4
DEFAULT_MIN_GAP = 1e-3
TINY = ["llama_mha", "llama_gqa_tied", "llama3_scaled", "qwen2", "qwen3", "mistral_window"]
CASES_EACH = 36
DEFAULT_CASES = 14
GUIDANCE_CASES = 30
NOT_YET = -1e8  # scores below it stand for places that are still empty


class GapWatch:
    """Notes the least distance of numbers that transformers' search compares."""

    def __init__(self, model):
        self.model, self.gap = model, float("inf")

    def see(self, values):
        values = torch.sort(values.flatten()[values.flatten() > NOT_YET]).values
        if len(values) > 1:
            self.gap = min(self.gap, float((values[1:] - values[:-1]).min()))

    def __enter__(self):
        model = self.model
        top_k, finished = model._get_top_k_continuations, model._update_finished_beams
        heuristic = model._check_early_stop_heuristic

        def watch_top_k(**kwargs):
            best = torch.topk(kwargs["accumulated_log_probs"], kwargs["beams_to_keep"] + 1).values
            for row in best:
                self.see(row)
            return top_k(**kwargs)

        def watch_finished(**kwargs):
            result = finished(**kwargs)
            for row in result[1]:
                self.see(row)
            return result

        def watch_heuristic(**kwargs):
            length = kwargs["cur_len"] - kwargs["decoder_prompt_len"]
            if kwargs["early_stopping"] == "never" and kwargs["length_penalty"] > 0:
                length = kwargs["max_length"] - kwargs["decoder_prompt_len"]
            best = kwargs["running_beam_scores"][:, 0] / length ** kwargs["length_penalty"]
            for running, pool in zip(best, kwargs["beam_scores"]):
                self.see(torch.stack([running, pool.min()]))
            return heuristic(**kwargs)

        model._get_top_k_continuations = watch_top_k
        model._update_finished_beams = watch_finished
        model._check_early_stop_heuristic = watch_heuristic
        return self

    def __exit__(self, *_):
        for name in ("_get_top_k_continuations", "_update_finished_beams",
                     "_check_early_stop_heuristic"):
            delattr(self.model, name)


def search(model, prompts, config):
    """(sequences as in the recordings, least gap) of transformers' generate."""
    ids = torch.tensor(prompts)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = None
    config = dict(config)
    if "negative_prompt_ids" in config:
        config["negative_prompt_ids"] = torch.tensor([config["negative_prompt_ids"]])
    with GapWatch(model) as watch, torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False,
                             return_dict_in_generate=True, output_scores=True, pad_token_id=0,
                             **config)
        if config.get("num_beams", 1) == 1:
            for step in out.scores:
                best = torch.topk(step, 2, dim=-1).values
                watch.gap = min(watch.gap, float((best[:, 0] - best[:, 1]).min()))
    generated = out.sequences[:, ids.shape[1]:].tolist()
    sequences = []
    for row, tokens in enumerate(generated):
        if config.get("num_beams", 1) == 1:
            ends = [i for i, t in enumerate(tokens) if t in (config.get("eos_token_id") or [])]
            sequences.append({"ids": tokens[:ends[0] + 1] if ends else tokens})
            continue
        beams = [b % config["num_beams"] for b in out.beam_indices[row].tolist() if b >= 0]
        sequences.append({"ids": tokens[:len(beams)], "beam_indices": beams,
                          "score": float(out.sequences_scores[row])})
    return sequences, watch.gap


def random_case(model, rng, max_new=24, max_beams=8):
    """(prompts, config) with end tokens that the model likes to write."""
    n_prompts, length = rng.choice([1, 1, 2, 3]), rng.randint(1, 9)
    vocab_size = model.config.vocab_size
    prompts = [[rng.randrange(3, min(vocab_size, 20000)) for _ in range(length)]
               for _ in range(n_prompts)]
    beams = rng.choice([1, *range(2, max_beams + 1)])
    config = {"max_new_tokens": rng.randint(2, max_new), "num_beams": beams}
    if beams > 1:
        config["early_stopping"] = rng.choice([False, True, "never"])
        config["length_penalty"] = rng.choice([-1.0, 0.0, 1.0, 2.0, round(rng.uniform(-1, 2), 2)])
        config["num_return_sequences"] = rng.randint(1, beams)
    if rng.random() < 0.3:
        config["repetition_penalty"] = round(rng.uniform(0.8, 1.6), 2)
    if rng.random() < 0.3:
        config["no_repeat_ngram_size"] = rng.randint(1, 3)
    if rng.random() < 0.2:
        config["min_new_tokens"] = rng.randint(1, config["max_new_tokens"])
    if rng.random() < 0.8:
        liked, _ = search(model, prompts, config)
        pool = sorted({token for sequence in liked for token in sequence["ids"]})
        config["eos_token_id"] = sorted(rng.sample(pool, min(len(pool), rng.choice([1, 1, 2, 3]))))
    return prompts, config


def random_guidance(model, rng, max_new=12, max_beams=4):
    """As random_case, with classifier-free guidance. transformers takes a negative prompt for one
    row alone."""
    prompts, config = random_case(model, rng, max_new=max_new, max_beams=max_beams)
    config["guidance_scale"] = rng.choice([0.0, 0.5, 1.5, 2.0, 3.0])
    if config["num_beams"] == 1:
        prompts = prompts[:1]
        config["negative_prompt_ids"] = [rng.randrange(3, 270) for _ in range(rng.randint(1, 6))]
    return prompts, config


def random_cases(model, name, rng, count, min_gap, make=random_case, **limits):
    cases, n_left_out = [], 0
    while len(cases) < count:
        prompts, config = make(model, rng, **limits)
        sequences, gap = search(model, prompts, config)
        if gap < min_gap:
            n_left_out += 1
            assert n_left_out < 20 * count, f"{name}: nearly every case comes close to a tie"
            continue
        cases.append({"model": name, "prompts": prompts, "config": config, "sequences": sequences})
    print(f"{name}: {count} cases, {n_left_out} left out")
    return cases


def write(path, cases):
    document = {"made_with": reference.made_with()}
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(json.dumps(document)[:-1] + ', "cases": [\n' + lines + "\n]}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--default-model", type=Path)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    models = Path(__file__).resolve().parents[2] / "tests" / "data" / "models"
    cases = []
    for name in TINY:
        model = reference.load_reference(models / name)
        cases += random_cases(model, name, random.Random(name), CASES_EACH, MIN_GAP)
    write(arguments.folder / "tiny.json", cases)
    model = reference.load_reference(models / "qwen3")
    write(arguments.folder / "guidance.json",
          random_cases(model, "qwen3", random.Random("guidance"), GUIDANCE_CASES, MIN_GAP,
                       make=random_guidance))
    if arguments.default_model:
        torch.set_num_threads(2)
        path = arguments.default_model.resolve()
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(path.parent), gguf_file=path.name, dtype=torch.float32,
            attn_implementation="eager").eval()
        write(arguments.folder / "default.json",
              random_cases(model, reference.DEFAULT_NAME, random.Random(1), DEFAULT_CASES,
                           DEFAULT_MIN_GAP, max_new=6, max_beams=4))


if __name__ == "__main__":
    main()
