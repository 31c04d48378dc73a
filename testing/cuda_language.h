// The CUDA device language for g++: included before a kernel's text when it is built for the CPU.
//
// It offers what the kernels of this house and ordinary kernels use. What is missing does not compile, which is the
// right answer. The compiler reports the kernel's own loads and stores to the runtime; only what is written here
// without a plain load or store (atomics, asynchronous copies) reports itself.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "runtime.h"

// ---- keywords and built-in variables -------------------------------------------------------------------------------
#define __global__ __attribute__((simulator_kernel))
#define __launch_bounds__(...) __attribute__((simulator_launch_bounds(__VA_ARGS__)))
#define __device__
#define __host__
#define __constant__ static
#define __managed__
#define __grid_constant__
// So all variables of a module lie in one range, also those of templates; and no class is constructed at run time.
#define __shared__ __constinit static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_ARCH__ 900
#define DYN_SHARED(name) unsigned char* const name = simulator_dynamic_shared()
#define SIMULATOR_UNSEEN __attribute__((noinline, no_sanitize("thread", "undefined"), no_sanitize_coverage))

#define threadIdx (simulator_thread_index())
#define blockIdx (simulator_block_index())
#define blockDim (simulator_block_size())
#define gridDim (simulator_grid_size())
constexpr int warpSize = 32;

#undef assert
#define assert(condition) ((condition) ? (void)0 : simulator_fail("assertion", "%s does not hold", #condition))
[[noreturn]] inline void __trap() { simulator_fail("trap", "the kernel stopped itself with __trap()"); }

// ---- vector types --------------------------------------------------------------------------------------------------
#define SIMULATOR_VECTORS(NAME, T, ALIGN2, ALIGN4)                                   \
  struct __align__(ALIGN2) NAME##2 { T x, y; };                                      \
  struct NAME##3 { T x, y, z; };                                                     \
  struct __align__(ALIGN4) NAME##4 { T x, y, z, w; };                                \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                         \
  inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                 \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMULATOR_VECTORS(char, signed char, 2, 4)
