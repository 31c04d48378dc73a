"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..autograd import Parameter
from ..backend import Array
from .optimizer import Optimizer


class SGD(Optimizer):
    """p ← p − lr·v with v ← μ·v + (1 − dampening)·g, and v = g in the first step.

    g is the gradient plus ``weight_decay``·p. Nesterov's form takes g + μ·v in place of v. The rate multiplies v when
    it is applied (PyTorch), not when it is stored (Keras): they differ where the rate changes.

    Args:
        parameters: what to learn.
        lr: learning rate, >= 0.
        momentum: μ, >= 0; 0 keeps no state.
        dampening: how much of the gradient is left out of v, >= 0.
        weight_decay: factor of the parameter that is added to its gradient (an L2 penalty), >= 0.
        nesterov: look ahead; needs momentum > 0 and dampening 0.
    Raises:
        ValueError: a number is out of its range.
    Source: Polyak 1964; Sutskever et al. 2013, "On the importance of initialization and momentum".
    """

    scalar_names = ("lr", "momentum", "gain", "weight_decay")
    hyperparameters = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.momentum = self._number("momentum", momentum)
        self.dampening = self._number("dampening", dampening)
        self.weight_decay = self._number("weight_decay", weight_decay)
        self.nesterov = bool(nesterov)
        if nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError(
                f"SGD: nesterov needs momentum above 0 and dampening 0, got momentum={momentum}, "
                f"dampening={dampening}"
            )
        if self.momentum:
            self.state_names = ("velocity",)
        super().__init__(parameters, lr)

    def _numbers(self, steps: int) -> tuple[float, ...]:
        gain = 1.0 if steps == 1 else 1.0 - self.dampening
        return self.lr, self.momentum, gain, self.weight_decay

    def _update(
        self, xp: Any, p: Array, g: Array, states: tuple[Array, ...], scratch: Array, numbers: tuple[Array, ...]
    ) -> None:
        lr, momentum, gain, weight_decay = numbers
        if self.weight_decay:
            g = self._decayed(xp, p, g, weight_decay, scratch)
        if states:
            (v,) = states
            v *= momentum
            if self.dampening:
                v += xp.multiply(g, gain, out=scratch)
            else:
                v += g
            if self.nesterov:
                p -= xp.multiply(g, lr, out=scratch)
                p -= xp.multiply(xp.multiply(v, momentum, out=scratch), lr, out=scratch)
                return
            g = v
        p -= xp.multiply(g, lr, out=scratch)

    @staticmethod
    def _decayed(xp: Any, p: Array, g: Array, weight_decay: Array, scratch: Array) -> Array:
        decayed = xp.multiply(p, weight_decay, out=scratch)
        decayed += g
        return decayed
