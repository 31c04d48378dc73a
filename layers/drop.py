"""What all kinds of dropout share: a probability, a random stream, and the module that uses both."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor, is_floating
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_of, random_bits
from .module import Module


def check_dropping(name: str, x: Any, p: Any) -> float:
    """The probability as a float, or an error that says what is wrong with it or with ``x``."""
    if not isinstance(x, Tensor):
        require_arrays(name, x=x)
    if not is_floating(x.dtype):
        raise TypeError(f"{name}: x must be floating, got {x.dtype}")
    return check_probability(name, p)


def check_probability(name: str, p: Any, argument: str = "p") -> float:
    """``p`` as a float in [0, 1]."""
    try:
        value = float(p)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: {argument} must be a number in [0, 1], got {p!r}") from None
    if isinstance(p, str):
        raise TypeError(f"{name}: {argument} must be a number in [0, 1], got {p!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: {argument} must be in [0, 1], got {p}")
    return value


def kept(like: Array, shape: tuple[int, ...], p: float, key: int, offset: int) -> Array:
    """True where a value is kept: element ``i`` where word ``offset + i`` of the stream is at least ``p * 2**32``.

    A function of (key, offset) alone and bit-identical on every device, so a mask is never stored.
    """
    backend = backend_of(like)
    threshold = round(p * 2.0**32)
    if threshold >= 1 << 32:  # p = 1: no 32-bit word reaches it
        return backend.xp.zeros_like(like, dtype=bool, shape=shape)
    return (random_bits(key, offset, math.prod(shape), backend.device_of(like)) >= threshold).reshape(shape)


class Dropping(Module):
    """A module that drops in training with probability ``p``, by the masks of the stream ``rng``."""

    def __init__(self, p: float = 0.5, *, rng: Generator | None = None) -> None:
        self.p = check_probability(type(self).__name__, p)
        self.rng = as_generator(type(self).__name__, rng)

    def extra_repr(self) -> str:
        return f"p={self.p}"
