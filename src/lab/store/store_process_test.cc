// What happens to a store around its process: ends at any moment, full disks, several processes,
// places and files that are not what they should be.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>
#include <string>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "lab/store/schema.h"
#include "lab/store/sqlite.h"
#include "lab/store/store.h"
#include "lab/store/test_store.h"

namespace logitlab {
namespace {

namespace fs = std::filesystem;

// A child process that runs `work` and ends without the parent's destructors.
class Child {
 public:
  explicit Child(const std::function<int()>& work) {
    pid_ = ::fork();
    if (pid_ == 0) {
      std::_Exit(work());
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) {
      kill();
    }
  }
  // Its exit code; 128 + the signal that ended it.
  int wait() {
    int status = 0;
    EXPECT_EQ(::waitpid(std::exchange(pid_, -1), &status, 0) > 0, true);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  int kill() {
    ::kill(pid_, SIGKILL);
    return wait();
  }

 private:
  pid_t pid_;
};

// The bytes that a killed child had sent are read to their end.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(::pipe(ends_), 0); }
  ~Pipe() {
    close_writer();
    ::close(ends_[0]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void send(char byte) const { EXPECT_EQ(::write(ends_[1], &byte, 1), 1); }
  [[nodiscard]] bool receive(char* byte) const { return ::read(ends_[0], byte, 1) == 1; }
  void close_writer() {
    if (ends_[1] >= 0) {
      ::close(std::exchange(ends_[1], -1));
    }
  }

 private:
  int ends_[2] = {-1, -1};
};

// The size that one write of this process may reach in a file: a disk that is full there.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(size_t bytes) {
    EXPECT_EQ(::getrlimit(RLIMIT_FSIZE, &before_), 0);
    signal_ = std::signal(SIGXFSZ, SIG_IGN);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;
  ~FileSizeLimit() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    std::signal(SIGXFSZ, signal_);
  }

 private:
  rlimit before_{};
  void (*signal_)(int) = nullptr;
};

class StoreProcess : public StoreFolder {
 protected:
  // Runs of the writer come one by one and, every fourth time, three in one transaction.
  static int64_t batch_at(int64_t call) { return call % 4 == 3 ? 3 : 1; }
  static size_t trace_bytes_of(int64_t index) {
    return static_cast<size_t>(1 + index * 7919 % 60) << 10;
  }

  // Adds runs from the first index that is missing, and sends a byte after each call that said yes.
  int write_runs_until_killed(int64_t study, const Pipe& pipe) const {
    auto store = Store::open(path());
    if (!store) {
      return 10;
    }
    const auto finished = (*store)->finished_runs(study);
    if (!finished) {
      return 11;
    }
    auto index = static_cast<int64_t>(finished->size());
    for (int64_t call = 0;; ++call) {
      std::vector<RunRecord> runs;
      for (int64_t i = 0; i < batch_at(call); ++i, ++index) {
        runs.push_back(test_run_record(study, index, trace_bytes_of(index)));
      }
      if (runs.size() == 1 ? !(*store)->add_run(runs.front()) : !(*store)->add_runs(&runs)) {
        return 12;
      }
      pipe.send('+');
    }
  }

  static void expect_whole_runs(Store* store, int64_t study) {
    const auto visited = store->visit_runs(study, [&](const RunRecord& run) -> Status {
      RunRecord want = test_run_record(study, run.index, trace_bytes_of(run.index));
      want.id = run.id;
      expect_same_run(run, want);
      return ::testing::Test::HasFailure() ? fail(ErrorCode::kDataLoss, "not whole") : Status();
    });
    EXPECT_TRUE(visited) << visited.error().message;
  }

