"""lamella and PyTorch side by side: ``python benchmarks/against_torch.py --torch PYTHON [WORKLOAD …]``.

The workloads are whole training steps (``training_step.py``) and single operations (``operations.py``).

Each library runs in a process of its own (allocators and spinning thread pools disturb each other in one), in turns
A B C A B C, so that a slow moment of the machine hits all alike. What is compared is the ratio of one round's medians;
the results of the first steps must agree, or no time is printed. With one thread CPU time is measured, which other
work on the machine disturbs little; with more, wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from operations import OPERATIONS, lamella_operation, torch_operation
from training_step import STEPS, WORKLOADS


def serve(library: str, name: str, threads: int) -> None:
    """The worker: reads how many steps to run, answers with the losses and the seconds of each step."""
    if library == "lamella":
        import lamella

        lamella.set_num_threads(threads)
    else:
        import torch

        torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    if name in OPERATIONS:
        step = (lamella_operation if library == "lamella" else torch_operation)(OPERATIONS[name])
    else:
        step = STEPS[library](WORKLOADS[name])
    for line in sys.stdin:
        results, seconds = [], []
        for _ in range(int(line)):
            start = clock()
            results.append(step())
            seconds.append(clock() - start)
        print(json.dumps({"results": results[:3], "seconds": statistics.median(seconds)}), flush=True)


class Worker:
    """A library's process."""

    def __init__(self, python: str, library: str, name: str, threads: int) -> None:
        limits = {variable: str(threads) for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [python, __file__, "--serve", library, name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **limits},
        )

    def run(self, steps: int) -> dict[str, Any]:
        print(steps, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline() if self._process.stdout else ""
        if not answer:
            raise SystemExit(f"a worker ended with exit code {self._process.wait()}; its message stands above")
        return json.loads(answer)


def compare(name: str, pythons: dict[str, str], threads: int, rounds: int) -> None:
    """Print each library's median step and its ratio to PyTorch's default."""
    workers = {library: Worker(python, library, name, threads) for library, python in pythons.items()}
    first = {library: worker.run(3) for library, worker in workers.items()}
    reference = first["torch"]["results"]
    for library, answer in first.items():
        results = answer["results"]
        if not all(abs(a - b) <= 1e-5 * abs(b) + 1e-7 for a, b in zip(results, reference, strict=True)):
            raise SystemExit(f"{name}: {library} gives {results}, PyTorch {reference}: no time is given")
    for worker in workers.values():
        worker.run(10)  # warm-up
    steps = max(5, min(500, int(0.2 / workers["torch"].run(5)["seconds"])))
    seconds: dict[str, list[float]] = {library: [] for library in workers}
    for _ in range(rounds):
        for library, worker in workers.items():
            seconds[library].append(worker.run(steps)["seconds"])
    kind = "CPU time, 1 thread" if threads == 1 else f"wall time, {threads} threads"
    print(f"{name}: median of {rounds} rounds of {steps} steps, {kind}")
    for library, values in seconds.items():
        ratios = [a / b for a, b in zip(values, seconds["torch"], strict=True)]
        low, high = min(ratios), max(ratios)
        print(
            f"  {library:12s} {statistics.median(values) * 1e6:10.1f} us   "
            f"ratio to torch {statistics.median(ratios):.3f}  ({low:.3f} … {high:.3f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", metavar="PYTHON", default=sys.executable, help="an interpreter with torch and numpy")
    parser.add_argument("--lamella", metavar="PYTHON", default=sys.executable, help="an interpreter with lamella")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("workloads", nargs="*", default=[*WORKLOADS, *OPERATIONS], help="by default all")
    parser.add_argument("--serve", nargs=3, metavar=("LIBRARY", "WORKLOAD", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        library, name, threads = options.serve
        serve(library, name, int(threads))
        return
    pythons = {"lamella": options.lamella, "torch": options.torch}
    for name in options.workloads:
        fused = {} if name in OPERATIONS else {"torch-fused": options.torch}
        compare(name, pythons | fused, options.threads, options.rounds)


if __name__ == "__main__":
    main()
