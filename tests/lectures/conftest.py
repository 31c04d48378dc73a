"""What the tests of the lectures' claims share."""

from __future__ import annotations

from types import ModuleType

import matplotlib
import pytest

from .scripts import load

matplotlib.use("Agg")  # no windows


@pytest.fixture(scope="module")
def lecture(request: pytest.FixtureRequest) -> ModuleType:
    """The script that a test file is named after: ``examples/lectures/<name>.py`` for ``test_<name>.py``."""
    return load(request.path.stem.removeprefix("test_"))
