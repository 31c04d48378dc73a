"""Training steps of the model that says words, and sentences read by an encoder of MiniLM's size."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.bench_transformer import block_parameters
from lamella.benchmarks.case import Case, Run, normal, relative_error, worst

# -- spelling to phonemes (examples/text/phonemes.py) ----------------------------------------------------------------
LETTERS, PHONEMES, D, HEADS, FFN, DEPTH, PLACES, DROPOUT = 27, 72, 128, 4, 512, 2, 32, 0.1
WORDS = 64  # in a step
LENGTHS = ((5, 5), (7, 7), (9, 8), (11, 11))  # of spelling and pronunciation: one run is a step of each


def speller_parameters() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "source_embedding.weight": (LETTERS, D),
        "target_embedding.weight": (PHONEMES, D),
    }
    for i in range(DEPTH):
        found |= block_parameters(D, FFN, f"transformer.encoder.layers.{i}.")
    for i in range(DEPTH):
        prefix = f"transformer.decoder.layers.{i}."
        found |= block_parameters(D, FFN, prefix)
        found |= {prefix + "norm3.weight": (D,), prefix + "norm3.bias": (D,)}
        found |= {
            prefix + "multihead_attn.in_proj_weight": (3 * D, D),
            prefix + "multihead_attn.in_proj_bias": (3 * D,),
            prefix + "multihead_attn.out_proj.weight": (D, D),
            prefix + "multihead_attn.out_proj.bias": (D,),
        }
    for part in ("encoder", "decoder"):
        found |= {f"transformer.{part}.norm.weight": (D,), f"transformer.{part}.norm.bias": (D,)}
    return found | {"head.weight": (PHONEMES, D), "head.bias": (PHONEMES,)}


def drawn(rng: Any, parameters: dict[str, tuple[int, ...]]) -> list[Any]:
    """Biases 0, factors of norms 1, embeddings and matrices of variance 1 / inputs."""
    found = []
    for name, shape in parameters.items():
        one = 0.0 if name.endswith("bias") else 1.0
        found.append(normal(rng, *shape, scale=shape[-1] ** -0.5) if len(shape) > 1 else np.full(shape, one, "float32"))
    return found


def speller_numbers(rng: Any) -> tuple[Any, ...]:
    batches: list[Any] = []
    for letters, phonemes in LENGTHS:
        source = rng.integers(1, LETTERS, (WORDS, letters))
        source[: WORDS // 4, -1] = 0  # a quarter of the words are shorter
        batches += [source, rng.integers(3, PHONEMES, (WORDS, phonemes)), rng.integers(3, PHONEMES, WORDS * phonemes)]
    return (*batches, *drawn(rng, speller_parameters()))


def lamella_speller(*arrays: Any) -> Run:
    """A run is a step on each batch. The first, which is judged, drops nothing: each library has masks of its own."""
    import lamella
    from lamella import models

    count = 3 * len(LENGTHS)
    model = models.EncoderDecoder(
        LETTERS, PHONEMES, D, HEADS, DEPTH, DEPTH, FFN, DROPOUT, norm_first=True, max_len=PLACES
    )
    model.to(dtype=arrays[count].dtype)
    model.load_state_dict(model.state_dict() | dict(zip(speller_parameters(), arrays[count:], strict=True)))
    optimizer = lamella.training.Adam(model.eval().parameters(), lr=1e-3)

    def run() -> tuple[Any, ...]:
        losses = []
        for source, target, labels in zip(*(arrays[i:count:3] for i in range(3)), strict=True):
            logits = model(source, target)
            loss = lamella.layers.cross_entropy(logits.reshape(-1, PHONEMES), lamella.Tensor(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.data)
        model.train()
        return tuple(losses)

    return run


def torch_speller(**options: Any) -> Callable[..., Run]:
    def build(torch: Any, wrap: Callable[..., Any], *tensors: Any) -> Run:
        nn, count = torch.nn, 3 * len(LENGTHS)
        model = nn.ModuleDict(
            {
                "source_embedding": nn.Embedding(LETTERS, D),
                "target_embedding": nn.Embedding(PHONEMES, D),
                "transformer": nn.Transformer(D, HEADS, DEPTH, DEPTH, FFN, DROPOUT, batch_first=True, norm_first=True),
                "head": nn.Linear(D, PHONEMES),
                "dropout": nn.Dropout(DROPOUT),
            }
        ).to(tensors[count].device)
        model.load_state_dict(dict(zip(speller_parameters(), tensors[count:], strict=True)))
        angle = torch.arange(PLACES)[:, None] / 10000 ** (torch.arange(0, D, 2) / D)
        waves = torch.stack([angle.sin(), angle.cos()], -1).reshape(PLACES, D).to(tensors[count].device)
        optimizer = torch.optim.Adam(model.eval().parameters(), lr=1e-3, **options)

        def embedded(table: Any, tokens: Any) -> Any:
            return model["dropout"](table(tokens) * math.sqrt(D) + waves[: tokens.shape[1]])

        def forward(source: Any, target: Any) -> Any:
            padding = source == 0
            later = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool, device=source.device).triu(1)
            y = model["transformer"](
                embedded(model["source_embedding"], source), embedded(model["target_embedding"], target),
                tgt_mask=later, src_key_padding_mask=padding, memory_key_padding_mask=padding, tgt_is_causal=True,
            )  # fmt: skip
            return model["head"](y).reshape(-1, PHONEMES)

        timed = wrap(forward)

        def run() -> tuple[Any, ...]:
            losses = []
            for source, target, labels in zip(*(tensors[i:count:3] for i in range(3)), strict=True):
                loss = nn.functional.cross_entropy(timed(source, target), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            model.train()
            return tuple(losses)

        return run

    return build


def speller_error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    expected = lamella_speller(*(a if a.dtype.kind in "iub" else a.astype(np.float64) for a in inputs))()
    return worst(
        [relative_error(np.asarray(r, np.float64), np.asarray(e)) for r, e in zip(results, expected, strict=True)]
    )


SPELLER = Case(
    name="phonemes steps 4×64 words",
    suite="models",
    numbers=speller_numbers,
    contenders={"lamella": lamella_speller, "torch": torch_speller(), "torch fused": torch_speller(fused=True)},
    error=speller_error,
    values=10 * len(LENGTHS) * sum(map(math.prod, speller_parameters().values())),
    operations=sum(
        6 * WORDS * DEPTH * (s * (4 * D * D + 2 * D * FFN) + t * (6 * D * D + 2 * D * FFN) + 2 * s * D * D)
        for s, t in LENGTHS
    ),
    bound=2048.0,
    devices=("cpu",),
    needs=("models.EncoderDecoder",),
)

# -- sentences (examples/text/sentence_search.py) --------------------------------------------------------------------
VOCABULARY = 1000  # of 30,522: a row that is not looked up takes no time
WIDTH, LAYERS, READERS = 384, 6, 12


def encoder_parameters() -> dict[str, tuple[int, ...]]:
    """By PyTorch's names, after the tables of words, places and kinds and the norm behind them."""
    found: dict[str, tuple[int, ...]] = {
        "words": (VOCABULARY, WIDTH), "places": (512, WIDTH), "kinds": (2, WIDTH), "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
    }  # fmt: skip
    for i in range(LAYERS):
        found |= block_parameters(WIDTH, 4 * WIDTH, f"layers.{i}.")
    return found