  [[nodiscard]] std::string bytes() const {
    std::ifstream in(path(), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  void expect_refused(ErrorCode code, const std::string& words,
                      StoreMode mode = StoreMode::kWrite) const {
    const auto store = Store::open(path(), mode);
    ASSERT_FALSE(store);
    EXPECT_EQ(store.error().code, code) << store.error().message;
    EXPECT_NE(store.error().message.find(words), std::string::npos) << store.error().message;
    EXPECT_NE(store.error().message.find(path()), std::string::npos) << store.error().message;
  }

  void fill(int64_t n_runs) const {
    auto store = open_store();
    const int64_t study = begun(store.get());
    std::vector<RunRecord> runs;
    for (int64_t i = 0; i < n_runs; ++i) {
      runs.push_back(test_run_record(study, i, trace_bytes_of(i)));
    }
    ASSERT_TRUE(store->add_runs(&runs));
  }
};

TEST_F(StoreProcess, AWriterThatIsKilledAtAnyMomentLeavesWholeRuns) {
  int64_t study = 0;
  {
    auto store = open_store();
    study = begun(store.get());
  }
  std::srand(7);
  int64_t n_before = 0;
  int n_unacknowledged = 0;
  for (int round = 0; round < 60; ++round) {
    Pipe pipe;
    Child child([&] { return write_runs_until_killed(study, pipe); });
    pipe.close_writer();
    const int n_awaited = std::rand() % 12;
    int64_t n_calls = 0;
    char byte = 0;
    while (n_calls < n_awaited && pipe.receive(&byte)) {
      ++n_calls;
    }
    ::usleep(static_cast<useconds_t>(std::rand() % 1500));
    ASSERT_EQ(child.kill(), 128 + SIGKILL);
    while (pipe.receive(&byte)) {
      ++n_calls;
    }
    int64_t acknowledged = n_before;
    for (int64_t call = 0; call < n_calls; ++call) {
      acknowledged += batch_at(call);
    }
    auto store = open_store();
    ASSERT_NE(store, nullptr);
    const auto finished = store->finished_runs(study);
    ASSERT_TRUE(finished) << finished.error().message;
    const auto n = static_cast<int64_t>(finished->size());
    // What was acknowledged, or the one transaction more whose answer did not arrive.
    EXPECT_TRUE(n == acknowledged || n == acknowledged + batch_at(n_calls))
        << n << " runs, " << acknowledged << " acknowledged";
    n_unacknowledged += n != acknowledged ? 1 : 0;
    for (int64_t i = 0; i < n; ++i) {
      ASSERT_EQ((*finished)[static_cast<size_t>(i)], i);
    }
    n_before = n;
    if (round % 10 == 9) {
      expect_whole_runs(store.get(), study);
      ASSERT_FALSE(HasFailure());
    }
  }
  EXPECT_GT(n_before, 100);
  RecordProperty("unacknowledged", n_unacknowledged);
  ASSERT_OK_AND_ASSIGN(auto raw, Sqlite::open(path(), SqliteMode::kExisting));
  EXPECT_EQ(*raw->integer("SELECT count(*) FROM pragma_integrity_check "
                          "WHERE integrity_check <> 'ok'"),
            0);
}

TEST_F(StoreProcess, AProcessThatIsKilledWhileItMakesAStoreLeavesOneThatOpens) {
  std::srand(11);
  for (int round = 0; round < 40; ++round) {
    const std::string place = path("new_" + std::to_string(round) + ".db");
    Child child([&] {
      const auto store = Store::open(place);
      return store ? 0 : 10;
    });
    ::usleep(static_cast<useconds_t>(std::rand() % 6000));
    const int code = child.kill();
    ASSERT_TRUE(code == 0 || code == 128 + SIGKILL) << code;
    auto store = Store::open(place);
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_TRUE((*store)->add_run(test_run_record(begun(store->get()), 0)));
  }
}

TEST_F(StoreProcess, AFullDiskLosesNothingAndIsOverWhenThereIsRoom) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  int64_t n = 0;
  {
    const FileSizeLimit limit(size_t{1} << 20);
    for (;; ++n) {
      ASSERT_LT(n, 1000);
      const auto added = store->add_run(test_run_record(study, n, trace_bytes_of(n)));
      if (!added) {
        EXPECT_EQ(added.error().code, ErrorCode::kResourceExhausted) << added.error().message;
        EXPECT_NE(added.error().message.find("takes no more"), std::string::npos);
        break;
      }
    }
    EXPECT_GT(n, 5);
    EXPECT_EQ(store->finished_runs(study)->size(), static_cast<size_t>(n));
    expect_whole_runs(store.get(), study);
    std::vector<RunRecord> runs;
    for (int64_t i = n; i < n + 40; ++i) {
      runs.push_back(test_run_record(study, i, size_t{60} << 10));
    }
    const auto added = store->add_runs(&runs);
    ASSERT_FALSE(added);
    EXPECT_EQ(added.error().code, ErrorCode::kResourceExhausted);
    EXPECT_EQ(runs.front().id, 0);
    // Another process finds the same.
    auto second = open_store();
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->finished_runs(study)->size(), static_cast<size_t>(n));
  }
  for (const int64_t end = n + 50; n < end; ++n) {
    const auto added = store->add_run(test_run_record(study, n, trace_bytes_of(n)));
    ASSERT_TRUE(added) << added.error().message;
  }
  expect_whole_runs(store.get(), study);
  store.reset();
  store = open_store();
  EXPECT_EQ(store->finished_runs(study)->size(), static_cast<size_t>(n));
}

TEST_F(StoreProcess, AStoreThatDoesNotFitOnTheDiskCanBeMadeLater) {
  for (const size_t bytes : {size_t{0}, size_t{4096}, size_t{12'288}}) {
    {
      const FileSizeLimit limit(bytes);
      const auto store = Store::open(path());
      ASSERT_FALSE(store) << bytes;
      EXPECT_EQ(store.error().code, ErrorCode::kResourceExhausted) << store.error().message;
    }
    auto store = open_store();
    ASSERT_NE(store, nullptr);
    store.reset();
    fs::remove(path());
  }
}

TEST_F(StoreProcess, ManyProcessesMakeOneStoreAtOnce) {
  for (int round = 0; round < 40; ++round) {
    const std::string place = path("shared_" + std::to_string(round) + ".db");
    const auto make = [&] {
      const auto store = Store::open(place);
      if (!store) {
        std::fputs((store.error().message + "\n").c_str(), stderr);
        return 10;
      }
      return (*store)->begin_study(test_study()) ? 0 : 11;
    };
    Child first(make);
    Child second(make);
    Child third(make);
    ASSERT_EQ(first.wait(), 0);
    ASSERT_EQ(second.wait(), 0);
    ASSERT_EQ(third.wait(), 0);
    ASSERT_OK_AND_ASSIGN(auto store, Store::open(place));
    EXPECT_EQ(store->studies()->size(), 3U);
  }
}

TEST_F(StoreProcess, TwoProcessesWriteAndAThirdReads) {
  constexpr int64_t kRuns = 150;
  const auto write = [&] {
    auto store = Store::open(path());
    if (!store) {
      return 10;
    }
    const int64_t study = begun(store->get());
    for (int64_t i = 0; i < kRuns; ++i) {
      if (!(*store)->add_run(test_run_record(study, i, trace_bytes_of(i)))) {
        return 11;
      }
    }
    return 0;
  };
  // Both make the file at once.
  Child first(write);
  Child second(write);
  auto store = open_store();
  ASSERT_NE(store, nullptr);
  size_t n = 0;
  // A writer that gave up is found by its exit code, below.
  for (int turn = 0; n < 2 * kRuns && turn < 20'000; ++turn) {
    const auto runs = store->runs({});
    ASSERT_TRUE(runs) << runs.error().message;
    ASSERT_GE(runs->size(), n);  // never fewer than before
    n = runs->size();
    if (n > 0) {
      const RunRecord& newest = runs->back();
      const auto run = store->run(newest.id);
      ASSERT_TRUE(run) << run.error().message;
      RunRecord want = test_run_record(run->study, run->index, trace_bytes_of(run->index));
      want.id = run->id;
      expect_same_run(*run, want);
    }
    const auto studies = store->studies();
    ASSERT_TRUE(studies) << studies.error().message;
  }
  EXPECT_EQ(first.wait(), 0);
  EXPECT_EQ(second.wait(), 0);
  ASSERT_OK_AND_ASSIGN(const auto studies, store->studies());
  ASSERT_EQ(studies.size(), 2U);
  for (const StudyRecord& study : studies) {
    EXPECT_EQ(study.n_runs, kRuns);
    expect_whole_runs(store.get(), study.id);
  }
}

TEST_F(StoreProcess, AJournalThatWasLeftBehindIsTakenIn) {
  auto store = open_store();
  const int64_t study = begun(store.get());
  ASSERT_TRUE(store->add_run(test_run_record(study, 0, trace_bytes_of(0))));
  ASSERT_TRUE(store->add_run(test_run_record(study, 1, trace_bytes_of(1))));
  ASSERT_GT(fs::file_size(path() + "-wal"), 0U);
  // As a crash leaves it: the files while the store is open, the last transaction cut in two.
  const std::string copy = path("copy.db");
  fs::copy_file(path(), copy);
  fs::copy_file(path() + "-wal", copy + "-wal");
  fs::resize_file(copy + "-wal", fs::file_size(copy + "-wal") - 100);
  auto recovered = Store::open(copy);
  ASSERT_TRUE(recovered) << recovered.error().message;
  EXPECT_EQ(*(*recovered)->finished_runs(study), std::vector<int64_t>{0});
  expect_whole_runs(recovered->get(), study);
  EXPECT_TRUE((*recovered)->add_run(test_run_record(study, 1)));
}

TEST_F(StoreProcess, FilesThatAreNoStoresAreRefusedAndLeftAsTheyAre) {
  for (const std::string& content :
       {std::string("x"), std::string("{\"record\":\"run\"}\n"), std::string(70'000, 'a'),
        "SQLite format 3" + std::string(5000, '\0'), test_bytes(3, 8192)}) {
    std::ofstream(path(), std::ios::binary) << content;
    expect_refused(ErrorCode::kDataLoss, "found a file that is not a database");
    expect_refused(ErrorCode::kDataLoss, "found a file that is not a database", StoreMode::kRead);
    EXPECT_TRUE(bytes() == content) << "changed";
    fs::remove(path());
  }
}

TEST_F(StoreProcess, DatabasesOfOthersAreRefusedAndLeftAsTheyAre) {
  for (const char* script : {"CREATE TABLE bookmarks (url TEXT)", "PRAGMA user_version = 3",
                             "PRAGMA application_id = 252006674"}) {
    {
      ASSERT_OK_AND_ASSIGN(auto other, Sqlite::open(path(), SqliteMode::kCreate));
      ASSERT_TRUE(other->execute(script));
    }
    const std::string before = bytes();
    expect_refused(ErrorCode::kDataLoss, "database of another program");
    EXPECT_TRUE(bytes() == before) << "changed";
    fs::remove(path());
  }
}

TEST_F(StoreProcess, ANewerStoreIsRefusedWithBothVersions) {
  fill(1);
  const auto known = static_cast<int64_t>(store_migrations().size());
  {
    ASSERT_OK_AND_ASSIGN(auto raw, Sqlite::open(path(), SqliteMode::kExisting));
    ASSERT_TRUE(raw->execute(fmt::format("PRAGMA user_version = {}", known + 1)));
  }
  expect_refused(ErrorCode::kUnsupported,
                 fmt::format("found a store of version {}, want at most {}", known + 1, known));
}

TEST_F(StoreProcess, AStoreThatWasCutOffIsDamaged) {
  fill(30);
  const std::string whole = bytes();
  for (const size_t n : {whole.size() / 2, size_t{8192}, size_t{4096}, whole.size() - 4096}) {
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << whole.substr(0, n);
    expect_refused(ErrorCode::kDataLoss, "the store is damaged");
    EXPECT_EQ(fs::file_size(path()), n);
  }
}

TEST_F(StoreProcess, APageThatWasOverwrittenIsFoundByTheOneWhoReadsIt) {
  fill(30);
  std::string damaged = bytes();
  std::fill(damaged.begin() + 4096, damaged.end(), '\x55');
  std::ofstream(path(), std::ios::binary | std::ios::trunc) << damaged;
  const auto store = Store::open(path());
  const auto runs = store ? (*store)->runs({}) : tl::unexpected<Error>(store.error());
  ASSERT_FALSE(runs);
  EXPECT_EQ(runs.error().code, ErrorCode::kDataLoss) << runs.error().message;
}

TEST_F(StoreProcess, PlacesThatCannotHoldAStoreAreRefused) {
  fs::create_directories(path());
  expect_refused(ErrorCode::kInvalidArgument, "found a folder");
  fs::remove(path());
  EXPECT_EQ(Store::open("/dev/full").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Store::open("").error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(Store::open("/proc/none/logitlab.db").error().code, ErrorCode::kInvalidArgument);
  std::ofstream(path("file")) << "x";
  EXPECT_EQ(Store::open(path("file/logitlab.db")).error().code, ErrorCode::kInvalidArgument);
}

TEST_F(StoreProcess, ReadingMakesNoFile) {
  expect_refused(ErrorCode::kNotFound, "no store is there", StoreMode::kRead);
  EXPECT_FALSE(fs::exists(path()));
}

TEST_F(StoreProcess, FoldersAreMade) {
  const auto store = Store::open(path("a/b/logitlab.db"));
  ASSERT_TRUE(store) << store.error().message;
  EXPECT_TRUE(fs::is_regular_file(path("a/b/logitlab.db")));
}

TEST_F(StoreProcess, NamesWithAMeaningInUrisAreFileNames) {
  for (const char* name : {"file:x?mode=memory", ":memory:", "a b#c%20.db"}) {
    const auto store = Store::open(path(name));
    ASSERT_TRUE(store) << store.error().message;
    EXPECT_TRUE(fs::is_regular_file(path(name))) << name;
  }
}

// Root may write everywhere, so that a child becomes somebody else.
TEST_F(StoreProcess, WhatCannotBeWrittenCanBeReadAndIsNotWritten) {
  fill(5);
  fs::permissions(folder_, fs::perms::all);
  const auto with_permissions = [&](fs::perms of_file, fs::perms of_folder,
                                    const std::function<int()>& work) {
    fs::permissions(path(), of_file);
    fs::permissions(folder_, of_folder);
    Child child([&] {
      constexpr uid_t kNobody = 65534;
      if (::geteuid() == 0 && ::setuid(kNobody) != 0) {
        return 99;
      }
      return work();
    });
    const int code = child.wait();
    fs::permissions(folder_, fs::perms::all);
    return code;
  };
  const auto reads = [&] {
    const auto store = Store::open(path(), StoreMode::kRead);
    if (!store) {
      return 10;
    }
    const auto runs = (*store)->runs({});
    const auto run = (*store)->run(1);
    if (!runs || runs->size() != 5 || !run) {
      return 11;
    }
    const auto added = (*store)->add_run(test_run_record(1, 9));
    return !added && added.error().code == ErrorCode::kInvalidArgument ? 0 : 12;
  };
  const auto is_refused = [&] {
    const auto store = Store::open(path());
    return !store && store.error().code == ErrorCode::kInvalidArgument ? 0 : 20;
  };
  const auto read_only = fs::perms(0444);
  const auto closed = fs::perms(0555);
  EXPECT_EQ(with_permissions(read_only, fs::perms::all, reads), 0);
  EXPECT_EQ(with_permissions(read_only, closed, reads), 0);
  EXPECT_EQ(with_permissions(read_only, fs::perms::all, is_refused), 0);
  EXPECT_EQ(with_permissions(read_only, closed, is_refused), 0);
  EXPECT_EQ(with_permissions(fs::perms::none, fs::perms::all, is_refused), 0);
  fs::permissions(path(), fs::perms(0666));
  EXPECT_EQ(open_store()->runs({})->size(), 5U);
}

}  // namespace
}  // namespace logitlab
