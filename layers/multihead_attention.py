"""Attention in several heads, each with projections of its own."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Parameter, Tensor, broadcast_to, concat, permute_dims, reshape, split
from ..autograd.tape import require_arrays
from ..backend import Generator, as_generator, backend_of
from . import init
from .drop import check_probability
from .kv_cache import KeyValues
from .lengths import length
from .linear import Linear, linear
from .module import Module
from .scaled_dot_product_attention import attend, attend_packed, attention_weights


class MultiheadAttention(Module):
    """Projects queries, keys and values, attends in ``num_heads`` parts of the width, and projects the result.

    ``head_i = attention(query Wq_i^T, key Wk_i^T, value Wv_i^T)``, ``output = concat(head_1, …, head_h) Wo^T``. Unlike
    PyTorch's, a query for which every key is masked gives the output projection of 0, not NaN.

    Args:
        embed_dim: E, width of queries and of the output.
        num_heads: h, a divisor of E.
        dropout: probability with which a weight is dropped in training.
        bias: whether the projections have a bias.
        add_bias_kv: whether a learned key and value follow those given.
        add_zero_attn: whether a key and a value of 0 follow those given.
        kdim, vdim: widths of keys and of values; E by default.
        batch_first: ``(N, T, E)`` instead of ``(T, N, E)``.
        rng: draws the initial values and the masks of dropout; a fresh generator by default.

    Attributes:
        in_proj_weight: shape ``(3 E, E)``, the rows of queries, keys and values; None where ``kdim`` or ``vdim``
            differ from E. Then there are ``q_proj_weight`` ``(E, E)``, ``k_proj_weight`` ``(E, kdim)`` and
            ``v_proj_weight`` ``(E, vdim)``, which are None otherwise.
        in_proj_bias: shape ``(3 E,)``, or None.
        out_proj: a Linear of E to E.
        bias_k, bias_v: shape ``(1, 1, E)``, or None.
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        rng: Generator | None = None,
    ) -> None:
        name = "MultiheadAttention"
        self.embed_dim = embed_dim = length(name, "embed_dim", embed_dim, 1)
        self.num_heads = num_heads = length(name, "num_heads", num_heads, 1)
        if embed_dim % num_heads:
            raise ValueError(f"{name}: num_heads must divide embed_dim, got {num_heads=}, {embed_dim=}")
        self.head_dim = embed_dim // num_heads
        self.dropout = check_probability(name, dropout, "dropout")
        self.kdim = embed_dim if kdim is None else length(name, "kdim", kdim, 1)
        self.vdim = embed_dim if vdim is None else length(name, "vdim", vdim, 1)
        self.add_zero_attn, self.batch_first = add_zero_attn, batch_first
        self.rng = rng = as_generator(name, rng)
        self.in_proj_weight = self.q_proj_weight = self.k_proj_weight = self.v_proj_weight = None
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = Parameter(init.glorot_uniform((3 * embed_dim, embed_dim), rng=rng))
        else:
            self.q_proj_weight = Parameter(init.glorot_uniform((embed_dim, embed_dim), rng=rng))
            self.k_proj_weight = Parameter(init.glorot_uniform((embed_dim, self.kdim), rng=rng))
            self.v_proj_weight = Parameter(init.glorot_uniform((embed_dim, self.vdim), rng=rng))
        self.in_proj_bias = Parameter(init.zeros((3 * embed_dim,))) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, rng=rng)
        if self.out_proj.bias is not None:
            init.assign(self.out_proj.bias, init.zeros((embed_dim,)))
        self.bias_k = self.bias_v = None
        if add_bias_kv:
            self.bias_k, self.bias_v = (Parameter(init.glorot_normal((1, 1, embed_dim), rng=rng)) for _ in range(2))

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        cache: KeyValues | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The output, and the weights where they are wanted.

        Memory is linear in L and S without the weights; ask for them only to look at them.

        Args:
            query: shape ``(L, N, E)``, with ``batch_first`` ``(N, L, E)``, or ``(L, E)`` without a batch.
            key, value: likewise, of length S and widths ``kdim`` and ``vdim``.
            key_padding_mask: shape ``(N, S)``: boolean, **True where a key is left out**, or floating, added to the
                scores.
            need_weights: whether the weights are returned too.
            attn_mask: shape ``(L, S)`` or ``(N h, L, S)``: boolean, **True where a query may not see a key**, or
                floating, added to the scores.
            average_attn_weights: whether the weights are the mean over the heads.
            is_causal: query i sees keys 0 … i; says that this is what ``attn_mask`` means, which may then be left out.
            cache: keys and values of earlier calls, projected, which those given join: they come first, and S counts
                them, in masks too; ``is_causal`` counts queries from the first that was not cached. A ``fixed`` cache
                that is filled takes the place of ``key`` and ``value``, which are not looked at.
        Returns:
            the output, of the shape of ``query``, and the weights, shape ``(N, L, S)``, for each head
            ``(N, h, L, S)``, or None. Extra keys (``add_bias_kv``, ``add_zero_attn``) come last in S.
        """
        name = "MultiheadAttention"
        extra = (self.bias_k is not None) + self.add_zero_attn
        self._check_cache(cache, extra, is_causal)
        kept = cache is not None and cache.fixed and cache.filled
        same = query is key is value
        if kept:
            key = value = query  # of which nothing is used
        require_arrays(name, query=query, key=key, value=value)
        batched = query.ndim == 3
        given = (("query", query, self.embed_dim), ("key", key, self.kdim), ("value", value, self.vdim))
        for what, array, width in given[:1] if kept else given:
            if array.ndim != query.ndim or array.ndim not in (2, 3) or array.shape[-1] != width:
                layout = "(N, T, {0}) or (T, {0})" if self.batch_first else "(T, N, {0}) or (T, {0})"
                raise ValueError(f"{name}: {what} must have shape {layout.format(width)}, got {tuple(array.shape)}")
        if not batched:
            axis = 0 if self.batch_first else 1
            query, key, value = (reshape(a, (*a.shape[:axis], 1, *a.shape[axis:])) for a in (query, key, value))
        batch_axis = 0 if self.batch_first else 1
        count, queries, keys = query.shape[batch_axis], query.shape[1 - batch_axis], key.shape[1 - batch_axis]
        if key.shape[:2] != value.shape[:2] or key.shape[batch_axis] != count:
            raise ValueError(
                f"{name}: key and value must have one length and the batch of query, "
                f"got {tuple(query.shape)}, {tuple(key.shape)}, {tuple(value.shape)}"
            )
        before = 0 if cache is None or kept else cache.length
        keys = cache.length if kept and cache is not None else before + keys
        sizes = (count, queries, keys)
        options, bias = self._options(query, sizes, extra, key_padding_mask, attn_mask, is_causal, before)
        if same and self.in_proj_weight is not None and not extra and bias is None and cache is None:
            qkv = linear(query, self.in_proj_weight, self.in_proj_bias)
            merged = attend_packed(qkv, self.num_heads, batch_axis, **options)
            if need_weights:
                width = self.embed_dim
                q, k = (self._heads(qkv[..., i * width : (i + 1) * width]) for i in (0, 1))
        else:
            if cache is None:
                q, k, v = self._projected(query, key, value)
            else:
                q, k, v = self._cached(query, None if kept else (key, value), same, cache)
            head = attend(q, k, v, bias, **options)
            merged = permute_dims(head, (0, 2, 1, 3) if self.batch_first else (2, 0, 1, 3))
            merged = reshape(merged, (*query.shape[:2], self.embed_dim))
        output = self.out_proj(merged)
        weights = None
        if need_weights:
            weights = attention_weights(q, k, bias, **options)
            if average_attn_weights:
                weights = weights.mean(axis=1)
        if not batched:
            output = reshape(output, (queries, self.embed_dim))
            weights = None if weights is None else reshape(weights, tuple(weights.shape[1:]))
        return output, weights

    def _heads(self, x: Any) -> Tensor:
        """``(N, T, E)`` or ``(T, N, E)`` as ``(N, h, T, d)``."""
        split = reshape(x, (*x.shape[:2], self.num_heads, self.head_dim))
        return permute_dims(split, (0, 2, 1, 3) if self.batch_first else (1, 2, 0, 3))

    def _check_cache(self, cache: KeyValues | None, extra: int, causal: bool) -> None:
        name = "MultiheadAttention"
        if cache is None:
            return
        if not isinstance(cache, KeyValues):
            raise TypeError(f"{name}: cache must be a KeyValues or None, got {cache!r}")
        if extra:
            raise ValueError(f"{name}: cache must be None with add_bias_kv or add_zero_attn, whose keys come last")
        if cache.fixed and causal:
            raise ValueError(f"{name}: is_causal must be False with a fixed cache, which does not count the queries")

    def _cached(
        self, query: Any, new: tuple[Any, Any] | None, same: bool, cache: KeyValues
    ) -> tuple[Tensor, Any, Any]:
        """Queries of all heads, and all keys and values of the cache, the new ones among them."""
        if same and self.in_proj_weight is not None:
            qkv = split(linear(query, self.in_proj_weight, self.in_proj_bias), 3, 2)
            q, k, v = (self._heads(x) for x in qkv)
            return q, *cache.append(k, v)
        (wq, wk, wv), (bq, bk, bv) = self._weights()
        q = self._heads(linear(query, wq, bq))
        if new is None:
            return q, cache.keys, cache.values
        k, v = (self._heads(linear(x, w, b)) for x, w, b in zip(new, (wk, wv), (bk, bv), strict=True))
        return q, *cache.append(k, v)

    def _weights(self) -> tuple[Any, Any]:
        """The matrices of queries, keys and values, and their biases."""
        weights: Any = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = split(self.in_proj_weight, 3)
        return weights, (None,) * 3 if self.in_proj_bias is None else split(self.in_proj_bias, 3)

    def _projected(self, query: Any, key: Any, value: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads, the extra ones too."""
        weights, biases = self._weights()
        q, k, v = (linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        length_axis = 1 if self.batch_first else 0
        shape = [1, 1, self.embed_dim]
        shape[1 - length_axis] = query.shape[1 - length_axis]
        if self.bias_k is not None:
            k, v = (
                concat([x, broadcast_to(last, tuple(shape))], length_axis)
                for x, last in ((k, self.bias_k), (v, self.bias_v))
            )
        if self.add_zero_attn:
            zero = backend_of(k.data).xp.zeros(tuple(shape), k.dtype)
            k, v = (concat([x, zero], length_axis) for x in (k, v))
        return self._heads(q), self._heads(k), self._heads(v)

    def _options(
        self,
        query: Any,
        sizes: tuple[int, int, int],
        extra: int,
        key_padding_mask: Any,
        attn_mask: Any,
        causal: bool,
        before: int,
    ) -> tuple[dict[str, Any], Tensor | None]:
        """The kernel's options, and a mask that wants its gradient; ``before`` keys are cached."""
        name = "MultiheadAttention"
        count, queries, keys = sizes
        options: dict[str, Any] = {}
        bias = None
        xp = backend_of(query.data if isinstance(query, Tensor) else query).xp
        if causal and not extra:
            attn_mask = None
            if not (queries == 1 and before == keys - 1):  # that query sees everything
                options |= {"causal": True, "causal_offset": before}
        elif causal and attn_mask is None:
            attn_mask = xp.triu(xp.ones((queries, keys), bool), 1)
        masks = []
        if attn_mask is not None:
            require_arrays(name, attn_mask=attn_mask)
            every = (count * self.num_heads, queries, keys)
            if tuple(attn_mask.shape) not in (every, every[1:]):
                raise ValueError(
                    f"{name}: attn_mask must have shape {every[1:]} or {every}, got {tuple(attn_mask.shape)}"
                )
            full = (count, self.num_heads) if attn_mask.ndim == 3 else (1, 1)
            if isinstance(attn_mask, Tensor) and attn_mask.requires_grad:
                bias = reshape(attn_mask, (*full, queries, keys))
                if extra:
                    zero = xp.zeros((*full, queries, extra), attn_mask.dtype)
                    bias = concat([bias, zero], 3)
            else:
                masks.append(_visible(name, "attn_mask", attn_mask, xp).reshape(*full, queries, keys))
        if key_padding_mask is not None:
            require_arrays(name, key_padding_mask=key_padding_mask)
            if tuple(key_padding_mask.shape) not in ((count, keys), (keys,)):
                raise ValueError(
                    f"{name}: key_padding_mask must have shape {(count, keys)}, got {tuple(key_padding_mask.shape)}"
                )
            visible = _visible(name, "key_padding_mask", key_padding_mask, xp)
            masks.append(visible.reshape(-1, 1, 1, keys) if visible.size else visible.reshape(count, 1, 1, keys))
        if masks:
            options["mask"] = _together(xp, masks, extra)
        if self.dropout and self.training:
            words = count * self.num_heads * queries * (keys + extra)
            options |= {"dropout": self.dropout, "dropout_key": self.rng.reserve(words)}
        return options, bias

    def extra_repr(self) -> str:
        return f"{self.embed_dim}, {self.num_heads}, dropout={self.dropout}, batch_first={self.batch_first}"


def _visible(name: str, what: str, mask: Any, xp: Any) -> Any:
    """A boolean mask turned round, True where a key is seen; a floating one as it is."""
    array = mask.data if isinstance(mask, Tensor) else mask
    if array.dtype.kind == "b":
        return ~array
    if array.dtype.kind in "iuc":
        raise TypeError(f"{name}: {what} must be boolean or floating, got {array.dtype}")
    return array


def _together(xp: Any, masks: list[Any], extra: int) -> Any:
    """Masks as one; the extra keys at the end are seen by all."""
    if len(masks) == 2 and any(m.dtype.kind != "b" for m in masks):
        masks = [xp.where(m, 0.0, -math.inf).astype("float32") if m.dtype.kind == "b" else m for m in masks]
    total = masks[0] if len(masks) == 1 else masks[0] & masks[1] if masks[0].dtype.kind == "b" else masks[0] + masks[1]
    if not extra:
        return total
    seen = xp.full((*total.shape[:3], extra), total.dtype.kind == "b", total.dtype)  # True, or 0.0
    return xp.concatenate([total, seen], axis=3)
