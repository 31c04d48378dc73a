// CPU bodies of the wrappers that are one instruction on the device: asynchronous copies, matrix operations of a warp and
// of a warpgroup, mbarriers. Their device bodies stand in kernels/cuda_compat.cuh and kernels/hopper_compat.cuh.
#pragma once

// ---- kernels/cuda_compat.cuh ---------------------------------------------------------------------------------------
template <class T> struct simulator_format_of;
template <> struct simulator_format_of<__half> { static constexpr simulator_format value = kFormatHalf; };
template <> struct simulator_format_of<__nv_bfloat16> { static constexpr simulator_format value = kFormatBfloat16; };

inline void cp_async16(void* destination, const void* source, int bytes = 16) { simulator_copy_async(destination, source, static_cast<unsigned>(bytes), 16); }
inline void cp_async_commit() { simulator_copy_commit(); }
template <int N> inline void cp_async_wait() { simulator_copy_wait(N); }

inline void ldmatrix_x4(unsigned (&r)[4], const void* row) { simulator_load_matrices(r, row, 0); }
inline void ldmatrix_x4_trans(unsigned (&r)[4], const void* row) { simulator_load_matrices(r, row, 1); }

template <class T> inline void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  simulator_multiply(d, a, b, simulator_format_of<T>::value);
}
inline void mma_m16n8k8(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { simulator_multiply(d, a, b, kFormatTf32); }

inline unsigned to_tf32(float value) {
  const unsigned bits = __float_as_uint(value);
  return value != value ? 0x7fffffffu : (bits + 0x1000u) & ~0x1fffu;
}
template <class T> inline unsigned pack2(float low, float high) {
  const T first = low, second = high;
  return first.bits | static_cast<unsigned>(second.bits) << 16;
}
inline unsigned shared_address(const void* p) { return simulator_shared_address(p); }

// ---- kernels/hopper_compat.cuh -------------------------------------------------------------------------------------
struct __align__(64) TensorMap { unsigned long long words[16]; };
typedef unsigned long long mbarrier;

inline void mbarrier_init(mbarrier* b, int arrivals) { simulator_mbarrier_init(reinterpret_cast<uint64_t*>(b), static_cast<unsigned>(arrivals)); }
inline void mbarrier_arrive(mbarrier* b) { simulator_mbarrier_arrive(reinterpret_cast<uint64_t*>(b), 0); }
inline void mbarrier_arrive_expect_tx(mbarrier* b, int bytes) { simulator_mbarrier_arrive(reinterpret_cast<uint64_t*>(b), static_cast<unsigned>(bytes)); }
inline bool mbarrier_try_wait(mbarrier* b, int parity) {
  simulator_mbarrier_wait(reinterpret_cast<uint64_t*>(b), static_cast<unsigned>(parity));
  return true;
}
inline void mbarrier_init_fence() { simulator_init_fence(); }
inline void async_proxy_fence() { simulator_proxy_fence(); }

inline void tma_load_2d(void* destination, const TensorMap* map, mbarrier* b, int column, int row) {
  const int corner[] = {column, row};
  simulator_copy_tile(destination, map, reinterpret_cast<uint64_t*>(b), 2, corner);
}
inline void tma_load_4d(void* destination, const TensorMap* map, mbarrier* b, int column, int row, int third, int fourth) {
  const int corner[] = {column, row, third, fourth};
  simulator_copy_tile(destination, map, reinterpret_cast<uint64_t*>(b), 4, corner);
}
inline void bulk_load(void* destination, const void* source, int bytes, mbarrier* b) {
  simulator_copy_bulk(destination, source, static_cast<unsigned>(bytes), reinterpret_cast<uint64_t*>(b));
}
inline bool named_barrier_or(int id, int threads, bool predicate) {
  return simulator_named_barrier(static_cast<unsigned>(id), static_cast<unsigned>(threads), predicate);
}

inline void wgmma_fence() { simulator_product_fence(); }
inline void wgmma_commit() { simulator_product_commit(); }
template <int N> inline void wgmma_wait() { simulator_product_wait(N); }
template <class T, bool kTransposedB = false, bool kAdds = true, int kHalfOfColumns>
inline void wgmma_m64k16(float (&d)[kHalfOfColumns], unsigned long long a, unsigned long long b) {
  simulator_product(d, 2 * kHalfOfColumns, nullptr, a, b, simulator_format_of<T>::value, kTransposedB, kAdds);
}
template <class T, bool kTransposedB = false, bool kAdds = true, int kHalfOfColumns>
inline void wgmma_m64k16(float (&d)[kHalfOfColumns], const unsigned (&a)[4], unsigned long long b) {
  simulator_product(d, 2 * kHalfOfColumns, a, 0, b, simulator_format_of<T>::value, kTransposedB, kAdds);
}

template <int N> inline void setmaxnreg_inc() { static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24 to 256 registers, in eights"); }
template <int N> inline void setmaxnreg_dec() { static_assert(N >= 24 && N <= 256 && N % 8 == 0, "24 to 256 registers, in eights"); }
