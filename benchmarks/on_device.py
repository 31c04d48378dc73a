"""lamella and PyTorch on one device, in one process: ``python -m lamella.benchmarks.on_device report.json softmax 0``.

The part of ``make gpu`` that measures. Work is split into bundles small enough for minutes; after each case the report
is written anew, so that what was measured is kept whatever happens to the rest. Not yet run on a GPU.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from . import ceilings, contest, suite
from .case import Case

BUNDLE = 4  # pairs of case and dtype in one process; compiling takes PyTorch up to a minute each


def work_of(stem: str, kind: str) -> list[tuple[Case, str]]:
    """The cases of a file that a kind of device runs, each with each of its dtypes."""
    return [
        (case, dtype)
        for case in suite.cases_of(stem)
        if kind in case.devices and not suite.missing(case)
        for dtype in case.dtypes
    ]


def bundles(kind: str) -> list[str]:
    """All work, as arguments of this command."""
    return [
        "ceilings 0",
        *(f"{stem} {first}" for stem in suite.stems() for first in range(0, len(work_of(stem, kind)), BUNDLE)),
    ]


def find_torch(backend: Any) -> Any:
    """The module, or None where it cannot be imported.

    Raises:
        RuntimeError: it works in another stream than CuPy, whose events would then mean nothing.
    """
    if importlib.util.find_spec("torch") is None:
        print("torch cannot be imported here: there is no column of it")
        return None
    torch = importlib.import_module("torch")
    if backend.runs_cuda and torch.cuda.current_stream().cuda_stream != backend.xp.cuda.get_current_stream().ptr:
        raise RuntimeError("on_device: torch and CuPy must work in one stream")
    return torch


def give_back(backend: Any, torch: Any) -> None:
    """The pools' free memory: each library's own would keep the other from the device."""
    if backend.runs_cuda and hasattr(backend.xp, "get_default_memory_pool"):
        backend.xp.get_default_memory_pool().free_all_blocks()
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    import lamella
    from lamella.backend import backend_for

    parser = argparse.ArgumentParser(prog="on_device", description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path, nargs="?", help="the JSON file to write; without it the bundles are named")
    parser.add_argument("stem", nargs="?", default="ceilings", help="of a bench_<stem>.py, or ceilings")
    parser.add_argument("first", type=int, nargs="?", default=0, help="which of its pairs of case and dtype is first")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--filter", default="", help="only cases whose names have these words")
    options = parser.parse_args(arguments)
    if options.report is None:
        print("\n".join(bundles(lamella.backend.Device.parse(options.device).kind)))
        return
    device = lamella.device(options.device)
    backend = backend_for(device)
    report: dict[str, Any] = {"ceilings": {}, "results": [], "failures": []}

    def keep() -> None:
        options.report.write_text(json.dumps(report), encoding="utf-8")

    if options.stem == "ceilings":
        report["ceilings"] = ceilings.measure(backend, device)
        keep()
        return
    torch = find_torch(backend)
    for case, dtype in work_of(options.stem, device.kind)[options.first : options.first + BUNDLE]:
        if all(word in case.name for word in options.filter.split()):
            results, failures = contest.measure(case, dtype, backend, device, torch)
            report["results"] += results
            report["failures"] += failures
            keep()
            give_back(backend, torch)
    keep()


if __name__ == "__main__":
    main()
