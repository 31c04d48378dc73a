"""Images as networks trained on ImageNet expect them."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor
from ..backend import Array, backend_for, backend_of
from ..layers.lengths import length
from .augment import normalize

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def imagenet_images(x: Any, *, resize: int = 256, crop: int = 224) -> Any:
    """The shorter side resized to 256, the middle 224 x 224 cut out, colours brought to mean 0 and variance 1.

    torchvision's definition (``ImageClassification``): bilinear with antialiasing, so that each value of a smaller
    image is a mean over a triangle as wide as two of its pixels; mean (0.485, 0.456, 0.406) and standard deviation
    (0.229, 0.224, 0.225). Bytes are not rounded to bytes in between, which Pillow and torchvision do: up to 1 of 255.

    Args:
        x: RGB images, shape ``(N, 3, H, W)``, bytes or floating in [0, 1]; array or tensor. Of a file, with Pillow:
            ``np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)[None]``.
        resize, crop: lengths of the shorter side and of the window (pixels); torchvision gives others for some weights.
    Returns:
        shape ``(N, 3, crop, crop)``, float32 (float64 of float64), of the kind of ``x``.
    Raises:
        ValueError: the images are not of that shape, or ``crop`` is above ``resize``.
    """
    images = x.data if isinstance(x, Tensor) else x
    backend = backend_of(images)
    if images.ndim != 4 or images.shape[1] != 3 or not min(images.shape[2:]):
        raise ValueError(f"imagenet_images: x must be RGB images of shape (N, 3, H, W), got {images.shape}")
    if images.dtype != "uint8" and images.dtype.kind != "f":
        raise TypeError(f"imagenet_images: x must be uint8 or floating, got {images.dtype}")
    resize, crop = length("imagenet_images", "resize", resize, 1), length("imagenet_images", "crop", crop, 1)
    if crop > resize:
        raise ValueError(f"imagenet_images: crop must be at most resize, got crop={crop}, resize={resize}")
    dtype = "float64" if images.dtype == "float64" else "float32"
    device, sides = backend.device_of(images), images.shape[2:]
    rows, columns = (
        backend.from_numpy(_window(n, int(resize * n / min(sides)), crop).astype(dtype), device) for n in sides
    )
    values = images.astype(dtype)
    if images.dtype == "uint8":
        values /= 255
    found = normalize(rows @ (values @ columns.T), _MEAN, _STD)  # (N, 3, crop, W), then (N, 3, crop, crop)
    return Tensor(found) if isinstance(x, Tensor) else found


def _window(n: int, out: int, crop: int) -> Array:
    """How much each of ``n`` pixels counts for each of the middle ``crop`` of ``out``; shape ``(crop, n)``, float64."""
    xp = backend_for("cpu").xp
    scale = n / out
    first = round((out - crop) / 2)
    place = (xp.arange(first, first + crop) + 0.5) * scale
    weights = xp.maximum(0.0, 1.0 - abs(xp.arange(n) + 0.5 - place[:, None]) / max(scale, 1.0))
    return weights / weights.sum(axis=1, keepdims=True)
