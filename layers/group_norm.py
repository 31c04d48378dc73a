"""Group normalisation: each group of channels of each sample is brought to mean 0 and variance 1."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, op
from ..backend import Array
from . import init
from .lengths import length
from .module import Module
from .real import not_negative


@op
def group_norm(
    x: Array, num_groups: int, weight: Array | None = None, bias: Array | None = None, eps: float = 1e-5
) -> Any:
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``; mean and variance over each group of channels.

    Args:
        x: shape ``(N, C, ...)``, floating.
        num_groups: how many groups the channels form, neighbours together; 1 takes all, C each channel alone.
        weight, bias: shape ``(C,)``, or None.
        eps: added to the variance (the biased one, divided by the number of values).
    Source: Wu and He 2018, arXiv 1803.08494.
    """
    y, mean, rstd = kernels.group_norm(x, num_groups, weight, bias, eps)

    def backward(dy: Array) -> Any:
        dx, dweight, dbias = kernels.group_norm_backward(dy, x, mean, rstd, weight)
        return dx, None, None if weight is None else dweight, None if bias is None else dbias

    return y, backward


class GroupNorm(Module):
    """Brings each group of channels of each sample to mean 0 and variance 1, then scales and shifts each channel.

    Args:
        num_groups: how many groups the channels form; divides ``num_channels``.
        num_channels: length of axis 1 of the input.
        eps: added to the variance.
        affine: whether there are a weight (1 at first) and a bias (0 at first).

    Attributes:
        weight, bias: shape ``(num_channels,)``, or None.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        num_groups = length("GroupNorm", "num_groups", num_groups)
        num_channels = length("GroupNorm", "num_channels", num_channels)
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise ValueError(
                f"GroupNorm: num_channels must be a positive multiple of num_groups, "
                f"got num_channels={num_channels}, num_groups={num_groups}"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps = not_negative("GroupNorm", "eps", eps)
        self.weight = Parameter(init.ones((num_channels,))) if affine else None
        self.bias = Parameter(init.zeros((num_channels,))) if affine else None

    def forward(self, x: Any) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"GroupNorm: x must have shape (N, {self.num_channels}, ...), got {tuple(x.shape)}")
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", affine=False"
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}{affine}"
