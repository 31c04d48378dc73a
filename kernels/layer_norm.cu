// norm_forward_*:  y = (z - mean) * rstd * weight + bias for each row of z, rstd = 1 / sqrt(mean((z - mean)^2) + eps);
//                  where mean is null, there is none: RMS norm.
// norm_backward_*: dz = rstd * (g - mean(g) - n * mean(g * n)), n = (z - mean) * rstd, g = dy * weight (where mean is
//                  null without mean(g)); and the sums over rows of dy * n and of dy, which norm_backward_columns adds up.
// z = x, or with FUSED=1 z = residual + keep * scale * x, rounded to DTYPE and written to `sum`; element i is kept where
// word i of the Philox stream is at least `threshold` (0: nothing is dropped, nothing drawn). Then dresidual = dz + dsum
// and dx = keep * scale * dresidual.
//
// x, residual, sum, y, dy, dsum, dx, dresidual: rows x cols, contiguous, DTYPE in {float, half, bfloat16}. weight, bias: cols,
// DTYPE. mean, rstd: rows, float. residual, weight, bias, dsum, dx, dresidual, dweight and dbias may be null. Where
// `groups` is not 0 (forward only), weight and bias belong to channels of `values` neighbouring columns: row r begins at
// channel r % groups * per_group; magic and shift divide by `values`.
//   FORWARD_REGISTERS   THREADS lanes hold a row in registers: one read, one write. cols / VECTOR <= THREADS * PACKS.
//   FORWARD_SHARED      a block holds a row in dynamic shared memory, cols * sizeof(DTYPE) bytes: one read, one write.
//   FORWARD_SPLIT       several blocks to a row, `span` columns each (span / VECTOR <= THREADS * PACKS): _pieces gives each
//                       piece's statistics, _apply puts them together and reads the piece again.
//   BACKWARD_REGISTERS  each block walks every gridDim-th group of rows, its columns' sums in registers. One read of both.
//   BACKWARD_SPLIT      the same for rows in pieces, whose sums _pieces has made before: two reads.
//   COLUMNS             norm_backward_columns: WIDTH columns x DEPTH threads add up what `blocks` blocks have left.
// Statistics are float32, two passes over what is held: the mean, then centred values with the rounding error of the mean
// taken out again. Source: Chan, Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.7.
// Limits: 1 <= cols <= 2^30. VECTOR > 1 needs cols, span and values that are multiples of VECTOR, and addresses
// that are multiples of 16. A NaN stays in its row. y may be x or sum, dx may be dy. No atomics: results repeat bit for bit.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: FORWARD_REGISTERS DTYPE,VECTOR,THREADS,PACKS=float,4,8,2|float,4,32,4|float,4,128,4|float,4,512,4|float,4,512,8|half,8,8,1|half,8,32,2|half,8,128,2|half,8,512,2|half,8,512,4|bfloat16,8,8,1|bfloat16,8,32,2|bfloat16,8,128,2|bfloat16,8,512,2|bfloat16,8,512,4|float,1,1,4|float,1,8,4|float,1,32,8|float,1,256,8|float,1,1024,4|half,1,1,4|half,1,8,4|half,1,32,8|half,1,256,8|half,1,1024,4|bfloat16,1,1,4|bfloat16,1,8,4|bfloat16,1,32,8|bfloat16,1,256,8|bfloat16,1,1024,4 FUSED=0|1 -> 112 registers, 0 spills
// compile: FORWARD_SHARED DTYPE,VECTOR,THREADS,PACKS=float,4,512,2|half,8,512,2|bfloat16,8,512,2|float,1,512,4|half,1,512,4|bfloat16,1,512,4 FUSED=0|1 -> 96 registers, 0 spills
// compile: FORWARD_SPLIT DTYPE,VECTOR,THREADS,PACKS=float,4,512,2|half,8,512,1|bfloat16,8,512,1|float,1,512,4|half,1,512,4|bfloat16,1,512,4 FUSED=0|1 -> 96 registers, 0 spills
// compile: BACKWARD_REGISTERS DTYPE,VECTOR,THREADS,PACKS=float,4,8,2|float,4,32,4|float,4,128,4|float,4,512,4|half,8,8,1|half,8,32,2|half,8,128,2|half,8,512,2|bfloat16,8,8,1|bfloat16,8,32,2|bfloat16,8,128,2|bfloat16,8,512,2|float,1,1,4|float,1,8,4|float,1,32,8|float,1,256,8|float,1,1024,4|half,1,1,4|half,1,8,4|half,1,32,8|half,1,256,8|half,1,1024,4|bfloat16,1,1,4|bfloat16,1,8,4|bfloat16,1,32,8|bfloat16,1,256,8|bfloat16,1,1024,4 FUSED=0|1 -> 128 registers, 0 spills
// compile: BACKWARD_SPLIT DTYPE,VECTOR,THREADS,PACKS=float,4,512,2|half,8,512,1|bfloat16,8,512,1|float,1,256,8|half,1,256,8|bfloat16,1,256,8 FUSED=0|1 -> 112 registers, 0 spills
// compile: COLUMNS DTYPE=float|half|bfloat16 WIDTH,DEPTH=32,16 -> 72 registers, 0 spills
#include "cuda_compat.cuh"
#include "philox.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header

