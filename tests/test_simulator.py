"""The kernel simulator: planted bugs are found with their kind and line, correct kernels pass, CuPy's manners hold."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella.backend import backend_names, backend_of
from lamella.testing import KernelError, RawModule, SimulatorArray, assert_close, compiler, run_kernel, simulator

# One kernel for each bug, all in one source; the line with the bug says so. Every kernel runs with 64 threads a block.
ZOO = r"""
#define KERNEL(name) extern "C" __global__ void name(float* a, const float* b, int n)
#define T ((int)threadIdx.x)

KERNEL(reads_past_the_end) {
  a[T] = b[T + 1];  // bug
}
KERNEL(writes_before_the_start) {
  a[T - n / 50] = 1;  // bug
}
KERNEL(follows_a_null_pointer) {
  float* p = n > 0 ? nullptr : a;
  p[T] = 1;  // bug
}
KERNEL(leaves_a_static_shared_array) {
  __shared__ float s[32];
  s[T] = b[T];  // bug
  __syncthreads();
  a[T] = s[T];
}
KERNEL(leaves_dynamic_shared_memory) {
  DYN_SHARED(memory);
  float* s = (float*)memory;
  s[T] = b[T];  // bug
  __syncthreads();
  a[T] = s[T];
}
KERNEL(reads_another_threads_local) {
  __shared__ float* where[64];
  float local = b[T];
  where[T] = &local;
  __syncthreads();
  a[T] = *where[T ^ 1];  // bug
}
KERNEL(loads_a_vector_at_an_odd_place) {
  float4 v = *reinterpret_cast<const float4*>(b + 1);  // bug
  if (T == 0) a[0] = v.x;
}
KERNEL(writes_a_constant_array) {
  const_cast<float*>(b)[T] = 1;  // bug
}
KERNEL(reads_shared_before_writing) {
  __shared__ float s[64];
  if (T != 5) s[T] = b[T];
  __syncthreads();
  a[T] = s[T];  // bug
}
KERNEL(forgets_the_warp_barrier) {
  __shared__ float s[64];
  s[T] = 0;
  __syncthreads();
  s[T] = b[T];  // bug
  a[T] = s[T ^ 1];  // bug
}
KERNEL(forgets_the_block_barrier) {
  __shared__ float s[64];
  s[T] = 0;
  __syncthreads();
  s[T] = b[T];  // bug
  __syncwarp();
  a[T] = s[63 - T];  // bug
}
KERNEL(synchronises_too_few_lanes) {
  __shared__ float s[64];
  s[T] = 0;
  __syncthreads();
  s[T] = b[T];  // bug
  __syncwarp((T & 31) < 16 ? 0x0000ffffu : 0xffff0000u);
  a[T] = s[T ^ 16];  // bug
}
KERNEL(takes_a_shuffle_for_a_barrier) {
  __shared__ float s[64];
  s[T] = b[T];
  __syncthreads();
  float v = s[T ^ 1];  // bug
  v = __shfl_xor_sync(0xffffffffu, v, 1);
  s[T] = v;  // bug
}
KERNEL(reads_a_word_of_which_one_byte_is_missing) {
  __shared__ __align__(4) unsigned char s[256];
  for (int i = 0; i < 3; ++i) s[4 * T + i] = 0;
  a[T] = *reinterpret_cast<const int*>(s + 4 * T);  // bug
}
KERNEL(copies_to_an_odd_place) {
  __shared__ __align__(16) float s[8];
  if (T == 0) cp_async16(s + 1, b);  // bug
}
KERNEL(reads_what_others_added) {
  if (T >= 32 || blockIdx.x) return;
  if (T != 0) atomicAdd(a, 1.f);  // bug
  __shfl_sync(0xffffffffu, T, 0);
  if (T == 0) {
    atomicAdd(a, 1.f);
    a[1] = a[0];  // bug
  }
}
KERNEL(adds_without_atomics) {
  a[0] += b[T];  // bug
}
KERNEL(mixes_atomic_and_plain) {
  if (T == 3) a[0] = 1;  // bug
  else atomicAdd(a, 1.f);  // bug
}
KERNEL(exchanges_through_global_memory) {
  a[T] = b[T];  // bug
  float v = a[T ^ 1];  // bug
  __syncthreads();
  a[T] = v;
}
KERNEL(blocks_write_one_element) {
  a[T] = blockIdx.x;  // bug
}
KERNEL(barrier_in_a_branch) {
  if (T < 40) {
    __syncthreads();  // bug
  }
}
KERNEL(two_barriers_for_one) {
  if (T < 40) {
    __syncthreads();  // bug
  } else {
    __syncthreads();  // bug
  }
}
KERNEL(returns_before_a_barrier) {
  if (T >= n) return;
  __syncthreads();  // bug
  a[T] = b[T];
}
KERNEL(shuffles_after_lanes_returned) {
  if (T >= n) return;
  a[T] = __shfl_xor_sync(0xffffffffu, b[T], 1);  // bug
}
KERNEL(shuffles_from_an_unnamed_lane) {
  if ((T & 31) < 16) a[T] = __shfl_down_sync(0x0000ffffu, b[T], 8);  // bug
}
KERNEL(calls_with_a_mask_of_others) {
  a[T] = __shfl_sync(0x0000ffffu, b[T], 0);  // bug
}
KERNEL(overflows_an_index) {
  int i = T * 100000000;  // bug
  if (i < n) a[T] = b[T];
}
KERNEL(runs_for_ever) {
  while (b[T] >= 0) a[T] += 1;  // bug
}
KERNEL(waits_for_a_flag_nobody_sets) {
  while (b[T] >= 0) {}  // bug
}
KERNEL(spins_without_effect) {
  if (T == 9) for (;;) {}  // bug
}
KERNEL(asserts_in_vain) {
  assert(T < n);  // bug
}
KERNEL(reads_before_the_copy_has_come) {
  __shared__ __align__(16) float s[256];
  cp_async16(s + 4 * T, b + 4 * (T & 15));
  cp_async_commit();
  float v = s[4 * T];
  cp_async_wait<0>();
  assert(v == v);  // bug
}
"""
KINDS = {
    "reads_past_the_end": "out of bounds",
    "writes_before_the_start": "out of bounds",
    "follows_a_null_pointer": "out of bounds",
    "leaves_a_static_shared_array": "out of bounds",
    "leaves_dynamic_shared_memory": "out of bounds",
    "reads_another_threads_local": "out of bounds",
    "loads_a_vector_at_an_odd_place": "misaligned",
    "writes_a_constant_array": "read-only",
    "reads_shared_before_writing": "uninitialised",
    "forgets_the_warp_barrier": "race",
    "forgets_the_block_barrier": "race",
    "synchronises_too_few_lanes": "race",
    "takes_a_shuffle_for_a_barrier": "race",
    "reads_a_word_of_which_one_byte_is_missing": "uninitialised",
    "reads_what_others_added": "race",
    "copies_to_an_odd_place": "misaligned",
    "adds_without_atomics": "race",
    "mixes_atomic_and_plain": "race",
    "exchanges_through_global_memory": "race",
    "blocks_write_one_element": "race",
    "barrier_in_a_branch": "divergence",
    "two_barriers_for_one": "divergence",
    "returns_before_a_barrier": "divergence",
    "shuffles_after_lanes_returned": "divergence",
    "shuffles_from_an_unnamed_lane": "warp mask",
    "calls_with_a_mask_of_others": "warp mask",
    "overflows_an_index": "overflow",
    "runs_for_ever": "endless",
    "waits_for_a_flag_nobody_sets": "endless",
    "spins_without_effect": "endless",
    "asserts_in_vain": "assertion",
    "reads_before_the_copy_has_come": "assertion",
}

CORRECT = r"""
#define KERNEL(name) extern "C" __global__ void name(float* a, const float* b, int n)
#define T ((int)threadIdx.x)
template <class Value> __device__ Value through_shared(Value value) {
  __shared__ Value s[64];
  s[T] = value;
  __syncwarp();
  value = s[T ^ 1];
  return value;
}
KERNEL(exchange_in_a_warp) { a[T] = through_shared(b[T]) + through_shared((int)T); }
KERNEL(exchange_in_half_warps) {
  __shared__ float s[64];
  s[T] = b[T];
  if ((T & 31) < 16) __syncwarp(0x0000ffffu);
  else __syncwarp(0xffff0000u);
  a[T] = s[T ^ 8];
}
KERNEL(barrier_then_reuse) {
  extern __shared__ float s[];
  for (int i = 0; i < 3; ++i) {
    if (T < 32) s[T] = b[T] + i;
    __syncthreads();
    a[T] = s[T / 2];
    __syncthreads();
  }
}
KERNEL(everybody_adds) { atomicAdd(&a[T & 1], b[T]); atomicMax(reinterpret_cast<int*>(a) + 2, T); }
KERNEL(waits_for_a_flag) {
  __shared__ volatile int flag;
  if (T == 0) flag = 0;
  __syncthreads();
  if (T == 40) atomicExch(const_cast<int*>(&flag), 1);
  if (T == 41) while (atomicAdd(const_cast<int*>(&flag), 0) == 0) {}
  a[T] = 1;
}
KERNEL(copies_asynchronously) {
  __shared__ __align__(16) float s[256];
  cp_async16(s + 4 * T, b + 4 * (T & 15), T == 7 ? 8 : 16);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  a[T] = s[(T * 4 + 2) & 255];
}
"""

# s[0..31] is written twice: without the barrier in between, a fast warp overwrites what a slow one still reads.
REDUCTION = r"""
__device__ float block_sum(float* partial, float value) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
#ifndef NO_BARRIER
  __syncthreads();
