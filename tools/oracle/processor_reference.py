"""What transformers' logits processors make of a case of processor_cases.py.

reference(case) runs the chain that generate() builds for the settings, and says Refused where
transformers raises, LeftOut (with the reason) where the case has no one right answer, else Outcome.

A case is left out when a processor's decision hangs on more than the scores say:

- "tie cut": a filter keeps some and drops others of tokens with equal scores; torch's order among
  equals is arbitrary (its sort is not stable, nor is topk).
- "rounding": a quantity lies so near its threshold that float32 decides. The decision is taken
  again in float64, with the bound of the error of a correct float32 evaluation (below) as margin.
- "torch rounding": outside that margin, and torch still decides otherwise than float64 does; its
  float32 sums over 100,000 tokens err by more than the bound.
- "raises inside": NaN scores reach a processor that raises in the middle of the chain (top_h, eta).

The margins. u = 2**-24 is the relative error of one float32 operation. A probability
p_i = exp(x_i - max) / sum has the errors of: the subtraction, u |x_i - max| as it enters an
exponent; exp, 2 u; the sum, at least u; the division, u. Two implementations may differ by twice
that, and a comparison rounds threshold and product once more, so
    noise_i = u (2 |x_i - max| + 10)            relative, of one probability
A running sum has the mean of the noise of its terms, weighted by the terms; sums are in double
in torch and rounded once. Where the row went through a log-softmax first (guidance, beams), scores
themselves differ by a few u |x|, which is added to the noise; tokens whose inputs differ and whose
scores come out equal, or nearly, may then come out in any order. Entropies: |dH| <= u (2 H + 12),
the terms p |log p| each with the noise of p.
"""

import dataclasses
import functools
import math
import types
import warnings

import numpy
import torch
import transformers
from transformers.generation import logits_process as lp
from transformers.generation.utils import GenerationMixin

import processor_cases

U = 2.0 ** -24
transformers.logging.set_verbosity_error()

NAMES = {
    lp.UnbatchedClassifierFreeGuidanceLogitsProcessor: "guidance_scale",
    lp.SequenceBiasLogitsProcessor: "sequence_bias",
    lp.EncoderRepetitionPenaltyLogitsProcessor: "encoder_repetition_penalty",
    lp.RepetitionPenaltyLogitsProcessor: "repetition_penalty",
    lp.NoRepeatNGramLogitsProcessor: "no_repeat_ngram_size",
    lp.EncoderNoRepeatNGramLogitsProcessor: "encoder_no_repeat_ngram_size",
    lp.NoBadWordsLogitsProcessor: "bad_words_ids",
    lp.MinLengthLogitsProcessor: "min_length",
    lp.MinNewTokensLengthLogitsProcessor: "min_new_tokens",
    lp.ForcedBOSTokenLogitsProcessor: "forced_bos_token_id",
    lp.ForcedEOSTokenLogitsProcessor: "forced_eos_token_id",
    lp.InfNanRemoveLogitsProcessor: "remove_invalid_values",
    lp.ExponentialDecayLengthPenalty: "exponential_decay_length_penalty",
    lp.SuppressTokensLogitsProcessor: "suppress_tokens",
    lp.SuppressTokensAtBeginLogitsProcessor: "begin_suppress_tokens",
    lp.TemperatureLogitsWarper: "temperature",
    lp.TopHLogitsWarper: "top_h",
    lp.TopKLogitsWarper: "top_k",
    lp.TopPLogitsWarper: "top_p",
    lp.MinPLogitsWarper: "min_p",
    lp.TypicalLogitsWarper: "typical_p",
    lp.EpsilonLogitsWarper: "epsilon_cutoff",
    lp.EtaLogitsWarper: "eta_cutoff",
    lp.LogitNormalization: "renormalize_logits",
}
ROW_ERRORS = (ValueError, TypeError, RuntimeError, IndexError, AttributeError)


@dataclasses.dataclass
class Refused:
    message: str


@dataclasses.dataclass
class LeftOut:
    reason: str
    processor: str


@dataclasses.dataclass
class Outcome:
    names: list
    survivors: list  # after each processor
    scores: numpy.ndarray  # float32
    # What two float32 evaluations may differ by besides a relative 1e-6: results of a log-softmax
    # near 0 are differences of larger numbers.
    absolute_tolerance: float
    is_exact: bool  # no exponential or logarithm: the same bits are expected
    max_length: int  # as the chain was built with
    min_tokens_to_keep: int
    is_beam: bool


