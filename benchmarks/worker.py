"""One library at work in a process of its own: ``python worker.py LIBRARY THREADS``; it speaks in lines of JSON.

Allocators and spinning thread pools disturb each other in one process, so on the CPU each library has its own. A
rival's interpreter needs NumPy, that library and nothing of lamella: what the work is, it reads in this folder.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SHORTEST = 2e-3  # seconds of one sample: a shorter run is repeated within it


def resident(kind: str = "VmHWM") -> int:
    """Bytes of this process in memory, its highest (``VmHWM``) or now (``VmRSS``); 0 where Linux does not tell."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith(kind)), 0)


class Yardstick:
    """Work that is always the same, by NumPy alone: how long it takes now tells how fast the machine is now."""

    def __init__(self) -> None:
        self._np = importlib.import_module("numpy")
        self._x = self._np.linspace(-1, 1, 1 << 17, dtype=self._np.float32)
        self._y = self._np.empty_like(self._x)

    def __call__(self) -> None:
        self._np.exp(self._x, out=self._y)
        self._np.add(self._y, self._x, out=self._y)


class Station:
    """A library that does one case at a time.

    Args:
        library: ``"lamella"``, ``"numpy"`` or ``"torch"``.
        threads: that it may use; with one, CPU time is measured, with more wall time.
    """

    def __init__(self, library: str, threads: int) -> None:
        self.library, self.threads = library, threads
        self._clock: Callable[[], float] = time.process_time if threads == 1 else time.perf_counter
        self._run: Callable[[], Any] = lambda: ()
        self._torch: Any = None
        self._yardstick = Yardstick()
        if library == "torch":
            self._torch = importlib.import_module("torch")
            self._torch.set_num_threads(threads)
        elif library == "lamella":
            importlib.import_module("lamella").set_num_threads(threads)
        elif library != "numpy":
            raise ModuleNotFoundError(f"No module named {library!r}")

    def set_up(self, case: Any, contender: str, dtype: str) -> tuple[list[Any], int]:
        """Prepare a case; its first results on the host, and the peak of memory above what the imports took."""
        from lamella.benchmarks.contender import first_results, host_numbers, on_host, rival_of, rounded, run_of

        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the highest so far was the imports'
        before = resident("VmRSS")
        numbers = rounded(host_numbers(case), dtype)
        if self._torch is not None:
            self._run = rival_of(case, contender, self._torch, numbers, dtype)
        else:
            self._run = run_of(case, contender, numbers, dtype)
        results = first_results(case, self._run)
        peak = max(0, resident() - before)
        return [on_host(result) for result in results], peak

    def repeats(self) -> int:
        """How many runs make one sample."""
        end = time.perf_counter() + 10 * SHORTEST
        found: list[float] = []
        while len(found) < 3 or (time.perf_counter() < end and len(found) < 1000):
            start = time.perf_counter()
            self._run()
            found.append(time.perf_counter() - start)
        return max(1, round(SHORTEST / max(statistics.median(found), 1e-9)))

    def sample(self, repeats: int) -> tuple[float, float]:
        """Seconds of one run, measured over ``repeats`` runs; and of the yardstick, half before and half after them."""
        clock, run, yardstick = self._clock, self._run, self._yardstick
        begin = clock()
        yardstick()
        start = clock()
        for _ in range(repeats):
            run()
        end = clock()
        yardstick()
        return max((end - start) / repeats, 1e-9), max((start - begin + clock() - end) / 2, 1e-9)


def without_lamella() -> None:
    """Let ``lamella.benchmarks`` mean this folder, and nothing else of lamella be there."""
    for name, path in (("lamella", []), ("lamella.benchmarks", [str(Path(__file__).parent)])):
        module = types.ModuleType(name)
        module.__path__ = path
        sys.modules[name] = module


def main(orders: Any = sys.stdin, answers: Any = sys.stdout) -> None:
    library, threads = sys.argv[1], int(sys.argv[2])
    if library != "lamella":
        without_lamella()
    np = importlib.import_module("numpy")

    def say(**answer: Any) -> None:
        print("@" + json.dumps(answer), file=answers, flush=True)

    try:
        station = Station(library, threads)
        say(version=str(getattr(importlib.import_module(library), "__version__", "")))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")
        return
    for line in orders:
        order = json.loads(line)
        try:
            if "name" in order:
                cases = importlib.import_module(f"lamella.benchmarks.bench_{order['stem']}").CASES
                case = next(case for case in cases if case.name == order["name"])
                results, peak = station.set_up(case, order["contender"], order["dtype"])
                files = [str(Path(order["folder"]) / f"{i}.npy") for i in range(len(results))]
                for file, result in zip(files, results, strict=True):
                    np.save(file, result)
                del results
                say(files=files, peak=peak, repeats=station.repeats())
            else:
                say(seconds=station.sample(order["repeats"]))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            say(error=f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")


if __name__ == "__main__":
    main()
