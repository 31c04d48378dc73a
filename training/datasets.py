"""Data to try things on, that comes with other packages: nothing is downloaded."""

from __future__ import annotations

from ..backend import Array


def digits() -> tuple[Array, Array]:
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
