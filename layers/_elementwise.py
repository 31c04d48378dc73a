"""What the elementwise activations share: on CUDA one kernel each way; else function and slope computed together."""

from __future__ import annotations

from typing import Any

from ..autograd import is_recording
from ..autograd.tensor import is_floating
from ..backend import Array
from ..kernels.activation import Activation, activation_backward, activation_forward, has_activation_kernel
from ..kernels.elementwise import elementwise


def activation(name: str, x: Array, form: Activation) -> tuple[Array, Any]:
    """``y = f(x)`` and ``backward(dy) = dy * f'(x)``, as an operation of the tape returns them.

    On CUDA the slope is computed in the backward kernel, from x, or from y where that is exact. Elsewhere the slope
    f'(x) is saved instead of x, since most of its parts are at hand while f(x) is computed. It is neither computed nor
    saved where nothing is recorded.

    Args:
        name: the function's, for the error message.
        x: floating point.
        form: f, its definition and its kernel.
    Raises:
        TypeError: ``x`` is not floating point.
    """
    check_floating(name, x)
    if has_activation_kernel(x):
        return by_kernel(x, form)
    if is_recording():
        y, slope = elementwise(form.fill, x, results=2, scratch=1)
        return y, lambda dy: elementwise(_product, dy, slope, quiet=False)
    (y,) = elementwise(lambda xp, x, y, t: form.fill(xp, x, y, None, t), x, scratch=1)
    return y, None


def by_kernel(x: Array, form: Activation) -> tuple[Array, Any]:
    """The same on CUDA: one launch forward, one backward."""
    y = activation_forward(x, form)
    if form.by_output:
        return y, lambda dy: (activation_backward(dy, y, form, from_output=True),)
    return y, lambda dy: (activation_backward(dy, x, form),)


_forms: dict[Any, Activation] = {}


def register_form(function: Any, form: Activation) -> None:
    """Let what takes an activation as a function, such as a Transformer, know its kernel."""
    _forms[function] = form


def form_of_function(function: Any) -> Activation | None:
    """What :func:`register_form` was told."""
    return _forms.get(function)


def check_floating(name: str, x: Array) -> None:
    if not is_floating(x.dtype):
        raise TypeError(f"{name}: x must be floating point, got {x.dtype}")


def _product(xp: Any, dy: Array, slope: Array, dx: Array) -> None:
    xp.multiply(dy, slope, out=dx)
