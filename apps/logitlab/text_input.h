// Text from an argument, a file or standard input.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "command.h"
#include "logitlab/types.h"

namespace logitlab {

inline constexpr size_t kMaxInputBytes = size_t{64} << 20;

struct TextInput {
  std::string argument;
  std::string file;
  const void* argument_option = nullptr;  // CLI::Option*, to tell "" from nothing

  // A positional argument `name` and --file; `meaning` says what the text is.
  void declare(CLI::App& app, const std::string& name, const std::string& meaning);
  [[nodiscard]] bool is_given() const;
  // The bytes exactly as they are, a last line break included. kUsage when none or two were given;
  // kInvalidArgument when they are not UTF-8; errors of reading.
  [[nodiscard]] Result<std::string> read(std::string_view what) const;
};

// A file, or standard input for "-"; at most kMaxInputBytes.
[[nodiscard]] Result<std::string> read_text(const std::string& path);

// "1,2,3" or several such words; white space is allowed. kUsage names the word.
[[nodiscard]] Result<std::vector<TokenId>> parse_ids(const std::vector<std::string>& words);

}  // namespace logitlab
