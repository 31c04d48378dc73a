"""Connections past a block: added to its result, or put beside it.

What a layer computes from all that came before, ``f(x) = H2(x, H0(x), H1(H0(x)))``, is written as it stands, in a
module's ``forward``; the tape finds the derivative:

    >>> class Skipping(Module):
    ...     def __init__(self, H0, H1, H2):
    ...         self.H0, self.H1, self.H2 = H0, H1, H2
    ...
    ...     def forward(self, x):
    ...         h = self.H0(x)
    ...         return self.H2(concat([x, h, self.H1(h)], axis=1))

The two common forms have modules: with ``H2`` the sum it is :class:`Residual`, with ``H2`` the concatenation
:class:`DenseConnection`.
"""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, add, concat
from .module import Module


class Residual(Module):
    """``block(x) + shortcut(x)``: the block learns what is to be added to its input.

    Args:
        block: a module whose result has the shape of ``shortcut(x)``.
        shortcut: what the input goes through on the way past, such as a 1×1 convolution; None is the input itself.
    Source: He et al. 2016, "Deep residual learning for image recognition", arXiv 1512.03385.
    """

    def __init__(self, block: Any, shortcut: Any = None) -> None:
        for name, part in (("block", block), ("shortcut", shortcut)):
            if not callable(part) and (part is not None or name == "block"):
                raise TypeError(f"Residual: {name} must be a module or a function, got {part!r}")
        self.block, self.shortcut = block, shortcut

    def forward(self, x: Any) -> Tensor:
        y = self.block(x)
        past = x if self.shortcut is None else self.shortcut(x)
        if tuple(y.shape) != tuple(past.shape):  # broadcasting would hide the mistake
            way = "the input" if self.shortcut is None else "shortcut(x)"
            raise ValueError(
                f"Residual: block(x) must have the shape of {way}, got {tuple(y.shape)} and {tuple(past.shape)}"
            )
        return add(y, past)


class DenseConnection(Module):
    """``concat([x, block(x)])`` along the channels: everything computed so far stays visible to what follows.

    Args:
        block: a module whose result differs from its input in the length of ``axis`` only.
        axis: the channels, 1 for ``(N, C, ...)``.
    Source: Huang et al. 2017, "Densely connected convolutional networks", arXiv 1608.06993.
    """

    def __init__(self, block: Any, axis: int = 1) -> None:
        if not callable(block):
            raise TypeError(f"DenseConnection: block must be a module or a function, got {block!r}")
        self.block, self.axis = block, axis

    def forward(self, x: Any) -> Tensor:
        y = self.block(x)
        before, after = list(x.shape), list(y.shape)
        if len(before) == len(after) and -len(before) <= self.axis < len(before):
            del before[self.axis], after[self.axis]
        if before != after:
            raise ValueError(
                f"DenseConnection: block(x) must have the shape of x but for axis {self.axis}, "
                f"got {tuple(y.shape)} and {tuple(x.shape)}"
            )
        return concat([x, y], self.axis)

    def extra_repr(self) -> str:
        return "" if self.axis == 1 else f"axis={self.axis}"
