#include "models/registry.h"

#include <algorithm>
#include <array>

#include <fmt/ranges.h>

#include "base/utf8.h"
#include "models/arch/llama.h"
#include "models/arch/nemotron_h.h"

namespace logitlab {
namespace {

bool contains(std::span<const std::string_view> names, std::string_view wanted) {
  return std::find(names.begin(), names.end(), wanted) != names.end();
}

using NameList = std::span<const std::string_view> ArchitectureEntry::*;

Result<const ArchitectureEntry*> find(std::string_view wanted, NameList names,
                                      std::string_view what) {
  std::vector<std::string_view> known;
  for (const ArchitectureEntry& entry : architectures()) {
    if (contains(entry.*names, wanted)) {
      return &entry;
    }
    known.insert(known.end(), (entry.*names).begin(), (entry.*names).end());
  }
  return fail(ErrorCode::kUnsupported, "{} '{}' is not supported; known are {}", what,
              printable(wanted.substr(0, 80)), fmt::join(known, ", "));
}

}  // namespace

std::span<const ArchitectureEntry> architectures() {
  static const std::array<ArchitectureEntry, 2> kEntries = {llama_architecture(),
                                                            nemotron_h_architecture()};
  return kEntries;
}

Result<const ArchitectureEntry*> find_model_type(std::string_view model_type) {
  return find(model_type, &ArchitectureEntry::model_types, "model_type");
}

Result<const ArchitectureEntry*> find_gguf_architecture(std::string_view name) {
  return find(name, &ArchitectureEntry::gguf_architectures, "general.architecture");
}

}  // namespace logitlab
