// masked_softmax_forward:  y[r, c] = keep * exp(z - max_r) / sum_r with z[r, c] = scale * x[r, c] + mask[r, c]
// masked_softmax_backward: dx[r, c] = factor * p * (g - sum_c p * g) with p = exp(z - max_r) / sum_r and g = keep * dy
// x, y, dy, dx: rows x cols, DTYPE in {float, half, bfloat16}, contiguous; sums in float32. The mask is one of
//   visible  bytes: where 0, z is -inf;    added  DTYPE: added to z;    both may be null: no mask.
// It is broadcast: row r = (i n1 + j) n2 + k has its mask at i s0 + j s1 + k s2, column c beside it at c * across (0 or 1).
// keep = kept (0 where kept is 0) where word r * cols + c of the stream is at least `threshold`, else 0; threshold 0: no
// dropout, keep is 1. The backward pass forms p anew: neither p nor the mask of dropout is ever stored.
// Variants, limits and rows of -inf as in softmax.cu: REGISTERS reads each array once, STREAMED twice; a row of which
// nothing is visible gives 0; NaN stays in its row; in place is allowed; results repeat bit for bit.
// Has not run on hardware yet.
//
// architectures: 75 80 90 120
// compile: REGISTERS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=8,4|256,4 -> 64 registers, 0 spills
// compile: REGISTERS DTYPE=float VECTOR=4 THREADS,PACKS=32,4|512,2 -> 112 registers, 0 spills
// compile: REGISTERS DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=32,2|512,1 -> 128 registers, 0 spills
// compile: STREAMED DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=512,4 -> 80 registers, 0 spills
// compile: STREAMED DTYPE=float VECTOR=4 THREADS,PACKS=512,1 -> 96 registers, 0 spills
// compile: STREAMED DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=512,1 -> 112 registers, 0 spills
#include "cuda_compat.cuh"
#include "philox.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header
#include "rows.cuh"

#ifdef STREAMED
constexpr int kStep = THREADS * PACKS;  // packs that the block takes at a time
#else
constexpr int kStep = 1 << 30;  // one step
#endif

// The mask of one row, and what dropout does to it.
struct Masked {
  const unsigned char* visible;
  const T* added;
  float scale, kept;
  unsigned threshold;
  Stream stream;
  int across;

  // N neighbouring scores, of which the first stands in `column`, become z.
  template <int N> __device__ void to_z(float* values, int column) const {
    const long long at = (long long)column * across;
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] *= scale;
    if (visible != nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] = visible[at + i * across] ? values[i] : -INFINITY;
    } else if (added != nullptr) {
#pragma unroll
      for (int i = 0; i < N; ++i) values[i] += load_float(added + at + i * across);
    }
  }

  // N neighbouring values, of which the first is element `at` of the whole array, times keep.
  template <int N> __device__ void drop(float* values, long long at) const {
    if (threshold == 0) return;
    unsigned words[N];
    stream_words(stream, at, words);
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] *= words[i] >= threshold ? kept : 0.f;
  }
};

#define ARGUMENTS                                                                                                      \
  long long rows, int cols, long long n1, long long n2, long long s0, long long s1, long long s2, int across,          \
      float scale, float factor, float kept, unsigned threshold, unsigned long long key, unsigned long long counter,   \
      int skip

__device__ inline Masked masked(const Row& row, const unsigned char* visible, const T* added, ARGUMENTS) {
  const long long at = row.index / n2 / n1 * s0 + row.index / n2 % n1 * s1 + row.index % n2 * s2;
  return {visible == nullptr ? nullptr : visible + at, added == nullptr ? nullptr : added + at,
          scale, kept, threshold, {key, counter, skip}, across};
}

#define GIVEN rows, cols, n1, n2, s0, s1, s2, across, scale, factor, kept, threshold, key, counter, skip

// z of the packs from `first` on; -inf beyond the row.
__device__ inline void to_z(const Packs& packs, const Row& row, int first, const Masked& mask, Values& z) {
  to_values(packs, row, first, -INFINITY, z);
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
    if (row.has(first + k * THREADS)) mask.to_z<VECTOR>(z + k * VECTOR, row.column(first + k * THREADS));
}

// values *= keep.
__device__ inline void drop(const Row& row, int first, const Masked& mask, Values& values) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k) mask.drop<VECTOR>(values + k * VECTOR, row.at(first + k * THREADS));
}

