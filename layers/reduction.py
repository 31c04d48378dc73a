"""What all losses share: checked pairs of arrays, the weights, and the mean, the sum, or every loss by itself."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ..autograd import Tensor, is_floating, tensor
from ..backend import Array, Backend
from .module import Buffer, Module

REDUCTIONS = ("mean", "sum", "none")


class Loss(Module):
    """What the modules of losses share: the reduction, and a ``repr`` that lists their options."""

    reductions: tuple[str, ...] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        check_reduction(type(self).__name__, reduction, self.reductions)
        self.reduction = reduction

    def extra_repr(self) -> str:
        options = {name: value for name, value in vars(self).items() if not isinstance(value, Tensor)}
        return ", ".join(f"{name}={value!r}" for name, value in options.items())


def check_reduction(function: str, reduction: str, allowed: tuple[str, ...] = REDUCTIONS) -> None:
    if reduction not in allowed:
        raise ValueError(f"{function}: reduction must be one of {', '.join(map(repr, allowed))}, got {reduction!r}")


def constant(weight: Any) -> Buffer | None:
    """A module's fixed weights: moved and stored with it, never learned."""
    return None if weight is None else Buffer(tensor(weight).data)


def quiet(backend: Backend) -> AbstractContextManager[Any]:
    """NumPy warns of infinities; within this, where they are meant, it does not."""
    return nullcontext() if backend.runs_cuda else backend.xp.errstate(all="ignore")


def widened(x: Array) -> Array:
    """float16 and bfloat16 as float32, the rest as it is: losses are computed in float32 or better."""
    return x.astype("float32") if x.dtype.itemsize == 2 else x


def narrowed(backend: Backend, x: Array, dtype: Any) -> Array:
    """A result in the dtype that was asked for; what float16 cannot hold becomes infinite."""
    if x.dtype == dtype:
        return x
    with quiet(backend):
        return x.astype(dtype)


def check_floating(function: str, name: str, x: Array) -> None:
    if not is_floating(x.dtype):
        raise TypeError(f"{function}: {name} must be floating, got {x.dtype}")


def matched(function: str, x: Array, other: Array, names: str = "prediction, targets") -> tuple[Array, Array]:
    """Two arrays of one shape and one floating dtype, ready to compute with; integers are taken as numbers.

    Raises:
        ValueError: the shapes differ: nothing is broadcast. TypeError: the dtypes differ.
    """
    first, second = names.split(", ")
    if x.shape != other.shape:
        raise ValueError(f"{function}: {first} and {second} must have one shape, got {x.shape} and {other.shape}")
    check_floating(function, first, x)
    if other.dtype != x.dtype:
        if other.dtype.kind not in "biu":
            raise TypeError(f"{function}: {first} and {second} must have one dtype, got {x.dtype} and {other.dtype}")
        other = other.astype(x.dtype)
    return widened(x), widened(other)


def reduce_losses(
    function: str,
    backend: Backend,
    losses: Array,
    reduction: str,
    dtype: Any,
    slopes: tuple[Callable[[], Array] | None, ...],
    *,
    weight: Array | None = None,
    count: Any = None,
) -> tuple[Array, Any]:
    """What an operation returns that has a loss for each element: the reduced losses, and the gradients.

    Args:
        function: the caller, for messages.
        backend: of the losses.
        losses: one for each element, float32 or float64.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        dtype: of the result and of the gradients.
        slopes: for each argument a function that gives d loss / d argument, elementwise, or None.
        weight: multiplies the losses; a shape that broadcasts to theirs.
        count: what the mean divides by; the number of losses by default.
    """
    if weight is not None:
        losses = losses * weight
    divisor: Any = None
    if reduction == "mean":
        if losses.size == 0:
            raise ValueError(f"{function}: the mean of no losses is undefined, got shape {losses.shape}")
        divisor = losses.size if count is None else count
    y = losses if reduction == "none" else losses.sum() if divisor is None else losses.sum() / divisor

    def gradient(slope: Callable[[], Array]) -> Callable[[Array, Any], Array]:
        def apply(dy: Array, out: Any) -> Array:
            with quiet(backend):
                factor = widened(dy) if divisor is None else widened(dy) / divisor
                g = slope() * (factor if weight is None else factor * weight)
            return narrowed(backend, g, dtype)

        return apply

    return narrowed(backend, y, dtype), tuple(slope and gradient(slope) for slope in slopes)


def check_weight(function: str, weight: Array | None, x: Array, name: str = "weight", broadcast: bool = True) -> Any:
    """Weights that fit the losses of ``x``, ready to compute with: of its shape, or (``broadcast``) stretched to it."""
    if weight is None:
        return None
    fits = weight.shape == x.shape
    if broadcast and not fits:
        ends = zip(reversed(weight.shape), reversed(x.shape), strict=False)
        fits = weight.ndim <= x.ndim and all(a in (1, b) for a, b in ends)
    if not fits:
        rule = "a shape that broadcasts to" if broadcast else "the shape"
        raise ValueError(f"{function}: {name} must have {rule} {x.shape}, got {weight.shape}")
    if weight.dtype != x.dtype:
        raise TypeError(f"{function}: {name} must have dtype {x.dtype}, got {weight.dtype}")
    return widened(weight)
