"""The decoder of a Transformer: it looks at what it has written so far and at what the encoder made of the source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import Tensor
from ..backend import Generator, as_generator
from .dropout import Dropout
from .kv_cache import KVCache, LayerCache
from .layer_norm import LayerNorm
from .lengths import length
from .linear import Linear
from .module import Module
from .multihead_attention import MultiheadAttention
from .transformer_encoder import as_activation, copies, feed_forward, joined


class TransformerDecoderLayer(Module):
    """Self-attention, attention to ``memory`` and a small network, each with a path around it and a norm.

    ``x = norm1(x + self_attn(x))``, ``x = norm2(x + multihead_attn(x, memory))``, ``x = norm3(x + network(x))``; with
    ``norm_first`` each norm stands before its branch.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias, rng: as
            for :class:`TransformerEncoderLayer`.
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.1.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rng: Generator | None = None,
    ) -> None:
        name = "TransformerDecoderLayer"
        d_model, wide = length(name, "d_model", d_model, 1), length(name, "dim_feedforward", dim_feedforward, 1)
        rng = as_generator(name, rng)
        self.self_attn, self.multihead_attn = (
            MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, rng=rng) for _ in range(2)
        )
        self.linear1 = Linear(d_model, wide, bias, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)
        self.linear2 = Linear(wide, d_model, bias, rng=rng)
        self.norm_first = norm_first
        self.norm1, self.norm2, self.norm3 = (LayerNorm(d_model, layer_norm_eps, bias=bias) for _ in range(3))
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(dropout, rng=rng) for _ in range(3))
        self.activation = as_activation(name, activation)

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
        *,
        cache: LayerCache | None = None,
    ) -> Tensor:
        """The shape of ``tgt``.

        Args:
            tgt: shape ``(T, N, d_model)``, with ``batch_first`` ``(N, T, d_model)``, or ``(T, d_model)``.
            memory: what the encoder gave, likewise, of any length.
            tgt_mask, tgt_key_padding_mask, tgt_is_causal: for the self-attention, as for
                :class:`MultiheadAttention`: **True where nothing is seen**.
            memory_mask, memory_key_padding_mask, memory_is_causal: for the attention to ``memory``.
            cache: what earlier calls kept of the tokens before ``tgt``, which these join, and of ``memory``, whose keys
                and values are projected once: it is not looked at again.
        """
        own, others = (None, None) if cache is None else (cache.self_attn, cache.multihead_attn)

        def attended(x: Any) -> Any:
            masks = (tgt_key_padding_mask, False, tgt_mask)
            return self.self_attn(x, x, x, *masks, is_causal=tgt_is_causal, cache=own)[0]

        def informed(x: Any) -> Any:
            masks = (memory_key_padding_mask, False, memory_mask)
            return self.multihead_attn(x, memory, memory, *masks, is_causal=memory_is_causal, cache=others)[0]

        if self.norm_first:
            y, x = joined(tgt, attended(self.norm1(tgt)), self.dropout1, self.norm2)
            y, x = joined(x, informed(y), self.dropout2, self.norm3)
            result: Tensor = feed_forward(self, y, x, self.dropout3)
            return result
        x, _ = joined(tgt, attended(tgt), self.dropout1, self.norm1)
        x, _ = joined(x, informed(x), self.dropout2, self.norm2)
        return self.norm3(feed_forward(self, x, x, self.dropout3))


class TransformerDecoder(Module):
    """``num_layers`` copies of a layer, one after another, each with the same ``memory``.

    The copies start with equal weights, as PyTorch's do, and drop differently.

    Args:
        decoder_layer: the layer that is copied.
        num_layers: how many copies.
        norm: a module for the result, or None.

    Attributes:
        layers: the copies.
    """

    def __init__(self, decoder_layer: Any, num_layers: int, norm: Any = None) -> None:
        self.layers = copies("TransformerDecoder", "decoder_layer", decoder_layer, num_layers)
        self.norm = norm

    def forward(self, tgt: Any, memory: Any, *masks: Any, cache: KVCache | None = None, **named: Any) -> Any:
        """The shape of ``tgt``; arguments as for :class:`TransformerDecoderLayer`, and a cache for all layers."""
        for i, layer in enumerate(self.layers):
            kept = {} if cache is None else {"cache": cache.layer(i)}
            tgt = layer(tgt, memory, *masks, **named, **kept)
        return tgt if self.norm is None else self.norm(tgt)
