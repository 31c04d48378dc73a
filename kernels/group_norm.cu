// Group norm of images: y = (x - mean) * rstd * weight + bias, mean and rstd of each sample's groups of channels; and its
// gradients, with n = (x - mean) * rstd and g = dy * weight: dx = rstd * (g - mean(g) - n * mean(g * n)), means over a
// group; dweight = sum(dy * n), dbias = sum(dy) over samples and pixels. Contiguous images go forward by layer_norm.cu.
//
// x, dy, y, dx: samples x channels x pixels (PLANES) or samples x pixels x channels (LAST), DTYPE in {float, half, bfloat16}.
// weight, bias, dweight, dbias: channels, DTYPE; may be null. mean, rstd: samples x groups, float.
// partial: samples x chunks x 2 x channels, float: what a chunk of `span` pixels gives for each channel.
//   FORWARD_LAST     group_norm_moments (mean, sum of squares), then FINISH, then group_norm_apply: two reads, one write.
//   BACKWARD_LAST    group_norm_sums (of dy * n and of dy), then FINISH, then group_norm_gradient: two reads of both.
//   BACKWARD_PLANES  the same kernels for the other layout.
//   FINISH           group_norm_statistics, group_norm_means: the chunks and channels of a group put together.
// LAST: WIDTH lanes with VECTOR channels each, DEPTH threads along the pixels. PLANES: THREADS lanes to a chunk of a plane.
// Statistics are float32: of PACKS values at a time the mean, then centred squares, then put together pairwise. Source: Chan,
// Golub and LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.5.
// Limits: channels, pixels < 2^30. VECTOR > 1 needs channels (LAST) or pixels and span (PLANES) that are multiples of VECTOR,
// and addresses that are multiples of 16. A NaN stays in its group. y may be x, dx may be dy. No atomics: results repeat bit
// for bit.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: FORWARD_LAST DTYPE,VECTOR=float,4|half,8|float,1|half,1|bfloat16,1|bfloat16,8 WIDTH,DEPTH=8,32|32,8 PACKS=4 -> 96 registers, 0 spills
// compile: BACKWARD_LAST DTYPE,VECTOR=float,4|half,8|float,1|half,1|bfloat16,1|bfloat16,8 WIDTH,DEPTH=8,32|32,8 PACKS=2 -> 96 registers, 0 spills
// compile: BACKWARD_PLANES DTYPE,VECTOR=float,4|half,8|float,1|half,1|bfloat16,1|bfloat16,8 THREADS=32|256 PACKS=4 -> 96 registers, 0 spills
// compile: FINISH DTYPE=float|half|bfloat16 THREADS=256 -> 64 registers, 0 spills
#include "cuda_compat.cuh"

using T = DTYPE;  // not a macro: -DT=… breaks NVRTC's own header

#if defined(FORWARD_LAST) || defined(BACKWARD_LAST)

using VectorPack = Pack<T, VECTOR>;

constexpr int kBlock = WIDTH * DEPTH;

// Where this thread works: on VECTOR neighbouring channels of the pixels first, first + DEPTH, … below last of a sample.
// Block (sample * chunks + chunk) * tiles + tile.
struct Tile {
  long long sample, part;  // part: sample * chunks + chunk
  int lane, depth, channel, first, last, channels, pixels;

  __device__ Tile(int channels, int pixels, int chunks, int span) : channels(channels), pixels(pixels) {
    const int tiles = (channels + WIDTH * VECTOR - 1) / (WIDTH * VECTOR);
    lane = threadIdx.x % WIDTH;
    depth = threadIdx.x / WIDTH;
    part = blockIdx.x / tiles;
    sample = part / chunks;
    channel = ((int)(blockIdx.x % tiles) * WIDTH + lane) * VECTOR;
    const int begin = (int)(part % chunks) * span;
    first = begin + depth;
    last = channel < channels ? min(pixels, begin + span) : 0;  // threads beyond the last channel walk along with nothing
  }

