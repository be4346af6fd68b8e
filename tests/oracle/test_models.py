"""Logits and greedy continuations against transformers in float32, on checkpoints that nobody has
seen before and on the default model."""

import random

import make_tiny_models as tiny
import nemotron_h_models as hybrid
import numpy as np
import pytest
import record_models as reference
import torch
import transformers

# Largest difference of a logit, divided by the largest |logit| of its position.
LOGIT_BOUND = 1e-4
# Two programs within the bound agree on every arg-max that leads by more than this.
TIE = 2 * LOGIT_BOUND
N_GREEDY = 20
N_GREEDY_MEDIUM = 5
N_NEW = 128


@pytest.fixture(scope="module", autouse=True)
def quiet_transformers():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # a second thread only waits in models this small


def our_logits(logitlab, model, ids, path, *flags):
    """float32 [positions, vocabulary] of the command line."""
    logitlab("logits", "--model", model, "--ids", ",".join(map(str, ids)), "--all", "--out", path,
             *flags)
    return np.load(path)


def our_greedy(logitlab, model, text, *flags):
    """(ids of the prompt, 128 generated ids) of the command line."""
    document = logitlab("generate", "--model", model, "--raw", text, "--max-new-tokens", N_NEW,
                        "--eos-token-id", "none", *flags, as_json=True)
    assert document["stop_reason"] == "length"
    assert len(document["ids"]) == N_NEW
    return document["prompt"]["ids"], document["ids"]


def is_their_greedy(model, prompt, ours):
    """One forward of transformers over the prompt and our continuation: when each of our ids is the
    arg-max of the position before it, transformers' own greedy continuation is the same one.
    False where it comes so close to a tie that the two may part; until there they may not."""
    logits, n_safe = watched_logits(model, prompt + ours[:-1])
    logits = logits[len(prompt) - 1:]
    gaps = reference.relative_gaps(torch.from_numpy(logits)).tolist()
    until = min(first_tie(gaps), max(0, n_safe - len(prompt) + 1))
    theirs = logits.argmax(axis=1).tolist()
    assert ours[:until] == theirs[:until], f"{prompt}: {ours} is not {theirs}"
    return until == N_NEW


def watched_logits(model, ids):
    """Their logits, and how many positions precede the first tie between experts: from there on two
    programs may be of two minds."""
    with hybrid.watched_choices(model) as leads:
        logits = reference.all_logits(model, ids)
    least = np.min(leads, axis=0) if leads else np.full(len(ids), np.inf)
    ties = np.flatnonzero(least < hybrid.EXPERT_TIE)
    return logits, int(ties[0]) if len(ties) else len(ids)


def prompt_without_ties(model, rng, n):
    """(random ids, their logits): no position of the prompt is near a tie between experts."""
    for _ in range(40):
        ids = rng.integers(0, model.config.vocab_size, size=n).tolist()
        logits, n_safe = watched_logits(model, ids)
        if n_safe == n:
            return ids, logits
        print(f"{n} ids: a tie between experts at {n_safe}, drawn anew")
    pytest.fail(f"each of 40 prompts of {n} ids comes near a tie between experts")


def first_tie(gaps):
    return next((i for i, gap in enumerate(gaps) if gap < TIE), N_NEW)


def check_generate(model, prompt, ours):
    """As is_their_greedy, by transformers' generate with its cache."""
    (theirs, gaps), = reference.greedy(model, [prompt], N_NEW)
    _, n_safe = watched_logits(model, prompt + ours[:-1])
    until = min(first_tie(gaps), max(0, n_safe - len(prompt) + 1))
    assert ours[:until] == theirs[:until], f"{prompt}: {ours} is not {theirs}"


def assert_close(ours, theirs, what):
    assert ours.dtype == np.float32 and ours.shape == theirs.shape, what
    worst = reference.max_difference(theirs, ours)
    assert worst <= LOGIT_BOUND, f"{what}: {worst}"  # NaN does not pass either


def check_logits(logitlab, path, model, rng, tmp_path):
    """Prompts on both sides of a page of the KV cache and of the windows."""
    for n in (1, 7, 33, 130):
        ids, theirs = prompt_without_ties(model, rng, n)
        ours = our_logits(logitlab, path, ids, tmp_path / "one.npy", "--threads", 1)
        assert_close(ours, theirs, f"{n} ids")
        two = our_logits(logitlab, path, ids, tmp_path / "two.npy", "--threads", 2)
        assert ours.tobytes() == two.tobytes(), f"{n} ids: two threads changed a bit"


def random_text(rng):
    """Printable text of 1 to 24 characters: words of few letters, so that merges happen."""
    letters = "theranoilgws ."
    text = "".join(rng.choice(list(letters)) for _ in range(rng.integers(1, 25)))
    return "x" + text  # a text that begins with '-' would be a flag


