"""Conformance cases of everything that is neither an activation nor a loss."""

from __future__ import annotations

import numpy as np

import lamella.layers as L

from .layer_case import Case, rng, values

CASES: dict[str, Case] = {
    "AlphaDropout": Case(lambda: L.AlphaDropout(0.4, rng=rng()), (values(3, 4),), (3, 4)),
    "BatchNorm1d": Case(lambda: L.BatchNorm1d(4), (values(3, 4),), (3, 4)),
    "BatchNorm2d": Case(lambda: L.BatchNorm2d(2), (values(3, 2, 2, 3),), (3, 2, 2, 3)),
    "BatchNorm3d": Case(lambda: L.BatchNorm3d(2), (values(2, 2, 2, 1, 3),), (2, 2, 2, 1, 3)),
    "Bilinear": Case(lambda: L.Bilinear(4, 3, 2, rng=rng()), (values(3, 4), values(3, 3, seed=1)), (3, 2)),
    "Conv1d": Case(lambda: L.Conv1d(2, 3, 3, stride=2, padding=1, rng=rng()), (values(2, 2, 5),), (2, 3, 3)),
    "Conv2d": Case(
        lambda: L.Conv2d(2, 4, (3, 2), padding=(1, 0), groups=2, rng=rng()), (values(2, 2, 4, 3),), (2, 4, 4, 2)
    ),
    "Conv3d": Case(lambda: L.Conv3d(2, 2, (1, 2, 2), dilation=2, rng=rng()), (values(2, 2, 1, 3, 4),), (2, 2, 1, 1, 2)),
    "ConvTranspose1d": Case(
        lambda: L.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1, rng=rng()),
        (values(2, 2, 3),),
        (2, 3, 6),
    ),
    "ConvTranspose2d": Case(
        lambda: L.ConvTranspose2d(2, 4, (3, 2), padding=(1, 0), groups=2, rng=rng()),
        (values(2, 2, 3, 2),),
        (2, 4, 3, 3),
    ),
    "ConvTranspose3d": Case(
        lambda: L.ConvTranspose3d(2, 2, (1, 2, 2), stride=(1, 2, 1), rng=rng()),
        (values(2, 2, 1, 2, 2),),
        (2, 2, 1, 4, 3),
    ),
    "DenseConnection": Case(lambda: L.DenseConnection(L.Linear(4, 3, rng=rng())), (values(3, 4),), (3, 7)),
    "DropPath": Case(lambda: L.DropPath(0.4, rng=rng()), (values(5, 2, 3),), (5, 2, 3)),
    "Dropout": Case(lambda: L.Dropout(0.4, rng=rng()), (values(3, 4),), (3, 4)),
    "Dropout1d": Case(lambda: L.Dropout1d(0.4, rng=rng()), (values(3, 4, 2),), (3, 4, 2)),
    "Dropout2d": Case(lambda: L.Dropout2d(0.4, rng=rng()), (values(3, 4, 2, 2),), (3, 4, 2, 2)),
    "Dropout3d": Case(lambda: L.Dropout3d(0.4, rng=rng()), (values(3, 4, 2, 1, 2),), (3, 4, 2, 1, 2)),
    "Embedding": Case(lambda: L.Embedding(5, 3, rng=rng()), (np.array([[0, 4, 1], [4, 4, 2]]),), (2, 3, 3)),
    "Flatten": Case(L.Flatten, (values(3, 2, 2),), (3, 4)),
    "Fold": Case(lambda: L.Fold((3, 3), 2, padding=1, stride=2), (values(2, 8, 4),), (2, 2, 3, 3)),
    "GRU": Case(lambda: L.GRU(2, 3, batch_first=True, rng=rng()), (values(2, 3, 2),), (2, 3, 3)),
    "GRUCell": Case(lambda: L.GRUCell(2, 3, rng=rng()), (values(2, 2), values(2, 3, seed=1)), (2, 3), tried=4),
    "GaussianNoise": Case(lambda: L.GaussianNoise(0.1, rng=rng()), (values(3, 4),), (3, 4)),
    "GroupNorm": Case(lambda: L.GroupNorm(2, 4), (values(3, 4, 3),), (3, 4, 3)),
    "Identity": Case(L.Identity, (values(3, 4),), (3, 4)),
    "LSTM": Case(
        lambda: L.LSTM(2, 3, 2, batch_first=True, dropout=0.2, bidirectional=True, proj_size=2, rng=rng()),
        (values(2, 3, 2),),
        (2, 3, 4),
        tried=4,
    ),
    "LSTMCell": Case(lambda: L.LSTMCell(2, 3, rng=rng()), (values(2, 2),), (2, 3), tried=4),
    "InstanceNorm1d": Case(lambda: L.InstanceNorm1d(4, affine=True), (values(3, 4, 3),), (3, 4, 3)),
    "InstanceNorm2d": Case(lambda: L.InstanceNorm2d(4, track_running_stats=True), (values(3, 4, 3, 2),), (3, 4, 3, 2)),
    "InstanceNorm3d": Case(lambda: L.InstanceNorm3d(2), (values(3, 2, 1, 3, 2),), (3, 2, 1, 3, 2)),
    "LayerNorm": Case(lambda: L.LayerNorm((3, 4)), (values(2, 3, 4),), (2, 3, 4)),
    "LearnedPositions": Case(lambda: L.LearnedPositions(4, 3, rng=rng()), (values(2, 3, 3),), (2, 3, 3)),
    "Linear": Case(lambda: L.Linear(4, 5, rng=rng()), (values(3, 4),), (3, 5)),
    "MultiheadAttention": Case(
        lambda: L.MultiheadAttention(4, 2, 0.3, kdim=3, vdim=2, batch_first=True, rng=rng()),
        (values(2, 2, 4), values(2, 3, 3, seed=1), values(2, 3, 2, seed=2)),
        (2, 2, 4),
        tried=6,
    ),
    "RMSNorm": Case(lambda: L.RMSNorm(4), (values(3, 4),), (3, 4)),
    "RNN": Case(lambda: L.RNN(2, 3, batch_first=True, rng=rng()), (values(2, 3, 2),), (2, 3, 3)),
    "RNNCell": Case(lambda: L.RNNCell(2, 3, rng=rng()), (values(2, 2), values(2, 3, seed=1)), (2, 3), tried=4),
    "Residual": Case(lambda: L.Residual(L.Linear(4, 4, rng=rng())), (values(3, 4),), (3, 4)),
    "Sequential": Case(
        lambda: L.Sequential(L.Linear(4, 3, rng=rng()), L.Tanh(), L.Linear(3, 2, rng=rng())), (values(3, 4),), (3, 2)
    ),
    "RotaryEmbedding": Case(lambda: L.RotaryEmbedding(4), (values(2, 3, 6),), (2, 3, 6)),
    "SinusoidalPositions": Case(lambda: L.SinusoidalPositions(4, 3), (values(2, 3, 3),), (2, 3, 3)),
    "Transformer": Case(
        lambda: L.Transformer(2, 1, 1, 1, 3, 0.1, "gelu", batch_first=True, rng=rng()),
        (values(1, 2, 2), values(1, 2, 2, seed=1)),
        (1, 2, 2),
        tried=1,
    ),
    "TransformerDecoder": Case(
        lambda: L.TransformerDecoder(L.TransformerDecoderLayer(2, 1, 2, 0.2, "gelu", batch_first=True, rng=rng()), 1),
        (values(2, 2, 2), values(2, 1, 2, seed=1)),
        (2, 2, 2),
        tried=2,
    ),
    "TransformerDecoderLayer": Case(
        lambda: L.TransformerDecoderLayer(2, 2, 2, 0.2, "gelu", batch_first=True, norm_first=True, rng=rng()),
        (values(2, 2, 2), values(2, 1, 2, seed=1)),
        (2, 2, 2),
        tried=2,
    ),
    "TransformerEncoder": Case(
        lambda: L.TransformerEncoder(L.TransformerEncoderLayer(2, 1, 2, 0.2, "gelu", batch_first=True, rng=rng()), 2),
        (values(1, 2, 2),),
        (1, 2, 2),
        tried=1,
    ),
    "TransformerEncoderLayer": Case(
        lambda: L.TransformerEncoderLayer(4, 2, 3, 0.2, "gelu", batch_first=True, rng=rng()),
        (values(2, 2, 4),),
        (2, 2, 4),
        tried=3,
    ),
    "Unflatten": Case(lambda: L.Unflatten(1, (2, -1)), (values(3, 4),), (3, 2, 2)),
    "Unfold": Case(lambda: L.Unfold((2, 3), padding=1), (values(2, 2, 3, 3),), (2, 12, 12)),
}