  __device__ bool writes() const { return depth == 0 && channel < channels; }
  __device__ long long at(int pixel) const { return (sample * pixels + pixel) * channels + channel; }
  __device__ long long partial_at(int which) const { return (2 * part + which) * channels + channel; }
};

// A float for each of the thread's channels: `of_group` holds one for each group of each sample.
__device__ inline void load_of_group(const float* of_group, const Tile& tile, int groups, float (&values)[VECTOR]) {
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    values[i] = 0.f;
    if (tile.channel + i < tile.channels)
      values[i] = of_group[tile.sample * groups + (tile.channel + i) / (tile.channels / groups)];
  }
}

// A float for each of the thread's channels, where every sample has the same; `otherwise` where there is no array.
__device__ inline void load_of_channel(const T* of_channel, const Tile& tile, float otherwise, float (&values)[VECTOR]) {
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    values[i] = otherwise;
    if (of_channel != nullptr && tile.channel + i < tile.channels) values[i] = load_float(of_channel + tile.channel + i);
  }
}

#endif

#ifdef FORWARD_LAST

// partial: the mean and the sum of squares about it of each channel in each chunk.
extern "C" __global__ void __launch_bounds__(kBlock)
group_norm_moments(const T* x, float* partial, int channels, int pixels, int chunks, int span) {
  const Tile tile(channels, pixels, chunks, span);
  float count = 0.f, mean[VECTOR] = {}, square[VECTOR] = {};
  for (int first = tile.first; first < tile.last; first += DEPTH * PACKS) {
    VectorPack packs[PACKS] = {};
    int found = 0;
#pragma unroll
    for (int k = 0; k < PACKS; ++k) {
      if (first + k * DEPTH >= tile.last) continue;
      packs[k] = load_pack<VECTOR>(x + tile.at(first + k * DEPTH));
      ++found;
    }
    const float share = found / (count + found);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      float m = 0.f, s = 0.f;
#pragma unroll
      for (int k = 0; k < PACKS; ++k) m += to_float(packs[k].at[i]);  // beyond `found` they are 0
      m /= found;
#pragma unroll
      for (int k = 0; k < PACKS; ++k) {
        const float centred = k < found ? to_float(packs[k].at[i]) - m : 0.f;
        s += centred * centred;
      }
      const float away = m - mean[i];
      mean[i] += away * share;
      square[i] += s + away * away * count * share;
    }
    count += found;
  }

  __shared__ float counts[DEPTH][WIDTH], means[DEPTH][VECTOR][WIDTH], squares[DEPTH][VECTOR][WIDTH];
  counts[tile.depth][tile.lane] = count;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    means[tile.depth][i][tile.lane] = mean[i];
    squares[tile.depth][i][tile.lane] = square[i];
  }
  __syncthreads();
  if (!tile.writes()) return;
  for (int d = 1; d < DEPTH; ++d) {
    const float other = counts[d][tile.lane];
    if (other == 0.f) break;  // the chunk has ended
    const float share = other / (count + other);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const float away = means[d][i][tile.lane] - mean[i];
      mean[i] += away * share;
      square[i] += squares[d][i][tile.lane] + away * away * count * share;
    }
    count += other;
  }
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    partial[tile.partial_at(0) + i] = mean[i];
    partial[tile.partial_at(1) + i] = square[i];
  }
}

