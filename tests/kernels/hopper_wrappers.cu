// One tiny kernel for each group of wrappers of hopper_compat.cuh, run by one warpgroup; operands come as raw bits.
// architectures: 90a
// compile: T=half|bfloat16 COLUMNS=64|80|128|256 -> 255 registers, 0 spills
#include "../../kernels/hopper_compat.cuh"

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(128) name

// The image in shared memory of one tile of 64 x 64 16-bit elements.
KERNEL(loads_a_tile)(const __grid_constant__ TensorMap map, unsigned short* image, int column, int row) {
  DYN_SHARED(memory);
  unsigned char* tile = aligned_to_1024(memory);
  mbarrier* full = reinterpret_cast<mbarrier*>(tile + 8192);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(full, 8192);
    tma_load_2d(tile, &map, full, column, row);
  }
  mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < 4096; i += 128) image[i] = reinterpret_cast<unsigned short*>(tile)[i];
}

__device__ void fill(unsigned char* to, const uint4* from, int bytes) {
  for (int i = threadIdx.x; i < bytes / 16; i += 128) reinterpret_cast<uint4*>(to)[i] = from[i];
}

// Images of 64 x 64 elements and COLUMNS x 64, k innermost, or where b is TRANSPOSED panels of 64 rows of k and 64 columns,
// columns innermost; the left operand as an image or in registers; d: the accumulators of each thread, one after the other.
template <bool kTransposed, bool kAdds, class Left>
__device__ void multiply(const Left (&a)[4], const uint4* image_b, unsigned char* b, float* d) {
  fill(b, image_b, kTransposed ? (COLUMNS + 63) / 64 * 8192 : COLUMNS * 128);
  async_proxy_fence();
  __syncthreads();
  float sum[COLUMNS / 2];
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) sum[i] = d[threadIdx.x * (COLUMNS / 2) + i];
  wgmma_fence();
  const unsigned long long from = kTransposed ? wgmma_descriptor_transposed(b, 8192) : wgmma_descriptor(b);
  constexpr int kStep = kTransposed ? 128 : 2;
  wgmma_m64k16<T, kTransposed, kAdds>(sum, a[0], from);
#pragma unroll
  for (int k = 1; k < 4; ++k) wgmma_m64k16<T, kTransposed>(sum, a[k], from + kStep * k);
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) d[threadIdx.x * (COLUMNS / 2) + i] = sum[i];
}

template <bool kTransposed, bool kAdds>
__device__ void multiply_images(unsigned char* a, const uint4* image_a, const uint4* image_b, float* d) {
  fill(a, image_a, 8192);
  const unsigned long long from = wgmma_descriptor(a);
  const unsigned long long left[4] = {from, from + 2, from + 4, from + 6};
  multiply<kTransposed, kAdds>(left, image_b, a + 8192, d);
}

template <bool kTransposed>
__device__ void multiply_registers(unsigned char* b, const unsigned* fragments, const uint4* image_b, float* d) {
  unsigned left[4][4];
#pragma unroll
  for (int i = 0; i < 16; ++i) left[i / 4][i % 4] = fragments[threadIdx.x * 16 + i];
  multiply<kTransposed, true>(left, image_b, b, d);
}

#define MULTIPLIES(name, function, Left)                               \
  KERNEL(name)(const Left* left, const uint4* image_b, float* d) {     \
    DYN_SHARED(memory);                                                \
    function(aligned_to_1024(memory), left, image_b, d);               \
  }
MULTIPLIES(multiplies, (multiply_images<false, true>), uint4)
MULTIPLIES(multiplies_anew, (multiply_images<false, false>), uint4)
MULTIPLIES(multiplies_registers, multiply_registers<false>, unsigned)
#if COLUMNS % 64 == 0
MULTIPLIES(multiplies_transposed, (multiply_images<true, true>), uint4)
MULTIPLIES(multiplies_registers_transposed, multiply_registers<true>, unsigned)
#endif

// The image of one tile of 1 x 1 x 32 x 64 16-bit elements.
KERNEL(loads_a_tile_of_four_axes)(const __grid_constant__ TensorMap map, unsigned short* image, int column, int row, int third, int fourth) {
  DYN_SHARED(memory);
  unsigned char* tile = aligned_to_1024(memory);
  mbarrier* full = reinterpret_cast<mbarrier*>(tile + 4096);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(full, 4096);
    tma_load_4d(tile, &map, full, column, row, third, fourth);
  }
  mbarrier_wait(full, 0);
  for (int i = threadIdx.x; i < 2048; i += 128) image[i] = reinterpret_cast<unsigned short*>(tile)[i];
}

// 128 words, of which those from `first` on to y.
KERNEL(loads_words)(const unsigned* x, int first, unsigned* y) {
  DYN_SHARED(memory);
  unsigned* words = reinterpret_cast<unsigned*>(memory);
  mbarrier* full = reinterpret_cast<mbarrier*>(memory + 512);
  if (threadIdx.x == 0) {
    mbarrier_init(full, 1);
    mbarrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(full, 512 - 4 * first);
    bulk_load(words + first, x + first, 512 - 4 * first, full);
  }
  mbarrier_wait(full, 0);
  y[threadIdx.x] = (int)threadIdx.x < first ? 0 : words[threadIdx.x];
}

// Barrier 1 of the first three warps, 2 of the last: whether x is odd for any of their threads.
KERNEL(votes)(const int* x, int* y) {
  const int t = threadIdx.x;
  y[t] = named_barrier_or(t < 96 ? 1 : 2, t < 96 ? 96 : 32, x[t] % 2 != 0);
}
