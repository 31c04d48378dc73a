"""Containers: modules one after another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .module import Module


class Sequential(Module):
    """The modules one after another: ``Sequential(f, g)(x) = g(f(x))``; their names are ``0``, ``1``, …

    Args:
        modules: modules, or any functions of one tensor.
    """

    def __init__(self, *modules: Any) -> None:
        for i, module in enumerate(modules):
            if not callable(module):
                raise TypeError(f"Sequential: every argument must be a module or a function, got {module!r} at {i}")
        self._order = modules

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in super()._members():
            yield name.removeprefix("_order."), value

    def forward(self, x: Any) -> Any:
        for module in self._order:
            x = module(x)
        return x

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __getitem__(self, index: int | slice) -> Any:
        return Sequential(*self._order[index]) if isinstance(index, slice) else self._order[index]
