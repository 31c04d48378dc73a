"""Attention on plain arrays against its definition, written out query by query in float64."""

from __future__ import annotations

import importlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for, random_bits
from lamella.testing import assert_close

attention_numpy = importlib.import_module("lamella.kernels.attention_numpy")
definition = importlib.import_module("lamella.kernels.attention")
BF16 = np.dtype(ml_dtypes.bfloat16)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def on(device: Device, value: Any) -> Any:
    return backend_for(device).from_numpy(value, device) if isinstance(value, np.ndarray) else value


def oracle(q, k, v, dy, mask=None, bias=None, scale=None, causal=False, causal_offset=0, key_lengths=None,
           dropout=0.0, dropout_key=None):  # fmt: skip
    """out, lse, dq, dk, dv, dbias in float64: one query at a time, only over the keys that it sees."""
    q, k, v, dy = (a.astype(np.float64) for a in (q, k, v, dy))
    (b, h, tq, d), (hk, tk) = q.shape, k.shape[1:3]
    scale = d**-0.5 if scale is None else scale
    out, lse = np.zeros((b, h, tq, v.shape[3])), np.full((b, h, tq), -np.inf)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    dscores = np.zeros((b, h, tq, tk))
    full = None if mask is None else np.broadcast_to(mask, dscores.shape)
    added = np.zeros(dscores.shape) if bias is None else np.broadcast_to(bias.astype(np.float64), dscores.shape)
    kept = np.ones(dscores.shape)
    if dropout:
        words = random_bits(*dropout_key, dscores.size).reshape(dscores.shape)
        kept = (words / 2.0**32 >= dropout) / (1 - dropout) if dropout < 1 else np.zeros(dscores.shape)
    for i in np.ndindex(b, h, tq):
        key_head = i[1] // (h // hk)
        seen = np.ones(tk, bool)
        if causal:
            seen &= np.arange(tk) <= i[2] + causal_offset
        if key_lengths is not None:
            seen &= np.arange(tk) < key_lengths[i[0]]
        shift = added[i].copy()
        if full is not None and full.dtype == bool:
            seen &= full[i]
        elif full is not None:
            shift += full[i]
        seen &= shift > -np.inf
        if not seen.any():
            continue
        keys, values = k[i[0], key_head][seen], v[i[0], key_head][seen]
        scores = keys @ q[i] * scale + shift[seen]
        lse[i] = np.log(np.exp(scores - scores.max()).sum()) + scores.max()
        p = np.exp(scores - lse[i])
        weights = p * kept[i][seen]
        out[i] = weights @ values
        dv[i[0], key_head, seen] += np.outer(weights, dy[i])
        ds = p * (kept[i][seen] * (values @ dy[i]) - out[i] @ dy[i])
        dscores[(*i, seen)] = ds
        dq[i] = ds @ keys * scale
        dk[i[0], key_head, seen] += np.outer(ds, q[i]) * scale
    if bias is None:
        return out, lse, dq, dk, dv, None
    shape = (1,) * (4 - bias.ndim) + bias.shape
    repeated = tuple(axis for axis in range(4) if shape[axis] == 1)
    return out, lse, dq, dk, dv, dscores.sum(repeated, keepdims=True).reshape(bias.shape)


