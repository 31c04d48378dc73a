// im2col: cols[n, c, u, p] = x[n, c, source(p, u)], 0 outside of x; source_d = stride_d p_d - padding_d + dilation_d u_d.
// col2im: x[n, c, i] = sum of cols[n, c, u, p] over all (u, p) with source(p, u) = i, in the order of u: its adjoint.
//
// x, cols: DTYPE in {float, half, bfloat16}, col2im adds in float32. The strides of both are free. LAST: neighbouring threads
// take neighbouring channels (channels-last x, cols as (n, p, u, c)), else neighbouring places (cols as (n, c, u, p)).
// im2col: a thread writes all taps of one place and channel; of the struct Geometry `width` is the stride of a tap in cols.
// col2im: a thread gathers one element, so nothing is added by two threads and results repeat bit for bit; here an axis
// means: positions of x, size in places, mul = stride, base = padding, delta = dilation.
// Limits: fewer than 2^31 places in all images. Has not run on hardware yet. Source: the definition.
//
// architectures: 75 80 86 89 90 100 120
// compile: DTYPE=float|half|bfloat16 -> 80 registers, 0 spills
// compile: DTYPE=float|half|bfloat16 LAST -> 80 registers, 0 spills
#include "conv_geometry.cuh"

constexpr int kThreads = 256;

// The channel and the position of a thread; false beyond the last.
__device__ inline bool item(const Geometry& g, int& c, Position& p) {
  const long long i = (long long)blockIdx.x * kThreads + threadIdx.x;
  const int count = positions(g);
  if (i >= (long long)count * g.channels) return false;
#ifdef LAST
  c = i % g.channels;
  p = position_at(g, i / g.channels);
#else  // images outside, channels next, places inside
  const int places = count / g.images;
  c = i / places % g.channels;
  p = position_at(g, i / places / g.channels * places + i % places);
#endif
  return true;
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) im2col(const T* x, T* cols, const Geometry g) {
  int c;
  Position p;
  if (!item(g, c, p)) return;
  const Place place = place_of(g, p, true);
  x += place.image + c * g.x_channel;
  cols += result_offset(g, p) + c * g.y_channel;
  for (int u0 = 0; u0 < g.axis[0].taps; ++u0)
    for (int u1 = 0; u1 < g.axis[1].taps; ++u1)
      for (int u2 = 0; u2 < g.axis[2].taps; ++u2, cols += g.width) {
        const int at0 = place.at[0] + u0 * g.axis[0].delta, at1 = place.at[1] + u1 * g.axis[1].delta;
        const int at2 = place.at[2] + u2 * g.axis[2].delta;
        const bool inside = at0 >= 0 && at0 < g.axis[0].size && at1 >= 0 && at1 < g.axis[1].size && at2 >= 0 &&
                            at2 < g.axis[2].size;
        if (inside)
          *cols = x[at0 * g.x_at[0] + at1 * g.x_at[1] + at2 * g.x_at[2]];
        else
          store(cols, 0.f);
      }
}

// The place along an axis where tap u takes element i of x, or -1.
__device__ inline int place_that_takes(const Axis& axis, int i, int u) {
  const int reach = i + axis.base - u * axis.delta;
  return reach >= 0 && reach % axis.mul == 0 && reach / axis.mul < axis.size ? reach / axis.mul : -1;
}

extern "C" __global__ void __launch_bounds__(kThreads, 2) col2im(const T* cols, T* x, const Geometry g) {
  int c;
  Position p;
  if (!item(g, c, p)) return;
  cols += p.image * g.x_image + c * g.x_channel;
  float sum = 0.f;
  for (int u0 = 0; u0 < g.axis[0].taps; ++u0) {
    const int at0 = place_that_takes(g.axis[0], p.at[0], u0);
    if (at0 < 0) continue;
    for (int u1 = 0; u1 < g.axis[1].taps; ++u1) {
      const int at1 = place_that_takes(g.axis[1], p.at[1], u1);
      if (at1 < 0) continue;
      for (int u2 = 0; u2 < g.axis[2].taps; ++u2) {
        const int at2 = place_that_takes(g.axis[2], p.at[2], u2);
        if (at2 < 0) continue;
        const long long u = (u0 * g.axis[1].taps + u1) * g.axis[2].taps + u2;
        sum += load_float(cols + u * g.width + at0 * g.x_at[0] + at1 * g.x_at[1] + at2 * g.x_at[2]);
      }
    }
  }
  store(x + result_offset(g, p) + c * g.y_channel, sum);
}
