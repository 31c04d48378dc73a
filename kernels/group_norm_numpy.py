"""Group normalisation on the CPU, a chunk of groups at a time; see ``layer_norm_numpy.py``.

A group is a row whose weight is constant over each channel. So the sums that the backward pass needs are sums over
channels, products of a matrix with a vector and of two rows, and everything else happens on arrays of N x C numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from ..backend import parallel
from .layer_norm_numpy import ones, over_chunks, reciprocal_root

_LONG_ROW = 1024  # elements
_LONG_SUM = 8192  # elements that are added up in one go
_MOST_PIECES = 1024
_CHUNK = 1 << 16  # elements of a chunk of channels-last pixels
_GRAIN = 1 << 18  # elements that are worth waking a thread for


@cache
def _pieces(length: int) -> int:
    """In how many equal parts a sum is taken, so that a long one keeps its digits; 1 where none divides it."""
    return next((k for k in range(-(-length // _LONG_SUM), _MOST_PIECES) if length % k == 0), 1)


def _sum(a: Any, out: Any) -> None:
    """Sums over the last axis of a C-contiguous array."""
    pieces = _pieces(a.shape[-1])
    if pieces == 1:
        np.dot(a, ones(a.shape[-1], a.dtype), out)
        return
    parts = a.reshape(*a.shape[:-1], pieces, a.shape[-1] // pieces)
    np.sum(np.dot(parts, ones(parts.shape[-1], a.dtype)), axis=-1, out=out)


def _dot(a: Any, b: Any, out: Any) -> None:
    """Sums of products over the last axis of two C-contiguous arrays."""
    pieces = _pieces(a.shape[-1])
    if pieces == 1:
        np.vecdot(a, b, out)
        return
    shape = (*a.shape[:-1], pieces, a.shape[-1] // pieces)
    np.sum(np.vecdot(a.reshape(shape), b.reshape(shape)), axis=-1, out=out)


def group_norm_groups(x: Any, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any) -> None:
    """``y``, ``mean`` and ``rstd`` of :func:`kernels.group_norm`, in place; ``x`` is (N, groups, channels, values)."""
    samples, groups, channels, values = x.shape
    rows, cols = samples * groups, channels * values
    x, y = x.reshape(rows, cols), y.reshape(rows, cols)
    mean, rstd = mean.reshape(rows), rstd.reshape(rows)
    w, b = (None if a is None else np.tile(a.reshape(groups, channels), (samples, 1)) for a in (weight, bias))

    def work(chunk: int, start: int, stop: int) -> None:
        part, out, m, r = x[start:stop], y[start:stop], mean[start:stop], rstd[start:stop]
        _sum(part, m)
        m *= 1.0 / cols
        np.subtract(part, m[:, None], out)
        _dot(out, out, r)
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
        _sum(g, total)
        _dot(g, centred, product)
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


# -- channels-last images: the weight, mean and scale of a pixel are one row, and sums over pixels products with ones --


def _repeats(pixels: int, channels: int) -> int:
    """How many pixels are taken as one row, so that rows are long enough for NumPy's loops."""
    count = 1
    while channels * count < _LONG_ROW and pixels % (2 * count) == 0:
        count *= 2
    return count


