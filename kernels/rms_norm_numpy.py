"""Root-mean-square normalisation of contiguous rows on the CPU, a chunk at a time; see ``layer_norm_numpy.py``."""

from __future__ import annotations

from typing import Any

import numpy as np

from .layer_norm_numpy import Rows, ones, over_chunks, reciprocal_root, rows_in_chunk


def rms_norm_rows(x: Any, weight: Any, eps: float, y: Any, rstd: Any, prepare: Rows | None = None) -> None:
    """``y`` and ``rstd`` of :func:`kernels.rms_norm`, for ``x`` of shape ``(rows, cols)``, in place."""
    rows, cols = x.shape

    def work(chunk: int, start: int, stop: int) -> None:
        if prepare is not None:
            prepare(start, stop)
        part, out, r = x[start:stop], y[start:stop], rstd[start:stop]
        np.vecdot(part, part, r)
        reciprocal_root(r, 1.0 / cols, eps)
        np.multiply(part, r[:, None], out)
        if weight is not None:
            np.multiply(out, weight, out)

    over_chunks(work, rows, cols)


def rms_norm_rows_backward(dy: Any, x: Any, rstd: Any, weight: Any, dx: Any, finish: Rows | None = None) -> Any:
    """``dx`` in place; returns ``dweight``."""
    rows, cols = x.shape
    step = rows_in_chunk(rows, cols)
    partial = np.empty((-(-rows // step), cols), x.dtype)
    w = ones(cols, x.dtype) if weight is None else weight

    def work(chunk: int, start: int, stop: int) -> None:
        part, g, r, out = x[start:stop], dy[start:stop], rstd[start:stop], dx[start:stop]
        np.multiply(g, part, out)
        if r.all():
            np.dot(r, out, partial[chunk])
        else:  # BLAS leaves out rows with a factor of 0, and with them an inf * 0 that must show
            np.add.reduce(out * r[:, None], 0, out=partial[chunk])
        slope = out.dot(w)  # becomes mean(g * n) * rstd, the factor of x
        slope *= 1.0 / cols
        slope *= r
        slope *= r
        along = np.multiply(part, slope[:, None])
        if weight is None:
            np.subtract(g, along, out)
        else:
            np.multiply(g, w, out)
            np.subtract(out, along, out)
        np.multiply(out, r[:, None], out)
        if finish is not None:
            finish(start, stop)

    over_chunks(work, rows, cols)
    return partial.sum(axis=0)
