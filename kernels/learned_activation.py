"""Activations with a parameter that is learned, on CUDA: PReLU and Swish; the kernels are in ``activation.cu``.

One launch forward. One back, which has the gradient of ``x`` and a part of that of the parameter from each block, and
one that adds these up, always in the same order.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, is_channels_last, pixels, planes
from ._launch import (
    Plan,
    aligned,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    elements_at_a_time,
    explained,
    launch,
    no_cuda,
    no_kernel_for,
)
from .activation import _axes_in_memory, _inverse
from .reduce import reduce, sum_rows

_SOURCE = Path(__file__).with_name("activation.cu")
_THREADS, _WARPS = 256, 8  # of a block at most; kWarps in activation.cu
_CHUNK, _MOST_PARTS = 1 << 13, 1 << 10  # elements of a row for a block, at least; parts of a row, at most
_ROWS, _MOST_ROW_PARTS = 1 << 8, 1 << 9  # the same of rows below each other


def learned_forward(x: Array, weight: Array, kernel: str) -> Array:
    """``y = f(x; w)``, elementwise; 16-bit floats in float32, rounded once.

    Args:
        x: an array for which ``has_activation_kernel``; ``(N, C, ...)`` where there is more than one ``w``.
        weight: w, one number, or one for each channel, shape ``(C,)``.
        kernel: f, a function of the table of ``activation.cu`` whose parameter ``a`` is w, and which has a share of it.
    """
    backend, given = common_backend(x, weight), _Given(x, weight)
    y = backend.empty(given.lying.shape, x.dtype, backend.device_of(x))
    plan = _select("learned_forward", kernel, given, y)
    launch(_SOURCE, plan, backend, given.lying, given.wide(backend), y)
    return given.back(y)


def learned_backward(dy: Array, x: Array, weight: Array, kernel: str) -> tuple[Array, Array]:
    """The gradients of ``x`` and of ``weight``, of their shapes and dtypes.

    Args:
        dy: gradient of ``y``, of the shape and dtype of ``x``. Others: as given to :func:`learned_forward`.
    """
    backend, given = backend_of(x), _Given(x, weight)
    device, dy = backend.device_of(x), contiguous(backend, given.lay(dy))
    dx = backend.empty(given.lying.shape, x.dtype, device)
    plan = _select("learned_backward", kernel, given, dy, dx)
    by_rows, parts = plan.defines[0] == "ROWS", int(plan.scalars[-1])
    shape = (given.channels, given.outer * parts) if by_rows else (parts, given.channels)
    partial = backend.empty(shape, "float32", device)
    launch(_SOURCE, plan, backend, dy, given.lying, given.wide(backend), dx, partial)
    dweight = reduce("sum", partial, 1) if by_rows else sum_rows(partial)
    return given.back(dx), dweight.reshape(weight.shape).astype(weight.dtype, copy=False)


class _Given:
    """How the elements of ``x`` lie: ``outer x channels x inner``, contiguous, the last 1 where channels are last.

    Attributes:
        lying: ``x`` with its axes in the order in which they lie in memory, contiguous.
    """

    def __init__(self, x: Array, weight: Array) -> None:
        self.weight = weight
        self.channels = weight.size
        self._order = self._back = None
        self._last = self.channels > 1 and is_channels_last(x)
        if self.channels == 1 and (order := _axes_in_memory(x)) is not None:
            self._order, self._back = order, _inverse(order)
        self.lying = contiguous(backend_of(x), self.lay(x))
        if self.channels == 1:
            self.outer, self.inner = 1, x.size
        elif self._last:
            self.outer, self.inner = x.size // self.channels, 1
        else:
            self.outer, self.inner = x.shape[0], math.prod(x.shape[2:])

    def lay(self, x: Array) -> Array:
        return pixels(x) if self._last else x if self._order is None else x.transpose(self._order)

    def back(self, y: Array) -> Array:
        return planes(y) if self._last else y if self._back is None else y.transpose(self._back)

    def wide(self, backend: Backend) -> Array:
        return contiguous(backend, self.weight).astype("float32", copy=False)


def _select(function: str, kernel: str, given: _Given, *others: Array) -> Plan:
    x, is_aligned = given.lying, aligned(given.lying, *others)
    return _plan(function, kernel, x.dtype, (given.outer, given.channels, given.inner), is_aligned)


@lru_cache(maxsize=1024)
def _plan(function: str, kernel: str, dtype: Any, shape: tuple[int, int, int], is_aligned: bool) -> Plan:
    outer, channels, inner = shape
    by_rows = inner > 1 or channels == 1
    line = (inner, "values of a channel") if by_rows else (channels, "channels")
    vector, why = elements_at_a_time(dtype, is_aligned, line)
    if by_rows:
        chunk = max(_CHUNK, -(-inner // _MOST_PARTS))
        chunk += -chunk % vector
        parts = -(-inner // chunk)
        packs = -(-min(inner, chunk) // vector)
        block = min(_THREADS, max(32, 1 << (packs - 1).bit_length()))
        grid = blocks(function, outer * channels * parts, 1)
        because = f"a block for {min(chunk, inner)} values with one parameter"
    else:
        chunk = max(_ROWS, -(-outer // _MOST_ROW_PARTS))
        parts = -(-outer // chunk)
        block = 32 * _WARPS
        grid = blocks(function, parts * -(-channels // (32 * vector)), 1)
        because = f"a block for {32 * vector} channels of {min(chunk, outer)} places"
    because += f", {vector} element{'s' * (vector > 1)} at a time{f', because {why}' if why else ''}"
    layout = "ROWS" if by_rows else "COLUMNS"
    defines = (layout, f"ACTIVATION={kernel}", f"DTYPE={c_type(dtype)}", f"VECTOR={vector}")
    scalars = (np.int64(outer), np.int64(channels), np.int64(inner), np.int64(chunk), np.int32(parts))
    return Plan(function, defines, grid, block, scalars, because)


@explained("prelu")
def _explain_prelu(x: Array, weight: Array) -> Plan:
    return _explain("learned_forward", "leaky_relu", x, weight)


@explained("prelu_backward")
def _explain_prelu_backward(dy: Array, x: Array, weight: Array) -> Plan:
    return _explain("learned_backward", "leaky_relu", x, weight, dy)


@explained("swish")
def _explain_swish(x: Array, beta: Array) -> Plan:
    return _explain("learned_forward", "swish", x, beta)


@explained("swish_backward")
def _explain_swish_backward(dy: Array, x: Array, beta: Array) -> Plan:
    return _explain("learned_backward", "swish", x, beta, dy)


def _explain(function: str, kernel: str, x: Array, weight: Array, *dy: Array) -> Plan:
    backend = backend_of(x)
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    if c_type(x.dtype) is None or not x.size:
        return definition_plan(no_kernel_for(x.dtype) if x.size else "the array is empty, nothing is launched")
    given = _Given(x, weight)
    return _select(function, kernel, given, *(contiguous(backend, given.lay(a)) for a in dy))
