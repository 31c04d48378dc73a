"""Layer normalisation: each sample is brought to mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, op
from ..backend import Array
from ..kernels.scalars import integer
from . import init
from .module import Module
from .real import not_negative


@op
def layer_norm(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Any:
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` over the last axes.

    The Jacobian of a row with ``n = (x - mean) / sqrt(var + eps)`` is ``(1 - 1/D - n n^T / D) / sqrt(var + eps)``.

    Args:
        x: shape ``(..., *normalized_shape)``, floating.
        normalized_shape: lengths of the last axes, which are normalised together.
        weight, bias: shape ``normalized_shape``, or None.
        eps: added to the variance (the biased one, divided by the number of values).
    Source: Ba, Kiros and Hinton 2016, arXiv 1607.06450.
    """
    shape = as_shape("layer_norm", normalized_shape)
    check_affine("layer_norm", x, shape, weight=weight, bias=bias)
    before, cols = x.shape, math.prod(shape)
    rows = x.reshape(*before[: x.ndim - len(shape)], cols)
    w = None if weight is None else weight.reshape(cols)
    y, mean, rstd = kernels.layer_norm(rows, w, None if bias is None else bias.reshape(cols), eps)

    def backward(dy: Array) -> Any:
        dx, dweight, dbias = kernels.layer_norm_backward(dy.reshape(rows.shape), rows, mean, rstd, w)
        return (
            dx.reshape(before),
            None,
            None if weight is None else dweight.reshape(shape),
            None if bias is None else dbias.reshape(shape),
        )

    return y.reshape(before), backward


class LayerNorm(Module):
    """Brings the last axes of each sample to mean 0 and variance 1, then scales and shifts each value.

    Args:
        normalized_shape: lengths of the last axes, which are normalised together.
        eps: added to the variance.
        elementwise_affine: whether there is a weight (1 at first) and a bias (0 at first).
        bias: whether there is a bias.

    Attributes:
        weight, bias: shape ``normalized_shape``, or None.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
    ) -> None:
        self.normalized_shape = as_shape("LayerNorm", normalized_shape)
        self.eps = not_negative("LayerNorm", "eps", eps)
        self.weight = Parameter(init.ones(self.normalized_shape)) if elementwise_affine else None
        self.bias = Parameter(init.zeros(self.normalized_shape)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", elementwise_affine=False"
        bias = ", bias=False" if self.weight is not None and self.bias is None else ""
        return f"{self.normalized_shape}, eps={self.eps}{affine}{bias}"


def as_shape(function: str, normalized_shape: int | tuple[int, ...]) -> tuple[int, ...]:
    """A normalized_shape as a tuple of positive lengths."""
    given = normalized_shape if isinstance(normalized_shape, (tuple, list)) else (normalized_shape,)
    shape = tuple(integer(function, "normalized_shape", n) for n in given)
    if not shape or min(shape) < 1:
        raise ValueError(f"{function}: normalized_shape must be one or more positive integers, got {normalized_shape}")
    return shape


def check_affine(function: str, x: Array, shape: tuple[int, ...], **parameters: Array | None) -> None:
    """Raise unless ``x`` ends in the normalized shape, which the parameters have."""
    if x.shape[-len(shape) :] != shape:
        raise ValueError(f"{function}: x must have shape (..., {', '.join(map(str, shape))}), got {x.shape}")
    for name, value in parameters.items():
        if value is not None and value.shape != shape:
            raise ValueError(f"{function}: {name} must have shape {shape}, got {value.shape}")
