// Convolution as matrix products whose operands are gathered while they are loaded: no column matrix is ever stored.
//
// gathered_product: y[n, t, k] = sum_{u, c} x[n, source(t, u), c] w[k, u, c] (+ bias[k], then max(., 0) with RELU),
//   source_d(t, u) = MUL_d t_d + BASE_d + DELTA_d u_d along each of three spatial axes, x counting as 0 outside its borders.
//   Forward: MUL = stride, BASE = -padding, DELTA = dilation. The gradient of the input is the same sum over dy with the
//   axes of the weight exchanged, once for each remainder of the position by the stride (MUL = 1, DELTA < 0).
// weight_product: partial[s, k, u, c] = sum of dy[n, t, k] x[n, source(t, u), c] over the positions (n, t) of part s.
// sum_parts of conv_geometry.cuh puts the parts together.
//
// x, w, bias, y, dy, dw: DTYPE in {float, half, bfloat16}; sums and partial in float32. Groups are separate products. The
// strides of x and y are free (either memory format); w has rows of WIDTH elements, taps * channels and zeros behind them.
// MATH: half and bfloat16 mma.sync m16n8k16; float with TF32 mma.sync m16n8k8 on operands rounded to 10 bits; float without
// it fused multiply-adds in float32. VECTOR > 1 (16 bytes) needs channels-last x (and dy), addresses and channel counts
// that are multiples of 16 bytes; VECTOR = 1 takes anything. Tiles of ROWS x COLUMNS, by WARPS_M x WARPS_N warps, a ring
// of STAGES pairs of tiles filled by cp.async. One thread writes each element once, in a fixed order of sums: results repeat bit for bit.
// Limits: fewer than 2^31 positions, and taps * channels < 2^31. Has not run on hardware yet.
// Source: Chetlur et al. 2014, arXiv 1410.0759 (convolution as a lazily gathered product).
//
// architectures: 80 90 100 120
// compile: DTYPE=half VECTOR=1|8 ROWS,COLUMNS,WARPS_M,WARPS_N,STAGES=64,64,2,2,4|128,128,4,2,3 -> 192 registers, 0 spills
// compile: DTYPE=bfloat16 VECTOR=1|8 ROWS,COLUMNS,WARPS_M,WARPS_N,STAGES=128,64,4,2,3 -> 144 registers, 0 spills
// compile: DTYPE=half BIAS VECTOR=8 RELU ROWS,COLUMNS,WARPS_M,WARPS_N,STAGES=128,128,4,2,3 -> 192 registers, 0 spills
// compile: DTYPE=float TF32 VECTOR=1|4 ROWS,COLUMNS,WARPS_M,WARPS_N,STAGES=64,64,2,2,4|128,128,4,2,3 -> 192 registers, 0 spills
// compile: DTYPE=float VECTOR=1|4 ROWS,COLUMNS,WARPS_M,WARPS_N,STAGES=64,64,2,2,4|128,64,4,2,3 -> 144 registers, 0 spills
#include "conv_geometry.cuh"

constexpr int kThreads = 32 * WARPS_M * WARPS_N;
constexpr int kPack = 16 / sizeof(T);                // elements of an asynchronous copy
constexpr int kDepth = 4 * kPack;                    // terms of the sum that a tile holds: rows of 64 bytes

// ---- where things are ----------------------------------------------------------------------------------------------

struct Tap { int at[3], channel; };  // one term of the sum

__device__ inline Tap tap_at(const Geometry& g, int term) {
  const int u = term / g.channels, rest = u / g.axis[2].taps;
  return {{rest / g.axis[1].taps, rest % g.axis[1].taps, u % g.axis[2].taps}, term % g.channels};
}

__device__ inline void advance(Tap& tap, const Geometry& g, int by) {
  tap.channel += by;
  while (tap.channel >= g.channels) {
    tap.channel -= g.channels;
    if (++tap.at[2] < g.axis[2].taps) continue;
    tap.at[2] = 0;
    if (++tap.at[1] < g.axis[1].taps) continue;
    tap.at[1] = 0;
    ++tap.at[0];  // beyond the last tap: the terms of the zeros behind a row of w
  }
}

// The element of x for a position and a tap, or nullptr where x counts as 0.
__device__ inline const T* source(const T* x, const Geometry& g, const Place& place, const Tap& tap) {
  long long offset = place.image + tap.channel * g.x_channel;
  bool inside = place.exists && tap.at[0] < g.axis[0].taps;
#pragma unroll
  for (int d = 0; d < 3; ++d) {
    const int at = place.at[d] + tap.at[d] * g.axis[d].delta;
    inside = inside && at >= 0 && at < g.axis[d].size;
    offset += at * g.x_at[d];
  }
  return inside ? x + offset : nullptr;
}

