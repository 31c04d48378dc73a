"""Benchmarks run on every device that answers; the simulator measures nothing and has no place here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import lamella
from lamella.backend import Device, backend_for, why_unavailable


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    if (reason := why_unavailable(request.param)) is not None:
        pytest.skip(reason)
    return lamella.device(request.param)


@pytest.fixture
def measure(benchmark: Any, device: Device) -> Callable[[Callable[[], Any]], Any]:
    """``measure(function)`` times it to the end of its work: a device is waited for, a launch is no run."""
    backend = backend_for(device)

    def run(function: Callable[[], Any]) -> Any:
        def to_the_end() -> Any:
            result = function()
            backend.synchronize(device)
            return result

        return benchmark(to_the_end)

    return run
