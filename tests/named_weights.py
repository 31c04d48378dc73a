"""Weights and images drawn from names, alike in every library: nothing large has to be stored."""

from __future__ import annotations

import math
import zlib

import numpy as np


def named_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """What a parameter or buffer of this name and shape holds: such that activations neither vanish nor explode."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.array(7, np.int64)
    values = rng.random(shape) - 0.5
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        values += 1.0
    elif len(shape) > 1:
        values *= math.sqrt(24 / math.prod(shape[1:]))
    else:
        values *= 0.2
    return values.astype(np.float32)


def images() -> np.ndarray:
    """Two of 64 x 64."""
    return (np.random.default_rng(0).random((2, 3, 64, 64)) * 2 - 1).astype(np.float32)
