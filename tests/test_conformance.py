"""Each wrapper of the CUDA language: the simulator against tables restated from the PTX ISA, and a GPU against both.

One kernel a wrapper, in tests/kernels. Operands are raw bits, integers exact in every format, or random bits where
the result is one rounding: so results are compared bit for bit (only that a NaN is a NaN, not which). The tests
marked ``gpu`` run the same kernels on CuPy; no GPU has run them yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lamella.backend import read_source, why_unavailable
from lamella.backend.tensor_map import encode_tensor_map
from lamella.testing import KernelError, RawModule, make_tensor_map

HERE = Path(__file__).parent / "kernels"
DTYPES = {"half": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
LANES = range(32)


# -- the tables: which element of a matrix a lane's register holds (PTX ISA, "Matrix Fragments for mma.m16n8k16", …) ---
def groups(lane: int) -> tuple[int, int]:
    """groupID and threadID_in_group."""
    return lane >> 2, lane % 4


def a_16x16(lane: int, i: int) -> tuple[int, int]:
    group, member = groups(lane)
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    return row, member * 2 + (i & 1) + (8 if i >= 4 else 0)


def b_16x8(lane: int, i: int) -> tuple[int, int]:
    group, member = groups(lane)
    return member * 2 + (i & 1) + (8 if i >= 2 else 0), group


def a_16x8(lane: int, i: int) -> tuple[int, int]:
    group, member = groups(lane)
    return (group if i in (0, 2) else group + 8), (member if i in (0, 1) else member + 4)


def b_8x8(lane: int, i: int) -> tuple[int, int]:
    group, member = groups(lane)
    return (member if i == 0 else member + 4), group


def d_16x8(lane: int, i: int) -> tuple[int, int]:
    group, member = groups(lane)
    return (group if i < 2 else group + 8), member * 2 + (i & 1)


def d_64xn(thread: int, i: int) -> tuple[int, int]:
    """wgmma: each warp has 16 rows, every eighth column block repeats the fragment of mma."""
    warp, lane = divmod(thread, 32)
    row, column = d_16x8(lane, i % 4)
    return 16 * warp + row, 8 * (i // 4) + column


def fragments(matrix: np.ndarray, table: Callable[[int, int], tuple[int, int]], count: int, threads: int = 32):
    """What each thread holds of ``matrix``: ``(threads, count)``."""
    return np.array([[matrix[table(thread, i)] for i in range(count)] for thread in range(threads)], matrix.dtype)


def swizzled(tile: np.ndarray) -> np.ndarray:
    """Rows of 64 two-byte elements: unit j of 16 bytes of row r lies at j ^ (r mod 8). As raw 16-bit words."""
    words = tile.view(np.uint16).reshape(-1, 8, 8)
    image = np.empty_like(words)
    for r in range(len(words)):
        for j in range(8):
            image[r, j ^ r % 8] = words[r, j]
    return image.reshape(-1)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Float32 integers whose products and sums here are exact in every format."""
    return rng.integers(-8, 9, shape).astype(np.float32)


# -- the cases -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """One run: arrays in the order of the kernel's arguments, of which the last is the output, and what it must be."""

    file: str
    kernel: str
    make: Callable[[np.random.Generator, dict[str, str]], tuple[list[np.ndarray], np.ndarray]]
    defines: tuple[str, ...] = ("T=half",)
    threads: int = 32

    def __str__(self) -> str:
        return f"{self.kernel}[{' '.join(self.defines)}]"


def copy(rng, _):
    x = rng.integers(1, 256, (32, 16)).astype(np.uint8)
    kept = np.arange(16) < (np.arange(32) % 17)[:, None]
    return [x, np.full_like(x, 99)], np.where(kept, x, 0).astype(np.uint8)


