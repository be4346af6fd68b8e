// The table itself: one entry a setting.
#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;

std::vector<GenerationField> choice_fields() {
  return {
      {.name = "do_sample",
       .member = &Config::do_sample,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = false,
       .off = false,
       .help = "false: always the most likely token (greedy). true: draw a token at random with "
               "its probability. The filters below act only with true"},
      {.name = "temperature",
       .member = &Config::temperature,
       .group = FieldGroup::kChoice,
       .range =
           FieldRange{.lowest = 0,
                      .lowest_is_excluded = true,
                      .advice = "for the most likely token at every step set do_sample to false"},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Divides the logits before the draw: below 1 favours likely tokens, above 1 evens "
               "them out. 0.2 is careful, 0.7 usual, 1.5 wild",
       .only_when_sampling = true},
      {.name = "top_k",
       .member = &Config::top_k,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0, .advice = "0 turns the filter off"},
       .fallback = int64_t{50},
       .off = int64_t{0},
       .help = "Draws among the k most likely tokens; all that tie with the k-th stay. 0 is off. "
               "The default of 50 acts unless you change it",
       .only_when_sampling = true},
      {.name = "top_p",
       .member = &Config::top_p,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0, .advice = "1 turns the filter off"},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Draws among the fewest tokens whose probabilities add up to p. 1 or more is off; 0 "
               "keeps one token; 0.9 is usual",
       .only_when_sampling = true},
      {.name = "min_p",
       .member = &Config::min_p,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0, .highest = 1, .advice = "0 turns the filter off"},
       .fallback = {},
       .off = 0.0,
       .help = "Drops tokens less likely than this share of the most likely one, so the filter is "
               "narrow when the model is sure. 0.05 to 0.1 is usual",
       .only_when_sampling = true},
      {.name = "top_h",
       .member = &Config::top_h,
       .group = FieldGroup::kChoice,
       .range = FieldRange{.lowest = 0, .lowest_is_excluded = true, .highest = 1},
       .fallback = {},
       .off = {},
       .help = "Looks at the 100 best tokens and keeps, from the best down, those that together "
               "carry this share of their entropy. 0.4 is usual",
       .only_when_sampling = true},
  };
}

std::vector<GenerationField> fine_choice_fields() {
  return {
      {.name = "typical_p",
       .member = &Config::typical_p,
       .group = FieldGroup::kChoice,
       .range =
           FieldRange{.lowest = 0, .lowest_is_excluded = true, .advice = "1 turns the filter off"},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Keeps the tokens that are about as surprising as the model expects to be "
               "surprised, until their probabilities add up to p. Can drop the most likely token. "
               "1 or more is off",
       .only_when_sampling = true},
      {.name = "epsilon_cutoff",
       .member = &Config::epsilon_cutoff,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = 0.0,
       .off = 0.0,
       .help = "Drops tokens less likely than this, but never the best. Acts between 0 and 1; "
               "0.0003 to 0.001 is usual",
       .only_when_sampling = true},
      {.name = "eta_cutoff",
       .member = &Config::eta_cutoff,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = 0.0,
       .off = 0.0,
       .help = "Drops tokens less likely than the smaller of this and its root times e^-entropy. "
               "Acts between 0 and 1; 0.0003 to 0.004 is usual",
       .only_when_sampling = true},
      {.name = "seed",
       .member = &Config::seed,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = uint64_t{0},
       .off = {},
       .help = "Names the random draws: the same seed and settings give the same text again",
       .only_when_sampling = true},
      {.name = "semantics",
       .member = &Config::semantics,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = Semantics::kTransformers,
       .off = {},
       .help = "Whose rules hold where engines differ: ties at k, place of the temperature, window "
               "of the penalties, the token that crosses p"},
      {.name = "logits_dtype",
       .member = &Config::logits_dtype,
       .group = FieldGroup::kChoice,
       .range = {},
       .fallback = LogitsDtype::kFloat32,
       .off = {},
       .help = "Rounds the logits to this precision first. bfloat16 makes exact ties, as it does "
               "in a model that runs in bfloat16"},
  };
}

