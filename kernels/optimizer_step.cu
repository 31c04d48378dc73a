// adam_step: M = beta1 M + g, V = beta2 V + g^2, p = p - scale M / (sqrt(V) + eps): Adam with the constant factors of its
//            moments, (1 - beta1) and (1 - beta2), in `scale` and `eps`. numbers: beta1, beta2, eps, scale, weight_decay, keep.
// sgd_step:  v = momentum v + gain g, p = p - lr v; with NESTEROV p = p - lr (g + momentum v); without MOMENTUM p = p - lr g.
//            numbers: lr, momentum, gain, weight_decay.
//
// One launch updates many stretches of flat arrays. p, g: DTYPE in {float, half, bfloat16}; states and master: float32.
// pieces: gridDim.x x 3 int64, block b's first element, end, and first number; first and end are multiples of VECTOR, pieces
// do not overlap, every array starts on a 16-byte boundary. numbers: float32, of this step, read from the device.
// DECAY 0: none. DECAY 1: g = g + weight_decay p first. DECAY 2 (Adam): p = keep p first.
// 16-bit p is computed in master, a float32 copy. Where p is not what the copy rounds to (somebody wrote a value), it is
// taken over first. clip: (norm, factor) or null; g is multiplied by factor.
// Reads and writes each element once; arithmetic in float32. Any NaN stays in its element.
// Source: Kingma & Ba 2014, arXiv 1412.6980; Loshchilov & Hutter 2017, arXiv 1711.05101; Sutskever et al. 2013.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: ADAM DTYPE,VECTOR=float,4|half,8|bfloat16,8 DECAY=0|1|2 -> 64 registers, 0 spills
// compile: SGD DTYPE,VECTOR=float,4|half,8|bfloat16,8 MOMENTUM,NESTEROV=0,0|1,0|1,1 DECAY=0|1 -> 64 registers, 0 spills
#include "floats.cuh"

using T = DTYPE;
using Values = Floats<VECTOR>;

constexpr bool kHasMaster = sizeof(T) == 2;

struct Piece {
  long long first, end;
  const float* numbers;

  __device__ Piece(const long long* pieces, const float* all_numbers) {
    const long long* mine = pieces + 3 * (long long)blockIdx.x;
    first = mine[0] + (long long)threadIdx.x * VECTOR;
    end = mine[1];
    numbers = all_numbers + mine[2];
  }
};

// The parameters in float32: p itself, or its master copy brought up to date.
__device__ inline Values parameters(const T* p, const float* master) {
  Values value = load_floats<VECTOR>(p);
  if (kHasMaster) {
    const Values exact = load_floats<VECTOR>(master);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      T rounded;
      from_float(exact.at[i], rounded);
      if (to_float(rounded) == value.at[i]) value.at[i] = exact.at[i];
    }
  }
  return value;
}

__device__ inline void write_back(const Values& value, T* p, float* master) {
  if (kHasMaster) store_floats(master, value);
  store_floats(p, value);
}

#ifdef ADAM

extern "C" __global__ void __launch_bounds__(256) adam_step(
    T* p, const T* g, float* master, float* m, float* v, const float* numbers, const long long* pieces, const float* clip) {
  const Piece piece(pieces, numbers);
  const float beta1 = piece.numbers[0], beta2 = piece.numbers[1], eps = piece.numbers[2], scale = piece.numbers[3];
  const float weight_decay = piece.numbers[4], keep = piece.numbers[5];
  const float factor = clip ? clip[1] : 1.f;
  for (long long at = piece.first; at < piece.end; at += (long long)blockDim.x * VECTOR) {
    Values value = parameters(p + at, master + at);
    const Values gradient = load_floats<VECTOR>(g + at);
    Values first = load_floats<VECTOR>(m + at), second = load_floats<VECTOR>(v + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      float slope = gradient.at[i] * factor;
      if (DECAY == 1) slope += weight_decay * value.at[i];
      if (DECAY == 2) value.at[i] *= keep;
      first.at[i] = beta1 * first.at[i] + slope;
      second.at[i] = beta2 * second.at[i] + slope * slope;
      value.at[i] -= scale * (first.at[i] / (sqrtf(second.at[i]) + eps));
    }
    store_floats(m + at, first);
    store_floats(v + at, second);
    write_back(value, p + at, master + at);
  }
}

#endif  // ADAM

#ifdef SGD

extern "C" __global__ void __launch_bounds__(256) sgd_step(
    T* p, const T* g, float* master, float* velocity, const float* numbers, const long long* pieces, const float* clip) {
  const Piece piece(pieces, numbers);
  const float lr = piece.numbers[0], momentum = piece.numbers[1], gain = piece.numbers[2], weight_decay = piece.numbers[3];
  const float factor = clip ? clip[1] : 1.f;
  for (long long at = piece.first; at < piece.end; at += (long long)blockDim.x * VECTOR) {
    Values value = parameters(p + at, master + at);
    Values gradient = load_floats<VECTOR>(g + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      gradient.at[i] *= factor;
      if (DECAY) gradient.at[i] += weight_decay * value.at[i];
    }
    if constexpr (MOMENTUM) {
      Values moving = load_floats<VECTOR>(velocity + at);
#pragma unroll
      for (int i = 0; i < VECTOR; ++i) {
        moving.at[i] = momentum * moving.at[i] + gain * gradient.at[i];
        gradient.at[i] = NESTEROV ? gradient.at[i] + momentum * moving.at[i] : moving.at[i];
      }
      store_floats(velocity + at, moving);
    }
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) value.at[i] -= lr * gradient.at[i];
    write_back(value, p + at, master + at);
  }
}

#endif  // SGD
