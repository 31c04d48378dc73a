"""The step function of the perceptron."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from ..kernels.elementwise import elementwise
from ._elementwise import check_floating
from .module import Module


@op
def step(x: Array) -> Any:
    """``1{x >= 0}``, elementwise: 0 or 1, NaN where ``x`` is. The derivative is 0 everywhere, also at the step."""
    check_floating("step", x)
    (y,) = elementwise(lambda xp, x, y: xp.heaviside(x, 1.0, y), x)
    return y, lambda dy: (backend_of(dy).xp.zeros_like(dy),)


class Step(Module):
    """``1{x >= 0}``, elementwise. Nothing before it can learn by gradients: its derivative is 0."""

    def forward(self, x: Any) -> Tensor:
        return step(x)
