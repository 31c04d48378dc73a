"""Cross entropy of rows of logits and its gradient on plain arrays; the CUDA kernels are in ``cross_entropy.cu``."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, fault_kind, fault_record
from ._launch import (
    FLOATS,
    OWN_SHARED,
    WIDEST_ACCESS,
    DeviceSize,
    Plan,
    Plans,
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
    same_alignment,
    size_of_device,
)
from ._split_rows import parts_of_row
from .cross_entropy_numpy import cross_entropy_rows
from .scalars import integer, not_negative, real

_SOURCE = Path(__file__).with_name("cross_entropy.cu")
_LONGEST = 2**30  # columns that the kernels' 32-bit column index reaches
_INT64 = 2**63 - 1


class Options(NamedTuple):
    """What besides the arrays decides a loss."""

    ignore_index: int
    reduction: str
    label_smoothing: float
    z_loss: float


def cross_entropy(
    logits: Array,
    targets: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    dlogits: Array | None = None,
) -> Array:
    """``sum_c q[c] * (lse - x[c]) + z_loss * lse^2`` of each row ``x``, ``lse = log(sum(exp(x)))``, and their gradient.

    ``q`` is the target distribution times the weights: ``weight * ((1 - ε) t + ε / C)`` with ``t`` 1 at the label or
    the given probabilities.

    Args:
        logits: shape ``(rows, C)``, or ``(N, C, d1, …)`` where ``N d1 …`` columns are the rows; float16, bfloat16,
            float32 or float64.
        targets: labels, integers in ``0 … C - 1`` or ``ignore_index``, shape ``(rows,)`` or ``(N, d1, …)``; or
            probabilities, of the shape and dtype of ``logits``.
        weight: of each class, shape ``(C,)``, float32 where logits have 16 bits, else their dtype.
        ignore_index: a label that counts for nothing and has zero gradient.
        reduction: ``"mean"`` (divides by the sum of the weights of the labels that count; of probabilities by the
            rows), ``"sum"`` or ``"none"``.
        label_smoothing: ε, in [0, 1].
        z_loss: weight of ``lse^2``, which keeps logits near 0.
        dlogits: where to write the gradient of the result (of the sum for ``"none"``): like ``logits``, and may be
            ``logits`` itself, whose values are then lost.
    Returns:
        a 0-d array or the shape of labels; float32 where logits have 16 bits, else their dtype.
    Raises:
        TypeError, ValueError: dtypes or shapes do not fit; a label is out of range (on a CUDA device its loss is NaN,
            and the error is raised when the host next waits for it); nothing counts towards the mean (NaN on CUDA).
    Source: z-loss: Chowdhery et al. 2022, arXiv 2204.02311, section 5.
    """
    backend, options = _check(logits, targets, weight, ignore_index, reduction, label_smoothing, z_loss)
    if dlogits is not None:
        _check_out(dlogits, logits)
    if backend.runs_cuda and logits.size:
        plans = _select(options, *_prepared(backend, logits, targets), dlogits)
        if plans[0].kernel:
            return _on_cuda(backend, plans, options, logits, targets, weight, dlogits)
    if logits.ndim > 2:
        rows, copied = rows_of_classes(backend.xp, logits)
        drows = None if dlogits is None else rows if copied else rows.copy()
        flat = targets.reshape(-1) if _has_labels(targets) else rows_of_classes(backend.xp, targets)[0]
        y = cross_entropy(rows, flat, weight, **options._asdict(), dlogits=drows)
        if dlogits is not None:
            dlogits[...] = classes_of_rows(backend.xp, drows, logits.shape)
        return y.reshape(_shape_of_losses(logits)) if reduction == "none" else y
    if backend.xp is np and _has_labels(targets):
        return _on_cpu(backend, options, logits, targets, weight, dlogits)
    losses, divisor, gradient = cross_entropy_definition(logits, targets, weight, options)
    if dlogits is not None:
        dlogits[...] = gradient if divisor is None else gradient / divisor
    return losses if options.reduction == "none" else losses.sum() if divisor is None else losses.sum() / divisor


def cross_entropy_backward(
    dy: Array,
    logits: Array,
    targets: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    out: Array | None = None,
) -> Array:
    """The gradient of ``logits`` of :func:`cross_entropy`, worked out anew: one read and one write.

    Args:
        dy: gradient of the result, of its shape; any floating dtype.
        out: where to write, like ``logits``; may be ``logits``. A new array by default.
        Others: as given to :func:`cross_entropy`.
    Returns:
        gradient of ``logits``, of their shape and dtype.
    """
    backend, options = _check(logits, targets, weight, ignore_index, reduction, label_smoothing, z_loss)
    expected = _shape_of_losses(logits) if reduction == "none" else ()
    if dy.shape != expected:
        raise ValueError(f"cross_entropy_backward: dy must have the shape of the loss, {expected}, got {dy.shape}")
    if out is None:
        out = backend.empty(logits.shape, logits.dtype, backend.device_of(logits))
    else:
        _check_out(out, logits)
    wide = dy.astype("float32" if logits.dtype.itemsize == 2 else logits.dtype, copy=False)
    if backend.runs_cuda and logits.size:
        plans = _select(options, *_prepared(backend, logits, targets), out)
        if plans[0].kernel:
            _rows_on_cuda(backend, plans, options, logits, targets, weight, contiguous(backend, wide), None, out)
            return out
    if logits.ndim > 2:
        rows, _ = rows_of_classes(backend.xp, logits)
        flat = targets.reshape(-1) if _has_labels(targets) else rows_of_classes(backend.xp, targets)[0]
        each = wide.reshape(-1) if reduction == "none" else wide
        drows = cross_entropy_backward(each, rows, flat, weight, **options._asdict())
        out[...] = classes_of_rows(backend.xp, drows, logits.shape)
        return out
    if backend.xp is np and _has_labels(targets):
        _on_cpu(backend, options, logits, targets, weight, out)
        out *= wide[:, None] if reduction == "none" else wide
        return out
    _, divisor, gradient = cross_entropy_definition(logits, targets, weight, options)
    factor = wide if divisor is None else wide / divisor
    out[...] = gradient * (factor[:, None] if reduction == "none" else factor)
    return out


def scale_gradient(dlogits: Array, dy: Array) -> Array:
    """``dlogits *= dy``, in place: a gradient that was formed for ``dy = 1``, when the real one is known.

    On a CUDA device nobody looks at ``dy`` but the kernel, which does nothing where it is 1.

    Args:
        dlogits: what :func:`cross_entropy` wrote for a mean or a sum.
        dy: gradient of that result, a 0-d array.
    """
    backend = common_backend(dlogits, dy)
    if not backend.runs_cuda:
        if (factor := float(dy)) != 1.0:
            dlogits *= factor
    elif (plan := _scale_plan(dlogits)).kernel:
        launch(_SOURCE, plan, backend, dlogits, dy.astype("float32", copy=False))
    else:
        dlogits *= dy
    return dlogits


def label_total(labels: Array, weight: Array | None, logits: Array, ignore_index: int, cols: int) -> Array:
    """The sum of the weights of the labels that count, which a mean divides by: shape ``(1,)``; nothing waits for it.

    Args:
        labels: shape ``(rows,)``, integers. weight: of each class, or None.
        logits: give the dtype (float32 for 16 bits) and the device.
        cols: C, the number of classes.
    """
    backend = backend_of(logits)
    dtype = "float32" if logits.dtype.itemsize == 2 else logits.dtype
    if backend.runs_cuda and logits.dtype != "float64":
        total = backend.empty((1,), dtype, backend.device_of(logits))
        labels = contiguous(backend, _int64(backend.xp, labels))
        weight = None if weight is None else contiguous(backend, weight)
        plan = _small_plan("cross_entropy_divisor", len(labels), np.int32(cols), np.int64(ignore_index))
        launch(_SOURCE, plan, backend, labels, weight, total)
        return total
    counts = (labels != ignore_index) & (labels >= 0) & (labels < cols)
    if weight is None:
        return counts.sum(keepdims=True).astype(dtype)
    return (weight[backend.xp.where(counts, labels, 0)] * counts).sum(keepdims=True).astype(dtype)


def cross_entropy_definition(
    logits: Array, targets: Array, weight: Array | None, options: Options
) -> tuple[Array, Any, Array]:
    """The definition in array operations, for every dtype and backend; computed in float32 or better.

    Returns:
        the loss of each row, what their mean divides by (None without a mean), the gradient of the sum of the losses.
    """
    xp = backend_of(logits).xp
    x = logits.astype("float32") if logits.dtype.itemsize == 2 else logits
    rows, cols = x.shape
    counts = None
    divisor: Any = rows
    if _has_labels(targets):
        counts = targets != options.ignore_index
        t = (targets[:, None] == xp.arange(cols)).astype(x.dtype)
        picked = t.sum(axis=1) if weight is None else (t * weight).sum(axis=1)
        divisor = (picked * counts).sum()
    else:
        t = targets.astype(x.dtype, copy=False)
    q = (1.0 - options.label_smoothing) * t + options.label_smoothing / cols
    if weight is not None:
        q *= weight
    with np.errstate(all="ignore"):  # NumPy warns of infinities, which are meant
        largest = x.max(axis=1, keepdims=True)
        log_p = x - largest
        log_sum = xp.log(xp.exp(log_p).sum(axis=1, keepdims=True))
        log_p -= log_sum
        lse = (largest + log_sum)[:, 0]
        losses = -xp.where(q == 0, 0.0, q * log_p).sum(axis=1) + options.z_loss * lse * lse
        gradient = (q.sum(axis=1) + 2.0 * options.z_loss * lse)[:, None] * xp.exp(log_p) - q
    if counts is not None:
        losses, gradient = xp.where(counts, losses, 0.0), xp.where(counts[:, None], gradient, 0.0)
        wrong = counts & ((targets < 0) | (targets >= cols))  # only on CUDA, where looking would wait
        losses = xp.where(wrong, math.nan, losses).astype(x.dtype)
        gradient = xp.where(wrong[:, None], math.nan, gradient)
    return losses, divisor if options.reduction == "mean" else None, gradient.astype(x.dtype)


def rows_of_classes(xp: Any, x: Array) -> tuple[Array, bool]:
    """``(N, C, d1, …)`` as rows ``(N d1 …, C)``, C-contiguous, and whether they are a copy."""
    if x.ndim == 2 and x.flags.c_contiguous:
        return x, False
    moved = xp.moveaxis(x, 1, -1)
    copied = not moved.flags.c_contiguous
    return (xp.ascontiguousarray(moved) if copied else moved).reshape(math.prod(moved.shape[:-1]), x.shape[1]), copied


def classes_of_rows(xp: Any, rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows ``(N d1 …, C)`` as ``(N, C, d1, …)``."""
    return rows if len(shape) == 2 else xp.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


