"""Group norm of images in both memory formats on every device: accuracy, format, choice of kernels, launches."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.backend import Device, get_num_threads, in_format, is_channels_last
from lamella.kernels import _group_norm_cuda
from lamella.testing import assert_close

from .test_layer_norm import host, normal, on, within_twice
from .test_softmax import unit

BF16 = np.dtype(ml_dtypes.bfloat16)
EPS = 1e-5
Definition = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def definition64(x: Any, dy: Any, w: Any, b: Any, groups: int) -> Definition:
    """y, dx, dweight and dbias."""
    shape = (x.shape[0], groups, x.shape[1] // groups, -1)
    x, dy, w, b = (np.asarray(a, np.float64) for a in (x, dy, w, b))
    split, wide_dy, wide_w = x.reshape(shape), dy.reshape(shape), w.reshape(1, groups, -1, 1)
    with np.errstate(invalid="ignore"):
        c = split - split.mean((2, 3), keepdims=True)
        r = 1 / np.sqrt((c * c).mean((2, 3), keepdims=True) + EPS)
        n, g = c * r, wide_dy * wide_w
        dx = r * (g - g.mean((2, 3), keepdims=True) - n * (g * n).mean((2, 3), keepdims=True))
        y = n * wide_w + b.reshape(wide_w.shape)
    return y.reshape(x.shape), dx.reshape(x.shape), (wide_dy * n).sum((0, 3)).ravel(), wide_dy.sum((0, 3)).ravel()


# one value to a channel; packs and none; several chunks and tiles; instances; one group; rows in registers and longer
SHAPES = [
    ((3, 6), 3),
    ((2, 4, 1), 2),
    ((2, 8, 4, 4), 4),
    ((2, 6, 31), 6),
    ((1, 12, 5, 7), 1),
    ((3, 40, 33), 8),
    pytest.param((1, 3, 70, 70), 3, marks=pytest.mark.slow),
    pytest.param((2, 264, 9), 33, marks=pytest.mark.slow),
    pytest.param((1, 4, 96, 128), 1, marks=pytest.mark.slow),
]
DTYPES = [
    np.dtype(np.float32),
    pytest.param(np.dtype(np.float16), marks=pytest.mark.slow),
    pytest.param(BF16, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["planes", "channels-last"])
@pytest.mark.parametrize(("shape", "groups"), SHAPES, ids=str)
def test_errors_are_at_most_twice_the_plain_definitions(
    shape: tuple[int, ...], groups: int, last: bool, dtype: Any, device: Device
) -> None:
    """Samples: far from 0, constant in its first channel, with a NaN, which stays in its group."""
    if last and len(shape) < 3:
        pytest.skip("one pixel has one format")
    x = normal(*shape) * 3
    x[0] += 1e3 if dtype == np.float32 else 30
    x[-1, 0] = 7.0
    x, dy = x.astype(dtype), normal(*shape, seed=1).astype(dtype)
    w, b = (normal(shape[1], seed=s).astype(dtype) for s in (2, 3))
    expected = definition64(x, dy, w, b, groups)
    plain_y, *stats = kernels.group_norm_definition(x, groups, w, b, EPS)
    plain = (plain_y, *kernels.group_norm_backward_definition(dy, x, *stats, w))
    xs, dys = (in_format(a, last) for a in on(device, x, dy))
    ws, bs = on(device, w, b)
    y, mean, rstd = kernels.group_norm(xs, groups, ws, bs, EPS)
    dx, dweight, dbias = kernels.group_norm_backward(dys, xs, mean, rstd, ws)
    for image in (y, dx):
        assert is_channels_last(image) == is_channels_last(xs)
    assert_close(mean, stats[0], rtol=1e-5, atol=1e-5)
    step, sharp = unit(dtype), float(np.nanmax(stats[1]))
    largest = np.abs(x.astype(np.float64)).max()
    # a rounding of the mean, or of x itself, is one of y times rstd; of dx times rstd again
    floors = [2 * step * 8 + 6e-8 * 4 * largest * sharp, 20 * step * sharp + 6e-8 * 40 * largest * sharp**2]
    floors += [(np.abs(a).max() + 3 * len(shape)) * (8 * step + 6e-8 * 40 * largest * sharp) for a in expected[2:]]
    for found, want, by_definition, floor in zip((y, dx, dweight, dbias), expected, plain, floors, strict=True):
        flat = (a.reshape(1, -1) for a in (host(device, found)[0], want, by_definition.astype(np.float64)))
        within_twice(*flat, floor)

    x.reshape(*shape[:2], -1)[-1, -1, 0] = np.nan
    bad = host(device, kernels.group_norm(in_format(on(device, x)[0], last), groups)[0])[0]
    bad = np.isnan(bad).reshape(shape[0] * groups, -1)
    assert bad[-1].all()
    assert not bad[:-1].any()


def test_channels_last_images_are_not_copied(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    x = in_format(on(device, normal(2, 8, 4, 4).astype(np.float32))[0], True)
    module = __import__("sys").modules["lamella.kernels.group_norm"]
    monkeypatch.setattr(
        module, "in_format", lambda a, last: a if is_channels_last(a) == last else pytest.fail("copied")
    )
    y, mean, rstd = kernels.group_norm(x, 2)
    dx, *_ = kernels.group_norm_backward(x, x, mean, rstd)
    assert is_channels_last(y)
    assert is_channels_last(dx)


@pytest.mark.parametrize("shape", [(3, 64, 40, 40), (1, 3, 200, 200), (40, 32, 5, 5), (2, 130, 37)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_large_channels_last_images_on_the_cpu(shape: tuple[int, ...], affine: bool) -> None:
    groups = 1 if shape[1] == 3 else 2
    x, dy = normal(*shape).astype(np.float32) + 50, normal(*shape, seed=1).astype(np.float32)
    w, b = (normal(shape[1], seed=s).astype(np.float32) if affine else None for s in (2, 3))
    one = np.ones(shape[1])
    expected = definition64(x, dy, one if w is None else w, 0 * one if b is None else b, groups)
    before = get_num_threads()
    try:
        for count in (1, 2):
            lamella.set_num_threads(count)
            y, mean, rstd = kernels.group_norm(in_format(x, True), groups, w, b)
            found = (y, *kernels.group_norm_backward(in_format(dy, True), in_format(x, True), mean, rstd, w))
            for name, a, e in zip(("y", "dx", "dweight", "dbias"), found, expected, strict=True):
                assert_close(a, e, rtol=1e-5, atol=2e-5 * max(1.0, float(np.abs(e).max())), name=name)
    finally:
        lamella.set_num_threads(before)


def test_explain_and_launches_in_both_formats() -> None:
    with lamella.testing.simulator() as sim:
        device = lamella.device("simulator")
        contiguous = on(device, normal(2, 8, 4, 4).astype(np.float32))[0]
        backward = {"group_norm_sums": 1, "group_norm_means": 1, "group_norm_gradient": 1}
        for last, forward in (
            (False, {"norm_forward_registers": 1}),
            (True, {"group_norm_moments": 1, "group_norm_statistics": 1, "group_norm_apply": 1}),
        ):
            x = lamella.Tensor(in_format(contiguous, last), requires_grad=True)
            norm = L.GroupNorm(4, 8).to(device)
            said = kernels.explain("group_norm", x.data, 4, norm.weight.data)
            assert [part.split()[0] for part in said.split("; then ")] == list(forward)
            sim.reset()
            y = norm(x)
            assert sim.launches == forward
            y.backward(y)
            assert sim.launches == {**forward, **backward}
            assert sim.synchronizations == 0
            said = kernels.explain("group_norm_backward", x.data, x.data, y.data[:, :4, 0, 0], None)
            assert [part.split()[0] for part in said.split("; then ")] == list(backward)


@pytest.mark.parametrize(
    ("shape", "last", "aligned", "forward", "backward"),
    [
        ((4, 64, 3136), True, True, "FORWARD_LAST DTYPE=float VECTOR=4 WIDTH=32", "BACKWARD_LAST DTYPE=float VECTOR=4"),
        ((4, 32, 3136), True, True, "FORWARD_LAST DTYPE=float VECTOR=4 WIDTH=8", "BACKWARD_LAST"),
        ((4, 66, 3136), True, True, "FORWARD_LAST DTYPE=float VECTOR=1 WIDTH=32", "are no multiple of 4"),
        ((4, 64, 3136), True, False, "VECTOR=1 WIDTH=32", "16-byte boundary"),
        ((16, 64, 25088), False, True, "FORWARD_SHARED", "BACKWARD_PLANES DTYPE=float VECTOR=4 THREADS=256"),
        ((4, 64, 4097), False, True, "no multiple of 4", "VECTOR=1 THREADS=256"),
        ((4, 64, 3136), False, True, "FORWARD_REGISTERS", "BACKWARD_PLANES DTYPE=float VECTOR=4 THREADS=32"),
        ((1, 16, 2**18), False, True, "FORWARD_SPLIT", "in 64 chunks"),
        ((1, 8, 2**21), True, True, "in 1056 chunks", "in 1056 chunks"),
    ],
)
def test_the_choice_of_kernels(
    shape: tuple[int, int, int], last: bool, aligned: bool, forward: str, backward: str
) -> None:
    samples, channels, pixels = shape
    groups = channels if forward == "FORWARD_SHARED" else channels // 2 if last else 16
    call = _group_norm_cuda.Images(np.dtype(np.float32), samples, channels, pixels, groups, last, aligned, 227 << 10)
    assert forward in str(_group_norm_cuda.select_forward(call))
    assert backward in str(_group_norm_cuda.select_backward(call))


def test_explain_says_why_nothing_runs(device: Device) -> None:
    x = on(device, np.ones((2, 4, 3)))[0]
    said = kernels.explain("group_norm", x, 2)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
    else:
        assert "there is no kernel for float64" in said
        assert "there is no kernel for float64" in kernels.explain("group_norm", in_format(x, True), 2)
        assert "the array is empty" in kernels.explain("group_norm", x[:0], 2)
