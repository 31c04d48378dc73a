// Convolution with few channels in a group, depthwise above all: sums too short for matrix products, bound by memory.
//
// direct_product: y[n, t, k] = sum_{u, c} x[n, source(t, u), c] w[u, c, k] (+ bias[k], then max(., 0) with RELU), source as in conv_geometry.cuh:
//   forward, and the gradient of the input with x and y exchanged. A thread makes RUN neighbours along the last axis of
//   VECTOR neighbouring channels.
// direct_weight: partial[s, k, c, u] = sum of dy[n, t, k] x[n, source(t, u), c] over the positions (n, t) of part s.
//   A block has ACROSS neighbouring channels k and 256 / ACROSS threads along the positions, and TAPS taps of one c.
// sum_parts of conv_geometry.cuh puts the parts together.
//
// x, w, bias, y, dy, dw: DTYPE in {float, half, bfloat16}; sums and partial in float32. The strides of x and y are free; LAST
// says that neighbouring threads take neighbouring channels (channels-last), else neighbouring positions. VECTOR > 1
// (16 bytes) needs LAST, one channel in and out of each group, channels by VECTOR, and addresses that are multiples of 16.
// Sums have a fixed order: results repeat bit for bit. Limits: fewer than 2^31 results of direct_product, positions and
// elements of w. Has not run on hardware yet. Source: the definition.
//
// architectures: 75 80 86 89 90 100 120
// compile: DTYPE=float|half|bfloat16 VECTOR=1 RUN=1 ACROSS=1 TAPS=9 -> 128 registers, 0 spills
// compile: DTYPE=float|half|bfloat16 LAST VECTOR=1 RUN=4 ACROSS=32 TAPS=9 -> 128 registers, 0 spills
// compile: DTYPE=float LAST VECTOR=4 RUN=4 ACROSS=32 TAPS=9 -> 128 registers, 0 spills
// compile: DTYPE=half|bfloat16 LAST VECTOR=8 RUN=4 ACROSS=32 TAPS=9 -> 128 registers, 0 spills
// compile: DTYPE=half BIAS RELU LAST VECTOR=8 RUN=4 ACROSS=32 TAPS=9 -> 128 registers, 0 spills
#include "conv_geometry.cuh"

constexpr int kThreads = 256;