def check(device, b, h, hk, tq, tk, d, dv, dtype="float32", **options) -> None:
    """Forward and backward of one shape against the oracle."""
    dtype = np.dtype(dtype)
    q, k, v, dy = (
        normal(*s, seed=i).astype(dtype)
        for i, s in enumerate([(b, h, tq, d), (b, hk, tk, d), (b, hk, tk, dv), (b, h, tq, dv)])
    )
    if "bias" in options:
        options["bias"] = options["bias"].astype(dtype)
    expected = oracle(q, k, v, dy, **options)
    given = {name: on(device, value) for name, value in options.items()}
    arrays = [on(device, a) for a in (q, k, v)]
    out, lse = kernels.attention(*arrays, **given, return_lse=True)
    found = kernels.attention_backward(on(device, dy), *arrays, out, lse, **given)
    wide = np.float64 if dtype == np.float64 else np.float32
    assert out.dtype == found[0].dtype == found[1].dtype == found[2].dtype == dtype
    assert lse.dtype == wide
    unit = {"float64": 1e-13, "float32": 4e-6, "float16": 4e-3, "bfloat16": 3e-2}[dtype.name]
    for name, a, e in zip(("out", "lse", "dq", "dk", "dv", "dbias"), (out, lse, *found), expected, strict=True):
        if e is None:
            assert a is None
            continue
        a = backend_for(device).to_numpy(a)
        assert a.shape == e.shape, name
        if name == "lse":
            np.testing.assert_array_equal(np.isneginf(a), np.isneginf(e))
            a, e = np.nan_to_num(a, neginf=0), np.nan_to_num(e, neginf=0)
        assert_close(a, e, rtol=unit, atol=unit * max(1.0, np.abs(e).max(initial=0)), name=name)


def boolean(*shape: int, seed: int = 9) -> np.ndarray:
    """A mask in which some queries see nothing."""
    mask = np.random.default_rng(seed).random(shape) < 0.6
    mask[..., :1, :] = False
    return mask


def minus_infinity(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, normal(*mask.shape, seed=8), -np.inf).astype(np.float32)


SHAPES = [
    (2, 2, 2, 3, 5, 4, 4),
    (2, 6, 2, 5, 3, 6, 3),
    pytest.param((1, 4, 2, 7, 7, 8, 8), marks=pytest.mark.slow),
    pytest.param((1, 1, 1, 1, 9, 1, 1), marks=pytest.mark.slow),
]
OPTIONS: dict[str, Any] = {
    "open": lambda *s: {},
    "scaled": lambda *s: {"scale": 0.3},
    "causal": lambda *s: {"causal": True},
    "causal, last with last": lambda *s: {"causal": True, "causal_offset": s[3] - s[2]},
    "lengths": lambda *s: {"key_lengths": np.arange(s[0]) % (s[3] + 1)},
    "boolean": lambda *s: {"mask": boolean(*s)},
    "boolean for all heads": lambda *s: {"mask": boolean(s[0], 1, s[2], s[3])},
    "boolean matrix": lambda *s: {"mask": boolean(s[2], s[3])},
    "boolean keys": lambda *s: {"mask": boolean(s[0], 1, 2, s[3])[:, :, 1:]},
    "added": lambda *s: {"mask": minus_infinity(boolean(1, s[1], s[2], s[3]))},
    "added 0 and -inf": lambda *s: {"mask": np.where(boolean(s[2], s[3]), 0, -np.inf).astype(np.float32)},
    "bias": lambda *s: {"bias": normal(*s, seed=5).astype(np.float32)},
    "bias of heads": lambda *s: {"bias": normal(s[1], s[2], s[3], seed=5).astype(np.float32)},
    "bias of keys": lambda *s: {"bias": normal(s[0], 1, 1, s[3], seed=5).astype(np.float32)},
    "bias of queries": lambda *s: {"bias": normal(s[2], 1, seed=5).astype(np.float32)},
    "bias that hides": lambda *s: {"bias": minus_infinity(boolean(s[2], s[3]))},
    "dropout": lambda *s: {"dropout": 0.3, "dropout_key": (7, 5)},
    "everything dropped": lambda *s: {"dropout": 1.0, "dropout_key": (7, 5)},
    "all at once": lambda *s: {
        "mask": boolean(s[2], s[3]),
        "bias": normal(s[1], 1, s[3], seed=5).astype(np.float32),
        "causal": True,
        "causal_offset": 2,
        "key_lengths": np.full(s[0], max(0, s[3] - 1)),
        "dropout": 0.2,
        "dropout_key": (3, 1001),
        "scale": -0.7,
    },
}


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_option_keeps_the_definition(shape: tuple[int, ...], kind: str, device: Device) -> None:
    b, h, _, tq, tk, _, _ = shape
    check(device, *shape, **OPTIONS[kind](b, h, tq, tk))


