"""A linear layer and cross entropy in one, for vocabularies whose logits would not fit."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import is_recording, op
from ..backend import Array, backend_of
from .reduction import narrowed, quiet

_REDUCTIONS = ("mean", "sum")


@op
def linear_cross_entropy(
    x: Array,
    weight: Array,
    labels: Array,
    bias: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
) -> Any:
    """``cross_entropy(x @ weight.T + bias, labels)`` whose logits exist for one chunk of rows at a time.

    The gradients are formed on the way forward, so the memory of the logits is never more than one chunk's.

    Args:
        x: shape ``(..., D)``.
        weight: shape ``(C, D)``: that of a :class:`Linear`, or of a tied :class:`Embedding`.
        labels: the true classes, integers in ``0 … C - 1`` or ``ignore_index``, shape ``(...)``.
        bias: shape ``(C,)``, or None.
        ignore_index, label_smoothing, z_loss: as in :func:`cross_entropy`.
        reduction: ``"mean"`` over the labels that count, or ``"sum"``.
        chunk: rows at a time; chosen by the number of classes by default.
    Returns:
        a scalar.
    Raises:
        ValueError: shapes do not fit, a label is out of range (on CUDA when the host next waits for the device), or
            nothing counts towards the mean (NaN on CUDA). TypeError: dtypes do not fit.
    Source: Hsu et al. 2024, "Liger Kernel", arXiv 2410.10989.
    """
    if reduction not in _REDUCTIONS:
        raise ValueError(f"linear_cross_entropy: reduction must be 'mean' or 'sum', got {reduction!r}")
    if x.ndim == 0 or labels.shape != x.shape[:-1]:
        raise ValueError(
            f"linear_cross_entropy: x must have shape (..., D) and labels (...), got {x.shape} and {labels.shape}"
        )
    backend = backend_of(x)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])

    def walk(gradients: bool) -> Any:
        return kernels.linear_cross_entropy(
            rows,
            weight,
            labels.reshape(-1),
            bias,
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
            chunk=chunk,
            gradients=gradients,
        )

    loss, total, found = walk(is_recording())
    if reduction == "mean":
        if not labels.size or (not backend.runs_cuda and total[0] == 0):
            raise ValueError(
                f"linear_cross_entropy: the mean of no losses is undefined: no label of shape {labels.shape} counts, "
                f'each is {ignore_index}; reduction="sum" gives 0'
            )
        with quiet(backend):
            loss = loss / total[0]
    formed = [found]

    def backward(dy: Array) -> Any:
        found: Any = formed.pop() if formed else walk(True)[2]  # handed over: a second walk forms them anew
        factor = dy.astype(total.dtype, copy=False)
        factor = factor / total[0] if reduction == "mean" else factor
        for gradient in found:
            if gradient is not None:
                kernels.scale_gradient(gradient, backend.asarray(factor, dy))
        return found.x.reshape(x.shape), found.weight, None, found.bias

    return narrowed(backend, loss, x.dtype), backward
