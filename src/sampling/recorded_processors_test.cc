// Chains against what transformers did to the same rows (tools/oracle/record_processors.py).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/philox.h"
#include "sampling/distribution.h"
#include "sampling/effective_config.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

// CRC-32 as zlib computes it.
uint32_t crc32(std::span<const uint8_t> bytes) {
  uint32_t crc = 0xFFFFFFFFU;
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = crc >> 1 ^ (0xEDB88320U & (0U - (crc & 1U)));
    }
  }
  return ~crc;
}

uint32_t crc32_of_row(const Row& row) {
  static_assert(std::endian::native == std::endian::little);
  std::vector<uint8_t> bytes(row.size() * sizeof(float));
  std::memcpy(bytes.data(), row.data(), bytes.size());
  return crc32(bytes);
}

// A bit per id, lowest bit of the first byte first.
std::vector<uint8_t> kept_bits(const Row& row) {
  std::vector<uint8_t> bytes((row.size() + 7) / 8);
  for (const TokenId id : kept_ids(row)) {
    uint8_t& byte = bytes[static_cast<size_t>(id) / 8];
    byte = static_cast<uint8_t>(byte | 1U << (id % 8));
  }
  return bytes;
}

std::string hex(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) {
    fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  }
  return text;
}

float to_bfloat16(float value) {
  auto bits = std::bit_cast<uint32_t>(value);
  bits = (bits + 0x7FFFU + (bits >> 16 & 1U)) & 0xFFFF0000U;
  return std::bit_cast<float>(bits);
}

// About normal whole numbers, standard deviation 53510: a sum of eight 16-bit halves.
std::vector<double> bell(size_t size, uint32_t seed) {
  constexpr uint32_t kRowKey = 0x726F7773;
  std::vector<double> numbers(size);
  for (size_t i = 0; i < size; ++i) {
    int64_t sum = -262140;
    for (const uint32_t word : philox4x32({static_cast<uint32_t>(i), 0, 0, 0}, {seed, kRowKey})) {
      sum += (word & 0xFFFFU) + (word >> 16);
    }
    numbers[i] = static_cast<double>(sum);
  }
  return numbers;
}

// make_row() of tools/oracle/processor_cases.py.
Row make_row(const std::string& kind, size_t size, uint32_t seed) {
  const double infinity = std::numeric_limits<double>::infinity();
  std::vector<double> values = bell(size, seed);
  const size_t special = seed % size;
  for (double& x : values) {
    const double peaked = x * 5 / 65536;
    if (kind == "flat") {
      x = x / 524288;
    } else if (kind == "tied") {
      x = std::floor(x / 16384) / 4;
    } else if (kind == "tied_at_top") {
      x = std::min(x * 5 / 131072, 3.0);
    } else if (kind == "negative") {
      x = peaked - 25;
    } else if (kind == "huge") {
      x = x / 8;
    } else if (kind == "holes") {
      x = std::fmod(x, 2) != 0 ? -infinity : peaked;
    } else if (kind == "one_left" || kind == "all_minus_inf") {
      x = -infinity;
    } else {
      x = peaked;
    }
  }
  if (kind == "holes") {
    values[special] = 1;
  } else if (kind == "one_left") {
    values[special] = 0.5;
  } else if (kind == "nan_hole") {
    values[special] = std::numeric_limits<double>::quiet_NaN();
  } else if (kind == "plus_inf") {
    values[special] = infinity;
  }
  Row row;
  for (const double value : values) {
    const auto rounded = static_cast<float>(value);
    row.push_back(kind == "bf16" ? to_bfloat16(rounded) : rounded);
  }
  return row;
}

Row named_row(const Json& spec) {
  return make_row(spec[0].get<std::string>(), spec[1].get<size_t>(), spec[2].get<uint32_t>());
}

class GivenRow final : public GuidanceSource {
 public:
  explicit GivenRow(Row row) : row_(std::move(row)) {}
  [[nodiscard]] std::span<const float> unguided_logits(const SequenceView& /*sequence*/) override {
    return row_;
  }

 private:
  Row row_;
};

class SurvivorCounter final : public StageObserver {
 public:
  void after_stage(int64_t /*stage*/, const LogitsProcessor& /*processor*/,
                   std::span<const float> scores) override {
    counts.push_back(std::ranges::count_if(scores, [](float x) { return x != kMinusInfinity; }));
  }
  Json counts = Json::array();
};

struct Replayed {
  Row scores;
  Json processors = Json::array();
  Json survivors = Json::array();
};

