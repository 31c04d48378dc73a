"""Scaled dot-product attention: every query looks at the keys and takes a mean of their values."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Tensor, broadcast_to, op, reshape
from ..autograd.tape import require_arrays
from ..backend import Array, Generator, as_generator, backend_of
from ..kernels.attention import check
from .drop import check_probability
from .real import real


@op
def attend(
    q: Array, k: Array, v: Array, bias: Array | None = None, *, rng: Generator | None = None, **options: Any
) -> Any:
    """:func:`lamella.kernels.attention` as an operation; its formulas stand there.

    With ``rng`` the place of dropout's masks is drawn here, once nothing can be refused any more.
    """
    if rng is not None:
        check("attention", q, k, v, bias=bias, dropout_key=(0, 0), **options)
        options["dropout_key"] = rng.reserve(math.prod(q.shape[:3]) * k.shape[2])
    out, lse = kernels.attention(q, k, v, bias=bias, **options, return_lse=True)
    return out, lambda dy: kernels.attention_backward(dy, q, k, v, out, lse, bias=bias, **options)


@op
def attend_packed(qkv: Array, num_heads: int, batch_axis: int, **options: Any) -> Any:
    """Self-attention of projections that lie side by side, and its gradient in one piece.

    Args:
        qkv: shape ``(N, T, 3 E)``, or ``(T, N, 3 E)`` with ``batch_axis = 1``: queries, keys and values, E each.
        num_heads: a divisor of E; a head is E / num_heads neighbours.
        batch_axis: which of the two axes is the batch.
        options: of :func:`lamella.kernels.attention`.
    Returns:
        shape ``(N, T, E)`` or ``(T, N, E)``.
    """
    backend = backend_of(qkv)

    def heads(a: Array, parts: int) -> tuple[Array, ...]:
        """Each part as ``(N, h, T, d)``, without a copy."""
        split = a.reshape(*a.shape[:2], parts, num_heads, a.shape[2] // (parts * num_heads))
        order = (2, batch_axis, 3, 1 - batch_axis, 4)
        return tuple(split.transpose(*order))

    q, k, v = heads(qkv, 3)
    out, lse = kernels.attention(q, k, v, **options, return_lse=True)
    back = (0, 2, 1, 3) if batch_axis == 0 else (2, 0, 1, 3)
    shape = (*qkv.shape[:2], qkv.shape[2] // 3)

    def backward(dy: Array) -> Any:
        dqkv = backend.empty(qkv.shape, qkv.dtype, backend.device_of(qkv))
        (dout,) = heads(dy, 1)
        kernels.attention_backward(dout, q, k, v, out, lse, **options, grads=heads(dqkv, 3))
        return (dqkv,)

    return out.transpose(*back).reshape(shape), backward


@op
def attention_weights(q: Array, k: Array, bias: Array | None = None, **options: Any) -> Any:
    """:func:`lamella.kernels.attention_weights` as an operation."""
    p = kernels.attention_weights(q, k, bias=bias, **options)
    return p, lambda dp: kernels.attention_weights_backward(dp, q, k, bias=bias, **options)


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    rng: Generator | None = None,
) -> Tensor:
    """``softmax(scale * query key^T + attn_mask) value`` over the keys, in memory linear in L and S.

    A query that may see no key gives 0 and has gradient 0.

    Args:
        query: shape ``(..., H, L, E)``; the leading axes are batches and heads, of any number.
        key: shape ``(..., H, S, E)``.
        value: shape ``(..., H, S, Ev)``.
        attn_mask: broadcastable to ``(..., H, L, S)``: boolean, **True where the query may see the key**, or floating,
            added to the scores. A floating tensor that wants its gradient gets it.
        dropout_p: probability with which a weight is dropped; not only in training: pass 0 for evaluation.
        is_causal: query i sees keys 0 … i, counted from the first also where L and S differ.
        scale: ``1 / sqrt(E)`` by default.
        enable_gqa: key and value may have fewer heads, a divisor of H: each serves H / Hk neighbouring query heads.
        rng: the stream of dropout's masks; a fresh generator by default.
    Returns:
        shape ``(..., H, L, Ev)``.
    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.1; grouped heads: Ainslie et al. 2023, arXiv 2305.13245.
    """
    name = "scaled_dot_product_attention"
    require_arrays(name, query=query, key=key, value=value)
    p = check_probability(name, dropout_p, "dropout_p")
    scale = None if scale is None else real(name, "scale", scale)
    rng = as_generator(name, rng)
    shapes = [tuple(a.shape) for a in (query, key, value)]
    if any(len(shape) < 2 or len(shape) != len(shapes[0]) for shape in shapes):
        raise ValueError(f"{name}: query, key and value must have shape (..., length, width), got {shapes}")
    leads = [shape[:-2] for shape in shapes]
    lead = leads[0]
    if len({tuple(axes[:-1]) if enable_gqa else axes for axes in leads}) > 1 or leads[1] != leads[2]:
        what = "but for the number of heads" if enable_gqa else "(enable_gqa allows fewer heads of key and value)"
        raise ValueError(f"{name}: query, key and value must have the same leading axes {what}, got {shapes}")
    if attn_mask is not None:
        require_arrays(name, attn_mask=attn_mask)
        scores, got = (*lead, shapes[0][-2], shapes[1][-2]), tuple(attn_mask.shape)
        if len(got) > len(scores) or any(n not in (1, m) for n, m in zip(got[::-1], scores[::-1], strict=False)):
            raise ValueError(f"{name}: attn_mask must be broadcastable to the scores {scores}, got shape {got}")
        attn_mask = _as_four(attn_mask, scores)
    options: dict[str, Any] = {"scale": scale, "causal": is_causal}
    if p:
        options |= {"dropout": p, "rng": rng}
    bias = None
    if isinstance(attn_mask, Tensor):
        if attn_mask.requires_grad:
            bias = attn_mask
        else:
            attn_mask = attn_mask.data
    if bias is None and attn_mask is not None:
        options["mask"] = attn_mask
    out: Tensor = attend(*(_as_four(a, tuple(a.shape)) for a in (query, key, value)), bias, **options)
    return out if len(lead) == 2 else reshape(out, (*shapes[0][:-1], shapes[2][-1]))


def _as_four(a: Any, full: tuple[int, ...]) -> Any:
    """``(..., H, L, S)`` as ``(B, H, L, S)``; an array that broadcasts keeps axes of length 1 where it can."""
    if len(full) <= 4:
        return a if len(a.shape) == len(full) == 4 else reshape(a, (*(1,) * (4 - len(a.shape)), *a.shape))
    if all(n == 1 for n in a.shape[:-3]):
        return reshape(a, (*(1,) * (4 - len(a.shape[-3:])), *a.shape[-3:])) if len(a.shape) != 4 else a
    heads = a.shape[-3]
    spread = broadcast_to(a, (*full[:-3], *a.shape[-3:]))
    return reshape(spread, (math.prod(full[:-3]), heads, *a.shape[-2:]))
