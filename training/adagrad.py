"""Adagrad: steps divided by the root of all squared gradients so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter
from ..backend import Array
from .groups import Settings
from .optimizer import Optimizer


class Adagrad(Optimizer):
    """p ← p − lrₜ·g / (√G + eps) with G ← G + g² and lrₜ = lr / (1 + (t − 1)·lr_decay).

    g is the gradient plus ``weight_decay``·p.

    Args:
        parameters: what to learn, or groups of it.
        lr: learning rate, >= 0.
        lr_decay: how fast the rate falls with the step t, counted from 1, >= 0.
        weight_decay: factor of the parameter that is added to its gradient (an L2 penalty), >= 0.
        initial_accumulator_value: G before the first step, >= 0.
        eps: >= 0; with 0, a parameter whose gradient has always been exactly 0 becomes NaN.
    Raises:
        ValueError: a number is out of its range.
    Source: Duchi, Hazan and Singer 2011, "Adaptive subgradient methods for online learning", JMLR 12, figure 1.
    """

    state_names = ("square_sum",)
    scalar_names = ("rate", "eps", "weight_decay")

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            parameters,
            lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
        )
        for flat in self._flats:
            flat.states["square_sum"][...] = flat.settings["initial_accumulator_value"]

    @classmethod
    def _checked(cls, settings: Settings) -> Settings:
        return {name: cls._number(name, value) for name, value in settings.items()}

    def _numbers(self, settings: Settings, steps: int) -> tuple[float, ...]:
        rate = settings["lr"] / (1.0 + (steps - 1) * settings["lr_decay"])
        return rate, settings["eps"], settings["weight_decay"]

    def _update(
        self,
        xp: Any,
        p: Array,
        g: Array,
        states: tuple[Array, ...],
        scratch: Array,
        numbers: tuple[Array, ...],
        settings: Settings,
    ) -> None:
        (total,) = states
        rate, eps, weight_decay = numbers
        if settings["weight_decay"]:
            g = g + p * weight_decay
        total += xp.multiply(g, g, out=scratch)
        root = xp.sqrt(total, out=scratch)
        root += eps
        step = xp.divide(g, root, out=scratch)
        step *= rate
        p -= step
