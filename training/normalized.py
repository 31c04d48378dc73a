"""Normalised gradient descent: steps of one length, whatever the length of the gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter
from ..backend import Array, backend_of
from ..kernels.gradient_norm import beside, gradient_norm, scale_in_place
from .groups import Settings
from .optimizer import Optimizer

_TINY = 1e-37  # in place of a norm of 0: then the gradient is 0, and so is the step


class NormalizedGradientDescent(Optimizer):
    """p ← p − lr·g / ‖g‖: every step has the length ``lr``, however flat or steep the place is.

    ‖g‖ is the norm of the whole gradient, over all parameters. Where the gradient is exactly 0, nothing moves. On
    plateaus and near saddle points this keeps going; near a minimum it walks to and fro unless the rate falls.

    Args:
        parameters: what to learn, or groups of it, which share the norm.
        lr: the length of a step, >= 0.
    Source: the lectures' normalised gradient descent; Nesterov 1984, "Minimization methods for nonsmooth convex and
        quasiconvex functions".
    """

    scalar_names = ("lr",)
    _inverse: Any = None  # 1 / ‖g‖ of this step, a 0-d array

    def __init__(self, parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]], lr: float = 1e-2) -> None:
        super().__init__(parameters, lr)

    def apply(self) -> None:
        gradients = list(self.gradients())
        if gradients:
            norm = gradient_norm(gradients)
            backend = backend_of(norm)
            self._inverse = backend.asarray(1.0 / backend.xp.maximum(norm, _TINY), norm)
        super().apply()

    def _numbers(self, settings: Settings, steps: int) -> tuple[float, ...]:
        return (settings["lr"],)

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
        step = xp.multiply(g, numbers[0], out=scratch)
        scale_in_place(step, beside(self._inverse, p))
        p -= step
