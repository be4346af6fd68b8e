#include "sampling/ledger.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

#include "base/check.h"
#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;
using Facts = LedgerFacts;

struct Verdict {
  bool acts = false;
  std::string why;
};

Verdict acts(std::string why) {
  return {true, std::move(why)};
}

Verdict rests(std::string why) {
  return {false, std::move(why)};
}

// `acts_why` when the condition holds.
Verdict when(bool condition, std::string_view acts_why, std::string_view rests_why) {
  return {condition, std::string(condition ? acts_why : rests_why)};
}

bool samples(const Config& c) {
  return c.do_sample.value_or(false);
}
bool has_beams(const Config& c) {
  return c.num_beams.value_or(1) > 1;
}
bool has_end(const Config& c) {
  return c.eos_token_id && !c.eos_token_id->empty();
}

constexpr std::string_view kNoDraw = "nothing is drawn: do_sample is false";
constexpr std::string_view kNoEnd = "there are no end tokens";
constexpr std::string_view kNoBeams = "there are no beams: num_beams is 1";

// A setting of the draw that has a value which turns it off.
Verdict in_draw(const Config& c, bool is_on, std::string_view on_why, std::string_view off_why) {
  return samples(c) ? when(is_on, on_why, off_why) : rests(std::string(kNoDraw));
}

Verdict judge_do_sample(const Config& c, const Facts&) {
  if (has_beams(c)) {
    return acts(samples(c) ? "beams are drawn" : "the best beams are kept");
  }
  return acts(samples(c) ? "tokens are drawn" : "the most likely token is taken");
}
Verdict judge_temperature(const Config& c, const Facts&) {
  return in_draw(c, c.temperature.value_or(1) != 1, "scores are divided by it",
                 "dividing by 1 changes nothing");
}
Verdict judge_top_h(const Config& c, const Facts&) {
  return in_draw(c, c.top_h.has_value(), "", "it is off");
}
Verdict judge_top_k(const Config& c, const Facts&) {
  return in_draw(c, c.top_k.value_or(0) != 0, "only the k best and their ties can be drawn",
                 "0 is off");
}
Verdict judge_top_p(const Config& c, const Facts&) {
  return in_draw(c, c.top_p.value_or(1) < 1, "", "1 or more is off");
}
Verdict judge_min_p(const Config& c, const Facts&) {
  return in_draw(c, c.min_p.value_or(0) > 0, "", c.min_p ? "0 drops nothing" : "it is off");
}
Verdict judge_typical_p(const Config& c, const Facts&) {
  return in_draw(c, c.typical_p.value_or(1) < 1, "", "1 or more is off");
}
bool is_share(std::optional<double> value) {
  return value && *value > 0 && *value < 1;
}
Verdict judge_epsilon(const Config& c, const Facts&) {
  return in_draw(c, is_share(c.epsilon_cutoff), "", "it acts between 0 and 1");
}
Verdict judge_eta(const Config& c, const Facts&) {
  return in_draw(c, is_share(c.eta_cutoff), "", "it acts between 0 and 1");
}
Verdict judge_seed(const Config& c, const Facts&) {
  return in_draw(c, true, "it names the draws", "");
}
Verdict judge_semantics(const Config& c, const Facts&) {
  return when(c.semantics.value_or(Semantics::kTransformers) != Semantics::kTransformers,
              "the rules of another engine hold", "the rules of transformers hold");
}
Verdict judge_logits_dtype(const Config& c, const Facts&) {
  return when(c.logits_dtype.value_or(LogitsDtype::kFloat32) != LogitsDtype::kFloat32,
              "logits are rounded first", "logits are float32 already");
}

