#include "base/error.h"

#include <array>

#include "base/check.h"

namespace logitlab {
namespace {

struct CodeRow {
  ErrorCode code;
  std::string_view name;
  int exit_code;
};

constexpr std::array<CodeRow, 9> kCodes = {{
    {ErrorCode::kUsage, "usage", 2},
    {ErrorCode::kInvalidArgument, "invalid_argument", 3},
    {ErrorCode::kNotFound, "not_found", 3},
    {ErrorCode::kDataLoss, "data_loss", 3},
    {ErrorCode::kUnsupported, "unsupported", 3},
    {ErrorCode::kResourceExhausted, "resource_exhausted", 4},
    {ErrorCode::kUnavailable, "unavailable", 4},
    {ErrorCode::kCancelled, "cancelled", 130},
    {ErrorCode::kInternal, "internal", 70},
}};

const CodeRow& row_of(ErrorCode code) {
  for (const CodeRow& row : kCodes) {
    if (row.code == code) {
      return row;
    }
  }
  CHECK(false) << "ErrorCode " << static_cast<int>(code) << " has no row";
  return kCodes.back();
}

}  // namespace

std::string_view code_name(ErrorCode code) {
  return row_of(code).name;
}

int exit_code(ErrorCode code) {
  return row_of(code).exit_code;
}

}  // namespace logitlab