Result<Replayed> replay(const Json& recorded) {
  ASSIGN_OR_RETURN(const ParsedConfig call,
                   generation_config_from_json(recorded["config"], "config", UnknownKeys::kRefuse));
  ParsedConfig model;
  if (recorded.contains("model_config")) {
    ASSIGN_OR_RETURN(model, generation_config_from_json(recorded["model_config"], "model_config",
                                                        UnknownKeys::kIgnore));
  }
  const EffectiveConfig effective = merge_generation_config(call.config, model.config);
  RETURN_IF_ERROR(validate_generation_config(effective.config));
  ChainOptions options;
  options.prompt_length = recorded["prompt_length"].get<int64_t>();
  RETURN_IF_ERROR(resolve_lengths(effective.config, options.prompt_length, std::nullopt));
  Replayed replayed;
  replayed.scores = named_row(recorded["row"]);
  options.vocab_size = static_cast<int64_t>(replayed.scores.size());
  options.min_tokens_to_keep = recorded.value("min_tokens_to_keep", int64_t{1});
  options.max_length = recorded.value("max_length", int64_t{0});
  std::optional<GivenRow> guidance;
  if (recorded.contains("unguided")) {
    guidance.emplace(named_row(recorded["unguided"]));
    options.guidance = &*guidance;
  }
  ASSIGN_OR_RETURN(ProcessorChain chain, build_chain(effective.config, options));
  for (const std::string_view name : chain.names()) {
    replayed.processors.push_back(name);
  }
  if (recorded.value("is_beam", false)) {
    const double total = log_sum_exp(replayed.scores);
    for (float& score : replayed.scores) {
      score = static_cast<float>(static_cast<double>(score) - total);
    }
  }
  const auto ids = recorded["input_ids"].get<Ids>();
  SurvivorCounter counter;
  chain.apply(replayed.scores, SequenceView{.ids = ids, .prompt_length = options.prompt_length},
              &counter);
  replayed.survivors = counter.counts;
  return replayed;
}

void expect_equal(const Json& recorded, const Replayed& replayed) {
  EXPECT_EQ(replayed.processors, recorded["processors"]);
  EXPECT_EQ(replayed.survivors, recorded["survivors"]);
  const std::vector<uint8_t> bits = kept_bits(replayed.scores);
  if (recorded["kept"].is_string()) {
    EXPECT_EQ(hex(bits), recorded["kept"].get<std::string>());
  } else {
    EXPECT_EQ(crc32(bits), recorded["kept"].get<uint32_t>());
  }
  if (recorded.contains("crc32")) {
    EXPECT_EQ(crc32_of_row(replayed.scores), recorded["crc32"].get<uint32_t>());
    return;
  }
  for (const Json& item : recorded["scores"]) {
    const auto want = item[1].get<double>();
    EXPECT_NEAR(static_cast<double>(replayed.scores[item[0].get<size_t>()]), want,
                1e-6 * std::abs(want) + recorded["tolerance"].get<double>());
  }
}

TEST(RecordedProcessors, ChecksumsAreThoseOfZlib) {
  Row row(2);
  std::memcpy(row.data(), "logitlab", 8);
  EXPECT_EQ(crc32_of_row(row), 0x64812352U);
}

TEST(RecordedProcessors, EqualTransformers) {
  const std::string path = LOGITLAB_SOURCE_DIR "/tests/data/sampling/processors.json";
  const auto text = read_text_file(path, 4U << 20);
  ASSERT_TRUE(text.has_value()) << path;
  const auto document = parse_json(*text, path);
  ASSERT_TRUE(document.has_value()) << document.error().message;
  int n_refused = 0;
  int n_same_bits = 0;
  for (const Json& recorded : (*document)["cases"]) {
    SCOPED_TRACE(dump_json(recorded).substr(0, 1500));
    const Result<Replayed> replayed = replay(recorded);
    if (recorded.contains("refused")) {
      EXPECT_FALSE(replayed.has_value());
      ++n_refused;
      continue;
    }
    ASSERT_TRUE(replayed.has_value()) << replayed.error().message;
    expect_equal(recorded, *replayed);
    n_same_bits += recorded.contains("crc32") ? 1 : 0;
  }
  EXPECT_EQ((*document)["cases"].size(), 2220U);
  EXPECT_GE(n_refused, 50);
  EXPECT_GE(n_same_bits, 1000);
}

}  // namespace
}  // namespace logitlab
