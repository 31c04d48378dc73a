"""Containers: modules one after another, and lists and dicts of modules or parameters.

A module finds what plain lists, tuples and dicts in its attributes hold, under the same names. ModuleList, ModuleDict
and ParameterList are for those who want a module: with ``repr``, ``to``, ``apply``, and checks of what is put in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..autograd import Parameter
from .fusion import can_fuse, has_batch_norm, run_from
from .module import Module


class Sequential(Module):
    """The modules one after another: ``Sequential(f, g)(x) = g(f(x))``; their names are ``0``, ``1``, …

    A batch normalisation and the ReLU after it run together, and on CUDA a linear layer, the activation and the dropout
    after it, unless one of them has hooks.

    Args:
        modules: modules, or any functions of one tensor.
    """

    def __init__(self, *modules: Any) -> None:
        for i, module in enumerate(modules):
            if not callable(module):
                raise TypeError(f"Sequential: every argument must be a module or a function, got {module!r} at {i}")
        self._order = modules
        self._normalizes = has_batch_norm(modules)

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in super()._members():
            yield name.removeprefix("_order."), value

    def forward(self, x: Any) -> Any:
        if not (self._normalizes or can_fuse(x)):
            for module in self._order:
                x = module(x)
            return x
        i = 0
        while i < len(self._order):
            x, i = run_from(self._order, i, x)
        return x

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __getitem__(self, index: int | slice) -> Any:
        return Sequential(*self._order[index]) if isinstance(index, slice) else self._order[index]


class _List(Module):
    """What ModuleList and ParameterList share: a list whose items have their numbers as names."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order: list[Any] = []
        self.extend(items)

    def _checked(self, item: Any) -> Any:
        raise NotImplementedError

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in super()._members():
            yield name.removeprefix("_order."), value

    def append(self, item: Any) -> Any:
        """Put an item at the end; returns the list."""
        self._order.append(self._checked(item))
        return self

    def extend(self, items: Iterable[Any]) -> Any:
        """Put items at the end; returns the list."""
        self._order.extend([self._checked(item) for item in items])
        return self

    def insert(self, index: int, item: Any) -> None:
        """Put an item before the one at ``index``; the names of those behind count up."""
        self._order.insert(index, self._checked(item))

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._order)

    def __getitem__(self, index: int | slice) -> Any:
        return type(self)(self._order[index]) if isinstance(index, slice) else self._order[index]

    def __setitem__(self, index: int, item: Any) -> None:
        self._order[index] = self._checked(item)

    def __delitem__(self, index: int | slice) -> None:
        del self._order[index]


class ModuleList(_List):
    """A list of modules, named ``0``, ``1``, …; call them one by one, the list itself is no function.

    Args:
        modules: the modules.
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__(modules)

    def _checked(self, item: Any) -> Any:
        if not isinstance(item, Module):
            raise TypeError(f"ModuleList: every item must be a module, got {item!r}")
        return item


class ParameterList(_List):
    """A list of parameters, named ``0``, ``1``, ….

    Args:
        parameters: parameters, or arrays to make parameters of.
    """

    def __init__(self, parameters: Iterable[Any] = ()) -> None:
        super().__init__(parameters)

    def _checked(self, item: Any) -> Any:
        return item if isinstance(item, Parameter) else Parameter(item)

    def __repr__(self) -> str:
        lines = [f"  ({i}): {p.dtype} {p.shape} on {p.device}" for i, p in enumerate(self._order)]
        return "\n".join(["ParameterList(", *lines, ")"]) if lines else "ParameterList()"


class ModuleDict(Module):
    """Modules by name, in the order in which they were put in; the dict itself is no function.

    Args:
        modules: the modules by name; a name is text without a dot.
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self._by_name: dict[str, Module] = {}
        self.update({} if modules is None else modules)

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in super()._members():
            yield name.removeprefix("_by_name."), value

    def update(self, modules: Mapping[str, Module]) -> None:
        """Put in modules by name; those of the same name are replaced."""
        if not isinstance(modules, Mapping):
            raise TypeError(f"ModuleDict: modules must be a mapping of names to modules, got {modules!r}")
        for name, module in modules.items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"ModuleDict: a name must be text without a dot, got {name!r}")
        if not isinstance(module, Module):
            raise TypeError(f"ModuleDict: {name} must be a module, got {module!r}")
        self._by_name[name] = module

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def __delitem__(self, name: str) -> None:
        del self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def keys(self) -> Any:
        return self._by_name.keys()

    def values(self) -> Any:
        return self._by_name.values()

    def items(self) -> Any:
        return self._by_name.items()
