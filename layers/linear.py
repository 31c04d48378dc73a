"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Parameter, Tensor, op
from ..backend import Array, Generator, as_generator, backend_of
from . import init
from .lengths import length
from .module import Module


@op
def linear(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """``y = x weight^T + bias``.

    Args:
        x: shape ``(..., in_features)``.
        weight: shape ``(out_features, in_features)``.
        bias: shape ``(out_features,)``, or None.
    Returns:
        shape ``(..., out_features)``, of the same dtype.
    Raises:
        ValueError: the lengths do not fit. TypeError: the dtypes differ.
    """
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x must have shape (..., in_features) and weight (out_features, in_features), "
            f"got {x.shape} and {weight.shape}"
        )
    if x.dtype != weight.dtype:
        raise TypeError(
            f"linear: x and weight must have one dtype, got {x.dtype} and {weight.dtype}; cast with .astype"
        )
    backend = backend_of(x)
    gemm = backend.gemm
    count = math.prod(x.shape[:-1])  # not -1: an empty array fits every number of rows
    rows = x if x.ndim == 2 else x.reshape(count, x.shape[-1])  # (N, in)
    y = gemm(rows, weight.T)  # (N, out)
    if bias is not None:
        if bias.shape != weight.shape[:1] or bias.dtype != weight.dtype:
            raise ValueError(
                f"linear: bias must be {weight.dtype} of shape {weight.shape[:1]}, got {bias.dtype} of {bias.shape}"
            )
        y += bias
    shape = x.shape

    def flat(dy: Array) -> Array:
        return dy if dy.ndim == 2 else dy.reshape(count, dy.shape[-1])

    def dx(dy: Array, out: Any) -> Array:
        g = gemm(flat(dy), weight)
        return g if len(shape) == 2 else g.reshape(shape)

    return y if len(shape) == 2 else y.reshape(*shape[:-1], weight.shape[0]), (
        dx,
        lambda dy, out: gemm(flat(dy).T, rows, out),
        lambda dy, out: backend.sum_rows(flat(dy), out),
    )


class Linear(Module):
    """Every output is a weighted sum of every input: ``y = x weight^T + bias``.

    Args:
        in_features: length of the input's last axis.
        out_features: length of the output's last axis.
        bias: whether a learned constant is added.
        rng: draws the initial values, U(±1/sqrt(in_features)) as in PyTorch; a fresh generator by default.

    Attributes:
        weight: shape ``(out_features, in_features)``.
        bias: shape ``(out_features,)``, or None.
    """

    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, rng: Generator | None = None
    ) -> None:
        in_features, out_features = (
            length("Linear", name, value)
            for name, value in (("in_features", in_features), ("out_features", out_features))
        )
        rng = as_generator("Linear", rng)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(init.fan_in_uniform((out_features, in_features), in_features, rng=rng))
        self.bias = Parameter(init.fan_in_uniform((out_features,), in_features, rng=rng)) if bias else None

    def forward(self, x: Any) -> Tensor:
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"in_features={self.in_features}, out_features={self.out_features}{bias}"
