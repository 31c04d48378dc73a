"""Cross entropy of a linear layer's outputs without ever holding them all, on plain arrays.

The logits of a large vocabulary are by far the largest array of a language model: tokens times classes. Here they
exist for one chunk of tokens at a time. Each chunk's gradient is formed over its logits while they are there, and goes
into two products at once; so the backward pass has nothing left to do but to scale what waits. Source: Hsu et al. 2024,
"Liger Kernel", arXiv 2410.10989, section 3.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backend import Array, Backend, common_backend
from ._launch import Plans, explained, no_cuda
from .cross_entropy import _explain as explain_rows
from .cross_entropy import cross_entropy, label_total
from .reduce import sum_rows

_ON_CUDA, _ON_CPU = 1 << 25, 1 << 22  # logits that exist at a time: enough to fill a device, few enough for a cache


class Gradients(NamedTuple):
    """Gradients of the summed losses: divide by ``total`` for those of the mean."""

    x: Array
    weight: Array
    bias: Array | None


def linear_cross_entropy(
    x: Array,
    weight: Array,
    labels: Array,
    bias: Array | None = None,
    *,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    chunk: int | None = None,
    gradients: bool = False,
) -> tuple[Array, Array, Gradients | None]:
    """The sum of the cross entropies of ``x @ weight.T + bias``, with at most ``chunk`` rows of logits at a time.

    Args:
        x: shape ``(rows, D)``; float16, bfloat16, float32 or float64.
        weight: shape ``(C, D)``, of the dtype of ``x``. bias: shape ``(C,)``, likewise; or None.
        labels: integers in ``0 … C - 1`` or ``ignore_index``, shape ``(rows,)``.
        ignore_index, label_smoothing, z_loss: as in :func:`cross_entropy`.
        chunk: rows at a time; by default so many that their logits take 64 MB in bfloat16 on a CUDA device, 16 MB in
            float32 on the CPU.
        gradients: whether to form them; the products are then done three times as many, as in any backward pass.
    Returns:
        the sum of the losses (0-d), the number of labels that count (shape ``(1,)``), and the gradients of the sum.
        The first two are float32 where ``x`` has 16 bits. The gradient of ``weight`` is added up in float32 or better.
    Raises:
        TypeError, ValueError: as :func:`cross_entropy`; shapes or dtypes do not fit; ``chunk`` is below 1.
    """
    backend = _check(x, weight, labels, bias, chunk)
    rows, cols = len(x), len(weight)
    chunk = _rows_at_a_time(backend, cols) if chunk is None else chunk
    options: Any = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "z_loss": z_loss}
    device, xp = backend.device_of(x), backend.xp
    wide: Any = "float32" if x.dtype.itemsize == 2 else x.dtype
    logits = backend.empty((min(chunk, rows), cols), x.dtype, device)
    loss = xp.zeros_like(x, dtype=wide, shape=())
    found = None
    if gradients:
        dweight, dbias = backend.empty(weight.shape, wide, device), backend.empty((cols,), wide, device)
        dweight.fill(0)
        dbias.fill(0)
        found = Gradients(backend.empty(x.shape, x.dtype, device), dweight, None if bias is None else dbias)
    for start in range(0, rows, chunk):
        part = slice(start, min(start + chunk, rows))
        held = logits[: part.stop - start]
        backend.gemm(x[part], weight.T, held)
        if bias is not None:
            held += bias
        dlogits = held if gradients else None  # formed over the logits themselves
        loss = loss + cross_entropy(held, labels[part], reduction="sum", **options, dlogits=dlogits)
        if found is not None:
            backend.gemm(held, weight, found.x[part])
            found.weight[...] += backend.gemm(held.T, x[part])
            if found.bias is not None:
                found.bias[...] += sum_rows(held)
    total = label_total(labels, None, weight, ignore_index, cols)
    if found is not None and wide != x.dtype:
        narrow = [None if a is None else a.astype(x.dtype) for a in found[1:]]
        found = Gradients(found.x, *narrow)
    return loss, total, found


def _rows_at_a_time(backend: Backend, cols: int) -> int:
    return max(1, (_ON_CUDA if backend.runs_cuda else _ON_CPU) // cols)


@explained("linear_cross_entropy")
def _explain(
    x: Array, weight: Array, labels: Array, bias: Array | None = None, *, chunk: int | None = None,
    gradients: bool = False, **options: Any,
) -> Plans:  # fmt: skip
    backend = _check(x, weight, labels, bias, chunk)
    if not backend.runs_cuda or not x.size:
        return Plans.definition("there are no rows" if backend.runs_cuda else no_cuda(backend))
    rows = min(len(x), _rows_at_a_time(backend, len(weight)) if chunk is None else chunk)
    held = backend.empty((rows, len(weight)), x.dtype, backend.device_of(x))
    plans = explain_rows(held, labels[:rows], reduction="sum", dlogits=held if gradients else None, **options)
    return plans.after(f"for each {rows} of {len(x)} rows, behind their product with the weight; ")


def _check(x: Array, weight: Array, labels: Array, bias: Array | None, chunk: int | None) -> Backend:
    backend = common_backend(x, weight, labels) if bias is None else common_backend(x, weight, labels, bias)
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"linear_cross_entropy: x must have shape (rows, D) and weight (C, D), got {x.shape} and {weight.shape}"
        )
    if labels.dtype.kind not in "iu":
        raise TypeError(f"linear_cross_entropy: labels must be integers, got {labels.dtype}")
    if labels.shape != x.shape[:1]:
        raise ValueError(f"linear_cross_entropy: labels must have shape {x.shape[:1]}, got {labels.shape}")
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            raise TypeError(f"linear_cross_entropy: {name} must have the dtype of x, {x.dtype}, got {value.dtype}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear_cross_entropy: bias must have shape {weight.shape[:1]}, got {bias.shape}")
    if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
        raise ValueError(f"linear_cross_entropy: chunk must be a number of rows, at least 1, or None, got {chunk!r}")
    return backend
