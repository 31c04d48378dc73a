// rotary: y = x with its first dim elements turned in pairs: (a, b) -> (a cos - b sin, b cos + a sin), the angle of pair i by
//         the row's position. The gradient is the same with `sign` -1: the rotation back.
//
// x, y: DTYPE in {float, half, bfloat16}, rows x cols, contiguous; rows = outer * length, row r has place r % length.
// table: float32, count x dim; row p is cos of position p for each pair, then sin. dim is even, 2 <= dim <= cols.
// positions: int64, or null. Row r has position positions[r / rows_each * length + r % length]; without them
// offset + r % length. A position outside 0 … count - 1 is noted in the fault record with `kind`, and its row is NaN.
// INTERLEAVED 1: pair i is (x[2 i], x[2 i + 1]); 0: (x[i], x[i + dim / 2]). Elements from dim on are copied.
// VECTOR pairs at a time; more than 1 (16 bytes) needs addresses that are multiples of 16, and cols, dim / 2 multiples of
// VECTOR. width threads beside each other have one row. In place is allowed. Source: Su et al. 2021, arXiv 2104.09864.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: DTYPE,VECTOR=float,1|float,4|half,1|half,8|bfloat16,1|bfloat16,8 INTERLEAVED=0|1 -> 64 registers, 0 spills
#include "fault.cuh"
#include "floats.cuh"

using T = DTYPE;

extern "C" __global__ void __launch_bounds__(256) rotary(
    const T* x, const float* table, const long long* positions, T* y, long long* record, long long rows, long long length,
    long long rows_each, int cols, int dim, long long count, long long offset, float sign, int width, long long kind) {
  const int half_dim = dim / 2, turned = half_dim / VECTOR;
  const int units = turned + (cols - dim) / VECTOR, tiles = (units + width - 1) / width;
  const long long row = (long long)blockIdx.x / tiles * (blockDim.x / width) + threadIdx.x / width;
  const int unit = blockIdx.x % tiles * width + threadIdx.x % width;
  if (row >= rows || unit >= units) return;
  const T* from = x + row * cols;
  T* to = y + row * cols;
  if (unit >= turned) {
    const int column = dim + (unit - turned) * VECTOR;
    store_pack(to + column, load_pack<VECTOR>(from + column));
    return;
  }
  const long long place = row % length;
  const long long position = positions ? positions[row / rows_each * length + place] : offset + place;
  const bool inside = position >= 0 && position < count;
  if (!inside && unit == 0) report_fault(record, kind, position, count);
  const int pair = unit * VECTOR;
  const float* angles = table + (inside ? position : 0) * dim + pair;
  const Floats<VECTOR> cosines = load_floats<VECTOR>(angles), sines = load_floats<VECTOR>(angles + half_dim);
  const int first = INTERLEAVED ? 2 * pair : pair, second = INTERLEAVED ? first + VECTOR : pair + half_dim;
  Floats<VECTOR> low = load_floats<VECTOR>(from + first), high = load_floats<VECTOR>(from + second);
  Floats<2 * VECTOR> both;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    both.at[i] = low.at[i];
    both.at[VECTOR + i] = high.at[i];
  }
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    const int at_a = INTERLEAVED ? 2 * i : i, at_b = INTERLEAVED ? 2 * i + 1 : VECTOR + i;
    const float a = both.at[at_a], b = both.at[at_b];
    const float cosine = inside ? cosines.at[i] : __int_as_float(0x7fc00000), sine = sign * sines.at[i];
    both.at[at_a] = a * cosine - b * sine;
    both.at[at_b] = b * cosine + a * sine;
  }
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    low.at[i] = both.at[i];
    high.at[i] = both.at[VECTOR + i];
  }
  store_floats(to + first, low);
  store_floats(to + second, high);
}