class StandIn(GenerationMixin):
    """As much of a model as generate() needs to prepare a step."""

    def __init__(self, model_config, unguided):
        self.config = types.SimpleNamespace(is_encoder_decoder=False,
                                            _get_generation_parameters=dict)
        self.generation_config = transformers.GenerationConfig(**model_config)
        self.unguided = unguided

    def __call__(self, *_args, **_kwargs):
        return transformers.modeling_outputs.CausalLMOutput(logits=self.unguided[None, None, :])

    def processors(self, config, prompt):
        """The list that generate() builds for a call with the keywords of `config`."""
        is_default = all(values.get("max_length") is None
                         for values in (config, self.generation_config.to_dict()))
        prepared, unused = self._prepare_generation_config(None, **config)
        if unused:
            raise ValueError(f"unused: {unused}")
        self._prepare_special_tokens(prepared, True, device="cpu", batch_size=1)
        length = prompt.shape[1]
        prepared = self._prepare_generated_length(prepared, is_default, True, "input_ids", length, prompt)
        self._validate_generated_length(prepared, length, is_default)
        return prepared, self._get_logits_processor(
            prepared, input_ids_seq_length=length, encoder_input_ids=prompt, device="cpu")


def min_tokens_to_keep(prepared):
    """What _get_logits_processor gives to the filters, whether or not there is one."""
    if (prepared.num_beams or 1) <= 1:
        return 1
    eos = prepared._eos_token_tensor
    return 2 if eos is None else len(eos) + 1


def as_keywords(config):
    """The settings as transformers spells them: "7,8" of JSON is the tuple (7, 8)."""
    config = dict(config)
    if isinstance(config.get("sequence_bias"), dict):
        config["sequence_bias"] = {tuple(int(word) for word in key.split(",")): bias
                                   for key, bias in config["sequence_bias"].items()}
    return config


@functools.lru_cache(maxsize=8)
def row_tensor(kind, size, seed):
    return torch.from_numpy(processor_cases.make_row((kind, size, seed)))


