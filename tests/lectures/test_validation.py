"""The claims of ``examples/lectures/validation.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[1, 2])
def found(lecture: ModuleType, request: pytest.FixtureRequest) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(request.param), widths=(1, 4, 128))


def test_too_few_units_underfit(lecture: ModuleType, found: dict[str, Any]) -> None:
    small, middle = found["runs"][1], found["runs"][4]
    for part in ("train", "validation", "test"):
        assert small[part][-1] > 1.5 * min(middle[part])
        assert small[part][-1] > lecture.NOISE


def test_many_units_overfit(lecture: ModuleType, found: dict[str, Any]) -> None:
    large = found["runs"][128]
    assert large["train"][-1] < lecture.NOISE / 2, "less than the noise: it is learned by heart"
    assert large["train"][-1] < found["runs"][4]["train"][-1]
    assert large["validation"][-1] > 1.15 * min(large["validation"]), "it fell, and rose again"
    assert large["test"][-1] > lecture.NOISE


def test_early_stopping_pays_on_data_that_had_no_say(lecture: ModuleType, found: dict[str, Any]) -> None:
    large = found["runs"][128]
    assert large["best"] == np.argmin(large["validation"]) + 1
    assert large["test"][large["best"] - 1] < 0.95 * large["test"][-1]
    wave = np.sin(4 * lecture.GRID)
    distance = {name: np.mean((y - wave) ** 2) for name, y in large["curves"].items()}
    assert distance["best epoch"] < 0.7 * distance["last epoch"]
