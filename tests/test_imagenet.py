"""Images for networks trained on ImageNet, beside torchvision's frozen results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import training
from lamella.backend import Device

FROZEN = np.load(Path(__file__).parent / "fixtures" / "imagenet.npz")
SIZES = {"resize": 33, "crop": 24}


@pytest.mark.parametrize("shape", ["37x50", "90x41", "16x16", "20x61"])
def test_images_are_prepared_as_torchvision_does(shape: str, device: Device) -> None:
    x = FROZEN[f"{shape}/x"]
    floats = lamella.tensor(x.astype("float32") / 255, device=device)
    found = training.imagenet_images(floats, **SIZES)
    assert found.device == device
    assert found.dtype == "float32"
    np.testing.assert_allclose(found.to_numpy(), FROZEN[shape], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("shape", ["37x50", "90x41", "16x16", "20x61"])
def test_bytes_differ_from_torchvision_by_its_rounding_only(shape: str) -> None:
    found = training.imagenet_images(FROZEN[f"{shape}/x"], **SIZES)
    assert abs(found - FROZEN[f"{shape}/bytes"]).max() <= 1.01 / 255 / 0.224
    np.testing.assert_allclose(found, FROZEN[shape], rtol=1e-4, atol=5e-5)


def test_by_default_224_pixels_of_256_are_kept() -> None:
    found = training.imagenet_images(FROZEN["default/x"])
    assert found.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(found[:, :, ::16, ::16], FROZEN["default"], rtol=1e-4, atol=5e-5)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: training.imagenet_images(np.ones((3, 8, 8), "float32")), ValueError, r"\(N, 3, H, W\), got \(3, 8, 8\)"),
    (lambda: training.imagenet_images(np.ones((1, 1, 8, 8), "float32")), ValueError, r"got \(1, 1, 8, 8\)"),
    (lambda: training.imagenet_images(np.ones((1, 3, 8, 8), int)), TypeError, "uint8 or floating, got int64"),
    (lambda: training.imagenet_images(np.ones((1, 3, 8, 8)), resize=4, crop=5), ValueError, "crop=5, resize=4"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS)
def test_other_images_are_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
