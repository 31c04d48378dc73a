"""What all kinds of dropout share: a probability, a random stream, and the module that uses both."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, is_floating
from ..autograd.tape import require_arrays
from ..backend import Generator, as_generator
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


class Dropping(Module):
    """A module that drops in training with probability ``p``, by the masks of the stream ``rng``."""

    def __init__(self, p: float = 0.5, *, rng: Generator | None = None) -> None:
        self.p = check_probability(type(self).__name__, p)
        self.rng = as_generator(type(self).__name__, rng)

    def extra_repr(self) -> str:
        return f"p={self.p}"
