"""A cache of keys and values: attention in pieces gives what it gives in one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device, backend_for


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


# -- the buffers -----------------------------------------------------------------------------------------------------
def test_it_keeps_what_it_is_given_and_earlier_views_stay(device: Device) -> None:
    to_numpy = backend_for(device).to_numpy
    keys, values = normal(2, 3, 11, 4), normal(2, 3, 11, 5, seed=1)
    kept, start, seen = L.KeyValues(2), 0, []
    for stop in (1, 2, 3, 3, 8, 11):
        k, v = kept.append(on(device, keys[:, :, start:stop]), on(device, values[:, :, start:stop]))
        seen.append((stop, k, v))
        start = stop
    for stop, k, v in seen:
        np.testing.assert_array_equal(to_numpy(k), keys[:, :, :stop])
        np.testing.assert_array_equal(to_numpy(v), values[:, :, :stop])
    assert kept.length == 11


def test_a_thousand_tokens_are_copied_ten_times_in_all() -> None:
    kept, new, capacities = L.KeyValues(), normal(1, 1, 1, 2), []
    for i in range(1000):
        kept.append(new, new)
        assert i + 1 <= kept.capacity <= max(1, 2 * i)
        capacities.append(kept.capacity)
    assert len(set(capacities)) <= 11
    assert L.KeyValues(1000).append(new, new)[0].base.shape[2] == 1000


def test_reorder_takes_rows_several_times_or_not_at_all(device: Device) -> None:
    to_numpy = backend_for(device).to_numpy
    keys, values, more = normal(3, 2, 4, 2), normal(3, 2, 4, 2, seed=1), normal(4, 2, 1, 2, seed=2)
    cache = L.KVCache()
    cache.reorder([0])  # of nothing is nothing
    own, memory = cache.layer(0).self_attn, cache.layer(0).multihead_attn
    for part in (own, memory):
        part.append(on(device, keys), on(device, values))
    rows = [2, 0, 0, 2]
    cache.reorder(rows)
    assert cache.length == 4
    for part in (own, memory):
        np.testing.assert_array_equal(to_numpy(part.keys), keys[rows])
        np.testing.assert_array_equal(to_numpy(part.values), values[rows])
    k, _ = own.append(on(device, more), on(device, more))
    np.testing.assert_array_equal(to_numpy(k), np.concatenate([keys[rows], more], axis=2))


def test_after_truncate_other_tokens_follow(device: Device) -> None:
    to_numpy = backend_for(device).to_numpy
    keys, others = normal(2, 1, 5, 3), normal(2, 1, 2, 3, seed=1)
    cache = L.KVCache(8)
    cache.truncate(0)
    kept = cache.layer(0).self_attn
    kept.append(on(device, keys), on(device, keys))
    cache.layer(0).multihead_attn.append(on(device, keys), on(device, keys))
    cache.truncate(2)
    assert cache.length == 2
    kept.append(on(device, others), on(device, others))
    np.testing.assert_array_equal(to_numpy(kept.values), np.concatenate([keys[:, :, :2], others], axis=2))
    assert cache.layer(0).multihead_attn.length == 5  # of the source, which is as it was
    with pytest.raises(ValueError, match=r"truncate: places must be at most 4, which are kept, got 5"):
        cache.truncate(5)


def test_it_names_what_is_wrong() -> None:
    kept, new = L.KeyValues(), normal(2, 3, 1, 4)
    with pytest.raises(ValueError, match=r"keys and values must have shape \(N, h, T, d\), got \(2, 3, 1, 4\), \(2, 3"):
        kept.append(new, new[:, :, 0])
    with pytest.raises(ValueError, match="KeyValues: nothing has been kept yet"):
        _ = kept.keys
    kept.append(new, new)
    for wrong, got in ((new[:1], r"float32 of \(1, 3, 1, 4\)"), (new.astype(np.float64), r"float64 of \(2, 3, 1, 4\)")):
        with pytest.raises(ValueError, match=rf"keys must be float32 of shape .* before, \(2, 3, 4\), got {got}"):
            kept.append(wrong, wrong)
    for rows, got in (([2], r"\[2\]"), ([-1, 0], r"\[-1, 0\]")):
        with pytest.raises(ValueError, match=rf"KeyValues\.reorder: rows must be in 0 … 1, got {got}"):
            kept.reorder(rows)
    for rows in ([0.7, 1.0], [True, False], [[0, 1]], 0):
        with pytest.raises(TypeError, match=r"KeyValues\.reorder: rows must be a list of integers, got "):
            kept.reorder(rows)
    np.testing.assert_array_equal(kept.keys, new)
    fixed = L.KeyValues(fixed=True)
    fixed.append(new, new)
    with pytest.raises(ValueError, match="fixed keys and values must be given once, got 1 more"):
        fixed.append(new, new)
    wanted = lamella.tensor(new, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"keys must not want a gradient, .* lamella\.no_grad\(\)"):
        kept.append(wanted, new)
    with pytest.raises(ValueError, match="KVCache: capacity must be at least 0, got -1"):
        L.KVCache(-1)


# -- MultiheadAttention ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [True, False])
def test_self_attention_in_pieces_is_self_attention(first: bool, device: Device) -> None:
    attention = L.MultiheadAttention(6, 2, batch_first=first, rng=lamella.Generator(0)).to(device)
    x, axis = (normal(2, 9, 6), 1) if first else (normal(9, 2, 6), 0)
    padding = np.zeros((2, 9), bool)
    padding[1, :2] = True
    with lamella.no_grad():
        y, weights = attention(*(on(device, x),) * 3, on(device, padding), is_causal=True)
        cache, found = L.KeyValues(), []
        for start, stop in ((0, 3), (3, 4), (4, 8), (8, 9)):
            part = on(device, x.take(range(start, stop), axis))
            seen = on(device, padding[:, :stop])
            more, rows = attention(part, part, part, seen, is_causal=True, cache=cache)
            found.append(more.to_numpy())
            np.testing.assert_allclose(rows.to_numpy(), weights.to_numpy()[:, start:stop, :stop], atol=2e-6)
    np.testing.assert_allclose(np.concatenate(found, axis), y.to_numpy(), atol=2e-6)


def test_keys_of_another_sequence_are_projected_once(device: Device) -> None:
    attention = L.MultiheadAttention(6, 2, kdim=3, vdim=4, rng=lamella.Generator(0)).to(device)
    query, key, value = (on(device, normal(*shape)) for shape in ((4, 2, 6), (5, 2, 3), (5, 2, 4)))
    with lamella.no_grad():
        expected = attention(query, key, value)[0].to_numpy()
        cache = L.KeyValues(fixed=True)
        first = attention(query[:1], key, value, cache=cache)[0].to_numpy()
        later = attention(query[1:], None, None, cache=cache)[0].to_numpy()  # not looked at again
        cache.reorder([1, 1, 0])
        again = attention(query[:, [1, 1, 0]], None, None, cache=cache)[0].to_numpy()
    np.testing.assert_allclose(np.concatenate([first, later]), expected, atol=2e-6)
    np.testing.assert_allclose(again, expected[:, [1, 1, 0]], atol=2e-6)
    assert cache.length == 5


def test_one_query_reads_the_cache_where_it_lies_by_a_kernel_that_splits_the_keys(
    simulator: lamella.testing.SimulatorBackend,
) -> None:
    device = lamella.device("simulator")
    attention = L.MultiheadAttention(64, 2, batch_first=True, rng=lamella.Generator(0)).to(device)
    cache, x = L.KeyValues(600), on(device, normal(1, 1, 64))
    kept = on(device, normal(1, 2, 520, 32))
    cache.append(kept, kept)
    with lamella.no_grad():
        simulator.reset()
        attention(x, x, x, is_causal=True, cache=cache, need_weights=False)
    assert simulator.launches == {"attention_forward": 1, "attention_combine": 1}
    assert simulator.operations == {"gemm": 2, "add": 2, "setitem": 2}  # projections and biases; the new key and value


def test_attention_names_what_is_wrong_with_a_cache() -> None:
    attention = L.MultiheadAttention(4, 2, batch_first=True, rng=lamella.Generator(0))
    x = normal(1, 2, 4)
    with pytest.raises(TypeError, match="MultiheadAttention: cache must be a KeyValues or None, got KVCache"):
        attention(x, x, x, cache=L.KVCache())
    with pytest.raises(ValueError, match="is_causal must be False with a fixed cache"):
        attention(x, x, x, is_causal=True, cache=L.KeyValues(fixed=True))
    extra = L.MultiheadAttention(4, 2, add_zero_attn=True, batch_first=True, rng=lamella.Generator(0))
    with pytest.raises(ValueError, match="cache must be None with add_bias_kv or add_zero_attn"):
        extra(x, x, x, cache=L.KeyValues())


# -- the decoder -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("norm_first", [False, True])
def test_a_decoder_in_pieces_is_the_decoder(norm_first: bool, device: Device) -> None:
    layer = L.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=norm_first, rng=lamella.Generator(0))
    decoder = L.TransformerDecoder(layer, 2, L.LayerNorm(8)).to(device)
    target, memory = on(device, normal(2, 7, 8)), on(device, normal(2, 5, 8, seed=1))
    hidden = np.zeros((2, 5), bool)
    hidden[0, 3:] = True
    masks = {"memory_key_padding_mask": on(device, hidden)}
    with lamella.no_grad():
        expected = decoder(target, memory, tgt_is_causal=True, **masks).to_numpy()
        cache, found = L.KVCache(), []
        for start, stop in ((0, 2), (2, 3), (3, 6), (6, 7)):
            part = decoder(target[:, start:stop], memory, tgt_is_causal=True, cache=cache, **masks)
            found.append(part.to_numpy())
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, atol=3e-6)
    assert cache.length == 7
    assert cache.layer(1).multihead_attn.length == 5
    assert repr(cache).startswith("KVCache(7 tokens, 2 layers, ")
