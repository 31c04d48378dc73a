"""Positions for layers that see a set: a vector for each place in the sequence, fixed waves or learned."""

from __future__ import annotations

from typing import Any

from ..autograd import Parameter, Tensor, add
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_for, device
from . import init
from .lengths import length
from .module import Buffer, Module
from .real import real


def sinusoidal_positions(max_len: int, d_model: int, base: float = 10000.0) -> Array:
    """Waves of lengths from ``2 pi`` to ``2 pi base``: float32 on the host, shape ``(max_len, d_model)``.

    ``y[t, 2 i] = sin(t / base**(2 i / d_model))``, ``y[t, 2 i + 1] = cos(the same)``.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.
    """
    name = "sinusoidal_positions"
    rows, cols, base = length(name, "max_len", max_len), length(name, "d_model", d_model, 1), real(name, "base", base)
    if not base > 0:
        raise ValueError(f"{name}: base must be positive, got {base}")
    xp = backend_for(device("cpu")).xp
    angle = xp.arange(rows)[:, None] * base ** (-xp.arange(0, cols, 2) / cols)  # (max_len, ceil(d_model / 2)), float64
    y = xp.empty((rows, cols), "float32")
    y[:, 0::2] = xp.sin(angle)
    y[:, 1::2] = xp.cos(angle[:, : cols // 2])
    return y


class _Positions(Module):
    """Adds ``weight[:T]`` along the places of a sequence."""

    weight: Tensor

    def __init__(self, max_len: int, d_model: int, batch_first: bool) -> None:
        name = type(self).__name__
        self.max_len, self.d_model = length(name, "max_len", max_len), length(name, "d_model", d_model, 1)
        self.batch_first = batch_first

    def forward(self, x: Any, start: int = 0) -> Tensor:
        """``x`` plus the vectors of its places, the first of which has number ``start``.

        Args:
            x: shape ``(T, N, d_model)``, with ``batch_first`` ``(N, T, d_model)``, or ``(T, d_model)``.
            start: how many places came before, where a sequence comes in pieces.
        """
        name = type(self).__name__
        require_arrays(name, x=x)
        start = length(name, "start", start)
        if x.ndim not in (2, 3) or x.shape[-1] != self.d_model:
            layout = "(N, T, {0}) or (T, {0})" if self.batch_first else "(T, N, {0}) or (T, {0})"
            raise ValueError(f"{name}: x must have shape {layout.format(self.d_model)}, got {tuple(x.shape)}")
        places = x.shape[-2] if self.batch_first or x.ndim == 2 else x.shape[0]
        if start + places > self.max_len:
            raise ValueError(f"{name}: there are {self.max_len} places, got start={start} and {places} more")
        rows: Any = self.weight[start : start + places]
        if x.ndim == 3 and not self.batch_first:
            rows = rows[:, None]
        return add(x, rows)

    def extra_repr(self) -> str:
        return f"{self.max_len}, {self.d_model}, batch_first={self.batch_first}"


class SinusoidalPositions(_Positions):
    """Adds :func:`sinusoidal_positions` to a sequence.

    Args:
        max_len: how many places there are.
        d_model: width of the sequence.
        batch_first: ``(N, T, d_model)``, the default, or ``(T, N, d_model)``.

    Attributes:
        weight: the waves, shape ``(max_len, d_model)``; not learned.
    """

    def __init__(self, max_len: int, d_model: int, batch_first: bool = True) -> None:
        super().__init__(max_len, d_model, batch_first)
        self.weight = Buffer(sinusoidal_positions(max_len, d_model))


class LearnedPositions(_Positions):
    """Adds a learned vector to each place of a sequence, as GPT-2 and BERT do.

    Args:
        max_len: how many places there are.
        d_model: width of the sequence.
        batch_first: ``(N, T, d_model)``, the default, or ``(T, N, d_model)``.
        rng: draws the initial values, N(0, 0.02²); a fresh generator by default.

    Attributes:
        weight: shape ``(max_len, d_model)``.
    """

    def __init__(self, max_len: int, d_model: int, batch_first: bool = True, *, rng: Generator | None = None) -> None:
        super().__init__(max_len, d_model, batch_first)
        shape = (self.max_len, self.d_model)
        self.weight = Parameter(init.normal(shape, 0.0, 0.02, rng=as_generator("LearnedPositions", rng)))
