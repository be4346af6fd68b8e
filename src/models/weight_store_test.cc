#include "models/weight_store.h"

#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "formats/safetensors.h"
#include "formats/test_bytes.h"

namespace logitlab {
namespace {

constexpr int64_t kRows = 3000;
constexpr int64_t kColumns = 1001;  // rows that start at odd places, larger than one piece in sum
constexpr int64_t kVector = 5;

float value_at(int64_t row, int64_t column) {
  return static_cast<float>((row * 31 + column * 7) % 251) - 125.0F;  // exact in bfloat16
}

std::string matrix_bytes() {
  std::vector<float> row(kColumns);
  std::string bytes(static_cast<size_t>(kRows) * row_bytes(DType::kBF16, kColumns), '\0');
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t c = 0; c < kColumns; ++c) {
      row[static_cast<size_t>(c)] = value_at(r, c);
    }
    row_from_float(DType::kBF16, row.data(),
                   reinterpret_cast<std::byte*>(bytes.data()) +
                       static_cast<size_t>(r) * row_bytes(DType::kBF16, kColumns),
                   kColumns);
  }
  return bytes;
}

// Two shards: a vector and matrix "a" in the first, matrix "b" in the second. On the disk when this
// returns: pages that wait to be written cannot be released.
void write_shards(const TempFolder& folder) {
  const std::string matrix = matrix_bytes();
  std::string vector;
  for (int i = 0; i < kVector; ++i) {
    vector += raw(static_cast<float>(i) + 0.5F);
  }
  const size_t end = vector.size() + matrix.size();
  folder.write("s1.safetensors",
               safetensors_bytes(
                   fmt::format(R"({{"v":{{"dtype":"F32","shape":[{}],"data_offsets":[0,{}]}},)"
                               R"("a":{{"dtype":"BF16","shape":[{},{}],"data_offsets":[{},{}]}}}})",
                               kVector, vector.size(), kRows, kColumns, vector.size(), end),
                   vector + matrix));
  folder.write(
      "s2.safetensors",
      safetensors_bytes(
          fmt::format(R"({{"b":{{"dtype":"BF16","shape":[{},{}],"data_offsets":[0,{}]}}}})", kRows,
                      kColumns, matrix.size()),
          matrix));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{"total_size":1},"weight_map":)"
               R"({"v":"s1.safetensors","a":"s1.safetensors","b":"s2.safetensors"}})");
  for (const char* name : {"s1.safetensors", "s2.safetensors"}) {
    const int fd = ::open((folder.path() / name).c_str(), O_RDONLY | O_CLOEXEC);
    ASSERT_EQ(::fsync(fd), 0);
    ::close(fd);
  }
}

// Asked of the kernel in another way than the product does.
size_t resident_pages(const std::filesystem::path& path) {
  const size_t size = std::filesystem::file_size(path);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  ::close(fd);
  EXPECT_NE(data, MAP_FAILED);
  std::vector<unsigned char> pages((size + 4095) / 4096);
  EXPECT_EQ(::mincore(data, size, pages.data()), 0);
  ::munmap(data, size);
  return static_cast<size_t>(std::count_if(pages.begin(), pages.end(),
                                           [](unsigned char page) { return (page & 1U) != 0; }));
}

// A file system that lives in the page cache has nothing to release to.
bool keeps_pages(const std::filesystem::path& folder) {
  constexpr auto kTmpfs = 0x01021994;
  constexpr auto kRamfs = 0x858458f6;
  struct statfs status {};
  return ::statfs(folder.c_str(), &status) != 0 || status.f_type == kTmpfs ||
         status.f_type == static_cast<decltype(status.f_type)>(kRamfs);
}

class CountingProgress final : public ProgressSink {
 public:
  using ProgressSink::update;
  void update(std::string_view /*what*/, uint64_t done, uint64_t total, std::string_view unit,
              std::string_view detail) override {
    EXPECT_LE(done, total);
    EXPECT_EQ(unit, "bytes");
    is_complete = done == total;
    last_detail = detail;
  }
  void finish(std::string_view /*what*/) override { ++finished; }

  bool is_complete = false;
  int finished = 0;
  std::string last_detail;
};

class WeightStoreTest : public testing::Test {
 protected:
  void SetUp() override { write_shards(folder_); }