# -- checks ----------------------------------------------------------------------------------------------------------


def _has_labels(targets: Array) -> bool:
    return targets.dtype.kind in "iu"


def _shape_of_losses(logits: Array) -> tuple[int, ...]:
    shape = logits.shape
    return shape[:1] + shape[2:]


def _check(
    logits: Array, targets: Array, weight: Array | None, ignore_index: int, reduction: str, smoothing: float, z: float
) -> tuple[Backend, Options]:
    backend = common_backend(logits, targets) if weight is None else common_backend(logits, targets, weight)
    if not is_float(logits.dtype):
        raise TypeError(f"cross_entropy: logits must be one of {', '.join(FLOATS)}, got {logits.dtype}")
    if logits.ndim < 2 or not logits.shape[1]:
        raise ValueError(
            f"cross_entropy: logits must have shape (rows, C) or (N, C, d1, ...) with C >= 1, got {logits.shape}"
        )
    if _has_labels(targets):
        if targets.shape != (expected := _shape_of_losses(logits)):
            raise ValueError(
                f"cross_entropy: labels must have shape {expected} for logits {logits.shape}, "
                f"got {targets.shape}"
            )
    elif targets.shape != logits.shape:
        raise ValueError(f"cross_entropy: probabilities must have shape {logits.shape}, got {targets.shape}")
    elif targets.dtype != logits.dtype:
        raise TypeError(f"cross_entropy: probabilities must have the logits' dtype {logits.dtype}, got {targets.dtype}")
    if weight is not None:
        wide = "float32" if logits.dtype.itemsize == 2 else logits.dtype
        if weight.shape != logits.shape[1:2] or weight.dtype != wide:
            raise ValueError(
                f"cross_entropy: weight must be {wide} of shape {logits.shape[1:2]}, got {weight.dtype} of "
                f"{weight.shape}"
            )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"cross_entropy: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
    smoothing, z = real("cross_entropy", "label_smoothing", smoothing), not_negative("cross_entropy", "z_loss", z)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {smoothing}")
    ignore_index = integer("cross_entropy", "ignore_index", ignore_index)
    if reduction == "mean" and not logits.size:
        raise ValueError(_nothing_counts(targets, ignore_index))
    return backend, Options(ignore_index, reduction, smoothing, z)


