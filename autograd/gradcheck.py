"""The judge of every derivative: backward against central differences in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..backend import Generator, backend_of
from .tape import enable_grad, no_grad
from .tensor import Tensor, is_floating, tensor


def gradcheck(
    function: Callable[..., Any],
    *inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-7,
    max_elements: int = 400,
) -> bool:
    """Compare ``backward`` with central differences ``(f(x + eps) - f(x - eps)) / (2 eps)``, in float64.

    A result of several elements (or several tensors) is first multiplied by fixed random weights and summed.

    Args:
        function: takes tensors and returns a tensor or a tuple of tensors; the same result at each call.
        inputs: its positional arguments; floating arrays and tensors are differentiated by, at float64.
        eps: the step. rtol, atol: allowed relative and absolute difference.
        max_elements: of a larger input so many elements are tried, spread evenly.
    Returns:
        True.
    Raises:
        AssertionError: a gradient is wrong, missing or NaN; names the input, the element and both values.
    """
    args: list[Any] = []
    checked: list[int] = []
    for i, x in enumerate(inputs):
        data = x.data if isinstance(x, Tensor) else x
        if hasattr(data, "dtype") and is_floating(data.dtype):
            args.append(tensor(data, dtype="float64", requires_grad=True))
            checked.append(i)
        else:
            args.append(x)
    if not checked:
        raise TypeError("gradcheck: at least one input must be a floating array or tensor")

    weights: list[Any] = []

    def value(backward: bool) -> float:
        results = function(*args)
        results = results if isinstance(results, tuple) else (results,)
        total = 0.0
        for k, y in enumerate(results):
            if len(weights) <= k:
                backend = backend_of(y.data)
                w = Generator(k).uniform(y.shape, -1.0, 1.0).astype("float64")
                weights.append(backend.from_numpy(w, y.device))
            if backward and y.requires_grad:
                y.backward(weights[k].astype(y.dtype), retain_graph=k + 1 < len(results))
            total += float((y.data * weights[k]).sum())
        return total

    with enable_grad():
        value(True)
    for i in checked:
        leaf = args[i]
        backend = backend_of(leaf.data)
        found = backend.to_numpy(backend.xp.zeros_like(leaf.data) if leaf.grad is None else leaf.grad).reshape(-1)
        values = backend.to_numpy(leaf.data).copy()
        flat = values.reshape(-1)
        for j in range(0, flat.size, max(1, -(-flat.size // max_elements))):
            before = flat[j]
            sides = []
            for step in (eps, -eps):
                flat[j] = before + step
                args[i] = tensor(values, device=leaf.device)
                with no_grad():
                    sides.append(value(False))
            flat[j] = before
            expected = (sides[0] - sides[1]) / (2 * eps)
            if not abs(float(found[j]) - expected) <= atol + rtol * abs(expected):  # NaN fails
                raise AssertionError(
                    f"gradcheck: input {i}, element {j} of shape {leaf.shape}: "
                    f"backward gives {float(found[j])}, central differences give {expected}"
                )
        args[i] = leaf
    return True
