// square_sum:  partial[b] = the sum of x[i]^2 over block b's share of x, in float32.
// clip_factor: norm = sqrt(sum of count partials), result = (norm, min(1, max_norm / (norm + 1e-6))); one block.
// scale:       x = x * clip[1], in place.
//
// x: DTYPE in {float, half, bfloat16}, size elements, contiguous, starting on a 16-byte boundary; size >= 1, any.
// Every element of x is read once (and written once by scale), in steps of all blocks. The sums have a fixed order for a
// fixed grid, so they repeat bit for bit. A NaN norm gives a NaN factor; an infinite one gives 0, or NaN for infinite x.
// Source: Pascanu, Mikolov & Bengio 2012, arXiv 1211.5063, algorithm 1.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: DTYPE,VECTOR=float,4|half,8|bfloat16,8 -> 48 registers, 0 spills
#include "floats.cuh"

using T = DTYPE;

constexpr int kBlock = 256;

// The sum over the block's threads, for its thread 0; used once in a kernel.
__device__ inline float block_sum(float value) {
  __shared__ float of_warp[kBlock / 32];
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum<kBlock / 32>(of_warp[threadIdx.x % (kBlock / 32)]);
}

extern "C" __global__ void __launch_bounds__(kBlock) square_sum(const T* x, float* partial, long long size) {
  const long long packs = size / VECTOR, step = (long long)gridDim.x * kBlock;
  const long long thread = (long long)blockIdx.x * kBlock + threadIdx.x;
  float sum = 0.f;
  for (long long i = thread; i < packs; i += step) {
    const Floats<VECTOR> value = load_floats<VECTOR>(x + i * VECTOR);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) sum += value.at[j] * value.at[j];
  }
  const long long single = packs * VECTOR + thread;
  if (single < size) sum += load_float(x + single) * load_float(x + single);
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(kBlock) clip_factor(
    const float* partial, float* result, int count, float max_norm) {
  float sum = 0.f;
  for (int i = threadIdx.x; i < count; i += kBlock) sum += partial[i];
  const float norm = sqrtf(block_sum(sum));
  const float factor = max_norm / (norm + 1e-6f);
  if (threadIdx.x == 0) {
    result[0] = norm;
    result[1] = factor > 1.f ? 1.f : factor;  // not a minimum, which would lose a NaN
  }
}

extern "C" __global__ void __launch_bounds__(kBlock) scale(T* x, const float* clip, long long size) {
  const long long packs = size / VECTOR, step = (long long)gridDim.x * kBlock;
  const long long thread = (long long)blockIdx.x * kBlock + threadIdx.x;
  const float factor = clip[1];
  for (long long i = thread; i < packs; i += step) {
    Floats<VECTOR> value = load_floats<VECTOR>(x + i * VECTOR);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) value.at[j] *= factor;
    store_floats(x + i * VECTOR, value);
  }
  const long long single = packs * VECTOR + thread;
  if (single < size) store(x + single, load_float(x + single) * factor);
}
