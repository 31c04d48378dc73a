"""The sigmoid linear unit."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation, register_form
from .module import Module
from .swish import swish_form


@op
def silu(x: Array) -> Any:
    """``x / (1 + exp(-x))``, elementwise: swish with ``beta`` 1.

    Source: Elfwing, Uchibe, Doya 2017, arXiv 1702.03118.
    """
    return activation("silu", x, _FORM)


_FORM = swish_form(1.0)
register_form(silu, _FORM)


class SiLU(Module):
    """``x / (1 + exp(-x))``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return silu(x)

    def fused_form(self) -> Activation:
        return _FORM
