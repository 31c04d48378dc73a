"""The pictures of a trained network: what it learned, what it takes for what, and where it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot

import lamella
from lamella import models
from lamella.interop import plot


def scores_of(model: Any, images: Any, batch: int = 500) -> np.ndarray:
    model.eval()
    with lamella.no_grad():
        return np.concatenate([model(images[i : i + batch]).to_numpy() for i in range(0, len(images), batch)])


def draw(
    folder: Path, stem: str, model: Any, history: Any, shown: Any, given: Any, labels: Any, classes: Any
) -> list[Path]:
    """Write the pictures; gives their files.

    Args:
        folder, stem: the files are ``folder/stem-….png``.
        model, history: trained, and how it went.
        shown, given: held-out images as people see them, and as the network takes them.
        labels, classes: their labels, and the classes' names.
    """
    scores = scores_of(model, given)
    drawn = {
        "curves": curves(history),
        "filters": filters(model),
        "confusion": confusion(scores, labels, classes),
        "mistakes": mistakes(scores, shown, labels, classes),
    }
    if hasattr(model, "features"):
        drawn["activation"] = activation(model, scores, shown, given, labels, classes)
    files = []
    for name, figure in drawn.items():
        files.append(folder / f"{stem}-{name}.png")
        figure.savefig(files[-1], dpi=110, bbox_inches="tight")
        pyplot.close(figure)
    return files


def curves(history: Any) -> Any:
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5))
    plot.loss_curves(history, ax=left).set_title("cross entropy")
    plot.loss_curves(history, ["validation_accuracy"], ax=right).set_title("share of held-out images read rightly")
    right.get_legend().remove()
    return figure


def filters(model: Any) -> Any:
    """The first convolution's weights."""
    first = next(module for module in model.modules() if type(module).__name__ == "Conv2d")
    figure, axis = pyplot.subplots(figsize=(6, 3.5))
    plot.filters(first, columns=8, ax=axis).set_title("filters of the first convolution")
    return figure


def confusion(scores: np.ndarray, labels: Any, classes: Any) -> Any:
    figure, axis = pyplot.subplots(figsize=(7, 7))
    right = (scores.argmax(axis=1) == labels).mean()
    plot.confusion_matrix(scores, labels, list(classes), ax=axis).set_title(f"{right:.2%} of {len(labels):,} are right")
    return figure


def mistakes(scores: np.ndarray, shown: Any, labels: Any, classes: Any, rows: int = 3, columns: int = 6) -> Any:
    """Those of which the network was surest."""
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    guesses = scores.argmax(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    worst = wrong[np.argsort(-odds[wrong, guesses[wrong]])][: rows * columns]
    figure, axes = pyplot.subplots(rows, columns, figsize=(1.7 * columns, 2.1 * rows))
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, worst, strict=False):
        axis.imshow(shown[i, 0], cmap="gray_r")
        axis.set_title(f"{classes[labels[i]]}\nas {classes[guesses[i]]} ({odds[i, guesses[i]]:.0%})", fontsize=8)
    figure.suptitle("surest mistakes", y=1.0)
    figure.tight_layout()
    return figure


def activation(model: Any, scores: np.ndarray, shown: Any, given: Any, labels: Any, classes: Any) -> Any:
    """For the first rightly read image of each class: what speaks for it (red) and against it (blue)."""
    right = scores.argmax(axis=1) == labels
    chosen = np.array([np.flatnonzero(right & (labels == label))[0] for label in np.unique(labels[right])])
    maps = models.class_activation_map(model, given[chosen], labels[chosen], size=shown.shape[2:]).to_numpy()
    figure, axes = pyplot.subplots(2, -(-len(chosen) // 2), figsize=(9, 4.2), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, i, values in zip(axes.flat, chosen, maps, strict=False):
        most = abs(values).max()
        axis.imshow(shown[i, 0], cmap="gray_r")
        axis.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.55)
        axis.set_title(classes[labels[i]], fontsize=9)
    figure.suptitle("where each class is seen (red speaks for it, blue against it)")
    return figure
