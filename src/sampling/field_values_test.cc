#include "sampling/field_values.h"

#include <limits>
#include <optional>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace logitlab {
namespace {

template <typename T>
std::optional<T> from_word(std::string_view text) {
  T value{};
  return parse_value(text, &value) ? std::optional<T>(std::move(value)) : std::nullopt;
}

template <typename T>
std::optional<T> from_json(std::string_view text) {
  const auto json = parse_json(text, "test");
  EXPECT_TRUE(json.has_value()) << text;
  T value{};
  return read_value(*json, &value) ? std::optional<T>(std::move(value)) : std::nullopt;
}

// The text and the JSON of a value give it back.
template <typename T>
void expect_round_trip(const T& value, std::string_view text, std::string_view json) {
  EXPECT_EQ(value_text(FieldValue(value)), text);
  EXPECT_EQ(from_word<T>(text), value) << text;
  EXPECT_EQ(dump_json(json_value(value)), json);
  EXPECT_EQ(from_json<T>(json), value) << json;
  EXPECT_EQ(field_json(FieldValue(value)), json_value(value));
  EXPECT_FALSE(type_words(value).name.empty());
  EXPECT_FALSE(type_words(value).wanted.empty());
}

template <typename T>
void expect_refused(std::initializer_list<std::string_view> words,
                    std::initializer_list<std::string_view> jsons) {
  for (const std::string_view word : words) {
    EXPECT_FALSE(from_word<T>(word).has_value()) << type_words(T{}).name << ": " << word;
  }
  for (const std::string_view json : jsons) {
    EXPECT_FALSE(from_json<T>(json).has_value()) << type_words(T{}).name << ": " << json;
  }
}

TEST(FieldValues, Unset) {
  EXPECT_EQ(value_text({}), "none");
  EXPECT_TRUE(field_json({}).is_null());
}

TEST(FieldValues, Booleans) {
  expect_round_trip(true, "true", "true");
  expect_round_trip(false, "false", "false");
  EXPECT_EQ(from_word<bool>("1"), true);
  EXPECT_EQ(from_word<bool>("0"), false);
  expect_refused<bool>({"", "yes", "True", "2"}, {"1", "\"true\"", "[true]", "{}"});
}

TEST(FieldValues, WholeNumbers) {
  expect_round_trip(int64_t{-3}, "-3", "-3");
  expect_round_trip(std::numeric_limits<int64_t>::max(), "9223372036854775807",
                    "9223372036854775807");
  expect_refused<int64_t>({"", "2.0", " 2", "2x", "9223372036854775808"},
                          {"2.0", "true", "\"2\"", "9223372036854775808", "[2]"});
  expect_round_trip(std::numeric_limits<uint64_t>::max(), "18446744073709551615",
                    "18446744073709551615");
  expect_refused<uint64_t>({"-1", "18446744073709551616"}, {"-1", "1.0", "\"1\""});
}

TEST(FieldValues, Numbers) {
  expect_round_trip(0.7, "0.7", "0.7");
  expect_round_trip(-1e-300, "-1e-300", "-1e-300");
  EXPECT_EQ(from_word<double>("2"), 2.0);
  EXPECT_EQ(from_json<double>("2"), 2.0);
  EXPECT_EQ(value_text(FieldValue(2.0)), "2");
  expect_refused<double>({"", "nan", "inf", "-inf", "1e999", "0.7x", "hot"},
                         {"true", "\"0.7\"", "[0.7]", "{}"});
}

TEST(FieldValues, TokenIds) {
  expect_round_trip(TokenId{-1}, "-1", "-1");
  expect_refused<TokenId>({"", "2147483648", "x"}, {"2147483648", "-2147483649", "1.0", "[1]"});
  expect_round_trip(TokenIds{2}, "2", "[2]");
  expect_round_trip(TokenIds{2, -7}, "2,-7", "[2,-7]");
  EXPECT_EQ(value_text(FieldValue(TokenIds{})), "none");
  EXPECT_EQ(from_json<TokenIds>("5"), TokenIds{5});
  EXPECT_EQ(from_json<TokenIds>("[]"), TokenIds{});
  EXPECT_EQ(from_word<TokenIds>("2, 7"), (TokenIds{2, 7}));
  EXPECT_EQ(from_word<TokenIds>("[2, 7]"), (TokenIds{2, 7}));
  expect_refused<TokenIds>({"", "2,", ",2", "2 7", "3000000000", "[2", "[2,\"7\"]"},
                           {"[1,\"2\"]", "[[1]]", "\"1\"", "{}", "[1.5]", "true"});
}

TEST(FieldValues, ListsOfTokenIds) {
  expect_round_trip(std::vector<TokenIds>{{5}, {7, 8}}, "[[5],[7,8]]", "[[5],[7,8]]");
  expect_round_trip(std::vector<TokenIds>{{}}, "[[]]", "[[]]");  // refused later, with a reason
  expect_refused<std::vector<TokenIds>>({"5", "5,7", "[5]", "[[5]", ""},
                                        {"5", "[5]", "[[5],6]", "[[\"5\"]]", "{}"});
}

TEST(FieldValues, Texts) {
  using Texts = std::vector<std::string>;
  expect_round_trip(Texts{"one", "two"}, R"(["one","two"])", R"(["one","two"])");
  EXPECT_EQ(from_word<Texts>("stop"), Texts{"stop"});
  EXPECT_EQ(from_word<Texts>("[stop]"), Texts{"[stop]"});
  EXPECT_EQ(from_word<Texts>(R"(["a)"), Texts{R"(["a)"});  // no JSON: a text as it stands
  EXPECT_EQ(from_json<Texts>("\"stop\""), Texts{"stop"});
  expect_refused<Texts>({}, {"1", "[1]", "[\"a\",1]", "{}", "true"});
}

TEST(FieldValues, TextsThatAreHalfJsonLeaveNoRest) {
  // Two good elements before the bad one must not stay in front of the whole.
  EXPECT_EQ(from_word<std::vector<std::string>>(R"(["a","b",1])"),
            (std::vector<std::string>{R"(["a","b",1])"}));
}

TEST(FieldValues, SequenceBias) {
  using Biases = std::vector<SequenceBias>;
  const Biases value = {{{0}, 2.5}, {{7, 8}, -1}};
  expect_round_trip(value, R"({"0":2.5,"7,8":-1.0})", R"({"0":2.5,"7,8":-1.0})");
  EXPECT_EQ(from_word<Biases>("[[[5],2.5],[[7,8],-1]]"), (Biases{{{5}, 2.5}, {{7, 8}, -1}}));
  // P12: the list form refuses the id 0, as transformers does; the form of an object takes it.
  expect_refused<Biases>({"5:1", "", "[[[0],1.0]]"},
                         {"[[[0],1.0]]", "[[[-1],1.0]]", "[[5,1.0]]", "[[[5]]]", "[[[5],\"1\"]]",
                          "{\"\":1.0}", "{\"a\":1.0}", "{\"5\":true}", "5", "[[[5],1.0,2]]"});
}

TEST(FieldValues, TokenBias) {
  using Biases = std::vector<TokenBias>;
  const Biases value = {{50256, -100}, {11, 5.5}};
  expect_round_trip(value, R"({"50256":-100.0,"11":5.5})", R"({"50256":-100.0,"11":5.5})");
  EXPECT_EQ(from_word<Biases>("50256:-100,11:5.5"), value);
  expect_refused<Biases>({"", "11", "11:", ":5", "11:5,", "11:x", "{\"11\"}"},
                         {"[[11,5]]", "{\"x\":1}", "{\"11\":\"5\"}", "5"});
}

TEST(FieldValues, ExponentialDecay) {
  const ExponentialDecay value{.start = 30, .factor = 1.05};
  expect_round_trip(value, "[30,1.05]", "[30,1.05]");
  EXPECT_EQ(from_word<ExponentialDecay>("30,1.05"), value);
  expect_refused<ExponentialDecay>({"30", "", "30,x", "1.5,2", "30,1,2"},
                                   {"[30]", "[1.5,2]", "[30,1,2]", "30", "[30,\"2\"]"});
}

TEST(FieldValues, EarlyStoppingWords) {  // C12
  expect_round_trip(EarlyStopping::kTrue, "true", "true");
  expect_round_trip(EarlyStopping::kFalse, "false", "false");
  expect_round_trip(EarlyStopping::kNever, "never", "\"never\"");
  // transformers lets the number 1 pass and then does not find it to be true.
  EXPECT_EQ(from_json<EarlyStopping>("1"), EarlyStopping::kFalse);
  EXPECT_EQ(from_json<EarlyStopping>("0"), EarlyStopping::kFalse);
  expect_refused<EarlyStopping>({"x", "", "Never"}, {"\"x\"", "2", "\"true\"", "[]"});
}

TEST(FieldValues, WordsOfEngines) {
  expect_round_trip(Semantics::kTransformers, "transformers", "\"transformers\"");
  expect_round_trip(Semantics::kVllm, "vllm", "\"vllm\"");
  expect_round_trip(Semantics::kLlamaCpp, "llama.cpp", "\"llama.cpp\"");
  expect_refused<Semantics>({"vLLM", "", "llama"}, {"1", "\"tgi\"", "[]"});
  expect_round_trip(LogitsDtype::kFloat32, "float32", "\"float32\"");
  expect_round_trip(LogitsDtype::kBfloat16, "bfloat16", "\"bfloat16\"");
  expect_round_trip(LogitsDtype::kFloat16, "float16", "\"float16\"");
  expect_refused<LogitsDtype>({"bf16", ""}, {"16", "\"float64\""});
}

}  // namespace
}  // namespace logitlab
