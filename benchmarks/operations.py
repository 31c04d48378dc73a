"""Single operations forward, and forward with backward, in lamella and in PyTorch, on the same numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Step = Callable[[], float]  # runs once and returns a number that both libraries must agree on


@dataclass(frozen=True)
class Operation:
    """Which operation, on which shape, and whether its gradient is computed too."""

    name: str
    shape: tuple[int, int]
    backward: bool


OPERATIONS = {
    f"{name}-{kind}": Operation(name, shape, kind == "fb")
    for name, shape in {
        "softmax": (4096, 1000),
        "layer_norm": (4096, 1024),
        "gelu": (4096, 4096),
        "relu": (4096, 4096),
        "cross_entropy": (4096, 1000),
    }.items()
    for kind in ("f", "fb")
}


def numbers(work: Operation) -> tuple[Any, Any, Any]:
    """Input, output gradient and labels, the same for every library."""
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(work.shape, dtype=np.float32) for _ in range(2))
    return x, dy, rng.integers(0, work.shape[1], work.shape[0])


def lamella_operation(work: Operation) -> Step:
    """The operation through lamella's public functions and modules, on the CPU."""
    import lamella
    import lamella.layers as L

    data, gradient, labels = numbers(work)
    norm = L.LayerNorm(work.shape[1])
    function: Callable[[Any], Any] = {
        "softmax": L.softmax,
        "layer_norm": norm,
        "gelu": L.gelu,
        "relu": L.relu,
        "cross_entropy": lambda x: L.cross_entropy(x, labels),
    }[work.name]
    x = lamella.tensor(data, requires_grad=work.backward)
    dy = None if work.name == "cross_entropy" else lamella.tensor(gradient)

    def step() -> float:
        if not work.backward:
            with lamella.no_grad():
                return float(function(x).data.reshape(-1)[0])
        x.grad = None
        norm.zero_grad()
        function(x).backward(dy)
        return float(x.grad[0, 0])

    return step


def torch_operation(work: Operation) -> Step:
    """The operation in PyTorch on the CPU."""
    import torch
    from torch.nn import functional

    data, gradient, labels = numbers(work)
    norm = torch.nn.LayerNorm(work.shape[1])
    targets = torch.from_numpy(labels)
    function: Callable[[Any], Any] = {
        "softmax": lambda x: torch.softmax(x, -1),
        "layer_norm": norm,
        "gelu": functional.gelu,
        "relu": functional.relu,
        "cross_entropy": lambda x: functional.cross_entropy(x, targets),
    }[work.name]
    x = torch.from_numpy(data).requires_grad_(work.backward)
    dy = None if work.name == "cross_entropy" else torch.from_numpy(gradient)

    def step() -> float:
        if not work.backward:
            with torch.no_grad():
                return float(function(x).reshape(-1)[0])
        x.grad = None
        norm.zero_grad(set_to_none=True)
        function(x).backward(dy)
        return float(x.grad[0, 0])

    return step
