"""Writes small random checkpoints of the Llama family and of Nemotron-H with transformers itself,
and GGUF files of them, for the recordings in tests/data/models and for the live comparison in tests/oracle.

The weights are drawn wide, so that attention, norms, biases and positions all move the logits and
the arg-max is rarely close to a tie; row 2 of the output matrix (the end token) is nearly zero, so
that a greedy continuation never ends early.

    python tools/oracle/make_tiny_models.py tests/data/models
"""

import argparse
import dataclasses
import json
import shutil
from pathlib import Path

import gguf
import nemotron_h_models as hybrid
import numpy as np
import tokenizers
import torch
import transformers

VOCAB_SIZE = 272
EOS = 2
SEED = 20
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>"]

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
# Wavelengths of head_dim 16 and base 10000 are 6.3, 19.9, 62.8, 199, ...: with these numbers one
# frequency is kept, two lie between, the rest are divided.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@dataclasses.dataclass
class Spec:
    """One checkpoint. `family` is the prefix of transformers' class names."""

    family: str
    config: dict
    dtype: torch.dtype = torch.bfloat16
    shard_size: str = "1GB"
    # Also writes config_4x.json: the same model as transformers 4.x describes it.
    old_config: bool = False
    # Names and experts on the disk as the model's first publication had them.
    original_format: bool = True
    # The name that seeds the weights, when it is another's.
    seed_name: str | None = None


def _rope(theta=10000.0, **kwargs):
    return {"rope_theta": theta, "rope_type": "default", **kwargs}


SPECS = {
    "llama_mha": Spec(
        "Llama",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             rope_parameters=_rope(), tie_word_embeddings=False),
        dtype=torch.float32, old_config=True),
    "llama_gqa_tied": Spec(
        "Llama",
        dict(hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, rope_parameters=_rope(500000.0), tie_word_embeddings=True)),
    "llama_bias": Spec(
        "Llama",
        dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
             num_key_value_heads=1, rope_parameters=_rope(), attention_bias=True, mlp_bias=True,
             rms_norm_eps=0.05, tie_word_embeddings=False),
        dtype=torch.float32),
    "llama3_scaled": Spec(
        "Llama",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, rope_parameters=_rope(**LLAMA3), tie_word_embeddings=True,
             rms_norm_eps=1e-5),
        old_config=True),
    "llama_linear": Spec(
        "Llama",
        dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, rope_parameters=_rope(rope_type="linear", factor=2.5),
             tie_word_embeddings=True),
        old_config=True),
    "llama_yarn": Spec(
        "Llama",
        dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=2, rope_parameters=_rope(**YARN), tie_word_embeddings=True,
             max_position_embeddings=128),
        old_config=True),
    "llama_yarn_options": Spec(
        "Llama",
        dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, tie_word_embeddings=True, max_position_embeddings=128,
             rope_parameters=_rope(**YARN, beta_fast=24.0, beta_slow=1.5, mscale=1.0,
                                   mscale_all_dim=0.6, truncate=False))),
    "mistral": Spec(
        "Mistral",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, sliding_window=None, rope_parameters=_rope(1000000.0),
             tie_word_embeddings=False, rms_norm_eps=1e-5),
        dtype=torch.float16, old_config=True),
    "mistral_window": Spec(
        "Mistral",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, head_dim=24, sliding_window=5, rope_parameters=_rope(),
             tie_word_embeddings=False)),
    "qwen2": Spec(
        "Qwen2",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, rope_parameters=_rope(1000000.0), tie_word_embeddings=True,
             use_sliding_window=False, sliding_window=4, max_window_layers=1),
        old_config=True),
    "qwen2_window": Spec(
        "Qwen2",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
             num_key_value_heads=2, rope_parameters=_rope(), tie_word_embeddings=False,
             use_sliding_window=True, sliding_window=6, max_window_layers=1),
        dtype=torch.float16, old_config=True),
    "qwen3": Spec(
        "Qwen3",
        dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, rope_parameters=_rope(1000000.0),
             tie_word_embeddings=True),
        old_config=True),
    "qwen3_bias": Spec(
        "Qwen3",
        dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3,
             num_key_value_heads=3, head_dim=12, rope_parameters=_rope(), attention_bias=True,
             tie_word_embeddings=False),
        dtype=torch.float16),
    "smollm2_sharded": Spec(
        "Llama",
        dict(hidden_size=36, intermediate_size=64, num_hidden_layers=3, num_attention_heads=9,
             num_key_value_heads=3, rope_parameters=_rope(100000.0), tie_word_embeddings=True,
             rms_norm_eps=1e-5, max_position_embeddings=8192, rope_interleaved=False,
             is_llama_config=True),
        shard_size="24KB"),
}
SPECS.update({
    name: Spec("NemotronH", **{**fields, "dtype": getattr(torch, fields.get("dtype", "bfloat16"))})
    for name, fields in hybrid.SPECS.items()})

