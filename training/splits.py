"""Which examples train and which judge: the split into two or three parts, and k folds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..backend import Array, Generator, as_generator, backend_for, backend_of
from ..layers.lengths import length as checked_length
from ..layers.real import real
from .data import examples, taken


def split(
    *arrays: Any, fractions: Sequence[float], rng: Generator | None, stratify: Any = None
) -> tuple[tuple[Any, ...], ...]:
    """Divide examples at random: ``(x, y), (x_test, y_test) = split(x, y, fractions=(0.8, 0.2), rng=rng)``.

    Args:
        arrays: arrays or tensors whose first axis counts the examples.
        fractions: the share of each part, above 0, summing to 1; two for training and test, three with validation.
        rng: draws the order; the same generator gives the same split on every device. None keeps the order, which
            suits time series and nothing that is sorted by class.
        stratify: labels, one for each example: each part then has every class in its share, up to one example, and up
            to three parts are as long as without labels; of four and more some may be one example longer or shorter.
    Returns:
        for each part a tuple with what was given, arrays as arrays and tensors as tensors; copies.
    Raises:
        ValueError: fractions do not sum to 1, a part would be empty, or numbers of examples differ.
    """
    data, length = examples("split", arrays)
    if isinstance(fractions, str) or not hasattr(fractions, "__iter__"):
        raise TypeError(f"split: fractions must be the share of each part, such as (0.8, 0.2), got {fractions!r}")
    fractions = [real("split", "each of fractions", fraction) for fraction in fractions]
    if not fractions or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"split: fractions must each be above 0 and sum to 1, got {tuple(fractions)}")
    xp = backend_for("cpu").xp
    order = xp.arange(length) if rng is None else as_generator("split", rng).permutation(length)
    total = sum(fractions)
    fractions = [fraction / total for fraction in fractions]
    ends = [round(sum(fractions[: i + 1]) * length) for i in range(len(fractions))]
    ends[-1] = length
    sizes = [stop - start for start, stop in zip([0, *ends], ends, strict=False)]
    if stratify is not None:
        (labels,), count = examples("split: stratify", (stratify,))
        if labels.ndim != 1 or count != length:
            raise ValueError(f"split: stratify must be one label for each of {length} examples, got {labels.shape}")
        part = _parts_by_class(backend_of(labels).to_numpy(labels)[order], fractions, sizes)
    else:
        part = xp.repeat(xp.arange(len(sizes)), sizes)
    parts = []
    for i, fraction in enumerate(fractions):
        index = order[part == i]
        if index.size == 0:
            raise ValueError(f"split: fraction {fraction} of {length} examples is an empty part")
        parts.append(tuple(taken(given, array, index) for given, array in zip(arrays, data, strict=True)))
    return tuple(parts)


def _parts_by_class(labels: Any, fractions: Sequence[float], sizes: Sequence[int]) -> Any:
    """The part of each example: of each class every part takes its share rounded down, or one example more.

    Which part takes one more is a matrix of zeros and ones with given sums of rows (what is left of each class) and of
    columns (what a part lacks); the greatest remainders among the classes that have most left go first, which finds
    one wherever there is one (Gale and Ryser 1957).
    """
    xp = backend_for("cpu").xp
    _, classes, counts = xp.unique(labels, return_inverse=True, return_counts=True)
    shares = counts[:, None] * xp.asarray(fractions)  # (classes, parts)
    taken_of = xp.floor(shares + 1e-9).astype("int64")
    remainder, more = shares - taken_of, xp.zeros(shares.shape, bool)
    lack = xp.asarray(sizes) - taken_of.sum(axis=0)
    for j in xp.flatnonzero(lack < 0):  # all its shares are whole, and the sizes' rounding left it one short
        room = (taken_of[:, j] > 0) & (counts - taken_of.sum(axis=1) < (lack >= 0).sum())
        taken_of[xp.flatnonzero(room)[:1], j] -= 1
    left = counts - taken_of.sum(axis=1)
    for j in xp.argsort(-lack, kind="stable"):
        first = xp.lexsort((-remainder[:, j], -left))[: max(0, int(lack[j]))]
        more[first[left[first] > 0], j] = True
        left = counts - (taken_of + more).sum(axis=1)
    for c in xp.flatnonzero(left):  # four parts or more, whose sizes no such matrix has
        free = xp.flatnonzero(~more[c] & (lack >= 0))
        more[c, free[xp.argsort(-remainder[c, free], kind="stable")[: left[c]]]] = True
    taken_of += more
    part = xp.empty(len(labels), "int64")
    part[xp.argsort(classes.reshape(-1), kind="stable")] = xp.repeat(
        xp.tile(xp.arange(len(sizes)), len(counts)), taken_of.reshape(-1)
    )
    return part


def train_validation_test_split(
    *arrays: Any,
    validation: float = 0.2,
    test: float = 0.2,
    rng: Generator | None,
    stratify: Any = None,
) -> tuple[tuple[Any, ...], ...]:
    """``train, validation, test = train_validation_test_split(x, y, rng=rng)``; each is a tuple ``(x, y)``.

    Choose by the validation part, and judge what was chosen once, by the test part.

    Args:
        arrays, rng, stratify: as for :func:`split`.
        validation, test: their shares, above 0 and together below 1.
    """
    caller = "train_validation_test_split"
    validation, test = real(caller, "validation", validation), real(caller, "test", test)
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ValueError(
            "train_validation_test_split: validation and test must be above 0 and together below 1, got "
            f"validation={validation}, test={test}"
        )
    return split(*arrays, fractions=(1.0 - validation - test, validation, test), rng=rng, stratify=stratify)


class KFold:
    """k folds: each example judges once and trains k − 1 times.

    Fold i is the i-th stretch of the order, the first N mod k folds with one example more, as in scikit-learn.

    Args:
        k: number of folds, at least 2.
        rng: draws the order, ``rng.permutation(N)``, anew in each call of :meth:`split`; None keeps it.
    """

    def __init__(self, k: int = 5, rng: Generator | None = None) -> None:
        self.k = checked_length(type(self).__name__, "k", k, 2)
        self.rng = None if rng is None else as_generator(type(self).__name__, rng)

    def split(self, x: Any, y: Any = None) -> Iterator[tuple[Array, Array]]:
        """For each fold the numbers of the examples that train and of those that judge: int64, ascending, on the host.

        Args:
            x: what has N examples along its first axis.
            y: labels, where folds are made from them.
        """
        if not hasattr(x, "__len__"):
            raise TypeError(f"{type(self).__name__}.split: x must have a length, got {type(x).__name__}")
        length = len(x)
        if length < self.k:
            raise ValueError(
                f"{type(self).__name__}: k must not be above the number of examples, got {self.k} > {length}"
            )
        xp = backend_for("cpu").xp
        order = xp.arange(length) if self.rng is None else self.rng.permutation(length)
        fold = xp.empty(length, "int64")
        fold[order] = self._folds(order, y)
        for i in range(self.k):
            yield xp.flatnonzero(fold != i), xp.flatnonzero(fold == i)

    def _folds(self, order: Array, y: Any) -> Array:
        """The fold of each example, in the order given."""
        xp, length = backend_for("cpu").xp, len(order)
        sizes = [length // self.k + (i < length % self.k) for i in range(self.k)]
        return xp.repeat(xp.arange(self.k), sizes)


class StratifiedKFold(KFold):
    """k folds in which every class has its share, up to one example; the folds are scikit-learn's for the same order.

    Args:
        k: number of folds, at least 2.
        rng: draws the order anew in each call of :meth:`split`; None keeps it.
    """

    def _folds(self, order: Array, y: Any) -> Array:
        if y is None:
            raise TypeError("StratifiedKFold: y must be the labels, got None")
        xp = backend_for("cpu").xp
        (labels,), length = examples("StratifiedKFold: y", (y,))
        if labels.ndim != 1 or length != len(order):
            raise ValueError(
                f"StratifiedKFold: y must be one label for each of {len(order)} examples, got {labels.shape}"
            )
        host = backend_of(labels).to_numpy(labels)[order]
        _, first, classes = xp.unique(host, return_index=True, return_inverse=True)
        classes = xp.argsort(xp.argsort(first))[classes]  # numbered as they appear
        counts = xp.bincount(classes)
        if counts.min() < self.k:
            raise ValueError(
                f"StratifiedKFold: k must not be above the size of the smallest class, got {self.k} > {counts.min()}"
            )
        in_order, fold = xp.sort(classes), xp.empty(length, "int64")
        shares = [xp.bincount(in_order[i :: self.k], minlength=len(counts)) for i in range(self.k)]  # (k, classes)
        for c in range(len(counts)):
            fold[classes == c] = xp.repeat(xp.arange(self.k), [share[c] for share in shares])
        return fold
