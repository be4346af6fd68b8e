#include <atomic>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/edit_distance.h"
#include "base/env.h"
#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/philox.h"
#include "base/thread_pool.h"
#include "base/utf8.h"

namespace logitlab {
namespace {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "logitlab-XXXXXX").string();
    path_ = ::mkdtemp(name.data());
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(Error, CodesMapToTheDocumentedExitCodes) {
  EXPECT_EQ(exit_code(ErrorCode::kUsage), 2);
  EXPECT_EQ(exit_code(ErrorCode::kNotFound), 3);
  EXPECT_EQ(exit_code(ErrorCode::kResourceExhausted), 4);
  EXPECT_EQ(exit_code(ErrorCode::kInternal), 70);
  EXPECT_EQ(code_name(ErrorCode::kDataLoss), "data_loss");
}

TEST(Json, ReportsWhereItStopped) {
  const auto bad = parse_json("{\"a\": 1,\n  oops}", "config.json");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(bad.error().message.find("config.json: not JSON at line 2"), std::string::npos)
      << bad.error().message;
}

TEST(Json, MessagesArePrintable) {
  for (const char* text : {"\x93NUMPY", "\"\x1b[2J", "{\"\x7f"}) {
    const auto bad = parse_json(text, "x");
    ASSERT_FALSE(bad);
    EXPECT_EQ(printable(bad.error().message), bad.error().message);
  }
}

TEST(Json, BoundsDepthAndRefusesHugeNesting) {
  const std::string deep(100000, '[');
  const auto bad = parse_json(deep, "x");
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message.find("nested 100000 deep"), std::string::npos);
}

TEST(Json, AcceptsPythonNumbersOnlyWhenAsked) {
  const std::string text = R"({"a": [Infinity, -Infinity, NaN], "s": "Infinity \" NaN"})";
  EXPECT_FALSE(parse_json(text, "x"));
  const auto good = parse_json(text, "x", {.allow_python_numbers = true});
  ASSERT_TRUE(good) << good.error().message;
  EXPECT_TRUE(std::isinf((*good)["a"][0].get<double>()));
  EXPECT_LT((*good)["a"][1].get<double>(), 0);
  EXPECT_TRUE(std::isnan((*good)["a"][2].get<double>()));
  EXPECT_EQ((*good)["s"], "Infinity \" NaN");
}

TEST(Json, DumpReplacesInvalidUtf8) {
  EXPECT_EQ(dump_json(Json("a\xff")), "\"a\xEF\xBF\xBD\"");
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(first_invalid_utf8("a\xC3\xA9"), 3U);
  EXPECT_EQ(first_invalid_utf8("a\xC3"), 1U);
  EXPECT_EQ(first_invalid_utf8("\xC0\x80"), 0U);          // overlong
  EXPECT_EQ(first_invalid_utf8("\xED\xA0\x80"), 0U);      // surrogate
  EXPECT_EQ(first_invalid_utf8("\xF4\x90\x80\x80"), 0U);  // above U+10FFFF
}