// VECTOR elements to shared memory, or zeros where there is no source.
__device__ inline void load(T* to, const T* from, const T* somewhere) {
  if constexpr (VECTOR > 1)
    cp_async16(to, from ? from : somewhere, from ? 16 : 0);
  else if (from)
    *to = *from;
  else
    store(to, 0.f);
}

// ---- the product of two tiles in shared memory ---------------------------------------------------------------------
// A tile holds its rows one after the other, kDepth terms each, or with kByTerm its terms one after the other, each with
// an element of every row. The padding of 16 bytes spreads what a warp reads over all banks.

template <bool kByTerm, int SIZE> constexpr int kPitch = (kByTerm ? SIZE : kDepth) + kPack;
template <bool kByTerm, int SIZE> constexpr int kTile = (kByTerm ? kDepth : SIZE) * kPitch<kByTerm, SIZE>;

template <bool kByTerm, int SIZE> __device__ inline int spot(int row, int term) {
  return kByTerm ? term * kPitch<kByTerm, SIZE> + row : row * kPitch<kByTerm, SIZE> + term;
}

constexpr int kWarpRows = ROWS / WARPS_M, kWarpColumns = COLUMNS / WARPS_N;
#ifdef TF32
constexpr bool kTensorCores = true;
#else
constexpr bool kTensorCores = sizeof(T) == 2;
#endif

typedef float Sums[ROWS * COLUMNS / kThreads / 4][4];  // of this thread; which element of the tile is at [i][j]:

__device__ inline int row_of(int i, int j) {
  if constexpr (kTensorCores)
    return threadIdx.x / 32 / WARPS_N * kWarpRows + i / (kWarpColumns / 8) * 16 + j / 2 * 8 + threadIdx.x % 32 / 4;
  return threadIdx.x / 16 + (4 * i + j) / (COLUMNS / 16) * (kThreads / 16);
}

__device__ inline int column_of(int i, int j) {
  if constexpr (kTensorCores)
    return threadIdx.x / 32 % WARPS_N * kWarpColumns + i % (kWarpColumns / 8) * 8 + threadIdx.x % 4 * 2 + j % 2;
  return threadIdx.x % 16 + (4 * i + j) % (COLUMNS / 16) * 16;
}

// sums += a b over the kDepth terms of two tiles. E is T: a branch that is left out must depend on a parameter, else the
// compiler of CUDA 13 asks for what it calls.
template <bool kByTerm, class E> __device__ inline void multiply(const E* a, const E* b, Sums& sums) {
  [[maybe_unused]] const int row0 = threadIdx.x / 32 / WARPS_N * kWarpRows;
  [[maybe_unused]] const int column0 = threadIdx.x / 32 % WARPS_N * kWarpColumns;
  if constexpr (sizeof(E) == 2) {
    const int eighth = threadIdx.x % 32 / 8, inner = threadIdx.x % 8;
#pragma unroll
    for (int term = 0; term < kDepth; term += 16) {
      unsigned left[kWarpRows / 16][4];
#pragma unroll
      for (int i = 0; i < kWarpRows / 16; ++i) {
        const int row = row0 + i * 16 + eighth % 2 * 8, at = term + eighth / 2 * 8;
        if constexpr (kByTerm)
          ldmatrix_x4_trans(left[i], a + spot<true, ROWS>(row, at + inner));
        else
          ldmatrix_x4(left[i], a + spot<false, ROWS>(row + inner, at));
      }
#pragma unroll
      for (int j = 0; j < kWarpColumns / 16; ++j) {
        unsigned right[4];
        const int column = column0 + j * 16 + eighth / 2 * 8, at = term + eighth % 2 * 8;
        if constexpr (kByTerm)
          ldmatrix_x4_trans(right, b + spot<true, COLUMNS>(column, at + inner));
        else
          ldmatrix_x4(right, b + spot<false, COLUMNS>(column + inner, at));
        const unsigned first[2] = {right[0], right[1]}, second[2] = {right[2], right[3]};
#pragma unroll
        for (int i = 0; i < kWarpRows / 16; ++i) {
          mma_m16n8k16<E>(sums[i * (kWarpColumns / 8) + 2 * j], left[i], first);
          mma_m16n8k16<E>(sums[i * (kWarpColumns / 8) + 2 * j + 1], left[i], second);
        }
      }
    }
  } else if constexpr (kTensorCores) {
    const int quarter = threadIdx.x % 4, eight = threadIdx.x % 32 / 4;
#pragma unroll
    for (int term = 0; term < kDepth; term += 8) {
      unsigned left[kWarpRows / 16][4];
#pragma unroll
      for (int i = 0; i < kWarpRows / 16; ++i)
#pragma unroll
        for (int q = 0; q < 4; ++q)
          left[i][q] = to_tf32(to_float(
              a[spot<kByTerm, ROWS>(row0 + i * 16 + eight + q % 2 * 8, term + quarter + q / 2 * 4)]));
#pragma unroll
      for (int j = 0; j < kWarpColumns / 8; ++j) {
        unsigned right[2];
#pragma unroll
        for (int q = 0; q < 2; ++q)
          right[q] = to_tf32(to_float(b[spot<kByTerm, COLUMNS>(column0 + j * 8 + eight, term + quarter + q * 4)]));
#pragma unroll
        for (int i = 0; i < kWarpRows / 16; ++i) mma_m16n8k8(sums[i * (kWarpColumns / 8) + j], left[i], right);
      }
    }
  } else {
#pragma unroll 4
    for (int term = 0; term < kDepth; ++term) {
      float left[ROWS * 16 / kThreads], right[COLUMNS / 16];
#pragma unroll
      for (int i = 0; i < ROWS * 16 / kThreads; ++i)
        left[i] = to_float(a[spot<kByTerm, ROWS>(threadIdx.x / 16 + i * (kThreads / 16), term)]);
#pragma unroll
      for (int j = 0; j < COLUMNS / 16; ++j)
        right[j] = to_float(b[spot<kByTerm, COLUMNS>(threadIdx.x % 16 + j * 16, term)]);
#pragma unroll
      for (int i = 0; i < ROWS * 16 / kThreads; ++i)
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; ++j) {
          const int at = i * (COLUMNS / 16) + j;
          sums[at / 4][at % 4] += left[i] * right[j];
        }
    }
  }
}

