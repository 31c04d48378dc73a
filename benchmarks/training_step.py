"""One training step of a multilayer perceptron, in lamella and in PyTorch: the same work on the same numbers.

A step is forward, loss, backward and Adam, through public classes. Both sides start from the same weights, so their
losses must agree: that is checked before a time is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Step = Callable[[], float]  # runs one training step and returns its loss


@dataclass(frozen=True)
class Workload:
    """Widths of the layers, rows in the batch, Adam's learning rate, and whether the last layer's output is logits."""

    features: tuple[int, ...]
    batch: int
    lr: float
    classes: bool


WORKLOADS = {
    "mlp-small": Workload((9, 16, 8, 1), 32, 1e-3, classes=False),
    "mlp-digits": Workload((784, 512, 256, 10), 128, 1e-4, classes=True),
}


def numbers(work: Workload) -> tuple[Any, Any, list[Any]]:
    """Inputs, targets (or labels) and weights ``(out, in)``, the same for every library."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((work.batch, work.features[0]), dtype=np.float32)
    if work.classes:
        y = rng.integers(0, work.features[-1], work.batch)
    else:
        y = rng.standard_normal((work.batch, work.features[-1]), dtype=np.float32)
    weights = [
        rng.standard_normal((after, before), dtype=np.float32) / np.float32(np.sqrt(before))
        for before, after in zip(work.features, work.features[1:], strict=False)
    ]
    return x, y, weights


def lamella_step(work: Workload) -> Step:
    """The step in lamella on the CPU."""
    import lamella
    from lamella import layers, models, training

    inputs, targets, weights = numbers(work)
    model = models.mlp(*work.features)
    state = {f"{2 * i}.weight": w for i, w in enumerate(weights)}
    state |= {f"{2 * i}.bias": np.zeros(len(w), np.float32) for i, w in enumerate(weights)}
    model.load_state_dict(state)
    optimizer = training.Adam(model.parameters(), lr=work.lr)
    x, y = lamella.tensor(inputs), lamella.tensor(targets)
    loss_of = layers.cross_entropy if work.classes else layers.mse_loss

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_step(work: Workload, fused: bool = False) -> Step:
    """The step in PyTorch on the CPU, with Adam's default or its fused form."""
    import torch
    from torch import nn

    inputs, targets, weights = numbers(work)
    layers: list[Any] = []
    for w in weights:
        linear = nn.Linear(w.shape[1], w.shape[0])
        linear.weight.data = torch.from_numpy(w.copy())
        linear.bias.data.zero_()
        layers += [linear, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=work.lr, fused=fused or None)
    x, y = torch.from_numpy(inputs), torch.from_numpy(targets)
    loss_of = nn.functional.cross_entropy if work.classes else nn.functional.mse_loss

    def step() -> float:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


STEPS: dict[str, Callable[[Workload], Step]] = {
    "lamella": lamella_step,
    "torch": torch_step,
    "torch-fused": lambda work: torch_step(work, fused=True),
}
