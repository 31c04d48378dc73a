"""Embedding: a learned vector for each number of a vocabulary."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, op
from ..backend import Array, Generator, as_generator
from . import init
from .module import Module


@op
def embedding(indices: Array, weight: Array, padding_idx: int | None = None) -> Any:
    """``y[..., :] = weight[indices[...], :]``; the derivative adds each ``dy`` to the row that it came from.

    Args:
        indices: integers in ``0 … V - 1``, any shape and any integer dtype.
        weight: shape ``(V, D)``.
        padding_idx: a row that gets no gradient, or None; negative counts from the end.
    Returns:
        shape ``(*indices.shape, D)``.
    Raises:
        TypeError: the indices are no integers. ValueError: one is out of range (on CUDA its row is NaN, and the error
            comes when the host next waits for the device), or ``padding_idx`` is.
    """
    y = kernels.embedding(indices, weight)
    count = weight.shape[0]
    padding = None if padding_idx is None else _in_range("embedding", padding_idx, count)
    return y, (None, lambda dy, out: kernels.embedding_backward(dy, indices, count, padding, out))


class Embedding(Module):
    """A table of ``num_embeddings`` vectors of length ``embedding_dim``, looked up by number.

    Args:
        num_embeddings: V, how many vectors.
        embedding_dim: D, their length.
        padding_idx: a number whose vector is 0 at first and gets no gradient, so it stays what it is; or None.
        rng: draws the initial values, N(0, 1) as in PyTorch; a fresh generator by default.

    Attributes:
        weight: shape ``(num_embeddings, embedding_dim)``.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        rng: Generator | None = None,
    ) -> None:
        for name, value in (("num_embeddings", num_embeddings), ("embedding_dim", embedding_dim)):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"Embedding: {name} must be an int, got {value!r}")
            if value < 1:
                raise ValueError(f"Embedding: {name} must be at least 1, got {value}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else _in_range("Embedding", padding_idx, num_embeddings)
        self.weight: Parameter = Parameter(
            init.normal((num_embeddings, embedding_dim), rng=as_generator("Embedding", rng))
        )
        if self.padding_idx is not None:
            self.weight.data[self.padding_idx] = 0.0

    def forward(self, indices: Any) -> Tensor:
        return embedding(indices, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


def _in_range(function: str, padding_idx: int, count: int) -> int:
    if not -count <= padding_idx < count:
        raise ValueError(f"{function}: padding_idx must be in {-count} … {count - 1}, got {padding_idx}")
    return padding_idx % count
