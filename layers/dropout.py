"""Dropout: in training each value is set to 0 with probability p."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import is_recording, op
from ..backend import Array, Backend, Generator, as_generator, backend_of
from ..kernels.activation import has_activation_kernel, kept
from .drop import Dropping, check_dropping


@op
def _dropout(x: Array, p: float, key: int, offset: int) -> Any:
    dropping = kernels.Dropout(p, key, offset)
    if has_activation_kernel(x):
        return kernels.activation_forward(x, dropout=dropping), lambda dy: (masked_by_kernel(dy, dropping),)
    backend, shape = backend_of(x), x.shape
    keep = kept(x, shape, dropping)
    y = x * keep
    y *= dropping.scale
    # Where drawing takes long, on the CPU, the mask is kept for the backward pass, a bit for each value.
    bits = backend.xp.packbits(keep) if is_recording() and not backend.runs_cuda else None

    def dx(dy: Array) -> Array:
        again = kept(dy, shape, dropping) if bits is None else _unpacked(backend, bits, shape)
        g = dy * again
        g *= dropping.scale
        return g

    return y, lambda dy: (dx(dy),)


def _unpacked(backend: Backend, bits: Array, shape: tuple[int, ...]) -> Array:
    flat: Array = backend.xp.unpackbits(bits, count=math.prod(shape))
    return flat.view(bool).reshape(shape)


def masked_by_kernel(dy: Array, dropping: kernels.Dropout) -> Array:
    """The gradient of what was dropped from: the same places are dropped again."""
    return kernels.activation_backward(dy, dy, dropout=dropping)


def dropout(x: Any, p: float = 0.5, *, training: bool = True, rng: Generator | None = None) -> Any:
    """``x * keep / (1 - p)``, where ``keep`` is 0 with probability ``p`` and 1 otherwise.

    The mask is a function of the place in the random stream, bit-identical on every device: nothing else is stored for
    the backward pass, but on the CPU a bit for each value.

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
