"""Configurations of models, and the tensors that a checkpoint of one holds."""

import dataclasses

NANO_PATTERN = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"


class BadConfig(Exception):
    """A configuration that describes no model."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple
    dtype: str
    role: str  # "matrix", "norm", "bias", "conv", "a_log", "d", "dt_bias", "correction"


@dataclasses.dataclass(frozen=True)
class Preset:
    config: dict
    shards: int = 1


def size(config, key, missing=None):
    value = config.get(key, missing)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 24:
        raise BadConfig(f"config: {key} is {value!r}, want a whole number from 1 to {1 << 24}")
    return value


# ---- tensors ----------------------------------------------------------------------------------

def llama_tensors(config, dtype):
    """The Llama family: llama, mistral, qwen2, qwen3."""
    d, f, vocab = (size(config, key) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    heads = size(config, "num_attention_heads")
    kv_heads = size(config, "num_key_value_heads", heads)
    head_dim = size(config, "head_dim", d // heads)
    kind = config["model_type"]
    qkv_bias = kind == "qwen2" or bool(config.get("attention_bias"))
    shapes = [("self_attn.q_proj", heads * head_dim, d, qkv_bias),
              ("self_attn.k_proj", kv_heads * head_dim, d, qkv_bias),
              ("self_attn.v_proj", kv_heads * head_dim, d, qkv_bias),
              ("self_attn.o_proj", d, heads * head_dim, bool(config.get("attention_bias"))),
              ("mlp.gate_proj", f, d, bool(config.get("mlp_bias"))),
              ("mlp.up_proj", f, d, bool(config.get("mlp_bias"))),
              ("mlp.down_proj", d, f, bool(config.get("mlp_bias")))]
    yield Tensor("model.embed_tokens.weight", (vocab, d), dtype, "matrix")
    for layer in range(size(config, "num_hidden_layers")):
        prefix = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield Tensor(f"{prefix}{name}.weight", (d,), dtype, "norm")
        for name, out, width, has_bias in shapes:
            yield Tensor(f"{prefix}{name}.weight", (out, width), dtype, "matrix")
            if has_bias:
                yield Tensor(f"{prefix}{name}.bias", (out,), dtype, "bias")
        if kind == "qwen3":
            for name in ("q_norm", "k_norm"):
                yield Tensor(f"{prefix}self_attn.{name}.weight", (head_dim,), dtype, "norm")
    yield Tensor("model.norm.weight", (d,), dtype, "norm")
    if not config.get("tie_word_embeddings"):
        yield Tensor("lm_head.weight", (vocab, d), dtype, "matrix")


def matrix(prefix, name, out, width, dtype, has_bias=False):
    yield Tensor(f"{prefix}{name}.weight", (out, width), dtype, "matrix")
    if has_bias:
        yield Tensor(f"{prefix}{name}.bias", (out,), dtype, "bias")


def mamba_tensors(config, prefix, dtype):
    d, heads = size(config, "hidden_size"), size(config, "mamba_num_heads")
    groups = size(config, "n_groups")
    if heads % groups:
        raise BadConfig(f"config: mamba_num_heads {heads} is no multiple of n_groups {groups}")
    inner = heads * size(config, "mamba_head_dim")
    channels = inner + 2 * groups * size(config, "ssm_state_size")
    bias = bool(config.get("use_bias"))
    yield from matrix(prefix, "in_proj", inner + channels + heads, d, dtype, bias)
    yield Tensor(prefix + "conv1d.weight", (channels, 1, size(config, "conv_kernel")), dtype, "conv")
    if config.get("use_conv_bias", True):
        yield Tensor(prefix + "conv1d.bias", (channels,), dtype, "bias")
    yield Tensor(prefix + "dt_bias", (heads,), dtype, "dt_bias")
    yield Tensor(prefix + "A_log", (heads,), "F32", "a_log")
    yield Tensor(prefix + "D", (heads,), "F32", "d")
    yield Tensor(prefix + "norm.weight", (inner,), dtype, "norm")
    yield from matrix(prefix, "out_proj", d, inner, dtype, bias)


def attention_tensors(config, prefix, dtype):
    d, head_dim = size(config, "hidden_size"), size(config, "head_dim")
    q_width = size(config, "num_attention_heads") * head_dim
    kv_width = size(config, "num_key_value_heads") * head_dim
    yield from matrix(prefix, "q_proj", q_width, d, dtype)
    yield from matrix(prefix, "k_proj", kv_width, d, dtype)
    yield from matrix(prefix, "v_proj", kv_width, d, dtype)
    yield from matrix(prefix, "o_proj", d, q_width, dtype)


def moe_tensors(config, prefix, dtype):
    d, experts = size(config, "hidden_size"), size(config, "n_routed_experts")
    if size(config, "num_experts_per_tok") > experts:
        raise BadConfig(f"config: num_experts_per_tok is above n_routed_experts ({experts})")
    latent = config.get("moe_latent_size")
    width = size(config, "moe_latent_size") if latent else d
    f, shared = size(config, "moe_intermediate_size"), "moe_shared_expert_intermediate_size"
    yield from matrix(prefix, "gate", experts, d, dtype)
    yield Tensor(prefix + "gate.e_score_correction_bias", (experts,), "F32", "correction")
    for expert in range(experts):
        yield from matrix(prefix, f"experts.{expert}.up_proj", f, width, dtype)
        yield from matrix(prefix, f"experts.{expert}.down_proj", width, f, dtype)
    bias = bool(config.get("mlp_bias"))
    yield from matrix(prefix, "shared_experts.up_proj", size(config, shared), d, dtype, bias)
    yield from matrix(prefix, "shared_experts.down_proj", d, size(config, shared), dtype, bias)
    if latent:
        yield from matrix(prefix, "fc1_latent_proj", width, d, dtype, bias)
        yield from matrix(prefix, "fc2_latent_proj", d, width, dtype, bias)


def mlp_tensors(config, prefix, dtype):
    d, f = size(config, "hidden_size"), size(config, "intermediate_size")
    bias = bool(config.get("mlp_bias"))
    yield from matrix(prefix, "up_proj", f, d, dtype, bias)
    yield from matrix(prefix, "down_proj", d, f, dtype, bias)


def hybrid_tensors(config, dtype):
    d, vocab = size(config, "hidden_size"), size(config, "vocab_size")
    mixers = {"M": mamba_tensors, "*": attention_tensors, "E": moe_tensors, "-": mlp_tensors}
    pattern = config.get("hybrid_override_pattern")
    if not isinstance(pattern, str) or not pattern:
        raise BadConfig("config: hybrid_override_pattern is empty, want letters of M, *, E, -")
    yield Tensor("backbone.embeddings.weight", (vocab, d), dtype, "matrix")
    for layer, letter in enumerate(pattern):
        if letter not in mixers:
            raise BadConfig(f"config: hybrid_override_pattern: layer {layer} is {letter!r}, want M, "
                            "*, E or -")
        prefix = f"backbone.layers.{layer}."
        yield Tensor(prefix + "norm.weight", (d,), dtype, "norm")
        yield from mixers[letter](config, prefix + "mixer.", dtype)
    yield Tensor("backbone.norm_f.weight", (d,), dtype, "norm")
    yield Tensor("lm_head.weight", (vocab, d), dtype, "matrix")


FAMILIES = {"llama": llama_tensors, "mistral": llama_tensors, "qwen2": llama_tensors,
            "qwen3": llama_tensors, "nemotron_h": hybrid_tensors}


def tensors(config, dtype):
    """All tensors, in the order of the layers. Raises BadConfig."""
    family = FAMILIES.get(config.get("model_type"))
    if family is None:
        raise BadConfig(f"config: model_type is {config.get('model_type')!r}, want one of "
                        f"{', '.join(sorted(FAMILIES))}")
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    config["torch_dtype"] = names[dtype]
    return list(family(config, dtype))


# ---- the small files --------------------------------------------------------------------------

def generation_config(config):
    made = {"_from_model_config": True}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if config.get(key) is not None:
            made[key] = config[key]
    if config["model_type"] == "nemotron_h" and config["vocab_size"] > 11:
        made["eos_token_id"] = [2, 11]
    return made


SPECIAL = {0: "<unk>", 1: "<s>", 2: "</s>", 10: "<|im_start|>", 11: "<|im_end|>", 12: "<think>",
           13: "</think>"}

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' + "
    "('<think>\n' if enable_thinking is not defined or enable_thinking else "
    "'<think></think>') }}{% endif %}")


def byte_characters():
    """The characters that stand for the 256 bytes in byte-level vocabularies."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {byte: chr(byte) for byte in shown}
    letters.update((byte, chr(256 + i)) for i, byte in enumerate(hidden))
    return [letters[byte] for byte in range(256)]