Verdict judge_repetition_penalty(const Config& c, const Facts&) {
  return when(c.repetition_penalty.value_or(1) != 1, "prompt and answer count", "1 is off");
}
Verdict judge_encoder_repetition(const Config& c, const Facts&) {
  return when(c.encoder_repetition_penalty.value_or(1) != 1, "the prompt counts", "1 is off");
}
Verdict judge_presence(const Config& c, const Facts&) {
  return when(c.presence_penalty.value_or(0) != 0, "the answer counts", "0 is off");
}
Verdict judge_frequency(const Config& c, const Facts&) {
  return when(c.frequency_penalty.value_or(0) != 0, "the answer counts", "0 is off");
}
Verdict judge_ngram(const Config& c, const Facts&) {
  return when(c.no_repeat_ngram_size.value_or(0) > 0, "", "it is off");
}
Verdict judge_encoder_ngram(const Config& c, const Facts&) {
  return when(c.encoder_no_repeat_ngram_size.value_or(0) > 0, "", "it is off");
}
template <typename List>
Verdict judge_list(const std::optional<List>& list) {
  return when(list && !list->empty(), "", "nothing is listed");
}
Verdict judge_bad_words(const Config& c, const Facts&) {
  return judge_list(c.bad_words_ids);
}
Verdict judge_sequence_bias(const Config& c, const Facts&) {
  return judge_list(c.sequence_bias);
}
Verdict judge_logit_bias(const Config& c, const Facts&) {
  return judge_list(c.logit_bias);
}
Verdict judge_suppress(const Config& c, const Facts&) {
  return judge_list(c.suppress_tokens);
}
Verdict judge_begin_suppress(const Config& c, const Facts&) {
  return judge_list(c.begin_suppress_tokens);
}
Verdict judge_forced_bos(const Config& c, const Facts& facts) {
  if (!c.forced_bos_token_id) {
    return rests("it is off");
  }
  return when(facts.prompt_length.value_or(1) == 1, "the prompt has one token",
              "it acts after a prompt of one token only");
}
Verdict judge_forced_eos(const Config& c, const Facts&) {
  return when(c.forced_eos_token_id && !c.forced_eos_token_id->empty(),
              "the last token before the limit", "it is off");
}
Verdict judge_decay(const Config& c, const Facts&) {
  if (!c.exponential_decay_length_penalty) {
    return rests("it is off");
  }
  if (c.exponential_decay_length_penalty->factor == 1) {
    return rests("a factor of 1 changes nothing");
  }
  return when(has_end(c), "", kNoEnd);
}
bool is_guided(const Config& c) {
  return c.guidance_scale && *c.guidance_scale != 1;
}
Verdict judge_guidance(const Config& c, const Facts&) {
  return when(is_guided(c), "a second forward at every step",
              c.guidance_scale ? "1 is off" : "it is off");
}
Verdict judge_negative_prompt(const Config& c, const Facts&) {
  if (!c.negative_prompt_ids || c.negative_prompt_ids->empty()) {
    return rests("nothing is listed");
  }
  return when(is_guided(c), "guidance pushes away from it", "there is no guidance_scale");
}
Verdict judge_remove_invalid(const Config& c, const Facts&) {
  return when(c.remove_invalid_values.value_or(false), "", "it is off");
}
Verdict judge_renormalize(const Config& c, const Facts&) {
  if (!c.renormalize_logits.value_or(false)) {
    return rests("it is off");
  }
  return when(has_beams(c), "the sums of the beams change",
              "one constant for all scores changes no choice");
}

Verdict judge_max_new_tokens(const Config& c, const Facts&) {
  if (c.max_new_tokens) {
    return acts("the limit");
  }
  return rests(c.max_length ? "max_length is the limit"
                            : fmt::format("the limit is {}, as nobody set one", kDefaultNewTokens));
}
Verdict judge_max_length(const Config& c, const Facts&) {
  if (!c.max_length) {
    return rests("it is unset");
  }
  return when(!c.max_new_tokens, "the limit, prompt included", "max_new_tokens wins over it");
}
Verdict judge_min_new_tokens(const Config& c, const Facts&) {
  if (c.min_new_tokens.value_or(0) <= 0) {
    return rests("0 is off");
  }
  return when(has_end(c), "end tokens are banned before", kNoEnd);
}
Verdict judge_min_length(const Config& c, const Facts& facts) {
  if (c.min_length.value_or(0) <= 0) {
    return rests("0 is off");
  }
  if (c.min_new_tokens) {
    return rests("min_new_tokens wins over it");
  }
  if (!has_end(c)) {
    return rests(std::string(kNoEnd));
  }
  return when(!facts.prompt_length || *facts.prompt_length < *c.min_length,
              "end tokens are banned before", "the prompt is that long already");
}
Verdict judge_max_time(const Config& c, const Facts&) {
  return when(c.max_time.has_value(), "", "it is unset");
}
Verdict judge_stop_strings(const Config& c, const Facts&) {
  return judge_list(c.stop_strings);
}
Verdict judge_thinking_budget(const Config& c, const Facts& facts) {
  if (!c.thinking_budget) {
    return rests("it is unset");
  }
  return when(facts.model_thinks, "", "the model has no thinking tokens");
}

