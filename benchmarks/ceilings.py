"""What this machine can do at most, measured now: a copy, matrix products, and the cost of asking for anything."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..backend import Backend, Device, as_dtype, current_precision, get_num_threads, parallel, precision
from . import timer

CPU_COPY, GPU_COPY = 64 << 20, 1 << 30  # bytes
CPU_SIZE, GPU_SIZE = 1024, 8192  # of square matrices
DTYPES = {"cpu": ("float32",), "cuda": ("float32", "tf32", "bfloat16", "float16")}
_EMPTY = 'extern "C" __global__ void nothing() {}'


def clock_of(threads: int) -> tuple[str, Any]:
    """With one thread CPU time, which other work on the machine disturbs little; with more, wall time."""
    return ("CPU", time.process_time) if threads == 1 else ("wall", time.perf_counter)


def measure(
    backend: Backend, device: Device, seconds: float = 0.3, copied: int = 0, size: int = 0
) -> dict[str, dict[str, Any]]:
    """The ceilings of one device, in the form of a record.

    Args:
        backend, device: which.
        seconds: how long each is measured.
        copied: bytes of the copy; by default as many as no cache holds.
        size: rows and columns of the matrices.
    """
    gpu = backend.runs_cuda
    copied, size = copied or (GPU_COPY if gpu else CPU_COPY), size or (GPU_SIZE if gpu else CPU_SIZE)
    found = {f"{device} copy": _copy(backend, device, seconds, copied)}
    for dtype in DTYPES["cuda" if gpu else "cpu"]:
        if dtype == "tf32" and not backend.multiplies_tf32:
            continue  # it would be the rate of float32 under another name
        found[f"{device} gemm {dtype}"] = _gemm(backend, device, seconds, size, dtype)
    found[f"{device} call"] = _call(backend, device, seconds)
    return found


def _samples(backend: Backend, device: Device, seconds: float, function: Any) -> list[float]:
    """Seconds of each call, after two for warming up, for as long as was asked and at least five times."""
    clear = timer.flush(backend, device)
    stamp = timer.timer(backend) if backend.runs_cuda else clock_of(get_num_threads())[1]
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 7 or time.perf_counter() < end:
        clear()
        start = stamp()
        function()
        found.append(max(stamp() - start, 1e-9))
    return found[2:]


def _rate(amount: float, unit: str, samples: list[float]) -> dict[str, Any]:
    """The rate of the quickest quarter's slowest: what the machine does when nothing else disturbs it."""
    return {"value": amount / sorted(samples)[len(samples) // 4], "unit": unit, "samples": samples}


def _copy(backend: Backend, device: Device, seconds: float, copied: int) -> dict[str, Any]:
    source, target = (backend.empty((copied // 4,), np.float32, device) for _ in range(2))
    source.fill(1)
    target.fill(0)

    def copy() -> None:
        if backend.runs_cuda:
            target[...] = source
        else:
            parallel(lambda start, stop: np.copyto(target[start:stop], source[start:stop]), len(source), 1 << 16)

    samples = _samples(backend, device, seconds, copy)
    if not (backend.to_numpy(target[-1000:]) == 1).all():
        raise AssertionError("the copy is wrong: no rate is given")
    return _rate(2.0 * copied, "B/s", samples)


def _gemm(backend: Backend, device: Device, seconds: float, size: int, dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)  # zeros or ones would need less power, and run faster than work does
    stored = as_dtype("float32" if dtype == "tf32" else dtype)
    host = [rng.standard_normal((size, size), dtype=np.float32).astype(stored) for _ in range(2)]
    a, b = (backend.from_numpy(array, device) for array in host)
    with precision("tf32" if dtype == "tf32" else current_precision()):
        samples = _samples(backend, device, seconds, lambda: backend.gemm(a, b))
        found = backend.to_numpy(backend.gemm(a, b)[:1]).astype(np.float64)
    expected = host[0][:1].astype(np.float64) @ host[1].astype(np.float64)
    if not np.max(np.abs(found - expected)) <= 0.02 * np.max(np.abs(expected)):
        raise AssertionError(f"the product of {dtype} is wrong: no rate is given")
    return _rate(2.0 * size**3, "FLOP/s", samples)


def _call(backend: Backend, device: Device, seconds: float, calls: int = 100) -> dict[str, Any]:
    """On a GPU the host's time to launch an empty kernel; on the CPU an addition of one number to an array of one."""
    one = backend.empty((1,), np.float32, device)
    one.fill(1)
    if backend.runs_cuda:
        kernel = backend.compile(_EMPTY, (), device).get_function("nothing")

        def call() -> None:
            kernel((1,), (1,), ())
    else:

        def call() -> None:
            np.add(one, one)

    clock = time.perf_counter
    samples: list[float] = []
    end = clock() + min(seconds, 0.1)
    while len(samples) < 5 or clock() < end:
        start = clock()
        for _ in range(calls):
            call()
        samples.append((clock() - start) / calls)
        backend.synchronize(device)
    return {"value": sorted(samples)[len(samples) // 4], "unit": "s", "samples": samples}
