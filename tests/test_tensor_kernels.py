"""Two matrix products made of the wrappers: cp.async + ldmatrix + mma, and tile copies + mbarriers + wgmma.

Both run in the simulator against NumPy's float64, and compile for the architectures in their heads; each planted bug is
reported or spoils the numbers.
"""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lamella.backend import read_source
from lamella.testing import KernelError, RawModule, assert_close, make_tensor_map, nvrtc

from .kernel_heads import Variant, architectures, complaints, variants

KERNELS = Path(__file__).parent / "kernels"
DTYPES = {"half": np.float16, "bfloat16": ml_dtypes.bfloat16}
M, N, K = 100, 72, 320  # ragged in both directions of the result; five steps through two buffers


def _product(name: str, t: str, seed: int, *, bug: str = "", columns: int = 64, swizzle: bool = True, shape=(M, N, K)):
    """The kernel's result and the float64 product."""
    m, n, k = shape
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((rows, k)).astype(DTYPES[t]) for rows in (m, n))
    c = np.full((m, n), np.nan, np.float32)
    options = [f"-DT={t}", f"-DCOLUMNS={columns}", *([f"-D{bug}"] if bug else [])]
    kernel = RawModule(read_source(KERNELS / f"{name}.cu"), options=options).get_function(name)
    kernel.seed = seed
    sizes = (np.int32(m), np.int32(n), np.int32(k))
    grid = (-(-n // columns), -(-m // 64))
    if name == "hopper_product":
        shared = 2 * (64 + columns) * 128 + 1024 + 32
        kernel.max_dynamic_shared_size_bytes = shared
        maps = make_tensor_map(a, (64, 64), swizzle=swizzle), make_tensor_map(b, (columns, 64), swizzle=swizzle)
        kernel(grid, (256,), (*maps, c, *sizes), shared)
    else:
        kernel(grid, (128,), (a, b, c, *sizes))
    return c, a.astype(np.float64) @ b.astype(np.float64).T


CORRECT = [
    *((name, t, 64) for name in ("ampere_product", "hopper_product") for t in DTYPES),
    ("hopper_product", "half", 128),
    ("hopper_product", "bfloat16", 256),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "t", "columns"), CORRECT)
def test_the_product_is_that_of_numpy(name, columns, t, seed):
    found, expected = _product(name, t, seed, columns=columns)
    assert_close(found, expected, atol=1e-4)  # products are exact, their sum of about 20 is rounded 20 times


@pytest.mark.parametrize("shape", [(1, 1, 8), (64, 64, 64), (65, 63, 72)], ids=str)
@pytest.mark.parametrize("name", ["ampere_product", "hopper_product"])
def test_the_product_is_right_at_the_edges_of_tiles(name, shape):
    found, expected = _product(name, "half", 0, shape=shape)
    assert_close(found, expected, atol=1e-4)


# What each planted bug leads to: the kind of the report, or None where only the numbers show it.
PLANTED = [
    ("ampere_product", "BUG_WAIT", None),  # cp.async waited for one group too late
    pytest.param("ampere_product", "BUG_COMMIT", None, marks=pytest.mark.slow),
    pytest.param("ampere_product", "BUG_FIRST_BARRIER", "uninitialised", marks=pytest.mark.slow),
    ("ampere_product", "BUG_SECOND_BARRIER", "race"),
    ("ampere_product", "BUG_ROW", "misaligned"),
    ("hopper_product", "BUG_WAIT", None),  # wgmma waited for one group too late
    ("hopper_product", "BUG_COMMIT", None),
    ("hopper_product", "BUG_EARLY", "uninitialised"),  # the buffer is given back while wgmma still reads it
    ("hopper_product", "BUG_BARRIER", "uninitialised"),
    pytest.param("hopper_product", "BUG_FULL", "uninitialised", marks=pytest.mark.slow),
    ("hopper_product", "BUG_EMPTY", "asynchrony"),
    ("hopper_product", "BUG_TOO_FEW", "uninitialised"),
    ("hopper_product", "BUG_TOO_MANY", "divergence"),
    pytest.param("hopper_product", "BUG_FENCE", "asynchrony", marks=pytest.mark.slow),
    ("hopper_product", "BUG_INIT_FENCE", "asynchrony"),  # the copy engine may not see the initialised mbarrier
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "bug", "kind"), PLANTED)
def test_a_planted_bug_shows(name, bug, kind, seed):
    if kind is None:
        found, expected = _product(name, "half", seed, bug=bug)
        with pytest.raises(AssertionError, match="elements differ"):
            assert_close(found, expected, atol=1e-4)
        return
    with pytest.raises(KernelError) as error:
        _product(name, "half", seed, bug=bug)
    assert error.value.kind == kind, error.value
    assert error.value.line is not None