def _check_out(out: Array, logits: Array) -> None:
    if out.shape != logits.shape or out.dtype != logits.dtype or not out.flags.c_contiguous:
        raise ValueError(
            f"cross_entropy: the gradient must be C-contiguous {logits.dtype} of shape {logits.shape}, got {out.dtype} "
            f"of {out.shape} with strides {out.strides}"
        )


def _nothing_counts(targets: Array, ignore_index: int) -> str:
    return (
        f"cross_entropy: the mean of no losses is undefined: no label of shape {targets.shape} counts, each is "
        f'{ignore_index} or has weight 0; reduction="sum" gives 0'
    )


def _int64(xp: Any, labels: Array) -> Array:
    """Labels as the kernels take them; a number beyond int64 stays one that is out of range."""
    dtype = labels.dtype
    if dtype.kind == "u" and dtype.itemsize == 8:
        labels = xp.minimum(labels, _INT64)
    elif dtype.kind == "i" and dtype.itemsize == 8:
        return labels
    return labels.astype("int64")


# -- on the CPU ------------------------------------------------------------------------------------------------------


def _on_cpu(
    backend: Backend, options: Options, logits: Array, labels: Array, weight: Array | None, dlogits: Array | None
) -> Array:
    """Labels by the one walk over the rows of ``cross_entropy_numpy``."""
    rows, cols = logits.shape
    x = contiguous(backend, logits)
    if x.dtype.itemsize == 2:
        x = x.astype(np.float32)
    labels, counts = _checked_labels(labels, cols, options.ignore_index, x.dtype)
    hard: Any = 1.0
    total: Any = rows
    if counts is not None:
        hard, total = counts, counts.sum()
    if weight is not None:
        hard = weight[labels] if counts is None else weight[labels] * counts
        total = hard.sum()
    scale = 1.0
    if options.reduction == "mean":
        if total == 0:
            raise ValueError(_nothing_counts(labels, options.ignore_index))
        scale = 1.0 / float(total)
    spread = None
    if options.label_smoothing:
        share = options.label_smoothing / cols
        spread = np.full(cols, share, x.dtype) if weight is None else weight * share
        hard = hard * (1.0 - options.label_smoothing)
    losses = np.empty(rows, x.dtype)
    dx = dlogits
    if dlogits is not None and dlogits.dtype != x.dtype:
        dx = backend.empty(x.shape, x.dtype, backend.device_of(x))
    cross_entropy_rows(x, labels, hard, 1.0 if counts is None else counts, spread, scale, losses, dx, options.z_loss)
    if counts is not None:
        losses[counts == 0] = 0.0  # also where the logit that stands in is -inf
    if dx is not dlogits and dlogits is not None:
        with np.errstate(all="ignore"):
            dlogits[...] = dx
    return losses if options.reduction == "none" else np.asarray(losses.sum() * x.dtype.type(scale))


