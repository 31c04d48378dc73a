// softmax_forward:  y[r, :] = exp(x[r, :] - max_r) / sum_r, with max_r and sum_r of row r in float32.
// softmax_backward: dx[r, :] = y[r, :] * (dy[r, :] - sum(y[r, :] * dy[r, :])), the sum in float32.
// log_softmax_forward:  y[r, :] = x[r, :] - max_r - log(sum_r).
// log_softmax_backward: dx[r, :] = dy[r, :] - exp(y[r, :]) * sum(dy[r, :]).
//
// x, y, dy, dx: DTYPE in {float, half, bfloat16}. Four variants of each kernel, chosen by a macro:
//   REGISTERS  rows x cols, contiguous. THREADS lanes hold a row in registers: one read, one write.
//              Holds cols / VECTOR <= THREADS * PACKS; THREADS >= 2 * VECTOR where VECTOR > 1.
//   STREAMED   rows x cols, contiguous. A block of THREADS walks along its row twice (a running maximum and sum, then the
//              result), PACKS packs to a step. Any cols. CACHED=1 keeps the row's packs in dynamic shared memory, 16 bytes
//              each (backward: those of y, then those of dy), so that it is read once all the same.
//   SPLIT      rows x cols, contiguous. Each row in `parts` parts of `chunk` elements (the last may be shorter), a block of
//              THREADS each: softmax_forward_parts (for both) writes each part's maximum and sum into partial,
//              ..._backward_parts its part of the sum; ..._split, in a second launch of the same grid, puts them together.
//              parts <= THREADS >= 128. Two reads, one write.
//   STRIDED    outer x cols x inner, contiguous, softmax over the middle. WIDTH lanes beside each other in inner, DEPTH
//              threads along cols, each thread with VECTOR neighbours in inner. Any cols; two reads, one write.
// Limits: 1 <= cols <= 2^30. VECTOR > 1 (16 bytes) needs for contiguous rows that all arrays agree in their address modulo
// 16, rows may start anywhere; for STRIDED that inner is a multiple of VECTOR and addresses are multiples of 16.
// In place is allowed (y may be x, dx may be y or dy): every element is written by the thread that read it, after that.
// A row of -inf gives 0, its logarithm -inf. NaN or +inf in a row gives NaN in that whole row and in no other. Results do
// not depend on the schedule, so they repeat bit for bit. Source: Milakov & Gimelshein 2018, arXiv 1805.02867 (running maximum and sum).
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: REGISTERS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=1,1|1,2|1,4|2,4|4,4|8,4 -> 40 registers, 0 spills
// compile: REGISTERS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=32,4|128,4|128,8|512,8 -> 56 registers, 0 spills
// compile: REGISTERS DTYPE=float VECTOR=4 THREADS,PACKS=8,2|8,4|16,4|32,4|128,4|256,4|512,4 -> 64 registers, 0 spills
// compile: REGISTERS DTYPE=float VECTOR=4 THREADS,PACKS=32,8|512,8 -> 96 registers, 0 spills
// compile: REGISTERS DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=16,1|16,2|16,4|32,4|128,2|128,4|256,4|512,4 -> 104 registers, 0 spills
// compile: STREAMED DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=512,4 CACHED=0 -> 40 registers, 0 spills
// compile: STREAMED DTYPE=float VECTOR=4 THREADS,PACKS=512,4 CACHED=0|1 -> 72 registers, 0 spills
// compile: STREAMED DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=512,2 CACHED=0|1 -> 72 registers, 0 spills
// compile: SPLIT DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=256,4 -> 48 registers, 0 spills
// compile: SPLIT DTYPE=float VECTOR=4 THREADS,PACKS=256,4 -> 72 registers, 0 spills
// compile: SPLIT DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=256,2 -> 72 registers, 0 spills
// compile: STRIDED DTYPE=float|half|bfloat16 VECTOR=1 WIDTH,DEPTH,PACKS=128,1,4|32,8,4 -> 64 registers, 0 spills
// compile: STRIDED DTYPE=float VECTOR=4 WIDTH,DEPTH,PACKS=128,1,2|32,8,2 -> 72 registers, 0 spills
// compile: STRIDED DTYPE=half|bfloat16 VECTOR=8 WIDTH,DEPTH,PACKS=128,1,2|32,8,2 -> 72 registers, 0 spills
#include "cuda_compat.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header
#include "rows.cuh"