def lamella_encoder(ids: Any, mask: Any, *arrays: Any) -> Run:
    import lamella
    from lamella import models
    from lamella.backend import backend_of

    given = dict(zip(encoder_parameters(), arrays, strict=True))
    xp = backend_of(ids).xp
    model = models.Bert(VOCABULARY, 512, WIDTH, LAYERS, READERS, pooler=False)
    model.to(backend_of(ids).device_of(ids), arrays[0].dtype)
    state = {
        "embeddings.word_embeddings.weight": given["words"],
        "embeddings.position_embeddings.weight": given["places"],
        "embeddings.token_type_embeddings.weight": given["kinds"],
    }
    for kind in ("weight", "bias"):
        state[f"embeddings.LayerNorm.{kind}"] = given[f"norm.{kind}"]
        for i in range(LAYERS):
            ours, theirs = f"encoder.layer.{i}.", f"layers.{i}."
            packed = given[f"{theirs}self_attn.in_proj_{kind}"]
            for j, name in enumerate(("query", "key", "value")):
                state[f"{ours}attention.self.{name}.{kind}"] = xp.ascontiguousarray(packed[j * WIDTH : (j + 1) * WIDTH])
            for name, other in (
                ("attention.output.dense", "self_attn.out_proj"),
                ("attention.output.LayerNorm", "norm1"),
                ("intermediate.dense", "linear1"),
                ("output.dense", "linear2"),
                ("output.LayerNorm", "norm2"),
            ):
                state[f"{ours}{name}.{kind}"] = given[f"{theirs}{other}.{kind}"]
    model.load_state_dict(state)
    model.eval()

    def run() -> tuple[Any, ...]:
        with lamella.no_grad():
            return (model(ids, mask).data,)

    return run


def torch_encoder(torch: Any, wrap: Callable[..., Any], ids: Any, mask: Any, *tensors: Any) -> Run:
    """``TransformerEncoder`` in evaluation mode, which has a fast path of its own."""
    nn = torch.nn
    given = dict(zip(encoder_parameters(), tensors, strict=True))
    layer = nn.TransformerEncoderLayer(WIDTH, READERS, 4 * WIDTH, 0.1, "gelu", 1e-12, batch_first=True)
    encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False).to(tensors[0]).eval()
    encoder.load_state_dict({name: value for name, value in given.items() if name.startswith("layers.")})

    def forward(ids: Any, padding: Any) -> Any:
        x = given["words"][ids] + given["places"][: ids.shape[1]] + given["kinds"][0]
        x = nn.functional.layer_norm(x, (WIDTH,), given["norm.weight"], given["norm.bias"], 1e-12)
        return encoder(x, src_key_padding_mask=padding)

    timed, padding = wrap(forward), None if bool(mask.all()) else mask == 0

    def run() -> tuple[Any, ...]:
        with torch.inference_mode():
            return (timed(ids, padding),)

    return run


def encoder_error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
    (expected,) = lamella_encoder(*inputs)()
    return relative_error(results[0].astype(np.float64), np.asarray(expected))


def encoder_case(count: int, length: int) -> Case:
    return Case(
        name=f"MiniLM reads {count}×{length}",
        suite="models",
        numbers=lambda rng: (
            rng.integers(0, VOCABULARY, (count, length)),
            np.ones((count, length), np.int64),
            *drawn(rng, encoder_parameters()),
        ),
        contenders={"lamella": lamella_encoder, "torch": torch_encoder},
        error=encoder_error,
        values=LAYERS * 12 * WIDTH * WIDTH,
        operations=LAYERS * (2 * count * length * 12 * WIDTH * WIDTH + 4 * count * length * length * WIDTH),
        bound=256.0,
        needs=("models.Bert",),
    )


CASES = [SPELLER, encoder_case(8, 15), encoder_case(1, 256)]


def bench_text(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
