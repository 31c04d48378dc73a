"""Times that are true on a device: a launch returns at once, so the device itself says when its work began and ended.

On a device that runs CUDA a timer's value is an event in the stream; their difference waits for the later one. Before
each round as many bytes are written as the second-level cache holds twice, so nothing is measured warm by accident, and
the host has queued the work before the device is done with that. Not yet run on hardware.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Backend, Device

ROUNDS = (10, 200)  # at least and at most
SECONDS = 1.0  # that the rounds of one benchmark take together, within those limits
_CACHE = 128 << 20  # bytes to write where the device does not say how large its cache is
_BUSY = 1 << 30  # bytes that keep a large device writing for about 250 µs, longer than the host needs for a launch


class Stamp:
    """A moment in a device's stream; ``end - start`` waits for ``end`` and gives seconds."""

    __slots__ = ("_cuda", "_event")

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._event = cuda, cuda.Event()
        self._event.record()

    def __sub__(self, earlier: Stamp) -> float:
        self._event.synchronize()
        milliseconds: float = self._cuda.get_elapsed_time(earlier._event, self._event)
        return milliseconds / 1e3


def timer(backend: Backend) -> Callable[[], Any]:
    """What pytest-benchmark calls before and after a round: a :class:`Stamp` where CUDA runs, else the clock."""
    if not backend.runs_cuda:
        return time.perf_counter
    cuda = backend.xp.cuda

    def stamp() -> Stamp:
        return Stamp(cuda)

    return stamp


def flush(backend: Backend, device: Device) -> Callable[[], None]:
    """A function that writes more bytes than the device's second-level cache holds, and does not wait.

    So many that the host has launched the work to be timed before they are written: no gap on the host's side is measured.
    """
    if not backend.runs_cuda:
        return lambda: None
    attributes = getattr(backend.xp.cuda.Device(device.index), "attributes", {})
    cache = attributes.get("L2CacheSize")
    scratch = backend.empty((_CACHE if cache is None else max(2 * int(cache), _BUSY),), np.uint8, device)
    return lambda: scratch.fill(0)


def rounds_for(seconds: float) -> int:
    """How many rounds of this length are run."""
    fewest, most = ROUNDS
    return int(min(most, max(fewest, SECONDS / max(seconds, 1e-9))))


def measure(
    benchmark: Any, backend: Backend, device: Device, function: Callable[[], Any], error: float, bound: float
) -> None:
    """Time work whose answer has been judged; the error and its bound stand beside the times.

    Args:
        benchmark: pytest-benchmark's fixture, with :func:`timer` as its timer.
        backend: of the device.
        device: on which ``function`` works.
        function: does the work, without waiting for it.
        error: of its answer.
        bound: the largest error that is allowed.
    Raises:
        AssertionError: the answer is wrong; nothing is timed.
    """
    if not error <= bound:
        raise AssertionError(f"the answer is wrong by {error:.3g}, allowed is {bound:.3g}: no time is given")
    benchmark.extra_info.update(device=str(device), error=error, bound=bound)
    if not backend.runs_cuda:
        benchmark(function)
        return
    clear, stamp = flush(backend, device), timer(backend)
    start = stamp()
    function()
    rounds = rounds_for(stamp() - start)
    benchmark.pedantic(function, setup=clear, rounds=rounds, warmup_rounds=3)
