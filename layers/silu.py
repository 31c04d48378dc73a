"""The sigmoid linear unit."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ._elementwise import activation
from .module import Module
from .swish import swish_fill


@op
def silu(x: Array) -> Any:
    """``x / (1 + exp(-x))``, elementwise: swish with ``beta`` 1.

    Source: Elfwing, Uchibe, Doya 2017, arXiv 1702.03118.
    """
    return activation("silu", x, _fill)


_fill = swish_fill(1.0)


class SiLU(Module):
    """``x / (1 + exp(-x))``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return silu(x)
