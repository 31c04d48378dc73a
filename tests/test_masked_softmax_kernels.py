"""Every variant of the masked softmax kernels executed on the CPU, and what judges a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamella.backend import random_bits, read_source
from lamella.kernels._launch import stream_place
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants
from .test_masked_softmax import KEY, OFFSET, reference64
from .test_softmax import unit
from .test_softmax_kernels import _DTYPES, _place

SOURCE = KERNELS / "masked_softmax.cu"


def run_variant(text: str, defines: tuple[str, ...], seeds=(0,)) -> None:
    """Run a variant's kernels on awkward shapes and judge the numbers; the simulator judges by a KernelError."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype = _DTYPES[macros["DTYPE"]]
    vector, threads, packs = (int(macros[name]) for name in ("VECTOR", "THREADS", "PACKS"))
    capacity = threads * packs * vector
    cases = [(1, 0), (capacity, 0), (capacity - 1, 1), (capacity // 2 + 1, 1)]
    if "STREAMED" in macros:
        cases = [(2 * capacity + 3, 0), (capacity + 5, 1)]
    for number, (cols, offset) in enumerate(cases):
        if cols:
            _judge(text, defines, dtype, threads, cols, offset, number, seeds)


def _judge(text, defines, dtype, threads, cols, offset, number, seeds):
    per_block, block = max(1, 128 // threads), max(threads, 128)
    n0, n1, n2 = (3, 2, 2) if per_block == 1 else (3, 2, -(-(per_block + 5) // 6))
    rows, rng = n0 * n1 * n2, np.random.default_rng(cols)
    x = rng.standard_normal((n0, n1, n2, cols)) * 3
    x[0, 0, 0] += 40  # far from 0, as far as float32 has the digits
    x[-1, 0, 0] = np.round(x[-1, 0, 0] * 4) / 4 - 150  # the exponentials themselves are 0
    x[-1, -1, -1, cols // 2] = np.nan
    x = _place(x, dtype, offset)
    dy = _place(rng.standard_normal(x.shape) + 1, dtype, offset)
    if number % 2:
        mask, steps = rng.uniform(size=(n0, n1, cols)) < 0.6, (n1 * cols, cols, 0)
        mask[1] = False  # nothing is visible
        whole, arrays = mask[:, :, None], (mask, None)
    else:
        mask, steps = rng.standard_normal((n0, n2, cols)).astype(dtype), (n2 * cols, 0, cols)
        whole, arrays = mask[:, None], (None, mask)
    scale = 0.75
    seen = reference64(x, whole, dy, scale=scale)[0] > 0.01
    words = random_bits(KEY, OFFSET, x.size).reshape(x.shape)[seen]
    threshold = words[abs(words / 2.0**32 - 0.3).argmin()] if cols > 1 else np.uint32(0)  # one element is kept just so
    p = threshold / 2.0**32
    kept = 1 / (1 - p)

    def scalars(factor, steps=steps, across=1):
        places = (np.int64(rows), np.int32(cols), *map(np.int64, (n1, n2, *steps)), np.int32(across))
        return (*places, *map(np.float32, (scale, factor, kept)), threshold, *stream_place(KEY, OFFSET))

    def launch(name, arguments):
        grid = (-(-rows // per_block),)
        run_kernel(text, name, grid, (block,), arguments, defines=defines, seeds=seeds, step_limit=20_000_000)

    y, dx = (_place(np.full(x.shape, np.nan), dtype, offset) for _ in range(2))
    expected, gradient, size = reference64(x, whole, dy, scale=scale, p=p)
    launch("masked_softmax_forward", (x, *arrays, y, *scalars(1.0)))
    _agree(y, expected, 2 * unit(dtype) + 4e-6)
    launch("masked_softmax_backward", (dy, x, *arrays, dx, *scalars(2 * scale)))
    _agree(dx, 2 * gradient, 2 * (4 * unit(dtype) + 8e-6) * max(size, 1e-3))
    if number == 1:  # in place, whole rows masked; and without a mask
        rows_mask = np.array([True, False])
        expected, gradient, size = reference64(x, rows_mask[None, :, None, None], dy, scale=scale, p=p)
        launch("masked_softmax_backward", (dy, x, rows_mask, None, dy, *scalars(scale, (0, 1, 0), 0)))
        _agree(dy, gradient, (4 * unit(dtype) + 8e-6) * max(size, 1e-3))
        expected = reference64(x, None, dy, scale=scale, p=p)[0]
        launch("masked_softmax_forward", (x, None, None, x, *scalars(1.0)))
        _agree(x, expected, 2 * unit(dtype) + 4e-6)


def _agree(result, expected, bound):
    result = result.astype(np.float64)
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    keep = ~np.isnan(expected)
    assert abs(result - expected)[keep].max(initial=0) <= bound


_QUICK = ("REGISTERS DTYPE=half VECTOR=1 THREADS=8 PACKS=4",)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for variant in variants(SOURCE)
    ],
)
def test_a_variant_is_right_at_its_edges(variant: Variant):
    run_variant(read_source(SOURCE), variant.defines)


# -- mutants: `make mutants` calls judge ------------------------------------------------------------------------------
_SMALL = (  # enough to reach every line; blocks smaller than any that is launched, for speed
    "REGISTERS DTYPE=float VECTOR=4 THREADS=8 PACKS=2",
    "STREAMED DTYPE=half VECTOR=8 THREADS=128 PACKS=2",
)


def judge(broken: Path, number: int) -> None:
    """Run the small variants of a changed file; an exception says that a change was noticed."""
    for defines in _SMALL:
        run_variant(read_source(broken), tuple(defines.split()), seeds=(0, 1))