TEST(Utf8, ReplacesLikePython) {
  // bytes(...).decode("utf-8", "replace") in CPython 3.11.
  EXPECT_EQ(replace_invalid_utf8("\xF0\x9F\x98"), "\xEF\xBF\xBD");
  EXPECT_EQ(replace_invalid_utf8("\xE1\x80\x41"), "\xEF\xBF\xBD\x41");
  EXPECT_EQ(replace_invalid_utf8("\xC0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(Utf8, WidthAndPrintable) {
  EXPECT_EQ(display_width("abc"), 3U);
  EXPECT_EQ(display_width("\xE6\xBC\xA2"), 2U);  // a CJK ideograph
  EXPECT_EQ(display_width("e\xCC\x81"), 1U);     // e and a combining acute
  EXPECT_EQ(printable("a\n\x1b[31m\xff"), "a\\n\\x1b[31m\\xff");
}

TEST(JsonText, IsQuotedAsOnePrintableLine) {
  EXPECT_EQ(quoted_json(Json("a\x7f\xC2\x85"
                             "b")),
            "\"a\\x7f\\x85b\"");
  const std::string cut = quoted_json(Json(std::string(30, 'a') + "\xE6\xBC\xA2"), 32);
  EXPECT_EQ(printable(cut), cut);
  EXPECT_TRUE(cut.ends_with("..."));
}

TEST(Utf8, AppendRoundTrips) {
  std::string out;
  for (const char32_t c : {U'a', U'\u00e9', U'\u6f22', U'\U0001F600'}) {
    append_utf8(&out, c);
  }
  EXPECT_EQ(out, "a\xC3\xA9\xE6\xBC\xA2\xF0\x9F\x98\x80");
}

TEST(File, ReadsMapsAndRefuses) {
  const TempFolder folder;
  const auto path = folder.path() / "x";
  ASSERT_TRUE(write_file_atomically(path, "hello"));
  EXPECT_EQ(read_text_file(path, 100).value(), "hello");
  EXPECT_EQ(read_text_file(path, 4).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(read_text_file(folder.path(), 4).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(read_text_file(folder.path() / "y", 4).error().code, ErrorCode::kNotFound);
  auto mapped = MappedFile::open(path);
  ASSERT_TRUE(mapped);
  EXPECT_EQ(mapped->bytes().size(), 5U);
  MappedFile moved = std::move(*mapped);
  EXPECT_EQ(static_cast<char>(moved.bytes()[4]), 'o');
  ASSERT_TRUE(write_file_atomically(folder.path() / "empty", ""));
  EXPECT_EQ(MappedFile::open(folder.path() / "empty")->bytes().size(), 0U);
  EXPECT_EQ(MappedFile::open(folder.path()).error().code, ErrorCode::kInvalidArgument);
}

TEST(MappedFile, ReadsPastTheMapping) {
  const TempFolder folder;
  const auto path = folder.path() / "digits";
  ASSERT_TRUE(write_file_atomically(path, "0123456789"));
  const auto file = MappedFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  std::string out(4, '?');
  ASSERT_TRUE(file->read_at(3, std::as_writable_bytes(std::span(out))));
  EXPECT_EQ(out, "3456");
  const auto past = file->read_at(8, std::as_writable_bytes(std::span(out)));
  ASSERT_FALSE(past);
  EXPECT_EQ(past.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(past.error().message.find("digits: found the end of the file at byte 10"),
            std::string::npos)
      << past.error().message;
}

TEST(MappedFile, CountsAndReleasesItsPages) {
  const TempFolder folder;
  const auto path = folder.path() / "pages";
  constexpr size_t kBytes = size_t{3} << 20;
  ASSERT_TRUE(write_file_atomically(path, std::string(kBytes, 'x')));
  auto file = MappedFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  // It was written a moment ago, so it lies in the page cache wherever it lives.
  ASSERT_TRUE(file->cached_bytes().has_value());
  EXPECT_EQ(*file->cached_bytes(), kBytes);
  file->release_cached(kBytes, 1);  // outside: nothing happens
  file->release_cached();           // dirty pages may stay
  EXPECT_LE(*file->cached_bytes(), kBytes);
  EXPECT_EQ(static_cast<char>(file->bytes()[kBytes - 1]), 'x');
  EXPECT_EQ(MappedFile().cached_bytes(), 0U);
}

TEST(PageMemory, IsAlignedZeroedAndMovable) {
  EXPECT_EQ(PageMemory::allocate(0)->data(), nullptr);
  auto memory = PageMemory::allocate(5'000'000);
  ASSERT_TRUE(memory) << memory.error().message;
  EXPECT_GE(memory->size(), 5'000'000U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % (size_t{2} << 20), 0U);
  EXPECT_EQ(memory->data()[0], std::byte{0});
  EXPECT_EQ(memory->data()[memory->size() - 1], std::byte{0});
  memory->data()[memory->size() - 1] = std::byte{7};
  const PageMemory moved = std::move(*memory);
  EXPECT_EQ(moved.size() % (size_t{2} << 20), 0U);
  EXPECT_EQ(memory->data(), nullptr);  // NOLINT(bugprone-use-after-move)
  for (const size_t size : {SIZE_MAX, SIZE_MAX / 2}) {
    const auto refused = PageMemory::allocate(size);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  }
}

TEST(Memory, PagesOfFilesArePartOfWhatIsResident) {
  const MemoryReading reading = read_memory();
  EXPECT_GT(reading.resident_file_bytes, 0U);  // the program itself
  EXPECT_LT(reading.resident_file_bytes, reading.resident_bytes);
  EXPECT_LE(reading.resident_bytes, reading.peak_resident_bytes + (size_t{1} << 20));
  EXPECT_LE(reading.available_bytes, reading.total_bytes);
}

TEST(File, WritingKeepsDevicesAndLinks) {
  const TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder.path() / "file", "old"));
  std::filesystem::create_symlink("file", folder.path() / "link");
  ASSERT_TRUE(write_file_atomically(folder.path() / "link", "new"));
  EXPECT_TRUE(std::filesystem::is_symlink(folder.path() / "link"));
  EXPECT_EQ(read_text_file(folder.path() / "file", 10).value(), "new");
  std::filesystem::create_symlink("/dev/full", folder.path() / "full");
  EXPECT_EQ(write_file_atomically(folder.path() / "full", "x").error().code,
            ErrorCode::kResourceExhausted);
  EXPECT_TRUE(std::filesystem::is_symlink(folder.path() / "full"));
  EXPECT_FALSE(write_file_atomically(folder.path(), "x"));
}

TEST(EditDistance, CountsInsertedDeletedAndReplacedBytes) {
  EXPECT_EQ(edit_distance("", ""), 0U);
  EXPECT_EQ(edit_distance("abc", ""), 3U);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("top_k", "topk"), 1U);
}

TEST(Philox, MatchesTheAuthorsKnownAnswers) {
  // kat_vectors of the Random123 distribution, philox4x32 10.
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (PhiloxBlock{0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}));
  EXPECT_EQ(
      philox4x32({0xffffffffU, 0xffffffffU, 0xffffffffU, 0xffffffffU}, {0xffffffffU, 0xffffffffU}),
      (PhiloxBlock{0x408f276dU, 0x41c83b0eU, 0xa20bc7c6U, 0x6d5451fdU}));
  EXPECT_EQ(
      philox4x32({0x243f6a88U, 0x85a308d3U, 0x13198a2eU, 0x03707344U}, {0xa4093822U, 0x299f31d0U}),
      (PhiloxBlock{0xd16cfe09U, 0x94fdccebU, 0x5001e420U, 0x24126ea1U}));
}

TEST(ThreadPool, RunsEveryIndexOnceForAnyNumberOfThreads) {
  for (const int n_threads : {1, 2, 5}) {
    ThreadPool pool(n_threads);
    for (int round = 0; round < 200; ++round) {
      std::vector<std::atomic<int>> hits(static_cast<size_t>(round) + 1);
      pool.parallel_for(round + 1, [&](int64_t i, int thread) {
        ASSERT_LT(thread, n_threads);
        hits[static_cast<size_t>(i)].fetch_add(1);
      });
      for (const auto& hit : hits) {
        ASSERT_EQ(hit.load(), 1);
      }
    }
  }
}

TEST(Env, MemoryAndProcessorsArePlausible) {
  const MemoryReading memory = read_memory();
  EXPECT_GT(memory.resident_bytes, 1U << 20);
  EXPECT_GE(memory.peak_resident_bytes, memory.resident_bytes / 2);
  EXPECT_GE(memory.total_bytes, memory.available_bytes);
  EXPECT_GE(available_processors(), 1);
  EXPECT_GE(terminal_columns(), 20);
}

}  // namespace
}  // namespace logitlab
