// What a set of settings may not say: ranges, shapes, contradictions.
#include <algorithm>
#include <optional>
#include <set>
#include <variant>

#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"

namespace logitlab {
namespace {

using Config = GenerationConfig;

// The value of a numeric field; none when it is unset or holds something else.
std::optional<double> as_number(const FieldValue& value) {
  if (const auto* number = std::get_if<double>(&value)) {
    return *number;
  }
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    return static_cast<double>(*integer);
  }
  return std::nullopt;
}

bool is_inside(const FieldRange& range, double number) {
  const bool is_low_enough =
      range.highest_is_excluded ? number < range.highest : number <= range.highest;
  const bool is_high_enough =
      range.lowest_is_excluded ? number > range.lowest : number >= range.lowest;
  return is_low_enough && is_high_enough;
}

bool is_transformers(const Config& c) {
  return c.semantics.value_or(Semantics::kTransformers) == Semantics::kTransformers;
}

Status check_ranges(const Config& c) {
  const bool is_sampling = c.do_sample.value_or(false);
  for (const GenerationField& field : generation_fields()) {
    if (!field.range || (field.only_when_sampling && !is_sampling)) {
      continue;
    }
    const FieldValue value = get_field(c, field);
    const std::optional<double> number = as_number(value);
    // The other engines have a meaning for it: the most likely token.
    const bool is_greedy_zero = field.name == "temperature" && number == 0 && !is_transformers(c);
    if (number && !is_greedy_zero && !is_inside(*field.range, *number)) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} found, want {}{}{}", field.name,
                  value_text(value), range_text(field), field.range->advice.empty() ? "" : "; ",
                  field.range->advice);
    }
  }
  return {};
}

// One sequence of a list of them.
Status check_sequence(std::string_view setting, const TokenIds& ids) {
  if (ids.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: a sequence without tokens found, want at least one token id in each", setting);
  }
  for (const TokenId id : ids) {
    if (id < 0) {
      return fail(ErrorCode::kInvalidArgument, "{}: token id {} found, want >= 0", setting, id);
    }
  }
  return {};
}

Status check_lists(const Config& c) {
  if (c.bad_words_ids) {
    if (c.bad_words_ids->empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "bad_words_ids: an empty list found, want at least one sequence of token ids; "
                  "leave the setting out to ban nothing");
    }
    for (const TokenIds& word : *c.bad_words_ids) {
      RETURN_IF_ERROR(check_sequence("bad_words_ids", word));
    }
  }
  if (c.sequence_bias) {
    if (c.sequence_bias->empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "sequence_bias: nothing in it, want at least one sequence with its bias; leave "
                  "the setting out for no bias");
    }
    for (const SequenceBias& entry : *c.sequence_bias) {
      RETURN_IF_ERROR(check_sequence("sequence_bias", entry.ids));
    }
  }
  if (c.stop_strings) {
    if (c.stop_strings->empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "stop_strings: an empty list found, want at least one text; leave the setting "
                  "out to stop at none");
    }
    if (std::ranges::find(*c.stop_strings, "") != c.stop_strings->end()) {
      return fail(ErrorCode::kInvalidArgument,
                  "stop_strings: an empty text found, want at least one character in each: an "
                  "empty one would stop at once");
    }
  }
  return {};
}

Status check_logit_bias(const Config& c) {
  std::set<TokenId> met;
  for (const TokenBias& entry : c.logit_bias.value_or(std::vector<TokenBias>{})) {
    if (entry.id < 0) {
      return fail(ErrorCode::kInvalidArgument, "logit_bias: token id {} found, want >= 0",
                  entry.id);
    }
    if (!(entry.bias >= -100 && entry.bias <= 100)) {
      return fail(ErrorCode::kInvalidArgument,
                  "logit_bias: {} for token {} found, want -100 to 100; -100 bans a token",
                  entry.bias, entry.id);
    }
    if (!met.insert(entry.id).second) {
      return fail(ErrorCode::kInvalidArgument,
                  "logit_bias: token {} found twice, want one bias for each token", entry.id);
    }
  }
  return {};
}

