"""Which modules run as one: a batch normalisation takes a ReLU along, on CUDA a linear layer activation and dropout.

``Sequential`` asks here; nothing changes but the number of passes over memory. A module with hooks, or of a class with
a forward of its own, is always called by itself.
"""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, add
from ..kernels.activation import Activation, has_activation_kernel
from ._elementwise import form_of_function
from .batch_norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .relu import ReLU

_BATCH_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def form_of(module: Any) -> Activation | None:
    """What an activation computes, as kernels know it; None for a function or class that says nothing of it."""
    if not isinstance(module, Module):
        return form_of_function(module)
    if not is_plain(module):
        return None
    kind = next((kind for kind in type(module).__mro__ if "forward" in vars(kind)), Module)
    return module.fused_form() if "fused_form" in vars(kind) else None  # type: ignore[attr-defined]


def can_fuse(x: Any) -> bool:
    """Whether anything is gained for this input."""
    return isinstance(x, Tensor) and has_activation_kernel(x.data)


def has_batch_norm(modules: tuple[Any, ...]) -> bool:
    """Whether something is gained on every device."""
    return any(type(module) in _BATCH_NORMS for module in modules)


def run_from(modules: tuple[Any, ...], i: int, x: Any) -> tuple[Any, int]:
    """Run module ``i``, with those after it that it takes along: the result, and the number of the next module."""
    module, after = modules[i], i + 1
    if type(module) in _BATCH_NORMS and is_plain(module) and after < len(modules):
        follower = modules[after]
        if type(follower) is ReLU and is_plain(follower):
            return module(x, relu=True), after + 1
    if type(module) is not Linear or not is_plain(module) or not can_fuse(x):
        return module(x), after
    form = form_of(modules[after]) if after < len(modules) else None
    after += form is not None
    drop = modules[after] if after < len(modules) else None
    if type(drop) is not Dropout or not is_plain(drop):
        drop = None
    after += drop is not None
    if after == i + 1:
        return module(x), after
    return module.run_with(x, form, drop, None), after


def run_linear(linear: Any, x: Any, *, activation: Any = None, dropout: Any = None, residual: Any = None) -> Any:
    """``residual + dropout(activation(linear(x)))``, together where nothing stands against it.

    Args:
        linear, dropout: modules; activation: a module or a function. The last two may be None.
        residual: a tensor of the shape of the result, or None.
    """
    form = None if activation is None else form_of(activation)
    parts: list[tuple[Any, type]] = [(linear, Linear)] if dropout is None else [(linear, Linear), (dropout, Dropout)]
    together = all(type(module) is kind and is_plain(module) for module, kind in parts)
    if together and can_fuse(x) and (activation is None or form is not None):
        return linear.run_with(x, form, dropout, residual)
    y = linear(x)
    y = y if activation is None else activation(y)
    y = y if dropout is None else dropout(y)
    return y if residual is None else add(residual, y)


def is_plain(module: Any) -> bool:
    """Whether a module does what its class says: no hooks, no forward of the one object."""
    return isinstance(module, Module) and module._hooks is None and "forward" not in vars(module)
