"""Conformance cases of the layers for images: pooling, resizing, padding."""

from __future__ import annotations

from typing import Any

import numpy as np

import lamella.layers as L

from .layer_case import Case, values

_LENGTHS = {1: (5,), 2: (2, 3), 3: (2, 3, 2)}


def _cases(axes: int) -> dict[str, Case]:
    x = values(1, 2, *_LENGTHS[axes])

    def case(make: Any, *lengths: int) -> Case:
        return Case(make, (x,), (1, 2, *lengths))

    halved, more = tuple(n // 2 for n in x.shape[2:]), tuple(n + 2 for n in x.shape[2:])
    names = ("MaxPool", "AvgPool", "LPPool", "MaxUnpool")
    layers: dict[str, Any] = {name: getattr(L, f"{name}{axes}d") for name in names}
    found = {
        f"MaxPool{axes}d": case(lambda: layers["MaxPool"](2), *halved),
        f"AvgPool{axes}d": case(lambda: layers["AvgPool"](2), *halved),
        f"LPPool{axes}d": case(lambda: layers["LPPool"](2, 2), *halved),
    }
    for kind in ("Avg", "Max"):
        pool = getattr(L, f"Adaptive{kind}Pool{axes}d")
        found[f"Adaptive{kind}Pool{axes}d"] = case(lambda pool=pool: pool(2), *(2,) * axes)
    for kind in ("Circular", "Reflection", "Replication", "Zero"):
        padding = getattr(L, f"{kind}Pad{axes}d")
        found[f"{kind}Pad{axes}d"] = case(lambda padding=padding: padding(1), *more)
    constant = getattr(L, f"ConstantPad{axes}d")
    found[f"ConstantPad{axes}d"] = case(lambda: constant(1, 0.5), *more)
    indices = np.stack([np.arange(2**axes) * 3 + i for i in range(2)]).reshape(1, 2, *(2,) * axes) % 4**axes
    small = values(1, 2, *(2,) * axes)
    unpool = layers["MaxUnpool"]
    found[f"MaxUnpool{axes}d"] = Case(lambda: unpool(2), (small, indices), (1, 2, *(4,) * axes))
    return found


CASES: dict[str, Case] = {
    **_cases(1),
    **_cases(2),
    **_cases(3),
    "ChannelShuffle": Case(lambda: L.ChannelShuffle(2), (values(2, 4, 3),), (2, 4, 3)),
    "PixelShuffle": Case(lambda: L.PixelShuffle(2), (values(1, 4, 2, 3),), (1, 1, 4, 6)),
    "PixelUnshuffle": Case(lambda: L.PixelUnshuffle(2), (values(1, 1, 4, 6),), (1, 4, 2, 3)),
    "Upsample": Case(lambda: L.Upsample(scale_factor=1.5, mode="bicubic"), (values(1, 1, 4, 5),), (1, 1, 6, 7)),
    "UpsamplingBilinear2d": Case(lambda: L.UpsamplingBilinear2d(size=3), (values(1, 1, 4, 5),), (1, 1, 3, 3)),
    "UpsamplingNearest2d": Case(lambda: L.UpsamplingNearest2d(scale_factor=2), (values(1, 2, 2, 3),), (1, 2, 4, 6)),
}
