#include "engine/live_state.h"

namespace logitlab {

Status replay_tokens(ExecContext& context, const Model& model, std::span<const TokenId> ids,
                     DecodeState* state) {
  for (size_t i = 0; i < ids.size(); ++i) {
    const SequenceChunk chunk{state, ids.subspan(i, 1), LogitRows::kNone};
    RETURN_IF_ERROR(model.forward(context, {&chunk, 1}));
  }
  return {};
}

}  // namespace logitlab
