"""Reductions on plain arrays: one body for every device, judged by exact sums in float64."""

from __future__ import annotations

import importlib
import math

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import backend_for

from .kernel_heads import KERNELS, variants
from .test_softmax import DTYPES, put, take, unit

module = importlib.import_module("lamella.kernels.reduce")

OPERATIONS = ["sum", "mean", "max", "min", "argmax", "argmin", "logsumexp"]


def reference64(operation, x, axis):
    """The definition of one slice after another, with exact sums."""
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = tuple(a % x.ndim for a in axes)
    kept = [a for a in range(x.ndim) if a not in axes]
    lines = x.astype(np.float64).transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    result = np.zeros(lines.shape[:-1])
    for index in np.ndindex(result.shape):
        line = lines[index]
        if operation in ("sum", "mean"):
            with np.errstate(invalid="ignore"):
                total = line.sum() if not np.isfinite(line).all() else math.fsum(line)
            result[index] = total / (1 if operation == "sum" else len(line))
        elif operation == "logsumexp":
            top = line.max()
            result[index] = top if np.isinf(top) or np.isnan(top) else top + math.log(math.fsum(np.exp(line - top)))
        else:
            result[index] = getattr(np, operation)(line)
    return result


def check(operation, x, axis, device, keepdims=False):
    y = take(kernels.reduce(operation, put(x, device), axis, keepdims), device)
    axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
    expected = reference64(operation, x, axis)
    assert y.shape == tuple(
        1 if i in {a % x.ndim for a in axes} else n
        for i, n in enumerate(x.shape)
        if keepdims or i not in {a % x.ndim for a in axes}
    )
    y = y.reshape(expected.shape)
    if operation in ("argmax", "argmin"):
        assert y.dtype == np.int64
        np.testing.assert_array_equal(y, expected)
        return
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    infinite = np.isinf(expected)
    np.testing.assert_array_equal(y[infinite], expected[infinite])
    axes = tuple(sorted(a % x.ndim for a in axes))
    plain = kernels.reduce_definition(operation, x, axes).astype(np.float64).reshape(expected.shape)
    y, plain, expected = (a[np.isfinite(expected)].astype(np.float64) for a in (y, plain, expected))
    floor = 2 * unit(x.dtype) * abs(expected).max(initial=0)
    assert abs(y - expected).max(initial=0) <= 2 * abs(plain - expected).max(initial=0) + floor


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 33), 1), ((2, 1025), -1), ((37, 5), 0), ((2, 9, 3), 1), ((2, 3, 4), (0, 1)), ((4, 5), None)],
)
def test_axes_of_every_kind(shape, axis, operation, dtype, device):
    if isinstance(axis, tuple) and operation.startswith("arg"):
        pytest.skip("a place needs one axis")
    x = (np.random.default_rng(math.prod(shape)).standard_normal(shape) * 3).astype(dtype)
    check(operation, x, axis, device, keepdims=len(shape) == 3)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("operation", ["sum", "min", "argmax", "logsumexp"])
@pytest.mark.parametrize("cols", [1, 31, 32, 1023, 1024, 4097, 50257])
def test_rows_and_columns_of_every_length(cols, operation, dtype, device):
    x = (np.random.default_rng(cols).standard_normal((2, cols)) * 3 + 1).astype(dtype)
    check(operation, x, 1, device)
    check(operation, x.T.copy(), 0, device)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("shape", "axis"), [((40000,), 0), ((3000, 3), 0), ((2, 1100, 2), 1)])
def test_long_axes_are_cut_into_parts(shape, axis, operation, device):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    if device.kind == "simulator":
        backend_for(device).reset()
    check(operation, x, axis, device)
    if device.kind == "simulator":
        assert sum(backend_for(device).launches.values()) == 2
        assert "cut into" in kernels.explain("reduce", operation, put(x, device), axis=axis)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (40, 33), (2000, 5), (0, 3), (3, 0)])
