// max_pool_forward:  y = the largest value of a window, positions = where in the window it stands, row-major.
// max_pool_backward: dx = the sum of dy over the windows whose largest value stood here.
//
// x, dx: images x D x H x W x channels, y, dy, positions: images x D' x H' x W' x channels, contiguous; channels = 1 serves
// planes one after another, channels > 1 pixels. DTYPE in {float, half, bfloat16}, POSITION in {unsigned char, int}.
// A thread makes VECTOR results that lie beside each other in the channels. VECTOR > 1 needs channels to be a multiple of
// it, and addresses that are multiples of VECTOR elements. Tables, one for each axis: forward, out x taps: the inputs of an
// output, -1 beyond the image; backward, length x uses x 2: an output that takes this input, -1 beyond the last, and which
// of its inputs it is. Of equal values the first one is largest, of NaNs the last. A window with no input in the image gives
// -inf at position taps_d * taps_h * taps_w. Limits: tables of fewer than 2^31 numbers. Nothing in place; no atomics.
// Has not run on hardware yet.
//
// architectures: 75 80 90 100 120
// compile: FORWARD POSITION=uchar|int DTYPE,VECTOR=float,1|half,1|bfloat16,1|float,4|half,8|bfloat16,8 -> 64 registers, 0 spills
// compile: BACKWARD POSITION=uchar|int DTYPE,VECTOR=float,1|half,1|bfloat16,1|float,4|half,8|bfloat16,8 -> 64 registers, 0 spills
#include "cuda_compat.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header
using uchar = unsigned char;
using Position = POSITION;
using VectorPack = Pack<T, VECTOR>;
using Positions = Pack<Position, VECTOR>;

constexpr int kBlock = 128;

// Which VECTOR results a thread makes: the place of its index in images x depth x height x width x channels.
struct Place {
  long long image, index;
  int d, h, w;
  long long channel;

  __device__ Place(int depth, int height, int width, long long channels) {
    index = ((long long)blockIdx.x * kBlock + threadIdx.x) * VECTOR;
    channel = index % channels;
    long long rest = index / channels;
    w = rest % width;
    rest /= width;
    h = rest % height;
    rest /= height;
    d = rest % depth;
    image = rest / depth;
  }
};

#ifdef FORWARD

extern "C" __global__ void __launch_bounds__(kBlock, 8)
max_pool_forward(const T* x, const int* table_d, const int* table_h, const int* table_w, T* y, Position* positions,
                 long long images, long long channels, int length_d, int length_h, int length_w, int out_d, int out_h,
                 int out_w, int taps_d, int taps_h, int taps_w) {
  const Place place(out_d, out_h, out_w, channels);
  if (place.image >= images) return;
  VectorPack largest;
  Positions where;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    from_float(-INFINITY, largest.at[i]);
    where.at[i] = taps_d * taps_h * taps_w;
  }
  bool first = true;
  for (int i = 0; i < taps_d; ++i) {
    const int d = table_d[place.d * taps_d + i];
    for (int j = 0; j < taps_h; ++j) {
      const int h = table_h[place.h * taps_h + j];
      for (int k = 0; k < taps_w; ++k) {
        const int w = table_w[place.w * taps_w + k];
        if (d < 0 || h < 0 || w < 0) continue;
        const long long pixel = ((place.image * length_d + d) * length_h + h) * length_w + w;
        const VectorPack values = load_pack<VECTOR>(x + pixel * channels + place.channel);
#pragma unroll
        for (int v = 0; v < VECTOR; ++v) {
          const float value = to_float(values.at[v]);
          if (first || value > to_float(largest.at[v]) || value != value) {
            largest.at[v] = values.at[v];
            where.at[v] = (i * taps_h + j) * taps_w + k;
          }
        }
        first = false;
      }
    }
  }
  store_pack(y + place.index, largest);
  store_pack(positions + place.index, where);
}

#endif  // FORWARD

#ifdef BACKWARD

extern "C" __global__ void __launch_bounds__(kBlock, 8)
max_pool_backward(const T* dy, const Position* positions, const int* table_d, const int* table_h, const int* table_w, T* dx,
                  long long images, long long channels, int length_d, int length_h, int length_w, int out_d, int out_h,
                  int out_w, int uses_d, int uses_h, int uses_w, int taps_h, int taps_w) {
  const Place place(length_d, length_h, length_w, channels);
  if (place.image >= images) return;
  float sum[VECTOR] = {};
  for (int i = 0; i < uses_d; ++i) {
    const int* const d = table_d + (place.d * uses_d + i) * 2;
    for (int j = 0; j < uses_h; ++j) {
      const int* const h = table_h + (place.h * uses_h + j) * 2;
      for (int k = 0; k < uses_w; ++k) {
        const int* const w = table_w + (place.w * uses_w + k) * 2;
        if (d[0] < 0 || h[0] < 0 || w[0] < 0) continue;
        const long long pixel = ((place.image * out_d + d[0]) * out_h + h[0]) * out_w + w[0];
        const long long from = pixel * channels + place.channel;
        const Positions where = load_pack<VECTOR>(positions + from);
        const VectorPack gradients = load_pack<VECTOR>(dy + from);
        const int mine = (d[1] * taps_h + h[1]) * taps_w + w[1];
#pragma unroll
        for (int v = 0; v < VECTOR; ++v)
          if ((int)where.at[v] == mine) sum[v] += to_float(gradients.at[v]);
      }
    }
  }
  VectorPack result;
#pragma unroll
  for (int v = 0; v < VECTOR; ++v) from_float(sum[v], result.at[v]);
  store_pack(dx + place.index, result);
}

#endif  // BACKWARD
