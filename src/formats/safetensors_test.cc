#include "formats/safetensors.h"

#include <sys/stat.h>

#include "formats/test_bytes.h"

namespace logitlab {
namespace {

std::string header_of(std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return fmt::format(R"({{"a":{{"dtype":"{}","shape":{},"data_offsets":{}}}}})", dtype, shape,
                     offsets);
}

// Parses and expects an error whose message names the file and holds every one of `parts`.
void expect_refused(std::string_view file, ErrorCode code, const std::vector<std::string>& parts) {
  reset_largest_allocation();
  const auto result = parse_safetensors(as_bytes(file), "x.safetensors");
  EXPECT_LT(largest_allocation(), kSmallAllocation);
  ASSERT_FALSE(result) << "want a refusal with " << parts[0];
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_EQ(exit_code(result.error().code), 3);
  EXPECT_EQ(result.error().message.rfind("x.safetensors: ", 0), 0U) << result.error().message;
  for (const std::string& part : parts) {
    EXPECT_NE(result.error().message.find(part), std::string::npos)
        << result.error().message << "\nwant: " << part;
  }
}

TEST(Safetensors, ReadsTensorsOfEveryRankAndUnalignedData) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"flag":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]},)"
      R"("w":{"dtype":"BF16","shape":[2,3],"data_offsets":[3,15]},)"
      R"("empty":{"dtype":"F32","shape":[0,7],"data_offsets":[15,15]},)"
      R"("scalar":{"shape":[],"dtype":"F32","data_offsets":[15,19]}}   )";
  const std::string file = safetensors_bytes(header, "abc0123456789ABWXYZ");
  const auto entries = parse_safetensors(as_bytes(file), "x", 7);
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), 4U);
  const TensorEntry& w = (*entries)[1];
  EXPECT_EQ(w.name, "w");
  EXPECT_EQ(w.dtype, DType::kBF16);
  EXPECT_EQ(w.shape, (Shape{2, 3}));
  EXPECT_EQ(w.bytes, 12U);
  EXPECT_EQ(w.file_index, 7);
  EXPECT_EQ(w.offset, 8 + header.size() + 3);
  EXPECT_EQ(static_cast<char>(w.data[0]), '0');
  EXPECT_EQ((*entries)[2].bytes, 0U);
  EXPECT_EQ((*entries)[3].shape.rank(), 0);
  EXPECT_EQ(static_cast<char>((*entries)[3].data[3]), 'Z');
}

TEST(Safetensors, RefusesWhatIsNoSafetensorsFile) {
  expect_refused("", ErrorCode::kDataLoss, {"found 0 bytes, want a safetensors file"});
  expect_refused("1234567", ErrorCode::kDataLoss, {"found 7 bytes"});
  expect_refused(raw<uint64_t>(0) + "{}", ErrorCode::kInvalidArgument, {"starts with nothing"});
  expect_refused(safetensors_bytes("<html>", ""), ErrorCode::kInvalidArgument,
                 {"starts with '<html>'", "want '{'"});
  expect_refused(safetensors_bytes("{\"a\": oops}", ""), ErrorCode::kInvalidArgument,
                 {"not JSON at byte"});
  expect_refused(safetensors_bytes("{} trailing", ""), ErrorCode::kInvalidArgument, {"not JSON"});
  expect_refused(safetensors_bytes(std::string("{}\0{}", 5), ""), ErrorCode::kInvalidArgument,
                 {"found a NUL"});
  expect_refused(safetensors_bytes("{\"\xff\":1}", ""), ErrorCode::kInvalidArgument, {"not JSON"});
}

TEST(Safetensors, RefusesHeaderLengthsBeyondTheFileOrTheLimit) {
  expect_refused(raw<uint64_t>(uint64_t{4} << 30) + "{}", ErrorCode::kInvalidArgument,
                 {"header length 4294967296, want at most 100000000"});
  expect_refused(raw<uint64_t>(UINT64_MAX) + "{}", ErrorCode::kInvalidArgument,
                 {"header length 18446744073709551615"});
  expect_refused(raw<uint64_t>(3) + "{}", ErrorCode::kDataLoss,
                 {"header length 3, but only 2 bytes follow", "truncated"});
}

