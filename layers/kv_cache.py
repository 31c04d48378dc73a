"""A cache of keys and values: what a decoder has seen, kept, so that each new token is computed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..backend import Array, backend_for, backend_of, device
from .lengths import length


class KeyValues:
    """The keys and values of one attention, in two buffers that double when they are full.

    So n tokens are copied about 2 n times in all, and adding one costs nothing that grows with those before.

    Args:
        capacity: places to begin with, where it is known how many there will be.
        fixed: the first keys and values stay the only ones: those of an encoder's output, which are projected once.

    Attributes:
        length: places that are filled.
    """

    def __init__(self, capacity: int = 0, *, fixed: bool = False) -> None:
        self.length = 0
        self.fixed = fixed
        self._capacity = length("KeyValues", "capacity", capacity)
        self._buffers: tuple[Array, Array] | None = None

    @property
    def filled(self) -> bool:
        """Whether keys and values have been given, were they none."""
        return self._buffers is not None

    @property
    def capacity(self) -> int:
        """Places for which there is memory."""
        return self._capacity if self._buffers is None else int(self._buffers[0].shape[2])

    @property
    def keys(self) -> Array:
        """Shape ``(N, h, length, d)``, a view."""
        return self._filled(0)

    @property
    def values(self) -> Array:
        """Shape ``(N, h, length, d)``, a view."""
        return self._filled(1)

    def append(self, keys: Any, values: Any) -> tuple[Array, Array]:
        """Add places at the end; returns all keys and all values, as views that later places do not change.

        (After :meth:`truncate` they do.)

        Args:
            keys, values: shape ``(N, h, T, d)``; N, h, d, dtype and device as at the first call. d of the values may
                be another one than that of the keys.
        Raises:
            ValueError: the shapes do not fit those before, or ``fixed`` ones are there already.
            RuntimeError: they want a gradient, which does not go through a cache: work under ``lamella.no_grad()``.
        """
        new = []
        for name, given in (("keys", keys), ("values", values)):
            if isinstance(given, Tensor):
                if given.requires_grad:
                    raise RuntimeError(
                        f"KeyValues.append: {name} must not want a gradient, which does not go through a cache; "
                        "work under lamella.no_grad()"
                    )
                given = given.data
            new.append(given)
        k, v = new
        if k.ndim != 4 or k.shape[:3] != v.shape[:3]:
            raise ValueError(
                f"KeyValues.append: keys and values must have shape (N, h, T, d), got {k.shape}, {v.shape}"
            )
        if self.fixed and self._buffers is not None:
            raise ValueError(f"KeyValues.append: fixed keys and values must be given once, got {k.shape[2]} more")
        start, stop = self.length, self.length + k.shape[2]
        buffers = self._room(k, v, stop)
        for buffer, given in zip(buffers, (k, v), strict=True):
            buffer[:, :, start:stop] = given
        self.length = stop
        return self.keys, self.values

    def reorder(self, rows: Any) -> None:
        """Sequence i becomes what sequence ``rows[i]`` was; rows may come several times, or not at all.

        Args:
            rows: integers on the host, as many as there will be sequences.
        """
        if self._buffers is None:
            return
        backend = backend_of(self._buffers[0])
        place = backend.device_of(self._buffers[0])
        host, count = backend_for(device("cpu")).xp.asarray(rows), self._buffers[0].shape[0]
        if host.ndim != 1 or (host.size and host.dtype.kind not in "iu"):
            raise TypeError(f"KeyValues.reorder: rows must be a list of integers, got {rows!r}")
        if host.size and not 0 <= host.min() <= host.max() < count:
            raise ValueError(f"KeyValues.reorder: rows must be in 0 … {count - 1}, got {host.tolist()}")
        index = backend.from_numpy(host.astype("int64"), place)
        keys, values = (backend.xp.take(buffer, index, axis=0) for buffer in self._buffers)
        self._buffers = keys, values

    def truncate(self, places: int) -> None:
        """Forget all but the first ``places`` places; the memory stays for others."""
        places = length("KeyValues.truncate", "places", places)
        if places > self.length:
            raise ValueError(f"KeyValues.truncate: places must be at most {self.length}, which are kept, got {places}")
        self.length = places

    def _filled(self, which: int) -> Array:
        if self._buffers is None:
            raise ValueError("KeyValues: nothing has been kept yet")
        return self._buffers[which][:, :, : self.length]

    def _room(self, k: Array, v: Array, places: int) -> tuple[Array, Array]:
        """The buffers, with at least so many places."""
        old = self._buffers
        if old is not None:
            for name, buffer, given in (("keys", old[0], k), ("values", old[1], v)):
                expected, got = (buffer.shape[:2], buffer.shape[3]), (given.shape[:2], given.shape[3])
                if expected != got or buffer.dtype != given.dtype:
                    raise ValueError(
                        f"KeyValues.append: {name} must be {buffer.dtype} of shape (N, h, T, d) with the N, h and d "
                        f"of those before, {(*expected[0], expected[1])}, got {given.dtype} of {given.shape}"
                    )
            if places <= old[0].shape[2]:
                return old
        capacity = max(places, self._capacity if old is None or self.fixed else 2 * old[0].shape[2])
        backend = backend_of(k)
        place = backend.device_of(k)
        found = []
        for i, given in enumerate((k, v)):
            buffer = backend.empty((*given.shape[:2], capacity, given.shape[3]), given.dtype, place)
            if old is not None:
                buffer[:, :, : self.length] = old[i][:, :, : self.length]
            found.append(buffer)
        self._buffers = found[0], found[1]
        return self._buffers


class LayerCache:
    """What one layer of a decoder keeps.

    Attributes:
        self_attn: keys and values of the tokens so far.
        multihead_attn: those of the encoder's output, projected once; empty in a model without an encoder.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.self_attn = KeyValues(capacity)
        self.multihead_attn = KeyValues(fixed=True)


