// activation_forward:  y = residual + keep * f(z + bias), elementwise.
// activation_backward: dz = dy * keep * f'(z + bias), elementwise.
// learned_forward:  y = f(z; w), with a parameter w of each channel, or of all together.
// learned_backward: dz = dy * f'(z; w), and what each block has of dw = sum of dy * df/dw over its channel.
//
// f is ACTIVATION, one of the table below, with parameters a and b. z, y, residual, dy, dz: DTYPE in {float, half, bfloat16},
// rows x cols, row-major contiguous; arithmetic in float32, rounded once. rows, cols >= 1.
// BIAS 1: bias has cols elements of DTYPE, one for each column; else it is null.
// DROPOUT 1: keep is 0 where word `4 counter + skip + i` of Philox stream `key` is below `threshold`, else `kept`, for
// element i in row-major order. The backward draws the same words again; nothing is stored. Else keep is 1.
// RESIDUAL 1: residual is added at the end; its gradient is dy itself. Else it is null.
// learned: one float32 number that stands for a, or null.
// FROM_OUTPUT 1 (backward, where the table has it): z is what the forward returned, f' is taken from it; without BIAS,
// DROPOUT and RESIDUAL. In place is allowed (y may be z or residual, dz may be dy or z).
// VECTOR > 1 (16 bytes) needs addresses that are multiples of 16 and cols a multiple of VECTOR, or rows = 1: then the last
// cols % VECTOR elements are done one by one. NaN stays in its element, and every element that was NaN is NaN.
// Each of WIDTH threads beside each other walks down its columns; blockDim.x / WIDTH rows at a time.
// learned_*: w: `channels` floats, which stand for a, with ROWS or COLUMNS defined in place of the macros above.
//   ROWS     z: outer x channels x inner, contiguous. A block has `chunk` elements of one row of inner, or what is left, of
//            `parts` in it; partial: channels x (outer * parts) floats.
//   COLUMNS  z: outer x channels, contiguous (inner is 1). Blocks of 32 x 8 threads, 32 * VECTOR columns by `chunk` rows
//            each, of `parts` below each other; partial: parts x channels floats.
// VECTOR > 1 needs addresses that are multiples of 16, and inner (ROWS) or channels (COLUMNS) and chunk a multiple of it.
// Sums in float32 and in an order that does not depend on the schedule. In place is allowed as above.
// Has not run on hardware yet.
//
// architectures: 75 80 86 89 90 100 120
// compile: ACTIVATION=gelu|relu|mish DTYPE,VECTOR=float,4|half,8|bfloat16,8 BIAS=0 DROPOUT=0 RESIDUAL=0 FROM_OUTPUT=0 -> 64 registers, 0 spills
// compile: ACTIVATION=elu|celu|gelu_tanh|hardshrink|hardsigmoid|hardswish|hardtanh|leaky_relu|logsigmoid|sigmoid|softplus|softshrink|softsign|swish|tanh_|tanhshrink|threshold_|identity DTYPE,VECTOR=float,4 BIAS=0 DROPOUT=0 RESIDUAL=0 FROM_OUTPUT=0 -> 64 registers, 0 spills
// compile: ACTIVATION=relu|sigmoid|tanh_ DTYPE,VECTOR=bfloat16,8 BIAS=0 DROPOUT=0 RESIDUAL=0 FROM_OUTPUT=1 -> 48 registers, 0 spills
// compile: ACTIVATION=gelu DTYPE,VECTOR=float,4|bfloat16,8|half,1 BIAS=0|1 DROPOUT=1 RESIDUAL=0|1 FROM_OUTPUT=0 -> 96 registers, 0 spills
// compile: ROWS ACTIVATION=swish|leaky_relu DTYPE,VECTOR=float,4|half,8|bfloat16,8|float,1|half,1|bfloat16,1 -> 64 registers, 0 spills
// compile: COLUMNS ACTIVATION=swish|leaky_relu DTYPE,VECTOR=float,4|half,8|bfloat16,8|float,1|half,1|bfloat16,1 -> 72 registers, 0 spills
#include "floats.cuh"
#include "philox.cuh"

using T = DTYPE;

// ---- the table: f(x), f'(x), and f' by y = f(x) where that is exact

constexpr float kHuge = 1e30f;  // finite, and beyond every x that matters: no inf * 0
constexpr float kFar = 40.f;    // beyond, every form of the normal distribution function is 0 or 1 to the last digit

