"""The claims of ``examples/lectures/universal_approximation.py``."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

import lamella


def test_a_pair_of_steep_sigmoids_is_a_bump(lecture: ModuleType) -> None:
    model = lecture.built(4)
    hidden, out = model[:2](np.array([[0.1], [0.3], [0.6]])).to_numpy(), model[2].weight.to_numpy()[0]
    assert hidden[:, 2:4].round(12).tolist() == [[0, 0], [1, 0], [1, 1]]  # the second bump is between 1/4 and 1/2
    np.testing.assert_allclose(out[2::2], lecture.f(np.array([0.375, 0.625, 0.875])), rtol=1e-15)
    np.testing.assert_array_equal(out[0::2], -out[1::2])
    np.testing.assert_allclose(model(np.array([[0.3]])).item(), lecture.f(0.375), rtol=1e-12)


def test_built_weights_are_as_close_as_the_bound_says(lecture: ModuleType) -> None:
    found = lecture.measure(widths=())
    for units, error in lecture.errors(found["built"]).items():
        assert error <= 1.01 * found["slope"] / units
    errors = list(lecture.errors(found["built"]).values())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] <= errors[0] / 20, "32 times the units"


def test_trained_networks_need_fewer_units_the_wider_the_closer(lecture: ModuleType) -> None:
    found = lecture.measure(lamella.Generator(1), bumps=(16,), widths=(2, 32), seeds=1, steps=500)
    (built,), trained = lecture.errors(found["built"]).values(), lecture.errors(found["trained"])
    assert trained[32] < trained[2] / 2
    assert trained[32] < built


@pytest.mark.slow
def test_the_error_falls_with_the_width(lecture: ModuleType) -> None:
    found = lecture.measure(lamella.Generator(1), bumps=(40,), widths=(2, 8, 64), seeds=3, steps=1000)
    trained = lecture.errors(found["trained"])
    assert trained[2] > trained[8] > 2 * trained[64]
    assert trained[64] < lecture.errors(found["built"])[80]
