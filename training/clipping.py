"""Limits on gradients before a step: on the length of all of them together, or on each number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..autograd import Parameter, Tensor, tensor
from ..backend import Array, backend_of
from ..kernels.gradient_norm import clip_record, scale_by
from .optimizer import Optimizer, check_limit


def clip_grad_norm(parameters: Iterable[Parameter] | Optimizer, max_norm: float) -> Tensor:
    """Shorten all gradients by one factor so that their norm is at most ``max_norm``: g ← g · min(1, max/(‖g‖ + 1e-6)).

    ‖g‖ is the Euclidean norm over all gradients together (PyTorch), not over those of each parameter. Nothing waits
    for the device, except where gradients lie on several. float16 and bfloat16 are summed in float32.

    A NaN norm makes every gradient NaN, and an infinite one makes them 0, or NaN where they are infinite, as in
    PyTorch: so an error shows in the next loss, and does not train on unseen.

    Args:
        parameters: an optimizer, whose gradients lie together, so that this takes a few operations; or Parameters.
            One without a gradient counts for nothing.
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
    record = clip_record(gradients, max_norm)
    for g in gradients:
        scale_by(g, record)
    return Tensor(record[:1].reshape(()))


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
