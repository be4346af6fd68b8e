#include "lab/study/study_reader.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/utf8.h"
#include "lab/study/study_file.h"
#include "lab/study/study_keys.h"
#include "lab/study/study_knob.h"
#include "sampling/effective_config.h"

namespace logitlab {
namespace {

using Kind = YamlNode::Kind;

// A list of a sweep, or what a command line put in its place.
struct Axis {
  std::string name;
  std::vector<Knob> values;
  std::vector<int> lines;
};

// A setting, and the line of everything in it.
struct Draft {
  StudySetting setting;
  std::map<std::string, int> lines;
  int line = 0;
};

std::string trimmed(std::string text) {
  const size_t last = text.find_last_not_of(" \n\r\t");
  text.resize(last == std::string::npos ? 0 : last + 1);
  return text;
}

class StudyReader {
 public:
  StudyReader(std::string_view where, const StudyChanges& changes)
      : where_(where), changes_(changes) {}

  Result<Study> read(const YamlNode& root);

 private:
  template <typename... Args>
  [[nodiscard]] tl::unexpected<Error> refuse(const YamlNode& node,
                                             fmt::format_string<Args...> format,
                                             Args&&... args) const {
    return fail(ErrorCode::kInvalidArgument, "{}:{}: {}", where_, node.line,
                fmt::format(format, std::forward<Args>(args)...));
  }
  [[nodiscard]] tl::unexpected<Error> refuse_at(int line, Error error) const {
    return fail_at(fmt::format("{}:{}", where_, line), std::move(error));
  }

  // Values of the tree. `name` is theirs in messages.
  Status require_map(const YamlNode& node, std::string_view name,
                     std::span<const std::string_view> keys) const;
  Result<std::string> text(const YamlNode& node, std::string_view name) const;
  // A text of one printable line of at most 100 bytes.
  Result<std::string> label(const YamlNode& node, std::string_view name) const;
  Result<bool> flag(const YamlNode& node, std::string_view name) const;
  Result<int64_t> whole(const YamlNode& node, std::string_view name, int64_t lowest,
                        int64_t highest) const;
  Result<uint64_t> seed(const YamlNode& node, std::string_view name) const;

  Status read_texts(const YamlNode& root);
  Status read_course(const YamlNode& root);
  Status read_measures(const YamlNode& root);
  Status read_exact(const YamlNode& node);
  Status read_seeds(const YamlNode& root);

  Status read_prompts(const YamlNode& root);
  Result<StudyPrompt> read_prompt(const YamlNode& node, bool is_chat, size_t index) const;
  Result<std::vector<StudyMessage>> read_messages(const YamlNode& node) const;

  Status read_base(const YamlNode& root);
  Status apply_map(const YamlNode& node, std::string_view name, KnobPlace place,
                   Draft* draft) const;
  Status read_thinking(const YamlNode& node, Draft* draft) const;
  Status read_axes(const YamlNode& root);
  Status change_axes(bool has_variants);
  Status add_sweep(int line);
  Status add_variants(const YamlNode& node);
  Status add_variant(const YamlNode& node, const YamlNode& name_node);
  Status read_variant_seeds(const YamlNode& node, const YamlNode* runs, StudySetting* setting);
  Status add_setting(Draft draft);
  Status check_setting(const Draft& draft) const;
  Status check_runs(const YamlNode& root) const;

