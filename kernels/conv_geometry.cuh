// What the convolution kernels share: one description of a sum over gathered elements, and the sum of its parts.
//
// A position (n, t) of y takes from x the elements (n, source(t, u)) for every tap u of the kernel, with
// source_d(t, u) = mul_d t_d + base_d + delta_d u_d along each of three spatial axes; outside of x there are zeros.
// Forward: mul = stride, base = -padding, delta = dilation. For the gradient of the input x and y change places: positions
// with one remainder by the stride have mul = 1 and a negative delta.
#pragma once

#include "cuda_compat.cuh"

using T = DTYPE;

struct Axis { int positions, size, mul, base, delta, taps; };  // of y, of x, the three coefficients, of the kernel

struct Geometry {
  long long x_image, x_at[3], x_channel;           // elements from one to the next
  long long y_image, y_at[3], y_channel, y_first;  // y_first: the element of position 0
  Axis axis[3];
  int images, channels, outputs, groups;           // channels of x and of y within one group
  int width, parts;                                // of a row of w; of the sum over the positions
};

struct Place {  // where the source of a position lies at tap 0
  long long image;
  int at[3];
  bool exists;
};

__device__ inline int positions(const Geometry& g) {
  return g.images * g.axis[0].positions * g.axis[1].positions * g.axis[2].positions;
}

struct Position { int image, at[3]; };

__device__ inline Position position_at(const Geometry& g, int m) {
  Position p;
  p.at[2] = m % g.axis[2].positions;
  m /= g.axis[2].positions;
  p.at[1] = m % g.axis[1].positions;
  m /= g.axis[1].positions;
  p.at[0] = m % g.axis[0].positions;
  p.image = m / g.axis[0].positions;
  return p;
}

__device__ inline long long result_offset(const Geometry& g, const Position& p) {
  return g.y_first + p.image * g.y_image + p.at[0] * g.y_at[0] + p.at[1] * g.y_at[1] + p.at[2] * g.y_at[2];
}

__device__ inline Place place_of(const Geometry& g, const Position& p, bool exists) {
  Place place = {p.image * g.x_image, {}, exists};
#pragma unroll
  for (int d = 0; d < 3; ++d) place.at[d] = p.at[d] * g.axis[d].mul + g.axis[d].base;
  return place;
}

// dw[k, c, u] = sum of partial[s, k, u, c] over the parts s, always in their order.
extern "C" __global__ void __launch_bounds__(256)
sum_parts(const float* partial, T* dw, int parts, int outputs, int channels, int taps) {
  const long long size = (long long)outputs * channels * taps;
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;  // (k, u, c): reads beside each other
  if (i >= size) return;
  float sum = 0.f;
  for (int part = 0; part < parts; ++part) sum += partial[part * size + i];
  const long long k = i / (taps * channels);
  const int u = i / channels % taps, c = i % channels;
  store(dw + (k * channels + c) * taps + u, sum);
}
