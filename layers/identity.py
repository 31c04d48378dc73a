"""Identity: a place that holds no layer."""

from __future__ import annotations

from typing import Any

from .module import Module


class Identity(Module):
    """Returns its input as it is. Takes any arguments, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def forward(self, x: Any) -> Any:
        return x
