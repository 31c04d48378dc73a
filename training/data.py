"""Batches of examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..autograd import Tensor
from ..backend import Array, Generator, as_generator, backend_of
from ..layers.lengths import length as checked_length

Augment = Callable[[Tensor, Generator], Tensor]


def batches(
    *arrays: Any,
    batch_size: int,
    rng: Generator | None = None,
    drop_last: bool = False,
    augment: Augment | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """``for x, labels in batches(x_train, y_train, batch_size=64, rng=rng):`` one pass over the examples.

    Args:
        arrays: arrays or tensors on any device whose first axis counts the examples.
        batch_size: examples in a batch; the last batch may have fewer.
        rng: shuffles: the order is ``rng.permutation(N)``, the same on every device, and a new one in the next pass.
            None keeps the order, and then each batch is a view, not a copy.
        drop_last: leave out a last batch that would be smaller.
        augment: changes each batch of the first array: ``augment(x, rng)`` gives another of that length, such as
            ``lambda x, rng: random_flip(x, rng=rng)``. Needs ``rng``, from which each batch gets a stream of its own.
    Returns:
        an iterator of tuples of tensors, each on its array's device.
    Raises:
        TypeError: something given is neither an array nor a tensor.
        ValueError: nothing is given, numbers of examples differ, ``batch_size`` is below 1, or ``augment`` has no rng.
    """
    data, length = examples("batches", arrays)
    size = checked_length("batches", "batch_size", batch_size, 1)
    order = None if rng is None else as_generator("batches", rng).permutation(length)
    if augment is not None:
        if not callable(augment):
            raise TypeError(f"batches: augment must be a function augment(x, rng), got {augment!r}")
        if rng is None:
            raise ValueError("batches: augment needs rng to draw from, got rng=None")
        changes = rng.spawn()
    stop = length - length % size if drop_last else length

    def walk() -> Iterator[tuple[Tensor, ...]]:
        orders: dict[Any, Array] = {}  # the order, moved once to each device that needs it
        for first in range(0, stop, size):
            chunk = slice(first, min(first + size, length))
            if order is None:
                yield tuple(Tensor(array[chunk]) for array in data)
                continue
            batch = tuple(Tensor(array.take(on_device(orders, order, array)[chunk], axis=0)) for array in data)
            yield batch if augment is None else augmented("batches", augment, batch, changes.split(first // size))

    return walk()


def augmented(caller: str, augment: Augment, batch: tuple[Tensor, ...], rng: Generator) -> tuple[Tensor, ...]:
    """The batch with its first tensor changed."""
    x = augment(batch[0], rng)
    if not isinstance(x, Tensor) or x.ndim == 0 or len(x) != len(batch[0]):
        got = f"shape {x.shape}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{caller}: augment must give a tensor of {len(batch[0])} examples, got {got}")
    return (x, *batch[1:])


def number_of_batches(length: int, batch_size: int) -> int:
    """How many batches :func:`batches` makes of ``length`` examples."""
    return -(-length // batch_size)


def taken(given: Any, array: Array, index: Any) -> Any:
    """Examples by their numbers: a tensor of a tensor, an array of an array; a copy."""
    part = array.take(on_device({}, index, array), axis=0)
    return Tensor(part) if isinstance(given, Tensor) else part


def on_device(known: dict[Any, Array], index: Any, array: Array) -> Array:
    """A host index where ``array`` lives."""
    backend = backend_of(array)
    place = backend.device_of(array)
    if place not in known:
        known[place] = index if place.kind == "cpu" else backend.from_numpy(index, place)
    return known[place]


def examples(caller: str, arrays: tuple[Any, ...]) -> tuple[list[Array], int]:
    """The plain arrays and their common number of examples."""
    data = [array.data if isinstance(array, Tensor) else array for array in arrays]
    if not data:
        raise ValueError(f"{caller}: at least one array must be given, got none")
    for i, array in enumerate(data):
        try:
            backend_of(array)
        except TypeError as error:
            raise TypeError(f"{caller}: argument {i} must be an array or a tensor: {error}") from None
        if array.ndim == 0:
            raise ValueError(f"{caller}: argument {i} must have an axis of examples, got a 0-d array")
    lengths = [array.shape[0] for array in data]
    if len(set(lengths)) > 1:
        raise ValueError(f"{caller}: all arrays must have the same number of examples, got {lengths}")
    return data, lengths[0]
