"""The claims of ``examples/lectures/autoencoders.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    """What the lecture measures as it stands, once for all tests."""
    return lecture.measure(rng=lamella.Generator(0))


@pytest.mark.slow
def test_the_linear_one_spans_the_principal_components_and_has_their_error(found: dict[str, Any]) -> None:
    assert max(found["angles"]) < 1e-3
    for k, error in zip((8, 16, 32), (0.0246, 0.0116, 0.0027), strict=True):
        assert found["errors"][f"PCA, k = {k}"] == pytest.approx(error, abs=5e-5)
        assert found["errors"][f"linear, k = {k}"] == pytest.approx(found["errors"][f"PCA, k = {k}"], rel=1e-3)


@pytest.mark.slow
def test_hidden_layers_and_convolutions_hold_more_in_the_same_code(found: dict[str, Any]) -> None:
    errors = found["errors"]
    for k in (8, 16, 32):
        assert errors[f"deep, k = {k}"] < 0.75 * errors[f"PCA, k = {k}"]
    assert errors["convolutional, k = 16"] < 0.95 * errors["PCA, k = 16"]


def test_the_convolutional_one_has_less_than_half_the_parameters_of_the_deep_one() -> None:
    conv = lamella.models.conv_autoencoder((1, 8, 8), 16, channels=(16,))
    assert conv.num_parameters() < 0.5 * lamella.models.autoencoder(64, 128, 16).num_parameters()


@pytest.mark.slow
def test_only_what_has_seen_noise_takes_it_away(found: dict[str, Any]) -> None:
    errors = found["errors"]
    noise = ((found["noisy"] - found["clean"]) ** 2).mean()
    assert errors["denoising, noisy images"] < 0.25 * noise
    assert errors["denoising, noisy images"] < 0.4 * errors["plain, noisy images"]


@pytest.mark.slow
def test_penalties_leave_few_units_on(found: dict[str, Any]) -> None:
    share = {name: float(np.mean(found[f"Ω: {name}"] > 0.1)) for name in ("none", "L1", "KL")}
    assert share["none"] > 0.9
    assert share["L1"] < 0.35
    assert share["KL"] < 0.4
