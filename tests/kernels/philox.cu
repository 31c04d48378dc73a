// Writes words first … first + count of a stream, PER_THREAD to a thread.
#include "../../kernels/cuda_compat.cuh"
#include "../../kernels/philox.cuh"

extern "C" __global__ void draws(unsigned* words, long long count, long long first, unsigned long long key,
                                 unsigned long long counter, int skip) {
  const long long at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * PER_THREAD;
  unsigned drawn[PER_THREAD];
  stream_words(Stream{key, counter, skip}, first + at, drawn);
  for (int i = 0; i < PER_THREAD; ++i)
    if (at + i < count) words[at + i] = drawn[i];
}
