// Runs every fuzz target over the committed seeds and over every file that once broke one.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "targets.h"

namespace logitlab {
namespace {

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_directory(folder)) {
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.is_regular_file()) {
        paths.push_back(entry.path());
      }
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

void replay(const FuzzTarget& target, const std::filesystem::path& path) {
  SCOPED_TRACE(path.string());
  const auto text = read_text_file(path, size_t{16} << 20);
  ASSERT_TRUE(text) << text.error().message;
  // A copy of its own length, so that a sanitizer sees the first byte beyond it.
  const std::vector<uint8_t> bytes(text->begin(), text->end());
  target.run(bytes);
}

TEST(FuzzReplay, EveryTargetHasSeedsAndSurvivesThem) {
  const std::filesystem::path root = std::filesystem::path(LOGITLAB_SOURCE_DIR) / "tests/fuzz";
  for (const FuzzTarget& target : kFuzzTargets) {
    const auto seeds = files_of(root / "corpus" / target.name);
    EXPECT_GE(seeds.size(), 3U) << target.name;
    for (const auto& path : seeds) {
      replay(target, path);
    }
    // Any target may meet any crash file: they are small.
    for (const auto& path : files_of(root / "regressions")) {
      replay(target, path);
    }
  }
}

TEST(FuzzReplay, EveryPrefixOfASeedIsSurvived) {
  const std::filesystem::path root = std::filesystem::path(LOGITLAB_SOURCE_DIR) / "tests/fuzz";
  for (const FuzzTarget& target : kFuzzTargets) {
    for (const auto& path : files_of(root / "corpus" / target.name)) {
      const auto text = read_text_file(path, size_t{16} << 20);
      ASSERT_TRUE(text) << text.error().message;
      constexpr size_t kMostPrefixes = 500;
      for (size_t n = 0; n < std::min(text->size(), kMostPrefixes); ++n) {
        const std::vector<uint8_t> bytes(text->begin(),
                                         text->begin() + static_cast<std::ptrdiff_t>(n));
        target.run(bytes);
      }
    }
  }
}

}  // namespace
}  // namespace logitlab
