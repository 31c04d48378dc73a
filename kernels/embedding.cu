// embedding_forward: y[i, :] = weight[indices[i], :] for rows indices; an index outside 0 … count - 1 is noted in the fault
//                    record with `kind`, and its row is NaN.
// The gradient, dweight[v, :] = the sum of dy[i, :] over all i with indices[i] = v, in a fixed order and without atomics:
// embedding_keys:    keys[i] = indices[i] << 32 | i, with count for an index outside; then they are sorted.
// embedding_chunks:  each group of threads adds up the runs of equal rows in `chunk` sorted keys. A run that lies within is
//                    written to dweight; the part of one that began before goes to partial[2 c], of one that goes on beyond
//                    to partial[2 c + 1].
// embedding_joined:  adds up the parts of each run that crosses the ends of chunks, in order.
//
// weight, y, dy, dweight: DTYPE in {float, half, bfloat16}, cols to a row, contiguous; sums in float32, rounded once.
// indices: INDEX_BYTES 4 (int) or 8 (long long). partial: float32, 2 * chunks * cols. rows, cols >= 1; rows, count < 2^31.
// dweight must be 0 before: rows without an index, and row `padding` (-1: none), are not written.
// VECTOR > 1 (16 bytes) needs addresses that are multiples of 16 and cols a multiple of VECTOR. WIDTH threads beside each
// other have one row or chunk; results do not depend on the schedule.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: INDEX_BYTES=4 DTYPE,VECTOR=float,1|float,4|half,8|bfloat16,8 -> 64 registers, 0 spills
// compile: INDEX_BYTES=8 DTYPE,VECTOR=float,4|half,1|bfloat16,1 -> 64 registers, 0 spills
#include "fault.cuh"
#include "floats.cuh"

using T = DTYPE;

template <int Bytes> struct Integer { using type = long long; };
template <> struct Integer<4> { using type = int; };
using Index = Integer<INDEX_BYTES>::type;

// Which columns of which row or chunk this thread has.
struct Place {
  long long column, item;

  __device__ Place(long long cols, int width) {
    const long long tiles = (cols / VECTOR + width - 1) / width;
    column = ((long long)blockIdx.x % tiles * width + threadIdx.x % width) * VECTOR;
    item = (long long)blockIdx.x / tiles * (blockDim.x / width) + threadIdx.x / width;
  }
};

__device__ inline long long row_of(long long key) { return key >> 32; }
__device__ inline long long number_of(long long key) { return key & 0xffffffff; }

extern "C" __global__ void __launch_bounds__(256) embedding_forward(
    const Index* indices, const T* weight, T* y, long long* record, long long rows, long long cols, long long count,
    int width, long long kind) {
  const Place place(cols, width);
  if (place.item >= rows || place.column >= cols) return;
  const long long row = indices[place.item];
  Pack<T, VECTOR> values;
  if (row >= 0 && row < count) {
    values = load_pack<VECTOR>(weight + row * cols + place.column);
  } else {
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) from_float(__int_as_float(0x7fc00000), values.at[i]);
    if (place.column == 0) report_fault(record, kind, row, count);
  }
  store_pack(y + place.item * cols + place.column, values);
}

extern "C" __global__ void __launch_bounds__(256) embedding_keys(
    const Index* indices, long long* keys, long long rows, long long count) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  const long long row = indices[i];
  keys[i] = (row >= 0 && row < count ? row : count) << 32 | i;
}

extern "C" __global__ void __launch_bounds__(256) embedding_chunks(
    const long long* keys, const T* dy, T* dweight, float* partial, long long rows, long long cols, long long count,
    long long padding, int width, int chunk) {
  const Place place(cols, width);
  const long long first = place.item * chunk;
  if (first >= rows || place.column >= cols) return;
  const long long end = first + chunk < rows ? first + chunk : rows;
  long long row = row_of(keys[first]);
  bool began_before = first > 0 && row_of(keys[first - 1]) == row;
  Floats<VECTOR> sum = {};
  for (long long i = first; i < end; ++i) {
    const Floats<VECTOR> added = load_floats<VECTOR>(dy + number_of(keys[i]) * cols + place.column);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) sum.at[j] += added.at[j];
    const long long next = i + 1 < rows ? row_of(keys[i + 1]) : -1;
    if (next == row && i + 1 < end) continue;
    if (began_before)
      store_floats(partial + 2 * place.item * cols + place.column, sum);
    else if (next == row)
      store_floats(partial + (2 * place.item + 1) * cols + place.column, sum);
    else if (row < count && row != padding)
      store_floats(dweight + row * cols + place.column, sum);
    sum = {};
    row = next;
    began_before = false;
  }
}

extern "C" __global__ void __launch_bounds__(256) embedding_joined(
    const long long* keys, const float* partial, T* dweight, long long rows, long long cols, long long count,
    long long padding, int width, int chunk) {
  const Place place(cols, width);
  const long long first = place.item * chunk, end = first + chunk;
  if (end >= rows || place.column >= cols) return;
  const long long row = row_of(keys[end - 1]);
  if (row_of(keys[end]) != row || row >= count || row == padding) return;
  if (first > 0 && row_of(keys[first - 1]) == row) return;  // it began before: another group's
  Floats<VECTOR> sum = load_floats<VECTOR>(partial + (2 * place.item + 1) * cols + place.column);
  for (long long next = place.item + 1; next * chunk < rows && row_of(keys[next * chunk]) == row; ++next) {
    const Floats<VECTOR> added = load_floats<VECTOR>(partial + 2 * next * cols + place.column);
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) sum.at[j] += added.at[j];
  }
  store_floats(dweight + row * cols + place.column, sum);
}
