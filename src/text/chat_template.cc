#include "text/chat_template.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "text/rust_strings.h"

namespace logitlab {
namespace {

// Stands at the end of the message that is to be continued while the template runs.
constexpr std::string_view kContinueTag = "CONTINUE_FINAL_MESSAGE_TAG ";

std::string_view trim_ascii(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\v\f\x1c\x1d\x1e\x1f";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) {
    return {};
  }
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

Status require_objects(const Json& list, std::string_view what) {
  if (!list.is_array()) {
    return fail(ErrorCode::kInvalidArgument, "{}: found {}, want a list of objects", what,
                list.type_name());
  }
  for (size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_object()) {
      return fail(ErrorCode::kInvalidArgument, "{}[{}]: found {}, want an object", what, i,
                  list[i].type_name());
    }
  }
  return {};
}

// Appends the tag to the last message's `field`; gives the text that it was appended to.
Result<std::string> mark_last_message(Json* messages, const std::string& field) {
  Json& last = messages->back();
  const auto found = last.find(field);
  if (found == last.end() || found->is_null()) {
    return fail(ErrorCode::kInvalidArgument,
                "continue_final_message: the last message has no \"{}\" to continue", field);
  }
  const auto append = [](Json* text) {
    std::string before = text->get<std::string>();
    *text = before + std::string(kContinueTag);
    return before;
  };
  if (found->is_string()) {
    return append(&*found);
  }
  if (found->is_array()) {
    for (auto block = found->rbegin(); block != found->rend(); ++block) {
      if (block->is_object() && block->contains("text") && (*block)["text"].is_string()) {
        return append(&(*block)["text"]);
      }
    }
  }
  return fail(ErrorCode::kInvalidArgument,
              "continue_final_message: \"{}\" of the last message holds no text to continue",
              field);
}

// Cuts the rendered text where the message to be continued ends.
Result<std::string> cut_at_tag(std::string text, std::string_view message) {
  const std::string_view bare_tag = trim_ascii(kContinueTag);
  const size_t tag = text.rfind(bare_tag);
  if (tag == std::string::npos || text.find(trim_ascii(message)) == std::string::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "continue_final_message: the last message does not stand unchanged in the rendered "
                "text, so there is no place to go on from; the template drops or rewrites it");
  }
  const bool kept_space = text.compare(tag, kContinueTag.size(), kContinueTag) == 0;
  text.resize(tag);
  if (!kept_space) {  // the template trimmed the message, so its own trailing space goes too
    const std::string_view trimmed = trim_ascii(text);
    text.resize(
        trimmed.empty() ? 0 : static_cast<size_t>(trimmed.data() - text.data()) + trimmed.size());
  }
  return text;
}

Json or_null(const Json* value) {
  return value == nullptr ? Json() : *value;
}

}  // namespace

std::optional<std::string> find_special_token(const SpecialTokens& tokens, std::string_view name) {
  for (const auto& [key, content] : tokens) {
    if (key == name) {
      return content;
    }
  }
  return std::nullopt;
}

Result<std::unique_ptr<const ChatTemplate>> ChatTemplate::create(
    std::vector<NamedTemplate> templates, SpecialTokens special_tokens, std::string_view where) {
  if (templates.empty()) {
    return fail(ErrorCode::kInvalidArgument, "{}: there is no chat template", where);
  }
  std::unique_ptr<ChatTemplate> out(new ChatTemplate());  // the constructor is private
  out->templates_ = std::move(templates);
  out->special_tokens_ = std::move(special_tokens);
  out->where_ = where;
  for (size_t i = 0; i < out->templates_.size(); ++i) {
    const NamedTemplate& named = out->templates_[i];
    const auto same = [&](const NamedTemplate& other) { return other.name == named.name; };
    const auto end = out->templates_.begin() + static_cast<ptrdiff_t>(i);
    if (std::find_if(out->templates_.begin(), end, same) != end) {
      return fail(ErrorCode::kInvalidArgument, "{}: two chat templates are named \"{}\"", where,
                  printable(named.name));
    }
    Compiled compiled;
    LogitlabTextError error{};
    const int32_t status = logitlab_text_template_new(rust_bytes(named.source), named.source.size(),
                                                      &compiled.handle, &error);
    if (status != kLogitlabTextOk) {
      compiled.error = take_error(status, error, out->where(i)).value();
    }
    out->compiled_.push_back(std::move(compiled));
  }
  return std::unique_ptr<const ChatTemplate>(std::move(out));
}