TEST(Safetensors, RefusesWrongDTypes) {
  expect_refused(safetensors_bytes(header_of("F4", "[2]", "[0,8]"), "12345678"),
                 ErrorCode::kUnsupported, {"tensor 'a': dtype 'F4', want one of F64, F32"});
  expect_refused(safetensors_bytes(header_of("f32", "[2]", "[0,8]"), "12345678"),
                 ErrorCode::kUnsupported, {"dtype 'f32'"});
  expect_refused(safetensors_bytes(R"({"a":{"dtype":3,"shape":[],"data_offsets":[0,4]}})", "1234"),
                 ErrorCode::kInvalidArgument, {"tensor 'a': dtype holds 3, want a dtype"});
  // The dtype is known, but the bytes are of another one.
  expect_refused(safetensors_bytes(header_of("F16", "[2]", "[0,8]"), "12345678"),
                 ErrorCode::kDataLoss, {"hold 8 bytes, want 4 for F16 [2]"});
}

TEST(Safetensors, RefusesNegativeAndOverflowingSizes) {
  expect_refused(safetensors_bytes(header_of("F32", "[-1,2]", "[0,8]"), "12345678"),
                 ErrorCode::kInvalidArgument, {"tensor 'a': shape holds -1, want a list of sizes"});
  expect_refused(
      safetensors_bytes(header_of("F32", "[4294967296,4294967296]", "[0,8]"), "12345678"),
      ErrorCode::kInvalidArgument, {"takes more than 2^63 bytes"});
  // The product is 0, but half of it does not fit.
  expect_refused(safetensors_bytes(header_of("U8", "[4611686018427387904,4,0]", "[0,0]"), ""),
                 ErrorCode::kInvalidArgument, {"takes more than 2^63 bytes"});
  expect_refused(safetensors_bytes(header_of("U8", "[9223372036854775808]", "[0,0]"), ""),
                 ErrorCode::kInvalidArgument, {"takes more than 2^63 bytes"});
  expect_refused(safetensors_bytes(header_of("U8", "[99999999999999999999]", "[0,0]"), ""),
                 ErrorCode::kInvalidArgument, {"shape holds 99999999999999999999"});
  expect_refused(safetensors_bytes(header_of("U8", "[1.5]", "[0,1]"), "1"),
                 ErrorCode::kInvalidArgument, {"shape holds 1.5"});
  expect_refused(safetensors_bytes(header_of("U8", "[[1]]", "[0,1]"), "1"),
                 ErrorCode::kInvalidArgument, {"shape holds an array"});
  expect_refused(safetensors_bytes(header_of("U8", "[1,1,1,1,1]", "[0,1]"), "1"),
                 ErrorCode::kUnsupported, {"more than 4 dimensions"});
}

TEST(Safetensors, RefusesOffsetsThatDoNotFit) {
  expect_refused(safetensors_bytes(header_of("F32", "[2]", "[0,8]"), "1234567"),
                 ErrorCode::kDataLoss,
                 {"data_offsets [0, 8] end after the 7 bytes of data", "truncated"});
  expect_refused(safetensors_bytes(header_of("F32", "[2]", "[8,0]"), "12345678"),
                 ErrorCode::kDataLoss, {"data_offsets [8, 0], want [begin, end]"});
  expect_refused(safetensors_bytes(header_of("F32", "[2]", "[-8,0]"), "12345678"),
                 ErrorCode::kInvalidArgument, {"data_offsets holds -8"});
  expect_refused(safetensors_bytes(header_of("F32", "[2]", "[0,8,8]"), "12345678"),
                 ErrorCode::kDataLoss, {"data_offsets [0, 8, 8]"});
  expect_refused(safetensors_bytes(header_of("F32", "[2]", "[0]"), "12345678"),
                 ErrorCode::kDataLoss, {"data_offsets [0], want"});
  expect_refused(
      safetensors_bytes(header_of("U8", "[2]", "[18446744073709551614,18446744073709551615]"), ""),
      ErrorCode::kDataLoss, {"end after the 0 bytes"});
}

