"""Softmax with scale, mask and dropout: one body for every device, judged by float64."""

from __future__ import annotations

import importlib
import math

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.backend import backend_for, random_bits

from .kernel_heads import KERNELS, variants
from .test_softmax import DTYPES, put, softmax64, take, unit

module = importlib.import_module("lamella.kernels.masked_softmax")

KEY, OFFSET = 0x9123456789ABCDEF, (1 << 34) - 7  # words on both sides of a carry into the second half of the counter


def keep64(shape, p, key=KEY, offset=OFFSET):
    if p == 0:
        return np.ones(shape)
    words = random_bits(key, offset, math.prod(shape)).reshape(shape)
    return (words >= round(p * 2.0**32)) / (1 - p) if p < 1 else np.zeros(shape)


def reference64(x, mask, dy, axis=-1, scale=1.0, p=0.0):
    """Values and gradient in float64, and the size of what cancels in the gradient."""
    z = x.astype(np.float64) * scale
    if mask is not None:
        with np.errstate(invalid="ignore"):
            z = np.where(mask, z, -np.inf) if mask.dtype == bool else z + mask.astype(np.float64)
    s, keep = softmax64(z, axis), keep64(x.shape, p)
    g = dy.astype(np.float64) * keep
    dx = scale * s * (g - (s * g).sum(axis=axis, keepdims=True))
    size = abs(scale) * (s * (abs(g) + (s * abs(g)).sum(axis=axis, keepdims=True)))
    return s * keep, dx, size[np.isfinite(size)].max(initial=0.0)


def masks(shape, dtype):
    """Masks that broadcast in every way, by name."""
    rng = np.random.default_rng(3)
    *lead, cols = shape
    none = [1] * len(lead)
    found = {
        "none": None,
        "whole": rng.uniform(size=shape) < 0.7,
        "row": rng.uniform(size=cols) < 0.7,
        "column": rng.uniform(size=(*lead, 1)) < 0.7,
        "added": (rng.standard_normal(shape) * 2).astype(dtype),
        "added row": (rng.standard_normal((*none, cols))).astype(dtype),
        "one number": np.full((1,) * len(shape), 0.5, dtype),
    }
    if len(lead) == 4:
        alternate = [length if i % 2 else 1 for i, length in enumerate(lead)]
        found["every second axis"] = rng.uniform(size=(*alternate, cols)) < 0.7
        found["outer"] = (rng.standard_normal((lead[0], 1, lead[2], 1, cols))).astype(dtype)
    return found


def check(x, mask, device, dtype, **options):
    dy = np.random.default_rng(9).standard_normal(x.shape).astype(dtype)
    place = None if mask is None else put(mask, device)
    given = {**options, "key": KEY, "offset": OFFSET}
    y = take(kernels.masked_softmax(put(x, device), place, **given), device)
    dx = take(kernels.masked_softmax_backward(put(dy, device), put(x, device), place, **given), device)
    assert (y.dtype, y.shape, dx.dtype, dx.shape) == (x.dtype, x.shape, x.dtype, x.shape)
    expected, gradient, size = reference64(x, mask, dy, **options)
    p = options.get("p", 0.0)
    # z is rounded to float32 before its exponential is taken
    wide = 16 * unit(np.float64 if dtype == np.float64 else np.float32)
    largest = 1 / (1 - p) if p < 1 else 1.0
    assert abs(y - expected).max(initial=0.0) <= (2 * unit(dtype) + wide) * largest
    assert abs(dx - gradient).max(initial=0.0) <= (4 * unit(dtype) + wide) * max(size, 1e-3)
    assert not y[expected == 0].any()
    assert y[expected > 1e-6].all()  # what float16 does not lose
    return y


@pytest.mark.parametrize("name", ["none", "whole", "row", "column", "added", "added row", "one number"])
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_masks_that_broadcast(name, p, device):
    shape = (2, 3, 37)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    check(x, masks(shape, np.float32)[name], device, np.float32, scale=0.5, p=p)


