"""Activations with what stands around them, ``residual + dropout(f(z + bias))``; kernels in ``activation.cu``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, random_bits
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
from .elementwise import elementwise

_SOURCE = Path(__file__).with_name("activation.cu")
_THREADS = 256
_ROWS_EACH = 4  # rows of one column that a thread takes, so that a bias is loaded once for several
_BY_OUTPUT = {"relu", "sigmoid", "tanh_"}  # their slopes are as exact from y as from x


class Activation(NamedTuple):
    """An elementwise function as kernels and the CPU know it.

    Attributes:
        kernel: its name in the table of ``activation.cu``.
        fill: the definition, ``fill(xp, x, y, slope, t)``: writes f(x) into ``y`` and f'(x) into ``slope``, which is
            None where it is not wanted; ``t`` is scratch. All have one shape and dtype, float32 or float64.
        a, b: the function's parameters in the table; ``a`` may be a 0-d array on the device.
    """

    kernel: str
    fill: Callable[..., None]
    a: Any = 0.0
    b: float = 0.0

    @property
    def by_output(self) -> bool:
        """Whether its slope can be taken from its value."""
        return self.kernel in _BY_OUTPUT


class Dropout(NamedTuple):
    """Which values are dropped, each with probability p: element ``i`` by word ``offset + i`` of stream ``key``."""

    p: float
    key: int
    offset: int

    @property
    def scale(self) -> float:
        """What the others are multiplied by."""
        return 1.0 / (1.0 - self.p) if self.p < 1 else 0.0

    @property
    def threshold(self) -> int:
        """A value is kept where its word is at least this."""
        return round(self.p * 2.0**32)


def _fill_identity(xp: Any, x: Array, y: Array, slope: Array | None, t: Array) -> None:
    y[...] = x
    if slope is not None:
        slope.fill(1.0)


IDENTITY = Activation("identity", _fill_identity)


def has_activation_kernel(x: Array) -> bool:
    """Whether a kernel computes activations of this array."""
    return backend_of(x).runs_cuda and c_type(x.dtype) is not None and x.size > 0


def activation_forward(
    z: Array, activation: Activation = IDENTITY, *, bias: Array | None = None, residual: Array | None = None,
    dropout: Dropout | None = None, out: Array | None = None,
) -> Array:  # fmt: skip
    """``y = residual + dropout(f(z + bias))``, elementwise; 16-bit floats in float32, rounded once.

    Args:
        z: shape ``(..., D)``, floating.
        activation: f. bias: shape ``(D,)``, or None. residual: of the shape of ``z``, or None.
        dropout: what is dropped, or None.
        out: where to write, C-contiguous, perhaps ``z`` itself; a new array by default.
    Returns:
        an array of the shape and dtype of ``z``.
    Raises:
        TypeError: the dtypes differ or are not floating. ValueError: the shapes do not fit.
    """
    plan = _select_forward(z, activation, bias=bias, residual=residual, dropout=dropout, out=out)
    if not plan.kernel:
        y = _forward_definition(z, activation, bias, residual, dropout)
        if out is None:
            return y
        out[...] = y
        return out
    backend = backend_of(z)
    order = None if dropout or bias is not None or residual is not None else _axes_in_memory(z)
    z = contiguous(backend, z if order is None else z.transpose(order))
    residual, bias = (None if a is None else contiguous(backend, a) for a in (residual, bias))
    y = backend.empty(z.shape, z.dtype, backend.device_of(z)) if out is None else out
    _launch(plan, backend, (z, bias, residual, y), activation, dropout)
    return y if order is None else y.transpose(_inverse(order))


def activation_backward(
    dy: Array, z: Array, activation: Activation = IDENTITY, *, bias: Array | None = None,
    dropout: Dropout | None = None, from_output: bool = False,
) -> Array:  # fmt: skip
    """``dz = dy · keep · f'(z + bias)``, elementwise: the gradient of ``z`` in :func:`activation_forward`.

    Args:
        dy: gradient of ``y``, of the shape and dtype of ``z``.
        z, activation, bias, dropout: what was given to :func:`activation_forward`.
        from_output: ``z`` is instead what it returned, where :attr:`Activation.by_output` allows it and there was
            nothing but ``z``.
    """
    plan = _select_backward(dy, z, activation, bias=bias, dropout=dropout, from_output=from_output)
    if not plan.kernel:
        return _backward_definition(dy, z, activation, bias, dropout, from_output)
    backend = backend_of(z)
    order = None if dropout or bias is not None else _axes_in_memory(z)
    if order is not None:
        dy, z = dy.transpose(order), z.transpose(order)
    dy, z = contiguous(backend, dy), contiguous(backend, z)
    bias = None if bias is None else contiguous(backend, bias)
    dz = backend.empty(z.shape, z.dtype, backend.device_of(z))
    _launch(plan, backend, (dy, z, bias, dz), activation, dropout)
    return dz if order is None else dz.transpose(_inverse(order))


def kept(like: Array, shape: tuple[int, ...], dropout: Dropout) -> Array:
    """True where a value is kept; a function of (key, offset) alone, bit-identical on every device."""
    backend = backend_of(like)
    if dropout.threshold >= 1 << 32:  # p = 1: no 32-bit word reaches it
        return backend.xp.zeros_like(like, dtype=bool, shape=shape)
    words = random_bits(dropout.key, dropout.offset, math.prod(shape), backend.device_of(like))
    return (words >= dropout.threshold).reshape(shape)


# -- the definition in array operations ------------------------------------------------------------------------------


def _wide(x: Array) -> Array:
    return x.astype("float32") if x.dtype.itemsize == 2 else x


def _forward_definition(
    z: Array, activation: Activation, bias: Array | None, residual: Array | None, dropout: Dropout | None
) -> Array:
    x = _wide(z) if bias is None else _wide(z) + _wide(bias)
    (y,) = elementwise(lambda xp, x, y, t: activation.fill(xp, x, y, None, t), x, scratch=1)
    if dropout is not None:
        y *= kept(y, y.shape, dropout)
        y *= dropout.scale
    if residual is not None:
        y += _wide(residual)
    return y.astype(z.dtype, copy=False)


def _backward_definition(
    dy: Array, z: Array, activation: Activation, bias: Array | None, dropout: Dropout | None, from_output: bool
) -> Array:
    x = _wide(z) if bias is None else _wide(z) + _wide(bias)
    if from_output and activation.kernel == "relu":
        slope = (x > 0).astype(x.dtype)
    elif from_output:
        slope = (1.0 - x) * x if activation.kernel == "sigmoid" else 1.0 - x * x
    else:
        _, slope = elementwise(activation.fill, x, results=2, scratch=1)
    slope = slope * _wide(dy)
    if dropout is not None:
        slope *= kept(slope, slope.shape, dropout)
        slope *= dropout.scale
    return slope.astype(z.dtype, copy=False)


# -- the choice of a kernel ------------------------------------------------------------------------------------------


@explained("activation_forward")
def _select_forward(
    z: Array, activation: Activation = IDENTITY, *, bias: Array | None = None, residual: Array | None = None,
    dropout: Dropout | None = None, out: Array | None = None,
) -> Plan:  # fmt: skip
    others = {"bias": bias, "residual": residual, "out": out}
    _check("activation_forward", z, **others)
    if out is not None and not out.flags.c_contiguous:
        raise ValueError(f"activation_forward: out must be C-contiguous, got strides {out.strides} of {out.shape}")
    return _select("activation_forward", z, activation, bias, (residual, out), dropout, activation.by_output)


@explained("activation_backward")
def _select_backward(
    dy: Array, z: Array, activation: Activation = IDENTITY, *, bias: Array | None = None,
    dropout: Dropout | None = None, from_output: bool = False,
) -> Plan:  # fmt: skip
    _check("activation_backward", z, bias=bias, dy=dy)
    if from_output and (not activation.by_output or bias is not None or dropout is not None):
        raise ValueError(
            f"activation_backward: from_output needs one of {', '.join(sorted(_BY_OUTPUT))}, without bias and dropout, "
            f"got {activation.kernel}"
        )
    return _select("activation_backward", z, activation, bias, (dy,), dropout, from_output)


def _check(function: str, z: Array, **others: Array | None) -> None:
    given = [array for array in others.values() if array is not None]
    if given:
        common_backend(z, *given)
    for name, array in others.items():
        if array is None:
            continue
        shape = z.shape[-1:] if name == "bias" else z.shape
        if array.shape != shape or (name == "bias" and not z.ndim):
            raise ValueError(f"{function}: {name} must have shape {shape}, got {array.shape}")
        if array.dtype != z.dtype:
            raise TypeError(f"{function}: {name} must be {z.dtype}, as z is, got {array.dtype}")


def _select(
    function: str, z: Array, activation: Activation, bias: Array | None, others: tuple[Array | None, ...],
    dropout: Dropout | None, from_output: bool,
) -> Plan:  # fmt: skip
    backend = backend_of(z)
    if not z.size:
        return definition_plan("the array is empty, nothing is launched")
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    wide = aligned(*(a for a in (z, bias, *others) if a is not None))  # a new array always starts on a boundary
    residual = function == "activation_forward" and others[0] is not None
    plain = bias is None and dropout is None and not residual
    flags = (bias is not None, dropout is not None, residual, from_output and plain)
    return _plan(function, activation.kernel, z.dtype, z.size, z.shape[-1] if bias is not None else 0, wide, flags)


@lru_cache(maxsize=4096)
def _plan(
    function: str, kernel: str, dtype: np.dtype, size: int, cols: int, wide: bool, flags: tuple[bool, ...]
) -> Plan:
    """The variant for ``size`` elements, in columns of their own bias where ``cols`` is not 0."""
    ctype = c_type(dtype)
    if ctype is None:
        return definition_plan(no_kernel_for(dtype))
    rows, cols = (size // cols, cols) if cols else (1, size)
    vector, single = elements_at_a_time(dtype, wide, *([(cols, "columns")] if rows > 1 else []))
    packs = -(-cols // vector)
    width = min(_THREADS, 1 << (packs - 1).bit_length())
    tiles = -(-packs // width)
    each = _THREADS // width * _ROWS_EACH if rows > 1 else 1
    has_bias, has_dropout, has_residual, from_output = map(int, flags)
    defines = (
        f"ACTIVATION={kernel}", f"DTYPE={ctype}", f"VECTOR={vector}", f"BIAS={has_bias}", f"DROPOUT={has_dropout}",
        f"RESIDUAL={has_residual}", f"FROM_OUTPUT={from_output}",
    )  # fmt: skip
    why = f", because {single}" if single else ""
    because = f"one read, one write, {vector} element{'s' * (vector > 1)} at a time{why}"
    scalars = (np.int64(rows), np.int64(cols), np.int32(width))
    return Plan(function, defines, blocks(function, rows, each) * tiles, _THREADS, scalars, because)


def _launch(
    plan: Plan, backend: Backend, arrays: tuple[Array | None, ...], activation: Activation, dropout: Dropout | None
) -> None:
    a: Any = activation.a
    learned: Array | None = None
    if hasattr(a, "shape"):
        a, learned = 0.0, a.astype("float32", copy=False)
    p, key, offset = dropout or (0.0, 0, 0)
    kept = Dropout(p, key, offset)
    numbers = (
        np.float32(a), np.float32(activation.b), np.float32(kept.scale), np.uint64(key), np.uint64(offset // 4),
        np.int32(offset % 4), np.uint64(kept.threshold),
    )  # fmt: skip
    launch(_SOURCE, plan._replace(scalars=(*plan.scalars, *numbers)), backend, *arrays, learned)


def _axes_in_memory(x: Array) -> tuple[int, ...] | None:
    """The axes in the order in which they lie in memory, where that makes ``x`` C-contiguous and is another one."""
    if x.flags.c_contiguous:
        return None
    order = tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return order if x.transpose(order).flags.c_contiguous else None


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(range(len(order)), key=order.__getitem__))
