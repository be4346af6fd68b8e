// A loaded language model: weights, and the forward pass over rows of several sequences.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/device_model.h"
#include "base/error.h"
#include "base/progress.h"
#include "formats/model_source.h"
#include "logitlab/types.h"
#include "nn/rope.h"
#include "state/decode_state.h"

namespace logitlab {

class WeightStore;

// What a layer does. A decoder layer is attention and a gated MLP, each with its norm; of the
// others each is one norm and one mixer.
enum class LayerKind { kDecoder, kMamba, kAttention, kMoe, kMlp };
[[nodiscard]] std::string_view name(LayerKind kind);  // "decoder", "mamba", "attention", ...

// Hugging Face's field names, of hybrid models.
struct MambaConfig {
  int64_t mamba_num_heads = 0;
  int64_t mamba_head_dim = 0;
  int64_t ssm_state_size = 0;
  int64_t n_groups = 0;
  int64_t conv_kernel = 0;
  // time_step_limit: what the time step is clamped to.
  float time_step_low = 0;
  float time_step_high = std::numeric_limits<float>::infinity();
};
struct MoeConfig {
  int64_t n_routed_experts = 0;
  int64_t num_experts_per_tok = 0;
  int64_t moe_intermediate_size = 0;
  int64_t moe_shared_expert_intermediate_size = 0;
  int64_t moe_latent_size = 0;  // 0: experts work on the hidden size
  int64_t n_group = 1;
  int64_t topk_group = 1;
  bool norm_topk_prob = true;
  float routed_scaling_factor = 1.0F;
};

// What config.json or the GGUF metadata say, with Hugging Face's field names.
struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", or a GGUF's general.architecture
  std::string family;        // the registry's name of the code that runs it
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;  // 0: not stated
  float rms_norm_eps = 0;
  bool tie_word_embeddings = false;
  RopeConfig rope;
  std::vector<int64_t> layer_windows;  // per layer: attention window in positions, 0 = all
  std::string dtype;                   // as the file declares it; empty when it does not
  std::vector<LayerKind> layer_kinds;  // [num_hidden_layers]
  std::optional<MambaConfig> mamba;    // set when a layer is kMamba
  std::optional<MoeConfig> moe;        // set when a layer is kMoe
  std::string mlp_hidden_act;          // of kMlp and kMoe layers: "relu2", "silu"

  [[nodiscard]] int64_t count(LayerKind kind) const {
    return std::count(layer_kinds.begin(), layer_kinds.end(), kind);
  }
};

// Which rows of a chunk need logits.
enum class LogitRows { kNone, kLast, kAll };

// A chunk of one sequence: `ids` follow what `state` holds. No two chunks of a batch share a state.
struct SequenceChunk {
  DecodeState* state = nullptr;
  std::span<const TokenId> ids;
  LogitRows logit_rows = LogitRows::kLast;
};

// Rows in the order of the chunks and their positions.
struct Logits {
  int64_t rows = 0;
  int64_t vocab_size = 0;
  std::vector<float> values;  // [rows, vocab_size]
  [[nodiscard]] std::span<const float> row(int64_t index) const {
    return {values.data() + index * vocab_size, static_cast<size_t>(vocab_size)};
  }
};

// One weight matrix or vector of the loaded model, for ledgers.
struct WeightEntry {
  std::string name;  // in the file
  Shape shape;
  DType stored = DType::kF32;    // in the file
  DType resident = DType::kF32;  // as the kernels read it
  size_t bytes = 0;              // resident
  bool is_mapped = false;        // read from the file's mapping; false: a copy in memory
  bool is_on_device = false;     // and nowhere else; is_mapped is false
  bool is_values = false;        // a norm, a bias or the like: float32 whatever the file has
};

// What a sequence's state takes.
struct StateCost {
  size_t fixed_bytes = 0;     // convolution and SSM state, whatever the length
  size_t position_bytes = 0;  // keys and values of one position
};

