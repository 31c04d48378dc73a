"""BERT: a Transformer encoder that reads a text in both directions at once, and sentences as points on a sphere.

Parameters have the names of BERT's published files without a prefix (``embeddings.word_embeddings.weight``,
``encoder.layer.0.attention.self.query.weight``, …, ``pooler.dense.weight``), so such a state dict loads as it is.
"""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, add, permute_dims, reshape, tanh
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator
from ..layers import GELU, Dropout, Embedding, LayerNorm, Linear, Module, ModuleList, init
from ..layers.drop import check_probability
from ..layers.fusion import run_linear
from ..layers.lengths import length
from ..layers.scaled_dot_product_attention import attend
from ..layers.transformer_encoder import joined

_STD = 0.02  # of the initial weights


class BertEmbeddings(Module):
    """``LayerNorm(word_embeddings[ids] + token_type_embeddings[types] + position_embeddings[place])``, with dropout.

    Args:
        vocab_size, max_len, type_vocab_size, d_model, dropout, eps, rng: as for :class:`Bert`.
    """

    def __init__(
        self, vocab_size: int, max_len: int, type_vocab_size: int, d_model: int, dropout: float, eps: float,
        *, rng: Generator,
    ) -> None:  # fmt: skip
        self.word_embeddings = Embedding(vocab_size, d_model, rng=rng)
        self.position_embeddings = Embedding(max_len, d_model, rng=rng)
        self.token_type_embeddings = Embedding(type_vocab_size, d_model, rng=rng)
        self.LayerNorm = LayerNorm(d_model, eps)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(self, ids: Any, token_type_ids: Any = None) -> Tensor:
        """Of ``ids`` and ``token_type_ids`` ``(N, T)``: shape ``(N, T, d_model)``."""
        types: Any = self.token_type_embeddings
        places = self.position_embeddings.weight[: ids.shape[1]]
        if token_type_ids is None:
            x = add(self.word_embeddings(ids), add(places, types.weight[0]))  # all are of type 0
        else:
            x = add(add(self.word_embeddings(ids), types(token_type_ids)), places)
        result: Tensor = self.dropout(self.LayerNorm(x))
        return result


