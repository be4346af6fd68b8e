#include <algorithm>
#include <csignal>
#include <exception>
#include <fcntl.h>
#include <new>
#include <string>
#include <unistd.h>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "base/error.h"
#include "base/utf8.h"
#include "build_version.h"
#include "command.h"
#include "help_page.h"
#include "json_out.h"
#include "nearest_name.h"
#include "terminal.h"

namespace logitlab {
namespace {

// Opens /dev/null in place of closed standard descriptors, so that no file that is opened later
// takes their numbers. False when standard output was closed.
bool occupy_standard_descriptors() {
  bool is_out_open = true;
  for (int fd = 0; fd <= 2; ++fd) {
    if (::fcntl(fd, F_GETFD) == -1) {
      is_out_open = is_out_open && fd != STDOUT_FILENO;
      if (::open("/dev/null", O_RDWR) != fd) {
        return false;
      }
    }
  }
  return is_out_open;
}

int report(Terminal* terminal, const Error& error, bool json) {
  if (json) {
    Json document = Json::object();
    document["error"] = json_of(error);
    print_json(terminal, document);
  }
  terminal->note(fmt::format("logitlab: {}\n", printable(error.message)));
  return exit_code(error.code);
}

std::vector<std::string> flag_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
  }
  return names;
}

Error usage_error(const Command& command, const std::string& found) {
  return {ErrorCode::kUsage,
          fmt::format("{}: {}; see `logitlab {} --help`", command.name, found, command.name)};
}

// CLI11's complaint in our words.
Error explain(const CLI::App& app, const Command& command, const CLI::ParseError& error) {
  std::vector<std::string> extra = app.remaining();
  extra.erase(std::remove(extra.begin(), extra.end(), "--"), extra.end());
  if (!extra.empty()) {
    const std::string& word = extra.front();
    if (word.empty() || word.front() != '-') {
      return usage_error(command, fmt::format("`{}` is one argument too many", word));
    }
    const std::string nearest = nearest_name(word.substr(0, word.find('=')), flag_names(app));
    return usage_error(
        command, fmt::format("there is no flag {}{}", word,
                             nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest)));
  }
  return usage_error(command, error.what());
}

Error unknown_command(const std::string& word) {
  std::vector<std::string> names;
  std::string list;
  for (const Command& command : commands()) {
    names.emplace_back(command.name);
    list += (list.empty() ? "" : ", ") + std::string(command.name);
  }
  const std::string nearest = nearest_name(word, names);
  return {ErrorCode::kUsage,
          nearest.empty()
              ? fmt::format("there is no command `{}`; there are {}", word, list)
              : fmt::format("there is no command `{}`; did you mean `{}`?", word, nearest)};
}

int print_version(Terminal* terminal) {
  terminal->print(fmt::format("logitlab {} commit {} ({}, {})\n", build_version(), build_commit(),
                              build_compiler(), build_type()));
  return 0;
}

int run_command(const Command& command, std::vector<std::string> args, Terminal* terminal) {
  // What follows "--" is text, not flags.
  const auto flags_end = std::find(args.begin(), args.end(), "--");
  bool json = std::find(args.begin(), flags_end, "--json") != flags_end;
  std::string color = "auto";
  CLI::App app(std::string(command.summary), fmt::format("logitlab {}", command.name));
  app.set_help_flag();
  const Action action = command.declare(app);
  app.add_flag("--json", json, "One JSON document on standard output instead of text.")
      ->group("Output");
  app.add_option("--color", color,
                 "Colours: auto (on a terminal, unless NO_COLOR is set), always, "
                 "never. Default auto.")
      ->type_name("WHEN")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->group("Output");
  app.set_help_flag("-h,--help", "This page.")->group("Output");
  std::reverse(args.begin(), args.end());  // as CLI11 wants them
  std::optional<Error> usage;
  bool wants_help = false;
  try {
    app.parse(args);
  } catch (const CLI::CallForHelp&) {
    wants_help = true;
  } catch (const CLI::ParseError& error) {
    usage = explain(app, command, error);
  }
  terminal->set_color_mode(color == "always"  ? ColorMode::kAlways
                           : color == "never" ? ColorMode::kNever
                                              : ColorMode::kAuto);
  if (usage) {
    return report(terminal, *usage, json);
  }
  if (wants_help) {
    terminal->print(command_page(*terminal, command, app));
    return 0;
  }
  Invocation invocation{*terminal, json};
  const Result<int> code = action(invocation);
  if (!code) {
    return terminal->reader_has_gone() ? 0 : report(terminal, code.error(), json);
  }
  return *code;
}

int dispatch(std::vector<std::string> args, Terminal* terminal) {
  if (args.empty()) {
    terminal->print(overview_page(*terminal));
    return exit_code(ErrorCode::kUsage);
  }
  std::string word = args.front();
  args.erase(args.begin());
  if (word == "--version" || word == "version") {
    return print_version(terminal);
  }
  if (word == "--help" || word == "-h" || word == "help") {
    if (args.empty() || args.front().empty() || args.front().front() == '-') {
      terminal->print(overview_page(*terminal));
      return 0;
    }
    word = args.front();
    args = {"--help"};
  }
  const Command* command = find_command(word);
  if (command == nullptr) {
    const bool json = std::find(args.begin(), args.end(), "--json") != args.end();
    if (!word.empty() && word.front() == '-') {
      return report(
          terminal,
          {ErrorCode::kUsage, fmt::format("{}: a command comes first, its flags after it; see "
                                          "`logitlab --help`",
                                          word)},
          json);
    }
    return report(terminal, unknown_command(word), json);
  }
  return run_command(*command, std::move(args), terminal);
}

int run(std::vector<std::string> args) {
  const bool is_out_open = occupy_standard_descriptors();
  // A reader that goes away shows as an error of write, which Terminal handles.
  std::signal(SIGPIPE, SIG_IGN);
  Terminal terminal;
  if (!is_out_open) {
    return report(&terminal,
                  {ErrorCode::kResourceExhausted,
                   "standard output is closed; there is nowhere to write the result"},
                  false);
  }
  const int code = dispatch(std::move(args), &terminal);
  const Status written = terminal.close();
  if (!written) {
    return report(&terminal, written.error(), false);
  }
  return code;
}

int die(const char* what, logitlab::ErrorCode code) {
  // The terminal is gone by now: one write, no allocation.
  const std::string_view parts[] = {"logitlab: ", what, "\n"};
  for (const std::string_view part : parts) {
    (void)!::write(STDERR_FILENO, part.data(), part.size());
  }
  return exit_code(code);
}

}  // namespace
}  // namespace logitlab

// NOLINTNEXTLINE(bugprone-exception-escape): everything is caught below.
int main(int argc, char** argv) {
  try {
    return logitlab::run(std::vector<std::string>(argv + 1, argv + std::max(argc, 1)));
  } catch (const std::bad_alloc&) {
    return logitlab::die("out of memory", logitlab::ErrorCode::kResourceExhausted);
  } catch (const std::exception& error) {
    return logitlab::die(error.what(), logitlab::ErrorCode::kInternal);
  } catch (...) {
    return logitlab::die("an unknown exception", logitlab::ErrorCode::kInternal);
  }
}
