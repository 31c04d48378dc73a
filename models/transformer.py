"""The encoder–decoder model: it reads one sequence of tokens and writes another."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..autograd import Tensor, no_grad
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_of
from ..layers import (
    Dropout,
    Embedding,
    KVCache,
    LearnedPositions,
    Linear,
    Module,
    SinusoidalPositions,
    Transformer,
    init,
    linear,
)
from ..layers.lengths import length


class Memory(NamedTuple):
    """What the encoder made of a batch: the decoder's input, as often as it is asked.

    Attributes:
        states: shape ``(N, S, D)``.
        padding: True where a place holds no token, shape ``(N, S)``; or None where every place holds one.
    """

    states: Tensor
    padding: Array | None

    def take(self, rows: Any) -> Memory:
        """The memory of other rows of the batch, in any order and number: ``memory.take([0, 0, 1, 1])``."""
        xp = backend_of(self.states.data).xp
        index = xp.asarray(rows, dtype="int64")
        return Memory(self.states[index], None if self.padding is None else self.padding[index])


class EncoderDecoder(Module):
    """``logits = head(decoder(embed(target), encoder(embed(source))))``, the Transformer of translation.

    ``embed(tokens) = dropout(weight[tokens] * sqrt(D) + positions)``. The defaults are the paper's base model, but for
    vocabularies of their own for source and target.

    Args:
        source_vocab, target_vocab: how many tokens there are, V of the target.
        d_model: D, the width.
        nhead, num_encoder_layers, num_decoder_layers, dim_feedforward, dropout, activation, norm_first: as for
            :class:`lamella.layers.Transformer`.
        max_len: how many places a sequence may have.
        positions: ``"sinusoidal"`` or ``"learned"``.
        pad_id: the token that fills a sequence up at its end, in the source; None where there is none. Leave it out of
            the loss too: ``cross_entropy(..., ignore_index=pad_id)``.
        tie_output: whether the output layer has the weights of the target's embedding, and no bias.
        rng: draws the initial values and the masks of dropout; a fresh generator by default.

    Attributes:
        source_embedding, target_embedding: Embeddings; drawn from N(0, 1 / D), so that after the factor they have
            variance 1.
        transformer: a :class:`lamella.layers.Transformer`.
        head: a Linear of D to V; None where it is tied.
    Source: Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        *,
        activation: Any = "relu",
        norm_first: bool = False,
        max_len: int = 512,
        positions: str = "sinusoidal",
        pad_id: int | None = 0,
        tie_output: bool = False,
        rng: Generator | None = None,
    ) -> None:
        name, rng = "EncoderDecoder", as_generator("EncoderDecoder", rng)
        source_vocab = length(name, "source_vocab", source_vocab, 1)
        target_vocab = length(name, "target_vocab", target_vocab, 1)
        self.d_model, self.max_len = length(name, "d_model", d_model, 1), length(name, "max_len", max_len, 1)
        if pad_id is not None:
            pad_id = length(name, "pad_id", pad_id)
            if pad_id >= source_vocab:
                raise ValueError(f"{name}: pad_id must be a token of the source, got {pad_id=}, {source_vocab=}")
        if positions not in ("sinusoidal", "learned"):
            raise ValueError(f'{name}: positions must be "sinusoidal" or "learned", got {positions!r}')
        self.pad_id = pad_id
        self.source_embedding = _embedding(source_vocab, self.d_model, rng)
        self.target_embedding = _embedding(target_vocab, self.d_model, rng)
        self.source_positions, self.target_positions = (
            SinusoidalPositions(self.max_len, self.d_model)
            if positions == "sinusoidal"
            else LearnedPositions(self.max_len, self.d_model, rng=rng)
            for _ in range(2)
        )
        self.source_dropout, self.target_dropout = (Dropout(dropout, rng=rng.spawn()) for _ in range(2))
        self.transformer = Transformer(
            self.d_model,
            nhead,
            num_encoder_layers,
            num_decoder_layers,
            dim_feedforward,
            dropout,
            activation,
            batch_first=True,
            norm_first=norm_first,
            rng=rng,
        )
        self.head = None if tie_output else Linear(self.d_model, target_vocab, rng=rng)

    def forward(self, source: Any, target: Any, lengths: Any = None) -> Tensor:
        """Scores of what follows each place of ``target``: ``logits[:, t]`` sees ``target[:, : t + 1]``.

        Args:
            source: tokens, integers of shape ``(N, S)``; of lengths that differ, filled up at the end.
            target: tokens, integers of shape ``(N, T)``, beginning with the one that starts every sequence. What fills
                them up at the end is seen by no place before it.
            lengths: tokens in each row of ``source``, integers of shape ``(N,)``; by default all that are not
                ``pad_id``.
        Returns:
            logits, shape ``(N, T, V)``.
        """
        return self.decode(target, self.encode(source, lengths))

    def encode(self, source: Any, lengths: Any = None) -> Memory:
        """Read the source, once for as many calls of :meth:`decode` as are wanted; arguments as for forward."""
        padding = self._padding(source, lengths)
        x = self._embed(source, self.source_embedding, self.source_positions, self.source_dropout)
        return Memory(self.transformer.encoder(x, src_key_padding_mask=padding), padding)

    def decode(self, target: Any, memory: Memory, *, cache: KVCache | None = None) -> Tensor:
        """Scores of what follows each place of ``target``.

        Args:
            target: tokens, integers of shape ``(N, T)``.
            memory: what :meth:`encode` gave.
            cache: what earlier calls kept of the tokens before, which these join, and of the memory, whose states are
                not looked at again; under :func:`lamella.no_grad`.
        Returns:
            logits, shape ``(N, T, V)``.
        """
        start = 0 if cache is None else cache.length
        x = self._embed(target, self.target_embedding, self.target_positions, self.target_dropout, start)
        x = self.transformer.decoder(
            x, memory.states, memory_key_padding_mask=memory.padding, tgt_is_causal=True, cache=cache
        )
        return linear(x, self.target_embedding.weight) if self.head is None else self.head(x)

    def attention_maps(self, source: Any, target: Any, lengths: Any = None) -> list[Array]:
        """Where each place of the target looks in the source: for each layer of the decoder ``(N, h, T, S)``.

        Arguments as for forward. Nothing is dropped, and nothing is recorded.
        """
        found: list[Array] = []

        def look(attention: Any, inputs: Any) -> None:
            query, key, value, padding = inputs[:4]
            found.append(attention.forward(query, key, value, padding, average_attn_weights=False)[1].data)

        handles = [layer.multihead_attn.register_forward_pre_hook(look) for layer in self.transformer.decoder.layers]
        modes = [(module, module.training) for module in self.modules()]
        try:
            with no_grad():
                self.eval()(source, target, lengths)
        finally:
            for handle in handles:
                handle.remove()
            for module, mode in modes:
                module.training = mode
        return found

    def _embed(self, tokens: Any, table: Embedding, positions: Any, dropout: Dropout, start: int = 0) -> Tensor:
        embedded: Tensor = dropout(positions(table(tokens) * math.sqrt(self.d_model), start))
        return embedded

    def _padding(self, source: Any, lengths: Any) -> Array | None:
        """True where the source holds no token, ``(N, S)``; None where every place must hold one."""
        name = "EncoderDecoder"
        require_arrays(name, source=source)
        tokens = source.data if isinstance(source, Tensor) else source
        if tokens.ndim != 2:
            raise ValueError(f"{name}: source must have shape (N, S), got {tuple(tokens.shape)}")
        if lengths is None:
            return None if self.pad_id is None else tokens == self.pad_id
        require_arrays(name, lengths=lengths)
        counts = lengths.data if isinstance(lengths, Tensor) else lengths
        if tuple(counts.shape) != tokens.shape[:1] or counts.dtype.kind not in "iu":
            raise ValueError(
                f"{name}: lengths must be integers of shape {tokens.shape[:1]}, got {counts.dtype} of {counts.shape}"
            )
        places = tokens.shape[1]
        if not backend_of(counts).runs_cuda and counts.size and not 0 <= counts.min() <= counts.max() <= places:
            raise ValueError(f"{name}: lengths must be in 0 … {places}, the places of source, got {counts.tolist()}")
        padding: Array = backend_of(tokens).xp.arange(places) >= counts[:, None]
        return padding


def _embedding(count: int, width: int, rng: Generator) -> Embedding:
    made = Embedding(count, width, rng=rng)
    init.assign(made.weight, init.normal(made.weight.shape, 0.0, width**-0.5, rng=rng))
    return made