def _over_samples(work: Callable[[int], None], samples: int, size: int) -> None:
    """Call ``work(sample)`` for each sample, in threads where it pays."""

    def part(start: int, stop: int) -> None:
        for sample in range(start, stop):
            work(sample)

    parallel(part, samples, max(1, _GRAIN // size))


def _spans(rows: int, cols: int) -> Iterator[slice]:
    """Slices of rows that stay in cache together with a few arrays of their size."""
    step = max(1, _CHUNK // cols)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def group_norm_pixels(x: Any, groups: int, weight: Any, bias: Any, eps: float, y: Any, mean: Any, rstd: Any) -> None:
    """As :func:`group_norm_groups`, for ``x`` and ``y`` of shape (N, pixels, channels)."""
    samples, pixels, channels = x.shape
    count = _repeats(pixels, channels)
    rows, cols, per_group = pixels // count, count * channels, channels // groups
    scale = 1.0 / (per_group * pixels)

    def of_groups(sums: Any) -> Any:
        return sums.reshape(count, groups, per_group).sum(axis=(0, 2)) * scale

    def row(of_group: Any) -> Any:
        return np.tile(np.repeat(of_group, per_group), count)

    def work(sample: int) -> None:
        part, out = x[sample].reshape(rows, cols), y[sample].reshape(rows, cols)
        m = of_groups(ones(rows, x.dtype).dot(part))
        middle, sums, squares = row(m), np.zeros(cols, x.dtype), np.zeros(cols, x.dtype)
        spans = list(_spans(rows, cols))
        room = np.empty_like(part[spans[0]])
        for span in spans:
            centred = np.subtract(part[span], middle, out[span])
            weights = ones(len(centred), x.dtype)
            sums += weights.dot(centred)
            squares += weights.dot(np.multiply(centred, centred, room[: len(centred)]))
        shift = of_groups(sums)  # the rounding error of the mean
        mean[sample] = m + shift
        r = of_groups(squares) - shift * shift
        reciprocal_root(r, 1.0, eps)
        rstd[sample] = r
        factor, offset = row(r), row(-shift * r)
        if weight is not None:
            factor *= np.tile(weight, count)
            offset *= np.tile(weight, count)
        if bias is not None:
            offset += np.tile(bias, count)
        for span in reversed(spans):  # the last is still in cache
            np.multiply(out[span], factor, out[span])
            np.add(out[span], offset, out[span])

    _over_samples(work, samples, pixels * channels)


def group_norm_pixels_backward(dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dx: Any) -> tuple[Any, Any]:
    """As :func:`group_norm_groups_backward`, for ``x``, ``dy`` and ``dx`` of shape (N, pixels, channels)."""
    samples, pixels, channels = x.shape
    groups = mean.shape[1]
    count = _repeats(pixels, channels)
    rows, cols, per_group = pixels // count, count * channels, channels // groups
    w = ones(channels, x.dtype) if weight is None else weight
    sums, products = (np.empty((samples, channels), x.dtype) for _ in range(2))  # of dy, and of dy * n, over pixels

    def row(of_group: Any) -> Any:
        return np.tile(np.repeat(of_group, per_group), count)

    def work(sample: int) -> None:
        part, g, out = (a[sample].reshape(rows, cols) for a in (x, dy, dx))
        middle, r = row(mean[sample]), rstd[sample]
        product, total = np.zeros(cols, x.dtype), np.zeros(cols, x.dtype)
        spans = list(_spans(rows, cols))
        room = np.empty_like(part[spans[0]])
        for span in spans:
            centred = np.subtract(part[span], middle, out[span])
            weights = ones(len(centred), x.dtype)
            product += weights.dot(np.multiply(g[span], centred, room[: len(centred)]))
            total += weights.dot(g[span])
        sums[sample] = total.reshape(count, channels).sum(axis=0)
        products[sample] = product.reshape(count, channels).sum(axis=0) * np.repeat(r, per_group)
        scale = 1.0 / (per_group * pixels)
        slope = row((products[sample] * w).reshape(groups, per_group).sum(axis=1) * r * r * scale)
        shift = row((sums[sample] * w).reshape(groups, per_group).sum(axis=1) * r * scale)
        factor = row(r) * np.tile(w, count)
        for span in reversed(spans):  # the last is still in cache
            centred = out[span]
            centred *= slope
            centred += shift
            np.subtract(np.multiply(g[span], factor, room[: len(centred)]), centred, centred)

    _over_samples(work, samples, pixels * channels)
    return products.sum(axis=0), sums.sum(axis=0)
