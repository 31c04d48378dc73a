"""Convolution on the CPU: per shape the quickest of several algorithms, in blocks that stay near the cache.

- kernels of 3 or 5 at stride 1 with enough channels: Winograd's, see ``winograd_numpy.py``;
- a kernel of one value: a plain matrix product;
- one channel a group (depthwise): a multiplication and an addition for each position in the kernel;
- at stride 1 along the last axis: columns along the other axes only, see ``residue_numpy.py``;
- all others: columns of a block times the weight. The gradient of the data at stride 1 is such a convolution too, with
  the kernel turned; at other strides the columns of the gradient are added where they came from.

Blocks are whole samples, or rows of one, so the columns never exist as a whole. Both memory formats are taken as they
are: with planes the product is weight times columns, with pixels columns times weight.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backend import current_precision, empty_images, get_num_threads, is_channels_last, parallel, pixels
from ..backend.numpy_backend import NumpyBackend
from .depthwise_numpy import depthwise, depthwise_weight
from .residue_numpy import bytes_of_row, residue, residue_weight
from .windows import Windows, in_blocks
from .winograd_numpy import winograd, winograd_data, winograd_weight

_CACHE = 1 << 20  # bytes of columns worked on at a time
_SMALL_PLANE = 256  # places; planes that are smaller go through one product together
_FEWEST = 16  # channels, below which Winograd's transforms cost more than its products save
_LONG = 5  # values of a kernel along the last axis
_ENOUGH = 1024  # channels times filters, likewise

WINOGRAD = "Winograd's algorithm"
RESIDUE = "columns along all axes but the last"
DEPTHWISE = "a multiplication and an addition for each position in the kernel"
BY_PIXELS = "columns times weight"
BY_PLANES = "weight times columns"

Block = tuple[int, int, int, int]


def takes_winograd(
    dtype: Any, channels: int, filters: int, geometry: Windows, groups: int, places: tuple[int, ...], workspace: int
) -> bool:
    """Whether a convolution is done by Winograd's algorithm: where it pays, unless precision is strict."""
    transformed = 36 * channels * filters * 4  # bytes of the weight, or of one thread's sum of its gradient
    return (
        current_precision() != "strict"
        and dtype == np.float32
        and groups == 1
        and geometry.kernel in ((3, 3), (5, 5))
        and geometry.stride == geometry.dilation == (1, 1)
        and min(channels, filters) >= _FEWEST
        and channels * filters >= _ENOUGH
        and min(places) >= 3
        and transformed * (get_num_threads() + 1) <= workspace // 2
    )


def takes_residue(x: Any, filters: int, geometry: Windows, groups: int, workspace: int) -> bool:
    """Whether the columns are unfolded along all axes but the last: stride 1 there, and less copying that way.

    Measured: a kernel of 3 gains where planes have to be turned anyway, a longer one always.
    """
    long = geometry.kernel[-1] >= _LONG
    if (
        groups > 1
        or not (long or (geometry.kernel[-1] > 1 and len(geometry.kernel) > 1 and not is_channels_last(x)))
        or geometry.stride[-1] > 1
        or geometry.dilation[-1] > 1
        or min(x.shape[1], filters) < _FEWEST
    ):
        return False
    rows, counts = _with_two_axes(geometry), geometry.counts(x.shape[2:])
    counts = counts if len(counts) > 1 else (1, *counts)
    return bytes_of_row(x, filters, rows, counts) * 4 * get_num_threads() <= workspace


def _two_axes(a: Any) -> Any:
    """``(…, …, length)`` as ``(…, …, 1, length)``; images and volumes as they are."""
    return a[:, :, None] if a.ndim == 3 else a


def _with_two_axes(geometry: Windows) -> Windows:
    if len(geometry.kernel) > 1:
        return geometry
    kernel, stride, before, after, dilation = (n[0] for n in geometry)
    return Windows((1, kernel), (1, stride), (0, before), (0, after), (1, dilation))


