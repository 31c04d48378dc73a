"""The sign as an activation."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..autograd import sign as sign
from .module import Module


class Sign(Module):
    """-1, 0 or 1 for ``x`` below, at and above 0, elementwise. Its derivative is 0."""

    def forward(self, x: Any) -> Tensor:
        return sign(x)
