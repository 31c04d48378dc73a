"""Learning rates as functions of the step, counted from 0: ``fit(…, schedule=cosine(1e-3, steps))``.

A step here is an update, not an epoch: with S updates in an epoch, "every 30 epochs" is ``every=30 * S``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """``lr``, always; useful under :func:`warm_up`."""
    return lambda step: lr


def decay_by_step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """``lr · factor^⌊step / every⌋``: a fall by ``factor`` after each ``every`` steps."""
    _at_least("decay_by_step", "every", every, 1)
    return lambda step: lr * factor ** (step // every)


def decay_at_steps(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """``lr · factor^k`` where k counts the milestones that are not above the step: a fall at each of these steps."""
    ordered = sorted(milestones)
    return lambda step: lr * factor ** sum(milestone <= step for milestone in ordered)


def exponential(lr: float, factor: float) -> Schedule:
    """``lr · factor^step``: the same fall at every step."""
    if factor < 0:
        raise ValueError(f"exponential: factor must not be negative, got {factor}")
    return lambda step: lr * factor**step


def polynomial(lr: float, steps: int, power: float = 1.0, final: float = 0.0) -> Schedule:
    """``final + (lr − final) · (1 − step / steps)^power``, and ``final`` from ``steps`` on; a line for ``power`` 1."""
    _at_least("polynomial", "steps", steps, 1)
    return lambda step: final + (lr - final) * (1.0 - min(step, steps) / steps) ** power


def cosine(lr: float, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """From 0 up to ``lr`` along a line, then down to ``final`` along half a cosine.

    Args:
        lr: the greatest rate.
        steps: all steps, the warm-up included; from there on the rate is ``final``.
        warmup: steps of the rise, as in :func:`warm_up`; the first step already has ``lr / warmup``.
        final: the rate at the end.
    Raises:
        ValueError: ``steps`` is not above ``warmup``.
    Source: Loshchilov and Hutter 2016, "SGDR: stochastic gradient descent with warm restarts", equation 5.
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"cosine: warmup must be at least 0 and below steps, got warmup={warmup}, steps={steps}")
    length = steps - warmup
    fall: Schedule = lambda step: _half_cosine(lr, final, min(1.0, step / length))  # noqa: E731
    return warm_up(fall, warmup) if warmup else fall


def cosine_restarts(lr: float, period: int, growth: int = 1, final: float = 0.0) -> Schedule:
    """Half cosines from ``lr`` down to ``final``, one after another; each is ``growth`` times as long as the last.

    Args:
        lr: the rate at the start of each.
        period: steps of the first.
        growth: a whole number, at least 1.
        final: the rate towards which each falls.
    Source: Loshchilov and Hutter 2016, "SGDR: stochastic gradient descent with warm restarts", equation 5.
    """
    _at_least("cosine_restarts", "period", period, 1)
    _at_least("cosine_restarts", "growth", growth, 1)

    def rate(step: int) -> float:
        length = period
        if growth == 1:
            step %= period
        while step >= length:
            step -= length
            length *= growth
        return _half_cosine(lr, final, step / length)

    return rate


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """``schedule(0) · (step + 1) / steps``, a rise along a line, for ``steps`` steps; then ``schedule``.

    The schedule starts, at its step 0, when the rise is over.
    """
    _at_least("warm_up", "steps", steps, 1)
    return lambda step: schedule(0) * (step + 1) / steps if step < steps else schedule(step - steps)


def one_cycle(
    lr: float, steps: int, rise: float = 0.3, div_factor: float = 25.0, final_div_factor: float = 1e4
) -> Schedule:
    """Up from ``lr / div_factor`` to ``lr`` and down to ``lr / div_factor / final_div_factor``, along half cosines.

    Args:
        lr: the greatest rate, reached at step ``rise · steps − 1``.
        steps: all steps, at least 2; the last has the least rate, and so has every later one.
        rise: the share of the steps in which the rate rises, in (0, 1).
        div_factor, final_div_factor: as above (PyTorch's names).
    Raises:
        ValueError: ``steps`` or ``rise`` is out of its range.
    Source: Smith and Topin 2017, "Super-convergence", arXiv 1708.07120; PyTorch's ``OneCycleLR``.
    """
    _at_least("one_cycle", "steps", steps, 2)
    top, last = rise * steps - 1.0, steps - 1.0
    if not 0.0 < top < last:
        raise ValueError(f"one_cycle: rise · steps must be above 1 and below steps, got rise={rise}, steps={steps}")
    start = lr / div_factor

    def rate(step: int) -> float:
        if step <= top:
            return _half_cosine(start, lr, step / top)
        return _half_cosine(lr, start / final_div_factor, min(1.0, (step - top) / (last - top)))

    return rate


def _half_cosine(start: float, end: float, share: float) -> float:
    """From ``start`` at share 0 to ``end`` at share 1."""
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))


def _at_least(caller: str, name: str, value: int, least: int) -> None:
    if not hasattr(value, "__index__") or isinstance(value, bool):
        raise TypeError(f"{caller}: {name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{caller}: {name} must be at least {least}, got {value}")
