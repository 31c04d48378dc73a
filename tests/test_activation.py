"""The activation kernels: every function of the table, every variant of what stands around it, judged in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella import kernels
from lamella.backend import Device, backend_for, random_bits, read_source
from lamella.kernels.activation import IDENTITY, Activation
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants

SOURCE = KERNELS / "activation.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def phi(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def density(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def tanh_gelu(x: float) -> tuple[float, float]:
    c, k = math.sqrt(2 / math.pi), 0.044715
    h = math.tanh(c * (x + k * x**3))
    return x * (1 + h) / 2, (1 + h + x * c * (1 + 3 * k * x * x) * (1 - h * h)) / 2


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def mish_slope(x: float) -> float:
    t = math.tanh(softplus(x))
    return t + x * (1 - t * t) * sigma(x)


A, B = 0.75, 1.5  # parameters, where a function has any; B / A * A is B also in float32
EXACT: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "identity": (lambda x: x, lambda x: 1.0),
    "relu": (lambda x: max(x, 0.0), lambda x: float(x > 0)),
    "leaky_relu": (lambda x: x if x > 0 else A * x, lambda x: 1.0 if x > 0 else A),
    "hardtanh": (lambda x: clip(x, A, B), lambda x: float(A < x < B)),
    "hardsigmoid": (lambda x: clip(x / 6 + 0.5, 0, 1), lambda x: (1 / 6) * (-3 < x < 3)),
    "hardswish": (lambda x: x * clip(x / 6 + 0.5, 0, 1), lambda x: 0.0 if x <= -3 else 1.0 if x >= 3 else x / 3 + 0.5),
    "hardshrink": (lambda x: x if abs(x) > A else 0.0, lambda x: float(abs(x) > A)),
    "softshrink": (lambda x: x - clip(x, -A, A), lambda x: float(abs(x) > A)),
    "threshold_": (lambda x: x if x > A else B, lambda x: float(x > A)),
    "elu": (lambda x: B * x if x > 0 else A * math.expm1(x), lambda x: B if x > 0 else A * math.exp(x)),
    "celu": (lambda x: x if x > 0 else A * math.expm1(x / A), lambda x: 1.0 if x > 0 else math.exp(x / A)),
    "sigmoid": (sigma, lambda x: sigma(x) * sigma(-x)),
    "logsigmoid": (lambda x: -softplus(-x), lambda x: sigma(-x)),
    "softplus": (
        lambda x: x if A * x > B else softplus(A * x) / A,
        lambda x: 1.0 if A * x > B else sigma(A * x),
    ),
    "swish": (lambda x: x * sigma(A * x), lambda x: sigma(A * x) + A * x * sigma(A * x) * sigma(-A * x)),
    "mish": (lambda x: x * math.tanh(softplus(x)), mish_slope),
    "tanh_": (math.tanh, lambda x: 1 - math.tanh(x) ** 2),
    "tanhshrink": (lambda x: x - math.tanh(x), lambda x: math.tanh(x) ** 2),
    "softsign": (lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2),
    "gelu": (lambda x: x * phi(x), lambda x: phi(x) + x * density(x)),
    "gelu_tanh": (lambda x: tanh_gelu(x)[0], lambda x: tanh_gelu(x)[1]),
}

MODULES: dict[str, L.Module] = {
    "relu": L.ReLU(), "leaky_relu": L.LeakyReLU(A), "hardtanh": L.Hardtanh(A, B), "hardsigmoid": L.Hardsigmoid(),
    "hardswish": L.Hardswish(), "hardshrink": L.Hardshrink(A), "softshrink": L.Softshrink(A),
    "threshold_": L.Threshold(A, B), "celu": L.CELU(A), "sigmoid": L.Sigmoid(), "logsigmoid": L.LogSigmoid(),
    "softplus": L.Softplus(A, B), "mish": L.Mish(), "tanh_": L.Tanh(), "tanhshrink": L.Tanhshrink(),
    "softsign": L.Softsign(), "gelu": L.GELU(), "gelu_tanh": L.GELU("tanh"),
}  # fmt: skip


def form_of(name: str) -> Activation:
    """The definition with the parameters A and B."""
    if name == "identity":
        return IDENTITY
    if name == "elu":
        from lamella.layers.elu import elu_form

        return elu_form(A / B, B)
    if name == "swish":
        from lamella.layers.swish import swish_form

        return swish_form(A)
    return MODULES[name].fused_form()


def inputs(rng: Any, size: int, dtype: Any) -> Any:
    """Ordinary and large values, and the ones at which a function changes its form."""
    x = (rng.standard_normal(size) * 3).astype(dtype)
    hard = [np.nan, np.inf, -np.inf, 0.0, -0.0, 3.0, -3.0, A, -A, B, 45.0, -45.0, 1e4, -1e4, 1e-6, B / A, -B, 6.0]
    count = min(size // 2, len(hard))
    x[rng.permutation(size)[:count]] = np.array(hard[:count]).astype(dtype)
    return x


def exactly(function: Callable[[float], float], x: Any) -> Any:
    """In float64, element by element; infinities as limits."""

    def at(value: float) -> float:
        if math.isnan(value):
            return value
        return function(clip(value, -700.0, 700.0) if abs(value) > 1e30 else value)

    return np.array([at(v) for v in x.astype(np.float64).ravel().tolist()]).reshape(x.shape)


def judge_values(found: Any, exact: Any, plain: Any, dtype: Any) -> None:
    """At most twice the definition's error, and a unit in the last place of the result."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(plain))
    found, plain = found.astype(np.float64), plain.astype(np.float64)
    finite = np.isfinite(plain) & np.isfinite(exact) & (abs(exact) < 600)
    np.testing.assert_array_equal(found[np.isinf(plain)], plain[np.isinf(plain)])
    unit = {2: 2.0**-11 if dtype == np.float16 else 2.0**-8, 4: 2.0**-23}[np.dtype(dtype).itemsize]
    size = np.maximum(abs(exact[finite]), 1.0)
    error, allowed = abs(found - exact)[finite] / size, abs(plain - exact)[finite] / size
    assert error.max(initial=0.0) <= 2 * allowed.max(initial=0.0) + unit