# GGUF files of the checkpoints above with the same numbers: F32 and BF16 hold them exactly.
GGUF_TWINS = {
    "gguf_llama3_scaled": "llama3_scaled",
    "gguf_llama_bias": "llama_bias",
    "gguf_llama_linear": "llama_linear",
    "gguf_llama_yarn": "llama_yarn",
    "gguf_qwen2": "qwen2",
    "gguf_qwen3": "qwen3",
    "gguf_nemotron_h": "nemotron_h",
    "gguf_nemotron_h_latent": "nemotron_h_latent",
    "gguf_nemotron_h_dense": "nemotron_h_dense",
}

Q = gguf.GGMLQuantizationType
# The gguf package decodes these but cannot encode them.
K_QUANTS = (Q.Q4_K, Q.Q5_K, Q.Q6_K)
# Quantised files: the checkpoint that is quantised, and the types that its matrices take in turn.
GGUF_QUANTS = {
    "gguf_llama_quants": (
        Spec("Llama",
             dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2,
                  num_attention_heads=4, num_key_value_heads=2, rope_parameters=_rope(),
                  tie_word_embeddings=False, rms_norm_eps=1e-5)),
        [Q.Q8_0, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.F16, Q.Q4_1]),
    "gguf_qwen3_q8": (
        Spec("Qwen3",
             dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2,
                  num_attention_heads=2, num_key_value_heads=1, head_dim=64,
                  rope_parameters=_rope(1000000.0), tie_word_embeddings=True)),
        [Q.Q8_0]),
    "gguf_llama_k": (
        Spec("Llama",
             dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1,
                  num_attention_heads=4, num_key_value_heads=1, head_dim=64,
                  rope_parameters=_rope(), tie_word_embeddings=True, rms_norm_eps=1e-5)),
        [Q.Q6_K, Q.Q4_K, Q.Q5_K]),
    "gguf_nemotron_h_q8": (Spec("NemotronH", hybrid.QUANTISED_CONFIG), [Q.Q8_0]),
}


def make_config(spec):
    """The transformers configuration of a Spec."""
    config_class = getattr(transformers, f"{spec.family}Config")
    defaults = dict(vocab_size=VOCAB_SIZE, max_position_embeddings=256, bos_token_id=1,
                    eos_token_id=EOS)
    if spec.family != "NemotronH":
        defaults["rms_norm_eps"] = 1e-6
    if "num_key_value_heads" not in spec.config:
        defaults["num_key_value_heads"] = spec.config["num_attention_heads"]
    return config_class(**{**defaults, **spec.config})


