// attention_hopper_forward, attention_hopper_backward_queries, _backward_keys: what the kernels of attention.cu compute, by the
//   instructions of compute capability 9.0: one warpgroup copies tiles (TMA), two others multiply (wgmma), and mbarriers
//   hand the buffers to and fro.
// attention_hopper_statistics: for the derivative lse in powers of two and delta[i] = sum_d dy[i, d] out[i, d].
//
// q, out, dy, dq: (batch, heads, queries, WIDTH); k, v, dk, dv: (batch, heads / group, keys, WIDTH); DTYPE in {half,
// bfloat16}. q, k, v and dy come as tensor maps, of boxes of 64 columns and of 64 rows, or of COLS where they are streamed
// through the buffers, of one head, so that no tile reaches into another. Results have any strides but for the last axis,
// rows beginning at multiples of 4 bytes, for the statistics of 16. A block has 128 rows of one head and takes COLS
// rows of the other side at a time.
// Query i sees the keys j < min(i + shift, lengths[batch]). What is hidden adds exactly nothing, whatever it holds; a
// query that sees nothing gives 0, lse = -inf and no gradient. A length beyond 0 … keys is noted in `faults`.
// A row's largest score and sum are kept in float32 and rescaled with each tile. Forward, the tensor cores multiply the
// weights of one tile with its values while the exponentials of the next are computed; backward, one warpgroup computes
// while another multiplies. Nothing is added atomically, so results repeat bit for bit. Has not run on hardware yet.
// Source: Shah et al. 2024, arXiv 2407.08608 (warp specialisation, scores of the next tile ahead of the values of this one).
//
// architectures: 90a
// compile: FORWARD DTYPE=half|bfloat16 WIDTH,COLS,STAGES=64,128,4|128,128,2|256,80,2 -> 168 registers, 0 spills
// compile: BACKWARD_QUERIES DTYPE=half|bfloat16 WIDTH,COLS,STAGES=64,64,4|128,64,2 -> 168 registers, 0 spills
// compile: BACKWARD_KEYS DTYPE=half|bfloat16 WIDTH,COLS,STAGES=64,64,4|128,64,2 -> 168 registers, 0 spills
// compile: STATISTICS DTYPE=half|bfloat16 WIDTH=64|128 -> 40 registers, 0 spills
#include "hopper_compat.cuh"
#include "fault.cuh"

using T = DTYPE;

struct RowStrides { long long batch, head, row; };  // in elements

struct Problem {
  RowStrides out, dy, dq, dk, dv;
  int batch, heads, group, queries, keys;
  int shift;   // query i sees keys j < i + shift; -queries … keys
  int padded;  // queries of one head in the statistics
  float scale;
};

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

#ifndef STATISTICS

constexpr int kGroups = 2, kGroupRows = 64, kGroupThreads = 128;  // warpgroups that multiply
constexpr int kRows = kGroups * kGroupRows, kThreads = (kGroups + 1) * kGroupThreads;
constexpr int kPanels = WIDTH / 64;       // of 64 columns, 128 bytes: what one tile copy brings
constexpr int kRowBytes = 128;            // in a panel
constexpr int kSteps = WIDTH / 16;        // products along the width
constexpr int kScores = COLS / 2, kOuts = WIDTH / 2;  // accumulators of a thread
constexpr int kTileBytes = COLS * WIDTH * 2, kGroupBytes = kGroupRows * WIDTH * 2;
// Registers of a thread from the beginning of its work on: what the block has at launch is 168 for each.
constexpr int kCopying = 24, kMultiplying = 240;

// ---- blocks, rows and keys ------------------------------------------------------------------------------------------

// The next coordinate of a block: its remainder by `count`, which is then divided off.
__device__ inline int take(unsigned& block, int count) {
  const int coordinate = block % count;
  block /= count;
  return coordinate;
}

__device__ inline int length_of(const long long* lengths, int batch, const Problem& p) {
  return lengths == nullptr ? p.keys : (int)min(max(lengths[batch], 0ll), (long long)p.keys);
}

