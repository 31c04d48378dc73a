"""Root-mean-square normalisation: each sample is brought to mean square 1; its mean is left alone."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, op
from ..backend import Array
from . import init
from .layer_norm import as_shape, check_affine
from .module import Module
from .real import not_negative


@op
def rms_norm(
    x: Array, normalized_shape: int | tuple[int, ...], weight: Array | None = None, eps: float | None = None
) -> Any:
    """``y = x / sqrt(mean(x^2) + eps) * weight`` over the last axes.

    The Jacobian of a row with ``n = x / sqrt(mean(x^2) + eps)`` is ``(1 - n n^T / D) / sqrt(mean(x^2) + eps)``.

    Args:
        x: shape ``(..., *normalized_shape)``, floating.
        normalized_shape: lengths of the last axes, which are normalised together.
        weight: shape ``normalized_shape``, or None.
        eps: added to the mean square; None is the machine epsilon of ``x`` (of float32 for 16-bit floats), as in
            PyTorch. Published models use 1e-6 and the like, and their weights need that.
    Source: Zhang and Sennrich 2019, arXiv 1910.07467.
    """
    shape = as_shape("rms_norm", normalized_shape)
    check_affine("rms_norm", x, shape, weight=weight)
    before, cols = x.shape, math.prod(shape)
    rows = x.reshape(*before[: x.ndim - len(shape)], cols)
    w = None if weight is None else weight.reshape(cols)
    y, rstd = kernels.rms_norm(rows, w, eps)

    def backward(dy: Array) -> Any:
        dx, dweight = kernels.rms_norm_backward(dy.reshape(rows.shape), rows, rstd, w)
        return dx.reshape(before), None, None if weight is None else dweight.reshape(shape)

    return y.reshape(before), backward


class RMSNorm(Module):
    """Brings the last axes of each sample to mean square 1, then scales each value.

    Args:
        normalized_shape: lengths of the last axes, which are normalised together.
        eps: added to the mean square; None is the machine epsilon of the input.
        elementwise_affine: whether there is a weight (1 at first).

    Attributes:
        weight: shape ``normalized_shape``, or None.
    """

    weight: Parameter | None

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float | None = None, elementwise_affine: bool = True
    ) -> None:
        self.normalized_shape = as_shape("RMSNorm", normalized_shape)
        self.eps = None if eps is None else not_negative("RMSNorm", "eps", eps)
        self.weight = Parameter(init.ones(self.normalized_shape)) if elementwise_affine else None

    def forward(self, x: Any) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        return f"{self.normalized_shape}, eps={self.eps}{affine}"
