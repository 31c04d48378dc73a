"""Conformance cases of the losses."""

from __future__ import annotations

import numpy as np

import lamella.layers as L

from .layer_case import Case, values

LABELS = np.array([0, 3, 1])
SIGNS = np.array([[1, -1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, -1]])


def between(low: float, high: float, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


CASES: dict[str, Case] = {
    "BCELoss": Case(L.BCELoss, (between(0.1, 0.9, 3, 4), between(0, 1, 3, 4, seed=1)), ()),
    "BCEWithLogitsLoss": Case(
        lambda: L.BCEWithLogitsLoss(pos_weight=between(0.5, 2, 4)), (values(3, 4), between(0, 1, 3, 4)), ()
    ),
    "CosineEmbeddingLoss": Case(L.CosineEmbeddingLoss, (values(3, 4), values(3, 4, seed=1), SIGNS[0, 1:]), ()),
    "CosineSimilarity": Case(L.CosineSimilarity, (values(3, 4), values(3, 4, seed=1)), (3,)),
    "CrossEntropyLoss": Case(
        lambda: L.CrossEntropyLoss(between(0.5, 2, 4), label_smoothing=0.1), (values(3, 4), LABELS), ()
    ),
    "GaussianNLLLoss": Case(L.GaussianNLLLoss, (values(3, 4), values(3, 4, seed=1), between(0.5, 2, 3, 4)), ()),
    "HingeEmbeddingLoss": Case(L.HingeEmbeddingLoss, (values(3, 4), SIGNS), ()),
    "HingeLoss": Case(L.HingeLoss, (values(3, 4), SIGNS), ()),
    "HuberLoss": Case(lambda: L.HuberLoss(delta=0.7), (values(3, 4), values(3, 4, seed=1)), ()),
    "KLDivLoss": Case(L.KLDivLoss, (values(3, 4), between(0.1, 1, 3, 4)), ()),
    "L1Loss": Case(L.L1Loss, (values(3, 4), values(3, 4, seed=1)), ()),
    "MSELoss": Case(L.MSELoss, (values(3, 4), values(3, 4, seed=1)), ()),
    "MarginRankingLoss": Case(lambda: L.MarginRankingLoss(0.3), (values(3, 4), values(3, 4, seed=1), SIGNS), ()),
    "MultiMarginLoss": Case(L.MultiMarginLoss, (values(3, 4), LABELS), ()),
    "NLLLoss": Case(lambda: L.NLLLoss(between(0.5, 2, 4)), (values(3, 4), LABELS), ()),
    "PoissonNLLLoss": Case(lambda: L.PoissonNLLLoss(full=True), (values(3, 4), between(1.5, 5, 3, 4)), ()),
    "SmoothL1Loss": Case(lambda: L.SmoothL1Loss(beta=0.7), (values(3, 4), values(3, 4, seed=1)), ()),
    "SoftMarginLoss": Case(L.SoftMarginLoss, (values(3, 4), SIGNS), ()),
    "TripletMarginLoss": Case(L.TripletMarginLoss, (values(3, 4), values(3, 4, seed=1), values(3, 4, seed=2)), ()),
}
