"""What one training step of the reference models asks of a device: exact integers, the same on every machine.

Launches of our kernels, calls of the array library (each at least one launch on a GPU), allocations and their bytes,
peak memory, bytes copied to and from the host, and waits. They stand in ``tests/counters.json``; a change is a visible
difference there. Where it is meant, write them anew: ``LAMELLA_WRITE_COUNTERS=1 pytest tests/test_counters.py``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella.benchmarks import bench_mlp, bench_transformer
from lamella.benchmarks.case import Case
from lamella.benchmarks.contender import host_numbers, run_of

FILE = Path(__file__).with_name("counters.json")
STEPS = 3  # that are run before the one that is counted: states are there, kernels compiled

MODELS: dict[str, Case] = {
    "MLP 9-16-8-1, batch 32": bench_mlp.case((9, 16, 8, 1), 32, 1e-3, classes=False),
    "MLP 784-512-256-10, batch 128": bench_mlp.case((784, 512, 256, 10), 128, 1e-4, classes=True),
    "GPT of 1 block, width 32, 2 × 16 tokens": bench_transformer.gpt_case(2, 16, 32, 2, 1, 64),
}


def counted(case: Case) -> dict[str, Any]:
    """What the step after the first ones asks for."""
    with lamella.testing.simulator() as simulator, lamella.testing.MemoryWatch() as memory:
        device = lamella.device("simulator")
        step = run_of(case, "lamella", tuple(simulator.from_numpy(a, device) for a in host_numbers(case)), "float32")
        for _ in range(STEPS):
            step()
        simulator.reset()
        memory.restart()
        before = memory.live
        step()
        return {
            "kernel launches": sum(simulator.launches.values()),
            "kernels": dict(sorted(simulator.launches.items())),
            "array operations": sum(simulator.operations.values()),
            "waits": simulator.synchronizations,
            "allocations": memory.allocations,
            "bytes allocated": memory.allocated,
            "peak bytes": memory.peak,
            "bytes kept": memory.live - before,
            "bytes to the host": memory.to_host,
            "bytes from the host": memory.from_host,
        }


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(MODELS)[1:]]


@pytest.mark.parametrize("name", [next(iter(MODELS)), *SLOW])
def test_a_training_step_asks_for_what_the_file_says(name: str) -> None:
    found = counted(MODELS[name])
    saved = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if os.environ.get("LAMELLA_WRITE_COUNTERS"):
        FILE.write_text(json.dumps(saved | {name: found}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return
    assert saved.get(name) == found, "LAMELLA_WRITE_COUNTERS=1 pytest tests/test_counters.py writes them anew"


def test_a_step_waits_for_nothing_and_keeps_nothing() -> None:
    saved = json.loads(FILE.read_text(encoding="utf-8"))
    assert saved.keys() == MODELS.keys()
    for counters in saved.values():
        assert counters["bytes to the host"] == 0
        assert counters["waits"] == 0
        assert counters["bytes kept"] == 0
        assert counters["peak bytes"] > counters["bytes allocated"] / counters["allocations"]


# -- the watch itself -------------------------------------------------------------------------------------------------
def test_memory_is_counted_by_who_brings_it() -> None:
    with lamella.testing.simulator() as simulator, lamella.testing.MemoryWatch() as memory:
        device = lamella.device("simulator")
        x = simulator.from_numpy(np.ones((10, 10), np.float32), device)
        assert (memory.allocations, memory.allocated, memory.live) == (1, 400, 400)
        assert memory.from_host == 400
        part = x[2:]
        assert memory.allocations == 1  # a view brings none
        y = x + x
        assert (memory.allocations, memory.live, memory.peak) == (2, 800, 800)
        del y
        assert (memory.live, memory.peak) == (400, 800)
        del x
        assert memory.live == 400  # the view holds it
        memory.restart()
        assert (memory.allocations, memory.peak) == (0, 400)
        part.get()
        assert memory.to_host == 320
        del part
        assert memory.live == 0
    simulator = lamella.testing.simulator()
    with simulator:
        simulator.from_numpy(np.ones(3), lamella.device("simulator"))
    assert memory.allocations == 0  # after its end it counts no more
