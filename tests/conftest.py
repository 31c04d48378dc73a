"""One test body on every device: the ``device`` fixture."""

from __future__ import annotations

import pytest
from lamella.backend import Device, why_unavailable

import lamella


@pytest.fixture(params=["cpu", "simulator", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """A device on which the test runs: the CPU, the CUDA kernels executed on the CPU, a GPU where one answers."""
    if request.param == "simulator":
        simulator = getattr(pytest.importorskip("lamella.testing"), "simulator", None)
        if simulator is None:
            pytest.skip("this lamella.testing has no simulator")
        simulator()
    elif (reason := why_unavailable(request.param)) is not None:
        pytest.skip(reason)
    return lamella.device(request.param)