def test_rows_are_added_up(shape, dtype, device):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    if device.kind == "simulator":
        backend_for(device).reset()
    a, out = put(x, device), put(np.full(shape[1], 7).astype(dtype), device)
    y = take(kernels.sum_rows(a), device)
    assert y.dtype == dtype
    assert y.shape == shape[1:]
    exact = np.array([math.fsum(column) for column in x.T.astype(np.float64)])
    bound = 2 * unit(dtype) * abs(exact).max(initial=0) + 4e-7 * abs(x.astype(np.float64)).sum(axis=0)
    assert (abs(y - exact) <= bound).all()
    if device.kind == "simulator" and x.size and dtype != np.float64:
        name = "reduce_sum_rows" if shape[1] == 1 else "reduce_sum_columns"
        assert backend_for(device).launches == {name: 2 if shape[0] == 2000 else 1}
        assert ("cut into" in kernels.explain("sum_rows", a)) == (shape[0] == 2000)
        assert not {"sum", "add.reduce"} & set(backend_for(device).operations)
    assert kernels.sum_rows(a, out) is out
    np.testing.assert_array_equal(take(out, device), y)
    wide = put(np.random.default_rng(0).standard_normal((shape[0], 2 * shape[1])).astype(dtype), device)
    every_other = take(kernels.sum_rows(wide[:, ::2]), device)
    lamella.testing.assert_close(
        every_other, take(kernels.sum_rows(wide[:, ::2].copy()), device), rtol=unit(dtype), atol=1e-6
    )