  Result<WeightStore> checked(const LoadOptions& options) {
    ASSIGN_OR_RETURN(Checkpoint checkpoint, open_safetensors(folder_.path()));
    ASSIGN_OR_RETURN(WeightStore store,
                     WeightStore::make(std::move(checkpoint), options, *backend_));
    RETURN_IF_ERROR(bind(&store));
    return store;
  }
  Result<WeightStore> loaded(const LoadOptions& options, size_t available) {
    ASSIGN_OR_RETURN(WeightStore store, checked(options));
    RETURN_IF_ERROR(store.begin_load(available));
    RETURN_IF_ERROR(bind(&store));
    RETURN_IF_ERROR(store.finish_load(context_));
    return store;
  }
  Status bind(WeightStore* store) {
    ASSIGN_OR_RETURN(a_, store->matrix("a", kRows, kColumns, Op::kLinear));
    ASSIGN_OR_RETURN(b_, store->matrix("b", kRows, kColumns, Op::kLinear));
    ASSIGN_OR_RETURN(const Tensor again, store->matrix("a", kRows, kColumns, Op::kEmbed));
    EXPECT_EQ(again.data, a_.data);
    ASSIGN_OR_RETURN(v_, store->vector("v", kVector));
    return {};
  }
  void expect_values() {
    std::vector<float> row(kColumns);
    for (const Tensor& matrix : {a_, b_}) {
      for (int64_t r = 0; r < kRows; ++r) {
        row_to_float(matrix.dtype, matrix.row(r), row.data(), kColumns);
        for (int64_t c = 0; c < kColumns; ++c) {
          ASSERT_EQ(row[static_cast<size_t>(c)], value_at(r, c)) << r << ", " << c;
        }
      }
    }
    for (int i = 0; i < kVector; ++i) {
      EXPECT_EQ(v_[i], static_cast<float>(i) + 0.5F);
    }
  }
  [[nodiscard]] size_t cached_pages() const {
    return resident_pages(folder_.path() / "s1.safetensors") +
           resident_pages(folder_.path() / "s2.safetensors");
  }

  static constexpr size_t kPlenty = size_t{1} << 40;
  static constexpr size_t kInPlace = 2 * kRows * kColumns * 2;
  TempFolder folder_;
  std::unique_ptr<Backend> backend_ = std::move(*make_backend("reference"));
  ThreadPool threads_{3};
  ExecContext context_{*backend_, threads_};
  Tensor a_;
  Tensor b_;
  const float* v_ = nullptr;
};

TEST_F(WeightStoreTest, ReadsIntoMemoryOfItsOwnAndLeavesNoPageOfTheFiles) {
  CountingProgress progress;
  const auto store = loaded({.weights = "read", .progress = &progress}, kPlenty);
  ASSERT_TRUE(store) << store.error().message;
  expect_values();
  for (const WeightEntry& entry : store->entries()) {
    EXPECT_FALSE(entry.is_mapped) << entry.name;
  }
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a_.data) % 64, 0U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b_.data) % 64, 0U);
  EXPECT_EQ(store->traffic().bytes, kInPlace);
  EXPECT_EQ(store->traffic().n_files, 2);
  EXPECT_TRUE(progress.is_complete);
  EXPECT_EQ(progress.finished, 1);
  EXPECT_EQ(progress.last_detail.substr(0, 12), "2/2 shards, ");
  if (keeps_pages(folder_.path())) {
    GTEST_SKIP() << "the folder for temporary files lies in memory";
  }
  EXPECT_EQ(cached_pages(), 0U);
  EXPECT_EQ(store->checkpoint().cached_bytes().value_or(0), 0U);
}

TEST_F(WeightStoreTest, MapsInPlaceAndReleasesWhenAsked) {
  CountingProgress progress;
  const auto store = loaded({.weights = "map", .progress = &progress}, kPlenty);
  ASSERT_TRUE(store) << store.error().message;
  expect_values();
  EXPECT_EQ(a_.data, store->checkpoint().find("a")->data);
  EXPECT_TRUE(progress.is_complete);
  EXPECT_EQ(progress.last_detail.substr(0, 12), "2/2 shards, ");
  if (keeps_pages(folder_.path())) {
    GTEST_SKIP() << "the folder for temporary files lies in memory";
  }
  EXPECT_GE(cached_pages() * 4096, kInPlace);
  EXPECT_EQ(store->checkpoint().cached_bytes(), cached_pages() * 4096);
  store->release_file_cache();
  EXPECT_EQ(cached_pages(), 0U);
  expect_values();
}

