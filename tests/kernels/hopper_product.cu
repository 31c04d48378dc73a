// hopper_product: c[m, n] = sum_k a[m, k] b[n, k], tiles of 64 x COLUMNS, one warp that copies and one warpgroup that
// multiplies, two buffers handed to and fro by mbarriers.
// a: M x K, b: N x K, T in {half, bfloat16}, as tensor maps of boxes 64 x 64 and COLUMNS x 64, swizzled; c: M x N
// float32. Any M, N, K >= 1. 256 threads. A test asset: it shows that the wrappers work together; the BUG_ macros plant
// what the simulator has to find. It has not run on a GPU.
// architectures: 90a
// compile: T=half|bfloat16 COLUMNS=64|128|256 -> 232 registers, 0 spills
#include "../../kernels/hopper_compat.cuh"

constexpr int kRows = 64, kDepth = 64, kStages = 2;
constexpr int kBytesA = kRows * kDepth * 2, kBytes = kBytesA + COLUMNS * kDepth * 2;  // of one stage

extern "C" __global__ void __launch_bounds__(256, 1)
hopper_product(const __grid_constant__ TensorMap map_a, const __grid_constant__ TensorMap map_b, float* c, int M, int N, int K) {
  DYN_SHARED(memory);
  unsigned char* tiles = aligned_to_1024(memory);
  mbarrier* full = reinterpret_cast<mbarrier*>(tiles + kStages * kBytes);
  mbarrier* empty = full + kStages;
  const int t = threadIdx.x, m0 = blockIdx.y * kRows, n0 = blockIdx.x * COLUMNS, steps = (K + kDepth - 1) / kDepth;
  if (t == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      mbarrier_init(full + stage, 1);
      mbarrier_init(empty + stage, 1);
    }
#ifndef BUG_INIT_FENCE
    mbarrier_init_fence();
#endif
  }
#ifndef BUG_BARRIER
  __syncthreads();
#endif
  if (t >= 128) {
    setmaxnreg_dec<40>();
    for (int step = 0; step < steps && t == 128; ++step) {
      const int stage = step % kStages, round = step / kStages;
#ifndef BUG_EMPTY
      if (round > 0) mbarrier_wait(empty + stage, (round - 1) % 2);
#endif
#ifdef BUG_TOO_FEW
      mbarrier_arrive_expect_tx(full + stage, kBytesA);
#elif defined(BUG_TOO_MANY)
      mbarrier_arrive_expect_tx(full + stage, kBytes + 128);
#else
      mbarrier_arrive_expect_tx(full + stage, kBytes);
#endif
      tma_load_2d(tiles + stage * kBytes, &map_a, full + stage, step * kDepth, m0);
      tma_load_2d(tiles + stage * kBytes + kBytesA, &map_b, full + stage, step * kDepth, n0);
    }
  } else {
    setmaxnreg_inc<232>();
    float d[COLUMNS / 2] = {};
    for (int step = 0; step < steps; ++step) {
      const int stage = step % kStages;
#ifndef BUG_FULL
      mbarrier_wait(full + stage, step / kStages % 2);
#endif
#ifndef BUG_FENCE
      wgmma_fence();
#endif
      const unsigned long long a = wgmma_descriptor(tiles + stage * kBytes);
      const unsigned long long b = wgmma_descriptor(tiles + stage * kBytes + kBytesA);
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) wgmma_m64k16<T>(d, a + 2 * k, b + 2 * k);
#ifndef BUG_COMMIT
      wgmma_commit();
#endif
#ifdef BUG_EARLY
      if (t == 0) mbarrier_arrive(empty + stage);
      wgmma_wait<0>();
#else
#ifdef BUG_WAIT
      wgmma_wait<1>();
#else
      wgmma_wait<0>();
#endif
      if (t == 0) mbarrier_arrive(empty + stage);
#endif
    }
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; ++i) {
      const int row = m0 + wgmma_row(t, i), column = n0 + wgmma_column(t, i);
      if (row < M && column < N) c[(long long)row * N + column] = d[i];
    }
  }
}
