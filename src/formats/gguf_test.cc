#include "formats/gguf.h"

#include <sys/stat.h>

#include "formats/test_bytes.h"

namespace logitlab {
namespace {

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;

void expect_refused(std::string_view file, ErrorCode code, const std::vector<std::string>& parts) {
  reset_largest_allocation();
  const auto result = parse_gguf(as_bytes(file), "x.gguf");
  EXPECT_LT(largest_allocation(), kSmallAllocation);
  ASSERT_FALSE(result) << "want a refusal with " << parts[0];
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_EQ(exit_code(result.error().code), 3);
  EXPECT_EQ(result.error().message.rfind("x.gguf: ", 0), 0U) << result.error().message;
  for (const std::string& part : parts) {
    EXPECT_NE(result.error().message.find(part), std::string::npos)
        << result.error().message << "\nwant: " << part;
  }
}

TEST(Gguf, ReadsMetadataAndTensorsInPyTorchOrder) {
  for (const uint32_t version : {2U, 3U}) {
    GgufBytes file;
    file.version = version;
    file.text("general.architecture", "llama").number("llama.block_count", 30);
    file.tensor("w", {3, 2}, kF32, 0).tensor("q", {32, 2}, kQ4_0, 32);
    file.data = std::string(32, 'w') + std::string(36, 'q');
    const std::string bytes = file.bytes();
    const auto content = parse_gguf(as_bytes(bytes), "x.gguf");
    ASSERT_TRUE(content) << content.error().message;
    EXPECT_EQ(content->version, version);
    EXPECT_EQ(content->metadata.architecture().value(), "llama");
    EXPECT_EQ(content->metadata.get_int("llama.block_count").value(), 30);
    ASSERT_EQ(content->tensors.size(), 2U);
    EXPECT_EQ(content->tensors[0].shape, (Shape{2, 3}));
    EXPECT_EQ(content->tensors[0].bytes, 24U);
    EXPECT_EQ(content->tensors[1].shape, (Shape{2, 32}));
    EXPECT_EQ(content->tensors[1].dtype, DType::kQ4_0);
    EXPECT_EQ(content->tensors[1].bytes, 36U);
    EXPECT_EQ(static_cast<char>(content->tensors[1].data[0]), 'q');
    EXPECT_EQ(content->tensors[1].offset, content->data_offset + 32);
  }
}

TEST(Gguf, ReadsEveryListedTensorType) {
  struct Case {
    uint32_t id;
    DType dtype;
    int64_t row;
    size_t bytes;
  };
  const Case cases[] = {
      {0, DType::kF32, 1, 4},       {1, DType::kF16, 1, 2},       {30, DType::kBF16, 1, 2},
      {2, DType::kQ4_0, 32, 18},    {3, DType::kQ4_1, 32, 20},    {6, DType::kQ5_0, 32, 22},
      {7, DType::kQ5_1, 32, 24},    {8, DType::kQ8_0, 32, 34},    {12, DType::kQ4_K, 256, 144},
      {13, DType::kQ5_K, 256, 176}, {14, DType::kQ6_K, 256, 210}, {24, DType::kI8, 1, 1},
      {27, DType::kI64, 1, 8},      {28, DType::kF64, 1, 8},
  };
  for (const Case& c : cases) {
    GgufBytes file;
    file.tensor("t", {c.row}, c.id, 0);
    file.data = std::string(c.bytes, 'x');
    const std::string bytes = file.bytes();
    const auto content = parse_gguf(as_bytes(bytes), "x");
    ASSERT_TRUE(content) << content.error().message;
    EXPECT_EQ(content->tensors[0].dtype, c.dtype);
    EXPECT_EQ(content->tensors[0].bytes, c.bytes);
    // One byte less is a truncated file.
    const std::string cut = bytes.substr(0, bytes.size() - 1);
    EXPECT_EQ(parse_gguf(as_bytes(cut), "x").error().code, ErrorCode::kDataLoss);
  }
}

TEST(Gguf, RefusesWhatIsNoGguf) {
  expect_refused("", ErrorCode::kInvalidArgument, {"nothing (0 bytes), want 'GGUF'"});
  expect_refused("GG", ErrorCode::kInvalidArgument, {"starts with 'GG'"});
  expect_refused("{\"a\": 1}", ErrorCode::kInvalidArgument, {"want 'GGUF'"});
  expect_refused("GGUF", ErrorCode::kDataLoss, {"the version at byte 4 wants 4 bytes"});
  expect_refused("GGUF" + raw<uint32_t>(1) + std::string(64, '\0'), ErrorCode::kUnsupported,
                 {"version 1, want 2 or 3", "convert"});
  expect_refused("GGUF" + raw<uint32_t>(9) + std::string(64, '\0'), ErrorCode::kUnsupported,
                 {"version 9"});
  expect_refused("GGUF" + raw<uint32_t>(0x03000000) + std::string(64, '\0'),
                 ErrorCode::kUnsupported, {"other byte order"});
}

TEST(Gguf, RefusesAbsurdCounts) {
  GgufBytes keys;
  keys.n_fields = INT64_MAX;
  expect_refused(keys.bytes(), ErrorCode::kDataLoss, {"announces 9223372036854775807 keys"});
  GgufBytes tensors;
  tensors.n_tensors = int64_t{1} << 40;
  expect_refused(tensors.bytes(), ErrorCode::kDataLoss, {"announces 1099511627776 tensors"});
  // Negative when read as signed.
  expect_refused(
      "GGUF" + raw<uint32_t>(3) + raw<int64_t>(-1) + raw<int64_t>(0) + std::string(64, '\0'),
      ErrorCode::kDataLoss, {"announces 18446744073709551615 tensors"});

  GgufBytes strings;
  strings.field("tokens", 9, raw<uint32_t>(8) + raw<uint64_t>(uint64_t{1} << 61));
  expect_refused(strings.bytes(), ErrorCode::kDataLoss,
                 {"key 'tokens' announces 2305843009213693952 elements of type string"});
  GgufBytes floats;
  floats.field("scores", 9, raw<uint32_t>(6) + raw<uint64_t>(UINT64_MAX / 4 + 2));
  expect_refused(floats.bytes(), ErrorCode::kDataLoss, {"key 'scores' announces"});
  GgufBytes text;
  text.field("name", 8, raw<uint64_t>(UINT64_MAX) + "abc");
  expect_refused(text.bytes(), ErrorCode::kDataLoss, {"wants 18446744073709551615 bytes"});
  expect_refused("GGUF" + raw<uint32_t>(3) + raw<int64_t>(0) + raw<int64_t>(1) +
                     raw<uint64_t>(uint64_t{1} << 40) + std::string(64, '\0'),
                 ErrorCode::kDataLoss, {"a key at byte 32 wants 1099511627776 bytes"});
}

TEST(Gguf, RefusesDeepNesting) {
  const auto nested = [](int depth) {
    std::string value;
    for (int i = 0; i < depth; ++i) {
      value += raw<uint32_t>(9) + raw<uint64_t>(1);
    }
    return GgufBytes().field("deep", 9, value + raw<uint32_t>(4) + raw<uint64_t>(0)).bytes();
  };
  const std::string shallow = nested(3);
  const auto content = parse_gguf(as_bytes(shallow), "x");
  ASSERT_TRUE(content) << content.error().message;
  const auto ints = content->metadata.get_ints("deep");
  ASSERT_FALSE(ints);
  EXPECT_NE(ints.error().message.find("'deep' is an array of 1 array, want integers"),
            std::string::npos)
      << ints.error().message;
  EXPECT_EQ(content->metadata.describe(content->metadata.fields()[0]), "[array; 1]");
  expect_refused(nested(4), ErrorCode::kDataLoss, {"nests arrays more than 4 deep"});
  expect_refused(nested(100000), ErrorCode::kDataLoss, {"nests arrays more than 4 deep"});
}

TEST(Gguf, RefusesBadKeysAndTypes) {
  GgufBytes twice;
  twice.number("k", 1).number("k", 2);
  expect_refused(twice.bytes(), ErrorCode::kDataLoss, {"key 'k' is there twice"});
  GgufBytes type;
  type.field("k", 13, "");
  expect_refused(type.bytes(), ErrorCode::kDataLoss, {"key 'k' has value type 13, want 0 to 12"});
  for (const uint32_t alignment : {0U, 3U, 33U}) {
    GgufBytes odd;
    odd.number("general.alignment", alignment);
    expect_refused(odd.bytes(), ErrorCode::kInvalidArgument, {"want a power of two"});
  }
  GgufBytes kind;
  kind.text("general.alignment", "32");
  expect_refused(kind.bytes(), ErrorCode::kInvalidArgument,
                 {"'general.alignment' is string, want an integer"});
}

TEST(Gguf, RefusesBadTensors) {
  const auto one = [](const std::vector<int64_t>& sizes, uint32_t type, uint64_t offset) {
    GgufBytes file;
    file.tensor("t", sizes, type, offset);
    file.data = std::string(64, '\0');
    return file.bytes();
  };
  expect_refused(one({-1, 2}, kF32, 0), ErrorCode::kDataLoss, {"size -1 of dimension 0"});
  expect_refused(one({int64_t{1} << 40, int64_t{1} << 40}, kF32, 0), ErrorCode::kDataLoss,
                 {"takes more than 2^63 bytes"});
  expect_refused(one({INT64_MAX}, kF32, 0), ErrorCode::kDataLoss, {"takes more than 2^63 bytes"});
  expect_refused(one({INT64_MAX, INT64_MAX, 0}, kF32, 0), ErrorCode::kDataLoss,
                 {"takes more than 2^63 bytes"});
  expect_refused(one({1, 1, 1, 1, 1}, kF32, 0), ErrorCode::kDataLoss,
                 {"5 dimensions, want at most 4"});
  expect_refused(one({33}, kQ4_0, 0), ErrorCode::kDataLoss,
                 {"want a multiple of 32 for type Q4_0"});
  expect_refused(one({}, kQ4_0, 0), ErrorCode::kDataLoss, {"no dimensions"});
  expect_refused(one({4}, 16, 0), ErrorCode::kUnsupported,
                 {"tensor 't' has type IQ2_XXS", "want one of F32"});
  expect_refused(one({4}, 4, 0), ErrorCode::kUnsupported, {"tensor 't' has type 4,"});
  expect_refused(one({4}, kF32, 8), ErrorCode::kDataLoss, {"offset 8, want a multiple of"});
  expect_refused(one({4}, kF32, 64), ErrorCode::kDataLoss, {"16 bytes at offset 64", "truncated"});
  expect_refused(one({4}, kF32, UINT64_MAX - 31), ErrorCode::kDataLoss, {"truncated"});
  expect_refused(one({17}, kF32, 0), ErrorCode::kDataLoss, {"68 bytes at offset 0"});

  GgufBytes overlap;
  overlap.tensor("a", {16}, kF32, 0).tensor("b", {4}, kF32, 32);
  overlap.data = std::string(64, '\0');
  expect_refused(overlap.bytes(), ErrorCode::kDataLoss, {"tensors 'a' and 'b' overlap"});
  GgufBytes twice;
  twice.tensor("a", {4}, kF32, 0).tensor("a", {4}, kF32, 32);
  twice.data = std::string(64, '\0');
  expect_refused(twice.bytes(), ErrorCode::kDataLoss, {"tensor 'a' is there twice"});
}

TEST(Gguf, HonoursItsAlignment) {
  GgufBytes file;
  file.number("general.alignment", 64).tensor("a", {4}, kF32, 0).tensor("b", {4}, kF32, 64);
  file.data = std::string(64, 'a') + std::string(16, 'b');
  const std::string bytes = file.bytes(64);
  const auto content = parse_gguf(as_bytes(bytes), "x");
  ASSERT_TRUE(content) << content.error().message;
  EXPECT_EQ(content->data_offset % 64, 0U);
  EXPECT_EQ(static_cast<char>(content->tensors[1].data[0]), 'b');
}

TEST(Gguf, EveryPrefixOfAFileIsRefused) {
  GgufBytes file;
  file.text("general.architecture", "llama").texts("tokens", {"a", "bc"});
  file.tensor("w", {4}, kF32, 0);
  file.data = std::string(16, 'w');
  const std::string bytes = file.bytes();
  ASSERT_TRUE(parse_gguf(as_bytes(bytes), "x"));
  for (size_t n = 0; n < bytes.size(); ++n) {
    const std::vector<char> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(parse_gguf(as_bytes({cut.data(), cut.size()}), "x")) << n;
  }
}

TEST(GgufMetadata, GettersAreLenientAboutWidthAndStrictAboutKind) {
  GgufBytes file;
  file.field("u8", 0, raw<uint8_t>(200)).field("i8", 1, raw<int8_t>(-3));
  file.field("u16", 2, raw<uint16_t>(60000)).field("i16", 3, raw<int16_t>(-300));
  file.field("i32", 5, raw<int32_t>(-70000)).field("u64", 10, raw<uint64_t>(5));
  file.field("huge", 10, raw<uint64_t>(UINT64_MAX)).field("i64", 11, raw<int64_t>(-5));
  file.field("f32", 6, raw(0.5F)).field("f64", 12, raw(0.25)).field("yes", 7, raw<uint8_t>(1));
  file.field("odd", 7, raw<uint8_t>(2)).text("text", "hi\n").texts("texts", {"a", "", "c"});
  file.field("ints", 9, raw<uint32_t>(5) + raw<uint64_t>(2) + raw<int32_t>(1) + raw<int32_t>(-2));
  const std::string bytes = file.bytes();
  const auto content = parse_gguf(as_bytes(bytes), "x.gguf");
  ASSERT_TRUE(content) << content.error().message;
  const GgufMetadata& metadata = content->metadata;
  EXPECT_EQ(metadata.get_int("u8").value(), 200);
  EXPECT_EQ(metadata.get_int("i8").value(), -3);
  EXPECT_EQ(metadata.get_int("u16").value(), 60000);
  EXPECT_EQ(metadata.get_int("i16").value(), -300);
  EXPECT_EQ(metadata.get_int("i32").value(), -70000);
  EXPECT_EQ(metadata.get_int("u64").value(), 5);
  EXPECT_EQ(metadata.get_int("i64").value(), -5);
  EXPECT_EQ(metadata.get_int("absent").value(), std::nullopt);
  EXPECT_FALSE(metadata.get_int("huge"));
  EXPECT_FALSE(metadata.get_int("f32"));
  EXPECT_FALSE(metadata.get_int("yes"));
  EXPECT_EQ(metadata.get_float("f32").value(), 0.5);
  EXPECT_EQ(metadata.get_float("f64").value(), 0.25);
  EXPECT_EQ(metadata.get_float("i32").value(), -70000.0);
  EXPECT_FALSE(metadata.get_float("text"));
  EXPECT_EQ(metadata.get_bool("yes").value(), true);
  EXPECT_FALSE(metadata.get_bool("odd"));
  EXPECT_FALSE(metadata.get_bool("u8"));
  EXPECT_EQ(metadata.get_string("text").value(), "hi\n");
  EXPECT_FALSE(metadata.get_string("u8"));
  EXPECT_EQ(metadata.get_ints("ints").value(), (std::vector<int64_t>{1, -2}));
  EXPECT_EQ(metadata.get_ints("u8").value(), (std::vector<int64_t>{200}));
  EXPECT_FALSE(metadata.get_ints("texts"));
  EXPECT_EQ(metadata.get_floats("ints").value(), (std::vector<float>{1, -2}));
  EXPECT_EQ(metadata.get_strings("texts").value(), (std::vector<std::string_view>{"a", "", "c"}));
  EXPECT_FALSE(metadata.get_strings("ints"));
  EXPECT_EQ(metadata.describe(*metadata.find("ints")), "[i32; 2] 1, -2");
  EXPECT_EQ(metadata.describe(*metadata.find("text")), "hi\\n");
  const auto wrong = metadata.get_int("text");
  EXPECT_EQ(wrong.error().message, "x.gguf: key 'text' is string, want an integer up to 2^63 - 1");
  EXPECT_FALSE(metadata.architecture());
}

GgufBytes vocab_file() {
  GgufBytes file;
  file.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "smollm");
  file.texts("tokenizer.ggml.tokens", {"<s>", "a", "b"});
  return file;
}

TEST(GgufVocab, ReadsTheTokenizer) {
  GgufBytes file = vocab_file();
  file.texts("tokenizer.ggml.merges", {"a b"}).number("tokenizer.ggml.bos_token_id", 0);
  file.number("tokenizer.ggml.padding_token_id", UINT32_MAX);
  file.field("tokenizer.ggml.add_bos_token", 7, raw<uint8_t>(0));
  file.field(
      "tokenizer.ggml.token_type", 9,
      raw<uint32_t>(5) + raw<uint64_t>(3) + raw<int32_t>(3) + raw<int32_t>(1) + raw<int32_t>(1));
  file.text("tokenizer.chat_template", "{{ x }}").text("tokenizer.chat_template.tool", "{{ y }}");
  const std::string bytes = file.bytes();
  const auto content = parse_gguf(as_bytes(bytes), "x");
  ASSERT_TRUE(content);
  const auto vocab = read_gguf_vocab(content->metadata);
  ASSERT_TRUE(vocab) << vocab.error().message;
  EXPECT_EQ(vocab->model, "gpt2");
  EXPECT_EQ(vocab->pre, "smollm");
  EXPECT_EQ(vocab->tokens, (std::vector<std::string>{"<s>", "a", "b"}));
  EXPECT_EQ(vocab->merges, (std::vector<std::string>{"a b"}));
  EXPECT_EQ(vocab->token_types, (std::vector<int32_t>{3, 1, 1}));
  EXPECT_EQ(vocab->bos_id, 0);
  EXPECT_EQ(vocab->pad_id, std::nullopt);
  EXPECT_EQ(vocab->eos_id, std::nullopt);
  EXPECT_EQ(vocab->add_bos, false);
  EXPECT_EQ(vocab->add_eos, std::nullopt);
  EXPECT_EQ(vocab->chat_template, "{{ x }}");
  ASSERT_EQ(vocab->named_chat_templates.size(), 1U);
  EXPECT_EQ(vocab->named_chat_templates[0].first, "tool");
}

TEST(GgufVocab, RefusesContradictions) {
  const auto refused = [](const GgufBytes& file, std::string_view part) {
    const std::string bytes = file.bytes();
    const auto content = parse_gguf(as_bytes(bytes), "x.gguf");
    ASSERT_TRUE(content) << content.error().message;
    const auto vocab = read_gguf_vocab(content->metadata);
    ASSERT_FALSE(vocab) << part;
    EXPECT_EQ(vocab.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(vocab.error().message.find(part), std::string::npos) << vocab.error().message;
  };
  refused(GgufBytes(), "x.gguf: no tokenizer.ggml.model");
  refused(GgufBytes().text("tokenizer.ggml.model", "gpt2"), "no tokens");
  refused(vocab_file().number("tokenizer.ggml.eos_token_id", 3),
          "tokenizer.ggml.eos_token_id is 3, want an id below the 3 tokens");
  refused(vocab_file().field("tokenizer.ggml.scores", 9,
                             raw<uint32_t>(6) + raw<uint64_t>(1) + raw(1.0F)),
          "tokenizer.ggml.scores has 1 elements, want 3");
  refused(vocab_file().field("tokenizer.ggml.token_type", 9,
                             raw<uint32_t>(5) + raw<uint64_t>(3) + raw<int32_t>(-1) +
                                 raw<int32_t>(1) + raw<int32_t>(1)),
          "tokenizer.ggml.token_type of token 0 is -1");
  refused(vocab_file().number("tokenizer.chat_template", 1), "want a string");
}

TEST(GgufVocab, ManyTokensCostTheirBytes) {
  constexpr size_t kTokens = 150000;
  std::vector<std::string> tokens;
  for (size_t i = 0; i < kTokens; ++i) {
    tokens.push_back(fmt::format("token{}", i));
  }
  const std::string bytes = GgufBytes()
                                .text("tokenizer.ggml.model", "gpt2")
                                .texts("tokenizer.ggml.tokens", tokens)
                                .bytes();
  reset_largest_allocation();
  const auto content = parse_gguf(as_bytes(bytes), "x");
  EXPECT_LT(largest_allocation(), kSmallAllocation);
  ASSERT_TRUE(content);
  const auto vocab = read_gguf_vocab(content->metadata);
  ASSERT_TRUE(vocab);
  EXPECT_EQ(vocab->tokens, tokens);
  EXPECT_LE(largest_allocation(), kTokens * sizeof(std::string));
}

// --- files and parts ---

std::string part_bytes(std::string_view tensor, uint16_t no, uint16_t count) {
  GgufBytes file;
  file.text("general.architecture", no == 0 ? "llama" : "other");
  file.field("split.no", 2, raw(no)).field("split.count", 2, raw(count));
  file.field("split.tensors.count", 5, raw<int32_t>(2));
  file.tensor(tensor, {4}, kF32, 0);
  file.data = std::string(16, static_cast<char>('0' + no));
  return file.bytes();
}

TEST(GgufFile, OpensAllPartsFromAnyPart) {
  const TempFolder folder;
  folder.write("m-00001-of-00002.gguf", part_bytes("a", 0, 2));
  folder.write("m-00002-of-00002.gguf", part_bytes("b", 1, 2));
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    auto file = GgufFile::open(folder.path() / name);
    ASSERT_TRUE(file) << file.error().message;
    const GgufFile moved = std::move(*file);
    EXPECT_EQ(moved.architecture().value(), "llama");
    ASSERT_EQ(moved.checkpoint().files().size(), 2U);
    EXPECT_EQ(static_cast<char>(moved.checkpoint().find("b")->data[0]), '1');
    EXPECT_EQ(moved.checkpoint().find("b")->file_index, 1);
    EXPECT_EQ(moved.checkpoint().total_bytes(), 32U);
  }
}

TEST(GgufFile, RefusesBrokenPartsByName) {
  const auto refused = [](const std::filesystem::path& path, ErrorCode code,
                          std::string_view part) {
    const auto file = GgufFile::open(path);
    ASSERT_FALSE(file) << part;
    EXPECT_EQ(file.error().code, code);
    EXPECT_NE(file.error().message.find(part), std::string::npos) << file.error().message;
  };
  const TempFolder folder;
  const auto first = folder.write("m-00001-of-00003.gguf", part_bytes("a", 0, 3));
  refused(first, ErrorCode::kNotFound,
          "2 of 3 parts of the model are not there: m-00002-of-00003.gguf (missing), "
          "m-00003-of-00003.gguf (missing)");
  const auto renamed = folder.write("renamed.gguf", part_bytes("a", 1, 2));
  refused(renamed, ErrorCode::kInvalidArgument, "this is part 2 of 2");
  const auto same = folder.write("n-00001-of-00002.gguf", part_bytes("a", 0, 2));
  folder.write("n-00002-of-00002.gguf", part_bytes("b", 0, 2));
  refused(same, ErrorCode::kDataLoss, "says split.no 0 of split.count 2, want 1 of 2");
  const auto double_name = folder.write("d-00001-of-00002.gguf", part_bytes("a", 0, 2));
  folder.write("d-00002-of-00002.gguf", part_bytes("a", 1, 2));
  refused(double_name, ErrorCode::kDataLoss, "both hold tensor 'a'");
  refused(folder.path() / "absent.gguf", ErrorCode::kNotFound, "absent.gguf");
  refused(folder.path(), ErrorCode::kInvalidArgument, "found a folder");
  ASSERT_EQ(::mkfifo((folder.path() / "pipe.gguf").c_str(), 0600), 0);
  refused(folder.path() / "pipe.gguf", ErrorCode::kInvalidArgument, "want a regular file");
  refused(folder.write("empty.gguf", ""), ErrorCode::kInvalidArgument, "0 bytes");
}

TEST(GgufFile, ReadsPartNames) {
  const auto part = parse_gguf_part_name("a-b-00002-of-00010.gguf");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->prefix, "a-b");
  EXPECT_EQ(part->part, 2);
  EXPECT_EQ(part->count, 10);
  for (const char* name :
       {"a.gguf", "-00001-of-00002.gguf", "a-00000-of-00002.gguf", "a-00003-of-00002.gguf",
        "a-0001-of-00002.gguf", "a-0000x-of-00002.gguf", "a-00001-of-00002.bin",
        "a--0001-of-00002.gguf", "00001-of-00002.gguf"}) {
    EXPECT_FALSE(parse_gguf_part_name(name)) << name;
  }
}

}  // namespace
}  // namespace logitlab
