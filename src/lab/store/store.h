// Studies and runs in one SQLite file (WAL, foreign keys, migrations): a run is in it whole or not
// at all.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "lab/study/study.h"
#include "logitlab/trace.h"

namespace logitlab {

// Where and with what runs were made: enough for a stranger to make them again.
struct RunOrigin {
  std::string model;       // as given: "default", a path, a hub id
  std::string model_hash;  // fingerprint of its files
  std::string device;
  std::string isa;
  std::string build;    // version and commit
  std::string command;  // command line
  int threads = 0;
};

struct StudyTotals {
  int64_t prompt_tokens_asked = 0;  // of all runs, each for itself
  int64_t new_tokens_asked = 0;     // the same of generated tokens
  int64_t prefill_tokens = 0;       // that went through the model
  int64_t decode_rows = 0;          // rows of decode steps that went through the model
  int64_t replayed_rows = 0;        // of these, computed again after their state was given up
  int64_t forward_passes = 0;
  size_t peak_state_bytes = 0;
  double prefill_seconds = 0;
  double seconds = 0;            // all of it
  size_t peak_memory_bytes = 0;  // of the process
};

struct StudyRecord {
  int64_t id = 0;      // given by the store
  int64_t parent = 0;  // the course that it was part of; 0: none
  std::string name;
  std::string source;  // YAML, after the overrides' text form in `overrides`
  std::vector<std::string> overrides;
  std::string created;  // UTC, "2026-01-31T12:00:00Z"; empty: the store takes the time of now
  std::string status;   // "running", "done", "interrupted"
  RunOrigin origin;
  StudyTotals totals;       // zero until done
  std::string reading;      // written afterwards
  std::string extras_json;  // what measures without runs found (cache timings, exact trees)
  int64_t n_runs = 0;       // that are there; told by the store
};

struct RunRecord {
  int64_t id = 0;     // given by the store
  int64_t study = 0;  // 0: a single run
  int64_t index = 0;  // PlannedRun::index
  std::string prompt_name;
  std::string setting_name;
  int64_t run = 0;
  uint64_t seed = 0;
  bool is_control = false;
  std::string config_json;     // effective settings
  std::string execution_json;  // what differs from the engine's; "{}"
  std::vector<TokenId> prompt_ids;
  std::vector<TokenId> ids;  // generated, the end token included
  std::string text;          // of the ids, without special tokens
  std::string stop_reason;
  TokenId stop_id = -1;
  int64_t thinking_tokens = 0;
  int64_t answer_tokens = 0;
  uint64_t hash = 0;   // over the logits hashes of all steps, in order
  double seconds = 0;  // 0 in a shared tree, where no run has a time of its own
  // JSON lines, as docs/trace.schema.json; empty: none kept. What is given to the store may come
  // compressed instead (TraceText::take_zstd); what the store gives is always text.
  std::string trace;
  std::string trace_zstd;
  int64_t trace_bytes = 0;  // of the text; told by the store, without the trace as well
};

struct RunFilter {
  std::optional<int64_t> study;
  std::optional<std::string> model_hash;  // of the study
  int64_t limit = 0;                      // 0: all, in the order of their studies and indices
};

enum class StoreMode {
  kWrite,  // the file and its folder are made where they are not
  kRead,   // the file must be there; it may lie where nothing can be written
};

// $LOGITLAB_HOME/logitlab.db
[[nodiscard]] std::string default_store_path();

// One connection; one thread. Several processes may have the same file open: readers never wait,
// writers wait for each other. What a call has returned survives the end of the process at any
// moment; a power cut may take the last runs, each of them whole.
class Store {
 public:
  // Migrates an older file. kUnsupported: made by a newer version; kDataLoss: not a store, or a
  // damaged one; kInvalidArgument: a folder, a device, a place that cannot be read or written;
  // kNotFound: nothing there to read; kResourceExhausted (disk).
  [[nodiscard]] static Result<std::unique_ptr<Store>> open(const std::string& path,
                                                           StoreMode mode = StoreMode::kWrite);
  ~Store();

  [[nodiscard]] Result<int64_t> begin_study(const StudyRecord& study);
  // One transaction. On error nothing of the run is there, and the earlier ones are; after a full
  // disk it can be tried again. kInvalidArgument: the study has a run of that index;
  // kNotFound: no such study; kResourceExhausted.
  [[nodiscard]] Result<int64_t> add_run(const RunRecord& run);
  [[nodiscard]] Status add_runs(std::vector<RunRecord>* runs);  // all or none; fills the ids
  // Sets status, totals and extras; any time, and again.
  [[nodiscard]] Status finish_study(int64_t id, std::string_view status, const StudyTotals& totals,
                                    std::string_view extras_json);
  [[nodiscard]] Status set_reading(int64_t study, std::string_view reading);

  [[nodiscard]] Result<std::vector<StudyRecord>> studies();              // newest first
  [[nodiscard]] Result<StudyRecord> study(int64_t id);                   // kNotFound
  [[nodiscard]] Result<std::vector<StudyRecord>> parts(int64_t course);  // in the order of making
  // Without traces. With a limit the newest ones, newest first.
  [[nodiscard]] Result<std::vector<RunRecord>> runs(const RunFilter& filter);
  [[nodiscard]] Result<RunRecord> run(int64_t id);  // with its trace; kNotFound
  // Calls `visit` with every run of a study, in order of index, one in memory at a time. A status
  // that is not ok ends it. The visitor may use the store.
  [[nodiscard]] Status visit_runs(int64_t study,
                                  const std::function<Status(const RunRecord&)>& visit,
                                  bool with_traces = true);
  // Indices of the runs that are there: what --resume leaves out.
  [[nodiscard]] Result<std::vector<int64_t>> finished_runs(int64_t study);
  // With its runs and, of a course, its parts. Gives the room back to the system. kNotFound.
  [[nodiscard]] Status remove_study(int64_t id);
  [[nodiscard]] Status remove_run(int64_t id);
  [[nodiscard]] const std::string& path() const;

 private:
  struct Impl;
  explicit Store(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace logitlab
