// attention_forward: out[i, :] = sum_j P[i, j] v[j, :], P = softmax(scale q k^T + bias) over the keys that query i sees, and
//   lse[i] = log(sum_j exp(score[i, j])), natural logarithm; sums in float32.
// attention_combine: the same from parts of the keys (splits > 1), each with its own lse.
// attention_backward_delta, _queries, _keys, _bias: delta[i] = sum_d dy[i, d] out[i, d], and with it dq, dk and dv, dbias.
//
// q, out: (batch, heads, queries, width); k, v: (batch, heads / group, keys, width); DTYPE in {float, half,
// bfloat16}, any strides but for the last axis, which is contiguous; `aligned` where every row begins at a multiple
// of 16 bytes. Widths of k and v up to WIDTH, a multiple of 32; a block has SLICE columns of a result, 16 WARPS
// rows, and takes COLS rows of the other side at a time, a multiple of 16. The rows of a forward block run over
// `packed` query heads that share a key head.
// Query i sees the keys j < min(i + shift, lengths[batch]), and with OPTIONS=1 those that neither mask nor bias
// hides: where bytes are 0, where floats that are added are -inf. What is hidden adds exactly nothing, whatever it
// holds; a query that sees nothing gives 0, lse = -inf and no gradient. A length beyond 0 … keys is noted in
// `faults`. OPTIONS=1 also has dropout: the weight of (b, h, i, j) is kept where word ((b heads + h) queries + i)
// keys + j of `stream` is at least `threshold`.
// Products of float: three of tf32, each right to 2^-22 (IEEE: 2^-24); with TF32=1 one. Nothing is added atomically, so
// results repeat bit for bit. Has not run on hardware yet.
// Source: Dao 2023, arXiv 2307.08691 (blocks, rescaling once); Milakov & Gimelshein 2018, arXiv 1805.02867.
//
// architectures: 80 86 89 90 100 120
// compile: FORWARD TF32=0 OPTIONS,DTYPE,WARPS,WIDTH,SLICE,COLS=1,half,4,128,128,64|0,half,4,64,64,64|1,float,4,64,64,32 -> 240 registers, 0 spills
// compile: BACKWARD_QUERIES OPTIONS=1 TF32=0 DTYPE,WARPS,WIDTH,SLICE,COLS=half,4,128,128,32 -> 224 registers, 0 spills
// compile: BACKWARD_KEYS OPTIONS=1 TF32=0 DTYPE,WARPS,WIDTH,SLICE,COLS=half,4,128,128,32 -> 248 registers, 0 spills
// compile: BACKWARD_BIAS OPTIONS=1 TF32=0 DTYPE,WARPS,WIDTH,SLICE,COLS=half,4,64,64,32 -> 192 registers, 0 spills
// compile: ROWWISE DTYPE=half -> 40 registers, 0 spills
#include "cuda_compat.cuh"
#include "fault.cuh"
#include "philox.cuh"

using T = DTYPE;

// Strides in elements; the last axis of rows is contiguous, scores have 0 along an axis that is broadcast.
struct RowStrides { long long batch, head, row; };
struct ScoreStrides { long long batch, head, row, column; };

enum Kind { kNone, kBytes, kFloats, kElements };  // what mask and bias are made of; elements are of DTYPE

struct Problem {
  RowStrides q, k, v, out, dy, dq, dk, dv;
  ScoreStrides mask, bias;
  Stream stream;
  int mask_kind, bias_kind;
  int aligned;
  int batch, heads, group, packed, queries, keys, width, value_width;
  int shift;   // query i sees keys j < i + shift; -queries … keys
  int splits;  // parts of the keys, each with a block of its own
  int bias_batch, bias_heads, bias_queries, bias_keys;  // lengths of the bias's axes, 1 where it is broadcast
  unsigned threshold;
  float scale, keep_scale;
};

#ifndef ROWWISE

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr int kThreads = 32 * WARPS, kRows = 16 * WARPS;
constexpr int kChunk = 16 / sizeof(T);  // elements in 16 bytes
constexpr int kStep = 2 * kChunk;       // depth of one product
constexpr int kPitch = WIDTH + kChunk;  // an odd number of 16 bytes: eight rows of a matrix lie in all banks
constexpr int kSteps = WIDTH / kStep;
constexpr int kParts = COLS / 8, kSliceParts = SLICE / 8;  // a product gives 8 columns
constexpr int kUnrolled = sizeof(T) == 2 ? kSteps : 4;  // float: more steps at once need more registers than there are
constexpr int kBlocks = OPTIONS || WIDTH > 64 || sizeof(T) > 2 ? 1 : 3;  // on a multiprocessor: what registers are to be left for

// ---- tiles in shared memory ----------------------------------------------------------------------------------------

// One 16-byte piece of a row, with zeros from element `width` of the row on; no row gives zeros. `readable` is never read.
__device__ inline void load_chunk(T* to, const T* row, const T* readable, int column, int width, int aligned) {
  const int wanted = row == nullptr ? 0 : min(max(width - column, 0), kChunk);
  if (aligned) {
    cp_async16(to, wanted > 0 ? row + column : readable, wanted * (int)sizeof(T));
  } else {
    const T zero = {};
#pragma unroll 1
    for (int i = 0; i < kChunk; ++i) to[i] = i < wanted ? row[column + i] : zero;
  }
}

