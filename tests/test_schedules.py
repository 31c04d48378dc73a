"""Schedules: PyTorch 2.13's rates, step for step, and what they say about wrong arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamella import training
from lamella.training import constant, cosine, cosine_restarts, decay_by_step, one_cycle, polynomial, warm_up

FROZEN = np.load(Path(__file__).parent / "fixtures/training.npz", allow_pickle=False)  # fixtures/make_training.py
OURS: dict[str, Any] = {
    "decay_by_step": training.decay_by_step(0.8, every=7, factor=0.3),
    "decay_at_steps": training.decay_at_steps(0.8, [11, 3, 4], factor=0.5),
    "exponential": training.exponential(0.8, 0.9),
    "polynomial": polynomial(0.8, 20, power=2.0),
    "line": polynomial(0.8, 20, final=0.2),
    "cosine": cosine(0.8, 29, final=0.01),
    "cosine_restarts": cosine_restarts(0.8, 4, growth=2, final=0.01),
    "warm_up": warm_up(training.exponential(0.8, 0.9), 5),
    "one_cycle": one_cycle(0.8, 30),
}


@pytest.mark.parametrize("name", OURS)
def test_thirty_rates_are_pytorchs(name: str) -> None:
    rates = [OURS[name](step) for step in range(30)]
    np.testing.assert_allclose(rates, FROZEN[f"schedule {name}"], rtol=1e-9, atol=1e-12)


def test_every_frozen_schedule_is_compared() -> None:
    assert {f"schedule {name}" for name in OURS} == {name for name in FROZEN.files if name.startswith("schedule ")}


def test_a_constant_rate_rises_and_stays() -> None:
    rate = warm_up(constant(0.5), 4)
    assert [rate(step) for step in range(6)] == [0.125, 0.25, 0.375, 0.5, 0.5, 0.5]


def test_restarts_of_one_length_come_back() -> None:
    rate = cosine_restarts(1.0, 3)
    assert [rate(step) for step in (0, 3, 3_000_000)] == [1.0, 1.0, 1.0]
    assert rate(1) == rate(4) == pytest.approx(0.75)


def test_past_the_end_the_last_rate_stays() -> None:
    for rate, last in [(polynomial(1.0, 5, final=0.1), 0.1), (cosine(1.0, 5, final=0.1), 0.1)]:
        assert rate(5) == rate(500) == pytest.approx(last)
    assert one_cycle(1.0, 10)(9) == one_cycle(1.0, 10)(99) == pytest.approx(1 / 25e4)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: decay_by_step(0.1, every=0), ValueError, "decay_by_step: every must be at least 1, got 0"),
    (lambda: training.exponential(0.1, -0.5), ValueError, "exponential: factor must not be negative, got -0.5"),
    (lambda: polynomial(0.1, 2.5), TypeError, "polynomial: steps must be an integer, got 2.5"),
    (lambda: cosine_restarts(0.1, 5, growth=0), ValueError, "cosine_restarts: growth must be at least 1, got 0"),
    (lambda: warm_up(constant(1.0), 0), ValueError, "warm_up: steps must be at least 1, got 0"),
    (lambda: one_cycle(0.1, 3), ValueError, "rise · steps must be above 1 and below steps, got rise=0.3, steps=3"),
    (lambda: one_cycle(0.1, 30, rise=1.0), ValueError, "got rise=1.0, steps=30"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
