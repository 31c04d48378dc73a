"""The decoder-only Transformer: GPT-2 by default, and with other options the Llama family.

Parameters have the names of GPT-2's published files (``wte``, ``wpe``, ``h.0.attn.c_attn``, …, ``ln_f``), but every
matrix is that of a ``Linear``, ``(out, in)``, where those files have ``(in, out)``: transpose ``c_attn``,
``c_proj`` (both) and ``c_fc``. ``lm_head.weight`` exists only with ``tied=False``; else the head is ``wte.weight``.

========================== ======================================================================
here                       in Llama's files
========================== ======================================================================
wte.weight                 model.embed_tokens.weight
h.N.ln_1.weight            model.layers.N.input_layernorm.weight
h.N.attn.c_attn.weight     model.layers.N.self_attn.{q,k,v}_proj.weight, one below another, in this order
h.N.attn.c_proj.weight     model.layers.N.self_attn.o_proj.weight
h.N.ln_2.weight            model.layers.N.post_attention_layernorm.weight
h.N.mlp.c_gate.weight      model.layers.N.mlp.gate_proj.weight
h.N.mlp.c_fc.weight        model.layers.N.mlp.up_proj.weight
h.N.mlp.c_proj.weight      model.layers.N.mlp.down_proj.weight
ln_f.weight                model.norm.weight
lm_head.weight             lm_head.weight
========================== ======================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor, multiply, permute_dims, reshape, split
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_for, backend_of, device
from ..layers import (
    Dropout,
    Embedding,
    LayerNorm,
    LearnedPositions,
    Linear,
    Module,
    ModuleList,
    RMSNorm,
    RotaryEmbedding,
    embedding,
    init,
    linear,
    linear_cross_entropy,
)
from ..layers.drop import check_probability
from ..layers.fusion import run_linear
from ..layers.gelu import GELU
from ..layers.kv_cache import KeyValues, KVCache
from ..layers.lengths import length
from ..layers.scaled_dot_product_attention import attend, attend_packed
from ..layers.silu import SiLU
from ..layers.transformer_encoder import joined

_STD = 0.02  # of the initial weights


class GPTAttention(Module):
    """Causal self-attention in several heads, keys and values in as many or fewer: ``c_proj(attention(c_attn(x)))``.

    Args:
        d_model: width of input and output.
        num_heads: h, heads of the queries.
        num_kv_heads: heads of the keys and values, a divisor of h; each serves neighbouring query heads.
        head_dim: d, width of a head.
        dropout: probability with which a weight is dropped in training.
        rotary: turns queries and keys by their places, or None.
        bias: whether the projections have a bias.
        rng: draws the initial values and the masks of dropout.

    Attributes:
        c_attn: gives queries, keys and values side by side, ``(h + 2 num_kv_heads) d`` numbers.
        c_proj: from ``h d`` numbers back to ``d_model``.
    """

    def __init__(
        self, d_model: int, num_heads: int, num_kv_heads: int, head_dim: int, dropout: float,
        rotary: RotaryEmbedding | None, bias: bool, *, rng: Generator,
    ) -> None:  # fmt: skip
        self.num_heads, self.num_kv_heads, self.head_dim = num_heads, num_kv_heads, head_dim
        self.dropout, self.rng, self.rotary = dropout, rng, rotary
        self.c_attn = Linear(d_model, (num_heads + 2 * num_kv_heads) * head_dim, bias, rng=rng)
        self.c_proj = Linear(num_heads * head_dim, d_model, bias, rng=rng)

    def forward(
        self, x: Any, cache: KeyValues | None = None, positions: Array | None = None, mask: Array | None = None
    ) -> Tensor:
        """The shape of ``x``.

        Args:
            x: shape ``(N, T, d_model)``.
            cache: keys and values of the places before, which these join.
            positions: of these places, shape ``(N, T)``, where they are not counted from the first.
            mask: True where a key may be seen, broadcastable to ``(N, h, T, places before and these)``.
        """
        count, places = x.shape[:2]
        start = 0 if cache is None else cache.length
        options: dict[str, Any] = {"mask": mask}
        if places > 1:  # one query alone sees everything
            options |= {"causal": True, "causal_offset": start}
        if self.dropout and self.training:
            words = count * self.num_heads * places * (start + places)
            options |= {"dropout": self.dropout, "dropout_key": self.rng.reserve(words)}
        qkv = self.c_attn(x)  # (N, T, (h + 2 hk) d)
        if cache is None and self.rotary is None and self.num_kv_heads == self.num_heads:
            return self.c_proj(attend_packed(qkv, self.num_heads, 0, **options))
        turned = self.num_heads + self.num_kv_heads
        heads = reshape(qkv, (count, places, turned + self.num_kv_heads, self.head_dim))
        heads = permute_dims(heads, (0, 2, 1, 3))  # (N, h + 2 hk, T, d)
        if self.rotary is None:
            q, k, v = split(heads, (self.num_heads, turned), 1)
        else:
            qk, v = split(heads, (turned,), 1)
            q, k = split(self.rotary(qk, positions, 0 if positions is not None else start), (self.num_heads,), 1)
        if cache is not None:
            k, v = cache.append(k, v)
        merged = permute_dims(attend(q, k, v, **options), (0, 2, 1, 3))
        return self.c_proj(reshape(merged, (count, places, self.num_heads * self.head_dim)))

    def extra_repr(self) -> str:
        return f"{self.num_heads} heads of {self.head_dim}, {self.num_kv_heads} of keys, dropout={self.dropout}"


class GPTMLP(Module):
    """``c_proj(f(c_fc(x)))`` with GELU by its tanh formula, or SwiGLU, ``c_proj(silu(c_gate(x)) * c_fc(x))``.

    Args:
        d_model: width of input and output.
        wide: width between.
        gated: whether it is SwiGLU.
        bias: whether the linear layers have a bias.
        rng: draws the initial values.
    Source: Shazeer 2020, "GLU variants improve Transformer", arXiv 2002.05202.
    """

    def __init__(self, d_model: int, wide: int, gated: bool, bias: bool, *, rng: Generator) -> None:
        self.c_gate = Linear(d_model, wide, bias, rng=rng) if gated else None
        self.c_fc = Linear(d_model, wide, bias, rng=rng)
        self.act = SiLU() if gated else GELU("tanh")
        self.c_proj = Linear(wide, d_model, bias, rng=rng)

    def forward(self, x: Any, dropout: Any = None, residual: Any = None) -> Any:
        """``residual + dropout(mlp(x))``, both of which may be left out; the shape of ``x``."""
        if self.c_gate is None:
            hidden = run_linear(self.c_fc, x, activation=self.act)
        else:
            hidden = multiply(run_linear(self.c_gate, x, activation=self.act), self.c_fc(x))
        return run_linear(self.c_proj, hidden, dropout=dropout, residual=residual)


class GPTBlock(Module):
    """``x = x + drop(attn(ln_1(x)))``, then ``x = x + drop(mlp(ln_2(x)))``.

    Args:
        norm: makes a norm of the model's width.
        attn: the attention. mlp: the network at each place.
        dropout: probability of dropping what a branch gives, in training.
        rng: the stream of the masks.
    """

    def __init__(self, norm: Any, attn: GPTAttention, mlp: GPTMLP, dropout: float, *, rng: Generator) -> None:
        self.ln_1, self.attn, self.ln_2, self.mlp = norm(), attn, norm(), mlp
        self.drop_1, self.drop_2 = Dropout(dropout, rng=rng), Dropout(dropout, rng=rng)

    def forward(
        self, x: Any, cache: KeyValues | None = None, positions: Array | None = None, mask: Array | None = None
    ) -> Any:
        """The shape of ``x``; arguments as for :class:`GPTAttention`."""
        y, x = joined(x, self.attn(self.ln_1(x), cache, positions, mask), self.drop_1, self.ln_2)
        return self.mlp(y, self.drop_2, x)


class GPT(Module):
    """Gives, at each place of a sequence of tokens, a score for every token that may come next.

    The defaults are GPT-2's definitions: learned positions, LayerNorm before each branch, GELU by its tanh formula,
    biases, dropout, a head that is the table of embeddings. ``norm="rms", positions="rotary", mlp="swiglu",
    bias=False, dropout=0`` is Llama, see :func:`llama`. All combinations work.

    Weights start as N(0, 0.02²), those of the projections that end a branch as N(0, 0.02² / (2 num_layers)), biases as
    0 and norms as 1.

    Args:
        vocab_size: V, how many tokens there are.
        max_len: the longest sequence.
        d_model: width.
        num_layers: how many blocks.
        num_heads: h, heads of the queries.
        num_kv_heads: heads of the keys and values, a divisor of h; h by default.
        head_dim: width of a head; ``d_model / num_heads`` by default.
        dim_feedforward: width inside the network of a block; ``4 d_model`` by default.
        dropout: probability of dropping in training: embeddings, weights of the attention, both branches.
        norm: ``"layer"`` or ``"rms"``.
        eps: added to the variance or mean square by the norms.
        positions: ``"learned"``, a vector for each place, or ``"rotary"``, queries and keys turned by halves.
        rope_theta: base of the rotary frequencies.
        rope_frequencies: the frequencies themselves, ``head_dim / 2`` numbers, where a model has others.
        mlp: ``"gelu"`` or ``"swiglu"``.
        bias: whether linear layers and LayerNorms have a bias.
        tied: whether the head is the table of embeddings.
        rng: draws the initial values and the masks of dropout; a fresh generator by default.

    Attributes:
        wte, wpe: tables of tokens and of places; ``wpe`` is None with rotary positions.
        h: the blocks.
        ln_f: the norm at the end.
        lm_head: a Linear without bias, None where it is tied.
    Source: Radford et al. 2019, "Language models are unsupervised multitask learners"; Touvron et al. 2023,
        arXiv 2302.13971.
    """

    def __init__(
        self,
        vocab_size: int,
        max_len: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        *,
        num_kv_heads: int | None = None,
        head_dim: int | None = None,
        dim_feedforward: int | None = None,
        dropout: float = 0.1,
        norm: str = "layer",
        eps: float = 1e-5,
        positions: str = "learned",
        rope_theta: float = 10000.0,
        rope_frequencies: Sequence[float] | None = None,
        mlp: str = "gelu",
        bias: bool = True,
        tied: bool = True,
        rng: Generator | None = None,
    ) -> None:
        name = "GPT"
        self.vocab_size, self.max_len = (
            length(name, what, value, 1) for what, value in (("vocab_size", vocab_size), ("max_len", max_len))
        )
        d_model, num_heads = length(name, "d_model", d_model, 1), length(name, "num_heads", num_heads, 1)
        num_kv_heads = num_heads if num_kv_heads is None else length(name, "num_kv_heads", num_kv_heads, 1)
        wide = 4 * d_model if dim_feedforward is None else length(name, "dim_feedforward", dim_feedforward, 1)
        if head_dim is None and d_model % num_heads:
            raise ValueError(f"{name}: num_heads must divide d_model, got {num_heads=}, {d_model=}")
        head_dim = d_model // num_heads if head_dim is None else length(name, "head_dim", head_dim, 1)
        if num_heads % num_kv_heads:
            raise ValueError(f"{name}: num_kv_heads must divide num_heads, got {num_kv_heads=}, {num_heads=}")
        for what, value, allowed in (
            ("norm", norm, ("layer", "rms")),
            ("positions", positions, ("learned", "rotary")),
            ("mlp", mlp, ("gelu", "swiglu")),
        ):
            if value not in allowed:
                raise ValueError(f'{name}: {what} must be "{allowed[0]}" or "{allowed[1]}", got {value!r}')
        if positions == "rotary" and head_dim % 2:
            raise ValueError(f"{name}: head_dim must be even for rotary positions, got {head_dim}")
        dropout = check_probability(name, dropout, "dropout")
        rng = as_generator(name, rng)
        self.d_model = d_model

        def make_norm() -> Module:
            return RMSNorm(d_model, eps) if norm == "rms" else LayerNorm(d_model, eps, bias=bias)

        self.wte = Embedding(vocab_size, d_model, rng=rng)
        self.wpe = LearnedPositions(max_len, d_model, rng=rng) if positions == "learned" else None
        rotary = None
        if positions == "rotary":
            rotary = RotaryEmbedding(head_dim, rope_theta, frequencies=rope_frequencies, max_positions=self.max_len)
            given = rotary.frequencies
            if given is not None and len(given) != head_dim // 2:
                raise ValueError(
                    f"{name}: rope_frequencies must be head_dim / 2 = {head_dim // 2} numbers, got {len(given)}"
                )
        self.drop = Dropout(dropout, rng=rng)
        self.h = ModuleList(
            GPTBlock(
                make_norm,
                GPTAttention(d_model, num_heads, num_kv_heads, head_dim, dropout, rotary, bias, rng=rng),
                GPTMLP(d_model, wide, mlp == "swiglu", bias, rng=rng),
                dropout,
                rng=rng,
            )
            for _ in range(length(name, "num_layers", num_layers, 1))
        )
        self.ln_f = make_norm()
        self.lm_head = None if tied else Linear(d_model, vocab_size, False, rng=rng)
        self._start(rng)

    def _start(self, rng: Generator) -> None:
        """Draw the initial values."""
        ends_a_branch = _STD / math.sqrt(2 * len(self.h))
        for path, parameter in self.named_parameters():
            if parameter.ndim > 1:
                std = ends_a_branch if path.endswith("c_proj.weight") else _STD
                init.assign(parameter, init.normal(parameter.shape, 0.0, std, rng=rng))
            elif path.endswith("bias"):
                init.assign(parameter, init.zeros(parameter.shape))

    def forward(
        self, ids: Any, *, cache: KVCache | None = None, padding: Any = None, last_only: bool = False
    ) -> Tensor:
        """Scores of the tokens that may follow, ``(N, T, V)``; with ``last_only`` after the last place, ``(N, 1, V)``.

        Args:
            ids: tokens, integers in ``0 … V - 1``, shape ``(N, T)``.
            cache: what is kept of the tokens before, which these join; under :func:`lamella.no_grad`.
            padding: for sequences of different lengths, which end together: N integers, how many places at the left of
                each hold nothing (the cached ones counted). What stands there is not seen, and positions are counted
                after it.
            last_only: the head is by far the widest layer, and writing text needs the last place alone.
        """
        x = self.features(ids, cache=cache, padding=padding)
        if last_only:
            x = x[:, -1:]
        return linear(x, self.head_weight)

    @property
    def head_weight(self) -> Tensor:
        """The matrix of the head, shape ``(V, d_model)``."""
        return self.wte.weight if self.lm_head is None else self.lm_head.weight

    def features(self, ids: Any, *, cache: KVCache | None = None, padding: Any = None) -> Tensor:
        """What the head is given, shape ``(N, T, d_model)``; arguments as for :meth:`forward`."""
        require_arrays("GPT", ids=ids)
        if ids.ndim != 2:
            raise ValueError(f"GPT: ids must have shape (N, T), got {tuple(ids.shape)}")
        start = 0 if cache is None else cache.length
        stop = start + ids.shape[1]
        positions = mask = None
        if padding is not None:
            positions, mask = self._padded(ids, padding, start)
        if stop > self.max_len and padding is None:
            before = f" after {start} in the cache" if start else ""
            raise ValueError(
                f"GPT: sequences must have at most max_len={self.max_len} tokens, got {ids.shape[1]}{before}"
            )
        x = self.wte(ids)
        if self.wpe is not None:
            x = self.wpe(x, start) if positions is None else x + embedding(positions, self.wpe.weight)
        x = self.drop(x)
        for i, block in enumerate(self.h):
            x = block(x, None if cache is None else cache.layer(i).self_attn, positions, mask)
        return self.ln_f(x)

    def loss(self, ids: Any, labels: Any, *, ignore_index: int = -100) -> Tensor:
        """The mean cross entropy of the tokens that follow, in nats, without holding the scores of all of them.

        Args:
            ids: shape ``(N, T)``. labels: the token that follows each, shape ``(N, T)``, or ``ignore_index``.
        """
        return linear_cross_entropy(self.features(ids), self.head_weight, labels, ignore_index=ignore_index)

    def _padded(self, ids: Any, padding: Any, start: int) -> tuple[Array, Array]:
        """Positions ``(N, T)`` and which keys are seen ``(N, 1, 1, start + T)``, on the device of ``ids``."""
        host, (count, places) = backend_for(device("cpu")).xp, ids.shape
        left = host.asarray(padding)
        if left.shape != (count,) or left.dtype.kind not in "iu":
            raise ValueError(f"GPT: padding must be {count} integers, one for each sequence, got {padding!r}")
        stop = start + places
        if left.size and not left.min() >= 0:
            raise ValueError(f"GPT: padding must not be negative, got {left.tolist()}")
        if left.size and stop - left.min() > self.max_len:
            raise ValueError(f"GPT: sequences must have at most max_len={self.max_len} tokens, got {stop - left.min()}")
        data = ids.data if isinstance(ids, Tensor) else ids
        backend = backend_of(data)
        place = backend.device_of(data)
        positions = host.maximum(host.arange(start, stop) - left[:, None], 0)
        seen = host.arange(stop) >= left[:, None]
        return backend.from_numpy(positions, place), backend.from_numpy(seen[:, None, None], place)

    def extra_repr(self) -> str:
        return f"{self.vocab_size} tokens, at most {self.max_len}, width {self.d_model}"


def gpt2(*, dropout: float = 0.1, rng: Generator | None = None) -> GPT:
    """GPT-2 of 12 layers, width 768: 124,439,808 parameters."""
    return _gpt2(768, 12, 12, dropout, rng)


def gpt2_medium(*, dropout: float = 0.1, rng: Generator | None = None) -> GPT:
    """GPT-2 of 24 layers, width 1024: 354,823,168 parameters."""
    return _gpt2(1024, 24, 16, dropout, rng)


def gpt2_large(*, dropout: float = 0.1, rng: Generator | None = None) -> GPT:
    """GPT-2 of 36 layers, width 1280: 774,030,080 parameters."""
    return _gpt2(1280, 36, 20, dropout, rng)


def gpt2_xl(*, dropout: float = 0.1, rng: Generator | None = None) -> GPT:
    """GPT-2 of 48 layers, width 1600: 1,557,611,200 parameters."""
    return _gpt2(1600, 48, 25, dropout, rng)


def _gpt2(d_model: int, num_layers: int, num_heads: int, dropout: float, rng: Generator | None) -> GPT:
    return GPT(50257, 1024, d_model, num_layers, num_heads, dropout=dropout, rng=rng)


def llama(
    vocab_size: int,
    max_len: int,
    d_model: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int | None = None,
    dim_feedforward: int | None = None,
    *,
    dropout: float = 0.0,
    eps: float = 1e-6,
    rope_theta: float = 10000.0,
    rope_frequencies: Sequence[float] | None = None,
    head_dim: int | None = None,
    tied: bool = False,
    rng: Generator | None = None,
) -> GPT:
    """A :class:`GPT` with the Llama family's definitions: RMSNorm, rotary positions, SwiGLU, no biases.

    Args:
        dim_feedforward: ``8 d_model / 3``, rounded up to a multiple of 256, by default, as in the first Llama.
        dropout: none by default, as in the family.
        others: as for :class:`GPT`.
    Source: Touvron et al. 2023, arXiv 2302.13971.
    """
    if dim_feedforward is None:
        dim_feedforward = -(-8 * length("llama", "d_model", d_model, 1) // (3 * 256)) * 256
    return GPT(
        vocab_size, max_len, d_model, num_layers, num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim,
        dim_feedforward=dim_feedforward, dropout=dropout, norm="rms", eps=eps, positions="rotary",
        rope_theta=rope_theta, rope_frequencies=rope_frequencies, mlp="swiglu", bias=False, tied=tied, rng=rng,
    )  # fmt: skip
