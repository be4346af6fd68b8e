// Chains against what transformers did to the same rows (tools/oracle/record_processors.py).
#include <bit>
#include <cstring>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "sampling/generation_fields.h"
#include "sampling/processor_chain.h"
#include "sampling/test_rows.h"

namespace logitlab {
namespace {

// CRC-32 of the bytes of the row, as zlib computes it.
uint32_t crc32(const Row& row) {
  static_assert(std::endian::native == std::endian::little);
  uint32_t crc = 0xFFFFFFFFU;
  for (const float score : row) {
    uint32_t word = 0;
    std::memcpy(&word, &score, sizeof(word));
    for (int byte = 0; byte < 4; ++byte) {
      crc ^= word >> (8 * byte) & 0xFFU;
      for (int bit = 0; bit < 8; ++bit) {
        crc = crc >> 1 ^ (0xEDB88320U & (0U - (crc & 1U)));
      }
    }
  }
  return ~crc;
}

std::string kept_bits(const Row& row) {
  std::vector<uint32_t> bytes((row.size() + 7) / 8);
  for (const TokenId id : kept_ids(row)) {
    bytes[static_cast<size_t>(id) / 8] |= 1U << (id % 8);
  }
  std::string hex;
  for (const uint32_t byte : bytes) {
    fmt::format_to(std::back_inserter(hex), "{:02x}", byte);
  }
  return hex;
}

TEST(RecordedProcessors, ChecksumsAreThoseOfZlib) {
  Row row(2);
  std::memcpy(row.data(), "logitlab", 8);
  EXPECT_EQ(crc32(row), 0x64812352U);
}

TEST(RecordedProcessors, EqualTransformersToTheBit) {
  const std::string path = LOGITLAB_SOURCE_DIR "/tests/data/sampling/processors.json";
  const auto text = read_text_file(path, 4U << 20);
  ASSERT_TRUE(text.has_value()) << path;
  const auto document = parse_json(*text, path);
  ASSERT_TRUE(document.has_value()) << document.error().message;
  const auto prompt_length = (*document)["prompt_length"].get<int64_t>();
  int n_cases = 0;
  for (const Json& recorded : (*document)["rows"]) {
    Row logits;
    for (const Json& logit : recorded["logits"]) {
      logits.push_back(logit.is_null() ? kMinusInfinity : static_cast<float>(logit.get<double>()));
    }
    for (const Json& expected : recorded["cases"]) {
      const std::string label =
          recorded["name"].get<std::string>() + " " + dump_json(expected["setting"]);
      Json setting = expected["setting"];
      const auto generated = setting["generated"].get<int64_t>();
      const auto min_tokens_to_keep = setting["min_tokens_to_keep"].get<int64_t>();
      setting.erase("generated");
      setting.erase("min_tokens_to_keep");
      const auto config = generation_config_from_json(setting, label, UnknownKeys::kRefuse);
      ASSERT_TRUE(config.has_value()) << config.error().message;
      auto chain = build_chain(config->config, {.vocab_size = static_cast<int64_t>(logits.size()),
                                                .min_tokens_to_keep = min_tokens_to_keep});
      ASSERT_TRUE(chain.has_value()) << chain.error().message;
      Json names = Json::array();
      for (const std::string_view name : chain->names()) {
        names.push_back(name);
      }
      EXPECT_EQ(names, expected["processors"]) << label;
      Row scores = logits;
      const Ids ids(static_cast<size_t>(prompt_length + generated), 0);
      chain->apply(scores, SequenceView{.ids = ids, .prompt_length = prompt_length});
      EXPECT_EQ(kept_bits(scores), expected["kept"].get<std::string>()) << label;
      EXPECT_EQ(crc32(scores), expected["crc32"].get<uint32_t>()) << label;
      ++n_cases;
    }
  }
  EXPECT_EQ(n_cases, 1040);
}

}  // namespace
}  // namespace logitlab