Verdict judge_num_beams(const Config& c, const Facts&) {
  return when(has_beams(c), "", "one beam is none");
}
Verdict judge_return_sequences(const Config& c, const Facts&) {
  return when(c.num_return_sequences.value_or(1) > 1, "", "one answer");
}
Verdict judge_early_stopping(const Config& c, const Facts&) {
  return when(has_beams(c), "it ends the search", kNoBeams);
}
Verdict judge_length_penalty(const Config& c, const Facts&) {
  if (!has_beams(c)) {
    return rests(std::string(kNoBeams));
  }
  return when(c.length_penalty.value_or(1) != 0, "answers are compared by it",
              "length to the power of 0 is 1");
}
Verdict judge_eos(const Config& c, const Facts& facts) {
  if (!has_end(c)) {
    return rests("nothing but the limit ends the answer");
  }
  std::string origins;
  for (const TracedStopId& stop : facts.stop_ids) {
    origins += fmt::format("{}{} from {}", origins.empty() ? "" : ", ", stop.id, stop.origin);
  }
  return acts(std::move(origins));
}
Verdict judge_pad(const Config& c, const Facts& facts) {
  if (!c.pad_token_id) {
    return rests("it is unset");
  }
  return rests(facts.n_prompts > 1 ? "prompts of a batch are not padded here"
                                   : "a single sequence is not padded");
}
Verdict judge_bos(const Config& c, const Facts&) {
  return rests(c.bos_token_id ? "the prompt begins as its tokens say" : "it is unset");
}

struct Rule {
  std::string_view name;
  Verdict (*judge)(const Config& config, const Facts& facts);
};

constexpr std::array kRules = {
    Rule{"do_sample", judge_do_sample},
    Rule{"temperature", judge_temperature},
    Rule{"top_h", judge_top_h},
    Rule{"top_k", judge_top_k},
    Rule{"top_p", judge_top_p},
    Rule{"min_p", judge_min_p},
    Rule{"typical_p", judge_typical_p},
    Rule{"epsilon_cutoff", judge_epsilon},
    Rule{"eta_cutoff", judge_eta},
    Rule{"seed", judge_seed},
    Rule{"semantics", judge_semantics},
    Rule{"logits_dtype", judge_logits_dtype},
    Rule{"repetition_penalty", judge_repetition_penalty},
    Rule{"encoder_repetition_penalty", judge_encoder_repetition},
    Rule{"presence_penalty", judge_presence},
    Rule{"frequency_penalty", judge_frequency},
    Rule{"no_repeat_ngram_size", judge_ngram},
    Rule{"encoder_no_repeat_ngram_size", judge_encoder_ngram},
    Rule{"bad_words_ids", judge_bad_words},
    Rule{"sequence_bias", judge_sequence_bias},
    Rule{"logit_bias", judge_logit_bias},
    Rule{"suppress_tokens", judge_suppress},
    Rule{"begin_suppress_tokens", judge_begin_suppress},
    Rule{"forced_bos_token_id", judge_forced_bos},
    Rule{"forced_eos_token_id", judge_forced_eos},
    Rule{"exponential_decay_length_penalty", judge_decay},
    Rule{"guidance_scale", judge_guidance},
    Rule{"negative_prompt_ids", judge_negative_prompt},
    Rule{"remove_invalid_values", judge_remove_invalid},
    Rule{"renormalize_logits", judge_renormalize},
    Rule{"max_new_tokens", judge_max_new_tokens},
    Rule{"min_new_tokens", judge_min_new_tokens},
    Rule{"max_length", judge_max_length},
    Rule{"min_length", judge_min_length},
    Rule{"max_time", judge_max_time},
    Rule{"stop_strings", judge_stop_strings},
    Rule{"thinking_budget", judge_thinking_budget},
    Rule{"num_beams", judge_num_beams},
    Rule{"num_return_sequences", judge_return_sequences},
    Rule{"early_stopping", judge_early_stopping},
    Rule{"length_penalty", judge_length_penalty},
    Rule{"eos_token_id", judge_eos},
    Rule{"pad_token_id", judge_pad},
    Rule{"bos_token_id", judge_bos},
};

}  // namespace

std::vector<LedgerEntry> settings_ledger(const EffectiveConfig& effective,
                                         const LedgerFacts& facts) {
  std::vector<LedgerEntry> ledger;
  for (const GenerationField& field : generation_fields()) {
    const auto rule = std::find_if(kRules.begin(), kRules.end(),
                                   [&](const Rule& one) { return one.name == field.name; });
    CHECK(rule != kRules.end()) << field.name << ": a setting without a rule in ledger.cc";
    Verdict verdict = rule->judge(effective.config, facts);
    const bool is_template = std::find(facts.from_template.begin(), facts.from_template.end(),
                                       field.name) != facts.from_template.end();
    ledger.push_back(
        {.name = std::string(field.name),
         .value = value_text(get_field(effective.config, field)),
         .origin = std::string(is_template ? "template" : name(effective.origin(field.name))),
         .acts = verdict.acts,
         .why = std::move(verdict.why)});
  }
  return ledger;
}

}  // namespace logitlab
