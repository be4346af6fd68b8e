#include "base/base64.h"

#include <gtest/gtest.h>

namespace logitlab {
namespace {

std::string encode(std::string_view text) {
  return encode_base64(std::as_bytes(std::span(text.data(), text.size())));
}

std::string decode(std::string_view text) {
  const auto bytes = decode_base64(text, "row");
  return bytes ? std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size())
               : bytes.error().message;
}

// The vectors of RFC 4648, section 10.
TEST(Base64, EncodesAndDecodes) {
  const std::pair<std::string_view, std::string_view> vectors[] = {{"", ""},
                                                                   {"f", "Zg=="},
                                                                   {"fo", "Zm8="},
                                                                   {"foo", "Zm9v"},
                                                                   {"foob", "Zm9vYg=="},
                                                                   {"fooba", "Zm9vYmE="},
                                                                   {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    EXPECT_EQ(encode(plain), coded);
    EXPECT_EQ(decode(coded), plain);
  }
  const std::string_view bytes("\x00\xFF\xFE\x80", 4);
  EXPECT_EQ(encode(bytes), "AP/+gA==");
  EXPECT_EQ(decode("AP/+gA=="), bytes);
}

TEST(Base64, RefusesWhatIsNotBase64) {
  EXPECT_EQ(decode("Zg="), "row: base64 of 3 characters, want a multiple of 4 (with = at the end)");
  EXPECT_EQ(decode("Zm9v Zg="), "row: ` ` at character 4 is not base64");
  EXPECT_EQ(decode("Z=9v"), "row: `=` at character 1 is not base64");
  EXPECT_EQ(decode("===="), "row: `=` at character 0 is not base64");
  EXPECT_EQ(decode("Zh=="), "row: base64 with bits after its end");
  EXPECT_EQ(decode("Zm9="), "row: base64 with bits after its end");
}

}  // namespace
}  // namespace logitlab
