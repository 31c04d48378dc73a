// What kernels share in which THREADS lanes walk along one contiguous row: reductions over the row, and which elements of
// it each lane has. Macros: T is the element type, VECTOR elements make a pack (16 bytes, or 1), PACKS packs a step.
#pragma once

using VectorPack = Pack<T, VECTOR>;

constexpr float kLowest = -3.402823466e+38f;  // a finite start for maxima: a row of -inf then never forms inf - inf

// exp(x) of x <= 0, as exactly as DTYPE needs it: the instruction alone errs by up to |x| * 6e-8, relative.
__device__ inline float exponential(float x) { return sizeof(T) == 4 ? expf(x) : __expf(x); }

#ifdef THREADS

constexpr int kBlock = THREADS < 128 ? 128 : THREADS;  // a block has one row, or several where a warp or less has one
constexpr int kWarps = THREADS > 32 ? THREADS / 32 : 1;
constexpr int kLanes = THREADS > 32 ? 32 : THREADS;

// Reductions over the THREADS lanes of a row; all of them get the result. Use row_max and each row_sum<USE> once in a
// kernel: nothing waits before `of_warp` is written, which a second use would have to.
__device__ inline float row_max(float value) {
  value = warp_max<kLanes>(value);
  if (kWarps > 1) {
    __shared__ float of_warp[kWarps];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = warp_max<kWarps>(of_warp[threadIdx.x % kWarps]);
  }
  return value;
}

template <int USE = 0>
__device__ inline float row_sum(float value) {
  value = warp_sum<kLanes>(value);
  if (kWarps > 1) {
    __shared__ float of_warp[kWarps];
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    value = warp_sum<kWarps>(of_warp[threadIdx.x % kWarps]);
  }
  return value;
}

// Which elements of its row this thread has. A row may start anywhere, so it is cut into single elements up to the next
// 16-byte boundary, packs of VECTOR, and single elements at its end. Thread t < VECTOR takes head element t, thread
// VECTOR + t tail element t: a thread has one single element at most, and loads it beside its packs.
struct Row {
  long long index, start;   // of the row, and of its first element
  bool exists;              // threads beyond the last row walk along with an empty one
  int lane;                 // which of the row's THREADS threads this is
  int head, packs, single;  // elements before the first pack, number of packs, this thread's single element or -1

  __device__ Row(const T* x, long long rows, int cols) : Row(x, rows, cols, cols, 1) {}

  // A row in `parts` parts of `chunk` elements (the last may be shorter), each of them a row of its own.
  __device__ Row(const T* x, long long rows, int cols, int chunk, int parts) {
    index = (long long)blockIdx.x * (kBlock / THREADS) + threadIdx.x / THREADS;
    exists = index < rows * parts;
    const int before = (int)(index % parts) * chunk;
    const int length = !exists ? 0 : cols - before < chunk ? cols - before : chunk;
    lane = threadIdx.x % THREADS;
    start = index / parts * cols + before;
    const int wanted = (int)(-((unsigned long long)(x + start) / sizeof(T)) % VECTOR);  // up to a 16-byte boundary
    head = wanted < length ? wanted : length;
    packs = (length - head) / VECTOR;
    const int tail = head + packs * VECTOR;
    single = -1;
    if (lane < head) single = lane;
    if (lane >= VECTOR && lane - VECTOR < length - tail) single = tail + lane - VECTOR;
  }

  __device__ bool has_single() const { return single >= 0; }
  __device__ long long single_at() const { return start + single; }
  __device__ bool has(int pack) const { return pack < packs; }
  __device__ long long at(int pack) const { return start + head + (long long)pack * VECTOR; }
  __device__ int column(int pack) const { return head + pack * VECTOR; }  // within the row
};

// PACKS packs of a row: `first` and every THREADS-th after it. Beyond the row's packs they read as 0 and are not written.
using Packs = VectorPack[PACKS];
using Values = float[PACKS * VECTOR];

__device__ inline void load_packs(const T* x, const Row& row, int first, Packs& packs) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k)
    packs[k] = row.has(first + k * THREADS) ? load_pack<VECTOR>(x + row.at(first + k * THREADS)) : VectorPack{};
}

__device__ inline void to_values(const Packs& packs, const Row& row, int first, float beyond, Values& values) {
#pragma unroll
  for (int i = 0; i < PACKS * VECTOR; ++i)
    values[i] = row.has(first + i / VECTOR * THREADS) ? to_float(packs[i / VECTOR].at[i % VECTOR]) : beyond;
}

__device__ inline void store_values(T* y, const Row& row, int first, const Values& values) {
#pragma unroll
  for (int k = 0; k < PACKS; ++k) {
    VectorPack pack;
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) from_float(values[k * VECTOR + i], pack.at[i]);
    if (row.has(first + k * THREADS)) store_pack(y + row.at(first + k * THREADS), pack);
  }
}

#endif  // THREADS
