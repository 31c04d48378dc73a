"""Cases run on every device that answers; the simulator measures nothing and has no place here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lamella
from lamella.backend import backend_for, why_unavailable
from lamella.benchmarks import suite, timer
from lamella.benchmarks.case import Case
from lamella.benchmarks.contender import exact, first_results, host_numbers, on_host, rounded, run_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    found = [
        pytest.param(case, kind, dtype, id=f"{case}-{dtype}-{kind}", marks=[pytest.mark.gpu] * (kind == "cuda"))
        for case in metafunc.module.CASES
        for kind in case.devices
        for dtype in case.dtypes
        if not suite.missing(case) and (kind == "cuda" or dtype != "tf32")
    ]
    metafunc.parametrize(("case", "kind", "dtype"), found)


@pytest.fixture
def measure(request: pytest.FixtureRequest, kind: str, dtype: str) -> Callable[[Case], None]:
    """``measure(case)`` checks the answer, then times the work to its end: a launch is no run."""
    if (reason := why_unavailable(kind)) is not None:
        pytest.skip(reason)
    device = lamella.device(kind)
    backend = backend_for(device)
    request.node.add_marker(pytest.mark.benchmark(timer=timer.timer(backend)))  # before the fixture reads it
    benchmark = request.getfixturevalue("benchmark")

    def run(case: Case) -> None:
        numbers = rounded(host_numbers(case), dtype)
        work = run_of(case, "lamella", tuple(backend.from_numpy(array, device) for array in numbers), dtype)
        results: Any = tuple(on_host(result, backend) for result in first_results(case, work))
        benchmark.group = f"{case.family or case.name} {dtype}"
        timer.measure(benchmark, backend, device, work, case.error(results, exact(numbers)), case.allowed(dtype))

    return run
