"""Random rows, prompts and settings for the logits processors, shared by the recording
(record_processors.py) and the live comparison (tests/oracle/test_processors.py).

A row is named by [kind, size, seed]: make_row() and the C++ test (recorded_processors_test.cc)
build the same bits from it, with Philox4x32-10 and exact arithmetic, so recorded rows need no room.
"""

import random

import numpy

ROW_KEY = 0x726F7773  # second word of the Philox key
# Kinds that a softmax exists for, with their share among cases.
KINDS = {"peaked": 5, "flat": 3, "tied": 4, "tied_at_top": 3, "bf16": 3, "holes": 4, "negative": 2,
         "huge": 1, "one_left": 1}
# Kinds that have none, or scores that are not numbers.
BROKEN_KINDS = ("all_minus_inf", "nan_hole", "plus_inf")


def philox_blocks(size, seed):
    """Philox4x32-10 of the counters {0..size-1, 0, 0, 0} with the key {seed, ROW_KEY}; [4, size]."""
    mask = numpy.uint64(0xFFFFFFFF)
    shift = numpy.uint64(32)
    c = [numpy.arange(size, dtype=numpy.uint64)] + [numpy.zeros(size, numpy.uint64)] * 3
    key = [seed, ROW_KEY]
    for _ in range(10):
        p0 = c[0] * numpy.uint64(0xD2511F53)
        p1 = c[2] * numpy.uint64(0xCD9E8D57)
        c = [(p1 >> shift) ^ c[1] ^ numpy.uint64(key[0]), p1 & mask,
             (p0 >> shift) ^ c[3] ^ numpy.uint64(key[1]), p0 & mask]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return numpy.stack(c)


def bell(size, seed):
    """About normal whole numbers, standard deviation 53510: a sum of eight 16-bit halves."""
    blocks = philox_blocks(size, seed).astype(numpy.int64)
    return ((blocks & 0xFFFF) + (blocks >> 16)).sum(axis=0) - 262140