// Not fmaxf and fminf, which lose a NaN.
__device__ inline float at_least(float x, float low) { return x < low ? low : x; }
__device__ inline float at_most(float x, float high) { return x > high ? high : x; }
__device__ inline float between(float x, float low, float high) { return at_most(at_least(x, low), high); }
__device__ inline float logistic(float x) { return 1.f / (1.f + expf(-x)); }

struct NoOutputForm {
  __device__ static float slope_by_output(float y) { return y; }
};

struct identity : NoOutputForm {
  __device__ static float value(float x, float, float) { return x; }
  __device__ static float slope(float, float, float) { return 1.f; }
};

struct relu {
  __device__ static float value(float x, float, float) { return at_least(x, 0.f); }
  __device__ static float slope(float x, float, float) { return x > 0.f ? 1.f : 0.f; }
  __device__ static float slope_by_output(float y) { return y > 0.f ? 1.f : 0.f; }
};

struct leaky_relu : NoOutputForm {  // a: slope below 0
  __device__ static float value(float x, float a, float) { return x > 0.f ? x : a * x; }
  __device__ static float slope(float x, float a, float) { return x > 0.f ? 1.f : a; }
  __device__ static float share(float x, float) { return x > 0.f ? 0.f : x; }  // df/da
};

struct hardtanh : NoOutputForm {  // a, b: bounds
  __device__ static float value(float x, float a, float b) { return between(x, a, b); }
  __device__ static float slope(float x, float a, float b) { return x > a && x < b ? 1.f : 0.f; }
};

struct hardsigmoid : NoOutputForm {
  __device__ static float value(float x, float, float) { return between(x + 3.f, 0.f, 6.f) / 6.f; }
  __device__ static float slope(float x, float, float) { return x > -3.f && x < 3.f ? 1.f / 6.f : 0.f; }
};

struct hardswish : NoOutputForm {
  __device__ static float value(float x, float, float) {
    return between(x + 3.f, 0.f, 6.f) * at_least(x, -3.f) / 6.f;
  }
  __device__ static float slope(float x, float, float) { return x <= -3.f ? 0.f : x >= 3.f ? 1.f : x / 3.f + 0.5f; }
};

struct hardshrink : NoOutputForm {  // a: threshold
  __device__ static float value(float x, float a, float) { return fabsf(x) > a ? x : x * 0.f; }
  __device__ static float slope(float x, float a, float) { return fabsf(x) > a ? 1.f : 0.f; }
};

struct softshrink : NoOutputForm {  // a: threshold
  __device__ static float value(float x, float a, float) { return x - between(x, -a, a); }
  __device__ static float slope(float x, float a, float) { return fabsf(x) > a ? 1.f : 0.f; }
};

struct threshold_ : NoOutputForm {  // a: threshold, b: value below
  __device__ static float value(float x, float a, float b) { return x <= a ? b : x; }
  __device__ static float slope(float x, float a, float) { return x > a ? 1.f : 0.f; }
};

struct elu : NoOutputForm {  // a: limit below, with its sign turned; b: slope above
  __device__ static float value(float x, float a, float b) { return x > 0.f ? b * x : a * expm1f(x); }
  __device__ static float slope(float x, float a, float b) { return x > 0.f ? b : a * expf(x); }
};

struct celu : NoOutputForm {  // a: limit below, with its sign turned
  __device__ static float value(float x, float a, float) { return x > 0.f ? x : a * expm1f(x / a); }
  __device__ static float slope(float x, float a, float) { return x > 0.f ? 1.f : expf(x / a); }
};

struct sigmoid {
  __device__ static float value(float x, float, float) { return logistic(x); }
  __device__ static float slope(float x, float, float) { return logistic(x) * logistic(-x); }
  __device__ static float slope_by_output(float y) { return (1.f - y) * y; }
};

struct logsigmoid : NoOutputForm {
  __device__ static float value(float x, float, float) { return at_most(x, 0.f) - log1pf(expf(-fabsf(x))); }
  __device__ static float slope(float x, float, float) { return logistic(-x); }
};

struct softplus : NoOutputForm {  // a: beta, b: threshold of beta x
  __device__ static float value(float x, float a, float b) {
    const float z = a * x;
    return z > b ? x : (at_least(z, 0.f) + log1pf(expf(-fabsf(z)))) / a;
  }
  __device__ static float slope(float x, float a, float b) { return a * x > b ? 1.f : logistic(a * x); }
};

