#include "engine/model_defaults.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "formats/hf_config.h"
#include "sampling/generation_fields.h"

namespace logitlab {

Result<ModelDefaults> read_defaults_from_folder(const std::filesystem::path& folder) {
  constexpr std::string_view kOwnFile = "generation_config.json";
  // Anything of that name counts, a broken link too: reading it then says what is wrong.
  std::error_code error;
  const bool has_own = std::filesystem::symlink_status(folder / kOwnFile, error).type() !=
                       std::filesystem::file_type::not_found;
  const std::string origin = has_own ? std::string(kOwnFile) : "config.json";
  ASSIGN_OR_RETURN(const Json json, has_own ? read_generation_config(folder) : read_config(folder));
  ASSIGN_OR_RETURN(
      ParsedConfig parsed,
      generation_config_from_json(json, (folder / origin).string(), UnknownKeys::kIgnore));
  ModelDefaults defaults;
  defaults.config = std::move(parsed.config);
  defaults.ignored = std::move(parsed.ignored);
  for (const TokenId id : defaults.config.eos_token_id.value_or(std::vector<TokenId>{})) {
    defaults.stop_ids.push_back({id, origin});
  }
  return defaults;
}

ModelDefaults defaults_from_gguf(const GgufVocab& vocab) {
  ModelDefaults defaults;
  struct Source {
    std::optional<TokenId> id;
    const char* key;
  };
  const std::array<Source, 3> sources = {{{vocab.eos_id, "tokenizer.ggml.eos_token_id"},
                                          {vocab.eot_id, "tokenizer.ggml.eot_token_id"},
                                          {vocab.eom_id, "tokenizer.ggml.eom_token_id"}}};
  std::vector<TokenId> ids;
  for (const Source& source : sources) {
    if (source.id && std::find(ids.begin(), ids.end(), *source.id) == ids.end()) {
      ids.push_back(*source.id);
      defaults.stop_ids.push_back({*source.id, source.key});
    }
  }
  if (!ids.empty()) {
    defaults.config.eos_token_id = std::move(ids);
  }
  defaults.config.bos_token_id = vocab.bos_id;
  defaults.config.pad_token_id = vocab.pad_id;
  return defaults;
}

}  // namespace logitlab
