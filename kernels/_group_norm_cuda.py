"""The launcher of ``group_norm.cu``: group norm of channels-last images, and its backward pass in both formats.

Contiguous images go forward as rows with a weight for each channel: see ``_norm_cuda.py``.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend
from . import _norm_cuda
from ._launch import WIDEST_ACCESS, Plan, Plans, aligned, blocks, c_type, launch

_SOURCE = Path(__file__).with_name("group_norm.cu")
_LONGEST = 2**30  # channels and pixels that the kernels' 32-bit indices reach
_ENOUGH_BLOCKS = 1056  # that keep a large device busy: eight on each of 132 multiprocessors
_BLOCK = 256  # threads
_SMALLEST_BLOCK = 128
_FORWARD_PACKS, _BACKWARD_PACKS, _PLANE_PACKS = 4, 2, 4
_SMALL_PLANE = 4096  # elements that a warp walks alone
_SHORTEST = 32  # pixels to a thread at least, before a sample is cut into more chunks


class Images(NamedTuple):
    """What is known of a call before its arrays are touched; a function of it chooses the kernels.

    Attributes:
        dtype: of the elements.
        samples, channels, pixels, groups: the sizes.
        last: whether the channels of a pixel lie beside each other.
        aligned: every array starts on a 16-byte boundary.
        shared: bytes of shared memory that a block can have.
    """

    dtype: np.dtype[Any]
    samples: int
    channels: int
    pixels: int
    groups: int
    last: bool
    aligned: bool
    shared: int = 48 << 10

    def rows(self) -> _norm_cuda.Rows:
        """The groups as rows, of contiguous images."""
        rows, cols = self.samples * self.groups, self.channels // self.groups * self.pixels
        return _norm_cuda.Rows(self.dtype, rows, cols, self.aligned, values=self.pixels, shared=self.shared)


def why_not(call: Images) -> str | None:
    """Why there is no kernel for such images, or None."""
    if call.last and c_type(call.dtype) is not None and max(call.channels, call.pixels) < _LONGEST:
        return None
    return _norm_cuda.why_not(call.rows())


def _vector(call: Images) -> tuple[int, str]:
    """Elements to an access, and why it is one if it is."""
    widest = WIDEST_ACCESS // call.dtype.itemsize
    if not call.aligned:
        return 1, ", single elements because an array does not start on a 16-byte boundary"
    length, what = (call.channels, "channels") if call.last else (call.pixels, "pixels")
    if length % widest:
        return 1, f", single elements because {length} {what} are no multiple of {widest}"
    return widest, ""


def _tiles(call: Images, kind: str, vector: int, packs: int) -> tuple[tuple[str, ...], int, int, int]:
    """For channels-last images: defines, blocks, chunks, pixels in a chunk."""
    width = 8 if call.channels // vector <= 8 else 32
    tiles = -(-call.channels // (width * vector))
    wanted = max(1, _ENOUGH_BLOCKS // (call.samples * tiles))
    shortest = _SHORTEST * _BLOCK // width
    chunks = min(wanted, max(1, call.pixels // shortest))
    span = -(-call.pixels // chunks)
    chunks = -(-call.pixels // span)
    layout = (f"DTYPE={c_type(call.dtype)}", f"VECTOR={vector}", f"WIDTH={width}", f"DEPTH={_BLOCK // width}")
    grid = blocks(f"group_norm {kind}", call.samples * chunks * tiles, 1)
    return (kind, *layout, f"PACKS={packs}"), grid, chunks, span


def _finish(call: Images) -> tuple[str, ...]:
    return "FINISH", f"DTYPE={c_type(call.dtype)}", f"THREADS={_BLOCK}"


@lru_cache(maxsize=4096)
def select_forward(call: Images) -> Plans:
    """The kernels of a forward pass, without eps."""
    if not call.last:
        return _norm_cuda.select_forward(call.rows())
    vector, single = _vector(call)
    defines, grid, chunks, span = _tiles(call, "FORWARD_LAST", vector, _FORWARD_PACKS)
    channels, groups = np.int32(call.channels), np.int32(call.groups)
    cut = (np.int32(call.pixels), np.int32(chunks), np.int32(span))
    because = f"channels-last images are read twice without a copy, in {chunks} chunks of a sample{single}"
    moments = Plan("group_norm_moments", defines, grid, _BLOCK, (channels, *cut), because)
    because = "puts the channels of a group together"
    finish = Plan(
        *("group_norm_statistics", _finish(call), blocks("group_norm", call.samples * call.groups, 1), _BLOCK),
        *((channels, groups, *cut), because),
    )
    apply = Plan("group_norm_apply", defines, grid, _BLOCK, (channels, groups, *cut), "normalises")
    return Plans((moments, finish, apply))


@lru_cache(maxsize=4096)
def select_backward(call: Images) -> Plans:
    """The kernels of a backward pass."""
    vector, single = _vector(call)
    sizes: tuple[np.generic, ...] = (np.int32(call.channels), np.int32(call.groups), np.int32(call.pixels))
    samples = np.int32(call.samples)
    if call.last:
        defines, grid, chunks, span = _tiles(call, "BACKWARD_LAST", vector, _BACKWARD_PACKS)
        block = _BLOCK
        scalars = (*sizes, np.int32(chunks), np.int32(span))
        because = f"channels-last images are read twice without a copy, in {chunks} chunks of a sample{single}"
    else:
        planes = call.samples * call.channels
        small = call.pixels <= _SMALL_PLANE
        threads = 32 if small else _BLOCK
        wanted = 1 if small else max(1, _ENOUGH_BLOCKS // planes)
        chunks = min(wanted, max(1, call.pixels // _SMALL_PLANE))
        span = -(-call.pixels // (chunks * vector)) * vector
        chunks = -(-call.pixels // span)
        block = max(threads, _SMALLEST_BLOCK)
        layout = (f"DTYPE={c_type(call.dtype)}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={_PLANE_PACKS}")
        defines = ("BACKWARD_PLANES", *layout)
        grid = blocks("group_norm_sums", planes * chunks, block // threads)
        scalars = (samples, *sizes, np.int32(chunks), np.int32(span))
        because = f"planes of {call.pixels} are read twice by {threads} threads, in {chunks} chunks{single}"
    sums = Plan("group_norm_sums", defines, grid, block, scalars, because)
    together = blocks("group_norm_means", call.samples * call.groups + -(-call.channels // 32), 1)
    finish = Plan(
        *("group_norm_means", _finish(call), together, _BLOCK, (samples, *sizes, np.int32(chunks))),
        "puts the channels of a group together, and dweight and dbias",
    )
    return Plans((sums, finish, sums._replace(kernel="group_norm_gradient", because="the gradient of x")))


def launch_forward(
    backend: Backend, call: Images, x: Array, weight: Array | None, bias: Array | None, eps: float, y: Array
) -> tuple[Array, Array]:
    """Write ``y``; give mean and rstd, a value for each group of each sample."""
    if not call.last:
        channels = (call.groups, call.channels // call.groups)
        rows = call.rows()
        return _norm_cuda.launch_forward(backend, rows, x, y, None, None, weight, bias, eps, channels=channels)
    device = backend.device_of(x)
    moments, finish, apply = select_forward(call)
    chunks = int(moments.scalars[2])
    partial = backend.empty((call.samples, chunks, 2, call.channels), np.float32, device)
    mean, rstd = (backend.empty((call.samples * call.groups,), np.float32, device) for _ in range(2))
    launch(_SOURCE, moments, backend, x, partial)
    launch(_SOURCE, finish._replace(scalars=(*finish.scalars, np.float32(eps))), backend, partial, mean, rstd)
    launch(_SOURCE, apply, backend, x, weight, bias, mean, rstd, y)
    return mean, rstd


def launch_backward(
    backend: Backend, call: Images, dy: Array, x: Array, mean: Array, rstd: Array, weight: Array | None, dx: Array
) -> tuple[Array, Array]:
    """Write ``dx``; give dweight and dbias."""
    device = backend.device_of(x)
    sums, finish, gradient = select_backward(call)
    chunks = int(finish.scalars[-1])
    partial = backend.empty((call.samples, chunks, 2, call.channels), np.float32, device)
    product, total = (backend.empty((call.samples * call.groups,), np.float32, device) for _ in range(2))
    dweight, dbias = (backend.empty((call.channels,), x.dtype, device) for _ in range(2))
    launch(_SOURCE, sums, backend, dy, x, mean, rstd, partial)
    launch(_SOURCE, finish, backend, partial, weight, product, total, dweight, dbias)
    launch(_SOURCE, gradient, backend, dy, x, weight, mean, rstd, product, total, dx)
    return dweight, dbias


def images_of(backend: Backend, x: Array, groups: int, last: bool, *others: Array | None) -> Images:
    """The :class:`Images` of a call: ``x`` and every other array that is read or written in packs."""
    boundaries = aligned(x, *(a for a in others if a is not None))
    sizes = (x.shape[0], x.shape[1], math.prod(x.shape[2:]), groups)
    return Images(x.dtype, *sizes, last, boundaries, backend.shared_memory(backend.device_of(x)))