#ifndef COLUMNS

using VectorPack = Pack<T, VECTOR>;

constexpr int kBlock = THREADS < 128 ? 128 : THREADS;  // a block has one row, or several where a warp or less has one
constexpr int kRows = kBlock / THREADS;
constexpr int kWarps = THREADS > 32 ? THREADS / 32 : 1;
constexpr int kLanes = THREADS > 32 ? 32 : THREADS;

// The columns first, first + 1, … first + length of a row, cut into packs of which this thread has every THREADS-th.
struct Span {
  long long row, start;    // the row, and the offset of its first element
  int first, lane, packs;  // packs is 0 for threads beyond the last row, which walk along

  __device__ Span(long long row, long long rows, int cols, int first, int length) : row(row), start(row * cols), first(first) {
    lane = threadIdx.x % THREADS;
    packs = row < rows ? length / VECTOR : 0;
  }

  __device__ bool has(int pack) const { return pack < packs; }
  __device__ int column(int pack) const { return first + pack * VECTOR; }
  __device__ long long at(int pack) const { return start + column(pack); }
};

// Sums over the THREADS lanes of a row; all of them get the results. Nothing waits before `of_warp` is written: a second
// call with the same N needs a barrier before it.
template <int N> __device__ inline void row_sums(float (&values)[N]) {
#pragma unroll
  for (float& value : values) value = warp_sum<kLanes>(value);
  if (kWarps > 1) {
    __shared__ float of_warp[N][kWarps];
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (threadIdx.x % 32 == 0) of_warp[i][threadIdx.x / 32] = values[i];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = warp_sum<kWarps>(of_warp[i][threadIdx.x % kWarps]);
  }
}

__device__ inline void load_floats(const T* from, float (&values)[VECTOR]) {
  const VectorPack pack = load_pack<VECTOR>(from);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) values[i] = to_float(pack.at[i]);
}

__device__ inline void store_floats(T* to, const float (&values)[VECTOR]) {
  VectorPack pack;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) from_float(values[i], pack.at[i]);
  store_pack(to, pack);
}

// What is dropped in front of the norm: nothing where the threshold is 0.
struct Dropout {
  Stream stream;
  unsigned long long threshold;
  float scale;

  // keep * scale * values, for the elements at, at + 1, …
  __device__ void apply(long long at, float (&values)[VECTOR]) const {
    if (threshold == 0) return;
    unsigned words[VECTOR];
    stream_words(stream, at, words);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) values[i] = words[i] >= threshold ? values[i] * scale : 0.f;
  }
};

