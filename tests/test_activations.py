"""Activations: against definitions in float64, against PyTorch's frozen results, at kinks and at extremes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella.backend import Device, backend_for, get_num_threads
from lamella.kernels.elementwise import CHUNK
from lamella.kernels.erf import erfc

FIXTURES = Path(__file__).with_name("fixtures") / "activations.npz"
STORED = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
# rtol and atol. In 16 bits PyTorch rounds inside its composed functions, ours are held more closely further below.
TOLERANCE = {"float64": (1e-13, 1e-14), "float32": (3e-6, 1e-6), "float16": (2.5e-3, 2e-3), "bfloat16": (2e-2, 1.6e-2)}


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def call(name: str, x: Any, options: dict[str, Any], *more: Any) -> Any:
    return getattr(L, name)(x, *more, **options)


def value_and_gradient(function: Callable[[Any], Any], x: np.ndarray, dy: Any = None) -> tuple[np.ndarray, np.ndarray]:
    leaf = lamella.Tensor(x, requires_grad=True)
    y = function(leaf)
    y.backward(np.ones_like(y.data) if dy is None else dy)
    return y.data, leaf.grad


# -- PyTorch's results -----------------------------------------------------------------------------------------------
def frozen() -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
    with np.load(FIXTURES, allow_pickle=False) as file:
        values = {dtype: file[dtype].view(kind) for dtype, kind in STORED.items()}
        place = dict.fromkeys(STORED, 0)
        for line in file["configurations"]:
            configuration = json.loads(str(line))
            dtype, arrays = configuration["dtype"], []
            for shape in configuration["shapes"]:
                start = place[dtype]
                place[dtype] = stop = start + math.prod(shape)
                arrays.append(values[dtype][start:stop].reshape(shape))
            yield configuration, arrays


FROZEN = list(frozen())


def test_the_fixture_is_whole() -> None:
    assert len(FROZEN) == 292
    assert {configuration["dtype"] for configuration, _ in FROZEN} == set(STORED)


@pytest.mark.parametrize("dtype", STORED)
@pytest.mark.parametrize("name", sorted({configuration["function"] for configuration, _ in FROZEN}))
def test_values_and_gradients_are_those_of_pytorch(name: str, dtype: str, device: Device) -> None:
    if device.kind == "simulator" and dtype in ("float16", "bfloat16"):
        pytest.skip("a kernel to compile for each: the slow test below")
    _compare_with_pytorch(name, dtype, device)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", sorted({configuration["function"] for configuration, _ in FROZEN}))
def test_16_bit_kernels_give_pytorchs_values_and_gradients(name: str, dtype: str) -> None:
    with lamella.testing.simulator():
        _compare_with_pytorch(name, dtype, lamella.device("simulator"))


def _compare_with_pytorch(name: str, dtype: str, device: Device) -> None:
    rtol, atol = TOLERANCE[dtype]
    if (name, dtype) == ("hardsigmoid", "float64"):
        rtol = 1e-7  # PyTorch's slope there is 1/6 in float32
    seen = 0
    for configuration, (x, dy, y, dx, *dw) in FROZEN:
        if (configuration["function"], configuration["dtype"]) != (name, dtype):
            continue
        seen += 1
        options = dict(configuration["options"])
        leaf = lamella.Tensor(on(device, x), requires_grad=True)
        weight = None
        if name == "prelu":
            weight = lamella.Tensor(on(device, np.array(options.pop("weight"), x.dtype)), requires_grad=True)
        found = call(name, leaf, options, *([weight] if weight is not None else []))
        found.backward(on(device, dy))
        pairs = [(found, y), (leaf.grad, dx)]
        if weight is not None:
            pairs.append((weight.grad, dw[0]))
        for mine, expected in pairs:
            mine = backend_for(device).to_numpy(mine.data if isinstance(mine, lamella.Tensor) else mine)
            assert mine.dtype == expected.dtype
            np.testing.assert_allclose(
                mine.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol, err_msg=str(configuration)
            )
    assert seen


# -- definitions, in float64 -----------------------------------------------------------------------------------------
def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > 0 else math.exp(x) / (1 + math.exp(x))


def log_sigma(x: float) -> float:
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


def phi(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


DEFINITIONS: dict[str, tuple[Callable[[Any], Any], Callable[[float], float]]] = {
    "celu": (lambda x: L.celu(x, 0.8), lambda x: max(x, 0) + min(0, 0.8 * math.expm1(x / 0.8))),
    "elu": (lambda x: L.elu(x, 0.8), lambda x: x if x > 0 else 0.8 * math.expm1(x)),
    "gelu": (L.gelu, lambda x: x * phi(x)),
    "gelu tanh": (
        lambda x: L.gelu(x, "tanh"),
        lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "gelu sigmoid": (lambda x: L.gelu(x, "sigmoid"), lambda x: x * sigma(1.702 * x)),
    "hardshrink": (L.hardshrink, lambda x: x if abs(x) > 0.5 else 0.0),
    "hardsigmoid": (L.hardsigmoid, lambda x: min(max(x / 6 + 0.5, 0), 1)),
    "hardswish": (L.hardswish, lambda x: x * min(max(x / 6 + 0.5, 0), 1)),
    "hardtanh": (L.hardtanh, lambda x: min(max(x, -1), 1)),
    "leaky_relu": (L.leaky_relu, lambda x: x if x > 0 else 0.01 * x),
    "leaky_relu 1/alpha": (lambda x: L.leaky_relu(x, 1 / 5.5), lambda x: x if x > 0 else x / 5.5),
    "logsigmoid": (L.logsigmoid, log_sigma),
    "mish": (L.mish, lambda x: x * math.tanh(-log_sigma(-x))),
    "relu": (L.relu, lambda x: max(x, 0)),
    "relu6": (L.relu6, lambda x: min(max(x, 0), 6)),
    "selu": (L.selu, lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))),
    "sigmoid": (L.sigmoid, sigma),
    "sign": (L.sign, lambda x: float(x > 0) - float(x < 0)),
    "silu": (L.silu, lambda x: x * sigma(x)),
    "softplus": (lambda x: L.softplus(x, 2.0), lambda x: -log_sigma(-2 * x) / 2 if 2 * x <= 20 else x),
    "softshrink": (L.softshrink, lambda x: math.copysign(max(abs(x) - 0.5, 0), x)),
    "softsign": (L.softsign, lambda x: x / (1 + abs(x))),
    "step": (L.step, lambda x: float(x >= 0)),
    "swish": (lambda x: L.swish(x, -0.7), lambda x: x * sigma(-0.7 * x)),
    "tanh": (L.tanh, math.tanh),
    "tanhshrink": (L.tanhshrink, lambda x: x - math.tanh(x)),
    "threshold": (lambda x: L.threshold(x, 0.25, -2.0), lambda x: x if x > 0.25 else -2.0),
}
definitions = pytest.mark.parametrize("name", DEFINITIONS)


@definitions
def test_values_are_those_of_the_definition(name: str) -> None:
    function, definition = DEFINITIONS[name]
    x = np.concatenate([np.linspace(-12, 12, 2401), [-300.0, -90.0, -40.0, 40.0, 90.0, 300.0]])
    for dtype, bound in [(np.float64, 2e-15), (np.float32, 4e-7)]:
        here = x.astype(dtype)
        found = function(lamella.Tensor(here)).data
        assert found.dtype == dtype
        expected = np.array([definition(float(value)) for value in here])
        assert (np.abs(found - expected) <= bound * np.maximum(1, np.abs(here))).all()


@definitions
def test_slopes_are_central_differences_in_float64(name: str) -> None:
    function, definition = DEFINITIONS[name]
    x = np.linspace(-7.9, 8.1, 321) + 0.0123  # no kink within 1e-6
    _, slope = value_and_gradient(function, x)
    expected = np.array([(definition(v + 1e-6) - definition(v - 1e-6)) / 2e-6 for v in x])
    assert (np.abs(slope - expected) <= 1e-8).all()
    _, single = value_and_gradient(function, x.astype(np.float32))
    assert (np.abs(single - slope) <= 2e-6).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@definitions
def test_sixteen_bits_are_computed_in_float32_and_rounded_once(name: str, dtype: str) -> None:
    function, _ = DEFINITIONS[name]
    x = np.linspace(-9, 9, 181).astype(STORED[dtype])
    y, dx = value_and_gradient(function, x)
    wide_y, wide_dx = value_and_gradient(function, x.astype(np.float32))
    assert y.dtype == dx.dtype == STORED[dtype]
    np.testing.assert_array_equal(y, wide_y.astype(STORED[dtype]))
    np.testing.assert_allclose(dx.astype(np.float64), wide_dx, rtol=0.01, atol=0.01 if dtype == "bfloat16" else 1e-3)


def test_small_values_of_the_sigmoids_keep_their_digits() -> None:
    x = np.linspace(-80, 0, 161).astype(np.float32)
    for function, definition in [
        (L.sigmoid, sigma),
        (L.silu, lambda v: v * sigma(v)),
        (L.mish, lambda v: v * math.tanh(-log_sigma(-v))),
        (L.softplus, lambda v: -log_sigma(-v)),
    ]:
        expected = np.array([definition(float(v)) for v in x])
        np.testing.assert_allclose(function(lamella.Tensor(x)).data, expected, rtol=1e-6)


def test_gelu_in_float32_is_exact_to_its_bound() -> None:
    x = np.linspace(-15, 15, 60001).astype(np.float32)
    expected = np.array([float(v) * phi(float(v)) for v in x])
    y, slope = value_and_gradient(L.gelu, x)
    assert (np.abs(y - expected) <= 4e-7 * np.maximum(1, np.abs(x))).all()
    density = np.exp(-0.5 * x.astype(np.float64) ** 2) / math.sqrt(2 * math.pi)
    assert (np.abs(slope - (np.array([phi(float(v)) for v in x]) + x * density)) <= 5e-7).all()


@pytest.mark.parametrize(("form", "bound"), [("tanh", 4.8e-4), ("sigmoid", 2.1e-2)])
def test_the_other_forms_of_gelu_are_as_far_away_as_stated(form: str, bound: float) -> None:
    x = np.linspace(-10, 10, 4001)
    distance = np.abs(L.gelu(lamella.Tensor(x), form).data - L.gelu(lamella.Tensor(x)).data).max()
    assert 0.9 * bound < distance <= bound


def test_erfc_agrees_with_the_c_library_to_a_few_units_in_the_last_place(device: Device) -> None:
    x = np.concatenate([np.linspace(-7, 26, 33001), [0.46875, -0.46875, 4.0, -4.0, 0.0, 1e-300]])
    expected = np.array([math.erfc(v) for v in x])
    found = backend_for(device).to_numpy(erfc(on(device, x)))
    assert (np.abs(found - expected) <= 1e-15 * expected).all()
    ends = erfc(np.array([-math.inf, 28.0, math.inf, math.nan]))
    np.testing.assert_array_equal(ends, [2.0, 0.0, 0.0, math.nan])


# -- extremes and kinks ----------------------------------------------------------------------------------------------
INF, NAN = math.inf, math.nan
# at -inf, -1e4, 1e4, inf: values, slopes
LIMITS = {
    "celu": ([-0.8, -0.8, 1e4, INF], [0, 0, 1, 1]),
    "elu": ([-0.8, -0.8, 1e4, INF], [0, 0, 1, 1]),
    "gelu": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "gelu tanh": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "gelu sigmoid": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "hardshrink": ([-INF, -1e4, 1e4, INF], [1, 1, 1, 1]),
    "hardsigmoid": ([0, 0, 1, 1], [0, 0, 0, 0]),
    "hardswish": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "hardtanh": ([-1, -1, 1, 1], [0, 0, 0, 0]),
    "leaky_relu": ([-INF, -100, 1e4, INF], [0.01, 0.01, 1, 1]),
    "leaky_relu 1/alpha": ([-INF, -1e4 / 5.5, 1e4, INF], [1 / 5.5, 1 / 5.5, 1, 1]),
    "logsigmoid": ([-INF, -1e4, 0, 0], [1, 1, 0, 0]),
    "mish": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "relu": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "relu6": ([0, 0, 6, 6], [0, 0, 0, 0]),
    "selu": ([-1.7580993408473766, -1.7580993408473766, 10507.009873554805, INF], [0, 0, 1.05070098735, 1.05070098735]),
    "sigmoid": ([0, 0, 1, 1], [0, 0, 0, 0]),
    "sign": ([-1, -1, 1, 1], [0, 0, 0, 0]),
    "silu": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "softplus": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "softshrink": ([-INF, -9999.5, 9999.5, INF], [1, 1, 1, 1]),
    "softsign": ([-1, -1e4 / 10001, 1e4 / 10001, 1], [0, 1 / 10001**2, 1 / 10001**2, 0]),
    "step": ([0, 0, 1, 1], [0, 0, 0, 0]),
    "swish": ([-INF, -1e4, 0, 0], [1, 1, 0, 0]),
    "tanh": ([-1, -1, 1, 1], [0, 0, 0, 0]),
    "tanhshrink": ([-INF, -9999, 9999, INF], [1, 1, 1, 1]),
    "threshold": ([-2, -2, 1e4, INF], [0, 0, 1, 1]),
}


def test_the_table_of_limits_is_complete() -> None:
    assert set(LIMITS) == set(DEFINITIONS)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@definitions
def test_far_out_it_is_the_limit_without_warning(name: str, dtype: str, device: Device) -> None:
    function, _ = DEFINITIONS[name]
    x = np.array([-INF, -1e4, 1e4, INF]).astype(STORED[dtype])
    found = value_and_gradient(function, on(device, x), on(device, np.ones(4, x.dtype)))
    y, slope = (backend_for(device).to_numpy(array) for array in found)
    values, slopes = LIMITS[name]
    rtol = {"float64": 1e-12, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(y.astype(np.float64), values, rtol=rtol, atol=1e-30)
    np.testing.assert_allclose(slope.astype(np.float64), slopes, rtol=rtol, atol=1e-7)


@definitions
def test_nan_stays_nan_and_nothing_else_becomes_one(name: str, device: Device) -> None:
    function, _ = DEFINITIONS[name]
    x = np.array([1.5, NAN, -1.5, 0.2], np.float32)
    y = backend_for(device).to_numpy(function(lamella.Tensor(on(device, x))).data)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))


SLOPES_AT_KINKS = [
    ("relu", {}, 0.0, 0.0),
    ("relu6", {}, 0.0, 0.0),
    ("relu6", {}, 6.0, 0.0),
    ("leaky_relu", {}, 0.0, 0.01),
    ("leaky_relu", {"negative_slope": 2.0}, 0.0, 2.0),
    ("elu", {}, 0.0, 1.0),
    ("elu", {"alpha": 0.5}, 0.0, 0.5),
    ("celu", {"alpha": 0.5}, 0.0, 1.0),
    ("selu", {}, 0.0, 1.7580993408473766),
    ("hardtanh", {}, -1.0, 0.0),
    ("hardtanh", {}, 1.0, 0.0),
    ("hardsigmoid", {}, -3.0, 0.0),
    ("hardsigmoid", {}, 3.0, 0.0),
    ("hardswish", {}, -3.0, 0.0),
    ("hardswish", {}, 3.0, 1.0),
    ("softshrink", {}, 0.5, 0.0),
    ("hardshrink", {}, -0.5, 0.0),
    ("threshold", {"threshold": 0.5, "value": 0.0}, 0.5, 0.0),
    ("step", {}, 0.0, 0.0),
    ("sign", {}, 0.0, 0.0),
]


@pytest.mark.parametrize(("name", "options", "x", "slope"), SLOPES_AT_KINKS)
@pytest.mark.parametrize("count", [1, CHUNK + 1])
def test_the_slope_at_a_kink(name: str, options: dict[str, Any], x: float, slope: float, count: int) -> None:
    for zero in [x, -x] if x == 0 else [x]:
        _, dx = value_and_gradient(lambda t: call(name, t, options), np.full(count, zero, np.float32))
        np.testing.assert_array_equal(dx, np.float32(slope))


def test_step_and_sign_at_0() -> None:
    x = lamella.Tensor(np.array([-2.0, -0.0, 0.0, 3.0], np.float32))
    np.testing.assert_array_equal(L.step(x).data, [0, 1, 1, 1])
    np.testing.assert_array_equal(L.sign(x).data, [-1, 0, 0, 1])


@pytest.mark.parametrize("count", [1, 37, CHUNK + 5])
@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "tanh", "softsign"]
)
def test_minus_zero_stays_minus_zero(name: str, count: int) -> None:
    y = getattr(L, name)(lamella.Tensor(np.full(count, -0.0, np.float32))).data
    assert (y == 0).all()
    if name != "relu" or count > CHUNK:
        assert np.signbit(y).all()


# -- large arrays: chunks, threads, memory layouts -------------------------------------------------------------------
LARGE = 2 * CHUNK + 77


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = get_num_threads()
    lamella.set_num_threads(request.param)
    yield
    lamella.set_num_threads(before)


@pytest.mark.usefixtures("_threads")
@definitions
def test_a_large_array_gives_what_its_pieces_give(name: str) -> None:
    function, _ = DEFINITIONS[name]
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(LARGE) * 4).astype(np.float32)
    x[[0, 5, CHUNK - 1, CHUNK, LARGE - 1]] = [NAN, INF, -INF, 0.0, 1e4]
    dy = rng.standard_normal(LARGE).astype(np.float32)
    with np.errstate(invalid="ignore"):
        y, dx = value_and_gradient(function, x, dy)
        for start in range(0, LARGE, CHUNK // 2):
            piece = slice(start, start + CHUNK // 2)
            small_y, small_dx = value_and_gradient(function, x[piece], dy[piece])
            np.testing.assert_allclose(y[piece], small_y, rtol=3e-7, atol=1e-9)
            np.testing.assert_allclose(dx[piece], small_dx, rtol=1e-6, atol=1e-7)
    with lamella.no_grad():
        np.testing.assert_array_equal(function(lamella.Tensor(x)).data, y)


@pytest.mark.parametrize("layout", ["transposed", "channels last", "every second", "backwards", "broadcast"])
def test_every_memory_layout_gives_the_same_numbers(layout: str) -> None:
    base = np.random.default_rng(5).standard_normal((2, 8, 96, 160)).astype(np.float32)
    x = {
        "transposed": base.T,
        "channels last": np.moveaxis(base, -1, 1),
        "every second": base.repeat(2, -1)[..., ::2],
        "backwards": base[:, ::-1],
        "broadcast": np.broadcast_to(base[:, :1], base.shape),
    }[layout]
    dy = np.random.default_rng(6).standard_normal(x.shape).astype(np.float32)
    for function in (L.gelu, L.relu, L.sigmoid):
        y, dx = value_and_gradient(function, x, dy)
        expected_y, expected_dx = value_and_gradient(function, np.ascontiguousarray(x), dy)
        np.testing.assert_array_equal(y, expected_y)
        np.testing.assert_array_equal(dx, expected_dx)
        if layout in ("transposed", "channels last"):
            assert y.strides == x.strides


@pytest.mark.parametrize(
    ("name", "shape"), [("glu", (700, 400)), ("log_softmax", (700, 400)), ("prelu", (64, 3, 2000))]
)
def test_rows_in_large_arrays_give_what_rows_alone_give(name: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal(shape).astype(np.float32)
    more = (lamella.Tensor(np.array([0.1, -0.2, 0.3], np.float32)),) if name == "prelu" else ()
    dy = rng.standard_normal(call(name, x[:1], {}, *more).shape[1:]).astype(np.float32)
    y, dx = value_and_gradient(lambda t: call(name, t, {}, *more), x, np.broadcast_to(dy, (shape[0], *dy.shape)).copy())
    for i in (0, 1, shape[0] // 2, shape[0] - 1):
        row_y, row_dx = value_and_gradient(lambda t: call(name, t, {}, *more), x[i : i + 1], dy[None])
        np.testing.assert_allclose(y[i : i + 1], row_y, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(dx[i : i + 1], row_dx, rtol=1e-6, atol=1e-6)


def test_large_results_do_not_share_memory() -> None:
    x = np.ones(LARGE, np.float32)
    first = L.gelu(lamella.Tensor(x)).data
    before = first.copy()
    second = L.gelu(lamella.Tensor(-x)).data
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(first, before)


def test_the_graph_can_be_walked_twice() -> None:
    x = lamella.Tensor(np.linspace(-2, 2, LARGE, dtype=np.float32), requires_grad=True)
    y = L.gelu(x).sum()
    y.backward(retain_graph=True)
    once = np.array(x.grad)
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * once)


# -- those with more to them -----------------------------------------------------------------------------------------
def test_log_softmax_is_the_logarithm_of_softmax(device: Device) -> None:
    x = np.array([[1e4, 0.0, -1e4], [-INF, 2.0, 1.0], [-INF, -INF, -INF]], np.float32)
    found = backend_for(device).to_numpy(L.log_softmax(lamella.Tensor(on(device, x))).data)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            found,
            [[0, -1e4, -2e4], [-INF, -math.log1p(math.exp(-1)), -1 - math.log1p(math.exp(-1))], [-INF] * 3],
            rtol=1e-6,
        )


def test_swish_learns_its_beta() -> None:
    module = L.Swish(0.7)
    x = np.linspace(-3, 3, 25).astype(np.float32)
    module(x).sum().backward()
    step = 1e-6
    definition = [sum(float(v) * sigma((0.7 + side) * float(v)) for v in x) for side in (step, -step)]
    assert abs(float(module.beta.grad) - (definition[0] - definition[1]) / (2 * step)) <= 1e-5
    assert dict(module.named_parameters()).keys() == {"beta"}


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_the_slope_of_prelu_at_0_is_its_weight(zero: float) -> None:
    weight = lamella.Tensor(np.array([0.25, -3.0], np.float32))
    _, dx = value_and_gradient(lambda t: L.prelu(t, weight), np.full((3, 2), zero, np.float32))
    np.testing.assert_array_equal(dx, [[0.25, -3.0]] * 3)


def test_prelu_far_out_is_its_limit() -> None:
    weight = lamella.Tensor(np.array([0.25], np.float32))
    y, dx = value_and_gradient(lambda t: L.prelu(t, weight), np.array([-INF, -1e4, 1e4, INF], np.float32))
    np.testing.assert_array_equal(y, [-INF, -2500.0, 1e4, INF])
    np.testing.assert_array_equal(dx, [0.25, 0.25, 1.0, 1.0])


def test_prelu_counts_its_slopes() -> None:
    module = L.PReLU(3)
    assert module.num_parameters() == 3
    assert repr(module) == "PReLU(num_parameters=3)"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_swish_and_prelu_learn_in_every_dtype(dtype: str, device: Device) -> None:
    x = np.linspace(-3, 3, 24).reshape(4, 6).astype(STORED[dtype])
    for module in (L.Swish(0.7), L.PReLU(6, 0.1)):
        exact = module.to(dtype="float64")
        exact(x.astype(np.float64)).sum().backward()
        (expected,) = [parameter.grad for parameter in exact.parameters()]
        module.to(device, dtype=STORED[dtype]).zero_grad()
        y = module(on(device, x))
        y.sum().backward()
        (found,) = [backend_for(device).to_numpy(parameter.grad) for parameter in module.parameters()]
        assert y.dtype == found.dtype == STORED[dtype]
        np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0.02 if dtype == "bfloat16" else 2e-3)


def test_modules_hand_their_options_on() -> None:
    x = np.linspace(-7, 7, 29).astype(np.float32)
    for module, function in [
        (L.GELU("tanh"), lambda t: L.gelu(t, "tanh")),
        (L.GLU(0), lambda t: L.glu(t, -1)),
        (L.GLU(-1), lambda t: L.glu(t, 0)),
        (L.Hardtanh(-2, 3), lambda t: L.hardtanh(t, -2, 3)),
        (L.LeakyReLU(0.3), lambda t: L.leaky_relu(t, 0.3)),
        (L.LogSoftmax(0), lambda t: L.log_softmax(t, 0)),
        (L.Softplus(3.0, 2.0), lambda t: L.softplus(t, 3.0, 2.0)),
        (L.Softshrink(0.2), lambda t: L.softshrink(t, 0.2)),
        (L.Hardshrink(0.2), lambda t: L.hardshrink(t, 0.2)),
        (L.PReLU(1, 0.1), lambda t: L.leaky_relu(t, 0.1)),
    ]:
        given = x[:28]
        np.testing.assert_allclose(module(given).data, function(lamella.Tensor(given)).data, rtol=1e-6)


WRONG = [
    (lambda x: L.gelu(x, "erf"), ValueError, 'gelu: approximate must be "none", "tanh" or "sigmoid", got \'erf\''),
    (lambda x: L.GELU(True), ValueError, "GELU: approximate must be"),
    (lambda x: L.glu(x), ValueError, "glu: x must have an even number of elements along axis 1, got shape (2, 3)"),
    (lambda x: L.glu(x, 2), ValueError, "glu: axis must be one of the 2 axes of x, got axis=2"),
    (lambda x: L.log_softmax(x, -3), ValueError, "log_softmax: axis must be in -2 … 1 for shape (2, 3), got axis=-3"),
    (lambda x: L.hardtanh(x, 1, -1), ValueError, "hardtanh: min_val must be less than max_val, got min_val=1"),
    (lambda x: L.Hardtanh(2, 2), ValueError, "Hardtanh: min_val must be less than max_val, got min_val=2"),
    (lambda x: L.celu(x, 0.0), ValueError, "celu: alpha must be greater than 0, got 0.0"),
    (lambda x: L.softplus(x, 0), ValueError, "softplus: beta must not be 0"),
    (lambda x: L.softshrink(x, -1), ValueError, "softshrink: lambd must not be negative, got -1"),
    (lambda x: L.prelu(x, np.zeros(2, np.float32)), ValueError, "prelu: weight must have shape (1,) or (3,)"),
    (lambda x: L.prelu(x, np.zeros(3)), TypeError, "prelu: x and weight must have one dtype, got float32 and float64"),
    (lambda x: L.PReLU(0), ValueError, "PReLU: num_parameters must be at least 1, got 0"),
    (lambda x: L.PReLU(1.0), TypeError, "PReLU: num_parameters must be an int, got 1.0"),
    (lambda x: L.swish(x, np.zeros(3)), ValueError, "swish: beta must be a number or of shape (), got shape (3,)"),
    (lambda x: L.gelu(np.arange(3)), TypeError, "gelu: x must be floating point, got int64"),
    (lambda x: L.sigmoid(np.arange(3)), TypeError, "sigmoid: x must be floating point, got int64"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_a_wrong_call_says_what_is_wrong(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        call(np.zeros((2, 3), np.float32))
    assert message in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("approximate", ["none", "tanh", "sigmoid"])
def test_gelu_of_one_number(dtype: str, approximate: str, device: Device) -> None:
    x = lamella.tensor(1.0, dtype=dtype, device=device, requires_grad=True)
    y = L.gelu(x, approximate)
    y.backward()
    assert y.shape == ()
    assert abs(float(y.astype("float32")) - 0.8413) <= 0.007  # the sigmoid form is 0.0045 away, bfloat16 has 8 bits
    assert x.grad.shape == ()


def test_step_of_integers_is_refused() -> None:
    with pytest.raises(TypeError, match="step: x must be floating"):
        L.step(lamella.tensor([1, 2]))
