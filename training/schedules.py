"""Learning rates as functions of the step, counted from 0: ``fit(…, schedule=cosine(1e-3, steps))``.

A step here is an update, not an epoch: with S updates in an epoch, "every 30 epochs" is ``every=30 * S``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ..layers.lengths import length
from ..layers.real import real

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """``lr``, always; useful under :func:`warm_up`."""
    rate = real("constant", "lr", lr)
    return lambda step: rate


def decay_by_step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """``lr · factor^⌊step / every⌋``: a fall by ``factor`` after each ``every`` steps."""
    lr, factor = real("decay_by_step", "lr", lr), real("decay_by_step", "factor", factor)
    every = length("decay_by_step", "every", every, 1)
    return lambda step: lr * factor ** (step // every)


def decay_at_steps(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """``lr · factor^k`` where k counts the milestones that are not above the step: a fall at each of these steps."""
    lr, factor = real("decay_at_steps", "lr", lr), real("decay_at_steps", "factor", factor)
    if isinstance(milestones, str) or not hasattr(milestones, "__iter__"):
        raise TypeError(f"decay_at_steps: milestones must be a list of steps, got {milestones!r}")
    ordered = sorted(length("decay_at_steps", "a milestone", step) for step in milestones)
    return lambda step: lr * factor ** sum(milestone <= step for milestone in ordered)


def exponential(lr: float, factor: float) -> Schedule:
    """``lr · factor^step``: the same fall at every step."""
    lr, factor = real("exponential", "lr", lr), real("exponential", "factor", factor)
    if factor < 0:
        raise ValueError(f"exponential: factor must not be negative, got {factor}")
    return lambda step: lr * factor**step


def polynomial(lr: float, steps: int, power: float = 1.0, final: float = 0.0) -> Schedule:
    """``final + (lr − final) · (1 − step / steps)^power``, and ``final`` from ``steps`` on; a line for ``power`` 1."""
    lr, final = real("polynomial", "lr", lr), real("polynomial", "final", final)
    power, steps = real("polynomial", "power", power), length("polynomial", "steps", steps, 1)
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
    lr, final = real("cosine", "lr", lr), real("cosine", "final", final)
    steps, warmup = length("cosine", "steps", steps, 1), length("cosine", "warmup", warmup)
    if warmup >= steps:
        raise ValueError(f"cosine: warmup must be at least 0 and below steps, got warmup={warmup}, steps={steps}")
    left = steps - warmup
    fall: Schedule = lambda step: _half_cosine(lr, final, min(1.0, step / left))  # noqa: E731
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
    lr, final = real("cosine_restarts", "lr", lr), real("cosine_restarts", "final", final)
    period, growth = length("cosine_restarts", "period", period, 1), length("cosine_restarts", "growth", growth, 1)

    def rate(step: int) -> float:
        stretch = period
        if growth == 1:
            step %= period
        while step >= stretch:
            step -= stretch
            stretch *= growth
        return _half_cosine(lr, final, step / stretch)

    return rate


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """``schedule(0) · (step + 1) / steps``, a rise along a line, for ``steps`` steps; then ``schedule``.

    The schedule starts, at its step 0, when the rise is over.
    """
    if not callable(schedule):
        raise TypeError(f"warm_up: schedule must be a function of the step, got {schedule!r}; constant(lr) makes one")
    steps = length("warm_up", "steps", steps, 1)
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
    steps, lr = length("one_cycle", "steps", steps, 2), real("one_cycle", "lr", lr)
    rise = real("one_cycle", "rise", rise)
    div_factor = real("one_cycle", "div_factor", div_factor)
    final_div_factor = real("one_cycle", "final_div_factor", final_div_factor)
    if div_factor <= 0 or final_div_factor <= 0:
        raise ValueError(
            f"one_cycle: div_factor and final_div_factor must be above 0, got {div_factor:g} and {final_div_factor:g}"
        )
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