def tokenizer_files(config):
    """A byte-level tokenizer with one token a byte; none where the vocabulary has no room."""
    needed = 256 + len(SPECIAL)
    if size(config, "vocab_size") < needed:
        return {}
    ids = [index for index in range(needed) if index not in SPECIAL]
    vocab = {text: index for index, text in SPECIAL.items()}
    vocab.update(zip(byte_characters(), ids))
    added = [{"id": index, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": not text.endswith("think>")}
             for index, text in SPECIAL.items()]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
                 "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
                 "decoder": byte_level,
                 "model": {"type": "BPE", "dropout": None, "unk_token": None,
                           "continuing_subword_prefix": None, "end_of_word_suffix": None,
                           "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                           "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
                           "merges": []}}
    return {"tokenizer.json": tokenizer,
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast",
                                      "bos_token": "<s>", "eos_token": "<|im_end|>",
                                      "unk_token": "<unk>", "clean_up_tokenization_spaces": False,
                                      "chat_template": CHAT_TEMPLATE}}


# ---- presets ----------------------------------------------------------------------------------

NANO = {
    "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "vocab_size": 131072,
    "hidden_size": 2688, "num_hidden_layers": 52, "hybrid_override_pattern": NANO_PATTERN,
    "layer_norm_epsilon": 1e-5, "norm_eps": 1e-5, "tie_word_embeddings": False,
    "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128, "attention_bias": False,
    "rope_theta": 10000, "partial_rotary_factor": 1.0, "sliding_window": None,
    "max_position_embeddings": 262144, "mamba_num_heads": 64, "mamba_head_dim": 64, "expand": 2,
    "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4, "use_conv_bias": True,
    "use_bias": False, "mamba_proj_bias": False, "chunk_size": 128, "time_step_min": 0.001,
    "time_step_max": 0.1, "time_step_floor": 1e-4, "mamba_hidden_act": "silu",
    "mamba_ssm_cache_dtype": "float32", "n_routed_experts": 128, "num_experts_per_tok": 6,
    "moe_intermediate_size": 1856, "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 3712, "intermediate_size": 1856,
    "mlp_hidden_act": "relu2", "mlp_bias": False, "n_group": 1, "topk_group": 1,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "residual_in_fp32": False,
    "num_logits_to_keep": 1, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

# Half of every width and of the experts: about an eighth of the parameters.
NANO_EIGHTH = {**NANO, "vocab_size": 65536, "hidden_size": 1344, "num_attention_heads": 16,
               "mamba_num_heads": 32, "n_groups": 4, "n_routed_experts": 64,
               "moe_intermediate_size": 928, "moe_shared_expert_intermediate_size": 1856,
               "intermediate_size": 928}

TINY_HYBRID = {**NANO, "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 7,
               "hybrid_override_pattern": "ME*M-EM", "num_attention_heads": 4, "head_dim": 16,
               "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 16, "n_groups": 2,
               "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
               "moe_shared_expert_intermediate_size": 64, "intermediate_size": 96,
               "max_position_embeddings": 2048}

SMOLLM2 = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 49152,
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_act": "silu",
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 100000,
    "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2}


def tiny(model_type, architecture, **more):
    return Preset({**SMOLLM2, "architectures": [architecture], "model_type": model_type,
                   "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96,
                   "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
                   "max_position_embeddings": 2048, "tie_word_embeddings": False, **more})


PRESETS = {
    "nemotron-3-nano": Preset(NANO, shards=13),
    "nemotron-3-nano/8": Preset(NANO_EIGHTH, shards=4),
    "tiny-nemotron-h": Preset(TINY_HYBRID, shards=2),
    "smollm2-135m": Preset(SMOLLM2),
    "tiny-llama": tiny("llama", "LlamaForCausalLM"),
    "tiny-mistral": tiny("mistral", "MistralForCausalLM", sliding_window=None),
    "tiny-qwen2": tiny("qwen2", "Qwen2ForCausalLM"),
    "tiny-qwen3": tiny("qwen3", "Qwen3ForCausalLM", head_dim=32),
}