TEST(Safetensors, RefusesOverlapsHolesAndTrailingBytes) {
  const auto two = [](std::string_view a, std::string_view b) {
    return fmt::format(R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":{}}},)"
                       R"("b":{{"dtype":"U8","shape":[4],"data_offsets":{}}}}})",
                       a, b);
  };
  expect_refused(safetensors_bytes(two("[0,4]", "[2,6]"), "123456"), ErrorCode::kDataLoss,
                 {"tensors 'a' and 'b' overlap"});
  expect_refused(safetensors_bytes(two("[0,4]", "[0,4]"), "1234"), ErrorCode::kDataLoss,
                 {"overlap"});
  expect_refused(safetensors_bytes(two("[0,4]", "[5,9]"), "123456789"), ErrorCode::kDataLoss,
                 {"before tensor 'b' belong to no tensor"});
  expect_refused(safetensors_bytes(two("[0,4]", "[4,8]"), "123456789"), ErrorCode::kDataLoss,
                 {"1 bytes after the last tensor"});
}

TEST(Safetensors, RefusesContradictingHeaders) {
  expect_refused(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                                   R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                                   ""),
                 ErrorCode::kDataLoss, {"tensor 'a' is there twice"});
  expect_refused(safetensors_bytes(R"({"a":{"dtype":"U8","dtype":"U8"}})", ""),
                 ErrorCode::kInvalidArgument, {"'dtype' twice"});
  expect_refused(safetensors_bytes(R"({"a":{"dtype":"U8","shape":[0]}})", ""),
                 ErrorCode::kInvalidArgument, {"no data_offsets"});
  expect_refused(safetensors_bytes(R"({"a":7})", ""), ErrorCode::kInvalidArgument,
                 {"'a': found 7, want an object with dtype"});
  expect_refused(safetensors_bytes(R"({"a":[]})", ""), ErrorCode::kInvalidArgument,
                 {"'a': found an array"});
  const std::string deep = R"({"a":{"other":)" + std::string(5000, '[');
  expect_refused(safetensors_bytes(deep, ""), ErrorCode::kInvalidArgument, {"nested more than"});
}

TEST(Safetensors, EveryPrefixOfAFileIsRefused) {
  const std::string file = safetensors_bytes(header_of("F32", "[2]", "[0,8]"), "12345678");
  ASSERT_TRUE(parse_safetensors(as_bytes(file), "x"));
  for (size_t n = 0; n < file.size(); ++n) {
    // A copy of its own, so that a sanitizer sees every byte that is read too much.
    const std::vector<char> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(parse_safetensors(as_bytes({cut.data(), cut.size()}), "x")) << n;
  }
}

TEST(Safetensors, UntrustedNamesCannotMoveTheCursor) {
  const auto result =
      parse_safetensors(as_bytes(safetensors_bytes("{\"\\u001b[2J\":7}", "")), "x.safetensors");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().message.find('\x1b'), std::string::npos);
}

// --- folders, shards, indices ---

constexpr std::string_view kIndexName = "model.safetensors.index.json";

std::string one_tensor(std::string_view name, std::string_view data) {
  return safetensors_bytes(
      fmt::format(R"({{"{}":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{}]}}}})", name,
                  data.size(), data.size()),
      data);
}

TEST(SafetensorsFolder, ReadsASingleFile) {
  const TempFolder folder;
  folder.write("model.safetensors", one_tensor("w", "1234"));
  const auto checkpoint = open_safetensors(folder.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->total_bytes(), 4U);
  ASSERT_EQ(checkpoint->files().size(), 1U);
  EXPECT_EQ(checkpoint->files()[0].path, folder.path() / "model.safetensors");
  const TensorEntry* w = checkpoint->find("w");
  ASSERT_NE(w, nullptr);
  EXPECT_EQ(static_cast<char>(w->data[3]), '4');
  checkpoint->will_need(*w);
  checkpoint->release_cached();
  EXPECT_EQ(static_cast<char>(w->data[0]), '1');
  EXPECT_EQ(checkpoint->find("v"), nullptr);
  const auto absent = checkpoint->require("W");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, ErrorCode::kNotFound);
}