// The sum over `steps` tiles of kDepth terms: load(step, a, b) starts to fill two tiles, STAGES - 1 steps before their use.
// Dynamic shared memory: STAGES * (ROWS + COLUMNS) rows of 80 bytes; tiles by term need no more.
template <bool kByTerm, class Load> __device__ inline void accumulate(int steps, Load&& load, Sums& sums) {
  DYN_SHARED(memory);
  constexpr int kA = kTile<kByTerm, ROWS>, kBoth = kA + kTile<kByTerm, COLUMNS>;
  static_assert(kBoth <= (ROWS + COLUMNS) * kPitch<false, 0>, "tiles by term fit too");
  T* const tiles = reinterpret_cast<T*>(memory);
  for (int step = 0; step < STAGES - 1; ++step) {
    if (step < steps) load(step, tiles + step * kBoth, tiles + step * kBoth + kA);
    cp_async_commit();
  }
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // this step's tiles are there for all, and all are done with those of the step before
    const int ahead = step + STAGES - 1;
    T* const next = tiles + ahead % STAGES * kBoth;
    if (ahead < steps) load(ahead, next, next + kA);
    cp_async_commit();  // also where nothing was loaded, so that the count above holds
    const T* const now = tiles + step % STAGES * kBoth;
    multiply<kByTerm>(now, now + kA, sums);
  }
}

// ---- forward, and the gradient of the input ------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(kThreads, 256 / kThreads)
gathered_product(const T* x, const T* w, const T* bias, T* y, const Geometry g) {
  const int count = positions(g), tiles_n = (g.outputs + COLUMNS - 1) / COLUMNS, tiles_m = (count + ROWS - 1) / ROWS;
  const int n0 = blockIdx.x % tiles_n * COLUMNS, m0 = blockIdx.x / tiles_n % tiles_m * ROWS;
  const int group = blockIdx.x / tiles_n / tiles_m;
  x += (long long)group * g.channels * g.x_channel;
  w += (long long)group * g.outputs * g.width;

  // A thread loads kTerms terms, kApart from one to the next, of kRows rows: neighbouring threads take neighbouring terms
  // where a copy has 16 bytes, neighbouring positions where it has one element.
  constexpr bool kWide = VECTOR > 1;
  constexpr int kAcross = kWide ? kDepth / VECTOR : kThreads / ROWS;  // threads along the terms
  constexpr int kRows = kWide ? ROWS * kAcross / kThreads : 1, kTerms = kWide ? 1 : kDepth / kAcross;
  constexpr int kApart = kWide ? kDepth : kAcross;
  const int row = kWide ? threadIdx.x / kAcross : threadIdx.x % ROWS;
  const int across = kWide ? threadIdx.x % kAcross * VECTOR : threadIdx.x / ROWS;
  Place places[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int m = m0 + row + i * (kThreads / kAcross);
    places[i] = place_of(g, position_at(g, m), m < count);
  }
  Tap tap = tap_at(g, across);
  const int steps = (g.width + kDepth - 1) / kDepth;

  Sums sums = {};
  accumulate<false>(steps, [&](int step, T* a, T* b) {
#pragma unroll 4
    for (int t = 0; t < kTerms; ++t) {
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        load(a + spot<false, ROWS>(row + i * (kThreads / kAcross), across + t * kApart), source(x, g, places[i], tap), x);
      advance(tap, g, kApart);
    }
#pragma unroll
    for (int i = threadIdx.x; i < COLUMNS * 4; i += kThreads) {  // rows of w are padded: always whole copies
      const int column = i / 4, term = i % 4 * kPack, from = step * kDepth + term;
      const bool inside = n0 + column < g.outputs && from < g.width;
      cp_async16(b + spot<false, COLUMNS>(column, term),
                 inside ? w + (long long)(n0 + column) * g.width + from : w, inside ? 16 : 0);
    }
  }, sums);

#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS / kThreads / 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int m = m0 + row_of(i, j), k = n0 + column_of(i, j);
      if (m >= count || k >= g.outputs) continue;
      const int channel = group * g.outputs + k;
      float value = sums[i][j];
#ifdef BIAS
      value += load_float(bias + channel);
#endif
#ifdef RELU
      value = value > 0.f || value != value ? value : 0.f;
#endif
      store(y + result_offset(g, position_at(g, m)) + channel * g.y_channel, value);
    }
}