  std::string_view where_;
  const StudyChanges& changes_;
  Study study_;
  int64_t runs_ = 1;
  Draft base_;
  std::vector<Axis> axes_;
  std::set<std::string> setting_names_;
};

// ---------------------------------------------------------------------------------- values

Status StudyReader::require_map(const YamlNode& node, std::string_view name,
                                std::span<const std::string_view> keys) const {
  if (node.kind != Kind::kMap) {
    return refuse(node, "{}: {} found, want a mapping of {}", name, quoted_json(to_json(node)),
                  fmt::join(keys, ", "));
  }
  for (const auto& [key, value] : node.entries) {
    if (std::find(keys.begin(), keys.end(), key.text) == keys.end()) {
      return refuse_at(key.line, unknown_name(key.text, {keys.begin(), keys.end()}));
    }
  }
  return {};
}

Result<std::string> StudyReader::text(const YamlNode& node, std::string_view name) const {
  const Json json = node.kind == Kind::kScalar ? to_json(node) : Json();
  if (!json.is_string()) {
    return refuse(node, "{}: {} found, want a text{}", name, quoted_json(to_json(node)),
                  node.kind == Kind::kScalar && !node.text.empty() ? ", in quotes" : "");
  }
  if (node.text.find('\0') != std::string::npos) {
    return refuse(node, "{}: a text with the byte 0 found, want one without", name);
  }
  if (trimmed(node.text).empty()) {
    return refuse(node, "{}: an empty text found, want at least one character", name);
  }
  return node.text;
}

Result<std::string> StudyReader::label(const YamlNode& node, std::string_view name) const {
  constexpr size_t kLongest = 100;
  ASSIGN_OR_RETURN(std::string label, text(node, name));
  if (label.size() > kLongest || printable(label) != label) {
    return refuse(node, "{}: {} found, want one line of at most {} printable characters", name,
                  quoted_json(label), kLongest);
  }
  return label;
}

Result<bool> StudyReader::flag(const YamlNode& node, std::string_view name) const {
  bool value = false;
  const Json json = to_json(node);
  if (!read_value(json, &value)) {
    return refuse(node, "{}: {} found, want true or false", name, quoted_json(json));
  }
  return value;
}

Result<int64_t> StudyReader::whole(const YamlNode& node, std::string_view name, int64_t lowest,
                                   int64_t highest) const {
  int64_t value = 0;
  const Json json = to_json(node);
  if (!read_value(json, &value) || value < lowest || value > highest) {
    return refuse(node, "{}: {} found, want a whole number from {} to {}", name, quoted_json(json),
                  lowest, highest);
  }
  return value;
}

Result<uint64_t> StudyReader::seed(const YamlNode& node, std::string_view name) const {
  uint64_t value = 0;
  const Json json = to_json(node);
  if (!read_value(json, &value)) {
    return refuse(node, "{}: {} found, want {}", name, quoted_json(json), type_words(value).wanted);
  }
  return value;
}

// ----------------------------------------------------------------------- what is asked for

Status StudyReader::read_texts(const YamlNode& root) {
  const std::pair<std::string_view, std::string*> texts[] = {
      {"name", &study_.name},          {"title", &study_.title},     {"question", &study_.question},
      {"expect", &study_.expectation}, {"reading", &study_.reading}, {"notes", &study_.notes}};
  for (const auto& [key, target] : texts) {
    const YamlNode* node = root.find(key);
    if (node == nullptr) {
      if (key == "name" || key == "question") {
        return refuse(root, "{}: not there, want {}", key,
                      key == "name" ? "what the study is called, as `name: my-study`"
                                    : "what shall be found out, in one sentence");
      }
      continue;
    }
    // An expectation or a reading may still be to be written.
    if (node->kind == Kind::kScalar && node->text.empty() && key != "name" && key != "question") {
      continue;
    }
    ASSIGN_OR_RETURN(*target, text(*node, key));
    *target = trimmed(std::move(*target));
  }
  const bool is_name =
      study_.name.size() <= 64 && std::all_of(study_.name.begin(), study_.name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
      });
  if (!is_name) {
    return refuse(*root.find("name"), "name: {} found, want at most 64 of a to z, 0 to 9 and -",
                  quoted_json(study_.name));
  }
  if (study_.title.empty()) {
    study_.title = study_.name;
  }
  return {};
}

Status StudyReader::read_course(const YamlNode& root) {
  const YamlNode& list = *root.find("studies");
  for (const auto& [key, value] : root.entries) {
    if (std::find(kCourseKeys.begin(), kCourseKeys.end(), key.text) == kCourseKeys.end()) {
      return refuse(key, "{}: found beside studies, want a course or a study, not both", key.text);
    }
  }
  if (list.kind != Kind::kList || list.items.empty()) {
    return refuse(list, "studies: {} found, want a list of names of studies",
                  quoted_json(to_json(list)));
  }
  std::set<std::string> met = {study_.name};
  for (const YamlNode& item : list.items) {
    ASSIGN_OR_RETURN(std::string entry, label(item, "studies"));
    if (!met.insert(entry).second) {
      return refuse(item, "studies: {} found {}", entry,
                    entry == study_.name ? "in the course of this name, want other studies"
                                         : "twice, want it once");
    }
    study_.studies.push_back(std::move(entry));
  }
  return {};
}

Status StudyReader::read_measures(const YamlNode& root) {
  const YamlNode* list = root.find("measures");
  if (list == nullptr) {
    study_.measures = {MeasureKind::kTexts};
    return {};
  }
  if (list->kind != Kind::kList || list->items.empty()) {
    return refuse(*list, "measures: {} found, want a list, as [texts, divergence]",
                  quoted_json(to_json(*list)));
  }
  std::vector<std::string_view> names;
  for (const MeasureKind kind : kMeasureKinds) {
    names.push_back(name(kind));
  }
  for (const YamlNode& item : list->items) {
    ASSIGN_OR_RETURN(const std::string word, text(item, "measures"));
    const auto found = std::find(names.begin(), names.end(), word);
    if (found == names.end()) {
      return refuse_at(item.line, unknown_name(word, names, "no measure has this name"));
    }
    const MeasureKind kind = kMeasureKinds[static_cast<size_t>(found - names.begin())];
    if (std::find(study_.measures.begin(), study_.measures.end(), kind) != study_.measures.end()) {
      return refuse(item, "measures: {} found twice, want it once", word);
    }
    study_.measures.push_back(kind);
  }
  return {};
}

Status StudyReader::read_exact(const YamlNode& node) {
  if (node.kind == Kind::kScalar) {
    ASSIGN_OR_RETURN(const bool is_wanted, flag(node, "exact"));
    if (is_wanted) {
      study_.exact.emplace();
    }
    return {};
  }
  RETURN_IF_ERROR(require_map(node, "exact", kExactKeys));
  study_.exact.emplace();
  if (const YamlNode* mass = node.find("mass")) {
    const Json json = to_json(*mass);
    if (!read_value(json, &study_.exact->mass) || study_.exact->mass <= 0 ||
        study_.exact->mass > 1) {
      return refuse(*mass, "mass: {} found, want a number above 0 to 1", quoted_json(json));
    }
  }
  if (const YamlNode* nodes = node.find("max_nodes")) {
    ASSIGN_OR_RETURN(study_.exact->max_nodes, whole(*nodes, "max_nodes", 1, kMostNodes));
  }
  return {};
}

Status StudyReader::read_seeds(const YamlNode& root) {
  if (const YamlNode* seeds = root.find("seeds")) {
    RETURN_IF_ERROR(require_map(*seeds, "seeds", kSeedsKeys));
    if (const YamlNode* policy = seeds->find("policy")) {
      ASSIGN_OR_RETURN(const std::string word, text(*policy, "policy"));
      const auto* found = std::find_if(kSeedPolicies.begin(), kSeedPolicies.end(),
                                       [&](SeedPolicy known) { return name(known) == word; });
      if (found == kSeedPolicies.end()) {
        return refuse(*policy, "policy: {} found, want shared or running", quoted_json(word));
      }
      study_.seed_policy = *found;
    }
    if (const YamlNode* base = seeds->find("base")) {
      ASSIGN_OR_RETURN(study_.seed_base, seed(*base, "base"));
    }
  }
  study_.seed_policy = changes_.seed_policy.value_or(study_.seed_policy);
  study_.seed_base = changes_.seed_base.value_or(study_.seed_base);
  if (const YamlNode* runs = root.find("runs")) {
    ASSIGN_OR_RETURN(runs_, whole(*runs, "runs", 1, kMostRuns));
  }
  runs_ = changes_.runs.value_or(runs_);
  return {};
}

// --------------------------------------------------------------------------------- prompts

Result<std::vector<StudyMessage>> StudyReader::read_messages(const YamlNode& node) const {
  if (node.kind != Kind::kList || node.items.empty()) {
    return refuse(node, "messages: {} found, want a list, as [{{role: user, content: Hello}}]",
                  quoted_json(to_json(node)));
  }
  std::vector<StudyMessage> messages;
  for (const YamlNode& item : node.items) {
    RETURN_IF_ERROR(require_map(item, "messages", kMessageKeys));
    const YamlNode* role = item.find("role");
    const YamlNode* content = item.find("content");
    if (role == nullptr || content == nullptr) {
      return refuse(item, "messages: one without {} found, want both role and content",
                    role == nullptr ? "role" : "content");
    }
    ASSIGN_OR_RETURN(std::string role_name, label(*role, "role"));
    ASSIGN_OR_RETURN(std::string words, text(*content, "content"));
    messages.push_back({std::move(role_name), std::move(words)});
  }
  return messages;
}

Result<StudyPrompt> StudyReader::read_prompt(const YamlNode& node, bool is_chat,
                                             size_t index) const {
  StudyPrompt prompt;
  prompt.name = fmt::format("prompt {}", index + 1);
  prompt.is_chat = is_chat;
  if (node.kind == Kind::kScalar) {
    ASSIGN_OR_RETURN(prompt.text, text(node, "prompts"));
    return prompt;
  }
  RETURN_IF_ERROR(require_map(node, "prompts", kPromptKeys));
  if (const YamlNode* name = node.find("name")) {
    ASSIGN_OR_RETURN(prompt.name, label(*name, "name"));
  }
  const YamlNode* words = node.find("text");
  const YamlNode* messages = node.find("messages");
  if ((words == nullptr) == (messages == nullptr)) {
    return refuse(node, "prompts: {} found, want text or messages, one of them",
                  words == nullptr ? "neither text nor messages" : "text and messages");
  }
  if (const YamlNode* chat = node.find("chat")) {
    ASSIGN_OR_RETURN(prompt.is_chat, flag(*chat, "chat"));
  }
  if (words != nullptr) {
    ASSIGN_OR_RETURN(prompt.text, text(*words, "text"));
    return prompt;
  }
  if (!prompt.is_chat) {
    return refuse(*messages, "messages: found with chat: false, want the chat template for them");
  }
  ASSIGN_OR_RETURN(prompt.messages, read_messages(*messages));
  return prompt;
}

Status StudyReader::read_prompts(const YamlNode& root) {
  constexpr std::string_view kForms[] = {"prompt", "prompts", "messages"};
  const YamlNode* given = nullptr;
  std::string_view form;
  for (const std::string_view candidate : kForms) {
    if (const YamlNode* node = root.find(candidate)) {
      if (given != nullptr) {
        return refuse(*node, "{}: found beside {}, want one of prompt, prompts, messages",
                      candidate, form);
      }
      given = node;
      form = candidate;
    }
  }
  bool is_chat = true;
  if (const YamlNode* chat = root.find("chat")) {
    ASSIGN_OR_RETURN(is_chat, flag(*chat, "chat"));
  }
  if (changes_.prompt) {
    study_.prompts = {{"prompt", *changes_.prompt, {}, is_chat}};
    return {};
  }
  if (given == nullptr) {
    return refuse(root, "prompt: not there, want prompt, prompts or messages");
  }
  if (form == "prompt") {
    ASSIGN_OR_RETURN(std::string words, text(*given, form));
    study_.prompts = {{"prompt", std::move(words), {}, is_chat}};
    return {};
  }
  if (form == "messages") {
    if (!is_chat) {
      return refuse(*given, "messages: found with chat: false, want the chat template for them");
    }
    ASSIGN_OR_RETURN(auto messages, read_messages(*given));
    study_.prompts = {{"prompt", "", std::move(messages), true}};
    return {};
  }
  if (given->kind != Kind::kList || given->items.empty()) {
    return refuse(*given, "prompts: {} found, want a list of texts, or of mappings of {}",
                  quoted_json(to_json(*given)), fmt::join(kPromptKeys, ", "));
  }
  std::set<std::string> names;
  for (const YamlNode& item : given->items) {
    ASSIGN_OR_RETURN(StudyPrompt prompt, read_prompt(item, is_chat, study_.prompts.size()));
    if (!names.insert(prompt.name).second) {
      return refuse(item, "prompts: the name {} found twice, want it once",
                    quoted_json(prompt.name));
    }
    study_.prompts.push_back(std::move(prompt));
  }
  return {};
}

// -------------------------------------------------------------------------------- settings

Status StudyReader::apply_map(const YamlNode& node, std::string_view name, KnobPlace place,
                              Draft* draft) const {
  if (node.kind != Kind::kMap) {
    return refuse(node, "{}: {} found, want a mapping, as {{{}}}", name, quoted_json(to_json(node)),
                  place == KnobPlace::kExecution ? "threads: 1" : "temperature: 0.7");
  }
  for (const auto& [key, value] : node.entries) {
    auto knob = read_knob(key.text, to_json(value), place);
    if (!knob) {
      return refuse_at(key.line, std::move(knob).error());
    }
    apply_knob(*knob, &draft->setting);
    draft->lines[key.text] = key.line;
  }
  return {};
}

Status StudyReader::read_thinking(const YamlNode& node, Draft* draft) const {
  auto knob = read_knob("thinking", to_json(node), KnobPlace::kAnywhere);
  if (!knob) {
    return refuse_at(node.line, std::move(knob).error());
  }
  apply_knob(*knob, &draft->setting);
  return {};
}

Status StudyReader::read_base(const YamlNode& root) {
  base_.line = root.line;
  base_.setting.runs = runs_;
  if (const YamlNode* settings = root.find("settings")) {
    RETURN_IF_ERROR(apply_map(*settings, "settings", KnobPlace::kSettings, &base_));
  }
  if (const YamlNode* execution = root.find("execution")) {
    RETURN_IF_ERROR(apply_map(*execution, "execution", KnobPlace::kExecution, &base_));
  }
  if (const YamlNode* thinking = root.find("thinking")) {
    RETURN_IF_ERROR(read_thinking(*thinking, &base_));
  }
  return {};
}

Status StudyReader::read_axes(const YamlNode& root) {
  const YamlNode* sweep = root.find("sweep");
  if (sweep == nullptr) {
    return {};
  }
  if (sweep->kind != Kind::kMap || sweep->entries.empty()) {
    return refuse(*sweep,
                  "sweep: {} found, want a mapping to lists, as {{temperature: [0.2, 0.7]}}",
                  quoted_json(to_json(*sweep)));
  }
  for (const auto& [key, list] : sweep->entries) {
    Axis axis;
    axis.name = key.text;
    if (list.kind != Kind::kList || list.items.empty()) {
      return refuse(list, "{}: {} found, want a list of the values to try", quoted_json(key.text),
                    quoted_json(to_json(list)));
    }
    std::set<std::string> met;
    for (const YamlNode& item : list.items) {
      auto knob = read_knob(key.text, to_json(item), KnobPlace::kAnywhere);
      if (!knob) {
        return refuse_at(item.line, std::move(knob).error());
      }
      if (!met.insert(knob->text).second) {
        return refuse(item, "{}: {} found twice, want it once", key.text, quoted_json(knob->text));
      }
      axis.values.push_back(*std::move(knob));
      axis.lines.push_back(item.line);
    }
    axes_.push_back(std::move(axis));
  }
  return {};
}

// A list of the command line replaces one of the file. A single value takes its name out of a grid,
// and is all that is left of a sweep over it alone.
Status StudyReader::change_axes(bool has_variants) {
  for (const StudyChanges::Setting& change : changes_.settings) {
    const std::string& name = change.values.front().name;
    const auto axis = std::find_if(axes_.begin(), axes_.end(),
                                   [&](const Axis& known) { return known.name == name; });
    const bool is_list = change.values.size() > 1;
    if (is_list && axis == axes_.end() && axes_.empty() && has_variants) {
      return fail(ErrorCode::kInvalidArgument,
                  "--set {}: {} values found, want one: this study sweeps nothing, its settings "
                  "are named",
                  quoted_json(change.word), change.values.size());
    }
    if (axis == axes_.end()) {
      if (is_list) {
        axes_.push_back({name, change.values, std::vector<int>(change.values.size(), base_.line)});
      }
    } else if (is_list || axes_.size() == 1) {
      axis->values = change.values;
      axis->lines.assign(change.values.size(), base_.line);
    } else {
      axes_.erase(axis);
    }
  }
  return {};
}

Status StudyReader::add_sweep(int line) {
  int64_t n = 1;
  for (const Axis& axis : axes_) {
    const auto size = static_cast<int64_t>(axis.values.size());
    if (n > kMostRuns / size) {
      return refuse_at(line,
                       {ErrorCode::kInvalidArgument,
                        fmt::format("sweep: more than {} settings found, want fewer", kMostRuns)});
    }
    n *= size;
  }
  for (int64_t index = 0; index < n; ++index) {
    Draft draft = base_;
    int64_t rest = index;
    int64_t stride = n;
    for (const Axis& axis : axes_) {
      stride /= static_cast<int64_t>(axis.values.size());
      const auto i = static_cast<size_t>(rest / stride);
      rest %= stride;
      apply_knob(axis.values[i], &draft.setting);
      draft.setting.swept.emplace_back(axis.name, axis.values[i].text);
      draft.setting.name += fmt::format("{}{}={}", draft.setting.name.empty() ? "" : ", ",
                                        axis.name, axis.values[i].text);
      draft.lines[axis.name] = axis.lines[i];
      draft.line = axis.lines[i];
    }
    RETURN_IF_ERROR(add_setting(std::move(draft)));
  }
  return {};
}

Status StudyReader::read_variant_seeds(const YamlNode& node, const YamlNode* runs,
                                       StudySetting* setting) {
  if (node.kind != Kind::kList || node.items.empty()) {
    return refuse(node, "seeds: {} found, want a list, one seed for each run, as [111, 222]",
                  quoted_json(to_json(node)));
  }
  for (const YamlNode& item : node.items) {
    ASSIGN_OR_RETURN(setting->seeds.emplace_back(), seed(item, "seeds"));
  }
  const auto n = static_cast<int64_t>(setting->seeds.size());
  if (runs != nullptr && setting->runs != n) {
    return refuse(*runs, "runs: {} found with {} seeds, want as many, or leave runs out",
                  setting->runs, n);
  }
  // A run without a seed of its own would not be the run that was asked for.
  setting->runs = std::min(n, changes_.runs.value_or(n));
  setting->seeds.resize(static_cast<size_t>(setting->runs));
  return {};
}

Status StudyReader::add_variant(const YamlNode& node, const YamlNode& name_node) {
  Draft draft = base_;
  draft.line = name_node.line;
  StudySetting& setting = draft.setting;
  ASSIGN_OR_RETURN(setting.name, label(name_node, "name"));
  // Nothing but a name: the settings of the study as they are.
  if (!node.is_null()) {
    RETURN_IF_ERROR(require_map(node, "variants", kVariantKeys));
  }
  draft.lines.clear();
  if (const YamlNode* settings = node.find("settings")) {
    RETURN_IF_ERROR(apply_map(*settings, "settings", KnobPlace::kSettings, &draft));
  }
  if (const YamlNode* execution = node.find("execution")) {
    RETURN_IF_ERROR(apply_map(*execution, "execution", KnobPlace::kExecution, &draft));
  }
  if (const YamlNode* thinking = node.find("thinking")) {
    RETURN_IF_ERROR(read_thinking(*thinking, &draft));
    draft.lines["thinking"] = thinking->line;
  }
  if (const YamlNode* control = node.find("control")) {
    ASSIGN_OR_RETURN(setting.is_control, flag(*control, "control"));
  }
  const YamlNode* runs = node.find("runs");
  if (runs != nullptr) {
    ASSIGN_OR_RETURN(setting.runs, whole(*runs, "runs", 1, kMostRuns));
  }
  if (const YamlNode* seeds = node.find("seeds")) {
    RETURN_IF_ERROR(read_variant_seeds(*seeds, runs, &setting));
  } else {
    setting.runs = changes_.runs.value_or(setting.runs);
  }
  if (const YamlNode* prompt = node.find("prompt")) {
    ASSIGN_OR_RETURN(std::string wanted, label(*prompt, "prompt"));
    std::vector<std::string_view> names;
    for (const StudyPrompt& known : study_.prompts) {
      names.push_back(known.name);
    }
    if (changes_.prompt) {
      setting.prompt.reset();
    } else if (std::find(names.begin(), names.end(), wanted) == names.end()) {
      return refuse_at(prompt->line, unknown_name(wanted, names, "no prompt has this name"));
    } else {
      setting.prompt = std::move(wanted);
    }
  }
  // The name would promise what is no longer so.
  for (const StudyChanges::Setting& change : changes_.settings) {
    if (change.values.size() == 1 && draft.lines.count(change.values.front().name) > 0) {
      setting.name +=
          fmt::format(" ({}={})", change.values.front().name, change.values.front().text);
    }
  }
  for (const auto& [key, line] : base_.lines) {
    draft.lines.emplace(key, line);
  }
  return add_setting(std::move(draft));
}

Status StudyReader::add_variants(const YamlNode& node) {
  if (node.kind == Kind::kScalar || (node.items.empty() && node.entries.empty())) {
    return refuse(node, "variants: {} found, want a mapping of names to {}, or a list of them",
                  quoted_json(to_json(node)), fmt::join(kVariantKeys, ", "));
  }
  for (const auto& [key, value] : node.entries) {
    if (value.find("name") != nullptr) {
      return refuse(*value.find("name"), "name: found below the name {}, want it once",
                    quoted_json(key.text));
    }
    RETURN_IF_ERROR(add_variant(value, key));
  }
  for (const YamlNode& item : node.items) {
    const YamlNode* name = item.find("name");
    if (name == nullptr) {
      RETURN_IF_ERROR(require_map(item, "variants", kVariantKeys));
      return refuse(item, "variants: one without a name found, want `name: ...` in each");
    }
    RETURN_IF_ERROR(add_variant(item, *name));
  }
  return {};
}

Status StudyReader::add_setting(Draft draft) {
  for (const StudyChanges::Setting& change : changes_.settings) {
    if (change.values.size() == 1) {
      apply_knob(change.values.front(), &draft.setting);
    }
  }
  if (static_cast<int64_t>(study_.settings.size()) == kMostRuns) {
    return refuse_at(draft.line,
                     {ErrorCode::kInvalidArgument,
                      fmt::format("more than {} settings found, want fewer", kMostRuns)});
  }
  if (!setting_names_.insert(draft.setting.name).second) {
    return refuse_at(draft.line, {ErrorCode::kInvalidArgument,
                                  fmt::format("the setting {} found twice, want it once",
                                              quoted_json(draft.setting.name))});
  }
  RETURN_IF_ERROR(check_setting(draft));
  study_.settings.push_back(std::move(draft.setting));
  return {};
}

Status StudyReader::check_setting(const Draft& draft) const {
  // End tokens are the model's to say, and every model that generates has one.
  GenerationConfig model;
  model.eos_token_id = TokenIds{0};
  const GenerationConfig config = merge_generation_config(draft.setting.config, model).config;
  Status status = validate_generation_config(config);
  if (status && config.num_return_sequences.value_or(1) > 1 && config.num_beams.value_or(1) == 1) {
    status = fail(ErrorCode::kInvalidArgument,
                  "num_return_sequences: {} found, want 1 without beams; `runs: {}` makes as many "
                  "runs, each with a seed",
                  *config.num_return_sequences, *config.num_return_sequences);
  }
  if (status) {
    return {};
  }
  Error error = std::move(status).error();
  const std::string name = error.message.substr(0, error.message.find(':'));
  for (const StudyChanges::Setting& change : changes_.settings) {
    if (change.values.front().name == name) {
      return fail_at("--set " + quoted_json(change.word), std::move(error));
    }
  }
  const auto line = draft.lines.find(name);
  return refuse_at(line == draft.lines.end() ? draft.line : line->second, std::move(error));
}

Status StudyReader::check_runs(const YamlNode& root) const {
  int64_t sum = 0;
  const auto n_prompts = static_cast<int64_t>(study_.prompts.size());
  for (const StudySetting& setting : study_.settings) {
    // Neither factor is above 250,000 or 100,000, the sum of no more than 100,000 products.
    sum += setting.runs * (setting.prompt ? 1 : n_prompts);
  }
  if (sum > kMostRuns) {
    return refuse(root, "{} runs found ({} settings, {} prompts), want at most {}", sum,
                  study_.settings.size(), n_prompts, kMostRuns);
  }
  return {};
}

Result<Study> StudyReader::read(const YamlNode& root) {
  RETURN_IF_ERROR(require_map(root, "the study", kStudyKeys));
  RETURN_IF_ERROR(read_texts(root));
  if (root.find("studies") != nullptr) {
    RETURN_IF_ERROR(read_course(root));
    return std::move(study_);
  }
  RETURN_IF_ERROR(read_seeds(root));
  RETURN_IF_ERROR(read_prompts(root));
  RETURN_IF_ERROR(read_measures(root));
  if (const YamlNode* exact = root.find("exact")) {
    RETURN_IF_ERROR(read_exact(*exact));
  }
  if (const YamlNode* candidates = root.find("candidates")) {
    ASSIGN_OR_RETURN(study_.n_candidates, whole(*candidates, "candidates", 0, kMostCandidates));
  }
  study_.n_candidates = changes_.n_candidates.value_or(study_.n_candidates);
  if (const YamlNode* published = root.find("published_jaccard")) {
    ASSIGN_OR_RETURN(study_.published_jaccard, flag(*published, "published_jaccard"));
  }
  RETURN_IF_ERROR(read_base(root));
  RETURN_IF_ERROR(read_axes(root));
  const YamlNode* variants = root.find("variants");
  RETURN_IF_ERROR(change_axes(variants != nullptr));
  const YamlNode* sweep = root.find("sweep");
  const int sweep_line = sweep == nullptr ? root.line : sweep->line;
  // In the order of the file.
  if (variants != nullptr && variants->line < sweep_line) {
    RETURN_IF_ERROR(add_variants(*variants));
    variants = nullptr;
  }
  if (!axes_.empty()) {
    RETURN_IF_ERROR(add_sweep(sweep_line));
  }
  if (variants != nullptr) {
    RETURN_IF_ERROR(add_variants(*variants));
  }
  if (study_.settings.empty()) {
    base_.setting.name = "the settings";
    RETURN_IF_ERROR(add_setting(std::move(base_)));
  }
  RETURN_IF_ERROR(check_runs(root));
  return std::move(study_);
}

}  // namespace

Result<Study> read_study(const YamlNode& root, std::string_view where,
                         const StudyChanges& changes) {
  return StudyReader(where, changes).read(root);
}

}  // namespace logitlab
