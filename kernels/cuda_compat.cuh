// What kernels use beyond plain CUDA C, each wrapper one instruction: with a body for NVRTC here, and one for the CPU
// where the simulator defines LAMELLA_SIMULATOR and gives the CUDA language itself. The only file with a platform #ifdef
// beside hopper_compat.cuh. Copies, matrix loads and products need sm_80; their CPU bodies: testing/tensor_language.h.
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

// ---- asynchronous copies to shared memory: 16 bytes, of which those after the first `bytes` become zero; then wait until
// at most N of this thread's committed groups are still under way

__device__ inline unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

__device__ inline void cp_async16(void* destination, const void* source, int bytes = 16) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               ::"r"(shared_address(destination)), "l"(source), "r"(bytes) : "memory");
}

__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int N> __device__ inline void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- four 8 x 8 matrices of 16-bit elements: lane 8 m + r brings the address of row r of matrix m, 16 bytes aligned to
// 16. Lane l gets of each matrix the elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4; .trans: of column l / 4

__device__ inline void ldmatrix_x4(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

__device__ inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
}

// ---- d += a b for one warp, sums in float32. a: 16 x k row-major, b: k x 8 column-major, d: 16 x 8

template <class T> __device__ inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);

template <>
__device__ inline void mma_m16n8k16<half>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

template <>
__device__ inline void mma_m16n8k16<bfloat16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void mma_m16n8k8(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {  // operands: to_tf32
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned to_tf32(float value) {  // nearest, ties away from zero; the low 13 bits have no meaning
  unsigned bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// ---- two elements of T in one register, the first in the low half

template <class T> __device__ inline unsigned pack2(float low, float high);

template <> __device__ inline unsigned pack2<half>(float low, float high) {
  unsigned pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

template <> __device__ inline unsigned pack2<bfloat16>(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
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
