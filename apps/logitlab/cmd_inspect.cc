// inspect: what a model is made of and what it will need, from its headers alone.
#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "backend/backend.h"
#include "backend/gpu.h"
#include "base/env.h"
#include "base/utf8.h"
#include "chat_prompt.h"
#include "command.h"
#include "engine/memory_ledger.h"
#include "engine/model_defaults.h"
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "json_out.h"
#include "memory_view.h"
#include "model_options.h"
#include "models/model.h"
#include "sampling/generation_fields.h"
#include "text_layout.h"

namespace logitlab {
namespace {

struct InspectOptions {
  ModelOptions model;
  bool tensors = false;
  int64_t positions = 4096;
};

// Tensors of one stored type, and how they will lie in memory.
struct TypeSum {
  int64_t tensors = 0;
  int64_t elements = 0;
  size_t bytes = 0;
};

struct Inspection {
  ModelSource source;
  std::string device;  // that the plan is for
  ModelPlan plan;
  Checkpoint checkpoint;
  std::vector<ModelFile> files;  // of a Hugging Face folder
  ModelDefaults defaults;
  Result<TextModel> text = TextModel{};
  std::string tokenizer_kind;
  std::map<std::string, TypeSum> types;
  MemoryLedger memory;
};

Status read_gguf(Inspection* out) {
  ASSIGN_OR_RETURN(GgufFile file, GgufFile::open(out->source.path));
  const auto vocab = file.read_vocab();
  if (vocab) {
    out->tokenizer_kind = vocab->pre.empty()
                              ? fmt::format("GGUF {}", vocab->model)
                              : fmt::format("GGUF {} ({})", vocab->model, vocab->pre);
    out->defaults = defaults_from_gguf(*vocab);
    out->text = load_text_from_gguf(*vocab, out->source.path.string());
  } else {
    out->text = tl::unexpected<Error>(vocab.error());
  }
  out->checkpoint = std::move(file).take_checkpoint();
  return {};
}

Status read_folder(Inspection* out) {
  ASSIGN_OR_RETURN(out->files, list_model_files(out->source.path));
  ASSIGN_OR_RETURN(out->checkpoint, open_safetensors(out->source.path));
  ASSIGN_OR_RETURN(out->defaults, read_defaults_from_folder(out->source.path));
  out->text = load_text_from_folder(out->source.path);
  out->tokenizer_kind = "tokenizer.json";
  return {};
}

// What the plan is for: the device that was named; of "auto" the first GPU if it is there and takes
// the model's weights, else the processor.
struct Target {
  std::unique_ptr<Backend> backend;
  std::optional<DeviceMemory> device;  // of a GPU
};

Result<Target> target_of(const std::string& device, const LoadOptions& load,
                         const ModelSource& source) {
  Target target;
  if (device == "auto") {
    auto gpu = target_of("cuda:0", load, source);
    if (gpu && plan_model(source, load, *gpu->backend)) {
      return gpu;
    }
  }
  ASSIGN_OR_RETURN(target.backend, make_backend(device));
  if (target.backend->runs_whole_models()) {
    for (const GpuDevice& gpu : examine_gpus().devices) {
      if (fmt::format("cuda:{}", gpu.ordinal) == target.backend->name()) {
        target.device = DeviceMemory{.total_bytes = gpu.total_bytes, .free_bytes = gpu.free_bytes};
      }
    }
  }
  return target;
}

Result<Inspection> inspect(const InspectOptions& options) {
  Inspection out;
  const MemoryReading now = read_memory();
  ASSIGN_OR_RETURN(out.source, options.model.resolve());
  const LoadOptions load = options.model.load_options();
  ASSIGN_OR_RETURN(const Target target, target_of(options.model.device, load, out.source));
  out.device = std::string(target.backend->name());
  ASSIGN_OR_RETURN(out.plan, plan_model(out.source, load, *target.backend));
  RETURN_IF_ERROR(out.source.kind == ModelKind::kGguf ? read_gguf(&out) : read_folder(&out));
  for (const TensorEntry& entry : out.checkpoint.tensors()) {
    TypeSum& sum = out.types[std::string(name(entry.dtype))];
    ++sum.tensors;
    sum.elements += entry.shape.elements();
    sum.bytes += entry.bytes;
  }
  const int64_t most = out.plan.config.max_position_embeddings;
  const int64_t positions = most > 0 ? std::min(options.positions, most) : options.positions;
  out.memory = plan_memory(out.plan, load, positions, now, target.device);
  out.memory.file_cache_bytes = out.checkpoint.cached_bytes();
  return out;
}

// As bandwidths count: "6.46 GB".
std::string decimal_bytes(size_t bytes) {
  const auto value = static_cast<double>(bytes);
  return value < 1e6   ? fmt::format("{:.2f} kB", value / 1e3)
         : value < 1e9 ? fmt::format("{:.2f} MB", value / 1e6)
                       : fmt::format("{:.2f} GB", value / 1e9);
}

// One letter a layer, as hybrid_override_pattern spells it; D: a decoder layer.
std::string layer_pattern(const ModelConfig& config) {
  std::string pattern;
  for (const LayerKind kind : config.layer_kinds) {
    pattern += kind == LayerKind::kMamba       ? 'M'
               : kind == LayerKind::kAttention ? '*'
               : kind == LayerKind::kMoe       ? 'E'
               : kind == LayerKind::kMlp       ? '-'
                                               : 'D';
  }
  return pattern;
}

// The kinds that there are, in the order of their first layers.
std::vector<std::pair<LayerKind, int64_t>> layer_counts(const ModelConfig& config) {
  std::vector<std::pair<LayerKind, int64_t>> counts;
  for (const LayerKind kind : config.layer_kinds) {
    const bool is_new = std::none_of(counts.begin(), counts.end(),
                                     [&](const auto& row) { return row.first == kind; });
    if (is_new) {
      counts.emplace_back(kind, config.count(kind));
    }
  }
  return counts;
}

// "52: 23 mamba, 23 moe, 6 attention"; of one kind alone the number.
std::string layers_text(const ModelConfig& config) {
  const auto counts = layer_counts(config);
  std::string text = fmt::format("{}", config.num_hidden_layers);
  for (size_t i = 0; counts.size() > 1 && i < counts.size(); ++i) {
    text += fmt::format("{} {} {}", i == 0 ? ":" : ",", counts[i].second, name(counts[i].first));
  }
  return text;
}

// "31,577,940,288 (31.6 G)".
std::string count_text(int64_t count) {
  const auto value = static_cast<double>(count);
  return count < 1'000'000 ? with_commas(count)
         : value < 1e9     ? fmt::format("{} ({:.1f} M)", with_commas(count), value / 1e6)
                           : fmt::format("{} ({:.1f} G)", with_commas(count), value / 1e9);
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

Json config_json(const ModelConfig& config) {
  Json out = Json::object();
  out["architecture"] = config.architecture;
  out["family"] = config.family;
  out["vocab_size"] = config.vocab_size;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.num_hidden_layers;
  out["num_attention_heads"] = config.num_attention_heads;
  out["num_key_value_heads"] = config.num_key_value_heads;
  out["head_dim"] = config.head_dim;
  out["max_position_embeddings"] =
      config.max_position_embeddings > 0 ? Json(config.max_position_embeddings) : Json();
  out["rms_norm_eps"] = config.rms_norm_eps;
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["rope"] = {
      {"type", config.rope.type}, {"theta", config.rope.theta}, {"factor", config.rope.factor}};
  out["layer_windows"] = config.layer_windows;
  out["dtype"] = config.dtype.empty() ? Json() : Json(config.dtype);
  out["layer_pattern"] = layer_pattern(config);
  out["layer_kinds"] = Json::object();
  for (const auto& [kind, count] : layer_counts(config)) {
    out["layer_kinds"][std::string(name(kind))] = count;
  }
  out["mlp_hidden_act"] = config.mlp_hidden_act.empty() ? Json() : Json(config.mlp_hidden_act);
  out["mamba"] = Json();
  if (config.mamba) {
    const MambaConfig& mamba = *config.mamba;
    out["mamba"] = {{"mamba_num_heads", mamba.mamba_num_heads},
                    {"mamba_head_dim", mamba.mamba_head_dim},
                    {"ssm_state_size", mamba.ssm_state_size},
                    {"n_groups", mamba.n_groups},
                    {"conv_kernel", mamba.conv_kernel}};
  }
  out["moe"] = Json();
  if (config.moe) {
    const MoeConfig& moe = *config.moe;
    out["moe"] = {{"n_routed_experts", moe.n_routed_experts},
                  {"num_experts_per_tok", moe.num_experts_per_tok},
                  {"moe_intermediate_size", moe.moe_intermediate_size},
                  {"moe_shared_expert_intermediate_size", moe.moe_shared_expert_intermediate_size},
                  {"moe_latent_size", moe.moe_latent_size > 0 ? Json(moe.moe_latent_size) : Json()},
                  {"n_group", moe.n_group},
                  {"topk_group", moe.topk_group},
                  {"norm_topk_prob", moe.norm_topk_prob},
                  {"routed_scaling_factor", moe.routed_scaling_factor}};
  }
  return out;
}

Json files_json(const Inspection& inspection) {
  Json out = Json::array();
  if (inspection.source.kind == ModelKind::kGguf) {
    for (const Checkpoint::File& file : inspection.checkpoint.files()) {
      out.push_back({{"name", file.path.filename().string()},
                     {"status", "present"},
                     {"bytes", file.bytes},
                     {"real_path", file.real_path.string()}});
    }
    return out;
  }
  for (const ModelFile& file : inspection.files) {
    out.push_back({{"name", file.name},
                   {"status", std::string(name(file.presence))},
                   {"bytes", file.bytes},
                   {"required", file.required},
                   {"is_weights", file.is_weights}});
  }
  return out;
}

Json text_json(const Inspection& inspection) {
  Json out = Json::object();
  if (!inspection.text) {
    out["error"] = json_of(inspection.text.error());
    return out;
  }
  const TextModel& text = *inspection.text;
  out["kind"] = inspection.tokenizer_kind;
  out["vocab_size"] = text.tokenizer->vocab_size();
  out["max_id"] = text.tokenizer->max_id();
  out["added_tokens"] = text.tokenizer->added_tokens().size();
  out["adds_bos"] = text.adds_bos;
  out["special_tokens"] = Json::object();
  for (const auto& [key, value] : text.special_tokens) {
    out["special_tokens"][key] = value;
  }
  out["chat_templates"] = Json::array();
  if (text.chat_template != nullptr) {
    for (const NamedTemplate& item : text.chat_template->templates()) {
      out["chat_templates"].push_back({{"name", item.name},
                                       {"bytes", item.source.size()},
                                       {"hash", fnv1a64_text(item.source)},
                                       {"first_line", first_line(item.source)}});
    }
  }
  return out;
}

Json document_of(const Inspection& inspection, const InspectOptions& options) {
  Json document = Json::object();
  document["model"] = json_of(inspection.source);
  const ModelPlan& plan = inspection.plan;
  document["config"] = config_json(plan.config);
  document["parameters"] = plan.parameter_count;
  document["active_parameters"] = plan.active_parameter_count;
  document["weight_bytes_per_token"] = plan.weight_bytes_per_token;
  document["state_bytes_per_sequence"] = plan.state.fixed_bytes;
  document["kv_bytes_per_position"] = plan.state.position_bytes;
  document["files"] = files_json(inspection);
  document["shards"] = inspection.checkpoint.files().size();
  document["warnings"] = plan.warnings;
  document["unused_tensors"] = plan.unused;
  document["tensor_types"] = Json::object();
  for (const auto& [type, sum] : inspection.types) {
    document["tensor_types"][type] = {
        {"tensors", sum.tensors}, {"elements", sum.elements}, {"bytes", sum.bytes}};
  }
  document["tokenizer"] = text_json(inspection);
  document["stop_ids"] = Json::array();
  for (const StopId& stop : inspection.defaults.stop_ids) {
    document["stop_ids"].push_back({{"id", stop.id}, {"origin", stop.origin}});
  }
  document["generation_defaults"] = to_json(inspection.defaults.config);
  document["ignored_defaults"] = inspection.defaults.ignored;
  document["device"] = inspection.device;
  document["memory_plan"] = memory_plan_json(inspection.memory);
  if (options.tensors) {
    document["tensors"] = Json::array();
    for (const TensorEntry& entry : inspection.checkpoint.tensors()) {
      std::vector<int64_t> shape;
      for (int axis = 0; axis < entry.shape.rank(); ++axis) {
        shape.push_back(entry.shape[axis]);
      }
      document["tensors"].push_back({{"name", entry.name},
                                     {"dtype", std::string(name(entry.dtype))},
                                     {"shape", shape},
                                     {"bytes", entry.bytes},
                                     {"file", entry.file_index},
                                     {"offset", entry.offset}});
    }
  }
  return document;
}

// Facts in two columns under a heading.
class Section {
 public:
  explicit Section(std::string title) : title_(std::move(title)) {}
  Section& add(std::string what, std::string value, Style style = Style::kPlain) {
    table_.add_row({{std::move(what), Style::kDim}, {std::move(value), style}});
    return *this;
  }
  void print(Terminal* terminal) const {
    terminal->print("\n" + terminal->paint(Style::kHeading, title_) + "\n" +
                    table_.render(*terminal, 2));
  }

 private:
  std::string title_;
  Table table_{{{"", Align::kLeft}, {"", Align::kLeft}}};
};

std::string window_text(const std::vector<int64_t>& windows) {
  const auto n = std::count_if(windows.begin(), windows.end(), [](int64_t w) { return w > 0; });
  return n == 0 ? "all positions"
                : fmt::format("{} of {} layers see the last {} positions", n, windows.size(),
                              *std::max_element(windows.begin(), windows.end()));
}

void add_hybrid_parts(Section* section, const ModelConfig& config) {
  if (config.mamba) {
    const MambaConfig& mamba = *config.mamba;
    section->add("Mamba-2", fmt::format("{} heads of {}, state of {}, {} groups, convolution of {}",
                                        mamba.mamba_num_heads, mamba.mamba_head_dim,
                                        mamba.ssm_state_size, mamba.n_groups, mamba.conv_kernel));
  }
  if (config.moe) {
    const MoeConfig& moe = *config.moe;
    section->add(
        "experts",
        fmt::format(
            "{} of width {}, {} chosen per token{}{}{}", moe.n_routed_experts,
            moe.moe_intermediate_size, moe.num_experts_per_tok,
            moe.n_group > 1 ? fmt::format(" from {} of {} groups", moe.topk_group, moe.n_group)
                            : "",
            moe.moe_shared_expert_intermediate_size > 0
                ? fmt::format("; a shared one of width {}", moe.moe_shared_expert_intermediate_size)
                : "",
            moe.moe_latent_size > 0 ? fmt::format("; latent size {}", moe.moe_latent_size) : ""));
  }
}

void print_architecture(Terminal* terminal, const Inspection& inspection) {
  const ModelPlan& plan = inspection.plan;
  const ModelConfig& config = plan.config;
  const bool is_hybrid = std::any_of(config.layer_kinds.begin(), config.layer_kinds.end(),
                                     [](LayerKind kind) { return kind != LayerKind::kDecoder; });
  Section section("Architecture");
  section.add("class", config.architecture)
      .add("family", config.family)
      .add("parameters", count_text(plan.parameter_count), Style::kBold)
      .add("active", fmt::format("{} per token", count_text(plan.active_parameter_count)))
      .add("layers", layers_text(config));
  if (is_hybrid) {
    section.add("pattern", layer_pattern(config));
  }
  section.add("hidden size",
              config.intermediate_size > 0 && (!is_hybrid || config.count(LayerKind::kMlp) > 0)
                  ? fmt::format("{}, feed-forward {}", config.hidden_size, config.intermediate_size)
                  : fmt::format("{}", config.hidden_size));
  add_hybrid_parts(&section, config);
  section
      .add("attention", fmt::format("{} heads of {}, {} for keys and values; {}",
                                    config.num_attention_heads, config.head_dim,
                                    config.num_key_value_heads, window_text(config.layer_windows)))
      .add("vocabulary",
           fmt::format("{}{}", config.vocab_size,
                       config.tie_word_embeddings ? ", output shares the embedding's matrix" : ""))
      .add("positions", config.max_position_embeddings > 0
                            ? with_commas(config.max_position_embeddings)
                            : std::string("not stated"));
  if (!is_hybrid) {
    section.add("RoPE", fmt::format("{}, theta {:g}{}", config.rope.type, config.rope.theta,
                                    config.rope.factor != 1.0
                                        ? fmt::format(", factor {:g}", config.rope.factor)
                                        : ""));
  }
  section.print(terminal);
}

void print_files(Terminal* terminal, const Inspection& inspection) {
  const ModelSource& source = inspection.source;
  Section section("Files");
  section.add(source.kind == ModelKind::kGguf ? "file" : "folder", source.path.string());
  if (!source.repo_id.empty()) {
    section.add("hub id", source.repo_id)
        .add("revision", fmt::format("{} = commit {}", source.revision, source.commit));
  }
  if (source.kind == ModelKind::kGguf) {
    for (const Checkpoint::File& file : inspection.checkpoint.files()) {
      section.add("present",
                  fmt::format("{}, {}", file.path.filename().string(), human_bytes(file.bytes)));
    }
  }
  for (const ModelFile& file : inspection.files) {
    const bool is_there = file.presence == FilePresence::kPresent;
    section.add(std::string(name(file.presence)),
                is_there ? fmt::format("{}, {}", file.name, human_bytes(file.bytes)) : file.name,
                is_there || !file.required ? Style::kPlain : Style::kBad);
  }
  const auto fingerprint = model_fingerprint(source);
  section.add("fingerprint", fingerprint ? *fingerprint : fingerprint.error().message);
  const std::vector<std::string>& unused = inspection.plan.unused;
  if (!unused.empty()) {
    section.add(
        "not used",
        fmt::format("{} tensor{}: {}{}", unused.size(), unused.size() == 1 ? "" : "s",
                    printable(unused.front()),
                    unused.size() > 1 ? fmt::format(" to {}", printable(unused.back())) : ""));
  }
  for (const std::string& warning : inspection.plan.warnings) {
    section.add("odd", warning, Style::kWarn);
  }
  section.print(terminal);
}

void print_text_side(Terminal* terminal, const Inspection& inspection) {
  Section section("Text");
  if (!inspection.text) {
    section.add("tokenizer", inspection.text.error().message, Style::kWarn).print(terminal);
    return;
  }
  const TextModel& text = *inspection.text;
  section.add("tokenizer", fmt::format("{}, {} tokens, {} of them added; {} BOS in front",
                                       inspection.tokenizer_kind, text.tokenizer->vocab_size(),
                                       text.tokenizer->added_tokens().size(),
                                       text.adds_bos ? "puts" : "puts no"));
  if (text.chat_template == nullptr) {
    section.add("chat template", "none");
  } else {
    for (const NamedTemplate& item : text.chat_template->templates()) {
      section.add("chat template", fmt::format("{}, {} bytes, {}", item.name, item.source.size(),
                                               fnv1a64_text(item.source)));
      section.add("", shortened(first_line(item.source), 60), Style::kDim);
    }
  }
  for (const StopId& stop : inspection.defaults.stop_ids) {
    section.add("stops at", fmt::format("{} {} ({})", stop.id,
                                        text.tokenizer->token(stop.id).value_or("?"), stop.origin));
  }
  if (inspection.defaults.stop_ids.empty()) {
    section.add("stops at", "no id: only a length limit ends a generation", Style::kWarn);
  }
  for (const std::string& setting : inspection.defaults.ignored) {
    section.add("not applied", setting, Style::kWarn);
  }
  section.print(terminal);
}

// What one token costs, and what the model and one sequence will take.
void print_memory_plan(Terminal* terminal, const Inspection& inspection) {
  const ModelPlan& plan = inspection.plan;
  Section("Per decoded token")
      .add("weights read",
           fmt::format("{} ({}) of {}", decimal_bytes(plan.weight_bytes_per_token),
                       human_bytes(plan.weight_bytes_per_token), human_bytes(plan.weight_bytes)))
      .add("per sequence",
           fmt::format("{} whatever its length + {} per position",
                       human_bytes(plan.state.fixed_bytes), human_bytes(plan.state.position_bytes)))
      .print(terminal);
  const MemoryLedger& memory = inspection.memory;
  Section section("Memory plan");
  section.add("device", inspection.device);
  if (memory.device) {
    section.add("weights", human_bytes(memory.weights.device) + " on the device");
  } else {
    section
        .add("weights, mapped",
             fmt::format("{} read in place from the file{}", human_bytes(memory.weights.mapped),
                         memory.placement.offloads ? ", again at every step: they do not fit" : ""))
        .add("weights, own", fmt::format("{} in memory of their own, {} of it converted",
                                         human_bytes(memory.weights.own + memory.weights.converted),
                                         human_bytes(memory.weights.converted)));
  }
  section.add("state", fmt::format("{} for one sequence", human_bytes(memory.state_bytes)))
      .add("keys and values", fmt::format("{} for {} positions", human_bytes(memory.kv_bytes),
                                          with_commas(memory.n_positions)))
      .add("scratch", fmt::format("{}, estimated", human_bytes(memory.scratch_bytes)))
      .add("sum", human_bytes(memory.needed_bytes()), Style::kBold)
      .add("available",
           fmt::format(
               "{} of {}: {}", human_bytes(memory.available_bytes()),
               human_bytes(memory.device ? memory.device->total_bytes : memory.now.total_bytes),
               memory.fits()
                   ? std::string("it fits")
                   : fmt::format("{} are missing",
                                 human_bytes(memory.needed_bytes() - memory.available_bytes()))),
           memory.fits() ? Style::kGood : Style::kBad)
      .add("page cache",
           memory.file_cache_bytes
               ? fmt::format("{} of the files now", human_bytes(*memory.file_cache_bytes))
               : std::string("the system does not say"));
  section.print(terminal);
}

void print_memory(Terminal* terminal, const Inspection& inspection) {
  Table types({{"type", Align::kLeft},
               {"tensors", Align::kRight},
               {"elements", Align::kRight},
               {"bytes", Align::kRight}});
  for (const auto& [type, sum] : inspection.types) {
    types.add_row(
        {type, with_commas(sum.tensors), with_commas(sum.elements), human_bytes(sum.bytes)});
  }
  terminal->print("\n" + terminal->paint(Style::kHeading, "Tensors") + "\n" +
                  types.render(*terminal, 2));
  print_memory_plan(terminal, inspection);
}

void print_tensors(Terminal* terminal, const Checkpoint& checkpoint) {
  Table table({{"name", Align::kLeft},
               {"type", Align::kLeft},
               {"shape", Align::kLeft},
               {"bytes", Align::kRight}});
  for (const TensorEntry& entry : checkpoint.tensors()) {
    table.add_row({entry.name, std::string(name(entry.dtype)), entry.shape.to_string(),
                   human_bytes(entry.bytes)});
  }
  terminal->print("\n" + terminal->paint(Style::kHeading, "Every tensor") + "\n" +
                  table.render(*terminal, 2));
}

Result<int> run_inspect(const InspectOptions& options, Invocation& invocation) {
  ASSIGN_OR_RETURN(const Inspection inspection, inspect(options));
  Terminal& terminal = invocation.terminal;
  if (invocation.json) {
    print_json(&terminal, document_of(inspection, options));
    return 0;
  }
  terminal.print(terminal.paint(Style::kBold, shortened(short_name(inspection.source),
                                                        static_cast<size_t>(terminal.columns()))) +
                 "\n");
  print_architecture(&terminal, inspection);
  print_files(&terminal, inspection);
  print_text_side(&terminal, inspection);
  print_memory(&terminal, inspection);
  if (options.tensors) {
    print_tensors(&terminal, inspection.checkpoint);
  }
  return 0;
}

Action declare_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectOptions>();
  app.add_flag("--tensors", options->tensors, "Lists every tensor: name, type, shape, bytes.")
      ->group("Result");
  app.add_option("--positions", options->positions,
                 "Positions that the memory plan counts keys and values for, 1 to 100000000; at "
                 "most what the model has. Default 4096.")
      ->type_name("N")
      ->check(CLI::Range(1, 100000000))
      ->group("Memory plan");
  app.add_option("--dtype", options->model.dtype,
                 "Plans for weights kept as stored (auto), as float32 or as bfloat16. Default: "
                 "auto.")
      ->type_name("TYPE")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16"}))
      ->group("Memory plan");
  app.add_option(
         "--device", options->model.device,
         "Plans for this device: cpu, cuda:N, or auto (the first GPU if it takes the model, "
         "else cpu). Default: auto.")
      ->type_name("DEVICE")
      ->group("Memory plan");
  options->model.declare_placement(app, "Memory plan");
  options->model.declare_source(app);
  return [options](Invocation& invocation) { return run_inspect(*options, invocation); };
}

}  // namespace

Command inspect_command() {
  return {"inspect",
          "what a model is made of, and the memory it will need",
          "Reads the headers of a model's files (never its weights, so it is quick for any size) "
          "and shows architecture, sizes, files and shards, tensors by type, tokenizer, chat "
          "template, the ids that end a generation and where each comes from, and a memory plan "
          "set against what this machine has.",
          {{"inspect", "the default model"},
           {"inspect --model org/name --revision main", "a model of the local hub cache"},
           {"inspect --model model.gguf --tensors", "with every tensor"},
           {"inspect --dtype float32 --positions 2000 --json", "another plan, as JSON"}},
          declare_inspect};
}

}  // namespace logitlab
