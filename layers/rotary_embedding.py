"""Rotary position embedding: queries and keys turned by their place, so that their product knows the distance."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..autograd.tape import require_arrays
from ..backend import Array, Device, backend_for, backend_of
from .lengths import length
from .module import Module
from .real import real

_GROWS_BY = 4096  # positions; tables have a multiple of them, so that a growing offset makes few


@lru_cache(maxsize=16)
def _table(
    device: Device, dtype: Any, dim: int, theta: float, frequencies: tuple[float, ...] | None, positions: int
) -> Array:
    """Cosines and sines on a device, kept for the next call."""
    values = kernels.rotary_table(dim, positions, theta, frequencies).astype(dtype)
    return backend_for(device).from_numpy(values, device)


@op
def _rotary(x: Array, table: Array, positions: Any, offset: int, interleaved: bool) -> Any:
    y = kernels.rotary(x, table, positions, offset=offset, interleaved=interleaved)

    def backward(dy: Array) -> Any:
        return (kernels.rotary(dy, table, positions, offset=offset, interleaved=interleaved, inverse=True),)

    return y, backward


def rotary_embedding(
    x: Any, positions: Any = None, *, offset: int = 0, dim: int | None = None, theta: float = 10000.0,
    frequencies: Sequence[float] | None = None, interleaved: bool = False, max_positions: int = _GROWS_BY,
) -> Tensor:  # fmt: skip
    """Turn pairs of elements by the angle ``p f_i``, where p is the position and ``f_i = theta ** (-2 i / dim)``.

    ``(a, b) -> (a cos - b sin, b cos + a sin)``; the derivative turns back. The product of a query and a key that were
    turned so depends on the distance of their positions only.

    Args:
        x: queries or keys, shape ``(..., T, D)``, such as ``(N, h, T, D)``.
        positions: integers, shape ``(T,)``, or ``(N, T)`` for each sequence of the batch its own; by default
            ``offset, offset + 1, …``.
        offset: how many places came before, where a sequence comes in pieces (a cache of keys and values).
        dim: how many of the D elements are turned, an even number; all by default. The others stay what they are.
        theta: the base of the frequencies.
        frequencies: ``f_i`` themselves, ``dim / 2`` numbers, where a model has others (longer contexts).
        interleaved: which elements are pair i: ``2 i`` and ``2 i + 1`` (RoFormer, GPT-J) or, by default, ``i`` and
            ``i + dim / 2`` (GPT-NeoX, Llama). The weights of the one kind are a permutation of the other's.
        max_positions: on CUDA ``positions`` must be below this (or the next multiple of 4096): looking would stall the
            device. Elsewhere, and for ``offset``, there is no limit.
    Returns:
        a tensor of the shape and dtype of ``x``.
    Raises:
        ValueError: shapes do not fit, ``dim`` is odd, or a position is negative or too large (on CUDA when the host
            next waits). TypeError: ``x`` is not floating, ``positions`` are no integers.
    Source: Su et al. 2021, "RoFormer: enhanced transformer with rotary position embedding", arXiv 2104.09864.
    """
    name = "rotary_embedding"
    require_arrays(name, x=x)
    if positions is not None:
        require_arrays(name, positions=positions)
    data = x.data if isinstance(x, Tensor) else x
    places = positions.data if isinstance(positions, Tensor) else positions
    if data.ndim < 2:
        raise ValueError(f"{name}: x must have shape (..., T, D), got {tuple(data.shape)}")
    dim = _checked_dim(name, data.shape[-1] if dim is None else dim, data.shape[-1])
    offset, most = length(name, "offset", offset), length(name, "max_positions", max_positions, 1)
    backend = backend_of(data)
    if places is None:
        most = offset + data.shape[-2]
    elif not backend.runs_cuda and places.size and places.dtype.kind in "iu":
        most = int(places.max()) + 1
    dtype = "float64" if data.dtype.itemsize == 8 else "float32"
    theta, given = _checked_angles(name, theta, frequencies)
    if given is not None and len(given) != dim // 2:
        raise ValueError(f"{name}: frequencies must be {dim // 2} numbers for dim={dim}, got {len(given)}")
    rows = max(1, -(-most // _GROWS_BY)) * _GROWS_BY
    table = _table(backend.device_of(data), dtype, dim, theta, given, rows)
    result: Tensor = _rotary(x, table, places, offset, bool(interleaved))
    return result


def _checked_dim(name: str, dim: Any, most: int) -> int:
    dim = length(name, "dim", dim, 2)
    if dim % 2 or dim > most:
        raise ValueError(f"{name}: dim must be even and at most {most}, the last axis of x, got {dim}")
    return dim


def _checked_angles(name: str, theta: Any, frequencies: Any) -> tuple[float, tuple[float, ...] | None]:
    base = real(name, "theta", theta)
    if not 0 < base < math.inf:
        raise ValueError(f"{name}: theta must be positive and finite, got {theta!r}")
    if frequencies is None:
        return base, None
    if not isinstance(frequencies, Iterable):
        raise TypeError(f"{name}: frequencies must be numbers, one for each pair, got {frequencies!r}")
    given = tuple(real(name, "frequencies", f) for f in frequencies)
    if not all(map(math.isfinite, given)):
        raise ValueError(f"{name}: frequencies must be finite, got {given}")
    return base, given


class RotaryEmbedding(Module):
    """Turns queries or keys by their positions; see :func:`rotary_embedding`. It has no parameters and no state.

    Args:
        dim: how many elements of each head are turned, an even number; None turns all.
        theta, frequencies, interleaved, max_positions: as for :func:`rotary_embedding`.
    """

    def __init__(
        self, dim: int | None = None, theta: float = 10000.0, *, frequencies: Sequence[float] | None = None,
        interleaved: bool = False, max_positions: int = _GROWS_BY,
    ) -> None:  # fmt: skip
        self.dim = None if dim is None else length("RotaryEmbedding", "dim", dim, 2)
        if self.dim is not None and self.dim % 2:
            raise ValueError(f"RotaryEmbedding: dim must be even, got {dim}")
        self.theta, self.frequencies = _checked_angles("RotaryEmbedding", theta, frequencies)
        self.interleaved = bool(interleaved)
        self.max_positions = length("RotaryEmbedding", "max_positions", max_positions, 1)

    def forward(self, x: Any, positions: Any = None, offset: int = 0) -> Tensor:
        return rotary_embedding(
            x, positions, offset=offset, dim=self.dim, theta=self.theta, frequencies=self.frequencies,
            interleaved=self.interleaved, max_positions=self.max_positions,
        )  # fmt: skip

    def extra_repr(self) -> str:
        dim = "" if self.dim is None else f"{self.dim}, "
        return f"{dim}theta={self.theta:g}{', interleaved=True' if self.interleaved else ''}"
