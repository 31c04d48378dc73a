"""Benchmarks run on every device that answers; the simulator measures nothing and has no place here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lamella
from lamella.backend import Device, backend_for, why_unavailable

from . import timer


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    if (reason := why_unavailable(request.param)) is not None:
        pytest.skip(reason)
    return lamella.device(request.param)


@pytest.fixture
def measure(request: pytest.FixtureRequest, device: Device) -> Callable[..., None]:
    """``measure(function, expected, atol)`` checks the answer, then times the work to its end: a launch is no run."""
    backend = backend_for(device)
    request.node.add_marker(pytest.mark.benchmark(timer=timer.timer(backend)))  # before the fixture reads it
    benchmark = request.getfixturevalue("benchmark")

    def run(function: Callable[[], Any], expected: Any, atol: float) -> None:
        timer.measure(benchmark, backend, device, function, expected, atol)

    return run