std::vector<GenerationField> penalty_fields() {
  return {
      {.name = "repetition_penalty",
       .member = &Config::repetition_penalty,
       .group = FieldGroup::kPenalties,
       .range = FieldRange{.lowest = 0, .lowest_is_excluded = true, .advice = "1 turns it off"},
       .fallback = 1.0,
       .off = 1.0,
       .help =
           "Makes every token of the prompt and of the answer so far less likely: positive scores "
           "are divided by it, negative ones multiplied. Above 1 avoids repeats; 1.1 is usual"},
      {.name = "encoder_repetition_penalty",
       .member = &Config::encoder_repetition_penalty,
       .group = FieldGroup::kPenalties,
       .range = FieldRange{.lowest = 0, .lowest_is_excluded = true, .advice = "1 turns it off"},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Above 1 favours the tokens of the prompt, below 1 avoids them"},
      {.name = "presence_penalty",
       .member = &Config::presence_penalty,
       .group = FieldGroup::kPenalties,
       .range = FieldRange{.lowest = -2, .highest = 2},
       .fallback = 0.0,
       .off = 0.0,
       .help =
           "Taken off the score of every token that the answer holds already (OpenAI). 0 is off"},
      {.name = "frequency_penalty",
       .member = &Config::frequency_penalty,
       .group = FieldGroup::kPenalties,
       .range = FieldRange{.lowest = -2, .highest = 2},
       .fallback = 0.0,
       .off = 0.0,
       .help = "Taken off the score of a token once for every time that the answer holds it "
               "(OpenAI). 0 is off"},
      {.name = "no_repeat_ngram_size",
       .member = &Config::no_repeat_ngram_size,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = int64_t{0},
       .off = int64_t{0},
       .help = "Forbids every token that would repeat a group of n tokens of prompt or answer. 0 "
               "is off"},
      {.name = "encoder_no_repeat_ngram_size",
       .member = &Config::encoder_no_repeat_ngram_size,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = int64_t{0},
       .off = int64_t{0},
       .help = "Forbids every token that would repeat a group of n tokens of the prompt. 0 is off"},
  };
}

std::vector<GenerationField> bias_fields() {
  return {
      {.name = "bad_words_ids",
       .member = &Config::bad_words_ids,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Token sequences that must not be generated, as [[5],[7,8]]"},
      {.name = "sequence_bias",
       .member = &Config::sequence_bias,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Adds a bias to the last token of a sequence when the tokens before it stand "
               "already, as [[[7,8],-2.5]] or {\"7,8\":-2.5}"},
      {.name = "logit_bias",
       .member = &Config::logit_bias,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Adds a bias of -100 to 100 to single tokens (OpenAI), as 50256:-100,11:5"},
      {.name = "suppress_tokens",
       .member = &Config::suppress_tokens,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = TokenIds{},
       .help = "Tokens that are never chosen"},
      {.name = "begin_suppress_tokens",
       .member = &Config::begin_suppress_tokens,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = TokenIds{},
       .help = "Tokens that are not chosen as the first of the answer"},
  };
}

std::vector<GenerationField> forcing_fields() {
  return {
      {.name = "forced_bos_token_id",
       .member = &Config::forced_bos_token_id,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "The token that must follow a prompt of one token"},
      {.name = "forced_eos_token_id",
       .member = &Config::forced_eos_token_id,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = TokenIds{},
       .help = "The token, or one of several, that must be the last when the limit of length is "
               "reached"},
      {.name = "exponential_decay_length_penalty",
       .member = &Config::exponential_decay_length_penalty,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Makes the end tokens ever more likely after a number of tokens, as 30,1.05: after "
               "30 tokens, by a factor of 1.05 a token"},
      {.name = "guidance_scale",
       .member = &Config::guidance_scale,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = 1.0,
       .help = "Classifier-free guidance: pushes the scores away from those without the prompt (or "
               "with the negative prompt). 1 is off; costs a second forward a token"},
      {.name = "negative_prompt_ids",
       .member = &Config::negative_prompt_ids,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = TokenIds{},
       .help = "Token ids of the prompt that guidance pushes away from; without it the last token "
               "of the prompt"},
      {.name = "remove_invalid_values",
       .member = &Config::remove_invalid_values,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = false,
       .off = false,
       .help = "Replaces NaN by 0 and infinite scores by the largest finite ones"},
      {.name = "renormalize_logits",
       .member = &Config::renormalize_logits,
       .group = FieldGroup::kPenalties,
       .range = {},
       .fallback = {},
       .off = false,
       .help = "Makes the processed scores log-probabilities again, last of all"},
  };
}

std::vector<GenerationField> length_fields() {
  return {
      {.name = "max_new_tokens",
       .member = &Config::max_new_tokens,
       .group = FieldGroup::kLength,
       .range = FieldRange{.lowest = 1},
       .fallback = {},
       .off = {},
       .help = "Stops after this many tokens beyond the prompt. 20 when no limit is set at all"},
      {.name = "min_new_tokens",
       .member = &Config::min_new_tokens,
       .group = FieldGroup::kLength,
       .range = FieldRange{.lowest = 0},
       .fallback = {},
       .off = int64_t{0},
       .help = "Forbids the end tokens until this many tokens are generated"},
      {.name = "max_length",
       .member = &Config::max_length,
       .group = FieldGroup::kLength,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Limit of prompt and new tokens together. max_new_tokens wins over it"},
      {.name = "min_length",
       .member = &Config::min_length,
       .group = FieldGroup::kLength,
       .range = {},
       .fallback = int64_t{0},
       .off = int64_t{0},
       .help = "Forbids the end tokens until prompt and answer have this many tokens. "
               "min_new_tokens wins over it"},
      {.name = "max_time",
       .member = &Config::max_time,
       .group = FieldGroup::kLength,
       .range = FieldRange{.lowest = 0},
       .fallback = {},
       .off = {},
       .help = "Stops after this many seconds, after at least one token"},
      {.name = "stop_strings",
       .member = &Config::stop_strings,
       .group = FieldGroup::kLength,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Stops when the text ends in this; several as [\"one\",\"two\"]. The text itself "
               "stays in the answer"},
      {.name = "thinking_budget",
       .member = &Config::thinking_budget,
       .group = FieldGroup::kLength,
       .range = FieldRange{.lowest = 0},
       .fallback = {},
       .off = {},
       .help = "Closes the model's thinking after this many tokens of it"},
  };
}

std::vector<GenerationField> search_and_id_fields() {
  return {
      {.name = "num_beams",
       .member = &Config::num_beams,
       .group = FieldGroup::kSearch,
       .range = FieldRange{.lowest = 1},
       .fallback = int64_t{1},
       .off = int64_t{1},
       .help = "Beam search: follows this many continuations side by side and returns the best in "
               "all. 1 is off; 4 is usual"},
      {.name = "num_return_sequences",
       .member = &Config::num_return_sequences,
       .group = FieldGroup::kSearch,
       .range = FieldRange{.lowest = 1},
       .fallback = int64_t{1},
       .off = int64_t{1},
       .help = "Answers to one prompt. With beams at most num_beams; without them do_sample must "
               "be true"},
      {.name = "early_stopping",
       .member = &Config::early_stopping,
       .group = FieldGroup::kSearch,
       .range = {},
       .fallback = EarlyStopping::kFalse,
       .off = EarlyStopping::kFalse,
       .help = "When beam search ends: true as soon as num_beams answers are finished, false when "
               "a better one is unlikely, never when none can be better"},
      {.name = "length_penalty",
       .member = &Config::length_penalty,
       .group = FieldGroup::kSearch,
       .range = {},
       .fallback = 1.0,
       .off = 1.0,
       .help = "Beam search divides an answer's score by its length to this power: above 0 favours "
               "long answers, below 0 short ones"},
      {.name = "eos_token_id",
       .member = &Config::eos_token_id,
       .group = FieldGroup::kIds,
       .range = {},
       .fallback = {},
       .off = TokenIds{},
       .help = "End tokens: generation stops after any of them. One id or several, as 2,7; none "
               "runs to the limit"},
      {.name = "pad_token_id",
       .member = &Config::pad_token_id,
       .group = FieldGroup::kIds,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "Fills the shorter rows of a batch; has no effect on a single sequence"},
      {.name = "bos_token_id",
       .member = &Config::bos_token_id,
       .group = FieldGroup::kIds,
       .range = {},
       .fallback = {},
       .off = {},
       .help = "The token that begins a text"},
  };
}

}  // namespace

std::span<const GenerationField> generation_fields() {
  static const std::vector<GenerationField> fields = [] {
    std::vector<GenerationField> all = choice_fields();
    for (const auto& part : {fine_choice_fields(), penalty_fields(), bias_fields(),
                             forcing_fields(), length_fields(), search_and_id_fields()}) {
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }();
  return fields;
}

}  // namespace logitlab
