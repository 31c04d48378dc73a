"""Group normalisation on the CPU, a chunk of groups at a time; see ``layer_norm_numpy.py``.

A group is a row whose weight is constant over each channel. So the sums that the backward pass needs are sums over
channels, products of a matrix with a vector and of two rows, and everything else happens on arrays of N x C numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .layer_norm_numpy import ones, over_chunks, reciprocal_root


def group_norm_groups(x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any) -> None:
    """``y``, ``mean`` and ``rstd`` of :func:`kernels.group_norm`, in place; ``x`` is (N, groups, channels, values)."""
    samples, groups, channels, values = x.shape
    rows, cols = samples * groups, channels * values
    x, y = x.reshape(rows, cols), y.reshape(rows, cols)
    mean, rstd = mean.reshape(rows), rstd.reshape(rows)
    w, b = (None if a is None else np.tile(a.reshape(groups, channels), (samples, 1)) for a in (weight, bias))

    def work(chunk: int, start: int, stop: int) -> None:
        part, out, m, r = x[start:stop], y[start:stop], mean[start:stop], rstd[start:stop]
        np.dot(part, ones(cols, x.dtype), m)
        m *= 1.0 / cols
        np.subtract(part, m[:, None], out)
        np.vecdot(out, out, r)
        reciprocal_root(r, 1.0 / cols, eps)
        if w is None:
            np.multiply(out, r[:, None], out)
        else:
            by_channel = out.reshape(-1, channels, values)
            np.multiply(by_channel, (r[:, None] * w[start:stop])[:, :, None], by_channel)
        if b is not None:
            by_channel = out.reshape(-1, channels, values)
            np.add(by_channel, b[start:stop, :, None], by_channel)

    over_chunks(work, rows, cols)


def group_norm_groups_backward(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any) -> tuple[Any, Any]:
    """``dx`` in place; returns ``dweight`` and ``dbias``."""
    samples, groups, channels, values = x.shape
    rows, cols = samples * groups, channels * values
    x, dy, dx = (a.reshape(rows, channels, values) for a in (x, dy, dx))
    mean, rstd = mean.reshape(rows), rstd.reshape(rows)
    if weight is None:
        w = np.ones((rows, channels), x.dtype)
    else:
        w = np.tile(weight.reshape(groups, channels), (samples, 1))
    sums, products = (np.empty((rows, channels), x.dtype) for _ in range(2))  # of dy, and of dy * n, over a channel

    def work(chunk: int, start: int, stop: int) -> None:
        g, r, out, scale = dy[start:stop], rstd[start:stop], dx[start:stop], 1.0 / cols
        centred = x[start:stop] - mean[start:stop, None, None]
        total, product = sums[start:stop], products[start:stop]
        np.dot(g, ones(values, x.dtype), total)
        np.vecdot(g, centred, product)
        product *= r[:, None]
        slope = np.vecdot(product, w[start:stop])  # becomes mean(g * n) * rstd^2, the factor of the centred values
        slope *= r
        slope *= r
        slope *= scale
        shift = np.vecdot(total, w[start:stop])
        shift *= r
        shift *= scale
        np.multiply(centred, slope[:, None, None], centred)
        np.add(centred, shift[:, None, None], centred)
        np.multiply(g, (r[:, None] * w[start:stop])[:, :, None], out)
        np.subtract(out, centred, out)

    over_chunks(work, rows, cols)
    dweight, dbias = (a.reshape(samples, groups * channels).sum(axis=0) for a in (products, sums))
    return dweight, dbias
