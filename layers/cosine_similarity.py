"""The cosine of the angle between vectors, and the loss that turns vectors towards or away from each other."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, op
from ..backend import Array, backend_of
from .labels import check_signs
from .module import Module
from .real import real
from .reduction import Loss, check_reduction, matched, narrowed, reduce_losses, widened

_EPS = 1e-12  # added to the squared lengths in cosine_embedding_loss; PyTorch's choice


@op
def cosine_similarity(x1: Array, x2: Array, axis: int = 1, eps: float = 1e-8) -> Any:
    """``x1 · x2 / (max(|x1|, eps) max(|x2|, eps))`` along ``axis``.

    Args:
        x1: any shape with at least one axis.
        x2: the same shape and dtype.
        axis: the axis along which the vectors lie; it disappears.
        eps: the smallest length.
    """
    dtype, backend = x1.dtype, backend_of(x1)
    xp = backend.xp
    a, b = matched("cosine_similarity", x1, x2, "x1, x2")
    if not -a.ndim <= axis < a.ndim:
        raise ValueError(f"cosine_similarity: axis must be in {-a.ndim} ... {a.ndim - 1}, got {axis}")

    def unit(x: Array) -> tuple[Array, Array, Array]:
        length = xp.sqrt((x * x).sum(axis=axis, keepdims=True))
        bounded = xp.maximum(length, x.dtype.type(eps))
        return x / bounded, bounded, length > eps

    u, a_length, a_moves = unit(a)
    v, b_length, b_moves = unit(b)
    y = (u * v).sum(axis=axis, keepdims=True)

    def gradient(own: Array, other: Array, length: Array, moves: Array) -> Any:
        def apply(dy: Array, out: Any) -> Array:
            wide = widened(xp.expand_dims(dy, axis))
            return narrowed(backend, (other - own * (y * moves)) * (wide / length), dtype)

        return apply

    result = narrowed(backend, xp.squeeze(y, axis), dtype)
    return result, (gradient(u, v, a_length, a_moves), gradient(v, u, b_length, b_moves))


@op
def cosine_embedding_loss(
    input1: Array, input2: Array, targets: Array, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """``1 - cos(x1, x2)`` for targets 1 and ``max(0, cos(x1, x2) - margin)`` for targets -1.

    The cosine is ``x1 · x2 / sqrt((|x1|² + ε) (|x2|² + ε))`` with ε = 1e-12, as in PyTorch: 0 for vectors of zeros.

    Args:
        input1: vectors, shape ``(N, D)`` or ``(D,)``.
        input2: the same shape and dtype.
        targets: shape ``(N,)`` or ``()``: 1 for pairs that belong together, -1 for others, of any dtype; no gradient.
        margin: the cosine that others may have, -1 … 1.
        reduction: ``"mean"`` over the pairs, ``"sum"`` or ``"none"``.
    Raises:
        ValueError: shapes do not fit, or a target is neither -1 nor 1 (on CUDA its loss is NaN).
    """
    check_reduction("cosine_embedding_loss", reduction)
    dtype, backend = input1.dtype, backend_of(input1)
    xp = backend.xp
    a, b = matched("cosine_embedding_loss", input1, input2, "input1, input2")
    if a.ndim not in (1, 2) or targets.shape != a.shape[:-1]:
        raise ValueError(
            "cosine_embedding_loss: inputs must have shape (N, D) and targets (N,), or (D,) and (), "
            f"got {a.shape} and {targets.shape}"
        )
    t = check_signs("cosine_embedding_loss", backend, targets, a.dtype)
    a_length = xp.sqrt((a * a).sum(axis=-1, keepdims=True) + _EPS)
    b_length = xp.sqrt((b * b).sum(axis=-1, keepdims=True) + _EPS)
    u, v = a / a_length, b / b_length
    cosine = (u * v).sum(axis=-1)
    together = (1 + t) * 0.5  # 1 or 0
    losses = together * (1 - cosine) + (1 - together) * xp.maximum(cosine - margin, a.dtype.type(0))
    slope = (1 - together) * (cosine >= margin) - together  # d loss / d cosine
    along = cosine[..., None]

    def da() -> Array:
        return (v - u * along) * (slope[..., None] / a_length)

    def db() -> Array:
        return (u - v * along) * (slope[..., None] / b_length)

    y, gradients = reduce_losses("cosine_embedding_loss", backend, losses, reduction, dtype, (da, db))
    to_a, to_b = gradients

    def wide(dy: Array) -> Array:  # each loss belongs to a whole vector
        return dy[..., None] if reduction == "none" else dy

    return y, (lambda dy, out: to_a(wide(dy), out), lambda dy, out: to_b(wide(dy), out))


class CosineSimilarity(Module):
    """The cosine of the angle between vectors; see :func:`cosine_similarity`."""

    def __init__(self, axis: int = 1, eps: float = 1e-8) -> None:
        self.axis = axis
        self.eps = real("CosineSimilarity", "eps", eps)

    def forward(self, x1: Any, x2: Any) -> Tensor:
        return cosine_similarity(x1, x2, self.axis, self.eps)

    def extra_repr(self) -> str:
        return f"axis={self.axis}, eps={self.eps}"


class CosineEmbeddingLoss(Loss):
    """Turns vectors towards or away from each other; see :func:`cosine_embedding_loss`."""

    def __init__(self, margin: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = real("CosineEmbeddingLoss", "margin", margin)

    def forward(self, input1: Any, input2: Any, targets: Any) -> Tensor:
        return cosine_embedding_loss(input1, input2, targets, self.margin, self.reduction)
