// attention_forward: out[i, :] = sum_j P[i, j] v[j, :], P = softmax(scale q k^T + bias) over the keys that query i sees, and
//                    lse[i] = log(sum_j exp(score[i, j])), natural logarithm; float32 sums.
// attention_combine: the same from parts of the keys (SPLITS > 1 below), each with its own lse.
//
// q, out: (batch, heads, queries, width); k, v: (batch, heads / group, keys, width); DTYPE in {float, half, bfloat16}, any
// strides but for the last axis, which is contiguous; `aligned` where every row begins at a multiple of 16 bytes. Widths of
// k and v up to WIDTH, a multiple of 32; a block has SLICE columns of out; COLS, a multiple of 16, keys to a tile; 16 WARPS rows to a block. The rows of a
// block run over `packed` query heads that share a key head.
// Query i sees the keys j < min(i + shift, lengths[batch]), and with OPTIONS=1 those that neither mask nor bias hides: where
// bytes are 0, where floats that are added are -inf. What is hidden adds exactly nothing, whatever it holds; a query that
// sees nothing gives 0 and lse = -inf. OPTIONS=1 also has dropout: the weight of (b, h, i, j) is kept where word
// ((b heads + h) queries + i) keys + j of `stream` is at least `threshold`.
// Products of float: three of tf32, which err like IEEE products; with TF32=1 one. No atomics, so results repeat bit for bit.
// Written for the machine, not yet run on one.
// Source: Dao 2023, arXiv 2307.08691 (blocks, rescaling once); Milakov & Gimelshein 2018, arXiv 1805.02867.
//
// architectures: 80 86 89 90 100 120
// compile: FORWARD OPTIONS=0 TF32=0 DTYPE,WARPS=half,4|bfloat16,1 WIDTH,SLICE,COLS=64,64,64 -> 172 registers, 0 spills
// compile: FORWARD TF32=0 OPTIONS,DTYPE,WARPS,WIDTH,SLICE,COLS=1,half,4,128,128,64|1,bfloat16,4,256,128,32|1,float,4,128,128,16|1,float,1,256,128,16 -> 255 registers, 0 spills
// compile: COMBINE DTYPE=half -> 40 registers, 0 spills
#include "cuda_compat.cuh"
#include "philox.cuh"

using T = DTYPE;

// Strides in elements; the last axis of rows is contiguous, scores have 0 along an axis that is broadcast.
struct RowStrides { long long batch, head, row; };
struct ScoreStrides { long long batch, head, row, column; };

enum Kind { kNone, kBytes, kFloats, kElements };  // what mask and bias are made of; elements are of DTYPE

struct Problem {
  RowStrides q, k, v, out;
  ScoreStrides mask, bias;
  Stream stream;
  int mask_kind, bias_kind;
  int aligned;
  int heads, group, packed, queries, keys, width, value_width;
  int shift;   // query i sees keys j < i + shift; -queries … keys
  int splits;  // parts of the keys, each with a block of its own
  unsigned threshold;
  float scale, keep_scale;
};