// ROWS rows of x from `first` on, zeros from row `end` on and beyond the width.
template <int ROWS, int COLUMNS> __device__ void load_rows(T* tile, const T* x, long long stride, int first, int end, int width,
                                           int aligned) {
#pragma unroll 1
  for (int i = threadIdx.x; i < ROWS * (COLUMNS / kChunk); i += kThreads) {
    const int row = i / (COLUMNS / kChunk), column = i % (COLUMNS / kChunk) * kChunk;
    load_chunk(tile + row * kPitch + column, first + row < end ? x + (first + row) * stride : nullptr, x, column, width,
               aligned);
  }
}

// ---- operands of a warp's products: 16 x kStep on the left, 16 columns on the right, two products of 8 each ---------

__device__ inline void load_left(unsigned (&r)[4], const T* rows, int step) {
  const int lane = threadIdx.x % 32;
  ldmatrix_x4(r, rows + lane % 16 * kPitch + step * kStep + lane / 16 * kChunk);
}

// Columns of the operand are rows of the tile.
__device__ inline void load_right(unsigned (&r)[4], const T* rows, int step) {
  const int lane = threadIdx.x % 32;
  ldmatrix_x4(r, rows + (lane / 16 * 8 + lane % 8) * kPitch + step * kStep + lane / 8 % 2 * kChunk);
}

// Columns of the operand are columns of the tile, from kStep of its rows. Of float, index k of the product is row 2 k or
// 2 (k - 4) + 1 of these, which is the order that accumulators have as left operand.
template <class E> __device__ inline void load_right_transposed(unsigned (&r)[4], const E* rows, int column) {
  const int lane = threadIdx.x % 32;
  if constexpr (sizeof(E) == 2) {
    ldmatrix_x4_trans(r, rows + lane % 16 * kPitch + column + lane / 16 * 8);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      r[i] = __float_as_uint(to_float(rows[(lane % 4 * 2 + i % 2) * kPitch + column + i / 2 * 8 + lane / 4]));
  }
}

// Accumulators of kStep columns as left operand.
template <class E, int N> __device__ inline void as_left(unsigned (&r)[4], const float (&s)[N][4], int step) {
  if constexpr (sizeof(E) == 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) r[i] = pack2<E>(s[2 * step + i / 2][i % 2 * 2], s[2 * step + i / 2][i % 2 * 2 + 1]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) r[i] = __float_as_uint(s[step][i % 2 * 2 + i / 2]);
  }
}

// d += a b. Float: x = big + small in tf32, and small times small is left out.
template <class E> __device__ inline void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  if constexpr (sizeof(E) == 2) {
    const unsigned b[2] = {b0, b1};
    mma_m16n8k16<E>(d, a, b);
  } else {
    unsigned big_a[4];
    const unsigned big_b[2] = {to_tf32(__uint_as_float(b0)), to_tf32(__uint_as_float(b1))};
#pragma unroll
    for (int i = 0; i < 4; ++i) big_a[i] = to_tf32(__uint_as_float(a[i]));
    if constexpr (!TF32) {
      unsigned small_a[4];
      const unsigned small_b[2] = {to_tf32(__uint_as_float(b0) - __uint_as_float(big_b[0])),
                                   to_tf32(__uint_as_float(b1) - __uint_as_float(big_b[1]))};
#pragma unroll
      for (int i = 0; i < 4; ++i) small_a[i] = to_tf32(__uint_as_float(a[i]) - __uint_as_float(big_a[i]));
      mma_m16n8k8(d, small_a, big_b);
      mma_m16n8k8(d, big_a, small_b);
    }
    mma_m16n8k8(d, big_a, big_b);
  }
}

// s += a b^T: the warp's 16 rows of a with N rows of b, along the width.
template <int N> __device__ inline void multiply_rows(float (&s)[N / 8][4], const T* a, const T* b) {
#pragma unroll kUnrolled
  for (int step = 0; step < kSteps; ++step) {
    unsigned left[4], right[4];
    load_left(left, a, step);
#pragma unroll
    for (int n = 0; n < N / 16; ++n) {
      load_right(right, b + n * 16 * kPitch, step);
      multiply<T>(s[2 * n], left, right[0], right[1]);
      multiply<T>(s[2 * n + 1], left, right[2], right[3]);
    }
  }
}

// o += p x: p in accumulators, 16 x N; x has N rows in shared memory.
template <int N> __device__ inline void add_product(float (&o)[kSliceParts][4], const float (&p)[N / 8][4], const T* x) {
#pragma unroll
  for (int step = 0; step < N / kStep; ++step) {
    unsigned left[4], right[4];
    as_left<T>(left, p, step);
#pragma unroll
    for (int n = 0; n < SLICE / 16; ++n) {
      load_right_transposed(right, x + step * kStep * kPitch, n * 16);
      multiply<T>(o[2 * n], left, right[0], right[1]);
      multiply<T>(o[2 * n + 1], left, right[2], right[3]);
    }
  }
}

