#include "formats/hub_cache.h"

#include <cstdlib>

#include "formats/model_source.h"
#include "formats/test_bytes.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";
constexpr const char* kOtherCommit = "fedcba9876543210fedcba9876543210fedcba98";

// Sets or unsets a variable for the length of a scope.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) {
      old_ = old;
    }
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  }
  ScopedVariable(const ScopedVariable&) = delete;
  ScopedVariable& operator=(const ScopedVariable&) = delete;
  ~ScopedVariable() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

void expect_error(const Error& error, ErrorCode code, const std::vector<std::string>& parts) {
  EXPECT_EQ(error.code, code) << error.message;
  for (const std::string& part : parts) {
    EXPECT_NE(error.message.find(part), std::string::npos) << error.message << "\nwant: " << part;
  }
}

TEST(HubCache, RootsInTheirOrder) {
  const ScopedVariable home("HOME", "/home/me");
  const ScopedVariable xdg("XDG_CACHE_HOME", nullptr);
  const ScopedVariable hf_home("HF_HOME", nullptr);
  const ScopedVariable legacy("HUGGINGFACE_HUB_CACHE", nullptr);
  const ScopedVariable hub("HF_HUB_CACHE", nullptr);
  EXPECT_EQ(hub_cache_root(), "/home/me/.cache/huggingface/hub");
  const ScopedVariable xdg_set("XDG_CACHE_HOME", "/xdg");
  EXPECT_EQ(hub_cache_root(), "/xdg/huggingface/hub");
  const ScopedVariable hf_home_set("HF_HOME", "~/hf");
  EXPECT_EQ(hub_cache_root(), "/home/me/hf/hub");
  const ScopedVariable legacy_set("HUGGINGFACE_HUB_CACHE", "$HF_HOME/legacy");
  EXPECT_EQ(hub_cache_root(), "~/hf/legacy");  // Python expands ~ before the variables, too
  const ScopedVariable hub_set("HF_HUB_CACHE", "${XDG_CACHE_HOME}/hub$$/${NO_SUCH}");
  EXPECT_EQ(hub_cache_root(), "/xdg/hub$$/${NO_SUCH}");
  EXPECT_EQ(hub_cache_root("/given"), "/given");
}

TEST(HubCache, RepoIdsAreUntrusted) {
  for (const char* good : {"gpt2", "org/name", "HuggingFaceTB/SmolLM2-135M", "a/b.c_d-e"}) {
    EXPECT_TRUE(check_repo_id(good)) << good;
    EXPECT_EQ(repo_id_of_folder(repo_folder_name(good)), good);
  }
  EXPECT_EQ(repo_folder_name("org/name"), "models--org--name");
  for (const char* bad :
       {"", "/", "/etc/passwd", "a/b/c", "../x", "a/..", "a..b/c", "a--b/c", "a/", "/a", "a b/c",
        "a/b\n", "a/.b", "-a/b", "a/b-", "a\\b", "a/b\x1b", "a:b"}) {
    const auto checked = check_repo_id(bad);
    ASSERT_FALSE(checked) << bad;
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalidArgument);
  }
  EXPECT_FALSE(check_repo_id(std::string(97, 'a')));
  for (const char* bad : {"", "..", "../x", "a/../b", "/a", "a/", "a//b", ".", "a\nb"}) {
    EXPECT_FALSE(check_revision(bad)) << bad;
  }
  EXPECT_TRUE(check_revision("refs/pr/1"));
  EXPECT_FALSE(repo_id_of_folder("datasets--a--b"));
}

// A cache with one complete snapshot whose files are links into blobs.
class HubCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    link("config.json", "{}");
    link("model.safetensors", "w");
    folder_.write("models--org--name/refs/main", std::string(kCommit) + "\n");
    folder_.write("models--org--name/refs/refs/pr/1", kOtherCommit);
  }

  void link(const std::string& file_name, std::string_view content) {
    const std::string blob = "blob-of-" + file_name;
    folder_.write("models--org--name/blobs/" + blob, content);
    fs::create_directories(snapshot());
    fs::create_symlink("../../blobs/" + blob, snapshot() / file_name);
  }
  [[nodiscard]] fs::path repo() const { return folder_.path() / "models--org--name"; }
  [[nodiscard]] fs::path snapshot() const { return repo() / "snapshots" / kCommit; }
  [[nodiscard]] ResolveOptions options(std::string revision = "") const {
    return {std::move(revision), folder_.path()};
  }

  TempFolder folder_;
};

TEST_F(HubCacheTest, ResolvesRefsAndPinnedCommits) {
  for (const char* revision : {"main", kCommit}) {
    const auto snapshot_found = resolve_snapshot("org/name", revision, folder_.path());
    ASSERT_TRUE(snapshot_found) << snapshot_found.error().message;
    EXPECT_EQ(snapshot_found->commit, kCommit);
    EXPECT_EQ(snapshot_found->revision, revision);
    EXPECT_EQ(snapshot_found->folder, snapshot());
  }
}

