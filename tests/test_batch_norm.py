"""Batch normalisation: values, gradients, running statistics, on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import kernels
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for, in_format, is_channels_last


def on(device: Device, array: np.ndarray, last: bool = False) -> Any:
    x = backend_for(device).from_numpy(array, device)
    return in_format(x, True) if last and x.ndim > 2 else x


def host(array: Any) -> np.ndarray:
    array = getattr(array, "data", array) if isinstance(array, lamella.Tensor) else array
    return lamella.backend.backend_of(array).to_numpy(array).astype(np.float64)


def column(channel: np.ndarray, ndim: int) -> np.ndarray:
    return channel.reshape(1, -1, *(1,) * (ndim - 2))


def oracle(x, weight, bias, eps, statistics, residual, relu):
    """The definition in float64, written down once more."""
    axes = (0, *range(2, x.ndim))
    mean, var = (x.mean(axes), x.var(axes)) if statistics is None else statistics
    y = (x - column(mean, x.ndim)) / np.sqrt(column(var, x.ndim) + eps)
    y = y * column(weight, x.ndim) + column(bias, x.ndim)
    y = y if residual is None else y + residual
    return (np.maximum(y, 0) if relu else y), mean, var


SHAPES = [(5, 3), (2, 3, 7), (3, 8, 4, 4), (2, 4, 2, 3, 5), (4, 3, 12, 12), (9, 40, 2, 2)]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES)
def test_forward_and_backward_agree_with_the_definition_in_float64(shape, last, device: Device):
    rng = np.random.default_rng(shape)
    for offset, relu, added, frozen in ((0, True, True, False), (30, False, False, False), (0, True, False, True)):
        x, residual, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
        x += np.float32(offset)
        weight, bias, mean = (rng.standard_normal(shape[1]).astype(np.float32) for _ in range(3))
        var = (rng.random(shape[1]) + 0.5).astype(np.float32)
        there = [on(device, a, last) for a in (x, weight, bias)]
        statistics = (on(device, mean), on(device, var)) if frozen else None
        res = on(device, residual, last) if added else None
        y, m, v = kernels.batch_norm(*there, 1e-3, statistics=statistics, residual=res, relu=relu)
        wide = [a.astype(np.float64) for a in (x, weight, bias)]
        expected, em, ev = oracle(*wide, 1e-3, (mean, var) if frozen else None, residual if added else None, relu)
        scale = 1 + offset
        np.testing.assert_allclose(host(y), expected, rtol=0, atol=3e-6 * scale * max(1, abs(expected).max()))
        np.testing.assert_allclose(host(m), em, rtol=0, atol=2e-6 * scale)
        np.testing.assert_allclose(host(v), ev, rtol=1e-5, atol=1e-6)
        assert is_channels_last(y) == is_channels_last(there[0])

        found = kernels.batch_norm_backward(
            on(device, dy, last), there[0], m, v, there[1], 1e-3, y=y if relu else None, frozen=frozen, residual=added
        )
        g = dy * (host(y) > 0) if relu else dy.astype(np.float64)
        axes, rstd = (0, *range(2, x.ndim)), 1 / np.sqrt(column(ev, x.ndim) + 1e-3)
        n = (x.astype(np.float64) - column(em, x.ndim)) * rstd
        dx = g if frozen else g - g.mean(axes, keepdims=True) - n * (g * n).mean(axes, keepdims=True)
        dx = dx * rstd * column(wide[1], x.ndim)
        for name, a, b in zip(("dx", "dweight", "dbias"), found, (dx, (g * n).sum(axes), g.sum(axes)), strict=False):
            atol = 1e-5 * scale * max(1, abs(b).max())
            np.testing.assert_allclose(host(a), b, rtol=0, atol=atol, err_msg=name)
        if added:
            np.testing.assert_array_equal(host(found[3]), g)
        else:
            assert found[3] is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_images_have_float32_statistics(dtype, device: Device):
    rng = np.random.default_rng(0)
    x = on(device, (rng.standard_normal((4, 3, 5, 5)) + 300).astype(np.float32)).astype(lamella.backend.as_dtype(dtype))
    y, mean, var = kernels.batch_norm(x, relu=True)
    assert y.dtype == x.dtype
    assert mean.dtype == var.dtype == np.float32
    wide = host(x)
    np.testing.assert_allclose(host(mean), wide.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(host(var), wide.var((0, 2, 3)), rtol=1e-4, atol=1e-6)
    dx, dweight, dbias, _ = kernels.batch_norm_backward(y, x, mean, var, y=y)
    assert dx.dtype == dweight.dtype == dbias.dtype == x.dtype


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_large_mean_costs_no_digits(scale):
    """A mean of squares less a squared mean would leave nothing of the variance."""
    x = np.random.default_rng(1).standard_normal((64, 2, 16, 16)).astype(np.float32) * np.float32(scale)
    x += np.float32(3e3 * scale)
    for last in (False, True):
        y, _, var = kernels.batch_norm(on(lamella.device("cpu"), x, last), eps=0.0)
        wide = x.astype(np.float64)
        np.testing.assert_allclose(var, wide.var((0, 2, 3)), rtol=1e-5)
        expected = (wide - wide.mean((0, 2, 3), keepdims=True)) / wide.std((0, 2, 3), keepdims=True)
        np.testing.assert_allclose(y, expected, atol=2e-3)  # x - mean is exact to the rounding of the mean
        np.testing.assert_allclose(host(y).mean((0, 2, 3)), 0, atol=2e-4)


def test_arrays_with_gaps_and_of_the_other_format_are_copied(device: Device):
    rng = np.random.default_rng(2)
    wide, other = rng.standard_normal((3, 4, 6, 10)).astype(np.float32), rng.standard_normal((3, 4, 6, 5))
    x, residual = on(device, wide)[..., ::2], on(device, other.astype(np.float32), last=True)
    y, _, _ = kernels.batch_norm(x, residual=residual)
    ones, zeros = np.ones(4), np.zeros(4)
    expected, _, _ = oracle(wide[..., ::2].astype(np.float64), ones, zeros, 1e-5, None, other, False)
    np.testing.assert_allclose(host(y), expected, atol=5e-6)
    if device.kind != "cpu":
        assert "x is not contiguous and copied first; residual is not" in kernels.explain(
            "batch_norm", x, residual=residual
        )


def test_parameters_and_statistics_with_gaps(device: Device):
    values = np.random.default_rng(6).uniform(0.5, 2, (4, 3, 8)).astype(np.float32)
    x = on(device, values)
    weight, bias, mean, var = (on(device, row)[::2] for row in values[:, 0, :6])
    dense = [on(device, row[::2].copy()) for row in values[:, 0, :6]]
    y, _, _ = kernels.batch_norm(x, weight, bias, statistics=(mean, var))
    expected, _, _ = kernels.batch_norm(x, *dense[:2], statistics=tuple(dense[2:]))
    np.testing.assert_array_equal(host(y), host(expected))
    found = kernels.batch_norm_backward(y, x, mean, var, weight)[:3]
    for got, want in zip(found, kernels.batch_norm_backward(y, x, *dense[2:], dense[0])[:3], strict=True):
        np.testing.assert_array_equal(host(got), host(want))


def test_gradients_agree_with_central_differences(device: Device):
    rng = np.random.default_rng(3)
    x, r = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 4))
    w, b = rng.standard_normal(2), rng.standard_normal(2)
    arrays = [on(device, a) for a in (x, w, b, r)]
    for training in (True, False):
        mean, var = lamella.Tensor(on(device, np.array([0.1, -0.2]))), lamella.Tensor(on(device, np.array([0.5, 2.0])))

        def norm(x, w, b, r, training=training, mean=mean, var=var):
            stats = (None, None) if training else (mean, var)
            return L.batch_norm(x, *stats, w, b, training, residual=r, relu=True)

        assert gradcheck(norm, *arrays)


def test_running_statistics_are_those_of_pytorch(device: Device):
    module = L.BatchNorm1d(2, momentum=0.25).to(device)
    x = np.array([[1.0, 10.0], [3.0, 10.0], [5.0, 40.0]], np.float32)
    module(on(device, x))
    # means 3, 20; variances divided by n - 1: 4, 300; a quarter of the new, three quarters of 0 and 1
    np.testing.assert_allclose(host(module.running_mean), [0.75, 5.0], rtol=1e-6)
    np.testing.assert_allclose(host(module.running_var), [1.75, 75.75], rtol=1e-6)
    assert int(module.num_batches_tracked.to_numpy()) == 1
    before = module.state_dict()
    y = module.eval()(on(device, x))
    np.testing.assert_allclose(host(y)[0, 0], 0.25 / np.sqrt(1.75 + 1e-5), rtol=1e-6)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(host(value), host(before[name]))
    module.reset_running_stats()
    np.testing.assert_array_equal(host(module.running_mean), 0)
    np.testing.assert_array_equal(host(module.running_var), 1)
    assert int(module.num_batches_tracked.to_numpy()) == 0


def test_momentum_none_is_the_mean_of_all_batches(device: Device):
    module = L.BatchNorm1d(1, momentum=None).to(device)
    for shift in (0.0, 3.0, 9.0):
        module(on(device, np.array([[shift], [shift + 2]], np.float32)))
    np.testing.assert_allclose(host(module.running_mean), [5.0], rtol=1e-6)
    np.testing.assert_allclose(host(module.running_var), [2.0], rtol=1e-6)


def test_without_running_statistics_evaluation_takes_those_of_its_batch(device: Device):
    module = L.BatchNorm1d(2, track_running_stats=False, affine=False).to(device).eval()
    assert list(module.state_dict()) == []
    y = host(module(on(device, np.array([[1.0, 0.0], [3.0, 4.0]], np.float32))))
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], atol=1e-5)


def test_one_value_a_channel_is_refused_and_leaves_no_trace(device: Device):
    module = L.BatchNorm2d(3).to(device)
    x = on(device, np.ones((1, 3, 1, 1), np.float32))
    with pytest.raises(ValueError, match="BatchNorm2d: training needs more than one value a channel"):
        module(x)
    assert int(module.num_batches_tracked.to_numpy()) == 0
    assert module.eval()(x).shape == x.shape
    with pytest.raises(ValueError, match="batch_norm: training needs more than one value a channel"):
        L.batch_norm(x, None, None, training=True)


def test_a_refused_batch_leaves_no_trace_in_the_running_statistics(device: Device):
    x = on(device, np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32))
    module = L.BatchNorm1d(3).to(device)
    with pytest.raises(ValueError, match="residual must have the shape of x"):
        module(x, residual=x[:2])
    assert int(module.num_batches_tracked.to_numpy()) == 0
    for shapes, message in (
        (((3,), (2,)), r"batch_norm: running_var must have shape \(3,\) for x \(4, 3, 2\), got \(2,\)"),
        (((3, 3), (3,)), r"batch_norm: running_mean must have shape \(3,\) for x \(4, 3, 2\), got \(3, 3\)"),
    ):
        for call in (L.batch_norm, L.instance_norm):
            mean, var = (lamella.tensor(np.ones(shape, np.float32), device=device) for shape in shapes)
            options = {"training": True} if call is L.batch_norm else {}
            with pytest.raises(ValueError, match=message.replace("batch_norm", call.__name__)):
                call(x, mean, var, **options)
            np.testing.assert_array_equal(mean.to_numpy(), np.ones(shapes[0]))
            np.testing.assert_array_equal(var.to_numpy(), np.ones(shapes[1]))


@pytest.mark.parametrize("momentum", [0.25, None])
@pytest.mark.parametrize("layer", [L.BatchNorm1d, L.InstanceNorm1d])
def test_a_checkpoint_counts_its_batch_once(layer, momentum, device: Device):
    x = on(device, np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32))
    once, again = (layer(3, momentum=momentum, affine=True, track_running_stats=True).to(device) for _ in range(2))
    once(x)
    wanted = lamella.Tensor(x, requires_grad=True)
    lamella.checkpoint(again, wanted).sum().backward()
    assert wanted.grad is not None
    for name, value in once.state_dict().items():
        np.testing.assert_array_equal(host(again.state_dict()[name]), host(value), err_msg=name)


@pytest.mark.parametrize("norm", [L.batch_norm, L.instance_norm])
def test_running_statistics_must_be_floating_tensors(norm):
    x, one = np.ones((2, 3, 4), np.float32), lamella.tensor(np.ones(3, np.float32))
    name = norm.__name__
    with pytest.raises(TypeError, match=f"{name}: running_mean must be a tensor, .*, got ndarray"):
        norm(x, np.ones(3, np.float32), one)
    with pytest.raises(TypeError, match=f"{name}: running_var must be floating, got int64"):
        norm(x, one, lamella.tensor(np.ones(3, np.int64)))
    with pytest.raises(TypeError, match=f"{name}: momentum must be a number, got 'a'"):
        norm(x, one, one, momentum="a")
    with pytest.raises(ValueError, match=f"{name}: eps must be a number, got nan"):
        norm(x, one, one, eps=float("nan"))
    for module in (L.BatchNorm1d(3), L.InstanceNorm1d(3)):
        with pytest.raises(TypeError, match=f"{type(module).__name__}: x must be a tensor or an array, got None"):
            module(None)


def test_wrong_arguments_are_named():
    x = np.ones((2, 3, 4), np.float32)
    cpu = {"mean": np.ones(3, np.float32), "var": np.ones(3, np.float32)}
    with pytest.raises(ValueError, match=r"BatchNorm2d: x must have shape \(N, 3, H, W\), got \(2, 3, 4\)"):
        L.BatchNorm2d(3)(x)
    with pytest.raises(ValueError, match=r"BatchNorm1d: x must have shape \(N, 5\) or \(N, 5, T\), got \(2, 3, 4\)"):
        L.BatchNorm1d(5)(x)
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\) for x \(2, 3, 4\), got \(4,\)"):
        kernels.batch_norm(x, np.ones(4, np.float32))
    with pytest.raises(TypeError, match="bias must have the dtype of x, float32, got float64"):
        kernels.batch_norm(x, None, np.ones(3))
    with pytest.raises(TypeError, match="x must be float16, bfloat16, float32 or float64, got int64"):
        kernels.batch_norm(np.ones((2, 3), np.int64))
    with pytest.raises(ValueError, match=r"x must have shape \(N, C, ...\), got \(3,\)"):
        kernels.batch_norm(x[0, :, 0])
    with pytest.raises(ValueError, match=r"residual must have the shape of x, \(2, 3, 4\), got \(2, 3, 5\)"):
        kernels.batch_norm(x, residual=np.ones((2, 3, 5), np.float32))
    with pytest.raises(TypeError, match="dy must have the dtype of x, float32, got float64"):
        kernels.batch_norm_backward(x.astype(np.float64), x, **cpu)
    with pytest.raises(ValueError, match=r"var must have shape \(3,\) for x"):
        kernels.batch_norm(x, statistics=(cpu["mean"], np.ones(2, np.float32)))
    with pytest.raises(ValueError, match="x must have values to take the statistics of"):
        kernels.batch_norm(x[:0])
    with pytest.raises(ValueError, match="running_mean and running_var must both be given"):
        L.batch_norm(x, lamella.tensor([1.0] * 3), None)
    with pytest.raises(ValueError, match="must be given where training is False"):
        L.batch_norm(x, None, None)


def test_the_kernels_are_launched_and_explained(device: Device):
    x = on(device, np.ones((2, 4, 3, 3), np.float32))
    mean, var = (on(device, np.ones(4, np.float32)) for _ in range(2))
    said = kernels.explain("batch_norm", x)
    back = kernels.explain("batch_norm_backward", x, x, mean, var, y=x, residual=True)
    if device.kind == "cpu":
        assert said == "plain array definition: the cpu backend runs no CUDA kernels"
        return
    assert said.startswith("batch_norm_forward [FORWARD LANES=1")
    assert "after batch_norm_moments and its finish; contiguous (2, 4, 3, 3)" in said
    assert "the 9 values of a plane are no multiple of 4" in said
    assert back.startswith("batch_norm_backward [BACKWARD LANES=1")
    assert "with the given statistics" in kernels.explain("batch_norm", x, statistics=(mean, var))
    assert "LANES=8 RANKS=32 PACKS=4 DTYPE=float VECTOR=4" in kernels.explain("batch_norm", in_format(x, True))
    assert "there is no kernel for float64" in kernels.explain("batch_norm", x.astype("float64"))
    assert "empty" in kernels.explain("batch_norm_backward", x[:0], x[:0], mean, var)
    if device.kind == "simulator":
        from lamella.testing.array import activity

        activity.reset()
        y, mean, var = kernels.batch_norm(x, relu=True)
        kernels.batch_norm_backward(x, x, mean, var, y=y)
        assert activity.launches == {
            "batch_norm_moments": 1,
            "batch_norm_finish": 1,
            "batch_norm_forward": 1,
            "batch_norm_backward_sums": 1,
            "batch_norm_backward_finish": 1,
            "batch_norm_backward": 1,
        }
        assert activity.synchronizations == 0


@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4, 4), (2, 3, 0)])
def test_nothing_in_gives_nothing_out_in_evaluation(shape, device: Device):
    module = (L.BatchNorm1d if len(shape) < 4 else L.BatchNorm2d)(3).to(device).eval()
    x = lamella.Tensor(on(device, np.ones(shape, np.float32)), requires_grad=True)
    y = module(x)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
    np.testing.assert_array_equal(host(module.weight.grad), 0)


@pytest.mark.slow
def test_a_channel_in_several_parts_agrees_with_the_cpu(device: Device):
    rng = np.random.default_rng(6)
    x, dy = (rng.standard_normal((8, 4, 40, 40)).astype(np.float32) for _ in range(2))
    for last in (False, True):
        there = on(device, x, last)
        y, mean, var = kernels.batch_norm(there)
        dx, dweight, dbias, _ = kernels.batch_norm_backward(on(device, dy, last), there, mean, var)
        if device.kind != "cpu":
            assert "each channel in 1 parts" not in kernels.explain("batch_norm", there)
        ones, zeros = np.ones(4), np.zeros(4)
        expected, em, _ = oracle(x.astype(np.float64), ones, zeros, 1e-5, None, None, False)
        np.testing.assert_allclose(host(y), expected, atol=5e-6)
        np.testing.assert_allclose(host(mean), em, atol=1e-6)
        np.testing.assert_allclose(host(dbias), dy.astype(np.float64).sum((0, 2, 3)), atol=1e-4)
        np.testing.assert_allclose(host(dweight), (dy * expected).sum((0, 2, 3)), atol=2e-4)
        np.testing.assert_allclose(host(dx).sum((0, 2, 3)), 0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(300, 700), (13, 37, 11, 13), (7, 5, 200, 3), (64, 3, 130), (3, 2100)])
def test_large_arrays_are_cut_into_chunks(shape, threads):
    before = lamella.get_num_threads() if hasattr(lamella, "get_num_threads") else 1
    lamella.set_num_threads(threads)
    try:
        rng = np.random.default_rng(5)
        x, dy = (rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        w, b = (rng.standard_normal(shape[1]).astype(np.float32) for _ in range(2))
        for last in (False, True):
            there = on(lamella.device("cpu"), x, last)
            y, mean, var = kernels.batch_norm(there, w, b, relu=True)
            expected = kernels.batch_norm_definition(x.astype(float), w.astype(float), b.astype(float), relu=True)
            for found, value in zip((y, mean, var), expected, strict=True):
                np.testing.assert_allclose(found, value, atol=1e-5)
            grads = kernels.batch_norm_backward(on(lamella.device("cpu"), dy, last), there, mean, var, w, y=y)
            wide = (a.astype(float) for a in (dy, x, mean, var, w))
            wide = kernels.batch_norm_backward_definition(*wide, y=y.astype(float))
            for found, value in zip(grads[:3], wide[:3], strict=True):
                np.testing.assert_allclose(found, value, atol=2e-6 * max(1, abs(value).max()) * 10)
    finally:
        lamella.set_num_threads(before)


def test_sequential_takes_the_relu_after_a_batch_norm_along(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    forward = L.ReLU.forward
    monkeypatch.setattr(L.ReLU, "forward", lambda self, x: called.append(1) or forward(self, x))
    values = np.random.default_rng(3).standard_normal((4, 3, 5)).astype(np.float32)

    def results(model: Any) -> list[np.ndarray]:
        x = lamella.Tensor(on(device, values), requires_grad=True)
        y = model.to(device)(x)
        y.backward(on(device, values))
        return [host(y), host(x.grad), host(model[0].weight.grad), host(model[0].running_mean)]

    together, count = results(L.Sequential(L.BatchNorm1d(3), L.ReLU())), len(called)
    watched = L.Sequential(L.BatchNorm1d(3), L.ReLU())
    watched[1].register_forward_hook(lambda module, inputs, output: None)
    apart = results(watched)
    assert (count, len(called)) == (0, 1)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