def algorithm(x: Any, weight: Any, geometry: Windows, groups: int, workspace: int) -> str:
    """How a convolution is done on the CPU, in words; what :func:`forward` goes by."""
    filters, channels = weight.shape[:2]
    if takes_winograd(x.dtype, channels, filters, geometry, groups, geometry.counts(x.shape[2:]), workspace):
        return WINOGRAD
    if channels == 1 and filters == groups > 1:
        return DEPTHWISE
    if takes_residue(x, filters, geometry, groups, workspace):
        return RESIDUE
    if is_channels_last(x) and groups == 1:  # the channels of a group are too few to be copied together
        return BY_PIXELS
    return BY_PLANES


def rather_pixels(
    dtype: Any, weight: Any, geometry: Windows, groups: int, counts: tuple[int, ...], workspace: int
) -> bool:
    """Whether a result is channels-last of its own accord: Winograd's products are, and so what follows is quicker."""
    filters, channels = weight.shape[:2]
    return takes_winograd(dtype, channels, filters, geometry, groups, counts, workspace)


def forward(
    backend: NumpyBackend,
    x: Any,
    weight: Any,
    bias: Any,
    geometry: Windows,
    groups: int,
    workspace: int,
    y: Any,
) -> None:
    """``y = conv(x, weight, bias)``, float32 or float64, into ``y``, which has the memory format of ``x``."""
    chosen = algorithm(x, weight, geometry, groups, workspace)
    if chosen == WINOGRAD:
        winograd(backend, x, weight, bias, geometry.before, y, workspace)
    elif chosen == DEPTHWISE:
        depthwise(backend, x, weight, bias, geometry, y)
    elif chosen == RESIDUE:
        (x, y), weight, geometry = (_two_axes(a) for a in (x, y)), _two_axes(weight), _with_two_axes(geometry)
        residue(backend, x, weight, bias, geometry, y, workspace)
    elif chosen == BY_PIXELS:
        _by_pixels(backend, x, weight, bias, geometry, workspace, y)
    else:
        planes = y if y.flags.c_contiguous else backend.empty(y.shape, y.dtype)
        _by_planes(backend, x, weight, bias, geometry, groups, workspace, planes)
        if planes is not y:
            y[...] = planes


