// Batch normalisation: y = relu((x - mean) * a + bias + residual), a = weight / sqrt(var + eps), per channel.
//   MOMENTS   batch_norm_moments: count, mean and sum of squared deviations of a part of each channel.
//   FORWARD   batch_norm_forward: y.
//   SUMS      batch_norm_backward_sums: with g = dy, or 0 where a ReLU gave y <= 0, and n = (x - mean) / sqrt(var + eps):
//             sum(g) and sum(g n) of a part of each channel.
//   BACKWARD  batch_norm_backward: dx = a (g - (sum(g) + n sum(g n)) / count) in training, a g with frozen statistics.
//             dresidual = g where it is wanted.
//   FINISH    batch_norm_finish and batch_norm_backward_finish put the parts of each channel together, in their order.
//
// x, y, residual, dy, dx, dresidual, weight, bias: DTYPE in {float, half, bfloat16}; statistics and sums float32.
// LANES = 1: images x channels x inner, contiguous; a block walks along a channel, VECTOR neighbours of a plane at a time.
// LANES > 1: images (all pixels) x channels, contiguous, inner = 1; LANES threads beside each other, VECTOR channels each.
// RANKS threads share a channel; PACKS packs are loaded at a time. A channel is cut into `splits` parts of `share` packs.
// Limits: VECTOR > 1 needs addresses that are multiples of VECTOR elements, and inner (or channels) too.
// Arrays that `flags` does not name are not touched. In place is allowed: dresidual may be dy, dx may be dy or dresidual.
// A part's deviations are taken from the part's own mean and parts are merged, so no square of a mean is subtracted from
// a mean of squares. No atomics: results repeat bit for bit. Source: Ioffe and Szegedy 2015, arXiv 1502.03167; Chan,
// Golub and LeVeque 1983, "Algorithms for computing the sample variance" (merging).
// Has not run on hardware yet.
//
// architectures: 75 80 90 100 120
// compile: MOMENTS LANES,RANKS=1,256|8,32 PACKS=4 DTYPE,VECTOR=float,1|half,1|bfloat16,1|float,4|half,8|bfloat16,8 -> 96 registers, 0 spills
// compile: FORWARD LANES,RANKS=1,256|8,32 PACKS=4 DTYPE,VECTOR=float,1|half,1|bfloat16,1|float,4|half,8|bfloat16,8 -> 112 registers, 0 spills
// compile: SUMS LANES,RANKS=1,256|8,32 PACKS=2 DTYPE,VECTOR=float,1|half,1|bfloat16,1|float,4|half,8|bfloat16,8 -> 112 registers, 0 spills
// compile: BACKWARD LANES,RANKS=1,256|8,32 PACKS=2 DTYPE,VECTOR=float,1|half,1|bfloat16,1|float,4|half,8|bfloat16,8 -> 128 registers, 0 spills
// compile: FINISH -> 48 registers, 0 spills
#include "cuda_compat.cuh"

// Values that were seen, their mean, and the sum of their squared deviations from it.
struct Moments {
  float count = 0.f, mean = 0.f, deviation = 0.f;

  __device__ void merge(const Moments& other) {
    if (other.count == 0.f) return;
    const float total = count + other.count, apart = other.mean - mean, share = other.count / total;
    mean += apart * share;
    deviation += other.deviation + apart * apart * count * share;
    count = total;
  }
};

struct Sums {
  float first = 0.f, second = 0.f;

  __device__ void merge(const Sums& other) {
    first += other.first;
    second += other.second;
  }
};

#ifndef FINISH

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header
using VectorPack = Pack<T, VECTOR>;

constexpr int kBlock = RANKS * LANES;
constexpr int kChannels = LANES > 1 ? VECTOR : 1;  // channels in a pack
constexpr int kEach = VECTOR / kChannels;  // values of a channel in a pack

constexpr int kRelu = 1, kResidual = 2, kTraining = 4, kWeight = 8, kBias = 16;  // what `flags` names

// The packs of this thread: first, first + RANKS, … before stop, all of the same channels.
struct Walk {
  long long channels, inner, first, stop, split;
  int rank, lane;
  long long channel;  // the first of a pack; channels and more for threads beyond the last one, which have no packs

  __device__ Walk(long long images, long long channels, long long inner, long long share)
      : channels(channels), inner(inner) {
    rank = threadIdx.x / LANES;
    lane = threadIdx.x % LANES;
    const long long across = (channels + LANES * kChannels - 1) / (LANES * kChannels);
    channel = (blockIdx.x % across * LANES + lane) * kChannels;
    split = blockIdx.x / across;
    const long long end = split * share + share, packs = images * (inner / kEach);
    first = split * share + rank;
    stop = channel >= channels ? 0 : end < packs ? end : packs;
  }

  __device__ bool has(long long pack) const { return pack < stop; }