def _checked_labels(labels: Array, cols: int, ignored: int, dtype: Any) -> tuple[Array, Array | None]:
    """int64 labels, where 0 stands for an ignored one, and 1 for each that counts, 0 for others; None where all do."""
    labels = _int64(np, labels)
    if not 0 <= ignored < cols and int(labels.view(np.uint64).max(initial=0)) < cols:
        return labels, None  # a negative label is a very large one without its sign
    inside, counts = (labels >= 0) & (labels < cols), labels != ignored
    if not (inside | ~counts).all():
        wrong = labels[~inside & counts][0]
        raise ValueError(f"cross_entropy: labels must be in 0 ... {cols - 1} or {ignored}, got {wrong}")
    return np.where(inside & counts, labels, 0), counts.astype(dtype)


# -- on CUDA ---------------------------------------------------------------------------------------------------------


def _prepared(backend: Backend, logits: Array, targets: Array) -> tuple[Array, Array]:
    """The arrays as the kernels take them."""
    if _has_labels(targets):
        targets = _int64(backend.xp, targets)
    return contiguous(backend, logits), contiguous(backend, targets)


def _on_cuda(
    backend: Backend,
    plans: Plans,
    options: Options,
    logits: Array,
    targets: Array,
    weight: Array | None,
    dlogits: Array | None,
) -> Array:
    device = backend.device_of(logits)
    losses = backend.empty(_shape_of_losses(logits), "float32", device)
    divisor = _rows_on_cuda(backend, plans, options, logits, targets, weight, None, losses, dlogits)
    if options.reduction == "none":
        return losses
    return total_of_losses(backend, losses, divisor)


