"""Soft thresholding: everything moves towards 0."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module
from .real import real


@op
def softshrink(x: Array, lambd: float = 0.5) -> Any:
    """``x - lambd`` above ``lambd``, ``x + lambd`` below ``-lambd``, else 0, elementwise; slope 0 at the kinks."""
    _check("softshrink", lambd)

    return activation("softshrink", x, _form(lambd))


def _form(lambd: float) -> Activation:
    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.clip(x, -lambd, lambd, out=y)
        xp.subtract(x, y, out=y)
        if slope is not None:
            slope[...] = xp.absolute(x, out=t) > lambd

    return Activation("softshrink", fill, lambd)


def _check(name: str, lambd: float) -> None:
    if not lambd >= 0:
        raise ValueError(f"{name}: lambd must not be negative, got {lambd}")


class Softshrink(Module):
    """``x - lambd`` above ``lambd``, ``x + lambd`` below ``-lambd``, else 0, elementwise."""

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = real("Softshrink", "lambd", lambd)
        _check("Softshrink", self.lambd)

    def forward(self, x: Any) -> Tensor:
        return softshrink(x, self.lambd)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}"

    def fused_form(self) -> Activation:
        return _form(self.lambd)
