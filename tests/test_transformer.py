"""MultiheadAttention, the Transformer's layers and positions: what frozen results of PyTorch cannot show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for
from lamella.testing import assert_close

RNG = lamella.Generator


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


# -- MultiheadAttention ----------------------------------------------------------------------------------------------
def test_the_weights_are_those_that_made_the_output_dropout_included(device: Device) -> None:
    attention = L.MultiheadAttention(6, 2, dropout=0.4, bias=False, batch_first=True, rng=RNG(0)).to(device)
    L.init.assign(attention.out_proj.weight, np.eye(6, dtype=np.float32))
    x = on(device, normal(2, 5, 6))
    y, weights = attention(x, x, x, average_attn_weights=False)
    values = (x @ attention.in_proj_weight.data[12:].T).reshape(2, 5, 2, 3).transpose(0, 2, 1, 3)
    expected = (weights.data @ values).transpose(0, 2, 1, 3).reshape(2, 5, 6)
    assert_close(y.data, backend_for(device).to_numpy(expected), atol=2e-6)
    dropped = (weights.to_numpy() == 0).mean()
    assert 0.2 <= dropped <= 0.6
    assert not (attention.eval()(x, x, x)[1].to_numpy() == 0).any()


def test_gradients_go_through_the_weights_too(device: Device) -> None:
    attention = L.MultiheadAttention(4, 2, 0.3, batch_first=True, rng=RNG(0)).to(device, dtype="float64")
    mask = np.array([[False, True, False], [True, True, True]])

    def both(query: Any, key: Any, shift: Any) -> Any:
        attention.rng.state = (5, 0)
        return attention(query, key, key, on(device, mask), attn_mask=shift)

    arrays = (normal(2, 2, 4), normal(2, 3, 4, seed=1), normal(2, 3, seed=2))
    gradcheck(both, *(on(device, a.astype(float)) for a in arrays))


def test_a_sequence_of_padding_alone_gives_the_bias_and_no_gradient(device: Device) -> None:
    attention = L.MultiheadAttention(4, 2, batch_first=True, rng=RNG(0)).to(device)
    L.init.assign(attention.out_proj.bias, normal(4))
    data = normal(2, 3, 4)
    data[1, 2] = np.nan  # padding may hold anything
    query = lamella.tensor(normal(2, 2, 4, seed=1), device=device, requires_grad=True)
    padding = on(device, np.array([[True, True, True], [False, False, True]]))
    y, weights = attention(query, on(device, data), on(device, data), padding)
    y.sum().backward()
    np.testing.assert_array_equal(y.to_numpy()[0], np.broadcast_to(normal(4), (2, 4)))
    assert np.isfinite(y.to_numpy()).all()
    assert not weights.to_numpy()[0].any()
    assert not backend_for(device).to_numpy(query.grad)[0].any()
    assert np.isfinite(backend_for(device).to_numpy(query.grad)).all()


@pytest.mark.parametrize("first", [False, True])
def test_is_causal_is_the_triangular_mask(first: bool, device: Device) -> None:
    x = on(device, normal(2, 4, 6) if first else normal(4, 2, 6))
    above = on(device, np.triu(np.ones((4, 4), bool), 1))
    for options in ({}, {"add_bias_kv": True, "add_zero_attn": True}):
        attention = L.MultiheadAttention(6, 3, batch_first=first, rng=RNG(0), **options).to(device)
        y, weights = attention(x, x, x, attn_mask=above)
        for given in ({"is_causal": True}, {"is_causal": True, "attn_mask": above}):
            found, others = attention(x, x, x, **given)
            assert_close(found.data, y.to_numpy(), atol=1e-6)
            assert_close(others.data, weights.to_numpy(), atol=1e-6)


def test_masks_of_both_kinds_together_hide_what_either_hides(device: Device) -> None:
    attention = L.MultiheadAttention(4, 1, batch_first=True, rng=RNG(0)).to(device)
    x, shift = on(device, normal(1, 3, 4)), on(device, normal(3, 3, seed=1))
    _, weights = attention(x, x, x, on(device, np.array([[False, True, False]])), attn_mask=shift)
    _, plain = attention(x, x, x, attn_mask=shift)
    expected = plain.to_numpy() * [1, 0, 1]
    assert_close(weights.data, expected / expected.sum(-1, keepdims=True), atol=1e-6)


def test_initial_values_are_pytorchs() -> None:
    attention = L.MultiheadAttention(64, 4, add_bias_kv=True, rng=RNG(0))
    bound = math.sqrt(6 / (64 + 192))  # of the packed matrix, not of one of its three parts
    assert 0.95 * bound <= np.abs(attention.in_proj_weight.data).max() <= bound
    assert 0.95 / 8 <= np.abs(attention.out_proj.weight.data).max() <= 1 / 8
    assert not attention.in_proj_bias.data.any()
    assert not attention.out_proj.bias.data.any()
    assert abs(float(attention.bias_k.data.std()) - 1 / 8) < 0.04


# -- the Transformer's layers ----------------------------------------------------------------------------------------
def test_copies_start_alike_and_drop_differently() -> None:
    layer = L.TransformerEncoderLayer(4, 2, 8, 0.5, rng=RNG(3))
    encoder = L.TransformerEncoder(layer, 3)
    states = [one.state_dict() for one in encoder.layers]
    for state in states[1:]:
        for name, value in state.items():
            np.testing.assert_array_equal(value, states[0][name])
    seeds = {one.dropout.rng.state[0] for one in encoder.layers} | {layer.dropout.rng.state[0]}
    assert len(seeds) == 4
    for one in encoder.layers:
        assert one.dropout.rng is one.self_attn.rng
    x = normal(3, 1, 4)
    first, second = (one(x).to_numpy() for one in list(encoder.layers)[:2])
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_the_paper_has_six_layers_of_512_in_8_heads() -> None:
    model = L.Transformer(rng=RNG(0))
    assert len(model.encoder.layers) == len(model.decoder.layers) == 6
    assert (model.d_model, model.nhead) == (512, 8)
    assert model.num_parameters() == 44_140_544  # torch.nn.Transformer has as many
    assert model.encoder.layers[0].linear1.weight.shape == (2048, 512)
    assert not np.array_equal(
        model.encoder.layers[0].linear1.weight.data, model.encoder.layers[1].linear1.weight.data
    )


def test_a_writer_does_not_see_what_comes_later(device: Device) -> None:
    model = L.Transformer(8, 2, 1, 1, 16, batch_first=True, rng=RNG(0)).to(device).eval()
    source, target = normal(1, 3, 8), normal(1, 5, 8, seed=1)
    before = model(on(device, source), on(device, target), tgt_is_causal=True).to_numpy()
    mask = on(device, model.generate_square_subsequent_mask(5))
    masked = model(on(device, source), on(device, target), tgt_mask=mask)
    assert_close(masked.data, before, atol=1e-6)
    target[0, 3:] = 9.0
    after = model(on(device, source), on(device, target), tgt_is_causal=True).to_numpy()
    assert_close(after[0, :3], before[0, :3], atol=1e-5)
    assert np.abs(after[0, 3:] - before[0, 3:]).max() > 0.1


def test_an_encoder_learns_which_place_is_asked_for() -> None:
    """Copy the vector that the first place points to: hopeless without attention."""
    from lamella import training

    rng = RNG(0)
    places = rng.integers(1, 6, (64,))
    x = rng.normal((64, 6, 16))
    x[:, :, 8:] = 0
    x[:, range(6), 8 + np.arange(6)] = 2.0
    x[:, 0, :8] = 0
    x[np.arange(64), 0, 8 + places] = 4.0
    labels = (x[np.arange(64), places, 0] > 0).astype(np.int64)
    layer = L.TransformerEncoderLayer(16, 4, 32, 0.0, batch_first=True, norm_first=True, rng=rng)
    head = L.Linear(16, 2, rng=rng)
    optimizer = training.Adam([*layer.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(120):
        loss = L.cross_entropy(head(layer(x)[:, 0]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss) < 0.1


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", ["TransformerEncoderLayer", "TransformerDecoderLayer"])
def test_what_is_joined_into_one_operation_is_what_its_modules_do_one_by_one(kind: str, norm_first: bool) -> None:
    layer = getattr(L, kind)(8, 2, 16, 0.4, norm_first=norm_first, rng=RNG(0))
    results = []
    for listens in (False, True):
        handles = [m.register_forward_hook(lambda *given: None) for m in layer.modules() if listens]
        layer.dropout.rng.state = (3, 0)
        layer.zero_grad()
        x = lamella.tensor(normal(4, 2, 8), requires_grad=True)
        y = layer(x) if kind == "TransformerEncoderLayer" else layer(x, normal(3, 2, 8, seed=1))
        y.backward(normal(4, 2, 8, seed=2))
        results.append((y.data, x.grad, *(p.grad for p in layer.parameters())))
        for handle in handles:
            handle.remove()
    for a, b in zip(*results, strict=True):
        assert_close(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


def test_unbatched_is_a_batch_of_one() -> None:
    model = L.Transformer(8, 2, 1, 1, 16, rng=RNG(0)).eval()
    source, target = normal(3, 8), normal(4, 8, seed=1)
    assert_close(model(source, target).data, model(source[:, None], target[:, None]).to_numpy()[:, 0], atol=1e-6)


# -- positions -------------------------------------------------------------------------------------------------------
def test_sinusoidal_positions_are_the_papers() -> None:
    waves = L.sinusoidal_positions(50, 7)
    assert waves.shape == (50, 7)
    assert waves.dtype == np.float32
    for t, i in ((0, 0), (0, 1), (3, 2), (49, 6), (17, 5)):
        angle = t / 10000 ** (2 * (i // 2) / 7)
        assert abs(waves[t, i] - (math.sin(angle) if i % 2 == 0 else math.cos(angle))) <= 1e-6


def test_positions_are_added_along_the_sequence_from_where_it_starts(device: Device) -> None:
    for first in (True, False):
        module = L.LearnedPositions(6, 3, batch_first=first, rng=RNG(0)).to(device)
        x = normal(2, 4, 3)
        rows = module.weight.to_numpy()[2:6]
        given = x if first else np.ascontiguousarray(x.transpose(1, 0, 2))
        y = module(on(device, given), start=2).to_numpy()
        assert_close(y if first else y.transpose(1, 0, 2), x + rows, atol=1e-6)
        assert_close(module(on(device, x[0])).data, x[0] + module.weight.to_numpy()[:4], atol=1e-6)
    assert not list(L.SinusoidalPositions(6, 3).parameters())


# -- errors ----------------------------------------------------------------------------------------------------------
x = normal(2, 3, 4)


def attention(**options: Any) -> Any:
    return L.MultiheadAttention(4, 2, batch_first=True, rng=RNG(0), **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.MultiheadAttention(6, 4), ValueError, "must divide embed_dim, got num_heads=4, embed_dim=6"),
        (lambda: L.MultiheadAttention(0, 1), ValueError, "embed_dim must be at least 1, got 0"),
        (lambda: attention(dropout=1.5), ValueError, r"dropout must be in \[0, 1\], got 1.5"),
        (lambda: attention()(x[:, :, :3], x, x), ValueError, r"query must have shape \(N, T, 4\) or \(T, 4\)"),
        (lambda: attention()(x, x, x[:, :2]), ValueError, "key and value must have one length and the batch of query"),
        (lambda: attention()(x, x[:1], x[:1]), ValueError, "key and value must have one length and the batch of query"),
        (lambda: attention()(x[0], x, x), ValueError, r"key must have shape"),
        (lambda: attention()(x, x, x, np.ones((3, 2), bool)), ValueError, r"key_padding_mask must have shape \(2, 3\)"),
        (lambda: attention()(x, x, x, np.ones((2, 3), int)), TypeError, "key_padding_mask must be boolean or floating"),
        (
            lambda: attention()(x, x, x, attn_mask=np.ones((2, 3, 3), bool)),
            ValueError,
            r"attn_mask must have shape \(3, 3\) or \(4, 3, 3\), got \(2, 3, 3\)",
        ),
        (lambda: L.TransformerEncoderLayer(4, 2, activation="swish"), ValueError, 'activation must be "relu", "gelu"'),
        (lambda: L.TransformerEncoder(lambda x: x, 2), TypeError, "encoder_layer must be a module"),
        (lambda: L.TransformerEncoder(L.Identity(), 0), ValueError, "num_layers must be at least 1, got 0"),
        (lambda: L.Transformer(4, 2, 1, 1, 8)(x, x[:, :2]), ValueError, r"one batch, got \(2, 3, 4\) and \(2, 2, 4\)"),
        (lambda: L.sinusoidal_positions(3, 4, 0), ValueError, "base must be positive, got 0"),
        (lambda: L.LearnedPositions(2, 4)(None), TypeError, "LearnedPositions: x must be a tensor or an array"),
        (lambda: L.LearnedPositions(2, 4)(x), ValueError, "there are 2 places, got start=0 and 3 more"),
        (lambda: L.LearnedPositions(3, 4)(x, start=-1), ValueError, "start must be at least 0, got -1"),
        (lambda: L.SinusoidalPositions(3, 5)(x), ValueError, r"shape \(N, T, 5\) or \(T, 5\), got \(2, 3, 4\)"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
