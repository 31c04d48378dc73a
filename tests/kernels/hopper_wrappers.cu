// One tiny kernel for each group of wrappers of hopper_compat.cuh, run by one warpgroup; operands come as raw bits.
// architectures: 90a
// compile: T=half|bfloat16 COLUMNS=64|128|256 -> 255 registers, 0 spills
#include "../../kernels/hopper_compat.cuh"

#define JOIN(a, b, c) a##b##c
#define PRODUCT(columns) JOIN(wgmma_m64n, columns, k16)
#define KERNEL(name) extern "C" __global__ void __launch_bounds__(128) name

__device__ unsigned char* aligned_to_1024(unsigned char* memory) {
  return memory + (1024 - shared_address(memory) % 1024) % 1024;
}

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

// Images of 64 x 64 and COLUMNS x 64 elements, k innermost; d: the accumulators of each thread, one after the other.
KERNEL(multiplies)(const uint4* image_a, const uint4* image_b, float* d) {
  DYN_SHARED(memory);
  unsigned char* a = aligned_to_1024(memory);
  unsigned char* b = a + 8192;
  fill(a, image_a, 8192);
  fill(b, image_b, COLUMNS * 128);
  async_proxy_fence();
  __syncthreads();
  float sum[COLUMNS / 2];
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) sum[i] = d[threadIdx.x * (COLUMNS / 2) + i];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; ++k) PRODUCT(COLUMNS)<T>(sum, wgmma_descriptor(a) + 2 * k, wgmma_descriptor(b) + 2 * k);
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) d[threadIdx.x * (COLUMNS / 2) + i] = sum[i];
}

// The same with b as panels of 64 rows of k and 64 columns, columns innermost.
KERNEL(multiplies_transposed)(const uint4* image_a, const uint4* image_b, float* d) {
  DYN_SHARED(memory);
  unsigned char* a = aligned_to_1024(memory);
  unsigned char* b = a + 8192;
  fill(a, image_a, 8192);
  fill(b, image_b, COLUMNS * 128);
  async_proxy_fence();
  __syncthreads();
  float sum[COLUMNS / 2];
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) sum[i] = d[threadIdx.x * (COLUMNS / 2) + i];
  wgmma_fence();
#pragma unroll
  for (int k = 0; k < 4; ++k)
    PRODUCT(COLUMNS)<T, true>(sum, wgmma_descriptor(a) + 2 * k, wgmma_descriptor_transposed(b, 8192) + 128 * k);
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (int i = 0; i < COLUMNS / 2; ++i) d[threadIdx.x * (COLUMNS / 2) + i] = sum[i];
}
