// ampere_product: c[m, n] = sum_k a[m, k] b[n, k], tiles of 64 x 64, two buffers filled by cp.async, ldmatrix, mma.
// a: M x K, b: N x K, T in {half, bfloat16}, row-major; c: M x N float32. Any M, N >= 1; K a multiple of 8. 128 threads.
// A test asset: it shows that the wrappers work together. The BUG_ macros plant what the simulator has to find.
// architectures: 80 86 89 90
// compile: T=half|bfloat16 -> 96 registers, 0 spills
#include "../../kernels/cuda_compat.cuh"

constexpr int kTile = 64, kDepth = 32, kPitch = kDepth + 8;  // 80-byte rows: eight rows of a matrix lie in all banks

// Rows first … first + 63 of x, columns k … k + 31, zeros outside of the matrix.
__device__ void load_tile(T (*tile)[kPitch], const T* x, int first, int rows, int k, int K) {
  for (int i = threadIdx.x; i < kTile * kDepth / 8; i += blockDim.x) {
    const int row = i / (kDepth / 8), column = i % (kDepth / 8) * 8;
    const bool inside = first + row < rows && k + column < K;
    cp_async16(&tile[row][column], inside ? x + (long long)(first + row) * K + k + column : x, inside ? 16 : 0);
  }
}

extern "C" __global__ void __launch_bounds__(128) ampere_product(const T* a, const T* b, float* c, int M, int N, int K) {
  __shared__ __align__(16) T tile_a[2][kTile][kPitch], tile_b[2][kTile][kPitch];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int m0 = blockIdx.y * kTile, n0 = blockIdx.x * kTile, steps = (K + kDepth - 1) / kDepth;
  float d[8][4] = {};  // the warp's 16 rows, eight columns at a time
  load_tile(tile_a[0], a, m0, M, 0, K);
  load_tile(tile_b[0], b, n0, N, 0, K);
  cp_async_commit();
  for (int step = 0; step < steps; ++step) {
    const int now = step % 2;
    if (step + 1 < steps) {
      load_tile(tile_a[1 - now], a, m0, M, (step + 1) * kDepth, K);
      load_tile(tile_b[1 - now], b, n0, N, (step + 1) * kDepth, K);
    }
#ifndef BUG_COMMIT
    cp_async_commit();  // also where there was nothing to load, so that the count below holds
#endif
#ifdef BUG_WAIT
    cp_async_wait<2>();
#else
    cp_async_wait<1>();
#endif
#ifndef BUG_FIRST_BARRIER
    __syncthreads();
#endif
    for (int k = 0; k < kDepth; k += 16) {
      unsigned fragment_a[4], fragment_b[4];
#ifdef BUG_ROW
      ldmatrix_x4(fragment_a, &tile_a[now][warp * 16 + lane % 16][k + lane / 16 * 4]);
#else
      ldmatrix_x4(fragment_a, &tile_a[now][warp * 16 + lane % 16][k + lane / 16 * 8]);
#endif
#pragma unroll
      for (int n = 0; n < 4; ++n) {  // 16 columns: two products
        ldmatrix_x4(fragment_b, &tile_b[now][n * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
        const unsigned first[2] = {fragment_b[0], fragment_b[1]}, second[2] = {fragment_b[2], fragment_b[3]};
        mma_m16n8k16<T>(d[2 * n], fragment_a, first);
        mma_m16n8k16<T>(d[2 * n + 1], fragment_a, second);
      }
    }
#ifndef BUG_SECOND_BARRIER
    __syncthreads();
#endif
  }
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = m0 + warp * 16 + lane / 4 + i / 2 * 8, column = n0 + n * 8 + lane % 4 * 2 + i % 2;
      if (row < M && column < N) c[(long long)row * N + column] = d[n][i];
    }
}
