// One tiny kernel for each wrapper of cuda_compat.cuh, run by one warp; operands come as raw bits.
// architectures: 80 86 89 90
// compile: T=half|bfloat16 -> 32 registers, 0 spills
#include "../../kernels/cuda_compat.cuh"

#define KERNEL(name) extern "C" __global__ void __launch_bounds__(32) name
#define LANE ((int)threadIdx.x)

KERNEL(copies_16_bytes)(const unsigned char* x, unsigned char* y) {  // of which lane l takes l % 17
  __shared__ __align__(16) unsigned char s[32 * 16];
  cp_async16(s + 16 * LANE, x + 16 * LANE, LANE % 17);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 16; ++i) y[16 * LANE + i] = s[16 * LANE + i];
}

// Row r of the four matrices lies at x[5 r % 32].
KERNEL(loads_matrices)(const uint4* x, unsigned* y) {
  __shared__ uint4 s[32];
  s[LANE] = x[LANE];
  __syncwarp();
  unsigned r[4];
  ldmatrix_x4(r, &s[5 * LANE % 32]);
  for (int m = 0; m < 4; ++m) y[4 * LANE + m] = r[m];
}

KERNEL(loads_transposed_matrices)(const uint4* x, unsigned* y) {
  __shared__ uint4 s[32];
  s[LANE] = x[LANE];
  __syncwarp();
  unsigned r[4];
  ldmatrix_x4_trans(r, &s[5 * LANE % 32]);
  for (int m = 0; m < 4; ++m) y[4 * LANE + m] = r[m];
}

KERNEL(multiplies_16_bit)(const unsigned* a, const unsigned* b, float* d) {
  unsigned fragment_a[4], fragment_b[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) fragment_a[i] = a[4 * LANE + i];
  for (int i = 0; i < 2; ++i) fragment_b[i] = b[2 * LANE + i];
  for (int i = 0; i < 4; ++i) sum[i] = d[4 * LANE + i];
  mma_m16n8k16<T>(sum, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) d[4 * LANE + i] = sum[i];
}

KERNEL(multiplies_tf32)(const float* a, const float* b, float* d) {
  unsigned fragment_a[4], fragment_b[2];
  float sum[4];
  for (int i = 0; i < 4; ++i) fragment_a[i] = to_tf32(a[4 * LANE + i]);
  for (int i = 0; i < 2; ++i) fragment_b[i] = to_tf32(b[2 * LANE + i]);
  for (int i = 0; i < 4; ++i) sum[i] = d[4 * LANE + i];
  mma_m16n8k8(sum, fragment_a, fragment_b);
  for (int i = 0; i < 4; ++i) d[4 * LANE + i] = sum[i];
}

KERNEL(rounds_to_tf32)(const float* x, float* y) {
  for (int i = LANE; i < 4096; i += 32) y[i] = __uint_as_float(to_tf32(x[i]) & ~0x1fffu);  // the low bits have no meaning
}

KERNEL(packs_two)(const float* x, unsigned* y) {
  for (int i = LANE; i < 2048; i += 32) y[i] = pack2<T>(x[2 * i], x[2 * i + 1]);
}

KERNEL(narrows)(const float* x, unsigned short* y) {
  for (int i = LANE; i < 4096; i += 32) {
    T value;
    from_float(x[i], value);
    y[i] = value.bits;
  }
}

KERNEL(widens)(const unsigned short* x, float* y) {
  for (int i = LANE; i < 65536; i += 32) {
    T value;
    value.bits = x[i];
    y[i] = to_float(value);
  }
}

KERNEL(exchanges)(const int* x, int* y) {
  const int value = x[LANE];
  int* row = y + 8 * LANE;
  row[0] = __shfl_sync(~0u, value, 5);
  row[1] = __shfl_up_sync(~0u, value, 3);
  row[2] = __shfl_down_sync(~0u, value, 3, 8);
  row[3] = __shfl_xor_sync(~0u, value, 9);
  row[4] = __ballot_sync(~0u, value % 3 == 0);
  row[5] = __any_sync(~0u, value == 4) + 2 * __all_sync(~0u, value < 32);
  row[6] = __shfl_xor_sync(~0u, value, 2, 4);
  row[7] = __match_any_sync(~0u, value % 4);
}

KERNEL(stores_16_bytes)(const uint4* x, uint4* y) { store16(y + LANE, x[LANE]); }