// ---- the gradient of the weight ------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(kThreads, 256 / kThreads)
weight_product(const T* x, const T* dy, float* partial, const Geometry g) {
  const int terms = g.axis[0].taps * g.axis[1].taps * g.axis[2].taps * g.channels, count = positions(g);
  const int tiles_n = (terms + COLUMNS - 1) / COLUMNS, tiles_m = (g.outputs + ROWS - 1) / ROWS;
  const int n0 = blockIdx.x % tiles_n * COLUMNS, m0 = blockIdx.x / tiles_n % tiles_m * ROWS;
  const int group = blockIdx.x / tiles_n / tiles_m % g.groups, part = blockIdx.x / tiles_n / tiles_m / g.groups;
  x += (long long)group * g.channels * g.x_channel;
  dy += (long long)group * g.outputs * g.y_channel;

  // The sum runs over positions: step s of this part takes kDepth of them. Neighbouring threads take neighbouring channels
  // where a copy has 16 bytes, neighbouring positions where it has one element.
  const int all_steps = (count + kDepth - 1) / kDepth, first_step = (int)((long long)all_steps * part / g.parts);
  const int steps = (int)((long long)all_steps * (part + 1) / g.parts) - first_step;
  constexpr bool kWide = VECTOR > 1;
  constexpr int kAcrossA = kWide ? ROWS / VECTOR : kThreads / kDepth;  // threads along the channels of dy
  constexpr int kAcrossB = kWide ? COLUMNS / VECTOR : kThreads / kDepth;  // and along the terms of x
  const int a_at = kWide ? threadIdx.x % kAcrossA * VECTOR : threadIdx.x / kDepth;
  const int b_at = kWide ? threadIdx.x % kAcrossB * VECTOR : threadIdx.x / kDepth;
  const Tap first_tap = tap_at(g, n0 + b_at);

  Sums sums = {};
  accumulate<true>(steps, [&](int step, T* a, T* b) {
    const int m = (first_step + step) * kDepth;
#pragma unroll
    for (int r = kWide ? threadIdx.x / kAcrossA : threadIdx.x % kDepth; r < kDepth; r += kWide ? kThreads / kAcrossA : kDepth) {
      const bool exists = m + r < count;
      const T* from = dy + result_offset(g, position_at(g, m + r));
#pragma unroll 4
      for (int k = a_at; k < ROWS; k += kWide ? ROWS : kAcrossA)
        load(a + spot<true, ROWS>(k, r), exists && m0 + k < g.outputs ? from + (m0 + k) * g.y_channel : nullptr, dy);
    }
#pragma unroll
    for (int r = kWide ? threadIdx.x / kAcrossB : threadIdx.x % kDepth; r < kDepth; r += kWide ? kThreads / kAcrossB : kDepth) {
      const Place place = place_of(g, position_at(g, m + r), m + r < count);
      Tap tap = first_tap;
#pragma unroll 4
      for (int k = b_at; k < COLUMNS; k += kWide ? COLUMNS : kAcrossB) {
        load(b + spot<true, COLUMNS>(k, r), source(x, g, place, tap), x);
        if constexpr (!kWide) advance(tap, g, kAcrossB);
      }
    }
  }, sums);

  partial += ((long long)part * g.groups + group) * g.outputs * terms;
#pragma unroll
  for (int i = 0; i < ROWS * COLUMNS / kThreads / 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int k = m0 + row_of(i, j), term = n0 + column_of(i, j);
      if (k < g.outputs && term < terms) partial[(long long)k * terms + term] = sums[i][j];
    }
}
