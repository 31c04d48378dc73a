"""Where :func:`fit` takes its batches from: arrays, or anything that gives batches when it is walked through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

from ..autograd import Tensor
from ..backend import Array, Generator, is_array
from ..layers.lengths import length
from .data import Augment, augmented, examples, number_of_batches, on_device

Batch = tuple[Tensor, Tensor]


class ArrayFeed:
    """Batches of arrays, shuffled by a generator; each can be made again from its number.

    Args:
        caller: whom messages name.
        arrays: whose first axis counts the examples.
        batch_size: examples in a batch; the last may have fewer.
        augment: changes each batch of the first array, ``augment(x, rng)``; needs a generator in :meth:`start`.
    Attributes:
        steps: batches in an epoch.
        kept_bytes: 0, because no batch has to be kept.
    """

    kept_bytes = 0

    def __init__(
        self, caller: str, arrays: tuple[Any, ...], batch_size: int, augment: Augment | None = None
    ) -> None:
        self.arrays, self.length = examples(caller, arrays)
        self.size = batch_size
        self._caller, self._augment = caller, augment
        self._changes = Generator(0)  # a stream of its own for each batch is split from it
        self.steps = number_of_batches(self.length, batch_size)
        self._order: Any = None
        self._orders: dict[Any, Array] = {}  # the order, moved once to each device that needs it

    def start(self, epoch: int, rng: Generator | None) -> None:
        """Draw the epoch's order; None keeps that of the arrays."""
        self._order = None if rng is None else rng.permutation(self.length)
        self._orders = {}
        if self._augment is not None and rng is not None:
            self._changes = rng.spawn()

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        batch = self._batch(i)
        if self._augment is None:
            return batch
        return augmented(self._caller, self._augment, batch, self._changes.split(i))

    def _batch(self, i: int) -> tuple[Tensor, ...]:
        chunk = slice(i * self.size, min((i + 1) * self.size, self.length))
        if self._order is None:
            return tuple(Tensor(array[chunk]) for array in self.arrays)
        index = self._order
        return tuple(Tensor(a.take(on_device(self._orders, index, a)[chunk], axis=0)) for a in self.arrays)

    def walk(self, first: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """The epoch's batches from number ``first`` on."""
        return map(self.__getitem__, range(first, self.steps))

    def forget(self) -> None:
        """Batches so far will not be asked for again."""


class IterableFeed:
    """Batches ``(x, y)`` from an iterable that is walked through once an epoch.

    Args:
        caller: whom messages name.
        data: an iterable that can be walked through again and again; or a function of the epoch's number that gives
            one, such as a generator function.
    Attributes:
        steps: batches in an epoch, or None where ``data`` has no length.
        kept_bytes: bytes of batches that are kept until :meth:`forget`, so that they can be looked at again.
    """

    def __init__(self, caller: str, data: Iterable[Any] | Callable[[int], Iterable[Any]]) -> None:
        self._caller, self._data = caller, data
        self.steps: int | None = len(data) if isinstance(data, Sized) else None
        self._kept: dict[int, Batch] = {}
        self._epoch, self.kept_bytes = 0, 0

    def start(self, epoch: int, rng: Generator | None) -> None:
        self._epoch = epoch
        self.forget()

    def __getitem__(self, i: int) -> Batch:
        return self._kept[i]

    def walk(self, first: int = 0) -> Iterator[Batch]:
        data = self._data(self._epoch) if callable(self._data) else self._data
        batches = iter(data)
        if batches is data and not callable(self._data):
            raise TypeError(
                f"{self._caller}: data must be an iterable that can be walked through in every epoch, got "
                f"{type(data).__name__}; give a function of the epoch that makes it"
            )
        for i, batch in enumerate(batches):
            if i < first:
                continue
            pair = as_pair(self._caller, batch)
            self._kept[i] = pair
            self.kept_bytes += pair[0].nbytes + pair[1].nbytes
            yield pair

    def forget(self) -> None:
        self._kept, self.kept_bytes = {}, 0


def feed(
    caller: str, name: str, data: Any, batch_size: int, augment: Augment | None = None
) -> ArrayFeed | IterableFeed:
    """The batches of ``data``: a pair of arrays or tensors, an iterable of pairs, or a function that gives one."""
    batch_size = length(caller, "batch_size", batch_size, 1)
    if augment is not None and not callable(augment):
        raise TypeError(f"{caller}: augment must be a function augment(x, rng), got {augment!r}")
    if is_pair(data):
        return ArrayFeed(caller, tuple(data), batch_size, augment)
    if augment is not None:
        raise ValueError(
            f"{caller}: augment needs {name} to be a pair (x, y) of arrays; change batches where you make them"
        )
    listed = isinstance(data, (tuple, list))
    if (
        isinstance(data, (Tensor, str, bytes, Mapping))
        or is_array(data)
        or not (callable(data) or hasattr(data, "__iter__"))
        or (listed and any(not isinstance(part, tuple) and not is_pair(part) for part in data))
    ):
        got = type(data).__name__
        if listed:
            parts = ", ".join(type(part).__name__ for part in data[:3])
            got = f"{got} of {parts}; lamella.tensor makes tensors of lists"
        raise TypeError(
            f"{caller}: {name} must be a pair (x, y) of arrays, an iterable of such batches, or a function of the "
            f"epoch that gives one, got {got}"
        )
    if listed:
        for batch in data:
            as_pair(caller, batch)
    return IterableFeed(caller, data)


def as_pair(caller: str, batch: Any) -> Batch:
    """A batch as two tensors of one length."""
    if not is_pair(batch):
        what = type(batch).__name__
        raise TypeError(f"{caller}: each batch must be a pair (x, y) of arrays or tensors, got {what}")
    x, y = (part if isinstance(part, Tensor) else Tensor(part) for part in batch)
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError(f"{caller}: x and y of a batch must have an axis of examples, got {x.shape} and {y.shape}")
    if len(x) != len(y):
        raise ValueError(f"{caller}: x and y of a batch must have one length, got {len(x)} and {len(y)}")
    return x, y


def is_pair(value: Any) -> bool:
    """Whether this is (x, y), two arrays or tensors."""
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(part, Tensor) or is_array(part) for part in value)
    )
