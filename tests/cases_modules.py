"""Conformance cases of everything that is neither an activation nor a loss."""

from __future__ import annotations

import lamella.layers as L

from .layer_case import Case, rng, values

CASES: dict[str, Case] = {
    "Dropout": Case(lambda: L.Dropout(0.4, rng=rng()), (values(3, 4),), (3, 4)),
    "Linear": Case(lambda: L.Linear(4, 5, rng=rng()), (values(3, 4),), (3, 5)),
    "Sequential": Case(
        lambda: L.Sequential(L.Linear(4, 3, rng=rng()), L.Tanh(), L.Linear(3, 2, rng=rng())), (values(3, 4),), (3, 2)
    ),
}
