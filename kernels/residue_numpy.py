"""Convolution at stride 1 on the CPU with columns that are unfolded along all axes but the last.

Write for each position of the padded image what the kernel's other axes see there, R numbers, one position after the
other. A window of K positions along the last axis is then K R numbers in a row, and the windows at positions r, r + K,
r + 2 K, … stand one behind the other: a matrix of full rows. So the positions that leave the same residue modulo K are
one matrix product, K products do them all, and the columns need a K-th of the memory and of the copying. Windows that
reach over the end of a row are computed too, and dropped.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from ..backend import empty_images, get_num_threads, parallel, pixels
from ..backend.numpy_backend import NumpyBackend
from .windows import SKEW, Windows, in_blocks, turn, turn_back

_CACHE = 1 << 21  # bytes of columns and results worked on at a time

Block = tuple[int, int, int, int]


class _Unfolded:
    """How a convolution is cut, and the columns of its blocks.

    Args:
        x: shape ``(N, C, *lengths)`` with two axes or more; one row of the first is the least that a block holds.
        counts: the places along each axis.
    """

    def __init__(self, x: Any, filters: int, geometry: Windows, counts: tuple[int, ...], workspace: int) -> None:
        self.x, self.geometry, self.counts, self.filters = x, geometry, counts, filters
        self.across = geometry.kernel[-1]
        self.width = counts[-1] + self.across - 1  # positions along the last axis
        self.wide = math.prod(geometry.kernel[:-1]) * x.shape[1]  # R, the numbers of a position
        self.row = math.prod(counts[1:-1]) * self.width  # positions of one row of the first axis
        in_row = bytes_of_row(x, filters, geometry, counts)
        threads = get_num_threads()
        limit = min(_CACHE, workspace // (4 * threads), -(-x.shape[0] * counts[0] * in_row // threads))
        self.blocks = list(in_blocks(x.shape[0], counts[0], in_row, limit))
        most = max((end - first) * (stop - row) for first, end, row, stop in self.blocks) * self.row
        self.most = -(-most // self.across) * self.across  # positions of a block, in whole windows

    def positions(self, block: Block) -> int:
        first, end, row, stop = block
        return (end - first) * (stop - row) * self.row

    def memory(self, backend: NumpyBackend) -> tuple[Any, Any]:
        """For the columns of a block, and for its results, ``(positions, F)``."""
        cols = backend.empty(((self.most + self.across) * self.wide,), self.x.dtype)
        return cols, backend.empty((self.most, self.filters + SKEW), self.x.dtype)[:, : self.filters]

    def fill(self, backend: NumpyBackend, block: Block, cols: Any) -> list[Any]:
        """Write a block's columns; returns the matrices ``(windows, K R)`` of the K residues."""
        first, end, row, stop = block
        inside, here = self.geometry.part(row, stop, self.x.shape[2])
        part = self.x[first:end, :, inside]
        lengths = here.padded_lengths(part.shape[2:])
        image, inner = here.overlap(part.shape[2:])
        near = part[(..., *image)]
        if near.shape[2:] != lengths or near.strides[1] != near.itemsize:
            wide = empty_images(backend, (*part.shape[:2], *lengths), part.dtype, None, True)
            if near.shape != wide.shape:
                wide[...] = 0
            turn(pixels(near), pixels(wide[(..., *inner)]))
            near = wide
        stride = near.strides
        moved = tuple(d * s for d, s in zip(here.dilation[:-1], stride[2:-1], strict=True))
        apart = tuple(d * s for d, s in zip(here.stride[:-1], stride[2:-1], strict=True))
        shape = (end - first, stop - row, *self.counts[1:-1], self.width, *here.kernel[:-1], part.shape[1])
        seen = as_strided(near, shape, (stride[0], *apart, stride[-1], *moved, stride[1]))
        used = self.positions(block) * self.wide
        np.copyto(cols[:used].reshape(shape), seen)
        windows = -(-self.positions(block) // self.across)
        cols[used : (windows * self.across + self.across) * self.wide] = 0  # 0 times NaN would be NaN
        length = windows * self.across * self.wide
        return [
            cols[r * self.wide : r * self.wide + length].reshape(windows, self.across * self.wide)
            for r in range(self.across)
        ]

    def by_residue(self, results: Any, block: Block) -> Any:
        """The results of a block as ``(windows, K, F)``."""
        windows = -(-self.positions(block) // self.across)
        return results[: windows * self.across].reshape(windows, self.across, self.filters)

    def by_place(self, results: Any, block: Block) -> Any:
        """The results of a block as ``(n, *places, F)``, without those that reach over an end."""
        first, end, row, stop = block
        shape = (end - first, stop - row, *self.counts[1:-1], self.width, self.filters)
        return results[: self.positions(block)].reshape(shape)[..., : self.counts[-1], :]


def bytes_of_row(x: Any, filters: int, geometry: Windows, counts: tuple[int, ...]) -> int:
    """What one row of the first axis needs: its columns, and its results."""
    position = math.prod(geometry.kernel[:-1]) * x.shape[1] + filters + SKEW
    length: int = math.prod(counts[1:-1]) * (counts[-1] + geometry.kernel[-1] - 1) * position * x.itemsize
    return length


def residue(backend: NumpyBackend, x: Any, weight: Any, bias: Any, geometry: Windows, y: Any, workspace: int) -> None:
    """``y = conv(x, weight, bias)`` where stride and dilation of the last axis are 1, into ``y``; two axes or more."""
    axes = len(geometry.kernel)
    w = weight.transpose(axes + 1, *range(2, axes + 1), 1, 0)  # (K, the other axes, C, F)
    w = np.ascontiguousarray(w).reshape(-1, weight.shape[0])
    cut = _Unfolded(x, weight.shape[0], geometry, y.shape[2:], workspace)
    target = pixels(y)

    def work(start: int, stop: int) -> None:
        cols, results = cut.memory(backend)
        for block in cut.blocks[start:stop]:
            by_residue = cut.by_residue(results, block)
            for r, rows in enumerate(cut.fill(backend, block, cols)):
                np.matmul(rows, w, out=by_residue[:, r])
            made = cut.by_place(results, block)
            if bias is not None:
                np.add(made, bias, made)
            first, end, row, last = block
            turn_back(made, target[first:end, row:last])

    parallel(work, len(cut.blocks))


def residue_weight(backend: NumpyBackend, dy: Any, x: Any, geometry: Windows, dweight: Any, workspace: int) -> None:
    """The gradient of the weight of :func:`residue`, into ``dweight``; each thread has its own sum."""
    filters, axes = dy.shape[1], len(geometry.kernel)
    cut = _Unfolded(x, filters, geometry, dy.shape[2:], workspace)
    source = pixels(dy)
    parts = min(get_num_threads(), len(cut.blocks))
    bounds = [len(cut.blocks) * i // parts for i in range(parts + 1)]
    sums = backend.empty((parts, cut.across * cut.wide, filters), x.dtype)

    def work(start: int, stop: int) -> None:
        for part in range(start, stop):
            cols, results = cut.memory(backend)
            one = backend.empty(sums.shape[1:], x.dtype)
            fresh = True
            for block in cut.blocks[bounds[part] : bounds[part + 1]]:
                first, end, row, last = block
                by_residue = cut.by_residue(results, block)
                by_residue[...] = 0  # windows that reach over an end have no gradient
                turn(source[first:end, row:last], cut.by_place(results, block))
                for r, rows in enumerate(cut.fill(backend, block, cols)):
                    np.matmul(rows.T, by_residue[:, r], out=sums[part] if fresh else one)
                    if not fresh:
                        np.add(sums[part], one, sums[part])
                    fresh = False

    parallel(work, parts)
    total = sums[0]
    for other in sums[1:]:
        total += other
    total = total.reshape(geometry.kernel[-1], *geometry.kernel[:-1], x.shape[1], filters)
    dweight[...] = total.transpose(axes + 1, axes, *range(1, axes), 0)