// How many of `length` keys a query sees.
__device__ inline int seen_by(int query, int length, const Problem& p) { return min(max(query + p.shift, 0), length); }

// The same, and nothing for a query beyond the last: its zeros would make NaN of a key or value that is not finite.
__device__ inline int seen_if_there(int query, int length, const Problem& p) { return query < p.queries ? seen_by(query, length, p) : 0; }

// By way of one lane, so that the compiler knows it to be the same in a warp: it then makes a product's descriptors once.
__device__ inline int warpgroup() { return __shfl_sync(0xffffffffu, (int)threadIdx.x / kGroupThreads, 0); }

// ---- buffers: STAGES of them in turn. Tile n of a block goes to buffer n % STAGES, which is filled and emptied once a round

struct Buffers {
  unsigned char* tiles;
  mbarrier *full, *empty;

  __device__ unsigned char* tile(int n) const { return tiles + n % STAGES * kTileBytes; }
  __device__ void wait_until_full(int n) const { mbarrier_wait(full + n % STAGES, n / STAGES % 2); }
  __device__ void wait_until_empty(int n) const {
    if (n >= STAGES) mbarrier_wait(empty + n % STAGES, (n / STAGES - 1) % 2);
  }
  // A warp has read the tile.
  __device__ void release(int n) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(empty + n % STAGES);
  }
  __device__ void prepare() const {
    for (int stage = 0; stage < STAGES; ++stage) {
      mbarrier_init(full + stage, 1);
      mbarrier_init(empty + stage, 4 * kGroups);  // warps
    }
  }
};

// `rows` rows of one head from `row` on, in panels; the bytes count for mbarrier b, which knows how many.
__device__ inline void load_panels(unsigned char* to, const TensorMap* map, mbarrier* b, int rows, int row, int head, int batch) {
#pragma unroll
  for (int panel = 0; panel < kPanels; ++panel) tma_load_4d(to + panel * rows * kRowBytes, map, b, panel * 64, row, head, batch);
}

// Tile n: COLS rows, and `more` bytes that the caller copies.
__device__ inline void load_tile(const Buffers& buffers, int n, const TensorMap* map, int row, int head, int batch, int more = 0) {
  buffers.wait_until_empty(n);
  mbarrier_arrive_expect_tx(buffers.full + n % STAGES, kTileBytes + more);
  load_panels(buffers.tile(n), map, buffers.full + n % STAGES, COLS, row, head, batch);
}

// The rows of all warpgroups from `row` on.
__device__ inline void load_groups(unsigned char* to, const TensorMap* map, mbarrier* b, int row, int head, int batch) {
  for (int g = 0; g < kGroups; ++g) load_panels(to + g * kGroupBytes, map, b, kGroupRows, row + g * kGroupRows, head, batch);
}

// ---- products of a warpgroup ----------------------------------------------------------------------------------------

// s = a b^T: 64 rows of a with COLS rows of b, along the width. Runs until a wait.
__device__ inline void multiply_rows(float (&s)[kScores], const unsigned char* a, const unsigned char* b) {
  const unsigned long long left = wgmma_descriptor(a), right = wgmma_descriptor(b);
  wgmma_m64k16<T, false, false>(s, left, right);
#pragma unroll
  for (int k = 1; k < kSteps; ++k)  // four to a panel; a descriptor counts in 16 bytes
    wgmma_m64k16<T>(s, left + (k / 4 * kGroupRows * 8 + k % 4 * 2), right + (k / 4 * COLS * 8 + k % 4 * 2));
  wgmma_commit();
}

// o += p x: p 64 x COLS in registers, x COLS rows. Runs until a wait.
__device__ inline void add_product(float (&o)[kOuts], const unsigned (&p)[COLS / 16][4], const unsigned char* x) {
  const unsigned long long right = wgmma_descriptor_transposed(x, COLS * kRowBytes);
#pragma unroll
  for (int k = 0; k < COLS / 16; ++k) wgmma_m64k16<T, true>(o, p[k], right + 128 * k);
  wgmma_commit();
}

