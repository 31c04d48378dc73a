"""Batches of examples, and the split into training, validation and test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..autograd import Tensor
from ..backend import Array, Generator, backend_for, backend_of


def batches(
    *arrays: Any, batch_size: int, rng: Generator | None = None, drop_last: bool = False
) -> Iterator[tuple[Tensor, ...]]:
    """``for x, labels in batches(x_train, y_train, batch_size=64, rng=rng):`` one pass over the examples.

    Args:
        arrays: arrays or tensors on any device whose first axis counts the examples.
        batch_size: examples in a batch; the last batch may have fewer.
        rng: shuffles: the order is ``rng.permutation(N)``, the same on every device, and a new one in the next pass.
            None keeps the order, and then each batch is a view, not a copy.
        drop_last: leave out a last batch that would be smaller.
    Returns:
        an iterator of tuples of tensors, each on its array's device.
    Raises:
        TypeError: something given is neither an array nor a tensor.
        ValueError: nothing is given, numbers of examples differ, or ``batch_size`` is below 1.
    """
    data, length = _examples("batches", arrays)
    size = _checked_size("batches", batch_size)
    order = None if rng is None else rng.permutation(length)
    stop = length - length % size if drop_last else length

    def walk() -> Iterator[tuple[Tensor, ...]]:
        orders: dict[Any, Array] = {}  # the order, moved once to each device that needs it
        for first in range(0, stop, size):
            chunk = slice(first, min(first + size, length))
            if order is None:
                yield tuple(Tensor(array[chunk]) for array in data)
            else:
                yield tuple(Tensor(array.take(_on_device(orders, order, array)[chunk], axis=0)) for array in data)

    return walk()


def number_of_batches(length: int, batch_size: int) -> int:
    """How many batches :func:`batches` makes of ``length`` examples."""
    return -(-length // _checked_size("number_of_batches", batch_size))


def split(
    *arrays: Any, fractions: Sequence[float], rng: Generator | None, stratify: Any = None
) -> tuple[tuple[Any, ...], ...]:
    """Divide examples at random: ``(x, y), (x_test, y_test) = split(x, y, fractions=(0.8, 0.2), rng=rng)``.

    Args:
        arrays: arrays or tensors whose first axis counts the examples.
        fractions: the share of each part, above 0, summing to 1; two for training and test, three with validation.
        rng: draws the order; the same generator gives the same split on every device. None keeps the order, which
            suits time series and nothing that is sorted by class.
        stratify: labels, one for each example: each part then has every class in its share, up to one example.
    Returns:
        for each part a tuple with what was given, arrays as arrays and tensors as tensors; copies.
    Raises:
        ValueError: fractions do not sum to 1, a part would be empty, or numbers of examples differ.
    """
    data, length = _examples("split", arrays)
    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"split: fractions must each be above 0 and sum to 1, got {tuple(fractions)}")
    xp = backend_for("cpu").xp
    order = xp.arange(length) if rng is None else rng.permutation(length)
    if stratify is not None:
        (labels,), count = _examples("split: stratify", (stratify,))
        if labels.ndim != 1 or count != length:
            raise ValueError(f"split: stratify must be one label for each of {length} examples, got {labels.shape}")
        rank = _rank_in_class(backend_of(labels).to_numpy(labels)[order])
    else:
        rank = xp.arange(length)
    total, bounds = 0.0, [0]
    for fraction in fractions:
        total += fraction
        bounds.append(round(total * length))
    parts = []
    for fraction, start, stop in zip(fractions, bounds, bounds[1:], strict=False):
        if start == stop:
            raise ValueError(f"split: fraction {fraction} of {length} examples is an empty part")
        index = order[(rank >= start) & (rank < stop)]
        parts.append(tuple(_taken(given, array, index) for given, array in zip(arrays, data, strict=True)))
    return tuple(parts)


def _rank_in_class(labels: Any) -> Any:
    """Ranks 0 … N - 1 in which the classes follow each other evenly, each spread over the whole range."""
    xp = backend_for("cpu").xp
    _, classes, counts = xp.unique(labels, return_inverse=True, return_counts=True)
    by_class = xp.argsort(classes, kind="stable")
    first = xp.cumsum(counts) - counts
    quantile = xp.empty(len(labels), "float64")
    quantile[by_class] = (xp.arange(len(labels)) - first[classes[by_class]] + 0.5) / counts[classes[by_class]]
    rank = xp.empty(len(labels), "int64")
    rank[xp.argsort(quantile, kind="stable")] = xp.arange(len(labels))
    return rank


def _taken(given: Any, array: Array, index: Any) -> Any:
    part = array.take(_on_device({}, index, array), axis=0)
    return Tensor(part) if isinstance(given, Tensor) else part


def _on_device(known: dict[Any, Array], index: Any, array: Array) -> Array:
    """A host index where ``array`` lives."""
    backend = backend_of(array)
    place = backend.device_of(array)
    if place not in known:
        known[place] = index if place.kind == "cpu" else backend.from_numpy(index, place)
    return known[place]


def _examples(caller: str, arrays: tuple[Any, ...]) -> tuple[list[Array], int]:
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


def _checked_size(caller: str, batch_size: int) -> int:
    if not hasattr(batch_size, "__index__") or isinstance(batch_size, bool):
        raise TypeError(f"{caller}: batch_size must be an integer, got {batch_size!r}")
    if batch_size < 1:
        raise ValueError(f"{caller}: batch_size must be at least 1, got {batch_size}")
    return int(batch_size)
