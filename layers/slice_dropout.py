"""Dropout of whole slices: channels of images, or whole samples of a residual branch."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, Generator, backend_of, random_bits
from .module import Module


@op
def slice_dropout(x: Array, p: float, key: int, offset: int, axes: int = 2) -> Any:
    """``x * keep / (1 - p)``, one ``keep`` for each slice of the first ``axes`` axes: 0 with probability ``p``, or 1.

    Like :func:`dropout`, it stores nothing but ``key`` and ``offset``.

    Args:
        x: shape ``(N, C, ...)``, floating.
        p: probability of dropping, in [0, 1].
        key, offset: place in a random stream, from ``Generator.reserve(math.prod(x.shape[:axes]))``.
        axes: 2 drops channels, 1 drops samples.
    """
    backend = backend_of(x)
    lead, dtype, device = x.shape[:axes], x.dtype, backend.device_of(x)
    threshold = round(p * 2.0**32)
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0
    mask = (*lead, *(1,) * (x.ndim - axes))

    def masked(values: Array) -> Array:
        bits = random_bits(key, offset, math.prod(lead), device)
        if threshold >= 1 << 32:  # p = 1: no 32-bit word reaches it
            return values * backend.xp.zeros(mask, dtype)
        factor = (bits >= threshold).astype(dtype)
        factor *= scale
        return values * factor.reshape(mask)

    return masked(x), lambda dy: (masked(dy),)


class _SliceDropout(Module):
    """What Dropout1d, Dropout2d, Dropout3d and DropPath share."""

    _axes = 2
    _ndim: int | None = None  # of the input; None takes any
    _shape = ""

    def __init__(self, p: float = 0.5, *, rng: Generator | None = None) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p must be in [0, 1], got {p}")
        self.p = p
        self.rng = rng if rng is not None else Generator()

    def forward(self, x: Any) -> Tensor:
        if x.ndim < self._axes or (self._ndim is not None and x.ndim != self._ndim):
            raise ValueError(f"{type(self).__name__}: x must have shape {self._shape}, got {tuple(x.shape)}")
        if not self.training or self.p == 0:
            return x
        return slice_dropout(x, self.p, *self.rng.reserve(math.prod(x.shape[: self._axes])), self._axes)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout1d(_SliceDropout):
    """Sets whole channels of ``(N, C, T)`` to 0 with probability ``p`` in training and scales the others.

    Neighbouring values of a channel tell the same, so dropping them singly would drop little.

    Args:
        p: probability of dropping a channel, in [0, 1].
        rng: the stream of masks; a fresh generator by default.
    Source: Tompson et al. 2015, "Efficient object localization using convolutional networks", arXiv 1411.4280.
    """

    _ndim, _shape = 3, "(N, C, T)"


class Dropout2d(_SliceDropout):
    """Sets whole channels of ``(N, C, H, W)`` to 0 with probability ``p`` in training; see :class:`Dropout1d`."""

    _ndim, _shape = 4, "(N, C, H, W)"


class Dropout3d(_SliceDropout):
    """Sets whole channels of ``(N, C, D, H, W)`` to 0 with probability ``p`` in training; see :class:`Dropout1d`."""

    _ndim, _shape = 5, "(N, C, D, H, W)"


class DropPath(_SliceDropout):
    """Sets whole samples to 0 with probability ``p`` in training and scales the others: stochastic depth.

    As the last layer of a residual block it leaves the block out for these samples:
    ``Residual(Sequential(…, DropPath(0.1)))``.

    Args:
        p: probability of dropping a sample, in [0, 1].
        rng: the stream of masks; a fresh generator by default.
    Source: Huang et al. 2016, "Deep networks with stochastic depth", arXiv 1603.09382.
    """

    _axes, _shape = 1, "(N, ...)"
