"""The hyperbolic tangent as an activation."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, tanh
from .module import Module


class Tanh(Module):
    """``tanh x``, elementwise: between -1 and 1, odd, derivative ``1 - y**2``."""

    def forward(self, x: Any) -> Tensor:
        return tanh(x)