TEST_F(HubCacheTest, NeverGuessesARevision) {
  const auto tag = resolve_snapshot("org/name", "v2", folder_.path());
  ASSERT_FALSE(tag);
  expect_error(tag.error(), ErrorCode::kNotFound,
               {"revision 'v2' is not in the cache", "there is main, refs/pr/1"});
  const auto unsaved = resolve_snapshot("org/name", "refs/pr/1", folder_.path());
  ASSERT_FALSE(unsaved);
  expect_error(unsaved.error(), ErrorCode::kNotFound, {"no snapshot", kOtherCommit});
  EXPECT_FALSE(resolve_snapshot("org/name", "0123456", folder_.path()));
  const auto absent = resolve_snapshot("org/other", "main", folder_.path());
  ASSERT_FALSE(absent);
  expect_error(absent.error(), ErrorCode::kNotFound, {"models--org--other", "hf download"});
  folder_.write("models--org--name/refs/evil", "../../../../etc");
  const auto evil = resolve_snapshot("org/name", "evil", folder_.path());
  ASSERT_FALSE(evil);
  expect_error(evil.error(), ErrorCode::kDataLoss, {"want a commit of 40 hex digits"});
}

TEST_F(HubCacheTest, ListsSnapshotsWithoutARef) {
  fs::create_directories(repo() / "snapshots" / "00000000000000000000000000000000deadbeef");
  EXPECT_EQ(
      available_revisions(repo()),
      (std::vector<std::string>{"main", "refs/pr/1", "00000000000000000000000000000000deadbeef"}));
}

TEST_F(HubCacheTest, TellsTheStatesOfAFileApart) {
  EXPECT_EQ(file_presence(snapshot(), "config.json"), FilePresence::kPresent);
  EXPECT_EQ(file_presence(snapshot(), "x"), FilePresence::kMissing);
  folder_.write(fmt::format("models--org--name/.no_exist/{}/x", kCommit), "");
  EXPECT_EQ(file_presence(snapshot(), "x"), FilePresence::kKnownAbsent);
  fs::remove(repo() / "blobs" / "blob-of-config.json");
  EXPECT_EQ(file_presence(snapshot(), "config.json"), FilePresence::kDangling);
  fs::create_directory(snapshot() / "folder");
  EXPECT_EQ(file_presence(snapshot(), "folder"), FilePresence::kNotAFile);
}

TEST_F(HubCacheTest, ResolvesAModelByItsId) {
  const auto source = resolve_model("org/name", options());
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(source->kind, ModelKind::kHuggingFace);
  EXPECT_EQ(source->path, snapshot());
  EXPECT_EQ(source->commit, kCommit);
  EXPECT_EQ(source->revision, "main");
  EXPECT_EQ(source->repo_id, "org/name");
  const auto pinned = resolve_model("org/name", options(kCommit));
  ASSERT_TRUE(pinned);
  EXPECT_EQ(pinned->revision, kCommit);
  EXPECT_FALSE(resolve_model("org/name", options("v2")));
}

TEST_F(HubCacheTest, ResolvesTheRepositoryFolderAndTheSnapshotFolder) {
  for (const fs::path& path : {repo(), repo() / "", snapshot()}) {
    const auto source = resolve_model(path.string());
    ASSERT_TRUE(source) << source.error().message;
    EXPECT_EQ(source->path, snapshot());
    EXPECT_EQ(source->repo_id, "org/name");
    EXPECT_EQ(source->commit, kCommit);
  }
}