@pytest.mark.parametrize("kind", OPTIONS)
@pytest.mark.parametrize("stack", [1, 3, 8])
def test_many_blocks_of_queries_and_stacks_of_heads(kind: str, stack: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_FEWEST_QUERIES", 1), ("_MOST_QUERIES", 3), ("_SCORES", 3 * 9 * stack)):
        monkeypatch.setattr(attention_numpy, name, value)
    monkeypatch.setattr(definition, "_BLOCK", 60)
    for dtype, key_heads in (("float32", 4), ("float32", 8), ("float16", 4)):  # the CPU path, and the definition
        check(Device("cpu"), 2, 8, key_heads, 8, 9, 5, 4, dtype=dtype, **OPTIONS[kind](2, 8, 8, 9))


@pytest.mark.parametrize("dtype", ["float64", "float16", BF16], ids=str)
@pytest.mark.parametrize("kind", ["open", "all at once"])
def test_every_dtype_keeps_the_definition(kind: str, dtype: Any, device: Device) -> None:
    check(device, 1, 4, 2, 5, 6, 8, 4, dtype=dtype, **OPTIONS[kind](1, 4, 5, 6))


@pytest.mark.parametrize("shape", [(0, 2, 1, 3, 4), (2, 0, 0, 3, 4), (2, 2, 1, 0, 4), (2, 2, 1, 3, 0)], ids=str)
def test_empty_arrays_give_empty_results_and_no_keys_give_0(shape: tuple[int, ...], device: Device) -> None:
    b, h, hk, tq, tk = shape
    bias = np.ones((b, 1, tq, tk), np.float32)
    check(device, b, h, hk, tq, tk, 4, 5, bias=bias, causal=True)


def test_what_is_not_seen_leaks_nothing_even_if_it_is_not_finite(device: Device) -> None:
    q, k, v, dy = (normal(2, 2, 4, 8, seed=i).astype(np.float32) for i in range(4))
    k[0, :, 2:], v[0, :, 3:] = np.nan, np.inf
    q[1, :, 0], dy[1, :, 0] = np.nan, np.nan  # of a query that sees nothing
    lengths = np.array([2, 4])
    mask = np.ones((2, 1, 4, 4), bool)
    mask[1, :, 0] = False
    expected = oracle(q, k, v, dy, mask=mask, key_lengths=lengths)
    arrays = [on(device, a) for a in (q, k, v)]
    options = {"mask": on(device, mask), "key_lengths": lengths}
    out, lse = kernels.attention(*arrays, **options, return_lse=True)
    found = kernels.attention_backward(on(device, dy), *arrays, out, lse, **options)
    for name, a, e in zip(("out", "dq", "dk", "dv"), (out, *found), (expected[0], *expected[2:5]), strict=False):
        assert_close(a, e, rtol=1e-5, atol=1e-5, name=name)


def test_a_visible_nan_shows_where_it_is_seen_and_nowhere_else(device: Device) -> None:
    q, k, v = (normal(1, 1, 4, 8, seed=i).astype(np.float32) for i in range(3))
    v[0, 0, 2, 1] = np.nan
    out = backend_for(device).to_numpy(kernels.attention(*(on(device, a) for a in (q, k, v)), causal=True))
    np.testing.assert_array_equal(np.argwhere(np.isnan(out)), [[0, 0, 2, 1], [0, 0, 3, 1]])


@pytest.mark.parametrize("hide", [False, True])
def test_large_scores_do_not_overflow(hide: bool, device: Device) -> None:
    """What is hidden may be larger than all that is seen, by more than an exponential can hold."""
    q, k, v, dy = (normal(1, 2, 5, 4, seed=i).astype(np.float32) * s for i, s in enumerate((12, 12, 1, 1)))
    options = {"mask": boolean(5, 5)} if hide else {}
    expected = oracle(q, k, v, dy, **options)
    arrays, given = [on(device, a) for a in (q, k, v)], {name: on(device, a) for name, a in options.items()}
    out, lse = kernels.attention(*arrays, return_lse=True, **given)
    found = kernels.attention_backward(on(device, dy), *arrays, out, lse, **given)
    assert_close(out, expected[0], atol=2e-3)
    assert_close(lse, expected[1], rtol=1e-5)
    for a, e in zip(found, expected[2:5], strict=False):
        assert_close(a, e, atol=2e-3 * max(1.0, np.abs(e).max()))


@pytest.mark.parametrize("hidden_by", ["floating mask", "causal"])
def test_nan_under_a_mask_of_numbers_leaks_nothing(hidden_by: str, device: Device) -> None:
    q, k, v, dy = (normal(1, 1, 4, 8, seed=i).astype(np.float32) for i in range(4))
    options: dict[str, Any] = {"bias": normal(4, 4, seed=5).astype(np.float32)}
    if hidden_by == "causal":
        options["causal"] = True
        options["bias"][np.triu_indices(4, 1)] = np.nan
    else:
        k[0, 0, 2:] = v[0, 0, 2:] = np.nan
        options["mask"] = np.float32([[0, 1, -np.inf, -np.inf]])
    expected = oracle(q, np.nan_to_num(k), np.nan_to_num(v), dy, **options | {"bias": np.nan_to_num(options["bias"])})
    arrays, given = [on(device, a) for a in (q, k, v)], {name: on(device, a) for name, a in options.items()}
    out, lse = kernels.attention(*arrays, return_lse=True, **given)
    found = kernels.attention_backward(on(device, dy), *arrays, out, lse, **given)
    for name, a, e in zip(("out", "dq", "dk", "dv", "dbias"), (out, *found), (expected[0], *expected[2:]), strict=True):
        assert_close(a, e, rtol=1e-5, atol=1e-5, name=name)


def test_results_lie_in_memory_as_their_arguments_do() -> None:
    """Heads that are a view of ``(B, T, H, D)`` give one: putting them together again copies nothing."""
    q, k, v = (normal(2, 5, 3, 4, seed=i).astype(np.float32).transpose(0, 2, 1, 3) for i in range(3))
    out, lse = kernels.attention(q, k, v, return_lse=True)
    for a in (out, *kernels.attention_backward(q, q, k, v, out, lse)[:3]):
        assert a.transpose(0, 2, 1, 3).flags.c_contiguous
    assert_close(out, oracle(q, k, v, q)[0], atol=1e-6)


def test_threads_share_the_heads_and_repeat_bit_for_bit() -> None:
    q, k, v, bias = (normal(*s, seed=i).astype(np.float32) for i, s in enumerate([(3, 4, 300, 16)] * 3 + [(300, 300)]))
    before, results = lamella.backend.get_num_threads(), []
    try:
        for count in (1, 3, 3):
            lamella.set_num_threads(count)
            out, lse = kernels.attention(q, k, v, bias=bias, return_lse=True)
            results.append((out, *kernels.attention_backward(q, q, k, v, out, lse, bias=bias)))
    finally:
        lamella.set_num_threads(before)
    for one, three, again in zip(*results, strict=True):
        np.testing.assert_array_equal(three, again)
        assert_close(three, one, atol=2e-5 * np.abs(one).max())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_few_queries_against_many_keys_share_the_heads_too(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_numpy, "_WORTH_A_THREAD", 1)
    before = lamella.backend.get_num_threads()
    try:
        lamella.set_num_threads(threads)
        check(Device("cpu"), 2, 6, 3, 2, 40, 5, 4)
        check(Device("cpu"), 1, 3, 3, 1, 7, 4, 6, dtype="float64")
    finally:
        lamella.set_num_threads(before)


@pytest.mark.parametrize("queries", [1, 9])
def test_scores_below_every_number_give_0(queries: int) -> None:
    q, k, v = (np.full((1, 1, rows, 2), x, np.float32) for rows, x in ((queries, 1e30), (3, -1e30), (3, 1)))
    out, lse = kernels.attention(q, k, v, return_lse=True)
    assert not out.any()
    assert (lse == -np.inf).all()


def test_derivatives_agree_with_central_differences(device: Device) -> None:
    bias = normal(2, 1, 3, seed=5)

    @lamella.op
    def attention(q, k, v, bias):
        options = {"bias": bias, "causal": True, "causal_offset": 1, "dropout": 0.3, "dropout_key": (1, 2)}
        out, lse = kernels.attention(q, k, v, **options, return_lse=True)
        return out, lambda dy: kernels.attention_backward(dy, q, k, v, out, lse, **options)

    arrays = (normal(1, 2, 2, 3), normal(1, 1, 3, 3, seed=1), normal(1, 1, 3, 2, seed=2), bias)
    gradcheck(attention, *(on(device, a) for a in arrays))


ones = np.ones((2, 4, 3, 8), np.float32)


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ((ones.astype(int), ones, ones), {}, TypeError, "q must be floating, .* got int64"),
        ((ones, ones.astype(float), ones), {}, TypeError, "k must have the dtype of q, float32, got float64"),
        ((ones[0], ones, ones), {}, ValueError, r"q must have shape \(batch, heads, length, width\), got \(4, 3, 8\)"),
        ((ones, ones[:1], ones), {}, ValueError, "k must have the batch and the width of q"),
        ((ones, ones[..., :5], ones), {}, ValueError, "k must have the batch and the width of q"),
        ((ones[..., :0], ones[..., :0], ones), {}, ValueError, "k must have .* width of q, which is at least 1"),
        ((ones, ones, ones[:, :, :2]), {}, ValueError, "v must have the batch, heads and length of k"),
        ((ones, ones[:, :3], ones[:, :3]), {}, ValueError, "the heads of k must divide those of q"),
        ((ones, ones, ones), {"mask": np.ones((3, 3), int)}, TypeError, "mask must be boolean or floating, got int64"),
        ((ones, ones, ones), {"bias": np.ones((3, 3), bool)}, TypeError, "bias must be floating, got bool"),
        ((ones, ones, ones), {"mask": np.ones((2, 3), bool)}, ValueError, r"mask must be broadcastable to .*\(2, 3\)"),
        ((ones, ones, ones), {"bias": ones[None]}, ValueError, "bias must be broadcastable"),
        ((ones, ones, ones), {"key_lengths": [1, 4]}, ValueError, r"key_lengths must be in 0 … 3, got \[1, 4\]"),
        ((ones, ones, ones), {"key_lengths": [-1, 3]}, ValueError, r"key_lengths must be in 0 … 3, got \[-1, 3\]"),
        ((ones, ones, ones), {"key_lengths": [1]}, ValueError, r"key_lengths must have shape \(2,\), got \(1,\)"),
        ((ones, ones, ones), {"key_lengths": [1.0, 2.0]}, TypeError, "key_lengths must be integers, got float64"),
        ((ones, ones, ones), {"dropout": 1.5}, ValueError, r"dropout must be in \[0, 1\], got 1.5"),
        ((ones, ones, ones), {"dropout": 0.5}, ValueError, r"dropout_key must be \(seed, offset\)"),
    ],
)
def test_errors_name_argument_rule_and_value(arrays, options, error, message) -> None:
    with pytest.raises(error, match="attention: " + message):
        kernels.attention(*arrays, **options)


def test_backward_refuses_what_does_not_fit() -> None:
    out, lse = kernels.attention(ones, ones, ones, return_lse=True)
    with pytest.raises(ValueError, match=r"dy must be float32 of shape \(2, 4, 3, 8\), got float32 of \(4, 3, 8\)"):
        kernels.attention_backward(ones[0], ones, ones, ones, out, lse)
    with pytest.raises(ValueError, match=r"lse must be float32 of shape \(2, 4, 3\), got float32 of \(4, 3\)"):
        kernels.attention_backward(ones, ones, ones, ones, out, lse[0])