#ifndef COMBINE

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;
constexpr int kThreads = 32 * WARPS, kRows = 16 * WARPS;
constexpr int kChunk = 16 / sizeof(T);  // elements in 16 bytes
constexpr int kStep = 2 * kChunk;       // depth of one product
constexpr int kPitch = WIDTH + kChunk;  // an odd number of 16 bytes: eight rows of a matrix lie in all banks
constexpr int kSteps = WIDTH / kStep;
constexpr int kSlices = WIDTH / SLICE;
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
template <int N> __device__ inline void add_product(float (&o)[SLICE / 8][4], const float (&p)[N / 8][4], const T* x) {
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
template <int N> __device__ void add_careful_product(float (&o)[SLICE / 8][4], const float (&p)[N / 8][4], const T* x) {
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
__device__ inline int length_of(const int* lengths, int batch, const Problem& p) {
  return lengths == nullptr ? p.keys : min(max(lengths[batch], 0), p.keys);
}

// How many of `length` keys a query sees, as far as causality says.
__device__ inline int seen_by(int query, int length, const Problem& p) { return min(max(query + p.shift, 0), length); }

// ---- forward --------------------------------------------------------------------------------------------------------

#ifdef FORWARD

// The next coordinate of a block: its remainder by `count`, which is then divided off.
__device__ inline int take(unsigned& block, int count) {
  const int coordinate = block % count;
  block /= count;
  return coordinate;
}

// One of a thread's two rows: lane / 4 and lane / 4 + 8 of the warp's 16.
struct Query {
  int head, query, sees;  // sees: number of keys, 0 where there is no such row
  long long place;        // of (batch, head, query)
  bool exists;
};

// Blocks: batch, group of packed heads, part of the keys, slice of the values' columns, tile of rows, the last rows first.
extern "C" __global__ void __launch_bounds__(kThreads, kBlocks)
attention_forward(const T* q, const T* k, const T* v, const void* mask, const void* bias, const int* lengths, T* out,
                  float* lse, float* part, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  T* const tile_q = reinterpret_cast<T*>(memory);
  T* const tile_k = tile_q + kRows * kPitch;
  T* const tile_v = tile_k + COLS * kPitch;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;

  const int rows = p.packed * p.queries, tiles = (rows + kRows - 1) / kRows, head_groups = p.heads / p.packed;
  unsigned block = blockIdx.x;
  const int first = (tiles - 1 - take(block, tiles)) * kRows, slice = take(block, kSlices) * SLICE;
  const int split = take(block, p.splits), head_group = take(block, head_groups), batch = block;
  const int first_head = head_group * p.packed, key_head = first_head / p.group, length = length_of(lengths, batch, p);

  q += batch * p.q.batch + first_head * p.q.head;
  k += batch * p.k.batch + key_head * p.k.head;
  v += batch * p.v.batch + key_head * p.v.head + slice;
  const int values = p.value_width - slice;  // columns that are left from here on

  Query mine[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = first + warp * 16 + lane / 4 + h * 8;
    mine[h].exists = row < rows;
    mine[h].head = first_head + row / p.queries;
    mine[h].query = row % p.queries;
    mine[h].place = ((long long)batch * p.heads + mine[h].head) * p.queries + mine[h].query;
    mine[h].sees = mine[h].exists ? seen_by(mine[h].query, length, p) : 0;
  }

  const bool masks = OPTIONS && (p.mask_kind != kNone || p.bias_kind != kNone);
  const bool drops = OPTIONS && p.threshold > 0;
  // Keys that some row sees, and those that every row sees as far as causality and lengths go.
  const int last_query = p.packed == 1 ? min(first + kRows, rows) - 1 : p.queries - 1;
  const int some = seen_by(last_query, length, p), all = masks ? 0 : seen_by(p.packed == 1 ? first : 0, length, p);
  const int key_tiles = (some + COLS - 1) / COLS, per_split = (key_tiles + p.splits - 1) / p.splits;
  const int begin = split * per_split, end = min(begin + per_split, key_tiles);

  float o[SLICE / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f};
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
    float s[COLS / 8][4] = {};
    multiply_rows<COLS>(s, tile_q + warp * 16 * kPitch, tile_k);
    cp_async_wait<0>();
    __syncthreads();  // likewise the values, and the keys have been read
    if (tile + 1 < end) {
      load_rows<COLS, WIDTH>(tile_k, k, p.k.row, key0 + COLS, some, p.width, p.aligned);
      cp_async_commit();
    }

    const bool hides = key0 + COLS > all;
#pragma unroll
    for (int n = 0; n < COLS / 8; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        s[n][i] *= p.scale * kLog2E;
        if (hides) {
          const Query& row = mine[i / 2];
          const int key = key0 + n * 8 + lane % 4 * 2 + i % 2;
          float more = key < row.sees ? 0.f : -INFINITY;
          if (masks && key < row.sees)
            more = added_by(mask, p.mask_kind, p.mask, batch, row.head, row.query, key) +
                   added_by(bias, p.bias_kind, p.bias, batch, row.head, row.query, key);
          s[n][i] = more == -INFINITY ? more : s[n][i] + more;  // also where the score is NaN
        }
      }

#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float top = largest[h];
#pragma unroll
      for (int n = 0; n < COLS / 8; ++n) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
      top = warp_max<4>(top);
      const float base = top == -INFINITY ? 0.f : top;  // nothing seen yet: no inf - inf
      const float fade = exp2f(largest[h] - base);
      largest[h] = top;
      sum[h] *= fade;
#pragma unroll
      for (int n = 0; n < COLS / 8; ++n) {
#pragma unroll
        for (int i = 2 * h; i < 2 * h + 2; ++i) {
          s[n][i] = exp2f(s[n][i] - base);
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
      for (int n = 0; n < SLICE / 8; ++n) {
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
    const long long all_rows = (long long)gridDim.x / tiles / kSlices / p.splits * rows;  // batch * heads * queries
    if (lane % 4 == 0 && slice == 0)
      lse[split * all_rows + mine[h].place] = total == 0.f ? -INFINITY : (largest[h] + log2f(total)) * kLn2;
    T* const to = out + batch * p.out.batch + mine[h].head * p.out.head + mine[h].query * p.out.row + slice;
#pragma unroll
    for (int n = 0; n < SLICE / 8; ++n)
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

#else  // COMBINE

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

#endif  // COMBINE
