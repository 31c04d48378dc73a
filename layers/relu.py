"""The rectified linear unit."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .module import Module


@op
def relu(x: Array) -> Any:
    """``max(x, 0)``, elementwise. The derivative at 0 is 0, as frameworks have it; lecture notes often write 1."""
    y = backend_of(x).xp.maximum(x, 0)
    return y, lambda dy: (dy * (y > 0),)


class ReLU(Module):
    """``max(x, 0)``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return relu(x)
