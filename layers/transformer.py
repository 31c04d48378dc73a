"""The Transformer: an encoder that reads a sequence and a decoder that writes another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import no_grad
from ..backend import Array, Generator, as_generator, backend_for, device
from . import init
from .layer_norm import LayerNorm
from .lengths import length
from .module import Module
from .transformer_decoder import TransformerDecoder, TransformerDecoderLayer
from .transformer_encoder import TransformerEncoder, TransformerEncoderLayer


class Transformer(Module):
    """``decoder(tgt, encoder(src))``, without embeddings, positions and a last projection.

    Every weight matrix starts as Glorot's uniform. The defaults are the paper's base model.

    Args:
        d_model: width of source and target.
        nhead: heads of every attention.
        num_encoder_layers, num_decoder_layers: how many layers each.
        dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias: as for
            :class:`TransformerEncoderLayer`.
        custom_encoder, custom_decoder: modules to take instead; they are called as encoder and decoder are.
        rng: draws the initial values and the masks of dropout; a fresh generator by default.

    Attributes:
        encoder, decoder: each with a norm at its end.
    Source: Vaswani et al. 2017, arXiv 1706.03762.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Any], Any] = "relu",
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        *,
        rng: Generator | None = None,
    ) -> None:
        rng = as_generator("Transformer", rng)
        options: Any = (
            d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias
        )  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias)

        if custom_encoder is None:
            custom_encoder = TransformerEncoder(TransformerEncoderLayer(*options, rng=rng), num_encoder_layers, norm())
        if custom_decoder is None:
            custom_decoder = TransformerDecoder(TransformerDecoderLayer(*options, rng=rng), num_decoder_layers, norm())
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        with no_grad():
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    init.assign(parameter, init.glorot_uniform(parameter.shape, rng=rng))

    def forward(
        self,
        src: Any,
        tgt: Any,
        src_mask: Any = None,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        src_key_padding_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        src_is_causal: bool = False,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Any:
        """The shape of ``tgt``.

        Args:
            src: shape ``(S, N, d_model)``, with ``batch_first`` ``(N, S, d_model)``, or ``(S, d_model)``.
            tgt: likewise, of any length.
            src_mask, src_key_padding_mask, src_is_causal: for the encoder, as for :class:`MultiheadAttention`.
            tgt_mask, tgt_key_padding_mask, tgt_is_causal: for the decoder's self-attention. ``tgt_is_causal=True`` is
                what training a writer needs: no place sees those after it.
            memory_mask, memory_key_padding_mask, memory_is_causal: for the decoder's attention to the encoder.
        """
        batch = 0 if self.batch_first else 1
        if src.ndim != tgt.ndim or (src.ndim == 3 and src.shape[batch] != tgt.shape[batch]):
            raise ValueError(
                f"Transformer: src and tgt must have one batch, got {tuple(src.shape)} and {tuple(tgt.shape)}"
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(
            tgt,
            memory,
            tgt_mask,
            memory_mask,
            tgt_key_padding_mask,
            memory_key_padding_mask,
            tgt_is_causal,
            memory_is_causal,
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int) -> Array:
        """The causal mask as an array to be added to scores, ``(sz, sz)``: 0 up to the diagonal, -inf above.

        ``is_causal=True`` does the same and costs nothing.
        """
        sz = length("generate_square_subsequent_mask", "sz", sz)
        xp = backend_for(device("cpu")).xp
        return xp.triu(xp.full((sz, sz), float("-inf"), "float32"), 1)