TEST_F(HubCacheTest, NamesEveryFileOfAPartialSnapshot) {
  fs::remove(snapshot() / "model.safetensors");
  folder_.write(fmt::format("models--org--name/snapshots/{}/model.safetensors.index.json", kCommit),
                R"({"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  link("m-1.safetensors", "w");
  fs::remove(repo() / "blobs" / "blob-of-m-1.safetensors");
  const auto source = resolve_model("org/name", options());
  ASSERT_FALSE(source);
  expect_error(source.error(), ErrorCode::kNotFound,
               {"incomplete", "org/name at main", "m-1.safetensors (a link to a missing file)",
                "m-2.safetensors (missing)", "tokenizer.json (missing)"});
  const auto files = list_model_files(snapshot());
  ASSERT_TRUE(files);
  ASSERT_EQ(files->size(), 8U);
  EXPECT_EQ((*files)[2].name, "m-1.safetensors");
  EXPECT_EQ((*files)[2].presence, FilePresence::kDangling);
  EXPECT_TRUE((*files)[2].is_weights && (*files)[2].required);
  EXPECT_EQ((*files)[0].bytes, 2U);
}

TEST_F(HubCacheTest, AcceptsCopiesInsteadOfLinks) {
  fs::remove(snapshot() / "config.json");
  folder_.write(fmt::format("models--org--name/snapshots/{}/config.json", kCommit), "{}");
  EXPECT_TRUE(resolve_model("org/name", options()));
}

// --- specs ---

TEST(ModelSource, DefaultSaysHowToGetIt) {
  const TempFolder home;
  const ScopedVariable variable("LOGITLAB_HOME", home.path().c_str());
  const auto absent = resolve_model("default");
  ASSERT_FALSE(absent);
  expect_error(absent.error(), ErrorCode::kNotFound, {"./lab first-contact", home.path().string()});
  home.write("models/SmolLM2-135M-Instruct.Q4_1.gguf", GgufBytes().bytes());
  const auto source = resolve_model("default");
  ASSERT_TRUE(source) << source.error().message;
  EXPECT_EQ(source->kind, ModelKind::kGguf);
  EXPECT_EQ(source->path, default_model_path());
  EXPECT_FALSE(resolve_model("default", {"v1", std::nullopt}));
}

TEST(ModelSource, FoldersAndFiles) {
  const TempFolder folder;
  const auto spec = folder.path().string();
  const auto empty = resolve_model(spec);
  ASSERT_FALSE(empty);
  expect_error(empty.error(), ErrorCode::kNotFound, {"no model in this folder"});

  folder.write("m-00001-of-00002.gguf", GgufBytes().bytes());
  folder.write("m-00002-of-00002.gguf", GgufBytes().bytes());
  const auto one = resolve_model(spec);
  ASSERT_TRUE(one) << one.error().message;
  EXPECT_EQ(one->kind, ModelKind::kGguf);
  EXPECT_EQ(one->path, folder.path() / "m-00001-of-00002.gguf");
  const auto part = resolve_model(spec + "/m-00002-of-00002.gguf");
  ASSERT_TRUE(part);
  EXPECT_EQ(part->path, folder.path() / "m-00001-of-00002.gguf");

  folder.write("other.gguf", GgufBytes().bytes());
  const auto two = resolve_model(spec);
  ASSERT_FALSE(two);
  expect_error(two.error(), ErrorCode::kInvalidArgument,
               {"holds 2 GGUF models", "m-00001-of-00002.gguf, other.gguf"});

  folder.write("config.json", "{}");
  folder.write("model.safetensors", "x");
  const auto plain = resolve_model(spec);
  ASSERT_TRUE(plain) << plain.error().message;
  EXPECT_EQ(plain->kind, ModelKind::kHuggingFace);
  EXPECT_TRUE(plain->commit.empty());
  const auto revised = resolve_model(spec, {"v1", std::nullopt});
  ASSERT_FALSE(revised);
  expect_error(revised.error(), ErrorCode::kInvalidArgument, {"revision 'v1'", "a plain folder"});
}

TEST(ModelSource, HintsAtWeightsOfOtherKinds) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("pytorch_model.bin", "x");
  const auto source = resolve_model(folder.path().string());
  ASSERT_FALSE(source);
  expect_error(source.error(), ErrorCode::kNotFound,
               {"model.safetensors (missing)", "pytorch_model.bin is there, but is not read"});
}

TEST(ModelSource, RefusesWhatCannotNameAModel) {
  const TempFolder folder;
  const auto refused = [&](const std::string& spec, ErrorCode code,
                           const std::vector<std::string>& parts) {
    const auto source = resolve_model(spec, {"", folder.path()});
    ASSERT_FALSE(source) << spec;
    expect_error(source.error(), code, parts);
  };
  refused("", ErrorCode::kInvalidArgument, {"want `default`"});
  refused("/no/such/folder", ErrorCode::kNotFound, {"/no/such/folder", "no such file or folder"});
  refused("absent.gguf", ErrorCode::kNotFound, {"no such file or folder"});
  refused("org/name", ErrorCode::kNotFound, {"models--org--name", folder.path().string()});
  refused("org name", ErrorCode::kInvalidArgument, {"does not hold ' '", ".gguf file"});
  refused("../../no-such-folder", ErrorCode::kNotFound, {"no such file"});
  refused(folder.write("x.gguf", "not one").string(), ErrorCode::kInvalidArgument,
          {"starts with 'not ', want a GGUF file"});
  refused(folder.write("x.safetensors", "12345678").string(), ErrorCode::kInvalidArgument,
          {"name the folder"});
  refused(folder.write("empty.gguf", "").string(), ErrorCode::kInvalidArgument, {"0 bytes"});
  fs::create_symlink("nowhere", folder.path() / "link.gguf");
  refused((folder.path() / "link.gguf").string(), ErrorCode::kNotFound,
          {"a link to a file that is not there"});
  refused("/dev/null", ErrorCode::kInvalidArgument, {"want a regular file"});
}

}  // namespace
}  // namespace logitlab