// Accumulators as left operand.
__device__ inline void pack(unsigned (&p)[COLS / 16][4], const float (&s)[kScores]) {
#pragma unroll
  for (int i = 0; i < COLS / 4; ++i) p[i / 4][i % 4] = pack2<T>(s[2 * i], s[2 * i + 1]);
}

// ---- what is not finite where it may be hidden: 0 * NaN is NaN, so such elements are added by themselves, where they are
// seen, and taken out of the tile before it is multiplied

constexpr unsigned kExponent = kIsHalf<T> ? 0x7c007c00u : 0x7f807f80u;  // of two elements; all ones: infinity or NaN
constexpr unsigned kLowest = kIsHalf<T> ? 0x04000400u : 0x00800080u;    // added to all ones it carries into the sign

// The sign bits of those of two elements that are not finite.
__device__ inline unsigned not_finite(unsigned elements) { return ((elements & kExponent) + kLowest) & 0x80008000u; }

// All threads that multiply meet: whether the predicate held for any of them.
__device__ inline bool any_multiplier(bool predicate) { return named_barrier_or(1, kGroups * kGroupThreads, predicate); }

// sum += weight value for a value that is not finite and has a weight.
__device__ inline void add_not_finite(float& sum, float weight, float value) {
  if (weight != 0.f && value - value != 0.f) sum += weight * value;
}

// The low or high element of two.
__device__ inline float one_of(unsigned elements, bool high) {
  T value;
  value.bits = (unsigned short)(high ? elements >> 16 : elements & 0xffffu);
  return to_float(value);
}

// The same for all elements of COLS rows x, with weights p, which are as before at the end.
__device__ inline void add_all_not_finite(float (&o)[kOuts], unsigned (&p)[COLS / 16][4], const unsigned char* x) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int row = 0; row < COLS; ++row) {  // the weights of sixteen rows at a time are in the first four registers
    const int owner = lane / 4 * 4 + row % 8 / 2;
    const bool late = row % 16 >= 8, odd = row % 2 != 0;
    const float upper = one_of(__shfl_sync(0xffffffffu, late ? p[0][2] : p[0][0], owner), odd);
    const float lower = one_of(__shfl_sync(0xffffffffu, late ? p[0][3] : p[0][1], owner), odd);
#pragma unroll
    for (int n = 0; n < WIDTH / 8; ++n) {  // 16 bytes, which the swizzle has moved
      const unsigned elements =
          *reinterpret_cast<const unsigned*>(x + (n / 8 * COLS + row) * kRowBytes + (n % 8 ^ row % 8) * 16 + lane % 4 * 4);
#pragma unroll
      for (int i = 0; i < 4; ++i) add_not_finite(o[4 * n + i], i < 2 ? upper : lower, one_of(elements, i % 2 != 0));
    }
    if (row % 16 == 15) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const unsigned first = p[0][i];
#pragma unroll
        for (int k = 0; k < COLS / 16; ++k) p[k][i] = k + 1 < COLS / 16 ? p[k + 1][i] : first;
      }
    }
  }
}

// Adds to o what is not finite in the tile x and has a weight in p, and makes it 0 there. All threads that multiply call.
__device__ inline void take_not_finite(float (&o)[kOuts], unsigned (&p)[COLS / 16][4], unsigned char* x) {
  const uint4* const chunks = reinterpret_cast<const uint4*>(x);
  unsigned found = 0;
#pragma unroll 4
  for (int i = threadIdx.x; i < kTileBytes / 16; i += kGroups * kGroupThreads) {
    const uint4 chunk = chunks[i];
    found |= not_finite(chunk.x) | not_finite(chunk.y) | not_finite(chunk.z) | not_finite(chunk.w);
  }
  if (!any_multiplier(found != 0)) return;
  add_all_not_finite(o, p, x);
  any_multiplier(false);  // all have read it
#pragma unroll 1
  for (int i = threadIdx.x; i < kTileBytes / 4; i += kGroups * kGroupThreads) {
    unsigned& elements = reinterpret_cast<unsigned*>(x)[i];
    elements &= ~((not_finite(elements) >> 15) * 0xffffu);
  }
  async_proxy_fence();
  any_multiplier(false);
}