  // Where a pack begins.
  __device__ long long at(long long pack) const {
    const long long in_plane = inner / kEach;
    return (pack / in_plane * channels + channel) * inner + pack % in_plane * kEach;
  }
};

// Puts together what the RANKS threads of each lane have, always in the same order; rank 0 gets the result.
template <class Part> __device__ inline void merge_ranks(const Walk& walk, Part (&part)[kChannels]) {
  __shared__ float memory[kBlock * kChannels * (sizeof(Part) / sizeof(float))];
  Part* const parts = reinterpret_cast<Part*>(memory);
  for (int step = RANKS / 2; step > 0; step /= 2) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) parts[c * kBlock + threadIdx.x] = part[c];
    __syncthreads();
    if (walk.rank < step) {
#pragma unroll
      for (int c = 0; c < kChannels; ++c) part[c].merge(parts[c * kBlock + threadIdx.x + step * LANES]);
    }
    __syncthreads();
  }
}

// What the values of a channel are multiplied and shifted by.
struct Channel {
  float mean, rstd, weight, bias;

  __device__ Channel(const float* means, const float* vars, const T* weights, const T* biases, float eps, int flags,
                     const Walk& walk, int c) {
    const bool valid = walk.channel < walk.channels;
    mean = valid ? means[walk.channel + c] : 0.f;
    rstd = valid ? 1.f / sqrtf(vars[walk.channel + c] + eps) : 0.f;
    weight = valid && flags & kWeight ? load_float(weights + walk.channel + c) : 1.f;
    bias = valid && flags & kBias ? load_float(biases + walk.channel + c) : 0.f;
  }
};

// dy, or 0 where the ReLU gave 0. The gradient passes where y is NaN.
__device__ inline float masked(float dy, float y) { return y <= 0.f ? 0.f : dy; }

#endif  // FINISH

#ifdef MOMENTS

// partial: splits x 3 x channels.
extern "C" __global__ void __launch_bounds__(kBlock)
batch_norm_moments(const T* x, float* partial, long long images, long long channels, long long inner, long long share) {
  const Walk walk(images, channels, inner, share);
  Moments moments[kChannels];
  for (long long pack = walk.first; walk.has(pack); pack += RANKS * PACKS) {
    VectorPack packs[PACKS];
    int valid = 0;
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if (walk.has(pack + k * RANKS)) {
        packs[k] = load_pack<VECTOR>(x + walk.at(pack + k * RANKS));
        valid = k + 1;
      }
    }
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {  // a few values by their own mean, then put to the others
      Moments few;
      few.count = valid * kEach;
#pragma unroll
      for (int i = 0; i < PACKS * kEach; ++i)
        if (i / kEach < valid) few.mean += to_float(packs[i / kEach].at[i % kEach * kChannels + c]);
      few.mean /= few.count;
#pragma unroll
      for (int i = 0; i < PACKS * kEach; ++i) {
        if (i / kEach < valid) {
          const float apart = to_float(packs[i / kEach].at[i % kEach * kChannels + c]) - few.mean;
          few.deviation += apart * apart;
        }
      }
      moments[c].merge(few);
    }
  }
  merge_ranks(walk, moments);
  if (walk.rank == 0 && walk.channel < channels) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      float* const to = partial + walk.split * 3 * channels + walk.channel + c;
      to[0] = moments[c].count;
      to[channels] = moments[c].mean;
      to[2 * channels] = moments[c].deviation;
    }
  }
}

#endif  // MOMENTS

#ifdef FORWARD

extern "C" __global__ void __launch_bounds__(kBlock)
batch_norm_forward(const T* x, const T* residual, const float* mean, const float* var, const T* weight, const T* bias,
                   T* y, long long images, long long channels, long long inner, long long share, float eps, int flags) {
  const Walk walk(images, channels, inner, share);
  float means[kChannels], scales[kChannels], shifts[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const Channel channel(mean, var, weight, bias, eps, flags, walk, c);
    means[c] = channel.mean;
    scales[c] = channel.rstd * channel.weight;
    shifts[c] = channel.bias;
  }
#pragma unroll PACKS
  for (long long pack = walk.first; walk.has(pack); pack += RANKS) {
    const long long at = walk.at(pack);
    VectorPack values = load_pack<VECTOR>(x + at), added;
    if (flags & kResidual) added = load_pack<VECTOR>(residual + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const int c = i % kChannels;
      float result = (to_float(values.at[i]) - means[c]) * scales[c] + shifts[c];
      if (flags & kResidual) result += to_float(added.at[i]);
      if (flags & kRelu) result = result <= 0.f ? 0.f : result;  // NaN stays
      from_float(result, values.at[i]);
    }
    store_pack(y + at, values);
  }
}

#endif  // FORWARD

#ifdef SUMS