// What a checkpoint holds and what its model will cost, known before any weight is read.
struct ModelPlan {
  ModelConfig config;
  std::vector<WeightEntry> weights;  // all that the model will use
  std::vector<std::string> unused;   // tensors of the files that it will not (mtp.*), in file order
  std::vector<std::string> warnings;  // as Model::warnings
  int64_t parameter_count = 0;        // tied matrices counted once
  // Parameters that one token goes through: of the experts the chosen ones, of the embedding table
  // one row.
  int64_t active_parameter_count = 0;
  size_t weight_bytes = 0;            // resident
  size_t weight_bytes_per_token = 0;  // read by one decode step of one sequence
  StateCost state;
};

// Immutable after load; shared as shared_ptr<const Model>. forward is called from one thread at a
// time per ExecContext.
class Model {
 public:
  virtual ~Model() = default;
  [[nodiscard]] virtual const ModelConfig& config() const = 0;
  [[nodiscard]] virtual const std::vector<WeightEntry>& weights() const = 0;
  // Number of parameters, tied matrices counted once.
  [[nodiscard]] virtual int64_t parameter_count() const = 0;
  // What was read around, one line each (an index whose total_size does not fit).
  [[nodiscard]] virtual const std::vector<std::string>& warnings() const = 0;
  // Bytes of weights that one decode step of one sequence reads: the embedding row, not the table;
  // of a mixture's experts the chosen ones; norms, biases and the like in the type of the file.
  [[nodiscard]] virtual size_t weight_bytes_per_token() const = 0;
  // Bytes of state for a sequence of n positions.
  [[nodiscard]] virtual size_t state_bytes(int64_t n_positions) const = 0;
  [[nodiscard]] virtual DecodeState make_state() const = 0;
  // What holds the weights and their files; null for a model that has none.
  [[nodiscard]] virtual const WeightStore* weight_store() const { return nullptr; }

  // The model in the memory of a device; null: the layers run on the host.
  [[nodiscard]] virtual const DeviceModel* device_model() const { return nullptr; }
  // The longest chunk of a prompt that goes through the model at once, unless a caller says
  // another.
  [[nodiscard]] int64_t prefill_chunk() const {
    return device_model() != nullptr ? device_model()->max_chunk() : kHostPrefillChunk;
  }
  static constexpr int64_t kHostPrefillChunk = 512;

  // Runs the chunks as one batch and appends them to their states. A row's logits are the same bits
  // for any batch and number of threads; for any chunking too, unless the model has Mamba layers:
  // a chunked scan sums in another order, within the bound of docs/numerics.md. kInvalidArgument:
  // an id outside the vocabulary, an empty chunk; kResourceExhausted: no memory for the state. On
  // error no state has changed.
  [[nodiscard]] virtual Result<Logits> forward(ExecContext& context,
                                               std::span<const SequenceChunk> batch) const = 0;
};

struct LoadOptions {
  // How weights are kept: "auto" (as stored), "float32", "bfloat16". Vectors (norms, biases) are
  // always float32.
  std::string dtype = "auto";
  // Where weights that need no conversion lie: "map" (in the file's mapping, that is in the page
  // cache), "read" (in memory of our own, read in parallel, the file's pages released behind the
  // reader), "auto" (read when that leaves room, else map).
  std::string weights = "auto";
  // Weights that do not fit in memory stay in the file's mapping and are read from the disk at
  // every step. Without it such a load is refused.
  bool offload = false;
  ProgressSink* progress = nullptr;  // null: none
  // For measuring full sizes without their files' content: matrices are made on the device
  // (DeviceModelSpec has the formula), vectors are read. kUnsupported for a backend that runs
  // layers.
  bool random_weights = false;
};

// Reads the configuration alone: no weights. Errors as load_model.
[[nodiscard]] Result<ModelConfig> read_model_config(const ModelSource& source);

// Checks all that load_model checks before it reads a weight, and reads none. Memory and time grow
// with the number of tensors, not with their sizes.
[[nodiscard]] Result<ModelPlan> plan_model(const ModelSource& source, const LoadOptions& options,
                                           const Backend& backend);

// Checks every tensor's name, shape and type before it touches the data. kNotFound,
// kInvalidArgument, kDataLoss, kUnsupported (architecture, rope type, dtype: with the list of those
// that are known), kResourceExhausted (says how much is missing).
[[nodiscard]] Result<std::shared_ptr<const Model>> load_model(const ModelSource& source,
                                                              const LoadOptions& options,
                                                              ExecContext& context);

}  // namespace logitlab
