"""Cross entropy of class labels or class probabilities, from logits."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, is_recording, op
from ..backend import Array, Backend, backend_of
from ..kernels.cross_entropy_numpy import cross_entropy_rows
from .labels import check_class_weight, weigh_labels
from .real import real
from .reduction import Loss, check_floating, check_reduction, constant, narrowed, quiet, reduce_losses, widened


@op
def cross_entropy(
    logits: Array,
    labels: Array,
    weight: Array | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """``-weight[label] * log softmax(logits)[label]``, one fused operation, stable for logits of any size.

    With class probabilities ``t`` in place of labels it is ``-sum_c weight[c] * t[c] * log softmax(logits)[c]``.
    Smoothing replaces the target distribution ``t`` (1 at the label) by ``(1 - ε) t + ε / C``.

    Args:
        logits: scores before softmax, shape ``(N, C)`` or ``(N, C, d1, …)``: classes are axis 1.
        labels: the true classes, integers in ``0 … C - 1`` or ``ignore_index``, shape ``(N,)`` or ``(N, d1, …)``;
            or the probabilities of all classes, of the shape and dtype of ``logits``.
        weight: of each class, shape ``(C,)``, the logits' dtype; a constant, it gets no gradient.
        ignore_index: a label that counts for nothing and has zero gradient. Probabilities are never ignored.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean of labels divides by the sum of the weights of the
            labels that count; the mean of probabilities by their number, whatever the weights (as in PyTorch).
        label_smoothing: ε, in [0, 1].
    Returns:
        a scalar, or losses of shape ``(N,)`` or ``(N, d1, …)``.
    Raises:
        ValueError: shapes do not fit, a label is out of range (on the CPU; on CUDA the loss is NaN there, because
            looking would stall the device), or nothing counts towards the mean (on CUDA, where labels would have to
            be looked at, the mean is NaN).
        TypeError: labels are neither integers nor of the logits' dtype, or logits are not floating.
    """
    check_reduction("cross_entropy", reduction)
    check_floating("cross_entropy", "logits", logits)
    backend = backend_of(logits)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"cross_entropy: label_smoothing must be in [0, 1], got {label_smoothing}")
    shape = logits.shape
    if len(shape) < 2:
        raise ValueError(f"cross_entropy: logits must have shape (N, C, ...), got {shape}")
    weight = check_class_weight("cross_entropy", weight, logits)
    if labels.dtype.kind not in "iub" and labels.shape == shape:
        return _of_probabilities(backend, logits, labels, weight, reduction, label_smoothing)
    if labels.shape != (shape[0], *shape[2:]):
        raise ValueError(
            "cross_entropy: logits must have shape (N, C, ...) and labels (N, ...), or probabilities the logits' "
            f"shape, got {shape} and {labels.shape}"
        )
    safe, counts, hard, total = weigh_labels(
        "cross_entropy", backend, logits, labels, weight, ignore_index, reduction == "mean"
    )
    safe = safe.reshape(-1)
    counts, hard = (None if w is None else w.reshape(-1) for w in (counts, hard))
    spread = None
    if label_smoothing:
        spread = _class_weights(backend, logits, weight) * (label_smoothing / shape[1])
        hard = 1.0 - label_smoothing if hard is None else hard * (1.0 - label_smoothing)
    of_rows = _of_labels_on_cuda if backend.runs_cuda else _of_labels_on_cpu
    return of_rows(backend, logits, labels.shape, safe, counts, hard, spread, total, reduction)


def _of_labels_on_cpu(
    backend: Backend, logits: Array, losses_shape: Any, labels: Array, counts: Any, hard: Any, spread: Any, total: Any,
    reduction: str,
) -> Any:  # fmt: skip
    """Losses and gradient in one walk; the gradient waits in ``formed`` for the backward pass."""
    xp = backend.xp
    rows = xp.ascontiguousarray(_rows(xp, logits))  # (M, C)
    scale = 1.0 / float(total) if reduction == "mean" else 1.0
    hard = 1.0 if hard is None else hard
    soft = 1.0 if counts is None else counts

    def walk(gradient: bool) -> tuple[Array, Array | None]:
        losses = xp.empty(len(rows), rows.dtype)
        dx = backend.empty(rows.shape, rows.dtype, backend.device_of(rows)) if gradient else None
        cross_entropy_rows(rows, labels, hard, soft, spread, scale, losses, dx)
        return losses, dx

    losses, dx = walk(is_recording())
    if counts is not None:
        losses[counts == 0] = 0.0  # also where the logit that stands in is -inf
    formed = [dx]

    def backward(dy: Array) -> Any:
        dx: Any = formed.pop() if formed else walk(True)[1]  # handed over: a second walk forms it anew
        if reduction == "none":
            dx *= widened(dy).reshape(-1, 1)
        elif (factor := float(dy)) != 1.0:
            dx *= factor
        return (_like_logits(backend, dx, logits),)

    y = losses.reshape(losses_shape) if reduction == "none" else losses.sum() * scale
    return narrowed(backend, y, logits.dtype), backward


def _of_labels_on_cuda(
    backend: Backend, logits: Array, losses_shape: Any, labels: Array, counts: Any, hard: Any, spread: Any, total: Any,
    reduction: str,
) -> Any:  # fmt: skip
    """The same in array operations, none of which waits for the device."""
    xp = backend.xp
    rows = _rows(xp, logits)  # (M, C)
    place = (xp.arange(labels.size), labels)
    shifted = rows - rows.max(axis=1, keepdims=True)
    picked = shifted[place]
    soft = None if spread is None else (shifted * spread).sum(axis=1)
    e = xp.exp(shifted, out=shifted)
    sums = e.sum(axis=1)
    lse = xp.log(sums)
    losses = (lse - picked) * hard
    coefficient = hard
    if spread is not None:
        whole = spread.sum()
        losses += (whole * lse - soft) * counts
        coefficient = hard + whole * counts
    losses = xp.where(counts == 0, losses.dtype.type(0), losses)
    y = losses.reshape(losses_shape) if reduction == "none" else losses.sum()
    if reduction == "mean":
        y = y / total

    def backward(dy: Array) -> Any:
        dy = widened(dy)
        scale = dy.reshape(-1) if reduction == "none" else dy / total if reduction == "mean" else dy
        dx = e * (coefficient * scale / sums)[:, None]
        dx[place] -= hard * scale
        if spread is not None:
            dx -= (counts * scale)[:, None] * spread
        return (_like_logits(backend, dx, logits),)

    return narrowed(backend, y, logits.dtype), backward


def _of_probabilities(
    backend: Backend, logits: Array, targets: Array, weight: Any, reduction: str, label_smoothing: float
) -> Any:
    """``sum_c q[c] * (lse - x[c])`` with ``q = weight * ((1 - ε) t + ε / C)``, and ``dx = sum(q) * softmax(x) - q``."""
    if targets.dtype != logits.dtype:
        raise TypeError(f"cross_entropy: probabilities must have the logits' dtype {logits.dtype}, got {targets.dtype}")
    xp = backend.xp
    classes = logits.shape[1]
    weights = _class_weights(backend, logits, weight)
    q = _rows(xp, targets) * ((1.0 - label_smoothing) * weights) + weights * (label_smoothing / classes)  # (M, C)
    with quiet(backend):
        log_p = _rows(xp, logits)
        log_p = log_p - log_p.max(axis=1, keepdims=True)
        log_p -= xp.log(xp.exp(log_p).sum(axis=1, keepdims=True))
        losses = -(q * log_p).sum(axis=1)

    def dlogits() -> Array:
        return _columns(xp, q.sum(axis=1, keepdims=True) * xp.exp(log_p) - q, logits.shape)

    def dtargets() -> Array:
        return _columns(xp, log_p * ((label_smoothing - 1.0) * weights), logits.shape)

    y, (to_logits, to_targets) = reduce_losses(
        "cross_entropy",
        backend,
        losses.reshape(logits.shape[0], *logits.shape[2:]),
        reduction,
        logits.dtype,
        (dlogits, dtargets),
    )

    def wide(dy: Array) -> Array:  # each loss belongs to all classes
        return dy[:, None] if reduction == "none" else dy

    return y, (lambda dy, out: to_logits(wide(dy), out), lambda dy, out: to_targets(wide(dy), out))


def _class_weights(backend: Backend, logits: Array, weight: Any) -> Array:
    if weight is not None:
        return weight
    ones = backend.empty(logits.shape[1:2], "float32" if logits.dtype.itemsize == 2 else logits.dtype,
                         backend.device_of(logits))  # fmt: skip
    ones.fill(1)
    return ones


def _rows(xp: Any, x: Array) -> Array:
    """``(N, C, d1, …)`` as rows ``(N d1 …, C)`` of float32 or better."""
    return widened(x if x.ndim == 2 else xp.moveaxis(x, 1, -1).reshape(-1, x.shape[1]))


def _columns(xp: Any, rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows ``(N d1 …, C)`` as ``(N, C, d1, …)``."""
    return rows if len(shape) == 2 else xp.moveaxis(rows.reshape(shape[0], *shape[2:], shape[1]), -1, 1)


def _like_logits(backend: Backend, dx: Array, logits: Array) -> Array:
    return narrowed(backend, _columns(backend.xp, dx, logits.shape), logits.dtype)


class CrossEntropyLoss(Loss):
    """Cross entropy of class labels or probabilities, from logits; see :func:`cross_entropy`.

    Attributes:
        weight: of each class, shape ``(C,)``, or None; moved and stored with the module.
    """

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(reduction)
        self.weight = constant(weight)
        self.ignore_index = ignore_index
        self.label_smoothing = real("CrossEntropyLoss", "label_smoothing", label_smoothing)

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return cross_entropy(
            logits,
            labels,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )
