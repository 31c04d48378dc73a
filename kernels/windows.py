"""Sliding windows along the spatial axes of ``(N, C, *lengths)``, as plain integers; 1-D, 2-D and 3-D alike."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, empty_images, is_channels_last


class Windows(NamedTuple):
    """Where a kernel stands, one number for each spatial axis.

    Attributes:
        kernel: the kernel's length.
        stride: from one window to the next.
        before, after: values added at both ends; negative ones are cut off.
        dilation: from one value of a window to the next.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """The values from a window's first to its last, both counted: ``d (k - 1) + 1``."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))

    @property
    def size(self) -> int:
        """How many values a window holds."""
        return math.prod(self.kernel)

    def counts(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """How many windows fit: ``floor((length + before + after - reach) / stride) + 1``; 0 or less if none does."""
        return tuple(
            (n + b + a - r) // s + 1
            for n, b, a, r, s in zip(lengths, self.before, self.after, self.reach, self.stride, strict=True)
        )

    def part(self, start: int, stop: int, length: int) -> tuple[slice, Windows]:
        """What windows ``start … stop - 1`` of the first axis see of its values, and these windows on that alone."""
        first = start * self.stride[0] - self.before[0]
        end = (stop - 1) * self.stride[0] - self.before[0] + self.reach[0]
        begin = min(max(first, 0), length)
        inside = slice(begin, max(min(end, length), begin))
        return inside, self._replace(
            before=(inside.start - first, *self.before[1:]), after=(end - inside.stop, *self.after[1:])
        )

    def overlap(self, lengths: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The values that an image and the padded image have in common: slices of the one, and of the other."""
        image, wide = [], []
        for n, b, a in zip(lengths, self.before, self.after, strict=True):
            start = max(-b, 0)
            count = max(n - start - max(-a, 0), 0)
            image.append(slice(start, start + count))
            wide.append(slice(max(b, 0), max(b, 0) + count))
        return tuple(image), tuple(wide)

    def padded_lengths(self, lengths: tuple[int, ...]) -> tuple[int, ...]:
        """The lengths with what is added at both ends."""
        return tuple(n + b + a for n, b, a in zip(lengths, self.before, self.after, strict=True))

    def places(self, counts: tuple[int, ...]) -> list[tuple[slice, ...]]:
        """For each position in the kernel, in C order, what all windows have there, as slices of the padded lengths."""
        return [
            tuple(
                slice(i * d, i * d + s * (c - 1) + 1, s)
                for i, d, s, c in zip(position, self.dilation, self.stride, counts, strict=True)
            )
            for position in product(*map(range, self.kernel))
        ]


def windows(function: str, kernel: tuple[int, ...], stride: Any = 1, padding: Any = 0, dilation: Any = 1) -> Windows:
    """Windows from what a caller writes.

    Args:
        function: whose arguments these are, for the messages.
        kernel: its lengths; says how many spatial axes there are.
        stride, dilation: an integer for all axes, or one for each.
        padding: the same, or a pair (before, after) for each axis, where a negative number cuts values off; or
            ``"valid"`` (none), or ``"same"``: as many windows as values at stride 1, an odd zero at the end.
    Raises:
        TypeError: not integers. ValueError: a number out of range, or not one for each axis.
    """
    axes = len(kernel)
    if any(k < 1 for k in kernel):
        raise ValueError(f"{function}: kernel_size must be at least 1, got {kernel}")
    stride = per_axis(function, "stride", stride, axes, 1)
    dilation = per_axis(function, "dilation", dilation, axes, 1)
    before: tuple[int, ...]
    after: tuple[int, ...]
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(f"{function}: padding must be integers, 'same' or 'valid', got {padding!r}")
        if padding == "same" and any(s != 1 for s in stride):
            raise ValueError(f"{function}: padding='same' needs stride 1, got stride={stride}")
        total = [d * (k - 1) * (padding == "same") for d, k in zip(dilation, kernel, strict=True)]
        before, after = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    elif isinstance(padding, (tuple, list)) and padding and isinstance(padding[0], (tuple, list)):
        pairs = [per_axis(function, "padding", pair, 2, None) for pair in padding]
        if len(pairs) != axes:
            raise ValueError(f"{function}: padding must have a pair for each of {axes} axes, got {padding}")
        before, after = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    else:
        before = after = per_axis(function, "padding", padding, axes, 0)
    return Windows(kernel, stride, before, after, dilation)