struct swish : NoOutputForm {  // a: beta
  __device__ static float value(float x, float a, float) {
    return (a < 0.f ? at_most(x, kHuge) : at_least(x, -kHuge)) * logistic(a * x);
  }
  __device__ static float slope(float x, float a, float) {
    return logistic(a * x) + a * between(x, -kHuge, kHuge) * logistic(a * x) * logistic(-a * x);
  }
  __device__ static float share(float x, float a) {  // df/da = x s * x (1 - s)
    const float t = between(x, -kHuge, kHuge);
    return (t * logistic(a * x)) * (t * logistic(-a * x));
  }
};

struct mish : NoOutputForm {  // tanh(log(1 + e)) = n / (n + 2) with e = exp(x) and n = e (e + 2)
  __device__ static float value(float x, float, float) {
    const float e = expf(at_most(x, 20.f)), n = e * (e + 2.f);
    return at_least(x, -kHuge) * (n / (n + 2.f));
  }
  __device__ static float slope(float x, float, float) {
    const float e = expf(at_most(x, 20.f)), n = e * (e + 2.f);
    return n / (n + 2.f) + 4.f * between(x, -kHuge, 20.f) * (e / (n + 2.f)) * ((e + 1.f) / (n + 2.f));
  }
};

struct tanh_ {
  __device__ static float value(float x, float, float) { return tanhf(x); }
  __device__ static float slope(float x, float, float) { return 1.f - tanhf(x) * tanhf(x); }
  __device__ static float slope_by_output(float y) { return 1.f - y * y; }
};

struct tanhshrink : NoOutputForm {
  __device__ static float value(float x, float, float) { return x - tanhf(x); }
  __device__ static float slope(float x, float, float) { return tanhf(x) * tanhf(x); }
};

struct softsign : NoOutputForm {
  __device__ static float value(float x, float, float) {
    const float t = between(x, -1e38f, 1e38f);  // no inf / inf
    return t / (1.f + fabsf(t));
  }
  __device__ static float slope(float x, float, float) {
    const float s = 1.f / (1.f + fabsf(x));
    return s * s;
  }
};

struct gelu : NoOutputForm {
  __device__ static float phi(float x) { return 0.5f * erfcf(x * -0.70710678f); }
  __device__ static float value(float x, float, float) { return at_least(x, -kFar) * phi(x); }
  __device__ static float slope(float x, float, float) {
    const float t = between(x, -kFar, kFar);
    return phi(x) + t * 0.39894228f * expf(-0.5f * t * t);
  }
};

struct gelu_tanh : NoOutputForm {
  __device__ static float tanh_of(float x) { return tanhf(x * (0.79788456f + 0.035677408f * x * x)); }
  __device__ static float value(float x, float, float) { return 0.5f * at_least(x, -kFar) * (1.f + tanh_of(x)); }
  __device__ static float slope(float x, float, float) {
    const float t = between(x, -kFar, kFar), h = tanh_of(x);
    return 0.5f * (1.f + h + t * (0.79788456f + 0.10703222f * t * t) * (1.f - h * h));
  }
};

using F = ACTIVATION;

#if defined(ROWS) || defined(COLUMNS)

// ---- the kernels with a parameter that is learned

constexpr int kWarps = 8;  // of a block, at most

// dz of N neighbours; what they have of dw is added to sums.
__device__ inline void learned_gradient(const T* dy, const T* z, T* dz, long long i, const Floats<VECTOR>& a,
                                        Floats<VECTOR>& sums) {
  Floats<VECTOR> slope = load_floats<VECTOR>(z + i);
  const Floats<VECTOR> gradient = load_floats<VECTOR>(dy + i);
#pragma unroll
  for (int j = 0; j < VECTOR; ++j) {
    sums.at[j] += gradient.at[j] * F::share(slope.at[j], a.at[j]);
    slope.at[j] = gradient.at[j] * F::slope(slope.at[j], a.at[j], 0.f);
  }
  store_floats(dz + i, slope);
}

__device__ inline void learned_value(const T* z, T* y, long long i, const Floats<VECTOR>& a) {
  Floats<VECTOR> value = load_floats<VECTOR>(z + i);
#pragma unroll
  for (int j = 0; j < VECTOR; ++j) value.at[j] = F::value(value.at[j], a.at[j], 0.f);
  store_floats(y + i, value);
}

#ifdef ROWS

