// N neighbouring elements of any element type as float32 values, moved in accesses of 16 bytes, or of all of them where they
// have less. `from` and `to` are multiples of that width.
#pragma once

#include "cuda_compat.cuh"

template <int N> struct Floats { float at[N]; };

template <class T, int N> constexpr int kPerAccess = N * sizeof(T) < 16 ? N : 16 / (int)sizeof(T);

template <int N, class T> __device__ inline Floats<N> load_floats(const T* from) {
  constexpr int kEach = kPerAccess<T, N>;
  Floats<N> values;
#pragma unroll
  for (int i = 0; i < N; i += kEach) {
    const Pack<T, kEach> pack = load_pack<kEach>(from + i);
#pragma unroll
    for (int j = 0; j < kEach; ++j) values.at[i + j] = to_float(pack.at[j]);
  }
  return values;
}

template <int N, class T> __device__ inline void store_floats(T* to, const Floats<N>& values) {
  constexpr int kEach = kPerAccess<T, N>;
#pragma unroll
  for (int i = 0; i < N; i += kEach) {
    Pack<T, kEach> pack;
#pragma unroll
    for (int j = 0; j < kEach; ++j) from_float(values.at[i + j], pack.at[j]);
    store_pack<kEach>(to + i, pack);
  }
}
