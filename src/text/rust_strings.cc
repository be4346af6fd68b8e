#include "text/rust_strings.h"

#include "base/utf8.h"

namespace logitlab {

std::string take_string(LogitlabTextString value) {
  std::string text(reinterpret_cast<const char*>(value.data), value.size);
  logitlab_text_string_free(value);
  return text;
}

tl::unexpected<Error> take_error(int32_t status, LogitlabTextError error, std::string_view where) {
  // A template or a tokenizer.json may have put anything into it.
  const std::string message = printable(take_string(error.message));
  // A limit is there for templates that do not end: the input is wrong, not the machine too small.
  // The libraries' panics, too, come from files: a tokenizer.json whose parts contradict each
  // other.
  ErrorCode code = ErrorCode::kInternal;
  if (status == kLogitlabTextInvalid || status == kLogitlabTextRaised ||
      status == kLogitlabTextLimit || status == kLogitlabTextInternal) {
    code = ErrorCode::kInvalidArgument;
  }
  if (error.line > 0) {
    return fail(code, "{}: line {}: {}", where, error.line, message);
  }
  return fail(code, "{}: {}", where, message);
}

}  // namespace logitlab
