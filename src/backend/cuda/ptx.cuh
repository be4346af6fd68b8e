// The PTX instructions that the decode kernels are made of, one wrapper each.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace logitlab::cuda {

using u32 = uint32_t;
using u64 = uint64_t;

#define LOGITLAB_DEVICE __device__ __forceinline__

// A barrier that is not passed in this many polls (seconds) is a bug; a trap ends the kernel with
// an error instead of hanging the device.
constexpr u32 kPatience = 1U << 24;

LOGITLAB_DEVICE u32 shared_address(const void* pointer) {
  return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// ---- loads --------------------------------------------------------------------------------------

// What another kernel wrote: from L2, for L1 may hold an older line.
LOGITLAB_DEVICE float4 load_l2(const float* p) {
  return __ldcg(reinterpret_cast<const float4*>(p));
}
LOGITLAB_DEVICE uint4 load_l2(const u32* p) {
  return __ldcg(reinterpret_cast<const uint4*>(p));
}
LOGITLAB_DEVICE float load_l2_1(const float* p) {
  return __ldcg(p);
}

LOGITLAB_DEVICE uint4 load_shared(u32 address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

// The same where `is_there`; zeros else.
LOGITLAB_DEVICE uint4 load_shared_if(bool is_there, u32 address) {
  uint4 v{};
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %5, 0;\n@p ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];\n}"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "r"(address), "r"(static_cast<u32>(is_there)));
  return v;
}

// ---- mbarriers and bulk copies ------------------------------------------------------------------

LOGITLAB_DEVICE void barrier_init(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
LOGITLAB_DEVICE void barrier_init_done() {
  asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
}
// Arrives, and expects `bytes` of bulk copies.
LOGITLAB_DEVICE void barrier_expect(u32 barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
LOGITLAB_DEVICE void barrier_arrive(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
LOGITLAB_DEVICE void barrier_wait(u32 barrier, u32 parity) {
  for (u32 polls = 0;; ++polls) {
    u32 is_done;
    asm volatile(
        "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(is_done)
        : "r"(barrier), "r"(parity)
        : "memory");
    if (is_done != 0) {
      return;
    }
    if (polls > kPatience) {
      __trap();
    }
  }
}
// bytes: a multiple of 16, both addresses 16-byte aligned.
LOGITLAB_DEVICE void bulk_load(u32 target, const void* source, u32 bytes, u32 barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(target),
      "l"(source), "r"(bytes), "r"(barrier)
      : "memory");
}

// ---- programmatic dependent launch --------------------------------------------------------------

// All that earlier kernels of the stream wrote is visible after this.
LOGITLAB_DEVICE void wait_for_predecessor() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
}
// The next kernel may be placed on the device once every block has said so (or ended).
LOGITLAB_DEVICE void allow_successor() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// ---- groups of threads --------------------------------------------------------------------------

// A barrier of `threads` threads, numbered apart from __syncthreads (0). The barrier counts warps,
// so the lanes of one come together first.
LOGITLAB_DEVICE void sync_threads(int number, int threads) {
  __syncwarp();
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}
LOGITLAB_DEVICE void arrive_threads(int number, int threads) {
  __syncwarp();
  asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// ---- arithmetic ---------------------------------------------------------------------------------

// c += a b for a 16x16 row-major a and a 16x8 column-major b of BF16.
LOGITLAB_DEVICE void mma_bf16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Two BF16 values as they lie in memory: `low` first.
LOGITLAB_DEVICE u32 pack_bf16(float low, float high) {
  u32 packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
LOGITLAB_DEVICE float low_bf16(u32 packed) {
  return __uint_as_float(packed << 16);
}
LOGITLAB_DEVICE float high_bf16(u32 packed) {
  return __uint_as_float(packed & 0xffff0000U);
}

// The parts of two values: value = high + low to 16 bits of mantissa.
LOGITLAB_DEVICE void split_bf16(float a, float b, u32* high, u32* low) {
  *high = pack_bf16(a, b);
  *low = pack_bf16(__fsub_rn(a, low_bf16(*high)), __fsub_rn(b, high_bf16(*high)));
}

LOGITLAB_DEVICE float warp_sum(float v) {
#pragma unroll
  for (int m = 16; m > 0; m >>= 1) {
    v = __fadd_rn(v, __shfl_xor_sync(~0U, v, m));
  }
  return v;
}

LOGITLAB_DEVICE float silu(float v) {
  return __fdiv_rn(v, 1.0F + expf(-v));
}
LOGITLAB_DEVICE float relu2(float v) {
  const float r = fmaxf(v, 0.0F);
  return r * r;
}
LOGITLAB_DEVICE float softplus(float v) {
  return v > 20.0F ? v : log1pf(expf(v));
}

}  // namespace logitlab::cuda
