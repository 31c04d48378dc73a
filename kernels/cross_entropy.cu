// cross_entropy_rows: with q_c the target of class c in row r, lse = log(sum_c exp(x[r, c])) and p_c = exp(x[r, c] - lse)
//   losses[r] = sum_c q_c * (lse - x[r, c]) + z_loss * lse^2
//   dx[r, c]  = scale * ((sum_c q_c + 2 * z_loss * lse) * p_c - q_c), scale = dy[r * dy_step] / divisor[0]
// x, dx: rows x cols, DTYPE in {float, half, bfloat16}, contiguous. Either output may be null. The targets are
//   LABELS         labels[r] in 0 ... cols - 1: q_c = w_c where c is the label, else 0. The label `ignored` counts for
//                  nothing: loss and gradient 0. Any other is a fault: loss and gradient NaN.
//   SMOOTHED       the same with q_c = w_c * ((1 - smoothing) * (c == labels[r]) + smoothing / cols).
//   PROBABILITIES  t, of the shape and type of x: q_c = w_c * ((1 - smoothing) * t[r, c] + smoothing / cols).
// w: cols floats, or null for ones. divisor, dy: floats, or null for 1. Sums in float32. Variants, as in softmax.cu:
//   REGISTERS  THREADS lanes hold a row in registers: one read, one write. Holds cols / VECTOR <= THREADS * PACKS.
//   STREAMED   a block walks along its row, and a second time for the gradient. CACHED=1 keeps the row in shared memory,
//              16 bytes for each pack of VECTOR elements, so that it is read once all the same.
//   SPLIT      each row in `parts` parts of `chunk` elements (the last may be shorter), a block each: cross_entropy_parts
//              writes 5 floats for each part into partial, cross_entropy_split, in a second launch of the same grid, puts
//              them together and writes. parts <= THREADS >= 128. The row is read twice for a gradient.
//   COLUMNS    cross_entropy_columns: x, t and dx are outer x cols x inner, the classes in the middle; a row is one of the
//              outer x inner columns. WIDTH lanes beside each other in inner, DEPTH threads along cols; read twice.
// 1 <= cols <= 2^30. THREADS >= 2 * VECTOR where VECTOR > 1; then all rows of x, t and dx agree in their address modulo 16.
// In place is allowed (dx may be x or t). A label's loss is log1p(sum of the other exponentials / its own), exact where
// small. NaN or inf in a row stay in it. Results do not depend on the schedule. Source: Milakov & Gimelshein 2018, arXiv
// 1805.02867 (running maximum and sum); Hsu et al. 2024, arXiv 2410.10989 (gradient formed in the forward pass, in place).
//
// SMALL: what stands around it. cross_entropy_divisor: sum of the weights of the labels that count. cross_entropy_total:
// result[0] = sum(losses) / divisor[0]. cross_entropy_scale: dx *= dy[0], nothing where that is 1. One block for each of the
// first two, so that the order of additions is fixed. For log probabilities x of shape outer x cols x inner and a label for
// each of the rows = outer * inner: nll_losses: losses[r] = -w x[r, labels[r]], nll_gradient: dx = -w dy / divisor there,
// the rest of dx, which is 0 already, is left alone. Labels as above.
// Has not run on hardware yet.
//
// architectures: 75 80 90 120
// compile: REGISTERS LABELS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=8,4|128,8 -> 56 registers, 0 spills
// compile: REGISTERS LABELS DTYPE=float VECTOR=4 THREADS,PACKS=32,4|128,4|512,4 -> 96 registers, 0 spills
// compile: REGISTERS LABELS DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=32,4|128,4|512,2 -> 104 registers, 0 spills
// compile: STREAMED LABELS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=512,4 CACHED=0 -> 64 registers, 0 spills
// compile: STREAMED LABELS DTYPE=float VECTOR=4 THREADS,PACKS=512,4 CACHED=0|1 -> 96 registers, 0 spills
// compile: STREAMED LABELS DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=512,2 CACHED=0|1 -> 96 registers, 0 spills
// compile: REGISTERS SMOOTHED DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=8,4|128,8 -> 64 registers, 0 spills
// compile: STREAMED SMOOTHED DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=512,4 CACHED=0 -> 64 registers, 0 spills
// compile: STREAMED SMOOTHED DTYPE=float VECTOR=4 THREADS,PACKS=512,2 CACHED=0 -> 96 registers, 0 spills
// compile: STREAMED SMOOTHED DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=512,1 CACHED=0 -> 104 registers, 0 spills
// compile: REGISTERS PROBABILITIES DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=8,4|128,8 -> 80 registers, 0 spills
// compile: STREAMED PROBABILITIES DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=512,4 CACHED=0 -> 64 registers, 0 spills
// compile: STREAMED PROBABILITIES DTYPE=float VECTOR=4 THREADS,PACKS=512,2 CACHED=0 -> 96 registers, 0 spills
// compile: STREAMED PROBABILITIES DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=512,1 CACHED=0 -> 104 registers, 0 spills
// compile: SPLIT LABELS DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=256,4 -> 64 registers, 0 spills
// compile: SPLIT LABELS DTYPE=float VECTOR=4 THREADS,PACKS=256,4 -> 96 registers, 0 spills
// compile: SPLIT LABELS DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=256,2 -> 96 registers, 0 spills
// compile: SPLIT SMOOTHED DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=256,4 -> 64 registers, 0 spills
// compile: SPLIT SMOOTHED DTYPE=float VECTOR=4 THREADS,PACKS=256,2 -> 96 registers, 0 spills
// compile: SPLIT SMOOTHED DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=256,1 -> 104 registers, 0 spills
// compile: SPLIT PROBABILITIES DTYPE=float|half|bfloat16 VECTOR=1 THREADS,PACKS=256,4 -> 64 registers, 0 spills
// compile: SPLIT PROBABILITIES DTYPE=float VECTOR=4 THREADS,PACKS=256,2 -> 96 registers, 0 spills
// compile: SPLIT PROBABILITIES DTYPE=half|bfloat16 VECTOR=8 THREADS,PACKS=256,1 -> 104 registers, 0 spills
// compile: COLUMNS LABELS DTYPE=float|half|bfloat16 VECTOR=1 WIDTH,DEPTH,PACKS=128,1,4|32,8,4 -> 64 registers, 0 spills
// compile: COLUMNS SMOOTHED DTYPE=float|half|bfloat16 VECTOR=1 WIDTH,DEPTH,PACKS=128,1,4|32,8,4 -> 64 registers, 0 spills
// compile: COLUMNS PROBABILITIES DTYPE=float|half|bfloat16 VECTOR=1 WIDTH,DEPTH,PACKS=128,1,4|32,8,4 -> 64 registers, 0 spills
// compile: SMALL DTYPE=float|half|bfloat16 THREADS=512 -> 48 registers, 0 spills
#include "cuda_compat.cuh"
#include "fault.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header

