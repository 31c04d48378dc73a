"""Winograd's convolution on the CPU: square kernels of 3 or 5 at stride 1 with a third of the multiplications.

A tile of m x m results comes from 6 x 6 values, with m = 4 for a kernel of 3 and m = 2 for a kernel of 5:
``Y = A^T [(G g G^T) * (B^T d B)] A``. Written with Kronecker products, each transform is one product of a 36-column
matrix with all tiles and channels at once, and the middle becomes 36 products over the channels. Everything is done
in blocks of tiles that stay near the cache, channels beside each other.

The interpolation points 0, 1, -1, 2, -1/2 keep the error in float32 near 4e-6 of the largest value at 128 channels,
a third of what the usual 0, ±1, ±2 give; tests hold 2e-5.
Source: Winograd 1980, "Arithmetic complexity of computations"; Lavin and Gray 2016, "Fast algorithms for convolutional
neural networks", arXiv 1509.09308; the matrices by Toom's and Cook's interpolation.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backend import get_num_threads, parallel, pixels
from ..backend.numpy_backend import NumpyBackend
from .windows import SKEW, in_blocks, turn, turn_back

SIDE = 6  # of a tile of values
_POINTS = (Fraction(0), Fraction(1), Fraction(-1), Fraction(2), Fraction(-1, 2))
_CACHE = 7 << 18  # bytes of a block's transformed values
_TOGETHER = 1 << 16  # values of the weight's gradient that are added to the sum at a time
_LEAST_TILES = 128  # in a block: below, each product would read the transformed weight for too little work


def _times(p: list[Fraction], q: list[Fraction]) -> list[Fraction]:
    """The product of two polynomials, lowest coefficient first."""
    out = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            out[i + j] += a * b
    return out


@lru_cache(maxsize=8)
def transforms(size: int) -> tuple[Any, Any, Any]:
    """``A^T x A^T`` (m*m, 36), ``G x G`` (36, size*size) and ``B^T x B^T`` (36, 36) for a kernel of ``size``, float32.

    Row j of G evaluates the kernel's polynomial at point j, divided by the other points' distances; row j of B^T holds
    the polynomial that vanishes at all other points; A^T evaluates at the points. The last point is infinity.
    """
    made = SIDE + 1 - size
    a = [[p**i for p in _POINTS] + [Fraction(i == made - 1)] for i in range(made)]
    g, b = [], []
    for j, point in enumerate(_POINTS):
        scale, rest = Fraction(1), [Fraction(1)]
        for k, other in enumerate(_POINTS):
            if k != j:
                scale *= point - other
                rest = _times(rest, [-other, Fraction(1)])
        g.append([point**i / scale for i in range(size)])
        b.append([*rest, Fraction(0)])
    g.append([Fraction(i == size - 1) for i in range(size)])
    every = [Fraction(1)]
    for point in _POINTS:
        every = _times(every, [-point, Fraction(1)])
    b.append(every)
    squares = (np.array([[float(v) for v in row] for row in matrix]) for matrix in (a, g, b))
    at, gg, bt = (np.kron(m, m).astype(np.float32) for m in squares)
    return at, gg, bt


Block = tuple[int, int, int, int]


class _Blocks:
    """How images are cut: tiles of results in each direction, and blocks of them that are worked on at a time."""

    def __init__(self, shape: tuple[int, ...], size: int, channels: int, workspace: int) -> None:
        samples, _, height, width = shape
        self.made = SIDE + 1 - size
        self.rows, self.cols = -(-height // self.made), -(-width // self.made)
        in_tile = 4 * SIDE * SIDE * channels
        threads = get_num_threads()
        limit = max(_CACHE, _LEAST_TILES * in_tile)
        limit = min(limit, workspace // (8 * threads), -(-samples * self.rows // threads) * self.cols * in_tile)
        self.blocks = list(in_blocks(samples, self.rows, self.cols * in_tile, limit))
        self.most = max((end - first) * (stop - row) for first, end, row, stop in self.blocks) * self.cols  # tiles

    def tiles(self, block: Block) -> tuple[int, int, int]:
        """Samples, rows and columns of tiles in a block."""
        first, end, row, stop = block
        return end - first, stop - row, self.cols


def _values(x: Any, block: Block, tiles: tuple[int, int, int], made: int, before: Any) -> Any:
    """The padded values that the tiles of a block see, ``(n, rows, cols, C)``, channels beside each other."""
    first, end, row, _ = block
    overlap = SIDE - made
    wide = np.empty((tiles[0], tiles[1] * made + overlap, tiles[2] * made + overlap, x.shape[3]), x.dtype)
    top, left = row * made - before[0], -before[1]
    inside, here = [], []
    for start, reach, length in ((top, wide.shape[1], x.shape[1]), (left, wide.shape[2], x.shape[2])):
        a = min(max(start, 0), length)
        b = max(min(start + reach, length), a)
        inside.append(slice(a, b))
        here.append(slice(a - start, b - start) if b > a else slice(0, 0))
    part = x[first:end, inside[0], inside[1]]
    if part.shape != wide.shape:
        wide[...] = 0
    turn(part, wide[:, here[0], here[1]])
    return wide


def _seen(wide: Any, tiles: tuple[int, int, int], made: int) -> Any:
    """What each tile sees, ``(6, 6, n, rows, cols, C)``, as a view."""
    n, h, w, c = wide.strides
    return as_strided(wide, (SIDE, SIDE, *tiles, wide.shape[3]), (h, w, n, h * made, w * made, c))


def winograd(backend: NumpyBackend, x: Any, weight: Any, bias: Any, before: Any, y: Any, workspace: int) -> None:
    """``y = conv(x, weight, bias)`` at stride 1, with ``before`` zeros above and on the left; float32, into ``y``."""
    filters, channels, size = weight.shape[:3]
    at, gg, bt = transforms(size)
    kernel = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(size * size, -1)
    u = backend.gemm(gg, kernel).reshape(SIDE * SIDE, channels, filters)  # (36, C, F)
    most = max(channels, filters)
    cut = _Blocks(y.shape, size, most, workspace)
    made = cut.made
    source, target = pixels(x), pixels(y)  # (N, H, W, C)
    direct = target.flags.c_contiguous and target.shape[1] % made == 0 and target.shape[2] % made == 0

    def work(start: int, stop: int) -> None:
        one, other = (backend.empty((SIDE * SIDE * cut.most * most,), x.dtype) for _ in range(2))
        if not direct:
            staging = backend.empty((made * made * cut.most, filters + SKEW), x.dtype)
        for block in cut.blocks[start:stop]:
            tiles = cut.tiles(block)
            count = tiles[0] * tiles[1] * tiles[2]
            wide = _values(source, block, tiles, made, before)
            d, v = (a[: SIDE * SIDE * count * channels].reshape(SIDE * SIDE, -1) for a in (one, other))
            np.copyto(d.reshape(SIDE, SIDE, *tiles, channels), _seen(wide, tiles, made))
            np.matmul(bt, d, out=v)
            m = one[: SIDE * SIDE * count * filters].reshape(SIDE * SIDE, count, filters)
            np.matmul(v.reshape(SIDE * SIDE, count, channels), u, out=m)
            o = other[: made * made * count * filters].reshape(made * made, -1)
            np.matmul(at, m.reshape(SIDE * SIDE, -1), out=o)
            o = o.reshape(made, made, *tiles, filters).transpose(2, 3, 0, 4, 1, 5)
            first, end, row, last = block
            rows = slice(row * made, min(last * made, target.shape[1]))
            out = target[first:end, rows]
            if direct:
                here = out.reshape(tiles[0], tiles[1], made, tiles[2], made, filters)
            else:
                here = staging[: count * made * made, :filters].reshape(
                    tiles[0], tiles[1], made, tiles[2], made, filters
                )
            if bias is None:
                np.copyto(here, o)
            else:
                np.add(o, bias, here)
            if not direct:
                here = here.reshape(tiles[0], tiles[1] * made, tiles[2] * made, filters)
                turn_back(here[:, : out.shape[1], : out.shape[2]], out)

    parallel(work, len(cut.blocks))


def _transformed_gradient(
    target: Any, block: Block, tiles: tuple[int, int, int], made: int, at: Any, one: Any, other: Any
) -> Any:
    """``A dY A^T`` of a block, ``(36, tiles, F)``, in ``other``; ``one`` is used on the way."""
    first, end, row, last = block
    count, filters = tiles[0] * tiles[1] * tiles[2], target.shape[3]
    given = target[first:end, row * made : last * made]
    if given.shape[1:3] != (tiles[1] * made, tiles[2] * made) or not given.flags.c_contiguous:
        whole = other[: count * made * made * filters].reshape(tiles[0], tiles[1] * made, tiles[2] * made, filters)
        if given.shape != whole.shape:
            whole[...] = 0
        turn(given, whole[:, : given.shape[1], : given.shape[2]])
        given = whole
    o = one[: made * made * count * filters].reshape(made, made, *tiles, filters)
    given = given.reshape(tiles[0], tiles[1], made, tiles[2], made, filters)
    np.copyto(o, given.transpose(2, 4, 0, 1, 3, 5))
    m = other[: SIDE * SIDE * count * filters].reshape(SIDE * SIDE, -1)
    np.matmul(at.T, o.reshape(made * made, -1), out=m)
    return m.reshape(SIDE * SIDE, count, filters)


def winograd_weight(
    backend: NumpyBackend, dy: Any, x: Any, size: int, before: Any, dweight: Any, workspace: int
) -> None:
    """The gradient of the weight of :func:`winograd`, ``(F, C, size, size)``, into ``dweight``.

    ``dU = V^T (A dY A^T)`` for each of the 36 positions, added up over the blocks; each thread has its own sum.
    """
    filters, channels = dy.shape[1], x.shape[1]
    at, gg, bt = transforms(size)
    most = max(channels, filters)
    cut = _Blocks(dy.shape, size, most, workspace)
    made = cut.made
    source, target = pixels(x), pixels(dy)
    parts = min(get_num_threads(), len(cut.blocks))
    bounds = [len(cut.blocks) * i // parts for i in range(parts + 1)]
    sums = backend.empty((parts, SIDE * SIDE, channels, filters), x.dtype)

    def add_up(part: int) -> None:
        one, other, third = (backend.empty((SIDE * SIDE * cut.most * most,), x.dtype) for _ in range(3))
        few = max(1, _TOGETHER // (channels * filters))  # positions
        du = np.empty((few, channels, filters), x.dtype)
        for i in range(bounds[part], bounds[part + 1]):
            block = cut.blocks[i]
            tiles = cut.tiles(block)
            count = tiles[0] * tiles[1] * tiles[2]
            wide = _values(source, block, tiles, made, before)
            d, v = (a[: SIDE * SIDE * count * channels].reshape(SIDE * SIDE, -1) for a in (one, other))
            np.copyto(d.reshape(SIDE, SIDE, *tiles, channels), _seen(wide, tiles, made))
            np.matmul(bt, d, out=v)
            m = _transformed_gradient(target, block, tiles, made, at, one, third)
            v = v.reshape(SIDE * SIDE, count, channels)
            for p in range(0, SIDE * SIDE, few):
                now = slice(p, p + few)
                if i == bounds[part]:
                    np.matmul(v[now].transpose(0, 2, 1), m[now], out=sums[part, now])
                    continue
                product = du[: len(m[now])]
                np.matmul(v[now].transpose(0, 2, 1), m[now], out=product)
                np.add(sums[part, now], product, sums[part, now])

    def work(start: int, stop: int) -> None:
        for part in range(start, stop):
            add_up(part)

    parallel(work, parts)
    total = sums[0]
    for other in sums[1:]:
        total += other
    dw = backend.gemm(gg.T, total.reshape(SIDE * SIDE, -1)).reshape(size, size, channels, filters)
    dweight[...] = dw.transpose(3, 2, 0, 1)


def winograd_data(
    backend: NumpyBackend, dy: Any, weight: Any, before: tuple[int, ...], dx: Any, workspace: int
) -> bool:
    """The gradient of the data of :func:`winograd`, by its steps backwards, into ``dx``.

    ``dM = A dY A^T``, ``dV = dM U^T``, and ``B dV B^T`` is added up where tiles overlap. With many filters for few
    channels that is cheaper than the convolution with the turned weight: the larger transform is that of the channels.
    A block has to be whole samples; returns False, with nothing done, where they are too large.
    """
    filters, channels, size = weight.shape[:3]
    at, gg, bt = transforms(size)
    most = max(channels, filters)
    cut = _Blocks(dy.shape, size, most, workspace)
    if any(block[2:] != (0, cut.rows) for block in cut.blocks):
        return False
    made, overlap = cut.made, size - 1
    kernel = np.ascontiguousarray(weight.transpose(2, 3, 0, 1)).reshape(size * size, -1)
    u = backend.gemm(gg, kernel).reshape(SIDE * SIDE, filters, channels)  # (36, F, C)
    target, into = pixels(dy), pixels(dx)
    rows, cols = (slice(b, b + n) for b, n in zip(before, dx.shape[2:], strict=True))

    def work(start: int, stop: int) -> None:
        one, other = (backend.empty((SIDE * SIDE * cut.most * most,), dy.dtype) for _ in range(2))
        for block in cut.blocks[start:stop]:
            tiles = cut.tiles(block)
            count = tiles[0] * tiles[1] * tiles[2]
            m = _transformed_gradient(target, block, tiles, made, at, one, other)
            v, d = (a[: SIDE * SIDE * count * channels].reshape(SIDE * SIDE, -1) for a in (one, other))
            np.matmul(m, u, out=v.reshape(SIDE * SIDE, count, channels))
            np.matmul(bt.T, v, out=d)
            wide = np.empty((tiles[0], tiles[1] * made + overlap, tiles[2] * made + overlap, channels), dy.dtype)
            _overlap(d.reshape(SIDE, SIDE, *tiles, channels), wide, made)
            turn_back(wide[:, rows, cols], into[block[0] : block[1]])

    parallel(work, len(cut.blocks))
    return True


def _overlap(d: Any, wide: Any, made: int) -> None:
    """Write the sum of tiles ``(6, 6, n, rows, cols, C)`` that overlap into ``wide``, ``(n, height, width, C)``."""
    tiles = d.shape[2:5]
    wide[:, tiles[1] * made :] = 0
    wide[:, :, tiles[2] * made :] = 0
    n, h, w, c = wide.strides
    for a in range(0, SIDE, made):
        for b in range(0, SIDE, made):
            part = d[a : a + made, b : b + made].transpose(2, 3, 0, 4, 1, 5)  # (n, rows, <= m, cols, <= m, C)
            place = as_strided(wide[:, a:, b:], part.shape, (n, h * made, h, w * made, w, c))
            if a == b == 0:
                np.copyto(place, part)
            else:
                np.add(place, part, place)
