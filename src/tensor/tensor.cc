#include "tensor/tensor.h"

#include <cstdlib>
#include <cstring>

namespace logitlab {

void Buffer::Free::operator()(std::byte* pointer) const {
  std::free(pointer);
}

Result<Buffer> Buffer::allocate(size_t bytes) {
  constexpr size_t kAlignment = 64;
  Buffer buffer;
  if (bytes == 0) {
    return buffer;
  }
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
  if (memory == nullptr) {
    return fail(ErrorCode::kResourceExhausted, "cannot allocate {} bytes", bytes);
  }
  std::memset(memory, 0, rounded);
  buffer.data_.reset(static_cast<std::byte*>(memory));
  buffer.size_ = bytes;
  return buffer;
}

}  // namespace logitlab
