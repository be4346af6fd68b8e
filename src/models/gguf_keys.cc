#include "models/gguf_keys.h"

#include <cmath>

namespace logitlab {

std::string GgufKeys::key(std::string_view suffix) const {
  return fmt::format("{}.{}", architecture_, suffix);
}

Result<int64_t> GgufKeys::size(std::string_view suffix, int64_t missing, int64_t high,
                               int64_t low) const {
  ASSIGN_OR_RETURN(const auto value, metadata_.get_int(key(suffix)));
  if (!value && missing < 0) {
    return fail(ErrorCode::kInvalidArgument, "{}: no key {}", metadata_.where(), key(suffix));
  }
  const int64_t number = value.value_or(missing);
  if (number < low || number > high) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want {} to {}", metadata_.where(),
                key(suffix), number, low, high);
  }
  return number;
}

Result<double> GgufKeys::number(std::string_view suffix, double missing) const {
  ASSIGN_OR_RETURN(const auto value, metadata_.get_float(key(suffix)));
  return value.value_or(missing);
}

Result<double> GgufKeys::positive(std::string_view suffix, double missing) const {
  ASSIGN_OR_RETURN(const double value, number(suffix, missing));
  if (!(value > 0) || !std::isfinite(value)) {
    return fail(ErrorCode::kInvalidArgument, "{}: {} is {}, want a number above 0",
                metadata_.where(), key(suffix), value);
  }
  return value;
}

Result<std::vector<int64_t>> GgufKeys::per_layer(std::string_view suffix, int64_t n_layers,
                                                 int64_t missing) const {
  ASSIGN_OR_RETURN(auto values, metadata_.get_ints(key(suffix)));
  if (!values) {
    if (missing < 0) {
      return fail(ErrorCode::kInvalidArgument, "{}: no key {}", metadata_.where(), key(suffix));
    }
    values = std::vector<int64_t>{missing};
  }
  if (values->size() == 1) {
    values->resize(static_cast<size_t>(n_layers), values->front());
  }
  if (values->size() < static_cast<size_t>(n_layers)) {
    return fail(ErrorCode::kInvalidArgument,
                "{}: {} has {} numbers, want one for each of {} layers", metadata_.where(),
                key(suffix), values->size(), n_layers);
  }
  values->resize(static_cast<size_t>(n_layers));
  for (size_t i = 0; i < values->size(); ++i) {
    if ((*values)[i] < 0 || (*values)[i] > kMaxModelSize) {
      return fail(ErrorCode::kInvalidArgument, "{}: {}[{}] is {}, want 0 to {}", metadata_.where(),
                  key(suffix), i, (*values)[i], kMaxModelSize);
    }
  }
  return std::move(*values);
}

}  // namespace logitlab
