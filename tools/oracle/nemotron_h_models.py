"""What make_tiny_models.py needs to know of Nemotron-H: configurations, how weights are drawn, and
how llama.cpp's converter lays the tensors out in a GGUF file.
"""

import contextlib

import numpy as np

# transformers 5.17 clamps time steps from below by time_step_min in calls of several tokens and
# leaves time_step_limit out of account; without this its logits depend on how a prompt is cut. The
# other option: its default product over experts refuses small widths.
REFERENCE_OPTIONS = {"time_step_min": 0.0, "experts_implementation": "eager"}

WORDS = {"M": "linear_attention", "E": "moe", "*": "full_attention", "-": "mlp"}

# Beyond the trained widths, so that no two sizes are equal by chance.
_COMMON = dict(
    hidden_size=32, num_attention_heads=4, num_key_value_heads=2, head_dim=12,
    intermediate_size=40, ssm_state_size=8, mamba_num_heads=6, mamba_head_dim=4, n_groups=2,
    chunk_size=8, n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=20,
    moe_shared_expert_intermediate_size=28, routed_scaling_factor=2.5)


def _config(layers, **changes):
    return {**_COMMON, "layers_block_type": [WORDS[c] for c in layers], **changes}


# Fields of make_tiny_models.Spec by the name of the checkpoint; dtype by its name.
SPECS = {
    "nemotron_h": dict(config=_config("ME*-M"), dtype="float32"),
    # The same numbers, rounded to BF16.
    "nemotron_h_bf16": dict(config=_config("ME*-M"), seed_name="nemotron_h"),
    # A group a head, three taps, biases wherever the configuration can ask for them but in the
    # convolution.
    "nemotron_h_biases": dict(
        config=_config("M*EM-", n_groups=6, conv_kernel=3, use_bias=True, mlp_bias=True,
                       use_conv_bias=False, hidden_size=24, head_dim=16, num_key_value_heads=1,
                       layer_norm_epsilon=0.01)),
    # Names as in memory and stacked experts on the disk.
    "nemotron_h_latent": dict(
        config=_config("EM*ME", moe_latent_size=16, n_routed_experts=8, n_group=4, topk_group=2,
                       num_experts_per_tok=3, norm_topk_prob=False, n_groups=3,
                       routed_scaling_factor=1.0, num_key_value_heads=4),
        original_format=False),
    "nemotron_h_dense": dict(config=_config("M-*-M-", n_groups=1, mamba_head_dim=6)),
}

# For the live comparison: chunks of the trained size, several of them in a prompt.
_MEDIUM = dict(
    hidden_size=256, num_attention_heads=8, num_key_value_heads=2, head_dim=48,
    intermediate_size=384, ssm_state_size=64, mamba_num_heads=8, mamba_head_dim=40,
    chunk_size=128, n_routed_experts=16, num_experts_per_tok=4, moe_intermediate_size=96,
    moe_shared_expert_intermediate_size=192, max_position_embeddings=1024)
MEDIUM_CONFIGS = {
    "nemotron_h_medium": _config("MEM*E-ME*M", **_MEDIUM, n_groups=2),
    "nemotron_h_medium_latent": _config(
        "MEM*E-M", **_MEDIUM, n_groups=4, moe_latent_size=96, n_group=4, topk_group=3,
        use_conv_bias=False),
}

# The configuration of a quantised GGUF: every row of a matrix is whole blocks of 32.
QUANTISED_CONFIG = _config(
    "ME*-", hidden_size=64, head_dim=16, intermediate_size=64, mamba_num_heads=4,
    mamba_head_dim=8, moe_intermediate_size=32, moe_shared_expert_intermediate_size=64)


def draw(name, noise, dtype):
    """The value of a tensor, made of normal noise of its shape."""
    if name.endswith(("norm.weight", "norm_f.weight")):
        value = 1.0 + 0.2 * noise
    elif name.endswith("A_log"):
        value = 0.5 + 0.7 * noise
    elif name.endswith("dt_bias"):  # steps of 0.02 to 3, and some states that last
        value = 1.5 * noise - 1.0
    elif name.endswith(".D"):
        value = 1.0 + 0.4 * noise
    elif name.endswith("e_score_correction_bias"):
        value = 0.3 * noise
    elif name.endswith("bias"):
        value = 0.4 * noise
    elif "embeddings" in name:
        value = noise
    elif "lm_head" in name:
        value = 3.0 * noise / noise.shape[-1] ** 0.5
    else:
        value = 1.4 * noise / noise.shape[-1] ** 0.5
    return value.to(dtype).float()


def free_time_steps(model):
    """What REFERENCE_OPTIONS does for a model that is loaded, for one that is made."""
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, float("inf"))


# Two programs in float32 may choose other experts where the last choice leads the next by less. Logits
# of one agree to 2e-5 with the other's at worst (a norm group of few channels), a router's argument has
# about the size of one and the sigmoid a slope of at most 1/4: 2e-5 * 1.4 / 4, for both of the choices.
EXPERT_TIE = 2e-5


def _least_lead(values, n):
    """By how much the n-th largest of the last axis leads the next; infinity if all are taken."""
    if n >= values.shape[-1]:
        return np.full(len(values), np.inf)
    ordered = np.sort(values, axis=-1)
    return ordered[:, -n] - ordered[:, -n - 1]