def reference(case):
    """Refused, LeftOut or Outcome."""
    row = row_tensor(*case["row"])
    unguided = row_tensor(*case["unguided"]) if "unguided" in case else None
    ids = torch.tensor([case["input_ids"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = StandIn(as_keywords(case.get("model_config", {})), unguided)
            prepared, processors = model.processors(
                as_keywords(case["config"]), ids[:, :case["prompt_length"]])
        except ROW_ERRORS as error:
            return Refused(f"{type(error).__name__}: {error}")
        return run(prepared, processors, ids, row, unguided)


def run(prepared, processors, ids, row, unguided):
    scores, names, survivors = row[None, :], [], []
    state = Precision(row, unguided)
    is_beam = (prepared.num_beams or 1) > 1
    if is_beam:
        state.after_log_softmax(scores[0])
        scores = scores.log_softmax(-1)
    for processor in processors:
        name = NAMES[type(processor)]
        before = scores
        if name in ("top_h", "eta_cutoff") and not has_softmax(before[0].numpy()):
            return LeftOut("raises inside", name)
        try:
            scores = processor(ids, before)
        except ROW_ERRORS as error:
            return Refused(f"{type(error).__name__}: {error}")
        reason = undecided(name, processor, before[0].numpy(), scores[0].numpy(), state)
        if reason:
            return LeftOut(reason, name)
        state.after(name, processor, before[0], unguided)
        names.append(name)
        survivors.append(int((~scores[0].isneginf()).sum()))
    return Outcome(names, survivors, scores[0].numpy(), state.absolute, state.is_exact,
                   prepared.max_length, min_tokens_to_keep(prepared), is_beam)


class Precision:
    """How far the scores of two float32 evaluations of the chain so far may be apart."""

    def __init__(self, row, unguided):
        inputs = row.numpy()[None, :] if unguided is None else torch.stack([row, unguided]).numpy()
        self.inputs = inputs
        self.noise = 0.0  # of each token on its own
        self.offset = 0.0  # of all tokens together, which no softmax sees
        self.is_exact = True

    @property
    def absolute(self):
        return self.noise + self.offset

    def labels(self, x):
        """A number for every token; tokens with the same one have exactly equal scores in any evaluation."""
        if self.noise == 0:
            return numpy.unique(x, return_inverse=True)[1]
        # What a processor sets (0 of forced tokens, the ends of the range) is exact whatever came in.
        is_set = (x == 0) | (numpy.abs(x) > 1e38)
        inputs = numpy.where(is_set, 0, self.inputs)
        return numpy.unique(numpy.vstack([inputs, x]), axis=1, return_inverse=True)[1].reshape(-1)

    def after_log_softmax(self, x, factor=1.0):
        self.is_exact = False
        finite = x[x.isfinite()]
        if not len(finite) or not has_softmax(x.numpy()):
            return
        # x - max and the logarithm of the sum, each rounded, on either side.
        bound = 4 * U * (float(finite.max() - finite.min()) + math.log(len(x)) + 1)
        self.noise += bound * factor
        # Torch adds a hundred thousand float32 numbers in a few lanes: its sum has a larger error,
        # which is measured.
        error = x.log_softmax(-1).double() - x.double().log_softmax(-1)
        measured = float(error[x.isfinite()].abs().max())
        self.offset += max(0.0, measured - bound / 2) * factor

    def after(self, name, processor, before, unguided):
        if name == "guidance_scale":
            gamma = abs(processor.guidance_scale)
            self.after_log_softmax(before, gamma + 1)
            self.after_log_softmax(unguided, gamma + 1)
        elif name == "renormalize_logits":
            self.after_log_softmax(before)
        elif name == "temperature":
            self.scale(1 / processor.temperature, 0)
        elif name in ("repetition_penalty", "encoder_repetition_penalty"):
            factor = max(processor.penalty, 1 / processor.penalty)
            self.scale(factor, factor - 1)
        elif name == "exponential_decay_length_penalty":
            growth = abs(processor.regulation_factor) ** 32
            self.scale(1 + growth, growth)

    def scale(self, factor, unevenness):
        self.noise = self.noise * factor + self.offset * unevenness
        self.offset *= factor


def has_softmax(x):
    return bool(not numpy.isnan(x).any() and numpy.isfinite(x.max()))


def probabilities(x, absolute):
    """softmax in float64, and the relative noise of each."""
    x = x.astype(numpy.float64)
    below = x - x.max()
    p = numpy.exp(below)
    noise = U * (2 * numpy.where(numpy.isneginf(below), 0, -below) + 10) + 2 * absolute
    return p / p.sum(), noise


def undecided(name, processor, before, after, state):
    """Why the step has no one right answer, or None."""
    decide = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p,
              "top_h": top_h, "epsilon_cutoff": cutoff, "eta_cutoff": cutoff}.get(name)
    if decide is None or not has_softmax(before):
        return None
    kept = ~numpy.isneginf(after)
    gone = ~kept & ~numpy.isneginf(before)
    if name in ("top_p", "min_p", "top_h", "typical_p") and numpy.isin(before[gone], before[kept]).any():
        return "tie cut"
    if name in ("top_p", "top_h") and state.noise and gone.any() and (
            before[gone].max() >= before[kept & ~numpy.isneginf(before)].min() - 2 * state.noise):
        return "rounding"
    want = decide(processor, before, state.noise, state.labels(before))
    if want is None:
        return "rounding"
    # A token that entered as -inf may be "kept" as -inf.
    return None if (want[~numpy.isneginf(before)] == kept[~numpy.isneginf(before)]).all() else "torch rounding"


def top_k(processor, x, absolute, labels):
    edge = numpy.argsort(-x, kind="stable")[min(processor.top_k, len(x)) - 1]
    if absolute and (numpy.abs(x[(labels != labels[edge]) & numpy.isfinite(x)] - x[edge]) <= 2 * absolute).any():
        return None
    return ~(x < x[edge])


def top_p(processor, x, absolute, _labels):
    p, noise = probabilities(x, absolute)
    order = numpy.argsort(x, kind="stable")
    sums = numpy.cumsum(p[order])
    sum_noise = numpy.cumsum((p * noise)[order])  # absolute
    limit = 1 - processor.top_p
    free = len(x) - processor.min_tokens_to_keep  # the others stay whatever the sums are
    near = numpy.abs(sums - limit) <= sum_noise + U * limit
    # Several equal scores at -inf have sums of exactly 0.
    if (near[:max(free, 0)] & (sums[:max(free, 0)] > 0)).any():
        return None
    kept = numpy.ones(len(x), bool)
    kept[order[:max(free, 0)]] = sums[:max(free, 0)] > limit
    return kept


def min_p(processor, x, absolute, labels):
    p, noise = probabilities(x, absolute)
    ratio = p / p.max()
    best = numpy.sort(p)[::-1][min(processor.min_tokens_to_keep, len(x)) - 1]
    near = (numpy.abs(ratio - processor.min_p) <= noise * processor.min_p) & (labels != labels[x.argmax()])
    if processor.min_p > 0 and (near & (p < best)).any():
        return None
    # Which of nearly equal probabilities are the best: torch ranks rounded ones.
    if processor.min_tokens_to_keep > 1 and (
            (numpy.abs(p - best) <= noise * best) & (p != best) & (ratio < processor.min_p)).any():
        return None
    return (ratio >= processor.min_p) | (p >= best)


def typical_p(processor, x, absolute, labels):
    p, noise = probabilities(x, absolute)
    surprise = -(x.astype(numpy.float64) - x.max() - numpy.log(numpy.exp(x.astype(numpy.float64) - x.max()).sum()))
    entropy = numpy.sum(p * numpy.where(p > 0, surprise, 0))
    d = numpy.abs(surprise - entropy)
    order = numpy.argsort(d, kind="stable")
    sums = numpy.cumsum(p[order])
    sum_noise = numpy.cumsum((p * noise)[order])
    last = min(int((sums < processor.mass).sum()), len(x) - 1)
    if (numpy.abs(sums - processor.mass) <= sum_noise + U * processor.mass).any():
        return None
    # Error of a distance: of the surprise and of the entropy.
    error = U * (4 * numpy.where(numpy.isfinite(surprise), surprise, 0) + 4 * entropy + 24) + 4 * absolute
    cut = d[order[last]]
    rest = order[processor.min_tokens_to_keep:]
    if numpy.isfinite(cut):
        near = numpy.isfinite(d) & (numpy.abs(d - cut) <= error) & (labels != labels[order[last]])
        if near.any():
            return None
    kept = d <= cut
    kept[order[:processor.min_tokens_to_keep]] = True
    if processor.min_tokens_to_keep > 1 and len(rest):
        edge = d[order[processor.min_tokens_to_keep - 1]]
        if edge > cut and (numpy.abs(d[rest] - edge) <= error[rest]).any():
            return None
    return kept


def top_h(processor, x, absolute, _labels):
    order = numpy.argsort(-x, kind="stable")[:processor.top_n]
    q, _ = probabilities(x[order], absolute)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        terms = -q * numpy.log(q)
    entropy = numpy.nansum(terms)
    sums = numpy.cumsum(terms)
    limit = entropy * processor.top_h
    # log(q) of a q near 1 has the absolute error of q, so a sum has that of its n terms' q: all
    # together 1.
    error = U * (12 + 8 * sums) + 4 * absolute * (1 + entropy)
    if (numpy.isfinite(sums[1:]) & (numpy.abs(sums[1:] - limit) <= error[1:])).any():
        return None
    kept = numpy.zeros(len(x), bool)
    kept[order] = sums <= limit
    kept[order[0]] = True
    return kept


def cutoff(processor, x, absolute, labels):
    """epsilon_cutoff and eta_cutoff."""
    p, noise = probabilities(x, absolute)
    limit, limit_noise = float(processor.epsilon), 2 * U
    if isinstance(processor, lp.EtaLogitsWarper):
        entropy = -numpy.sum(numpy.where(p > 0, p * numpy.log(numpy.where(p > 0, p, 1)), 0))
        eta = numpy.sqrt(limit) * numpy.exp(-entropy)
        if eta < limit:
            limit, limit_noise = eta, U * (2 * entropy + 18) + 4 * absolute
    edge = numpy.argsort(-x, kind="stable")[min(processor.min_tokens_to_keep, len(x)) - 1]
    best = x[edge]
    near = (numpy.abs(p - limit) <= (noise + limit_noise) * limit) & (x < best)
    if near.any():
        return None
    if absolute and ((numpy.abs(x - best) <= 2 * absolute) & (labels != labels[edge]) & (p < limit)).any():
        return None
    return (p >= limit) | (x >= best)