// A thread's two rows of a result, from `row` on.
__device__ inline void store_rows(T* to, const RowStrides& strides, int batch, int head, int row, int rows, const float (&values)[kOuts],
                                  const float (&scale)[2]) {
  to += batch * strides.batch + head * strides.head;
#pragma unroll
  for (int i = 0; i < kOuts; i += 2) {
    const int at = row + i / 2 % 2 * 8;
    if (at < rows)
      *reinterpret_cast<unsigned*>(to + at * strides.row + wgmma_column(threadIdx.x, i)) =
          pack2<T>(values[i] * scale[i / 2 % 2], values[i + 1] * scale[i / 2 % 2]);
  }
}

// ---- forward --------------------------------------------------------------------------------------------------------

#ifdef FORWARD

// A thread's two rows, lane / 4 and lane / 4 + 8 of its warp's 16: the largest score so far in powers of two, the sum of the
// weights so far of this thread's columns, and how many keys are seen.
struct Rows {
  float largest[2], sum[2];
  int sees[2];
};

// Scores become weights; by `fade` is to be multiplied what was added up before.
template <bool kHides>
__device__ inline void weigh(float (&s)[kScores], Rows& rows, float (&fade)[2], int key0, float factor) {
  if (kHides) {
#pragma unroll
    for (int i = 0; i < kScores; ++i)
      s[i] = key0 + wgmma_column(threadIdx.x, i) >= rows.sees[i / 2 % 2] ? -INFINITY : s[i] * factor;  // also a NaN
    factor = 1.f;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kScores; ++i)
      if (i / 2 % 2 == h) top = fmaxf(top, s[i]);
    top = fmaxf(rows.largest[h], warp_max<4>(top) * factor);
    const float base = top == -INFINITY ? 0.f : top;  // nothing seen yet: no inf - inf
    fade[h] = exp2f(rows.largest[h] - base);
    rows.largest[h] = top;
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < kScores; ++i)
      if (i / 2 % 2 == h) {
        s[i] = exp2f(s[i] * factor - base);
        sum += s[i];
      }
    rows.sum[h] = rows.sum[h] * fade[h] + sum;
  }
}

__device__ inline void fade_out(float (&o)[kOuts], const float (&fade)[2]) {
#pragma unroll
  for (int i = 0; i < kOuts; ++i) o[i] *= fade[i / 2 % 2];
}