#endif

#if defined(FORWARD_REGISTERS) || defined(FORWARD_SHARED) || defined(FORWARD_SPLIT)

// Where z comes from.
struct Input {
  const T* x;
  const T* residual;
  T* sum;
  Dropout dropout;

  // z of the elements at, at + 1, …; written to `sum` where it is not x itself.
  __device__ void load(long long at, float (&z)[VECTOR]) const {
    load_floats(x + at, z);
    if (!FUSED) return;
    dropout.apply(at, z);
    if (residual != nullptr) {
      float other[VECTOR];
      load_floats(residual + at, other);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) z[i] += other[i];
    }
    VectorPack rounded;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      from_float(z[i], rounded.at[i]);
      z[i] = to_float(rounded.at[i]);
    }
    store_pack(sum + at, rounded);
  }
};

// The weight and bias of a column, or of its channel.
struct Affine {
  const T* weight;
  const T* bias;
  int groups, per_group;
  unsigned magic;  // column / values by a product; see divisor in _norm_cuda.py
  int shift;

  __device__ void apply(long long row, int column, float (&y)[VECTOR]) const {
    const bool by_channel = groups != 0;
    if (by_channel) column = (int)(row % groups) * per_group + (int)((__umulhi(column, magic) + column) >> shift);
    float values[VECTOR];
    if (weight != nullptr) {
      load(weight, column, by_channel, values);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) y[i] *= values[i];
    }
    if (bias != nullptr) {
      load(bias, column, by_channel, values);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) y[i] += values[i];
    }
  }

  __device__ static void load(const T* from, int at, bool one, float (&values)[VECTOR]) {
    if (!one) return load_floats(from + at, values);
    const float value = load_float(from + at);
#pragma unroll
    for (float& each : values) each = value;
  }
};

// The mean of a row as `about + shift`, and the sum of the squares of what is centred.
struct Moments {
  float about, shift, square;
};

// From the sums of z - about and of its square over `count` values.
__device__ inline Moments moments(float about, const float (&sums)[2], int count) {
  const float shift = sums[0] / count;
  return {about, shift, sums[1] - shift * sums[0]};
}

__device__ inline float reciprocal_root(float square, int cols, float eps) { return 1.f / sqrtf(square / cols + eps); }

// y of one pack, from its z.
__device__ inline void store_normalised(T* y, const Affine& affine, const Span& span, int pack, float (&z)[VECTOR],
                                        const Moments& row, float rstd) {
#pragma unroll
  for (float& value : z) value = (value - row.about - row.shift) * rstd;
  affine.apply(span.row, span.column(pack), z);
  store_floats(y + span.at(pack), z);
}

__device__ inline void store_statistics(float* mean, float* rstd, long long row, const Moments& moments, float r) {
  if (mean != nullptr) mean[row] = moments.about + moments.shift;
  rstd[row] = r;
}

#endif

#if defined(FORWARD_REGISTERS) || defined(FORWARD_SPLIT)

using Values = float[PACKS][VECTOR];

__device__ inline void load_values(const Input& input, const Span& span, Values& z) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
    if (span.has(span.lane + k * THREADS)) input.load(span.at(span.lane + k * THREADS), z[k]);
}

// The moments of the `count` values that the row's lanes hold.
__device__ inline Moments moments_of(const Values& z, const Span& span, int count, bool centred) {
  float total[1] = {0.f}, sums[2] = {0.f, 0.f};
  if (centred) {
#pragma unroll
    for (int i = 0; i < PACKS * VECTOR; ++i)
      if (span.has(span.lane + i / VECTOR * THREADS)) total[0] += z[i / VECTOR][i % VECTOR];
    row_sums(total);
  }
  const float about = total[0] / count;
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i) {
    if (!span.has(span.lane + i / VECTOR * THREADS)) continue;
    const float away = z[i / VECTOR][i % VECTOR] - about;
    if (centred) sums[0] += away;
    sums[1] += away * away;
  }
  row_sums(sums);
  return moments(about, sums, count);
}

