"""Measures cases on the devices that there are, in passes, so that what a pass saw late the next sees early.

The answer first: where it is wrong, the case is a failure and has no time. Libraries take turns sample by sample; all
samples of all passes stand in the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..backend import Device, backend_for
from . import contest
from .case import Case
from .compare import Key, key_of
from .contender import exact, host_numbers, is_rival, rounded
from .library import Apart, Here, LibraryError

SAMPLES = (5, 60)  # of each library in one pass, at least and at most
ON_CPU = {"lamella": "lamella", "numpy": "numpy"}  # contender -> library; the others are ways of PyTorch


class Runner:
    """Times cases; what it found stands in ``results`` and ``failures`` whenever it is stopped.

    Args:
        devices: where; ``cpu`` and CUDA devices.
        threads: on the CPU.
        rival: ``"torch"``, ``"numpy"`` or nothing.
        python: the interpreter of the rival's process.
        seconds: for which one case is measured on one device, all passes together.
        passes: how often the list is gone through.
        apart: whether each library works in a new process for each case, which alone tells its memory.
        say: is told what is being done, for a progress line.
    Raises:
        LibraryError: the rival cannot be imported.
    """

    def __init__(
        self,
        devices: list[Device],
        threads: int,
        rival: str = "",
        python: str = "",
        seconds: float = 0.6,
        passes: int = 2,
        apart: bool = False,
        say: Callable[[str], None] = lambda text: None,
        lamella_python: str = "",
    ) -> None:
        self.devices, self.threads, self.rival, self.say = devices, threads, rival, say
        self.seconds, self.passes, self.apart = seconds, passes, apart
        self._pythons = {"lamella": lamella_python, rival: python}
        self._open: dict[str, Here | Apart] = {}
        self._judged: dict[Key, tuple[float, float]] = {}
        self._results: dict[Key, dict[str, Any]] = {}
        self.failures: list[dict[str, str]] = []
        self._failed: set[Key] = set()
        self.done = 0.0
        self.torch: Any = None
        if rival and any(device.kind == "cpu" for device in devices):
            library = Apart(python, rival, threads)  # now, so that one that is missing is missed before the work
            self.versions = {rival: library.version}
            self._open[rival] = library
        else:
            self.versions = {}

    @property
    def results(self) -> list[dict[str, Any]]:
        """What was measured, case by case."""
        return list(self._results.values())

    def run(self, cases: list[Case], dtypes: tuple[str, ...] = ()) -> None:
        """Measure the cases in those of the dtypes that they have, by default in all of them."""
        work = [
            (case, dtype, device)
            for case in cases
            for device in self.devices
            if device.kind in case.devices
            for dtype in (dtypes or case.dtypes)
            if dtype in case.dtypes and (dtype != "tf32" or device.kind != "cpu")
        ]
        for number in range(self.passes):
            for i, (case, dtype, device) in enumerate(work):
                self.done = (number + i / len(work)) / self.passes
                self.say(f"{100 * self.done:3.0f} %  {case.name} {dtype} on {device}")
                (self._on_cpu if device.kind == "cpu" else self._on_device)(case, dtype, device)
        self.done = 1.0

    def close(self) -> None:
        """End the other processes."""
        for library in self._open.values():
            library.close()
        self._open.clear()

    def _fail(self, key: Key, message: str) -> None:
        name, dtype, library, device = key
        if key not in self._failed:
            self._failed.add(key)
            self._results.pop(key, None)
            self.failures.append({"name": f"{name} {dtype} {library} on {device}", "message": message[:2000]})

    # -- the CPU: each library in its process ----------------------------------------------------------------------
    def _contenders(self, case: Case) -> list[str]:
        names = ["lamella"]
        if self.rival == "torch" and self.apart:  # its default, and the ways that make it faster on a CPU
            forced = ("ATTENTION", "MATH", "foreach")
            names += [name for name in case.contenders if is_rival(name) and not name.endswith(forced)]
        elif self.rival in case.contenders:
            names.append(self.rival)
        return names

    def _library(self, contender: str) -> Here | Apart:
        library = ON_CPU.get(contender, "torch")
        name = contender if self.apart else library
        if name not in self._open:
            if library == "lamella" and not self.rival and not self.apart:
                self._open[name] = Here(self.threads)
            else:
                self._open[name] = Apart(self._pythons[library], library, self.threads)
        return self._open[name]

    def _on_cpu(self, case: Case, dtype: str, device: Device) -> None:
        if self.apart:
            self.close()
        at_work: dict[str, Here | Apart] = {}
        for name in self._contenders(case):
            key = (case.name, dtype, name, str(device))
            if key in self._failed:
                continue
            try:
                library = self._library(name)
                results, peak = library.set_up(case, name, dtype)
                if key not in self._judged:
                    numbers = exact(rounded(host_numbers(case), dtype))
                    self._judged[key] = case.error(tuple(results), numbers), case.allowed(dtype)
            except (LibraryError, ValueError) as reason:
                self._fail(key, str(reason))
                continue
            error, bound = self._judged[key]
            if not error <= bound:
                self._fail(key, f"the answer is wrong by {error:.3g}, allowed is {bound:.3g}: no time is given")
                continue
            self._keep(key, case, error, bound, peak)
            at_work[name] = library
        self._take_turns(at_work, case, dtype, device)

    def _take_turns(self, at_work: dict[str, Here | Apart], case: Case, dtype: str, device: Device) -> None:
        if not at_work:
            return
        end = time.perf_counter() + self.seconds / self.passes
        for library in at_work.values():
            library.sample()
        for number in range(SAMPLES[1]):
            if number >= SAMPLES[0] and time.perf_counter() >= end:
                return
            for name, library in at_work.items():
                result = self._results[case.name, dtype, name, str(device)]
                seconds, yardstick = library.sample()
                result["samples"].append(seconds)
                result["yardstick"].append(yardstick)

    def _keep(self, key: Key, case: Case, error: float, bound: float, peak: int) -> None:
        if key in self._results:
            return
        name, dtype, library, device = key
        self._results[key] = {
            "name": name,
            "library": library,
            "device": device,
            "dtype": dtype,
            "samples": [],
            "yardstick": [],
            "error": error,
            "bound": bound,
            "bytes": case.bytes(dtype),
            "operations": case.operations,
            "threads": self.threads,
            "clock": "CPU" if self.threads == 1 else "wall",
            **({"peak_bytes": peak} if self.apart else {}),
        }

    # -- a GPU: everybody in this process --------------------------------------------------------------------------
    def _on_device(self, case: Case, dtype: str, device: Device) -> None:
        results, failures = contest.measure(
            case,
            dtype,
            backend_for(device),
            device,
            self.torch,
            lambda name: name in {"lamella", "torch", "torch fused"},
        )
        for result in results:
            key = key_of(result)
            if key in self._results:
                self._results[key]["samples"] += result["samples"]
            elif key not in self._failed:
                self._results[key] = result
        for failure in failures:
            library = "torch" if "torch" in failure["name"] else "lamella"
            self._fail((case.name, dtype, library, str(device)), failure["message"])


def wrong(failures: list[dict[str, str]]) -> bool:
    """Whether lamella itself failed, not only a rival."""
    return any(" lamella on " in failure["name"] for failure in failures)
