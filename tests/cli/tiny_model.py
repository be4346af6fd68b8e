"""Writes tiny random checkpoints: a Llama of some thousand parameters and a byte-level tokenizer."""

import array
import json
import pathlib
import random
import struct

VOCAB_SIZE = 260
HIDDEN = 32
LAYERS = 2
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 8
FEED_FORWARD = 48
POSITIONS = 1_000_000
SPECIAL_TOKENS = ["<|end|>", "<|start|>", "<pad>", "<unk>"]  # ids 256 to 259
END_ID = 256
# With thinking=True the last two ids are the marks of thinking.
THINKING_TOKENS = ["<|end|>", "<|start|>", "<think>", "</think>"]
OPEN_ID = 258
CLOSE_ID = 259

TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if tools %}{{ 'tools:' + (tools | length) | string + '\n' }}{% endif %}"
    "{% if enable_thinking is defined %}{{ 'think:' + (enable_thinking | string) + '\n' }}{% endif %}"
    "{% if mood is defined %}{{ 'mood:' + mood + '\n' }}{% endif %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)

# Thoughts of earlier turns are dropped; the model's turn begins inside its thinking, unless told.
THINKING_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{{ '<think></think>' }}{% endif %}"
    "{{ message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n<think>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '</think>' }}"
    "{% else %}{{ '\n' }}{% endif %}{% endif %}"
)


def byte_characters():
    """The characters that byte-level BPE writes the 256 bytes with, by byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    table = {byte: chr(byte) for byte in shown}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(shown))
    return [table[byte] for byte in range(256)]


def tokenizer_json(special_tokens=tuple(SPECIAL_TOKENS)):
    vocab = {character: byte for byte, character in enumerate(byte_characters())}
    added = []
    for index, content in enumerate(special_tokens):
        vocab[content] = 256 + index
        added.append({"id": 256 + index, "content": content, "single_word": False, "lstrip": False,
                      "rstrip": False, "normalized": False, "special": True})
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
            "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
            "decoder": byte_level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None,
                      "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": []}}


def config_json():
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": VOCAB_SIZE, "hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "hidden_act": "silu",
            "max_position_embeddings": POSITIONS, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
            "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
            "torch_dtype": "float32", "bos_token_id": None, "eos_token_id": END_ID}


def tensor_shapes():
    shapes = {"model.embed_tokens.weight": [VOCAB_SIZE, HIDDEN], "model.norm.weight": [HIDDEN]}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = [HIDDEN]
        shapes[prefix + "post_attention_layernorm.weight"] = [HIDDEN]
        shapes[prefix + "self_attn.q_proj.weight"] = [HEADS * HEAD_DIM, HIDDEN]
        shapes[prefix + "self_attn.k_proj.weight"] = [KV_HEADS * HEAD_DIM, HIDDEN]
        shapes[prefix + "self_attn.v_proj.weight"] = [KV_HEADS * HEAD_DIM, HIDDEN]
        shapes[prefix + "self_attn.o_proj.weight"] = [HIDDEN, HEADS * HEAD_DIM]
        shapes[prefix + "mlp.gate_proj.weight"] = [FEED_FORWARD, HIDDEN]
        shapes[prefix + "mlp.up_proj.weight"] = [FEED_FORWARD, HIDDEN]
        shapes[prefix + "mlp.down_proj.weight"] = [HIDDEN, FEED_FORWARD]
    return shapes


def write_safetensors(path, shapes, seed, constants={}):
    """Vectors are all 1, or what `constants` gives the last part of their name."""
    generator = random.Random(seed)
    header = {}
    data = bytearray()
    for name, shape in shapes.items():
        count = 1
        for size in shape:
            count *= size
        is_norm = len(shape) == 1
        values = array.array(
            "f", (constants.get(name.rpartition(".")[2], 1.0) if is_norm else generator.gauss(0, 0.3) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + 4 * count]}
        data += values.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_model(folder, *, with_template=True, seed=1, shards=1, thinking=False):
    """A model folder; with `shards` > 1 the weights are split and have an index."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json()))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": END_ID}))
    special_tokens = THINKING_TOKENS if thinking else SPECIAL_TOKENS
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(special_tokens)))
    tokenizer_config = {"eos_token": "<|end|>", "pad_token": "<|end|>" if thinking else "<pad>"}
    if with_template:
        tokenizer_config["chat_template"] = THINKING_TEMPLATE if thinking else TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    shapes = tensor_shapes()
    if shards == 1:
        write_safetensors(folder / "model.safetensors", shapes, seed)
        return folder
    names = list(shapes)
    weight_map = {}
    for shard in range(shards):
        file_name = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: shapes[name] for name in names[shard::shards]}
        write_safetensors(folder / file_name, part, seed + shard)
        weight_map.update({name: file_name for name in part})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
