"""How many launches a training step costs on CUDA: exact numbers, so that a needless one shows where it is added.

A launch is one of our kernels, an array operation of the array library (one of its kernels at least), a matrix product,
or a copy from the host. A failure prints where each came from. Whoever makes a step cheaper lowers the number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella import models, training


def count(make: Callable[[], Callable[[], Any]]) -> tuple[int, int, str]:
    """Launches and waits of a step that has run before, and a table of what they were."""
    with lamella.testing.simulator() as sim:
        step = make()
        for _ in range(2):  # the first makes tables and flat arrays
            sim.reset()
            step()
        table = "\n".join(f"{number:4} {what:28} {where}" for number, (what, where) in enumerate(sim.log, start=1))
        assert len(sim.log) == sum(sim.launches.values()) + sum(sim.operations.values())
        return len(sim.log), sim.synchronizations, table


def training_step(model: Any, loss_of: Callable[[Any], Any], **options: Any) -> Callable[[], None]:
    optimizer = training.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(**options)

    return step


def tensor(values: Any) -> Any:
    return lamella.tensor(values, device="simulator")


def mlp_step(**options: Any) -> Callable[[], None]:
    """The reference network, 784-512-256-10, with cross entropy and AdamW."""
    model = models.mlp(784, 512, 256, 10, rng=lamella.Generator(0)).to("simulator")
    x, labels = tensor(np.ones((4, 784), np.float32)), tensor(np.arange(4))
    return training_step(model, lambda model: L.cross_entropy(model(x), labels), **options)


def test_a_step_of_the_reference_network() -> None:
    # 8 products; bias and ReLU in one launch twice, and back; a bias alone; three sums for biases; 3 launches for the
    # loss and its gradient; a 1 to begin with; the step's numbers (2); one update
    launches, waits, table = count(mlp_step)
    assert waits == 0
    assert launches == 8 + 4 + 1 + 3 + 3 + 1 + 2 + 1, table


def test_clipping_costs_two_launches() -> None:
    launches, waits, table = count(lambda: mlp_step(max_norm=1.0))
    assert waits == 0
    assert launches == 25, table


def test_a_step_through_fit_waits_once_an_epoch_at_most() -> None:
    with lamella.testing.simulator() as sim:
        model = models.mlp(6, 8, 3, rng=lamella.Generator(0)).to("simulator")
        data = np.ones((12, 6), np.float32), np.arange(12) % 3
        optimizer = training.AdamW(model.parameters())
        options: Any = {"loss": L.cross_entropy, "optimizer": optimizer, "batch_size": 4, "clip_norm": 1.0}
        waits = []
        for epochs in (1, 2):
            sim.reset()
            training.fit(model, data, epochs=epochs, progress=False, **options)
            waits.append(sim.synchronizations)
        assert waits[1] - waits[0] <= 2, "losses are read late, together; faults are read with them"


def test_the_log_says_where_a_launch_came_from() -> None:
    _, _, table = count(mlp_step)
    assert "layers/linear.py" in table
    assert "adam_step" in table
    assert "kernels/optimizer_step.py adam_step" in table


def block_step() -> Callable[[], None]:
    """A Transformer block, 16 wide with 2 heads, dropout everywhere; the loss is the sum of what comes out."""
    block = L.TransformerEncoderLayer(16, 2, 32, 0.1, "gelu", batch_first=True, rng=lamella.Generator(0))
    x = tensor(np.random.default_rng(0).standard_normal((2, 5, 16), np.float32))
    return training_step(block.to("simulator"), lambda block: block(x).sum(), max_norm=1.0)


def test_a_step_of_a_transformer_block() -> None:
    # 11 products; 4 kernels for attention; the others one each way: the two halves of the
    # feed-forward network, two norms (two launches back); sums for biases; clipping and the update
    launches, waits, table = count(block_step)
    assert waits == 0
    assert launches == 44, table


def test_a_null_pointer_is_a_number_not_none() -> None:
    code = 'extern "C" __global__ void mark(float* x, const float* y) { x[0] = y ? 1.f : 2.f; }'
    with lamella.testing.simulator() as sim:
        x = sim.from_numpy(np.zeros(1, np.float32))
        kernel = sim.compile(code, ()).get_function("mark")
        kernel((1,), (1,), (x, np.uint64(0)))
        assert float(x[0]) == 2.0
        with pytest.raises(lamella.testing.KernelError, match=r"argument 1 \(y\) is None, of which CuPy makes"):
            kernel((1,), (1,), (x, None))