def total_of_losses(backend: Backend, losses: Array, divisor: Array | None) -> Array:
    """``sum(losses) / divisor`` as a 0-d float32 array, added up in a fixed order by one block."""
    result = backend.empty((), "float32", backend.device_of(losses))
    launch(_SOURCE, _small_plan("cross_entropy_total", losses.size), backend, losses, divisor, result)
    return result


def _rows_on_cuda(
    backend: Backend, plans: Plans, options: Options, logits: Array, targets: Array, weight: Array | None, dy: Any,
    losses: Array | None, dlogits: Array | None,
) -> Array | None:  # fmt: skip
    """Losses, gradient, or both; returns what the mean divides by."""
    logits, targets = _prepared(backend, logits, targets)
    weight = None if weight is None else contiguous(backend, weight)
    divisor = None
    if options.reduction == "mean":
        if _has_labels(targets):
            divisor = label_total(targets.reshape(-1), weight, logits, options.ignore_index, logits.shape[1])
        else:
            divisor = backend.empty((1,), "float32", backend.device_of(logits))
            divisor.fill(math.prod(_shape_of_losses(logits)))
    faults = fault_record(logits) if _has_labels(targets) else None
    fault = fault_kind(f"cross_entropy: labels must be in 0 … {{last}} or {options.ignore_index}, got {{value}}")
    step = 1 if dy is not None and dy.ndim else 0
    *parts, last = plans
    arrays = [logits, targets, weight, divisor, dy, losses, dlogits, faults]
    ignored, smoothing = np.int64(options.ignore_index), np.float32(options.label_smoothing)
    if parts:
        partial = backend.empty((last.grid, _NUMBERS), "float32", backend.device_of(logits))
        first = parts[0]._replace(scalars=(*last.scalars, ignored, smoothing))
        launch(_SOURCE, first, backend, logits, targets, weight, partial)
        arrays.append(partial)
    scalars = (*last.scalars, np.int64(step), ignored, smoothing, np.float32(options.z_loss), fault)
    launch(_SOURCE, last._replace(scalars=scalars), backend, *arrays)
    return divisor


# Rows that fit the registers of THREADS threads with PACKS packs each, as (packs in the row at most, THREADS, PACKS),
# by elements in a pack. None has been tuned on hardware yet.
_SHORT = ((32, 8, 4), (1024, 128, 8))
_IN_REGISTERS = {
    1: _SHORT,
    4: ((128, 32, 4), (512, 128, 4), (2048, 512, 4)),
    8: ((128, 32, 4), (512, 128, 4), (1024, 512, 2)),
}
_STREAMED = {"LABELS": {1: 4, 4: 4, 8: 2}, "SMOOTHED": {1: 4, 4: 2, 8: 1}, "PROBABILITIES": {1: 4, 4: 2, 8: 1}}  # PACKS
_STREAM_THREADS, _SPLIT_THREADS = 512, 256  # with the same PACKS
_NUMBERS = 5  # that are known of a part of a row
_FEW_CLASSES = 16  # elements along a strided axis that one thread walks alone
_FEW_COLUMNS = 32  # a row that single elements serve better
_CACHE = 112 << 10  # bytes of shared memory for a row, so that two blocks fit a multiprocessor of sm_90
_SMALL_THREADS = 512


