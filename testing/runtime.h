// What a kernel built for the CPU asks of the runtime: who am I, meet the others, touch memory, give up.
// cuda_language.h is written against these functions; runtime.cpp implements them.
#pragma once
#include <stddef.h>
#include <stdint.h>

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

enum simulator_vote { kVoteAnd, kVoteOr, kVoteCount };
enum simulator_format { kFormatHalf, kFormatBfloat16, kFormatTf32 };

// What testing/tensor_map.py puts into the 128 bytes that are a CUtensorMap on the device: an array of up to four axes, the
// innermost first, and a box of it. Axes beyond the rank have length 1.
struct simulator_tensor_map {
  uint64_t magic, base, item_bytes, swizzle, rank, lengths[4], strides[3], box[4];  // strides of the axes 1 to 3, in bytes
};
constexpr uint64_t kTensorMapMagic = 0x70616d656c6974ull;

extern "C" {
// Constant while one thread runs, so the compiler may ask once. (By value: reading them is no access to memory.)
uint3 simulator_thread_index() __attribute__((const));
uint3 simulator_block_index() __attribute__((const));
dim3 simulator_block_size() __attribute__((const));
dim3 simulator_grid_size() __attribute__((const));
unsigned simulator_lane() __attribute__((const));
unsigned simulator_existing_lanes() __attribute__((const));  // of this warp, as a mask
unsigned char* simulator_dynamic_shared() __attribute__((const));

// All threads of the block wait here. `line` tells one barrier of the source from another.
void simulator_barrier(int line);
int simulator_barrier_vote(int line, simulator_vote vote, int predicate);

// Warp operations: the lanes that `mask` names wait for each other, then go on with what the others brought.
void simulator_sync_warp(unsigned mask);
uint64_t simulator_shuffle(unsigned mask, uint64_t bits, unsigned source_lane);
unsigned simulator_ballot(unsigned mask, int predicate);
unsigned simulator_match(unsigned mask, uint64_t bits);

// An access that the language header makes for the kernel (the compiler reports the kernel's own).
void simulator_read(const void* address, size_t bytes);
void simulator_write(const void* address, size_t bytes);
void simulator_atomic(const void* address, size_t bytes);

// cp.async: the destination is garbage from the issue on, and the data come as late as is allowed.
void simulator_copy_async(void* destination, const void* source, unsigned bytes, unsigned total);
void simulator_copy_commit();
void simulator_copy_wait(unsigned groups_left);

// Matrix operations of a whole warp: four 8 x 8 matrices of 16-bit elements, each lane bringing a row's address; and
// d += a * b with the fragments of mma.m16n8k16 (16-bit formats) or mma.m16n8k8 (tf32).
void simulator_load_matrices(unsigned* result, const void* row, int transposed);
void simulator_multiply(float* d, const unsigned* a, const unsigned* b, simulator_format format);

// mbarrier and the copies of tiles that report to one. A copy destroys its destination when it is issued and delivers
// when nobody can go on without it.
unsigned simulator_shared_address(const void* address);
void simulator_mbarrier_init(uint64_t* barrier, unsigned count);
void simulator_mbarrier_arrive(uint64_t* barrier, unsigned expected_bytes);
void simulator_mbarrier_wait(uint64_t* barrier, unsigned parity);
void simulator_copy_tile(void* destination, const void* map, uint64_t* barrier, unsigned rank, const int* corner);
void simulator_copy_bulk(void* destination, const void* source, unsigned bytes, uint64_t* barrier);

// Barrier `id` of the block: `count` threads meet there, and learn whether the predicate held for any of them.
int simulator_named_barrier(unsigned id, unsigned count, int predicate);

// A thread's own stores to shared memory become visible to copy engines and warpgroup products.
void simulator_proxy_fence();

// A thread's own mbarrier initialisations become visible to copy engines.
void simulator_init_fence();

// Products of a warpgroup: the accumulators are NaN from the issue on and hold the sum after the wait for its group. The
// left operand lies in `registers`, four a thread, or where there are none, in shared memory at descriptor a.
void simulator_product_fence();
void simulator_product(float* d, unsigned columns, const unsigned* registers, uint64_t a, uint64_t b, simulator_format format,
                       int transposed_b, int adds);
void simulator_product_commit();
void simulator_product_wait(unsigned groups_left);

[[noreturn]] void simulator_fail(const char* kind, const char* format, ...) __attribute__((format(printf, 2, 3)));

// IEEE binary16 and bfloat16, rounded to nearest even; in software, so that every CPU agrees.
uint16_t simulator_float_to_half(float value) __attribute__((const));
float simulator_half_to_float(uint16_t bits) __attribute__((const));
uint16_t simulator_float_to_bfloat16(float value) __attribute__((const));
float simulator_bfloat16_to_float(uint16_t bits) __attribute__((const));
}