def to_bf16(row):
    bits = row.view(numpy.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(numpy.uint32).view(numpy.float32)


def make_row(spec):
    """float32 [size]; every value is exact, or rounded once from an exact one."""
    kind, size, seed = spec
    d = bell(size, seed).astype(numpy.float64)
    special = seed % size
    if kind == "peaked":
        row = d * 5 / 2**16
    elif kind == "flat":
        row = d / 2**19
    elif kind == "tied":
        row = numpy.floor(d / 2**14) / 4
    elif kind == "tied_at_top":
        row = numpy.minimum(d * 5 / 2**17, 3.0)
    elif kind == "bf16":
        return to_bf16((d * 5 / 2**16).astype(numpy.float32))
    elif kind == "negative":
        row = d * 5 / 2**16 - 25
    elif kind == "huge":
        row = d / 8
    elif kind == "holes":
        row = numpy.where(d % 2 != 0, -numpy.inf, d * 5 / 2**16)
        row[special] = 1.0
    elif kind == "one_left":
        row = numpy.full(size, -numpy.inf)
        row[special] = 0.5
    elif kind == "all_minus_inf":
        row = numpy.full(size, -numpy.inf)
    else:
        row = d * 5 / 2**16
        row[special] = {"nan_hole": numpy.nan, "plus_inf": numpy.inf}[kind]
    return row.astype(numpy.float32)


def some_ids(rng, size, count):
    return [rng.randrange(size) for _ in range(count)]


def share(rng, nice):
    """A usual value, or any in (0, 1)."""
    return rng.choice(nice) if rng.random() < 0.5 else round(rng.uniform(0.001, 0.999), 4)


def make_ids(rng, size):
    """Prompt and answer so far, out of few different ids, so that they repeat."""
    pool = some_ids(rng, size, rng.choice([1, 2, 3, 5, 12]))
    prompt_length = 1 if rng.random() < 0.15 else rng.choice([2, 3, 5, 8, 13, 24, 60])
    generated = 0 if rng.random() < 0.35 else rng.choice([1, 2, 3, 5, 9, 20])
    return [rng.choice(pool) for _ in range(prompt_length + generated)], prompt_length


def known_sequence(rng, size, ids, length):
    """A sequence whose beginning may be the end of `ids`."""
    if length > 1 and rng.random() < 0.6 and len(ids) >= length - 1:
        return ids[len(ids) - (length - 1):] + some_ids(rng, size, 1)
    return some_ids(rng, size, length)


def sequence_bias(rng, size, ids):
    entries = [[known_sequence(rng, size, ids, rng.choice([1, 1, 1, 2, 2, 3, 4])),
                rng.choice([-7.5, -2.0, -0.3, 0.1, 1.0, 4.25])] for _ in range(rng.randrange(1, 6))]
    if rng.random() < 0.5:
        return {",".join(map(str, sequence)): bias for sequence, bias in entries}
    return [[[max(token, 1) for token in sequence], bias] for sequence, bias in entries]


def bad_words(rng, size, ids):
    return [known_sequence(rng, size, ids, rng.choice([1, 1, 2, 3])) for _ in range(rng.randrange(1, 5))]


# Per setting a value that makes its processor act, from (rng, size, ids, prompt_length).
PENALTIES = {
    "sequence_bias": lambda rng, size, ids, n: sequence_bias(rng, size, ids),
    "encoder_repetition_penalty": lambda rng, size, ids, n: rng.choice([0.5, 0.9, 1.1, 1.3, 2.0]),
    "repetition_penalty": lambda rng, size, ids, n: rng.choice([0.5, 0.8, 1.05, 1.1, 1.3, 2.0, 9.0]),
    "no_repeat_ngram_size": lambda rng, size, ids, n: rng.choice([1, 2, 2, 3, 4]),
    "encoder_no_repeat_ngram_size": lambda rng, size, ids, n: rng.choice([1, 2, 2, 3, 4]),
    "bad_words_ids": lambda rng, size, ids, n: bad_words(rng, size, ids),
    "min_length": lambda rng, size, ids, n: len(ids) + rng.randrange(-2, 3),
    "min_new_tokens": lambda rng, size, ids, n: max(0, len(ids) - n + rng.randrange(-1, 3)),
    "forced_bos_token_id": lambda rng, size, ids, n: rng.randrange(size),
    "forced_eos_token_id": lambda rng, size, ids, n: rng.choice(
        [rng.randrange(size), some_ids(rng, size, 1), some_ids(rng, size, 3)]),
    "remove_invalid_values": lambda rng, size, ids, n: True,
    "exponential_decay_length_penalty": lambda rng, size, ids, n: [
        rng.randrange(0, 4), rng.choice([0.9, 1.05, 1.5, 2.0])],
    "suppress_tokens": lambda rng, size, ids, n: some_ids(rng, size, rng.choice([1, 2, max(1, size // 3)])),
    "begin_suppress_tokens": lambda rng, size, ids, n: some_ids(rng, size, rng.choice([1, 3])),
    "guidance_scale": lambda rng, size, ids, n: rng.choice([0.0, 0.5, 1.5, 2.0, 3.5]),
    "renormalize_logits": lambda rng, size, ids, n: True,
}
FILTERS = {
    "temperature": lambda rng, size: rng.choice([0.1, 0.25, 0.6, 0.7, 1.3, 2.0, 7.5]),
    "top_h": lambda rng, size: share(rng, [0.1, 0.3, 0.4, 0.5, 0.7, 0.9]),
    "top_k": lambda rng, size: rng.choice([1, 2, 3, 5, 20, 50, 200, 5000]),
    "top_p": lambda rng, size: share(rng, [0.0, 0.1, 0.3, 0.5, 0.8, 0.9, 0.95, 0.999, 1.0, 1.5]),
    "min_p": lambda rng, size: share(rng, [0.0, 0.01, 0.05, 0.1, 0.5, 1.0]),
    "typical_p": lambda rng, size: share(rng, [0.1, 0.2, 0.5, 0.9, 0.95, 1.0, 1.5]),
    "epsilon_cutoff": lambda rng, size: rng.choice([0.0003, 0.001, 0.01, 0.1, 0.3, 0.9, 0.0, 2.0]),
    "eta_cutoff": lambda rng, size: rng.choice([0.0003, 0.002, 0.01, 0.1, 0.3, 0.5, 0.0, 2.0]),
}
NEEDS_EOS = ("min_length", "min_new_tokens", "exponential_decay_length_penalty")

# Values that transformers refuses in some mode; every one is compared under greedy and sampling.
BAD_SETTINGS = (
    {"temperature": 0.0}, {"temperature": -1.0}, {"temperature": "hot"}, {"top_k": -1},
    {"top_k": 2.0}, {"top_k": "5"}, {"top_p": -0.1}, {"top_p": -1.0}, {"min_p": -0.1},
    {"min_p": 1.5}, {"min_p": 2.0}, {"typical_p": 0.0}, {"typical_p": -0.5}, {"top_h": 0.0},
    {"top_h": -1.0}, {"top_h": 1.5}, {"repetition_penalty": 0.0}, {"repetition_penalty": -1.1},
    {"repetition_penalty": "x"}, {"encoder_repetition_penalty": 0.0},
    {"encoder_repetition_penalty": -2.0}, {"bad_words_ids": []}, {"bad_words_ids": [[-1]]},
    {"bad_words_ids": [3]}, {"bad_words_ids": "x"}, {"bad_words_ids": [["a"]]},
    {"bad_words_ids": [[1], [10**7]]}, {"sequence_bias": []}, {"sequence_bias": {}},
    {"sequence_bias": [[[0], 1.0]]}, {"sequence_bias": [[[1, 0], 1.0]]},
    {"sequence_bias": [[[-2], 1.0]]}, {"sequence_bias": [[[1], "x"]]}, {"sequence_bias": [[1, 1.0]]},
    {"sequence_bias": [[[10**7], 1.0]]}, {"sequence_bias": {"-1": 1.0}}, {"sequence_bias": {"1": "x"}},
    {"forced_eos_token_id": -1}, {"forced_eos_token_id": [1, -2]}, {"max_new_tokens": 0},
    {"max_new_tokens": -3}, {"max_length": 1}, {"max_length": 0}, {"num_return_sequences": 2},
    {"num_return_sequences": 3, "num_beams": 2}, {"early_stopping": "x"},
    {"suppress_tokens": [3, 1], "forced_eos_token_id": 3},
    {"suppress_tokens": [3, 1], "forced_bos_token_id": 1},
    {"suppress_tokens": [3, 1], "forced_eos_token_id": [1, 3]},
    {"no_repeat_ngram_size": 2.5}, {"exponential_decay_length_penalty": [1, 1.5]}, {"foo": 1},
    # Accepted by both, though they look wrong.
    {"top_p": 1.5}, {"typical_p": 3.0}, {"epsilon_cutoff": -1.0}, {"eta_cutoff": 7.0}, {"top_k": 0},
    {"no_repeat_ngram_size": -1}, {"suppress_tokens": [3, 1], "forced_eos_token_id": [1, 2]},
    {"suppress_tokens": [-1, 10**7]}, {"bad_words_ids": [[0]]}, {"min_length": 0},
    {"sequence_bias": {"0": 1.0}},
)


def make_case(rng, sizes):
    """One case: what `logitlab process` reads, with the rows named in place of their numbers, and
    under "about" what it is for."""
    size = rng.choice(sizes)
    kind = rng.choices(list(KINDS), weights=KINDS.values())[0]
    if rng.random() < 0.02:
        kind = rng.choice(BROKEN_KINDS)
    ids, prompt_length = make_ids(rng, size)
    case = {"row": [kind, size, rng.randrange(2**31)], "input_ids": ids, "prompt_length": prompt_length}
    draw = rng.random()
    if draw < 0.04:
        config, about = dict(rng.choice(BAD_SETTINGS)), "bad"
        # A wrong type is refused at once by us, in transformers only by the filter that is built.
        is_typed = not any(isinstance(value, (str, float)) and name in ("temperature", "top_k")
                           for name, value in config.items())
        config["do_sample"] = rng.random() < 0.5 or not is_typed
    elif draw < 0.54:
        about = rng.choice([*PENALTIES, *FILTERS])
        config = alone(rng, size, about, ids, prompt_length)
    else:
        about = "chain"
        config = chain(rng, size, ids, prompt_length)
        if rng.random() < 0.1:
            config, case["model_config"] = split_config(rng, config)
    case.update(config=config, about=about)
    merged = {**case.get("model_config", {}), **config}
    if merged.get("guidance_scale", 1) != 1:
        case["unguided"] = [rng.choice(["peaked", "flat", "tied", "negative"]), size, rng.randrange(2**31)]
    return case


def alone(rng, size, name, ids, prompt_length):
    config = {"do_sample": name in FILTERS or rng.random() < 0.3, "top_k": 0}
    if name in FILTERS:
        config[name] = FILTERS[name](rng, size)
    else:
        config[name] = PENALTIES[name](rng, size, ids, prompt_length)
    if name in NEEDS_EOS or rng.random() < 0.2:
        config["eos_token_id"] = make_eos(rng, size, config)
    add_search(rng, config, ids, prompt_length)
    return config


def chain(rng, size, ids, prompt_length):
    config = {"do_sample": rng.random() < 0.85}
    density = rng.choice([0.1, 0.2, 0.5])
    for name, make in PENALTIES.items():
        if rng.random() < density * (0.5 if name.startswith("forced") else 1):
            config[name] = make(rng, size, ids, prompt_length)
    for name, make in FILTERS.items():
        if rng.random() < rng.choice([0.15, 0.45]):
            config[name] = make(rng, size)
    if rng.random() < 0.15:
        config["top_k"] = 0
    if rng.random() < 0.7 or any(name in config for name in NEEDS_EOS):
        config["eos_token_id"] = make_eos(rng, size, config)
    add_search(rng, config, ids, prompt_length)
    return config


def make_eos(rng, size, config):
    # An end token outside the vocabulary never occurs; only the decay trips over it.
    if "exponential_decay_length_penalty" not in config and rng.random() < 0.1:
        return [*some_ids(rng, size, 2), size + 3]
    return rng.choice([rng.randrange(size), some_ids(rng, size, 1), some_ids(rng, size, 2)])


def add_search(rng, config, ids, prompt_length):
    # With several rows transformers applies the encoder's penalty to the first one alone; refused here.
    if rng.random() < 0.12 and "encoder_repetition_penalty" not in config:
        config["num_beams"] = rng.choice([2, 3, 5])
    generated = len(ids) - prompt_length
    # The next token is often the last one, so that forced_eos_token_id acts.
    if "forced_eos_token_id" in config and rng.random() < 0.7:
        config["max_new_tokens"] = generated + 1
    elif rng.random() < 0.2:
        config["max_length"] = len(ids) + rng.randrange(1, 5)


def split_config(rng, config):
    """Some settings from the model's own defaults, some of them overruled by the call."""
    model, call = {}, {}
    for name, value in config.items():
        (model if rng.random() < 0.5 else call)[name] = value
    for name in ("temperature", "top_k", "top_p"):
        if name in call and rng.random() < 0.5:
            model[name] = {"temperature": 3.0, "top_k": 7, "top_p": 0.5}[name]
    return call, model


def make_cases(seed, count, sizes):
    rng = random.Random(seed)
    return [make_case(rng, sizes) for _ in range(count)]