def test_the_gradient_of_a_bias_is_one_launch_and_repeats():
    with lamella.testing.simulator() as sim:
        rng = np.random.default_rng(0)
        x = lamella.tensor(rng.standard_normal((700, 3)).astype(np.float32), device="simulator")
        layer = lamella.layers.Linear(3, 40, rng=lamella.Generator(0)).to("simulator")
        found = []
        for _ in range(2):
            layer.bias.grad = None
            y = (layer(x) * 1.3).sum()
            sim.reset()
            y.backward()
            assert sim.launches["reduce_sum_columns"] == 2  # 700 rows: parts, and their sum
            found.append(layer.bias.grad.get())
        np.testing.assert_array_equal(*found)
        np.testing.assert_allclose(found[0], np.full(40, 700 * 1.3), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_long_sums_keep_their_digits(axis, device):
    shape = (100_003, 3) if axis == 0 else (3, 100_003)
    x = np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)
    y = take(kernels.reduce("sum", put(x, device), axis), device)
    np.testing.assert_allclose(y, reference64("sum", x, axis), rtol=4e-7)
    y = lamella.tensor(x, device=device).sum(axis=axis).to_numpy()
    np.testing.assert_allclose(y, reference64("sum", x, axis), rtol=4e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("axis", [0, 1])
def test_infinities_and_nan(axis, operation, dtype, device):
    x = np.random.default_rng(0).standard_normal((7, 40)).astype(dtype)
    x[0] = -np.inf
    x[1, 3] = np.inf
    x[2, 5], x[2, 9] = np.nan, np.nan
    x[3, 0], x[3, 7] = np.nan, np.inf
    x[4, 4] = -np.inf
    x[5] = 2
    x[6, 39] = np.nan
    check(operation, x if axis == 1 else x.T.copy(), axis, device)


@pytest.mark.parametrize("operation", ["sum", "mean", "logsumexp"])
def test_large_numbers(operation, device):
    x = np.full((2, 5000), 1e4, np.float16)
    if operation == "sum":
        assert np.isinf(take(kernels.reduce(operation, put(x, device), 1), device)).all()
    else:
        check(operation, x, 1, device)
    check(operation, np.float32([[1e30, -1e30, 1.0], [3e38, 3e38, 1.0]])[: 1 if operation == "sum" else 2], 1, device)


def test_views_and_arrays_off_a_boundary(device):
    host = np.random.default_rng(0).standard_normal((9, 60)).astype(np.float32)
    for view in (lambda a: a.T, lambda a: a[:, ::2], lambda a: a.reshape(-1)[1:].reshape(7, 77)):
        found = take(kernels.reduce("sum", view(put(host, device)), 1), device)
        np.testing.assert_allclose(found, reference64("sum", view(host), 1), rtol=1e-5)


def test_axes_apart_and_empty_arrays(device):
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    check("sum", x, (0, 2), device)
    check("max", x, (2, 0), device)
    empty = put(np.zeros((0, 3), np.float32), device)
    np.testing.assert_array_equal(take(kernels.reduce("sum", empty, 0), device), [0, 0, 0])
    assert np.isnan(take(kernels.reduce("mean", empty, 0), device)).all()
    assert kernels.reduce("max", empty, 1).shape == (0,)
    with pytest.raises(ValueError, match=r"axis of length 0 has no max, got shape \(0, 3\), axis=0"):
        kernels.reduce("max", empty, 0)


def test_tensors_use_the_kernels_and_nothing_waits():
    with lamella.testing.simulator() as sim:
        x = lamella.tensor(np.arange(12, dtype=np.float32).reshape(3, 4), device="simulator", requires_grad=True)
        sim.reset()
        results = [x.sum(), x.mean(axis=0), x.max(axis=1), x.min(), lamella.autograd.logsumexp(x, axis=0)]
        places = x.argmax(axis=1)
        names = ["sum_rows", "sum_columns", "max_rows", "lse_columns", "argmax_rows"]
        assert sim.launches == {f"reduce_{name}": 2 if name == "max_rows" else 1 for name in names}
        for y in results:
            y.sum().backward()
        assert sim.synchronizations == 0
        assert places.to_numpy().tolist() == [3, 3, 3]
        np.testing.assert_allclose(
            results[4].to_numpy(), np.log(np.exp(np.arange(12.0).reshape(3, 4)).sum(axis=0)), rtol=1e-6
        )
        e = np.exp(np.arange(12.0).reshape(3, 4))
        expected = 1 + 1 / 3 + np.eye(4)[3] + np.eye(12)[0].reshape(3, 4) + e / e.sum(axis=0)
        np.testing.assert_allclose(x.grad.get(), expected, rtol=1e-5)


def test_errors_name_argument_rule_and_value(device):
    x = put(np.zeros((2, 3), np.float32), device)
    for wrong, kind, message in (
        (lambda: kernels.reduce("median", x), ValueError, "operation must be one of 'sum', .*got 'median'"),
        (lambda: kernels.reduce("sum", x, 2), ValueError, r"axis must be in -2 … 1 for shape \(2, 3\), got axis=2"),
        (lambda: kernels.reduce("sum", x, (0, -2)), ValueError, r"may be named once, got axis=\(0, -2\)"),
        (lambda: kernels.reduce("argmax", x, (0, 1)), TypeError, r"argmax takes one axis or None, got axis=\(0, 1\)"),
        (lambda: kernels.reduce("sum", x.astype("int32")), TypeError, "x must be float16.* got int32"),
        (lambda: kernels.sum_rows(x[0]), ValueError, r"sum_rows: a must have shape \(N, D\), got \(3,\)"),
        (lambda: kernels.sum_rows(x, x[:, :2]), ValueError, r"out must be C-contiguous float32 of shape \(3,\), got"),
        (lambda: kernels.sum_rows(x, x.reshape(-1)[::2]), ValueError, r"got float32 of \(3,\) with strides \(8,\)"),
    ):
        with pytest.raises(kind, match=message):
            wrong()


def test_explain_says_what_runs(device):
    x = put(np.zeros((4, 100, 6), np.float32), device)
    said = kernels.explain("reduce", "mean", x, axis=1)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert said.startswith("reduce_sum_columns [COLUMNS DTYPE=float VECTOR=1 WIDTH=32 DEPTH=8], 1 blocks of 256")
    assert "do not lie beside each other" in kernels.explain("reduce", "sum", x, axis=(0, 2))
    assert "copied first" in kernels.explain("reduce", "sum", x[:, ::2], axis=-1)
    assert "no kernel for float64" in kernels.explain("reduce", "sum", x.astype("float64"))


def test_every_variant_that_can_be_chosen_is_compiled_and_every_compiled_one_chosen():
    chosen = set()
    for dtype in map(np.dtype, (np.float32, np.float16, ml_dtypes.bfloat16)):
        for layout in ((5, 20, 1), (5, 100, 1), (5, 2000, 1), (5, 100, 7)):
            for is_aligned in (True, False):
                chosen.add(module._select("sum", dtype, layout, is_aligned).defines)
    assert chosen == {variant.defines for variant in variants(KERNELS / "reduce.cu")}


@pytest.mark.parametrize("cols", [1, 513, 16385, 100_000, 2**30])
@pytest.mark.parametrize("others", [1, 7, 1000])
def test_parts_cover_an_axis(cols, others):
    for part in (module._ROW_PART, module._COLUMN_PART):
        parts, chunk = module._parts(cols, others, part)
        assert (parts - 1) * chunk < cols <= parts * chunk
        assert parts == 1 or others * parts <= 2 * module._FEW_BLOCKS
