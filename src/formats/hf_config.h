// config.json and generation_config.json of a Hugging Face model folder, and typed access to JSON
// objects from outside. Users of the getters include <nlohmann/json.hpp> themselves.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace logitlab {

inline constexpr size_t kMaxConfigBytes = size_t{4} << 20;

// An object. Python's bare Infinity, -Infinity, NaN and the tagged {"__float__": "Infinity"} are
// numbers in the result. kInvalidArgument (not JSON, not an object, more than 20000 keys).
[[nodiscard]] Result<Json> parse_config(std::string_view text, std::string_view where);

// parse_config on <folder>/config.json. kNotFound, kInvalidArgument (larger than the limit).
[[nodiscard]] Result<Json> read_config(const std::filesystem::path& folder);

// <folder>/generation_config.json; an empty object when there is none.
[[nodiscard]] Result<Json> read_generation_config(const std::filesystem::path& folder);

// Any small JSON object of the folder (tokenizer_config.json, ...), as parse_config.
[[nodiscard]] Result<Json> read_json_object(const std::filesystem::path& path, size_t max_bytes);

// Typed access to a key of an object. nullopt: absent or null. kInvalidArgument names `where`, the
// key, what was found and what was wanted. `where` is the path so far ("config.json",
// "config.json: rope_scaling"). No conversion between kinds: true is not 1, 1.0 is not an integer,
// but an integer is a float.
[[nodiscard]] Result<std::optional<int64_t>> get_int(const Json& object, std::string_view key,
                                                     std::string_view where);
[[nodiscard]] Result<std::optional<double>> get_float(const Json& object, std::string_view key,
                                                      std::string_view where);
[[nodiscard]] Result<std::optional<bool>> get_bool(const Json& object, std::string_view key,
                                                   std::string_view where);
[[nodiscard]] Result<std::optional<std::string>> get_string(const Json& object,
                                                            std::string_view key,
                                                            std::string_view where);
// An integer or a list of integers (eos_token_id is written both ways).
[[nodiscard]] Result<std::optional<std::vector<int64_t>>> get_int_list(const Json& object,
                                                                       std::string_view key,
                                                                       std::string_view where);
// A number or a list of numbers.
[[nodiscard]] Result<std::optional<std::vector<double>>> get_float_list(const Json& object,
                                                                        std::string_view key,
                                                                        std::string_view where);
// A string or a list of strings.
[[nodiscard]] Result<std::optional<std::vector<std::string>>> get_string_list(
    const Json& object, std::string_view key, std::string_view where);
// nullptr: absent or null. Lives as long as `object`.
[[nodiscard]] Result<const Json*> get_object(const Json& object, std::string_view key,
                                             std::string_view where);

// get_int, but absence is kInvalidArgument and the value must lie in [low, high].
[[nodiscard]] Result<int64_t> require_int(const Json& object, std::string_view key,
                                          std::string_view where, int64_t low, int64_t high);

}  // namespace logitlab