// ---- what is not finite where it may be hidden: 0 * NaN is NaN, so such elements are taken out of the product --------

template <class> constexpr unsigned kExponent = 0x7f800000u;  // all ones: infinity or NaN
template <> constexpr unsigned kExponent<half> = 0x7c00u;
template <> constexpr unsigned kExponent<bfloat16> = 0x7f80u;
template <class> constexpr unsigned kOne = 0x3f800000u;
template <> constexpr unsigned kOne<half> = 0x3c00u;
template <> constexpr unsigned kOne<bfloat16> = 0x3f80u;

// The elements of a register that are not finite become 0; the result has 1 at their places.
__device__ inline unsigned take_not_finite(unsigned& elements) {
  constexpr int kBits = 8 * sizeof(T);
  unsigned taken = 0;
#pragma unroll
  for (int at = 0; at < 32; at += kBits)
    if ((elements >> at & kExponent<T>) == kExponent<T>) {
      taken |= kOne<T> << at;
      elements &= ~(0xffffffffu >> (32 - kBits) << at);
    }
  return taken;
}

// Whether SLICE columns of N rows of a tile have such an element; all threads of the block call and get the answer.
template <int N> __device__ inline bool any_not_finite(const T* tile) {
  int found = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < N * (SLICE / kChunk); i += kThreads) {
    const uint4 chunk = *reinterpret_cast<const uint4*>(tile + i / (SLICE / kChunk) * kPitch + i % (SLICE / kChunk) * kChunk);
    unsigned words[4] = {chunk.x, chunk.y, chunk.z, chunk.w};
#pragma unroll
    for (unsigned& word : words) found |= take_not_finite(word) != 0;
  }
  return __syncthreads_or(found);
}

