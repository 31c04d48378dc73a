"""The claims of ``examples/lectures/depth.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import training


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure()


def test_depth_d_has_two_to_the_d_pieces_with_two_units_a_layer(lecture: ModuleType, found: dict[str, Any]) -> None:
    assert found["pieces"] == {d: 2**d for d in range(1, 9)}
    for d in (1, 2, 5):
        assert sum(layer.out_features for layer in lecture.sawtooth(d)[:-1:2]) == 2 * d


def test_the_network_is_the_sawtooth_exactly(lecture: ModuleType, found: dict[str, Any]) -> None:
    x = lecture.POINTS
    for d, y in found["y"].items():
        np.testing.assert_array_equal(y, 1 - abs((x * 2**d) % 2 - 1))  # in float64 all of it is exact


def test_a_shallow_network_needs_a_unit_for_each_piece(found: dict[str, Any]) -> None:
    assert found["deep units"] == 12
    for units, wrong in found["wrong"].items():
        assert wrong >= found["least"][units]
        assert (wrong == 0) == (units >= 64)
        assert (found["error"][units] <= 1e-20) == (units % 64 == 0), "64 units that bend in the right places"
    assert found["error"][32] > 0.99 / 12, "no better than the constant 1/2"


def test_trained_shallow_networks_are_bound_by_their_units_too(lecture: ModuleType) -> None:
    ends = np.linspace(0, 1, 33)[:, None]
    labels = lecture.sawtooth(5)(ends).to_numpy()
    rng = lamella.Generator(0)
    for units in (4, 16):
        model = lamella.models.mlp(1, units, 1, rng=rng).to(dtype="float64")
        optimizer = training.Adam(model.parameters(), lr=0.02)
        training.fit(model, (ends, labels), loss=L.mse_loss, optimizer=optimizer, epochs=300, rng=rng, progress=False)
        wrong = ((model(ends).to_numpy() > 0.5) != (labels > 0.5)).sum()
        assert wrong >= (2**5 - 1 - units) / 2
