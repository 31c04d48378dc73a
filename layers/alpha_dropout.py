"""Alpha dropout, for networks of SELU units: it keeps mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import op
from ..backend import Array, Generator, backend_of, random_bits
from .module import Module

_LOWEST = -1.7580993408473766  # the limit of SELU at -infinity, -scale * alpha


@op
def alpha_dropout(x: Array, p: float, key: int, offset: int) -> Any:
    """``a * (x * keep + s * (1 - keep)) + b``, where ``keep`` is 0 with probability ``p`` and ``s`` is SELU's limit.

    ``a = 1 / sqrt((1 - p) (1 + p s^2))`` and ``b = -a p s`` bring mean 0 and variance 1 back. The derivative is
    ``a * keep``.

    Args:
        x: any shape, floating.
        p: probability of dropping, in [0, 1].
        key, offset: place in a random stream, from ``Generator.reserve(x.size)``.
    Source: Klambauer et al. 2017, "Self-normalizing neural networks", arXiv 1706.02515.
    """
    backend = backend_of(x)
    device, shape, dtype = backend.device_of(x), x.shape, x.dtype
    threshold = round(p * 2.0**32)
    if threshold >= 1 << 32:  # p = 1: no 32-bit word reaches it
        return backend.xp.zeros(shape, dtype), lambda dy: (backend.xp.zeros(shape, dtype),)
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _LOWEST**2))

    def keep() -> Array:
        bits = random_bits(key, offset, math.prod(shape), device)
        return (bits >= threshold).reshape(shape)

    y = x - _LOWEST
    y *= keep()
    y += _LOWEST - p * _LOWEST
    y *= a

    def backward(dy: Array) -> Any:
        dx = dy * keep()
        dx *= a
        return (dx,)

    return y, backward


class AlphaDropout(Module):
    """Sets values to the lower limit of SELU with probability ``p`` in training, keeping mean 0 and variance 1.

    Args:
        p: probability of dropping, in [0, 1].
        rng: the stream of masks; a fresh generator by default.
    """

    def __init__(self, p: float = 0.5, *, rng: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"AlphaDropout: p must be in [0, 1], got {p}")
        self.p = p
        self.rng = rng if rng is not None else Generator()

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0:
            return x
        return alpha_dropout(x, self.p, *self.rng.reserve(x.size))

    def extra_repr(self) -> str:
        return f"p={self.p}"