def load_matrices(transposed: bool):
    def make(rng, _):
        x = rng.permutation(256).astype(np.uint16).reshape(32, 8)
        matrices = x[5 * np.arange(32) % 32].reshape(4, 8, 8)
        if transposed:
            matrices = matrices.swapaxes(1, 2)
        pairs = [[matrices[m, lane // 4, 2 * (lane % 4) :][:2] for m in range(4)] for lane in LANES]
        expected = np.array(pairs, np.uint16).view(np.uint32)[..., 0]
        return [x.view(np.uint32), np.zeros((32, 4), np.uint32)], expected

    return make


def multiply_16_bit(rng, defines):
    dtype = DTYPES[defines["T"]]
    a, b, d = integers(rng, 16, 16), integers(rng, 16, 8), integers(rng, 16, 8)
    registers_a = fragments(a.astype(dtype), a_16x16, 8).view(np.uint32)
    registers_b = fragments(b.astype(dtype), b_16x8, 4).view(np.uint32)
    return [registers_a, registers_b, fragments(d, d_16x8, 4)], fragments(d + a @ b, d_16x8, 4)


def multiply_tf32(rng, _):
    a, b, d = integers(rng, 16, 8), integers(rng, 8, 8), integers(rng, 16, 8)
    arrays = [fragments(a, a_16x8, 4), fragments(b, b_8x8, 2), fragments(d, d_16x8, 4)]
    return arrays, fragments(d + a @ b, d_16x8, 4)


def any_floats(rng, count):
    """Every exponent and sign, numbers on and beside the ties of each format, infinities and NaN; no subnormals, which
    the compiler's options flush to zero."""
    bits = rng.integers(0, 2**32, count, dtype=np.uint64).astype(np.uint32)
    bits[: count // 4] &= np.uint32(0xFFFF8000)
    bits[count // 4 : count // 2] &= np.uint32(0xFFFFF000)
    bits[bits & 0x7F800000 == 0] |= np.uint32(0x3F800000)
    bits[:4] = 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF
    return bits.view(np.float32)


def round_to_tf32(rng, _):
    x = any_floats(rng, 4096)
    with np.errstate(over="ignore", invalid="ignore"):
        mantissa, exponent = np.frexp(x.astype(np.float64))
        scaled = np.abs(mantissa) * 2**11  # 11 bits with the leading one
        nearest = np.copysign(np.ldexp(np.floor(scaled + 0.5), exponent - 11), x).astype(np.float32)
    return [x, np.zeros_like(x)], np.where(np.isfinite(x), nearest, x)


def narrow(rng, defines):
    x = any_floats(rng, 4096)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        expected = x.astype(DTYPES[defines["T"]]).view(np.uint16)
    expected[np.isnan(x)] = 0x7FFF
    return [x, np.zeros(4096, np.uint16)], expected


def pack(rng, defines):
    (x, _), narrowed = narrow(rng, defines)
    return [x, np.zeros(2048, np.uint32)], narrowed.view(np.uint32)


def widen(_, defines):
    x = np.arange(65536, dtype=np.uint16)
    expected = x.view(DTYPES[defines["T"]]).astype(np.float32)
    return [x, np.zeros(65536, np.float32)], expected


def exchange(rng, _):
    x = rng.permutation(32).astype(np.int32)
    lane = np.arange(32)
    down = np.where(lane % 8 + 3 < 8, lane + 3, lane)
    votes = int(((x % 3 == 0) * (1 << lane)).sum())
    alike = [sum(1 << j for j in LANES if x[j] % 4 == value % 4) for value in x]
    every = np.ones(32, int)
    columns = [every * x[5], x[np.where(lane >= 3, lane - 3, lane)], x[down], x[lane ^ 9], every * votes, every * 3]
    columns += [x[lane ^ 2], alike]
    return [x, np.zeros((32, 8), np.int32)], np.stack(columns, 1).astype(np.uint32).view(np.int32)


def store(rng, _):
    x = rng.integers(0, 2**32, (32, 4), dtype=np.uint64).astype(np.uint32)
    return [x, np.zeros_like(x)], x


def a_64x16(thread: int, i: int) -> tuple[int, int]:
    """wgmma with the left operand in registers: each warp has 16 rows."""
    row, column = a_16x16(thread % 32, i)
    return 16 * (thread // 32) + row, column


def warpgroup_product(transposed: bool, registers: bool = False, adds: bool = True):
    def make(rng, defines):
        dtype, columns = DTYPES[defines["T"]], int(defines["COLUMNS"])
        a, b, d = integers(rng, 64, 64), integers(rng, columns, 64), integers(rng, 64, columns)
        if transposed:  # panels of 64 columns, each with one k in a row
            image_b = np.concatenate([swizzled(b[n : n + 64].T.astype(dtype)) for n in range(0, columns, 64)])
        else:
            image_b = swizzled(b.astype(dtype))
        if registers:
            steps = [fragments(a[:, k : k + 16].astype(dtype), a_64x16, 8, 128) for k in range(0, 64, 16)]
            left = np.concatenate(steps, axis=1)
        else:
            left = swizzled(a.astype(dtype))
        arrays = [left.view(np.uint32), image_b.view(np.uint32), fragments(d, d_64xn, columns // 2, 128)]
        return arrays, fragments(d * adds + a @ b.T, d_64xn, columns // 2, 128)

    return make


def vote(_, __):
    x = np.zeros(128, np.int32)
    x[40] = 3
    return [x, np.full_like(x, 7)], (np.arange(128) < 96).astype(np.int32)


AMPERE, HOPPER = "wrappers.cu", "hopper_wrappers.cu"
CASES = [
    Case(AMPERE, "copies_16_bytes", copy),
    Case(AMPERE, "loads_matrices", load_matrices(False)),
    Case(AMPERE, "loads_transposed_matrices", load_matrices(True)),
    Case(AMPERE, "multiplies_tf32", multiply_tf32),
    Case(AMPERE, "rounds_to_tf32", round_to_tf32),
    Case(AMPERE, "exchanges", exchange),
    Case(AMPERE, "stores_16_bytes", store),
    *(
        Case(AMPERE, kernel, make, (f"T={t}",))
        for t in DTYPES
        for kernel, make in [
            ("multiplies_16_bit", multiply_16_bit),
            ("packs_two", pack),
            ("narrows", narrow),
            ("widens", widen),
        ]
    ),
    *(
        Case(HOPPER, kernel, make, (f"T={t}", f"COLUMNS={columns}"), 128)
        for t, columns in [("half", 64), ("bfloat16", 80), ("bfloat16", 128), ("half", 256)]
        for kernel, make in [
            ("multiplies", warpgroup_product(False)),
            ("multiplies_anew", warpgroup_product(False, adds=False)),
            ("multiplies_registers", warpgroup_product(False, registers=True)),
            ("multiplies_transposed", warpgroup_product(True)),
            ("multiplies_registers_transposed", warpgroup_product(True, registers=True)),
        ]
        if columns % 64 == 0 or "transposed" not in kernel
    ),
    Case(HOPPER, "votes", vote, ("T=half", "COLUMNS=64"), 128),
]
SHARED = 1024 + 8192 + 256 * 128  # for every kernel of hopper_wrappers.cu


def _make(case: Case, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    defines = dict(define.split("=") for define in case.defines)
    return case.make(np.random.default_rng(seed), defines)


def _simulate(case: Case, arrays: list[np.ndarray], seed: int = 0) -> np.ndarray:
    options = [f"-D{define}" for define in case.defines]
    kernel = RawModule(read_source(HERE / case.file), options=options).get_function(case.kernel)
    kernel.seed = seed
    kernel((1,), (case.threads,), arrays, SHARED if case.file == HOPPER else 0)
    return arrays[-1]


def assert_same_bits(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if found.dtype.kind == "f":
        nan = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(found), nan)
        found, expected = (np.where(nan, 0, x).astype(x.dtype).view(f"u{x.itemsize}") for x in (found, expected))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrapper_does_on_the_simulator_what_the_tables_say(case: Case, seed: int):
    arrays, expected = _make(case, seed)
    assert_same_bits(_simulate(case, arrays, seed), expected)


def test_a_product_of_plain_stores_needs_the_proxy_fence():
    case = next(case for case in CASES if case.kernel == "multiplies")
    code = read_source(HERE / case.file).replace("  async_proxy_fence();", "")
    kernel = RawModule(code, options=[f"-D{define}" for define in case.defines]).get_function(case.kernel)
    with pytest.raises(KernelError, match=r"without async_proxy_fence\(\)") as error:
        kernel((1,), (128,), _make(case, 0)[0], SHARED)
    assert error.value.kind == "asynchrony"


TILES = {"inside": (64, 0), "over two edges": (96, 50), "before the left edge": (-8, 3), "last row": (0, 99)}


def _tile(column: int, row: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix of 100 x 136 numbers, and the image of its 64 x 64 tile at (row, column)."""
    matrix = (1 + np.arange(100 * 136, dtype=np.uint16)).reshape(100, 136)
    padded = np.zeros((100 + 128, 136 + 128), np.uint16)
    padded[64:164, 64:200] = matrix
    return matrix.view(np.float16), swizzled(np.ascontiguousarray(padded[64 + row :, 64 + column :][:64, :64]))


@pytest.mark.parametrize(("column", "row"), TILES.values(), ids=TILES)
def test_a_tile_lies_in_shared_memory_as_the_swizzle_says(column: int, row: int):
    matrix, expected = _tile(column, row)
    source, image = read_source(HERE / HOPPER), np.zeros(4096, np.uint16)
    kernel = RawModule(source, options=["-DT=half", "-DCOLUMNS=64"]).get_function("loads_a_tile")
    kernel((1,), (128,), (make_tensor_map(matrix, (64, 64)), image, np.int32(column), np.int32(row)), SHARED)
    assert_same_bits(image, expected)


BOXES = {"inside": (64, 0, 0, 0), "the next head stays out": (0, 20, 1, 0), "before and beyond": (-8, -3, 2, 1)}


def _box(corner: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of shape (2, 3, 40, 136) whose second axis lies outside the third, and the image of a 32 x 64 tile."""
    numbers = (1 + np.arange(2 * 40 * 3 * 136) % 65000).astype(np.uint16).reshape(2, 40, 3, 136)
    matrix = np.pad(numbers[corner[3], :, corner[2]], 64)
    tile = np.ascontiguousarray(matrix[64 + corner[1] :, 64 + corner[0] :][:32, :64])
    return numbers.view(np.float16).transpose(0, 2, 1, 3), swizzled(tile)


@pytest.mark.parametrize("corner", BOXES.values(), ids=BOXES)
def test_a_tile_of_four_axes_keeps_to_its_head(corner: tuple[int, ...]):
    array, expected = _box(corner)
    source, image = read_source(HERE / HOPPER), np.zeros(2048, np.uint16)
    kernel = RawModule(source, options=["-DT=half", "-DCOLUMNS=64"]).get_function("loads_a_tile_of_four_axes")
    kernel((1,), (128,), (make_tensor_map(array, (1, 1, 32, 64)), image, *map(np.int32, corner)), SHARED)
    assert_same_bits(image, expected)


@pytest.mark.parametrize("first", [0, 4, 124])
def test_words_are_copied_in_a_row(first: int):
    x, y = np.arange(1, 129, dtype=np.uint32), np.zeros(128, np.uint32)
    kernel = RawModule(read_source(HERE / HOPPER), options=["-DT=half", "-DCOLUMNS=64"]).get_function("loads_words")
    kernel((1,), (128,), (x, np.int32(first), y), SHARED)
    assert_same_bits(y, np.where(np.arange(128) < first, 0, x).astype(np.uint32))


def test_every_wrapper_is_in_a_kernel():
    headers = [read_source(HERE.parents[1] / "kernels" / name) for name in ("cuda_compat.cuh", "hopper_compat.cuh")]
    bodies = re.compile(r"__device__ inline [\w ]+? (\w+)(?:<\w+>)?\([^{;]*\) \{(?:(?!\n\}|\}\n).)*?asm", re.DOTALL)
    wrappers = {name for header in headers for name in bodies.findall(header)}
    assert {"cp_async16", "mma_m16n8k16", "mbarrier_try_wait", "tma_load_4d", "wgmma_wait"} <= wrappers
    kernels = "\n".join(file.read_text(encoding="utf-8") for file in HERE.glob("*.cu"))
    called = kernels.replace("mbarrier_wait(", "mbarrier_try_wait(")  # which is a loop around it
    unused = {name for name in wrappers if not re.search(rf"\b{name}\b", called)}
    assert not unused


# -- on a GPU ------------------------------------------------------------------------------------------------------
@cache
def _on_gpu(file: str, defines: tuple[str, ...], name: str) -> Any:
    """The kernel compiled by CuPy; skips where no GPU has the instructions."""
    if (reason := why_unavailable("cuda")) is not None:
        pytest.skip(reason)
    import cupy

    capability = int(cupy.cuda.Device().compute_capability)
    if capability < 80 or (file == HOPPER and capability != 90):
        pytest.skip(f"compute capability {capability} has not the instructions of {file}")
    options = ["--std=c++17", *(f"-D{define}" for define in defines), *(["-arch=sm_90a"] if file == HOPPER else [])]
    kernel = cupy.RawModule(code=read_source(HERE / file), options=tuple(options)).get_function(name)
    if file == HOPPER:
        kernel.max_dynamic_shared_size_bytes = SHARED
    return kernel


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrapper_does_on_a_gpu_what_it_does_on_the_simulator(case: Case):
    kernel = _on_gpu(case.file, case.defines, case.kernel)
    import cupy

    arrays, _ = _make(case, 0)
    on_device = [cupy.asarray(array) for array in arrays]
    kernel((1,), (case.threads,), tuple(on_device), shared_mem=SHARED if case.file == HOPPER else 0)
    assert_same_bits(cupy.asnumpy(on_device[-1]), _simulate(case, arrays))


def _on_device(array: np.ndarray, box: tuple[int, ...]) -> tuple[Any, np.ndarray]:
    """A float16 array in device memory, its axes in the same order there, and the driver's own descriptor of it."""
    import cupy

    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    kept = cupy.asarray(np.ascontiguousarray(array.transpose(order)))
    strides = kept.transpose([order.index(axis) for axis in range(array.ndim)]).strides
    return kept, encode_tensor_map(kept.data.ptr, "float16", array.shape, strides, box)


@pytest.mark.gpu
@pytest.mark.parametrize(("column", "row"), TILES.values(), ids=TILES)
def test_a_tile_lies_on_a_gpu_as_the_swizzle_says(column: int, row: int):
    kernel = _on_gpu(HOPPER, ("T=half", "COLUMNS=64"), "loads_a_tile")
    import cupy

    matrix, expected = _tile(column, row)
    kept, tensor_map = _on_device(matrix, (64, 64))
    image = cupy.zeros(4096, np.uint16)
    kernel((1,), (128,), (tensor_map, image, np.int32(column), np.int32(row)), shared_mem=SHARED)
    assert_same_bits(cupy.asnumpy(image), expected)
    del kept


@pytest.mark.gpu
@pytest.mark.parametrize("corner", BOXES.values(), ids=BOXES)
def test_a_tile_of_four_axes_keeps_to_its_head_on_a_gpu(corner: tuple[int, ...]):
    kernel = _on_gpu(HOPPER, ("T=half", "COLUMNS=64"), "loads_a_tile_of_four_axes")
    import cupy

    array, expected = _box(corner)
    kept, tensor_map = _on_device(array, (1, 1, 32, 64))
    image = cupy.zeros(2048, np.uint16)
    kernel((1,), (128,), (tensor_map, image, *map(np.int32, corner)), shared_mem=SHARED)
    assert_same_bits(cupy.asnumpy(image), expected)
    del kept


@pytest.mark.gpu
@pytest.mark.parametrize("first", [0, 4, 124])
def test_words_are_copied_in_a_row_on_a_gpu(first: int):
    kernel = _on_gpu(HOPPER, ("T=half", "COLUMNS=64"), "loads_words")
    import cupy

    x, y = cupy.arange(1, 129, dtype=np.uint32), cupy.zeros(128, np.uint32)
    kernel((1,), (128,), (x, np.int32(first), y), shared_mem=SHARED)
    assert_same_bits(cupy.asnumpy(y), np.where(np.arange(128) < first, 0, np.arange(1, 129)).astype(np.uint32))
