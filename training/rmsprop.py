"""RMSprop: steps divided by a running root mean square of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter
from ..backend import Array
from .groups import Settings
from .optimizer import Optimizer


class RMSprop(Optimizer):
    """p ← p − lr·g / (√v + eps) with v ← α·v + (1 − α)·g².

    eps is added outside the root (PyTorch), not inside (Keras). g is the gradient plus ``weight_decay``·p. With
    ``centered``, v − m² stands in place of v, m ← α·m + (1 − α)·g: the variance of the gradient. With ``momentum`` μ
    the step is lr·b, b ← μ·b + g / (√v + eps).

    Args:
        parameters: what to learn, or groups of it.
        lr: learning rate, >= 0.
        alpha: α, in [0, 1).
        eps: >= 0.
        weight_decay: factor of the parameter that is added to its gradient (an L2 penalty), >= 0.
        momentum: μ, >= 0; 0 keeps no state for it.
        centered: whether the mean of the gradient is taken off.
    Raises:
        ValueError: a number is out of its range.
    Source: Tieleman and Hinton 2012, lecture 6.5; centred: Graves 2013, arXiv 1308.0850, equations 38 to 45.
    """

    scalar_names = ("lr", "alpha", "rest", "eps", "weight_decay", "momentum")

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            parameters, lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered
        )

    @classmethod
    def _checked(cls, settings: Settings) -> Settings:
        found = {name: cls._number(name, settings[name]) for name in ("lr", "eps", "weight_decay", "momentum")}
        alpha = cls._number("alpha", settings["alpha"], below=1.0)
        return {**found, "alpha": alpha, "centered": bool(settings["centered"])}

    @classmethod
    def _states(cls, settings: Settings) -> tuple[str, ...]:
        return (
            "square_mean",
            *(["gradient_mean"] if settings["centered"] else []),
            *(["velocity"] if settings["momentum"] else []),
        )

    def _numbers(self, settings: Settings, steps: int) -> tuple[float, ...]:
        alpha = settings["alpha"]
        return settings["lr"], alpha, 1.0 - alpha, settings["eps"], settings["weight_decay"], settings["momentum"]

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
        lr, alpha, rest, eps, weight_decay, momentum = numbers
        if settings["weight_decay"]:
            g = g + p * weight_decay
        v = states[0]
        v *= alpha
        v += xp.multiply(xp.multiply(g, g, out=scratch), rest, out=scratch)
        if settings["centered"]:
            m = states[1]
            m *= alpha
            m += xp.multiply(g, rest, out=scratch)
            variance = xp.subtract(v, xp.multiply(m, m, out=scratch), out=scratch)
            root = xp.sqrt(xp.maximum(variance, 0, out=scratch), out=scratch)  # rounding may leave it below 0
        else:
            root = xp.sqrt(v, out=scratch)
        root += eps
        step = xp.divide(g, root, out=scratch)
        if settings["momentum"]:
            b = states[-1]
            b *= momentum
            b += step
            step = xp.multiply(b, lr, out=scratch)
        else:
            step *= lr
        p -= step
