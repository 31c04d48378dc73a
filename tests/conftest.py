"""One test body on every device: the ``device`` fixture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import lamella
import lamella.testing
from lamella.backend import Device, why_unavailable


@pytest.fixture(params=["cpu", "simulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    """A device on which the test runs: the CPU, the CUDA kernels executed on the CPU, a GPU where one answers."""
    if request.param == "simulator":
        if not hasattr(lamella.testing, "simulator"):
            pytest.skip("the simulator does not stand yet")
        with lamella.testing.simulator():
            yield lamella.device("simulator")
        return
    if (reason := why_unavailable(request.param)) is not None:
        pytest.skip(reason)
    yield lamella.device(request.param)


@pytest.fixture
def simulator() -> Iterator[lamella.testing.SimulatorBackend]:
    """The simulator itself, for tests that count its launches or change what it claims to be."""
    with lamella.testing.simulator() as backend:
        yield backend


@pytest.fixture
def load_example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A script of ``examples/text`` as a module, which finds those beside it as it does when it runs."""
    folder = Path(__file__).parents[1] / "examples" / "text"

    def load(name: str) -> Any:
        monkeypatch.syspath_prepend(folder)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return import_module(name)

    return load
