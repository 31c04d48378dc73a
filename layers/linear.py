"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, add, op
from ..backend import Array, Generator, as_generator, backend_of
from ..kernels.activation import IDENTITY
from . import init
from .drop import check_dropping
from .dropout import dropout
from .lengths import length
from .module import Module, extend_path


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
    _check(x, weight, bias)
    backend = backend_of(x)
    gemm = backend.gemm
    count = math.prod(x.shape[:-1])  # not -1: an empty array fits every number of rows
    rows = x if x.ndim == 2 else x.reshape(count, x.shape[-1])  # (N, in)
    y = gemm(rows, weight.T)  # (N, out)
    if bias is not None:
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
        lambda dy, out: kernels.sum_rows(flat(dy), out),
    )


def _check(x: Array, weight: Array, bias: Array | None) -> None:
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: x must have shape (..., in_features) and weight (out_features, in_features), "
            f"got {x.shape} and {weight.shape}"
        )
    if x.dtype != weight.dtype:
        raise TypeError(
            f"linear: x and weight must have one dtype, got {x.dtype} and {weight.dtype}; cast with .astype"
        )
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        raise ValueError(
            f"linear: bias must be {weight.dtype} of shape {weight.shape[:1]}, got {bias.dtype} of {bias.shape}"
        )


def linear_activation(
    x: Any, weight: Any, bias: Any = None, activation: Any = None, *, residual: Any = None, p: float = 0.0,
    training: bool = True, rng: Generator | None = None,
) -> Any:  # fmt: skip
    """``y = residual + dropout(activation(x weight^T + bias))``; on CUDA the product and one launch.

    Args:
        x, weight, bias: as for :func:`linear`.
        activation: a module or function of one tensor, or None. Those of this room become part of the launch.
        residual: of the shape of the result, or None.
        p: probability of dropping, in [0, 1].
        training: without it nothing is dropped.
        rng: the stream of masks, as for :func:`dropout`; a fresh generator by default.
    """
    from .fusion import can_fuse, form_of

    form = None if activation is None else form_of(activation)
    if can_fuse(x) and (activation is None or form is not None):
        dropping = None
        if p:
            p, rng = check_dropping("linear_activation", x, p), as_generator("linear_activation", rng)
            dropping = (p, rng) if training else None
        return _with_epilogue(x, weight, bias, residual, form, dropping)
    y = linear(x, weight, bias)
    y = y if activation is None else activation(y)
    y = dropout(y, p, training=training, rng=rng) if p else y
    return y if residual is None else add(residual, y)


@op
def _with_epilogue(
    x: Array, weight: Array, bias: Any, residual: Any, form: kernels.Activation | None,
    drop: tuple[float, Generator] | None,
) -> Any:  # fmt: skip
    """``residual + dropout(f(z))`` with ``z = x weight^T + bias``; all gradients begin with that of ``z``.

    Dropout is a probability and a stream, which moves on once nothing can be refused any more.
    """
    _check(x, weight, bias)
    backend = backend_of(x)
    gemm = backend.gemm
    shape, count = x.shape, math.prod(x.shape[:-1])
    rows = x if x.ndim == 2 else x.reshape(count, x.shape[-1])  # (N, in)
    z = gemm(rows, weight.T)  # (N, out), without bias, which the kernel adds
    added = None if residual is None else _rows_of(residual, z, (*shape[:-1], weight.shape[0]))
    dropping = None if drop is None else kernels.Dropout(drop[0], *drop[1].reserve(z.size))
    f = form or IDENTITY
    over = form is None or (f.by_output and dropping is None and residual is None)  # z is not needed again
    y = kernels.activation_forward(z, f, bias=bias, residual=added, dropout=dropping, out=z if over else None)
    held: list[Any] = []

    def dz(dy: Array) -> Array:
        if not held or held[0] is not dy:
            flat = dy if dy.ndim == 2 else dy.reshape(count, dy.shape[-1])
            held[:] = [dy, _gradient_of_z(flat, z, bias, form, dropping, over)]
        return held[1]

    def dx(dy: Array, out: Any) -> Array:
        g = gemm(dz(dy), weight)
        return g if len(shape) == 2 else g.reshape(shape)

    return y if len(shape) == 2 else y.reshape(*shape[:-1], weight.shape[0]), (
        dx,
        lambda dy, out: gemm(dz(dy).T, rows, out),
        lambda dy, out: kernels.sum_rows(dz(dy), out),
        lambda dy, out: dy,
    )


def _gradient_of_z(
    dy: Array, z: Array, bias: Any, form: kernels.Activation | None, dropping: kernels.Dropout | None, over: bool
) -> Array:
    if form is not None and over:
        return kernels.activation_backward(dy, z, form, from_output=True)
    if form is not None:
        return kernels.activation_backward(dy, z, form, bias=bias, dropout=dropping)
    return dy if dropping is None else kernels.activation_backward(dy, dy, dropout=dropping)


def _rows_of(residual: Array, z: Array, shape: tuple[int, ...]) -> Array:
    if residual.shape != shape or residual.dtype != z.dtype:
        raise ValueError(
            f"linear_activation: residual must be {z.dtype} of shape {shape}, got {residual.dtype} of {residual.shape}"
        )
    return residual.reshape(z.shape)


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

    def run_with(self, x: Any, form: kernels.Activation | None, drop: Any, residual: Any) -> Tensor:
        """Forward with an activation, a Dropout module and a residual, or None, in one launch; for ``fusion.py``."""
        dropping = None
        try:
            if drop is not None and drop.training and drop.p:
                dropping = drop.p, drop.rng
            return _with_epilogue(x, self.weight, self.bias, residual, form, dropping)
        except Exception as error:
            extend_path(self, error)
            raise

    def extra_repr(self) -> str:
        bias = "" if self.bias is not None else ", bias=False"
        return f"in_features={self.in_features}, out_features={self.out_features}{bias}"
