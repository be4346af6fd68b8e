#include "text_input.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "base/utf8.h"

namespace logitlab {
namespace {

Result<std::string> read_standard_input() {
  std::string text;
  std::array<char, 65536> chunk{};
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, chunk.data(), chunk.size());
    if (n == 0) {
      return text;
    }
    if (n < 0) {
      if (errno == EINTR) {
        continue;
      }
      return fail(ErrorCode::kInvalidArgument, "standard input: {}", std::strerror(errno));
    }
    text.append(chunk.data(), static_cast<size_t>(n));
    if (text.size() > kMaxInputBytes) {
      return fail(ErrorCode::kResourceExhausted, "standard input: more than {} bytes of text",
                  kMaxInputBytes);
    }
  }
}

}  // namespace

void TextInput::declare(CLI::App& app, const std::string& name, const std::string& meaning) {
  argument_option = app.add_option(name, argument,
                                   meaning +
                                       " `-` reads standard input. After `--` a text may "
                                       "start with a dash.")
                        ->group("Input");
  app.add_option("-f,--file", file,
                 "Reads the text from a file, byte for byte (a last line break included).")
      ->type_name("FILE")
      ->group("Input");
}

bool TextInput::is_given() const {
  const auto* option = static_cast<const CLI::Option*>(argument_option);
  return !file.empty() || (option != nullptr && option->count() > 0);
}

Result<std::string> TextInput::read(std::string_view what) const {
  const bool has_argument = static_cast<const CLI::Option*>(argument_option)->count() > 0;
  if (!is_given()) {
    return fail(ErrorCode::kUsage,
                "there is no {}: give it as an argument, with --file FILE, or `-` for standard "
                "input",
                what);
  }
  if (has_argument && !file.empty()) {
    return fail(ErrorCode::kUsage, "two {}s: an argument and --file {}; want one of them", what,
                file);
  }
  std::string text = argument;
  std::string where(what);
  if (!file.empty() || argument == "-") {
    where = file.empty() ? "standard input" : file;
    ASSIGN_OR_RETURN(text, read_text(file.empty() ? "-" : file));
  }
  RETURN_IF_ERROR(require_utf8(text, where));
  return text;
}

Result<std::string> read_text(const std::string& path) {
  return path == "-" ? read_standard_input() : read_text_file(path, kMaxInputBytes);
}

Result<std::vector<TokenId>> parse_ids(const std::vector<std::string>& words) {
  std::vector<TokenId> ids;
  for (const std::string& word : words) {
    const char* at = word.data();
    const char* const end = at + word.size();
    while (at < end) {
      if (*at == ' ' || *at == ',' || *at == '\n' || *at == '\t') {
        ++at;
        continue;
      }
      TokenId id = 0;
      const auto [stop, error] = std::from_chars(at, end, id);
      const bool is_ended =
          stop == end || *stop == ',' || *stop == ' ' || *stop == '\n' || *stop == '\t';
      if (error != std::errc() || !is_ended || id < 0) {
        return fail(ErrorCode::kUsage, "ids: `{}` is not a list of token ids; want 1,2,3",
                    printable(word.substr(0, 60)));
      }
      ids.push_back(id);
      at = stop;
    }
  }
  return ids;
}

}  // namespace logitlab
