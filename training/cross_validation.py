"""k-fold cross-validation: how good a way of training is, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..autograd import Parameter, Tensor
from ..backend import Generator, as_generator
from ..layers import Module
from .data import examples, taken
from .loop import Metric, evaluate, fit
from .optimizer import Optimizer
from .splits import KFold, StratifiedKFold


@dataclass
class CrossValidation:
    """The figures of each fold by name, ``result["accuracy"]``, and what they say together.

    Attributes:
        folds: for each fold its figures on the examples that did not train.
    """

    folds: list[dict[str, float]]

    def __getitem__(self, name: str) -> list[float]:
        return [fold[name] for fold in self.folds]

    @property
    def mean(self) -> dict[str, float]:
        """The mean over the folds, which is the estimate."""
        return {name: math.fsum(self[name]) / len(self.folds) for name in self.folds[0]}

    @property
    def variance(self) -> dict[str, float]:
        """The variance between folds, Σ (sᵢ − s̄)² / (k − 1)."""
        mean = self.mean
        return {
            name: math.fsum((score - mean[name]) ** 2 for score in self[name]) / (len(self.folds) - 1)
            for name in self.folds[0]
        }

    @property
    def standard_error(self) -> dict[str, float]:
        """That of the mean, √(variance / k).

        Too small, since the folds' training sets overlap (Bengio & Grandvalet 2004).
        """
        return {name: math.sqrt(value / len(self.folds)) for name, value in self.variance.items()}

    def __str__(self) -> str:
        error = self.standard_error
        return ", ".join(f"{name} {value:.4f} ± {error[name]:.4f}" for name, value in self.mean.items())


def cross_validate(
    make_model: Callable[[Generator], Module],
    data: tuple[Any, Any],
    k: int | KFold = 5,
    *,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimizer: Callable[[Iterator[Parameter]], Optimizer],
    epochs: int,
    rng: Generator | None = None,
    stratify: bool = False,
    metrics: Mapping[str, Metric] | None = None,
    batch_size: int = 64,
    **options: Any,
) -> CrossValidation:
    """Train k models, each on all folds but one, and judge each on the fold that it has not seen.

    Args:
        make_model: gives a fresh model; called with a generator for its weights, one for each fold.
        data: (x, y), arrays or tensors.
        k: number of folds; or a splitter, ours or scikit-learn's, whose ``split(x, y)`` gives numbers of examples.
        loss, metrics, epochs, batch_size: as for :func:`fit`.
        optimizer: makes one from parameters: ``lambda parameters: Adam(parameters, lr=1e-3)``.
        rng: from which folds, weights and shuffles are drawn, each by a stream of its own.
        stratify: whether each fold has every class of y in its share.
        options: more for :func:`fit`, such as ``schedule`` and ``clip_norm``.
    Returns:
        the figures of each fold, with their mean and variance.
    """
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        raise TypeError(f"cross_validate: data must be a pair (x, y) of arrays or tensors, got {type(data).__name__}")
    for name, value in (("make_model", make_model), ("loss", loss), ("optimizer", optimizer)):
        if not callable(value):
            raise TypeError(f"cross_validate: {name} must be a function, got {value!r}")
    arrays, _ = examples("cross_validate", tuple(data))
    rng = as_generator("cross_validate", rng)
    splitter: Any = k
    if isinstance(k, str) or not hasattr(k, "split"):
        splitter = (StratifiedKFold if stratify else KFold)(k, rng.split(0))
    x, y = data
    folds = []
    for i, (train, test) in enumerate(splitter.split(x, y)):
        own = rng.split(1, i)
        model = make_model(own.split(0))
        fit(
            model,
            (taken(x, arrays[0], train), taken(y, arrays[1], train)),
            loss=loss,
            optimizer=optimizer(model.parameters()),
            epochs=epochs,
            batch_size=batch_size,
            rng=own.split(1),
            **{"progress": False, **options},
        )
        held_out = taken(x, arrays[0], test), taken(y, arrays[1], test)
        folds.append(evaluate(model, held_out, loss=loss, metrics=metrics, batch_size=batch_size))
    return CrossValidation(folds)