TEST(SafetensorsFolder, NamesTheClosestTensor) {
  const TempFolder folder;
  folder.write("model.safetensors", one_tensor("model.norm.weight", "1234"));
  const auto checkpoint = open_safetensors(folder.path());
  ASSERT_TRUE(checkpoint);
  const auto absent = checkpoint->require("model.norm.weights");
  ASSERT_FALSE(absent);
  EXPECT_NE(absent.error().message.find("the closest name is 'model.norm.weight'"),
            std::string::npos)
      << absent.error().message;
}

TEST(SafetensorsFolder, ReadsShardsAndOnlyWhatTheIndexNames) {
  const TempFolder folder;
  folder.write("s1.safetensors",
               safetensors_bytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                                 R"("spare":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                                 "abS"));
  folder.write("s2.safetensors", one_tensor("b", "cd"));
  folder.write("unnamed.safetensors", "not read");
  folder.write(kIndexName, R"({"metadata":{"total_size":4},"weight_map":)"
                           R"({"b":"s2.safetensors","a":"s1.safetensors"}})");
  const auto checkpoint = open_safetensors(folder.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ(checkpoint->tensors().size(), 2U);
  EXPECT_EQ(checkpoint->find("spare"), nullptr);
  EXPECT_EQ(static_cast<char>(checkpoint->find("b")->data[1]), 'd');
  EXPECT_TRUE(checkpoint->warnings().empty());
}

TEST(SafetensorsFolder, AWrongTotalSizeIsAWarning) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a", "1234"));
  folder.write(kIndexName,
               R"({"metadata":{"total_size":5.0},"weight_map":{"a":"s1.safetensors"}})");
  const auto checkpoint = open_safetensors(folder.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  ASSERT_EQ(checkpoint->warnings().size(), 1U);
  EXPECT_NE(checkpoint->warnings()[0].find("total_size 5, but the tensors take 4 bytes: 1 U8"),
            std::string::npos)
      << checkpoint->warnings()[0];
}

void expect_folder_refused(const TempFolder& folder, ErrorCode code,
                           const std::vector<std::string>& parts) {
  const auto result = open_safetensors(folder.path());
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_NE(result.error().message.find(folder.path().string()), std::string::npos);
  for (const std::string& part : parts) {
    EXPECT_NE(result.error().message.find(part), std::string::npos)
        << result.error().message << "\nwant: " << part;
  }
}

TEST(SafetensorsFolder, NamesEveryMissingShard) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a", "1234"));
  std::filesystem::create_symlink("../nowhere", folder.path() / "s3.safetensors");
  folder.write(kIndexName, R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors",)"
                           R"("c":"s3.safetensors"}})");
  expect_folder_refused(
      folder, ErrorCode::kNotFound,
      {"2 of 3 shards", "s2.safetensors (missing)", "s3.safetensors (a link to a missing file)"});
}

TEST(SafetensorsFolder, ListsNoMoreMissingShardsThanOneReads) {
  const TempFolder folder;
  std::string map;
  for (int i = 0; i < 5000; ++i) {
    map += fmt::format("{}\"t{}\":\"s{:04}.safetensors\"", i == 0 ? "" : ",", i, i);
  }
  folder.write(kIndexName, "{\"weight_map\":{" + map + "}}");
  const auto result = open_safetensors(folder.path());
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("s0099.safetensors (missing) and 4900 more"),
            std::string::npos)
      << result.error().message;
}

TEST(SafetensorsFolder, RefusesATruncatedShardByName) {
  const TempFolder folder;
  const std::string shard = one_tensor("a", "1234");
  folder.write("s1.safetensors", shard.substr(0, shard.size() - 1));
  folder.write(kIndexName, R"({"weight_map":{"a":"s1.safetensors"}})");
  expect_folder_refused(folder, ErrorCode::kDataLoss, {"s1.safetensors: tensor 'a'", "truncated"});
}