ChatTemplate::~ChatTemplate() {
  for (const Compiled& compiled : compiled_) {
    logitlab_text_template_free(compiled.handle);
  }
}

std::string ChatTemplate::where(size_t index) const {
  if (templates_.size() == 1) {
    return where_;
  }
  return fmt::format("{} \"{}\"", where_, printable(templates_[index].name));
}

Status ChatTemplate::check() const {
  for (const Compiled& compiled : compiled_) {
    if (compiled.handle == nullptr) {
      return tl::unexpected<Error>(compiled.error);
    }
  }
  return {};
}

Result<size_t> ChatTemplate::choose(const ChatRequest& request) const {
  const auto find = [&](std::string_view name) -> std::optional<size_t> {
    for (size_t i = 0; i < templates_.size(); ++i) {
      if (templates_[i].name == name) {
        return i;
      }
    }
    return std::nullopt;
  };
  std::optional<size_t> found;
  if (!request.template_name.empty()) {
    found = find(request.template_name);
  } else if (templates_.size() == 1) {
    found = 0;
  } else {
    if (request.tools != nullptr && !request.tools->is_null()) {
      found = find("tool_use");
    }
    if (!found) {
      found = find("default");
    }
  }
  if (found) {
    return *found;
  }
  std::string names;
  for (const NamedTemplate& named : templates_) {
    names += fmt::format("{}\"{}\"", names.empty() ? "" : ", ", printable(named.name));
  }
  return fail(ErrorCode::kInvalidArgument, "{}: no chat template \"{}\"; there is {}", where_,
              request.template_name.empty() ? "default" : printable(request.template_name), names);
}

Result<std::string> ChatTemplate::render(const ChatRequest& request,
                                         const RenderLimits& limits) const {
  if (request.messages == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "messages: none given, want at least one");
  }
  RETURN_IF_ERROR(require_objects(*request.messages, "messages"));
  if (request.messages->empty()) {
    return fail(ErrorCode::kInvalidArgument, "messages: an empty list, want at least one message");
  }
  const Json tools = or_null(request.tools);
  const Json documents = or_null(request.documents);
  if (!tools.is_null()) {
    RETURN_IF_ERROR(require_objects(tools, "tools"));
  }
  if (!documents.is_null()) {
    RETURN_IF_ERROR(require_objects(documents, "documents"));
  }
  const std::string& field = request.continue_final_message;
  if (!field.empty() && request.add_generation_prompt) {
    return fail(ErrorCode::kInvalidArgument,
                "add_generation_prompt and continue_final_message exclude each other: the first "
                "starts a new message, the second goes on with the last one");
  }
  ASSIGN_OR_RETURN(const size_t index, choose(request));
  Json variables = Json::object();
  for (const auto& [name, content] : special_tokens_) {
    variables[name] = content;
  }
  if (request.variables != nullptr && !request.variables->is_null()) {
    if (!request.variables->is_object()) {
      return fail(ErrorCode::kInvalidArgument, "template variables: found {}, want an object",
                  request.variables->type_name());
    }
    for (const auto& [name, value] : request.variables->items()) {
      variables[name] = value;
    }
  }
  variables["messages"] = *request.messages;
  variables["tools"] = tools;
  variables["documents"] = documents;
  variables["add_generation_prompt"] = request.add_generation_prompt;
  if (field.empty()) {
    return render_variables(index, variables, limits);
  }
  if (templates_[index].source.find(field) == std::string::npos) {
    return fail(ErrorCode::kInvalidArgument,
                "continue_final_message: the chat template does not use the field \"{}\"", field);
  }
  ASSIGN_OR_RETURN(const std::string message, mark_last_message(&variables["messages"], field));
  ASSIGN_OR_RETURN(std::string text, render_variables(index, variables, limits));
  return cut_at_tag(std::move(text), message);
}

Result<std::string> ChatTemplate::render_variables(size_t index, const Json& variables,
                                                   const RenderLimits& limits) const {
  const Compiled& compiled = compiled_[index];
  if (compiled.handle == nullptr) {
    return tl::unexpected<Error>(compiled.error);
  }
  const std::string json = dump_json(variables);
  LogitlabTextString text{};
  LogitlabTextError error{};
  const int32_t status = logitlab_text_template_render(
      compiled.handle, rust_bytes(json), json.size(),
      LogitlabTextRenderLimits{limits.steps, limits.output_bytes, limits.seconds}, &text, &error);
  if (status != kLogitlabTextOk) {
    return take_error(status, error, where(index));
  }
  return take_string(text);
}

}  // namespace logitlab
