"""What the elementwise activations share: function and slope are computed together, the backward is a product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import is_recording
from ..autograd.tensor import is_floating
from ..backend import Array
from ..kernels.elementwise import elementwise


def activation(name: str, x: Array, fill: Callable[..., None]) -> tuple[Array, Any]:
    """``y = f(x)`` and ``backward(dy) = dy * f'(x)``, as an operation of the tape returns them.

    The slope f'(x) is saved instead of x, since most of its parts are at hand while f(x) is computed. It is neither
    computed nor saved where nothing is recorded.

    Args:
        name: the function's, for the error message.
        x: floating point.
        fill: ``fill(xp, x, y, slope, t)`` writes f(x) into ``y`` and f'(x) into ``slope``, which is None where it is
            not wanted; ``t`` is scratch. All have one shape and dtype, float32 or float64.
    Raises:
        TypeError: ``x`` is not floating point.
    """
    check_floating(name, x)
    if is_recording():
        y, slope = elementwise(fill, x, results=2, scratch=1)
        return y, lambda dy: elementwise(_product, dy, slope, quiet=False)
    (y,) = elementwise(lambda xp, x, y, t: fill(xp, x, y, None, t), x, scratch=1)
    return y, None


def check_floating(name: str, x: Array) -> None:
    if not is_floating(x.dtype):
        raise TypeError(f"{name}: x must be floating point, got {x.dtype}")


def _product(xp: Any, dy: Array, slope: Array, dx: Array) -> None:
    xp.multiply(dy, slope, out=dx)
