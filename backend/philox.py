"""Counter-based random numbers: Philox4x32-10, the same bits on every device.

A number is a function of (key, position), not of what was drawn before. So a dropout mask is stored as two integers,
a layer's stream does not depend on the layers before it, and a training run resumes bit for bit.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the constants and the round are theirs.
"""

from __future__ import annotations

import math
import operator
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .base import Array, Backend
from .device import Device
from .registry import backend_named

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF
_CHUNK = 1 << 14  # blocks computed at a time: the working set stays in the L2 cache
_END = 1 << 66  # words of one stream: four from each of 2**64 counters
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


_bits_kernel: Callable[[int, int, int, Backend, Device], Array] | None = None


def set_bits_kernel(kernel: Callable[[int, int, int, Backend, Device], Array]) -> None:
    """Let CUDA devices make words by ``kernel(key, offset, count, backend, device)``: one launch, not a hundred."""
    global _bits_kernel
    _bits_kernel = kernel


def random_bits(key: int, offset: int, count: int, device: str | Device = _CPU) -> Array:
    """Words ``offset … offset + count`` of a stream: word ``4 b + i`` is output ``i`` of counter ``b``.

    Args:
        key: the stream, an integer below 2**64.
        offset: position of the first word in the stream; the stream ends at word 2**66.
        count: number of words.
        device: where the result is made.
    Returns:
        uint32 array of shape ``(count,)``.
    """
    if not 0 <= key < 1 << 64:
        raise ValueError(f"random_bits: key must be in 0 … 2**64 - 1, got {key}")
    if count < 0:
        raise ValueError(f"random_bits: count must not be negative, got {count}")
    if not 0 <= offset <= _END - count:
        raise ValueError(f"random_bits: offset must be in 0 … 2**66 - count, got offset={offset}, count={count}")
    device = Device.parse(device)
    backend = backend_named(device.kind)
    xp = backend.xp
    if not count:
        return backend.empty((0,), xp.uint32, device)
    if backend.runs_cuda and _bits_kernel is not None:
        return _bits_kernel(key, offset, count, backend, device)
    first, last = offset // 4, -(-(offset + count) // 4)  # blocks of four words
    words = backend.empty((last - first, 4), xp.uint32, device)
    length = min(last - first, _CHUNK) if device.kind == "cpu" else last - first
    work = [backend.empty((length,), xp.uint64, device) for _ in range(6)]
    for start in range(first, last, max(length, 1)):
        stop = min(start + length, last)
        c0, c1, c2, c3, p0, p1 = (array[: stop - start] for array in work)
        c0[...] = xp.arange(start & _MASK, (start & _MASK) + stop - start, dtype=xp.uint64)
        xp.right_shift(c0, 32, out=c1)  # the low counter word may pass 2**32: a carry for the second
        c0 &= _MASK
        c1 += start >> 32
        c2[...] = 0
        c3[...] = 0
        _rounds_in_place(xp, c0, c1, c2, c3, p0, p1, key)
        for i, output in enumerate((c0, c1, c2, c3)):
            words[start - first : stop - first, i] = output
    skip = offset - 4 * first
    return words.reshape(-1)[skip : skip + count]


def _rounds_in_place(
    xp: Any, c0: Array, c1: Array, c2: Array, c3: Array, p0: Array, p1: Array, key: int
) -> None:
    """:func:`philox4x32` written over its counters, with two arrays for the products: a sixth of its time."""
    k0, k1 = key & _MASK, key >> 32
    for _ in range(_ROUNDS):
        xp.multiply(c0, _MULTIPLIERS[0], out=p0)
        xp.multiply(c2, _MULTIPLIERS[1], out=p1)
        xp.right_shift(p1, 32, out=c0)
        c0 ^= c1
        c0 ^= k0
        xp.right_shift(p0, 32, out=c2)
        c2 ^= c3
        c2 ^= k1
        xp.bitwise_and(p1, _MASK, out=c1)
        xp.bitwise_and(p0, _MASK, out=c3)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK


def _hash(key: int, *path: int) -> int:
    """A new 64-bit key from a key and a path of integers, by Philox itself with a counter no stream uses."""
    for step in map(operator.index, path):  # a NumPy integer would overflow in the products
        words = philox4x32((step & _MASK, step >> 32 & _MASK, 1, 0), (key & _MASK, key >> 32 & _MASK))
        key = words[0] | words[1] << 32
    return key


class _Drawn(threading.local):
    log: list[tuple[int, int, int]] | None = None  # (seed, offset, count) of each draw, while remembering
    again: Iterator[tuple[int, int, int]] | None = None  # the draws to give once more, while repeating

    def next(self, seed: int, count: int) -> tuple[int, int]:
        before = next(self.again, None) if self.again is not None else None
        if before is None or (before[0], before[2]) != (seed, count):
            raise RuntimeError("a function that is computed again must draw the same random numbers as the first time")
        return before[0], before[1]


