#include "conversation.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

namespace logitlab {

namespace {

std::string trimmed(const std::string& text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t from = text.find_first_not_of(kSpace);
  return from == std::string::npos ? std::string()
                                   : text.substr(from, text.find_last_not_of(kSpace) - from + 1);
}

// The thoughts apart from the answer, and both without the line breaks that templates put between.
Json answer_message(const Answer& answer) {
  const AnswerParts& parts = answer.parts.front();
  if (parts.outcome == ThinkingOutcome::kNone) {
    return message("assistant", answer.text());
  }
  Json out = message("assistant", trimmed(parts.answer));
  out["reasoning_content"] = trimmed(parts.thinking);
  return out;
}

}  // namespace

Conversation::Conversation(Engine& engine, Json template_variables)
    : engine_(engine),
      variables_(std::move(template_variables)),
      state_(engine.model().make_state()) {}

Result<RenderedPrompt> Conversation::render(bool with_generation_prompt) const {
  ChatRequest request;
  request.messages = &messages_;
  request.variables = &variables_;
  request.add_generation_prompt = with_generation_prompt;
  return render_prompt(*engine_.chat_template(), engine_.tokenizer(), request);
}

Status Conversation::check_length(size_t n_tokens) const {
  const int64_t limit = engine_.model().config().max_position_embeddings;
  if (limit > 0 && static_cast<int64_t>(n_tokens) >= limit) {
    return fail(ErrorCode::kInvalidArgument,
                "the conversation has {} tokens with this message and the model has room for {}; "
                "/reset starts anew, or say it in fewer words",
                n_tokens, limit);
  }
  return {};
}

// Where the next turn's prompt will depart at the earliest: templates keep the messages, and often
// change the answers' start (the thinking that the generation prompt opened comes back closed).
int64_t Conversation::stable_length(const std::vector<TokenId>& ids) const {
  const auto messages = render(false);
  if (!messages) {
    return 0;
  }
  const auto ends =
      std::mismatch(ids.begin(), ids.end(), messages->ids.begin(), messages->ids.end());
  return ends.first - ids.begin();
}

Result<Conversation::Turn> Conversation::ask(Invocation& invocation, const std::string& text,
                                             const GenerationConfig& config, bool prints_text) {
  messages_.push_back(message("user", text));
  const auto take_back = [this](Error error) -> tl::unexpected<Error> {
    messages_.erase(messages_.size() - 1);
    return tl::unexpected<Error>(std::move(error));
  };
  auto prompt = render(true);
  if (!prompt) {
    return take_back(std::move(prompt).error());
  }
  Turn turn;
  turn.prompt_ids = std::move(prompt->ids);
  Status fits = check_length(turn.prompt_ids.size());
  if (!fits) {
    return take_back(std::move(fits).error());
  }
  if (turn.prompt_ids.empty()) {
    return take_back({ErrorCode::kInvalidArgument, "the template made an empty prompt"});
  }
  // A template may render earlier turns in another way than they were generated (it trims, it drops
  // thoughts), so only the common start of the ids is still true.
  state_.take_back(turn.prompt_ids);
  std::optional<DecodeState> snapshot;
  const int64_t mark = state_.wants_snapshots() ? stable_length(turn.prompt_ids) : 0;
  AnswerRequest request;
  request.prompts = {{turn.prompt_ids, &state_.state(), mark, &snapshot}};
  request.config = config;
  request.prints_text = prints_text;
  auto answer = stream_answer(engine_, invocation, request);
  // What the state holds is a prefix of prompt and answer, wherever it ended.
  std::vector<TokenId> read = turn.prompt_ids;
  if (answer) {
    read.insert(read.end(), answer->result.first().ids.begin(), answer->result.first().ids.end());
  }
  if (!answer || state_.state().length() > static_cast<int64_t>(read.size())) {
    state_.clear();
  } else {
    state_.hold(read);
    if (snapshot) {
      state_.keep(std::move(*snapshot));
    }
  }
  if (!answer) {
    return take_back(std::move(answer).error());
  }
  turn.answer = std::move(*answer);
  if (turn.answer.result.first().ids.empty()) {
    messages_.erase(messages_.size() - 1);
  } else {
    messages_.push_back(answer_message(turn.answer));
  }
  return turn;
}

void Conversation::reset() {
  const bool has_system = !messages_.empty() && messages_[0].at("role") == "system";
  const Json system = has_system ? messages_[0] : Json();
  messages_ = Json::array();
  if (has_system) {
    messages_.push_back(system);
  }
  state_.clear();
}

void Conversation::set_system(const std::string& text) {
  messages_ = Json::array();
  if (!text.empty()) {
    messages_.push_back(message("system", text));
  }
  state_.clear();
}

}  // namespace logitlab
