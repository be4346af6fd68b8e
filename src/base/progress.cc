#include "base/progress.h"

namespace logitlab {
namespace {

class NullProgress final : public ProgressSink {
 public:
  void update(std::string_view /*what*/, uint64_t /*done*/, uint64_t /*total*/,
              std::string_view /*unit*/, std::string_view /*detail*/) override {}
  void finish(std::string_view /*what*/) override {}
};

}  // namespace

ProgressSink& null_progress() {
  static NullProgress sink;
  return sink;
}

}  // namespace logitlab