// What a block has of a row: elements first, first + step, ... below stop, each with VECTOR neighbours.
struct Place {
  long long row, first, stop;
  int step;

  __device__ Place(long long inner, long long chunk, int parts) {
    row = blockIdx.x / parts;
    const long long before = blockIdx.x % parts * chunk;
    first = row * inner + before + threadIdx.x * VECTOR;
    stop = row * inner + (inner - before < chunk ? inner : before + chunk);
    step = blockDim.x * VECTOR;
  }
};

__device__ inline Floats<VECTOR> same_for_all(float value) {
  Floats<VECTOR> values;
#pragma unroll
  for (int j = 0; j < VECTOR; ++j) values.at[j] = value;
  return values;
}

extern "C" __global__ void __launch_bounds__(256)
learned_forward(const T* z, const float* learned, T* y, long long outer, long long channels, long long inner,
                long long chunk, int parts) {
  const Place place(inner, chunk, parts);
  const Floats<VECTOR> a = same_for_all(learned[place.row % channels]);
  for (long long i = place.first; i < place.stop; i += place.step) learned_value(z, y, i, a);
}

extern "C" __global__ void __launch_bounds__(256)
learned_backward(const T* dy, const T* z, const float* learned, T* dz, float* partial, long long outer, long long channels,
                 long long inner, long long chunk, int parts) {
  const Place place(inner, chunk, parts);
  const Floats<VECTOR> a = same_for_all(learned[place.row % channels]);
  Floats<VECTOR> sums = {};
  for (long long i = place.first; i < place.stop; i += place.step) learned_gradient(dy, z, dz, i, a, sums);

  float sum = 0.f;
#pragma unroll
  for (int j = 0; j < VECTOR; ++j) sum += sums.at[j];
  sum = warp_sum(sum);
  __shared__ float of_warp[kWarps];
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < blockDim.x / 32; ++w) sum += of_warp[w];
  partial[(place.row % channels * outer + place.row / channels) * parts + blockIdx.x % parts] = sum;
}

#else  // COLUMNS

// A thread's columns, and the rows it walks down.
struct Place {
  int lane, depth;
  long long column, first, stop;

  __device__ Place(long long outer, long long channels, long long chunk) {
    const long long tiles = (channels + 32 * VECTOR - 1) / (32 * VECTOR), part = blockIdx.x / tiles;
    lane = threadIdx.x % 32;
    depth = threadIdx.x / 32;
    column = ((long long)blockIdx.x % tiles * 32 + lane) * VECTOR;
    first = part * chunk + depth;
    stop = column >= channels ? 0 : outer - part * chunk < chunk ? outer : part * chunk + chunk;
  }
};

__device__ inline Floats<VECTOR> of_columns(const float* learned, const Place& place, long long channels) {
  Floats<VECTOR> values = {};
#pragma unroll
  for (int j = 0; j < VECTOR; ++j)
    if (place.column < channels) values.at[j] = learned[place.column + j];
  return values;
}

extern "C" __global__ void __launch_bounds__(256)
learned_forward(const T* z, const float* learned, T* y, long long outer, long long channels, long long inner,
                long long chunk, int parts) {
  const Place place(outer, channels, chunk);
  const Floats<VECTOR> a = of_columns(learned, place, channels);
  for (long long row = place.first; row < place.stop; row += kWarps) learned_value(z, y, row * channels + place.column, a);
}

extern "C" __global__ void __launch_bounds__(256)
learned_backward(const T* dy, const T* z, const float* learned, T* dz, float* partial, long long outer, long long channels,
                 long long inner, long long chunk, int parts) {
  const Place place(outer, channels, chunk);
  const Floats<VECTOR> a = of_columns(learned, place, channels);
  Floats<VECTOR> sums = {};
  for (long long row = place.first; row < place.stop; row += kWarps)
    learned_gradient(dy, z, dz, row * channels + place.column, a, sums);

  __shared__ Floats<VECTOR> of_depth[kWarps][32];
  of_depth[place.depth][place.lane] = sums;
  __syncthreads();
  if (place.depth != 0 || place.column >= channels) return;
  for (int d = 1; d < kWarps; ++d)
#pragma unroll
    for (int j = 0; j < VECTOR; ++j) sums.at[j] += of_depth[d][place.lane].at[j];
#pragma unroll
  for (int j = 0; j < VECTOR; ++j) partial[place.first / chunk * channels + place.column + j] = sums.at[j];
}

#endif

#else

