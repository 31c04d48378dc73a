"""Dropout: in training each value is set to 0 with probability p."""

from __future__ import annotations

from typing import Any

from ..autograd import op
from ..backend import Array, Generator, backend_of, random_bits
from .module import Module


@op
def dropout(x: Array, p: float, key: int, offset: int) -> Any:
    """``x * keep / (1 - p)``, where ``keep`` is 0 with probability ``p`` and 1 otherwise.

    Nothing is stored for the backward pass but ``key`` and ``offset``: the mask is a function of them, bit-identical
    on every device. Element ``i`` is kept where word ``offset + i`` of the stream is at least ``p * 2**32``.

    Args:
        x: any shape, floating.
        p: probability of dropping, in [0, 1].
        key, offset: place in a random stream, from ``Generator.reserve(x.size)``.
    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    backend = backend_of(x)
    device, shape, dtype, count = backend.device_of(x), x.shape, x.dtype, x.size
    threshold = round(p * 2.0**32)
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0

    def masked(values: Array) -> Array:
        if threshold >= 1 << 32:  # p = 1: no 32-bit word reaches it
            return backend.xp.zeros(shape, dtype)
        keep = (random_bits(key, offset, count, device) >= threshold).reshape(shape)
        y = values * keep
        y *= scale
        return y

    return masked(x), lambda dy: (masked(dy),)


class Dropout(Module):
    """Sets values to 0 with probability ``p`` in training and scales the others by ``1 / (1 - p)``; else does nothing.

    Args:
        p: probability of dropping, in [0, 1].
        rng: the stream of masks; a fresh generator by default. Its state is (seed, offset).
    """

    def __init__(self, p: float = 0.5, *, rng: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p must be in [0, 1], got {p}")
        self.p = p
        self.rng = rng if rng is not None else Generator()

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0:
            return x
        return dropout(x, self.p, *self.rng.reserve(x.size))

    def extra_repr(self) -> str:
        return f"p={self.p}"
