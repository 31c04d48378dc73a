// What kernels for sm_90a use beyond cuda_compat.cuh, each wrapper one instruction: mbarriers, tiles copied by the tensor
// memory accelerator, products of a warpgroup. CPU bodies: testing/tensor_language.h. Nothing here has run on a GPU yet.
#pragma once
#include "cuda_compat.cuh"

#ifndef LAMELLA_SIMULATOR

// A CUtensorMap as a kernel takes it: `const __grid_constant__ TensorMap map`.
struct __align__(64) TensorMap { unsigned long long words[16]; };

// ---- mbarrier: 8 bytes of shared memory. A phase completes when `arrivals` threads have arrived and all expected bytes
// have come; mbarrier_try_wait asks whether the phase of this parity is complete (the first one has parity 0)

typedef unsigned long long mbarrier;

__device__ inline void mbarrier_init(mbarrier* b, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}

__device__ inline void mbarrier_arrive(mbarrier* b) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}

__device__ inline void mbarrier_arrive_expect_tx(mbarrier* b, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}

__device__ inline bool mbarrier_try_wait(mbarrier* b, int parity) {
  unsigned complete;
  asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(complete) : "r"(shared_address(b)), "r"(parity) : "memory");
  return complete;
}

// After mbarrier_init, before the block's barrier: the copy engine sees the initialised mbarrier.
__device__ inline void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

// Between a thread's own stores to shared memory and a wgmma or tile copy of the same bytes.
__device__ inline void async_proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// ---- a tile from global to shared memory: the map's box with its corner at (row, column), zeros outside of the matrix.
// The destination is aligned to 128 bytes; the bytes count for mbarrier b. One thread calls

__device__ inline void tma_load_2d(void* destination, const TensorMap* map, mbarrier* b, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
               ::"r"(shared_address(destination)), "l"(map), "r"(column), "r"(row), "r"(shared_address(b)) : "memory");
}

// ---- d += a b for a warpgroup of 128 threads, operands in shared memory named by descriptors (see below), sums in
// float32. d belongs to the product until wgmma_wait<N> has left at most N committed groups under way

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

template <class T> constexpr bool kIsHalf = false;
template <> constexpr bool kIsHalf<half> = true;

#define LAMELLA_LIST_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
  ", " "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LAMELLA_LIST_64 LAMELLA_LIST_32 \
  ", " "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47" \
  ", " "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LAMELLA_LIST_128 LAMELLA_LIST_64 \
  ", " "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
  ", " "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
  ", " "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", " "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define LAMELLA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LAMELLA_D16(i) LAMELLA_D4(i), LAMELLA_D4(i + 4), LAMELLA_D4(i + 8), LAMELLA_D4(i + 12)
#define LAMELLA_D32 LAMELLA_D16(0), LAMELLA_D16(16)
#define LAMELLA_D64 LAMELLA_D32, LAMELLA_D16(32), LAMELLA_D16(48)
#define LAMELLA_D128 LAMELLA_D64, LAMELLA_D16(64), LAMELLA_D16(80), LAMELLA_D16(96), LAMELLA_D16(112)
#define LAMELLA_WGMMA_TYPE(N, LIST, A, B, TRANSPOSED, T, ...)                                                \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." T "." T " {" LIST "}, " A ", " B ", 1, 1, 1, 0, "    \
               TRANSPOSED ";" : __VA_ARGS__ : "l"(a), "l"(b), "n"(kTransposedB ? 1 : 0))
#define LAMELLA_WGMMA(N, LIST, A, B, TRANSPOSED, ...)                                                                  \
  template <class T, bool kTransposedB = false>                                                                        \
  __device__ inline void wgmma_m64n##N##k16(float (&d)[N / 2], unsigned long long a, unsigned long long b) {           \
    if constexpr (kIsHalf<T>)                                                                                          \
      LAMELLA_WGMMA_TYPE(N, LIST, A, B, TRANSPOSED, "f16", __VA_ARGS__);                                           \
    else                                                                                                               \
      LAMELLA_WGMMA_TYPE(N, LIST, A, B, TRANSPOSED, "bf16", __VA_ARGS__);                                          \
  }
LAMELLA_WGMMA(64, LAMELLA_LIST_32, "%32", "%33", "%34", LAMELLA_D32)
LAMELLA_WGMMA(128, LAMELLA_LIST_64, "%64", "%65", "%66", LAMELLA_D64)
LAMELLA_WGMMA(256, LAMELLA_LIST_128, "%128", "%129", "%130", LAMELLA_D128)
#undef LAMELLA_WGMMA
#undef LAMELLA_WGMMA_TYPE
#undef LAMELLA_D4
#undef LAMELLA_D16
#undef LAMELLA_D32
#undef LAMELLA_D64
#undef LAMELLA_D128
#undef LAMELLA_LIST_32
#undef LAMELLA_LIST_64
#undef LAMELLA_LIST_128

// ---- registers from here on, for all warps of a warpgroup: producers give (dec) what consumers then take (inc). The sum
// must not exceed what the block got at launch, or inc waits for ever. Without __launch_bounds__(threads, 1) the compiler
// ignores both, and says so in its log only

template <int N> __device__ inline void setmaxnreg_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ inline void setmaxnreg_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }

#endif  // LAMELLA_SIMULATOR

__device__ inline void mbarrier_wait(mbarrier* b, int parity) {
  while (!mbarrier_try_wait(b, parity)) {
  }
}

// ---- descriptors for the 128-byte swizzle that tma_load_2d writes. The operand begins at a multiple of 1024 bytes.

// k innermost: rows of 64 elements, 8 rows in 1024 bytes. The next 16 elements along k: descriptor + 2.
__device__ inline unsigned long long wgmma_descriptor(const void* p) {
  return (shared_address(p) & 0x3ffff) >> 4 | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// Columns innermost (kTransposedB): panels of 64 columns, `panel_bytes` apart, each with one k in a row. The next 16
// along k: descriptor + 128.
__device__ inline unsigned long long wgmma_descriptor_transposed(const void* p, int panel_bytes) {
  return (shared_address(p) & 0x3ffff) >> 4 | (unsigned long long)(panel_bytes >> 4) << 16 | 64ull << 32 | 1ull << 62;
}

// The part of d that element i of a thread's accumulator is, in a product of 64 rows.
__device__ inline int wgmma_row(int thread, int i) { return thread / 32 % 4 * 16 + thread % 32 / 4 + i / 2 % 2 * 8; }
__device__ inline int wgmma_column(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }
