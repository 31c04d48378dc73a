"""Softmax and its derivative: one body for every device, judged by float64."""

from __future__ import annotations

import importlib
import math

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.backend import backend_for
from lamella.kernels._launch import DeviceSize
from lamella.kernels._split_rows import parts_of_row

from .kernel_heads import KERNELS, variants

module = importlib.import_module("lamella.kernels.softmax")  # the package's attribute of that name is the function

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]
SIZES = [1, 2, 3, 10, 31, 32, 33, 127, 260, 520, 1023, 1024, 1025, 1040, 4097, 8200, 16401]


def put(array, device):
    return backend_for(device).from_numpy(np.asarray(array), device)


def take(array, device):
    return np.array(backend_for(device).to_numpy(array))


def softmax64(x, axis=-1):
    """The definition, slice by slice in float64."""
    y = np.zeros(x.shape)
    for logits, out in zip(_slices(x, axis), _slices(y, axis, write=True), strict=True):
        top = max(logits, default=0.0)
        if top != -math.inf:
            with np.errstate(invalid="ignore"):  # +inf - inf
                e = np.exp(logits - top)
            out[...] = e / math.fsum(e)
    return y


def backward64(dy, y, axis=-1):
    """``dx_k = sum_j dy_j (y_j [j = k] - y_j y_k)``, and the size of the terms that cancel in it."""
    dx, size = np.zeros(y.shape), 0.0
    for g, p, out in zip(_slices(dy, axis), _slices(y, axis), _slices(dx, axis, write=True), strict=True):
        dot = math.fsum(p * g)
        out[...] = p * (g - dot)
        size = max(size, float(np.max(p * (abs(g) + math.fsum(abs(p * g))), initial=0.0)))
    return dx, size


def log_softmax64(x, axis=-1):
    """The logarithm of the definition, in float64, and the largest finite value in it."""
    y, size = np.zeros(x.shape), 1.0
    for logits, out in zip(_slices(x, axis), _slices(y, axis, write=True), strict=True):
        top = max(logits, default=0.0)
        with np.errstate(invalid="ignore"):
            shifted = logits - (0.0 if top == -math.inf else top)
            out[...] = shifted - (0.0 if top == -math.inf else math.log(math.fsum(np.exp(shifted))))
        size = max(size, float(np.max(abs(out[np.isfinite(out)]), initial=0.0)))
    return y, size


def log_backward64(dy, y, axis=-1):
    """``dx_k = sum_j dy_j ([j = k] - exp(y_k))``, and the size of the terms that cancel in it."""
    dx, size = np.zeros(y.shape), 0.0
    for g, p, out in zip(_slices(dy, axis), _slices(y, axis), _slices(dx, axis, write=True), strict=True):
        out[...] = g - np.exp(p) * math.fsum(g)
        size = max(size, float(np.max(abs(g) + np.exp(p) * math.fsum(abs(g)), initial=0.0)))
    return dx, size


def _slices(array, axis, write=False):
    moved = np.moveaxis(array if write else array.astype(np.float64), axis, -1)
    return (moved[index] for index in np.ndindex(moved.shape[:-1]))


def unit(dtype):
    """One unit in the last place of 1; for float64 some more, since the definition is rounded like what it judges."""
    return float(ml_dtypes.finfo(dtype).eps) * (4 if dtype == np.float64 else 1)


def check_forward(x, axis, device):
    """The device's error against float64 is at most twice the plain definition's, or one unit in the last place."""
    y = take(kernels.softmax(put(x, device), axis), device)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    expected = softmax64(x, axis)
    plain = kernels.softmax_definition(x, axis).astype(np.float64)
    # Sums by BLAS, which the CPU path takes for their speed, are less exact than pairwise ones.
    units = 8 if device.kind == "cpu" and x.dtype == np.float32 else 1
    bound = 2 * abs(plain - expected).max() + units * unit(x.dtype) * expected.max()
    assert abs(y.astype(np.float64) - expected).max() <= bound


def check_backward(dy, y, axis, device):
    dx = take(kernels.softmax_backward(put(dy, device), put(y, device), axis), device)
    assert (dx.dtype, dx.shape) == (y.dtype, y.shape)
    expected, size = backward64(dy, y, axis)
    plain = kernels.softmax_backward_definition(dy, y, axis).astype(np.float64)
    bound = 2 * abs(plain - expected).max() + unit(y.dtype) * size
    assert abs(dx.astype(np.float64) - expected).max() <= bound


def check_log(shape, axis, dtype, device, scale=3.0, shift=0.0):
    """The same of log-softmax and its derivative."""
    rng = np.random.default_rng(math.prod(shape))
    x = (rng.standard_normal(shape) * scale + shift).astype(dtype)
    y = take(kernels.log_softmax(put(x, device), axis), device)
    assert (y.dtype, y.shape) == (x.dtype, x.shape)
    expected, size = log_softmax64(x, axis)
    plain = kernels.log_softmax_definition(x, axis).astype(np.float64)
    assert abs(y - expected).max() <= 2 * abs(plain - expected).max() + unit(dtype) * size
    dy, y = rng.standard_normal(shape).astype(dtype), expected.astype(dtype)
    dx = take(kernels.log_softmax_backward(put(dy, device), put(y, device), axis), device)
    assert (dx.dtype, dx.shape) == (y.dtype, y.shape)
    expected, size = log_backward64(dy, y, axis)
    plain = kernels.log_softmax_backward_definition(dy, y, axis).astype(np.float64)
    assert abs(dx - expected).max() <= 2 * abs(plain - expected).max() + unit(dtype) * size


def check(shape, axis, dtype, device, scale=3.0):
    rng = np.random.default_rng(math.prod(shape))
    x = (rng.standard_normal(shape) * scale).astype(dtype)
    check_forward(x, axis, device)
    dy = rng.standard_normal(shape).astype(dtype)
    check_backward(dy, softmax64(x, axis).astype(dtype), axis, device)


# -- values --------------------------------------------------------------------------------------------------------


def test_hand_values(device):
    y = take(kernels.softmax(put(np.array([1, 2, 3, -1], np.float32), device)), device)
    np.testing.assert_allclose(y, [0.089, 0.242, 0.657, 0.012], atol=5e-4)


def test_backward_is_the_jacobian_of_the_notes(device):
    phi = np.array([0.1, 0.2, 0.7], np.float32)
    jacobian = np.diag(phi) - np.outer(phi, phi)
    dy, y = put(np.eye(3, dtype=np.float32), device), put(np.tile(phi, (3, 1)), device)
    np.testing.assert_allclose(take(kernels.softmax_backward(dy, y), device), jacobian, atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("cols", SIZES)
def test_rows_of_every_length(cols, dtype, device):
    check((3, cols), -1, dtype, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 1), 1), ((3, 33), 1), ((2, 1025), 1), ((1, 16401), 1), ((2, 37, 24), 1), ((5, 2), 0)]
)
def test_log_softmax_and_its_derivative(shape, axis, dtype, device):
    check_log(shape, axis, dtype, device)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("cols", SIZES)
def test_log_softmax_of_rows_of_every_length(cols, dtype, device):
    check_log((3, cols), -1, dtype, device)


@pytest.mark.parametrize("scale", [0.0, 3.0, 1e4, 1e30])
@pytest.mark.parametrize("shift", [0.0, 80.0, -1e4])
def test_log_softmax_of_large_logits(scale, shift, device):
    check_log((7, 100), -1, np.float32, device, scale, shift)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("cols", [300, pytest.param(50_257, marks=pytest.mark.slow)])
def test_log_softmax_keeps_infinities_and_nan_in_their_row(cols, axis, device):
    x = np.random.default_rng(0).standard_normal((5, cols)).astype(np.float32)
    x[1], x[2, 1:], x[3, 7] = -np.inf, -np.inf, np.nan
    given = put(x if axis == -1 else x.T.copy(), device)
    y = take(kernels.log_softmax(given, axis), device)
    y = y if axis == -1 else y.T
    assert (y[1] == -np.inf).all()
    assert y[2, 0] == 0
    assert (y[2, 1:] == -np.inf).all()
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x).any(axis=1, keepdims=True) * np.ones(cols, bool))
    dx = kernels.log_softmax_backward(put(np.ones_like(x) if axis == -1 else np.ones_like(x.T), device), given, axis)
    assert dx.shape == given.shape


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("hard", [False, True])
def test_threads_share_the_rows_and_agree(threads, hard):
    x = np.random.default_rng(0).standard_normal((1100, 700)).astype(np.float32)
    if hard:
        x[300] = 200.0  # the first chunk that needs its maximum, and a row of -inf after it
        x[900] = -np.inf
    dy, before = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32), lamella.backend.get_num_threads()
    lamella.set_num_threads(threads)
    try:
        y, log_y = kernels.softmax(x), kernels.log_softmax(x)
        dx, log_dx = kernels.softmax_backward(dy, y), kernels.log_softmax_backward(dy, log_y)
    finally:
        lamella.set_num_threads(before)
    np.testing.assert_allclose(y, kernels.softmax_definition(x), rtol=3e-6, atol=1e-30)
    np.testing.assert_allclose(log_y, kernels.log_softmax_definition(x), rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(dx, kernels.softmax_backward_definition(dy, y), rtol=1e-5, atol=3e-7)
    np.testing.assert_allclose(log_dx, kernels.log_softmax_backward_definition(dy, log_y), rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize(
    ("shape", "axis", "variant"), [((2, 50), 1, "registers"), ((1, 17000), 1, "streamed"), ((50, 2), 0, "strided")]
)
def test_the_cuda_branch_launches_its_kernels(shape, axis, variant, device):
    if device.kind != "simulator":
        pytest.skip("launches are counted in the simulator")
    launches = backend_for(device).launches
    x = put(np.zeros(shape, np.float32), device)
    y = kernels.softmax(x, axis)
    assert launches == {f"softmax_forward_{variant}": 1}
    kernels.softmax_backward(x, y, axis)
    kernels.log_softmax_backward(x, kernels.log_softmax(x, axis), axis)
    names = [f"{name}_{way}_{variant}" for name in ("softmax", "log_softmax") for way in ("forward", "backward")]
    assert launches == dict.fromkeys(names, 1)


@pytest.mark.parametrize(("shape", "axis"), [((2, 50), 1), ((1, 17000), 1), ((1, 40000), 1), ((50, 2), 0)])
def test_kernels_may_work_in_place(shape, axis, device):
    backend = backend_for(device)
    if not backend.runs_cuda:
        pytest.skip("the contract of the CUDA kernels")
    rng = np.random.default_rng(0)
    host, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
    x = put(host, device)
    expected = take(kernels.softmax(x, axis), device)
    module._launch(backend, module._select_forward("softmax", x, x, axis), (x,), x)
    np.testing.assert_array_equal(take(x, device), expected)
    expected = take(kernels.softmax_backward(put(dy, device), x, axis), device)
    for target in ("dy", "y"):
        arrays = {"dy": put(dy, device), "y": put(take(x, device), device)}
        arrays["dx"] = arrays[target]
        plans = module._select_backward("softmax", *arrays.values(), axis)
        module._launch(backend, plans, (arrays["dy"], arrays["y"]), arrays["dx"])
        np.testing.assert_array_equal(take(arrays["dx"], device), expected)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("cols", [50_257, 100_003, 1_000_000])
def test_very_long_rows(cols, dtype, device):
    check((2, cols), -1, dtype, device)
    check_log((2, cols), -1, dtype, device)


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=lambda dtype: np.dtype(dtype).name)
def test_few_long_rows_are_cut_into_parts(dtype, device):
    cols = 1 << 15
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((3, cols)) * 3).astype(dtype)
    x[1] = -np.inf
    x[2, 20_000] = np.nan
    y, log_y = (take(function(put(x, device)), device) for function in (kernels.softmax, kernels.log_softmax))
    lamella.testing.assert_close(y[0], softmax64(x[:1])[0], rtol=8 * unit(dtype), atol=1e-7)
    lamella.testing.assert_close(log_y[0], log_softmax64(x[:1])[0][0], rtol=8 * unit(dtype))
    assert not y[1].any()
    assert (log_y[1] == -np.inf).all()
    assert np.isnan(y[2]).all()
    assert np.isnan(log_y[2]).all()
    dy = rng.standard_normal(cols).astype(dtype)
    dx = take(kernels.softmax_backward(put(dy[None], device), put(y[:1], device)), device)
    lamella.testing.assert_close(dx, backward64(dy[None], y[:1])[0], rtol=8 * unit(dtype), atol=1e-6)
    dx = take(kernels.log_softmax_backward(put(dy[None], device), put(log_y[:1], device)), device)
    lamella.testing.assert_close(dx, log_backward64(dy[None], log_y[:1])[0], rtol=8 * unit(dtype), atol=1e-6)
    if device.kind == "simulator":
        names = [f"{name}_{way}" for name in ("softmax", "log_softmax") for way in ("forward", "backward")]
        expected = dict.fromkeys((f"{name}_split" for name in names), 1)
        expected |= {"softmax_forward_parts": 2, "softmax_backward_parts": 1, "log_softmax_backward_parts": 1}
        assert backend_for(device).launches == expected
        said = kernels.explain("softmax", put(x, device))
        assert "3 rows of 32768 do not fill the device, each is cut into 8 parts" in said
        assert "; then softmax_forward_split [SPLIT DTYPE" in said
        assert "_split" not in kernels.explain("softmax", put(np.zeros((3, 32767), dtype), device))


