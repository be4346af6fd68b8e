#include "sampling/processor_chain.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "sampling/effective_config.h"
#include "sampling/engine_semantics.h"
#include "sampling/field_values.h"
#include "sampling/registry.h"

namespace logitlab {
namespace {

// Hands out copies of the caller's processors, each once.
class Callers {
 public:
  explicit Callers(std::span<const LogitsProcessor* const> given)
      : left_(given.begin(), given.end()) {}

  // The first one of this name. Null: none is left.
  std::unique_ptr<LogitsProcessor> take(std::string_view name) {
    const auto found = std::ranges::find(left_, name, &LogitsProcessor::name);
    if (found == left_.end()) {
      return nullptr;
    }
    auto taken = (*found)->clone();
    left_.erase(found);
    return taken;
  }
  // In the order in which they were given.
  void take_rest(std::vector<std::unique_ptr<LogitsProcessor>>* out) {
    for (const LogitsProcessor* processor : left_) {
      out->push_back(processor->clone());
    }
    left_.clear();
  }

 private:
  std::vector<const LogitsProcessor*> left_;
};

}  // namespace

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
    if (!options.callers.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "semantics: {} found with processors of the caller ({}), want transformers: only "
                  "its chain has a place for them",
                  name(*effective.semantics), options.callers.front()->name());
    }
    ASSIGN_OR_RETURN(auto engine_processors, make_engine_processors(effective, options));
    return ProcessorChain(std::move(engine_processors));
  }
  std::vector<std::unique_ptr<LogitsProcessor>> processors;
  Callers callers(options.callers);
  for (const ProcessorSpec& spec : processor_registry()) {
    if (spec.slot >= ProcessorSlot::kCallerProcessors) {
      callers.take_rest(&processors);
    }
    if (spec.only_when_sampling && !effective.do_sample.value_or(false)) {
      continue;
    }
    if (spec.applies(effective)) {
      ASSIGN_OR_RETURN(auto processor, spec.make(effective, options));
      if (processor != nullptr) {
        auto own = callers.take(processor->name());
        processors.push_back(own != nullptr ? std::move(own) : std::move(processor));
      }
    }
  }
  return ProcessorChain(std::move(processors));
}

}  // namespace logitlab
