#include "text/load_text.h"

#include <algorithm>
#include <system_error>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "text/gguf_tokenizer.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

// A tokenizer.json of 256,000 tokens has some 35 MB.
constexpr size_t kMaxTokenizerBytes = size_t{512} << 20;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;

// transformers' SPECIAL_TOKENS_ATTRIBUTES, in its order.
constexpr std::string_view kTokenNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                            "pad_token", "cls_token", "mask_token"};

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// An empty object when there is no such file.
Result<Json> read_json_object(const fs::path& path) {
  if (!is_there(path)) {
    return Json::object();
  }
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxConfigBytes));
  ASSIGN_OR_RETURN(Json json, parse_json(text, path.string(), {.allow_python_numbers = true}));
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "{}: found {}, want a JSON object", path.string(),
                json.type_name());
  }
  return json;
}

// A token is a string or an AddedToken object; nullopt for null and for anything else.
std::optional<std::string> token_content(const Json& value) {
  if (value.is_string()) {
    return value.get<std::string>();
  }
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    return value["content"].get<std::string>();
  }
  return std::nullopt;
}

void set_token(SpecialTokens* tokens, std::string_view name, std::string content) {
  for (auto& [key, value] : *tokens) {
    if (key == name) {
      value = std::move(content);
      return;
    }
  }
  tokens->emplace_back(name, std::move(content));
}

// Named tokens of one file: the known names and whatever else is called "..._token".
void read_named_tokens(const Json& config, SpecialTokens* tokens) {
  for (const std::string_view name : kTokenNames) {
    if (const auto found = config.find(std::string(name)); found != config.end()) {
      if (std::optional<std::string> content = token_content(*found)) {
        set_token(tokens, name, std::move(*content));
      }
    }
  }
  for (const auto& [name, value] : config.items()) {
    if (name.ends_with("_token") && (value.is_string() || value.is_object())) {
      if (std::optional<std::string> content = token_content(value)) {
        set_token(tokens, name, std::move(*content));
      }
    }
  }
  if (const auto extra = config.find("extra_special_tokens");
      extra != config.end() && extra->is_object()) {
    for (const auto& [name, value] : extra->items()) {
      if (std::optional<std::string> content = token_content(value)) {
        set_token(tokens, name, std::move(*content));
      }
    }
  }
}

Json added_token(const Json& value, bool only_if_absent) {
  Json token = value.is_object() ? value : Json{{"content", value}, {"special", true}};
  token["only_if_absent"] = only_if_absent;
  return token;
}

// Entries of added_tokens_decoder, by id.
Result<Json> tokens_by_id(const Json& decoder, std::string_view where) {
  std::vector<std::pair<int64_t, Json>> entries;
  if (!decoder.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "{}: added_tokens_decoder is {}, want an object",
                where, decoder.type_name());
  }
  for (const auto& [key, value] : decoder.items()) {
    if (!value.is_object() || !token_content(value) || key.empty() || key.size() > 9 ||
        key.find_first_not_of("0123456789") != std::string::npos) {
      return fail(ErrorCode::kInvalidArgument,
                  "{}: added_tokens_decoder[\"{}\"]: want an id and an object with \"content\"",
                  where, key);
    }
    entries.emplace_back(std::stol(key), added_token(value, /*only_if_absent=*/false));
  }
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  Json list = Json::array();
  for (auto& [id, token] : entries) {
    list.push_back(std::move(token));
  }
  return list;
}

// What transformers adds to the tokenizer after it has read tokenizer.json.
Result<Json> read_more_tokens(const Json& config, const Json& token_map, const fs::path& folder,
                              SpecialTokens* tokens) {
  const std::string where = (folder / "tokenizer_config.json").string();
  read_named_tokens(config, tokens);
  Json more = Json::array();
  if (config.contains("added_tokens_decoder")) {
    ASSIGN_OR_RETURN(more, tokens_by_id(config["added_tokens_decoder"], where));
  } else {
    read_named_tokens(token_map, tokens);
    ASSIGN_OR_RETURN(const Json added, read_json_object(folder / "added_tokens.json"));
    for (const auto& [content, id] : added.items()) {
      const bool is_special = std::any_of(tokens->begin(), tokens->end(), [&](const auto& named) {
        return named.second == content;
      });
      more.push_back({{"content", content}, {"special", is_special}, {"only_if_absent", true}});
    }
  }
  for (const auto& [name, content] : *tokens) {
    more.push_back(added_token(Json(content), /*only_if_absent=*/true));
  }
  for (const Json* source : {&config, &token_map}) {
    for (const char* key : {"extra_special_tokens", "additional_special_tokens"}) {
      if (source->contains(key) && (*source)[key].is_array()) {
        for (const Json& token : (*source)[key]) {
          if (token_content(token)) {
            Json entry = added_token(token, /*only_if_absent=*/true);
            entry["special"] = true;
            more.push_back(std::move(entry));
          }
        }
      }
    }
  }
  return more;
}

// chat_template.jinja and additional_chat_templates/*.jinja; empty when there are none.
Result<std::vector<NamedTemplate>> read_template_files(const fs::path& folder) {
  std::vector<NamedTemplate> templates;
  if (const fs::path path = folder / "chat_template.jinja"; is_there(path)) {
    ASSIGN_OR_RETURN(std::string source, read_text_file(path, kMaxConfigBytes));
    templates.push_back({"default", std::move(source)});
  }
  std::error_code error;
  std::vector<fs::path> more;
  for (fs::directory_iterator it(folder / "additional_chat_templates", error), end;
       !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".jinja") {
      more.push_back(it->path());
    }
  }
  std::sort(more.begin(), more.end());
  for (const fs::path& path : more) {
    ASSIGN_OR_RETURN(std::string source, read_text_file(path, kMaxConfigBytes));
    templates.push_back({path.stem().string(), std::move(source)});
  }
  return templates;
}