def test_a_wrong_swizzle_spoils_the_numbers():
    found, expected = _product("hopper_product", "half", 0, swizzle=False)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(found, expected, atol=1e-4)


# Threads hand buffers over by mbarriers alone; the bugs are orders that no number shows.
HANDOVER = r"""
extern "C" __global__ void hands_over(const float* x, float* y) {
  __shared__ float s[64];
  __shared__ mbarrier full, empty;
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(&full, 2);
    mbarrier_init(&empty, 2);
    mbarrier_init_fence();
  }
  __syncthreads();
  for (int i = 0; i < 3; ++i) {
    if (t < 64) {
      if (i > 0) mbarrier_wait(&empty, (i - 1) % 2);
      s[t] = x[t] + i;
#ifndef NO_WARP_BARRIER
      __syncwarp();
#endif
      if (t % 32 == 0) mbarrier_arrive(&full);
    } else {
#ifdef ONE_WAITS
      if (t % 32 == 0) mbarrier_wait(&full, i % 2);
      __syncwarp();
#elif !defined(NO_WAIT)
      mbarrier_wait(&full, i % 2);
#endif
      y[t - 64] += s[127 - t];
      __syncwarp();
      if (t % 32 == 0) mbarrier_arrive(&empty);
    }
  }
}
extern "C" __global__ void __launch_bounds__(128) warps_wait_for_different_products(int* x) {
  if (threadIdx.x < 96) wgmma_wait<0>();
  else wgmma_wait<1>();
}
extern "C" __global__ void __launch_bounds__(128) one_warp_skips_the_wait(int* x) {
  if (threadIdx.x < 96) wgmma_wait<0>();
}
// A product of zeros, after which the misuse that a macro names.
extern "C" __global__ void __launch_bounds__(128) multiplies_zeros(float* y) {
  DYN_SHARED(memory);
  unsigned char* tile = aligned_to_1024(memory);
  for (int i = threadIdx.x; i < 8192; i += 128) tile[i] = 0;
  async_proxy_fence();
  __syncthreads();
  float d[32] = {};
  unsigned a[4] = {};
  wgmma_fence();
  wgmma_m64k16<half>(d, a, wgmma_descriptor(tile));
  wgmma_commit();
#ifdef CHANGES_OPERAND
  a[1] = 1;
#endif
#ifdef READS_EARLY
  y[threadIdx.x] = d[0];
#endif
  wgmma_wait<0>();
#ifdef NO_SECOND_FENCE
  d[0] += 1.f;
  wgmma_m64k16<half>(d, a, wgmma_descriptor(tile));
  wgmma_commit();
  wgmma_wait<0>();
#endif
#ifdef WRONG_OPERAND
  wgmma_fence();
  wgmma_m64k16<half>(d, a, wgmma_descriptor(tile + 128));
#endif
#ifndef READS_EARLY
  y[threadIdx.x] = d[0];
#endif
}
extern "C" __global__ void meets_at_a_named_barrier(int* y) {
  __shared__ int s[96];
  const int t = threadIdx.x;
  if (t < 96) {
    s[t] = t;
#ifdef TOO_MANY
    named_barrier_or(3, t < 64 ? 96 : 64, false);
#elif defined(TOO_FEW_COME)
    named_barrier_or(3, 128, false);
#elif defined(NO_SUCH)
    named_barrier_or(0, 96, false);
#elif defined(PART_OF_A_WARP)
    named_barrier_or(3, 90, false);
#elif defined(OTHERS)
    named_barrier_or(1 + t / 64, t < 64 ? 64 : 32, false);
#elif !defined(NONE)
    named_barrier_or(3, 96, false);
#endif
    y[t] = s[95 - t];
  }
}
extern "C" __global__ void uses_no_barrier(mbarrier* x) {
  __shared__ mbarrier full;
  full = 0;
  mbarrier_arrive(&full);
}
// Several warps read s; only one of them says so.
extern "C" __global__ void releases_for_others(const float* x, float* y) {
  __shared__ float s[32];
  __shared__ mbarrier full, empty;
  const int t = threadIdx.x;
  if (t == 0) {
    mbarrier_init(&full, 1);
    mbarrier_init(&empty, ARRIVALS);
  }
  __syncthreads();
  for (int i = 0; i < 3; ++i) {
    if (t < 32) {
      if (i > 0) mbarrier_wait(&empty, (i - 1) % 2);
      s[t] = x[t] + i;
      __syncwarp();
      if (t == 0) mbarrier_arrive(&full);
    } else {
      mbarrier_wait(&full, i % 2);
      y[t - 32] += s[t % 32];
      __syncwarp();
      if (t % 32 == 0 && (ARRIVALS == 3 || t == 32)) mbarrier_arrive(&empty);
    }
  }
}
extern "C" __global__ void forgets_its_copy(const __grid_constant__ TensorMap map) {
  DYN_SHARED(memory);
  __shared__ mbarrier full;
  if (threadIdx.x) return;
  mbarrier_init(&full, 1);
  mbarrier_init_fence();
  mbarrier_arrive_expect_tx(&full, 128);
  tma_load_2d(memory, &map, &full, 0, 0);
}
extern "C" __global__ void writes_where_others_read(const __grid_constant__ TensorMap map, float* y) {
  DYN_SHARED(memory);
  __shared__ mbarrier full;
  if (threadIdx.x == 0) {
    mbarrier_init(&full, 1);
    mbarrier_init_fence();
  }
  memory[threadIdx.x] = 0;
  __syncthreads();
  y[threadIdx.x] = memory[threadIdx.x ^ 1];
  if (threadIdx.x == 0) {
    mbarrier_arrive_expect_tx(&full, 128);
    tma_load_2d(memory, &map, &full, 0, 0);
  }
  mbarrier_wait(&full, 0);
}
"""


