"""Counter-based random numbers: Philox4x32-10, the same bits on every device.

A number is a function of (key, position), not of what was drawn before. So a dropout mask is stored as two integers,
a layer's stream does not depend on the layers before it, and a training run resumes bit for bit.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the constants and the round are theirs.
"""

from __future__ import annotations

import math
import os
from typing import Any

from .base import Array
from .device import Device
from .registry import backend_named

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF
_CHUNK = 1 << 14  # blocks computed at a time: the working set stays in the L2 cache
_CPU = Device("cpu")


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Ten rounds of Philox over counters: four words in, four random words out.

    Args:
        counter: four Python integers, or four uint64 arrays of one shape, each value below 2**32.
        key: two integers below 2**32.
    Returns:
        four words of the same kind as ``counter``, each below 2**32.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def random_bits(key: int, offset: int, count: int, device: Device = _CPU) -> Array:
    """Words ``offset … offset + count`` of a stream: word ``4 b + i`` is output ``i`` of counter ``b``.

    Args:
        key: the stream, an integer below 2**64.
        offset: position of the first word in the stream, below 2**66.
        count: number of words.
        device: where the result is made.
    Returns:
        uint32 array of shape ``(count,)``.
    """
    backend = backend_named(device.kind)
    xp = backend.xp
    first, last = offset // 4, -(-(offset + count) // 4)
    words = backend.empty((max(last - first, 0), 4), xp.uint32, device)
    chunk = _CHUNK if device.kind == "cpu" else max(last - first, 1)
    k = (key & _MASK, key >> 32 & _MASK)
    for start in range(first, last, chunk):
        stop = min(start + chunk, last)
        index = xp.arange(stop - start, dtype=xp.uint64)
        low = index + (start & _MASK)  # may pass 2**32: the carry belongs to the second counter word
        outputs = philox4x32((low & _MASK, (low >> 32) + (start >> 32), 0, 0), k)
        for i in range(4):
            words[start - first : stop - first, i] = outputs[i]
    skip = offset - 4 * first
    return words.reshape(-1)[skip : skip + count]


def _hash(key: int, *path: int) -> int:
    """A new 64-bit key from a key and a path of integers, by Philox itself with a counter no stream uses."""
    for step in path:
        words = philox4x32((step & _MASK, step >> 32 & _MASK, 1, 0), (key & _MASK, key >> 32 & _MASK))
        key = words[0] | words[1] << 32
    return key


class Generator:
    """A stream of random numbers given by a seed: ``lamella.Generator(0)``.

    Bits, integers, uniforms and masks are bit-identical on every device. Normals are drawn on the host and moved,
    because logarithms and cosines differ between libraries in the last bit.

    Args:
        seed: a non-negative integer below 2**64; ``None`` takes one from the operating system.
    """

    __slots__ = ("_offset", "_seed")

    def __init__(self, seed: int | None = None) -> None:
        if seed is None:
            seed = int.from_bytes(os.urandom(8), "little")
        try:
            seed = seed.__index__()
        except AttributeError:
            raise TypeError(f"Generator: seed must be an integer or None, got {seed!r}") from None
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"Generator: seed must be in 0 … 2**64 - 1, got {seed}")
        self._seed = seed
        self._offset = 0

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, offset={self._offset})"

    @property
    def state(self) -> tuple[int, int]:
        """(seed, offset): all there is to store and to restore."""
        return self._seed, self._offset

    @state.setter
    def state(self, value: tuple[int, int]) -> None:
        self._seed, self._offset = (int(v) for v in value)

    def split(self, *path: int) -> Generator:
        """A stream of its own for a layer or a step; the same path always gives the same stream.

        Independent of how much has been drawn from this generator.
        """
        return Generator(_hash(self._seed, *path))

    def reserve(self, count: int) -> tuple[int, int]:
        """Take ``count`` words out of the stream without computing them: (key, offset) for :func:`random_bits`."""
        start = self._offset
        self._offset = start + count
        return self._seed, start

    def bits(self, shape: int | tuple[int, ...], *, device: str | Device = _CPU) -> Array:
        """Uniform 32-bit words, uint32."""
        shape = _as_shape(shape)
        count = math.prod(shape)
        return random_bits(*self.reserve(count), count, Device.parse(device)).reshape(shape)

    def uniform(
        self,
        shape: int | tuple[int, ...] = (),
        low: float = 0.0,
        high: float = 1.0,
        *,
        device: str | Device = _CPU,
    ) -> Array:
        """float32 in [low, high), one of 2**24 evenly spaced values."""
        device = Device.parse(device)
        xp = backend_named(device.kind).xp
        u = (self.bits(shape, device=device) >> 8).astype(xp.float32)
        u *= 2.0**-24
        if (low, high) != (0.0, 1.0):
            u *= high - low
            u += low
        return u

    def integers(
        self, low: int, high: int, shape: int | tuple[int, ...] = (), *, device: str | Device = _CPU
    ) -> Array:
        """int64 in [low, high); each value's probability is exact to 2**-64 times the width of the range."""
        if not high > low:
            raise ValueError(f"integers: high must be above low, got low={low}, high={high}")
        if high - low > 1 << 32:
            raise ValueError(f"integers: high - low must be at most 2**32, got {high - low}")
        device = Device.parse(device)
        xp = backend_named(device.kind).xp
        shape = _as_shape(shape)
        words = self.bits((*shape, 2), device=device).astype(xp.uint64)
        width = high - low
        # (64-bit word * width) >> 64, in two halves of 32 bits
        scaled = words[..., 1] * width + ((words[..., 0] * width) >> 32)
        return (scaled >> 32).astype(xp.int64) + low

    def normal(
        self,
        shape: int | tuple[int, ...] = (),
        mean: float = 0.0,
        std: float = 1.0,
        *,
        device: str | Device = _CPU,
    ) -> Array:
        """float32 normal numbers (Box and Muller 1958), drawn on the host in float64 and then moved."""
        shape = _as_shape(shape)
        device = Device.parse(device)
        xp = backend_named("cpu").xp
        count = math.prod(shape)
        pairs = -(-count // 2)
        words = self.bits((2, pairs)).astype(xp.float64)
        radius = xp.sqrt(-2.0 * xp.log((words[0] + 0.5) * 2.0**-32))
        angle = (2.0 * math.pi * 2.0**-32) * words[1]
        z = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])[:count]
        z = (z * std + mean).astype(xp.float32).reshape(shape)
        return z if device.kind == "cpu" else backend_named(device.kind).from_numpy(z, device)

    def permutation(self, length: int) -> Array:
        """A random order of ``0 … length - 1`` as int64 on the host: the order of one sort of random keys."""
        if length < 0:
            raise ValueError(f"permutation: length must not be negative, got {length}")
        xp = backend_named("cpu").xp
        words = self.bits((length, 2)).astype(xp.uint64)
        return xp.argsort(words[:, 0] << 32 | words[:, 1], stable=True)


def _as_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)