#ifndef SMALL
#include "rows.cuh"

#ifdef PROBABILITIES
using Target = T;
#else
using Target = long long;
#endif
#ifdef LABELS
constexpr bool kForAll = false;  // only the label has a part in the target
#else
constexpr bool kForAll = true;
#endif

// The targets of one row, q_c.
struct Wanted {
  const Target* targets;
  const float* weight;
  float share;            // of every class: smoothing / cols
  float own;              // of the label, or of a probability of 1: 1 - smoothing
  long long start, step;  // of class 0 in targets, and from class to class
  int label;              // -1 where there is none: beyond the rows, ignored, probabilities
  bool ignored;

  // `reports`: this thread notes a label that is out of range.
  __device__ Wanted(const Target* targets, const float* weight, long long index, bool exists, long long start,
                    long long step, int cols, long long ignored_label, float smoothing, bool reports, long long* faults,
                    long long fault)
      : targets(targets), weight(weight), share(smoothing / cols), own(1.f - smoothing), start(start), step(step),
        label(-1), ignored(false) {
#ifndef PROBABILITIES
    if (!exists) return;
    const long long given = targets[index];
    ignored = given == ignored_label;
    const bool right = given >= 0 && given < cols;
    if (right && !ignored) label = (int)given;
    if (!right && !ignored) {
      own = __int_as_float(0x7fffffff);  // NaN
      if (reports) report_fault(faults, fault, given, cols);
    }
    own *= label >= 0 && weight != nullptr ? weight[label] : 1.f;
#endif
  }

  // q_c but for the label's own part.
  __device__ float of(int column) const {
    const float w = weight == nullptr ? 1.f : weight[column];
#ifndef PROBABILITIES
    return w * share;
#else
    return w * (own * load_float(targets + start + column * step) + share);
#endif
  }
};