def choice_leads(router, config, rows):
    """By how much the choice of experts, and of groups of them, leads what it leaves out."""
    scores = (rows.float() @ router.weight.T.float()).sigmoid()
    choice = (scores + router.e_score_correction_bias).numpy()
    blocks = choice.reshape(len(choice), config.n_group, -1)
    groups = np.sort(blocks, axis=-1)[..., -2:].sum(axis=-1)
    leads = _least_lead(groups, config.topk_group)
    left = np.argsort(groups, axis=-1)[:, :-config.topk_group]
    np.put_along_axis(blocks, left[..., None], -np.inf, axis=1)
    return np.minimum(leads, _least_lead(choice, config.num_experts_per_tok))


@contextlib.contextmanager
def watched_choices(model):
    """A list that takes the least lead of every position, an array a forward and layer of experts."""
    leads = []

    def hook(router, inputs, _):
        rows = inputs[0].reshape(-1, router.weight.shape[1])
        leads.append(choice_leads(router, model.config, rows))

    handles = [module.register_forward_hook(hook) for module in model.modules()
               if hasattr(module, "e_score_correction_bias")]
    try:
        yield leads
    finally:
        for handle in handles:
            handle.remove()


# ---- GGUF ----

_FIXED = {"model.embeddings": "token_embd", "model.norm_f": "output_norm", "lm_head": "output"}
_LAYER = {
    "norm": "attn_norm", "mixer.in_proj": "ssm_in", "mixer.out_proj": "ssm_out",
    "mixer.conv1d": "ssm_conv1d", "mixer.norm": "ssm_norm", "mixer.gate": "ffn_gate_inp",
    "mixer.experts.up_proj": "ffn_up_exps", "mixer.experts.down_proj": "ffn_down_exps",
    "mixer.shared_experts.up_proj": "ffn_up_shexp",
    "mixer.shared_experts.down_proj": "ffn_down_shexp", "mixer.up_proj": "ffn_up",
    "mixer.down_proj": "ffn_down", "mixer.fc1_latent_proj": "ffn_latent_down",
    "mixer.fc2_latent_proj": "ffn_latent_up", "mixer.q_proj": "attn_q", "mixer.k_proj": "attn_k",
    "mixer.v_proj": "attn_v", "mixer.o_proj": "attn_output",
}
# Whole names: without a suffix in one of the two formats.
_WHOLE = {
    "mixer.A_log": "ssm_a", "mixer.D": "ssm_d", "mixer.dt_bias": "ssm_dt.bias",
    "mixer.gate.e_score_correction_bias": "exp_probs_b.bias",
    "mixer.experts.up_proj": "ffn_up_exps.weight",
    "mixer.experts.down_proj": "ffn_down_exps.weight",
}
_ALWAYS_F32 = ("conv1d.weight", "norm.weight", "norm_f.weight", "gate.weight", "A_log", ".D")


def gguf_arch(config):
    return "nemotron_h_moe" if "moe" in config.layers_block_type else "nemotron_h"


def gguf_name(name):
    """The GGUF name of a parameter or buffer of transformers."""
    stem, _, suffix = name.rpartition(".")
    if stem in _FIXED:
        return f"{_FIXED[stem]}.{suffix}"
    _, _, layer, rest = name.split(".", 3)
    if rest in _WHOLE:
        return f"blk.{layer}.{_WHOLE[rest]}"
    stem, _, suffix = rest.rpartition(".")
    return f"blk.{layer}.{_LAYER[stem]}.{suffix}"


def gguf_value(name, value, config):
    """The array that the file holds for a tensor."""
    if name.endswith("A_log"):
        return -np.exp(value).reshape(-1, 1)
    if name.endswith(".D"):
        return value.reshape(-1, 1)
    if name.endswith("conv1d.weight"):
        return value[:, 0, :]
    if name.endswith("mixer.norm.weight"):
        return value.reshape(config.n_groups, -1)
    return value


def is_matrix(name, value):
    """Whether the converter would quantise a tensor."""
    return value.ndim >= 2 and not name.endswith(_ALWAYS_F32)


def add_gguf_keys(writer, config):
    """The keys that llama.cpp's converter writes, without those of the tokenizer."""
    kinds = config.layers_block_type
    widths = {"moe": config.moe_intermediate_size, "mlp": config.intermediate_size}
    writer.add_name("tiny random hybrid")
    writer.add_context_length(1048576)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(len(kinds))
    writer.add_feed_forward_length([widths.get(kind, 0) for kind in kinds])
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv([config.num_key_value_heads if kind == "full_attention" else 0
                              for kind in kinds])
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.layer_norm_epsilon)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    # Without meaning: the attention of these models knows no positions.
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_ssm_conv_kernel(config.conv_kernel)
    writer.add_ssm_inner_size(config.mamba_num_heads * config.mamba_head_dim)
    writer.add_ssm_state_size(config.ssm_state_size)
    writer.add_ssm_time_step_rank(config.mamba_num_heads)
    writer.add_ssm_group_count(config.n_groups)
    if "moe" not in kinds:
        return
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_shared_feed_forward_length(config.moe_shared_expert_intermediate_size)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    writer.add_expert_weights_scale(float(config.routed_scaling_factor))
    writer.add_expert_group_count(config.n_group)
    writer.add_expert_group_used_count(config.topk_group)
    if config.moe_latent_size:
        writer.add_moe_latent_size(config.moe_latent_size)