def make_model(spec, seed):
    """A float32 model whose weights are exact in spec.dtype."""
    model_class = getattr(transformers, f"{spec.family}ForCausalLM")
    model = model_class(make_config(spec)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        if spec.family == "NemotronH":
            for name, tensor in model.state_dict().items():  # with the bias of the choice of experts
                tensor.copy_(
                    hybrid.draw(name, torch.randn(tensor.shape, generator=generator), spec.dtype))
            model.get_output_embeddings().weight[EOS] *= 1 / 64
            hybrid.free_time_steps(model)
            return model
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                value = 1.0 + 0.2 * noise
            elif name.endswith("bias"):
                value = 0.4 * noise
            elif "embed_tokens" in name:
                # With a tied output matrix a wide embedding predicts its own token for ever.
                value = noise * (0.25 if model.config.tie_word_embeddings else 1.0)
            elif "lm_head" in name:
                value = 3.0 * noise / parameter.shape[1] ** 0.5
            else:
                value = 1.6 * noise / parameter.shape[1] ** 0.5
            parameter.copy_(value.to(spec.dtype).float())
        model.get_output_embeddings().weight[EOS] *= 1 / 64
    return model


def make_tokenizer():
    """Byte-level BPE of 272 entries: three special tokens, the 256 bytes, 13 merges."""
    alphabet = gguf_byte_alphabet()
    vocab = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    for byte in range(256):
        vocab[alphabet[byte]] = len(vocab)
    space = alphabet[ord(" ")]
    merges = [(space, "t"), ("h", "e"), (space, "a"), ("i", "n"), ("r", "e"), ("o", "n"),
              (space + "t", "he"), ("e", "r"), (space, "w"), ("l", "l"), (space, "s"),
              ("o", "r"), ("in", "g")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    assert len(vocab) == VOCAB_SIZE
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    return tokenizer, vocab, merges


def gguf_byte_alphabet():
    """GPT-2's map from bytes to printable characters."""
    kept = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in kept:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def old_config(config):
    """config.json as transformers 4.x wrote it."""
    old = {key: value for key, value in config.items() if key != "layer_types"}
    old["torch_dtype"] = old.pop("dtype")
    rope = dict(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    kind = rope.pop("rope_type")
    if kind == "default":
        old["rope_scaling"] = None
    elif kind == "linear":  # the oldest spelling
        old["rope_scaling"] = {"type": kind, **rope}
    else:
        old["rope_scaling"] = {"rope_type": kind, **rope}
    old["transformers_version"] = "4.46.0"
    return old


def write_checkpoint(spec, seed, folder, shard_size=None, dtype=None):
    """Saves a model folder as transformers does. Returns the float32 model."""
    if dtype is not None:
        spec = dataclasses.replace(spec, dtype=dtype)
    model = make_model(spec, seed)
    folder = Path(folder)
    if folder.exists():
        shutil.rmtree(folder)
    stored = getattr(transformers, f"{spec.family}ForCausalLM")(make_config(spec))
    stored.load_state_dict(model.state_dict())
    stored.to(spec.dtype).save_pretrained(
        folder, max_shard_size=shard_size or spec.shard_size,
        save_original_format=spec.original_format)
    tokenizer, _, _ = make_tokenizer()
    (folder / "tokenizer.json").write_text(
        json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>",
                        "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    config = json.loads((folder / "config.json").read_text())
    config.pop("_name_or_path", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    if spec.old_config:
        (folder / "config_4x.json").write_text(
            json.dumps(old_config(config), indent=2, sort_keys=True) + "\n")
    return model


# ---- GGUF ----

GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name):
    """The GGUF name of a transformers parameter."""
    stem, suffix = name.rsplit(".", 1)
    fixed = {"model.embed_tokens": "token_embd", "model.norm": "output_norm",
             "lm_head": "output"}
    if stem in fixed:
        return f"{fixed[stem]}.{suffix}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.{suffix}"


def permutation(n_heads, head_dim):
    """Row 2i + b of a GGUF head is row b * head_dim / 2 + i of the transformers head."""
    rows = np.arange(n_heads * head_dim).reshape(n_heads, 2, head_dim // 2)
    return rows.transpose(0, 2, 1).reshape(-1)


def random_k_blocks(kind, rows, columns, rng, std):
    """Valid K-quant blocks with random content and roughly the wanted spread."""
    n = rows * columns // 256
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, size=(n, size), dtype=np.uint8)
    if kind == Q.Q6_K:  # 16 signed scales, d at the end
        d = std / (73.0 * 18.5) * rng.uniform(0.8, 1.2, size=n)
        blocks[:, 208:210] = d.astype("<f2").view(np.uint8).reshape(n, 2)
    else:  # the minimum takes the mean away
        levels = 15 if kind == Q.Q4_K else 31
        d = std / (levels * 31.5 * 0.42) * rng.uniform(0.8, 1.2, size=n)
        dmin = d * levels / 2
        blocks[:, 0:2] = d.astype("<f2").view(np.uint8).reshape(n, 2)
        blocks[:, 2:4] = dmin.astype("<f2").view(np.uint8).reshape(n, 2)
    return blocks.reshape(rows, -1)


def encode(value, kind, rng):
    """float32 array -> (bytes as the gguf writer wants them, the float32 values they stand for)."""
    if kind == Q.F32:
        return value, value
    if kind == Q.F16:
        return value.astype(np.float16), value.astype(np.float16).astype(np.float32)
    if kind in K_QUANTS:
        data = random_k_blocks(kind, *value.shape, rng, float(value.std()))
    else:
        data = gguf.quants.quantize(value, kind)
    return data, gguf.quants.dequantize(data, kind)


def write_gguf(model, path, kinds, seed=SEED):
    """Writes `model` as llama.cpp's converter does; its matrices take the types of `kinds` in turn.
    Changes the model's weights to the values that the file stands for."""
    config = model.config
    is_hybrid = config.model_type == "nemotron_h"
    arch = {"qwen2": "qwen2", "qwen3": "qwen3"}.get(config.model_type, "llama")
    if is_hybrid:
        arch = hybrid.gguf_arch(config)
    head_dim = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads)
    rng = np.random.default_rng(seed)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, arch)
    if is_hybrid:
        hybrid.add_gguf_keys(writer, config)
    else:
        _add_metadata(writer, config, head_dim)
    _add_tokenizer(writer)
    state = model.state_dict()
    if config.tie_word_embeddings:
        state.pop("lm_head.weight")
    n_matrices = 0
    name_of = hybrid.gguf_name if is_hybrid else gguf_name
    for name, tensor in state.items():
        value = tensor.detach().numpy().astype(np.float32)
        if is_hybrid:
            value = hybrid.gguf_value(name, value, config)
        order = None
        if not arch.startswith("qwen") and (".q_proj." in name or ".k_proj." in name):
            heads = (config.num_attention_heads if ".q_proj." in name
                     else config.num_key_value_heads)
            order = permutation(heads, head_dim)
            value = value[order]
        kind = Q.F32
        if hybrid.is_matrix(name, value) if is_hybrid else value.ndim == 2:
            kind = kinds[n_matrices % len(kinds)]
            n_matrices += 1
        data, decoded = encode(np.ascontiguousarray(value), kind, rng)
        if kind in K_QUANTS and name in ("model.embed_tokens.weight", "lm_head.weight"):
            data[EOS] = 0  # random blocks have forgotten that this row is small
            decoded = gguf.quants.dequantize(data, kind)
        if kind not in (Q.F32, Q.F16):
            writer.add_tensor(name_of(name), data, raw_dtype=kind)
        else:
            writer.add_tensor(name_of(name), data)
        if name.endswith("A_log"):
            continue
        if order is not None:
            restored = np.empty_like(decoded)
            restored[order] = decoded
            decoded = restored
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(decoded.copy()).reshape(tensor.shape))
    rope = {"rope_type": None} if is_hybrid else config.rope_parameters
    if rope["rope_type"] == "llama3":
        default = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
        scaled = model.model.rotary_emb.inv_freq.double().numpy()
        writer.add_tensor("rope_freqs.weight", (default / scaled).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _add_metadata(writer, config, head_dim):
    writer.add_name("tiny random model")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope_parameters
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(
            {"linear": gguf.RopeScalingType.LINEAR, "yarn": gguf.RopeScalingType.YARN}[
                rope["rope_type"]])
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])