_drawn = _Drawn()


@contextmanager
def remember_draws() -> Iterator[list[tuple[int, int, int]]]:
    """Note every draw from every generator in this thread: ``with remember_draws() as draws``."""
    outer, _drawn.log = _drawn.log, []
    try:
        yield _drawn.log
    finally:
        if outer is not None:
            outer.extend(_drawn.log)
        _drawn.log = outer


def is_repeating() -> bool:
    """Whether a function is being computed again, in this thread: what it keeps of a batch is kept already."""
    return _drawn.again is not None


@contextmanager
def repeat_draws(draws: list[tuple[int, int, int]]) -> Iterator[None]:
    """Give the remembered draws once more, in their order; the generators themselves do not move."""
    outer, _drawn.again = _drawn.again, iter(draws)
    try:
        yield
    finally:
        _drawn.again = outer


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
            seed = operator.index(seed)
        except TypeError:
            raise TypeError(f"Generator: seed must be an integer or None, got {seed!r}") from None
        self.state = (seed, 0)

    def __repr__(self) -> str:
        return f"Generator(seed={self._seed}, offset={self._offset})"

    @property
    def state(self) -> tuple[int, int]:
        """Seed and offset, all there is to store and to restore."""
        return self._seed, self._offset

    @state.setter
    def state(self, value: tuple[int, int]) -> None:
        seed, offset = map(operator.index, value)
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"Generator: seed must be in 0 … 2**64 - 1, got {seed}")
        if not 0 <= offset <= _END:
            raise ValueError(f"Generator: offset must be in 0 … 2**66, got {offset}")
        self._seed, self._offset = seed, offset

    def split(self, *path: int) -> Generator:
        """A stream of its own for a layer or a step; the same path always gives the same stream.

        Independent of how much has been drawn from this generator. ``split(a, b)`` is ``split(a).split(b)``.
        """
        if not path:
            raise TypeError("Generator.split: path must name the new stream by at least one integer, got none")
        return Generator(_hash(self._seed, *path))

    def spawn(self) -> Generator:
        """A stream of its own for another user: each call gives another one, and takes two words from this stream."""
        return Generator(_hash(*self.reserve(2)))

    def reserve(self, count: int) -> tuple[int, int]:
        """Take ``count`` words out of the stream without computing them.

        Returns:
            ``(key, offset)`` for :func:`lamella.backend.random_bits`.
        """
        count = operator.index(count)
        if _drawn.again is not None:
            return _drawn.next(self._seed, count)
        start, end = self._offset, self._offset + count
        if not start <= end <= _END:
            raise ValueError(f"Generator.reserve: count must be in 0 … {_END - start}, got {count}")
        self._offset = end
        if _drawn.log is not None:
            _drawn.log.append((self._seed, start, count))
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
        """float32 ``low + (high - low) * u`` with u one of the 2**24 evenly spaced values in [0, 1).

        As in NumPy's float32, rounding may give ``high`` itself where the range does not start at 0.
        """
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
        low, high = operator.index(low), operator.index(high)
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
        words, z = self.bits((2, pairs)), xp.empty((2, pairs), xp.float32)
        for start in range(0, pairs, _CHUNK):
            part = slice(start, min(start + _CHUNK, pairs))
            radius = (words[0, part] + 0.5) * 2.0**-32
            xp.log(radius, out=radius)
            radius *= -2.0
            xp.sqrt(radius, out=radius)
            angle = words[1, part] * (2.0 * math.pi * 2.0**-32)
            for row, wave in enumerate((xp.cos, xp.sin)):
                z[row, part] = radius * wave(angle) * std + mean
        z = z.reshape(-1)[:count].reshape(shape)
        return z if device.kind == "cpu" else backend_named(device.kind).from_numpy(z, device)

    def permutation(self, length: int) -> Array:
        """A random order of ``0 … length - 1`` as int64 on the host: the order of one sort of random keys."""
        if length < 0:
            raise ValueError(f"permutation: length must not be negative, got {length}")
        xp = backend_named("cpu").xp
        words = self.bits((length, 2)).astype(xp.uint64)
        return xp.argsort(words[:, 0] << 32 | words[:, 1], stable=True)


def as_generator(owner: str, rng: Any) -> Generator:
    """The generator given to ``owner``, or a fresh one for None.

    Raises:
        TypeError: it is neither, such as a seed.
    """
    if rng is None:
        return Generator()
    if not isinstance(rng, Generator):
        raise TypeError(f"{owner}: rng must be a lamella.Generator or None, got {rng!r}; Generator(seed) makes one")
    return rng


def _as_shape(shape: int | tuple[int, ...]) -> tuple[int, ...]:
    lengths = tuple(map(operator.index, shape)) if isinstance(shape, (tuple, list)) else (operator.index(shape),)
    if any(length < 0 for length in lengths):
        raise ValueError(f"shape must not hold negative lengths, got {shape}")
    return lengths
