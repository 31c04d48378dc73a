"""Softmax of scaled and masked scores with dropout: the middle of attention, as one operation."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import op
from ..autograd.broadcast import unbroadcast
from ..backend import Array, Generator, as_generator
from ..kernels.masked_softmax import check_masked
from .drop import check_dropping


@op
def _masked_softmax(x: Array, mask: Array | None, axis: int, scale: float, p: float, rng: Generator) -> Any:
    options: dict[str, Any] = {"axis": axis, "scale": scale, "p": p}
    if p:
        check_masked("masked_softmax", x, mask, **options)  # a call that is refused draws nothing
        options["key"], options["offset"] = rng.reserve(x.size)
    y = kernels.masked_softmax(x, mask, **options)

    def to_x(dy: Array, out: Array | None) -> Array:
        return kernels.masked_softmax_backward(dy, x, mask, **options)

    def to_mask(dy: Array, out: Array | None) -> Array:
        dz = kernels.masked_softmax_backward(dy, x, mask, **options, factor=1.0)
        return unbroadcast(dz, mask.shape, mask.dtype)  # type: ignore[union-attr]

    return y, (to_x, to_mask)


def masked_softmax(
    x: Any,
    mask: Any = None,
    axis: int = -1,
    *,
    scale: float = 1.0,
    p: float = 0.0,
    training: bool = True,
    rng: Generator | None = None,
) -> Any:
    """``dropout(softmax(scale * x + mask, axis), p)`` as one operation; a slice of which nothing is visible gives 0.

    Neither the probabilities nor the dropped places are stored for the backward pass: both are formed anew.

    Args:
        x: scores, any shape with at least one axis, floating.
        mask: broadcastable to ``x``: boolean, **True where a score takes part**, or floating, added to the scaled
            scores; then it may want a gradient.
        axis: the axis whose elements add up to 1 before dropout.
        scale: multiplies the scores, such as ``1 / sqrt(D)``.
        p: probability of dropping, in [0, 1].
        training: without it nothing is dropped.
        rng: the stream of dropout's masks, which moves on by ``x.size`` words; a fresh generator by default.
    """
    p = check_dropping("masked_softmax", x, p)
    rng = as_generator("masked_softmax", rng)
    return _masked_softmax(x, mask, axis, scale, p if training else 0.0, rng)
