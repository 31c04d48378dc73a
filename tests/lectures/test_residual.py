"""The claims of ``examples/lectures/residual.py``."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("plain", 0, 1e-15), ("plain, He's scale", 1e-2, 1e2), ("residual", 0.1, 10), ("dense", 0.1, 10)],
)
def test_what_is_left_of_the_gradient_at_the_start(lecture: ModuleType, kind: str, low: float, high: float) -> None:
    x, y = lamella.training.digits()
    models = [lecture.network(kind, 50, lamella.Generator(seed)) for seed in range(3)]
    norms = np.array([lecture.gradient_norms(model, x[:200], y[:200]) for model in models])
    assert norms.shape == (3, 50)
    ratio = norms[:, 0] / norms[:, -1]
    assert (low < ratio).all()
    assert (ratio < high).all()


def test_a_block_of_zeros_is_the_identity(lecture: ModuleType) -> None:
    model = lecture.network("residual", 3, lamella.Generator(0))
    for block in model[1:-1]:
        for parameter in block.parameters():
            L.init.assign(parameter, L.init.zeros(parameter.shape))
    x = np.random.default_rng(0).random((5, 32)).astype("float32")
    np.testing.assert_array_equal(model[1:-1](x).to_numpy(), x)


def test_a_dense_network_keeps_what_it_found_and_has_fewer_parameters(lecture: ModuleType) -> None:
    plain, dense = (lecture.network(kind, 50, lamella.Generator(0)) for kind in ("plain", "dense"))
    assert dense.num_parameters() < 0.6 * plain.num_parameters()
    x = np.random.default_rng(0).random((5, 32)).astype("float32")
    after = [dense[1 : 1 + n](x).to_numpy() for n in (1, 50)]
    np.testing.assert_array_equal(after[1][:, :36], after[0])
    np.testing.assert_array_equal(after[1][:, :32], x)


@pytest.mark.slow
def test_depth_50_learns_with_connections_past_its_blocks_only(lecture: ModuleType) -> None:
    found: dict[str, Any] = lecture.measure(rng=lamella.Generator(0))
    last = {kind: runs["losses"][:, -1] for kind, runs in found.items()}  # of each seed
    np.testing.assert_allclose(last["plain"], math.log(10), atol=0.01)
    assert (last["plain, He's scale"] < 2.2).all()
    for kind in ("residual", "dense"):
        assert (last[kind] < 0.4).all()
        assert (last[kind] < last["plain, He's scale"] / 2).all()