def _small(name: str, *defines: str):
    header = read_source(KERNELS.parents[1] / "kernels" / "hopper_compat.cuh")
    options = ["-DARRIVALS=3", *(f"-U{define.partition('=')[0]}" for define in defines if "=" in define)]
    options += [f"-D{define}" for define in defines]
    return RawModule(f'{header}\n#line 1 "handover.cu"\n{HANDOVER}', options=options).get_function(name)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("defines", [(), ("ONE_WAITS",)], ids=["all wait", "one lane waits"])
def test_mbarriers_order_what_threads_hand_over(defines, seed):
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    kernel = _small("hands_over", *defines)
    kernel.seed = seed
    kernel((1,), (128,), (x, y))
    assert_close(y, 3 * x[::-1] + 3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("bug", ["NO_WARP_BARRIER", "NO_WAIT"])
def test_a_missing_order_at_an_mbarrier_is_a_race(bug, seed):
    kernel = _small("hands_over", bug)
    kernel.seed = seed
    with pytest.raises(KernelError) as error:
        kernel((1,), (128,), (np.zeros(64, np.float32), np.zeros(64, np.float32)))
    assert error.value.kind in ("race", "uninitialised"), error.value


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("warps_wait_for_different_products", "divergence", "wait for different products"),
        ("one_warp_skips_the_wait", "divergence", "96 at a wait for products"),
        ("uses_no_barrier", "asynchrony", "an mbarrier is used that nobody has initialised"),
    ],
)
def test_a_wrong_use_is_named(name, kind, message):
    with pytest.raises(KernelError, match=message) as error:
        _small(name)((1,), (1 if name == "uses_no_barrier" else 128,), (None,))
    assert error.value.kind == kind


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        ("CHANGES_OPERAND", "left operand were changed before the wait"),
        ("NO_SECOND_FENCE", r"the first after a wait, needs wgmma_fence\(\)"),
        ("WRONG_OPERAND", "which is no multiple of 1024"),
        ("READS_EARLY", None),
        ("NO_MISUSE", None),
    ],
)
def test_a_product_from_registers_keeps_its_order(misuse, message):
    y = np.ones(128, np.float32)
    if message is None:
        _small("multiplies_zeros", misuse)((1,), (128,), (y,), 16384)
        assert np.isnan(y).all() if misuse == "READS_EARLY" else (y == 0).all()
        return
    with pytest.raises(KernelError, match=message) as error:
        _small("multiplies_zeros", misuse)((1,), (128,), (y,), 16384)
    assert error.value.kind in ("asynchrony", "misaligned")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("misuse", "kind", "message"),
    [
        ("NO_MISUSE", None, ""),
        ("NONE", "race|uninitialised", "race|uninitialised"),
        ("OTHERS", "race|uninitialised", "race|uninitialised"),
        ("TOO_MANY", "divergence", "others wait at named barrier 3 for"),
        ("TOO_FEW_COME", "divergence", "96 at a named barrier, 32 have returned"),
        ("NO_SUCH", "divergence", "one of 1 to 15"),
        ("PART_OF_A_WARP", "divergence", "is for whole warps"),
    ],
)
def test_a_named_barrier_orders_those_that_meet_there(misuse, kind, message, seed):
    y = np.zeros(96, np.int32)
    kernel = _small("meets_at_a_named_barrier", misuse)
    kernel.seed = seed
    if kind is None:
        kernel((1,), (128,), (y,))
        np.testing.assert_array_equal(y, np.arange(96)[::-1])
        return
    with pytest.raises(KernelError, match=message) as error:
        kernel((1,), (128,), (y,))
    assert error.value.kind in kind.split("|"), error.value


