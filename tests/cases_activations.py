"""Conformance cases of the activations."""

from __future__ import annotations

import lamella.layers as L

from .layer_case import Case, values

CASES: dict[str, Case] = {
    "ReLU": Case(L.ReLU, (values(3, 4),), (3, 4)),
    "Sigmoid": Case(L.Sigmoid, (values(3, 4),), (3, 4)),
    "Softmax": Case(L.Softmax, (values(3, 4),), (3, 4)),
    "Tanh": Case(L.Tanh, (values(3, 4),), (3, 4)),
}
