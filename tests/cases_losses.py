"""Conformance cases of the losses."""

from __future__ import annotations

import numpy as np

import lamella.layers as L

from .layer_case import Case, values

CASES: dict[str, Case] = {
    "CrossEntropyLoss": Case(L.CrossEntropyLoss, (values(3, 4), np.array([0, 3, 1])), ()),
    "MSELoss": Case(L.MSELoss, (values(3, 4), values(3, 4, seed=1)), ()),
}
