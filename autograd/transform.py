"""Functions of functions: gradients, and recomputation that trades time for memory."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from ..backend import Array, backend_of, remember_draws, repeat_draws
from .tape import enable_grad, no_grad, op
from .tensor import LEAF, Tensor, tensor, wrap


class _Inside(threading.local):
    grad = 0  # how many functions are being differentiated by grad


_inside = _Inside()


def grad(function: Callable[..., Any], argument: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The gradient of a scalar function: ``grad(f)(x)`` is df/dx, a tensor of x's shape.

    Args:
        function: takes tensors, arrays or numbers and returns a tensor of one element.
        argument: the position, or positions, of what to differentiate by; a tuple gives a tuple.
    Returns:
        a function of the same arguments. Parameters that ``function`` uses besides them get their gradients added to
        ``.grad``, as ``backward`` does.
    Raises:
        ValueError: the function's result has more than one element.
        NotImplementedError: the gradient of a gradient was asked for; the walk back is not recorded.
    """
    positions = argument if isinstance(argument, tuple) else (argument,)

    @functools.wraps(function)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        args_ = list(args)
        for i in positions:
            if _inside.grad and isinstance(args_[i], Tensor) and args_[i].requires_grad:
                raise NotImplementedError("grad: no gradient of a gradient: what grad returns is a constant")
            leaf = tensor(args_[i])
            leaf.requires_grad = True
            args_[i] = leaf
        _inside.grad += 1
        try:
            with enable_grad():
                y = function(*args_, **kwargs)
        finally:
            _inside.grad -= 1
        if not isinstance(y, Tensor):
            raise TypeError(f"grad: the function must return a tensor, got {type(y).__name__}")
        if y.size != 1:
            raise ValueError(f"grad: the function must return one element, got shape {y.shape}")
        if y._edge is not None:
            y.backward()
        result = tuple(
            wrap(backend_of(leaf.data).xp.zeros_like(leaf.data) if leaf.grad is None else leaf.grad, None)
            for leaf in (args_[i] for i in positions)
        )
        return result if isinstance(argument, tuple) else result[0]

    return gradient


def checkpoint(function: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """``function(*inputs)`` without keeping what its backward needs: it is computed again during backward.

    The function must give the same result when called again; what it draws from generators is given to it again, so
    dropout drops the same values. It may use parameters: their gradients arrive as usual.

    Args:
        function: takes tensors and returns one tensor.
        inputs: its positional arguments.
    """
    given = tuple(x if isinstance(x, Tensor) else None for x in inputs)
    first = next((t for t in given if t is not None), None)
    if first is None:
        raise TypeError("checkpoint: at least one input must be a tensor")

    @op
    def checkpointed(_: Array, *arrays: Array) -> Any:
        def call(wants: bool) -> tuple[list[Any], Tensor]:
            leaves = [
                x if t is None else wrap(x, LEAF if wants and t.requires_grad else None)
                for x, t in zip(arrays, given, strict=True)
            ]
            result = function(*leaves)
            if not isinstance(result, Tensor):
                raise TypeError(f"checkpoint: the function must return one tensor, got {type(result).__name__}")
            return leaves, result

        with no_grad(), remember_draws() as draws:
            y = call(False)[1]

        def backward(dy: Array) -> Any:
            with enable_grad(), repeat_draws(draws):
                leaves, again = call(True)
            if again._edge is not None:
                again.backward(dy)
            return (None, *(leaf.grad if isinstance(leaf, Tensor) else None for leaf in leaves))

        return y.data, backward

    # Parameters inside the function want gradients even where no input does: an empty leaf keeps the node on the tape.
    empty = backend_of(first.data).empty((0,), "float32", first.device)
    return checkpointed(wrap(empty, LEAF), *inputs)
