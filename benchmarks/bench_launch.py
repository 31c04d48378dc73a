"""What our launcher costs: Python's time of one ``kernels.softmax`` call whose kernel and allocation do nothing.

``python benchmarks/bench_launch.py`` prints it. The backend is a stand-in with CuPy's attributes, so this is our own
code alone; what CuPy adds on a GPU (allocation, ``RawKernel.__call__``) is not in it and not yet measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

from lamella import kernels
from lamella.backend import Backend, Device, backend_of, forget_kernels, register_backend, unregister_backend

DEVICE = Device("nothing")


class NothingArray:
    """What a launcher may ask of a CuPy array, and no memory behind it."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, pointer: int = 1 << 20) -> None:
        self.shape, self.dtype, self.ndim, self.size = shape, np.dtype(dtype), len(shape), int(np.prod(shape))
        self.data = SimpleNamespace(ptr=pointer)
        self.flags = SimpleNamespace(c_contiguous=True)


class NothingBackend(Backend):
    """Compiles to a function that only counts; returns one array made beforehand as each result."""

    name = "nothing"
    xp = None
    array_types = (NothingArray,)
    runs_cuda = True

    def __init__(self, result: NothingArray) -> None:
        self.result, self.launched = result, 0

    def devices(self) -> tuple[Device, ...]:
        return (DEVICE,)

    def device_of(self, array: Any) -> Device:
        return DEVICE

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> NothingArray:
        return self.result

    def compile(self, code: str, options: tuple[str, ...], device: Device) -> Any:
        def kernel(grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
            self.launched += 1

        return SimpleNamespace(get_function=lambda name: kernel)


@contextmanager
def nothing(shape: tuple[int, ...]) -> Iterator[tuple[NothingBackend, NothingArray]]:
    """The backend, registered, and an input of ``shape``."""
    backend = NothingBackend(NothingArray(shape, np.float32))
    register_backend(backend)
    try:
        yield backend, NothingArray(shape, np.float32)
    finally:
        unregister_backend(backend.name)
        forget_kernels(backend.name)


def microseconds(function: Callable[[], Any], rounds: int = 30, repeats: int = 1000) -> float:
    """The median round's CPU time of one call."""
    function()
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(repeats):
            function()
        times.append((time.thread_time() - start) / repeats * 1e6)
    return statistics.median(times)


def bench_launch(benchmark: Any) -> None:
    with nothing((4096, 1000)) as (backend, x):
        before = backend.launched
        y = benchmark(kernels.softmax, x)
        assert y is backend.result
        assert backend.launched > before


def main() -> None:
    with nothing((4096, 1000)) as (backend, x):
        whole = microseconds(lambda: kernels.softmax(x))
        assert backend.launched == 30 * 1000 + 1
        empty, look_up = microseconds(lambda: None), microseconds(lambda: backend_of(x))
        print(f"kernels.softmax, our part: {whole - empty:.2f} us, {look_up - empty:.2f} us for each backend look-up")


if __name__ == "__main__":
    main()
