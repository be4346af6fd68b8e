// What tests/data/models records of transformers, and models loaded to be compared with it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "models/model.h"

namespace logitlab::testing {

// Largest |difference| of a logit that passes, divided by the largest |logit| of its position.
inline constexpr float kLogitBound = 1e-4F;
// The same between two cuttings of one sequence, where a model does not promise equal bits
// (docs/numerics.md bounds the parts). Seen here: at most 2e-6. A state, a tap or a row lost at a
// cut moves logits by 4e-3 or more.
inline constexpr float kCuttingBound = 2e-5F;

// One prompt with recorded logits: a row of `values` per position, the largest |logit| over the
// vocabulary first, then the logits of `columns`.
struct RecordedPrompt {
  std::vector<TokenId> ids;
  std::vector<int64_t> columns;
  std::vector<float> values;              // [ids, 1 + columns]
  std::vector<std::vector<TokenId>> top;  // the best ids of every position, or empty
};

struct RecordedContinuation {
  std::vector<TokenId> prompt;
  std::vector<TokenId> ids;  // greedy: 64, of hybrid models 128
};

struct Recording {
  int64_t vocab_size = 0;
  std::string file;  // of a model that is not kept here
  int64_t file_bytes = 0;
  std::vector<RecordedPrompt> prompts;
  std::vector<RecordedContinuation> greedy;
};

// The folder tests/data/models.
[[nodiscard]] std::filesystem::path models_folder();
// Names of all recorded checkpoints that are kept there, sorted.
[[nodiscard]] std::vector<std::string> recorded_names();
// Folder or file to load for a name.
[[nodiscard]] std::filesystem::path model_path(const std::string& name);
// The recording of a name, that of its twin when it has no own. What cannot be read is reported as
// a test failure; the result is then empty.
[[nodiscard]] Recording read_recording(const std::string& name);

// A model on a device with its own threads. Not movable: the context refers to it.
class LoadedModel {
 public:
  // A failure to load is a test failure; ok() is then false.
  LoadedModel(const std::filesystem::path& path, const std::string& device, int threads,
              const std::string& dtype = "auto");
  // An already resolved source.
  LoadedModel(const ModelSource& source, const std::string& device, int threads);
  LoadedModel(const LoadedModel&) = delete;
  LoadedModel& operator=(const LoadedModel&) = delete;

  [[nodiscard]] bool ok() const { return model_ != nullptr; }
  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] ExecContext& context() { return *context_; }

  // Logits of every position of `ids`, which follow what `state` holds, in pieces of at most
  // `piece` ids. Empty after a failure.
  [[nodiscard]] std::vector<float> run(DecodeState* state, std::span<const TokenId> ids,
                                       int64_t piece);
  // As above, from an empty state and in one piece.
  [[nodiscard]] std::vector<float> run(std::span<const TokenId> ids);

 private:
  void load(const ModelSource& source, const std::string& device, int threads,
            const std::string& dtype);

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<ExecContext> context_;
  std::shared_ptr<const Model> model_;
};

// Expects recorded and computed logits within `bound`; returns the largest relative difference.
float expect_logits(const RecordedPrompt& prompt, std::span<const float> logits, int64_t vocab_size,
                    float bound);
// Largest |got - want| of a row, divided by the largest |want| of that row, over all rows of
// `width`. Infinity, and a test failure, for unequal sizes and for what is no number.
[[nodiscard]] float largest_difference(std::span<const float> got, std::span<const float> want,
                                       size_t width);
// Expects the same bits; names the first place that differs.
void expect_same_bits(std::span<const float> got, std::span<const float> want,
                      const std::string& what);
// Expects the same greedy ids for every recorded continuation.
void expect_greedy(LoadedModel* loaded, std::span<const RecordedContinuation> continuations);

// A folder that is removed with everything in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace logitlab::testing
