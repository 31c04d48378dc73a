"""The claims of ``examples/lectures/model_selection.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=[1, 2])
def found(lecture: ModuleType, request: pytest.FixtureRequest) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(request.param))


def test_folds_vary_less_together_than_one_by_one(found: dict[str, Any]) -> None:
    folds = np.array([result["accuracy"] for result in found["folds"]])  # (data sets, folds)
    assert folds.shape == (11, 5)
    of_means, of_one = folds.mean(axis=1).std(ddof=1), folds.std(axis=0, ddof=1).mean()
    assert of_means < 0.8 * of_one
    said = np.mean([result.standard_error["accuracy"] for result in found["folds"]])
    assert 0.5 < said / of_means < 2, "about as much as the folds' own spread says"


def test_the_rate_comes_first_and_then_the_width(found: dict[str, Any]) -> None:
    (rates, widths, _), errors = found["settings"].T, 1 - found["accuracies"]
    assert np.median(errors[rates < 1e-3]) > 0.8
    assert np.median(errors[rates > 0.1]) > 0.8
    between = (rates >= 1e-3) & (rates <= 0.1)
    assert between[errors.argmin()]
    assert errors.min() < 0.15
    assert np.median(errors[between & (widths >= 16)]) < np.median(errors[between & (widths < 16)])


def test_the_best_of_many_looks_better_than_it_is(found: dict[str, Any]) -> None:
    seems, is_ = found["best"].T
    assert (seems - is_).mean() > 5 * (seems - is_).std() / len(seems) ** 0.5
    assert seems.mean() - is_.mean() > 0.01
