// resample: y[o] = sum over the taps of o of weight * x[input] / divisor, along three axes at once: average pooling, resizing,
// padding by mirrored or repeated values, and, with the transposed tables, the gradient of each.
//
// x: images x D x H x W x channels, y: images x D' x H' x W' x channels, contiguous; channels = 1 serves planes one after
// another, channels > 1 pixels. DTYPE in {float, half, bfloat16}; sums, weights and divisors float32.
// LANES threads share a result and divide the taps along W; a thread makes VECTOR results that lie beside each other in the
// channels. VECTOR > 1 needs channels to be a multiple of it, and addresses that are multiples of VECTOR elements; LANES > 1
// needs VECTOR = 1 and divides 32. Tables, one for each axis: out x taps: the inputs of an output, -1 beyond the image, which
// adds nothing; their weights; and out divisors. Limits: axes shorter than 2^31. Not in place; no atomics: sums are taken
// in the same order each time.
// Has not run on hardware yet.
//
// architectures: 75 80 90 100 120
// compile: LANES,DTYPE,VECTOR=1,float,1|1,half,1|1,bfloat16,1|32,float,1|32,half,1|32,bfloat16,1|1,float,4|1,half,8|1,bfloat16,8 -> 64 registers, 0 spills
#include "cuda_compat.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header
using VectorPack = Pack<T, VECTOR>;

constexpr int kBlock = 128;

extern "C" __global__ void __launch_bounds__(kBlock, 8)
resample(const T* x, const int* table_d, const int* table_h, const int* table_w, const float* weight_d,
         const float* weight_h, const float* weight_w, const float* divisor_d, const float* divisor_h,
         const float* divisor_w, T* y, long long images, long long channels, int length_d, int length_h, int length_w,
         int out_d, int out_h, int out_w, int taps_d, int taps_h, int taps_w) {
  const long long index = ((long long)blockIdx.x * (kBlock / LANES) + threadIdx.x / LANES) * VECTOR;
  const int lane = threadIdx.x % LANES;
  const long long channel = index % channels;
  long long rest = index / channels;
  const int w = rest % out_w;
  rest /= out_w;
  const int h = rest % out_h;
  rest /= out_h;
  const int d = rest % out_d;
  const long long image = rest / out_d;
  const bool exists = image < images;  // threads beyond the last result walk along, for the sums over lanes

  float sum[VECTOR] = {};
  for (int i = 0; exists && i < taps_d; ++i) {
    const int from_d = table_d[(long long)d * taps_d + i];
    for (int j = 0; j < taps_h; ++j) {
      const int from_h = table_h[(long long)h * taps_h + j];
      const float outer = weight_d[(long long)d * taps_d + i] * weight_h[(long long)h * taps_h + j];
      for (int k = lane; k < taps_w; k += LANES) {
        const int from_w = table_w[(long long)w * taps_w + k];
        if (from_d < 0 || from_h < 0 || from_w < 0) continue;
        const float weight = outer * weight_w[(long long)w * taps_w + k];
        const long long pixel = ((image * length_d + from_d) * length_h + from_h) * length_w + from_w;
        const VectorPack values = load_pack<VECTOR>(x + pixel * channels + channel);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) sum[v] += weight * to_float(values.at[v]);
      }
    }
  }
  if (LANES > 1) sum[0] = warp_sum<LANES>(sum[0]);
  if (exists && lane == 0) {
    const float divisor = divisor_d[d] * divisor_h[h] * divisor_w[w];
    VectorPack result;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) from_float(sum[v] / divisor, result.at[v]);
    store_pack(y + index, result);
  }
}
