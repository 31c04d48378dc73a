"""Batch normalisation and its derivative on plain arrays; the CUDA kernels are in ``batch_norm.cu``."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, empty_images, in_format, is_channels_last, pixels
from . import batch_norm_numpy
from ._launch import (
    WIDEST_ACCESS,
    Plan,
    aligned,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    explained,
    is_float,
    launch,
    no_cuda,
    no_kernel_for,
)
from .layer_norm import widened
from .scalars import not_negative

_SOURCE = Path(__file__).with_name("batch_norm.cu")


def batch_norm(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    statistics: tuple[Array, Array] | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> tuple[Array, Array, Array]:
    """``y = relu((x - mean) / sqrt(var + eps) * weight + bias + residual)``, per channel.

    Mean and variance are those of the channel in ``x``, unless they are given. The result is a new array in the memory
    format of ``x``; a ``residual`` in another format is copied first, as is an ``x`` with gaps.

    Args:
        x: shape ``(N, C, ...)``; float16, bfloat16, float32 or float64.
        weight, bias: shape ``(C,)``, of the dtype of ``x``; or None.
        eps: added to the variance.
        statistics: mean and variance to use instead, shape ``(C,)``, floating.
        residual: added before the ReLU, like ``x``; or None.
        relu: whether negative results become 0.
    Returns:
        ``y`` like ``x``; ``mean`` and the biased ``var`` that were used, shape ``(C,)``, float32 for 16-bit floats,
        else of the dtype of ``x``.
    Raises:
        TypeError: ``x`` is not floating, or the dtypes differ.
        ValueError: the shapes do not fit, or there are no values.
    Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
    """
    _check("batch_norm", x, weight=weight, bias=bias)
    eps = not_negative("batch_norm", "eps", eps)
    if residual is not None:
        _check_alike("batch_norm", "residual", residual, x)
    backend = backend_of(x)
    if statistics is None:
        if not x.size:
            raise ValueError(f"batch_norm: x must have values to take the statistics of, got shape {x.shape}")
    else:
        statistics = _check_statistics("batch_norm", x, statistics)
        if not x.size:
            return backend.xp.empty_like(x), *statistics
    if not _is_fast(backend, x):
        return batch_norm_definition(x, weight, bias, eps, statistics=statistics, residual=residual, relu=relu)
    last = is_channels_last(x)
    x = in_format(x, last)
    residual = None if residual is None else in_format(residual, last)
    y = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    if not backend.runs_cuda:
        mean, var = (np.empty(x.shape[1], x.dtype) for _ in range(2)) if statistics is None else statistics
        layout_x, layout_residual, layout_y = (_as_matrix(a, last) for a in (x, residual, y))
        own = statistics is None
        batch_norm_numpy.forward(layout_x, layout_residual, layout_y, weight, bias, eps, mean, var, own, relu)
        return y, mean, var
    moments, finish, forward = _select_forward(x, y, residual, last, weight, bias, eps, relu)
    if statistics is None:
        splits = int(finish.scalars[0])
        partial = _floats(backend, x, splits, 3, x.shape[1])
        statistics = _floats(backend, x, x.shape[1]), _floats(backend, x, x.shape[1])
        launch(_SOURCE, moments, backend, x, partial)
        launch(_SOURCE, finish, backend, partial, *statistics)
    mean, var = statistics
    parameters = (contiguous(backend, a) for a in (mean, var, weight, bias))
    unused = x  # its address stands in for arrays that the flags do not name
    arrays = (x, *(unused if a is None else a for a in (residual, *parameters)), y)
    launch(_SOURCE, forward, backend, *arrays)
    return y, mean, var


def batch_norm_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    eps: float = 1e-5,
    *,
    y: Array | None = None,
    frozen: bool = False,
    residual: bool = False,
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of ``x``, ``weight``, ``bias`` and ``residual``.

    With ``g = dy`` (0 where a ReLU gave ``y <= 0``), ``n = (x - mean) / sqrt(var + eps)`` and
    ``a = weight / sqrt(var + eps)``: ``dx = a * (g - mean(g) - n * mean(g * n))``, or ``a * g`` where the statistics
    did not depend on ``x``; ``dweight = sum(g * n)``, ``dbias = sum(g)``, ``dresidual = g``.

    Args:
        dy: gradient of the result, of the shape and dtype of ``x``.
        x, weight, eps: what :func:`batch_norm` was given. mean, var: what it returned.
        y: what it returned, where it applied a ReLU; else None.
        frozen: whether the statistics were given to it.
        residual: whether the gradient of ``residual`` is wanted; else None stands in its place. Without a ReLU it is
            ``dy`` itself.
    """
    _check("batch_norm_backward", x, weight=weight)
    _check_alike("batch_norm_backward", "dy", dy, x)
    backend = common_backend(dy, x)
    if not x.size:
        xp, channels = backend.xp, x.shape[1]
        return xp.zeros_like(x), xp.zeros(channels, x.dtype), xp.zeros(channels, x.dtype), dy if residual else None
    if not _is_fast(backend, x):
        return batch_norm_backward_definition(dy, x, mean, var, weight, eps, y=y, frozen=frozen, residual=residual)
    last = is_channels_last(x)
    dresidual = dy if residual else None
    x, dy, y = (None if a is None else in_format(a, last) for a in (x, dy, y))
    masked = residual and y is not None
    dx = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    if masked:
        dresidual = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    if not backend.runs_cuda:
        g, rows, results, out, added = (_as_matrix(a, last) for a in (dy, x, y, dx, dresidual if masked else None))
        dweight, dbias = batch_norm_numpy.backward(g, rows, results, out, added, mean, var, weight, eps, frozen)
        return dx, dweight, dbias, dresidual
    mean, var, weight = (contiguous(backend, a) for a in (mean, var, weight))
    sums, finish, backward = _select_backward(dy, x, y, dx, last, weight, eps, frozen, masked)
    splits, channels = int(finish.scalars[0]), x.shape[1]
    partial, totals = _floats(backend, x, splits, 2, channels), _floats(backend, x, 2, channels)
    launch(_SOURCE, sums, backend, dy, x, x if y is None else y, mean, var, partial)
    launch(_SOURCE, finish, backend, partial, totals)
    arrays = (dy, x, x if y is None else y, mean, var, x if weight is None else weight, totals)
    launch(_SOURCE, backward, backend, *arrays, dx, dresidual if masked else dx)
    return dx, totals[1].astype(x.dtype, copy=False), totals[0].astype(x.dtype, copy=False), dresidual