def _select(options: Options, logits: Array, targets: Array, dlogits: Array | None) -> Plans:
    rows = [a for a in (logits, None if _has_labels(targets) else targets, dlogits) if a is not None]
    kind = "PROBABILITIES" if not _has_labels(targets) else "SMOOTHED" if options.label_smoothing else "LABELS"
    shape = *logits.shape[:2], math.prod(logits.shape[2:])
    size = size_of_device(logits)
    return _select_kernel(kind, logits.dtype, shape, same_alignment(*rows), dlogits is not None, size)


@lru_cache(maxsize=4096)
def _select_kernel(
    kind: str, dtype: Any, shape: tuple[int, int, int], boundaries_agree: bool, gradient: bool, device: DeviceSize
) -> Plans:
    """The kernels for contiguous ``(outer, cols, inner)``; a function of plain values, so that it is remembered."""
    ctype = c_type(dtype)
    rows, cols, inner = shape
    if ctype is None:
        return Plans.definition(no_kernel_for(dtype))
    if cols > _LONGEST:
        return Plans.definition(f"a row has {cols} elements, the kernels index at most {_LONGEST}")
    wanted = f"losses and gradient of {kind.lower()}" if gradient else f"losses of {kind.lower()}"
    if inner > 1:
        return Plans((_select_columns(kind, ctype, rows, cols, inner, wanted),))
    kernel = "cross_entropy_rows"
    vector = WIDEST_ACCESS // dtype.itemsize
    single = ""
    defines: tuple[str, ...]
    if not boundaries_agree:
        vector, single = 1, ", single elements because the arrays' addresses differ modulo 16"
    elif cols <= _FEW_COLUMNS or (kind != "LABELS" and cols <= _SHORT[-1][0]):
        vector, single = 1, ", single elements because rows are short"
    scalars = (np.int64(rows), np.int32(cols))
    for packs, threads, each in _IN_REGISTERS[vector] if kind == "LABELS" or vector == 1 else ():
        if cols // vector <= packs:
            defines = (
                "REGISTERS", kind, f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={threads}", f"PACKS={each}",
            )  # fmt: skip
            per_block = max(1, 128 // threads)
            because = f"{wanted}; a row of {cols} fits the registers of {threads} threads, one read{single}"
            grid = blocks(kernel, rows, per_block)
            return Plans((Plan(kernel, defines, grid, threads * per_block, scalars, because),))
    each = _STREAMED[kind][vector]
    if (cut := parts_of_row(rows, cols, device.multiprocessors)) is not None:
        parts, chunk = cut
        defines = (
            "SPLIT", kind, f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={_SPLIT_THREADS}", f"PACKS={each}",
        )  # fmt: skip
        how = "read twice" if gradient else "read once"
        because = f"{wanted}; {rows} rows of {cols} do not fill the device, each is cut into {parts} parts and {how}"
        grid = blocks("cross_entropy_parts", rows * parts, 1)
        cutting = (*scalars, np.int32(chunk), np.int32(parts))
        first = Plan("cross_entropy_parts", defines, grid, _SPLIT_THREADS, cutting, because + single)
        return Plans((first, first._replace(kernel="cross_entropy_split", because="puts the parts together")))
    nbytes = -(-cols // vector) * WIDEST_ACCESS
    cached = gradient and kind == "LABELS" and vector > 1 and nbytes <= min(_CACHE, device.shared - OWN_SHARED)
    defines = (
        "STREAMED", kind, f"DTYPE={ctype}", f"VECTOR={vector}", f"THREADS={_STREAM_THREADS}", f"PACKS={each}",
        f"CACHED={int(cached)}",
    )  # fmt: skip
    how = "is kept in shared memory, one read" if cached else "is read twice" if gradient else "is read once"
    because = f"{wanted}; a row of {cols} does not fit the registers of a block and {how}{single}"
    grid = blocks(kernel, rows, 1)
    return Plans((Plan(kernel, defines, grid, _STREAM_THREADS, scalars, because, nbytes if cached else 0),))


def _select_columns(kind: str, ctype: str, outer: int, cols: int, inner: int, wanted: str) -> Plan:
    kernel = "cross_entropy_columns"
    width, depth = (128, 1) if cols <= _FEW_CLASSES else (32, 8)
    defines = ("COLUMNS", kind, f"DTYPE={ctype}", "VECTOR=1", f"WIDTH={width}", f"DEPTH={depth}", "PACKS=4")
    because = f"{wanted}; classes are not the last axis, so {depth} thread{'s' * (depth > 1)} for a column"
    because += ", without a transposed copy"
    grid = blocks(kernel, outer * inner, width)
    return Plan(kernel, defines, grid, width * depth, (np.int64(outer), np.int32(cols), np.int64(inner)), because)


def _small_plan(kernel: str, rows: int, *scalars: np.generic) -> Plan:
    defines = ("SMALL", "DTYPE=float", f"THREADS={_SMALL_THREADS}")
    return Plan(kernel, defines, 1, _SMALL_THREADS, (np.int64(rows), *scalars), "one block adds in a fixed order")


def _scale_plan(dlogits: Array) -> Plan:
    ctype = c_type(dlogits.dtype)
    if ctype is None or not dlogits.size or not dlogits.flags.c_contiguous or not aligned(dlogits):
        return definition_plan("no kernel takes this dtype or layout")
    defines = ("SMALL", f"DTYPE={ctype}", f"THREADS={_SMALL_THREADS}")
    per_block = _SMALL_THREADS * WIDEST_ACCESS // dlogits.dtype.itemsize
    grid = blocks("cross_entropy_scale", dlogits.size, per_block)
    because = "in place, 16 bytes at a time; nothing where the factor is 1"
    return Plan("cross_entropy_scale", defines, grid, _SMALL_THREADS, (np.int64(dlogits.size),), because)


@explained("label_total")
def _explain_total(labels: Array, weight: Array | None, logits: Array, ignore_index: int, cols: int) -> Plan:
    backend = backend_of(logits)
    if not backend.runs_cuda or logits.dtype == "float64":
        return definition_plan(no_kernel_for(logits.dtype) if backend.runs_cuda else no_cuda(backend))
    return _small_plan("cross_entropy_divisor", len(labels))


@explained("scale_gradient")
def _explain_scale(dlogits: Array, dy: Array) -> Plan:
    backend = common_backend(dlogits, dy)
    return _scale_plan(dlogits) if backend.runs_cuda else definition_plan(no_cuda(backend))


@explained("cross_entropy_backward")
def _explain_backward(dy: Array, logits: Array, targets: Array, weight: Array | None = None, **given: Any) -> Plans:
    out = given.pop("out", None)
    if out is None:
        backend = common_backend(dy, logits)
        out = backend.empty(logits.shape, logits.dtype, backend.device_of(logits))
    return _explain(logits, targets, weight, **given, dlogits=out)


@explained("cross_entropy")
def _explain(logits: Array, targets: Array, weight: Array | None = None, **given: Any) -> Plans:
    dlogits = given.pop("dlogits", None)
    values = {"ignore_index": -100, "reduction": "mean", "label_smoothing": 0.0, "z_loss": 0.0, **given}
    backend, options = _check(logits, targets, weight, *values.values())
    if not backend.runs_cuda or not logits.size:
        why = no_cuda(backend) if logits.size else "the array is empty"
        return Plans.definition(why)
    copied = "" if logits.flags.c_contiguous else "logits are not C-contiguous and copied first; "
    return _select(options, *_prepared(backend, logits, targets), dlogits).after(copied)
