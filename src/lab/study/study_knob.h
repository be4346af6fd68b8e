// What a study can set or sweep: every setting of generation but the seed, and besides them
// thinking, threads, prefill_chunk and neighbours.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "lab/study/study.h"
#include "sampling/generation_fields.h"

namespace logitlab {

// One name with one value.
struct Knob {
  std::string name;
  std::string text;                        // the value as people read it: "0.7", "default" (unset)
  const GenerationField* field = nullptr;  // null: one of the four others
  FieldValue value;                        // of a field; monostate: unset
  std::optional<int64_t> number;           // of the others; thinking is 0 or 1
};

enum class KnobPlace { kSettings, kExecution, kAnywhere };
[[nodiscard]] std::vector<std::string_view> knob_names(KnobPlace place);

// "found, wanted" without a place in front. null unsets; the word "none" turns off what can be
// turned off.
[[nodiscard]] Result<Knob> read_knob(std::string_view name, const Json& value, KnobPlace place);
// From a word of the command line.
[[nodiscard]] Result<Knob> parse_knob(std::string_view name, std::string_view word);
// Whether a comma in a word parts two values, and not the elements of one.
[[nodiscard]] bool has_single_values(std::string_view name);

void apply_knob(const Knob& knob, StudySetting* setting);

// "NAME: no such name; did you mean ...?" or all names.
[[nodiscard]] Error unknown_name(std::string_view wrong, const std::vector<std::string_view>& names,
                                 std::string_view what = "no such name here");

}  // namespace logitlab
