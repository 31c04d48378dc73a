"""Clipping: PyTorch 2.13's norms and gradients, from an optimizer's flat arrays and from loose parameters."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella.testing
from lamella.backend import Device, backend_for
from lamella.training import SGD, clip_grad_norm, clip_grad_value

from .test_optimizers import START, gradient, parameter

FROZEN = np.load(Path(__file__).parent / "fixtures/training.npz", allow_pickle=False)  # fixtures/make_training.py


def with_gradients(device: Device | str, dtype: Any = "float64") -> Any:
    parameters = [parameter(v, dtype, device) for v in START]
    optimizer = SGD(parameters)
    for i, p in enumerate(parameters):
        p.grad = gradient(1, i, p)
    return parameters, optimizer


def gradients(parameters: Any) -> Any:
    return np.concatenate([backend_for(p.device).to_numpy(p.grad).astype("float64").ravel() for p in parameters])


@pytest.mark.parametrize("max_norm", [0.5, 1.0, 100.0])
@pytest.mark.parametrize("given", ["parameters", "optimizer"])
def test_the_norm_is_pytorchs(max_norm: float, given: str, device: Device) -> None:
    parameters, optimizer = with_gradients(device)
    norm = clip_grad_norm(parameters if given == "parameters" else optimizer, max_norm)
    assert norm.device == device
    assert norm.shape == ()
    expected = FROZEN[f"clip {max_norm}"]
    np.testing.assert_allclose([float(norm), *gradients(parameters)], expected, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 2e-3), ("bfloat16", 2e-2)])
def test_other_dtypes_keep_theirs(dtype: str, error: float, device: Device) -> None:
    import ml_dtypes

    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    parameters, optimizer = with_gradients(device, kind)
    norm = clip_grad_norm(optimizer, 0.5)
    assert norm.dtype == "float32"
    assert all(p.grad.dtype == kind for p in parameters)
    np.testing.assert_allclose([float(norm), *gradients(parameters)], FROZEN["clip 0.5"], rtol=10 * error, atol=error)


def test_a_parameter_without_gradient_counts_for_nothing() -> None:
    parameters, optimizer = with_gradients("cpu")
    stale = float(clip_grad_norm(optimizer, 100.0))
    parameters[0].grad = None
    expected = math.sqrt(sum((p.grad**2).sum() for p in parameters[1:]))
    assert float(clip_grad_norm(optimizer, 100.0)) == pytest.approx(expected)
    assert expected < stale
    optimizer.zero_grad()
    assert float(clip_grad_norm(optimizer, 1.0)) == 0.0
    assert float(clip_grad_norm(parameters, 1.0)) == 0.0


def test_two_dtypes_have_one_norm() -> None:
    parameters = [parameter([3.0]), parameter([4.0], "float64")]
    for p in parameters:
        p.grad = p.data.copy()
    assert float(clip_grad_norm(SGD(parameters), 1.0)) == pytest.approx(5.0)
    np.testing.assert_allclose(gradients(parameters), [0.6, 0.8], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value")  # inf times 0
def test_norms_that_are_not_finite_show() -> None:
    parameters, optimizer = with_gradients("cpu")
    parameters[0].grad[1] = math.inf
    assert float(clip_grad_norm(optimizer, 1.0)) == math.inf
    found = gradients(parameters)
    assert math.isnan(found[1])
    np.testing.assert_array_equal(np.delete(found, 1), 0.0)
    assert math.isnan(float(clip_grad_norm(optimizer, 1.0)))
    assert np.isnan(gradients(parameters)).all()


@pytest.mark.parametrize("given", ["parameters", "optimizer"])
def test_values_are_cut_where_they_are_too_great(given: str, device: Device) -> None:
    parameters, optimizer = with_gradients(device)
    before = gradients(parameters)
    clip_grad_value(parameters if given == "parameters" else optimizer, 0.3)
    np.testing.assert_array_equal(gradients(parameters), np.clip(before, -0.3, 0.3))
    assert (np.abs(before) > 0.3).any()


def test_clipping_waits_for_nothing() -> None:
    with lamella.testing.simulator() as sim:
        _, optimizer = with_gradients("simulator", "float32")
        optimizer.step()
        sim.reset()
        clip_grad_norm(optimizer, 0.5)
        clip_grad_value(optimizer, 0.5)
        assert sim.synchronizations == 0


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: clip_grad_norm([], 0.0), ValueError, "clip_grad_norm: max_norm must be above 0, got 0.0"),
    (lambda: clip_grad_norm([], math.nan), ValueError, "max_norm must be a number, got nan"),
    (lambda: clip_grad_norm([], "1"), TypeError, "max_norm must be a number, got '1'"),
    (lambda: clip_grad_value([], -1), ValueError, "clip_grad_value: max_value must be above 0, got -1"),
    (lambda: clip_grad_value(parameter([1.0]), 1), TypeError, r"got one: write \[it\]"),
    (lambda: clip_grad_value([np.ones(1)], 1), TypeError, r"parameters\[0\] must be a Parameter, got ndarray"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