// What a row's sum is turned into: the factor of its exponentials, or what is subtracted from its logits. 0 for the only
// rows with sum 0, those of -inf. A NaN stays.
template <bool kLog>
__device__ inline float finished(float sum) {
  const float value = kLog ? logf(sum) : 1.f / sum;
  return sum == 0.f ? 0.f : value;
}

// y, of a logit below the largest.
template <bool kLog>
__device__ inline float result(float shifted, float statistic) {
  return kLog ? shifted - statistic : exponential(shifted) * statistic;
}

// dot is the sum of these over a row: of y * dy, or of dy.
template <bool kLog>
__device__ inline float term(float y, float dy) {
  return kLog ? dy : y * dy;
}

template <bool kLog>
__device__ inline float gradient(float y, float dy, float dot) {
  return kLog ? dy - exponential(y) * dot : y * (dy - dot);
}

// A running softmax: the largest logit so far, and the sum of exp(logit - largest).
struct Running {
  float largest = kLowest, sum = 0.f;

  // Take COUNT more logits: the sum so far is rescaled once for all of them. A logit of -inf adds nothing.
  template <int COUNT> __device__ void add(const float (&logits)[COUNT]) {
    const float before = largest;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) largest = fmaxf(largest, logits[i]);
    float added = 0.f;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) added += exponential(logits[i] - largest);
    sum = sum * exponential(before - largest) + added;
  }
};

#if defined(REGISTERS) || defined(STREAMED) || defined(SPLIT)

// The part of dot in these packs.
template <bool kLog>
__device__ inline float dot_packs(const Packs& y, const Packs& dy) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i)
    sum += term<kLog>(to_float(y[i / VECTOR].at[i % VECTOR]), to_float(dy[i / VECTOR].at[i % VECTOR]));
  return sum;
}

template <bool kLog>
__device__ inline void store_gradient(T* dx, const Packs& y, const Packs& dy, float dot, const Row& row, int first) {
  Values values;
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i)
    values[i] = gradient<kLog>(to_float(y[i / VECTOR].at[i % VECTOR]), to_float(dy[i / VECTOR].at[i % VECTOR]), dot);
  store_values(dx, row, first, values);
}

#endif

#ifdef REGISTERS

template <bool kLog>
__device__ inline void forward_registers(const T* x, T* y, long long rows, int cols) {
  const Row row(x, rows, cols);
  Packs packs;
  load_packs(x, row, row.lane, packs);
  float single = row.has_single() ? load_float(x + row.single_at()) : -INFINITY;

  Values v;
  to_values(packs, row, row.lane, -INFINITY, v);
  float largest = fmaxf(kLowest, single);
#pragma unroll
  for (float value : v) largest = fmaxf(largest, value);
  largest = row_max(largest);

  single -= largest;
#pragma unroll
  for (float& value : v) value -= largest;
  float sum = exponential(single);
  if (!kLog) single = sum;
#pragma unroll
  for (float& value : v) {
    const float e = exponential(value);
    sum += e;
    if (!kLog) value = e;
  }
  const float statistic = finished<kLog>(row_sum(sum));

#pragma unroll
  for (float& value : v) value = kLog ? value - statistic : value * statistic;
  store_values(y, row, row.lane, v);
  if (row.has_single()) store(y + row.single_at(), kLog ? single - statistic : single * statistic);
}