@pytest.mark.parametrize("seed", range(4))
def test_all_readers_have_to_give_a_buffer_back(seed):
    x, y = np.ones(32, np.float32), np.zeros(96, np.float32)
    kernel = _small("releases_for_others", "ARRIVALS=3")
    kernel.seed = seed
    kernel((1,), (128,), (x, y))
    assert_close(y, np.full(96, 6))
    kernel = _small("releases_for_others", "ARRIVALS=1")
    kernel.seed = seed
    with pytest.raises(KernelError) as error:
        kernel((1,), (128,), (x, y))
    assert error.value.kind in ("race", "asynchrony", "divergence"), error.value


def test_a_copy_that_nobody_waits_for_is_reported():
    tile = make_tensor_map(np.zeros((1, 64), np.float16), (1, 64))
    with pytest.raises(KernelError, match="nobody waited for a copy of 128 bytes") as error:
        _small("forgets_its_copy")((1,), (32,), (tile,), 1024)
    assert error.value.kind == "asynchrony"


def test_a_copy_into_what_others_still_read_is_a_race():
    tile = make_tensor_map(np.zeros((1, 64), np.float16), (1, 64))
    with pytest.raises(KernelError, match="write of 128 bytes") as error:
        _small("writes_where_others_read")((1,), (128,), (tile, np.zeros(128, np.float32)), 1024)
    assert error.value.kind == "race"


@pytest.mark.parametrize(
    ("array", "box", "message"),
    [
        (np.zeros((4, 64), np.float64), (4, 64), "must have 2 to 4 axes of float16, bfloat16, float32"),
        (np.zeros((4, 60), np.float16), (4, 64), "rows must begin at multiples of 16 bytes"),
        (np.zeros((64, 64), np.float16).T, (4, 64), "rows must begin at multiples of 16 bytes"),
        (np.zeros((4, 64), np.float16), (257, 64), "box must be 1 to 256"),
        (np.zeros((4, 64), np.float16), (1, 4, 64), "along each of 2 axes"),
        (np.zeros((2, 2, 2, 2, 8), np.float16), (1, 1, 1, 1, 8), "must have 2 to 4 axes"),
        (np.zeros((2, 4, 64), np.float16)[::-1], (1, 4, 64), "rows must begin at multiples of 16 bytes"),
        (np.zeros((4, 64), np.float16), (4, 32), "a swizzled box has rows of 128 bytes, got 32 columns of 2 bytes"),
    ],
)
def test_a_tensor_map_keeps_the_rules_of_the_hardware(array, box, message):
    with pytest.raises(ValueError, match=message):
        make_tensor_map(array, box)


def test_a_kernel_takes_no_other_bytes_for_a_tensor_map():
    with pytest.raises(KernelError, match=r"argument 0 \(map\) must be what make_tensor_map gives"):
        _small("forgets_its_copy")((1,), (32,), (np.zeros(1, "V128"),), 1024)


_COMPILED = [
    pytest.param(variant, architecture, id=f"{variant}-sm_{architecture}", marks=() if quick else pytest.mark.slow)
    for file in sorted(KERNELS.glob("*.cu"))
    for variant in variants(file)
    for architecture in architectures(file)
    for quick in [variant.is_extreme and architecture in ("80", "90a") and "wrappers" not in file.name]
]


@pytest.mark.parametrize(("variant", "architecture"), _COMPILED)
def test_it_compiles_for_its_architectures(variant: Variant, architecture: str):
    if (missing := nvrtc.why_missing()) is not None:
        pytest.skip(missing)
    compiled = nvrtc.compile_cuda(read_source(KERNELS / variant.file), variant.defines, architecture)
    assert compiled.ok, compiled.log
    assert not complaints(compiled.log), compiled.log
    assert compiled.registers
    assert max(compiled.registers.values()) <= variant.registers, compiled.registers
    assert max(compiled.spills.values()) <= variant.spills, compiled.spills


def test_wgmma_is_refused_where_there_is_none():
    if (missing := nvrtc.why_missing()) is not None:
        pytest.skip(missing)
    compiled = nvrtc.compile_cuda(read_source(KERNELS / "hopper_product.cu"), ("T=half", "COLUMNS=64"), "90")
    assert not compiled.ok
    assert "sm_90" in compiled.log
