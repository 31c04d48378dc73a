// reduce_<what>_rows, reduce_<what>_columns: the middle axis of x (outer x cols x inner) reduced to one number.
//   sum     factor * sum, each thread's chain compensated, so that the error does not grow with cols
//   max     factor * max(factor * x), factor 1 or -1: the minimum too; NaN if there is one
//   argmax  the first place of that; the first NaN if there is one
//   lse     log(sum(exp(x))) without overflow; -inf where all are, inf where one is
// x: contiguous, DTYPE in {float, half, bfloat16}; computed in float32. 1 <= cols <= 2^30.
// The axis may be cut into `parts` parts of `chunk` elements (the last may be shorter) that are reduced by blocks of their
// own: results are then outer x parts x inner. They go to y (DTYPE), to partial (float), or for argmax to places (int64)
// and partial; what is null is not written. Results do not depend on the schedule, so they repeat bit for bit.
//   ROWS     inner = 1. THREADS lanes to a row, PACKS packs of VECTOR elements a step; VECTOR > 1 as in softmax.cu.
//   COLUMNS  any inner. WIDTH lanes beside each other in inner, DEPTH threads along cols.
// Source of the compensation: Neumaier 1974, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen".
// Has not run on hardware yet.
//
// architectures: 75 80 90 120
// compile: ROWS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=32,4|512,2 -> 64 registers, 0 spills
// compile: ROWS DTYPE=float VECTOR=4 THREADS,PACKS=32,2|512,2 -> 64 registers, 0 spills
// compile: ROWS DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=32,1|512,1 -> 64 registers, 0 spills
// compile: COLUMNS DTYPE=float|half|bfloat16 VECTOR=1 WIDTH,DEPTH=32,8 -> 48 registers, 0 spills
#include "cuda_compat.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header
#include "rows.cuh"

constexpr long long kNowhere = 0x7fffffffffffffff;

// What has been seen of the numbers of one result. take: one more number, `at` its place; merge: what another thread saw.
struct Sum {
  float sum, lost;
  __device__ static Sum start(float) { return {0.f, 0.f}; }
  __device__ void take(float value, long long) {
    const float total = sum + value;
    lost += fabsf(sum) >= fabsf(value) ? (sum - total) + value : (value - total) + sum;
    sum = total;
  }
  __device__ void merge(const Sum& other) {
    take(other.sum, 0);
    lost += other.lost;
  }
  __device__ float result(float factor) const {
    return factor * (fabsf(sum) < INFINITY ? sum + lost : sum);  // of an infinite sum nothing is lost
  }
  __device__ long long place() const { return 0; }
  __device__ Sum across(int step) const {
    return {__shfl_xor_sync(0xffffffffu, sum, step), __shfl_xor_sync(0xffffffffu, lost, step)};
  }
};

struct Max {
  float best, factor;
  __device__ static Max start(float factor) { return {-INFINITY, factor}; }
  __device__ void take(float value, long long) { keep(value * factor); }
  __device__ void merge(const Max& other) { keep(other.best); }
  __device__ void keep(float value) { best = value > best || value != value ? value : best; }  // NaN stays
  __device__ float result(float) const { return best * factor; }
  __device__ long long place() const { return 0; }
  __device__ Max across(int step) const { return {__shfl_xor_sync(0xffffffffu, best, step), factor}; }
};

struct ArgMax {
  float best, factor;
  long long at;
  __device__ static ArgMax start(float factor) { return {-INFINITY, factor, kNowhere}; }
  __device__ void take(float value, long long place) { keep(value * factor, place); }
  __device__ void merge(const ArgMax& other) { keep(other.best, other.at); }
  __device__ void keep(float value, long long place) {
    const bool nan = value != value, had = best != best;
    const bool same = value == best || (nan && had);
    if (same ? place < at : had ? false : value > best || nan) {
      best = value;
      at = place;
    }
  }
  __device__ float result(float) const { return best * factor; }
  __device__ long long place() const { return at; }
  __device__ ArgMax across(int step) const {
    return {__shfl_xor_sync(0xffffffffu, best, step), factor, __shfl_xor_sync(0xffffffffu, at, step)};
  }
};

struct LogSumExp {
  float largest, sum;
  __device__ static LogSumExp start(float) { return {kLowest, 0.f}; }
  __device__ void take(float value, long long) {
    // A finite stand-in for an infinite maximum: then inf - inf is never formed.
    const float top = fmaxf(largest, fminf(value, -kLowest));
    if (top > largest) sum *= expf(largest - top);
    sum += expf(value - top);
    largest = top;
  }
  __device__ void merge(const LogSumExp& other) {
    const float top = fmaxf(largest, other.largest);
    sum = sum * expf(largest - top) + other.sum * expf(other.largest - top);
    largest = top;
  }
  __device__ float result(float) const { return largest + logf(sum); }
  __device__ long long place() const { return 0; }
  __device__ LogSumExp across(int step) const {
    return {__shfl_xor_sync(0xffffffffu, largest, step), __shfl_xor_sync(0xffffffffu, sum, step)};
  }
};