TEST_F(WeightStoreTest, ConvertsFromPiecesAndReleasesTheirSource) {
  const auto store = loaded({.dtype = "float32", .weights = "map"}, kPlenty);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_EQ(a_.dtype, DType::kF32);
  expect_values();
  if (!keeps_pages(folder_.path())) {
    EXPECT_EQ(cached_pages(), 0U);
  }
}

TEST_F(WeightStoreTest, RefusesWhatDoesNotFitBeforeReading) {
  const auto refused = loaded({}, kInPlace);  // the vector is too much
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("are missing; offload leaves"), std::string::npos)
      << refused.error().message;
  const auto converted = loaded({.dtype = "float32", .offload = true}, kInPlace);
  ASSERT_FALSE(converted);
  EXPECT_NE(converted.error().message.find("want a smaller dtype"), std::string::npos)
      << converted.error().message;
}

TEST_F(WeightStoreTest, OffloadsOnlyWhenAllowedAndSaysSo) {
  const auto store = loaded({.weights = "read", .offload = true}, kInPlace);
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_TRUE(store->placement().offloads);
  EXPECT_EQ(store->placement().missing, kVector * sizeof(float));
  EXPECT_EQ(a_.data, store->checkpoint().find("a")->data);
  expect_values();
  ASSERT_EQ(store->warnings().size(), 2U);  // the first is the index's wrong total_size
  EXPECT_NE(store->warnings()[1].find("read from there again at every step"), std::string::npos)
      << store->warnings()[1];
}

TEST_F(WeightStoreTest, AnOffloadedModelLeavesNoPages) {
  if (keeps_pages(folder_.path())) {
    GTEST_SKIP() << "the folder for temporary files lies in memory";
  }
  {
    const auto store = loaded({.offload = true}, kInPlace);
    ASSERT_TRUE(store) << store.error().message;
    expect_values();
    EXPECT_GT(cached_pages(), 0U);
  }
  EXPECT_EQ(cached_pages(), 0U);
}

TEST_F(WeightStoreTest, NamesTheFileThatGotShorter) {
  auto store = checked({.weights = "read"});
  ASSERT_TRUE(store) << store.error().message;
  ASSERT_TRUE(store->begin_load(kPlenty));
  ASSERT_TRUE(bind(&*store));
  std::filesystem::resize_file(folder_.path() / "s2.safetensors", 4096);
  const auto status = store->finish_load(context_);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::kDataLoss);
  EXPECT_NE(status.error().message.find("s2.safetensors: found the end of the file"),
            std::string::npos)
      << status.error().message;
}

TEST_F(WeightStoreTest, RefusesUnknownOptions) {
  const auto weights = checked({.weights = "swap"});
  ASSERT_FALSE(weights);
  EXPECT_EQ(weights.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(weights.error().message.find("'swap'"), std::string::npos);
}

TEST(WeightPlacement, AutoReadsLargeModelsThatLeaveRoom) {
  constexpr size_t kGib = size_t{1} << 30;
  const LoadOptions options;
  EXPECT_FALSE(choose_placement(options, kGib / 8, 0, 64 * kGib).reads);
  EXPECT_TRUE(choose_placement(options, 20 * kGib, 0, 64 * kGib).reads);
  EXPECT_TRUE(choose_placement(options, 20 * kGib, 0, 0).reads);  // not known
  EXPECT_TRUE(choose_placement(options, 55 * kGib, kGib, 64 * kGib).reads);
  const WeightPlacement tight = choose_placement(options, 55 * kGib, 2 * kGib, 64 * kGib);
  EXPECT_FALSE(tight.reads);
  EXPECT_TRUE(tight.releases_on_close);
  EXPECT_EQ(tight.missing, 0U);
  const WeightPlacement refused = choose_placement(options, 64 * kGib, kGib, 64 * kGib);
  EXPECT_EQ(refused.missing, kGib);
  EXPECT_FALSE(refused.offloads);
}

TEST(WeightPlacement, WhatIsAskedForHolds) {
  constexpr size_t kGib = size_t{1} << 30;
  EXPECT_TRUE(choose_placement({.weights = "read"}, 1, 0, kGib).reads);
  EXPECT_TRUE(choose_placement({.weights = "read"}, kGib, 0, kGib).reads);
  const WeightPlacement mapped = choose_placement({.weights = "map"}, 60 * kGib, 0, 64 * kGib);
  EXPECT_FALSE(mapped.reads);
  EXPECT_FALSE(mapped.releases_on_close);
}

}  // namespace
}  // namespace logitlab
