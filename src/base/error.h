// What a file, a flag, a client or a device can cause is a value of type Error; what only a bug can
// cause is a CHECK (check.h). Result<T> carries one or the other; our code does not throw.
#pragma once

#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <fmt/format.h>
#include <tl/expected.hpp>

namespace logitlab {

// Canonical kinds of error. exit_code() and code_name() hold the one table that maps them.
enum class ErrorCode {
  kUsage,              // the command line cannot be understood
  kInvalidArgument,    // a setting, a prompt or a file's content is wrong
  kNotFound,           // a model, a file, a revision, a tensor is absent
  kDataLoss,           // a file is truncated or contradicts itself
  kUnsupported,        // well formed, but of a kind that this build does not handle
  kResourceExhausted,  // memory, a limit, a budget
  kUnavailable,        // a device or a remote server
  kCancelled,          // the user stopped it
  kInternal,           // a bug, reported instead of aborting
};

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  // What, where, found, wanted, what to do. No "failed", no "error:", no full stop at the end.
  std::string message;
};

template <typename T>
using Result = tl::expected<T, Error>;
using Status = Result<void>;

// "invalid_argument", "not_found", ...: the spelling in JSON.
std::string_view code_name(ErrorCode code);

// Exit codes of the command: 0 done, 2 usage, 3 input, 4 resources, 5 remote, 70 bug, 130
// cancelled.
int exit_code(ErrorCode code);

// Builds the unexpected value: `return fail(ErrorCode::kNotFound, "{}: no such file", path);`
template <typename... Args>
[[nodiscard]] tl::unexpected<Error> fail(ErrorCode code, fmt::format_string<Args...> format,
                                         Args&&... args) {
  return tl::unexpected<Error>(Error{code, fmt::format(format, std::forward<Args>(args)...)});
}

// The same error with "where: " in front of its message.
[[nodiscard]] inline tl::unexpected<Error> fail_at(std::string_view where, Error error) {
  error.message = fmt::format("{}: {}", where, error.message);
  return tl::unexpected<Error>(std::move(error));
}

}  // namespace logitlab

#define LOGITLAB_CONCAT_INNER(a, b) a##b
#define LOGITLAB_CONCAT(a, b) LOGITLAB_CONCAT_INNER(a, b)

// Returns the error of `expr` (a Result or Status) from the enclosing function, if it has one.
#define RETURN_IF_ERROR(expr)                                                       \
  do {                                                                              \
    auto logitlab_status = (expr);                                                  \
    if (!logitlab_status) {                                                         \
      return tl::unexpected<::logitlab::Error>(std::move(logitlab_status).error()); \
    }                                                                               \
  } while (false)

// ASSIGN_OR_RETURN(auto x, load(path)): assigns the value, or returns the error.
#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_INNER(LOGITLAB_CONCAT(logitlab_result_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(result, lhs, expr)                        \
  auto result = (expr);                                                  \
  if (!result) {                                                         \
    return tl::unexpected<::logitlab::Error>(std::move(result).error()); \
  }                                                                      \
  lhs = std::move(result).value()