// add_product where x has such elements: they count, as NaN, only where their weight is not 0.
template <int N> __device__ void add_careful_product(float (&o)[kSliceParts][4], const float (&p)[N / 8][4], const T* x) {
#pragma unroll
  for (int n = 0; n < SLICE / 16; ++n) {
    __syncwarp();  // for the compiler: without it, it works on all columns at once and runs out of registers
    float seen[2][4] = {};
#pragma unroll
    for (int step = 0; step < N / kStep; ++step) {
      unsigned left[4], right[4], taken[4];
      as_left<T>(left, p, step);
      load_right_transposed(right, x + step * kStep * kPitch, n * 16);
#pragma unroll
      for (int i = 0; i < 4; ++i) taken[i] = take_not_finite(right[i]);
      multiply<T>(o[2 * n], left, right[0], right[1]);
      multiply<T>(o[2 * n + 1], left, right[2], right[3]);
#pragma unroll
      for (int i = 0; i < 4; ++i) left[i] &= sizeof(T) == 2 ? 0x7fff7fffu : 0x7fffffffu;  // sizes, which cannot cancel
      multiply<T>(seen[0], left, taken[0], taken[1]);
      multiply<T>(seen[1], left, taken[2], taken[3]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
      if (seen[i / 4][i % 4] != 0.f) o[2 * n + i / 4][i % 4] = INFINITY - INFINITY;
  }
}

// ---- which scores are seen ------------------------------------------------------------------------------------------

// What one element of mask or bias adds to a score in powers of two; -inf hides it.
__device__ inline float added_by(const void* scores, int kind, const ScoreStrides& strides, int batch, int head, int query,
                                 int key) {
  const long long at = batch * strides.batch + head * strides.head + query * strides.row + key * strides.column;
  if (kind == kBytes) return static_cast<const unsigned char*>(scores)[at] != 0 ? 0.f : -INFINITY;
  if (kind == kFloats) return static_cast<const float*>(scores)[at] * kLog2E;
  if (kind == kElements) return to_float(static_cast<const T*>(scores)[at]) * kLog2E;
  return 0.f;
}

// Keys of this batch.
__device__ inline int length_of(const long long* lengths, int batch, const Problem& p) {
  return lengths == nullptr ? p.keys : (int)min(max(lengths[batch], 0ll), (long long)p.keys);
}

// How many of `length` keys a query sees, as far as causality says.
__device__ inline int seen_by(int query, int length, const Problem& p) { return min(max(query + p.shift, 0), length); }

// The same in powers of two, with mask and bias; -inf hides the score.
__device__ inline float added_to(const void* mask, const void* bias, const Problem& p, int batch, int head, int query,
                                 int key, int sees) {
  if (key >= sees) return -INFINITY;
  if (!OPTIONS) return 0.f;
  return added_by(mask, p.mask_kind, p.mask, batch, head, query, key) +
         added_by(bias, p.bias_kind, p.bias, batch, head, query, key);
}

// ---- blocks and rows ------------------------------------------------------------------------------------------------

__device__ inline int slices_of(int columns) { return (columns + SLICE - 1) / SLICE; }

// The next coordinate of a block: its remainder by `count`, which is then divided off.
__device__ inline int take(unsigned& block, int count) {
  const int coordinate = block % count;
  block /= count;
  return coordinate;
}

// One of a thread's two rows, lane / 4 and lane / 4 + 8 of the warp's 16: a query of some head.
struct Query {
  int head, query, sees;  // sees: number of keys, 0 where there is no such row
  long long place;        // of (batch, head, query)
  bool exists;

  __device__ Query(int row, int rows, int batch, int first_head, int length, const Problem& p)
      : head(first_head + row / p.queries), query(row % p.queries), exists(row < rows) {
    place = ((long long)batch * p.heads + head) * p.queries + query;
    sees = exists ? seen_by(query, length, p) : 0;
  }
};

// ---- forward --------------------------------------------------------------------------------------------------------

#ifdef FORWARD

// Blocks: batch, group of packed heads, part of the keys, slice of the values' columns, tile of rows, the last rows first.
extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)
attention_forward(const T* q, const T* k, const T* v, const void* mask, const void* bias, const long long* lengths, T* out,
                  float* lse, float* part, long long* faults, long long fault, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  T* const tile_q = reinterpret_cast<T*>(memory);
  T* const tile_k = tile_q + kRows * kPitch;
  T* const tile_v = tile_k + COLS * kPitch;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  const int rows = p.packed * p.queries, tiles = (rows + kRows - 1) / kRows, head_groups = p.heads / p.packed;
  unsigned block = blockIdx.x;
  const int first = (tiles - 1 - take(block, tiles)) * kRows, slice = take(block, slices_of(p.value_width)) * SLICE;
  const int split = take(block, p.splits), head_group = take(block, head_groups), batch = block;
  const int first_head = head_group * p.packed, key_head = first_head / p.group, length = length_of(lengths, batch, p);

  if (lengths != nullptr && threadIdx.x == 0 && lengths[batch] != length) report_fault(faults, fault, lengths[batch], p.keys);

  q += batch * p.q.batch + first_head * p.q.head;
  k += batch * p.k.batch + key_head * p.k.head;
  v += batch * p.v.batch + key_head * p.v.head + slice;
  const int values = p.value_width - slice;  // columns that are left from here on

  const int row = first + warp * 16 + lane / 4;
  const Query mine[2] = {{row, rows, batch, first_head, length, p}, {row + 8, rows, batch, first_head, length, p}};

  const bool masks = OPTIONS && (p.mask_kind != kNone || p.bias_kind != kNone);
  const bool drops = OPTIONS && p.threshold > 0;
  // Keys that some row sees, and those that every row sees as far as causality and lengths go.
  const int last_query = p.packed == 1 ? min(first + kRows, rows) - 1 : p.queries - 1;
  const int some = seen_by(last_query, length, p), all = masks ? 0 : seen_by(p.packed == 1 ? first : 0, length, p);
  const int key_tiles = (some + COLS - 1) / COLS, per_split = (key_tiles + p.splits - 1) / p.splits;
  const int begin = split * per_split, end = min(begin + per_split, key_tiles);

  float o[kSliceParts][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
  if (begin < end) {
#pragma unroll 1
    for (int i = threadIdx.x; i < kRows * (WIDTH / kChunk); i += kThreads) {
      const int row = first + i / (WIDTH / kChunk), column = i % (WIDTH / kChunk) * kChunk;
      const T* from = row < rows ? q + row / p.queries * p.q.head + row % p.queries * p.q.row : nullptr;
      load_chunk(tile_q + (row - first) * kPitch + column, from, q, column, p.width, p.aligned);
    }
    load_rows<COLS, WIDTH>(tile_k, k, p.k.row, begin * COLS, some, p.width, p.aligned);
    cp_async_commit();
  }
  for (int tile = begin; tile < end; ++tile) {
    const int key0 = tile * COLS;
    cp_async_wait<0>();
    __syncthreads();  // the keys are there, and nobody reads the values before them any more
    load_rows<COLS, SLICE>(tile_v, v, p.v.row, key0, some, values, p.aligned);
    cp_async_commit();
    float s[kParts][4] = {};
    multiply_rows<COLS>(s, tile_q + warp * 16 * kPitch, tile_k);
    cp_async_wait<0>();
    __syncthreads();  // likewise the values, and the keys have been read
    if (tile + 1 < end) {
      load_rows<COLS, WIDTH>(tile_k, k, p.k.row, key0 + COLS, some, p.width, p.aligned);
      cp_async_commit();
    }

    const bool hides = key0 + COLS > all;
    float factor = p.scale * kLog2E;
    if (hides || factor < 0.f) {  // else it is multiplied with in the exponent below, at no cost
#pragma unroll
      for (int n = 0; n < kParts; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const Query& at = mine[i / 2];
          const int key = key0 + n * 8 + lane % 4 * 2 + i % 2;
          const float more = added_to(mask, bias, p, batch, at.head, at.query, key, at.sees);
          s[n][i] = more == -INFINITY ? more : s[n][i] * factor + more;  // also where the score is NaN
        }
      factor = 1.f;
    }

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top = -INFINITY;
#pragma unroll
      for (int n = 0; n < kParts; ++n) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      top = fmaxf(largest[h], warp_max<4>(top) * factor);
      const float base = top == -INFINITY ? 0.f : top;  // nothing seen yet: no inf - inf
      const float fade = exp2f(largest[h] - base);
      largest[h] = top;
      sum[h] *= fade;
#pragma unroll
      for (int n = 0; n < kParts; ++n) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          s[n][i] = exp2f(s[n][i] * factor - base);
          sum[h] += s[n][i];
        }
        if (drops) {
          unsigned words[2];
          stream_words(p.stream, mine[h].place * p.keys + key0 + n * 8 + lane % 4 * 2, words);
#pragma unroll
          for (int i = 0; i < 2; ++i)
            if (words[i] < p.threshold) s[n][2 * h + i] = 0.f;
        }
      }
#pragma unroll
      for (int n = 0; n < kSliceParts; ++n) {
        o[n][2 * h] *= fade;
        o[n][2 * h + 1] *= fade;
      }
    }
    if (hides && any_not_finite<COLS>(tile_v))
      add_careful_product<COLS>(o, s, tile_v);
    else
      add_product<COLS>(o, s, tile_v);
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const float total = warp_sum<4>(sum[h]);
    if (!mine[h].exists) continue;
    const float share = total == 0.f ? 0.f : p.keep_scale / total;
    const long long all_rows = (long long)gridDim.x / tiles / slices_of(p.value_width) / p.splits * rows;  // batch * heads * queries
    if (lane % 4 == 0 && slice == 0)
      lse[split * all_rows + mine[h].place] = total == 0.f ? -INFINITY : (largest[h] + log2f(total)) * kLn2;
    T* const to = out + batch * p.out.batch + mine[h].head * p.out.head + mine[h].query * p.out.row + slice;
#pragma unroll
    for (int n = 0; n < kSliceParts; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int column = n * 8 + lane % 4 * 2 + i;
        if (column < values) {
          if (p.splits == 1)
            store(to + column, o[n][2 * h + i] * share);
          else
            part[(split * all_rows + mine[h].place) * p.value_width + slice + column] = o[n][2 * h + i] * share;
        }
      }
  }
}

