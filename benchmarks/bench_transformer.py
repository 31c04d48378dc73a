"""A Transformer encoder block forward and backward, and a training step of a small GPT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, normal
from lamella.benchmarks.model import Model, model_case


def block_parameters(d: int, ffn: int, prefix: str = "") -> dict[str, tuple[int, ...]]:
    found = {
        "self_attn.in_proj_weight": (3 * d, d),
        "self_attn.in_proj_bias": (3 * d,),
        "self_attn.out_proj.weight": (d, d),
        "self_attn.out_proj.bias": (d,),
        "linear1.weight": (ffn, d),
        "linear1.bias": (ffn,),
        "linear2.weight": (d, ffn),
        "linear2.bias": (d,),
        "norm1.weight": (d,),
        "norm1.bias": (d,),
        "norm2.weight": (d,),
        "norm2.bias": (d,),
    }
    return {prefix + name: shape for name, shape in found.items()}


def encoder_case(batch: int, length: int, d: int, heads: int, ffn: int, **options: Any) -> Case:
    model = Model(
        lambda nn: nn.TransformerEncoderLayer(d, heads, ffn, dropout=0.0, batch_first=True),
        lambda nn, module, x: module(x),
        block_parameters(d, ffn),
        training=False,
    )
    products = 2 * batch * length * (4 * d * d + 2 * d * ffn) + 4 * batch * length * length * d
    return model_case(
        f"encoder block {batch}×{length}×{d}",
        model,
        lambda rng: (normal(rng, batch, length, d), normal(rng, batch, length, d)),
        products,
        images=False,
        needs=("layers.TransformerEncoderLayer",),
        **options,
    )


def gpt_case(batch: int, length: int, d: int, heads: int, depth: int, vocabulary: int, **options: Any) -> Case:
    def build(nn: Any) -> Any:
        blocks = [
            nn.TransformerEncoderLayer(
                d, heads, 4 * d, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        ]
        return nn.ModuleList(
            [nn.Embedding(vocabulary, d), nn.Embedding(length, d), *blocks, nn.LayerNorm(d), nn.Linear(d, vocabulary)]
        )

    def forward(nn: Any, module: Any, tokens: Any, places: Any, mask: Any) -> Any:
        embedding, positions, *blocks, norm, head = module
        x = embedding(tokens) + positions(places)
        for block in blocks:
            x = block(x, src_mask=mask)
        return head(norm(x)).reshape(batch * length, vocabulary)

    parameters: dict[str, tuple[int, ...]] = {"0.weight": (vocabulary, d), "1.weight": (length, d)}
    for i in range(depth):
        parameters |= block_parameters(d, 4 * d, f"{i + 2}.")
    parameters |= {
        f"{depth + 2}.weight": (d,),
        f"{depth + 2}.bias": (d,),
        f"{depth + 3}.weight": (vocabulary, d),
        f"{depth + 3}.bias": (vocabulary,),
    }

    def numbers(rng: Any) -> tuple[Any, ...]:
        mask = np.triu(np.full((length, length), -np.inf, np.float32), 1)  # no token sees a later one
        labels = rng.integers(0, vocabulary, batch * length)
        return rng.integers(0, vocabulary, (batch, length)), np.arange(length), mask, labels

    products = 2 * batch * length * (12 * depth * d * d + d * vocabulary) + 4 * depth * batch * length * length * d
    return model_case(
        f"GPT step {depth}×{d}, {batch}×{length}",
        Model(build, forward, parameters, training=True),
        numbers,
        products,
        images=False,
        needs=("layers.TransformerEncoderLayer",),
        **options,
    )


CASES = [
    encoder_case(8, 128, 512, 8, 2048, target="W5 encoder block"),
    gpt_case(4, 64, 64, 4, 2, 256, quick=True),
    encoder_case(32, 512, 1024, 16, 4096, devices=("cuda",), dtypes=("float32", "tf32", "bfloat16")),
    gpt_case(16, 1024, 768, 12, 12, 50304, devices=("cuda",), dtypes=("tf32", "bfloat16")),
]


def bench_transformer(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
