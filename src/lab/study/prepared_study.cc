#include "lab/study/prepared_study.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "engine/run_description.h"
#include "sampling/processor_chain.h"

namespace logitlab {
namespace {

// The request holds pointers to these.
struct TemplateInput {
  Json messages = Json::array();
  Json variables = Json::object();
};

Result<PreparedPrompt> render(const Engine& engine, const TemplateInput& input) {
  ChatRequest request;
  request.messages = &input.messages;
  request.variables = &input.variables;
  request.add_generation_prompt = true;
  PreparedPrompt prompt;
  ASSIGN_OR_RETURN(prompt.text, engine.chat_template()->render(request));
  EncodeOptions options;
  options.add_special_tokens = false;  // the template writes them
  ASSIGN_OR_RETURN(prompt.ids, engine.tokenizer().encode(prompt.text, options));
  return prompt;
}

Result<PreparedPrompt> make_prompt(const Engine& engine, const StudyPrompt& prompt,
                                   std::optional<bool> enable_thinking) {
  const bool has_template = engine.chat_template() != nullptr;
  if (!prompt.messages.empty() && !has_template) {
    return fail(ErrorCode::kInvalidArgument,
                "messages found, and the model has no chat template; want a text, or a model that "
                "has one");
  }
  if (prompt.messages.empty() && (!prompt.is_chat || !has_template)) {
    PreparedPrompt raw;
    raw.text = prompt.text;
    ASSIGN_OR_RETURN(raw.ids, engine.tokenizer().encode(prompt.text));
    return raw;
  }
  TemplateInput input;
  for (const StudyMessage& message : prompt.messages) {
    input.messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  if (prompt.messages.empty()) {
    input.messages.push_back({{"role", "user"}, {"content", prompt.text}});
  }
  if (enable_thinking) {
    input.variables["enable_thinking"] = *enable_thinking;
  }
  return render(engine, input);
}

Result<PreparedCell> make_cell(const Engine& engine, const StudySetting& setting,
                               int64_t prompt_length) {
  PreparedCell cell;
  cell.config = setting.config;
  cell.config.seed.reset();
  const EffectiveConfig effective = merge_generation_config(cell.config, engine.defaults());
  RETURN_IF_ERROR(validate_generation_config(effective.config));
  const ModelConfig& model = engine.model().config();
  const auto positions = model.max_position_embeddings > 0
                             ? std::optional(model.max_position_embeddings)
                             : std::nullopt;
  ASSIGN_OR_RETURN(const Lengths lengths,
                   resolve_lengths(effective.config, prompt_length, positions));
  cell.max_new_tokens = lengths.max_new_tokens;
  cell.has_beams = effective.config.num_beams.value_or(1) > 1;
  if (!cell.has_beams && effective.config.num_return_sequences.value_or(1) > 1) {
    return fail(ErrorCode::kInvalidArgument,
                "num_return_sequences: {} found without beams, want 1: a study asks for several "
                "texts by `runs`",
                *effective.config.num_return_sequences);
  }
  // Guidance needs the model; all else is checked by making the processors.
  GenerationConfig checked = effective.config;
  checked.guidance_scale.reset();
  ChainOptions chain;
  chain.vocab_size = model.vocab_size;
  chain.prompt_length = prompt_length;
  chain.thinking = engine.thinking_ids();
  RETURN_IF_ERROR(build_chain(checked, chain));
  cell.description = describe_run(engine, effective, 1, prompt_length);
  return cell;
}

}  // namespace

Result<PreparedStudy> prepare_study(const Engine& engine, const Study& study) {
  PreparedStudy prepared;
  // Thinking is of the template: -1 stands for its own default.
  std::map<std::pair<size_t, int>, size_t> known_prompts;
  std::map<std::pair<size_t, size_t>, size_t> known_cells;
  for (const PlannedRun& plan : plan_runs(study)) {
    const StudySetting& setting = study.settings[plan.setting];
    const StudyPrompt& prompt = study.prompts[plan.prompt];
    const auto [cell, is_new_cell] =
        known_cells.try_emplace({plan.prompt, plan.setting}, prepared.cells.size());
    if (is_new_cell) {
      const int thinking = setting.enable_thinking ? (*setting.enable_thinking ? 1 : 0) : -1;
      const auto [ids, is_new_prompt] =
          known_prompts.try_emplace({plan.prompt, thinking}, prepared.prompts.size());
      if (is_new_prompt) {
        auto made = make_prompt(engine, prompt, setting.enable_thinking);
        if (!made) {
          return fail_at(fmt::format("study {}: prompt {}", study.name, prompt.name),
                         std::move(made).error());
        }
        prepared.prompts.push_back(std::move(*made));
      }
      const auto length = static_cast<int64_t>(prepared.prompts[ids->second].ids.size());
      auto made = make_cell(engine, setting, length);
      if (!made) {
        return fail_at(fmt::format("study {}: setting {}", study.name, setting.name),
                       std::move(made).error());
      }
      made->prompt = plan.prompt;
      made->setting = plan.setting;
      made->ids = ids->second;
      prepared.cells.push_back(std::move(*made));
    }
    prepared.runs.push_back({plan, cell->second});
  }
  return prepared;
}

}  // namespace logitlab
