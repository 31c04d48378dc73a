"""Learning rates as functions of the step, counted from 0: ``fit(…, schedule=cosine(1e-3, steps))``."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[int], float]


def cosine(lr: float, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """From 0 up to ``lr`` along a line, then down to ``final`` along half a cosine.

    Args:
        lr: the greatest rate.
        steps: all steps, the warm-up included; from there on the rate is ``final``.
        warmup: steps of the rise; the first step already has ``lr / warmup``.
        final: the rate at the end.
    Raises:
        ValueError: ``steps`` is not above ``warmup``.
    Source: Loshchilov and Hutter 2016, "SGDR: stochastic gradient descent with warm restarts", equation 5.
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"cosine: warmup must be at least 0 and below steps, got warmup={warmup}, steps={steps}")

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        share = min(1.0, (step - warmup) / (steps - warmup))
        return final + (lr - final) * 0.5 * (1.0 + math.cos(math.pi * share))

    return rate


def decay_by_step(lr: float, every: int, factor: float = 0.1) -> Schedule:
    """``lr · factor^⌊step / every⌋``: a fall by ``factor`` after each ``every`` steps."""
    if every < 1:
        raise ValueError(f"decay_by_step: every must be at least 1, got {every}")
    return lambda step: lr * factor ** (step // every)