#endif
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  for (int w = 0; w < blockDim.x / 32; ++w) value += partial[w];
  return value;
}
extern "C" __global__ void variance(const float* x, float* y) {
  __shared__ float partial[32];
  const float value = x[threadIdx.x];
  const float mean = block_sum(partial, value) / blockDim.x;
  const float variance = block_sum(partial, (value - mean) * (value - mean)) / blockDim.x;
  y[threadIdx.x] = variance;
}
"""

LANGUAGE = r"""
extern "C" __global__ void warp(int* out) {
  const int lane = threadIdx.x;
  int* row = out + lane * 12;
  row[0] = __shfl_sync(~0u, lane * 10, 5);
  row[1] = __shfl_up_sync(~0u, lane, 3);
  row[2] = __shfl_down_sync(~0u, lane, 3, 8);
  row[3] = __shfl_xor_sync(~0u, lane, 9);
  row[4] = __ballot_sync(~0u, lane % 3 == 0);
  row[5] = __any_sync(~0u, lane == 4) + 2 * __all_sync(~0u, lane < 32) + 4 * __all_sync(~0u, lane);
  row[6] = __match_any_sync(~0u, lane % 4);
  row[7] = __syncthreads_count(lane < 7) + 100 * __syncthreads_or(lane == 3) + 1000 * __syncthreads_and(lane == 3);
  row[8] = __shfl_sync(~0u, (long long)lane << 33, 2) >> 33;
  row[9] = __popc(lane) + 100 * __clz(lane) + 10000 * __ffs(lane);
  row[10] = __reduce_add_sync(~0u, lane);
  row[11] = __brev(lane) >> 27;
}
extern "C" __global__ void products(const unsigned* a, const unsigned* b, unsigned* high, float4* v) {
  high[threadIdx.x] = __umulhi(a[threadIdx.x], b[threadIdx.x]);
  v[threadIdx.x] = make_float4(threadIdx.x, blockDim.x, __expf(0.f), rsqrtf(4.f));
}
extern "C" __global__ void widen(const half* h, const __nv_bfloat16* b, float* hf, float* bf) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  hf[i] = __half2float(h[i]);
  bf[i] = __bfloat162float(b[i]);
}
extern "C" __global__ void narrow(const float* f, half* h, __nv_bfloat16* b) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  h[i] = __float2half_rn(f[i]);
  b[i] = __float2bfloat16_rn(f[i]);
}
extern "C" __global__ void __launch_bounds__(4 * 8) takes(float* x, int n, float s, bool flag, long long m) {
  DYN_SHARED(memory);
  if (threadIdx.x == 0) x[0] = n + s + flag + m + memory[0] * 0;
}
"""


def _floats() -> list:
    return [np.zeros(64, np.float32), np.arange(64, dtype=np.float32), np.int32(50)]


def _bug_lines(kernel: str) -> set[int]:
    lines = ZOO.splitlines()
    start = next(i for i, line in enumerate(lines) if line == f"KERNEL({kernel}) {{")
    end = lines.index("}", start)
    return {i + 1 for i in range(start, end) if "// bug" in lines[i]}


@pytest.mark.parametrize("name", KINDS)
def test_planted_bug_is_reported_with_its_kind_and_line(name: str) -> None:
    kernel = RawModule(ZOO).get_function(name)
    kernel.step_limit = 100_000
    for kernel.seed in range(1 if KINDS[name] == "endless" else 4):
        with pytest.raises(KernelError, match=f"{name}: {KINDS[name]}: .*kernel.cu:") as caught:
            kernel((2,), (64,), _floats(), shared_mem=128)
        assert (caught.value.kind, caught.value.kernel) == (KINDS[name], name)
        assert {caught.value.line, caught.value.other_line} & _bug_lines(name)
        assert len(caught.value.block) == len(caught.value.thread) == 3


def test_every_planted_bug_has_its_kind() -> None:
    assert set(RawModule(ZOO).names) == set(KINDS)


@pytest.mark.parametrize("name", re.findall(r"^KERNEL\((\w+)\)", CORRECT, re.M))
def test_correct_kernel_passes_in_every_order(name: str) -> None:
    run_kernel(CORRECT, name, (1,), (64,), _floats(), shared_mem=128, seeds=range(8), step_limit=10_000_000)


def test_removed_barrier_in_a_block_reduction_is_found() -> None:
    x = np.arange(128, dtype=np.float32)
    y = np.empty_like(x)
    run_kernel(REDUCTION, "variance", (1,), (128,), (x, y), seeds=range(4))
    assert_close(y, np.full(128, x.astype(np.float64).var()), rtol=1e-6)
    for seed in range(4):
        with pytest.raises(KernelError, match=r"race: .*__shared__ variable"):
            run_kernel(REDUCTION, "variance", (1,), (128,), (x, y), seeds=[seed], defines=["NO_BARRIER"])


def test_error_names_argument_block_and_thread() -> None:
    with pytest.raises(KernelError) as caught:
        run_kernel(ZOO, "reads_past_the_end", (1,), (64,), _floats())
    assert str(caught.value) == (
        "reads_past_the_end: out of bounds: read of 4 bytes at byte 256 of argument 1 (b), which has 256 bytes "
        "at kernel.cu:6 [block (0, 0, 0), thread (63, 0, 0), seed 0]"
    )


def test_warp_operations_give_what_the_programming_guide_says() -> None:
    out = np.zeros((32, 12), np.int32)
    run_kernel(LANGUAGE, "warp", (1,), (32,), (out,))
    lane = np.arange(32)
    thirds = sum(1 << i for i in range(0, 32, 3))
    expected = [
        np.full(32, 50),
        np.where(lane < 3, lane, lane - 3),
        np.where(lane % 8 + 3 < 8, lane + 3, lane),
        lane ^ 9,
        np.full(32, thirds),
        np.full(32, 3),
        np.array([sum(1 << j for j in range(i % 4, 32, 4)) for i in range(32)]),
        np.full(32, 107),
        np.full(32, 2),
        np.array([i.bit_count() + 100 * (32 - i.bit_length()) + 10000 * ((i & -i).bit_length()) for i in range(32)]),
        np.full(32, 496),
        np.array([int(f"{i:05b}"[::-1], 2) for i in range(32)]),
    ]
    np.testing.assert_array_equal(out.view(np.uint32), np.stack(expected, axis=1).astype(np.uint32))


def test_high_product_and_vector_stores_are_exact() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 1 << 32, (2, 32), dtype=np.uint64)
    high, vectors = np.zeros(32, np.uint32), np.zeros((32, 4), np.float32)
    run_kernel(LANGUAGE, "products", (1,), (32,), (a.astype(np.uint32), b.astype(np.uint32), high, vectors))
    np.testing.assert_array_equal(high, (a * b >> np.uint64(32)).astype(np.uint32))
    np.testing.assert_array_equal(vectors, [[i, 32, 1, 0.5] for i in range(32)])


def test_all_16_bit_floats_convert_as_numpy_does() -> None:
    bits = np.arange(65536, dtype=np.uint16)
    halves, bfloats = bits.view(np.float16), bits.view(ml_dtypes.bfloat16)
    hf, bf = np.zeros((2, 65536), np.float32)
    run_kernel(LANGUAGE, "widen", (256,), (256,), (halves, bfloats, hf, bf), seeds=[0])
    np.testing.assert_array_equal(hf, halves.astype(np.float32))
    np.testing.assert_array_equal(bf, bfloats.astype(np.float32))
    between = (np.arange(16384, dtype=np.uint32) * 0x3FFFF + 77).view(np.float32)  # all magnitudes, ties included
    ties = halves[:16384].astype(np.float32) + np.ldexp(np.float32(1), -25)
    with np.errstate(all="ignore"):
        for floats in (between, ties, -ties, bf[:16384] * np.float32(1 + 2**-9)):
            h, b = np.zeros(16384, np.float16), np.zeros(16384, ml_dtypes.bfloat16)
            run_kernel(LANGUAGE, "narrow", (64,), (256,), (floats, h, b), seeds=[0])
            np.testing.assert_array_equal(h, floats.astype(np.float16))
            np.testing.assert_array_equal(b.astype(np.float32), floats.astype(ml_dtypes.bfloat16).astype(np.float32))


X = np.zeros(8, np.float32)
ARGS = (X, np.int32(1), np.float32(2), True, 3)


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (((1,), (32,), ARGS[:4]), r"takes: takes 5 arguments \(x, n, s, flag, m\), got 4"),
        (((1,), (32,), (X, 1, *ARGS[2:])), r"argument 1 \(n\) must be a int32, got int 1, which is passed as int64"),
        (
            ((1,), (32,), (*ARGS[:2], 2.0, *ARGS[3:])),
            r"argument 2 \(s\) must be a float32, got float 2.0, .* numpy.float32",
        ),
        (((1,), (32,), (*ARGS[:3], 1, 3)), r"argument 3 \(flag\) must be a bool, got int 1"),
        (((1,), (32,), (X, True, *ARGS[2:])), r"argument 1 \(n\) must be a int32, got bool True"),
        (((1,), (32,), (X.astype(np.float64), *ARGS[1:])), r"argument 0 \(x\) must have dtype float32, got float64"),
        (
            ((1,), (32,), (np.zeros(16, np.float32)[::2], *ARGS[1:])),
            r"argument 0 \(x\) must be C-contiguous .* strides \(8,\)",
        ),
        (((1,), (32,), (1024, *ARGS[1:])), r"argument 0 \(x\) must be an array for float32\*, got int 1024"),
        (
            ((1,), (32,), (X, np.zeros(3, np.int32), *ARGS[2:])),
            r"argument 1 \(n\) must be a int32 by value, got a host array",
        ),
        (((0,), (32,), ARGS), r"grid must have 1 to 2147483647 along each axis, got \(0,\)"),
        (((1, 70000), (32,), ARGS), r"grid must have 1 to 65535"),
        (((1.0,), (32,), ARGS), r"grid must hold integers"),
        ((1, (32,), ARGS), r"grid must be a tuple"),
        (((1,), (64,), ARGS), r"block must have at most its __launch_bounds__ of 32 threads, got \(64,\) = 64"),
        (((1,), (32,), ARGS, 50_000), r"shared_mem must be at most max_dynamic_shared_size_bytes=49152, got 50000"),
    ],
)
def test_launch_that_a_gpu_turns_into_garbage_is_refused(launch: tuple, message: str) -> None:
    kernel = RawModule(LANGUAGE).get_function("takes")
    with pytest.raises(KernelError, match=message) as caught:
        kernel(*launch)
    assert caught.value.kind == "launch"


def test_more_shared_memory_has_to_be_asked_for_and_ends_at_227_kib() -> None:
    kernel = RawModule(ZOO).get_function("leaves_dynamic_shared_memory")
    kernel.max_dynamic_shared_size_bytes = 227 << 10
    kernel((1,), (64,), _floats(), shared_mem=227 << 10)
    with pytest.raises(KernelError, match="at most 232448"):
        kernel.max_dynamic_shared_size_bytes = (227 << 10) + 1


def test_source_that_does_not_compile_says_where() -> None:
    with pytest.raises(KernelError, match=r"kernel\.cu:2:.*error") as caught:
        RawModule('extern "C" __global__ void k(int n) {\n  int x = ;\n}')
    assert caught.value.kind == "compile"
    with pytest.raises(KernelError, match=r"declares no kernel .* void missing"):
        RawModule(REDUCTION).get_function("missing")


def test_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(KernelError, match=r"'no-such-compiler' was not found: install it .apt install"):
        compiler.find_compiler()


def test_kernel_file_is_read_with_its_headers_and_reports_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "scale.cuh").write_text(
        "#pragma once\n__device__ inline float scaled(const float* x) { return 2 * *x; }\n"
    )
    file = tmp_path / "double.cu"
    file.write_text(
        '#include "scale.cuh"\nextern "C" __global__ void twice(float* x, int n) {\n'
        "  if (threadIdx.x <= n)\n    x[threadIdx.x] = scaled(x + threadIdx.x);\n}\n"
    )
    x = np.ones(5, np.float32)
    run_kernel(file, "twice", (1,), (32,), (x, np.int32(4)))
    np.testing.assert_array_equal(x, 2)
    with pytest.raises(KernelError, match=r"at scale\.cuh:2 \(called from double\.cu:4\)"):
        run_kernel(str(file), "twice", (1,), (32,), (x, np.int32(5)))


@pytest.mark.slow
def test_two_processes_may_compile_at_once(tmp_path: Path) -> None:
    code = (
        "from lamella.testing import RawModule\n"
        "print(RawModule('extern \"C\" __global__ void k(float* x) { x[0] = 1; }').names)"
    )
    environment = {"LAMELLA_SIMULATOR_CACHE": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120)[0] for process in started] == ["('k',)\n"] * 3
    assert len(list(tmp_path.iterdir())) == 2  # the runtime and the kernel; no half-made folder is left


# ---- the simulated device ---------------------------------------------------------------------------------------
def test_device_exists_while_the_simulator_runs() -> None:
    before = backend_names()
    with simulator() as sim:
        device = lamella.device("simulator")
        x = sim.from_numpy(np.arange(6.0), device)
        assert backend_of(x) is sim
        assert sim.device_of(x) == device
    assert backend_names() == before


def test_launches_and_waits_are_counted() -> None:
    with simulator() as sim:
        kernel = sim.compile(REDUCTION, (), lamella.device("simulator")).get_function("variance")
        x = sim.from_numpy(np.arange(64, dtype=np.float32))
        y = sim.empty((64,), np.float32)
        assert np.isnan(y.get()).all()
        sim.reset()
        kernel((1,), (64,), (x, y))
        assert sim.launches == {"variance": 1}
        assert sim.synchronizations == 0
        waits = [float, int, bool, lambda v: v.item(), lambda v: v.get(), lambda v: v.tolist(), sim.xp.asnumpy]
        for count, wait in enumerate(waits, start=1):
            wait(y[0])
            assert sim.synchronizations == count
        x[x > 3]
        assert sim.synchronizations == len(waits) + 1
        with pytest.raises(KernelError, match=r"argument 0 \(x\) must be a device array .* got a host array"):
            kernel((1,), (64,), (np.zeros(64, np.float32), y))


@pytest.fixture
def xp() -> object:
    with simulator() as sim:
        yield sim.xp


def test_array_survives_every_operation(xp: object) -> None:
    x = xp.arange(6, dtype=np.float32).reshape(2, 3)
    results = [
        x + 1,
        2 * x,
        np.float32(2) * x,
        x @ x.T,
        -x,
        x.sum(),
        x[1, 2],
        x.mean(axis=0),
        x.astype("float16"),
        x == 1,
    ]
    results += [
        xp.exp(x),
        np.exp(x),
        np.sum(x),
        xp.concatenate([x, x]),
        *xp.split(x, 2),
        xp.where(x > 1, x, 0),
        x.T.copy(),
    ]
    results += [
        xp.linalg.norm(x),
        xp.full((2,), x.max()),
        xp.add.reduce(x),
        xp.allclose(x, x),
        *divmod(x, 2),
        next(iter(x)),
    ]
    assert {type(result) for result in results} == {SimulatorArray}
    assert x.sum().shape == ()
    x[0, 1] += 5
    row = x[0]
    row[...] = row * 2
    assert x.tolist() == [[0.0, 12.0, 4.0], [3.0, 4.0, 5.0]]
    x += x
    np.add(x, 1, out=x)
    assert x.sum().item() == 62.0


def test_host_arrays_do_not_meet_device_arrays(xp: object) -> None:
    x, host = xp.ones(3), np.ones(3)
    for mix in (
        lambda: x + host,
        lambda: host + x,
        lambda: xp.add(x, host),
        lambda: xp.concatenate([x, host]),
        lambda: xp.sum(host),
        lambda: x.dot(host),
        lambda: x.__iadd__(host),
        lambda: x.__setitem__(0, host[0:1]),
        lambda: np.where(x > 0, x, host),
    ):
        with pytest.raises(TypeError, match="Unsupported type"):
            mix()
    for convert in (np.asarray, np.array, np.ascontiguousarray):
        with pytest.raises(TypeError, match="Implicit conversion"):
            convert(x)
    assert not isinstance(x, np.ndarray)
    assert x[np.array([0, 2])].shape == (2,)  # CuPy moves index arrays by itself


def test_module_has_the_names_and_keywords_of_cupy_only(xp: object) -> None:
    x = xp.ones(3)
    with pytest.raises(AttributeError, match=r"module 'cupy' has no attribute 'spacing' \(CuPy 14"):
        xp.spacing  # noqa: B018
    with pytest.raises(AttributeError, match=r"'cupy.ndarray' object has no attribute 'ctypes'"):
        x.ctypes  # noqa: B018
    with pytest.raises(TypeError, match=r"cupy.add has no keyword 'where'"):
        xp.add(x, x, where=x > 0)
    with pytest.raises(TypeError, match=r"cupy.sum has no keyword 'initial'"):
        xp.sum(x, initial=1.0)
    with pytest.raises(TypeError, match=r"cupy.ndarray.sum has no keyword 'where'"):
        x.sum(where=x > 0)
    with pytest.raises(NotImplementedError, match=r"the simulator does not model cupy.ElementwiseKernel"):
        xp.ElementwiseKernel  # noqa: B018
    with pytest.raises(ValueError, match="Unsupported dtype object"):
        xp.array([None])
    assert xp.get_array_module(x) is xp
    assert xp.get_array_module(np.ones(3)) is np
    for name in dir(xp):
        try:
            getattr(xp, name)
        except NotImplementedError as error:
            assert f"cupy.{name}" in str(error)  # noqa: PT017


def test_arithmetic_gives_no_floating_point_warnings(xp: object) -> None:
    x = xp.array([0.0, 1e38], dtype=np.float32)
    assert np.isinf((x * x)[1].item())
    assert np.isnan(xp.log(x - 1)[0].item())
    assert np.isinf((1 / x)[0].item())


def test_bfloat16_products_accumulate_in_float32() -> None:
    with simulator() as sim:
        a = np.full((2, 300), 1.0).astype(ml_dtypes.bfloat16)
        product = sim.gemm(sim.from_numpy(a), sim.from_numpy(np.ascontiguousarray(a.T)))
        assert product.dtype == ml_dtypes.bfloat16
        np.testing.assert_array_equal(product.get().astype(np.float32), np.float32(300))


def test_stacks_of_bfloat16_are_refused_as_cupy_breaks_on_them() -> None:
    with simulator() as sim:
        a = sim.from_numpy(np.ones((2, 3, 3), ml_dtypes.bfloat16))
        for product in (lambda: a @ a, lambda: sim.xp.matmul(a, a)):
            with pytest.raises(TypeError, match="stacks of bfloat16"):
                product()
        assert sim.matmul(a, a).shape == (2, 3, 3)


def test_scatter_add_counts_duplicates() -> None:
    with simulator() as sim:
        target = sim.xp.zeros((3, 2))
        sim.scatter_add(target, sim.xp.array([1, 1, 2]), sim.xp.ones((3, 2)))
        assert target.tolist() == [[0, 0], [2, 2], [1, 1]]


# ---- comparison -------------------------------------------------------------------------------------------------
def test_comparison_names_the_worst_element() -> None:
    with simulator() as sim:
        actual = sim.from_numpy(np.array([[1.0, 2.0], [3.0, 4.5]], np.float32))
        assert_close(actual, [[1, 2], [3, 4.5]])
        with pytest.raises(AssertionError, match=r"y: 2 of 4 .* index \(1, 1\): got .*4\.5.*, expected .*4\.0"):
            assert_close(actual, [[1, 2], [3.1, 4]], rtol=0.01, name="y")


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ([np.nan], [1.0]),
        ([1.0], [np.nan]),
        ([np.nan], [np.nan]),
        ([np.inf], [1.0]),
        ([1.0], [np.inf]),
        ([[1.0]], [1.0]),
    ],
)
def test_comparison_fails_on_nan_infinity_and_shape(actual: list, expected: list) -> None:
    with pytest.raises(AssertionError):
        assert_close(actual, expected, rtol=1.0, atol=1.0)


def test_comparison_takes_infinities_that_agree() -> None:
    assert_close([np.inf, -np.inf, 1.0], [np.inf, -np.inf, 1.1], atol=0.2)