#endif  // FORWARD

// ---- backward: P is computed again from lse, dS = P (dP - delta) with dP = dy v^T, delta = sum(dy * out) -------------

#if defined(BACKWARD_QUERIES) || defined(BACKWARD_KEYS) || defined(BACKWARD_BIAS)

// From s = q k^T and dp = dy v^T the weight after dropout and the gradient of the score. `more` was added to the score.
__device__ inline void derive(float& s, float& dp, float more, float lse, float delta, float kept, const Problem& p) {
  const float weight = exp2f(s * (p.scale * kLog2E) + (more - lse));
  s = more == -INFINITY ? 0.f : weight * kept;  // also where the score is NaN, or nothing is seen at all
  dp = more == -INFINITY ? 0.f : weight * (dp * kept - delta);
}

template <int N> __device__ inline void kept_by(float (&kept)[N], long long place, const Problem& p) {
#pragma unroll
  for (int i = 0; i < N; ++i) kept[i] = 1.f;
  if (!OPTIONS || p.threshold == 0) return;
  unsigned words[N];
  stream_words(p.stream, place, words);
#pragma unroll
  for (int i = 0; i < N; ++i) kept[i] = words[i] >= p.threshold ? p.keep_scale : 0.f;
}

// The same for a warp's rows of queries against COLS keys.
__device__ inline void derive_rows(float (&s)[kParts][4], float (&dp)[kParts][4], const Query (&mine)[2], int key0, bool hides,
                                   const float (&lse)[2], const float (&delta)[2], const void* mask, const void* bias,
                                   int batch, const Problem& p) {
#pragma unroll
  for (int n = 0; n < kParts; ++n)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int key = key0 + n * 8 + threadIdx.x % 4 * 2;
      float kept[2];
      kept_by(kept, mine[h].place * p.keys + key, p);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float more =
            hides ? added_to(mask, bias, p, batch, mine[h].head, mine[h].query, key + i, mine[h].sees) : 0.f;
        derive(s[n][2 * h + i], dp[n][2 * h + i], more, lse[h], delta[h], kept[i], p);
      }
    }
}

// A warp's rows of a result: columns from `slice` on.
__device__ inline void store_rows(T* to, const RowStrides& strides, int batch, int head, int row0, int rows, int slice, int width,
                                  const float (&values)[kSliceParts][4], float scale) {
  to += batch * strides.batch + head * strides.head;
#pragma unroll
  for (int n = 0; n < kSliceParts; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + threadIdx.x % 32 / 4 + i / 2 * 8, column = slice + n * 8 + threadIdx.x % 4 * 2 + i % 2;
      if (row < rows && column < width) store(to + row * strides.row + column, values[n][i] * scale);
    }
}

#endif

#ifdef BACKWARD_QUERIES

