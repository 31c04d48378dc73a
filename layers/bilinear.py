"""The bilinear layer: a weighted sum of all products of two inputs' values."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, op
from ..backend import Array, Generator, as_generator, backend_of
from . import init
from .module import Module


@op
def bilinear(x1: Array, x2: Array, weight: Array, bias: Array | None = None) -> Any:
    """``y_k = x1^T weight_k x2 + bias_k``.

    Linear in each input: ``dy_k/dx1 = weight_k x2``, ``dy_k/dx2 = weight_k^T x1``, ``dy_k/dweight_k = x1 x2^T``.

    Args:
        x1: shape ``(..., in1_features)``.
        x2: shape ``(..., in2_features)``.
        weight: shape ``(out_features, in1_features, in2_features)``.
        bias: shape ``(out_features,)``, or None.
    Returns:
        shape ``(..., out_features)``.
    Raises:
        ValueError: the lengths do not fit. TypeError: the dtypes differ.
    """
    if (
        weight.ndim != 3
        or x1.ndim == 0
        or x1.shape[:-1] != x2.shape[:-1]
        or (x1.shape[-1], x2.shape[-1]) != weight.shape[1:]
    ):
        raise ValueError(
            "bilinear: x1 must have shape (..., in1_features), x2 (..., in2_features) and weight (out_features, "
            f"in1_features, in2_features), got {x1.shape}, {x2.shape} and {weight.shape}"
        )
    if x1.dtype != weight.dtype or x2.dtype != weight.dtype:
        raise TypeError(
            f"bilinear: x1, x2 and weight must have one dtype, got {x1.dtype}, {x2.dtype} and {weight.dtype}"
        )
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        raise ValueError(
            f"bilinear: bias must be {weight.dtype} of shape {weight.shape[:1]}, got {bias.dtype} of {bias.shape}"
        )
    backend = backend_of(x1)
    gemm, dtype = backend.gemm, weight.dtype
    outs, ins1, ins2 = weight.shape
    lead = x1.shape[:-1]
    a, b = x1.reshape(-1, ins1), x2.reshape(-1, ins2)  # (N, in1), (N, in2)
    count = a.shape[0]
    flat = weight.transpose(1, 0, 2).reshape(ins1, outs * ins2)
    half = gemm(a, flat).reshape(count, outs, ins2)  # (N, out, in2): x1^T weight_k
    wide = "float32" if dtype.itemsize == 2 else dtype
    y = (half * b[:, None, :]).sum(axis=2, dtype=wide).astype(dtype, copy=False)
    if bias is not None:
        y += bias

    def spread(dy: Array) -> Array:
        return (dy.reshape(count, outs, 1) * b[:, None, :]).reshape(count, outs * ins2)

    def dx2(dy: Array, out: Any) -> Array:
        g = (dy.reshape(count, outs, 1) * half).sum(axis=1, dtype=wide)
        return g.astype(dtype, copy=False).reshape(x2.shape)

    def dweight(dy: Array, out: Any) -> Array:
        g = gemm(a.T, spread(dy)).reshape(ins1, outs, ins2)
        return backend.xp.ascontiguousarray(g.transpose(1, 0, 2))

    return y.reshape(*lead, outs), (
        lambda dy, out: gemm(spread(dy), flat.T).reshape(x1.shape),
        dx2,
        dweight,
        lambda dy, out: kernels.sum_rows(dy.reshape(count, outs), out),
    )


class Bilinear(Module):
    """Every output is a weighted sum of all products of a value of ``x1`` and a value of ``x2``.

    Args:
        in1_features, in2_features: lengths of the inputs' last axes.
        out_features: length of the output's last axis.
        bias: whether a learned constant is added.
        rng: draws the initial values, U(±1/sqrt(in1_features)) as in PyTorch; a fresh generator by default.

    Attributes:
        weight: shape ``(out_features, in1_features, in2_features)``.
        bias: shape ``(out_features,)``, or None.
    """

    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Generator | None = None,
    ) -> None:
        for name, value in (
            ("in1_features", in1_features),
            ("in2_features", in2_features),
            ("out_features", out_features),
        ):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"Bilinear: {name} must be an int, got {value!r}")
            if value < 1:
                raise ValueError(f"Bilinear: {name} must be at least 1, got {value}")
        rng = as_generator("Bilinear", rng)
        self.in1_features, self.in2_features, self.out_features = in1_features, in2_features, out_features
        self.weight = Parameter(
            init.fan_in_uniform((out_features, in1_features, in2_features), in1_features, rng=rng)
        )
        self.bias = Parameter(init.fan_in_uniform((out_features,), in1_features, rng=rng)) if bias else None

    def forward(self, x1: Any, x2: Any) -> Tensor:
        return bilinear(x1, x2, self.weight, self.bias)

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}{bias}"
        )