#endif

#ifdef FORWARD_REGISTERS

extern "C" __global__ void __launch_bounds__(kBlock)
norm_forward_registers(const T* x, const T* residual, const T* weight, const T* bias, T* sum, T* y, float* mean, float* rstd,
                       long long rows, int cols, float eps, unsigned long long key, unsigned long long counter, int skip,
                       unsigned long long threshold, float scale, int groups, int per_group, unsigned magic, int shift) {
  const Input input{x, residual, sum, {{key, counter, skip}, threshold, scale}};
  const Affine affine{weight, bias, groups, per_group, magic, shift};
  const Span span((long long)blockIdx.x * kRows + threadIdx.x / THREADS, rows, cols, 0, cols);
  Values z;
  load_values(input, span, z);
  const Moments row = moments_of(z, span, cols, mean != nullptr);
  const float r = reciprocal_root(row.square, cols, eps);
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
    if (span.has(span.lane + k * THREADS)) store_normalised(y, affine, span, span.lane + k * THREADS, z[k], row, r);
  if (span.has(0) && span.lane == 0) store_statistics(mean, rstd, span.row, row, r);
}

#endif

#ifdef FORWARD_SHARED

extern "C" __global__ void __launch_bounds__(kBlock)
norm_forward_shared(const T* x, const T* residual, const T* weight, const T* bias, T* sum, T* y, float* mean, float* rstd,
                    long long rows, int cols, float eps, unsigned long long key, unsigned long long counter, int skip,
                    unsigned long long threshold, float scale, int groups, int per_group, unsigned magic, int shift) {
  DYN_SHARED(memory);  // the row; each thread reads what it has written itself
  T* const held = reinterpret_cast<T*>(memory);
  const bool centred = mean != nullptr;
  const Input input{x, residual, sum, {{key, counter, skip}, threshold, scale}};
  const Affine affine{weight, bias, groups, per_group, magic, shift};
  const Span span(blockIdx.x, rows, cols, 0, cols);
  float total[1] = {0.f}, sums[2] = {0.f, 0.f};
#pragma unroll PACKS
  for (int pack = span.lane; pack < span.packs; pack += THREADS) {
    float z[VECTOR];
    input.load(span.at(pack), z);
    VectorPack kept;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      from_float(z[i], kept.at[i]);
      total[0] += z[i];
    }
    *reinterpret_cast<VectorPack*>(held + span.column(pack)) = kept;
  }
  if (centred) row_sums(total);
  const float about = centred ? total[0] / cols : 0.f;
#pragma unroll PACKS
  for (int pack = span.lane; pack < span.packs; pack += THREADS) {
    float z[VECTOR];
    load_floats(held + span.column(pack), z);
#pragma unroll
    for (float value : z) {
      if (centred) sums[0] += value - about;
      sums[1] += (value - about) * (value - about);
    }
  }
  row_sums(sums);
  const Moments row = moments(about, sums, cols);
  const float r = reciprocal_root(row.square, cols, eps);
#pragma unroll PACKS
  for (int pack = span.lane; pack < span.packs; pack += THREADS) {
    float z[VECTOR];
    load_floats(held + span.column(pack), z);
    store_normalised(y, affine, span, pack, z, row, r);
  }
  if (span.lane == 0) store_statistics(mean, rstd, span.row, row, r);
}

#endif

#if defined(FORWARD_SPLIT) || defined(BACKWARD_SPLIT)

// The piece of a row that block `block` has, where a row has `pieces` of `width` columns; the last may be shorter.
__device__ inline Span piece_of(long long block, long long rows, int cols, int pieces, int width) {
  const int first = (int)(block % pieces) * width;
  return Span(block / pieces, rows, cols, first, min(width, cols - first));
}

#endif

