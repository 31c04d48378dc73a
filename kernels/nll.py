"""Negative log likelihood of labels and its gradient on plain arrays; its CUDA kernels are in ``cross_entropy.cu``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, fault_kind, fault_record
from ._launch import Plan, blocks, c_type, contiguous, definition_plan, explained, launch, no_cuda, no_kernel_for
from .cross_entropy import _SMALL_THREADS, _SOURCE, _int64, label_total, total_of_losses


def has_kernel(x: Array) -> bool:
    """Whether the kernels take these log probabilities: on a CUDA device, 16 or 32 bits."""
    return backend_of(x).runs_cuda and c_type(x.dtype) is not None and bool(x.size)


def nll(x: Array, labels: Array, weight: Array | None, ignore_index: int, reduction: str) -> tuple[Array, Any]:
    """``-weight[label] * x[label]`` of each label, on a CUDA device.

    Args:
        x: log probabilities, shape ``(N, C, …)``, for which :func:`has_kernel`.
        labels: shape ``(N, …)``, integers; one that is out of range gives NaN, and an error when the host next waits.
        weight: of each class, float32, or None.
        ignore_index: a label that counts for nothing.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
    Returns:
        the losses, or their sum or mean, in float32; what the mean divides by, shape ``(1,)``, or None.
    """
    backend, device = backend_of(x), backend_of(x).device_of(x)
    x, flat, weight, inner = _prepared(backend, x, labels, weight)
    losses = backend.empty(labels.shape, "float32", device)
    fault = fault_kind(f"nll_loss: labels must be in 0 … {{last}} or {ignore_index}, got {{value}}")
    scalars = (np.int64(flat.size), np.int32(x.shape[1]), np.int64(inner), np.int64(ignore_index), fault)
    plan = _plan("nll_losses", x.dtype, flat.size, scalars)
    launch(_SOURCE, plan, backend, x, flat, weight, losses, fault_record(x))
    if reduction == "none":
        return losses, None
    total = label_total(flat, weight, x, ignore_index, x.shape[1]) if reduction == "mean" else None
    return total_of_losses(backend, losses.reshape(-1), total), total


def nll_backward(
    dy: Array, x: Array, labels: Array, weight: Array | None, total: Array | None, ignore_index: int
) -> Array:
    """The gradient of ``x``: ``-weight[label] * dy / total`` at each label, else 0.

    Args:
        dy: gradient of what :func:`nll` returned. total: what it returned besides.
        Others: as given to it.
    """
    backend, device = backend_of(x), backend_of(x).device_of(x)
    x, flat, weight, inner = _prepared(backend, x, labels, weight)
    dx = backend.empty(x.shape, x.dtype, device)
    dx.fill(0)
    sizes = (np.int64(flat.size), np.int32(x.shape[1]), np.int64(inner))
    scalars = (*sizes, np.int64(dy.ndim > 0), np.int64(ignore_index))
    wide = contiguous(backend, dy.astype("float32", copy=False))
    launch(_SOURCE, _plan("nll_gradient", x.dtype, flat.size, scalars), backend, dx, flat, weight, total, wide)
    return dx


def _prepared(
    backend: Backend, x: Array, labels: Array, weight: Array | None
) -> tuple[Array, Array, Array | None, int]:
    weight = None if weight is None else contiguous(backend, weight)
    flat = contiguous(backend, _int64(backend.xp, labels)).reshape(-1)
    return contiguous(backend, x), flat, weight, math.prod(x.shape[2:])


@explained("nll_loss")
def _explain(
    x: Array, labels: Array, weight: Array | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Plan:
    if not has_kernel(x):
        backend = backend_of(x)
        why = no_kernel_for(x.dtype) if x.size else "the array is empty, nothing is launched"
        return definition_plan(why if backend.runs_cuda else no_cuda(backend))
    return _plan("nll_losses", x.dtype, labels.size, ())


def _plan(kernel: str, dtype: Any, rows: int, scalars: tuple[Any, ...]) -> Plan:
    defines = ("SMALL", f"DTYPE={c_type(dtype)}", f"THREADS={_SMALL_THREADS}")
    return Plan(kernel, defines, blocks(kernel, rows, _SMALL_THREADS), _SMALL_THREADS, scalars, "one thread a label")
