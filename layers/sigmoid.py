"""The logistic sigmoid."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .module import Module


@op
def sigmoid(x: Array) -> Any:
    """``1 / (1 + exp(-x))``, elementwise, without overflow at either end; computed as ``(1 + tanh(x / 2)) / 2``."""
    y = backend_of(x).xp.tanh(x * 0.5)
    y *= 0.5
    y += 0.5
    return y, lambda dy: (dy * (y * (1 - y)),)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return sigmoid(x)