TEST(SafetensorsFolder, RefusesATensorThatItsShardLacks) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a", "1234"));
  folder.write(kIndexName, R"({"weight_map":{"a":"s1.safetensors","b":"s1.safetensors"}})");
  expect_folder_refused(folder, ErrorCode::kDataLoss,
                        {"tensor 'b' should be in s1.safetensors", "does not hold it (1 tensors",
                         "seems to be of another revision than the index"});
}

TEST(SafetensorsFolder, NamesTheShardThatHoldsTheTensorInstead) {
  const TempFolder folder;
  folder.write("s1.safetensors", one_tensor("a", "1234"));
  folder.write("s2.safetensors", one_tensor("b", "cd"));
  folder.write(kIndexName, R"({"weight_map":{"a":"s2.safetensors","b":"s1.safetensors"}})");
  expect_folder_refused(folder, ErrorCode::kDataLoss,
                        {"tensor 'a' should be in s2.safetensors",
                         "does not hold it, s1.safetensors does (2 tensors"});
}

TEST(SafetensorsFolder, RefusesFilesThatAreNoFiles) {
  const TempFolder folder;
  expect_folder_refused(folder, ErrorCode::kNotFound, {"no weights: looked for model.safetensors"});
  ASSERT_EQ(::mkfifo((folder.path() / "model.safetensors").c_str(), 0600), 0);
  expect_folder_refused(folder, ErrorCode::kInvalidArgument, {"want a regular file"});
  std::filesystem::remove(folder.path() / "model.safetensors");
  std::filesystem::create_directory(folder.path() / "model.safetensors");
  expect_folder_refused(folder, ErrorCode::kInvalidArgument, {"found a folder"});
  std::filesystem::remove(folder.path() / "model.safetensors");
  folder.write("model.safetensors", "");
  expect_folder_refused(folder, ErrorCode::kDataLoss, {"found 0 bytes"});
}

TEST(SafetensorsIndex, RefusesBadIndices) {
  struct Case {
    std::string_view text;
    std::string_view part;
  };
  const Case cases[] = {
      {"", "not JSON"},
      {"GGUF", "not JSON at byte"},
      {"[]", "found an array, want an object"},
      {"7", "found 7, want an object"},
      {"{}", "no weight_map entries"},
      {R"({"weight_map":{}})", "no weight_map entries"},
      {R"({"weight_map":["a"]})", "weight_map is an array"},
      {R"({"weight_map":7})", "weight_map is 7"},
      {R"({"weight_map":{"a":7}})", "'a' holds 7, want a file name"},
      {R"({"weight_map":{"a":{}}})", "'a' holds an object"},
      {R"({"weight_map":{"a":"../x"}})", "'a' is in '../x', want a file name of the same folder"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "want a file name"},
      {R"({"weight_map":{"a":".."}})", "want a file name"},
      {R"({"weight_map":{"a":""}})", "want a file name"},
      {R"({"weight_map":{"a":"b\\c"}})", "want a file name"},
      {R"({"weight_map":{"a":"b\u0000c"}})", "want a file name"},
      {R"({"weight_map":{"a":"x","a":"y"}})", "names tensor 'a' twice"},
      {R"({"weight_map":{"a":"x"},"weight_map":{"b":"y"}})", "weight_map is there twice"},
  };
  for (const Case& c : cases) {
    const auto result = parse_safetensors_index(c.text, "i.json");
    ASSERT_FALSE(result) << c.text;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(result.error().message.rfind("i.json: ", 0), 0U);
    EXPECT_NE(result.error().message.find(c.part), std::string::npos) << result.error().message;
  }
}

TEST(SafetensorsIndex, IgnoresWhatItDoesNotKnow) {
  const auto index = parse_safetensors_index(
      R"({"metadata":{"total_size":-3,"note":["x",{"weight_map":1}]},"other":[[1],null],)"
      R"("weight_map":{"b":"y","a":"x"}})",
      "i.json");
  ASSERT_TRUE(index) << index.error().message;
  EXPECT_FALSE(index->total_size);
  EXPECT_EQ(index->weight_map[0].first, "a");
  EXPECT_EQ(index->file_names, (std::vector<std::string>{"x", "y"}));
}

}  // namespace
}  // namespace logitlab