extern "C" __global__ void __launch_bounds__(kBlock)
group_norm_apply(const T* x, const T* weight, const T* bias, const float* mean, const float* rstd, T* y, int channels,
                 int groups, int pixels, int chunks, int span) {
  const Tile tile(channels, pixels, chunks, span);
  float m[VECTOR], scale[VECTOR], w[VECTOR], b[VECTOR];
  load_of_group(mean, tile, groups, m);
  load_of_group(rstd, tile, groups, scale);
  load_of_channel(weight, tile, 1.f, w);
  load_of_channel(bias, tile, 0.f, b);
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) scale[i] *= w[i];
#pragma unroll PACKS
  for (int pixel = tile.first; pixel < tile.last; pixel += DEPTH) {
    VectorPack pack = load_pack<VECTOR>(x + tile.at(pixel));
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) from_float((to_float(pack.at[i]) - m[i]) * scale[i] + b[i], pack.at[i]);
    store_pack(y + tile.at(pixel), pack);
  }
}

#endif

#ifdef BACKWARD_LAST

// partial: sum(dy * n) and sum(dy) of each channel in each chunk.
extern "C" __global__ void __launch_bounds__(kBlock)
group_norm_sums(const T* dy, const T* x, const float* mean, const float* rstd, float* partial, int channels, int groups,
                int pixels, int chunks, int span) {
  const Tile tile(channels, pixels, chunks, span);
  float m[VECTOR], r[VECTOR], products[VECTOR] = {}, sums[VECTOR] = {};
  load_of_group(mean, tile, groups, m);
  load_of_group(rstd, tile, groups, r);
#pragma unroll PACKS
  for (int pixel = tile.first; pixel < tile.last; pixel += DEPTH) {
    const VectorPack dys = load_pack<VECTOR>(dy + tile.at(pixel)), xs = load_pack<VECTOR>(x + tile.at(pixel));
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      products[i] += to_float(dys.at[i]) * ((to_float(xs.at[i]) - m[i]) * r[i]);
      sums[i] += to_float(dys.at[i]);
    }
  }

  __shared__ float part[2][DEPTH][VECTOR][WIDTH];
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    part[0][tile.depth][i][tile.lane] = products[i];
    part[1][tile.depth][i][tile.lane] = sums[i];
  }
  __syncthreads();
  if (!tile.writes()) return;
#pragma unroll
  for (int i = 0; i < VECTOR; ++i) {
    for (int d = 1; d < DEPTH; ++d) {
      products[i] += part[0][d][i][tile.lane];
      sums[i] += part[1][d][i][tile.lane];
    }
    partial[tile.partial_at(0) + i] = products[i];
    partial[tile.partial_at(1) + i] = sums[i];
  }
}

// product, total: mean(g * n) and mean(g) of each group.
extern "C" __global__ void __launch_bounds__(kBlock)
group_norm_gradient(const T* dy, const T* x, const T* weight, const float* mean, const float* rstd, const float* product,
                    const float* total, T* dx, int channels, int groups, int pixels, int chunks, int span) {
  const Tile tile(channels, pixels, chunks, span);
  float m[VECTOR], r[VECTOR], w[VECTOR], slope[VECTOR], shift[VECTOR];
  load_of_group(mean, tile, groups, m);
  load_of_group(rstd, tile, groups, r);
  load_of_group(product, tile, groups, slope);
  load_of_group(total, tile, groups, shift);
  load_of_channel(weight, tile, 1.f, w);
#pragma unroll PACKS
  for (int pixel = tile.first; pixel < tile.last; pixel += DEPTH) {
    VectorPack dys = load_pack<VECTOR>(dy + tile.at(pixel));
    const VectorPack xs = load_pack<VECTOR>(x + tile.at(pixel));
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const float n = (to_float(xs.at[i]) - m[i]) * r[i];
      from_float(r[i] * (to_float(dys.at[i]) * w[i] - shift[i] - n * slope[i]), dys.at[i]);
    }
    store_pack(dx + tile.at(pixel), dys);
  }
}

#endif

#ifdef BACKWARD_PLANES

using VectorPack = Pack<T, VECTOR>;

constexpr int kBlock = THREADS < 128 ? 128 : THREADS;  // a block has one chunk of a plane, or several

