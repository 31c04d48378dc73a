"""Every variant of the cross entropy kernels executed on the CPU, and what judges a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lamella import kernels
from lamella.backend import read_source
from lamella.kernels.cross_entropy import Options
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants
from .test_cross_entropy import reference64
from .test_softmax import unit
from .test_softmax_kernels import _DTYPES, _agree, _place

SOURCE = KERNELS / "cross_entropy.cu"


def run_variant(text: str, defines: tuple[str, ...], seeds=(0,)) -> None:
    """Run a variant's kernels on awkward shapes and judge the numbers; the simulator judges by a KernelError."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, threads = _DTYPES[macros["DTYPE"]], int(macros.get("THREADS", 128))
    if "SMALL" in macros:
        _judge_small(text, defines, dtype, threads, seeds)
        return
    vector, packs = int(macros["VECTOR"]), int(macros["PACKS"])
    if "COLUMNS" in macros:
        step = int(macros["DEPTH"]) * packs
        for number, cols in enumerate((1, 2 * step + 3, step)):
            _judge_rows(text, defines, macros, dtype, 2 * (int(macros["WIDTH"]) // 2 + 3), cols, 0, number, seeds)
        return
    per_block, capacity = max(1, 128 // threads), threads * packs * vector
    cases = [(1, 0), (capacity, 0), (capacity - 1, 1), (capacity // 2 + 1, 1)]
    if "STREAMED" in macros:
        cases = [(1, 0), (2 * capacity + 3, 1), (2 * capacity + 3, 0)]
    if "SPLIT" in macros:
        cases = [(1, 0), (2 * capacity + 17, 1), (98, 0)]
    for number, (cols, offset) in enumerate(cases):
        if cols:
            _judge_rows(text, defines, macros, dtype, per_block + 5, cols, offset, number, seeds)


def _judge_rows(text, defines, macros, dtype, rows, cols, offset, number, seeds):
    threads = int(macros.get("THREADS", 1))
    geometry = _geometry(macros, rows, cols, threads * int(macros["PACKS"]) * int(macros["VECTOR"]))
    rng = np.random.default_rng((rows, cols))
    x = rng.standard_normal((rows, cols)) * 3
    smoothing = 0.0 if "LABELS" in macros else 0.2
    z_loss = 0.0 if number % 2 else 0.25
    weight = None if number % 2 else rng.uniform(0.5, 2, cols).astype(np.float32)
    if "PROBABILITIES" in macros:
        targets = rng.uniform(0, 1, (rows, cols)) / cols * 2
        targets[1, 0] = 0
        targets = _place(targets, dtype, offset)
    else:
        targets = rng.integers(0, cols, rows)
        targets[0], targets[1], targets[2] = cols - 1, -100, cols
        targets[3], targets[4] = 0, -100
        x[1, cols // 2] = np.nan  # in an ignored row
    x[-1, :] = -np.inf if number == 0 else -30000
    x[-1, cols // 2] = -29000
    if number % 2 and dtype == np.float32:
        x[-1] = 3e38  # from the start of the maximum to this is more than float32 holds
    x[-2, 0] = np.nan
    x = _place(x, dtype, offset)
    losses, dx = np.full(rows, np.nan, np.float32), _place(np.full((rows, cols), np.nan), dtype, offset)
    divisor, dy = np.array([4.0], np.float32), rng.uniform(0.5, 2, rows).astype(np.float32)
    faults = np.zeros(3, np.int64)
    shared = -(-cols // int(macros["VECTOR"])) * 16 if macros.get("CACHED") == "1" else 0
    tail = (np.int64(-100), np.float32(smoothing), np.float32(z_loss), np.int64(6))

    expected, gradient, size = reference64(x, _in_range(targets, cols), weight, -100, smoothing, z_loss)
    options = Options(-100, "mean", smoothing, z_loss)
    plain, _, plain_dx = kernels.cross_entropy_definition(np.array(x), np.array(targets), weight, options)
    wrong = targets == cols if targets.ndim == 1 else np.zeros(rows, bool)
    expected[wrong], gradient[wrong] = np.nan, np.nan

    def run(given, upstream, found, out, seeds):
        """Whichever layout the variant takes: rows in, rows out."""
        inner = rows // 2 if "COLUMNS" in macros else 1
        place = {id(a): _laid(a, inner, offset) for a in (given, targets, out) if a is not None and a.ndim == 2}
        x, t, dx = (a if a is None else place.get(id(a), a) for a in (given, targets, out))
        arrays = (x, t, weight, divisor if found is losses else None, upstream, found, dx, faults)
        _run(text, defines, geometry, arrays, (np.int64(upstream is not None), *tail), seeds, shared)
        if out is not None:
            out[...] = _as_rows(dx, inner)

    for upstream, out in ((dy, dx), (None, x)):
        losses[...] = np.nan
        run(x, upstream, losses, out, seeds)
        largest = abs(expected[np.isfinite(expected)]).max(initial=1)
        _agree(losses, expected, plain, 4 * unit(np.float32) * largest)
        factor = (np.ones(rows) if upstream is None else upstream)[:, None] / 4
        rounded = (plain_dx * factor).astype(dtype)
        _agree(out, gradient * factor, rounded, (2 * unit(np.float32) + unit(dtype) / 4) * size * factor.max())
        if targets.ndim == 1:
            assert faults.tolist() == [6, cols, cols]
    x[...] = 0  # without a gradient, and without losses
    run(x, None, losses, None, seeds[:1])
    counted = np.isfinite(losses) & ~(targets == -100 if targets.ndim == 1 else wrong)
    assert counted.sum() >= 2
    expected = reference64(x, _in_range(targets, cols), weight, -100, smoothing, z_loss)[0]
    np.testing.assert_allclose(losses[counted], expected[counted], rtol=1e-5, atol=1e-6)
    losses[...] = 7
    run(x, None, None, dx, seeds[:1])
    assert (losses == 7).all()


def _geometry(macros, rows, cols, capacity):
    """Grid, block and the scalars that say how an array of this shape lies under them."""
    if "COLUMNS" in macros:
        width, depth = int(macros["WIDTH"]), int(macros["DEPTH"])
        return (-(-rows // width),), width * depth, (np.int64(2), np.int32(cols), np.int64(rows // 2))
    threads, sizes = int(macros["THREADS"]), (np.int64(rows), np.int32(cols))
    per_block = max(1, 128 // threads)
    if "SPLIT" not in macros:
        return (-(-rows // per_block),), max(threads, 128), sizes
    chunk = capacity + 5 if cols > capacity else 3
    parts = -(-cols // chunk)
    return (rows * parts,), threads, (*sizes, np.int32(chunk), np.int32(parts))


def _run(text, defines, geometry, arrays, numbers, seeds, shared):
    grid, block, sizes = geometry
    name = "cross_entropy_columns" if "COLUMNS" in defines else "cross_entropy_rows"
    if "SPLIT" in defines:
        name, partial = "cross_entropy_split", np.full((*grid, 5), np.nan, np.float32)
        given = (*arrays[:3], partial, *sizes, *numbers[1:3])
        _launch(text, "cross_entropy_parts", defines, grid, block, given, seeds)
        arrays = (*arrays, partial)
    _launch(text, name, defines, grid, block, (*arrays, *sizes, *numbers), seeds, shared)


def _laid(rows, inner, offset):
    """Rows ``(2 inner, C)`` as ``(2, C, inner)``; rows themselves for an ``inner`` of 1."""
    if inner == 1:
        return rows
    return _place(rows.reshape(2, inner, -1).transpose(0, 2, 1), rows.dtype.type, offset)


def _as_rows(laid, inner):
    return laid if inner == 1 else laid.transpose(0, 2, 1).reshape(2 * inner, -1)


def _in_range(targets, cols):
    return np.where(targets == cols, 0, targets) if targets.ndim == 1 else targets


def _judge_small(text, defines, dtype, threads, seeds):
    rows, cols = 2 * threads + 7, 11
    rng = np.random.default_rng(0)
    labels = rng.integers(0, cols, rows)
    labels[[0, 5, -1]], labels[[1, 2, -2]] = -100, (cols, -1, 1 << 40)
    for weight in (None, rng.uniform(0.5, 2, cols).astype(np.float32)):
        divisor = np.full(1, np.nan, np.float32)
        scalars = (np.int64(rows), np.int32(cols), np.int64(-100))
        _launch(text, "cross_entropy_divisor", defines, (1,), threads, (labels, weight, divisor, *scalars), seeds)
        right = labels[(labels >= 0) & (labels < cols)]
        np.testing.assert_allclose(divisor, (np.ones(cols) if weight is None else weight)[right].sum(), rtol=1e-6)
    losses = rng.standard_normal(rows).astype(np.float32)
    for count in (rows, 1):
        for divisor in (None, np.array([3.0], np.float32)):
            result = np.full(1, np.nan, dtype)
            arguments = (losses[:count].copy(), divisor, result, np.int64(count))
            _launch(text, "cross_entropy_total", defines, (1,), threads, arguments, seeds)
            expected = losses[:count].astype(np.float64).sum() / (1 if divisor is None else 3)
            np.testing.assert_allclose(result.astype(np.float64), expected, rtol=2 * unit(dtype), atol=1e-6)
    _judge_nll(text, defines, dtype, threads, seeds)
    vector = 16 // np.dtype(dtype).itemsize
    for count in (1, vector, threads * vector + 3, 2 * threads * vector - 1):
        host = rng.integers(-8, 8, count)
        for factor in (1.0, 0.5):
            dx = _place(host, dtype, 0)
            arguments = (dx, np.array([factor], np.float32), np.int64(count))
            grid = (-(-count // (threads * vector)),)
            _launch(text, "cross_entropy_scale", defines, grid, threads, arguments, seeds)
            np.testing.assert_array_equal(dx.astype(np.float64), host * factor)


def _judge_nll(text, defines, dtype, threads, seeds):
    outer, cols, inner = 3, 5, threads // 3 + 7
    rows, rng = outer * inner, np.random.default_rng(1)
    x = rng.standard_normal((outer, cols, inner)).astype(dtype)
    labels = rng.integers(0, cols, (outer, inner))
    labels[0, :5] = (-100, 3, 0, 4, 1)
    weight = np.array([0.5, 1, 2, 0, 3], np.float32)
    x[0, 3, 1] = -np.inf  # of a class that weighs nothing
    right = np.where(labels < 0, 0, labels)
    picked = np.take_along_axis(x, right[:, None], 1)[:, 0].astype(np.float64)
    wrong = labels.copy()
    wrong[1, 1], wrong[2, 2] = cols, cols
    faults, losses = np.zeros(3, np.int64), np.full((outer, inner), np.nan, np.float32)
    sizes, grid = (np.int64(rows), np.int32(cols), np.int64(inner)), (-(-rows // threads),)
    for given, w in ((labels, weight), (wrong, weight), (labels, None)):
        x[0, 3, 1] = -np.inf if w is not None else -1
        picked[0, 1] = x[0, 3, 1]
        factor = (np.ones(cols) if w is None else w)[right]
        expected = np.where((labels == -100) | (factor == 0), 0, -factor * np.where(factor == 0, 0, picked))
        expected[given == cols] = np.nan
        arguments = (x, given, w, losses, faults, *sizes, np.int64(-100), np.int64(8))
        _launch(text, "nll_losses", defines, grid, threads, arguments, seeds)
        np.testing.assert_allclose(losses, expected, rtol=1e-6)
        assert faults.tolist() == ([8, cols, cols] if given is wrong else [0, 0, 0])
        faults[...] = 0
        for divisor, dy in ((None, rng.uniform(1, 2, rows)), (np.array([4.0], np.float32), np.array([3.0]))):
            dx, dy = np.zeros_like(x), dy.astype(np.float32)
            arguments = (dx, given, w, divisor, dy, *sizes, np.int64(len(dy) > 1), np.int64(-100))
            _launch(text, "nll_gradient", defines, grid, threads, arguments, seeds)
            slope = -factor * np.broadcast_to(dy, rows).reshape(outer, inner) / (1 if divisor is None else 4)
            slope[(labels == -100) | (given == cols)] = 0
            expected_dx = (np.arange(cols)[:, None] == right[:, None]) * slope[:, None]
            np.testing.assert_allclose(dx.astype(np.float64), expected_dx, rtol=2 * unit(dtype), atol=1e-9)


def _launch(text, name, defines, grid, block, arguments, seeds, shared=0):
    run_kernel(
        text, name, grid, (block,), arguments, defines=defines, shared_mem=shared, seeds=seeds, step_limit=20_000_000
    )


_QUICK = ("REGISTERS LABELS DTYPE=half VECTOR=1 THREADS=8 PACKS=4",)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for variant in variants(SOURCE)
    ],
)
def test_a_variant_is_right_at_its_edges(variant: Variant):
    run_variant(read_source(SOURCE), variant.defines, seeds=(0,))


# -- mutants: `make mutants` calls judge ------------------------------------------------------------------------------
_SMALL = (  # enough to reach every line; blocks smaller than any that is launched, for speed
    "REGISTERS LABELS DTYPE=float VECTOR=4 THREADS=8 PACKS=2",
    "REGISTERS SMOOTHED DTYPE=float VECTOR=1 THREADS=1 PACKS=4",
    "REGISTERS PROBABILITIES DTYPE=float VECTOR=4 THREADS=128 PACKS=1",
    "STREAMED LABELS DTYPE=half VECTOR=8 THREADS=128 PACKS=2 CACHED=1",
    "STREAMED SMOOTHED DTYPE=float VECTOR=4 THREADS=128 PACKS=1 CACHED=0",
    "SPLIT LABELS DTYPE=half VECTOR=8 THREADS=128 PACKS=1",
    "SPLIT SMOOTHED DTYPE=float VECTOR=4 THREADS=128 PACKS=1",
    "SPLIT PROBABILITIES DTYPE=float VECTOR=1 THREADS=128 PACKS=1",
    "COLUMNS SMOOTHED DTYPE=float VECTOR=1 WIDTH=8 DEPTH=4 PACKS=2",
    "COLUMNS PROBABILITIES DTYPE=float VECTOR=1 WIDTH=8 DEPTH=1 PACKS=2",
    "COLUMNS LABELS DTYPE=half VECTOR=1 WIDTH=8 DEPTH=4 PACKS=2",
    "SMALL DTYPE=float THREADS=64",
    "SMALL DTYPE=half THREADS=512",
)


def judge(broken: Path, number: int) -> None:
    """Run the variants that see line ``number`` of a changed file; an exception says that a change was noticed."""
    lines = broken.read_text(encoding="utf-8").splitlines()
    marks = ("#else  // SPLIT", "#else  // COLUMNS", "#else  // SMALL")
    split, columns, small = (next(i for i, line in enumerate(lines, 1) if line.startswith(mark)) for mark in marks)
    only = "SMALL" if number > small else "COLUMNS" if number > columns else "SPLIT" if number > split else ""
    for defines in _SMALL:
        if defines.startswith(only) and (only or not defines.startswith("SMALL")):
            run_variant(read_source(broken), tuple(defines.split()), seeds=(0, 1))