template <bool kLog>
__device__ inline void backward_registers(const T* dy, const T* y, T* dx, long long rows, int cols) {
  const Row row(y, rows, cols);
  Packs dys, ys;
  load_packs(dy, row, row.lane, dys);
  load_packs(y, row, row.lane, ys);
  const float single_dy = row.has_single() ? load_float(dy + row.single_at()) : 0.f;
  const float single_y = row.has_single() ? load_float(y + row.single_at()) : 0.f;

  const float dot = row_sum(term<kLog>(single_y, single_dy) + dot_packs<kLog>(ys, dys));
  store_gradient<kLog>(dx, ys, dys, dot, row, row.lane);
  if (row.has_single()) store(dx + row.single_at(), gradient<kLog>(single_y, single_dy, dot));
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_forward_registers(const T* x, T* y, long long rows, int cols) {
  forward_registers<false>(x, y, rows, cols);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_forward_registers(const T* x, T* y, long long rows, int cols) {
  forward_registers<true>(x, y, rows, cols);
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_backward_registers(const T* dy, const T* y, T* dx, long long rows, int cols) {
  backward_registers<false>(dy, y, dx, rows, cols);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_backward_registers(const T* dy, const T* y, T* dx, long long rows, int cols) {
  backward_registers<true>(dy, y, dx, rows, cols);
}

#endif  // REGISTERS

#if defined(STREAMED) || defined(SPLIT)

constexpr int kStep = THREADS * PACKS;  // packs that the block takes at a time

#if CACHED
// A thread reads from the cache only what it wrote itself, so nothing has to be waited for.
__device__ inline VectorPack* cache() {
  DYN_SHARED(memory);
  return reinterpret_cast<VectorPack*>(memory);
}

__device__ inline void keep_packs(const Row& row, int first, int before, const Packs& packs) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
    if (row.has(first + k * THREADS)) cache()[before + first + k * THREADS] = packs[k];
}
#endif

// The packs of x again: from the cache, where those of this array stand after `before` others, or from memory.
__device__ inline void load_again(const T* x, const Row& row, int first, int before, Packs& packs) {
#if CACHED
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
    packs[k] = row.has(first + k * THREADS) ? cache()[before + first + k * THREADS] : VectorPack{};
#else
  load_packs(x, row, first, packs);
#endif
}

// What one thread sees on its first walk along a row, or a part of one.
__device__ inline Running walk(const T* x, const Row& row, float single) {
  Packs packs;
  Values v;
  Running running;
  running.add({single});
  for (int first = row.lane; first < row.packs; first += kStep) {
    load_packs(x, row, first, packs);
#if CACHED
    keep_packs(row, first, 0, packs);
#endif
    to_values(packs, row, first, -INFINITY, v);
    running.add(v);
  }
  return running;
}

template <bool kLog>
__device__ inline void write_results(const T* x, T* y, const Row& row, float single, float largest, float statistic) {
  Packs packs;
  Values v;
  for (int first = row.lane; first < row.packs; first += kStep) {
    load_again(x, row, first, 0, packs);
    to_values(packs, row, first, 0.f, v);
#pragma unroll
    for (float& value : v) value = result<kLog>(value - largest, statistic);
    store_values(y, row, first, v);
  }
  if (row.has_single()) store(y + row.single_at(), result<kLog>(single - largest, statistic));
}

// A thread's single elements of both arrays, and its part of dot.
template <bool kLog>
struct Gradient {
  float single_dy, single_y, dot;

  __device__ Gradient(const T* dy, const T* y, const Row& row)
      : single_dy(row.has_single() ? load_float(dy + row.single_at()) : 0.f),
        single_y(row.has_single() ? load_float(y + row.single_at()) : 0.f),
        dot(term<kLog>(single_y, single_dy)) {
    Packs dys, ys;
    for (int first = row.lane; first < row.packs; first += kStep) {
      load_packs(dy, row, first, dys);
      load_packs(y, row, first, ys);
#if CACHED
      keep_packs(row, first, 0, ys);
      keep_packs(row, first, row.packs, dys);
#endif
      dot += dot_packs<kLog>(ys, dys);
    }
  }
};

template <bool kLog>
__device__ inline void write_gradient(const T* dy, const T* y, T* dx, const Row& row, float single_dy, float single_y,
                                      float dot) {
  Packs dys, ys;
  for (int first = row.lane; first < row.packs; first += kStep) {
    load_again(dy, row, first, row.packs, dys);
    load_again(y, row, first, 0, ys);
    store_gradient<kLog>(dx, ys, dys, dot, row, first);
  }
  if (row.has_single()) store(dx + row.single_at(), gradient<kLog>(single_y, single_dy, dot));
}

#endif

#ifdef STREAMED

template <bool kLog>
__device__ inline void forward_streamed(const T* x, T* y, long long rows, int cols) {
  const Row row(x, rows, cols);
  const float single = row.has_single() ? load_float(x + row.single_at()) : -INFINITY;
  const Running running = walk(x, row, single);
  const float largest = row_max(running.largest);
  const float statistic = finished<kLog>(row_sum(running.sum * exponential(running.largest - largest)));
  write_results<kLog>(x, y, row, single, largest, statistic);
}

template <bool kLog>
__device__ inline void backward_streamed(const T* dy, const T* y, T* dx, long long rows, int cols) {
  const Row row(y, rows, cols);
  const Gradient<kLog> mine(dy, y, row);
  write_gradient<kLog>(dy, y, dx, row, mine.single_dy, mine.single_y, row_sum(mine.dot));
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_forward_streamed(const T* x, T* y, long long rows, int cols) {
  forward_streamed<false>(x, y, rows, cols);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_forward_streamed(const T* x, T* y, long long rows, int cols) {
  forward_streamed<true>(x, y, rows, cols);
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_backward_streamed(const T* dy, const T* y, T* dx, long long rows, int cols) {
  backward_streamed<false>(dy, y, dx, rows, cols);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_backward_streamed(const T* dy, const T* y, T* dx, long long rows, int cols) {
  backward_streamed<true>(dy, y, dx, rows, cols);
}

#endif  // STREAMED

#ifdef SPLIT

// Every block puts all parts of its row together, one by each thread, always in the same order.
template <bool kLog>
__device__ inline void forward_split(const T* x, const float* partial, T* y, long long rows, int cols, int chunk,
                                     int parts) {
  const Row row(x, rows, cols, chunk, parts);
  const float single = row.has_single() ? load_float(x + row.single_at()) : -INFINITY;
  const float* part = partial + 2 * (row.index / parts * parts + row.lane);
  const float of_part = row.lane < parts ? part[0] : kLowest;
  const float largest = row_max(of_part);
  const float sum = row_sum(row.lane < parts ? part[1] * exponential(of_part - largest) : 0.f);
  write_results<kLog>(x, y, row, single, largest, finished<kLog>(sum));
}

template <bool kLog>
__device__ inline void backward_parts(const T* dy, const T* y, float* partial, long long rows, int cols, int chunk,
                                      int parts) {
  const Row row(y, rows, cols, chunk, parts);
  const float dot = row_sum(Gradient<kLog>(dy, y, row).dot);
  if (row.lane == 0) partial[row.index] = dot;
}

template <bool kLog>
__device__ inline void backward_split(const T* dy, const T* y, const float* partial, T* dx, long long rows, int cols,
                                      int chunk, int parts) {
  const Row row(y, rows, cols, chunk, parts);
  const float single_dy = row.has_single() ? load_float(dy + row.single_at()) : 0.f;
  const float single_y = row.has_single() ? load_float(y + row.single_at()) : 0.f;
  const float dot = row_sum(row.lane < parts ? partial[row.index / parts * parts + row.lane] : 0.f);
  write_gradient<kLog>(dy, y, dx, row, single_dy, single_y, dot);
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_forward_parts(const T* x, float* partial, long long rows, int cols, int chunk, int parts) {
  const Row row(x, rows, cols, chunk, parts);
  const Running running = walk(x, row, row.has_single() ? load_float(x + row.single_at()) : -INFINITY);
  const float largest = row_max(running.largest);
  const float sum = row_sum(running.sum * exponential(running.largest - largest));
  if (row.lane != 0) return;
  partial[2 * row.index] = largest;
  partial[2 * row.index + 1] = sum;
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_forward_split(const T* x, const float* partial, T* y, long long rows, int cols, int chunk, int parts) {
  forward_split<false>(x, partial, y, rows, cols, chunk, parts);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_forward_split(const T* x, const float* partial, T* y, long long rows, int cols, int chunk, int parts) {
  forward_split<true>(x, partial, y, rows, cols, chunk, parts);
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_backward_parts(const T* dy, const T* y, float* partial, long long rows, int cols, int chunk, int parts) {
  backward_parts<false>(dy, y, partial, rows, cols, chunk, parts);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_backward_parts(const T* dy, const T* y, float* partial, long long rows, int cols, int chunk, int parts) {
  backward_parts<true>(dy, y, partial, rows, cols, chunk, parts);
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_backward_split(const T* dy, const T* y, const float* partial, T* dx, long long rows, int cols, int chunk,
                       int parts) {
  backward_split<false>(dy, y, partial, dx, rows, cols, chunk, parts);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_backward_split(const T* dy, const T* y, const float* partial, T* dx, long long rows, int cols, int chunk,
                           int parts) {
  backward_split<true>(dy, y, partial, dx, rows, cols, chunk, parts);
}

#endif  // SPLIT

#ifdef STRIDED

constexpr int kBlock = WIDTH * DEPTH;

// Where this thread works: on VECTOR neighbouring columns, on their elements depth, depth + DEPTH, ...
struct Tile {
  long long start;          // offset of element 0 of the first column
  int lane, depth, length;  // length is 0 for threads beyond the last column, which walk along

  __device__ Tile(long long outer, int cols, long long inner) {
    lane = threadIdx.x % WIDTH;
    depth = threadIdx.x / WIDTH;
    const long long across = inner / VECTOR, index = (long long)blockIdx.x * WIDTH + lane;
    start = index / across * cols * inner + index % across * VECTOR;
    length = index < outer * across ? cols : 0;
  }
};

template <bool kLog>
__device__ inline void forward_strided(const T* x, T* y, long long outer, int cols, long long inner) {
  const Tile tile(outer, cols, inner);
  Running running[VECTOR];
  for (int first = tile.depth; first < tile.length; first += DEPTH * PACKS) {
    VectorPack pack[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const int j = first + k * DEPTH;
      if (j < tile.length) pack[k] = load_pack<VECTOR>(x + tile.start + j * inner);
    }
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      float logits[PACKS];
#pragma unroll
      for (int k = 0; k < PACKS; ++k) logits[k] = first + k * DEPTH < tile.length ? to_float(pack[k].at[i]) : -INFINITY;
      running[i].add(logits);
    }
  }

  if (DEPTH > 1) {  // each of a column's DEPTH threads has a part of it, and puts all parts together in the same order
    __shared__ float largest[DEPTH][VECTOR][WIDTH], sum[DEPTH][VECTOR][WIDTH];
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      largest[tile.depth][i][tile.lane] = running[i].largest;
      sum[tile.depth][i][tile.lane] = running[i].sum;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      Running whole;
#pragma unroll
      for (int d = 0; d < DEPTH; ++d) whole.largest = fmaxf(whole.largest, largest[d][i][tile.lane]);
#pragma unroll
      for (int d = 0; d < DEPTH; ++d)
        whole.sum += sum[d][i][tile.lane] * exponential(largest[d][i][tile.lane] - whole.largest);
      running[i] = whole;
    }
  }

#pragma unroll
  for (int i = 0; i < VECTOR; ++i) running[i].sum = finished<kLog>(running[i].sum);
#pragma unroll PACKS
  for (int j = tile.depth; j < tile.length; j += DEPTH) {
    const long long at = tile.start + j * inner;
    VectorPack pack = load_pack<VECTOR>(x + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i)
      from_float(result<kLog>(to_float(pack.at[i]) - running[i].largest, running[i].sum), pack.at[i]);
    store_pack(y + at, pack);
  }
}

template <bool kLog>
__device__ inline void backward_strided(const T* dy, const T* y, T* dx, long long outer, int cols, long long inner) {
  const Tile tile(outer, cols, inner);
  float dot[VECTOR] = {};
#pragma unroll PACKS
  for (int j = tile.depth; j < tile.length; j += DEPTH) {
    const long long at = tile.start + j * inner;
    const VectorPack g = load_pack<VECTOR>(dy + at), p = load_pack<VECTOR>(y + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) dot[i] += term<kLog>(to_float(p.at[i]), to_float(g.at[i]));
  }

  if (DEPTH > 1) {
    __shared__ float part[DEPTH][VECTOR][WIDTH];
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) part[tile.depth][i][tile.lane] = dot[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      dot[i] = 0.f;
#pragma unroll
      for (int d = 0; d < DEPTH; ++d) dot[i] += part[d][i][tile.lane];
    }
  }

#pragma unroll PACKS
  for (int j = tile.depth; j < tile.length; j += DEPTH) {
    const long long at = tile.start + j * inner;
    const VectorPack g = load_pack<VECTOR>(dy + at);
    VectorPack p = load_pack<VECTOR>(y + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) from_float(gradient<kLog>(to_float(p.at[i]), to_float(g.at[i]), dot[i]), p.at[i]);
    store_pack(dx + at, p);
  }
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_forward_strided(const T* x, T* y, long long outer, int cols, long long inner) {
  forward_strided<false>(x, y, outer, cols, inner);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_forward_strided(const T* x, T* y, long long outer, int cols, long long inner) {
  forward_strided<true>(x, y, outer, cols, inner);
}

extern "C" __global__ void __launch_bounds__(kBlock)
softmax_backward_strided(const T* dy, const T* y, T* dx, long long outer, int cols, long long inner) {
  backward_strided<false>(dy, y, dx, outer, cols, inner);
}

extern "C" __global__ void __launch_bounds__(kBlock)
log_softmax_backward_strided(const T* dy, const T* y, T* dx, long long outer, int cols, long long inner) {
  backward_strided<true>(dy, y, dx, outer, cols, inner);
}

#endif  // STRIDED
