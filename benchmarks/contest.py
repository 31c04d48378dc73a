"""Who is faster on one device: everybody's answer is judged, then they take turns A B C A B C in one stream.

Turns, because a device that grows warm or a busy moment then hits all alike. A contender that fails (a compiler's
error, a backend that refuses the shapes) is reported by name and the others go on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from . import timer
from .case import EPS, Case, Run
from .contender import exact, first_results, host_numbers, is_rival, on_host, rival_of, rounded, run_of

WARM_UP = 3
_FEW_ROUNDINGS = 4.0  # that are allowed where PyTorch makes no error at all


# Contenders that there are on a GPU only, and for which compute capabilities.
ON_CUDA = {"cublaslt": range(1, 1000), "cupy": range(1, 1000), "hopper": range(90, 91)}


def names_of(case: Case, torch: Any, capability: int, wanted: Callable[[str], bool] = lambda name: True) -> list[str]:
    """The contenders on a device, PyTorch's default first among the rivals, compiled last (it takes longest)."""
    names = [
        name
        for name in case.contenders
        if not is_rival(name) and name != "numpy" and (name not in ON_CUDA or capability in ON_CUDA[name])
    ]
    if torch is not None:
        names += [name for name in case.contenders if is_rival(name)]
        names += ["torch compile"] * ("torch" in case.contenders)
    return [name for name in names if wanted(name)]


def measure(
    case: Case,
    dtype: str,
    backend: Any,
    device: Any,
    torch: Any = None,
    wanted: Callable[[str], bool] = lambda name: True,
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The results of those whose answer is right, and what went wrong with the others, in the form of a record.

    PyTorch is judged by the case's bound. lamella may be wrong by at most twice PyTorch's own error where PyTorch is
    there, else by the case's bound: a faster answer that is worse is none.

    Args:
        case: the work.
        dtype: of its numbers.
        backend, device: where it is done; every contender works on the same memory.
        torch: the module, or None: then there are no rivals.
        wanted: which contenders take part, by name.
    """
    numbers = rounded(host_numbers(case), dtype)
    judge = exact(numbers)
    arrays = tuple(backend.from_numpy(array, device) for array in numbers)
    runs: dict[str, Run] = {}
    errors: dict[str, float] = {}
    failures: list[dict[str, str]] = []

    def fail(name: str, message: str) -> None:
        failures.append({"name": f"{case.name} {dtype} {name}", "message": message[:2000]})

    for name in names_of(case, torch, backend.compute_capability(device), wanted):
        try:
            run = rival_of(case, name, torch, arrays, dtype) if is_rival(name) else run_of(case, name, arrays, dtype)
            errors[name] = case.error(tuple(on_host(r, backend) for r in first_results(case, run)), judge)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            fail(name, f"{type(error).__name__}: {error} ({last.filename.rpartition('/')[2]}:{last.lineno})")
            continue
        runs[name] = run
    bounds = {name: allowed(case, dtype, name, errors.get("torch")) for name in runs}
    for name in list(runs):
        if not errors[name] <= bounds[name]:
            fail(name, f"wrong by {errors[name]:.3g}, allowed is {bounds[name]:.3g}: no time is given")
            del runs[name]
    samples = take_turns(runs, backend, device)
    return [
        {
            "name": case.name,
            "library": name,
            "device": str(device),
            "dtype": dtype,
            "samples": samples[name],
            "error": errors[name],
            "bound": bounds[name],
            "bytes": case.bytes(dtype),
            "operations": case.operations,
        }
        for name in runs
    ], failures


def allowed(case: Case, dtype: str, name: str, torch_error: float | None) -> float:
    """The largest relative error of a contender."""
    if torch_error is None or is_rival(name) or not torch_error <= case.allowed(dtype):
        return case.allowed(dtype)
    return max(2 * torch_error, _FEW_ROUNDINGS * EPS[dtype])


def take_turns(runs: dict[str, Run], backend: Any, device: Any) -> dict[str, list[float]]:
    """Seconds of each round of each contender, the cache flushed before each."""
    clear, stamp = timer.flush(backend, device), timer.timer(backend)

    def one_round(run: Run) -> float:
        clear()
        start = stamp()
        run()
        return stamp() - start

    warm = {name: min(one_round(run) for _ in range(WARM_UP)) for name, run in runs.items()}
    rounds = timer.rounds_for(sum(warm.values())) if warm else 0
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            samples[name].append(max(one_round(run), 1e-9))
    return samples