Status check_forced(const Config& c, std::string_view setting, const TokenIds& forced) {
  for (const TokenId id : forced) {
    if (id < 0) {
      return fail(ErrorCode::kInvalidArgument, "{}: {} found, want >= 0", setting, id);
    }
  }
  const TokenIds suppressed = c.suppress_tokens.value_or(TokenIds{});
  const bool all_suppressed = std::ranges::all_of(forced, [&suppressed](TokenId id) {
    return std::ranges::find(suppressed, id) != suppressed.end();
  });
  if (!forced.empty() && all_suppressed) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: {} found, want a token that suppress_tokens does not hold: forced and "
                "suppressed at once, no token could be chosen",
                setting, value_text(FieldValue(forced)));
  }
  return {};
}

Status check_end_tokens(const Config& c) {
  if (c.forced_bos_token_id) {
    RETURN_IF_ERROR(check_forced(c, "forced_bos_token_id", {*c.forced_bos_token_id}));
  }
  RETURN_IF_ERROR(
      check_forced(c, "forced_eos_token_id", c.forced_eos_token_id.value_or(TokenIds{})));
  if (!c.exponential_decay_length_penalty) {
    return {};
  }
  const TokenIds end_ids = c.eos_token_id.value_or(TokenIds{});
  if (end_ids.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "exponential_decay_length_penalty: no eos_token_id found, want at least one end "
                "token to favour");
  }
  for (const TokenId id : end_ids) {
    if (id < 0) {
      return fail(ErrorCode::kInvalidArgument,
                  "exponential_decay_length_penalty: eos_token_id {} found, want >= 0", id);
    }
  }
  return {};
}

Status check_search(const Config& c) {
  const int64_t num_beams = c.num_beams.value_or(1);
  const int64_t num_return_sequences = c.num_return_sequences.value_or(1);
  if (num_beams == 1 && num_return_sequences > 1 && !c.do_sample.value_or(false)) {
    return fail(
        ErrorCode::kInvalidArgument,
        "num_return_sequences: {} found, want 1: a greedy run has one outcome; set do_sample "
        "to true, or num_beams to {} or more",
        num_return_sequences, num_return_sequences);
  }
  if (num_beams > 1 && num_return_sequences > num_beams) {
    return fail(ErrorCode::kInvalidArgument,
                "num_return_sequences: {} found, want 1 to {}: beam search keeps num_beams={} "
                "answers",
                num_return_sequences, num_beams, num_beams);
  }
  // transformers changes the row of the first beam or answer alone then; nobody can want that.
  if ((num_beams > 1 || num_return_sequences > 1) &&
      c.encoder_repetition_penalty.value_or(1.0) != 1.0) {
    return fail(ErrorCode::kInvalidArgument,
                "encoder_repetition_penalty: {} found, want 1 with several beams or answers: "
                "transformers applies it to the first row alone",
                *c.encoder_repetition_penalty);
  }
  return {};
}

Status check_semantics(const Config& c) {
  if (is_transformers(c)) {
    return {};
  }
  if (c.num_beams.value_or(1) > 1) {
    return fail(ErrorCode::kInvalidArgument,
                "semantics: {} found with num_beams={}, want transformers: beam search is defined "
                "as transformers does it alone",
                name(*c.semantics), *c.num_beams);
  }
  if (*c.semantics == Semantics::kVllm && c.do_sample.value_or(false) && c.top_p == 0.0) {
    return fail(ErrorCode::kInvalidArgument,
                "top_p: 0 found, want above 0 to 1 with semantics=vllm; 1 turns the filter off");
  }
  return {};
}

}  // namespace

Status validate_generation_config(const GenerationConfig& effective) {
  RETURN_IF_ERROR(check_ranges(effective));
  RETURN_IF_ERROR(check_lists(effective));
  RETURN_IF_ERROR(check_logit_bias(effective));
  RETURN_IF_ERROR(check_end_tokens(effective));
  RETURN_IF_ERROR(check_search(effective));
  return check_semantics(effective);
}

}  // namespace logitlab
