"""Limits on gradients before a step: on the length of all of them together, or on each number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ..autograd import Parameter, Tensor, tensor
from ..backend import Array, backend_of
from ..layers.real import real
from .optimizer import Optimizer


def clip_grad_norm(parameters: Iterable[Parameter] | Optimizer, max_norm: float) -> Tensor:
    """Shorten all gradients by one factor so that their norm is at most ``max_norm``: g ← g · min(1, max/(‖g‖ + 1e-6)).

    ‖g‖ is the Euclidean norm over all gradients together (PyTorch), not over those of each parameter. Nothing waits
    for the device, except where gradients lie on several. float16 and bfloat16 are summed in float32.

    A NaN norm makes every gradient NaN, and an infinite one makes them 0, or NaN where they are infinite, as in
    PyTorch: so an error shows in the next loss, and does not train on unseen.

    Args:
        parameters: an optimizer, whose gradients lie together, so that this takes a few array operations; or
            Parameters. One without a gradient counts for nothing.
        max_norm: the greatest norm, > 0.
    Returns:
        the norm before, a 0-d tensor on the (first) device.
    Raises:
        ValueError: ``max_norm`` is not above 0, or there are no parameters.
    Source: Pascanu, Mikolov and Bengio 2012, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    check_limit("clip_grad_norm", "max_norm", max_norm)
    gradients = _gradients("clip_grad_norm", parameters)
    if not gradients:
        return tensor(0.0)
    norm = norm_of(gradients)
    backend = backend_of(norm)
    factor = backend.asarray(backend.xp.minimum(max_norm / (norm + 1e-6), 1.0), norm)
    for g in gradients:
        scale_in_place(g, beside(factor, g))
    return Tensor(norm)


def clip_grad_value(parameters: Iterable[Parameter] | Optimizer, max_value: float) -> None:
    """Put every number of every gradient into [−max_value, max_value], in place; NaN stays NaN.

    This changes the gradient's direction; :func:`clip_grad_norm` does not.

    Args:
        parameters: as for :func:`clip_grad_norm`.
        max_value: the greatest magnitude, > 0.
    """
    check_limit("clip_grad_value", "max_value", max_value)
    for g in _gradients("clip_grad_value", parameters):
        g[...] = backend_of(g).xp.clip(g, -max_value, max_value)


def norm_of(gradients: list[Array]) -> Array:
    """The Euclidean norm of all arrays together as a 0-d array, float32 or float64, where the first of them lies."""
    first = gradients[0]
    backend = backend_of(first)
    total: Any = None
    for g in gradients:
        own = backend_of(g)
        row = (g.astype("float32") if g.dtype.itemsize == 2 else g).reshape(1, -1)
        square = beside(own.gemm(row, row.T).reshape(()), first)
        total = square if total is None else total + square
    return backend.asarray(backend.xp.sqrt(total), first)


def beside(number: Array, array: Array) -> Array:
    """A 0-d array where ``array`` lies; waits only if it has to be moved."""
    backend, own = backend_of(number), backend_of(array)
    place = own.device_of(array)
    return number if backend.device_of(number) == place else own.from_numpy(backend.to_numpy(number), place)


def scale_in_place(g: Array, factor: Array) -> None:
    """``g *= factor`` with a 0-d factor of the same or of a longer dtype."""
    if g.dtype.itemsize == 2:
        g[...] = g.astype("float32") * factor
    else:
        backend_of(g).xp.multiply(g, factor, out=g, casting="same_kind")


def _gradients(caller: str, parameters: Iterable[Parameter] | Optimizer) -> list[Array]:
    if isinstance(parameters, Optimizer):
        return list(parameters.gradients())
    if isinstance(parameters, Tensor):
        raise TypeError(f"{caller}: parameters must be an iterable of Parameters or an optimizer, got one: write [it]")
    if isinstance(parameters, (str, Mapping)) or not hasattr(parameters, "__iter__"):
        hint = "; pass model.parameters()" if hasattr(parameters, "parameters") else ""
        raise TypeError(
            f"{caller}: parameters must be an iterable of Parameters or an optimizer, "
            f"got {type(parameters).__name__}{hint}"
        )
    found = []
    for i, parameter in enumerate(parameters):
        if not isinstance(parameter, Tensor):
            raise TypeError(f"{caller}: parameters[{i}] must be a Parameter, got {type(parameter).__name__}")
        if parameter.grad is not None:
            found.append(parameter.grad)
    return found


def check_limit(caller: str, name: str, value: float) -> None:
    """Raise unless this is a number above 0."""
    if not 0.0 < real(caller, name, value) <= math.inf:
        raise ValueError(f"{caller}: {name} must be above 0, got {value!r}")
