"""Class-activation maps: values by hand, and what follows from their definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models
from lamella.backend import Device

X = np.array([[[[1, 2], [3, 4]], [[0, 1], [0, -1]]], [[[5, 0], [0, 0]], [[1, 1], [1, 1]]]], dtype="float32")
WEIGHT = np.array([[2, -1], [0, 3]], dtype="float32")


def tiny(device: Device | str = "cpu") -> L.Sequential:
    """The features are the image itself."""
    model = L.Sequential(L.Identity(), L.AdaptiveAvgPool2d(1), L.Flatten(), L.Linear(2, 2))
    model.load_state_dict({"3.weight": WEIGHT, "3.bias": np.zeros(2, "float32")})
    return model.to(device)


def test_map_of_a_class_is_the_weighted_sum_of_the_features(device: Device) -> None:
    x = lamella.tensor(X, device=device)
    found = models.class_activation_map(tiny(device), x, np.array([0, 1]))
    assert found.device == device
    np.testing.assert_array_equal(found.to_numpy(), [[[2, 3], [6, 9]], [[3, 3], [3, 3]]])


def test_without_labels_the_winning_class_is_mapped() -> None:
    # means (2.5, 0) and (1.25, 1): logits (5, 0) and (1.5, 3)
    np.testing.assert_array_equal(models.class_activation_map(tiny(), X), [[[2, 3], [6, 9]], [[3, 3], [3, 3]]])


@pytest.mark.parametrize(
    "model",
    [models.small_resnet(8, 5, 1, width=4, rng=lamella.Generator(0)),
     models.small_densenet(10, 4, 5, 1, rng=lamella.Generator(1))],
    ids=["resnet", "densenet"],
)  # fmt: skip
def test_the_mean_of_a_map_and_the_bias_are_the_logit(model: Any) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1, 12, 12)).astype("float32")
    model(x)  # moves the running statistics
    linear = model.fc if hasattr(model, "fc") else model.classifier
    for label in range(5):
        maps = models.class_activation_map(model, x, np.full(3, label)).to_numpy()
        assert maps.shape == (3, 3, 3)
        assert model.training
        logits = maps.mean(axis=(1, 2)) + linear.bias.to_numpy()[label]
        model.eval()
        np.testing.assert_allclose(logits, model(x).to_numpy()[:, label], rtol=1e-4, atol=1e-5)
        model.train()


def test_maps_are_interpolated_to_the_size_of_the_images() -> None:
    found = models.class_activation_map(tiny(), X[:1], np.array([0]), size=4).to_numpy()
    assert found.shape == (1, 4, 4)
    np.testing.assert_allclose(found[0, 0], [2, 2.25, 2.75, 3])  # a mean of the two beside the place
    np.testing.assert_allclose(found[0, :, 0], [2, 3, 5, 6])
    assert models.class_activation_map(tiny(), X, size=(3, 5)).shape == (2, 3, 5)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: models.class_activation_map(models.convnet(), X), TypeError, "must average features .* got Sequential"),
    (lambda: models.class_activation_map(L.Linear(2, 2), X), TypeError, "got Linear"),
    (lambda: models.class_activation_map(tiny(), X, np.array([0, 2])), ValueError, "one of 0 … 1 for each of 2 images"),
    (lambda: models.class_activation_map(tiny(), X, np.array([0])), ValueError, "for each of 2 images"),
    (lambda: models.class_activation_map(tiny(), X, np.array([0.0, 1.0])), TypeError, "array of integers"),
    (lambda: models.class_activation_map(tiny(), X, [0, 1]), TypeError, r"array of integers, got \[0, 1\]"),
    (lambda: models.class_activation_map(tiny(), X, size=0), ValueError, "size must be at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_what_cannot_be_mapped_is_said(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
