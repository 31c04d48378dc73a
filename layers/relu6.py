"""The rectified linear unit that stops at 6."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .hardtanh import hardtanh_form
from .module import Module


@op
def relu6(x: Array) -> Any:
    """``min(max(x, 0), 6)``, elementwise; the slope is 0 at both bounds."""
    return activation("relu6", x, _FORM)


_FORM = hardtanh_form(0.0, 6.0)


class ReLU6(Module):
    """``min(max(x, 0), 6)``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return relu6(x)

    def fused_form(self) -> Activation:
        return _FORM
