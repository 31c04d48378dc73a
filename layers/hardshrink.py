"""Hard thresholding: small values become 0."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module
from .real import real


@op
def hardshrink(x: Array, lambd: float = 0.5) -> Any:
    """``x`` where ``|x| > lambd``, else 0, elementwise; the slope is 1 or 0, 0 at the jumps."""
    _check("hardshrink", lambd)

    return activation("hardshrink", x, _form(lambd))


def _form(lambd: float) -> Activation:
    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.absolute(x, out=t)
        large = t > lambd
        xp.multiply(x, large, out=y)  # NaN stays
        if slope is not None:
            slope[...] = large

    return Activation("hardshrink", fill, lambd)


def _check(name: str, lambd: float) -> None:
    if not lambd >= 0:
        raise ValueError(f"{name}: lambd must not be negative, got {lambd}")


class Hardshrink(Module):
    """``x`` where ``|x| > lambd``, else 0, elementwise."""

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = real("Hardshrink", "lambd", lambd)
        _check("Hardshrink", self.lambd)

    def forward(self, x: Any) -> Tensor:
        return hardshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}"

    def fused_form(self) -> Activation:
        return _form(self.lambd)
