"""Every variant of the softmax kernels executed on the CPU, and what judges a broken one."""

from __future__ import annotations

import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from lamella import kernels
from lamella.backend import read_source
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants
from .test_softmax import backward64, log_backward64, log_softmax64, softmax64, unit

SOURCE = KERNELS / "softmax.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}


def run_variant(text: str, defines: tuple[str, ...], seeds=(0,)) -> None:
    """Run a variant's four kernels on awkward shapes and judge the numbers; the simulator judges by a KernelError."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype = _DTYPES[macros["DTYPE"]]
    if "STRIDED" in macros:
        vector, width, depth, packs = (int(macros[name]) for name in ("VECTOR", "WIDTH", "DEPTH", "PACKS"))
        for cols in (1, depth * packs, depth * packs + 1, 2 * depth * packs + 3):
            outer, inner = 2, (width // 2 + 1) * vector  # a block and two columns more
            scalars = (np.int64(outer), np.int32(cols), np.int64(inner))
            launch = ((-(-outer * inner // vector // width),), (width * depth,), scalars)
            _judge(text, "strided", defines, launch, (outer, cols, inner), dtype, 0, seeds)
    else:
        vector, threads, packs = (int(macros[name]) for name in ("VECTOR", "THREADS", "PACKS"))
        block = max(threads, 128)
        per_block, capacity = block // threads, threads * packs * vector
        if "SPLIT" in macros:
            cases = ((1, 1, 0), (2 * capacity + 17, capacity + 5, 1), (98, 3, 0))  # columns, in a part, offset
            for cols, chunk, offset in cases:
                parts = -(-cols // chunk)
                launch = ((7 * parts,), (block,), (np.int64(7), np.int32(cols), np.int32(chunk), np.int32(parts)))
                _judge(text, "split", defines, launch, (7, cols), dtype, offset, seeds)
            return
        streamed = "STREAMED" in macros
        for cols in (1, 2 * capacity + 3 if streamed else capacity, capacity - 1, capacity // 2 + 1):
            rows = per_block + 7
            launch = ((-(-rows // per_block),), (block,), (np.int64(rows), np.int32(cols)))
            for offset in (0, 1):  # elements past a 16-byte boundary
                if cols:
                    _judge(
                        text,
                        "streamed" if streamed else "registers",
                        defines,
                        launch,
                        (rows, cols),
                        dtype,
                        offset,
                        seeds,
                    )


def _judge(text, kind, defines, launch, shape, dtype, offset, seeds):
    grid, block, scalars = launch
    rng = np.random.default_rng(shape)
    x = _place(rng.standard_normal(shape) * 3, dtype, offset)
    if x.size >= 7 * shape[1]:  # slices along axis 1 that are hard: far from 0, masked, partly masked, not finite
        slices = np.moveaxis(x, 1, -1).reshape(-1, shape[1]) if x.ndim == 2 else x[0].T
        slices[0] += dtype(-1000)
        slices[0, -1] = -900
        slices[1] = -np.inf
        slices[2, 1:] = -np.inf
        slices[3, 0] = np.nan
        slices[-1] -= dtype(20)
        slices[-2, -1] = np.inf
    y = _place(np.full(shape, np.nan), dtype, offset)
    partial = np.full((grid[0], 2), np.nan, np.float32)

    def run(name, seeds, *arrays):
        if kind == "split":
            parts = "softmax_forward_parts" if name.endswith("forward") else f"{name}_parts"
            _launch(text, parts, grid, block, (*arrays[:-1], partial, *scalars), defines, seeds)
            arrays = (*arrays[:-1], partial, arrays[-1])
        _launch(text, f"{name}_{kind}", grid, block, (*arrays, *scalars), defines, seeds)

    run("softmax_forward", seeds, x, y)
    _agree(y, softmax64(x, 1), kernels.softmax_definition(np.array(x), 1), unit(dtype))
    run("log_softmax_forward", seeds[:1], x, y)
    expected, size = log_softmax64(x, 1)
    _agree(y, expected, kernels.log_softmax_definition(np.array(x), 1), unit(dtype) * size)

    y = _place(softmax64(rng.standard_normal(shape) * 2, 1), dtype, offset)
    dy, dx = _place(rng.standard_normal(shape) + 1, dtype, offset), _place(np.full(shape, np.nan), dtype, offset)
    run("softmax_backward", seeds, dy, y, dx)
    expected, size = backward64(dy, y, 1)
    _agree(dx, expected, kernels.softmax_backward_definition(np.array(dy), np.array(y), 1), unit(dtype) * size)

    y[...] = log_softmax64(rng.standard_normal(shape) * 2, 1)[0].astype(dtype)
    run("log_softmax_backward", seeds[:1], dy, y, dx)
    expected, size = log_backward64(dy, y, 1)
    _agree(dx, expected, kernels.log_softmax_backward_definition(np.array(dy), np.array(y), 1), unit(dtype) * size)


def _launch(text, name, grid, block, arguments, defines, seeds):
    shared = 2 * arguments[0].nbytes // len(arguments[0]) if "CACHED=1" in defines else 0
    run_kernel(
        text, name, grid, block, arguments, defines=defines, shared_mem=shared, seeds=seeds, step_limit=20_000_000
    )


def _place(values, dtype, offset):
    """A contiguous array whose first element lies ``offset`` elements past a 16-byte boundary."""
    itemsize = np.dtype(dtype).itemsize
    memory = np.empty((values.size + offset) * itemsize + 15, np.uint8)
    start = -memory.ctypes.data % 16 + offset * itemsize
    array = np.ndarray(values.shape, dtype, buffer=memory, offset=start)
    array[...] = values.astype(dtype)
    return array


def _agree(result, expected, plain, floor):
    result, plain = result.astype(np.float64), plain.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(result[infinite], expected[infinite])
    result, plain, expected = (values[np.isfinite(expected)] for values in (result, plain, expected))
    assert abs(result - expected).max(initial=0) <= 2 * abs(plain - expected).max(initial=0) + floor


_QUICK = (
    "REGISTERS DTYPE=bfloat16 VECTOR=8 THREADS=16 PACKS=2",
    "STRIDED DTYPE=half VECTOR=8 WIDTH=32 DEPTH=8 PACKS=4",
)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for variant in variants(SOURCE)
    ],
)
def test_a_variant_is_right_at_its_edges(variant: Variant):
    run_variant(read_source(SOURCE), variant.defines, seeds=(0, 1))


# -- mutants: `make mutants` calls judge ------------------------------------------------------------------------------
_SMALL = (  # enough to reach every line; blocks smaller than any that is launched, for speed
    "REGISTERS DTYPE=float VECTOR=4 THREADS=8 PACKS=2",
    "REGISTERS DTYPE=float VECTOR=1 THREADS=1 PACKS=2",
    "REGISTERS DTYPE=half VECTOR=8 THREADS=128 PACKS=2",
    "STREAMED DTYPE=float VECTOR=4 THREADS=128 PACKS=2 CACHED=0",
    "STREAMED DTYPE=half VECTOR=8 THREADS=128 PACKS=2 CACHED=1",
    "SPLIT DTYPE=float VECTOR=4 THREADS=128 PACKS=2",
    "SPLIT DTYPE=half VECTOR=8 THREADS=128 PACKS=1",
    "STRIDED DTYPE=float VECTOR=1 WIDTH=8 DEPTH=4 PACKS=2",
    "STRIDED DTYPE=float VECTOR=4 WIDTH=8 DEPTH=1 PACKS=2",
)


def sections(lines: list[str]) -> list[set[str]]:
    """For each line the variants whose macro lets the compiler see it."""
    everything = {"REGISTERS", "STREAMED", "SPLIT", "STRIDED"}
    inside, result = [everything], []
    for line in lines:
        if line.startswith("#if"):
            inside.append(everything & set(re.findall(r"\w+", line)) or inside[-1])  # others do not choose a kernel
        elif line.startswith("#endif"):
            inside.pop()
        result.append(inside[-1])
    return result


def judge(broken: Path, number: int) -> None:
    """Run the variants that see line ``number`` of a changed file; an exception says that a change was noticed."""
    section = sections(broken.read_text(encoding="utf-8").splitlines())[number - 1]
    for defines in _SMALL:
        if defines.split()[0] in section:
            run_variant(read_source(broken), tuple(defines.split()), seeds=(0, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("variant", variants(SOURCE)[::6], ids=str)
def test_intact_kernels_raise_no_alarm_over_20_seeds(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines, seeds=range(20))
