"""From scores to the next token: what makes some tokens unlikely or impossible, and the draw.

Plain arrays of any device in and out, one row for each sequence. :func:`lamella.models.generate` applies them in this
order: :func:`penalize_repetition`, temperature, :func:`keep_top_k`, :func:`keep_top_p`, :func:`draw`.
"""

from __future__ import annotations

import math
from typing import Any

from ..backend import Array, backend_of


def penalize_repetition(scores: Array, seen: Array, penalty: float) -> Array:
    """Scores of the tokens ``seen`` divided by ``penalty`` where they are positive, multiplied by it elsewhere.

    Args:
        scores: shape ``(N, V)``, floating.
        seen: boolean, shape ``(N, V)``: which tokens the sequence holds.
        penalty: above 1 makes them less likely, 1 changes nothing.
    Source: Keskar et al. 2019, "CTRL", arXiv 1909.05858, section 4.1; the case of negative scores as in transformers.
    """
    xp = backend_of(scores).xp
    return xp.where(seen, xp.where(scores > 0, scores / penalty, scores * penalty), scores)


def keep_top_k(scores: Array, k: int) -> Array:
    """The k greatest scores of each row, with any that equal the least of them; -inf for the others.

    Source: Fan et al. 2018, "Hierarchical neural story generation", arXiv 1805.04833.
    """
    xp, count = backend_of(scores).xp, scores.shape[1]
    if k >= count:
        return scores
    least = xp.partition(scores, count - k, axis=1)[:, count - k, None]
    return xp.where(scores >= least, scores, scores.dtype.type(-math.inf))


def keep_top_p(scores: Array, p: float) -> Array:
    """The fewest greatest scores of each row whose probabilities add up to at least p; -inf for the others.

    Scores that equal the least of them are kept too, so that no order of sorting decides.

    Args:
        scores: shape ``(N, V)``, floating. p: in (0, 1]; at least one token is kept.
    Source: Holtzman et al. 2019, "The curious case of neural text degeneration", arXiv 1904.09751 (nucleus).
    """
    xp = backend_of(scores).xp
    ordered = xp.sort(scores, axis=1)  # the least first
    below = xp.cumsum(_weights(xp, ordered), axis=1)  # what would be lost with each and those before it
    lost = (below <= (1.0 - p) * below[:, -1:])[:, :-1].sum(axis=1)  # the greatest always stays
    least = xp.take_along_axis(ordered, lost[:, None], axis=1)
    return xp.where(scores >= least, scores, scores.dtype.type(-math.inf))


def draw(scores: Array, uniforms: Array) -> Array:
    """A token of each row by its probability, ``softmax(scores)``: the first whose cumulated one is above the uniform.

    The probabilities are added up in float64, so devices differ only where their scores do.

    Args:
        scores: shape ``(N, V)``, floating. uniforms: shape ``(N,)``, float64 in [0, 1).
    Returns:
        int64, shape ``(N,)``; -1 where a row holds NaN or +inf, or only -inf.
    """
    xp = backend_of(scores).xp
    below = xp.cumsum(_weights(xp, scores), axis=1)
    total = below[:, -1:]
    tokens = (below <= uniforms[:, None] * total).sum(axis=1)
    return xp.where((total[:, 0] > 0) & xp.isfinite(total[:, 0]), tokens, -1).astype("int64")


def greatest(scores: Array) -> Array:
    """The token of each row with the greatest score, the first of several; -1 as for :func:`draw`."""
    xp = backend_of(scores).xp
    return xp.where(xp.isfinite(scores.max(axis=1)), scores.argmax(axis=1), -1).astype("int64")


def _weights(xp: Any, scores: Array) -> Array:
    """Probabilities but for their sum, float64; 0 in a row of -inf alone."""
    wide = scores.astype("float64")
    largest = wide.max(axis=1, keepdims=True)
    wide -= xp.where(xp.isfinite(largest), largest, 0.0)
    return xp.exp(wide, out=wide)
