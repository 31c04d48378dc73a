"""The rectified linear unit."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..autograd.tensor import is_floating
from ..backend import Array, backend_of
from ..kernels.activation import Activation, has_activation_kernel
from ..kernels.elementwise import CHUNK, elementwise
from ._elementwise import by_kernel, register_form
from .module import Module


@op
def relu(x: Array) -> Any:
    """``max(x, 0)``, elementwise. The derivative at 0 is 0, as frameworks have it; lecture notes often write 1."""
    backend = backend_of(x)
    if backend.runs_cuda and has_activation_kernel(x):
        return by_kernel(x, _FORM)
    if x.size > CHUNK and is_floating(x.dtype):
        (y,) = elementwise(_relu, x)
        return y, lambda dy: elementwise(_relu_backward, dy, y, quiet=False)
    y = backend.xp.maximum(x, 0)
    return y, lambda dy: (dy * (y > 0),)


def _relu(xp: Any, x: Array, y: Array) -> None:
    xp.clip(x, 0.0, math.inf, out=y)  # NumPy's maximum with a number is three times slower


def _relu_backward(xp: Any, dy: Array, y: Array, dx: Array) -> None:
    xp.multiply(dy, y > 0, out=dx)


def _fill(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    _relu(xp, x, y)
    if slope is not None:
        slope[...] = x > 0


_FORM = Activation("relu", _fill)
register_form(relu, _FORM)


class ReLU(Module):
    """``max(x, 0)``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return relu(x)

    def fused_form(self) -> Activation:
        return _FORM
