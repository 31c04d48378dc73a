"""Scaled dot-product attention and its derivative on plain arrays, without ever storing a score for every pair."""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import index
from typing import Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend, is_array, random_bits
from . import attention_cuda, attention_hopper, attention_numpy
from ._launch import FLOATS, Plan, explained, is_float

_BLOCK = 1 << 20  # scores that the definition holds at a time; one query's row of all heads where that is more


def attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    causal: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    dropout: float = 0.0,
    dropout_key: tuple[int, int] | None = None,
    return_lse: bool = False,
) -> Any:
    """``out = softmax(scale * q k^T + bias) v``, where a query sees some keys and each group of heads shares one key.

    Memory is linear in Tq and Tk. 16-bit floats are computed in float32. What a query may not see contributes exactly
    nothing, whatever it holds, NaN included; a query that sees no key gives 0. A visible value that is not finite
    gives NaN or infinity.

    Args:
        q: queries, shape ``(B, H, Tq, D)``; float16, bfloat16, float32 or float64.
        k: keys, shape ``(B, Hk, Tk, D)``, where Hk divides H: query head h uses key head ``h // (H / Hk)``.
        v: values, shape ``(B, Hk, Tk, Dv)``.
        mask: broadcastable to ``(B, H, Tq, Tk)``; boolean, True where the query may see the key, or floating, added to
            the scores (-inf: may not see it). No gradient goes to it.
        bias: floating, broadcastable to ``(B, H, Tq, Tk)``, added to the scores.
        scale: ``1 / sqrt(D)`` by default.
        causal: query i sees only keys ``j <= i + causal_offset``.
        causal_offset: 0 aligns the first query with the first key, ``Tk - Tq`` the last with the last.
        key_lengths: B integers: of batch b only the first ``key_lengths[b]`` keys are seen.
        dropout: probability with which a weight is set to 0; the others are divided by ``1 - dropout``.
        dropout_key: (seed, offset) of the random stream: the weight of (b, h, i, j) is kept where word
            ``offset + ((b H + h) Tq + i) Tk + j`` is at least ``dropout * 2**32``: the mask that dropout would draw
            for an array ``(B, H, Tq, Tk)``, on every device. Needed where ``dropout`` is not 0.
        return_lse: whether to return ``lse`` too.
    Returns:
        ``out``, shape ``(B, H, Tq, Dv)``, or ``(out, lse)`` with ``lse = log(sum(exp(scores)))`` of shape
        ``(B, H, Tq)``, natural logarithm, -inf where a query sees no key; float32, for float64 in float64.
    Raises:
        TypeError: the dtypes differ or are not floating.
        ValueError: the shapes do not fit, or an option is out of range.
    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1; Dao et al. 2022, arXiv 2205.14135 (blocks).
    """
    backend = common_backend(q, k, v)
    options = check("attention", q, k, v, mask, bias, scale, causal, causal_offset, key_lengths, dropout, dropout_key)
    if _has_cpu_path(backend, options, q, k, v):
        out = _like(backend, q, v.shape[3])
        lse = backend.empty(q.shape[:3], q.dtype, backend.device_of(q))
        attention_numpy.forward(q, k, v, options, out, lse)
    elif attention_cuda.forward_plan(backend, q, k, v, options).kernel:
        out = _like(backend, q, v.shape[3])
        lse = backend.empty(q.shape[:3], np.float32, backend.device_of(q))
        hopper = backend.uses_hopper and attention_hopper.why_not(backend, q, k, v, options) is None
        (attention_hopper if hopper else attention_cuda).forward(backend, q, k, v, options, out, lse)
    else:
        out, lse = attention_definition(backend, q, k, v, options)
    return (out, lse) if return_lse else out


