"""A small convolutional network that reads handwritten digits; its trained weights come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..backend import Generator
from ..layers import Sequential
from .convnet import convnet

WEIGHTS = Path(__file__).with_suffix(".safetensors")
_MEAN, _STD = 0.1307, 0.3081  # of the pixels of MNIST's 60,000 images


def digits_convnet(*, trained: bool = True, rng: Generator | None = None) -> Sequential:
    """Two convolutions of 5 x 5 with ReLU and pooling, a hidden layer, ten classes: 253,514 parameters.

    The weights learned from the first part of :func:`lamella.training.mnist5k`, by ``examples/images/digits.py``, and
    are stored as float16.

    Args:
        trained: with these weights, in evaluation mode, ready to predict; else drawn anew, to be trained.
        rng: draws the initial values and the dropout masks; a fresh generator by default.
    Returns:
        maps images ``(N, 1, 28, 28)`` of light digits on black, in [0, 1], to ``(N, 10)``.
    """
    network = convnet(hidden=64, dropout=0.25, rng=rng)
    model = Sequential(_standardized, *network)
    if not trained:
        return model
    from safetensors.numpy import load_file

    model.load_state_dict({name: value.astype("float32") for name, value in load_file(WEIGHTS).items()})
    model.eval()
    return model


def _standardized(x: Any) -> Any:
    return (x - _MEAN) / _STD