def per_axis(function: str, name: str, value: Any, axes: int, smallest: int | None = 0) -> tuple[int, ...]:
    """An integer for each axis, from one integer or a tuple of them.

    Raises:
        TypeError: not integers. ValueError: one is below ``smallest``, or not one for each axis.
    """
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    try:
        if any(isinstance(v, bool) for v in given):
            raise TypeError
        numbers = tuple(operator.index(v) for v in given)
    except TypeError:
        raise TypeError(f"{function}: {name} must be an integer or {axes} of them, got {value!r}") from None
    if len(numbers) == 1:
        numbers *= axes
    if len(numbers) != axes:
        raise ValueError(f"{function}: {name} must be an integer or {axes} of them, got {value!r}")
    if smallest is not None and any(n < smallest for n in numbers):
        raise ValueError(f"{function}: {name} must be at least {smallest}, got {value!r}")
    return numbers


def in_blocks(samples: int, rows: int, bytes_in_row: int, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Whole samples, or else rows of one sample, that need at most ``limit`` bytes (one row if need be).

    Yields:
        first sample, end, first row, end; rows are those of the first spatial axis of the result.
    """
    together = limit // max(1, rows * bytes_in_row)
    if together:
        for first in range(0, samples, together):
            yield first, min(first + together, samples), 0, rows
        return
    step = max(1, limit // max(1, bytes_in_row))
    for sample in range(samples):
        for row in range(0, rows, step):
            yield sample, sample + 1, row, min(row + step, rows)


def padded(backend: Backend, x: Array, geometry: Windows) -> Array:
    """``x`` with zeros around its spatial axes, or less of it where padding is negative; ``x`` itself where it is 0."""
    lengths = geometry.padded_lengths(x.shape[2:])
    image, inner = geometry.overlap(x.shape[2:])
    inside = x[(..., *image)]
    if inside.shape[2:] == lengths:
        return inside
    wide = empty_images(backend, (*x.shape[:2], *lengths), x.dtype, backend.device_of(x), is_channels_last(x))
    wide[...] = 0
    wide[(..., *inner)] = inside
    return wide


SKEW = 8  # values between pixels or planes that would else meet in a few lines of the CPU's cache
_TURNED = 128  # pixels brought into planes at a time


def turn(part: Any, out: Any) -> None:
    """``out[...] = part`` on the CPU, both ``(n, *lengths, C)``, where ``part`` may lie in planes.

    Planes that are a multiple of 1 KB apart are first moved apart, or the channels of a pixel would all meet in a few
    lines of the cache (measured: half the time at 32 x 32).
    """
    samples, lengths, channels = part.shape[0], part.shape[1:-1], part.shape[-1]
    if part.strides[-1] % 1024 or channels < SKEW:
        out[...] = part
        return
    size = math.prod(lengths)
    planes = np.empty((channels, size + SKEW), part.dtype)[:, :size].reshape(channels, *lengths)
    for i in range(samples):
        planes[...] = np.moveaxis(part[i], -1, 0)
        out[i] = np.moveaxis(planes, 0, -1)


def turn_back(made: Any, out: Any) -> None:
    """``out[...] = made`` on the CPU, both ``(n, rows, *lengths, F)``, where ``out`` may lie in planes.

    A few rows at a time: what is read across pixels is then still in the cache for the next plane.
    """
    few = max(1, _TURNED // max(1, math.prod(out.shape[2:-1])))
    if out.strides[-1] == out.itemsize:
        few = len(out[0])
    for image, into in zip(made, out, strict=True):
        for i in range(0, len(into), few):
            into[i : i + few] = image[i : i + few]
