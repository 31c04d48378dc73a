"""The multilayer perceptron."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from ..backend import Generator, as_generator
from ..layers import Dropout, Linear, Module, ReLU, Sequential
from ..layers.drop import check_probability


def mlp(
    *features: int,
    activation: Callable[[], Any] = ReLU,
    dropout: float = 0.0,
    rng: Generator | None = None,
) -> Sequential:
    """Linear layers with an activation after each but the last: ``mlp(9, 16, 8, 1)`` has 305 parameters.

    Args:
        features: lengths of the input, of each hidden layer and of the output; at least two.
        activation: makes the activation module, such as ``layers.Tanh``.
        dropout: probability of dropping a hidden value, after each activation; 0 puts no dropout layer in.
        rng: draws the initial values and the dropout masks; a fresh generator by default.
    Returns:
        a Sequential that maps ``(..., features[0])`` to ``(..., features[-1])``.
    Raises:
        ValueError: fewer than two lengths.
    """
    if len(features) < 2:
        raise ValueError(f"mlp: features must be at least two lengths, input and output, got {features}")
    if not callable(activation) or isinstance(activation, Module):
        raise TypeError(f"mlp: activation must make a module, such as layers.Tanh, got {activation!r}")
    dropout, rng = check_probability("mlp", dropout, "dropout"), as_generator("mlp", rng)
    modules: list[Any] = []
    for i, (before, after) in enumerate(pairwise(features)):
        modules.append(Linear(before, after, rng=rng))
        if i < len(features) - 2:
            modules.append(activation())
            if dropout:
                modules.append(Dropout(dropout, rng=rng.spawn()))
    return Sequential(*modules)
