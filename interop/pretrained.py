"""Models from public folders, ``config.json`` beside the weights: GPT-2, Llama and BERT.

>>> model = load_pretrained("path/to/folder")  # doctest: +SKIP
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..backend import Array, Generator, as_generator, backend_for
from ..layers import Module
from ..layers.lengths import length
from ..layers.real import real
from ..models import GPT, Bert
from ..models.gpt import llama
from .weights import Joined, Names, Report, load_weights, read_json, read_weights

CONFIG = "config.json"


def load_pretrained(
    folder: str | os.PathLike[str], *, dropout: float | None = None, rng: Generator | None = None
) -> Any:
    """The model that a folder describes, with its weights, in evaluation mode, float32 on the CPU.

    Args:
        folder: holds ``config.json`` and the weights as :func:`lamella.interop.weights.read_weights` finds them.
        dropout: probability of dropping, for training on; by default what the configuration says, for Llama 0.
        rng: the stream of the masks; a fresh generator by default.
    Returns:
        a :class:`lamella.models.GPT` for GPT-2 and Llama, a :class:`lamella.models.Bert` for BERT, with a pooler where
        the weights have one.
    Raises:
        FileNotFoundError: a file is missing. KeyError: the weights are not those of such a model.
        ValueError: the model is of another family, or its configuration asks for what these models do not do.
    """
    return load_with_report(folder, dropout=dropout, rng=rng)[0]


def load_with_report(
    folder: str | os.PathLike[str], *, dropout: float | None = None, rng: Generator | None = None
) -> tuple[Any, Report]:
    """:func:`load_pretrained`, and what became of every name in the weights."""
    if not isinstance(folder, (str, os.PathLike)):
        raise TypeError(f"load_pretrained: folder must be text or a path, got {type(folder).__name__}")
    place = Path(folder) / CONFIG
    if not place.is_file():
        raise FileNotFoundError(f"load_pretrained: {folder} must hold {CONFIG}, and does not")
    config = Config(read_json("load_pretrained", place), place)
    family = config.of("model_type", "")
    if not isinstance(family, str) or family not in FAMILIES:
        raise ValueError(f"load_pretrained: model_type must be one of {', '.join(FAMILIES)}, got {family!r} in {place}")
    if dropout is not None:
        dropout = real("load_pretrained", "dropout", dropout)
    build, names_of = FAMILIES[family]
    stream = _Undrawn(*as_generator("load_pretrained", rng).reserve(2))
    model = build(config, dropout, stream)
    weights = read_weights(folder)
    if isinstance(model, Bert) and not any(".pooler." in f".{name}" for name in weights):
        model.pooler = None  # as in the files of masked language models; the configuration does not say
    report = load_weights(model, weights, names_of(model))
    stream.drawing = True
    return model.eval(), report


class _Undrawn(Generator):
    """Gives zeros until it is told to draw: initial values that a file replaces would take seconds.

    Args:
        seed, path: as for ``Generator(seed).split(path)``.
    """

    __slots__ = ("drawing",)

    def __init__(self, seed: int, path: int) -> None:
        super().__init__()
        self.state, self.drawing = Generator(seed).split(path).state, False

    def uniform(self, shape: Any = (), *args: Any, **options: Any) -> Array:
        return super().uniform(shape, *args, **options) if self.drawing else _zeros(shape)

    def normal(self, shape: Any = (), *args: Any, **options: Any) -> Array:
        return super().normal(shape, *args, **options) if self.drawing else _zeros(shape)


def _zeros(shape: Any) -> Array:
    return backend_for("cpu").xp.zeros(shape, "float32")


class Config:
    """What ``config.json`` says, with the names of the public libraries.

    Args:
        values: the object in the file.
        path: of the file, for messages.
    """

    def __init__(self, values: dict[str, Any], path: Path) -> None:
        self.values, self.path = values, path

    def of(self, key: str, default: Any = None) -> Any:
        """The value of a key; without a default it must be there. Null counts as not there."""
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            raise ValueError(f"load_pretrained: {self.path} must say {key}")
        return value

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1."""
        return length("load_pretrained", key, self.of(key, default), 1)

    def number(self, key: str, default: float | None = None) -> float:
        """A number."""
        return real("load_pretrained", key, self.of(key, default))

    def positive(self, key: str, default: float | None = None) -> float:
        """A number above 0."""
        value = self.number(key, default)
        if not 0 < value < math.inf:
            raise ValueError(f"load_pretrained: {key} must be above 0 and finite, got {value} in {self.path}")
        return value

    def truth(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.of(key, default)
        if not isinstance(value, bool):
            raise TypeError(f"load_pretrained: {key} must be true or false, got {value!r} in {self.path}")
        return value

    def must(self, key: str, *allowed: Any) -> None:
        """Refuse what the model does not do; the first of ``allowed`` is what holds where nothing is said."""
        value = self.of(key, allowed[0])
        if value not in allowed:
            wanted = " or ".join(repr(a) for a in allowed)
            raise ValueError(f"load_pretrained: {key} must be {wanted}, got {value!r} in {self.path}")

    def one_dropout(self, given: float | None, *keys: str) -> float:
        """The probability given, or the one that all keys say."""
        if given is not None:
            return given
        found = {key: self.number(key, 0.1) for key in keys}
        if len(set(found.values())) > 1:
            said = ", ".join(f"{key}={value}" for key, value in found.items())
            raise ValueError(f"load_pretrained: dropout must be given, because {self.path} has several: {said}")
        return found[keys[0]]


# -- GPT-2 -----------------------------------------------------------------------------------------------------------
GPT2 = Names(
    transposed=(r"h\.\d+\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight",),
    ignored=(r"h\.\d+\.attn\.(bias|masked_bias)",),  # masks that old files carry
    tied=(("wte.weight", "lm_head.weight"),),
)


def _gpt2(config: Config, dropout: float | None, rng: Generator | None) -> GPT:
    config.must("activation_function", "gelu_new", "gelu_pytorch_tanh")
    config.must("scale_attn_weights", True)
    config.must("scale_attn_by_inverse_layer_idx", False)
    config.must("add_cross_attention", False)
    width = config.whole("n_embd")
    return GPT(
        config.whole("vocab_size"),
        config.whole("n_positions"),
        width,
        config.whole("n_layer"),
        config.whole("n_head"),
        dim_feedforward=config.whole("n_inner", 4 * width),
        dropout=config.one_dropout(dropout, "resid_pdrop", "embd_pdrop", "attn_pdrop"),
        eps=config.positive("layer_norm_epsilon", 1e-5),
        tied=config.truth("tie_word_embeddings", True),
        rng=rng,
    )


# -- Llama -----------------------------------------------------------------------------------------------------------
def llama_names(query_rows: int, key_rows: int) -> Names:
    """Names of the Llama family, whose attention has three matrices where ours has one.

    Args:
        query_rows, key_rows: ``num_heads * head_dim`` and ``num_kv_heads * head_dim``.
    """
    layer = r"layers\.(\d+)\."
    projections = tuple(rf"{layer}self_attn\.{which}_proj\.(weight|bias)" for which in "qkv")
    return Names(
        renamed=(
            (r"embed_tokens\.weight", "wte.weight"),
            (r"norm\.weight", "ln_f.weight"),
            (layer + r"input_layernorm\.weight", r"h.\1.ln_1.weight"),
            (layer + r"post_attention_layernorm\.weight", r"h.\1.ln_2.weight"),
            (layer + r"self_attn\.o_proj\.(weight|bias)", r"h.\1.attn.c_proj.\2"),
            (layer + r"mlp\.gate_proj\.(weight|bias)", r"h.\1.mlp.c_gate.\2"),
            (layer + r"mlp\.up_proj\.(weight|bias)", r"h.\1.mlp.c_fc.\2"),
            (layer + r"mlp\.down_proj\.(weight|bias)", r"h.\1.mlp.c_proj.\2"),
        ),
        joined=(Joined(projections, (query_rows, key_rows, key_rows), r"h.\1.attn.c_attn.\2"),),
        ignored=(layer + r"self_attn\.rotary_emb\.inv_freq",),  # frequencies that old files carry
        tied=(("wte.weight", "lm_head.weight"),),
    )


def _llama(config: Config, dropout: float | None, rng: Generator | None) -> GPT:
    config.must("hidden_act", "silu")
    for key in ("attention_bias", "mlp_bias"):
        config.must(key, False)
    heads, width = config.whole("num_attention_heads"), config.whole("hidden_size")
    head_dim = config.whole("head_dim", max(1, width // heads))
    theta, frequencies = _rotation(config, head_dim)
    return llama(
        config.whole("vocab_size"),
        config.whole("max_position_embeddings"),
        width,
        config.whole("num_hidden_layers"),
        heads,
        config.whole("num_key_value_heads", heads),
        config.whole("intermediate_size"),
        dropout=0.0 if dropout is None else dropout,
        eps=config.positive("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_frequencies=frequencies,
        head_dim=head_dim,
        tied=config.truth("tie_word_embeddings", False),
        rng=rng,
    )


def _rotation(config: Config, head_dim: int) -> tuple[float, list[float] | None]:
    """The base of the rotary frequencies, and the frequencies themselves where the context was stretched.

    Source: Llama 3.1's published scaling: long waves turn slower by ``factor``, short ones as before, those between by
    a mean of both.
    """
    said = config.of("rope_parameters", config.of("rope_scaling", {}))
    if not isinstance(said, dict):
        raise TypeError(f"load_pretrained: rope_parameters must be an object, got {said!r} in {config.path}")
    rope = Config({**said, "rope_type": said.get("rope_type", said.get("type"))}, config.path)
    theta = rope.positive("rope_theta", config.positive("rope_theta", 10000.0))
    rope.must("rope_type", "default", "linear", "llama3")
    if rope.of("rope_type", "default") == "default":
        return theta, None
    factor = rope.positive("factor")
    plain = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if rope.of("rope_type") == "linear":
        return theta, [f / factor for f in plain]
    low, high = rope.positive("low_freq_factor"), rope.positive("high_freq_factor")
    if not high > low:
        raise ValueError(
            f"load_pretrained: high_freq_factor must be above low_freq_factor, got {high} and {low} in {config.path}"
        )
    context = rope.whole("original_max_position_embeddings")
    found = []
    for f in plain:
        turns = context * f / (2 * math.pi)  # in the context that the model was trained with
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        found.append((1 - share) * f / factor + share * f)
    return theta, found


def _names_of_llama(model: GPT) -> Names:
    attention = model.h[0].attn
    return llama_names(attention.num_heads * attention.head_dim, attention.num_kv_heads * attention.head_dim)


# -- BERT ------------------------------------------------------------------------------------------------------------
BERT = Names(
    renamed=((r"(.*LayerNorm)\.gamma", r"\1.weight"), (r"(.*LayerNorm)\.beta", r"\1.bias")),  # of the oldest files
    ignored=(r"embeddings\.position_ids", r"cls\..*"),  # a row of numbers, and heads for pre-training
)


def _bert(config: Config, dropout: float | None, rng: Generator | None) -> Bert:
    config.must("hidden_act", "gelu")
    config.must("position_embedding_type", "absolute")
    config.must("is_decoder", False)
    config.must("add_cross_attention", False)
    return Bert(
        config.whole("vocab_size"),
        config.whole("max_position_embeddings"),
        config.whole("hidden_size"),
        config.whole("num_hidden_layers"),
        config.whole("num_attention_heads"),
        config.whole("intermediate_size"),
        type_vocab_size=config.whole("type_vocab_size", 2),
        dropout=config.number("hidden_dropout_prob", 0.1) if dropout is None else dropout,
        attention_dropout=config.number("attention_probs_dropout_prob", 0.1) if dropout is None else dropout,
        eps=config.positive("layer_norm_eps", 1e-12),
        rng=rng,
    )


Build = Callable[[Config, float | None, Generator | None], Module]
FAMILIES: dict[str, tuple[Build, Callable[[Any], Names]]] = {
    "gpt2": (_gpt2, lambda model: GPT2),
    "llama": (_llama, _names_of_llama),
    "bert": (_bert, lambda model: BERT),
}
