"""Which modules run as one: on CUDA a linear layer takes the activation and the dropout that follow it along.

``Sequential`` asks here; nothing changes but the number of launches. A module with hooks, or of a class with a forward
of its own, is always called by itself.
"""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..kernels.activation import Activation, has_activation_kernel
from .dropout import Dropout
from .linear import Linear
from .module import Module


def form_of(module: Any) -> Activation | None:
    """What an activation module computes, as kernels know it; None where its class says nothing of it."""
    if not isinstance(module, Module) or module._hooks is not None or "forward" in vars(module):
        return None
    kind = next((kind for kind in type(module).__mro__ if "forward" in vars(kind)), Module)
    return module.fused_form() if "fused_form" in vars(kind) else None  # type: ignore[attr-defined]


def can_fuse(x: Any) -> bool:
    """Whether anything is gained for this input."""
    return isinstance(x, Tensor) and has_activation_kernel(x.data)


def run_from(modules: tuple[Any, ...], i: int, x: Any) -> tuple[Any, int]:
    """Run module ``i``, with those after it that it takes along: the result, and the number of the next module."""
    module = modules[i]
    if type(module) is not Linear or module._hooks is not None or "forward" in vars(module):
        return module(x), i + 1
    after = i + 1
    form = form_of(modules[after]) if after < len(modules) else None
    after += form is not None
    drop = modules[after] if after < len(modules) else None
    if type(drop) is not Dropout or drop._hooks is not None or "forward" in vars(drop):
        drop = None
    after += drop is not None
    if after == i + 1:
        return module(x), after
    return module.run_with(x, form, drop), after