// Blocks: batch, head, slice of the columns of dq, tile of queries, the last ones first.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
attention_backward_queries(const T* q, const T* k, const T* v, const void* mask, const void* bias, const long long* lengths,
                           const T* dy, const float* lse, const float* delta, T* dq, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  T* const tile_q = reinterpret_cast<T*>(memory);
  T* const tile_dy = tile_q + kRows * kPitch;
  T* const tiles_k = tile_dy + kRows * kPitch;  // two of them, and two of values
  T* const tiles_v = tiles_k + 2 * COLS * kPitch;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tiles = (p.queries + kRows - 1) / kRows;
  unsigned block = blockIdx.x;
  const int first = (tiles - 1 - take(block, tiles)) * kRows, slice = take(block, slices_of(p.width)) * SLICE;
  const int head = take(block, p.heads), batch = block, length = length_of(lengths, batch, p);
  q += batch * p.q.batch + head * p.q.head;
  k += batch * p.k.batch + head / p.group * p.k.head;
  v += batch * p.v.batch + head / p.group * p.v.head;
  dy += batch * p.dy.batch + head * p.dy.head;

  const int row = first + warp * 16 + lane / 4;
  const Query mine[2] = {{row, p.queries, batch, head, length, p}, {row + 8, p.queries, batch, head, length, p}};
  float lse2[2], deltas[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    lse2[h] = mine[h].exists ? lse[mine[h].place] * kLog2E : 0.f;
    deltas[h] = mine[h].exists ? delta[mine[h].place] : 0.f;
  }
  const bool masks = OPTIONS && (p.mask_kind != kNone || p.bias_kind != kNone);
  const int some = seen_by(min(first + kRows, p.queries) - 1, length, p), all = masks ? 0 : seen_by(first, length, p);
  const int end = (some + COLS - 1) / COLS;

  float sum[kSliceParts][4] = {};
  load_rows<kRows, WIDTH>(tile_q, q, p.q.row, first, p.queries, p.width, p.aligned);
  load_rows<kRows, WIDTH>(tile_dy, dy, p.dy.row, first, p.queries, p.value_width, p.aligned);
  for (int tile = -1; tile < end; ++tile) {  // tile -1 only starts the copies of the first one
    const int next = tile + 1, key0 = tile * COLS;
    if (next < end) {
      load_rows<COLS, WIDTH>(tiles_k + next % 2 * COLS * kPitch, k, p.k.row, next * COLS, some, p.width, p.aligned);
      load_rows<COLS, WIDTH>(tiles_v + next % 2 * COLS * kPitch, v, p.v.row, next * COLS, some, p.value_width, p.aligned);
    }
    cp_async_commit();  // also where there was nothing to load, so that the count below holds
    if (tile < 0) continue;
    cp_async_wait<1>();
    __syncthreads();
    const T* const tile_k = tiles_k + tile % 2 * COLS * kPitch;
    float s[kParts][4] = {}, dp[kParts][4] = {};
    multiply_rows<COLS>(s, tile_q + warp * 16 * kPitch, tile_k);
    multiply_rows<COLS>(dp, tile_dy + warp * 16 * kPitch, tiles_v + tile % 2 * COLS * kPitch);
    const bool hides = key0 + COLS > all;
    derive_rows(s, dp, mine, key0, hides, lse2, deltas, mask, bias, batch, p);
    if (hides && any_not_finite<COLS>(tile_k + slice))
      add_careful_product<COLS>(sum, dp, tile_k + slice);
    else
      add_product<COLS>(sum, dp, tile_k + slice);
    __syncthreads();  // before the tile is loaded over
  }
  cp_async_wait<0>();
  store_rows(dq, p.dq, batch, head, first + warp * 16, p.queries, slice, p.width, sum, p.scale);
}

#endif  // BACKWARD_QUERIES

#ifdef BACKWARD_KEYS

