"""A tiny random hybrid checkpoint: Mamba, mixture of experts, attention and a dense layer."""

import json
import pathlib

import tiny_model

LAYERS = "ME*-M"
HIDDEN = 32
MAMBA_HEADS = 4
MAMBA_HEAD_DIM = 8
GROUPS = 2
STATE = 8
KERNEL = 4
EXPERTS = 4
EXPERT_SIZE = 12
SHARED_SIZE = 16
# Decay slow enough that a state which lost its past shows.
CONSTANTS = {"A_log": -2.0, "dt_bias": -1.0, "e_score_correction_bias": 0.0}


def config_json():
    return {
        "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h",
        "vocab_size": tiny_model.VOCAB_SIZE, "hidden_size": HIDDEN,
        "num_hidden_layers": len(LAYERS), "hybrid_override_pattern": LAYERS,
        "layer_norm_epsilon": 1e-5, "tie_word_embeddings": False, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "attention_bias": False, "sliding_window": None,
        "max_position_embeddings": tiny_model.POSITIONS, "mamba_num_heads": MAMBA_HEADS,
        "mamba_head_dim": MAMBA_HEAD_DIM, "expand": 1, "ssm_state_size": STATE,
        "n_groups": GROUPS, "conv_kernel": KERNEL, "use_conv_bias": True, "use_bias": False,
        "mamba_proj_bias": False, "chunk_size": 8, "time_step_min": 0.001, "time_step_max": 0.1,
        "time_step_floor": 1e-4, "mamba_hidden_act": "silu", "n_routed_experts": EXPERTS,
        "num_experts_per_tok": 2, "moe_intermediate_size": EXPERT_SIZE, "n_shared_experts": 1,
        "moe_shared_expert_intermediate_size": SHARED_SIZE, "intermediate_size": 24,
        "mlp_hidden_act": "relu2", "mlp_bias": False, "n_group": 1, "topk_group": 1,
        "norm_topk_prob": True, "routed_scaling_factor": 2.5, "residual_in_fp32": False,
        "bos_token_id": None, "eos_token_id": tiny_model.END_ID, "pad_token_id": None,
        "torch_dtype": "float32"}


def mixer_shapes(letter):
    inner = MAMBA_HEADS * MAMBA_HEAD_DIM
    convolved = inner + 2 * GROUPS * STATE
    if letter == "M":
        return {"in_proj.weight": [inner + convolved + MAMBA_HEADS, HIDDEN],
                "conv1d.weight": [convolved, 1, KERNEL], "conv1d.bias": [convolved],
                "dt_bias": [MAMBA_HEADS], "A_log": [MAMBA_HEADS], "D": [MAMBA_HEADS],
                "norm.weight": [inner], "out_proj.weight": [HIDDEN, inner]}
    if letter == "*":
        return {"q_proj.weight": [32, HIDDEN], "k_proj.weight": [16, HIDDEN],
                "v_proj.weight": [16, HIDDEN], "o_proj.weight": [HIDDEN, 32]}
    if letter == "-":
        return {"up_proj.weight": [24, HIDDEN], "down_proj.weight": [HIDDEN, 24]}
    shapes = {"gate.weight": [EXPERTS, HIDDEN], "gate.e_score_correction_bias": [EXPERTS],
              "shared_experts.up_proj.weight": [SHARED_SIZE, HIDDEN],
              "shared_experts.down_proj.weight": [HIDDEN, SHARED_SIZE]}
    for expert in range(EXPERTS):
        shapes[f"experts.{expert}.up_proj.weight"] = [EXPERT_SIZE, HIDDEN]
        shapes[f"experts.{expert}.down_proj.weight"] = [HIDDEN, EXPERT_SIZE]
    return shapes


def tensor_shapes():
    shapes = {"backbone.embeddings.weight": [tiny_model.VOCAB_SIZE, HIDDEN]}
    for index, letter in enumerate(LAYERS):
        prefix = f"backbone.layers.{index}."
        shapes[prefix + "norm.weight"] = [HIDDEN]
        shapes.update({prefix + "mixer." + name: shape
                       for name, shape in mixer_shapes(letter).items()})
    shapes["backbone.norm_f.weight"] = [HIDDEN]
    shapes["lm_head.weight"] = [tiny_model.VOCAB_SIZE, HIDDEN]
    return shapes


def write_model(folder, *, seed=1, thinking=False):
    folder = tiny_model.write_model(pathlib.Path(folder), thinking=thinking)
    (folder / "config.json").write_text(json.dumps(config_json()))
    tiny_model.write_safetensors(folder / "model.safetensors", tensor_shapes(), seed, CONSTANTS)
    return folder