#ifdef FORWARD_SPLIT

// parts: three floats for each piece, its mean as a sum of two and its sum of squares.
extern "C" __global__ void __launch_bounds__(kBlock)
norm_forward_pieces(const T* x, const T* residual, T* sum, float* parts, long long rows, int cols, int pieces, int width,
                    int centred, unsigned long long key, unsigned long long counter, int skip, unsigned long long threshold, float scale) {
  const Input input{x, residual, sum, {{key, counter, skip}, threshold, scale}};
  const Span span = piece_of(blockIdx.x, rows, cols, pieces, width);
  Values z;
  load_values(input, span, z);
  const Moments piece = moments_of(z, span, span.packs * VECTOR, centred != 0);
  if (threadIdx.x == 0) {
    parts[3ll * blockIdx.x] = piece.about;
    parts[3ll * blockIdx.x + 1] = piece.shift;
    parts[3ll * blockIdx.x + 2] = piece.square;
  }
}

// The moments of a row from those of its pieces, about the mean of the first: each warp puts them together alike.
__device__ inline Moments combined(const float* parts, int cols, int pieces, int width, bool centred) {
  const float about = centred ? parts[0] : 0.f;
  float sums[2] = {0.f, 0.f};
  for (int p = threadIdx.x % 32; p < pieces; p += 32) {
    const float count = min(width, cols - p * width);
    const float away = centred ? parts[3 * p] - about + parts[3 * p + 1] : 0.f;
    sums[0] += count * away;
    sums[1] += parts[3 * p + 2] + count * away * away;
  }
#pragma unroll
  for (float& sum : sums) sum = warp_sum(sum);
  return moments(about, sums, cols);
}

// z: what was normalised, x or sum.
extern "C" __global__ void __launch_bounds__(kBlock)
norm_forward_apply(const T* z, const T* weight, const T* bias, const float* parts, T* y, float* mean, float* rstd,
                   long long rows, int cols, int pieces, int width, float eps, int groups, int per_group, unsigned magic, int shift) {
  const Affine affine{weight, bias, groups, per_group, magic, shift};
  const Span span = piece_of(blockIdx.x, rows, cols, pieces, width);
  const Moments row = combined(parts + 3 * span.row * pieces, cols, pieces, width, mean != nullptr);
  const float r = reciprocal_root(row.square, cols, eps);
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int pack = span.lane + k * THREADS;
    if (!span.has(pack)) continue;
    float values[VECTOR];
    load_floats(z + span.at(pack), values);
    store_normalised(y, affine, span, pack, values, row, r);
  }
  if (span.first == 0 && threadIdx.x == 0) store_statistics(mean, rstd, span.row, row, r);
}

#endif

#if defined(BACKWARD_REGISTERS) || defined(BACKWARD_SPLIT)

using Values = float[PACKS][VECTOR];

// g = dy * weight and n = (z - mean) * rstd; what lies beyond the row is left 0.
__device__ inline void load_factors(const T* dy, const T* z, const T* weight, const Span& span, float mean, float rstd,
                                    Values& dys, Values& g, Values& n) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    const int pack = span.lane + k * THREADS;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) dys[k][i] = g[k][i] = n[k][i] = 0.f;
    if (!span.has(pack)) continue;
    float weights[VECTOR];
    load_floats(dy + span.at(pack), dys[k]);
    load_floats(z + span.at(pack), n[k]);
    if (weight != nullptr) load_floats(weight + span.column(pack), weights);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      n[k][i] = (n[k][i] - mean) * rstd;
      g[k][i] = weight != nullptr ? dys[k][i] * weights[i] : dys[k][i];
    }
  }
}

// The thread's part of sum(g) and sum(g * n).
__device__ inline void add_up(const Values& g, const Values& n, bool centred, float (&sums)[2]) {
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i) {
    if (centred) sums[0] += g[i / VECTOR][i % VECTOR];
    sums[1] += g[i / VECTOR][i % VECTOR] * n[i / VECTOR][i % VECTOR];
  }
}