#define RESULTS T *y, float *partial, long long *places

template <class State>
__device__ inline void write(const State& state, float factor, long long at, RESULTS) {
  const float result = state.result(factor);
  if (y != nullptr) store(y + at, result);
  if (partial != nullptr) partial[at] = result;
  if (places != nullptr) places[at] = state.place();
}

#ifdef ROWS

#define ARGUMENTS const T *x, RESULTS, long long rows, int cols, int chunk, int parts, float factor
#define GIVEN x, y, partial, places, rows, cols, chunk, parts, factor

template <class State>
__device__ inline void reduce_rows(ARGUMENTS) {
  const Row row(x, rows, cols, chunk, parts);
  const long long before = row.index % parts * chunk;
  State state = State::start(factor);
  Packs packs;
  if (row.has_single()) state.take(load_float(x + row.single_at()), before + row.single);
  for (int first = row.lane; first < row.packs; first += THREADS * PACKS) {
    load_packs(x, row, first, packs);
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if (!row.has(first + k * THREADS)) continue;
#pragma unroll
      for (int i = 0; i < VECTOR; ++i)
        state.take(to_float(packs[k].at[i]), before + row.column(first + k * THREADS) + i);
    }
  }
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) state.merge(state.across(step));
  if (kWarps > 1) {
    __shared__ State of_warp[kWarps];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = state;
    __syncthreads();
    state = of_warp[0];
    for (int w = 1; w < kWarps; ++w) state.merge(of_warp[w]);
  }
  if (row.exists && row.lane == 0) write(state, factor, row.index, y, partial, places);
}

extern "C" __global__ void __launch_bounds__(kBlock) reduce_sum_rows(ARGUMENTS) { reduce_rows<Sum>(GIVEN); }
extern "C" __global__ void __launch_bounds__(kBlock) reduce_max_rows(ARGUMENTS) { reduce_rows<Max>(GIVEN); }
extern "C" __global__ void __launch_bounds__(kBlock) reduce_argmax_rows(ARGUMENTS) { reduce_rows<ArgMax>(GIVEN); }
extern "C" __global__ void __launch_bounds__(kBlock) reduce_lse_rows(ARGUMENTS) { reduce_rows<LogSumExp>(GIVEN); }

#else  // COLUMNS

constexpr int kBlock = WIDTH * DEPTH;

#define ARGUMENTS const T *x, RESULTS, long long outer, int cols, long long inner, int chunk, int parts, float factor
#define GIVEN x, y, partial, places, outer, cols, inner, chunk, parts, factor

template <class State>
__device__ inline void reduce_columns(ARGUMENTS) {
  const int lane = threadIdx.x % WIDTH, depth = threadIdx.x / WIDTH, part = blockIdx.x % parts;
  const long long column = (long long)(blockIdx.x / parts) * WIDTH + lane;  // of outer x inner
  const long long start = column / inner * cols * inner + column % inner;
  const int stop = cols - part * chunk < chunk ? cols : part * chunk + chunk;
  State state = State::start(factor);
  const int end = column < outer * inner ? stop : 0;
#pragma unroll 4
  for (int j = part * chunk + depth; j < end; j += DEPTH) state.take(load_float(x + start + j * inner), j);

  __shared__ State of_depth[DEPTH][WIDTH];
  of_depth[depth][lane] = state;
  __syncthreads();
  if (depth > 0 || column >= outer * inner) return;
  for (int d = 1; d < DEPTH; ++d) state.merge(of_depth[d][lane]);
  write(state, factor, (column / inner * parts + part) * inner + column % inner, y, partial, places);
}

extern "C" __global__ void __launch_bounds__(kBlock) reduce_sum_columns(ARGUMENTS) { reduce_columns<Sum>(GIVEN); }
extern "C" __global__ void __launch_bounds__(kBlock) reduce_max_columns(ARGUMENTS) { reduce_columns<Max>(GIVEN); }
extern "C" __global__ void __launch_bounds__(kBlock) reduce_argmax_columns(ARGUMENTS) { reduce_columns<ArgMax>(GIVEN); }
extern "C" __global__ void __launch_bounds__(kBlock) reduce_lse_columns(ARGUMENTS) { reduce_columns<LogSumExp>(GIVEN); }

#endif