// What has been seen of a row: the largest logit, the sum of exp(logit - largest) without the label's, and of the part for
// all classes sum(q * (largest - logit)) and sum(q).
struct Seen {
  float largest, rest = 0.f, far = 0.f, all = 0.f;

  // Before any other the label's logit is seen, by every thread.
  __device__ explicit Seen(float label_logit) : largest(fmaxf(kLowest, label_logit)) {}

  // Make the largest at least as large as these, and what was seen so far relative to it.
  template <int COUNT> __device__ void raise(const float (&logits)[COUNT], float single) {
    const float before = largest;
    largest = fmaxf(largest, single);
#pragma unroll
    for (int i = 0; i < COUNT; ++i) largest = fmaxf(largest, logits[i]);
    rest *= exponential(before - largest);
    far = far_from(before, largest);
  }

  // A logit that is no greater than the largest; returns its exponential, 0 for the label's.
  __device__ float take(float logit, int column, const Wanted& wanted) {
    const float e = column == wanted.label ? 0.f : exponential(logit - largest);
    rest += e;
    if (kForAll) {
      const float q = wanted.of(column);
      if (q != 0.f) far += q * (largest - logit);
      all += q;
    }
    return e;
  }

  // `far` from another largest logit.
  __device__ float far_from(float before, float now) const { return all == 0.f ? far : far + all * (now - before); }
};

// What is known of a row once all of it has been seen.
struct Outcome {
  float loss, per_exponential, at_label, scale;  // dx = per_exponential * e - scale * q, and at_label - scale * q

  __device__ Outcome(const Seen& seen, const Wanted& wanted, float label_logit, float z_loss, float scale)
      : scale(scale) {
    const float own = wanted.label < 0 ? 0.f : exponential(label_logit - seen.largest);
    const float sum = seen.rest + own, log_sum = logf(sum), lse = seen.largest + log_sum;
    const float hard = wanted.label < 0 ? 0.f : wanted.own;
    loss = kForAll ? seen.far + seen.all * log_sum : 0.f;
    if (wanted.label >= 0)
      loss += hard * (own < 1e-18f ? log_sum + (seen.largest - label_logit) : log1pf(seen.rest / own));
    const float others = (kForAll ? seen.all : 0.f) + 2.f * z_loss * lse;
    per_exponential = scale * (hard + others) / sum;
    at_label = scale * (others * own - hard * seen.rest) / sum;
    if (z_loss != 0.f) loss += z_loss * lse * lse;
    if (wanted.own != wanted.own) loss = per_exponential = at_label = wanted.own;  // a label out of range
  }

  // dx at one place. An ignored row gets 0 whatever stands in it.
  __device__ float gradient(float e, int column, const Wanted& wanted) const {
    if (wanted.ignored) return 0.f;
    const float slope = column == wanted.label ? at_label : per_exponential * e;
    return kForAll ? slope - scale * wanted.of(column) : slope;
  }
};

#define ARRAYS                                                                                                         \
  const T *x, const Target *targets, const float *weight, const float *divisor, const float *dy, float *losses, T *dx, \
      long long *faults
#define NUMBERS long long dy_step, long long ignored, float smoothing, float z_loss, long long fault

__device__ inline float scale_of(long long index, bool exists, const float* divisor, const float* dy, long long dy_step) {
  const float upstream = dy != nullptr && exists ? dy[index * dy_step] : 1.f;
  return divisor == nullptr ? upstream : upstream / divisor[0];
}

#ifdef THREADS

#ifdef REGISTERS
constexpr int kStep = 1 << 30;  // one step
#else
constexpr int kStep = THREADS * PACKS;  // packs that the block takes at a time
#endif

#if defined(STREAMED) && CACHED
__device__ inline VectorPack* cache() {  // each thread reads what it wrote itself
  DYN_SHARED(memory);
  return reinterpret_cast<VectorPack*>(memory);
}
#endif

// What the THREADS threads of a row have seen, put together.
__device__ inline Seen row_total(const Seen& seen) {
  Seen total(row_max(seen.largest));
  total.rest = row_sum<0>(seen.rest * exponential(seen.largest - total.largest));
  if (kForAll) {
    total.far = row_sum<1>(seen.far_from(seen.largest, total.largest));
    total.all = row_sum<2>(seen.all);
  }
  return total;
}

