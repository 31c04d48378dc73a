"""Every variant of the batch norm kernels executed on the CPU, and what judges a broken one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lamella.backend import read_source
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants

SOURCE = KERNELS / "batch_norm.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}
RELU, RESIDUAL, TRAINING, WEIGHT, BIAS = 1, 2, 4, 8, 16
EPS = 0.25


def run_variant(text: str, defines: tuple[str, ...], seeds: Any = (0,)) -> None:
    """Run a variant on awkward sizes and judge the numbers; the simulator judges by a KernelError."""
    macros = dict(define.partition("=")[::2] for define in defines)
    if "FINISH" in macros:
        _judge_finish(text, seeds)
        return
    vector, lanes, ranks, packs = (int(macros[name]) for name in ("VECTOR", "LANES", "RANKS", "PACKS"))
    dtype = np.dtype(_DTYPES[macros["DTYPE"]])
    for much in (False, True):  # one part with a pack for some threads; several parts, the last one short
        along = ranks * packs * 2 + 3 if much else max(1, ranks // 2 - 1)
        if lanes == 1:
            images, inner = (2, (along // 2 + 1) * vector)
            shape, count = (images, 3, inner), images * inner // vector
            sizes, across = (images, 3, inner), 3
        else:
            channels = (lanes + 1) * vector
            shape, count, sizes, across = (along, channels), along, (along, channels, 1), 2
        share = ranks * packs + 1 if much else count
        launch = (-(-count // share) * across, ranks * lanes, (*map(np.int64, sizes), np.int64(share)))
        section = next(s for s in ("MOMENTS", "FORWARD", "SUMS", "BACKWARD") if s in macros)
        _JUDGES[section](text, defines, launch, shape, -(-count // share), dtype, seeds)


def _values(rng: Any, shape: tuple[int, ...], dtype: Any, offset: float = 0.0) -> np.ndarray:
    return (rng.standard_normal(shape) * 2 + offset).astype(dtype)


def _column(channel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return channel.reshape(1, -1, *(1,) * (len(shape) - 2)).astype(np.float64)


def _axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (0, *range(2, len(shape)))


def _run(text, kernel, defines, launch, arrays, scalars, seeds):
    grid, block, sizes = launch
    run_kernel(text, kernel, (grid,), (block,), (*arrays, *sizes, *scalars), defines=defines, seeds=seeds)


def _near(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    scale = max(1.0, float(np.abs(expected).max()))
    error = np.abs(found.astype(np.float64) - expected).max()
    assert error <= tolerance * scale, (error, tolerance * scale)


def _tolerance(dtype: Any) -> float:
    return {"float32": 3e-6, "float16": 1e-3, "bfloat16": 8e-3}[dtype.name]


def _judge_moments(text, defines, launch, shape, splits, dtype, seeds):
    rng = np.random.default_rng(shape)
    channels = shape[1]
    x = _values(rng, shape, dtype, offset=100.0)  # the mean is large: a mean of squares would lose the variance
    partial = np.full((splits, 3, channels), np.nan, np.float32)
    _run(text, "batch_norm_moments", defines, launch, (x, partial), (), seeds)
    count, mean, deviation = partial.astype(np.float64).swapaxes(0, 1)
    total = count.sum(0)
    np.testing.assert_array_equal(total, x.size // channels)
    whole = (count * mean).sum(0) / total
    var = ((deviation + count * (mean - whole) ** 2).sum(0)) / total
    wide = x.astype(np.float64)
    _near(whole, wide.mean(_axes(shape)), 1e-6)
    _near(var, wide.var(_axes(shape)), 1e-5)
    if splits == 1:
        return
    share = int(launch[2][3])
    packs = wide.swapaxes(0, 1).reshape(channels, -1) if len(shape) == 3 else wide.T
    each = packs.shape[1] // -(-packs.shape[1] // int(_macro(defines, "VECTOR"))) if len(shape) == 3 else 1
    np.testing.assert_array_equal(count[0], share * each)
    _near(mean[0], packs[:, : share * each].mean(1), 1e-6)


def _macro(defines, name):
    return dict(define.partition("=")[::2] for define in defines)[name]


def _statistics(rng, channels):
    mean, var = (rng.standard_normal(channels).astype(np.float32), rng.random(channels).astype(np.float32) + 0.5)
    return mean, var


def _judge_forward(text, defines, launch, shape, splits, dtype, seeds):
    rng = np.random.default_rng(shape)
    channels = shape[1]
    x, residual = _values(rng, shape, dtype), _values(rng, shape, dtype)
    x.reshape(-1)[0] = np.nan
    weight, bias = _values(rng, (channels,), dtype), _values(rng, (channels,), dtype)
    mean, var = _statistics(rng, channels)
    for flags in (RELU | RESIDUAL | WEIGHT | BIAS, WEIGHT, RELU | BIAS, RELU | RESIDUAL, 0):
        y = np.full(shape, np.nan, dtype)
        _run(
            text,
            "batch_norm_forward",
            defines,
            launch,
            (x, residual, mean, var, weight, bias, y),
            (np.float32(EPS), np.int32(flags)),
            seeds,
        )
        expected = (x.astype(np.float64) - _column(mean, shape)) / np.sqrt(_column(var, shape) + EPS)
        expected *= _column(weight, shape) if flags & WEIGHT else 1.0
        expected += _column(bias, shape) if flags & BIAS else 0.0
        expected += residual.astype(np.float64) if flags & RESIDUAL else 0.0
        if flags & RELU:
            expected = np.maximum(expected, 0)
        np.testing.assert_array_equal(np.isnan(y.astype(np.float64)), np.isnan(expected))
        _near(np.nan_to_num(y.astype(np.float64)), np.nan_to_num(expected), _tolerance(dtype))


def _judge_sums(text, defines, launch, shape, splits, dtype, seeds):
    rng = np.random.default_rng(shape)
    channels = shape[1]
    dy, x, y = (_values(rng, shape, dtype) for _ in range(3))
    y.reshape(-1)[::5] = 0
    y.reshape(-1)[1] = 0.5
    mean, var = _statistics(rng, channels)
    for flags in (RELU, 0):
        partial = np.full((splits, 2, channels), np.nan, np.float32)
        arrays = (dy, x, y, mean, var, partial)
        _run(text, "batch_norm_backward_sums", defines, launch, arrays, (np.float32(EPS), np.int32(flags)), seeds)
        g = dy.astype(np.float64) * ((y.astype(np.float64) > 0) if flags else 1)
        n = (x.astype(np.float64) - _column(mean, shape)) / np.sqrt(_column(var, shape) + EPS)
        first, second = partial.astype(np.float64).sum(0)
        _near(first, g.sum(_axes(shape)), 2e-6)
        _near(second, (g * n).sum(_axes(shape)), 2e-6)


def _judge_backward(text, defines, launch, shape, splits, dtype, seeds):
    rng = np.random.default_rng(shape)
    channels = shape[1]
    dy, x, y = (_values(rng, shape, dtype) for _ in range(3))
    y.reshape(-1)[::5] = 0
    y.reshape(-1)[1] = 0.5
    weight = _values(rng, (channels,), dtype)
    mean, var = _statistics(rng, channels)
    sums = _values(rng, (2, channels), np.float32)
    reciprocal = np.float32(0.125)
    for flags in (RELU | RESIDUAL | TRAINING | WEIGHT, TRAINING, RELU | WEIGHT, RELU | RESIDUAL, RESIDUAL | TRAINING):
        dx, dresidual = np.full(shape, np.nan, dtype), np.full(shape, np.nan, dtype)
        arrays = (dy, x, y, mean, var, weight, sums, dx, dresidual)
        scalars = (np.float32(EPS), reciprocal, np.int32(flags))
        _run(text, "batch_norm_backward", defines, launch, arrays, scalars, seeds)
        g = dy.astype(np.float64) * ((y.astype(np.float64) > 0) if flags & RELU else 1)
        rstd = 1 / np.sqrt(_column(var, shape) + EPS)
        expected = g.copy()
        if flags & TRAINING:
            n = (x.astype(np.float64) - _column(mean, shape)) * rstd
            expected -= (_column(sums[0], shape) + n * _column(sums[1], shape)) * 0.125
        expected *= rstd * (_column(weight, shape) if flags & WEIGHT else 1)
        _near(dx, expected, _tolerance(dtype))
        if flags & RESIDUAL:
            np.testing.assert_array_equal(dresidual.astype(np.float64), g)
        else:
            assert np.isnan(dresidual.astype(np.float64)).all()


_JUDGES = {"MOMENTS": _judge_moments, "FORWARD": _judge_forward, "SUMS": _judge_sums, "BACKWARD": _judge_backward}


def _judge_finish(text: str, seeds: Any) -> None:
    rng = np.random.default_rng(0)
    splits, channels = 3, 130
    values = rng.standard_normal((splits, 5, channels)) * 2 + 50
    partial = np.empty((splits, 3, channels), np.float32)
    kept = [values[split, : 5 - split] for split in range(splits)]  # parts of 5, 4 and 3 values
    for split, part in enumerate(kept):
        partial[split, 0] = len(part)
        partial[split, 1:] = part.mean(0), ((part - part.mean(0)) ** 2).sum(0)
    partial[1, :, 7] = 0  # an empty part
    mean, var = np.full(channels, np.nan, np.float32), np.full(channels, np.nan, np.float32)
    scalars = (np.int64(splits), np.int64(channels))
    arguments = (partial, mean, var, *scalars)
    run_kernel(text, "batch_norm_finish", (2,), (128,), arguments, defines=("FINISH",), seeds=seeds)
    whole = np.concatenate(kept)
    expected, spread = whole.mean(0), whole.var(0)
    whole = np.concatenate([kept[0], kept[2]])
    expected[7], spread[7] = whole.mean(0)[7], whole.var(0)[7]
    _near(mean, expected, 1e-6)
    _near(var, spread, 1e-5)
    partial = rng.standard_normal((splits, 2, channels)).astype(np.float32)
    sums = np.full((2, channels), np.nan, np.float32)
    arguments = (partial, sums, *scalars)
    run_kernel(text, "batch_norm_backward_finish", (2,), (128,), arguments, defines=("FINISH",), seeds=seeds)
    _near(sums, partial.astype(np.float64).sum(0), 1e-6)


_QUICK = (
    "MOMENTS LANES=8 RANKS=32 PACKS=4 DTYPE=float VECTOR=4",
    "BACKWARD LANES=1 RANKS=256 PACKS=2 DTYPE=half VECTOR=8",
    "FINISH",
)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for variant in variants(SOURCE)
    ],
)
def test_a_variant_is_right_at_its_edges(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines)


# -- mutants: `make mutants` calls judge ------------------------------------------------------------------------------
_SMALL = (  # enough to reach every line; blocks smaller than any that is launched, for speed
    "LANES=1 RANKS=8 PACKS=2 DTYPE=float VECTOR=4",
    "LANES=4 RANKS=4 PACKS=2 DTYPE=half VECTOR=2",
)


def sections(lines: list[str]) -> list[set[str]]:
    """For each line the sections whose macro lets the compiler see it."""
    everything = {"MOMENTS", "FORWARD", "SUMS", "BACKWARD", "FINISH"}
    inside, result = [everything], []
    for line in lines:
        if line.startswith("#ifdef"):
            inside.append(inside[-1] & set(re.findall(r"\w+", line)) or inside[-1])
        elif line.startswith("#ifndef"):
            inside.append(inside[-1] - set(re.findall(r"\w+", line)))
        elif line.startswith("#endif"):
            inside.pop()
        result.append(inside[-1])
    return result


def judge(broken: Path, number: int) -> None:
    """Run the variants that see line ``number`` of a changed file; an exception says that a change was noticed."""
    text = read_source(broken)
    for section in sorted(sections(broken.read_text(encoding="utf-8").splitlines())[number - 1]):
        for defines in ("",) if section == "FINISH" else _SMALL:
            run_variant(text, (section, *defines.split()), seeds=(0, 1))
