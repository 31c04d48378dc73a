"""The parameters that layers start with, PyTorch's defaults; other initial values are in ``init.py``.

Drawn on the host, so that every device starts with the same bits.
"""

from __future__ import annotations

import math

from ..autograd import Parameter
from ..backend import Generator, backend_for


def uniform(shape: tuple[int, ...], bound: float, rng: Generator) -> Parameter:
    """float32 values in [-bound, bound)."""
    return Parameter(rng.uniform(shape, -bound, bound))


def fan_in_uniform(shape: tuple[int, ...], fan_in: int, rng: Generator) -> Parameter:
    """U(±1/sqrt(fan_in)), PyTorch's default for the weights and biases of linear and convolution layers.

    For weights this is He initialisation with the gain of a leaky ReLU of slope sqrt(5).
    Source: He et al. 2015, arXiv 1502.01852, as set up in ``torch.nn.Linear.reset_parameters``.
    """
    return uniform(shape, 1.0 / math.sqrt(fan_in) if fan_in else 0.0, rng)


def constant(shape: tuple[int, ...], value: float) -> Parameter:
    """The same float32 value everywhere."""
    return Parameter(backend_for("cpu").xp.full(shape, value, "float32"))


def normal(shape: tuple[int, ...], std: float, rng: Generator) -> Parameter:
    """float32 values from N(0, std^2)."""
    return Parameter(rng.normal(shape, 0.0, std))
