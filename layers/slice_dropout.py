"""Dropout of whole slices: channels of images, or whole samples of a residual branch."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import op
from ..backend import Array
from ..kernels.activation import Dropout, kept
from .drop import Dropping, check_dropping


@op
def _slice_dropout(x: Array, p: float, key: int, offset: int, axes: int) -> Any:
    """``x * keep / (1 - p)``, one ``keep`` for each slice of the first ``axes`` axes."""
    mask = (*x.shape[:axes], *(1,) * (x.ndim - axes))
    scale = 1.0 / (1.0 - p) if p < 1 else 0.0

    def masked(values: Array) -> Array:
        factor = kept(values, mask, Dropout(p, key, offset)).astype(values.dtype)
        factor *= scale
        return values * factor

    return masked(x), lambda dy: (masked(dy),)


class _SliceDropout(Dropping):
    """What Dropout1d, Dropout2d, Dropout3d and DropPath share."""

    _axes = 2
    _ndim: int | None = None  # of the input; None takes any
    _shape = ""

    def forward(self, x: Any) -> Any:
        name = type(self).__name__
        if x.ndim < self._axes or (self._ndim is not None and x.ndim != self._ndim):
            raise ValueError(f"{name}: x must have shape {self._shape}, got {tuple(x.shape)}")
        p = check_dropping(name, x, self.p)
        if not self.training or p == 0:
            return x
        return _slice_dropout(x, p, *self.rng.reserve(math.prod(x.shape[: self._axes])), self._axes)


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
