#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "formats/gguf.h"
#include "sampling/effective_config.h"

namespace logitlab {
namespace {

constexpr int kMaxThreads = 1024;
constexpr std::string_view kAuto = "auto";
constexpr std::string_view kFirstGpu = "cuda:0";

struct Described {
  Result<TextModel> text;
  ModelDefaults defaults;
};

Result<Described> describe(const ModelSource& source) {
  if (source.kind == ModelKind::kHuggingFace) {
    ASSIGN_OR_RETURN(ModelDefaults defaults, read_defaults_from_folder(source.path));
    return Described{load_text_from_folder(source.path), std::move(defaults)};
  }
  ASSIGN_OR_RETURN(const GgufFile file, GgufFile::open(source.path));
  auto vocab = file.read_vocab();
  if (!vocab) {
    return Described{tl::unexpected<Error>(std::move(vocab).error()), {}};
  }
  return Described{load_text_from_gguf(*vocab, source.path.string()), defaults_from_gguf(*vocab)};
}

class TokenizerTexts final : public TokenTexts {
 public:
  explicit TokenizerTexts(const Tokenizer* tokenizer) : tokenizer_(tokenizer) {}
  [[nodiscard]] std::optional<std::string> text(TokenId id) const override {
    return tokenizer_->piece(id);
  }

 private:
  const Tokenizer* tokenizer_;
};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::load(const EngineOptions& options) {
  const double start = monotonic_seconds();
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return fail(ErrorCode::kInvalidArgument, "threads: {}, want 1 to {}, or 0 for all processors",
                options.threads, kMaxThreads);
  }
  std::unique_ptr<Engine> engine(new Engine);
  engine->memory_before_load_ = read_memory();
  ResolveOptions resolve;
  resolve.revision = options.revision.value_or("");
  if (options.cache_dir) {
    resolve.cache_dir = *options.cache_dir;
  }
  ASSIGN_OR_RETURN(engine->source_, resolve_model(options.model, resolve));
  engine->threads_ =
      std::make_unique<ThreadPool>(options.threads == 0 ? available_processors() : options.threads);
  if (options.device != kAuto) {
    RETURN_IF_ERROR(engine->open_device(options.device));
  }

  ASSIGN_OR_RETURN(Described described, describe(engine->source_));
  if (described.text) {
    engine->text_ = std::move(*described.text);
    engine->token_texts_ = std::make_unique<TokenizerTexts>(engine->text_.tokenizer.get());
  } else if (options.text == TextNeed::kRequired) {
    return tl::unexpected<Error>(std::move(described.text).error());
  } else {
    engine->text_status_ = tl::unexpected<Error>(std::move(described.text).error());
  }
  engine->defaults_ = std::move(described.defaults.config);
  engine->stop_ids_ = std::move(described.defaults.stop_ids);
  engine->ignored_defaults_ = std::move(described.defaults.ignored);
  if (options.check_settings) {
    ASSIGN_OR_RETURN(const ModelConfig model_config, read_model_config(engine->source_));
    RETURN_IF_ERROR(options.check_settings(engine->defaults_, model_config));
  }
  RETURN_IF_ERROR(engine->load_weights(options));
  engine->load_seconds_ = monotonic_seconds() - start;
  engine->memory_after_load_ = read_memory();
  return engine;
}

Status Engine::open_device(std::string_view device) {
  ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, make_backend(device));
  context_.reset(new ExecContext{*backend, *threads_});
  backend_ = std::move(backend);
  return {};
}

Status Engine::load_weights(const EngineOptions& options) {
  const LoadOptions load{.dtype = options.dtype,
                         .weights = options.weights,
                         .offload = options.offload,
                         .progress = options.progress,
                         .random_weights = options.random_weights};
  if (options.device == kAuto && open_device(kFirstGpu)) {
    auto model = load_model(source_, load, *context_);
    if (model) {
      model_ = std::move(*model);
      return {};
    }
    // These are found before any weight is read; another error would come on the processor too.
    const ErrorCode code = model.error().code;
    if (code != ErrorCode::kUnsupported && code != ErrorCode::kResourceExhausted &&
        code != ErrorCode::kUnavailable) {
      return tl::unexpected<Error>(std::move(model).error());
    }
    device_note_ = std::move(model).error().message;
  }
  if (options.device == kAuto) {
    RETURN_IF_ERROR(open_device(kAuto));
  }
  ASSIGN_OR_RETURN(model_, load_model(source_, load, *context_));
  return {};
}

size_t Engine::available_state_bytes() const {
  const DeviceModel* device = model_->device_model();
  return device != nullptr ? device->memory().room_bytes : read_memory().available_bytes;
}

void Engine::use_threads(int n) {
  CHECK(n >= 1 && n <= kMaxThreads) << n;
  auto threads = std::make_unique<ThreadPool>(n);
  context_.reset(new ExecContext{*backend_, *threads});
  threads_ = std::move(threads);
}

const Tokenizer& Engine::tokenizer() const {
  CHECK(text_.tokenizer != nullptr) << "the model was loaded without its tokenizer";
  return *text_.tokenizer;
}

std::optional<ThinkingIds> Engine::thinking_ids() const {
  if (text_.tokenizer == nullptr) {
    return std::nullopt;
  }
  const std::optional<TokenId> open = text_.tokenizer->token_id("<think>");
  const std::optional<TokenId> close = text_.tokenizer->token_id("</think>");
  if (!open || !close) {
    return std::nullopt;
  }
  return ThinkingIds{*open, *close};
}

GenerateOptions Engine::completed(GenerateOptions options) const {
  if (options.token_texts == nullptr) {
    options.token_texts = token_texts_.get();
  }
  if (!options.thinking) {
    options.thinking = thinking_ids();
  }
  return options;
}

Result<GenerationResult> Engine::generate(std::span<const PromptInput> prompts,
                                          const GenerationConfig& config,
                                          const GenerateOptions& options) {
  return logitlab::generate(*context_, *model_, prompts,
                            merge_generation_config(config, defaults_).config, completed(options));
}

Result<GenerationResult> Engine::generate(std::span<const TokenId> prompt,
                                          const GenerationConfig& config,
                                          const GenerateOptions& options, DecodeState* state) {
  const PromptInput input{prompt, state};
  return generate(std::span<const PromptInput>(&input, 1), config, options);
}

Result<Logits> Engine::logits(std::span<const TokenId> ids, bool all_positions,
                              int64_t prefill_chunk) {
  if (ids.empty()) {
    return fail(ErrorCode::kInvalidArgument, "no token ids; want at least one");
  }
  DecodeState state = model_->make_state();
  Logits all;
  all.vocab_size = model_->config().vocab_size;
  const auto step =
      static_cast<size_t>(prefill_chunk > 0 ? prefill_chunk : model_->prefill_chunk());
  for (size_t at = 0; at < ids.size(); at += step) {
    const size_t n = std::min(step, ids.size() - at);
    const bool is_last = at + n == ids.size();
    const LogitRows rows = all_positions ? LogitRows::kAll
                           : is_last     ? LogitRows::kLast
                                         : LogitRows::kNone;
    const SequenceChunk chunk{&state, ids.subspan(at, n), rows};
    ASSIGN_OR_RETURN(const Logits part, model_->forward(*context_, {&chunk, 1}));
    all.rows += part.rows;
    all.values.insert(all.values.end(), part.values.begin(), part.values.end());
  }
  return all;
}

}  // namespace logitlab
