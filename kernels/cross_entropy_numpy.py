"""Cross entropy of labels over rows of logits on the CPU: losses and gradient in one walk over the rows.

The gradient is formed while a chunk's exponentials are still in the cache, so the backward pass has nothing left to do
but to hand it over. Row sums are matrix-vector products, and the maximum is left out as long as no row needs it
(see ``softmax_numpy.py``). The loss is log1p(sum of the other exponentials / the label's), to the last digits also
where it is small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import parallel
from .softmax_numpy import _row_sums

_CHUNK = 1 << 17  # elements of a chunk: 512 KB in float32, written and read again within a 1 MB L2 cache
_PART = 1 << 18  # elements for which a second thread is woken up
_SMALLEST_SUM, _LARGEST_SUM = 1e-12, 1e18  # of exp(x): in between nothing overflowed, and what is subnormal is no more
_SMALLEST_OWN = 1e-18  # of exp(x[label]): above, no quotient of a sum by it overflows


def cross_entropy_rows(
    x: Any, labels: Any, hard: Any, soft: Any, spread: Any, scale: float, losses: Any, dx: Any = None,
    z_loss: float = 0.0,
) -> None:  # fmt: skip
    """``losses[r] = hard[r] * (lse[r] - x[r, labels[r]]) + soft[r] * sum_c spread[c] * (lse[r] - x[r, c])``.

    With ``p = softmax(x)`` and ``S = sum(spread)`` the gradient of ``scale * sum(losses)`` is
    ``dx[r, c] = scale * ((hard[r] + S * soft[r]) * p[r, c] - hard[r] * (c == labels[r]) - soft[r] * spread[c])``.
    ``z_loss`` adds ``z_loss * soft[r] * lse[r]^2``, and ``2 * z_loss * soft[r] * lse[r]`` to the factor of ``p``.

    Args:
        x: logits, shape ``(rows, cols)``, C-contiguous, float32 or float64. lse[r] is ``log(sum(exp(x[r, :])))``.
        labels: shape ``(rows,)``, integers in ``0 … cols - 1``.
        hard: weight of each row's label, shape ``(rows,)`` or a number.
        soft: weight of each row's part for all classes, shape ``(rows,)`` or a number.
        spread: weight of each class in that part, shape ``(cols,)``; None where there is no such part.
        losses: shape ``(rows,)``, written.
        dx: shape ``(rows, cols)``, C-contiguous, written; None where no gradient is wanted.
    """
    rows, cols = x.shape
    if not x.size:
        return
    if x.size <= _CHUNK:
        e = np.empty_like(x) if dx is None else dx
        with np.errstate(all="ignore"):
            _chunk(x, labels, hard, soft, spread, scale, losses, e, dx is not None, True, z_loss)
        return
    step = max(1, _CHUNK // cols)

    def work(first: int, last: int) -> None:
        e = np.empty((min(step, last - first), cols), x.dtype) if dx is None else dx[first:last]
        shift = False
        for start in range(first, last, step):
            part = slice(start, min(start + step, last))
            out = e[: part.stop - start] if dx is None else dx[part]
            h, s = (w if isinstance(w, float) else w[part] for w in (hard, soft))
            shift = _chunk(x[part], labels[part], h, s, spread, scale, losses[part], out, dx is not None, shift, z_loss)

    parallel(work, rows, max(1, _PART // cols))


def _chunk(
    x: Any,
    labels: Any,
    hard: Any,
    soft: Any,
    spread: Any,
    scale: float,
    losses: Any,
    e: Any,
    gradient: bool,
    shift: bool,
    z_loss: float,
) -> bool:
    """The rows of one chunk; ``e`` takes the exponentials and becomes the gradient where that is wanted.

    Returns whether the maximum had to be subtracted: the chunks that follow then start with that.
    """
    place = np.arange(0, e.size, e.shape[1])
    place += labels
    flat = e.reshape(-1)
    if not shift:
        np.exp(x, e)
        own, rest = _apart(e, flat, place)
        sums = own + rest
        shift = not (sums.min() >= _SMALLEST_SUM and sums.max() <= _LARGEST_SUM)  # true for NaN
    logits = x
    if shift:
        largest = np.maximum.reduce(x, axis=1)
        logits = np.subtract(x, largest[:, None], e)
        picked = flat[place]
        spread_logits = None if spread is None else logits.dot(spread)
        np.exp(e, e)
        own, rest = _apart(e, flat, place)
        sums = own + rest
    elif spread is not None:
        spread_logits = logits.dot(spread)
    np.log1p(rest / own, losses)
    if not own.min() >= _SMALLEST_OWN:
        far = own < _SMALLEST_OWN
        picked = picked if shift else x.reshape(-1)[place]
        losses[far] = np.log(sums[far]) - picked[far]
    if not isinstance(hard, float) or hard != 1.0:
        losses *= hard
    total = hard
    if spread is not None:
        whole = float(spread.sum())
        losses += soft * (whole * np.log(sums, dtype=np.float64) - spread_logits)
        total = hard + soft * whole
    if z_loss:
        lse = np.log(sums)
        if shift:
            lse += largest
        losses += lse * lse * (soft * z_loss)
        total = total + lse * (2.0 * z_loss * soft)
    if gradient:
        factor = np.divide(total * scale, sums)
        e *= factor[:, None]
        only = spread is None and not z_loss  # the label has all of the target: nothing of its own is left to subtract
        flat[place] = -factor * rest if only else factor * own - hard * scale
        if spread is not None:
            e -= spread * (soft * scale) if isinstance(soft, float) else spread * (soft * scale)[:, None]
    return shift


def _apart(e: Any, flat: Any, place: Any) -> tuple[Any, Any]:
    """Each row's label, taken out, and the sum of the others.

    The loss of a label that is nearly certain hangs on that small sum, which would drown in the label's large number.
    """
    own = flat[place]
    flat[place] = 0.0
    return own, _row_sums(e)