// partial: splits x 2 x channels.
extern "C" __global__ void __launch_bounds__(kBlock)
batch_norm_backward_sums(const T* dy, const T* x, const T* y, const float* mean, const float* var, float* partial,
                         long long images, long long channels, long long inner, long long share, float eps, int flags) {
  const Walk walk(images, channels, inner, share);
  float means[kChannels], rstds[kChannels];
  Sums sums[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const Channel channel(mean, var, nullptr, nullptr, eps, 0, walk, c);
    means[c] = channel.mean;
    rstds[c] = channel.rstd;
  }
#pragma unroll PACKS
  for (long long pack = walk.first; walk.has(pack); pack += RANKS) {
    const long long at = walk.at(pack);
    const VectorPack gradients = load_pack<VECTOR>(dy + at), values = load_pack<VECTOR>(x + at);
    VectorPack results;
    if (flags & kRelu) results = load_pack<VECTOR>(y + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const int c = i % kChannels;
      float g = to_float(gradients.at[i]);
      if (flags & kRelu) g = masked(g, to_float(results.at[i]));
      sums[c].first += g;
      sums[c].second += g * ((to_float(values.at[i]) - means[c]) * rstds[c]);
    }
  }
  merge_ranks(walk, sums);
  if (walk.rank == 0 && walk.channel < channels) {
#pragma unroll
    for (int c = 0; c < kChannels; ++c) {
      float* const to = partial + walk.split * 2 * channels + walk.channel + c;
      to[0] = sums[c].first;
      to[channels] = sums[c].second;
    }
  }
}

#endif  // SUMS

#ifdef BACKWARD

// sums: 2 x channels.
extern "C" __global__ void __launch_bounds__(kBlock)
batch_norm_backward(const T* dy, const T* x, const T* y, const float* mean, const float* var, const T* weight,
                    const float* sums, T* dx, T* dresidual, long long images, long long channels, long long inner,
                    long long share, float eps, float reciprocal_count, int flags) {
  const Walk walk(images, channels, inner, share);
  float means[kChannels], rstds[kChannels], weights[kChannels], firsts[kChannels], seconds[kChannels];
#pragma unroll
  for (int c = 0; c < kChannels; ++c) {
    const Channel channel(mean, var, weight, nullptr, eps, flags & kWeight, walk, c);
    means[c] = channel.mean;
    rstds[c] = channel.rstd;
    weights[c] = channel.rstd * channel.weight;
    const bool valid = walk.channel < channels && flags & kTraining;
    firsts[c] = valid ? sums[walk.channel + c] * reciprocal_count : 0.f;
    seconds[c] = valid ? sums[channels + walk.channel + c] * reciprocal_count : 0.f;
  }
#pragma unroll PACKS
  for (long long pack = walk.first; walk.has(pack); pack += RANKS) {
    const long long at = walk.at(pack);
    VectorPack gradients = load_pack<VECTOR>(dy + at), values, results;
    if (flags & kTraining) values = load_pack<VECTOR>(x + at);
    if (flags & kRelu) results = load_pack<VECTOR>(y + at);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const int c = i % kChannels;
      float g = to_float(gradients.at[i]);
      if (flags & kRelu) g = masked(g, to_float(results.at[i]));
      from_float(g, gradients.at[i]);
      if (flags & kTraining) g -= firsts[c] + (to_float(values.at[i]) - means[c]) * rstds[c] * seconds[c];
      from_float(g * weights[c], results.at[i]);
    }
    if (flags & kResidual) store_pack(dresidual + at, gradients);
    store_pack(dx + at, results);
  }
}

#endif  // BACKWARD

#ifdef FINISH

// partial: splits x 3 x channels; var is the biased one.
extern "C" __global__ void __launch_bounds__(128)
batch_norm_finish(const float* partial, float* mean, float* var, long long splits, long long channels) {
  const long long channel = (long long)blockIdx.x * 128 + threadIdx.x;
  if (channel >= channels) return;
  Moments whole;
  for (long long split = 0; split < splits; ++split) {
    const float* const from = partial + split * 3 * channels + channel;
    Moments part;
    part.count = from[0];
    part.mean = from[channels];
    part.deviation = from[2 * channels];
    whole.merge(part);
  }
  mean[channel] = whole.mean;
  var[channel] = whole.deviation / whole.count;
}

// partial: splits x 2 x channels; sums: 2 x channels.
extern "C" __global__ void __launch_bounds__(128)
batch_norm_backward_finish(const float* partial, float* sums, long long splits, long long channels) {
  const long long channel = (long long)blockIdx.x * 128 + threadIdx.x;
  if (channel >= channels) return;
  Sums whole;
  for (long long split = 0; split < splits; ++split) {
    const float* const from = partial + split * 2 * channels + channel;
    Sums part;
    part.first = from[0];
    part.second = from[channels];
    whole.merge(part);
  }
  sums[channel] = whole.first;
  sums[channels + channel] = whole.second;
}

#endif  // FINISH