class BertSelfAttention(Module):
    """Attention in several heads, before its last projection.

    Args:
        d_model: width. num_heads: a divisor of it.
        dropout: probability with which a weight is dropped in training.
        rng: draws the initial values and the masks of dropout.
    """

    def __init__(self, d_model: int, num_heads: int, dropout: float, *, rng: Generator) -> None:
        self.num_heads, self.dropout, self.rng = num_heads, dropout, rng
        self.query, self.key, self.value = (Linear(d_model, d_model, rng=rng) for _ in range(3))

    def forward(self, x: Any, mask: Array | None) -> Tensor:
        """The shape of ``x``, ``(N, T, d_model)``; ``mask`` is True where a key is seen, ``(N, 1, 1, T)``."""
        count, places, width = x.shape
        options: dict[str, Any] = {"mask": mask}
        if self.dropout and self.training:
            key = self.rng.reserve(count * self.num_heads * places * places)
            options |= {"dropout": self.dropout, "dropout_key": key}
        heads = (count, places, self.num_heads, width // self.num_heads)
        q, k, v = (permute_dims(reshape(f(x), heads), (0, 2, 1, 3)) for f in (self.query, self.key, self.value))
        return reshape(permute_dims(attend(q, k, v, **options), (0, 2, 1, 3)), (count, places, width))

    def extra_repr(self) -> str:
        return f"{self.num_heads} heads, dropout={self.dropout}"


class BertDense(Module):
    """A linear layer under the name ``dense``."""

    def __init__(self, in_features: int, out_features: int, *, rng: Generator) -> None:
        self.dense = Linear(in_features, out_features, rng=rng)

    def forward(self, x: Any, activation: Any = None) -> Any:
        return run_linear(self.dense, x, activation=activation)


class BertOutput(Module):
    """``LayerNorm(residual + dropout(dense(x)))``: how each branch ends."""

    def __init__(self, in_features: int, d_model: int, dropout: float, eps: float, *, rng: Generator) -> None:
        self.dense = Linear(in_features, d_model, rng=rng)
        self.LayerNorm = LayerNorm(d_model, eps)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(self, x: Any, residual: Any) -> Tensor:
        return joined(residual, self.dense(x), self.dropout, self.LayerNorm)[0]


class BertAttention(Module):
    """``output(self(x), x)``."""

    def __init__(self, attention: BertSelfAttention, output: BertOutput) -> None:
        self.self, self.output = attention, output

    def forward(self, x: Any, mask: Array | None) -> Any:
        return self.output(self.self(x, mask), x)


class BertLayer(Module):
    """``x = attention(x)``, then ``x = output(gelu(intermediate(x)), x)``, each with its norm after the sum.

    Args:
        d_model, num_heads, dim_feedforward, dropout, attention_dropout, eps, rng: as for :class:`Bert`.
    """

    def __init__(
        self, d_model: int, num_heads: int, dim_feedforward: int, dropout: float, attention_dropout: float, eps: float,
        *, rng: Generator,
    ) -> None:  # fmt: skip
        self.attention = BertAttention(
            BertSelfAttention(d_model, num_heads, attention_dropout, rng=rng),
            BertOutput(d_model, d_model, dropout, eps, rng=rng),
        )
        self.intermediate = BertDense(d_model, dim_feedforward, rng=rng)
        self.act = GELU()
        self.output = BertOutput(dim_feedforward, d_model, dropout, eps, rng=rng)

    def forward(self, x: Any, mask: Array | None = None) -> Any:
        """The shape of ``x``, ``(N, T, d_model)``; ``mask`` is True where a key is seen, ``(N, 1, 1, T)``."""
        x = self.attention(x, mask)
        return self.output(self.intermediate(x, self.act), x)


class BertEncoder(Module):
    """The layers, one after another, under the name ``layer``."""

    def __init__(self, layers: Any) -> None:
        self.layer = ModuleList(layers)

    def forward(self, x: Any, mask: Array | None = None) -> Any:
        for layer in self.layer:
            x = layer(x, mask)
        return x


class Bert(Module):
    """What each token of a text means where it stands: embeddings, then layers of attention to the whole text.

    The defaults are those of BERT-base. Weights start as N(0, 0.02²), biases as 0 and norms as 1.

    Args:
        vocab_size: V, how many tokens there are.
        max_len: the longest text.
        d_model: D, width.
        num_layers: how many layers.
        num_heads: heads of the attention, a divisor of D.
        dim_feedforward: width inside the network of a layer; ``4 d_model`` by default.
        type_vocab_size: kinds of tokens, such as two for a first and a second sentence.
        dropout: probability of dropping in training: embeddings and both branches.
        attention_dropout: likewise for the weights of the attention; ``dropout`` by default.
        eps: added to the variance by the norms.
        pooler: whether there is one.
        rng: draws the initial values and the masks of dropout; a fresh generator by default.

    Attributes:
        embeddings: of words, places and kinds.
        encoder: the layers, ``encoder.layer``.
        pooler: a layer over the first token, or None.
    Source: Devlin et al. 2018, arXiv 1810.04805.
    """

    def __init__(
        self,
        vocab_size: int = 30522,
        max_len: int = 512,
        d_model: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        dim_feedforward: int | None = None,
        *,
        type_vocab_size: int = 2,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        eps: float = 1e-12,
        pooler: bool = True,
        rng: Generator | None = None,
    ) -> None:
        name, rng = "Bert", as_generator("Bert", rng)
        self.max_len, self.d_model = length(name, "max_len", max_len, 1), length(name, "d_model", d_model, 1)
        num_heads = length(name, "num_heads", num_heads, 1)
        if d_model % num_heads:
            raise ValueError(f"{name}: num_heads must divide d_model, got {num_heads=}, {d_model=}")
        wide = 4 * d_model if dim_feedforward is None else length(name, "dim_feedforward", dim_feedforward, 1)
        dropout = check_probability(name, dropout, "dropout")
        of_weights = dropout
        if attention_dropout is not None:
            of_weights = check_probability(name, attention_dropout, "attention_dropout")
        self.embeddings = BertEmbeddings(
            length(name, "vocab_size", vocab_size, 1),
            self.max_len,
            length(name, "type_vocab_size", type_vocab_size, 1),
            d_model,
            dropout,
            eps,
            rng=rng,
        )
        self.encoder = BertEncoder(
            BertLayer(d_model, num_heads, wide, dropout, of_weights, eps, rng=rng)
            for _ in range(length(name, "num_layers", num_layers, 1))
        )
        self.pooler = BertDense(d_model, d_model, rng=rng) if pooler else None
        for path, parameter in self.named_parameters():
            if parameter.ndim > 1:
                init.assign(parameter, init.normal(parameter.shape, 0.0, _STD, rng=rng))
            elif path.endswith("bias"):
                init.assign(parameter, init.zeros(parameter.shape))

    def forward(self, ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Tensor:
        """What the last layer gives for each token, shape ``(N, T, D)``.

        Args:
            ids: tokens, integers in ``0 … V - 1``, shape ``(N, T)``.
            attention_mask: 1 or True where there is a token, 0 or False where the text is filled up, shape ``(N, T)``;
                by default there are tokens everywhere. What the others give means nothing.
            token_type_ids: the kind of each token, shape ``(N, T)``; 0 by default.
        """
        given = {"ids": ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        for what, array in given.items():
            if array is None:
                continue
            require_arrays("Bert", **{what: array})
            if array.ndim != 2 or tuple(array.shape) != tuple(ids.shape):
                expected = "(N, T)" if what == "ids" else f"{tuple(ids.shape)}, that of ids"
                raise ValueError(f"Bert: {what} must have shape {expected}, got {tuple(array.shape)}")
        if ids.shape[1] > self.max_len:
            raise ValueError(f"Bert: texts must have at most max_len={self.max_len} tokens, got {ids.shape[1]}")
        if attention_mask is not None and attention_mask.dtype.kind not in "biu":
            raise TypeError(
                "Bert: attention_mask must be booleans or integers, 1 where there is a token, "
                f"got {attention_mask.dtype}"
            )
        mask = None if attention_mask is None else _seen(attention_mask)[:, None, None]
        result: Tensor = self.encoder(self.embeddings(ids, token_type_ids), mask)
        return result

    def pool(self, hidden: Any) -> Tensor:
        """``tanh(pooler.dense(hidden[:, 0]))``, shape ``(N, D)``: what the classifiers of BERT look at.

        Raises:
            ValueError: the model has no pooler.
        """
        if self.pooler is None:
            raise ValueError("Bert.pool: the model was made with pooler=False")
        return tanh(self.pooler(hidden[:, 0]))

    def sentence_embeddings(self, ids: Any, attention_mask: Any = None, token_type_ids: Any = None) -> Tensor:
        """The mean over each text's tokens, divided by its length as a vector: shape ``(N, D)``, on the unit sphere.

        The product of two is the cosine of the angle between them. Arguments as for forward. A text without tokens
        gives 0.

        Source: Reimers, Gurevych 2019, "Sentence-BERT", arXiv 1908.10084.
        """
        hidden = self(ids, attention_mask, token_type_ids)
        if attention_mask is not None:
            hidden = hidden * _seen(attention_mask).astype(hidden.dtype)[:, :, None]
        total = hidden.sum(axis=1)  # a factor for each text, which the length takes out again
        return total / ((total * total).sum(axis=1, keepdims=True) + 1e-24) ** 0.5

    def extra_repr(self) -> str:
        return f"at most {self.max_len} tokens, width {self.d_model}"


def _seen(attention_mask: Any) -> Array:
    """True where there is a token."""
    data = attention_mask.data if isinstance(attention_mask, Tensor) else attention_mask
    return data != 0
