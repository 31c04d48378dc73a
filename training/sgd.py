"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter
from ..backend import Array
from ..kernels.optimizer_step import sgd_definition, sgd_step
from .flat import FlatParameters
from .groups import Settings
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

    def __init__(
        self,
        parameters: Iterable[Parameter] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            parameters, lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    @classmethod
    def _checked(cls, settings: Settings) -> Settings:
        found = {name: cls._number(name, settings[name]) for name in ("lr", "momentum", "dampening", "weight_decay")}
        if settings["nesterov"] and (found["momentum"] == 0.0 or found["dampening"] != 0.0):
            raise ValueError(
                f"{cls.__name__}: nesterov needs momentum above 0 and dampening 0, got momentum={found['momentum']}, "
                f"dampening={found['dampening']}"
            )
        return {**found, "nesterov": bool(settings["nesterov"])}

    @classmethod
    def _states(cls, settings: Settings) -> tuple[str, ...]:
        return ("velocity",) if settings["momentum"] else ()

    def _numbers(self, settings: Settings, steps: int) -> tuple[float, ...]:
        gain = 1.0 if steps == 1 else 1.0 - settings["dampening"]
        return settings["lr"], settings["momentum"], gain, settings["weight_decay"]

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
        nesterov, damped = settings["nesterov"], settings["dampening"] != 0.0
        sgd_definition(xp, p, g, states, scratch, numbers, self._decay(settings), nesterov, damped)

    def _launch(self, flat: FlatParameters, clip: Array | None) -> None:
        sgd_step(
            flat.data, flat.gradient, flat.states.get("velocity"), flat.scalars.values, flat.pieces,
            nesterov=flat.settings["nesterov"], decay=self._decay(flat.settings), master=flat.master, clip=clip,
        )  # fmt: skip

    @staticmethod
    def _decay(settings: Settings) -> str:
        return "gradient" if settings["weight_decay"] else "none"
