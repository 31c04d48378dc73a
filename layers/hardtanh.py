"""The identity between two bounds."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .module import Module
from .real import real


@op
def hardtanh(x: Array, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """``min(max(x, min_val), max_val)``, elementwise; the slope is 1 between the bounds, 0 at and beyond them."""
    _check("hardtanh", min_val, max_val)
    return activation("hardtanh", x, hardtanh_form(min_val, max_val))


def hardtanh_form(low: float, high: float) -> Activation:
    """The identity between two bounds, and its slope."""

    def fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
        xp.clip(x, low, high, out=y)
        if slope is not None:
            slope[...] = (x > low) & (x < high)

    return Activation("hardtanh", fill, low, high)


def _check(name: str, min_val: float, max_val: float) -> None:
    if not min_val < max_val:
        raise ValueError(f"{name}: min_val must be less than max_val, got min_val={min_val}, max_val={max_val}")


class Hardtanh(Module):
    """``min(max(x, min_val), max_val)``, elementwise."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val = real("Hardtanh", "min_val", min_val)
        self.max_val = real("Hardtanh", "max_val", max_val)
        _check("Hardtanh", min_val, max_val)

    def forward(self, x: Any) -> Tensor:
        return hardtanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"

    def fused_form(self) -> Activation:
        return hardtanh_form(self.min_val, self.max_val)