// A chunk of the plane of one channel of one sample, in the order (sample, chunk, channel).
struct Plane {
  long long part, start;  // part: sample * chunks + chunk; start: the offset of the chunk's first element
  int lane, channel, packs;
  long long group;        // among those of all samples

  __device__ Plane(int samples, int channels, int groups, int pixels, int chunks, int span) {
    const long long index = (long long)blockIdx.x * (kBlock / THREADS) + threadIdx.x / THREADS;
    lane = threadIdx.x % THREADS;
    channel = (int)(index % channels);
    part = index / channels;
    const long long sample = part / chunks;
    const int begin = (int)(part % chunks) * span;
    start = (sample * channels + channel) * pixels + begin;
    group = sample * groups + channel / (channels / groups);
    packs = sample < samples ? min(span, pixels - begin) / VECTOR : 0;  // lanes beyond the last walk along with none
  }

  __device__ bool exists() const { return packs > 0; }
  __device__ long long at(int pack) const { return start + (long long)pack * VECTOR; }
};

extern "C" __global__ void __launch_bounds__(kBlock)
group_norm_sums(const T* dy, const T* x, const float* mean, const float* rstd, float* partial, int samples, int channels,
                int groups, int pixels, int chunks, int span) {
  const Plane plane(samples, channels, groups, pixels, chunks, span);
  const float m = plane.exists() ? mean[plane.group] : 0.f, r = plane.exists() ? rstd[plane.group] : 0.f;
  float product = 0.f, sum = 0.f;
#pragma unroll PACKS
  for (int pack = plane.lane; pack < plane.packs; pack += THREADS) {
    const VectorPack dys = load_pack<VECTOR>(dy + plane.at(pack)), xs = load_pack<VECTOR>(x + plane.at(pack));
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      product += to_float(dys.at[i]) * ((to_float(xs.at[i]) - m) * r);
      sum += to_float(dys.at[i]);
    }
  }
  product = warp_sum(product);
  sum = warp_sum(sum);
  if (THREADS > 32) {
    __shared__ float of_warp[2][THREADS / 32];
    if (threadIdx.x % 32 == 0) of_warp[0][threadIdx.x / 32] = product;
    if (threadIdx.x % 32 == 0) of_warp[1][threadIdx.x / 32] = sum;
    __syncthreads();
    product = warp_sum<THREADS / 32>(of_warp[0][threadIdx.x % (THREADS / 32)]);
    sum = warp_sum<THREADS / 32>(of_warp[1][threadIdx.x % (THREADS / 32)]);
  }
  if (plane.lane != 0 || !plane.exists()) return;
  partial[2 * plane.part * channels + plane.channel] = product;
  partial[(2 * plane.part + 1) * channels + plane.channel] = sum;
}

extern "C" __global__ void __launch_bounds__(kBlock)
group_norm_gradient(const T* dy, const T* x, const T* weight, const float* mean, const float* rstd, const float* product,
                    const float* total, T* dx, int samples, int channels, int groups, int pixels, int chunks, int span) {
  const Plane plane(samples, channels, groups, pixels, chunks, span);
  if (!plane.exists()) return;
  const float m = mean[plane.group], r = rstd[plane.group], slope = product[plane.group], shift = total[plane.group];
  const float w = weight != nullptr ? load_float(weight + plane.channel) : 1.f;
#pragma unroll PACKS
  for (int pack = plane.lane; pack < plane.packs; pack += THREADS) {
    VectorPack dys = load_pack<VECTOR>(dy + plane.at(pack));
    const VectorPack xs = load_pack<VECTOR>(x + plane.at(pack));
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) {
      const float n = (to_float(xs.at[i]) - m) * r;
      from_float(r * (to_float(dys.at[i]) * w - shift - n * slope), dys.at[i]);
    }
    store_pack(dx + plane.at(pack), dys);
  }
}

#endif

#ifdef FINISH