// The key "chat_template" of tokenizer_config.json: a string, or a list of {name, template}.
Result<std::vector<NamedTemplate>> read_config_templates(const Json& config,
                                                         std::string_view where) {
  std::vector<NamedTemplate> templates;
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) {
    return templates;
  }
  if (found->is_string()) {
    templates.push_back({"default", found->get<std::string>()});
    return templates;
  }
  const auto is_text = [](const Json& entry, const char* key) {
    return entry.is_object() && entry.contains(key) && entry[key].is_string();
  };
  if (found->is_array()) {
    for (const Json& entry : *found) {
      if (!is_text(entry, "name") || !is_text(entry, "template")) {
        return fail(ErrorCode::kInvalidArgument,
                    "{}: chat_template: want a string or a list of objects with the strings "
                    "\"name\" and \"template\"",
                    where);
      }
      templates.push_back({entry["name"].get<std::string>(), entry["template"].get<std::string>()});
    }
    return templates;
  }
  return fail(ErrorCode::kInvalidArgument, "{}: chat_template: found {}, want a string or a list",
              where, found->type_name());
}

tl::unexpected<Error> no_tokenizer(const fs::path& folder) {
  std::string found;
  for (const char* name : {"tokenizer.model", "tekken.json", "vocab.json", "vocab.txt"}) {
    if (is_there(folder / name)) {
      found += fmt::format("{}{}", found.empty() ? "" : ", ", name);
    }
  }
  if (found.empty()) {
    return fail(ErrorCode::kNotFound,
                "{}: no tokenizer.json; copy it here from where the model came from",
                folder.string());
  }
  return fail(ErrorCode::kNotFound,
              "{}: no tokenizer.json, only {}; let transformers write one: "
              "AutoTokenizer.from_pretrained(\"{}\").save_pretrained(\"{}\")",
              folder.string(), found, folder.string(), folder.string());
}

Status attach_templates(std::vector<NamedTemplate> templates, std::string_view where,
                        TextModel* model) {
  if (templates.empty()) {
    return {};
  }
  ASSIGN_OR_RETURN(model->chat_template,
                   ChatTemplate::create(std::move(templates), model->special_tokens, where));
  return {};
}

// Whether an empty text gets BOS in front.
Status find_bos(TextModel* model) {
  const std::optional<std::string> bos = find_special_token(model->special_tokens, "bos_token");
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids, model->tokenizer->encode(""));
  model->adds_bos = bos && !ids.empty() && model->tokenizer->token(ids.front()) == bos;
  return {};
}

}  // namespace

Result<TextModel> load_text_from_folder(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (!is_there(path)) {
    return no_tokenizer(folder);
  }
  const fs::path config_path = folder / "tokenizer_config.json";
  ASSIGN_OR_RETURN(const Json config, read_json_object(config_path));
  ASSIGN_OR_RETURN(const Json token_map, read_json_object(folder / "special_tokens_map.json"));
  TextModel model;
  ASSIGN_OR_RETURN(const Json more,
                   read_more_tokens(config, token_map, folder, &model.special_tokens));
  Tokenizer::Options options;
  options.more_tokens = dump_json(more);
  if (const auto found = config.find("clean_up_tokenization_spaces"); found != config.end()) {
    options.clean_up_tokenization_spaces = found->is_boolean() && found->get<bool>();
  }
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, kMaxTokenizerBytes));
  ASSIGN_OR_RETURN(model.tokenizer, Tokenizer::from_json(text, path.string(), options));
  RETURN_IF_ERROR(find_bos(&model));
  ASSIGN_OR_RETURN(std::vector<NamedTemplate> templates, read_template_files(folder));
  std::string where = (folder / "chat_template.jinja").string();
  if (templates.empty()) {
    where = config_path.string() + ": chat_template";
    ASSIGN_OR_RETURN(templates, read_config_templates(config, config_path.string()));
  }
  RETURN_IF_ERROR(attach_templates(std::move(templates), where, &model));
  return model;
}

Result<TextModel> load_text_from_gguf(const GgufVocab& vocab, std::string_view where) {
  TextModel model;
  ASSIGN_OR_RETURN(const std::string json, gguf_tokenizer_json(vocab, where));
  ASSIGN_OR_RETURN(model.tokenizer, Tokenizer::from_json(json, where));
  const std::pair<std::string_view, std::optional<TokenId>> named[] = {{"bos_token", vocab.bos_id},
                                                                       {"eos_token", vocab.eos_id},
                                                                       {"unk_token", vocab.unk_id},
                                                                       {"pad_token", vocab.pad_id}};
  for (const auto& [name, id] : named) {
    if (id) {
      model.special_tokens.emplace_back(name, vocab.tokens[static_cast<size_t>(*id)]);
    }
  }
  RETURN_IF_ERROR(find_bos(&model));
  std::vector<NamedTemplate> templates;
  if (!vocab.chat_template.empty()) {
    templates.push_back({"default", vocab.chat_template});
  }
  for (const auto& [name, source] : vocab.named_chat_templates) {
    templates.push_back({name, source});
  }
  RETURN_IF_ERROR(attach_templates(std::move(templates),
                                   fmt::format("{}: tokenizer.chat_template", where), &model));
  return model;
}

}  // namespace logitlab