// Blocks: batch, head, tile of queries, the last ones first.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
attention_hopper_forward(T* out, float* lse, const long long* lengths, long long* faults, const __grid_constant__ TensorMap map_q,
                         const __grid_constant__ TensorMap map_k, const __grid_constant__ TensorMap map_v, long long fault,
                         const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  unsigned char* const tiles_q = aligned_to_1024(memory);
  unsigned char* const tiles = tiles_q + kGroups * kGroupBytes;
  mbarrier* const barriers = reinterpret_cast<mbarrier*>(tiles + 2 * STAGES * kTileBytes);
  const Buffers keys = {tiles, barriers, barriers + STAGES};
  const Buffers values = {tiles + STAGES * kTileBytes, barriers + 2 * STAGES, barriers + 3 * STAGES};
  mbarrier* const full_q = barriers + 4 * STAGES;

  const int tiles_of_queries = (p.queries + kRows - 1) / kRows;
  unsigned block = blockIdx.x;
  const int first = (tiles_of_queries - 1 - take(block, tiles_of_queries)) * kRows;
  const int head = take(block, p.heads), batch = block, key_head = head / p.group, length = length_of(lengths, batch, p);
  if (lengths != nullptr && threadIdx.x == 0 && lengths[batch] != length) report_fault(faults, fault, lengths[batch], p.keys);
  const int some = seen_by(min(first + kRows, p.queries) - 1, length, p);  // keys that some query of the block sees
  const int count = (some + COLS - 1) / COLS;

  if (threadIdx.x == 0) {
    keys.prepare();
    values.prepare();
    mbarrier_init(full_q, 1);
    mbarrier_init_fence();
  }
  __syncthreads();

  const int group = warpgroup();
  if (group == kGroups) {
    setmaxnreg_dec<kCopying>();
    if (threadIdx.x % kGroupThreads == 0 && count > 0) {
      mbarrier_arrive_expect_tx(full_q, kGroups * kGroupBytes);
      load_groups(tiles_q, &map_q, full_q, first, head, batch);
      for (int n = 0; n < count; ++n) {
        load_tile(keys, n, &map_k, (count - 1 - n) * COLS, key_head, batch);
        load_tile(values, n, &map_v, (count - 1 - n) * COLS, key_head, batch);
      }
    }
  } else {
    setmaxnreg_inc<kMultiplying>();
    const float factor = p.scale * kLog2E;
    const int row = first + group * kGroupRows + wgmma_row(threadIdx.x, 0);
    const unsigned char* const tile_q = tiles_q + group * kGroupBytes;
    Rows rows = {{-INFINITY, -INFINITY}, {0.f, 0.f}, {seen_by(row, length, p), seen_by(row + 8, length, p)}};
    float o[kOuts] = {}, s[kScores], fade[2];
    unsigned weights[COLS / 16][4];
    if (count > 0) mbarrier_wait(full_q, 0);

    // Tiles of which some query does not see all keys, or whose scores change their order by the factor: one by one.
    const int open = factor > 0.f ? seen_by(first, length, p) / COLS : 0;
    int n = 0;
    for (; n < count - open; ++n) {
      keys.wait_until_full(n);
      wgmma_fence();
      multiply_rows(s, tile_q, keys.tile(n));
      wgmma_wait<0>();
      keys.release(n);
      weigh<true>(s, rows, fade, (count - 1 - n) * COLS, factor);
      fade_out(o, fade);
      values.wait_until_full(n);
      pack(weights, s);
      take_not_finite(o, weights, values.tile(n));
      wgmma_fence();
      add_product(o, weights, values.tile(n));
      wgmma_wait<0>();
      values.release(n);
    }

    if (n < count) {
      keys.wait_until_full(n);
      wgmma_fence();
      multiply_rows(s, tile_q, keys.tile(n));
      wgmma_wait<0>();
      keys.release(n);
      weigh<false>(s, rows, fade, 0, factor);
      fade_out(o, fade);
      pack(weights, s);
      for (++n; n < count; ++n) {
        keys.wait_until_full(n);
        wgmma_fence();
        multiply_rows(s, tile_q, keys.tile(n));
        values.wait_until_full(n - 1);
        wgmma_fence();
        add_product(o, weights, values.tile(n - 1));
        wgmma_wait<1>();  // the scores
        keys.release(n);
        weigh<false>(s, rows, fade, 0, factor);
        wgmma_wait<0>();
        values.release(n - 1);
        fade_out(o, fade);
        pack(weights, s);
      }
      values.wait_until_full(n - 1);
      wgmma_fence();
      add_product(o, weights, values.tile(n - 1));
      wgmma_wait<0>();
    }

    float share[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float total = warp_sum<4>(rows.sum[h]);
      share[h] = total == 0.f ? 0.f : 1.f / total;
      if (threadIdx.x % 4 == 0 && row + 8 * h < p.queries)
        lse[((long long)batch * p.heads + head) * p.queries + row + 8 * h] =
            total == 0.f ? -INFINITY : (rows.largest[h] + log2f(total)) * kLn2;
    }
    store_rows(out, p.out, batch, head, row, p.queries, o, share);
  }
}

#endif  // FORWARD

// ---- backward: P is computed again from lse, dS = P (dP - delta) with dP = dy v^T -------------------------------------
// Both kernels keep two tiles, a and b, and stream two others, x and y: s = a x^T, dp = b y^T.

#if defined(BACKWARD_QUERIES) || defined(BACKWARD_KEYS)

struct Streams {
  Buffers x, y;
  mbarrier* full;  // a and b

