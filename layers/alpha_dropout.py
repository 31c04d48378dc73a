"""Alpha dropout, for networks of SELU units: it keeps mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import op
from ..backend import Array, Generator, as_generator, backend_of
from ..kernels.activation import Dropout, kept
from .drop import Dropping, check_dropping
from .reduction import widened

_LOWEST = -1.7580993408473766  # the limit of SELU at -infinity, -scale * alpha


@op
def _alpha_dropout(x: Array, p: float, key: int, offset: int) -> Any:
    shape = x.shape
    if p == 1:  # the factor that would bring the variance back is infinite
        xp = backend_of(x).xp
        return xp.zeros_like(x), lambda dy: (xp.zeros_like(dy),)
    a = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _LOWEST**2))
    y = widened(x) - _LOWEST
    y *= kept(x, shape, Dropout(p, key, offset))
    y += _LOWEST - p * _LOWEST
    y *= a

    def backward(dy: Array) -> Any:
        dx = dy * kept(dy, shape, Dropout(p, key, offset))
        dx *= a
        return (dx,)

    return y.astype(x.dtype, copy=False), backward


def alpha_dropout(x: Any, p: float = 0.5, *, training: bool = True, rng: Generator | None = None) -> Any:
    """``a * (x * keep + s * (1 - keep)) + b``, where ``keep`` is 0 with probability ``p`` and ``s`` is SELU's limit.

    ``a = 1 / sqrt((1 - p) (1 + p s^2))`` and ``b = -a p s`` bring mean 0 and variance 1 back. The derivative is
    ``a * keep``. With ``p = 1`` everything is 0.

    Args:
        x: any shape, floating.
        p: probability of dropping, in [0, 1].
        training: without it ``x`` comes back as it is.
        rng: the stream of masks; a fresh generator by default.
    Source: Klambauer et al. 2017, "Self-normalizing neural networks", arXiv 1706.02515.
    """
    p = check_dropping("alpha_dropout", x, p)
    rng = as_generator("alpha_dropout", rng)
    if not training or p == 0:
        return x
    return _alpha_dropout(x, p, *rng.reserve(x.size))


class AlphaDropout(Dropping):
    """Sets values to the lower limit of SELU with probability ``p`` in training, keeping mean 0 and variance 1.

    Args:
        p: probability of dropping, in [0, 1].
        rng: the stream of masks; a fresh generator by default.
    """

    def forward(self, x: Any) -> Any:
        return alpha_dropout(x, self.p, training=self.training, rng=self.rng)