// Sums over the block's THREADS threads, for all of them; called once in a kernel.
__device__ inline void block_sums(float (&values)[2]) {
  __shared__ float of_warp[2][THREADS / 32];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    values[i] = warp_sum(values[i]);
    if (threadIdx.x % 32 == 0) of_warp[i][threadIdx.x / 32] = values[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2; ++i) values[i] = warp_sum<THREADS / 32>(of_warp[i][threadIdx.x % (THREADS / 32)]);
}

// mean and rstd of group blockIdx.x from its channels' means and sums of squares, taken about the first of them.
extern "C" __global__ void __launch_bounds__(THREADS)
group_norm_statistics(const float* partial, float* mean, float* rstd, int channels, int groups, int pixels, int chunks,
                      int span, float eps) {
  const int per_group = channels / groups, first = (int)(blockIdx.x % groups) * per_group;
  const float* const sample = partial + (long long)(blockIdx.x / groups) * chunks * 2 * channels;
  const float about = sample[first];
  float sums[2] = {0.f, 0.f};
  for (int item = threadIdx.x; item < chunks * per_group; item += THREADS) {
    const int chunk = item / per_group;
    const float* const of_chunk = sample + 2ll * chunk * channels + first + item % per_group;
    const float count = min(span, pixels - chunk * span), away = of_chunk[0] - about;
    sums[0] += count * away;
    sums[1] += of_chunk[channels] + count * away * away;
  }
  block_sums(sums);
  const float count = (float)per_group * pixels, shift = sums[0] / count;
  if (threadIdx.x != 0) return;
  mean[blockIdx.x] = about + shift;
  rstd[blockIdx.x] = 1.f / sqrtf((sums[1] - shift * sums[0]) / count + eps);
}

// The first samples * groups blocks: product and total, mean(g * n) and mean(g) of a group. The others, each for 32 channels:
// dweight and dbias.
extern "C" __global__ void __launch_bounds__(THREADS)
group_norm_means(const float* partial, const T* weight, float* product, float* total, T* dweight, T* dbias, int samples,
                 int channels, int groups, int pixels, int chunks) {
  const long long group = blockIdx.x, all = (long long)samples * groups;
  float sums[2] = {0.f, 0.f};
  if (group >= all) {
    __shared__ float of_depth[2][THREADS / 32][32];
    const int lane = threadIdx.x % 32, depth = threadIdx.x / 32;
    const long long channel = (group - all) * 32 + lane;
    const long long parts = channel < channels ? (long long)samples * chunks : 0;
#pragma unroll 4
    for (long long part = depth; part < parts; part += THREADS / 32) {
      sums[0] += partial[2 * part * channels + channel];
      sums[1] += partial[(2 * part + 1) * channels + channel];
    }
    of_depth[0][depth][lane] = sums[0];
    of_depth[1][depth][lane] = sums[1];
    __syncthreads();
    if (depth != 0 || channel >= channels) return;
    for (int d = 1; d < THREADS / 32; ++d) {
      sums[0] += of_depth[0][d][lane];
      sums[1] += of_depth[1][d][lane];
    }
    if (dweight != nullptr) store(dweight + channel, sums[0]);
    if (dbias != nullptr) store(dbias + channel, sums[1]);
    return;
  }
  const int per_group = channels / groups, first = (int)(group % groups) * per_group;
  const float* const sample = partial + group / groups * chunks * 2 * channels;
  for (int item = threadIdx.x; item < chunks * per_group; item += THREADS) {
    const int channel = first + item % per_group;
    const float* const of_chunk = sample + 2ll * (item / per_group) * channels + channel;
    const float w = weight != nullptr ? load_float(weight + channel) : 1.f;
    sums[0] += w * of_chunk[0];
    sums[1] += w * of_chunk[channels];
  }
  block_sums(sums);
  if (threadIdx.x != 0) return;
  product[group] = sums[0] / ((float)per_group * pixels);
  total[group] = sums[1] / ((float)per_group * pixels);
}

#endif
