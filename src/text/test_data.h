// What the tests of text/ share: recorded data.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"

namespace logitlab {

inline std::filesystem::path data_path(std::string_view name) {
  return std::filesystem::path(LOGITLAB_SOURCE_DIR) / "tests" / "data" / name;
}

// An empty text and a failed test when the file cannot be read.
inline std::string read_data(std::string_view name) {
  Result<std::string> text = read_text_file(data_path(name), size_t{64} << 20);
  if (!text) {
    ADD_FAILURE() << text.error().message;
    return {};
  }
  return *text;
}

inline Json read_json_data(std::string_view name) {
  Result<Json> json = parse_json(read_data(name), name);
  if (!json) {
    ADD_FAILURE() << json.error().message;
    return Json::object();
  }
  return *json;
}

}  // namespace logitlab