// Where the gradient of z goes.
struct Output {
  const T* dsum;
  T* dx;
  T* dresidual;
  Dropout dropout;

  __device__ void store(long long at, float (&dz)[VECTOR]) const {
    if (FUSED) {
      if (dsum != nullptr) {
        float other[VECTOR];
        load_floats(dsum + at, other);
#pragma unroll
        for (int i = 0; i < VECTOR; ++i) dz[i] += other[i];
      }
      if (dresidual != nullptr) store_floats(dresidual + at, dz);
      if (dx == nullptr) return;
      dropout.apply(at, dz);
    }
    store_floats(dx + at, dz);
  }
};

// The gradient of a row's z from sum(g) and sum(g * n), and this row's part of the sums over rows.
__device__ inline void finish_row(const Output& output, const Span& span, const Values& dys, const Values& g, const Values& n,
                                  const float (&sums)[2], int cols, float rstd, Values& dweight, Values& dbias) {
  const float shift = sums[0] / cols, slope = sums[1] / cols;
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    float dz[VECTOR];
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      dz[i] = rstd * (g[k][i] - shift - n[k][i] * slope);
      dweight[k][i] += dys[k][i] * n[k][i];
      dbias[k][i] += dys[k][i];
    }
    if (span.has(span.lane + k * THREADS)) output.store(span.at(span.lane + k * THREADS), dz);
  }
}

// What this block has added up of its columns, kRows rows at a time, to partial[chunk][0 and 1][column].
__device__ inline void store_partial(float* partial, long long chunk, int first, int length, int cols, Values& dweight,
                                     Values& dbias) {
  const int lane = threadIdx.x % THREADS;
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i) {
    float &w = dweight[i / VECTOR][i % VECTOR], &b = dbias[i / VECTOR][i % VECTOR];
    if (kRows > 1) {
      __shared__ float of_thread[2][kBlock];
      __syncthreads();
      of_thread[0][threadIdx.x] = w;
      of_thread[1][threadIdx.x] = b;
      __syncthreads();
      if (threadIdx.x < THREADS) {
        for (int other = threadIdx.x + THREADS; other < kBlock; other += THREADS) {
          w += of_thread[0][other];
          b += of_thread[1][other];
        }
      }
    }
    const int column = (lane + i / VECTOR * THREADS) * VECTOR + i % VECTOR;
    if (threadIdx.x < THREADS && column < length) {
      partial[2 * chunk * cols + first + column] = w;
      partial[(2 * chunk + 1) * cols + first + column] = b;
    }
  }
}

#endif

#ifdef BACKWARD_REGISTERS

extern "C" __global__ void __launch_bounds__(kBlock)
norm_backward_registers(const T* dy, const T* z, const T* weight, const float* mean, const float* rstd, const T* dsum, T* dx,
                        T* dresidual, float* partial, long long rows, int cols, unsigned long long key,
                        unsigned long long counter, int skip, unsigned long long threshold, float scale) {
  const Output output{dsum, dx, dresidual, {{key, counter, skip}, threshold, scale}};
  Values dweight = {}, dbias = {};
  for (long long group = blockIdx.x; group * kRows < rows; group += gridDim.x) {
    const Span span(group * kRows + threadIdx.x / THREADS, rows, cols, 0, cols);
    const float m = mean != nullptr && span.has(0) ? mean[span.row] : 0.f, r = span.has(0) ? rstd[span.row] : 0.f;
    Values dys, g, n;
    load_factors(dy, z, weight, span, m, r, dys, g, n);
    float sums[2] = {0.f, 0.f};
    add_up(g, n, mean != nullptr, sums);
    row_sums(sums);
    finish_row(output, span, dys, g, n, sums, cols, r, dweight, dbias);
    if (kWarps > 1) __syncthreads();  // before row_sums is called again
  }
  store_partial(partial, blockIdx.x, 0, cols, cols, dweight, dbias);
}

