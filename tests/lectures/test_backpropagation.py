"""The claims of ``examples/lectures/backpropagation.py``, and the numbers printed in its source."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

VALUES = {
    "net_h": [0.3775, 0.3925],
    "out_h": [0.593269992, 0.596884378],
    "net_o": [1.105905967, 1.224921404],
    "out_o": [0.75136507, 0.772928465],
    "E": 0.298371109,
}
GRADIENTS = {
    "out_o": [0.74136507, -0.217071535],
    "net_o": [0.138498562, -0.038098236],
    "out_h": [0.036350306, 0.041370323],
    "V": [[0.082167041, 0.082667628], [-0.022602540, -0.022740242]],
    "W": [[0.000438568, 0.000877135], [0.000497713, 0.000995425]],
}
AFTER_A_STEP = {
    "W": [[0.149780716, 0.19956143], [0.24975114, 0.29950229]],
    "V": [[0.35891648, 0.408666186], [0.511301270, 0.561370121]],
}


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(steps=1)


@pytest.mark.parametrize("way", ["by_hand", "by_tape"])
def test_the_numbers_are_those_of_the_worked_example(found: dict[str, Any], way: str) -> None:
    values, gradients = found[way]
    for name, expected in VALUES.items():
        np.testing.assert_allclose(values[name], expected, rtol=0, atol=2e-9, err_msg=name)
    for name, expected in GRADIENTS.items():
        np.testing.assert_allclose(gradients[name], expected, rtol=0, atol=2e-9, err_msg=name)


def test_the_tape_finds_every_number_found_by_hand(found: dict[str, Any]) -> None:
    for by_hand, by_tape in zip(found["by_hand"], found["by_tape"], strict=True):
        assert set(by_hand) == set(by_tape)
        for name, value in by_hand.items():
            np.testing.assert_allclose(by_tape[name], value, rtol=1e-14, err_msg=name)


def test_the_gradients_are_slopes(lecture: ModuleType, found: dict[str, Any]) -> None:
    """Central differences know nothing of the chain rule."""
    for name, gradient in found["by_tape"][1].items():
        if name not in lecture.START:
            continue
        for place in np.ndindex(gradient.shape):
            errors = []
            for step in (1e-6, -1e-6):
                moved = {key: np.array(value) for key, value in lecture.START.items()}
                moved[name][place] += step
                errors.append(lecture.forward(moved, lambda z: 1 / (1 + np.exp(-z)))["E"])
            assert abs((errors[0] - errors[1]) / 2e-6 - gradient[place]) <= 1e-9


def test_a_step_of_gradient_descent_is_that_of_the_example(found: dict[str, Any]) -> None:
    for name, expected in AFTER_A_STEP.items():
        np.testing.assert_allclose(found["weights"][name].to_numpy(), expected, rtol=0, atol=6e-9)
    assert found["errors"][1] < found["errors"][0]
    # the source prints 0.291027924, from rounded weights; its own weights give this
    assert abs(found["errors"][1] - 0.291027774) <= 1e-9


@pytest.mark.slow
def test_ten_thousand_steps_end_where_the_example_ends(lecture: ModuleType) -> None:
    found = lecture.measure()
    assert np.all(np.diff(found["errors"]) < 0)
    assert abs(found["errors"][-1] - 3.51e-5) <= 1e-8
    np.testing.assert_allclose(found["out_o"], [0.015912196, 0.984065734], atol=2e-6)