// A thread's walk along a row, or along a part that begins at column `before`; v are the exponentials of its last step,
// and what is returned is that of its single element.
__device__ inline float walk(const T* x, const Row& row, int before, float single, const Wanted& wanted, Seen& seen,
                             Values& v) {
  Packs packs;
  for (int first = row.lane; first == row.lane || first < row.packs; first += kStep) {
    load_packs(x, row, first, packs);
    to_values(packs, row, first, -INFINITY, v);
    seen.raise(v, single);
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if (!row.has(first + k * THREADS)) continue;
#if defined(STREAMED) && CACHED
      cache()[first + k * THREADS] = packs[k];
#endif
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        float& value = v[k * VECTOR + i];
        value = seen.take(value, before + row.column(first + k * THREADS) + i, wanted);
      }
    }
  }
  return row.has_single() ? seen.take(single, before + row.single, wanted) : 0.f;
}

// dx of one step, whose exponentials are in v.
__device__ inline void store_step(T* dx, const Row& row, int before, int first, Values& v, const Outcome& outcome,
                                  const Wanted& wanted) {
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i) {
    const int pack = first + i / VECTOR * THREADS;
    if (row.has(pack)) v[i] = outcome.gradient(v[i], before + row.column(pack) + i % VECTOR, wanted);
  }
  store_values(dx, row, first, v);
}

#ifndef REGISTERS

// The second walk: dx.
__device__ inline void write_gradient(const T* x, T* dx, const Row& row, int before, float single, float largest,
                                      const Outcome& outcome, const Wanted& wanted) {
  Packs packs;
  Values v;
  for (int first = row.lane; first < row.packs; first += kStep) {
#if defined(STREAMED) && CACHED
#pragma unroll
    for (int k = 0; k < PACKS; ++k)
      if (row.has(first + k * THREADS)) packs[k] = cache()[first + k * THREADS];
#else
    load_packs(x, row, first, packs);
#endif
    to_values(packs, row, first, 0.f, v);
#pragma unroll
    for (float& value : v) value = exponential(value - largest);
    store_step(dx, row, before, first, v, outcome, wanted);
  }
  if (!row.has_single()) return;
  store(dx + row.single_at(), outcome.gradient(exponential(single - largest), before + row.single, wanted));
}

#endif

#ifndef SPLIT

extern "C" __global__ void __launch_bounds__(kBlock, 1) cross_entropy_rows(ARRAYS, long long rows, int cols, NUMBERS) {
  const Row row(x, rows, cols);
  const Wanted wanted(targets, weight, row.index, row.exists, row.start, 1, cols, ignored, smoothing, row.lane == 0, faults,
                      fault);
  const float label_logit = wanted.label < 0 ? -INFINITY : load_float(x + row.start + wanted.label);
  float single = row.has_single() ? load_float(x + row.single_at()) : -INFINITY;
  Seen seen(label_logit);
  Values v;
  float single_e = walk(x, row, 0, single, wanted, seen, v);
  const Seen total = row_total(seen);
  const float scale = scale_of(row.index, row.exists, divisor, dy, dy_step);
  const Outcome outcome(total, wanted, label_logit, z_loss, scale);
  if (losses != nullptr && row.exists && row.lane == 0) losses[row.index] = wanted.ignored ? 0.f : outcome.loss;
  if (dx == nullptr) return;
  if (kWarps == 1) __syncwarp();  // where dx is x all lanes have read the label's logit (else a row sum has waited)

#ifdef STREAMED
  write_gradient(x, dx, row, 0, single, total.largest, outcome, wanted);
#else
  const float factor = exponential(seen.largest - total.largest);
  single_e *= factor;
#pragma unroll
  for (float& value : v) value *= factor;
  store_step(dx, row, 0, row.lane, v, outcome, wanted);
  if (row.has_single()) store(dx + row.single_at(), outcome.gradient(single_e, row.single, wanted));
#endif
}

#else  // SPLIT

constexpr int kNumbers = 5;  // that are known of a part: what has been seen of it, and the logit of the row's label