#endif

#ifdef BACKWARD_SPLIT

// parts: two floats for each piece of each row, sum(g) and sum(g * n).
extern "C" __global__ void __launch_bounds__(kBlock)
norm_backward_pieces(const T* dy, const T* z, const T* weight, const float* mean, const float* rstd, float* parts,
                     long long rows, int cols, int pieces, int width) {
  const Span span = piece_of(blockIdx.x, rows, cols, pieces, width);
  Values dys, g, n;
  load_factors(dy, z, weight, span, mean != nullptr ? mean[span.row] : 0.f, rstd[span.row], dys, g, n);
  float sums[2] = {0.f, 0.f};
  add_up(g, n, mean != nullptr, sums);
  row_sums(sums);
  if (threadIdx.x == 0) {
    parts[2ll * blockIdx.x] = sums[0];
    parts[2ll * blockIdx.x + 1] = sums[1];
  }
}

// Block c * pieces + p: piece p of the rows c, c + chunks, …
extern "C" __global__ void __launch_bounds__(kBlock)
norm_backward_apply(const T* dy, const T* z, const T* weight, const float* mean, const float* rstd, const float* parts,
                    const T* dsum, T* dx, T* dresidual, float* partial, long long rows, int cols, int pieces, int width,
                    unsigned long long key, unsigned long long counter, int skip, unsigned long long threshold, float scale) {
  const Output output{dsum, dx, dresidual, {{key, counter, skip}, threshold, scale}};
  const long long chunk = blockIdx.x / pieces, chunks = gridDim.x / pieces;
  const int first = (int)(blockIdx.x % pieces) * width, length = min(width, cols - first);
  Values dweight = {}, dbias = {};
  for (long long row = chunk; row < rows; row += chunks) {
    const Span span(row, rows, cols, first, length);
    const float r = rstd[row];
    Values dys, g, n;
    load_factors(dy, z, weight, span, mean != nullptr ? mean[row] : 0.f, r, dys, g, n);
    float sums[2] = {0.f, 0.f};
    for (int p = threadIdx.x % 32; p < pieces; p += 32) {
      sums[0] += parts[2 * (row * pieces + p)];
      sums[1] += parts[2 * (row * pieces + p) + 1];
    }
#pragma unroll
    for (float& sum : sums) sum = warp_sum(sum);
    finish_row(output, span, dys, g, n, sums, cols, r, dweight, dbias);
  }
  store_partial(partial, chunk, first, length, cols, dweight, dbias);
}

#endif

#ifdef COLUMNS

// dweight and dbias from partial[blocks][2][cols]. Threads: WIDTH columns beside each other, DEPTH to a column.
extern "C" __global__ void __launch_bounds__(WIDTH * DEPTH)
norm_backward_columns(const float* partial, T* dweight, T* dbias, int blocks, int cols) {
  const int lane = threadIdx.x % WIDTH, depth = threadIdx.x / WIDTH;
  const long long column = (long long)blockIdx.x * WIDTH + lane;
  __shared__ float part[2][DEPTH][WIDTH];
  float sums[2] = {0.f, 0.f};
#pragma unroll 4
  for (long long b = depth; b < blocks; b += DEPTH) {
    if (column < cols) sums[0] += partial[2 * b * cols + column];
    if (column < cols) sums[1] += partial[(2 * b + 1) * cols + column];
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) part[i][depth][lane] = sums[i];
  __syncthreads();
  if (depth != 0 || column >= cols) return;
#pragma unroll
  for (int d = 1; d < DEPTH; ++d) {
    sums[0] += part[0][d][lane];
    sums[1] += part[1][d][lane];
  }
  if (dweight != nullptr) store(dweight + column, sums[0]);
  if (dbias != nullptr) store(dbias + column, sums[1]);
}

#endif
