"""Images changed at random, each in its own way, so that a network sees the same picture but never the same pixels.

Functions of a batch and a generator; a function of both is what ``fit`` and ``batches`` take as ``augment``::

    def augment(x, rng):
        return random_flip(random_crop(x, 28, padding=2, rng=rng), rng=rng)

Draws come from the generator's counter: the same images on every device, and again after an interrupted run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..backend import Array, Backend, Device, Generator, as_generator, backend_for, backend_of
from ..layers.lengths import length
from ..layers.real import real


def random_flip(x: Any, *, rng: Generator, p: float = 0.5) -> Any:
    """Mirror images left to right, each with probability ``p``.

    Args:
        x: images, shape ``(N, C, H, W)``; array or tensor.
        rng: draws one number for each image.
        p: the probability.
    Returns:
        of the kind, shape and dtype of ``x``, without gradient.
    """
    images, backend, device = _batch("random_flip", x)
    p = real("random_flip", "p", p)
    if not 0 <= p <= 1:
        raise ValueError(f"random_flip: p must be in 0 … 1, got {p}")
    flipped = as_generator("random_flip", rng).uniform(len(images), device=device) < p  # (N,)
    return _as_given(x, backend.xp.where(flipped[:, None, None, None], images[..., ::-1], images))


def random_crop(
    x: Any, size: int | Sequence[int], *, rng: Generator, padding: int | Sequence[int] = 0, fill: float = 0.0
) -> Any:
    """Cut a window out of each image, at its own place, after a border of ``padding`` pixels is put around it.

    Every place at which the window fits is equally probable.

    Args:
        x: images, shape ``(N, C, H, W)``; array or tensor.
        size: height and width of the window (pixels), or one number for both.
        rng: draws two numbers for each image.
        padding: of rows and of columns on either side (pixels), or one number for both.
        fill: the value of the border.
    Returns:
        shape ``(N, C, *size)``, of the kind and dtype of ``x``, without gradient.
    Raises:
        ValueError: the window is larger than image and border together.
    """
    images, backend, device = _batch("random_crop", x)
    (h, w), (rows, columns) = _pair("random_crop", "size", size, 1), _pair("random_crop", "padding", padding)
    number, _, height, width = images.shape
    down, right = height + 2 * rows - h, width + 2 * columns - w  # the last places
    if down < 0 or right < 0:
        raise ValueError(
            f"random_crop: size must be at most image and padding, {height + 2 * rows} x {width + 2 * columns}, got "
            f"{h} x {w}"
        )
    fill = _filling("random_crop", fill, images)
    rng = as_generator("random_crop", rng)
    top = rng.integers(0, down + 1, number, device=device)
    left = rng.integers(0, right + 1, number, device=device)
    if rows or columns:
        border = backend.xp.full(
            (number, images.shape[1], height + 2 * rows, width + 2 * columns), fill, dtype=images.dtype
        )
        border[:, :, rows : rows + height, columns : columns + width] = images
        images = border
    return _as_given(x, _windows(backend, images, top, left, h, w))


def random_shift(x: Any, pixels: int | Sequence[int], *, rng: Generator, fill: float = 0.0) -> Any:
    """Move each image by at most so many pixels up or down and left or right: what leaves it is lost.

    The same as :func:`random_crop` of the image's size with so much padding.

    Args:
        x: images, shape ``(N, C, H, W)``; array or tensor.
        pixels: the most rows and columns, or one number for both.
        rng: draws two numbers for each image.
        fill: the value of what comes in.
    """
    images, _, _ = _batch("random_shift", x)
    pixels = _pair("random_shift", "pixels", pixels)
    return random_crop(x, images.shape[2:], rng=rng, padding=pixels, fill=fill)


def cutout(x: Any, size: int | Sequence[int], *, rng: Generator, fill: float = 0.0) -> Any:
    """Blank a rectangle of each image; its centre is any pixel, so near the edge a part of it is outside.

    Args:
        x: images, shape ``(N, C, H, W)``; array or tensor.
        size: height and width of the rectangle (pixels), or one number for both.
        rng: draws two numbers for each image.
        fill: the value put in.
    Source: DeVries and Taylor 2017, arXiv 1708.04552.
    """
    images, backend, device = _batch("cutout", x)
    h, w = _pair("cutout", "size", size)
    number, _, height, width = images.shape
    fill = _filling("cutout", fill, images)
    rng, xp = as_generator("cutout", rng), backend.xp
    inside = []
    for extent, n in ((h, height), (w, width)):
        first = rng.integers(0, n, (number, 1), device=device) - extent // 2  # (N, 1)
        places = xp.arange(n)
        inside.append((places >= first) & (places < first + extent))  # (N, n)
    blank = inside[0][:, None, :, None] & inside[1][:, None, None, :]  # (N, 1, H, W)
    return _as_given(x, xp.where(blank, xp.full((1, 1, 1, 1), fill, dtype=images.dtype), images))


def normalize(x: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """``(x - mean) / std`` with a mean and a standard deviation for each channel.

    Args:
        x: images, shape ``(N, C, H, W)``, floating; array or tensor.
        mean, std: C numbers each.
    Returns:
        of the kind, shape and dtype of ``x``, without gradient.
    """
    images, backend, device = _batch("normalize", x)
    if images.dtype.kind != "f":
        raise TypeError(f"normalize: x must be floating, got {images.dtype}; divide pixels by 255 before")
    channels = images.shape[1]
    numbers = []
    for name, given in (("mean", mean), ("std", std)):
        if not hasattr(given, "__len__") or len(given) != channels:
            raise ValueError(f"normalize: {name} must have one number for each of {channels} channels, got {given!r}")
        values = [real("normalize", name, value) for value in given]
        if name == "std" and min(values) <= 0:
            raise ValueError(f"normalize: std must be above 0, got {given!r}")
        host = backend_for("cpu").xp.asarray(values, dtype=images.dtype)
        numbers.append(backend.from_numpy(host, device).reshape(channels, 1, 1))
    return _as_given(x, (images - numbers[0]) / numbers[1])


def _windows(backend: Backend, images: Array, top: Array, left: Array, h: int, w: int) -> Array:
    """``images[n, :, top[n] : top[n] + h, left[n] : left[n] + w]`` for all n at once, by a flat index."""
    xp = backend.xp
    number, channels, height, width = images.shape
    plane = xp.arange(number * channels).reshape(number, channels, 1, 1) * (height * width)
    corner = (top * width + left)[:, None, None, None]
    inside = xp.arange(h)[:, None] * width + xp.arange(w)  # (h, w)
    return images.reshape(-1).take(plane + corner + inside)


def _batch(caller: str, x: Any) -> tuple[Array, Backend, Device]:
    """The images as an array, with its backend and device."""
    images = x.data if isinstance(x, Tensor) else x
    backend = backend_of(images)
    if images.ndim != 4:
        raise ValueError(f"{caller}: x must be images of shape (N, C, H, W), got {images.shape}")
    return images, backend, backend.device_of(images)


def _filling(caller: str, fill: float, images: Array) -> float:
    """The value of new pixels, which integers have to hold."""
    kind, bits = images.dtype.kind, 8 * images.dtype.itemsize
    if kind not in "bui":
        return fill
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if kind == "i" else (0, 1 if kind == "b" else 2**bits - 1)
    if not low <= real(caller, "fill", fill) <= high or fill != int(fill):
        raise ValueError(f"{caller}: fill must be a whole number in {low} … {high} for {images.dtype}, got {fill!r}")
    return fill


def _as_given(x: Any, images: Array) -> Any:
    return Tensor(images) if isinstance(x, Tensor) else images


def _pair(caller: str, name: str, value: int | Sequence[int], smallest: int = 0) -> tuple[int, int]:
    """Two numbers of pixels: of rows and of columns."""
    both = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(both) != 2:
        raise ValueError(f"{caller}: {name} must be one number or two, of rows and columns, got {value!r}")
    return length(caller, name, both[0], smallest), length(caller, name, both[1], smallest)
