"""The scaled exponential linear unit of self-normalising networks."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array
from ..kernels.activation import Activation
from ._elementwise import activation
from .elu import elu_form
from .module import Module

_ALPHA, _SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

_FORM = elu_form(_ALPHA, _SCALE)


@op
def selu(x: Array) -> Any:
    """``scale * elu(x, alpha)``, elementwise, with the constants that keep mean 0 and variance 1 from layer to layer.

    ``alpha = 1.6733`` and ``scale = 1.0507``; the slope at 0 is ``scale * alpha``.
    Source: Klambauer et al. 2017, arXiv 1706.02515, equation 14.
    """
    return activation("selu", x, _FORM)


class SELU(Module):
    """``1.0507 * elu(x, 1.6733)``, elementwise."""

    def forward(self, x: Any) -> Tensor:
        return selu(x)

    def fused_form(self) -> Activation:
        return _FORM
