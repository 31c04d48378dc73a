"""What a case of the conformance table is; the table is put together in ``test_layers.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import lamella
import lamella.layers as L


def values(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 normal numbers, none of them near 0, where a kink would spoil the central differences."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return (x + np.sign(x) * 0.05).astype(np.float32)


def rng() -> lamella.Generator:
    """The same stream at each call."""
    return lamella.Generator(7)


@dataclass
class Case:
    """A module: how to make it, what it is called with, the shape that comes out, and how many numbers of each
    parameter are held against central differences: few where a module is put together of parts with cases of their own.
    """

    make: Callable[[], L.Module]
    inputs: tuple[np.ndarray, ...]
    shape: tuple[int, ...]
    tried: int = 400
