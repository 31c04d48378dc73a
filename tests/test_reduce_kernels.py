"""Every variant of the reduction kernels executed on the CPU, and what judges a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamella.backend import read_source
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants
from .test_reduce import reference64
from .test_softmax import unit
from .test_softmax_kernels import _DTYPES, _place

SOURCE = KERNELS / "reduce.cu"
_NAMES = {"sum": ("sum", "mean"), "max": ("max", "min"), "argmax": ("argmax", "argmin"), "lse": ("logsumexp",)}


def run_variant(text: str, defines: tuple[str, ...], seeds=(0,), only: str = "") -> None:
    """Run a variant's kernels on awkward shapes and judge the numbers; the simulator judges by a KernelError."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype = _DTYPES[macros["DTYPE"]]
    if "ROWS" in macros:
        vector, threads, packs = (int(macros[name]) for name in ("VECTOR", "THREADS", "PACKS"))
        per_block, step = max(1, 128 // threads), threads * packs * vector
        cases = [((per_block + 3, cols, 1), chunk, offset) for cols, chunk, offset in (
            (1, 1, 0), (2 * step + 4, 2 * step + 4, 1), (step + 3, step // 2 + 1, 0))]  # fmt: skip
    else:
        width, depth = int(macros["WIDTH"]), int(macros["DEPTH"])
        cases = [((4, 1, width // 2 + 2), 1, 0), ((4, 3 * depth + 2, width + 3), 3 * depth + 2, 0)]
        cases += [((4, 2 * depth + 3, 5), depth + 1, 0), ((4, 3, 5), 2, 0)]
    for shape, chunk, offset in cases:
        for kernel, operations in _NAMES.items():
            for operation in operations:
                if not only or only in kernel:
                    _judge(text, defines, macros, dtype, kernel, operation, shape, chunk, offset, seeds)


def _judge(text, defines, macros, dtype, kernel, operation, shape, chunk, offset, seeds):
    outer, cols, inner = shape
    parts, rng = -(-cols // chunk), np.random.default_rng(shape)
    values = np.round(rng.standard_normal(shape) * 8) / 4  # equal ones among them
    if kernel == "sum":
        values = np.abs(values) * 4 + rng.standard_normal(shape)
    if kernel == "lse":
        values[2] -= 2000  # exponentials that are 0 beside those of a maximum of 0
    values[0, cols // 2, 0] = np.nan
    values[0, -1, 0] = np.nan
    values[1, :, 0] = -np.inf
    if dtype == np.float32 and cols % 2 == 0:  # large numbers that cancel: what is left are the small ones
        values[2, :, 0] += rng.permutation(np.repeat([2.0**23, -(2.0**23)], cols // 2))
    values[3, cols // 3, -1] = np.inf
    x = _place(values, dtype, offset)
    y, partial = np.full((outer, parts, inner), np.nan, dtype), np.full((outer, parts, inner), np.nan, np.float32)
    places = np.full(partial.shape, -1)
    factor = {"mean": 0.25, "min": -1.0, "argmin": -1.0}.get(operation, 1.0)
    rows = "ROWS" in macros
    if rows:
        threads = int(macros["THREADS"])
        grid, block = -(-outer * parts // max(1, 128 // threads)), max(128, threads)
        scalars = (np.int64(outer), np.int32(cols))
    else:
        width, block = int(macros["WIDTH"]), int(macros["WIDTH"]) * int(macros["DEPTH"])
        grid, scalars = -(-outer * inner // width) * parts, (np.int64(outer), np.int32(cols), np.int64(inner))
    arguments = (x, y, partial, places, *scalars, np.int32(chunk), np.int32(parts), np.float32(factor))
    name = f"reduce_{kernel}_{'rows' if rows else 'columns'}"
    run_kernel(text, name, (grid,), (block,), arguments, defines=defines, seeds=seeds, step_limit=20_000_000)
    base = "sum" if operation == "mean" else operation
    for part in range(parts):
        piece = np.array(x[:, part * chunk : (part + 1) * chunk])
        expected = reference64(base, piece, 1) * (0.25 if operation == "mean" else 1)
        if kernel == "argmax":
            np.testing.assert_array_equal(places[:, part], expected + part * chunk)
            expected = reference64(operation.removeprefix("arg"), piece, 1)
        else:
            assert not places[:, part].any()
        for found, rounding in ((partial[:, part], 0.0), (y[:, part], unit(dtype))):
            found = found.astype(np.float64)
            np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
            special = ~np.isfinite(expected)
            np.testing.assert_array_equal(found[special], expected[special])
            found, wanted = found[~special], expected[~special]
            exact = 1.2e-7 if kernel != "lse" else 6e-7  # a compensated sum is rounded once
            assert (abs(found - wanted) <= (exact + rounding) * np.maximum(abs(wanted), 1)).all()


_QUICK = ("COLUMNS DTYPE=half VECTOR=1 WIDTH=32 DEPTH=8",)


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
    "ROWS DTYPE=float VECTOR=4 THREADS=8 PACKS=2",
    "ROWS DTYPE=half VECTOR=1 THREADS=128 PACKS=1",
    "COLUMNS DTYPE=float VECTOR=1 WIDTH=8 DEPTH=4",
)


def judge(broken: Path, number: int) -> None:
    """Run the small variants of a changed file; an exception says that a change was noticed."""
    for defines in _SMALL:
        run_variant(read_source(broken), tuple(defines.split()), seeds=(0, 1))