def swish64(x: Any, w: Any) -> tuple[Any, Any, Any]:
    """Value, slope, and share of the parameter."""
    s, t = (np.exp(-np.logaddexp(0.0, -w * x)), np.exp(-np.logaddexp(0.0, w * x)))  # 1 - s is t
    return x * s, s + w * x * s * t, (x * s) * (x * t)


def prelu64(x: Any, w: Any) -> tuple[Any, Any, Any]:
    return np.where(x > 0, x, w * x), np.where(x > 0, 1.0, w), np.where(x > 0, 0.0, x)


LEARNED = {"swish": swish64, "leaky_relu": prelu64}


def run_learned(text: str, defines: tuple[str, ...], threads: int = 96) -> None:
    """Both kernels with a learned parameter, in parts that end anywhere, and with rows and columns left over."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector, name = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"]), macros["ACTIVATION"]
    by_rows = "ROWS" in macros
    shapes = [(2, 3, 5 * vector, 2 * vector), (1, 1, 400 * vector, 300 * vector), (3, 2, vector, 8 * vector)]
    if not by_rows:  # outer, channels, 1, rows in a part
        shapes = [(21, 3 * vector, 1, 9), (8, 33 * vector, 1, 8), (16, 31 * vector, 1, 8), (1, vector, 1, 4)]
    for outer, channels, inner, chunk in shapes:
        rng = np.random.default_rng((outer, channels))
        x = (rng.standard_normal((outer, channels, inner)) * 3).astype(dtype)
        hard = np.array([0.0, -0.0, 45.0, -45.0, 1e4, -1e4, 1e-6])[: x.size]
        x.reshape(-1)[rng.permutation(x.size)[: len(hard)]] = hard.astype(dtype)
        dy = rng.standard_normal(x.shape).astype(dtype)
        w = rng.uniform(-1, 2, channels).astype(np.float32)
        parts = -(-(inner if by_rows else outer) // chunk)
        grid = outer * channels * parts if by_rows else parts * -(-channels // (32 * vector))
        block = threads if by_rows else 256
        sizes = (np.int64(outer), np.int64(channels), np.int64(inner), np.int64(chunk), np.int32(parts))
        y, dz = (np.full(x.shape, 7.0).astype(dtype) for _ in range(2))
        partial = np.full((channels, outer * parts) if by_rows else (parts, channels), np.nan, np.float32)
        run_kernel(text, "learned_forward", (grid,), (block,), (x, w, y, *sizes), defines=defines, seeds=(0,))
        arguments = (dy, x, w, dz, partial, *sizes)
        run_kernel(text, "learned_backward", (grid,), (block,), arguments, defines=defines, seeds=(0, 1))
        value, slope, share = LEARNED[name](x.astype(np.float64), w.astype(np.float64)[:, None])
        wide = dy.astype(np.float64)
        unit = {"float": 2.0**-23, "half": 2.0**-10, "bfloat16": 2.0**-7}[macros["DTYPE"]]
        assert (abs(y - value) <= unit * abs(value) + 2e-6).all()
        assert (abs(dz - wide * slope) <= unit * abs(wide * slope) + 4e-6).all()
        dw, size = (wide * share).sum(axis=(0, 2)), abs(wide * share).sum(axis=(0, 2))
        assert (abs(partial.astype(np.float64).sum(axis=1 if by_rows else 0) - dw) <= 1e-6 * size + 1e-6).all()


def run_variant(text: str, defines: tuple[str, ...], shapes: Any = None, threads: int = 64) -> None:
    """Both kernels of a variant over shapes with and without a tail."""
    if {"ROWS", "COLUMNS"} & set(defines):
        run_learned(text, defines)
        return
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector, name = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"]), macros["ACTIVATION"]
    bias, dropout, residual, by_output = (
        int(macros[k]) for k in ("BIAS", "DROPOUT", "RESIDUAL", "FROM_OUTPUT")
    )
    form = form_of(name)
    if shapes is None:
        wide = [(9, 3 * vector, 4, 4), (3, 8 * vector, 8, 1), (40, 3 * vector, 2, 1)]  # the last: two tiles, two steps
        shapes = wide if bias else [(1, n, 64, 1) for n in (1, 31, 33, 1025)]
    for turn, (rows, cols, width, row_blocks) in enumerate(shapes):
        rng = np.random.default_rng(cols)
        z = inputs(rng, rows * cols, dtype).reshape(rows, cols)
        b = (rng.standard_normal(cols) if bias else np.zeros(cols)).astype(dtype)
        r = rng.standard_normal((rows, cols)).astype(dtype)
        key, offset = 0x1234567890ABCDEF, 2**34 - 5 + turn if turn else 4 * 7 + 2
        words = random_bits(key, offset, rows * cols).reshape(rows, cols)
        p = float(np.sort(words, axis=None)[rows * cols // 3]) / 2.0**32  # the word of one element: that one is kept
        drop = kernels.Dropout(p, key, offset) if dropout else None
        keep = (words >= drop.threshold) / (1.0 - p) if drop else np.ones((rows, cols))
        x = z.astype(np.float64) + b.astype(np.float64)
        x = x.astype(np.float32).astype(np.float64)  # both add in float32
        packs = -(-cols // vector)
        tiles = -(-packs // width)
        grid = tiles * row_blocks
        scalars = (
            np.int64(rows), np.int64(cols), np.int32(width), np.float32(form.a), np.float32(form.b),
            np.float32(1.0 / (1.0 - p)), np.uint64(key), np.uint64(offset // 4), np.int32(offset % 4),
            np.uint64(drop.threshold if drop else 0),
        )  # fmt: skip
        learned = np.array([form.a], np.float32) if rows > 1 else None
        if learned is not None:
            scalars = (*scalars[:3], np.float32(99), *scalars[4:])
        with np.errstate(all="ignore"):
            y = np.full((rows, cols), 7.0).astype(dtype)
            arguments = (z, b if bias else None, r if residual else None, y, learned, *scalars)
            run_kernel(text, "activation_forward", (grid,), (threads,), arguments, defines=defines, seeds=(0,))
            exact = exactly(EXACT[name][0], x) * keep + (r.astype(np.float64) if residual else 0.0)
            plain = kernels.activation_forward(
                z, form, bias=b if bias else None, residual=r if residual else None, dropout=drop
            )
            judge_values(y, exact, plain, dtype)

            dy, dz = rng.standard_normal((rows, cols)).astype(dtype), np.full((rows, cols), 7.0).astype(dtype)
            given = y if by_output else z
            arguments = (dy, given, b if bias else None, dz, learned, *scalars)
            run_kernel(text, "activation_backward", (grid,), (threads,), arguments, defines=defines, seeds=(0,))
            slope = exactly(EXACT[name][1], x)
            exact = slope * keep * dy.astype(np.float64)
            plain = kernels.activation_backward(
                dy, given, form, bias=b if bias else None, dropout=drop, from_output=bool(by_output)
            )
            if by_output:  # f' by the rounded y
                exact = np.where(np.isfinite(exact), plain, exact).astype(np.float64)
            judge_values(dz, exact, plain, dtype)


_QUICK = {
    "ACTIVATION=gelu DTYPE=bfloat16 VECTOR=8 BIAS=1 DROPOUT=1 RESIDUAL=1 FROM_OUTPUT=0",
    "ROWS ACTIVATION=swish DTYPE=float VECTOR=4",
    "COLUMNS ACTIVATION=leaky_relu DTYPE=float VECTOR=4",
}


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, id=str(v), marks=() if " ".join(v.defines) in _QUICK else pytest.mark.slow)
        for v in variants(SOURCE)
    ],
)
def test_a_variant_is_right(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines)


def test_the_table_is_whole() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert {line.split()[1] for line in text.splitlines() if line.startswith("struct ")} - {
        "NoOutputForm", "Numbers", "Place",
    } == set(EXACT)  # fmt: skip
    compiled = {define for v in variants(SOURCE) for define in v.defines if define.startswith("ACTIVATION=")}
    assert compiled == {f"ACTIVATION={name}" for name in EXACT}


def judge(broken: Path, number: int) -> None:
    """`make mutants` calls this: the functions of the table that the line belongs to, else what stands around them."""
    lines = broken.read_text(encoding="utf-8").splitlines()
    text = read_source(broken)
    first = next(i for i, line in enumerate(lines, 1) if line.startswith("using F ="))
    if number < first:
        name = next((s.split()[1] for s in reversed(lines[:number]) if s.startswith("struct ")), "NoOutputForm")
        names = [name] if name in EXACT else ["gelu", "mish", "hardswish", "sigmoid", "elu", "softsign"]
        for name in {*names} & {*LEARNED}:
            run_learned(text, ("ROWS", f"ACTIVATION={name}", "DTYPE=float", "VECTOR=4"))
        for name in names:
            flags = "BIAS=0 DROPOUT=0 RESIDUAL=0 FROM_OUTPUT"
            run_variant(text, (f"ACTIVATION={name}", "DTYPE=float", "VECTOR=4", *f"{flags}=0".split()))
            if form_of(name).by_output:
                run_variant(text, (f"ACTIVATION={name}", "DTYPE=float", "VECTOR=4", *f"{flags}=1".split()))
        return
    if number < next(i for i, line in enumerate(lines, 1) if line.startswith("// ---- the kernels: what")):
        for layout in ("ROWS", "COLUMNS"):
            for name, kind in (("swish", "DTYPE=float VECTOR=4"), ("leaky_relu", "DTYPE=half VECTOR=1")):
                run_learned(text, (layout, f"ACTIVATION={name}", *kind.split()))
        return
    for flags in (
        "DTYPE=float VECTOR=4 BIAS=1 DROPOUT=1 RESIDUAL=1", "DTYPE=half VECTOR=8 BIAS=0 DROPOUT=1 RESIDUAL=0",
        "DTYPE=bfloat16 VECTOR=1 BIAS=1 DROPOUT=0 RESIDUAL=1", "DTYPE=float VECTOR=4 BIAS=0 DROPOUT=0 RESIDUAL=1",
    ):  # fmt: skip
        run_variant(text, ("ACTIVATION=gelu", *flags.split(), "FROM_OUTPUT=0"))
    flags = "DTYPE=float VECTOR=4 BIAS=0 DROPOUT=0 RESIDUAL=0 FROM_OUTPUT=1"
    run_variant(text, ("ACTIVATION=sigmoid", *flags.split()))


# -- the public functions ---------------------------------------------------------------------------------------------
def on(device: Device, x: Any) -> Any:
    return backend_for(device).from_numpy(x, device)


@pytest.mark.parametrize("shape", [(3, 8), (2, 3, 16), (4,), pytest.param((5, 7), marks=pytest.mark.slow)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_at_once_on_every_device(shape: tuple[int, ...], dtype: Any, device: Device) -> None:
    backend, rng = backend_for(device), np.random.default_rng(1)
    z, r, dy = (rng.standard_normal(shape).astype(dtype) for _ in range(3))
    b = rng.standard_normal(shape[-1]).astype(dtype)
    drop = kernels.Dropout(0.25, 99, 6)
    keep = (random_bits(99, 6, z.size) >= 2**30).reshape(shape) / 0.75
    form = L.SiLU().fused_form()
    y = kernels.activation_forward(on(device, z), form, bias=on(device, b), residual=on(device, r), dropout=drop)
    x = z + b
    lamella.testing.assert_close(y, x / (1 + np.exp(-x)) * keep + r, rtol=1e-5, atol=1e-6)
    s = 1 / (1 + np.exp(-x))
    dz = kernels.activation_backward(on(device, dy), on(device, z), form, bias=on(device, b), dropout=drop)
    lamella.testing.assert_close(dz, dy * keep * s * (1 + x * (1 - s)), rtol=1e-5, atol=1e-6)
    assert backend.to_numpy(y).dtype == dtype


def test_out_may_be_z_itself(device: Device) -> None:
    z = on(device, np.array([[1.0, -2.0], [3.0, -4.0]], np.float32))
    y = kernels.activation_forward(z, L.ReLU().fused_form(), bias=on(device, np.array([1, 1], np.float32)), out=z)
    assert y is z
    lamella.testing.assert_close(z, np.array([[2, 0], [4, 0]], np.float32))


@pytest.mark.parametrize("layout", ["channels last", "transposed", "every other"])
def test_any_layout_is_taken(layout: str, device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((2, 6, 4, 5)).astype(np.float32)
    change: Any = {
        "channels last": lambda a: a.transpose(0, 2, 3, 1),
        "transposed": lambda a: a.transpose(3, 2, 1, 0),
        "every other": lambda a: a[:, ::2],
    }[layout]
    inside = change(on(device, x)) if layout == "every other" else on(device, np.ascontiguousarray(change(x)))
    if layout != "every other":
        inside = inside.transpose((0, 3, 1, 2) if layout == "channels last" else (3, 2, 1, 0))
    leaf = lamella.Tensor(inside, requires_grad=True)
    expected = x if layout != "every other" else change(x)
    y = L.tanh(leaf)
    lamella.testing.assert_close(y.data, np.tanh(expected), rtol=1e-6, atol=1e-6)
    y.backward(on(device, expected.copy()))
    lamella.testing.assert_close(leaf.grad, expected * (1 - np.tanh(expected) ** 2), rtol=1e-5, atol=1e-6)
    if layout != "every other":
        assert y.data.strides == inside.strides, "the memory format is kept"


@pytest.mark.parametrize("shape", [(3, 5), (2, 5, 7), (2, 5, 3, 4), (4, 5, 1), (40, 33, 16)], ids=str)
@pytest.mark.parametrize("kind", ["swish", "one slope", "slopes", "channels last"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64], ids=lambda dtype: np.dtype(dtype).name)
def test_a_learned_parameter_and_its_gradient(dtype: Any, kind: str, shape: tuple[int, ...], device: Device) -> None:
    backend, rng = backend_for(device), np.random.default_rng(0)
    host, dy = (rng.standard_normal(shape).astype(dtype) * 2 for _ in range(2))
    x = on(device, host)
    if kind == "channels last" and len(shape) > 2:
        last = len(shape) - 1
        lying = np.ascontiguousarray(host.transpose(0, *range(2, last + 1), 1))
        x = on(device, lying).transpose(0, last, *range(1, last))
    each = kind not in ("swish", "one slope")
    w = np.array(0.75 if kind == "swish" else [0.25]).astype(dtype)
    w = rng.uniform(-0.5, 1, shape[1]).astype(dtype) if each else w
    leaf, weight = (lamella.Tensor(a, requires_grad=True) for a in (x, on(device, w)))
    function = L.swish if kind == "swish" else L.prelu
    if device.kind == "simulator":
        backend.reset()
    y = function(leaf, weight)
    y.backward(on(device, dy))
    around = w.reshape(-1, *(1,) * (len(shape) - 2)) if each else w
    exact = LEARNED["swish" if kind == "swish" else "leaky_relu"](host.astype(np.float64), around.astype(np.float64))
    wide = dy.astype(np.float64)
    unit = {2: 2e-3, 4: 4e-7, 8: 1e-14}[np.dtype(dtype).itemsize]
    lamella.testing.assert_close(y.data, exact[0], rtol=unit, atol=4 * unit)
    lamella.testing.assert_close(leaf.grad, wide * exact[1], rtol=unit, atol=8 * unit)
    axes = tuple(i for i in range(len(shape)) if i != 1 or not each)
    dweight = (wide * exact[2]).sum(axis=axes).reshape(w.shape)
    size = abs(wide * exact[2]).sum(axis=axes).max()
    lamella.testing.assert_close(weight.grad, dweight, rtol=unit, atol=unit * size)
    if device.kind == "simulator" and dtype != np.float64:
        launched = dict(backend.launches)
        assert launched.pop("learned_forward") == 1
        assert launched.pop("learned_backward") == 1
        assert sum(launched.values()) == 1, "the parts of the parameter's gradient are added up"
        operation = "swish" if kind == "swish" else "prelu"
        assert kernels.explain(operation, x, on(device, w)).startswith("learned_forward [")
        said = kernels.explain(f"{operation}_backward", on(device, dy), x, on(device, w))
        columns = each and (len(shape) == 2 or shape[2:] == (1,) or kind == "channels last")
        assert said.startswith(f"learned_backward [{'COLUMNS' if columns else 'ROWS'} ACTIVATION=")


def test_a_nan_stays_in_its_element_and_channel(device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 9)).astype(np.float32)
    x[0, 1, 3], x[1, 2, 0], x[1, 3, 8] = np.nan, -np.inf, np.inf
    leaf = lamella.Tensor(on(device, x), requires_grad=True)
    weight = lamella.Tensor(on(device, np.full(4, 0.25, np.float32)), requires_grad=True)
    y = L.prelu(leaf, weight)
    y.backward(on(device, np.ones_like(x)))
    found = backend_for(device).to_numpy(y.data)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    assert (found[1, 2, 0], found[1, 3, 8]) == (-np.inf, np.inf)
    dweight = backend_for(device).to_numpy(weight.grad)
    np.testing.assert_array_equal(np.isnan(dweight), [False, True, False, False])
    assert dweight[2] == -np.inf


def test_each_way_is_one_launch() -> None:
    with lamella.testing.simulator() as sim:
        for make in (L.ReLU(), L.SELU(), L.Dropout(0.5)):
            x = lamella.tensor(np.ones((3, 5), np.float32), device="simulator", requires_grad=True)
            y = make.to("simulator")(x)
            sim.reset()
            y = make(x)
            assert dict(sim.launches) == {"activation_forward": 1}
            y.backward(y.data)
            assert dict(sim.launches) == {"activation_forward": 1, "activation_backward": 1}
            assert sim.synchronizations == 0


def test_explain_names_the_variant_and_the_reason() -> None:
    form = L.GELU().fused_form()
    assert "cpu backend runs no CUDA kernels" in kernels.explain("activation_forward", np.ones(3, "float32"), form)
    with lamella.testing.simulator() as sim:
        z = sim.from_numpy(np.ones((4, 6), np.float32))
        bias = sim.from_numpy(np.ones(6, np.float32))
        said = kernels.explain("activation_forward", z, form)
        assert said.startswith(
            "activation_forward [ACTIVATION=gelu DTYPE=float VECTOR=4 BIAS=0 DROPOUT=0 RESIDUAL=0 FROM_OUTPUT=0], "
            "1 blocks of 256 threads: one read, one write, 4 elements at a time"
        )
        said = kernels.explain("activation_backward", z, z, form, bias=bias)
        assert "1 element at a time, because the 6 columns are no multiple of 4" in said
        assert "does not start on a 16-byte" in kernels.explain("activation_forward", z.reshape(-1)[1:], form)
        assert "no kernel for float64" in kernels.explain("activation_forward", z.astype("float64"), form)
        assert "nothing is launched" in kernels.explain("activation_forward", z[:0], form)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: kernels.activation_forward(z, bias=z[0, :2]), ValueError, r"bias must have shape \(3,\), got"),
        (lambda z: kernels.activation_forward(z, residual=z[0]), ValueError, r"residual must have shape \(2, 3\)"),
        (lambda z: kernels.activation_forward(z, residual=z.astype("float64")), TypeError, "residual must be float32"),
        (lambda z: kernels.activation_forward(z, out=np.ones((3, 2), "float32").T), ValueError, "out must be C-contig"),
        (lambda z: kernels.activation_backward(z, z, L.GELU().fused_form(), from_output=True), ValueError, "got gelu"),
        (lambda z: kernels.activation_backward(z[0], z), ValueError, r"dy must have shape \(2, 3\), got \(3,\)"),
    ],
)
def test_bad_input_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.ones((2, 3), "float32"))
