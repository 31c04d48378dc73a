"""What a classifier gets right: accuracy, top-k accuracy, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor, is_floating
from ..backend import Array, Backend, backend_for, backend_of
from ..layers.lengths import length

_MOST_CLASSES = 20_000  # of a matrix of counts: 3 GiB; a label beyond is rather a mistake


def accuracy(predicted: Any, labels: Any) -> float:
    """The share of examples whose class was predicted, in [0, 1].

    Args:
        predicted: scores of shape ``(N, K)`` or ``(N, K, d1, …)``, floating, the greatest one counting (the first of
            equals); or the predicted classes, integers, of the labels' shape.
        labels: the true classes, integers, shape ``(N,)`` or ``(N, d1, …)``; on any device.
    Raises:
        ValueError: shapes do not fit, or there are no examples. TypeError: labels are not integers.
    """
    classes, true = classes_of("accuracy", predicted, labels)
    if true.size == 0:
        raise ValueError("accuracy: there must be at least one example, got none")
    return float((classes == true).mean())


def top_k_accuracy(scores: Any, labels: Any, k: int = 5) -> float:
    """The share of examples whose class is among the k with the greatest scores; a NaN score is never among them.

    Of equal scores, those of higher classes come first, as in scikit-learn.

    Args:
        scores: shape ``(N, K)``, floating; labels: the true classes, integers, shape ``(N,)``; on any device.
        k: at least 1; from K on every answer is right.
    """
    k = length("top_k_accuracy", "k", k, 1)
    values, true = as_host("top_k_accuracy", "scores", scores), as_host("top_k_accuracy", "labels", labels)
    if not is_floating(values.dtype):
        raise TypeError(f"top_k_accuracy: scores must be floating, got {values.dtype}")
    classes_of("top_k_accuracy", values, true)  # the other checks
    if true.size == 0:
        raise ValueError("top_k_accuracy: there must be at least one example, got none")
    xp = backend_for("cpu").xp
    least, greatest = int(true.min()), int(true.max())
    if least < 0 or greatest >= values.shape[1]:
        wrong = least if least < 0 else greatest
        raise ValueError(f"top_k_accuracy: labels must be in 0 … {values.shape[1] - 1}, got {wrong}")
    values = xp.nan_to_num(values.astype("float64"), nan=-xp.inf, posinf=xp.inf, neginf=-xp.inf)
    best = xp.argsort(values, axis=1, kind="stable")[:, ::-1][:, :k]
    return float((best == true[:, None]).any(axis=1).mean())


def confusion_matrix(predicted: Any, labels: Any, num_classes: int | None = None) -> Array:
    """How often each true class (row) was taken for each class (column).

    Args:
        predicted, labels: as for :func:`accuracy`.
        num_classes: K; by default the number of scores, or one more than the greatest class that occurs.
    Returns:
        int64 array on the host, shape ``(K, K)``; its sum is the number of examples.
    Raises:
        ValueError: a class is negative or not below ``num_classes``, or K is above 20,000.
    """
    xp = backend_for("cpu").xp
    classes, true, num_classes = flat_classes("confusion_matrix", predicted, labels, num_classes)
    if num_classes > _MOST_CLASSES:
        raise ValueError(
            f"confusion_matrix: num_classes must be at most {_MOST_CLASSES}, got {num_classes}; number the classes "
            "from 0, without gaps"
        )
    pairs = xp.bincount(true * num_classes + classes, minlength=num_classes * num_classes)
    return pairs.reshape(num_classes, num_classes)


def format_confusion_matrix(matrix: Array, names: Sequence[str] | None = None) -> str:
    """The matrix as text: a row for each true class, a column for each predicted one, · for 0.

    Args:
        matrix: from :func:`confusion_matrix`.
        names: of the classes; by default their numbers.
    """
    if not hasattr(matrix, "tolist") or matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        got = matrix.shape if hasattr(matrix, "shape") else type(matrix).__name__
        raise ValueError(f"format_confusion_matrix: matrix must be an array of shape (K, K), got {got}")
    names = [str(i) for i in range(len(matrix))] if names is None else [str(name) for name in names]
    if len(names) != len(matrix):
        raise ValueError(f"format_confusion_matrix: names must be {len(matrix)}, one for each class, got {len(names)}")
    cells = [["·" if n == 0 else str(n) for n in row] for row in matrix.tolist()]
    width = max((len(text) for text in [*names, *(cell for row in cells for cell in row)]), default=0)
    left = max(map(len, ["true", *names]))
    lines = [f"{'':>{left}}   predicted", f"{'true':>{left}}   " + " ".join(f"{name:>{width}}" for name in names)]
    lines += [
        f"{name:>{left}}   " + " ".join(f"{cell:>{width}}" for cell in row)
        for name, row in zip(names, cells, strict=True)
    ]
    return "\n".join(lines)


def classes_of(caller: str, predicted: Any, labels: Any) -> tuple[Array, Array]:
    """Predicted and true classes as plain arrays of one shape on one device."""
    guess, backend = _plain(caller, "predicted", predicted)
    true, other = _plain(caller, "labels", labels)
    if true.dtype.kind not in "iu":
        raise TypeError(f"{caller}: labels must be integers, got {true.dtype}")
    if is_floating(guess.dtype):
        if not scores_fit(guess, true):
            raise ValueError(
                f"{caller}: scores must have shape (N, K, …) and labels (N, …), got {guess.shape} and {true.shape}"
            )
        guess = backend.xp.argmax(guess, axis=1)
    elif guess.dtype.kind not in "iu":
        raise TypeError(f"{caller}: predicted must be floating scores or integer classes, got {guess.dtype}")
    elif guess.shape != true.shape:
        raise ValueError(
            f"{caller}: predicted and labels must have one shape, got {guess.shape} and {true.shape}"
        )
    if backend.device_of(guess) != other.device_of(true):  # the result is read on the host anyway
        guess, true = backend.to_numpy(guess), other.to_numpy(true)
    return guess, true


def flat_classes(
    caller: str, predicted: Any, labels: Any, num_classes: int | None = None
) -> tuple[Array, Array, int]:
    """Predicted and true classes, each int64 of shape ``(N,)`` on the host, and K, below which all of them are."""
    classes, true = classes_of(caller, predicted, labels)
    classes, true = (backend_of(a).to_numpy(a).reshape(-1).astype("int64") for a in (classes, true))
    greatest = max(int(classes.max(initial=-1)), int(true.max(initial=-1)))
    least = min(int(classes.min(initial=0)), int(true.min(initial=0)))
    if num_classes is None:
        num_classes = predicted.shape[1] if is_floating(predicted.dtype) else greatest + 1
    num_classes = length(caller, "num_classes", num_classes)
    if least < 0 or greatest >= num_classes:
        raise ValueError(f"{caller}: classes must be in 0 … {num_classes - 1}, got {least if least < 0 else greatest}")
    return classes, true, num_classes


def scores_fit(scores: Any, labels: Any) -> bool:
    """Whether these are shapes ``(N, K, d1, …)`` and ``(N, d1, …)``, K at least 1."""
    shape = tuple(scores.shape)
    return len(shape) >= 2 and shape[1] > 0 and (shape[0], *shape[2:]) == tuple(labels.shape)


def as_host(caller: str, name: str, values: Any) -> Array:
    """An array or tensor of any device as a plain array on the host."""
    array, backend = _plain(caller, name, values)
    return backend.to_numpy(array)


def _plain(caller: str, name: str, values: Any) -> tuple[Array, Backend]:
    """The array of an argument, and its backend."""
    array = values.data if isinstance(values, Tensor) else values
    try:
        return array, backend_of(array)
    except TypeError as error:
        raise TypeError(f"{caller}: {name} must be an array or a tensor: {error}") from None