def backward_data(
    backend: NumpyBackend, dy: Any, weight: Any, geometry: Windows, groups: int, workspace: int, dx: Any
) -> None:
    """The gradient of ``x`` into ``dx``, which has the memory format of ``dy``."""
    filters, channels = weight.shape[:2]
    by_winograd = takes_winograd(dy.dtype, channels, filters, geometry, groups, dx.shape[2:], workspace)
    # either columns of dy, or columns of dx that are then added up: the fewer
    if (
        by_winograd
        and filters >= 2 * channels
        and min(geometry.before) >= 0
        and winograd_data(backend, dy, weight, geometry.before, dx, workspace)
    ):
        return
    if all(s == 1 for s in geometry.stride) and (by_winograd or filters < 4 * channels * groups):
        turned = weight.reshape(groups, filters // groups, channels, *geometry.kernel)
        turned = np.flip(turned.swapaxes(1, 2), tuple(range(3, turned.ndim)))
        turned = turned.reshape(groups * channels, filters // groups, *geometry.kernel)
        before = tuple(r - 1 - b for r, b in zip(geometry.reach, geometry.before, strict=True))
        after = tuple(r - 1 - a for r, a in zip(geometry.reach, geometry.after, strict=True))
        forward(backend, dy, turned, None, geometry._replace(before=before, after=after), groups, workspace, dx)
        return
    _scattered(backend, dy, weight, geometry, groups, workspace, dx)


def backward_weight(
    backend: NumpyBackend, dy: Any, x: Any, geometry: Windows, groups: int, workspace: int, dweight: Any
) -> None:
    """The gradient of the weight into ``dweight``; each thread adds up its own blocks."""
    filters, channels = dweight.shape[:2]
    if takes_winograd(x.dtype, channels, filters, geometry, groups, dy.shape[2:], workspace):
        winograd_weight(backend, dy, x, geometry.kernel[0], geometry.before, dweight, workspace)
        return
    if channels == 1 and filters == groups > 1:
        depthwise_weight(backend, dy, x, geometry, dweight)
        return
    if takes_residue(x, filters, geometry, groups, workspace):
        (dy, x, dweight), geometry = (_two_axes(a) for a in (dy, x, dweight)), _with_two_axes(geometry)
        residue_weight(backend, dy, x, geometry, dweight, workspace)
        return
    last = is_channels_last(x) and groups == 1
    counts = dy.shape[2:]
    blocks = _blocks(x, filters, geometry, counts, workspace)
    parts = min(get_num_threads(), len(blocks))
    bounds = [len(blocks) * i // parts for i in range(parts + 1)]
    width = channels * geometry.size
    shape = (groups, width, filters // groups) if last else (groups, filters // groups, width)
    sums = backend.empty((parts, *shape), x.dtype)

    def add_up(part: int) -> None:
        maker = _Columns(backend, x, geometry, groups, counts, blocks, last)
        one = backend.empty(shape, x.dtype)
        fresh = True
        for i in range(bounds[part], bounds[part + 1]):
            first, end, row, stop = block = blocks[i]
            cols, g = maker.of(block), dy[first:end, :, row:stop]
            if last:  # (n places, groups, kernel C/G) and (n places, groups, F/G)
                g = pixels(g).reshape(-1, groups, filters // groups)
                pairs = [(cols.transpose(1, 2, 0), g.transpose(1, 0, 2))]
            else:  # (groups, C/G kernel, n, places) and (n, groups, F/G, places)
                g = g.reshape(end - first, groups, filters // groups, -1)
                if g.shape[3] < _SMALL_PLANE:
                    g = g.transpose(1, 2, 0, 3).reshape(1, groups, filters // groups, -1)
                    cols = cols.reshape(groups, width, 1, -1)
                pairs = [(g[n], cols[:, :, n].transpose(0, 2, 1)) for n in range(len(g))]
            for left, right in pairs:
                if fresh:
                    np.matmul(left, right, out=sums[part])
                else:
                    np.matmul(left, right, out=one)
                    np.add(sums[part], one, sums[part])
                fresh = False

    def work(start: int, stop: int) -> None:
        for part in range(start, stop):
            add_up(part)

    parallel(work, parts)
    total = sums[0]
    for other in sums[1:]:
        total += other
    if last:  # (groups, kernel, C/G, F/G) to (groups, F/G, C/G, kernel)
        total = total.reshape(groups, geometry.size, channels, filters // groups).transpose(0, 3, 2, 1)
    dweight[...] = total.reshape(dweight.shape)


def backward_bias(backend: NumpyBackend, dy: Any, out: Any) -> Any:
    """The sum of each channel, ``(F,)``, by products with ones."""
    if is_channels_last(dy):
        return backend.sum_rows(pixels(dy).reshape(-1, dy.shape[1]), out)
    planes = dy.reshape(dy.shape[0] * dy.shape[1], math.prod(dy.shape[2:]))
    return backend.sum_rows(np.add.reduce(planes, axis=1).reshape(dy.shape[:2]), out)


# -- columns ---------------------------------------------------------------------------------------------------------


def _blocks(x: Any, filters: int, geometry: Windows, counts: tuple[int, ...], workspace: int) -> list[Block]:
    """Blocks whose columns stay in the cache and, for all threads together, under the limit; one row at the least."""
    samples, channels = x.shape[:2]
    in_row = max(channels * geometry.size, filters) * math.prod(counts[1:]) * x.dtype.itemsize
    threads = get_num_threads()
    limit = min(_CACHE, workspace // (4 * threads), -(-samples * counts[0] * in_row // threads))
    return list(in_blocks(samples, counts[0], in_row, limit))


class _Columns:
    """Makes the columns of one block after another in the same memory.

    Args:
        last: pixels, ``(n places, groups, kernel C/G)``; else planes, ``(groups, C/G kernel, n, places)``.
    """

    def __init__(
        self,
        backend: NumpyBackend,
        x: Any,
        geometry: Windows,
        groups: int,
        counts: tuple[int, ...],
        blocks: list[Block],
        last: bool,
    ) -> None:
        self.x, self.geometry, self.groups, self.counts, self.last = x, geometry, groups, counts, last
        self.backend = backend
        self.places = math.prod(counts[1:])
        most = max((end - first) * (stop - row) for first, end, row, stop in blocks) * self.places
        self.memory = backend.empty((most * x.shape[1] * geometry.size,), x.dtype)
        self.wide: Any = None

    def of(self, block: Block) -> Any:
        first, end, row, stop = block
        x, groups = self.x, self.groups
        inside, here = self.geometry.part(row, stop, x.shape[2])
        wide = self._padded(x[first:end, :, inside], here)
        samples, channels = end - first, x.shape[1] // groups
        counts = (stop - row, *self.counts[1:])
        stride = wide.strides
        moved = tuple(d * s for d, s in zip(here.dilation, stride[2:], strict=True))
        apart = tuple(d * s for d, s in zip(here.stride, stride[2:], strict=True))
        places = math.prod(counts)
        cols = self.memory[: samples * places * groups * channels * here.size]
        if self.last:
            seen = as_strided(
                wide,
                (samples, *counts, groups, *here.kernel, channels),
                (stride[0], *apart, channels * stride[1], *moved, stride[1]),
            )
            np.copyto(cols.reshape(seen.shape), seen)
            return cols.reshape(samples * places, groups, here.size * channels)
        seen = as_strided(
            wide,
            (groups, channels, *here.kernel, samples, *counts),
            (channels * stride[1], stride[1], *moved, stride[0], *apart),
        )
        np.copyto(cols.reshape(seen.shape), seen)
        return cols.reshape(groups, channels * here.size, samples, places)

    def _padded(self, part: Any, here: Windows) -> Any:
        """The block's values with zeros around, in the order of the columns; as they are where none are needed."""
        lengths = here.padded_lengths(part.shape[2:])
        image, inner = here.overlap(part.shape[2:])
        inside = part[(..., *image)]
        if inside.shape[2:] == lengths:
            return inside
        shape = (*part.shape[:2], *lengths)
        if self.wide is None or self.wide.shape != shape:
            self.wide = empty_images(self.backend, shape, part.dtype, None, self.last)
        self.wide[...] = 0
        self.wide[(..., *inner)] = inside
        return self.wide


def _is_plain(geometry: Windows) -> bool:
    """Whether the columns are the values as they are: a kernel of one value at every place."""
    return geometry.size == 1 and not any(geometry.before + geometry.after) and all(s == 1 for s in geometry.stride)


def _by_planes(
    backend: NumpyBackend, x: Any, weight: Any, bias: Any, geometry: Windows, groups: int, workspace: int, y: Any
) -> None:
    """Weight times columns, ``(F/G, C/G k) @ (C/G k, places)``, planes in and out."""
    filters, samples = weight.shape[0], x.shape[0]
    w = np.ascontiguousarray(weight).reshape(groups, filters // groups, -1)
    b = None if bias is None else bias.reshape(groups, filters // groups, 1)
    counts = y.shape[2:]
    width = math.prod(counts[1:])
    target = y.reshape(samples, groups, filters // groups, -1)
    if _is_plain(geometry) and x.flags.c_contiguous:
        source = x.reshape(samples, groups, x.shape[1] // groups, -1)

        def plain(start: int, stop: int) -> None:
            for n in range(start, stop):
                np.matmul(w, source[n], out=target[n])
                if b is not None:
                    target[n] += b

        parallel(plain, samples)
        return
    blocks = _blocks(x, filters, geometry, counts, workspace)

    def work(start: int, stop: int) -> None:
        maker = _Columns(backend, x, geometry, groups, counts, blocks[start:stop], last=False)
        for block in blocks[start:stop]:
            first, end, row, last = block
            cols = maker.of(block)  # (groups, C/G k, n, places)
            if end - first == 1 or cols.shape[3] >= _SMALL_PLANE:
                for n in range(end - first):
                    out = target[first + n, :, :, row * width : last * width]
                    np.matmul(w, cols[:, :, n], out=out)
                    if b is not None:
                        out += b
                continue
            made = np.matmul(w, cols.reshape(groups, cols.shape[1], -1))
            if b is not None:
                made += b
            target[first:end] = made.reshape(groups, -1, end - first, cols.shape[3]).transpose(2, 0, 1, 3)

    parallel(work, len(blocks))


def _by_pixels(
    backend: NumpyBackend, x: Any, weight: Any, bias: Any, geometry: Windows, workspace: int, y: Any
) -> None:
    """Columns times weight, ``(places, k C) @ (k C, F)``, pixels in and out; one group."""
    filters, channels, samples = weight.shape[0], weight.shape[1], x.shape[0]
    w = np.ascontiguousarray(weight.reshape(filters, channels, -1).transpose(2, 1, 0)).reshape(-1, filters)
    counts = y.shape[2:]
    target = pixels(y).reshape(samples, -1, filters)
    width = math.prod(counts[1:])
    blocks = _blocks(x, filters, geometry, counts, workspace)
    plain = _is_plain(geometry)

    def work(start: int, stop: int) -> None:
        maker = None if plain else _Columns(backend, x, geometry, 1, counts, blocks[start:stop], last=True)
        for block in blocks[start:stop]:
            first, end, row, last = block
            out = target[first:end, row * width : last * width].reshape(-1, filters)
            cols = maker.of(block) if maker else pixels(x[first:end, :, row:last])
            np.matmul(cols.reshape(len(out), -1), w, out=out)
            if bias is not None:
                out += bias

    parallel(work, len(blocks))


def _scattered(
    backend: NumpyBackend, dy: Any, weight: Any, geometry: Windows, groups: int, workspace: int, dx: Any
) -> None:
    """Weight times gradient gives the columns' gradient, which is added where the columns came from.

    Samples are shared out among threads; the rows of one sample follow each other, in the same order at each call.
    """
    filters, channels = weight.shape[:2]
    last = is_channels_last(dy) and groups == 1
    counts = dy.shape[2:]
    lengths = geometry.padded_lengths(dx.shape[2:])
    image, inner = geometry.overlap(dx.shape[2:])
    w = weight.reshape(groups, filters // groups, channels, geometry.size)
    if last:
        w = np.ascontiguousarray(w[0].transpose(0, 2, 1)).reshape(filters, -1)  # (F, k C)
    else:
        w = np.ascontiguousarray(w.reshape(groups, filters // groups, -1).transpose(0, 2, 1))  # (G, C/G k, F/G)

    def work(start: int, stop: int) -> None:
        wide: Any = None
        for first, end, row, row_stop in _blocks(dx[start:stop], filters, geometry, counts, workspace):
            samples = slice(start + first, start + end)
            part = dy[samples, :, row:row_stop]
            here = (row_stop - row, *counts[1:])
            if row == 0:
                wide = empty_images(backend, (end - first, channels * groups, *lengths), dy.dtype, None, last)
                wide[...] = 0
            if last:
                cols = backend.empty((end - first, *here, geometry.size, channels), dy.dtype)
                g = pixels(part).reshape(-1, filters)
                np.matmul(g, w, out=cols.reshape(len(g), -1))
                cols = np.moveaxis(cols, (-1, -2), (1, 2))  # (n, C, k, *places)
            else:
                g = part.reshape(end - first, groups, filters // groups, -1)
                cols = np.matmul(w, g).reshape(end - first, channels * groups, geometry.size, *here)
            down = row * geometry.stride[0]
            for i, place in enumerate(geometry.places(here)):
                moved = slice(place[0].start + down, place[0].stop + down, place[0].step)
                target = wide[(..., moved, *place[1:])]
                np.add(target, cols[:, :, i], target)
            if row_stop == counts[0]:
                if any(g < 0 for g in geometry.before + geometry.after):  # what was cut off has no gradient
                    dx[samples] = 0
                dx[(samples, slice(None), *image)] = wide[(..., *inner)]

    parallel(work, dx.shape[0])
