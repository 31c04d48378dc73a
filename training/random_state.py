"""Where a run stands in its streams of random numbers."""

from __future__ import annotations

from typing import Any

from ..backend import Array, Generator, backend_for
from ..layers import Module

_LOW = (1 << 64) - 1


def generators_of(model: Module) -> dict[str, Generator]:
    """The generators that a model's modules hold as attributes, such as Dropout's, by their paths: ``2.rng``."""
    found = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Generator):
                found[f"{path}.{name}" if path else name] = value
    return found


def state_to_array(generator: Generator) -> Array:
    """(seed, low and high half of the offset) as uint64: an offset may need 66 bits."""
    seed, offset = generator.state
    return backend_for("cpu").xp.array([seed, offset & _LOW, offset >> 64], "uint64")


def state_from_array(array: Any) -> tuple[int, int]:
    """What :func:`state_to_array` gave, as :attr:`Generator.state` takes it."""
    seed, low, high = (int(word) for word in array)
    return seed, low | high << 64