// Blocks: batch, key head, slice of the columns of dk and dv, tile of keys. Rows are keys here, columns queries.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
attention_backward_keys(const T* q, const T* k, const T* v, const void* mask, const void* bias, const long long* lengths,
                        const T* dy, const float* lse, const float* delta, T* dk, T* dv, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  T* const tile_k = reinterpret_cast<T*>(memory);
  T* const tile_v = tile_k + kRows * kPitch;
  T* const tiles_q = tile_v + kRows * kPitch;  // two of them, and two of dy
  T* const tiles_dy = tiles_q + 2 * COLS * kPitch;
  float* const statistics = reinterpret_cast<float*>(tiles_dy + 2 * COLS * kPitch);  // 2 x (lse, delta) x COLS
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tiles = (p.keys + kRows - 1) / kRows;
  unsigned block = blockIdx.x;
  const int first = take(block, tiles) * kRows, slice = take(block, slices_of(max(p.width, p.value_width))) * SLICE;
  const int key_head = take(block, p.heads / p.group), batch = block, length = length_of(lengths, batch, p);
  k += batch * p.k.batch + key_head * p.k.head;
  v += batch * p.v.batch + key_head * p.v.head;

  // Tiles of queries of which some may see the first key, for each head of the group.
  const bool masks = OPTIONS && (p.mask_kind != kNone || p.bias_kind != kNone);
  const int begin = max(first - p.shift + 1, 0) / COLS, query_tiles = (p.queries + COLS - 1) / COLS;
  const int per_head = first < length ? max(query_tiles - begin, 0) : 0, steps = p.group * per_head;

  float sum_k[kSliceParts][4] = {}, sum_v[kSliceParts][4] = {};
  load_rows<kRows, WIDTH>(tile_k, k, p.k.row, first, p.keys, p.width, p.aligned);
  load_rows<kRows, WIDTH>(tile_v, v, p.v.row, first, p.keys, p.value_width, p.aligned);
  for (int step = -1; step < steps; ++step) {  // step -1 only starts the copies of the first one
    const int next = step + 1;
    if (next < steps) {
      const int head = key_head * p.group + next / per_head, query0 = (begin + next % per_head) * COLS, half = next % 2;
      load_rows<COLS, WIDTH>(tiles_q + half * COLS * kPitch, q + batch * p.q.batch + head * p.q.head, p.q.row, query0,
                             p.queries, p.width, p.aligned);
      load_rows<COLS, WIDTH>(tiles_dy + half * COLS * kPitch, dy + batch * p.dy.batch + head * p.dy.head, p.dy.row, query0,
                             p.queries, p.value_width, p.aligned);
      const long long place = ((long long)batch * p.heads + head) * p.queries + query0;
      for (int i = threadIdx.x; i < COLS; i += kThreads) {
        const bool exists = query0 + i < p.queries;
        statistics[half * 2 * COLS + i] = exists ? lse[place + i] * kLog2E : 0.f;
        statistics[half * 2 * COLS + COLS + i] = exists ? delta[place + i] : 0.f;
      }
    }
    cp_async_commit();  // also where there was nothing to load, so that the count below holds
    if (step < 0) continue;
    cp_async_wait<1>();
    __syncthreads();
    const int head = key_head * p.group + step / per_head, query0 = (begin + step % per_head) * COLS, half = step % 2;
    const T* const tile_q = tiles_q + half * COLS * kPitch;
    const T* const tile_dy = tiles_dy + half * COLS * kPitch;
    float s[kParts][4] = {}, dp[kParts][4] = {};
    multiply_rows<COLS>(s, tile_k + warp * 16 * kPitch, tile_q);
    multiply_rows<COLS>(dp, tile_v + warp * 16 * kPitch, tile_dy);
    const bool hides = masks || first + kRows > seen_by(query0, length, p);
#pragma unroll
    for (int n = 0; n < kParts; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int key = first + warp * 16 + lane / 4 + i / 2 * 8, column = n * 8 + lane % 4 * 2 + i % 2;
        const int query = query0 + column, sees = query < p.queries ? seen_by(query, length, p) : 0;
        const float more = hides ? added_to(mask, bias, p, batch, head, query, key, sees) : 0.f;
        float kept[1];
        kept_by(kept, (((long long)batch * p.heads + head) * p.queries + query) * p.keys + key, p);
        const float* const of_query = statistics + half * 2 * COLS + column;
        derive(s[n][i], dp[n][i], more, of_query[0], of_query[COLS], kept[0], p);
      }
    if (hides && any_not_finite<COLS>(tile_dy + slice))
      add_careful_product<COLS>(sum_v, s, tile_dy + slice);
    else
      add_product<COLS>(sum_v, s, tile_dy + slice);
    if (hides && any_not_finite<COLS>(tile_q + slice))
      add_careful_product<COLS>(sum_k, dp, tile_q + slice);
    else
      add_product<COLS>(sum_k, dp, tile_q + slice);
    __syncthreads();  // before the tile is loaded over
  }
  cp_async_wait<0>();
  store_rows(dk, p.dk, batch, key_head, first + warp * 16, p.keys, slice, p.width, sum_k, p.scale);
  store_rows(dv, p.dv, batch, key_head, first + warp * 16, p.keys, slice, p.value_width, sum_v, 1.f);
}

#endif  // BACKWARD_KEYS

#ifdef BACKWARD_BIAS

