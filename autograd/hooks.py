"""Hooks: functions of a user's that see a gradient on its way through the tape.

A hook is put in front of the backward function of the node that made the tensor, so the tape itself knows nothing
of hooks and pays nothing for them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from ..backend import Array
from .tape import Node
from .tensor import Tensor


class Hooks:
    """Hooks of one place, in the order of registration; an object, so that the tape does not search it for arrays."""

    __slots__ = ("functions",)

    def __init__(self) -> None:
        self.functions: list[Callable[..., Any]] = []

    def add(self, function: Callable[..., Any]) -> HookHandle:
        if not callable(function):
            raise TypeError(f"a hook must be a function, got {function!r}")
        self.functions.append(function)
        return HookHandle(self, function)


class HookHandle:
    """What a registration returns: :meth:`remove` takes the hook away again. Works as a context manager too."""

    __slots__ = ("_function", "_hooks")

    def __init__(self, hooks: Hooks, function: Callable[..., Any]) -> None:
        self._hooks: Hooks | None = hooks
        self._function = function

    def remove(self) -> None:
        """Take the hook away; a second call does nothing."""
        if self._hooks is not None:
            self._hooks.functions.remove(self._function)
            self._hooks = None

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def register_hook(self: Tensor, hook: Callable[[Array], Array | None]) -> HookHandle:
    """Call ``hook(gradient)`` in the backward pass with the gradient of this tensor, all its uses added up.

    What the hook returns takes the gradient's place; None leaves it. It must not write into what it is given.

    Returns:
        a handle whose ``remove()`` takes the hook away.
    Raises:
        ValueError: the tensor is a leaf, whose gradient stands in ``.grad`` after backward, or has no gradient.
        RuntimeError: the backward pass has already run.
    """
    return _register("register_hook", self, hook)


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this computed tensor: the last backward leaves it in ``.grad``, as a leaf has its own.

    Raises:
        ValueError: the tensor has no gradient. RuntimeError: the backward pass has already run.
    """
    if self.is_leaf and self.requires_grad:
        return  # it keeps its gradient anyway
    kept = weakref.ref(self)  # the tape must not keep the tensor alive that keeps the tape alive

    def keep(dy: Array) -> None:
        if (tensor := kept()) is not None:
            tensor.grad = dy.copy()

    _register("retain_grad", self, keep)


def _register(caller: str, tensor: Tensor, hook: Callable[[Array], Array | None]) -> HookHandle:
    edge = tensor._edge
    output = 0
    if type(edge) is tuple:
        edge, output = edge
    if type(edge) is not Node:
        kind = "is a leaf: read or change its .grad after backward" if tensor.requires_grad else "has no gradient"
        raise ValueError(f"{caller}: the tensor must be the result of a recorded operation; this one {kind}")
    run = edge.backward
    if run is None:
        raise RuntimeError(f"{caller}: the backward pass of this tensor has already run")
    if type(run) is partial and run.func is _hooked and run.args[1] == output:
        return run.args[0].add(hook)
    hooks = Hooks()
    handle = hooks.add(hook)
    edge.backward = partial(_hooked, hooks, output, run, edge.edges, edge.saved)
    edge.saved = None
    return handle


def _hooked(hooks: Hooks, output: int, run: Any, edges: tuple[Any, ...], saved: Any, *dys: Any) -> Any:
    """The backward function of an operation, its gradient number ``output`` shown to the hooks first."""
    dy = dys[output]
    for function in tuple(hooks.functions) if dy is not None else ():
        changed = function(dy)
        if changed is not None:
            dy = like(changed, dy)
    dys = (*dys[:output], dy, *dys[output + 1 :])
    if saved is not None or type(run) is tuple:
        rest = (None,) if saved is None else saved
        pairs = zip(edges, run, strict=False)  # an operation may leave out the last gradients
        found = [None if to is None or g is None else g(dy, *rest) for to, g in pairs]
    else:
        found = run(*dys)
    return tuple(g.copy() if g is dy else g for g in found)  # the tape knows its own dy only


def like(changed: Any, dy: Array) -> Array:
    """What a hook returned as an array, checked to be like the gradient that it got."""
    array = changed.data if isinstance(changed, Tensor) else changed
    if type(array) is not type(dy) or array.shape != dy.shape or array.dtype != dy.dtype:
        raise ValueError(
            f"a hook must return None or a gradient like the one it got, {dy.dtype} of {dy.shape}, "
            f"got {getattr(array, 'dtype', type(array).__name__)} of {getattr(array, 'shape', None)}"
        )
    return array
