"""The rectified linear unit that stops at 6."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ._elementwise import activation
from .hardtanh import hardtanh_fill
from .module import Module


@op
def relu6(x: Array) -> Any:
    """``min(max(x, 0), 6)``, elementwise; the slope is 0 at both bounds."""
    return activation("relu6", x, _fill)


_fill = hardtanh_fill(0.0, 6.0)


class ReLU6(Module):
    """``min(max(x, 0), 6)``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return relu6(x)
