// The front door: a model with its tokenizer, template and defaults, on a device.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "base/env.h"
#include "base/error.h"
#include "base/progress.h"
#include "engine/model_defaults.h"
#include "formats/model_source.h"
#include "generate/generator.h"
#include "logitlab/generation_config.h"
#include "models/model.h"
#include "text/load_text.h"

namespace logitlab {

// Whether a model without a readable tokenizer can be used all the same (with token ids).
enum class TextNeed { kRequired, kOptional };

struct EngineOptions {
  std::string model = "default";         // as resolve_model takes it
  std::optional<std::string> revision;   // of a hub id
  std::optional<std::string> cache_dir;  // hub cache root
  std::string device =
      "auto";  // as make_backend's; "auto": a GPU that has room, else the processor
  std::string dtype = "auto";
  std::string weights = "auto";  // this and the next: as LoadOptions'
  bool offload = false;
  bool random_weights = false;
  int threads = 0;  // 0: all available processors
  TextNeed text = TextNeed::kRequired;
  ProgressSink* progress = nullptr;  // loading
  // Asked once the model's files have been described and before any weight is read, so that bad
  // settings are refused before the long work. May be empty.
  std::function<Status(const GenerationConfig& model_defaults, const ModelConfig& model)>
      check_settings;
};

// One-thread. Not movable once made: contexts refer to it.
class Engine {
 public:
  [[nodiscard]] static Result<std::unique_ptr<Engine>> load(const EngineOptions& options);

  [[nodiscard]] const ModelSource& source() const { return source_; }
  [[nodiscard]] const Model& model() const { return *model_; }
  [[nodiscard]] const Backend& backend() const { return *backend_; }
  // Why device "auto" did not become the GPU that is there; empty when there is nothing to say.
  [[nodiscard]] const std::string& device_note() const { return device_note_; }
  [[nodiscard]] int n_threads() const { return threads_->n_threads(); }
  // Why there is no tokenizer; can only be an error with TextNeed::kOptional.
  [[nodiscard]] const Status& text_status() const { return text_status_; }
  // Requires text_status() (CHECK).
  [[nodiscard]] const Tokenizer& tokenizer() const;
  // Null when the model has no chat template.
  [[nodiscard]] const ChatTemplate* chat_template() const { return text_.chat_template.get(); }
  // The model's own settings (generation_config.json, or what config.json or the GGUF say).
  [[nodiscard]] const GenerationConfig& defaults() const { return defaults_; }
  // Settings of generation_config.json that would act in transformers and that do not act here.
  [[nodiscard]] const std::vector<std::string>& ignored_defaults() const {
    return ignored_defaults_;
  }
  [[nodiscard]] const std::vector<StopId>& stop_ids() const { return stop_ids_; }
  // Ids of "<think>" and "</think>" when both are single tokens of the vocabulary.
  [[nodiscard]] std::optional<ThinkingIds> thinking_ids() const;
  [[nodiscard]] double load_seconds() const { return load_seconds_; }
  [[nodiscard]] const MemoryReading& memory_before_load() const { return memory_before_load_; }
  [[nodiscard]] const MemoryReading& memory_after_load() const { return memory_after_load_; }
  // Bytes that the states of sequences can take now, where this model's lie.
  [[nodiscard]] size_t available_state_bytes() const;
  [[nodiscard]] ExecContext& context() { return *context_; }
  // Works with n threads from now on, 1 to 1024 (CHECK): a reference to the context of before
  // is not valid any more. No result changes by it.
  void use_threads(int n);

  // `options` with the tokenizer and the thinking ids of the model in place of those left out.
  [[nodiscard]] GenerateOptions completed(GenerateOptions options) const;

  // Generates for every prompt with `config` merged over defaults(). The tokenizer and the thinking
  // ids of the model stand in for those that `options` leaves out.
  [[nodiscard]] Result<GenerationResult> generate(std::span<const PromptInput> prompts,
                                                  const GenerationConfig& config,
                                                  const GenerateOptions& options);
  // The same for one prompt. A null state: a fresh one.
  [[nodiscard]] Result<GenerationResult> generate(std::span<const TokenId> prompt,
                                                  const GenerationConfig& config,
                                                  const GenerateOptions& options,
                                                  DecodeState* state = nullptr);

  // Logits of `ids`: one row per position, or the last one alone. [rows, vocab_size].
  // prefill_chunk: as GenerateOptions'.
  [[nodiscard]] Result<Logits> logits(std::span<const TokenId> ids, bool all_positions,
                                      int64_t prefill_chunk = 0);

 private:
  Engine() = default;
  // Sets the backend, and the context that refers to it.
  [[nodiscard]] Status open_device(std::string_view device);
  // Device "auto" is settled here: the first GPU if it is there, takes this model and has room for
  // it; else the processor.
  [[nodiscard]] Status load_weights(const EngineOptions& options);

  ModelSource source_;
  std::unique_ptr<Backend> backend_;
  std::string device_note_;
  std::unique_ptr<ThreadPool> threads_;
  std::unique_ptr<ExecContext> context_;
  std::shared_ptr<const Model> model_;
  TextModel text_;
  std::unique_ptr<const TokenTexts> token_texts_;  // null without a tokenizer
  Status text_status_;
  GenerationConfig defaults_;
  std::vector<std::string> ignored_defaults_;
  std::vector<StopId> stop_ids_;
  double load_seconds_ = 0;
  MemoryReading memory_before_load_;
  MemoryReading memory_after_load_;
};

}  // namespace logitlab
