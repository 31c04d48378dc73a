"""Time to read 97.5 % of held-out digits right: training from nothing, with the check after each pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Run

WANTED, PASSES = 0.975, 60


def numbers(rng: Any) -> tuple[Any, ...]:
    """Images and classes to learn from, and those held out: every fifth."""
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    held_out = np.arange(len(images)) % 5 == 0
    x = (images / 16).astype(np.float32)
    return x[~held_out], classes[~held_out], x[held_out], classes[held_out]


def lamella(x: Any, y: Any, x_test: Any, y_test: Any) -> Run:
    import lamella
    from lamella.backend import backend_of

    device = backend_of(x).device_of(x)
    data, labels = lamella.Tensor(x), lamella.Tensor(y)
    held_out, expected = lamella.Tensor(x_test), lamella.Tensor(y_test)

    def run() -> tuple[Any, ...]:
        rng = lamella.Generator(0)
        model = lamella.models.mlp(64, 128, 10, rng=rng).to(device)
        optimizer = lamella.training.Adam(model.parameters(), lr=3e-3)
        accuracy = 0.0
        for _ in range(PASSES):
            for inputs, targets in lamella.training.batches(data, labels, batch_size=64, rng=rng):
                optimizer.zero_grad()
                lamella.layers.cross_entropy(model(inputs), targets).backward()
                optimizer.step()
            with lamella.no_grad():
                accuracy = lamella.training.accuracy(model(held_out), expected)
            if accuracy >= WANTED:
                break
        return (np.asarray(accuracy),)

    return run


def torch_contender(torch: Any, wrap: Callable[..., Any], x: Any, y: Any, x_test: Any, y_test: Any) -> Run:
    def run() -> tuple[Any, ...]:
        torch.manual_seed(0)
        nn = torch.nn
        model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).to(x.device)
        forward = wrap(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        accuracy = 0.0
        for _ in range(PASSES):
            order = torch.randperm(len(x), device=x.device)
            for part in order.split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(forward(x[part]), y[part]).backward()
                optimizer.step()
            with torch.no_grad():
                accuracy = (forward(x_test).argmax(1) == y_test).float().mean().item()
            if accuracy >= WANTED:
                break
        return (torch.tensor(accuracy),)

    return run


def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    """By how much the accuracy is short of what is wanted."""
    return max(0.0, WANTED - float(results[0]))


CASES = [
    Case(
        name="digits to 97.5 %",
        suite="models",
        numbers=numbers,
        contenders={"lamella": lamella, "torch": torch_contender},
        error=error,
        values=0,
        bound=0.0,
        packages=("sklearn",),
    ),
]


def bench_digits(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
