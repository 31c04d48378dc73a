"""Adam and AdamW: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter
from ..backend import Array
from ..kernels.optimizer_step import adam_definition, adam_step
from .flat import FlatParameters
from .groups import Settings
from .optimizer import Optimizer


class Adam(Optimizer):
    """p ← p − lr·m̂ / (√v̂ + eps) with m ← β₁·m + (1 − β₁)·g, v ← β₂·v + (1 − β₂)·g², m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ).

    eps is added after the bias correction (PyTorch). g is the gradient plus ``weight_decay``·p.

    What is stored are the moments without their constant factors, M = m/(1 − β₁) and V = v/(1 − β₂), which saves two
    passes: M ← β₁·M + g, V ← β₂·V + g², and with c = √((1 − β₂ᵗ)/(1 − β₂)), so that √v̂ = √V / c,

        p ← p − s·M / (√V + eps·c),    s = lr·c·(1 − β₁)/(1 − β₁ᵗ).

    Args:
        parameters: what to learn.
        lr: learning rate, >= 0.
        betas: (β₁, β₂), each in [0, 1).
        eps: >= 0; with 0, a parameter whose gradient has always been exactly 0 becomes NaN.
        weight_decay: factor of the parameter that is added to its gradient (an L2 penalty), >= 0.
    Raises:
        ValueError: a number is out of its range.
    Source: Kingma and Ba 2014, "Adam: a method for stochastic optimization", arXiv 1412.6980, algorithm 1.
    """

    state_names = ("gradient_sum", "square_sum")
    scalar_names = ("beta1", "beta2", "eps", "scale", "weight_decay", "keep")
    _kind_of_decay = "gradient"

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr, betas=betas, eps=eps, weight_decay=weight_decay)

    @classmethod
    def _checked(cls, settings: Settings) -> Settings:
        try:
            beta1, beta2 = settings["betas"]
        except (TypeError, ValueError):
            raise TypeError(f"{cls.__name__}: betas must be a pair of numbers, got {settings['betas']!r}") from None
        betas = cls._number("betas[0]", beta1, below=1.0), cls._number("betas[1]", beta2, below=1.0)
        found = {name: cls._number(name, settings[name]) for name in ("lr", "eps", "weight_decay")}
        return {**found, "betas": betas}

    def _numbers(self, settings: Settings, steps: int) -> tuple[float, ...]:
        lr, weight_decay, (beta1, beta2) = settings["lr"], settings["weight_decay"], settings["betas"]
        c = math.sqrt((1.0 - beta2**steps) / (1.0 - beta2))
        scale = lr * c * (1.0 - beta1) / (1.0 - beta1**steps)
        return beta1, beta2, settings["eps"] * c, scale, weight_decay, 1.0 - lr * weight_decay

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
        adam_definition(xp, p, g, states, scratch, numbers, self._decay(settings))

    def _launch(self, flat: FlatParameters, clip: Array | None) -> None:
        m, v = flat.states.values()
        adam_step(
            flat.data, flat.gradient, m, v, flat.scalars.values, flat.pieces,
            decay=self._decay(flat.settings), master=flat.master, clip=clip,
        )  # fmt: skip

    @classmethod
    def _decay(cls, settings: Settings) -> str:
        return cls._kind_of_decay if settings["weight_decay"] else "none"


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter itself, p ← (1 − lr·weight_decay)·p, before Adam's step.

    Args:
        parameters, lr, betas, eps: as for :class:`Adam`.
        weight_decay: decay rate, >= 0.
    Source: Loshchilov and Hutter 2017, "Decoupled weight decay regularization", arXiv 1711.05101, algorithm 2.
    """

    _kind_of_decay = "parameter"

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay)
