"""The rectified linear unit with a learned slope below 0."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Parameter, Tensor, op, tensor
from ..backend import Array, backend_of
from ..kernels.activation import has_activation_kernel
from ..kernels.elementwise import over_rows
from ..kernels.learned_activation import learned_backward, learned_forward
from ._elementwise import check_floating
from .module import Module
from .real import real


@op
def prelu(x: Array, weight: Array) -> Any:
    """``max(x, 0) + w min(x, 0)``, elementwise; the slope at 0 is ``w``.

    Args:
        x: shape ``(N, C, ...)``, or any where there is one ``w``.
        weight: ``w``, shape ``(1,)``, or ``(C,)`` for one of each channel.
    Raises:
        ValueError: ``weight`` has another shape. TypeError: the dtypes differ, or are not floating.
    Source: He et al. 2015, arXiv 1502.01852.
    """
    check_floating("prelu", x)
    if weight.dtype != x.dtype:
        raise TypeError(f"prelu: x and weight must have one dtype, got {x.dtype} and {weight.dtype}")
    channels = x.shape[1] if x.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ValueError(f"prelu: weight must have shape (1,) or ({channels},) for x of {x.shape}, got {weight.shape}")
    if has_activation_kernel(x):
        y = learned_forward(x, weight, "leaky_relu")
        return y, lambda dy: learned_backward(dy, x, weight, "leaky_relu")
    backend = backend_of(x)
    device, shape, dtype = backend.device_of(x), x.shape, x.dtype
    wide = "float32" if dtype.itemsize == 2 else dtype
    each = weight.shape != (1,)
    layout = (shape[0], channels, math.prod(shape[2:])) if each else (x.size,)
    w = (weight.reshape(-1, 1) if each else weight).astype(wide, copy=False)
    rows = x.reshape(layout).astype(wide, copy=False)

    def fill(xp: Any, x: Array, y: Array, t: Array) -> None:
        xp.clip(x, -math.inf, 0.0, out=t)
        t *= w
        xp.clip(x, 0.0, math.inf, out=y)
        y += t

    def slope(xp: Any, x: Array, dy: Array, dx: Array, t: Array) -> None:
        t[...] = x <= 0
        t *= w
        dx[...] = x > 0
        dx += t
        dx *= dy

    def shares(xp: Any, x: Array, dy: Array, out: Array) -> None:
        xp.clip(x, -math.inf, 0.0, out=out)
        out *= dy

    def dx(dy: Array, out: Any) -> Array:
        g = backend.empty(layout, wide, device)
        over_rows(slope, rows, dy.reshape(layout).astype(wide, copy=False), g, scratch=1)
        return g.astype(dtype, copy=False).reshape(shape)

    def dweight(dy: Array, out: Any) -> Array:
        g = backend.empty(layout, wide, device)
        over_rows(shares, rows, dy.reshape(layout).astype(wide, copy=False), g)
        return g.sum(axis=(0, 2) if each else None).reshape(weight.shape).astype(dtype)

    y = backend.empty(layout, wide, device)
    over_rows(fill, rows, y, scratch=1)
    return y.astype(dtype, copy=False).reshape(shape), (dx, dweight)


class PReLU(Module):
    """``max(x, 0) + weight * min(x, 0)``, elementwise, with a learned ``weight``.

    Args:
        num_parameters: 1, or the number of channels (axis 1) for one of each.
        init: the value to begin with.

    Attributes:
        weight: shape ``(num_parameters,)``.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        if not isinstance(num_parameters, int) or isinstance(num_parameters, bool):
            raise TypeError(f"PReLU: num_parameters must be an int, got {num_parameters!r}")
        if num_parameters < 1:
            raise ValueError(f"PReLU: num_parameters must be at least 1, got {num_parameters}")
        self.weight = Parameter(tensor([real("PReLU", "init", init)] * num_parameters, dtype="float32").data)

    def forward(self, x: Any) -> Tensor:
        return prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.weight.size}"
