"""The gated linear unit's kernels: against float64, every variant, NaN in its pair, every axis on every device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella import kernels
from lamella.backend import Device, backend_for, read_source
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants

SOURCE = KERNELS / "glu.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}
_UNIT = {np.float32: 2.0**-22, np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7}


def glu64(x: Any, dy: Any) -> tuple[Any, Any]:
    """Value and gradient along the last axis, in float64."""
    with np.errstate(all="ignore"):
        a, b = np.split(x.astype(np.float64), 2, axis=-1)
        s, rest = 1 / (1 + np.exp(-b)), 1 / (1 + np.exp(b))
        return a * s, np.concatenate([dy * s, dy * a * s * rest], axis=-1)


def run_variant(text: str, defines: tuple[str, ...], seeds: Any = (0,)) -> None:
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector, threads = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"]), 16
    for rows, packs, width in ((9, 3, 2), (5, 4, 4), (17, 1, 1)):
        half = packs * vector
        rng = np.random.default_rng(half)
        x = (rng.standard_normal((rows, 2 * half)) * 4).astype(dtype)
        x[0, 0], x[1, half], x[2, half], x[3, half], x[4, half] = np.nan, np.nan, np.inf, -np.inf, -40
        dy = rng.standard_normal((rows, half)).astype(dtype)
        y, dx = np.full((rows, half), 7).astype(dtype), np.full((rows, 2 * half), 7).astype(dtype)
        grid = (-(-packs // width) * -(-rows // (threads // width)),)
        numbers = (np.int64(rows), np.int64(half), np.int32(width))
        run_kernel(text, "glu_forward", grid, (threads,), (x, y, *numbers), defines=defines, seeds=seeds)
        run_kernel(text, "glu_backward", grid, (threads,), (dy, x, dx, *numbers), defines=defines, seeds=seeds)
        for found, expected in zip((y, dx), glu64(x, dy.astype(np.float64)), strict=True):
            np.testing.assert_allclose(found.astype(np.float64), expected, rtol=_UNIT[dtype], atol=1e-7)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, id=str(v), marks=() if "DTYPE=bfloat16" in v.defines else pytest.mark.slow)
        for v in variants(SOURCE)
    ],
)
def test_a_variant_is_right(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines, seeds=(0, 1))


def judge(broken: Path, number: int) -> None:
    """`make mutants` calls this."""
    for defines in (("DTYPE=float", "VECTOR=4"), ("DTYPE=half", "VECTOR=1")):
        run_variant(read_source(broken), defines)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_axis_on_every_device(axis: int, dtype: Any, device: Device) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 6, 8)).astype(dtype)
    leaf = lamella.tensor(x, device=device, requires_grad=True)
    y = L.glu(leaf, axis)
    dy = rng.standard_normal(y.shape).astype(dtype)
    y.backward(lamella.tensor(dy, device=device))
    value, gradient = glu64(np.moveaxis(x, axis, -1), np.moveaxis(dy, axis, -1))
    np.testing.assert_allclose(y.to_numpy(), np.moveaxis(value, -1, axis), rtol=2e-6, atol=1e-7)
    found = backend_for(device).to_numpy(leaf.grad)
    np.testing.assert_allclose(found, np.moveaxis(gradient, -1, axis), rtol=1e-5, atol=1e-7)


def test_one_launch_each_way_and_explain_names_it() -> None:
    with lamella.testing.simulator() as sim:
        x = lamella.tensor(np.ones((3, 8), np.float32), device="simulator", requires_grad=True)
        y = L.glu(x)
        y.backward(y.data)
        assert dict(sim.launches) == {"glu_forward": 1, "glu_backward": 1}
        assert kernels.explain("glu", x.data).startswith("glu_forward [DTYPE=float VECTOR=4], 1 blocks of 256 threads")
        assert "the 3 elements of a half are no multiple of 4" in kernels.explain("glu", x.data[:, :6])
        assert "no kernel for float64" in kernels.explain("glu", x.data.astype("float64"))
    assert "cpu backend runs no CUDA" in kernels.explain("glu", np.ones((2, 4), np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: kernels.glu(x), r"x must have an even number of elements along axis 1, got shape \(2, 3\)"),
        (lambda x: kernels.glu(x, 2), "axis must be one of the 2 axes of x, got axis=2"),
        (lambda x: kernels.glu_backward(x, x, x, x, 0), r"dy must be float32 and half of x, \(2, 3\), got float32"),
    ],
)
def test_bad_input_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(np.ones((2, 3), np.float32))
