"""In which order the values of images lie in memory; shapes are ``(N, C, ...)`` either way.

Contiguous: the last spatial axis runs fastest, each channel is a plane. Channels-last: the channels of a pixel lie
beside each other. An operation on images keeps the format of its input. Where both are the same memory (one channel,
or one pixel), an array counts as contiguous.
"""

from __future__ import annotations

from typing import Any

from .base import Array, Backend
from .registry import backend_of


def is_channels_last(x: Array) -> bool:
    """Whether an array ``(N, C, ...)`` of 3 axes or more has its channels beside each other, without gaps."""
    return bool(x.ndim > 2 and not x.flags.c_contiguous and pixels(x).flags.c_contiguous)


def pixels(x: Array) -> Array:
    """A view ``(N, ..., C)`` of an array ``(N, C, ...)``: C-contiguous where that is channels-last."""
    return x.transpose(0, *range(2, x.ndim), 1)


def planes(x: Array) -> Array:
    """A view ``(N, C, ...)`` of an array ``(N, ..., C)``: the inverse of :func:`pixels`."""
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def empty_images(backend: Backend, shape: tuple[int, ...], dtype: Any, device: Any, channels_last: bool) -> Array:
    """An uninitialised array of shape ``(N, C, ...)`` in one of the formats."""
    if not channels_last:
        return backend.empty(shape, dtype, device)
    return planes(backend.empty((shape[0], *shape[2:], shape[1]), dtype, device))


def in_format(x: Array, channels_last: bool) -> Array:
    """The array itself where it has this format, else a copy that has."""
    view = pixels(x) if channels_last else x
    if view.flags.c_contiguous:
        return x
    backend = backend_of(x)
    y = empty_images(backend, x.shape, x.dtype, backend.device_of(x), channels_last)
    y[...] = x
    return y
