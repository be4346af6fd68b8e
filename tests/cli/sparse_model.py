"""A hybrid checkpoint of full size whose weights are holes: names, shapes and headers alone."""

import json
import pathlib
import struct

import tiny_model

PATTERN = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
SHARDS = 13
EXPERTS = 128
HIDDEN = 2688
VOCAB = 131072

CONFIG = {
    "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "vocab_size": VOCAB,
    "hidden_size": HIDDEN, "num_hidden_layers": len(PATTERN), "hybrid_override_pattern": PATTERN,
    "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False, "num_attention_heads": 32,
    "num_key_value_heads": 2, "head_dim": 128, "attention_bias": False, "rope_theta": 10000,
    "sliding_window": None, "max_position_embeddings": 262144, "mamba_num_heads": 64,
    "mamba_head_dim": 64, "expand": 2, "ssm_state_size": 128, "n_groups": 8, "conv_kernel": 4,
    "use_conv_bias": True, "use_bias": False, "mamba_proj_bias": False, "chunk_size": 128,
    "time_step_min": 0.001, "time_step_max": 0.1, "time_step_floor": 1e-4,
    "mamba_hidden_act": "silu", "n_routed_experts": EXPERTS, "num_experts_per_tok": 6,
    "moe_intermediate_size": 1856, "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 3712, "intermediate_size": 1856,
    "mlp_hidden_act": "relu2", "mlp_bias": False, "n_group": 1, "topk_group": 1,
    "norm_topk_prob": True, "routed_scaling_factor": 2.5, "residual_in_fp32": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": "bfloat16"}

MAMBA = {"in_proj.weight": [10304, HIDDEN], "conv1d.weight": [6144, 1, 4], "conv1d.bias": [6144],
         "dt_bias": [64], "A_log": [64], "D": [64], "norm.weight": [4096],
         "out_proj.weight": [HIDDEN, 4096]}
ATTENTION = {"q_proj.weight": [4096, HIDDEN], "k_proj.weight": [256, HIDDEN],
             "v_proj.weight": [256, HIDDEN], "o_proj.weight": [HIDDEN, 4096]}


def moe_shapes():
    shapes = {"gate.weight": [EXPERTS, HIDDEN], "gate.e_score_correction_bias": [EXPERTS],
              "shared_experts.up_proj.weight": [3712, HIDDEN],
              "shared_experts.down_proj.weight": [HIDDEN, 3712]}
    for expert in range(EXPERTS):
        shapes[f"experts.{expert}.up_proj.weight"] = [1856, HIDDEN]
        shapes[f"experts.{expert}.down_proj.weight"] = [HIDDEN, 1856]
    return shapes


def tensor_shapes():
    shapes = {"backbone.embeddings.weight": [VOCAB, HIDDEN]}
    for index, letter in enumerate(PATTERN):
        prefix = f"backbone.layers.{index}."
        shapes[prefix + "norm.weight"] = [HIDDEN]
        mixer = {"M": MAMBA, "*": ATTENTION, "E": moe_shapes()}[letter]
        shapes.update({prefix + "mixer." + name: shape for name, shape in mixer.items()})
    shapes["backbone.norm_f.weight"] = [HIDDEN]
    shapes["lm_head.weight"] = [VOCAB, HIDDEN]
    return shapes


def is_float32(name):
    return name.endswith((".A_log", ".D", ".e_score_correction_bias"))


def size_of(name, shape):
    size = 4 if is_float32(name) else 2
    for length in shape:
        size *= length
    return size


def write_hole(path, shapes):
    """A safetensors file whose data is one hole: it takes no room on the disk."""
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + size_of(name, shape)
        header[name] = {"dtype": "F32" if is_float32(name) else "BF16", "shape": shape,
                        "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


def write_hub_cache(root, repo_id="org/full-size", extra_shapes=None):
    """A hub cache with the model as `repo_id`: refs, blobs, a snapshot of links. OSError where the
    file system does not hold files of 5 GB."""
    repo = pathlib.Path(root) / ("models--" + repo_id.replace("/", "--"))
    snapshot = repo / "snapshots" / ("0" * 39 + "7")
    blobs = repo / "blobs"
    for folder in (snapshot, blobs, repo / "refs"):
        folder.mkdir(parents=True)
    (repo / "refs/main").write_text(snapshot.name)
    shapes = tensor_shapes() | (extra_shapes or {})
    total = sum(size_of(name, shape) for name, shape in shapes.items())
    parts = [{} for _ in range(SHARDS)]
    at = 0
    for name, shape in shapes.items():
        parts[at * SHARDS // total][name] = shape
        at += size_of(name, shape)
    weight_map = {}
    names = [f"model-{number + 1:05}-of-{SHARDS:05}.safetensors" for number in range(SHARDS)]
    for file_name, part in zip(names, parts):
        write_hole(blobs / file_name, part)
        weight_map.update({name: file_name for name in part})
    texts = {"config.json": CONFIG, "tokenizer.json": tiny_model.tokenizer_json(),
             "tokenizer_config.json": {"eos_token": "<|end|>"},
             "generation_config.json": {"eos_token_id": [2, 11]},
             "model.safetensors.index.json": {"metadata": {"total_size": total},
                                              "weight_map": weight_map}}
    for file_name, content in texts.items():
        (blobs / file_name).write_text(json.dumps(content))
    for file_name in [*names, *texts]:
        (snapshot / file_name).symlink_to(f"../../blobs/{file_name}")
    return repo