def attention_backward(
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    *,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    causal: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    dropout: float = 0.0,
    dropout_key: tuple[int, int] | None = None,
    grads: tuple[Array, Array, Array] | None = None,
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of ``q``, ``k``, ``v`` and ``bias``; the weights are computed again from ``lse``.

    With weights ``P = exp(scores - lse)``, kept ones M (0 or ``1 / (1 - dropout)``) and ``dP = M (dy v^T)``:
    ``dS = P (dP - sum(dy * out))``, ``dq = scale dS k``, ``dk = scale dS^T q``, ``dv = (M P)^T dy``, ``dbias = dS``.

    Args:
        dy: gradient of ``out``, of its shape and dtype.
        q, k, v: what :func:`attention` was given, and so the options. out, lse: what it returned.
        grads: where ``dq``, ``dk`` and ``dv`` are written, of any strides; new arrays by default.
    Returns:
        ``dq``, ``dk``, ``dv`` like ``q``, ``k``, ``v``, and ``dbias`` like ``bias``, None without one.
    """
    backend = common_backend(dy, q, k, v, out, lse)
    options = check(
        "attention_backward", q, k, v, mask, bias, scale, causal, causal_offset, key_lengths, dropout, dropout_key
    )
    shape = (*q.shape[:3], v.shape[3])
    for name, array, expected, dtype in (
        ("dy", dy, shape, q.dtype),
        ("out", out, shape, q.dtype),
        ("lse", lse, shape[:3], computed_in(q.dtype)),
    ):
        if array.shape != expected or array.dtype != dtype:
            raise ValueError(
                f"attention_backward: {name} must be {dtype} of shape {expected}, got {array.dtype} of {array.shape}"
            )
    dbias: Array | None
    if _has_cpu_path(backend, options, dy, q, k, v):
        found = list(grads or (_like(backend, a, a.shape[3]) for a in (q, k, v)))
        dbias = attention_numpy.backward(dy, q, k, v, out, lse, options, *found)
    elif attention_cuda.backward_plan(backend, q, k, v, options).kernel:
        found = list(grads or (_like(backend, a, a.shape[3]) for a in (q, k, v)))
        widths = attention_hopper.BACKWARD_WIDTHS
        if backend.uses_hopper and attention_hopper.why_not(backend, q, k, v, options, widths) is None:
            attention_hopper.backward(backend, dy, q, k, v, out, lse, options, *found)
            dbias = None
        else:
            dbias = attention_cuda.backward(backend, dy, q, k, v, out, lse, options, *found)
    else:
        *found, dbias = attention_backward_definition(backend, dy, q, k, v, out, lse, options)
        for place, array in zip(grads or (), found, strict=False):
            place[...] = array
    dq, dk, dv = grads or found
    if bias is not None and dbias is not None:
        dbias = dbias.astype(bias.dtype, copy=False).reshape(bias.shape)
    return dq, dk, dv, dbias


def attention_weights(q: Array, k: Array, **options: Any) -> Array:
    """The weights that :func:`attention` gives the values, dropout included: one for every pair, for looking at.

    Args:
        q, k: queries and keys as for :func:`attention`, and so the options.
    Returns:
        shape ``(B, H, Tq, Tk)``, of the dtype of ``q``.
    """
    backend = common_backend(q, k)
    given = check("attention_weights", q, k, k, **options)
    p, kept, _ = _weights(backend, q, k, given)
    return (p if kept is None else p * kept).astype(q.dtype, copy=False)


def attention_weights_backward(dp: Array, q: Array, k: Array, **options: Any) -> tuple[Array, Array, Array | None]:
    """``dq``, ``dk`` and ``dbias`` of :func:`attention_weights`: ``dS = P (M dp - sum(P M dp))``, M as for dropout."""
    backend = common_backend(dp, q, k)
    given, bias = check("attention_weights_backward", q, k, k, **options), options.get("bias")
    p, kept, allowed = _weights(backend, q, k, given)
    wide_q, wide_k, ds = (a.astype(p.dtype, copy=False) for a in (q, k, dp))
    with np.errstate(all="ignore"):
        if kept is not None:
            ds = ds * kept
        ds = p * (ds - (p * ds).sum(axis=-1, keepdims=True))
        if allowed is not None:
            ds = backend.xp.where(allowed, ds, p.dtype.type(0))
            wide_k, _ = _finite(backend.xp, wide_k)
        ds_scaled = ds * given.scale
        dq, dk = _times_keys(backend, ds_scaled, wide_k), backend.xp.zeros_like(wide_k)
        _add_over_queries(backend, dk, ds_scaled, wide_q)
    dq, dk = (a.astype(q.dtype, copy=False) for a in (dq, dk))
    if bias is None or given.bias is None:
        return dq, dk, None
    dbias = backend.xp.zeros_like(given.bias)
    _add_reduced(dbias, ds, 0, q.shape[2])
    return dq, dk, dbias.reshape(bias.shape)


_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(("mask", "bias", "scale", "key_lengths", "dropout_key")),
    "causal": False,
    "causal_offset": 0,
    "dropout": 0.0,
}


@explained("attention")
def _explain(q: Array, k: Array, v: Array, *, return_lse: bool = False, **options: Any) -> Plan:
    backend, given = common_backend(q, k, v), check("attention", q, k, v, **{**_DEFAULTS, **options})
    plan = attention_cuda.forward_plan(backend, q, k, v, given)
    if not plan.kernel:
        return plan
    why_not = attention_hopper.why_not(backend, q, k, v, given)
    if why_not is None:
        return attention_hopper.forward_plan(q, k, given)
    return plan._replace(because=f"{plan.because}; not attention_hopper_forward: {why_not}")


@explained("attention_backward")
def _explain_backward(dy: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, **options: Any) -> Plan:
    backend = common_backend(dy, q, k, v, out, lse)
    given = check("attention_backward", q, k, v, **{**_DEFAULTS, **options})
    plan = attention_cuda.backward_plan(backend, q, k, v, given)
    if not plan.kernel:
        return plan
    why_not = attention_hopper.why_not(backend, q, k, v, given, attention_hopper.BACKWARD_WIDTHS)
    if why_not is None:
        return attention_hopper.backward_plan(q, k, given)
    return plan._replace(because=f"{plan.because}; not attention_hopper_backward: {why_not}")


# -- the options, checked --------------------------------------------------------------------------------------------


class Options(NamedTuple):
    """What :func:`attention` was asked for besides its arrays, checked and in one form.

    Attributes:
        mask, bias: with four axes, each of length 1 or that of ``(B, H, Tq, Tk)``; or None.
        key_lengths: integer array on the device of the others, shape ``(B,)``, or None.
        seed, offset: of the random stream; 0 where nothing is dropped.
        shape: of the scores, ``(B, H, Tq, Tk)``.
    """

    mask: Array | None
    bias: Array | None
    scale: float
    causal: bool
    causal_offset: int
    key_lengths: Array | None
    dropout: float
    seed: int
    offset: int
    shape: tuple[int, int, int, int]


def check(
    function: str,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    scale: float | None = None,
    causal: bool = False,
    causal_offset: int = 0,
    key_lengths: Any = None,
    dropout: float = 0.0,
    dropout_key: tuple[int, int] | None = None,
) -> Options:
    """The options of one call, or an error that says what is wrong."""
    for name, array in (("q", q), ("k", k), ("v", v)):
        if not is_float(array.dtype):
            raise TypeError(f"{function}: {name} must be floating, one of {', '.join(FLOATS)}, got {array.dtype}")
        if array.dtype != q.dtype:
            raise TypeError(f"{function}: {name} must have the dtype of q, {q.dtype}, got {array.dtype}")
        if array.ndim != 4:
            raise ValueError(f"{function}: {name} must have shape (batch, heads, length, width), got {array.shape}")
    batch, heads, queries, width = q.shape
    key_heads, keys = k.shape[1:3]
    if k.shape[0] != batch or k.shape[3] != width or width == 0:
        raise ValueError(
            f"{function}: k must have the batch and the width of q, which is at least 1, got q {q.shape}, k {k.shape}"
        )
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(f"{function}: v must have the batch, heads and length of k, got k {k.shape}, v {v.shape}")
    if heads % max(key_heads, 1) or (heads > 0) != (key_heads > 0):
        raise ValueError(f"{function}: the heads of k must divide those of q, got q {q.shape}, k {k.shape}")
    shape = (batch, heads, queries, keys)
    dropout = float(dropout)
    if not 0 <= dropout <= 1:
        raise ValueError(f"{function}: dropout must be in [0, 1], got {dropout}")
    if dropout and dropout_key is None:
        raise ValueError(f"{function}: dropout_key must be (seed, offset) where dropout is not 0, got None")
    seed, offset = map(index, dropout_key or (0, 0)) if dropout else (0, 0)
    scale = 1.0 / math.sqrt(width) if scale is None else float(scale)
    return Options(
        _scores_like(function, "mask", mask, q, shape),
        _scores_like(function, "bias", bias, q, shape),
        scale,
        bool(causal),
        index(causal_offset),
        _lengths(function, key_lengths, q, keys),
        dropout,
        seed,
        offset,
        shape,
    )


def _scores_like(function: str, name: str, array: Any, q: Array, shape: tuple[int, ...]) -> Array | None:
    """An array that broadcasts against the scores, with four axes."""
    if array is None:
        return None
    common_backend(q, array)
    if not is_float(array.dtype) and not (name == "mask" and array.dtype.kind == "b"):
        kinds = "boolean or floating" if name == "mask" else "floating"
        raise TypeError(f"{function}: {name} must be {kinds}, got {array.dtype}")
    full = (1,) * (4 - array.ndim) + array.shape
    if len(full) != 4 or any(n not in (1, m) for n, m in zip(full, shape, strict=True)):
        raise ValueError(f"{function}: {name} must be broadcastable to the scores {shape}, got shape {array.shape}")
    return array.reshape(full)


def _lengths(function: str, lengths: Any, q: Array, keys: int) -> Array | None:
    if lengths is None:
        return None
    backend = backend_of(q)
    if not is_array(lengths) or backend_of(lengths) is not backend:  # a list, or an array on the host
        lengths = backend.from_numpy(np.asarray(lengths), backend.device_of(q))
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{function}: key_lengths must be integers, got {lengths.dtype}")
    if lengths.shape != q.shape[:1]:
        raise ValueError(f"{function}: key_lengths must have shape {q.shape[:1]}, got {lengths.shape}")
    if backend.xp is np and lengths.size and not (lengths.min() >= 0 and lengths.max() <= keys):
        raise ValueError(f"{function}: key_lengths must be in 0 … {keys}, got {lengths.tolist()}")
    return lengths


def computed_in(dtype: Any) -> Any:
    """The dtype of scores, sums and ``lse``."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


# -- the CPU path ----------------------------------------------------------------------------------------------------


def _has_cpu_path(backend: Backend, options: Options, *arrays: Array) -> bool:
    """Whether these are arrays that ``attention_numpy`` takes.

    It multiplies what is hidden by 0, so it wants finite numbers where something is hidden.
    """
    if backend.xp is not np or arrays[0].dtype.itemsize == 2 or not options.shape[3] or not math.prod(options.shape):
        return False
    if not _hides(options):
        return True
    with np.errstate(all="ignore"):  # a sum is finite only if all its terms are
        added = (a.sum(dtype=np.float64) for a in (options.mask, options.bias) if a is not None)
        return all(math.isfinite(a.sum()) for a in arrays) and not any(math.isnan(total) for total in added)


def _like(backend: Backend, a: Array, width: int) -> Array:
    """An empty array ``(B, H, T, width)`` whose axes lie in memory in the order of those of ``a``."""
    order = sorted(range(3), key=lambda axis: -a.strides[axis])
    shape = (*a.shape[:3], width)
    memory = backend.empty((*(shape[axis] for axis in order), width), a.dtype, backend.device_of(a))
    return memory.transpose(*(order.index(axis) for axis in range(3)), 3)


# -- the definition --------------------------------------------------------------------------------------------------


def attention_definition(backend: Backend, q: Array, k: Array, v: Array, options: Options) -> tuple[Array, Array]:
    """The definition in array operations, for every dtype and backend, over blocks of queries: ``out`` and ``lse``."""
    xp, dtype, wide = backend.xp, q.dtype, computed_in(q.dtype)
    q, k, v = (a.astype(wide, copy=False) for a in (q, k, v))
    device = backend.device_of(q)
    out = backend.empty((*options.shape[:3], v.shape[3]), dtype, device)
    lse = backend.empty(options.shape[:3], wide, device)
    if not options.shape[3]:
        out.fill(0)
        lse.fill(-math.inf)
        return out, lse
    hides = _hides(options)
    visible, bad = _finite(xp, v) if hides else (v, None)
    with np.errstate(all="ignore"):
        for start, stop in _blocks(options):
            p, _ = _scores(backend, q, k, options, start, stop)
            lse[:, :, start:stop] = _softmax_in_place(xp, p)
            if options.dropout:
                p *= _kept(backend, p, options, start, stop)
            part = _times_keys(backend, p, visible)
            if bad is not None:  # 0 * NaN is NaN: what is not finite counts only where its weight is not 0
                seen = _times_keys(backend, (p != 0).astype(wide), bad)
                part = xp.where(seen > 0, wide.type(math.nan), part)
            out[:, :, start:stop] = part.astype(dtype, copy=False)
    return out, lse


def attention_backward_definition(
    backend: Backend, dy: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, options: Options
) -> tuple[Array, Array, Array, Array | None]:
    """The derivative in array operations, for every dtype and backend, over blocks of queries."""
    xp, dtype, wide, bias = backend.xp, q.dtype, computed_in(q.dtype), options.bias
    device = backend.device_of(q)
    dy, q, k, v, out = (a.astype(wide, copy=False) for a in (dy, q, k, v, out))
    dq, dk, dv = (backend.empty(a.shape, wide, device) for a in (q, k, v))
    dbias = None if bias is None else backend.empty(bias.shape, wide, device)
    for total in (dk, dv, *(() if dbias is None else (dbias,))):
        total.fill(0)
    if not options.shape[3]:
        dq.fill(0)
    else:
        delta = (dy * out).sum(axis=-1, keepdims=True)
        lse = lse[..., None]
        if _hides(options):
            (k, _), (v, _) = _finite(xp, k), _finite(xp, v)
            blind = lse == -math.inf
            dy, q, lse = (xp.where(blind, wide.type(0), a) for a in (dy, q, lse))
        with np.errstate(all="ignore"):
            for start, stop in _blocks(options):
                rows = (slice(None), slice(None), slice(start, stop))
                p, allowed = _scores(backend, q, k, options, start, stop)
                p -= lse[rows]
                xp.exp(p, out=p)
                ds = _times_keys(backend, dy[rows], v.swapaxes(2, 3))  # dP
                if options.dropout:
                    kept = _kept(backend, p, options, start, stop)
                    ds *= kept
                ds -= delta[rows]
                ds *= p
                if options.dropout:
                    p *= kept
                if allowed is not None:  # what is not seen has no gradient, even in a row of NaN
                    p, ds = (xp.where(allowed, a, wide.type(0)) for a in (p, ds))
                _add_over_queries(backend, dv, p, dy[rows])
                _add_over_queries(backend, dk, ds, q[rows])
                if dbias is not None:
                    _add_reduced(dbias, ds, start, stop)
                dq[rows] = _times_keys(backend, ds, k)
        dq *= options.scale
        dk *= options.scale
    dq, dk, dv = (a.astype(dtype, copy=False) for a in (dq, dk, dv))
    return dq, dk, dv, dbias


def _blocks(options: Options) -> Iterator[tuple[int, int]]:
    batch, heads, queries, keys = options.shape
    step = max(1, _BLOCK // max(1, batch * heads * keys))
    for start in range(0, queries, step):
        yield start, min(start + step, queries)


def _scores(
    backend: Backend, q: Array, k: Array, options: Options, start: int, stop: int
) -> tuple[Array, Array | None]:
    """Scores of some queries, -inf where a key is not seen, and which are seen (None: all)."""
    xp = backend.xp
    scores = _times_keys(backend, q[:, :, start:stop], k.swapaxes(2, 3))
    scores *= options.scale
    allowed = None
    device = backend.device_of(q)
    column = backend.from_numpy(np.arange(options.shape[3]), device)
    if options.causal:
        allowed = column <= (backend.from_numpy(np.arange(start, stop), device) + options.causal_offset)[:, None]
    if options.key_lengths is not None:
        inside = column < options.key_lengths[:, None, None, None]
        allowed = inside if allowed is None else allowed & inside
    for added in (options.mask, options.bias):
        if added is None:
            continue
        part = added if added.shape[2] == 1 else added[:, :, start:stop]
        if part.dtype.kind == "b":
            seen = part
        else:
            scores += part.astype(scores.dtype, copy=False)
            seen = part != -math.inf
        allowed = seen if allowed is None else allowed & seen
    if allowed is not None:
        scores = xp.where(allowed, scores, scores.dtype.type(-math.inf))  # a score that is NaN, too
    return scores, allowed


def _softmax_in_place(xp: Any, scores: Array) -> Array:
    """Scores become weights; returns ``lse``. A query that sees nothing gives 0 and -inf."""
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    largest = scores.max(axis=-1, keepdims=True)
    largest = xp.where(largest == -math.inf, zero, largest)
    scores -= largest
    xp.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= xp.where(total == 0, one, total)
    return (xp.log(total) + largest)[..., 0]


def _weights(backend: Backend, q: Array, k: Array, options: Options) -> tuple[Array, Array | None, Array | None]:
    """All weights before dropout, what dropout multiplies them by, and which are seen; None: no dropout, all seen."""
    wide = computed_in(q.dtype)
    with np.errstate(all="ignore"):
        q, k = (a.astype(wide, copy=False) for a in (q, k))
        p, allowed = _scores(backend, q, k, options, 0, q.shape[2])
        if p.shape[3]:
            _softmax_in_place(backend.xp, p)
    return p, _kept(backend, p, options, 0, q.shape[2]) if options.dropout else None, allowed


def _hides(options: Options) -> bool:
    """Whether a query may not see all keys."""
    return options.causal or any(a is not None for a in (options.key_lengths, options.mask, options.bias))


def _finite(xp: Any, a: Array) -> tuple[Array, Array | None]:
    """``a`` with 0 for what is not finite, and 1 at those places; None where the host knows that there are none."""
    finite = xp.isfinite(a)
    if xp is np and finite.all():
        return a, None
    return xp.where(finite, a, a.dtype.type(0)), (~finite).astype(a.dtype)


def _kept(backend: Backend, p: Array, options: Options, start: int, stop: int) -> Array:
    """``1 / (1 - dropout)`` where a weight is kept, else 0: element i of all weights by word ``offset + i``."""
    batch, heads, queries, keys = options.shape
    kept = backend.empty(p.shape, p.dtype, backend.device_of(p))
    threshold = round(options.dropout * 2.0**32)
    if threshold >> 32:  # dropout = 1: no 32-bit word reaches it
        kept.fill(0)
        return kept
    factor = 1.0 / (1.0 - options.dropout)
    for head in range(batch * heads):
        first = options.offset + (head * queries + start) * keys
        words = random_bits(options.seed, first, (stop - start) * keys, backend.device_of(p))
        kept[head // heads, head % heads] = (words >= threshold).reshape(stop - start, keys)
    kept *= factor
    return kept


def _times_keys(backend: Backend, a: Array, b: Array) -> Array:
    """``a @ b`` for ``a`` of all heads ``(B, H, rows, K)`` and ``b`` of the key heads ``(B, Hk, K, N)``."""
    batch, heads, rows, inner = a.shape
    if b.shape[1] in (0, heads):
        return backend.matmul(a, b)
    grouped = a.reshape(batch, b.shape[1], heads // b.shape[1] * rows, inner)
    return backend.matmul(grouped, b).reshape(batch, heads, rows, b.shape[3])


def _add_over_queries(backend: Backend, total: Array, a: Array, b: Array) -> None:
    """``total += a^T b`` summed over queries and over the heads of a group: ``(B, Hk, Tk, N)``."""
    batch, key_heads = total.shape[:2]
    grouped = (x.reshape(batch, key_heads, x.shape[1] // max(1, key_heads) * x.shape[2], x.shape[3]) for x in (a, b))
    a, b = grouped
    total += backend.matmul(a.swapaxes(2, 3), b)


def _add_reduced(dbias: Array, ds: Array, start: int, stop: int) -> None:
    """Add the gradient of a block's scores to that of a bias that was broadcast."""
    repeated = tuple(i for i in range(4) if dbias.shape[i] == 1 and ds.shape[i] != 1)
    part = ds.sum(axis=repeated, keepdims=True) if repeated else ds
    if dbias.shape[2] == 1:
        dbias += part
    else:
        dbias[:, :, start:stop] += part
