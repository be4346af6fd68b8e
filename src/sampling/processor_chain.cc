#include "sampling/processor_chain.h"

#include <utility>

#include "base/check.h"
#include "sampling/effective_config.h"
#include "sampling/engine_semantics.h"
#include "sampling/registry.h"

namespace logitlab {

std::string_view name(CutMeasure measure) {
  switch (measure) {
    case CutMeasure::kNone:
      return "none";
    case CutMeasure::kScore:
      return "score";
    case CutMeasure::kProbability:
      return "probability";
    case CutMeasure::kMass:
      return "mass";
    case CutMeasure::kSurprise:
      return "surprise";
    case CutMeasure::kEntropy:
      return "entropy";
  }
  return "";
}

ProcessorChain::ProcessorChain(std::vector<std::unique_ptr<LogitsProcessor>> processors)
    : processors_(std::move(processors)) {}

void ProcessorChain::apply(std::span<float> scores, const SequenceView& sequence,
                           StageObserver* observer) {
  for (size_t stage = 0; stage < processors_.size(); ++stage) {
    processors_[stage]->apply(scores, sequence);
    if (observer != nullptr) {
      observer->after_stage(static_cast<int64_t>(stage), *processors_[stage], scores);
    }
  }
}

void ProcessorChain::accept(TokenId id) {
  for (const auto& processor : processors_) {
    processor->accept(id);
  }
}

void ProcessorChain::rollback(int64_t n) {
  for (const auto& processor : processors_) {
    processor->rollback(n);
  }
}

ProcessorChain ProcessorChain::clone() const {
  std::vector<std::unique_ptr<LogitsProcessor>> copies;
  copies.reserve(processors_.size());
  for (const auto& processor : processors_) {
    copies.push_back(processor->clone());
  }
  return ProcessorChain(std::move(copies));
}

std::vector<std::string_view> ProcessorChain::names() const {
  std::vector<std::string_view> names;
  for (const auto& processor : processors_) {
    names.push_back(processor->name());
  }
  return names;
}

Result<ProcessorChain> build_chain(const GenerationConfig& effective, const ChainOptions& options) {
  CHECK(options.vocab_size >= 1) << options.vocab_size;
  CHECK(options.min_tokens_to_keep >= 1) << options.min_tokens_to_keep;
  RETURN_IF_ERROR(validate_generation_config(effective));
  if (effective.semantics.value_or(Semantics::kTransformers) != Semantics::kTransformers) {
    ASSIGN_OR_RETURN(auto engine_processors, make_engine_processors(effective, options));
    return ProcessorChain(std::move(engine_processors));
  }
  std::vector<std::unique_ptr<LogitsProcessor>> processors;
  for (const ProcessorSpec& spec : processor_registry()) {
    if (spec.only_when_sampling && !effective.do_sample.value_or(false)) {
      continue;
    }
    if (spec.applies(effective)) {
      ASSIGN_OR_RETURN(auto processor, spec.make(effective, options));
      if (processor != nullptr) {
        processors.push_back(std::move(processor));
      }
    }
  }
  return ProcessorChain(std::move(processors));
}

}  // namespace logitlab