// dbias: bias_batch x bias_heads x bias_queries x bias_keys, contiguous. Blocks: its batch, its head, tile of its queries,
// tile of its keys; a block walks over everything that the bias was broadcast over.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
attention_backward_bias(const T* q, const T* k, const T* v, const void* mask, const void* bias, const long long* lengths,
                        const T* dy, const float* lse, const float* delta, float* dbias, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  T* const tile_q = reinterpret_cast<T*>(memory);
  T* const tile_dy = tile_q + kRows * kPitch;
  T* const tile_k = tile_dy + kRows * kPitch;
  T* const tile_v = tile_k + COLS * kPitch;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  unsigned block = blockIdx.x;
  const int key_tile = take(block, (p.bias_keys + COLS - 1) / COLS);
  const int query_tile = take(block, (p.bias_queries + kRows - 1) / kRows);
  const int bias_head = take(block, p.bias_heads), bias_batch = block;
  const int batches = p.bias_batch > 1 ? bias_batch + 1 : p.batch;
  const int heads = p.bias_heads > 1 ? bias_head + 1 : p.heads;
  const int query_end = p.bias_queries > 1 ? (query_tile + 1) * kRows : p.queries;
  const int key_end = p.bias_keys > 1 ? (key_tile + 1) * COLS : p.keys;

  float sum[kParts][4] = {};
  for (int batch = bias_batch; batch < batches; ++batch)
    for (int head = bias_head; head < heads; ++head)
      for (int first = query_tile * kRows; first < query_end; first += kRows)
        for (int key0 = key_tile * COLS; key0 < key_end; key0 += COLS) {
          const int length = length_of(lengths, batch, p), some = seen_by(min(first + kRows, p.queries) - 1, length, p);
          if (key0 >= some) break;
          const long long key_head = head / p.group;
          load_rows<kRows, WIDTH>(tile_q, q + batch * p.q.batch + head * p.q.head, p.q.row, first, p.queries, p.width, p.aligned);
          load_rows<kRows, WIDTH>(tile_dy, dy + batch * p.dy.batch + head * p.dy.head, p.dy.row, first, p.queries, p.value_width,
                                  p.aligned);
          load_rows<COLS, WIDTH>(tile_k, k + batch * p.k.batch + key_head * p.k.head, p.k.row, key0, some, p.width, p.aligned);
          load_rows<COLS, WIDTH>(tile_v, v + batch * p.v.batch + key_head * p.v.head, p.v.row, key0, some, p.value_width,
                                 p.aligned);
          cp_async_commit();
          const int row = first + warp * 16 + lane / 4;
          const Query mine[2] = {{row, p.queries, batch, head, length, p}, {row + 8, p.queries, batch, head, length, p}};
          float lse2[2], deltas[2];
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            lse2[h] = mine[h].exists ? lse[mine[h].place] * kLog2E : 0.f;
            deltas[h] = mine[h].exists ? delta[mine[h].place] : 0.f;
          }
          cp_async_wait<0>();
          __syncthreads();
          float s[kParts][4] = {}, dp[kParts][4] = {};
          multiply_rows<COLS>(s, tile_q + warp * 16 * kPitch, tile_k);
          multiply_rows<COLS>(dp, tile_dy + warp * 16 * kPitch, tile_v);
          derive_rows(s, dp, mine, key0, true, lse2, deltas, mask, bias, batch, p);
#pragma unroll
          for (int n = 0; n < kParts; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[n][i] += dp[n][i];
          __syncthreads();  // before the tiles are loaded over
        }

  float* const sums = reinterpret_cast<float*>(memory);  // kRows x COLS
#pragma unroll
  for (int n = 0; n < kParts; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      sums[(warp * 16 + lane / 4 + i / 2 * 8) * COLS + n * 8 + lane % 4 * 2 + i % 2] = sum[n][i];
  __syncthreads();
  // An axis that was broadcast has one element, the sum over the tile's rows or columns.
  const int rows = p.bias_queries > 1 ? 1 : kRows, columns = p.bias_keys > 1 ? 1 : COLS;  // in one sum
  for (int i = threadIdx.x; i < kRows / rows * (COLS / columns); i += kThreads) {
    const int row = i / (COLS / columns), column = i % (COLS / columns);
    const int query = query_tile * kRows + row, key = key_tile * COLS + column;
    float total = 0.f;
    for (int r = row * rows; r < (row + 1) * rows; ++r)
      for (int c = column * columns; c < (column + 1) * columns; ++c) total += sums[r * COLS + c];
    if (query < p.bias_queries && key < p.bias_keys)
      dbias[(((long long)bias_batch * p.bias_heads + bias_head) * p.bias_queries + query) * p.bias_keys + key] = total;
  }
}

#endif  // BACKWARD_BIAS

#else  // ROWWISE

// part: splits x rows x value_width, normalised; part_lse: splits x rows; rows = batch heads queries. A warp to a row.
extern "C" __global__ void __launch_bounds__(128)
attention_combine(const float* part, const float* part_lse, T* out, float* lse, long long rows, const __grid_constant__ Problem p) {
  const long long row = (long long)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32, query = row % p.queries, head = row / p.queries % p.heads;
  const long long batch = row / p.queries / p.heads;
  float largest = -INFINITY, total = 0.f;
  for (int split = 0; split < p.splits; ++split) largest = fmaxf(largest, part_lse[split * rows + row]);
  const float base = largest == -INFINITY ? 0.f : largest;
  for (int split = 0; split < p.splits; ++split) total += expf(part_lse[split * rows + row] - base);
  if (lane == 0) lse[row] = base + logf(total);
  T* const to = out + batch * p.out.batch + head * p.out.head + query * p.out.row;
  for (int column = lane; column < p.value_width; column += 32) {
    float sum = 0.f;
    for (int split = 0; split < p.splits; ++split)
      sum += expf(part_lse[split * rows + row] - base) * part[(split * rows + row) * p.value_width + column];
    store(to + column, total == 0.f ? 0.f : sum / total);
  }
}

// delta = sum(dy * out), batch heads queries of them. A warp to a row.
extern "C" __global__ void __launch_bounds__(128)
attention_backward_delta(const T* dy, const T* out, float* delta, long long rows, const __grid_constant__ Problem p) {
  const long long row = (long long)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32, query = row % p.queries, head = row / p.queries % p.heads;
  const long long batch = row / p.queries / p.heads;
  dy += batch * p.dy.batch + head * p.dy.head + query * p.dy.row;
  out += batch * p.out.batch + head * p.out.head + query * p.out.row;
  float sum = 0.f;
  for (int column = lane; column < p.value_width; column += 32) sum += to_float(dy[column]) * to_float(out[column]);
  sum = warp_sum(sum);
  if (lane == 0) delta[row] = sum;
}

#endif  // ROWWISE
