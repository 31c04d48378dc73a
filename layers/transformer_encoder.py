"""The encoder of a Transformer: self-attention and a small network at each place, each with a path around it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from ..autograd import Tensor, add
from ..backend import Generator, as_generator
from .containers import ModuleList
from .dropout import Dropout
from .dropout_add_norm import dropout_add_layer_norm, dropout_add_rms_norm
from .fusion import is_plain, run_linear
from .gelu import gelu
from .layer_norm import LayerNorm
from .lengths import length
from .linear import Linear
from .module import Module
from .multihead_attention import MultiheadAttention
from .relu import relu
from .rms_norm import RMSNorm

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": relu, "gelu": gelu}


class TransformerEncoderLayer(Module):
    """``x = norm1(x + attention(x))``, then ``x = norm2(x + linear2(activation(linear1(x))))``; dropout in each branch.

    With ``norm_first`` the norms stand before the branches: ``x = x + attention(norm1(x))``, and so on.

    Args:
        d_model: width of the input and output.
        nhead: heads of the attention, a divisor of ``d_model``.
        dim_feedforward: width between ``linear1`` and ``linear2``.
        dropout: probability of dropping, in training: weights of the attention, what ``linear1`` gives, both branches.
        activation: ``"relu"``, ``"gelu"`` or a function of a tensor.
        layer_norm_eps: added to the variance by the norms.
        batch_first: ``(N, T, d_model)`` instead of ``(T, N, d_model)``.
        norm_first: whether a norm stands before its branch (pre-norm) or after the sum (post-norm).
        bias: whether linear layers and norms have a bias.
        rng: draws the initial values and the masks of dropout; a fresh generator by default.
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.1; pre-norm: Xiong et al. 2020, arXiv 2002.04745.
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
        name = "TransformerEncoderLayer"
        d_model, wide = length(name, "d_model", d_model, 1), length(name, "dim_feedforward", dim_feedforward, 1)
        rng = as_generator(name, rng)
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, rng=rng)
        self.linear1 = Linear(d_model, wide, bias, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)
        self.linear2 = Linear(wide, d_model, bias, rng=rng)
        self.norm_first = norm_first
        self.norm1, self.norm2 = (LayerNorm(d_model, layer_norm_eps, bias=bias) for _ in range(2))
        self.dropout1, self.dropout2 = (Dropout(dropout, rng=rng) for _ in range(2))
        self.activation = as_activation(name, activation)

    def forward(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        """The shape of ``src``.

        Args:
            src: shape ``(T, N, d_model)``, with ``batch_first`` ``(N, T, d_model)``, or ``(T, d_model)``.
            src_mask, src_key_padding_mask, is_causal: as ``attn_mask``, ``key_padding_mask`` and ``is_causal`` of
                :class:`MultiheadAttention`: **True where nothing is seen**.
        """

        def attended(x: Any) -> Any:
            return self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)[0]

        if self.norm_first:
            y, x = joined(src, attended(self.norm1(src)), self.dropout1, self.norm2)
            result: Tensor = feed_forward(self, y, x, self.dropout2)
            return result
        x, _ = joined(src, attended(src), self.dropout1, self.norm1)
        return self.norm2(feed_forward(self, x, x, self.dropout2))


def feed_forward(layer: Any, x: Any, past: Any, dropout: Any) -> Any:
    """``past + dropout(linear2(layer.dropout(activation(linear1(x)))))``."""
    hidden = run_linear(layer.linear1, x, activation=layer.activation, dropout=layer.dropout)
    return run_linear(layer.linear2, hidden, dropout=dropout, residual=past)


def joined(x: Any, branch: Any, dropout: Any, norm: Any) -> tuple[Tensor, Tensor]:
    """``norm(x + dropout(branch))`` and the sum: one operation, unless somebody put in or listens to other modules."""
    if type(dropout) is Dropout and is_plain(dropout) and is_plain(norm):
        dropping: Any = {"p": dropout.p, "training": dropout.training, "rng": dropout.rng}
        if type(norm) is LayerNorm:
            return dropout_add_layer_norm(
                branch, x, norm.normalized_shape, norm.weight, norm.bias, norm.eps, **dropping
            )
        if type(norm) is RMSNorm:
            return dropout_add_rms_norm(branch, x, norm.normalized_shape, norm.weight, norm.eps, **dropping)
    total = add(x, dropout(branch))
    return norm(total), total


class TransformerEncoder(Module):
    """``num_layers`` copies of a layer, one after another.

    The copies start with equal weights, as PyTorch's do, and drop differently.

    Args:
        encoder_layer: the layer that is copied.
        num_layers: how many copies.
        norm: a module for the result, or None.

    Attributes:
        layers: the copies.
    """

    def __init__(self, encoder_layer: Any, num_layers: int, norm: Any = None) -> None:
        self.layers = copies("TransformerEncoder", "encoder_layer", encoder_layer, num_layers)
        self.norm = norm

    def forward(self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False) -> Any:
        """The shape of ``src``; arguments as for :class:`TransformerEncoderLayer`."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, is_causal)
        return src if self.norm is None else self.norm(src)


def copies(owner: str, argument: str, layer: Any, count: int) -> ModuleList:
    """Copies of a layer with random streams of their own: the same masks in every layer would be no accident."""
    if not isinstance(layer, Module):
        raise TypeError(f"{owner}: {argument} must be a module, got {layer!r}")
    made = ModuleList(copy.deepcopy(layer) for _ in range(length(owner, "num_layers", count, 1)))
    for i, one in enumerate(made):
        streams = {id(s): s for part in one.modules() if isinstance(s := getattr(part, "rng", None), Generator)}
        for stream in streams.values():
            stream.state = stream.split(i).state
    return made


def as_activation(owner: str, activation: Any) -> Callable[[Any], Any]:
    """The function of that name, or the function itself."""
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    if not callable(activation):
        raise ValueError(f'{owner}: activation must be "relu", "gelu" or a function, got {activation!r}')
    function: Callable[[Any], Any] = activation
    return function