  __device__ Streams(unsigned char* tiles, mbarrier* barriers)
      : x{tiles, barriers, barriers + STAGES},
        y{tiles + STAGES * kTileBytes, barriers + 2 * STAGES, barriers + 3 * STAGES},
        full(barriers + 4 * STAGES) {}

  __device__ void prepare() const {
    x.prepare();
    y.prepare();
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  // Two groups of products, of tiles n.
  __device__ void multiply(float (&s)[kScores], float (&dp)[kScores], const unsigned char* a, const unsigned char* b, int n) const {
    x.wait_until_full(n);
    wgmma_fence();
    multiply_rows(s, a, x.tile(n));
    y.wait_until_full(n);
    wgmma_fence();
    multiply_rows(dp, b, y.tile(n));
  }
};

#endif

#ifdef BACKWARD_QUERIES

// Blocks: batch, head, tile of queries, the last ones first. a: queries, b: dy, x: keys, y: values.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
attention_hopper_backward_queries(T* dq, const float* statistics, const long long* lengths, const __grid_constant__ TensorMap map_q,
                                  const __grid_constant__ TensorMap map_k, const __grid_constant__ TensorMap map_v,
                                  const __grid_constant__ TensorMap map_dy, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  unsigned char* const tiles_q = aligned_to_1024(memory);
  unsigned char* const tiles_dy = tiles_q + kGroups * kGroupBytes;
  unsigned char* const tiles = tiles_dy + kGroups * kGroupBytes;
  const Streams streams(tiles, reinterpret_cast<mbarrier*>(tiles + 2 * STAGES * kTileBytes));

  const int tiles_of_queries = (p.queries + kRows - 1) / kRows;
  unsigned block = blockIdx.x;
  const int first = (tiles_of_queries - 1 - take(block, tiles_of_queries)) * kRows;
  const int head = take(block, p.heads), batch = block, key_head = head / p.group, length = length_of(lengths, batch, p);
  const int count = (seen_by(min(first + kRows, p.queries) - 1, length, p) + COLS - 1) / COLS;
  if (threadIdx.x == 0) streams.prepare();
  __syncthreads();

  const int group = warpgroup();
  if (group == kGroups) {
    setmaxnreg_dec<kCopying>();
    if (threadIdx.x % kGroupThreads == 0 && count > 0) {
      mbarrier_arrive_expect_tx(streams.full, 2 * kGroups * kGroupBytes);
      load_groups(tiles_q, &map_q, streams.full, first, head, batch);
      load_groups(tiles_dy, &map_dy, streams.full, first, head, batch);
      for (int n = 0; n < count; ++n) {
        load_tile(streams.x, n, &map_k, n * COLS, key_head, batch);
        load_tile(streams.y, n, &map_v, n * COLS, key_head, batch);
      }
    }
  } else {
    setmaxnreg_inc<kMultiplying>();
    const float factor = p.scale * kLog2E;
    const int row = first + group * kGroupRows + wgmma_row(threadIdx.x, 0), open = seen_by(first, length, p) / COLS;
    const unsigned char* const tile_q = tiles_q + group * kGroupBytes;
    const unsigned char* const tile_dy = tiles_dy + group * kGroupBytes;
    float lse[2], delta[2];
    int sees[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const long long place = ((long long)batch * p.heads + head) * p.padded + row + 8 * h;
      lse[h] = statistics[place];
      delta[h] = statistics[(long long)p.batch * p.heads * p.padded + place];
      sees[h] = seen_by(row + 8 * h, length, p);
    }
    float sum[kOuts] = {}, s[kScores], dp[kScores];
    unsigned slopes[COLS / 16][4];
    if (count > 0) mbarrier_wait(streams.full, 0);
    for (int n = 0; n < count; ++n) {
      streams.multiply(s, dp, tile_q, tile_dy, n);
      wgmma_wait<1>();  // s
#pragma unroll
      for (int i = 0; i < kScores; ++i) s[i] = exp2f(s[i] * factor - lse[i / 2 % 2]);
      wgmma_wait<0>();
      streams.y.release(n);
#pragma unroll
      for (int i = 0; i < kScores; ++i) dp[i] = s[i] * (dp[i] - delta[i / 2 % 2]);
      if (n >= open) {
#pragma unroll
        for (int i = 0; i < kScores; ++i)
          if (n * COLS + wgmma_column(threadIdx.x, i) >= sees[i / 2 % 2]) dp[i] = 0.f;  // also a NaN
      }
      pack(slopes, dp);
      if (n >= open) take_not_finite(sum, slopes, streams.x.tile(n));
      wgmma_fence();
      add_product(sum, slopes, streams.x.tile(n));
      wgmma_wait<0>();
      streams.x.release(n);
    }
    const float scale[2] = {p.scale, p.scale};
    store_rows(dq, p.dq, batch, head, row, p.queries, sum, scale);
  }
}

#endif  // BACKWARD_QUERIES

#ifdef BACKWARD_KEYS

// Blocks: batch, key head, tile of keys; rows are keys here, columns queries, of all heads of a group in turn.
// a: keys, b: values, x: queries, y: dy.
extern "C" __global__ void __launch_bounds__(kThreads, 1)
attention_hopper_backward_keys(T* dk, T* dv, const float* statistics, const long long* lengths, const __grid_constant__ TensorMap map_q,
                               const __grid_constant__ TensorMap map_k, const __grid_constant__ TensorMap map_v,
                               const __grid_constant__ TensorMap map_dy, const __grid_constant__ Problem p) {
  DYN_SHARED(memory);
  unsigned char* const tiles_k = aligned_to_1024(memory);
  unsigned char* const tiles_v = tiles_k + kGroups * kGroupBytes;
  unsigned char* const tiles = tiles_v + kGroups * kGroupBytes;
  float* const lses = reinterpret_cast<float*>(tiles + 2 * STAGES * kTileBytes);  // of the queries in x
  float* const deltas = lses + STAGES * COLS;                                     // and in y
  const Streams streams(tiles, reinterpret_cast<mbarrier*>(deltas + STAGES * COLS));

  unsigned block = blockIdx.x;
  const int first = take(block, (p.keys + kRows - 1) / kRows) * kRows;
  const int key_head = take(block, p.heads / p.group), batch = block, length = length_of(lengths, batch, p);
  // Tiles of queries of which some may see the first key, for each head of the group.
  const int begin = max(first - p.shift + 1, 0) / COLS, query_tiles = (p.queries + COLS - 1) / COLS;
  const int per_head = first < length ? max(query_tiles - begin, 0) : 0, count = p.group * per_head;
  if (threadIdx.x == 0) streams.prepare();
  __syncthreads();

  const int group = warpgroup();
  if (group == kGroups) {
    setmaxnreg_dec<kCopying>();
    if (threadIdx.x % kGroupThreads == 0 && count > 0) {
      mbarrier_arrive_expect_tx(streams.full, 2 * kGroups * kGroupBytes);
      load_groups(tiles_k, &map_k, streams.full, first, key_head, batch);
      load_groups(tiles_v, &map_v, streams.full, first, key_head, batch);
      constexpr int kBytes = COLS * sizeof(float);
      for (int n = 0; n < count; ++n) {
        const int head = key_head * p.group + n / per_head, query0 = (begin + n % per_head) * COLS, stage = n % STAGES;
        const float* const from = statistics + ((long long)batch * p.heads + head) * p.padded + query0;
        load_tile(streams.x, n, &map_q, query0, head, batch, kBytes);
        bulk_load(lses + stage * COLS, from, kBytes, streams.x.full + stage);
        load_tile(streams.y, n, &map_dy, query0, head, batch, kBytes);
        bulk_load(deltas + stage * COLS, from + (long long)p.batch * p.heads * p.padded, kBytes, streams.y.full + stage);
      }
    }
  } else {
    setmaxnreg_inc<kMultiplying>();
    const float factor = p.scale * kLog2E;
    const int row = first + group * kGroupRows + wgmma_row(threadIdx.x, 0), column = wgmma_column(threadIdx.x, 0);
    const unsigned char* const tile_k = tiles_k + group * kGroupBytes;
    const unsigned char* const tile_v = tiles_v + group * kGroupBytes;
    float sum_k[kOuts] = {}, sum_v[kOuts] = {}, s[kScores], dp[kScores];
    unsigned weights[COLS / 16][4], slopes[COLS / 16][4];
    if (count > 0) mbarrier_wait(streams.full, 0);
    for (int n = 0; n < count; ++n) {
      const int query0 = (begin + n % per_head) * COLS;
      const bool hides = first + kRows > seen_by(query0, length, p) || query0 + COLS > p.queries;
      streams.multiply(s, dp, tile_k, tile_v, n);
      wgmma_wait<1>();  // s
#pragma unroll
      for (int i = 0; i < kScores; i += 4) {
        const Pack<float, 2> lse = load_pack<2>(lses + n % STAGES * COLS + 2 * i + column);
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i + j] = exp2f(s[i + j] * factor - lse.at[j % 2]);
      }
      if (hides) {
#pragma unroll
        for (int i = 0; i < kScores; ++i)
          if (row + i / 2 % 2 * 8 >= seen_if_there(query0 + wgmma_column(threadIdx.x, i), length, p)) s[i] = 0.f;  // also a NaN
      }
      pack(weights, s);
      wgmma_wait<0>();
#pragma unroll
      for (int i = 0; i < kScores; i += 4) {
        const Pack<float, 2> delta = load_pack<2>(deltas + n % STAGES * COLS + 2 * i + column);
#pragma unroll
        for (int j = 0; j < 4; ++j) dp[i + j] = s[i + j] * (dp[i + j] - delta.at[j % 2]);
      }
      if (hides) {
#pragma unroll
        for (int i = 0; i < kScores; ++i)
          if (row + i / 2 % 2 * 8 >= seen_if_there(query0 + wgmma_column(threadIdx.x, i), length, p)) dp[i] = 0.f;
      }
      pack(slopes, dp);
      if (hides) {
        take_not_finite(sum_v, weights, streams.y.tile(n));
        take_not_finite(sum_k, slopes, streams.x.tile(n));
      }
      wgmma_fence();
      add_product(sum_v, weights, streams.y.tile(n));
      add_product(sum_k, slopes, streams.x.tile(n));
      wgmma_wait<0>();
      streams.x.release(n);
      streams.y.release(n);
    }
    const float scale[2] = {p.scale, p.scale}, one[2] = {1.f, 1.f};
    store_rows(dk, p.dk, batch, key_head, row, p.keys, sum_k, scale);
    store_rows(dv, p.dv, batch, key_head, row, p.keys, sum_v, one);
  }
}