def _add_tokenizer(writer):
    _, vocab, merges = make_tokenizer()
    tokens = sorted(vocab, key=vocab.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    control = gguf.TokenType.CONTROL
    writer.add_token_types([control if t in SPECIAL_TOKENS else gguf.TokenType.NORMAL
                            for t in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)


def spec_seed(name):
    """One seed a name, so that a new checkpoint does not change the others."""
    if name in SPECS and SPECS[name].seed_name:
        name = SPECS[name].seed_name
    return SEED + sum(ord(c) * (i + 1) for i, c in enumerate(name))


def make_twin(name, folder):
    """The GGUF of a checkpoint, with exactly its numbers. Returns the float32 model."""
    source = GGUF_TWINS[name]
    spec = SPECS[source]
    model = make_model(spec, spec_seed(source))
    exact = Q.BF16 if spec.dtype == torch.bfloat16 else Q.F32
    return write_gguf(model, Path(folder) / "model.gguf", [exact, Q.F32, exact])


def make_quantised(name, folder, seed=None):
    """A quantised GGUF. Returns the float32 model with the values that the file stands for."""
    spec, kinds = GGUF_QUANTS[name]
    seed = spec_seed(name) if seed is None else seed
    return write_gguf(make_model(spec, seed), Path(folder) / "model.gguf", kinds, seed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="one name")
    args = parser.parse_args()
    for name, spec in SPECS.items():
        if args.only in (None, name):
            write_checkpoint(spec, spec_seed(name), args.folder / name)
    for name in GGUF_TWINS:
        if args.only in (None, name):
            make_twin(name, args.folder / name)
    for name in GGUF_QUANTS:
        if args.only in (None, name):
            make_quantised(name, args.folder / name)


if __name__ == "__main__":
    main()
