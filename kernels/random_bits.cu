// random_bits: words[i] = word 4 counter + skip + i of Philox stream `key`, for i in 0 … count - 1.
//
// words: uint32, starting on a 16-byte boundary; count >= 1, skip in 0 … 3. A thread writes four neighbours at once; the
// last count % 4 one by one. Source: Salmon et al. 2011, see philox.cuh.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: WORDS=4 -> 48 registers, 0 spills
#include "cuda_compat.cuh"
#include "philox.cuh"

extern "C" __global__ void __launch_bounds__(256) random_bits(
    unsigned* words, unsigned long long key, unsigned long long counter, int skip, long long count) {
  const long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (i >= count) return;
  unsigned drawn[4];
  philox_words(drawn, counter, skip, (unsigned long long)i, key);
  if (i + 4 <= count) {
    store16(words + i, uint4{drawn[0], drawn[1], drawn[2], drawn[3]});
  } else {
#pragma unroll
    for (int j = 0; j < 3; ++j)
      if (i + j < count) words[i + j] = drawn[j];
  }
}
