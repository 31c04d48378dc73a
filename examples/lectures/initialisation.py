"""Initialisation: the weights at the start decide whether a deep network can learn at all.

- Units that start equal stay equal: same values, same gradients. With all weights 0 even the gradients are 0.
- Small weights (standard deviation 0.01): values and gradients fade from layer to layer, by a factor each.
- Large ones (1): tanh saturates at ±1 and passes no gradient; ReLU has no limit, and its values explode.
- Glorot's variance 2/(fan_in + fan_out) for tanh and He's 2/fan_in for ReLU keep both alive through fifty layers.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

STARTS = {
    "small, N(0, 0.01²)": lambda shape, rng: L.init.normal(shape, std=0.01, rng=rng),
    "large, N(0, 1)": lambda shape, rng: L.init.normal(shape, std=1.0, rng=rng),
    "Glorot": lambda shape, rng: L.init.glorot_normal(shape, rng=rng),
    "He": lambda shape, rng: L.init.he_normal(shape, nonlinearity="relu", rng=rng),
}


def network(activation, start, depth, width, rng):
    model = lamella.models.mlp(*[width] * (depth + 1), activation=activation, rng=rng)
    for layer in model[::2]:
        L.init.assign(layer.weight, start(layer.weight.shape, rng))
        L.init.assign(layer.bias, L.init.zeros(layer.bias.shape))
    return model


def statistics(activation, start, rng, depth, width):
    """Of the values after each layer: their standard deviation, that of their gradients, the values themselves."""
    model, x, values = network(activation, start, depth, width, rng), lamella.tensor(rng.normal((200, width))), []
    for layer, activation in zip(model[::2], ...):
        ...
