// A conversation with a model, whose state is kept from turn to turn.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/json.h"
#include "chat_prompt.h"
#include "command.h"
#include "engine/engine.h"
#include "generate/reusable_state.h"
#include "streamed_answer.h"

namespace logitlab {

// One-thread; `engine` outlives it and has a chat template.
class Conversation {
 public:
  Conversation(Engine& engine, Json template_variables);

  struct Turn {
    Answer answer;
    std::vector<TokenId> prompt_ids;
  };
  // Adds the user's message, renders the whole conversation anew, keeps as much of the state as
  // agrees with it, and streams the answer. Thoughts go into the answer's message as
  // "reasoning_content", so that the template decides what becomes of them. On an error, and when
  // it was stopped before the first token, the conversation is as before. kInvalidArgument when it
  // has become longer than the model's positions.
  [[nodiscard]] Result<Turn> ask(Invocation& invocation, const std::string& text,
                                 const GenerationConfig& config, bool prints_text);

  // Forgets all messages but the system message, and the state.
  void reset();
  // Replaces the system message (empty: none) and starts anew.
  void set_system(const std::string& text);

  [[nodiscard]] const Json& messages() const { return messages_; }

 private:
  [[nodiscard]] Result<RenderedPrompt> render(bool with_generation_prompt) const;
  [[nodiscard]] Status check_length(size_t n_tokens) const;
  [[nodiscard]] int64_t stable_length(const std::vector<TokenId>& ids) const;

  Engine& engine_;
  Json variables_;
  Json messages_ = Json::array();
  ReusableState state_;
};

}  // namespace logitlab
