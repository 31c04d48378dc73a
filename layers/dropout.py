"""Dropout: in training each value is set to 0 with probability p."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import op
from ..backend import Array, Generator, as_generator
from ..kernels.activation import has_activation_kernel, kept
from .drop import Dropping, check_dropping


@op
def _dropout(x: Array, p: float, key: int, offset: int) -> Any:
    dropping = kernels.Dropout(p, key, offset)
    if has_activation_kernel(x):
        return kernels.activation_forward(x, dropout=dropping), lambda dy: (masked_by_kernel(dy, dropping),)
    shape = x.shape

    def masked(values: Array) -> Array:
        y = values * kept(values, shape, dropping)
        y *= dropping.scale
        return y

    return masked(x), lambda dy: (masked(dy),)


def masked_by_kernel(dy: Array, dropping: kernels.Dropout) -> Array:
    """The gradient of what was dropped from: the same places are dropped again."""
    return kernels.activation_backward(dy, dy, dropout=dropping)


def dropout(x: Any, p: float = 0.5, *, training: bool = True, rng: Generator | None = None) -> Any:
    """``x * keep / (1 - p)``, where ``keep`` is 0 with probability ``p`` and 1 otherwise.

    Nothing is stored for the backward pass but the place in the random stream: the mask is a function of it,
    bit-identical on every device.

    Args:
        x: any shape, floating.
        p: probability of dropping, in [0, 1].
        training: without it ``x`` comes back as it is.
        rng: the stream of masks, which moves on by ``x.size`` words; a fresh generator by default.
    Source: Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """
    p = check_dropping("dropout", x, p)
    rng = as_generator("dropout", rng)
    if not training or p == 0:
        return x
    return _dropout(x, p, *rng.reserve(x.size))


class Dropout(Dropping):
    """Sets values to 0 with probability ``p`` in training and scales the others by ``1 / (1 - p)``; else does nothing.

    Args:
        p: probability of dropping, in [0, 1].
        rng: the stream of masks; a fresh generator by default. Its state is (seed, offset).
    """

    def forward(self, x: Any) -> Any:
        return dropout(x, self.p, training=self.training, rng=self.rng)