// ---- the kernels: what is done with N neighbours of one row

struct Numbers {
  float a, b, kept;
  unsigned long long key, counter, threshold;
  int skip;
};

template <int N> __device__ inline void multiply_kept(Floats<N>& value, const Numbers& numbers, long long i) {
  if (!DROPOUT) return;
  unsigned words[N];
  philox_words(words, numbers.counter, numbers.skip, (unsigned long long)i, numbers.key);
#pragma unroll
  for (int j = 0; j < N; ++j) value.at[j] *= words[j] < numbers.threshold ? 0.f : numbers.kept;
}

template <int N> __device__ inline void forward(
    const T* z, const Floats<N>& bias, const T* residual, T* y, long long i, const Numbers& numbers) {
  Floats<N> value = load_floats<N>(z + i);
#pragma unroll
  for (int j = 0; j < N; ++j) value.at[j] = F::value(BIAS ? value.at[j] + bias.at[j] : value.at[j], numbers.a, numbers.b);
  multiply_kept(value, numbers, i);
  if (RESIDUAL) {
    const Floats<N> added = load_floats<N>(residual + i);
#pragma unroll
    for (int j = 0; j < N; ++j) value.at[j] += added.at[j];
  }
  store_floats(y + i, value);
}

template <int N> __device__ inline void backward(
    const T* dy, const T* z, const Floats<N>& bias, T* dz, long long i, const Numbers& numbers) {
  Floats<N> slope = load_floats<N>(z + i);
  const Floats<N> gradient = load_floats<N>(dy + i);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float x = BIAS ? slope.at[j] + bias.at[j] : slope.at[j];
    slope.at[j] = gradient.at[j] * (FROM_OUTPUT ? F::slope_by_output(x) : F::slope(x, numbers.a, numbers.b));
  }
  multiply_kept(slope, numbers, i);
  store_floats(dz + i, slope);
}

// This thread's columns, and the rows it walks down.
struct Place {
  long long column, row, row_step;

  __device__ Place(long long cols, int width) {
    const long long tiles = (cols / VECTOR + (cols % VECTOR > 0) + width - 1) / width;  // beside each other
    const int lane = threadIdx.x % width, depth = blockDim.x / width;
    column = ((long long)blockIdx.x % tiles * width + lane) * VECTOR;
    row = (long long)blockIdx.x / tiles * depth + threadIdx.x / width;
    row_step = (long long)gridDim.x / tiles * depth;
  }
};

template <int N> __device__ inline Floats<N> bias_at(const T* bias, long long column) {
  Floats<N> value = {};
  if (BIAS) value = load_floats<N>(bias + column);
  return value;
}

extern "C" __global__ void __launch_bounds__(256) activation_forward(
    const T* z, const T* bias, const T* residual, T* y, const float* learned, long long rows, long long cols, int width,
    float a, float b, float kept, unsigned long long key, unsigned long long counter, int skip,
    unsigned long long threshold) {
  const Place place(cols, width);
  const Numbers numbers = {learned ? *learned : a, b, kept, key, counter, threshold, skip};
  if (place.column + VECTOR <= cols) {
    const Floats<VECTOR> added = bias_at<VECTOR>(bias, place.column);
    for (long long row = place.row; row < rows; row += place.row_step)
      forward<VECTOR>(z, added, residual, y, row * cols + place.column, numbers);
  } else if (place.row == 0) {
    for (long long column = place.column; column < cols; ++column)
      forward<1>(z, bias_at<1>(bias, column), residual, y, column, numbers);
  }
}

extern "C" __global__ void __launch_bounds__(256) activation_backward(
    const T* dy, const T* z, const T* bias, T* dz, const float* learned, long long rows, long long cols, int width,
    float a, float b, float kept, unsigned long long key, unsigned long long counter, int skip,
    unsigned long long threshold) {
  const Place place(cols, width);
  const Numbers numbers = {learned ? *learned : a, b, kept, key, counter, threshold, skip};
  if (place.column + VECTOR <= cols) {
    const Floats<VECTOR> added = bias_at<VECTOR>(bias, place.column);
    for (long long row = place.row; row < rows; row += place.row_step)
      backward<VECTOR>(dy, z, added, dz, row * cols + place.column, numbers);
  } else if (place.row == 0) {
    for (long long column = place.column; column < cols; ++column)
      backward<1>(dy, z, bias_at<1>(bias, column), dz, column, numbers);
  }
}

#endif