class KVCache:
    """What a decoder keeps of the tokens that it was given, so that the next call is given only the new ones.

    ::

        cache = L.KVCache()
        with lamella.no_grad():
            logits = model(prompt, cache=cache)  # (N, T, V)
            logits = model(token, cache=cache)  # (N, 1, V): one more token after the T

    Args:
        capacity: tokens to make room for at once, where it is known how many there will be; there may be more.
    """

    def __init__(self, capacity: int = 0) -> None:
        self._capacity = length("KVCache", "capacity", capacity)
        self._layers: list[LayerCache] = []

    @property
    def length(self) -> int:
        """How many tokens are kept."""
        return self._layers[0].self_attn.length if self._layers else 0

    def layer(self, number: int) -> LayerCache:
        """What layer ``number``, from 0, keeps; made when it is first asked for."""
        while len(self._layers) <= number:
            self._layers.append(LayerCache(self._capacity))
        return self._layers[number]

    def reorder(self, rows: Sequence[int] | Any) -> None:
        """Sequence i becomes what sequence ``rows[i]`` was, in all layers, as beam search needs it.

        Args:
            rows: integers on the host, as many as there will be sequences; one may come several times, or not at all.
        """
        for layer in self._layers:
            layer.self_attn.reorder(rows)
            layer.multihead_attn.reorder(rows)

    def truncate(self, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens, to go on from there in another way."""
        for layer in self._layers:
            layer.self_attn.truncate(tokens)

    @property
    def nbytes(self) -> int:
        """Memory of all buffers."""
        kept = (part for layer in self._layers for part in (layer.self_attn, layer.multihead_attn))
        return sum(buffer.nbytes for part in kept for buffer in part._buffers or ())

    def __repr__(self) -> str:
        return f"KVCache({self.length} tokens, {len(self._layers)} layers, {self.nbytes:,} bytes)"