extern "C" __global__ void __launch_bounds__(kThreads, 2)
direct_product(const T* x, const T* w, const T* bias, T* y, const Geometry g) {
  const int all = g.groups * g.outputs, runs = (g.axis[2].positions + RUN - 1) / RUN;
  int i = blockIdx.x * kThreads + threadIdx.x;  // in 32 bits, whose divisions are much cheaper
  if (i >= g.images * g.axis[0].positions * g.axis[1].positions * runs * (all / VECTOR)) return;
  Position p;
#ifdef LAST
  const int k = i % (all / VECTOR) * VECTOR;
  i /= all / VECTOR;
#endif
  p.at[2] = i % runs * RUN;
  i /= runs;
  p.at[1] = i % g.axis[1].positions;
  i /= g.axis[1].positions;
  p.at[0] = i % g.axis[0].positions;
  i /= g.axis[0].positions;
#ifndef LAST
  const int k = i % all;
  i /= all;
#endif
  p.image = i;

  const Place place = place_of(g, p, true);
  x += place.image + k / g.outputs * g.channels * g.x_channel;
  float sums[RUN][VECTOR] = {};
  for (int u0 = 0; u0 < g.axis[0].taps; ++u0) {
    const int at0 = place.at[0] + u0 * g.axis[0].delta;
    if (at0 < 0 || at0 >= g.axis[0].size) continue;
    for (int u1 = 0; u1 < g.axis[1].taps; ++u1) {
      const int at1 = place.at[1] + u1 * g.axis[1].delta;
      if (at1 < 0 || at1 >= g.axis[1].size) continue;
      const T* line = x + at0 * g.x_at[0] + at1 * g.x_at[1];
#pragma unroll 1
      for (int u2 = 0; u2 < g.axis[2].taps; ++u2) {
        const int u = (u0 * g.axis[1].taps + u1) * g.axis[2].taps + u2;
#pragma unroll 1
        for (int c = 0; c < g.channels; ++c) {
          const Pack<T, VECTOR> factors = load_pack<VECTOR>(w + (u * g.channels + c) * all + k);
#pragma unroll
          for (int r = 0; r < RUN; ++r) {
            const int at2 = place.at[2] + r * g.axis[2].mul + u2 * g.axis[2].delta;
            if (at2 < 0 || at2 >= g.axis[2].size) continue;
            const Pack<T, VECTOR> values = load_pack<VECTOR>(line + at2 * g.x_at[2] + c * g.x_channel);
#pragma unroll
            for (int v = 0; v < VECTOR; ++v) sums[r][v] += to_float(values.at[v]) * to_float(factors.at[v]);
          }
        }
      }
    }
  }

  y += result_offset(g, p) + k * g.y_channel;
#pragma unroll
  for (int r = 0; r < RUN; ++r) {
    if (p.at[2] + r >= g.axis[2].positions) continue;
    Pack<T, VECTOR> values;
#pragma unroll
    for (int v = 0; v < VECTOR; ++v) {
#ifdef BIAS
      sums[r][v] += load_float(bias + k + v);
#endif
#ifdef RELU
      sums[r][v] = sums[r][v] > 0.f || sums[r][v] != sums[r][v] ? sums[r][v] : 0.f;
#endif
      from_float(sums[r][v], values.at[v]);
    }
    store_pack<VECTOR>(y + r * g.y_at[2], values);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads, 2)
direct_weight(const T* x, const T* dy, float* partial, const Geometry g) {
  __shared__ float shared[kThreads];
  constexpr int kAlong = kThreads / ACROSS;
  const int all = g.groups * g.outputs, taps = g.axis[0].taps * g.axis[1].taps * g.axis[2].taps;
  const int strips = (all + ACROSS - 1) / ACROSS, chunks = (taps + TAPS - 1) / TAPS;
  const int k = blockIdx.x % strips * ACROSS + threadIdx.x % ACROSS, c = blockIdx.x / strips % g.channels;
  const int first = blockIdx.x / strips / g.channels % chunks * TAPS, part = blockIdx.x / strips / g.channels / chunks;
  const long long count = positions(g);
  const int begin = count * part / g.parts, end = count * (part + 1) / g.parts;

  float sums[TAPS] = {};
  if (k < all) {
    x += (long long)(k / g.outputs * g.channels + c) * g.x_channel;
    dy += k * g.y_channel;
    for (int m = begin + threadIdx.x / ACROSS; m < end; m += kAlong) {
      const Position p = position_at(g, m);
      const Place place = place_of(g, p, true);
      const float slope = load_float(dy + result_offset(g, p));
#pragma unroll
      for (int i = 0; i < TAPS; ++i) {
        const int u = first + i, rest = u / g.axis[2].taps;
        const int at0 = place.at[0] + rest / g.axis[1].taps * g.axis[0].delta;
        const int at1 = place.at[1] + rest % g.axis[1].taps * g.axis[1].delta;
        const int at2 = place.at[2] + u % g.axis[2].taps * g.axis[2].delta;
        if (u < taps && at0 >= 0 && at0 < g.axis[0].size && at1 >= 0 && at1 < g.axis[1].size && at2 >= 0 &&
            at2 < g.axis[2].size)
          sums[i] += slope * load_float(x + place.image + at0 * g.x_at[0] + at1 * g.x_at[1] + at2 * g.x_at[2]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < TAPS; ++i) {  // over the threads along the positions, halves onto halves
    __syncthreads();
    shared[threadIdx.x] = sums[i];
    __syncthreads();
    for (int half = kThreads / 2; half >= ACROSS; half /= 2) {
      if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
      __syncthreads();
    }
    if (threadIdx.x < ACROSS && k < all && first + i < taps)
      partial[(((long long)part * all + k) * g.channels + c) * taps + first + i] = shared[threadIdx.x];
  }
}