def batch_norm_definition(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    statistics: tuple[Array, Array] | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> tuple[Array, Array, Array]:
    """The definition in array operations, for every dtype and backend; computed in float32 or better."""
    xp = backend_of(x).xp
    axes, column = _axes(x)
    wide = widened(x)
    if statistics is None:
        mean = wide.mean(axis=axes)
        centred = wide - mean.reshape(column)
        var = (centred * centred).mean(axis=axes)
    else:
        mean, var = statistics
        centred = wide - mean.reshape(column)
    scale = 1.0 / xp.sqrt(var + eps)
    y = centred * (scale if weight is None else scale * widened(weight)).reshape(column)
    if bias is not None:
        y += widened(bias).reshape(column)
    if residual is not None:
        y += widened(residual)
    if relu:
        y = xp.maximum(y, 0.0)
    return y.astype(x.dtype, copy=False), mean, var


def batch_norm_backward_definition(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    eps: float = 1e-5,
    *,
    y: Array | None = None,
    frozen: bool = False,
    residual: bool = False,
) -> tuple[Array, Array, Array, Array | None]:
    """The derivative in array operations, for every dtype and backend; computed in float32 or better."""
    xp, dtype = backend_of(x).xp, x.dtype
    axes, column = _axes(x)
    g = widened(dy)
    if y is not None:
        g = xp.where(widened(y) <= 0.0, 0.0, g).astype(g.dtype, copy=False)  # the gradient passes where y is NaN
    rstd = 1.0 / xp.sqrt(var + eps)
    n = (widened(x) - mean.reshape(column)) * rstd.reshape(column)
    dweight, dbias = (g * n).sum(axis=axes), g.sum(axis=axes)
    dx = g
    if not frozen:
        count = x.size // x.shape[1]
        dx = g - (dbias / count).reshape(column) - n * (dweight / count).reshape(column)
    dx = dx * (rstd if weight is None else rstd * widened(weight)).reshape(column)
    dresidual = None if not residual else dy if y is None else g
    dx, dweight, dbias = (a.astype(dtype, copy=False) for a in (dx, dweight, dbias))
    return dx, dweight, dbias, None if dresidual is None else dresidual.astype(dtype, copy=False)


# -- checks ----------------------------------------------------------------------------------------------------------


def _is_fast(backend: Backend, x: Array) -> bool:
    """Whether something better than the definition takes these arrays."""
    if backend.runs_cuda:
        return c_type(x.dtype) is not None
    return backend.xp is np and x.dtype.itemsize >= 4


def _axes(x: Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All axes but the channels', and the shape of an array of channels that broadcasts to ``x``."""
    return (0, *range(2, x.ndim)), (1, x.shape[1], *(1,) * (x.ndim - 2))


def _check(function: str, x: Array, **parameters: Any) -> None:
    if not is_float(x.dtype):
        raise TypeError(f"{function}: x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"{function}: x must have shape (N, C, ...), got {x.shape}")
    for name, value in parameters.items():
        if value is None:
            continue
        if value.shape != (x.shape[1],):
            raise ValueError(f"{function}: {name} must have shape ({x.shape[1]},) for x {x.shape}, got {value.shape}")
        if value.dtype != x.dtype:
            raise TypeError(f"{function}: {name} must have the dtype of x, {x.dtype}, got {value.dtype}")


def _check_alike(function: str, name: str, array: Array, x: Array) -> None:
    if array.shape != x.shape:
        raise ValueError(f"{function}: {name} must have the shape of x, {x.shape}, got {array.shape}")
    if array.dtype != x.dtype:
        raise TypeError(f"{function}: {name} must have the dtype of x, {x.dtype}, got {array.dtype}")


def _check_statistics(function: str, x: Array, statistics: tuple[Array, Array]) -> tuple[Array, Array]:
    """Mean and variance in the dtype that is computed in."""
    dtype = np.dtype(np.float32) if x.dtype.itemsize == 2 else x.dtype
    for name, value in zip(("mean", "var"), statistics, strict=True):
        if value.shape != (x.shape[1],):
            raise ValueError(f"{function}: {name} must have shape ({x.shape[1]},) for x {x.shape}, got {value.shape}")
    mean, var = (value.astype(dtype, copy=False) for value in statistics)
    return mean, var


def _floats(backend: Backend, like: Array, *shape: int) -> Array:
    return backend.empty(shape, np.dtype(np.float32), backend.device_of(like))


def _as_matrix(x: Array | None, last: bool) -> Array | None:
    """``(pixels, C)`` of a channels-last array, ``(N, C, values of a plane)`` of a contiguous one; no copy."""
    if x is None:
        return None
    if last:
        return pixels(x).reshape(-1, x.shape[1])
    return x.reshape(x.shape[0], x.shape[1], math.prod(x.shape[2:]))


# -- the choice of a kernel ------------------------------------------------------------------------------------------
_RELU, _RESIDUAL, _TRAINING, _WEIGHT, _BIAS = 1, 2, 4, 8, 16  # as in batch_norm.cu
_BLOCK = 256  # threads
_LANES = 8  # threads beside each other in the channels of a pixel: 128 bytes
_WANTED_BLOCKS = 1056  # eight for each of 132 multiprocessors; not tuned on hardware yet
_LEAST_STEPS = 4  # of a thread along its part of a channel
_Launches = tuple[Plan, Plan, Plan]


def _select_forward(
    x: Array,
    y: Array,
    residual: Array | None,
    last: bool,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    relu: bool,
) -> _Launches:
    flags = _RELU * relu | _RESIDUAL * (residual is not None)
    flags |= _WEIGHT * (weight is not None) | _BIAS * (bias is not None)
    all_aligned = aligned(x, y) if residual is None else aligned(x, y, residual)
    return _select(x.dtype, x.shape, last, all_aligned, eps, flags, False)


def _select_backward(
    dy: Array,
    x: Array,
    y: Array | None,
    dx: Array,
    last: bool,
    weight: Array | None,
    eps: float,
    frozen: bool,
    masked: bool,
) -> _Launches:
    flags = _RELU * (y is not None) | _RESIDUAL * masked | _TRAINING * (not frozen) | _WEIGHT * (weight is not None)
    all_aligned = aligned(dy, x, dx) if y is None else aligned(dy, x, dx, y)
    return _select(x.dtype, x.shape, last, all_aligned, eps, flags, True)


@lru_cache(maxsize=4096)
def _select(
    dtype: np.dtype, shape: tuple[int, ...], last: bool, all_aligned: bool, eps: float, flags: int, backward: bool
) -> _Launches:
    """The launches for arrays of one shape: the parts of each channel, their sums, and the values."""
    channels, inner = shape[1], math.prod(shape[2:])
    by_pixel = last or inner == 1
    images, inner = (shape[0] * inner, 1) if by_pixel else (shape[0], inner)
    vector = WIDEST_ACCESS // dtype.itemsize
    single = ""
    if not all_aligned:
        single = "an array does not start on a 16-byte boundary"
    elif (channels if by_pixel else inner) % vector:
        what = "channels" if by_pixel else "values of a plane"
        single = f"the {channels if by_pixel else inner} {what} are no multiple of {vector}"
    if single:
        vector = 1
    columns = channels // vector if by_pixel else channels  # packs beside each other, or channels
    lanes = _LANES if by_pixel else 1
    ranks, across = _BLOCK // lanes, -(-columns // lanes)
    packs = images * inner // (1 if by_pixel else vector)
    splits = max(1, min(-(-_WANTED_BLOCKS // across), packs // (ranks * _LEAST_STEPS)))
    share = -(-packs // splits)
    splits = -(-packs // share)
    defines = (f"DTYPE={c_type(dtype)}", f"VECTOR={vector}")
    sizes = (np.int64(images), np.int64(channels), np.int64(inner), np.int64(share))
    because = f"{'channels-last' if last else 'contiguous'} {shape}, each channel in {splits} parts"
    because += f", single elements because {single}" * bool(single)

    def plan(section: str, kernel: str, packs_each: int, *scalars: np.generic) -> Plan:
        macros = (section, f"LANES={lanes}", f"RANKS={ranks}", f"PACKS={packs_each}", *defines)
        return Plan(kernel, macros, blocks(kernel, across * splits, 1), _BLOCK, (*sizes, *scalars), because)

    def finish(kernel: str) -> Plan:
        return Plan(kernel, ("FINISH",), blocks(kernel, channels, 128), 128, (np.int64(splits), sizes[1]), because)

    e, f = np.float32(eps), np.int32(flags)
    if not backward:
        moments, forward = plan("MOMENTS", "batch_norm_moments", 4), plan("FORWARD", "batch_norm_forward", 4, e, f)
        return moments, finish("batch_norm_finish"), forward
    reciprocal = np.float32(1.0 / (images * inner))
    return (
        plan("SUMS", "batch_norm_backward_sums", 2, e, f),
        finish("batch_norm_backward_finish"),
        plan("BACKWARD", "batch_norm_backward", 2, e, reciprocal, f),
    )


@explained("batch_norm")
def _explain_forward(
    x: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    statistics: tuple[Array, Array] | None = None,
    residual: Array | None = None,
    relu: bool = False,
) -> Plan:
    backend = backend_of(x)
    _check("batch_norm", x, weight=weight, bias=bias)
    if (why := _why_no_kernel(backend, x)) is not None:
        return definition_plan(why)
    last = is_channels_last(x)
    copied = _copied(last, x=x, residual=residual)
    x = in_format(x, last)
    y = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    residual = None if residual is None else in_format(residual, last)
    first, _, plan = _select_forward(x, y, residual, last, weight, bias, eps, relu)
    return plan._replace(because=copied + _after(None if statistics is not None else first, plan))


@explained("batch_norm_backward")
def _explain_backward(
    dy: Array,
    x: Array,
    mean: Array,
    var: Array,
    weight: Array | None = None,
    eps: float = 1e-5,
    *,
    y: Array | None = None,
    frozen: bool = False,
    residual: bool = False,
) -> Plan:
    backend = common_backend(dy, x)
    _check("batch_norm_backward", x, weight=weight)
    if (why := _why_no_kernel(backend, x)) is not None:
        return definition_plan(why)
    last = is_channels_last(x)
    copied = _copied(last, dy=dy, x=x, y=y)
    x, dy, y = (None if a is None else in_format(a, last) for a in (x, dy, y))
    dx = empty_images(backend, x.shape, x.dtype, backend.device_of(x), last)
    masked = residual and y is not None
    first, _, plan = _select_backward(dy, x, y, dx, last, weight, eps, frozen, masked)
    return plan._replace(because=copied + _after(first, plan))


def _after(first: Plan | None, plan: Plan) -> str:
    before = "with the given statistics" if first is None else f"after {first.kernel} and its finish"
    return f"{before}; {plan.because}"


def _copied(last: bool, **arrays: Array | None) -> str:
    wanted = "channels-last" if last else "contiguous"
    return "".join(
        f"{name} is not {wanted} and copied first; "
        for name, array in arrays.items()
        if array is not None and in_format(array, last) is not array
    )


def _why_no_kernel(backend: Backend, x: Array) -> str | None:
    if not backend.runs_cuda:
        return no_cuda(backend)
    if not x.size:
        return "the array is empty, nothing is launched"
    if c_type(x.dtype) is None:
        return no_kernel_for(x.dtype)
    return None