@pytest.mark.parametrize("multiprocessors", [1, 2, 68, 132])
@pytest.mark.parametrize("cols", [32767, 32768, 50257, 131072, 1_000_000, 2**30])
def test_parts_cover_a_row_and_fill_the_device(cols, multiprocessors):
    for rows in (1, 2, 3, 34, 66, 67):
        cut = parts_of_row(rows, cols, multiprocessors)
        assert (cut is None) == (cols < 32768 or 2 * rows > multiprocessors)
        if cut is not None:
            parts, chunk = cut
            assert (parts - 1) * chunk < cols <= parts * chunk
            assert 1 < parts <= 256
            assert chunk >= 4096
            assert chunk % 64 == 0, "parts begin on the boundaries that their row begins on"
            assert parts * rows >= min(1.5 * multiprocessors, 0.9 * rows * min(cols // 4096, 256))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 37, 24), (19, 2, 1)])
def test_any_axis(shape, axis, dtype, device):
    check(shape, axis, dtype, device)


@pytest.mark.slow
@pytest.mark.parametrize("cols", [5, 21])
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=lambda dtype: np.dtype(dtype).name)
def test_many_columns_beside_each_other(dtype, cols, device):
    check((2, cols, 1 << 16), 1, dtype, device)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("cols", [9, 100, 1500, 17000, pytest.param(50_257, marks=pytest.mark.slow)])
def test_large_logits_do_not_overflow(cols, axis, device):
    rng = np.random.default_rng(cols)
    for magnitude in (1e4, -1e4, 1e30, -1e30):
        x = (rng.standard_normal((3, cols)) + magnitude).astype(np.float32)
        x[:, cols // 2] = magnitude * (1 + 1e-6)
        x[1] = rng.standard_normal(cols) * abs(magnitude)
        check_forward(x if axis == -1 else x.T.copy(), axis, device)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("cols", [1, 9, 100, 1500, 17000])
def test_the_largest_logit_may_stand_anywhere(cols, axis, device):
    for position in {0, 3, cols // 2, cols - 2, cols - 1}:
        x = np.full((2, cols), -1e4, np.float32)
        x[:, position % cols] = 1e4
        y = take(kernels.softmax(put(x if axis == -1 else x.T.copy(), device), axis), device)
        np.testing.assert_array_equal(y if axis == -1 else y.T, (x > 0).astype(np.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("cols", [1, 7, 100, 1500, 17000, pytest.param(50_257, marks=pytest.mark.slow)])
def test_infinities_and_nan_stay_in_their_row(cols, axis, dtype, device):
    x = np.random.default_rng(0).standard_normal((6, cols)).astype(dtype)
    x[1] = -np.inf
    x[2, cols // 2] = np.nan
    x[3, cols - 1] = np.inf
    x[4, : cols - 1] = -np.inf
    y = take(kernels.softmax(put(x if axis == -1 else x.T.copy(), device), axis), device).astype(np.float64)
    y = y if axis == -1 else y.T
    assert not np.isnan(y[[0, 1, 4, 5]]).any()
    assert not y[1].any(), "a row of -inf gives 0"
    assert np.isnan(y[2]).all(), "NaN fills its row"
    assert np.isnan(y[3]).all(), "+inf - inf is NaN and fills its row"
    assert y[4, -1] == 1
    np.testing.assert_allclose(y[[0, 5]].sum(axis=1), 1, atol=4 * unit(dtype) * math.sqrt(cols))


@pytest.mark.parametrize("axis", [0, -1])
def test_a_row_that_was_masked_has_no_gradient(axis, device):
    y, dy = np.zeros((40, 40), np.float32), np.ones((40, 40), np.float32)
    assert not take(kernels.softmax_backward(put(dy, device), put(y, device), axis), device).any()


def test_results_repeat_bit_for_bit(device):
    x = put(np.random.default_rng(0).standard_normal((5, 3000)).astype(np.float32), device)
    assert np.array_equal(take(kernels.softmax(x), device), take(kernels.softmax(x), device))


# -- arrays as they come -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
def test_inputs_are_left_alone(axis, device):
    x = put(np.random.default_rng(0).standard_normal((40, 300)).astype(np.float32), device)
    before = take(x, device)
    y = kernels.softmax(x, axis)
    probabilities = take(y, device)
    kernels.softmax_backward(x, y, axis)
    np.testing.assert_array_equal(take(x, device), before)
    np.testing.assert_array_equal(take(y, device), probabilities)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5), (2, 0, 4)])
@pytest.mark.parametrize("axis", [0, -1])
def test_empty_arrays_give_empty_arrays(shape, axis, device):
    x = put(np.empty(shape, np.float32), device)
    assert kernels.softmax(x, axis).shape == shape
    assert kernels.softmax_backward(x, x, axis).shape == shape


@pytest.mark.parametrize("axis", [0, 1])
def test_views_with_gaps_and_transposed_arrays(axis, device):
    host = np.random.default_rng(0).standard_normal((20, 90)).astype(np.float32)
    for view in (lambda a: a.T, lambda a: a[:, ::2], lambda a: a[3:, 1:], lambda a: a[::-1]):
        x = put(host, device)
        y = kernels.softmax(view(x), axis)
        np.testing.assert_allclose(take(y, device), softmax64(view(host), axis), atol=2e-7)
        dx = take(kernels.softmax_backward(view(x), y, axis), device)
        np.testing.assert_allclose(dx, backward64(view(host), take(y, device), axis)[0], atol=2e-7)


@pytest.mark.parametrize("cols", [5, 50, 100, 300, 1500, 5000, 9001])
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda dtype: np.dtype(dtype).name)
def test_rows_that_start_off_a_16_byte_boundary(cols, dtype, device):
    host = np.random.default_rng(cols).standard_normal(3 * cols + 1).astype(dtype)
    x = put(host, device)[1:].reshape(3, cols)
    y = take(kernels.softmax(x), device)
    np.testing.assert_allclose(y.astype(np.float64), softmax64(host[1:].reshape(3, cols)), atol=unit(dtype))


# -- errors --------------------------------------------------------------------------------------------------------


def test_errors_name_argument_rule_and_value(device):
    x = put(np.zeros((2, 3), np.float32), device)
    with pytest.raises(TypeError, match=r"softmax: x must be floating point, one of float16, .*, got int64"):
        kernels.softmax(put(np.zeros(3, np.int64), device))
    with pytest.raises(ValueError, match=r"softmax: axis must be in -2 … 1 for shape \(2, 3\), got axis=2"):
        kernels.softmax(x, 2)
    with pytest.raises(TypeError, match=r"softmax: axis must be an integer, got 1\.0"):
        kernels.softmax(x, 1.0)
    with pytest.raises(ValueError, match=r"softmax: x must have at least one axis, got shape \(\)"):
        kernels.softmax(put(np.zeros((), np.float32), device))
    with pytest.raises(ValueError, match=r"dy and y must have one shape, got dy \(2, 3\) and y \(3,\)"):
        kernels.softmax_backward(x, put(np.zeros(3, np.float32), device))
    with pytest.raises(TypeError, match=r"dy and y must have one dtype, got dy float32 and y float64"):
        kernels.softmax_backward(x, put(np.zeros((2, 3)), device))
    with pytest.raises(ValueError, match=r"softmax_backward: axis must be in -2 … 1"):
        kernels.softmax_backward(x, x, -3)


def test_an_array_of_no_backend_is_refused():
    with pytest.raises(TypeError, match=r"got builtins\.list"):
        kernels.softmax([1.0, 2.0])


# -- the choice of a kernel ----------------------------------------------------------------------------------------


def test_explain_says_what_runs(device):
    x = put(np.zeros((4, 100, 6), np.float32), device)
    said = kernels.explain("softmax", x, axis=1)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert said.startswith(
        "softmax_forward_strided [STRIDED DTYPE=float VECTOR=1 WIDTH=32 DEPTH=8 PACKS=4], 1 blocks of 256"
    )
    assert "single elements because the 6 elements behind the axis are no multiple of 4" in said
    double = put(np.zeros((4, 100)), device)
    assert kernels.explain("softmax", double) == (
        "plain array definition: there is no kernel for float64, only for float32, float16 and bfloat16"
    )
    assert "x is not C-contiguous and copied first" in kernels.explain("softmax", x[:, :, ::2])
    long = put(np.zeros((1, 20000), np.float32), device)
    assert "does not fit the registers of a block and is kept in shared memory" in kernels.explain("softmax", long)
    assert "does not fit the registers of a block and is read twice" in kernels.explain("softmax_backward", long, long)
    odd = put(np.zeros(81, np.float32), device)[1:]
    assert "addresses differ modulo 16" in kernels.explain("softmax", odd)


def test_explain_lists_what_it_knows():
    with pytest.raises(ValueError, match=r"operation must be one of .*'softmax', 'softmax_backward'.*, got 'sofmax'"):
        kernels.explain("sofmax", np.zeros(3))


MOST = DeviceSize(227 << 10, 132)  # of a large device


def plans():
    """What the selector answers over a wide range of shapes."""
    lengths = [*range(1, 70), *(n + d for n in (128, 256, 512, 1024, 2048, 4096, 8192, 16384) for d in (-1, 0, 1, 9))]
    for function in ("softmax_forward", "log_softmax_backward"):
        for dtype in map(np.dtype, DTYPES[:3]):
            for cols in (*lengths, 1_000_000):
                for agree in (True, False):
                    yield module._select(function, dtype, (100, cols), 1, agree, agree, MOST)
                    yield module._select(function, dtype, (5, cols), 1, agree, agree, MOST)
                for inner in (2, 64, 1 << 18):
                    yield module._select(function, dtype, (3, cols, inner), 1, True, True, MOST)


def test_every_variant_that_can_be_chosen_is_compiled_and_every_compiled_one_chosen():
    chosen = {plan.defines for chosen in plans() for plan in chosen}
    declared = {variant.defines for variant in variants(KERNELS / "softmax.cu")}
    assert chosen == declared


def test_a_row_fits_the_variant_that_is_chosen_for_it():
    for dtype in map(np.dtype, DTYPES[:3]):
        for cols in range(1, 17000):
            (plan,) = module._select("softmax_forward", dtype, (5, cols), 1, True, True, MOST)
            macros = dict(define.split("=") for define in plan.defines if "=" in define)
            vector, threads, packs = (int(macros[name]) for name in ("VECTOR", "THREADS", "PACKS"))
            if plan.kernel == "softmax_forward_registers":
                assert cols // vector <= threads * packs
            assert vector == 1 or threads >= 2 * vector, "head and tail elements need a thread each"


def test_a_row_is_kept_only_where_the_device_has_the_memory():
    for shared, cached in ((MOST.shared, 1), (48 << 10, 0), (80000, 0)):  # what the kernel declares has to fit, too
        size = DeviceSize(shared, 132)
        (plan,) = module._select("softmax_forward", np.dtype(np.float32), (5, 20000), 1, True, True, size)
        assert f"CACHED={cached}" in plan.defines
        assert plan.shared == cached * 80000


def test_a_grid_that_is_too_large_is_refused():
    with pytest.raises(
        ValueError, match=r"softmax_forward_streamed: a grid has at most 2147483647 blocks, .* need 4294967296"
    ):
        module._select("softmax_forward", np.dtype(np.float32), (1 << 32, 100_000), 1, True, True, MOST)


# -- the launcher's rarer ways ----------------------------------------------------------------------------------------


def test_a_strided_axis_off_a_16_byte_boundary_takes_single_elements_and_is_right(device):
    backend = backend_for(device)
    if not backend.runs_cuda:
        pytest.skip("a launcher's choice")
    host = np.random.default_rng(0).standard_normal(1 + 2 * 3 * 4).astype(np.float32)
    x = put(host, device)[1:].reshape(2, 3, 4)
    assert "an array does not start on a 16-byte boundary" in kernels.explain("softmax", x, axis=1)
    np.testing.assert_allclose(take(kernels.softmax(x, 1), device), softmax64(host[1:].reshape(2, 3, 4), 1), atol=1e-6)


def test_an_axis_beyond_the_kernels_index_takes_the_definition():
    (plan,) = module._select("softmax_forward", np.dtype(np.float32), (1, 2**30 + 1), 1, True, True, MOST)
    assert not plan.kernel
    assert "has 1073741825 elements, the kernels index at most 1073741824" in str(plan)


def test_with_several_devices_a_kernel_runs_on_that_of_its_arrays(monkeypatch):
    testing = pytest.importorskip("lamella.testing")
    happened = []
    with testing.simulator() as simulated:
        x = simulated.from_numpy(np.float32([[1, 2, 3]]))
        device = type(x.device)
        monkeypatch.setattr(device, "__enter__", lambda self: happened.append(self.id))
        monkeypatch.setattr(type(simulated), "devices", lambda self: (simulated.device_of(x), None))
        y = kernels.softmax(x)
        np.testing.assert_allclose(y.get(), softmax64(np.array([[1.0, 2, 3]])), atol=1e-6)
        assert happened == [0]
        kernel = testing.module.Kernel
        limit = kernel.max_dynamic_shared_size_bytes
        asked = limit.setter(lambda self, value: (happened.append(value), limit.fset(self, value)))
        monkeypatch.setattr(kernel, "max_dynamic_shared_size_bytes", asked)
        kernels.softmax(simulated.from_numpy(np.zeros((1, 20000), np.float32)))
    assert happened == [0, 0, 80000]  # the limit is asked for on that device, too


@pytest.mark.parametrize("array", ["dy", "y"])
def test_explain_of_the_backward_pass_says_what_is_copied(array, device):
    backend = backend_for(device)
    whole = {name: put(np.ones((4, 6), np.float32), device) for name in ("dy", "y")}
    whole[array] = put(np.ones((6, 4), np.float32), device).T
    said = kernels.explain("softmax_backward", whole["dy"], whole["y"])
    expected = f"{array} is not C-contiguous and copied first" if backend.runs_cuda else "runs no CUDA kernels"
    assert expected in said
