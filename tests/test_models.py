"""Whole networks have the shapes, parameters and behaviour that their names promise."""

from __future__ import annotations

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models


def test_mlp_9_16_8_1_has_305_parameters_and_an_activation_after_each_but_the_last() -> None:
    model = models.mlp(9, 16, 8, 1)
    assert model.num_parameters() == 305
    assert [type(part) for part in model] == [L.Linear, L.ReLU, L.Linear, L.ReLU, L.Linear]


def test_mlp_computes_the_nested_formula() -> None:
    model = models.mlp(4, 3, 2, activation=L.Tanh, rng=lamella.Generator(1))
    x = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)
    first, second = model[0], model[2]
    hidden = np.tanh(x @ first.weight.to_numpy().T + first.bias.to_numpy())
    expected = hidden @ second.weight.to_numpy().T + second.bias.to_numpy()
    np.testing.assert_allclose(model(x).to_numpy(), expected, rtol=1e-6, atol=1e-7)


def test_mlp_drops_hidden_values_in_training_only_and_in_each_layer_differently() -> None:
    model = models.mlp(4, 64, 64, 2, dropout=0.5, rng=lamella.Generator(1))
    drops = [part for part in model if isinstance(part, L.Dropout)]
    assert len(drops) == 2
    assert drops[0].rng.state != drops[1].rng.state
    x = np.ones((3, 4), np.float32)
    assert not np.array_equal(model(x).to_numpy(), model(x).to_numpy())
    model.eval()
    np.testing.assert_array_equal(model(x).to_numpy(), model(x).to_numpy())


def test_mlp_of_one_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mlp: features must be at least two lengths.*got \(4,\)"):
        models.mlp(4)
