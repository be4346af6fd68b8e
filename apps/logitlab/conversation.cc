#include "conversation.h"

#include <algorithm>
#include <utility>

#include <nlohmann/json.hpp>

namespace logitlab {

Conversation::Conversation(Engine& engine, Json template_variables)
    : engine_(engine),
      variables_(std::move(template_variables)),
      state_(engine.model().make_state()) {}

Result<RenderedPrompt> Conversation::render() const {
  ChatRequest request;
  request.messages = &messages_;
  request.variables = &variables_;
  request.add_generation_prompt = true;
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

// A template may render earlier turns in another way than they were generated (it trims, it drops
// thoughts), so only the common start of the ids is still true.
void Conversation::reuse(const std::vector<TokenId>& ids) {
  const auto ends = std::mismatch(held_.begin(), held_.end(), ids.begin(), ids.end());
  auto common = static_cast<size_t>(ends.first - held_.begin());
  // At least one token goes through the model: its logits are where the answer starts.
  common = std::min(common, ids.size() - 1);
  state_.truncate(static_cast<int64_t>(common));
  held_.resize(common);
}

Result<Conversation::Turn> Conversation::ask(Invocation& invocation, const std::string& text,
                                             const GenerationConfig& config, bool prints_text) {
  messages_.push_back(message("user", text));
  const auto take_back = [this](Error error) -> tl::unexpected<Error> {
    messages_.erase(messages_.size() - 1);
    return tl::unexpected<Error>(std::move(error));
  };
  auto prompt = render();
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
  reuse(turn.prompt_ids);
  AnswerRequest request;
  request.prompts = {{turn.prompt_ids, &state_}};
  request.config = config;
  request.prints_text = prints_text;
  auto answer = stream_answer(engine_, invocation, request);
  // What the state holds is a prefix of prompt and answer, wherever it ended.
  held_ = turn.prompt_ids;
  if (answer) {
    held_.insert(held_.end(), answer->result.first().ids.begin(), answer->result.first().ids.end());
  }
  const auto length = static_cast<size_t>(state_.length());
  if (length > held_.size() || !answer) {
    state_.truncate(0);
    held_.clear();
  } else {
    held_.resize(length);
  }
  if (!answer) {
    return take_back(std::move(answer).error());
  }
  turn.answer = std::move(*answer);
  if (turn.answer.result.first().ids.empty()) {
    messages_.erase(messages_.size() - 1);
  } else {
    messages_.push_back(message("assistant", turn.answer.text()));
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
  state_.truncate(0);
  held_.clear();
}

void Conversation::set_system(const std::string& text) {
  messages_ = Json::array();
  if (!text.empty()) {
    messages_.push_back(message("system", text));
  }
  state_.truncate(0);
  held_.clear();
}

}  // namespace logitlab
