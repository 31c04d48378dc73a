// What kernels for sm_90a use beyond cuda_compat.cuh, each wrapper one instruction: mbarriers, tiles and bytes copied by
// the tensor memory accelerator, barriers of some warps, products of a warpgroup. CPU bodies: testing/tensor_language.h. Nothing here has run on a GPU yet.
#pragma once
#include "cuda_compat.cuh"

template <class T> constexpr bool kIsHalf = false;
template <> constexpr bool kIsHalf<half> = true;

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

// ---- a tile from global to shared memory: the map's box with its corner at these coordinates, the innermost first, zeros
// outside of the array. The destination is aligned to 128 bytes; the bytes count for mbarrier b. One thread calls

__device__ inline void tma_load_2d(void* destination, const TensorMap* map, mbarrier* b, int column, int row) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
               ::"r"(shared_address(destination)), "l"(map), "r"(column), "r"(row), "r"(shared_address(b)) : "memory");
}

__device__ inline void tma_load_4d(void* destination, const TensorMap* map, mbarrier* b, int column, int row, int third, int fourth) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
               ::"r"(shared_address(destination)), "l"(map), "r"(column), "r"(row), "r"(third), "r"(fourth),
               "r"(shared_address(b)) : "memory");
}

// Bytes in a row; both addresses and the number are multiples of 16.
__device__ inline void bulk_load(void* destination, const void* source, int bytes, mbarrier* b) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(shared_address(destination)), "l"(source), "r"(bytes), "r"(shared_address(b)) : "memory");
}

// ---- `threads` threads of the block, whole warps, meet at barrier `id`, 1 to 15: whether the predicate held for any of them

__device__ inline bool named_barrier_or(int id, int threads, bool predicate) {
  unsigned any;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nbarrier.cta.red.or.pred q, %2, %3, p;\nselp.u32 %0, 1, 0, q;\n}"
               : "=r"(any) : "r"((unsigned)predicate), "r"(id), "r"(threads) : "memory");
  return any;
}

// ---- d += a b for a warpgroup of 128 threads, 64 x 16 times 16 x N, N twice the length of d; without kAdds d = a b. Sums in
// float32. b lies in shared memory and is named by a descriptor (see below), likewise a, or each thread brings four
// registers of it, in the order of mma_m16n8k16. They and d belong to the product until wgmma_wait<N> has left at most N
// committed groups under way; wgmma_fence goes before the first product after a wait

__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ inline void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

#define LAMELLA_LIST_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15" \
  ", " "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define LAMELLA_LIST_40 LAMELLA_LIST_32 ", " "%32, %33, %34, %35, %36, %37, %38, %39"
#define LAMELLA_LIST_64 LAMELLA_LIST_40 \
  ", " "%40, %41, %42, %43, %44, %45, %46, %47" \
  ", " "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define LAMELLA_LIST_128 LAMELLA_LIST_64 \
  ", " "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
  ", " "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
  ", " "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
  ", " "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define LAMELLA_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define LAMELLA_D8(i) LAMELLA_D4(i), LAMELLA_D4(i + 4)
#define LAMELLA_D32(i) LAMELLA_D8(i), LAMELLA_D8(i + 8), LAMELLA_D8(i + 16), LAMELLA_D8(i + 24)
#define LAMELLA_D64(i) LAMELLA_D32(i), LAMELLA_D32(i + 32)
#define LAMELLA_WGMMA(N, LIST, T, A, B, FLAGS, ...)                                                               \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." T "." T " {" LIST "}, " A ", " B ", " FLAGS ";"    \
               : __VA_ARGS__, "l"(b), "n"(kAdds ? 1 : 0), "n"(kTransposedB ? 1 : 0))
#define LAMELLA_WGMMA_OF(N, LIST, LEFT, A, B, FLAGS, ...)                                                        \
  template <class T, bool kTransposedB = false, bool kAdds = true>                                                  \
  __device__ inline void wgmma_m64k16(float (&d)[N / 2], LEFT, unsigned long long b) {                              \
    if constexpr (kIsHalf<T>)                                                                                       \
      LAMELLA_WGMMA(N, LIST, "f16", A, B, FLAGS, __VA_ARGS__);                                                      \
    else                                                                                                            \
      LAMELLA_WGMMA(N, LIST, "bf16", A, B, FLAGS, __VA_ARGS__);                                                     \
  }
// i, j and so on: numbers of the operands after those of d.
#define LAMELLA_WGMMA_N(N, LIST, i, j, k, l, m, n, o, ...)                                                       \
  LAMELLA_WGMMA_OF(N, LIST, unsigned long long a, "%" #i, "%" #j, "%" #k ", 1, 1, 0, %" #l, __VA_ARGS__ : "l"(a))   \
  LAMELLA_WGMMA_OF(N, LIST, const unsigned (&a)[4], "{%" #i ", %" #j ", %" #k ", %" #l "}", "%" #m,                 \
                   "%" #n ", 1, 1, %" #o, __VA_ARGS__ : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]))
LAMELLA_WGMMA_N(64, LAMELLA_LIST_32, 32, 33, 34, 35, 36, 37, 38, LAMELLA_D32(0))
LAMELLA_WGMMA_N(80, LAMELLA_LIST_40, 40, 41, 42, 43, 44, 45, 46, LAMELLA_D32(0), LAMELLA_D8(32))
LAMELLA_WGMMA_N(128, LAMELLA_LIST_64, 64, 65, 66, 67, 68, 69, 70, LAMELLA_D64(0))
LAMELLA_WGMMA_N(256, LAMELLA_LIST_128, 128, 129, 130, 131, 132, 133, 134, LAMELLA_D64(0), LAMELLA_D64(64))
#undef LAMELLA_WGMMA_N
#undef LAMELLA_WGMMA_OF
#undef LAMELLA_WGMMA
#undef LAMELLA_D4
#undef LAMELLA_D8
#undef LAMELLA_D32
#undef LAMELLA_D64
#undef LAMELLA_LIST_32
#undef LAMELLA_LIST_40
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

// ---- descriptors for the 128-byte swizzle that tile copies write. The operand begins at a multiple of 1024 bytes.

// From where on dynamic shared memory can hold such operands: up to 1,023 bytes further.
__device__ inline unsigned char* aligned_to_1024(unsigned char* memory) {
  return memory + (1024 - shared_address(memory) % 1024) % 1024;
}

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
