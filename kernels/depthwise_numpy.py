"""Depthwise convolution on the CPU: each channel by itself, a multiplication and an addition for each kernel position.

Channels lie beside each other, so that every operation runs along them; planes are turned, block by block. Products of
matrices would be of vectors here, one for each channel, and five to ten times slower.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import get_num_threads, parallel, pixels
from ..backend.numpy_backend import NumpyBackend
from .windows import Windows, in_blocks, padded

_CACHE = 1 << 18  # bytes of a block's result

Block = tuple[int, int, int, int]


def _blocks(y: Any) -> list[Block]:
    """Blocks of results that stay in the cache with what they are made of."""
    in_row = math.prod(y.shape[3:]) * y.shape[1] * y.dtype.itemsize
    return list(in_blocks(y.shape[0], y.shape[2], in_row, min(_CACHE, -(-y.nbytes // get_num_threads()))))


def _wide(backend: NumpyBackend, x: Any, geometry: Windows, block: Block) -> tuple[Any, Windows]:
    """The padded values that a block sees, ``(n, *lengths, C)``, channels beside each other."""
    first, end, row, stop = block
    inside, here = geometry.part(row, stop, x.shape[2])
    part = pixels(x[first:end, :, inside])
    near = part if part.strides[-1] == part.itemsize else np.ascontiguousarray(part)
    return pixels(padded(backend, near.transpose(0, near.ndim - 1, *range(1, near.ndim - 1)), here)), here


def _by_position(weight: Any, repeats: int) -> Any:
    """The weight ``(C, 1, *kernel)`` as ``(positions, repeats, C)``: long rows make quick operations."""
    return np.repeat(weight.reshape(len(weight), -1).T[:, None], repeats, axis=1)


def depthwise(backend: NumpyBackend, x: Any, weight: Any, bias: Any, geometry: Windows, y: Any) -> None:
    """``y[n, c, i] = bias[c] + sum over k of weight[c, 0, k] * padded x[n, c, stride i + dilation k]``, into ``y``."""
    w = _by_position(weight, y.shape[-1])
    target, blocks = pixels(y), _blocks(y)

    def work(start: int, stop: int) -> None:
        for block in blocks[start:stop]:
            first, end, row, last = block
            wide, here = _wide(backend, x, geometry, block)
            out = target[first:end, row:last]
            sums = out if out.flags.c_contiguous else np.empty(out.shape, x.dtype)
            product = np.empty(out.shape, x.dtype)
            weights = w[:, : out.shape[-2]]
            for i, place in enumerate(here.places(out.shape[1:-1])):
                if i == 0:
                    np.multiply(wide[(slice(None), *place)], weights[i], sums)
                else:
                    np.multiply(wide[(slice(None), *place)], weights[i], product)
                    np.add(sums, product, sums)
            if bias is not None:
                np.add(sums, bias, sums)
            if sums is not out:
                out[...] = sums

    parallel(work, len(blocks))


def depthwise_weight(backend: NumpyBackend, dy: Any, x: Any, geometry: Windows, dweight: Any) -> None:
    """``dweight[c, 0, k] = sum over n, i of dy[n, c, i] * padded x[n, c, stride i + dilation k]``, into ``dweight``."""
    channels, blocks = x.shape[1], _blocks(dy)
    sums = np.empty(
        (len(blocks), geometry.size, channels), x.dtype
    )  # of each block: the same with any number of threads
    source = pixels(dy)

    def work(start: int, stop: int) -> None:
        for number in range(start, stop):
            first, end, row, last = block = blocks[number]
            wide, here = _wide(backend, x, geometry, block)
            g = np.ascontiguousarray(source[first:end, row:last])
            product = np.empty(g.shape, x.dtype)
            for i, place in enumerate(here.places(g.shape[1:-1])):
                np.multiply(wide[(slice(None), *place)], g, product)
                backend.sum_rows(product.reshape(-1, channels), sums[number, i])

    parallel(work, len(blocks))
    total = backend.sum_rows(sums.reshape(len(blocks), -1)).reshape(geometry.size, channels)
    dweight[...] = total.T.reshape(dweight.shape)
