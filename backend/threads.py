"""Parallel work on the CPU: either the BLAS library's threads run or ours, never both.

An OpenBLAS worker spins for about 100 ms after its last product and halves the speed of everything beside it. So a
parallel region sets BLAS to one thread, splits the work itself, and restores the setting: nothing of the user's
process stays changed. With one thread there is no pool at all.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

_BUFFER_SIZE = 512  # elements; ufuncs copy shorter broadcast rows through buffers of this size (NumPy's default: 8192)


def _default_threads() -> int:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        value = os.environ.get(variable, "")
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Blas:
    """The thread setting of the OpenBLAS inside the NumPy wheel; does nothing where another BLAS is linked.

    Attributes:
        core: the processor that its products are written for, as ``"Haswell"``; empty where that is not known.
    """

    def __init__(self) -> None:
        self.core = ""
        self.get: Callable[[], int] = lambda: 1
        self.set: Callable[[int], object] = lambda count: None
        for path in (Path(np.__file__).parent.parent / "numpy.libs").glob("libscipy_openblas*"):
            library = ctypes.CDLL(str(path))
            suffix = "64_" if hasattr(library, "scipy_openblas_set_num_threads64_") else ""
            if hasattr(library, "scipy_openblas_set_num_threads" + suffix):
                self.get = getattr(library, "scipy_openblas_get_num_threads" + suffix)
                self.set = getattr(library, "scipy_openblas_set_num_threads" + suffix)
            if hasattr(library, "scipy_openblas_get_corename" + suffix):
                name = getattr(library, "scipy_openblas_get_corename" + suffix)
                name.restype = ctypes.c_char_p
                self.core = name().decode()


class _Worker:
    """One helper thread that waits for a part, runs it, and reports back."""

    def __init__(self) -> None:
        self._start, self._done = threading.Lock(), threading.Lock()
        self._start.acquire()
        self._done.acquire()
        self._work: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._running = False
        threading.Thread(target=self._loop, name="lamella-worker", daemon=True).start()

    def _loop(self) -> None:
        np.setbufsize(_BUFFER_SIZE)
        np.seterr(all="ignore")
        while True:
            self._start.acquire()
            work = self._work
            self._work = None
            if work is not None:
                try:
                    work()
                except BaseException as error:
                    self._error = error
            work = None
            self._running = False
            self._done.release()

    def begin(self, work: Callable[[], None]) -> None:
        self._work = work
        self._running = True  # no interruption can come between this line and the next
        self._start.release()

    def finish(self) -> BaseException | None:
        self._done.acquire()
        error, self._error = self._error, None
        return error

    def outlast(self) -> None:
        """Wait without listening, after Ctrl-C: still no part may write once the region has been left."""
        while self._running:
            try:
                time.sleep(0.001)
            except KeyboardInterrupt:
                continue


class _Pool:
    def __init__(self) -> None:
        self.count = _default_threads()
        self.workers: list[_Worker] = []
        self.lock = threading.Lock()
        self.blas: _Blas | None = None


_pool = _Pool()


def blas_core() -> str:
    """The processor that NumPy's OpenBLAS took this one for, as ``"Haswell"``; empty where that is not known."""
    _pool.blas = _pool.blas or _Blas()
    return _pool.blas.core


def _forget_workers() -> None:
    """In a forked child the helper threads do not exist: start anew at first use."""
    _pool.workers, _pool.lock = [], threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)


def set_num_threads(count: int) -> None:
    """Use ``count`` CPU threads in lamella's own operations; 1 means that no helper thread ever runs.

    Large sums and products are cut by the number of threads: results repeat bit for bit with the same number, and agree
    to rounding with another.
    """
    if not isinstance(count, int) or isinstance(count, bool):
        raise TypeError(f"set_num_threads: count must be an int, got {count!r}")
    if count < 1:
        raise ValueError(f"set_num_threads: count must be at least 1, got {count}")
    _pool.count = count


def get_num_threads() -> int:
    """How many CPU threads lamella's own operations use."""
    return _pool.count


class _Kernel:
    """Settings inside a CPU kernel: one BLAS thread, short ufunc buffers, quiet floating-point flags; all restored."""

    __slots__ = ("_blas", "_buffer", "_errors")

    def __enter__(self) -> None:
        blas = _pool.blas = _pool.blas or _Blas()
        self._blas = blas.get()
        if self._blas != 1:
            blas.set(1)
        self._errors = np.errstate(all="ignore")
        self._errors.__enter__()
        self._buffer = np.setbufsize(_BUFFER_SIZE)

    def __exit__(self, *exc: object) -> None:
        np.setbufsize(self._buffer)
        self._errors.__exit__(None, None, None)
        if self._blas != 1 and _pool.blas is not None:
            _pool.blas.set(self._blas)


def _is_interruption(error: BaseException | None) -> bool:
    return error is not None and not isinstance(error, Exception)


def cpu_kernel() -> _Kernel:
    """A context in which a CPU kernel runs: settings for speed that are put back at its end."""
    return _Kernel()


def parallel(work: Callable[[int, int], None], length: int, grain: int = 1) -> None:
    """Run ``work(start, stop)`` over ``range(length)`` in contiguous parts, one for each thread.

    Args:
        work: writes its results into arrays that it captures; parts must not overlap in what they write.
        length: number of items, such as rows.
        grain: a part holds at least so many items; each call into NumPy should cover 64 K elements or more, or the
            threads only hand the interpreter lock to and fro.
    Raises:
        Exception: what ``work`` raises, after every part has ended.
    """
    parts = min(_pool.count, max(1, length // max(1, grain)))
    if parts == 1 or not _pool.lock.acquire(blocking=False):  # busy: a region inside a region, or another thread's
        with cpu_kernel():
            work(0, length)
        return
    error: BaseException | None = None
    try:
        while len(_pool.workers) < parts - 1:
            _pool.workers.append(_Worker())
        bounds = [length * i // parts for i in range(parts + 1)]
        started: list[_Worker] = []
        with cpu_kernel():
            try:
                for worker, start, stop in zip(_pool.workers, bounds[1:-1], bounds[2:], strict=False):
                    started.append(worker)
                    worker.begin(lambda start=start, stop=stop: work(start, stop))  # type: ignore[misc]
                work(bounds[0], bounds[1])
            except BaseException as raised:
                error = raised
            for worker in started:
                if _is_interruption(error):
                    worker.outlast()
                    continue
                try:
                    error = worker.finish() or error
                except BaseException as interruption:
                    error = interruption
                    worker.outlast()
        if error is not None:
            if _is_interruption(error):
                _pool.workers = []  # whether they have been listened to is not known
            raise error
    finally:
        error = None  # its traceback holds this frame, and so the arrays of the region
        _pool.lock.release()
