"""Attention on the CPU: blocks of queries against all keys, as many heads at once as the cache holds.

Scores are formed transposed, ``S^T = k q^T``, which BLAS does a quarter faster than ``q k^T`` for narrow heads. The
length of the longest query and key bounds every score, so the maximum is seldom needed. A few queries against many keys
(a decoder with a cache) read the keys once: there the maximum costs less than that bound. The backward pass appends
``-lse`` to the queries and 1 to the keys, so that one product gives the logarithm of the weights, and ``-delta`` to
``dy`` and 1 to the values, so that one gives ``dP - delta``: two elementwise passes are left.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import backend_for, device, get_num_threads, parallel, random_bits

if TYPE_CHECKING:
    from .attention import Options

_SCORES = 1 << 18  # held at a time: 1 MB in float32
_FEWEST_QUERIES, _MOST_QUERIES = 64, 256  # in a block: fewer make poor products, more leave the cache
_FEW_QUERIES = 2  # beyond, products of blocks and the bound in place of a maximum are quicker
_WORTH_A_THREAD = 1 << 22  # multiply-adds
# No maximum is subtracted where no score reaches this power of two: 2**60 is far from overflow, and so is
# 2**(60 + 60), what a hidden score over the sum of the visible ones may come to before it is multiplied by 0.
_NO_MAXIMUM = 60.0


class _Base:
    """The exponential that this machine is quick at, ``exp2(x unit)`` or ``exp(x unit)``, and its logarithm."""

    def __init__(self, dtype: Any) -> None:
        x = np.linspace(-20, 0, 1 << 12, dtype=dtype)
        y = np.empty_like(x)
        powers: list[Callable[..., Any]] = [np.exp2, np.exp]
        best = [math.inf, math.inf]
        for _ in range(7):
            for i, power in enumerate(powers):
                start = time.perf_counter()
                power(x, out=y)
                best[i] = min(best[i], time.perf_counter() - start)
        two = best[0] < best[1]  # by a factor of two with AVX-512; without it the other way by three
        self.exp = np.exp2 if two else np.exp
        self.log = np.log2 if two else np.log
        self.unit = math.log2(math.e) if two else 1.0
        self.no_maximum = _NO_MAXIMUM if two else _NO_MAXIMUM * math.log(2.0)


_base = lru_cache(_Base)


class _Work:
    """How the heads and queries of one call are cut, and memory for one thread.

    Attributes:
        group: query heads to a key head.
        rows: queries in a block.
        units: what is worked on at once, ``(b0, b1, h0, h1)``: key heads h0 … h1 of batch elements b0 … b1, which are
            several only where all heads fit.
    """

    def __init__(self, q: Any, k: Any, v: Any, options: Options) -> None:
        self.options, self.dtype = options._replace(mask=_as_boolean(options.mask)), q.dtype
        self.batch, self.heads, self.queries, self.keys = options.shape
        self.key_heads, self.group = k.shape[1], self.heads // k.shape[1]
        most = _MOST_QUERIES // 2 if options.causal else _MOST_QUERIES  # on the diagonal a block wastes half its scores
        self.rows = max(1, min(self.queries, max(_FEWEST_QUERIES, min(most, _SCORES // self.keys))))
        fair = -(-self.batch * self.key_heads // get_num_threads())
        self.stack = max(1, min(fair, _SCORES // (self.rows * self.keys)))  # key heads in a unit
        high, deep = min(self.stack, self.key_heads), max(1, self.stack // self.key_heads)
        self.stack = high * deep
        self.units = [
            (b, min(b + deep, self.batch), h, min(h + high, self.key_heads))
            for b in range(0, self.batch, deep)
            for h in range(0, self.key_heads, high)
        ]
        self.base = _base(q.dtype)
        self.added = [a for a in (self.options.mask, options.bias) if a is not None and a.dtype.kind != "b"]
        products = self.stack * self.group * self.queries * self.keys * (q.shape[3] + v.shape[3])
        self.grain = -(-_WORTH_A_THREAD // products)

    def scratch(self, *shape: int) -> Any:
        """Memory for a stack of heads: call it before the loop, once a thread."""
        return backend_for(device("cpu")).empty((self.stack * math.prod(shape),), self.dtype, device("cpu"))

    def blocks(self, batch: slice) -> Iterator[tuple[int, int, int]]:
        """First and last query of each block, and how many keys one of them sees: those that see the most first."""
        options = self.options
        keys = self.keys if options.key_lengths is None else int(options.key_lengths[batch].max())
        for start in range((self.queries - 1) // self.rows * self.rows, -1, -self.rows):
            stop = min(start + self.rows, self.queries)
            yield start, stop, max(0, min(keys, stop + options.causal_offset)) if options.causal else keys

    def bounded(self, q: Any, k: Any) -> bool:
        """Whether no score is so large that a maximum has to be subtracted, by |q k| <= |q| |k|; false for NaN."""
        if self.added or not q.size:
            return False
        longest = math.sqrt(float(np.vecdot(q, q).max())) * math.sqrt(float(np.vecdot(k, k).max()))
        return longest < self.base.no_maximum

    def hidden(self, batch: slice, heads: slice, start: int, stop: int, seen: int) -> list[tuple[slice, Any]]:
        """Factors of 0 and 1 for ``S^T``, each with the keys that it is for."""
        options = self.options
        found: list[tuple[slice, Any]] = []
        if options.key_lengths is not None and batch.stop > batch.start + 1:
            inside = np.arange(seen) < options.key_lengths[batch, None]
            found.append((slice(None), inside.astype(self.dtype)[:, None, :, None]))
        first = start + options.causal_offset + 1  # the first key that not all of these queries see
        if options.causal and first < seen:
            low = max(0, first)
            triangle = np.arange(stop - start) > np.arange(low - first, seen - first)[:, None]
            found.append((slice(low, seen), triangle.astype(self.dtype)))
        if options.mask is not None and options.mask.dtype.kind == "b":
            visible = _part(options.mask, batch, heads, start, stop, seen)
            found.append((slice(None), visible.astype(self.dtype, order="C")))
        return found

    def add(self, scores: Any, batch: slice, heads: slice, start: int, stop: int, seen: int) -> None:
        """Add the floating mask and the bias to ``S^T``."""
        for added in self.added:
            part = _part(added, batch, heads, start, stop, seen).astype(self.dtype, order="C")
            scores += np.multiply(part, self.base.unit, out=part)

    def kept(self, out: Any, batch: slice, heads: slice, start: int, stop: int, seen: int) -> None:
        """``1 / (1 - dropout)`` where a weight of ``S^T`` is kept, else 0."""
        options = self.options
        threshold = round(options.dropout * 2.0**32)
        if threshold >> 32:
            out.fill(0)
            return
        rows = stop - start
        together = rows == self.queries and self.group == 1  # then the words of all these heads follow one another
        parts = [(0, 0, out)] if together else [(i, j, out[i, j]) for i, j in np.ndindex(out.shape[:2])]
        for i, j, part in parts:
            head = (batch.start + i) * self.heads + range(self.heads)[heads][j]
            first = options.offset + (head * self.queries + start) * self.keys
            shape = (*part.shape[:-2], rows, self.keys)
            words = random_bits(options.seed, first, math.prod(shape)).reshape(shape)
            np.greater_equal(words[..., :seen].swapaxes(-1, -2), threshold, out=part, casting="unsafe")
        out *= 1.0 / (1.0 - options.dropout)


def _as_boolean(mask: Any) -> Any:
    """A floating mask of 0 and -inf alone, which hides and adds nothing, as what it means: it then needs no maximum."""
    if mask is None or mask.dtype.kind == "b":
        return mask
    visible = mask == 0
    return visible if (visible | (mask == -math.inf)).all() else mask


def _part(array: Any, *block: Any) -> Any:
    """The part of an array like the scores that belongs to a block, transposed: ``(batch, heads, keys, queries)``."""
    batch, heads, start, stop, seen = block
    places = (batch, heads, slice(start, stop), slice(seen))
    part = array[tuple(at if n > 1 else slice(None) for at, n in zip(places, array.shape, strict=True))]
    return part.swapaxes(2, 3)


def forward(q: Any, k: Any, v: Any, options: Options, out: Any, lse: Any) -> None:
    """``out`` and ``lse`` of :func:`kernels.attention`, float32 or float64, at least one key, in place."""
    if _are_few(options):
        _few(q, k, v, options.scale, out, lse)
        return
    work, base = _Work(q, k, v, options), _base(q.dtype)
    width, factor = q.shape[3], options.scale * base.unit

    def part(first: int, last: int) -> None:
        scaled, scores = work.scratch(work.queries, width), work.scratch(work.keys, work.rows)
        kept = work.scratch(work.keys, work.rows) if options.dropout else None
        ones = np.ones((1, work.keys), q.dtype)
        for b0, b1, h0, h1 in work.units[first:last]:
            b, n, keys, values = slice(b0, b1), (b1 - b0, h1 - h0), k[b0:b1, h0:h1], v[b0:b1, h0:h1]
            for g in range(work.group):
                heads = slice(h0 * work.group + g, h1 * work.group, work.group)
                qs = np.multiply(q[b, heads], factor, out=_carve(scaled, *n, work.queries, width))
                bounded = work.bounded(qs, keys)
                for start, stop, seen in work.blocks(b):
                    y = out[b, heads, start:stop]
                    s = _carve(scores, *n, seen, stop - start)
                    np.matmul(keys[:, :, :seen], qs[:, :, start:stop].swapaxes(2, 3), out=s)
                    if work.added:
                        work.add(s, b, heads, start, stop, seen)
                    hidden = work.hidden(b, heads, start, stop, seen)
                    largest: Any = 0.0
                    if not bounded:
                        for where, factors in hidden:
                            np.copyto(s[:, :, where], -math.inf, where=factors == 0)
                        largest = s.max(axis=2, keepdims=True, initial=-math.inf)
                        np.copyto(largest, 0.0, where=largest == -math.inf)  # of a query that sees nothing
                        s -= largest
                    base.exp(s, out=s)
                    if bounded:
                        for where, factors in hidden:
                            s[:, :, where] *= factors
                    total = np.matmul(ones[:, :seen], s)  # (batch, heads, 1, rows)
                    lse[b, heads, start:stop] = ((base.log(total) + largest) * (1.0 / base.unit))[:, :, 0]
                    np.reciprocal(total, out=total)
                    np.copyto(total, 0.0, where=total == math.inf)
                    if kept is not None:
                        m = _carve(kept, *n, seen, stop - start)
                        work.kept(m, b, heads, start, stop, seen)
                        s *= m
                    np.matmul(s.swapaxes(2, 3), values[:, :, :seen], out=y)
                    y *= total.swapaxes(2, 3)

    parallel(part, len(work.units), work.grain)


def _are_few(options: Options) -> bool:
    """Whether a few queries see all keys and drop nothing."""
    hides = options.causal or options.dropout or options.key_lengths is not None
    return options.shape[2] <= _FEW_QUERIES and not hides and options.mask is None and options.bias is None


def _few(q: Any, k: Any, v: Any, scale: float, out: Any, lse: Any) -> None:
    """:func:`forward` where :func:`_are_few`: the queries of the heads that share a key lie below one another."""
    (batch, heads, queries, width), key_heads, keys, value_width = q.shape, k.shape[1], k.shape[2], v.shape[3]
    base = _base(q.dtype)
    scaled = q * q.dtype.type(scale * base.unit)
    grouped = scaled.reshape(batch, key_heads, heads // key_heads * queries, width)

    def part(first: int, last: int) -> None:
        h, every = slice(first, last), slice(first * heads // key_heads, last * heads // key_heads)
        s = np.matmul(grouped[:, h], k[:, h].swapaxes(2, 3))  # (B, key heads, queries of a group, Tk)
        largest = s.max(axis=3, keepdims=True)
        np.copyto(largest, 0.0, where=largest == -math.inf)
        s -= largest
        base.exp(s, out=s)
        total = s.sum(axis=3, keepdims=True)
        lse[:, every] = ((base.log(total) + largest) * (1.0 / base.unit)).reshape(batch, -1, queries)
        np.copyto(total, 1.0, where=total == 0.0)
        y = np.matmul(s, v[:, h])
        y /= total
        out[:, every] = y.reshape(batch, -1, queries, value_width)

    products = batch * heads * queries * keys * (width + value_width)
    parallel(part, key_heads, -(-_WORTH_A_THREAD * key_heads // products))


def backward(
    dy: Any, q: Any, k: Any, v: Any, out: Any, lse: Any, options: Options, dq: Any, dk: Any, dv: Any
) -> Any:
    """``dq``, ``dk``, ``dv`` of :func:`kernels.attention_backward`, in place; returns ``dbias`` or None."""
    work, base = _Work(q, k, v, options), _base(q.dtype)
    (tq, d), (tk, dv_width), factor = q.shape[2:], v.shape[2:], options.scale * base.unit
    partial: list[tuple[int, Any]] = []

    def part(first: int, last: int) -> None:
        wide_q, wide_k = work.scratch(tq, d + 1), work.scratch(tk, d + 1)
        wide_v, wide_dy = work.scratch(tk, dv_width + 1), work.scratch(tq, dv_width + 1)
        weights, slopes = work.scratch(tk, work.rows), work.scratch(tk, work.rows)
        kept = work.scratch(tk, work.rows) if options.dropout else None
        more = work.scratch(tk, max(d, dv_width))
        dbias = None if options.bias is None else np.zeros(options.bias.shape, q.dtype)
        if dbias is not None:
            partial.append((first, dbias))
        for b0, b1, h0, h1 in work.units[first:last]:
            b, n, keys, values = slice(b0, b1), (b1 - b0, h1 - h0), k[b0:b1, h0:h1], v[b0:b1, h0:h1]
            ka, va = _carve(wide_k, *n, tk, d + 1), _carve(wide_v, *n, tk, dv_width + 1)
            ka[..., :d], va[..., :dv_width] = keys, values
            ka[..., d] = va[..., dv_width] = 1.0
            dkeys, dvalues = dk[b, h0:h1], dv[b, h0:h1]
            written = 0  # keys whose gradients hold something
            for g in range(work.group):
                heads = slice(h0 * work.group + g, h1 * work.group, work.group)
                qa, dya = _carve(wide_q, *n, tq, d + 1), _carve(wide_dy, *n, tq, dv_width + 1)
                queries, slope = q[b, heads], dy[b, heads]
                np.multiply(queries, factor, out=qa[..., :d])
                bounded = work.bounded(qa[..., :d], keys)
                np.multiply(lse[b, heads], -base.unit, out=qa[..., d])
                qa[qa[..., d] == math.inf] = 0.0  # a query that sees nothing: all its weights become 1 and then 0
                dya[..., :dv_width] = slope
                delta = np.vecdot(slope, out[b, heads])
                np.negative(delta, out=dya[..., dv_width])
                for start, stop, seen in work.blocks(b):
                    p, ds = (_carve(memory, *n, seen, stop - start) for memory in (weights, slopes))
                    np.matmul(ka[:, :, :seen], qa[:, :, start:stop].swapaxes(2, 3), out=p)
                    if work.added:
                        work.add(p, b, heads, start, stop, seen)
                    hidden = work.hidden(b, heads, start, stop, seen)
                    if hidden and not bounded:
                        np.minimum(p, 1.0, out=p)  # visible ones are at most 0; hidden ones must not overflow
                    base.exp(p, out=p)
                    for where, factors in hidden:
                        p[:, :, where] *= factors
                    if kept is None:
                        np.matmul(va[:, :, :seen], dya[:, :, start:stop].swapaxes(2, 3), out=ds)
                        ds *= p
                    else:
                        m = _carve(kept, *n, seen, stop - start)
                        work.kept(m, b, heads, start, stop, seen)
                        np.matmul(values[:, :, :seen], slope[:, :, start:stop].swapaxes(2, 3), out=ds)
                        ds *= m
                        ds -= delta[:, :, None, start:stop]
                        ds *= p
                        p *= m
                    if dbias is not None:
                        _add_reduced(dbias, ds, b, heads, start, stop, seen)
                    np.matmul(ds.swapaxes(2, 3), keys[:, :, :seen], out=dq[b, heads, start:stop])
                    for total, a, c in ((dvalues, p, slope), (dkeys, ds, queries)):
                        _accumulate(total[:, :, :seen], a, c[:, :, start:stop], more, first=not written)
                    written = max(written, seen)
                dq[b, heads] *= options.scale
            dkeys[:, :, written:] = 0.0
            dvalues[:, :, written:] = 0.0
            dkeys *= options.scale

    parallel(part, len(work.units), work.grain)
    partial.sort(key=lambda numbered: numbered[0])  # the same sum whichever thread was first
    dbias = None if options.bias is None else np.zeros(options.bias.shape, q.dtype)
    for _, part_of_dbias in partial:
        dbias += part_of_dbias
    return dbias


def _accumulate(total: Any, a: Any, b: Any, memory: Any, first: bool) -> None:
    """``total += a b``, or ``total = a b`` for the first block, which sees the most keys."""
    if first:
        np.matmul(a, b, out=total)
    else:
        total += np.matmul(a, b, out=_carve(memory, *total.shape))


def _add_reduced(dbias: Any, ds: Any, *block: Any) -> None:
    """Add the gradient of a block's transposed scores to that of a bias that was broadcast."""
    target = _part(dbias, *block)
    repeated = tuple(axis for axis in range(4) if target.shape[axis] == 1 and ds.shape[axis] != 1)
    target += ds.sum(axis=repeated, keepdims=True) if repeated else ds


def _carve(memory: Any, *shape: int) -> Any:
    return memory[: math.prod(shape)].reshape(shape)