def check_greedy(logitlab, path, model, rng, n_wanted=N_GREEDY):
    """Until n_wanted of at most twice as many prompts kept their distance from ties for all tokens."""
    tokenizer, _, _ = tiny.make_tokenizer()
    n_identical = 0
    for i in range(2 * n_wanted):
        text = random_text(rng)
        prompt, ours = our_greedy(logitlab, path, text, "--threads", 1)
        assert prompt == tokenizer.encode(text, add_special_tokens=False).ids, text
        n_identical += is_their_greedy(model, prompt, ours)
        if i == 0:
            check_generate(model, prompt, ours)
        if n_identical == n_wanted:
            return
    pytest.fail(f"only {n_identical} of {2 * n_wanted} prompts keep a distance from ties")


def seed_of(name, run_seed):
    return (run_seed * 1000003 + tiny.spec_seed(name)) % 2**31


@pytest.mark.parametrize("name", tiny.SPECS)
def test_random_checkpoint(name, run_seed, logitlab, tmp_path):
    seed = seed_of(name, run_seed)
    choice = random.Random(seed)
    dtype = choice.choice([torch.float32, torch.bfloat16, torch.float16])
    shard_size = choice.choice(["1GB", "30KB"])
    print(f"seed {seed}, {dtype}, shards of {shard_size}")
    folder = tmp_path / "model"
    tiny.write_checkpoint(tiny.SPECS[name], seed, folder, shard_size, dtype)
    model = reference.load_reference(folder)
    rng = np.random.default_rng(seed)
    check_logits(logitlab, folder, model, rng, tmp_path)
    check_greedy(logitlab, folder, model, rng)


@pytest.mark.parametrize("name", hybrid.MEDIUM_CONFIGS)
def test_random_hybrid_of_many_chunks(name, run_seed, logitlab, tmp_path):
    seed = seed_of(name, run_seed)
    dtype = random.Random(seed).choice([torch.float32, torch.bfloat16, torch.float16])
    print(f"seed {seed}, {dtype}")
    spec = tiny.Spec("NemotronH", hybrid.MEDIUM_CONFIGS[name], dtype)
    folder = tmp_path / "model"
    tiny.write_checkpoint(spec, seed, folder)
    model = reference.load_reference(folder)
    rng = np.random.default_rng(seed)
    # On both sides of a chunk of theirs, and over two of our pieces of 512.
    for n in (129, 420, 530):
        ids, theirs = prompt_without_ties(model, rng, n)
        ours = our_logits(logitlab, folder, ids, tmp_path / "one.npy", "--threads", 1)
        assert_close(ours, theirs, f"{n} ids")
        two = our_logits(logitlab, folder, ids, tmp_path / "two.npy", "--threads", 2)
        assert ours.tobytes() == two.tobytes(), f"{n} ids: two threads changed a bit"
    check_greedy(logitlab, folder, model, rng, N_GREEDY_MEDIUM)


@pytest.mark.parametrize("name", tiny.GGUF_QUANTS)
def test_random_gguf(name, run_seed, logitlab, tmp_path):
    seed = seed_of(name, run_seed)
    print(f"seed {seed}")
    model = tiny.make_quantised(name, tmp_path / "model", seed)
    path = tmp_path / "model" / "model.gguf"
    rng = np.random.default_rng(seed)
    check_logits(logitlab, path, model, rng, tmp_path)
    check_greedy(logitlab, path, model, rng)


# ---- the default model: the same GGUF file, read by transformers ----


@pytest.fixture(scope="module")
def default_reference(default_model):
    torch.set_num_threads(2)
    return transformers.AutoModelForCausalLM.from_pretrained(
        str(default_model.parent), gguf_file=default_model.name, dtype=torch.float32,
        attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def default_tokenizer(default_model):
    return transformers.AutoTokenizer.from_pretrained(
        str(default_model.parent), gguf_file=default_model.name)


def default_prompts(tokenizer, rng):
    """(name, ids): the recorded texts, random ids, and more than one prefill chunk of 512."""
    for text in reference.DEFAULT_LOGIT_TEXTS:
        yield text[:20], tokenizer(text, add_special_tokens=False)["input_ids"]
    yield "one id", [1]
    yield "random ids", rng.integers(0, 49152, size=40).tolist()
    texts = "\n\n".join(reference.DEFAULT_GREEDY_TEXTS)
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    yield "two chunks", (ids * 3)[:530]


def test_default_model_logits(default_model, default_reference, default_tokenizer, logitlab,
                              run_seed, tmp_path):
    for name, ids in default_prompts(default_tokenizer, np.random.default_rng(run_seed)):
        ours = our_logits(logitlab, default_model, ids, tmp_path / "ours.npy")
        assert_close(ours, reference.all_logits(default_reference, ids), name)


def test_default_model_greedy(default_model, default_reference, default_tokenizer, logitlab):
    n_identical = 0
    for i, text in enumerate(reference.DEFAULT_GREEDY_TEXTS):
        prompt, ours = our_greedy(logitlab, default_model, text)
        assert prompt == default_tokenizer(text, add_special_tokens=False)["input_ids"], text
        n_identical += is_their_greedy(default_reference, prompt, ours)
        if i < 2:
            check_generate(default_reference, prompt, ours)
        if n_identical == N_GREEDY:
            return
    pytest.fail(f"only {n_identical} prompts keep a distance from ties")