@pytest.mark.parametrize("name", ["every second axis", "outer", "whole", "column"])
def test_masks_over_many_axes(name, device):
    shape = (2, 3, 2, 2, 9)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    check(x, masks(shape, np.float32)[name], device, np.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("cols", [1, 33, 1025])
def test_rows_of_some_lengths(cols, dtype, device):
    x = (np.random.default_rng(cols).standard_normal((3, cols)) * 3).astype(dtype)
    check(x, masks(x.shape, dtype)["row" if cols % 2 else "added"], device, dtype, scale=0.7, p=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("cols", [31, 32, 1023, 1024, 4097, 50257])
def test_rows_of_every_length(cols, dtype, device):
    x = (np.random.default_rng(cols).standard_normal((2, cols)) * 3).astype(dtype)
    check(x, masks(x.shape, dtype)["whole" if cols % 2 else "added"], device, dtype, scale=-0.7, p=0.2)


@pytest.mark.parametrize("axis", [0, 1])
def test_other_axes(axis, device):
    x = np.random.default_rng(0).standard_normal((5, 6, 7)).astype(np.float32)
    check(x, masks(x.shape, np.float32)["whole"], device, np.float32, axis=axis, scale=2.0, p=0.25)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cols", [8, 2500])
def test_the_mask_is_that_of_dropout(p, cols, device):
    x = put(np.zeros((4, cols), np.float32), device)
    rng, same = lamella.Generator(5), lamella.Generator(5)
    rng.reserve(3), same.reserve(3)  # words that do not begin a counter
    y = take(L.masked_softmax(x, p=p, rng=rng).data, device)
    ones = put(np.ones((4, cols), np.float32), device)
    dropped = L.dropout(lamella.Tensor(ones), p, rng=same)
    np.testing.assert_array_equal(y != 0, take(dropped.data, device) != 0)
    assert rng.state == same.state
    np.testing.assert_allclose(y, take(dropped.data, device) / cols, rtol=1e-6)
    assert (take(L.masked_softmax(x, p=p, training=False, rng=rng).data, device) > 0).all()


@pytest.mark.parametrize("cols", [7, 100, 3000])
def test_rows_that_are_hidden_or_not_finite(cols, device):
    x = np.random.default_rng(0).standard_normal((5, cols)).astype(np.float32)
    visible = np.ones((5, cols), bool)
    visible[1], visible[2, 1:] = False, False
    x[3, cols // 2], x[4, 0] = np.nan, -np.inf
    y = take(kernels.masked_softmax(put(x, device), put(visible, device), scale=0.5), device)
    dy = np.ones_like(x)
    dx = take(kernels.masked_softmax_backward(put(dy, device), put(x, device), put(visible, device)), device)
    assert not y[1].any()
    assert not dx[1].any()
    assert y[2, 0] == 1
    assert not y[2, 1:].any()
    np.testing.assert_array_equal(np.isnan(y).all(axis=1), [False, False, False, True, False])
    np.testing.assert_array_equal(np.isnan(dx).any(axis=1), [False, False, False, True, False])
    assert y[4, 0] == 0
    hidden = visible.copy()
    hidden[3, cols // 2] = False  # what nobody sees may be anything
    y = take(kernels.masked_softmax(put(x, device), put(hidden, device)), device)
    assert not np.isnan(y).any()


def test_rows_off_a_16_byte_boundary_and_views(device):
    flat = np.random.default_rng(0).standard_normal(3 * 301 + 1).astype(np.float32)
    x = put(flat, device)[1:].reshape(3, 301)
    y = take(kernels.masked_softmax(x, scale=0.5), device)
    np.testing.assert_allclose(y, softmax64(flat[1:].reshape(3, 301) * 0.5), atol=1e-7)
    grid = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    view, mask = put(grid, device).T, put(grid > 0, device).T
    y = take(kernels.masked_softmax(view, mask), device)
    np.testing.assert_allclose(y, softmax64(np.where(grid.T > 0, grid.T, -np.inf)), atol=1e-7)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_empty_arrays(shape, device):
    x = put(np.zeros(shape, np.float32), device)
    assert kernels.masked_softmax(x, p=0.5).shape == shape
    assert kernels.masked_softmax_backward(x, x, p=0.5).shape == shape


# -- the layer --------------------------------------------------------------------------------------------------------


def test_gradients_of_scores_and_of_an_additive_mask():
    rng = np.random.default_rng(0)
    x, bias = rng.standard_normal((2, 3, 4)), rng.standard_normal((3, 1))

    def function(a, b):
        return L.masked_softmax(a, b, scale=0.5, p=0.4, rng=lamella.Generator(3))

    assert lamella.gradcheck(function, x, bias)
    assert lamella.gradcheck(lambda a: L.masked_softmax(a, x[0] > 0, axis=1, scale=-2.0), x)


def test_one_node_is_one_launch_each_way_and_the_bias_learns(device):
    rng = np.random.default_rng(0)
    x, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 4), (3, 4)))
    results = []
    for place in (device, lamella.device("cpu")):
        scores, learned = (lamella.Tensor(put(a, place), requires_grad=True) for a in (x, bias))
        if place.kind == "simulator":
            backend_for(place).reset()
        y = L.masked_softmax(scores, learned, scale=0.5, p=0.5, rng=lamella.Generator(0))
        y.backward(put(x * x, place))
        if place.kind == "simulator":
            assert dict(backend_for(place).launches) == {"masked_softmax_forward": 1, "masked_softmax_backward": 2}
            assert backend_for(place).synchronizations == 0
        results.append([take(a, place) for a in (y.data, scores.grad, learned.grad)])
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# -- errors and choices -----------------------------------------------------------------------------------------------


def test_errors_name_argument_rule_and_value(device):
    x = put(np.zeros((2, 3), np.float32), device)
    for wrong, kind, message in (
        (lambda: kernels.masked_softmax(x, x[:, :2]), ValueError, r"broadcasts to \(2, 3\), got \(2, 2\)"),
        (lambda: kernels.masked_softmax(x, x[None]), ValueError, r"broadcasts to \(2, 3\), got \(1, 2, 3\)"),
        (lambda: kernels.masked_softmax(x, x.astype("float64")), TypeError, "boolean or float32 as x is, got float64"),
        (lambda: kernels.masked_softmax(x, p=1.5), ValueError, r"p must be in \[0, 1\], got 1.5"),
        (lambda: kernels.masked_softmax(x, scale=math.inf), ValueError, "scale must be finite, got inf"),
        (lambda: kernels.masked_softmax(x, axis=2), ValueError, "axis must be in -2 … 1"),
        (lambda: kernels.masked_softmax_backward(x[:1], x), ValueError, r"\(2, 3\) as x is, got float32 of \(1, 3\)"),
    ):
        with pytest.raises(kind, match=message):
            wrong()


def test_explain_says_what_runs(device):
    x = put(np.zeros((4, 100), np.float32), device)
    said = kernels.explain("masked_softmax", x, p=0.5)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert said.startswith("masked_softmax_forward [REGISTERS DTYPE=float VECTOR=4 THREADS=32 PACKS=4], 1 blocks")
    said = kernels.explain("masked_softmax_backward", x, x, scale=0.5, factor=1.0)
    assert said.startswith("masked_softmax_backward [REGISTERS DTYPE=float VECTOR=4")
    assert "is not the last; softmax has a kernel" in kernels.explain("masked_softmax", x, axis=0)
    assert "copied first" in kernels.explain("masked_softmax", x[:, ::2])
    assert "read twice" in kernels.explain("masked_softmax", put(np.zeros((1, 9000), np.float32), device))


def test_every_variant_that_can_be_chosen_is_compiled_and_every_compiled_one_chosen():
    chosen = set()
    for dtype in map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16)):
        for cols in (1, 32, 33, 100, 513, 1025, 4100, 9000):
            for agree in (True, False):
                plan = module._select("masked_softmax_forward", dtype, (5, cols), 1, agree)
                chosen.add(plan.defines)
                macros = dict(define.split("=") for define in plan.defines if "=" in define)
                vector, threads, packs = (int(macros[name]) for name in ("VECTOR", "THREADS", "PACKS"))
                assert plan.defines[0] == "STREAMED" or cols // vector <= threads * packs
                assert vector == 1 or threads >= 2 * vector, "head and tail elements need a thread each"
    assert chosen == {variant.defines for variant in variants(KERNELS / "masked_softmax.cu")}
