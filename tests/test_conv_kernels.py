"""Convolution on plain arrays against its definition in float64: every path, format, dtype and awkward shape."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import Device, backend_for
from lamella.testing import assert_close

Pairs = list[tuple[int, int]]


def places(kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], out: tuple[int, ...]) -> Any:
    """For each position in the kernel the slices of the padded image that the windows see there."""
    for k in np.ndindex(*kernel):
        yield k, tuple(slice(i * d, i * d + s * (o - 1) + 1, s) for i, d, s, o in zip(k, dilation, stride, out))  # noqa: B905


def definition(
    x: np.ndarray,
    w: np.ndarray,
    dy: np.ndarray | None = None,
    *,
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
) -> tuple[np.ndarray, ...]:
    """y, or (dx, dweight) where ``dy`` is given; one position of the kernel and one group at a time, in float64."""
    wide = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *padding])
    w = w.astype(np.float64)
    filters, channels = w.shape[0] // groups, w.shape[1]
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, w.shape[2:], strict=True)]
    out = tuple((n - r) // s + 1 for n, r, s in zip(wide.shape[2:], reach, stride, strict=True))
    y, dwide, dw = np.zeros((len(x), len(w), *out)), np.zeros_like(wide), np.zeros_like(w)
    for k, place in places(w.shape[2:], stride, dilation, out):
        for g in range(groups):
            f, c = slice(g * filters, (g + 1) * filters), slice(g * channels, (g + 1) * channels)
            seen, here = (slice(None), c, *place), (f, slice(None), *k)
            y[:, f] += np.einsum("nc...,fc->nf...", wide[seen], w[here])
            if dy is not None:
                rows = dy[:, f].astype(np.float64)
                axes = (0, *range(2, dy.ndim))
                dw[here] = np.tensordot(rows, wide[seen], (axes, axes))
                dwide[seen] += np.einsum("nf...,fc->nc...", rows, w[here])
    if dy is None:
        return (y,)
    return dwide[(..., *(slice(b, b + n) for (b, _), n in zip(padding, x.shape[2:], strict=True)))], dw


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


FORMATS = {
    "first": lambda x: x,
    "last": channels_last,
    "strided": lambda x: np.repeat(x, 2, -1)[..., ::2],
    "turned": lambda x: np.flip(np.flip(x, 2).copy(), 2),
}


# (N, C, lengths), (F, kernel), stride, padding, dilation, groups
CASES = [
    ((2, 3, 7), (4, 3), (1,), [(1, 1)], (1,), 1),
    ((1, 2, 9), (2, 4), (3,), [(0, 2)], (2,), 2),
    ((2, 3, 6, 5), (4, 3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 1),
    ((1, 4, 7, 4), (6, 1, 1), (1, 1), [(0, 0), (0, 0)], (1, 1), 2),
    ((2, 2, 5, 8), (2, 2, 3), (2, 3), [(1, 0), (0, 2)], (1, 2), 1),
    ((1, 1, 7, 7), (1, 2, 2), (3, 4), [(0, 0), (0, 0)], (1, 1), 1),
    ((2, 4, 5, 5), (4, 3, 3), (1, 1), [(1, 1), (2, 2)], (1, 1), 4),
    ((2, 2, 3, 3), (3, 5, 5), (1, 1), [(2, 2), (3, 3)], (1, 1), 1),
    ((2, 2, 4, 3, 5), (4, 2, 1, 3), (1, 1, 2), [(1, 0), (0, 0), (1, 1)], (1, 2, 1), 2),
    ((0, 3, 6, 5), (4, 3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 1),
]


def on(device: Device, array: np.ndarray) -> Any:
    """The array on a device, with its strides."""
    if device.kind == "cpu":
        return array
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    there = backend_for(device).from_numpy(np.ascontiguousarray(array.transpose(order)), device)
    return there.transpose(tuple(order.index(axis) for axis in range(array.ndim)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_the_definition(case: Any, layout: str, dtype: str, device: Device) -> None:
    (samples, channels, *lengths), (filters, *kernel), stride, padding, dilation, groups = case
    wide = len(kernel) == 2 and groups == 1  # the kernels' own tests have the rest
    if device.kind != "cpu" and (dtype == "float64" or layout not in (("first", "last") if wide else ("first",))):
        pytest.skip("the kernels do not tell these apart")
    x = normal(samples, channels, *lengths).astype(dtype)
    w = normal(filters, channels // groups, *kernel, seed=1).astype(dtype)
    b = normal(filters, seed=2).astype(dtype)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    (y,) = definition(x, w, **options)
    dy = normal(*y.shape, seed=3).astype(dtype)
    dx, dw = definition(x, w, dy, **options)
    there = on(device, FORMATS[layout](x))
    dthere = on(device, FORMATS[layout](dy))
    weight = on(device, w)
    found = kernels.conv(there, weight, on(device, b), **options)
    ddata = kernels.conv_backward_data(dthere, weight, tuple(lengths), **options)
    dweight = kernels.conv_backward_weight(dthere, there, tuple(kernel), **options)
    tolerance = 1e-12 if dtype == "float64" else 5e-6
    for name, array, expected in (
        ("y", found, y + b.astype(np.float64).reshape(-1, *[1] * len(kernel))),
        ("dx", ddata, dx),
        ("dweight", dweight, dw),
        ("dbias", kernels.conv_backward_bias(dthere), dy.sum((0, *range(2, dy.ndim)), dtype=np.float64)),
    ):
        assert array.dtype == dtype
        assert_close(array, expected, atol=tolerance * max(1.0, float(np.abs(expected).max(initial=0))), name=name)
    if layout == "last" and y.size and min(channels, filters, *lengths, *y.shape[2:]) > 1:
        for array in (found, ddata):
            assert array.transpose(0, *range(2, array.ndim), 1).flags.c_contiguous


def test_the_adjoint_of_im2col_is_col2im(device: Device) -> None:
    x = normal(2, 3, 6, 5)
    options: dict[str, Any] = {"stride": (2, 1), "padding": [(1, 0), (2, 1)], "dilation": (1, 2)}
    cols = kernels.im2col(on(device, x), (3, 2), **options)
    assert cols.shape == (2, 18, 18)
    g = normal(*cols.shape, seed=1)
    back = backend_for(device).to_numpy(kernels.col2im(on(device, g), (6, 5), (3, 2), **options))
    here = backend_for(device).to_numpy(cols)
    assert here[1, 2 * 6 + 3, 0] == x[1, 2, 0, 0]  # position (1, 1): 2 * 0 - 1 + 1, 0 - 2 + 2
    assert abs((here * g).sum() - (x * back).sum()) <= 1e-12 * np.abs(x * back).sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "conv: stride must be at least 1, got 0"),
        ({"stride": (1, 2, 3)}, "conv: stride must be an integer or 2 of them, got"),
        ({"padding": "full"}, "conv: padding must be integers, 'same' or 'valid', got 'full'"),
        ({"padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"padding": -1}, "padding must be at least 0, got -1"),
        ({"groups": 3}, "groups must divide the channels of input and output, got groups=3"),
        ({"dilation": 9}, "does not fit lengths"),
        ({"x": np.zeros((1, 3, 5, 5), np.float32)}, "weight must have shape"),
        ({"x": np.zeros((2, 5, 5), np.float32)}, "x must have 4 axes"),
        ({"bias": np.zeros(2, np.float32)}, "bias must have shape"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "x": np.zeros((1, 2, 5, 5), np.float32),
        "weight": np.zeros((4, 2, 3, 3), np.float32),
        **change,
    }
    with pytest.raises(ValueError, match="conv: ") as error:
        kernels.conv(given.pop("x"), given.pop("weight"), given.pop("bias", None), **given)
    assert message in str(error.value)


def test_dtypes_and_devices_must_agree() -> None:
    x, w = np.zeros((1, 2, 5), np.float32), np.zeros((3, 2, 2))
    with pytest.raises(TypeError, match="one dtype, got float32 and float64"):
        kernels.conv(x, w)
    with pytest.raises(TypeError, match="floating point"):
        kernels.conv(x.astype(int), w.astype(int))
    with lamella.testing.simulator(), pytest.raises(lamella.backend.MixedDevicesError):
        kernels.conv(backend_for("simulator").from_numpy(x, lamella.device("simulator")), w.astype(np.float32))


# -- the CPU's algorithms ----------------------------------------------------------------------------------------------

# what explain says of it, (N, C, lengths), (F, kernel), stride, padding, dilation, groups
ON_THE_CPU = [
    ("Winograd", (1, 32, 13, 10), (40, 3, 3), (1, 1), [(1, 1), (0, 2)], (1, 1), 1),
    ("Winograd", (3, 40, 32, 32), (32, 3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 1),
    ("Winograd", (2, 32, 9, 7), (32, 5, 5), (1, 1), [(2, 2), (4, 1)], (1, 1), 1),
    ("Winograd", (2, 16, 150, 9), (64, 3, 3), (1, 1), [(0, 0), (1, 1)], (1, 1), 1),
    ("Winograd", (7, 16, 9, 8), (64, 5, 5), (1, 1), [(2, 3), (0, 1)], (1, 1), 1),  # whole samples, many filters
    ("Winograd", (1, 16, 61, 130), (64, 3, 3), (1, 1), [(1, 0), (1, 1)], (1, 1), 1),  # a sample larger than a block
    ("each position", (2, 9, 8, 11), (9, 3, 3), (1, 2), [(1, 1), (2, 1)], (2, 1), 9),
    ("each position", (1, 2, 3, 4, 300), (2, 2, 1, 3), (1, 1, 1), [(0, 1), (0, 0), (1, 1)], (1, 1, 1), 2),
    ("each position", (1, 40, 2500), (40, 5), (1,), [(2, 2)], (1,), 40),
    ("all axes but the last", (2, 17, 12, 9), (16, 4, 7), (2, 1), [(1, 1), (3, 2)], (2, 1), 1),
    ("all axes but the last", (2, 16, 70), (20, 6), (1,), [(2, 3)], (1,), 1),
    ("all axes but the last", (1, 32, 3, 60, 40), (16, 2, 1, 5), (1, 1, 1), [(1, 0), (0, 0), (2, 2)], (1, 1, 1), 1),
    ("columns", (3, 16, 20, 17), (5, 1, 1), (1, 1), [(0, 0), (0, 0)], (1, 1), 1),
    ("columns", (2, 8, 40, 33), (7, 4, 2), (2, 1), [(1, 2), (0, 1)], (1, 2), 1),
    ("columns", (3, 2, 9, 9), (64, 3, 3), (1, 1), [(1, 1), (1, 1)], (1, 1), 1),
    ("columns", (2, 4, 3000), (6, 7), (3,), [(3, 3)], (1,), 2),
]


@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(
    "layout", ["first", "last", *(pytest.param(f, marks=pytest.mark.slow) for f in list(FORMATS)[2:])]
)
@pytest.mark.parametrize("case", ON_THE_CPU, ids=str)
def test_every_algorithm_of_the_cpu_keeps_the_definition(case: Any, layout: str, threads: int) -> None:
    words, (samples, channels, *lengths), (filters, *kernel), stride, padding, dilation, groups = case
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    x = FORMATS[layout](normal(samples, channels, *lengths).astype(np.float32))
    w = normal(filters, channels // groups, *kernel, seed=1).astype(np.float32)
    b = normal(filters, seed=2).astype(np.float32)
    assert words in kernels.explain("conv", x, w, **options)
    (y,) = definition(x, w, **options)
    dy = FORMATS[layout](normal(*y.shape, seed=3).astype(np.float32))
    dx, dw = definition(x, w, dy, **options)
    before = lamella.backend.get_num_threads()
    lamella.set_num_threads(threads)
    try:
        found = kernels.conv(x, w, b, **options)
        ddata = kernels.conv_backward_data(dy, w, tuple(lengths), **options)
        dweight = kernels.conv_backward_weight(dy, x, tuple(kernel), **options)
        again = kernels.conv_backward_weight(dy, x, tuple(kernel), out=np.empty_like(w), **options)
    finally:
        lamella.set_num_threads(before)
    np.testing.assert_array_equal(dweight, again)
    for name, array, expected in (
        ("y", found, y + b.astype(np.float64).reshape(-1, *[1] * len(kernel))),
        ("dx", ddata, dx),
        ("dweight", dweight, dw),
    ):
        assert array.dtype == np.float32
        bound = (2e-5 if words == "Winograd" else 2e-6) * float(np.abs(expected).max())
        assert_close(array, expected, atol=bound, name=name)


@pytest.mark.parametrize(("channels", "size"), [(32, 3), (128, 3), (512, 3), (32, 5), (128, 5)])
def test_winograd_stays_within_its_bound_and_strict_avoids_it(channels: int, size: int) -> None:
    x, w = np.abs(normal(1, channels, 9, 8)).astype(np.float32), normal(48, channels, size, size, seed=1)
    options: dict[str, Any] = {"stride": (1, 1), "padding": [(1, 1), (1, 1)], "dilation": (1, 1), "groups": 1}
    dy, w = normal(1, 48, 12 - size, 11 - size, seed=2).astype(np.float32), w.astype(np.float32)
    (y,) = definition(x, w, **options)
    dx, dw = definition(x, w, dy, **options)

    def errors() -> list[float]:
        found = (
            kernels.conv(x, w, **options),
            kernels.conv_backward_data(dy, w, (9, 8), **options),
            kernels.conv_backward_weight(dy, x, (size, size), **options),
        )
        return [float(np.abs(a - e).max() / np.abs(e).max()) for a, e in zip(found, (y, dx, dw), strict=True)]

    fast = errors()
    assert "Winograd" in kernels.explain("conv2d", x, w, **options)
    with lamella.precision("strict"):
        strict = errors()
        assert "Winograd" not in kernels.explain("conv2d", x, w, **options)
    assert max(fast) <= 2e-5
    assert max(strict) <= 2e-6
    assert all(one != other for one, other in zip(fast, strict, strict=True))


def peak(function: Any) -> tuple[Any, int]:
    """The result, and the most bytes held at a time beyond it."""
    pool = backend_for("cpu").pool
    pool.trim()
    tracemalloc.start()
    try:
        result = function()
        most = tracemalloc.get_traced_memory()[1] - result.nbytes * 9 // 8  # the pool's size classes
    finally:
        tracemalloc.stop()
    return result, most


@pytest.mark.parametrize("precision", ["float32", "strict"])
@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize(("stride", "filters", "size"), [(1, 32, 3), (2, 32, 3), (1, 48, 1), (1, 2, 7)])
def test_workspace_stays_under_its_limit(stride: int, filters: int, size: int, layout: str, precision: str) -> None:
    limit = 1 << 20
    x = FORMATS[layout](normal(3, 32, 64, 40).astype(np.float32))
    w = normal(filters, 32, size, size, seed=1).astype(np.float32)
    options: dict[str, Any] = {"stride": stride, "padding": size // 2}
    with lamella.precision(precision):
        full = kernels.conv(x, w, **options)
        y, most = peak(lambda: kernels.conv(x, w, workspace=limit, **options))
        assert most <= limit
        assert_close(y, full, atol=2e-6 * float(np.abs(full).max()))
        dw, most = peak(lambda: kernels.conv_backward_weight(y, x, (size, size), workspace=limit, **options))
        assert most <= limit
        full = kernels.conv_backward_weight(y, x, (size, size), **options)
        assert_close(dw, full, atol=1e-5 * float(np.abs(full).max()))
        if stride == 1:  # at others a whole sample with its zeros is held
            dx, most = peak(lambda: kernels.conv_backward_data(y, w, x.shape[2:], workspace=limit, **options))
            assert most <= limit
            full = kernels.conv_backward_data(y, w, x.shape[2:], **options)
            assert_close(dx, full, atol=2e-6 * float(np.abs(full).max()))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "samples"), [("float32", 64), ("strict", 8)])
def test_a_large_convolution_never_holds_more_than_256_mb(precision: str, samples: int) -> None:
    one = normal(1, 64, 224, 224).astype(np.float32)
    x = np.broadcast_to(one, (samples, 64, 224, 224))  # 822 MB that need not exist
    w = normal(64, 64, 3, 3, seed=1).astype(np.float32)
    with lamella.precision(precision):
        expected = kernels.conv(one, w, padding=1)
        y, most = peak(lambda: kernels.conv(x, w, padding=1))
    assert most <= 256 << 20
    scale = float(np.abs(expected).max())
    for sample in (0, samples // 2, samples - 1):
        assert_close(y[sample], expected[0], atol=1e-6 * scale)


@pytest.mark.parametrize(
    ("bias", "error", "message"),
    [
        (np.zeros(3, np.float32), ValueError, r"conv: bias must have shape \(2,\), one value a filter, got \(3,\)"),
        (np.zeros(2), TypeError, "conv: bias must have the dtype of x, float32, got float64; cast with .astype"),
    ],
    ids=["shape", "dtype"],
)
def test_a_bias_that_does_not_fit_is_refused(bias: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kernels.conv(np.zeros((1, 1, 4), np.float32), np.zeros((2, 1, 3), np.float32), bias)
