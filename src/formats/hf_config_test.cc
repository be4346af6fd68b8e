#include "formats/hf_config.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "formats/npy.h"
#include "formats/test_bytes.h"

namespace logitlab {
namespace {

Json parsed(std::string_view text) {
  auto config = parse_config(text, "c.json");
  EXPECT_TRUE(config) << config.error().message;
  return config ? *config : Json();
}

TEST(HfConfig, ReadsPythonAndTaggedNumbers) {
  const Json config =
      parsed(R"({"limit": [0.0, {"__float__": "Infinity"}], "low": {"__float__": "-Infinity"},)"
             R"( "bare": Infinity, "nan": NaN, "text": "NaN", "other": {"__float__": "x"}})");
  EXPECT_TRUE(std::isinf(config["limit"][1].get<double>()));
  EXPECT_LT(get_float(config, "low", "c").value().value(), 0);
  EXPECT_TRUE(std::isinf(get_float(config, "bare", "c").value().value()));
  EXPECT_TRUE(std::isnan(get_float(config, "nan", "c").value().value()));
  EXPECT_EQ(get_string(config, "text", "c").value(), "NaN");
  EXPECT_TRUE(config["other"].is_object());
}

TEST(HfConfig, RefusesWhatIsNoObject) {
  for (const char* text : {"", "[1]", "7", "{", "GGUF", "{\"__float__\": \"NaN\"}", "{'a': 1}"}) {
    const auto config = parse_config(text, "c.json");
    ASSERT_FALSE(config) << text;
    EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(config.error().message.rfind("c.json: ", 0), 0U) << config.error().message;
  }
  EXPECT_FALSE(
      parse_config("{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}", "c"));
}

TEST(HfConfig, RefusesObjectsWhoseKeysWouldTakeForEver) {
  std::string text = "{\"k\":0";
  for (int i = 0; i < 300000; ++i) {
    text += fmt::format(",\"{}\":0", i);
  }
  const auto config = parse_config(text + "}", "c.json");
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, ErrorCode::kInvalidArgument);
}

TEST(HfConfig, GettersNameWhatIsWrong) {
  const Json config = parsed(
      R"({"n": 3, "neg": -4, "f": 0.5, "b": true, "s": "x", "none": null, "list": [1, 2],)"
      R"( "mixed": [1, "2"], "big": 9223372036854775808, "o": {"k": 1}, "names": ["a", "b"]})");
  EXPECT_EQ(get_int(config, "n", "c").value(), 3);
  EXPECT_EQ(get_int(config, "neg", "c").value(), -4);
  EXPECT_EQ(get_int(config, "none", "c").value(), std::nullopt);
  EXPECT_EQ(get_int(config, "absent", "c").value(), std::nullopt);
  EXPECT_FALSE(get_int(config, "b", "c"));
  EXPECT_FALSE(get_int(config, "f", "c"));
  EXPECT_FALSE(get_int(config, "big", "c"));
  EXPECT_EQ(get_int(config, "s", "c.json").error().message,
            "c.json: s is \"x\", want an integer of 64 bits");
  EXPECT_EQ(get_float(config, "n", "c").value(), 3.0);
  EXPECT_FALSE(get_float(config, "b", "c"));
  EXPECT_EQ(get_bool(config, "b", "c").value(), true);
  EXPECT_FALSE(get_bool(config, "n", "c"));
  EXPECT_FALSE(get_string(config, "n", "c"));
  EXPECT_EQ(get_int_list(config, "list", "c").value(), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(get_int_list(config, "n", "c").value(), (std::vector<int64_t>{3}));
  EXPECT_EQ(get_int_list(config, "mixed", "c.json").error().message,
            "c.json: mixed[1] is \"2\", want an integer or a list of integers");
  EXPECT_EQ(get_float_list(config, "list", "c").value(), (std::vector<double>{1, 2}));
  EXPECT_EQ(get_string_list(config, "names", "c").value(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(get_string_list(config, "s", "c").value(), (std::vector<std::string>{"x"}));
  EXPECT_EQ(get_object(config, "absent", "c").value(), nullptr);
  ASSERT_NE(get_object(config, "o", "c").value(), nullptr);
  EXPECT_EQ(get_int(*get_object(config, "o", "c").value(), "k", "c: o").value(), 1);
  EXPECT_FALSE(get_object(config, "n", "c"));
  EXPECT_EQ(require_int(config, "n", "c", 1, 5).value(), 3);
  EXPECT_EQ(require_int(config, "n", "c", 4, 5).error().message, "c: n is 3, want 4 to 5");
  EXPECT_EQ(require_int(config, "absent", "c", 4, 5).error().message,
            "c: no absent, want an integer from 4 to 5");
  EXPECT_FALSE(get_int(Json(3), "n", "c"));
}

TEST(HfConfig, ReadsFilesOfAFolder) {
  const TempFolder folder;
  EXPECT_EQ(read_config(folder.path()).error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(read_generation_config(folder.path()).value().empty());
  folder.write("config.json", R"({"model_type": "llama"})");
  folder.write("generation_config.json", "[]");
  EXPECT_EQ(get_string(*read_config(folder.path()), "model_type", "c").value(), "llama");
  const auto bad = read_generation_config(folder.path());
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("generation_config.json: found a list of 0, want an object"),
            std::string::npos);
  folder.write("config.json", std::string(kMaxConfigBytes + 1, ' '));
  EXPECT_EQ(read_config(folder.path()).error().code, ErrorCode::kInvalidArgument);
}

TEST(Npy, WritesWhatItReads) {
  const TempFolder folder;
  const std::vector<float> values = {1, -2, 0.5F, 3, 4, 5};
  const auto path = folder.path() / "x.npy";
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{2, 3}, std::vector<int64_t>{6}, std::vector<int64_t>{1, 6, 1}}) {
    ASSERT_TRUE(write_npy(path, values, shape));
    const auto read = read_npy(path);
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(read->shape, shape);
    EXPECT_EQ(read->values, values);
  }
  // NumPy's own bytes for np.save(np.zeros(1, '<f4')), but for the value.
  ASSERT_TRUE(write_npy(path, std::vector<float>{0}, std::vector<int64_t>{1}));
  const std::string text = read_text_file(path, 1000).value();
  std::string want("\x93NUMPY\x01\x00\x76\x00", 10);
  want += "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }";
  want.resize(127, ' ');
  EXPECT_EQ(text, want + "\n" + std::string(4, '\0'));
  ASSERT_TRUE(write_npy(path, std::vector<int32_t>{1, 2}, std::vector<int64_t>{2}));
  EXPECT_FALSE(read_npy(path));
}

TEST(Npy, RefusesForeignAndTruncatedFiles) {
  const auto file = [](std::string_view header, std::string_view data) {
    return std::string("\x93NUMPY\x01\x00", 8) + raw(static_cast<uint16_t>(header.size())) +
           std::string(header) + std::string(data);
  };
  const auto refused = [](std::string_view bytes, ErrorCode code, std::string_view part) {
    const auto result = parse_npy(as_bytes(bytes), "x.npy");
    ASSERT_FALSE(result) << part;
    EXPECT_EQ(result.error().code, code);
    EXPECT_NE(result.error().message.find(part), std::string::npos) << result.error().message;
  };
  refused("", ErrorCode::kInvalidArgument, "want a .npy file");
  refused(std::string("\x93NUMPY\x02\x00\x00\x00", 10), ErrorCode::kInvalidArgument, "version 2");
  refused(file("", "").substr(0, 8) + "\xff\xff", ErrorCode::kDataLoss, "header length 65535");
  refused(file("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", "12345678"),
          ErrorCode::kInvalidArgument, "want little-endian float32");
  refused(file("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }", "1234"),
          ErrorCode::kInvalidArgument, "C order");
  refused(file("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", "1234"),
          ErrorCode::kInvalidArgument, "want a shape");
  refused(file("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", "1234"),
          ErrorCode::kDataLoss, "shape [2] of float32, but 4 bytes");
  refused(file("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", ""),
          ErrorCode::kDataLoss, "but 0 bytes");
}

}  // namespace
}  // namespace logitlab