extern "C" __global__ void __launch_bounds__(kBlock, 1)
cross_entropy_parts(const T* x, const Target* targets, const float* weight, float* partial, long long rows, int cols,
                    int chunk, int parts, long long ignored, float smoothing) {
  const Row row(x, rows, cols, chunk, parts);
  const long long index = row.index / parts;
  const int before = (int)(row.index % parts) * chunk;
  const Wanted wanted(targets, weight, index, row.exists, index * cols, 1, cols, ignored, smoothing, false, nullptr, 0);
  const float label_logit = wanted.label < 0 ? -INFINITY : load_float(x + index * cols + wanted.label);
  Seen seen(label_logit);
  Values v;
  walk(x, row, before, row.has_single() ? load_float(x + row.single_at()) : -INFINITY, wanted, seen, v);
  const Seen total = row_total(seen);
  if (row.lane != 0) return;
  float* part = partial + kNumbers * row.index;
  part[0] = total.largest;
  part[1] = total.rest;
  part[2] = total.far;
  part[3] = total.all;
  part[4] = label_logit;
}

// Every block puts all parts of its row together, one by each thread, always in the same order. Where dx is x, the label's
// logit may be gone by then: cross_entropy_parts has kept it.
extern "C" __global__ void __launch_bounds__(kBlock, 1)
cross_entropy_split(ARRAYS, const float* partial, long long rows, int cols, int chunk, int parts, NUMBERS) {
  const Row row(x, rows, cols, chunk, parts);
  const long long index = row.index / parts;
  const int before = (int)(row.index % parts) * chunk;
  if (dx == nullptr && before > 0) return;
  const Wanted wanted(targets, weight, index, row.exists, index * cols, 1, cols, ignored, smoothing,
                      before == 0 && row.lane == 0, faults, fault);
  const float single = row.has_single() ? load_float(x + row.single_at()) : -INFINITY;
  const float* part = partial + kNumbers * (index * parts + row.lane);
  const float label_logit = partial[kNumbers * index * parts + 4];
  Seen seen(label_logit);
  if (row.lane < parts) {
    seen.largest = part[0];
    seen.rest = part[1];
    seen.far = part[2];
    seen.all = part[3];
  }
  const Seen total = row_total(seen);
  const Outcome outcome(total, wanted, label_logit, z_loss, scale_of(index, row.exists, divisor, dy, dy_step));
  if (losses != nullptr && before == 0 && row.lane == 0) losses[index] = wanted.ignored ? 0.f : outcome.loss;
  if (dx != nullptr) write_gradient(x, dx, row, before, single, total.largest, outcome, wanted);
}

#endif

#else  // COLUMNS

constexpr int kBlock = WIDTH * DEPTH;

extern "C" __global__ void __launch_bounds__(kBlock)
cross_entropy_columns(ARRAYS, long long outer, int cols, long long inner, NUMBERS) {
  const int lane = threadIdx.x % WIDTH, depth = threadIdx.x / WIDTH;
  const long long index = (long long)blockIdx.x * WIDTH + lane;  // of outer x inner
  const bool exists = index < outer * inner;
  const long long start = index / inner * cols * inner + index % inner;
  const int length = exists ? cols : 0;
  const Wanted wanted(targets, weight, index, exists, start, inner, cols, ignored, smoothing, depth == 0, faults, fault);
  const float label_logit = wanted.label < 0 ? -INFINITY : load_float(x + start + wanted.label * inner);
  Seen seen(label_logit);
  for (int first = depth; first < length; first += DEPTH * PACKS) {
    float v[PACKS];
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      const int j = first + k * DEPTH;
      v[k] = j < length ? load_float(x + start + j * inner) : -INFINITY;
    }
    seen.raise(v, -INFINITY);
#pragma unroll
    for (int k = 0; k < PACKS; ++k)
      if (first + k * DEPTH < length) seen.take(v[k], first + k * DEPTH, wanted);
  }

  if (DEPTH > 1) {  // each of a column's DEPTH threads has a part of it, and puts all parts together in the same order
    __shared__ float part[kForAll ? 4 : 2][DEPTH][WIDTH];
    part[0][depth][lane] = seen.largest;
    part[1][depth][lane] = seen.rest;
    if (kForAll) {
      part[kForAll ? 2 : 0][depth][lane] = seen.far;
      part[kForAll ? 3 : 0][depth][lane] = seen.all;
    }
    __syncthreads();
    Seen total(label_logit);
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) total.largest = fmaxf(total.largest, part[0][d][lane]);
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) {
      seen.largest = part[0][d][lane];
      total.rest += part[1][d][lane] * exponential(seen.largest - total.largest);
      if (kForAll) {
        seen.far = part[kForAll ? 2 : 0][d][lane];
        seen.all = part[kForAll ? 3 : 0][d][lane];
        total.far += seen.far_from(seen.largest, total.largest);
        total.all += seen.all;
      }
    }
    seen = total;
  }

  const Outcome outcome(seen, wanted, label_logit, z_loss, scale_of(index, exists, divisor, dy, dy_step));
  if (losses != nullptr && exists && depth == 0) losses[index] = wanted.ignored ? 0.f : outcome.loss;
  if (dx == nullptr) return;
