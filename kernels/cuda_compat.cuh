// What kernels use beyond plain CUDA C, each wrapper one instruction: with a body for NVRTC here, and one for the CPU
// where the simulator defines LAMELLA_SIMULATOR and gives the CUDA language itself. The only file with a platform #ifdef.
// No CUDA header is included: half and bfloat16 are two bytes of storage and two conversions, which NVRTC then finds
// without an include path and compiles in half the time.
#pragma once

#ifdef LAMELLA_SIMULATOR

typedef __half half;
typedef __nv_bfloat16 bfloat16;

__device__ inline float to_float(half value) { return __half2float(value); }
__device__ inline float to_float(bfloat16 value) { return __bfloat162float(value); }
__device__ inline void from_float(float value, half& result) { result = __float2half_rn(value); }
__device__ inline void from_float(float value, bfloat16& result) { result = __float2bfloat16_rn(value); }

__device__ inline void store16(void* to, uint4 value) { *reinterpret_cast<uint4*>(to) = value; }

#else

#define INFINITY __int_as_float(0x7f800000)
#define DYN_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

struct half { unsigned short bits; };
struct bfloat16 { unsigned short bits; };

__device__ inline float to_float(half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

__device__ inline float to_float(bfloat16 value) { return __uint_as_float((unsigned)value.bits << 16); }

__device__ inline void from_float(float value, half& result) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
}

__device__ inline void from_float(float value, bfloat16& result) {
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else  // round to nearest, ties to even, by integer arithmetic; NaN stays NaN
  const unsigned bits = __float_as_uint(value);
  result.bits = value != value ? 0x7fff : (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

// In global memory. Written as an assignment, the compiler splits some of these into four stores.
__device__ inline void store16(void* to, uint4 value) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};"
               ::"l"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w) : "memory");
}

#endif  // LAMELLA_SIMULATOR

__device__ inline float to_float(float value) { return value; }
__device__ inline void from_float(float value, float& result) { result = value; }

// ---- memory: one element as float32, or N neighbours in one access (16 bytes wide where N * sizeof(T) is 16)

template <class T> __device__ inline float load_float(const T* from) { return to_float(*from); }

template <class T> __device__ inline void store(T* to, float value) { from_float(value, *to); }

template <class T, int N> struct __align__(N * sizeof(T)) Pack { T at[N]; };

template <int N, class T> __device__ inline Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, class T> __device__ inline void store_pack(T* to, const Pack<T, N>& pack) {
  if constexpr (sizeof(pack) == 16)
    store16(to, *reinterpret_cast<const uint4*>(&pack));
  else
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

// ---- reductions over Lanes neighbouring lanes, a power of two up to 32: every lane of the warp calls, all get the result

template <int Lanes = 32> __device__ inline float warp_max(float value) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

template <int Lanes = 32> __device__ inline float warp_sum(float value) {
#pragma unroll
  for (int step = Lanes / 2; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}