#endif  // BACKWARD_KEYS

#else  // STATISTICS

// statistics: lse in powers of two, then delta, each batch heads padded; a query that does not exist has lse = +inf, and so
// no weights. A warp to a query.
extern "C" __global__ void __launch_bounds__(128)
attention_hopper_statistics(const T* dy, const T* out, const float* lse, float* statistics, long long rows, const __grid_constant__ Problem p) {
  const long long row = (long long)blockIdx.x * 4 + threadIdx.x / 32;
  if (row >= rows) return;
  const int lane = threadIdx.x % 32, query = row % p.padded, head = row / p.padded % p.heads;
  const long long batch = row / p.padded / p.heads;
  float sum = 0.f, power = INFINITY;
  if (query < p.queries) {
    constexpr int kVector = WIDTH / 32;
    const Pack<T, kVector> a = load_pack<kVector>(dy + batch * p.dy.batch + head * p.dy.head + query * p.dy.row + lane * kVector);
    const Pack<T, kVector> b = load_pack<kVector>(out + batch * p.out.batch + head * p.out.head + query * p.out.row + lane * kVector);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum += to_float(a.at[i]) * to_float(b.at[i]);
    power = lse[(batch * p.heads + head) * p.queries + query] * kLog2E;
  }
  sum = warp_sum(sum);
  if (lane == 0) {
    statistics[row] = power;
    statistics[rows + row] = sum;
  }
}

#endif  // STATISTICS