#pragma unroll PACKS
  for (int j = depth; j < length; j += DEPTH) {
    const long long at = start + j * inner;
    store(dx + at, outcome.gradient(exponential(load_float(x + at) - seen.largest), j, wanted));
  }
}

#endif  // THREADS

#else  // SMALL

// The sum over the block's THREADS threads; thread 0 gets it.
__device__ inline float block_sum(float value) {
  __shared__ float of_warp[32];
  value = warp_sum(value);
  if (threadIdx.x < 32) of_warp[threadIdx.x] = 0.f;
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_sum(of_warp[threadIdx.x % 32]);
}

extern "C" __global__ void __launch_bounds__(THREADS)
cross_entropy_divisor(const long long* labels, const float* weight, float* divisor, long long rows, int cols,
                      long long ignored) {
  float sum = 0.f;
  for (long long row = threadIdx.x; row < rows; row += THREADS) {
    const long long label = labels[row];
    if (label != ignored && label >= 0 && label < cols) sum += weight == nullptr ? 1.f : weight[label];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) divisor[0] = sum;
}

// Where the label of row r stands in outer x cols x inner.
__device__ inline long long place_of(long long row, int cols, long long inner, long long label) {
  return row / inner * cols * inner + label * inner + row % inner;
}

extern "C" __global__ void __launch_bounds__(THREADS)
nll_losses(const T* x, const long long* labels, const float* weight, float* losses, long long* faults, long long rows,
           int cols, long long inner, long long ignored, long long fault) {
  const long long row = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows) return;
  const long long label = labels[row];
  float loss = 0.f;
  if (label >= 0 && label < cols && label != ignored) {
    const float w = weight == nullptr ? 1.f : weight[label];
    if (w != 0.f) loss = -w * load_float(x + place_of(row, cols, inner, label));
  } else if (label != ignored) {
    report_fault(faults, fault, label, cols);
    loss = __int_as_float(0x7fffffff);  // NaN
  }
  losses[row] = loss;
}

extern "C" __global__ void __launch_bounds__(THREADS)
nll_gradient(T* dx, const long long* labels, const float* weight, const float* divisor, const float* dy, long long rows,
             int cols, long long inner, long long dy_step, long long ignored) {
  const long long row = (long long)blockIdx.x * THREADS + threadIdx.x;
  if (row >= rows) return;
  const long long label = labels[row];
  if (label < 0 || label >= cols || label == ignored) return;
  const float w = weight == nullptr ? 1.f : weight[label];
  const float slope = divisor == nullptr ? dy[row * dy_step] : dy[row * dy_step] / divisor[0];
  store(dx + place_of(row, cols, inner, label), -w * slope);
}

extern "C" __global__ void __launch_bounds__(THREADS)
cross_entropy_total(const float* losses, const float* divisor, T* result, long long rows) {
  float sum = 0.f;
  for (long long row = threadIdx.x; row < rows; row += THREADS) sum += losses[row];
  sum = block_sum(sum);
  if (threadIdx.x == 0) store(result, divisor == nullptr ? sum : sum / divisor[0]);
}

extern "C" __global__ void __launch_bounds__(THREADS)
cross_entropy_scale(T* dx, const float* dy, long long count) {
  const float factor = dy[0];
  if (factor == 1.f) return;
  constexpr int kVector = 16 / sizeof(T);
  const long long first = ((long long)blockIdx.x * THREADS + threadIdx.x) * kVector;
  if (first + kVector <= count) {
    Pack<T, kVector> pack = load_pack<kVector>(dx + first);
#pragma unroll
    for (int i = 0; i < kVector; ++i) from_float(to_float(pack.at[i]) * factor, pack.at[i]);
    store_pack(dx + first, pack);
    return;
  }
  for (long long i = first; i < count; ++i) store(dx + i, load_float(dx + i) * factor);
}

#endif