SIMULATOR_VECTORS(uchar, unsigned char, 2, 4)
SIMULATOR_VECTORS(short, short, 4, 8)
SIMULATOR_VECTORS(ushort, unsigned short, 4, 8)
SIMULATOR_VECTORS(int, int, 8, 16)
SIMULATOR_VECTORS(longlong, long long, 16, 16)
SIMULATOR_VECTORS(ulonglong, unsigned long long, 16, 16)
SIMULATOR_VECTORS(float, float, 8, 16)
SIMULATOR_VECTORS(double, double, 16, 16)
struct __align__(8) uint2 { unsigned x, y; };
struct __align__(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
#undef SIMULATOR_VECTORS

// ---- 16-bit floating point: storage types; arithmetic rounds after each operation, as the device does --------------
#define SIMULATOR_HALF(NAME, TO_BITS, TO_FLOAT)                                                                        \
  struct NAME {                                                                                                        \
    unsigned short bits;                                                                                               \
    NAME() = default;                                                                                                  \
    template <class T, class = typename std::enable_if<std::is_arithmetic<T>::value>::type>                            \
    NAME(T value) : bits(TO_BITS(static_cast<float>(value))) {}                                                        \
    operator float() const { return TO_FLOAT(bits); }                                                                  \
  };                                                                                                                   \
  inline NAME operator-(NAME a) { NAME r; r.bits = a.bits ^ 0x8000; return r; }                                        \
  inline NAME operator+(NAME a, NAME b) { return float(a) + float(b); }                                                \
  inline NAME operator-(NAME a, NAME b) { return float(a) - float(b); }                                                \
  inline NAME operator*(NAME a, NAME b) { return float(a) * float(b); }                                                \
  inline NAME operator/(NAME a, NAME b) { return float(a) / float(b); }                                                \
  inline NAME& operator+=(NAME& a, NAME b) { return a = a + b; }                                                       \
  inline NAME& operator-=(NAME& a, NAME b) { return a = a - b; }                                                       \
  inline NAME& operator*=(NAME& a, NAME b) { return a = a * b; }                                                       \
  inline NAME& operator/=(NAME& a, NAME b) { return a = a / b; }                                                       \
  inline bool operator==(NAME a, NAME b) { return float(a) == float(b); }                                              \
  inline bool operator!=(NAME a, NAME b) { return float(a) != float(b); }                                              \
  inline bool operator<(NAME a, NAME b) { return float(a) < float(b); }                                                \
  inline bool operator<=(NAME a, NAME b) { return float(a) <= float(b); }                                              \
  inline bool operator>(NAME a, NAME b) { return float(a) > float(b); }                                                \
  inline bool operator>=(NAME a, NAME b) { return float(a) >= float(b); }                                              \
  inline NAME __hadd(NAME a, NAME b) { return a + b; }                                                                 \
  inline NAME __hsub(NAME a, NAME b) { return a - b; }                                                                 \
  inline NAME __hmul(NAME a, NAME b) { return a * b; }                                                                 \
  inline NAME __hdiv(NAME a, NAME b) { return a / b; }                                                                 \
  inline NAME __hneg(NAME a) { return -a; }                                                                            \
  inline NAME __hmax(NAME a, NAME b) { return fmaxf(a, b); }                                                           \
  inline NAME __hmin(NAME a, NAME b) { return fminf(a, b); }                                                           \
  inline bool __hisnan(NAME a) { return float(a) != float(a); }                                                        \
  struct __align__(4) NAME##2_pair { NAME x, y; };                                                                     \
  inline float __low2float(NAME##2_pair a) { return a.x; }                                                             \
  inline float __high2float(NAME##2_pair a) { return a.y; }                                                            \
  inline NAME##2_pair __hadd2(NAME##2_pair a, NAME##2_pair b) { return {a.x + b.x, a.y + b.y}; }                       \
  inline NAME##2_pair __hmul2(NAME##2_pair a, NAME##2_pair b) { return {a.x * b.x, a.y * b.y}; }
SIMULATOR_HALF(__half, simulator_float_to_half, simulator_half_to_float)
SIMULATOR_HALF(__nv_bfloat16, simulator_float_to_bfloat16, simulator_bfloat16_to_float)
#undef SIMULATOR_HALF
typedef __half half;
typedef __half2_pair __half2;
typedef __half2 half2;
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162_pair __nv_bfloat162;
typedef __nv_bfloat162 nv_bfloat162;
inline __half __float2half(float f) { return f; }
inline __half __float2half_rn(float f) { return f; }
inline float __half2float(__half h) { return h; }
inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return f; }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline __half2 __float22half2_rn(float2 v) { return {v.x, v.y}; }
inline float2 __half22float2(__half2 h) { return {h.x, h.y}; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
inline float2 __bfloat1622float2(__nv_bfloat162 h) { return {h.x, h.y}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
inline __half __ushort_as_half(unsigned short bits) { __half h; h.bits = bits; return h; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { __nv_bfloat16 h; h.bits = bits; return h; }

// ---- arithmetic ----------------------------------------------------------------------------------------------------
template <class A, class B> inline typename std::common_type<A, B>::type min(A a, B b) { return a < b ? a : b; }
template <class A, class B> inline typename std::common_type<A, B>::type max(A a, B b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float rsqrtf(float a) { return 1.f / sqrtf(a); }
inline double rsqrt(double a) { return 1. / sqrt(a); }
inline float normcdff(float a) { return .5f * erfcf(-a * 0.70710678118654752440f); }
inline float __expf(float a) { return expf(a); }
inline float __exp10f(float a) { return powf(10.f, a); }
inline float __logf(float a) { return logf(a); }
inline float __log2f(float a) { return log2f(a); }
inline float __log10f(float a) { return log10f(a); }
inline float __sinf(float a) { return sinf(a); }
inline float __cosf(float a) { return cosf(a); }
inline float __tanf(float a) { return tanf(a); }
inline float __powf(float a, float b) { return powf(a, b); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float a) { return fminf(fmaxf(a, 0.f), 1.f); }
inline float __frcp_rn(float a) { return 1.f / a; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __frsqrt_rn(float a) { return 1.f / sqrtf(a); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline int __float2int_rn(float a) { return static_cast<int>(rintf(a)); }
inline int __float2int_rz(float a) { return static_cast<int>(a); }
inline int __float2int_rd(float a) { return static_cast<int>(floorf(a)); }
inline int __float2int_ru(float a) { return static_cast<int>(ceilf(a)); }

template <class To, class From> inline To simulator_bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From), "reinterpretation keeps the size");
  To result;
  __builtin_memcpy(&result, &value, sizeof result);
  return result;
}
inline float __int_as_float(int a) { return simulator_bits_as<float>(a); }
inline float __uint_as_float(unsigned a) { return simulator_bits_as<float>(a); }
inline int __float_as_int(float a) { return simulator_bits_as<int>(a); }
inline unsigned __float_as_uint(float a) { return simulator_bits_as<unsigned>(a); }
inline double __longlong_as_double(long long a) { return simulator_bits_as<double>(a); }
inline long long __double_as_longlong(double a) { return simulator_bits_as<long long>(a); }

inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline int __popc(unsigned a) { return __builtin_popcount(a); }
inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline int __ffsll(long long a) { return __builtin_ffsll(a); }
inline int __clz(int a) { return a ? __builtin_clz(static_cast<unsigned>(a)) : 32; }
inline int __clzll(long long a) { return a ? __builtin_clzll(static_cast<unsigned long long>(a)) : 64; }
inline unsigned __brev(unsigned a) {
  unsigned r = 0;
  for (int i = 0; i < 32; ++i) r |= (a >> i & 1) << (31 - i);
  return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>(((static_cast<uint64_t>(high) << 32 | low) << (shift & 31)) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned byte = bytes >> 8 * (selector >> 4 * i & 7) & 0xff;
    r |= (selector >> 4 * i & 8 ? (byte & 0x80 ? 0xffu : 0u) : byte) << 8 * i;
  }
  return r;
}

// ---- loads and stores with cache hints, fences ---------------------------------------------------------------------
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline void __stcg(T* p, T value) { *p = value; }
template <class T> inline void __stcs(T* p, T value) { *p = value; }
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- barriers and warp operations ----------------------------------------------------------------------------------
#define __syncthreads() simulator_barrier(__LINE__)
#define __syncthreads_and(predicate) simulator_barrier_vote(__LINE__, kVoteAnd, (predicate))
#define __syncthreads_or(predicate) simulator_barrier_vote(__LINE__, kVoteOr, (predicate))
#define __syncthreads_count(predicate) simulator_barrier_vote(__LINE__, kVoteCount, (predicate))
inline void __syncwarp(unsigned mask = ~0u) { simulator_sync_warp(mask); }

template <class T> inline T simulator_shuffle_value(unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = simulator_shuffle(mask, bits, static_cast<unsigned>(source));
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T> inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = simulator_lane();
  return simulator_shuffle_value(mask, value, (lane & ~(width - 1)) | (source & (width - 1)));
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const int lane = simulator_lane(), source = lane ^ lane_mask;
  return simulator_shuffle_value(mask, value, source > (lane | (width - 1)) ? lane : source);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = simulator_lane(), source = lane + static_cast<int>(delta);
  return simulator_shuffle_value(mask, value, source > (lane | (width - 1)) ? lane : source);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int lane = simulator_lane(), source = lane - static_cast<int>(delta);
  return simulator_shuffle_value(mask, value, source < (lane & ~(width - 1)) ? lane : source);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return simulator_ballot(mask, predicate); }
inline int __any_sync(unsigned mask, int predicate) { return simulator_ballot(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return simulator_ballot(mask, !predicate) == 0; }
template <class T> inline unsigned __match_any_sync(unsigned mask, T value) {
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  return simulator_match(mask, bits);
}
template <class T> inline T simulator_warp_reduce(unsigned mask, T value, T (*combine)(T, T)) {
  T result = value;
  bool first = true;
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask & simulator_existing_lanes() & 1u << lane)) continue;
    const T other = simulator_shuffle_value(mask, value, lane);
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned value) {
  return simulator_warp_reduce<unsigned>(mask, value, [](unsigned a, unsigned b) { return a + b; });
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
  return simulator_warp_reduce<unsigned>(mask, value, [](unsigned a, unsigned b) { return a > b ? a : b; });
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value) {
  return simulator_warp_reduce<unsigned>(mask, value, [](unsigned a, unsigned b) { return a < b ? a : b; });
}

// ---- atomics: exactly the types that CUDA has. Threads do not interrupt each other here, so plain code will do -----
template <class T, class... Choices> struct simulator_one_of : std::integral_constant<bool, (std::is_same<T, Choices>::value || ...)> {};
#define SIMULATOR_ATOMIC(NAME, RESULT, ...)                                                                            \
  template <class T> SIMULATOR_UNSEEN T simulator_##NAME(T* p, T value) {                                              \
    const T old = *p;                                                                                                  \
    *p = static_cast<T>(RESULT);                                                                                       \
    return old;                                                                                                        \
  }                                                                                                                    \
  template <class T> __forceinline__ T NAME(T* p, typename std::common_type<T>::type value) {                          \
    static_assert(simulator_one_of<T, __VA_ARGS__>::value, #NAME " is not offered for this type");                     \
    simulator_atomic(p, sizeof(T));                                                                                    \
    return simulator_##NAME(p, value);                                                                                 \
  }
SIMULATOR_ATOMIC(atomicAdd, old + value, int, unsigned, unsigned long long, float, double, __half, __nv_bfloat16)
SIMULATOR_ATOMIC(atomicSub, old - value, int, unsigned)
SIMULATOR_ATOMIC(atomicExch, value, int, unsigned, unsigned long long, float)
SIMULATOR_ATOMIC(atomicMin, old < value ? old : value, int, unsigned, long long, unsigned long long)
SIMULATOR_ATOMIC(atomicMax, old > value ? old : value, int, unsigned, long long, unsigned long long)
SIMULATOR_ATOMIC(atomicInc, old >= value ? 0 : old + 1, unsigned)
SIMULATOR_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1, unsigned)
SIMULATOR_ATOMIC(atomicAnd, old & value, int, unsigned, unsigned long long)
SIMULATOR_ATOMIC(atomicOr, old | value, int, unsigned, unsigned long long)
SIMULATOR_ATOMIC(atomicXor, old ^ value, int, unsigned, unsigned long long)
#undef SIMULATOR_ATOMIC
template <class T> SIMULATOR_UNSEEN T simulator_atomicCAS(T* p, T expected, T value) {
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}
template <class T> __forceinline__ T atomicCAS(T* p, typename std::common_type<T>::type expected, typename std::common_type<T>::type value) {
  static_assert(simulator_one_of<T, int, unsigned, unsigned long long, unsigned short>::value, "atomicCAS is not offered for this type");
  simulator_atomic(p, sizeof(T));
  return simulator_atomicCAS<T>(p, expected, value);
}

#include "tensor_language.h"

// ---- how a kernel is called: arguments from an array of pointers, and their types as text for the checks -----------
namespace simulator {
template <class T> struct TypeCode { static constexpr const char* text = nullptr; };
#define SIMULATOR_CODE(T, TEXT) template <> struct TypeCode<T> { static constexpr const char* text = TEXT; };
SIMULATOR_CODE(bool, "bool") SIMULATOR_CODE(char, "int8") SIMULATOR_CODE(signed char, "int8") SIMULATOR_CODE(unsigned char, "uint8")
SIMULATOR_CODE(short, "int16") SIMULATOR_CODE(unsigned short, "uint16") SIMULATOR_CODE(int, "int32") SIMULATOR_CODE(unsigned, "uint32")
SIMULATOR_CODE(long, "int64") SIMULATOR_CODE(unsigned long, "uint64") SIMULATOR_CODE(long long, "int64") SIMULATOR_CODE(unsigned long long, "uint64")
SIMULATOR_CODE(float, "float32") SIMULATOR_CODE(double, "float64") SIMULATOR_CODE(__half, "float16") SIMULATOR_CODE(__nv_bfloat16, "bfloat16")
SIMULATOR_CODE(void, "any") SIMULATOR_CODE(TensorMap, "TensorMap")
#undef SIMULATOR_CODE
template <class T> struct ElementCode : TypeCode<T> {};  // behind a pointer, float4 is float32
#define SIMULATOR_CODE(NAME, TEXT)                                                            \
  template <> struct ElementCode<NAME##2> { static constexpr const char* text = TEXT; };      \
  template <> struct ElementCode<NAME##4> { static constexpr const char* text = TEXT; };
SIMULATOR_CODE(char, "int8") SIMULATOR_CODE(uchar, "uint8") SIMULATOR_CODE(short, "int16") SIMULATOR_CODE(ushort, "uint16")
SIMULATOR_CODE(int, "int32") SIMULATOR_CODE(uint, "uint32") SIMULATOR_CODE(longlong, "int64") SIMULATOR_CODE(ulonglong, "uint64")
SIMULATOR_CODE(float, "float32") SIMULATOR_CODE(double, "float64")
#undef SIMULATOR_CODE
template <> struct ElementCode<__half2> { static constexpr const char* text = "float16"; };
template <> struct ElementCode<__nv_bfloat162> { static constexpr const char* text = "bfloat16"; };

template <class A> void describe(char*& out) {
  using Target = typename std::remove_pointer<A>::type;
  using Plain = typename std::remove_cv<Target>::type;
  if constexpr (std::is_pointer<A>::value) {
    const char* text = ElementCode<Plain>::text;
    out += sprintf(out, "%s%s*;", std::is_const<Target>::value ? "const " : "", text ? text : "any");
  } else {
    const char* text = TypeCode<Plain>::text;
    if (text) out += sprintf(out, "%s;", text);
    else out += sprintf(out, "struct %zu;", sizeof(A));
  }
}
template <class... A> const char* signature(void (*)(A...)) {
  static char text[64 * 32];
  char* out = text;
  *out = 0;
  (describe<A>(out), ...);
  return text;
}
template <class... A, size_t... I> SIMULATOR_UNSEEN void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<typename std::remove_reference<A>::type*>(arguments[I])...);
}
template <class... A> SIMULATOR_UNSEEN void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>());
}
}  // namespace simulator