// z of this thread's single element; -inf where it has none.
__device__ inline float single_z(const T* x, const Row& row, const Masked& mask) {
  float z = -INFINITY;
  if (row.has_single()) {
    z = load_float(x + row.single_at());
    mask.to_z<1>(&z, row.single);
  }
  return z;
}

__device__ inline float reciprocal(float sum) { return sum == 0.f ? 0.f : 1.f / sum; }  // 0: nothing is visible

extern "C" __global__ void __launch_bounds__(kBlock)
masked_softmax_forward(const T* x, const unsigned char* visible, const T* added, T* y, ARGUMENTS) {
  const Row row(x, rows, cols);
  const Masked mask = masked(row, visible, added, GIVEN);
  const float single = single_z(x, row, mask);
  float largest = fmaxf(kLowest, single), sum = 0.f;
  Packs packs;
  Values z;
  for (int first = row.lane; first == row.lane || first < row.packs; first += kStep) {
    load_packs(x, row, first, packs);
    to_z(packs, row, first, mask, z);
    const float before = largest;
#pragma unroll
    for (float value : z) largest = fmaxf(largest, value);
    sum *= exponential(before - largest);
#pragma unroll
    for (float& value : z) sum += value = exponential(value - largest);
  }
  float single_e = exponential(single - largest);
  sum += single_e;

  const float whole = row_max(largest), shrink = exponential(largest - whole);
  const float statistic = reciprocal(row_sum(sum * shrink));
#ifdef STREAMED
  for (int first = row.lane; first < row.packs; first += kStep) {
    load_packs(x, row, first, packs);
    to_z(packs, row, first, mask, z);
#pragma unroll
    for (float& value : z) value = exponential(value - whole) * statistic;
#else
  {
    const int first = row.lane;
#pragma unroll
    for (float& value : z) value *= shrink * statistic;
#endif
    drop(row, first, mask, z);
    store_values(y, row, first, z);
  }
  single_e *= shrink * statistic;
  if (row.has_single()) {
    mask.drop<1>(&single_e, row.single_at());
    store(y + row.single_at(), single_e);
  }
}

extern "C" __global__ void __launch_bounds__(kBlock)
masked_softmax_backward(const T* dy, const T* x, const unsigned char* visible, const T* added, T* dx, ARGUMENTS) {
  const Row row(x, rows, cols);
  const Masked mask = masked(row, visible, added, GIVEN);
  const float single = single_z(x, row, mask);
  float single_g = row.has_single() ? load_float(dy + row.single_at()) : 0.f;
  if (row.has_single()) mask.drop<1>(&single_g, row.single_at());
  float largest = fmaxf(kLowest, single), sum = 0.f, dot = 0.f;
  Packs packs;
  Values z, g;
  for (int first = row.lane; first == row.lane || first < row.packs; first += kStep) {
    load_packs(x, row, first, packs);
    to_z(packs, row, first, mask, z);
    load_packs(dy, row, first, packs);
    to_values(packs, row, first, 0.f, g);
    drop(row, first, mask, g);
    const float before = largest;
#pragma unroll
    for (float value : z) largest = fmaxf(largest, value);
    sum *= exponential(before - largest);
    dot *= exponential(before - largest);
#pragma unroll
    for (int i = 0; i < PACKS * VECTOR; ++i) {
      z[i] = exponential(z[i] - largest);
      sum += z[i];
      dot += z[i] * g[i];
    }
  }
  float single_e = exponential(single - largest);
  sum += single_e;
  dot += single_e * single_g;

  const float whole = row_max(largest), shrink = exponential(largest - whole);
  const float statistic = reciprocal(row_sum<0>(sum * shrink));
  dot = row_sum<1>(dot * shrink) * statistic;
#ifdef STREAMED
  for (int first = row.lane; first < row.packs; first += kStep) {
    load_packs(x, row, first, packs);
    to_z(packs, row, first, mask, z);
    load_packs(dy, row, first, packs);
    to_values(packs, row, first, 0.f, g);
    drop(row, first, mask, g);
#pragma unroll
    for (float& value : z) value = exponential(value - whole);
#else
  {
    const int first = row.lane;
#pragma unroll
    for (float& value : z) value *= shrink;
#endif
#pragma unroll
    for (int i = 0; i < PACKS * VECTOR; ++i) z[i] = factor * (z[i] * statistic) * (g[i] - dot);
    store_values(dx, row, first, z);
  }
  single_e *= shrink;
  if (row.has_single()) store(dx + row.single_at(), factor * (single_e * statistic) * (single_g - dot));
}
