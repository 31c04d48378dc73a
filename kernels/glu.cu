// glu_forward:  y[r, :] = a s with s = 1 / (1 + exp(-b)), where a is the first and b the second half of x[r, :].
// glu_backward: da = dy s, db = dy a s (1 - s), into the halves of dx[r, :].
//
// x, dx: rows x 2 half, y, dy: rows x half, DTYPE in {float, half, bfloat16}, contiguous; arithmetic in float32, rounded
// once. rows, half >= 1. VECTOR > 1 (16 bytes) needs addresses that are multiples of 16 and half a multiple of VECTOR.
// width threads beside each other have one row. NaN stays in its pair. Source: Dauphin et al. 2017, arXiv 1612.08083.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: DTYPE,VECTOR=float,1|float,4|half,1|half,8|bfloat16,1|bfloat16,8 -> 64 registers, 0 spills
#include "floats.cuh"

using T = DTYPE;

__device__ inline float logistic(float x) { return 1.f / (1.f + expf(-x)); }

// Which columns of which row this thread has.
struct Place {
  long long column, row;

  __device__ Place(long long half_cols, int width) {
    const long long tiles = (half_cols / VECTOR + width - 1) / width;
    column = ((long long)blockIdx.x % tiles * width + threadIdx.x % width) * VECTOR;
    row = (long long)blockIdx.x / tiles * (blockDim.x / width) + threadIdx.x / width;
  }
};

extern "C" __global__ void __launch_bounds__(256) glu_forward(
    const T* x, T* y, long long rows, long long half_cols, int width) {
  const Place place(half_cols, width);
  if (place.row >= rows || place.column >= half_cols) return;
  const T* from = x + 2 * place.row * half_cols + place.column;
  Floats<VECTOR> a = load_floats<VECTOR>(from);
  const Floats<VECTOR> b = load_floats<VECTOR>(from + half_cols);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) a.at[i] *= logistic(b.at[i]);
  store_floats(y + place.row * half_cols + place.column, a);
}

extern "C" __global__ void __launch_bounds__(256) glu_backward(
    const T* dy, const T* x, T* dx, long long rows, long long half_cols, int width) {
  const Place place(half_cols, width);
  if (place.row >= rows || place.column >= half_cols) return;
  const long long at = 2 * place.row * half_cols + place.column;
  Floats<VECTOR> a = load_floats<VECTOR>(x + at), b = load_floats<VECTOR>(x + at + half_cols);
  const Floats<VECTOR> gradient = load_floats<VECTOR>(dy + place.row * half_cols + place.column);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    const float s = logistic(b.at[i]), rest = logistic(-b.at[i]);
    b.at[i] = gradient.at[i] * (a.at[i] * s * rest);
    a.at[i] = gradient.at[i] * s;
  }
  store_floats(dx + at, a);
  store_floats(dx + at + half_cols, b);
}
