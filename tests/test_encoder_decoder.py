"""The encoder–decoder model: PyTorch's numbers, padding that nobody sees, memory used again, maps that are true."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.backend import Device, backend_for
from lamella.testing import assert_close

from .named_weights import named_weight

FROZEN = np.load(Path(__file__).parent / "fixtures" / "encoder_decoder.npz")
CONFIGS, SIZES = json.loads(str(FROZEN["configs"])), json.loads(str(FROZEN["sizes"]))


def named_model(number: int) -> models.EncoderDecoder:
    """The model of a configuration of the frozen file, with weights drawn from their names."""
    model = models.EncoderDecoder(**SIZES, **CONFIGS[number], rng=lamella.Generator(0))
    learned = dict(model.named_parameters())
    model.load_state_dict({name: named_weight(name, p.shape) for name, p in learned.items()}, strict=False)
    return model


def tiny(**options: Any) -> models.EncoderDecoder:
    return models.EncoderDecoder(11, 6, 8, 2, 1, 2, 12, rng=lamella.Generator(3), max_len=7, **options)


def tokens(device: Device, *shape: int, below: int, seed: int = 0) -> Any:
    return backend_for(device).from_numpy(np.random.default_rng(seed).integers(1, below, shape), device)


def test_logits_and_gradients_are_pytorchs(device: Device) -> None:
    _compare(0, device)


def test_learned_positions_a_tied_output_and_norms_in_front_are_pytorchs_too() -> None:
    _compare(1, lamella.device("cpu"))


def _compare(number: int, device: Device) -> None:
    model = named_model(number).to(device).eval()
    assert sorted(model.state_dict()) == FROZEN[f"{number}/names"].tolist()
    source, target = (backend_for(device).from_numpy(FROZEN[name], device) for name in ("source", "target"))
    logits = model(source, target)
    expected = FROZEN[f"{number}/logits"]
    assert_close(logits.data, expected, atol=1e-5 * abs(expected).max())
    (logits * logits).sum().backward()
    for name in ("source_embedding.weight", "target_embedding.weight"):
        expected = FROZEN[f"{number}/{name}"]
        assert_close(dict(model.named_parameters())[name].grad, expected, atol=1e-4 * abs(expected).max())


def test_padding_is_seen_by_nobody_whatever_it_holds(device: Device) -> None:
    model = tiny().to(device).eval()
    source, target = tokens(device, 3, 5, below=11), tokens(device, 3, 4, below=6)
    source[0, 3:] = source[1, 2:] = 0
    by_pad_id = model(source, target)
    short = model(source[:1, :3], target[:1])
    assert_close(by_pad_id.data[:1], short.to_numpy(), atol=2e-6)
    lengths = backend_for(device).from_numpy(np.array([3, 2, 5]), device)
    source[0, 3:] = 9  # what lies behind the length
    assert_close(model(source, target, lengths).data, by_pad_id.to_numpy(), atol=0)
    unpadded = tiny(pad_id=None).to(device).eval()
    assert unpadded.encode(source).padding is None
    source[2] = 0  # a token like any other there
    assert not np.allclose(unpadded(source, target).to_numpy()[2], model(source, target).to_numpy()[2], atol=1e-3)


def test_what_was_read_once_is_written_from_again_in_any_order(device: Device) -> None:
    model = tiny().to(device).eval()
    source, target = tokens(device, 3, 5, below=11), tokens(device, 3, 4, below=6)
    source[1, 2:] = 0
    logits = model(source, target).to_numpy()
    memory = model.encode(source)
    assert_close(model.decode(target[:, :2], memory).data, logits[:, :2], atol=2e-6)
    rows = [1, 1, 0]
    again = model.decode(target[rows], memory.take(rows))
    assert_close(again.data, logits[rows], atol=2e-6)
    assert memory._replace(padding=None).take(rows).padding is None


def test_a_cache_gives_the_logits_of_the_new_tokens_alone(device: Device) -> None:
    model = tiny().to(device).eval()
    source, target = tokens(device, 2, 5, below=11), tokens(device, 2, 4, below=6)
    source[1, 2:] = 0
    expected = model(source, target).to_numpy()
    cache = L.KVCache()
    with lamella.no_grad():
        memory = model.encode(source)
        first = model.decode(target[:, :2], memory, cache=cache)
        swapped = [1, 0]
        cache.reorder(swapped)
        rest = model.decode(target[swapped, 2:], memory.take(swapped), cache=cache)
    assert_close(first.data, expected[:, :2], atol=2e-6)
    assert_close(rest.data, expected[swapped, 2:], atol=2e-6)


def test_attention_maps_are_the_shares_with_which_the_decoder_looked(device: Device) -> None:
    model = tiny(dropout=0.5).to(device)
    source, target = tokens(device, 3, 5, below=11), tokens(device, 3, 4, below=6)
    source[1, 2:] = 0
    model.transformer.encoder.eval()
    maps = model.attention_maps(source, target)
    assert [tuple(m.shape) for m in maps] == [(3, 2, 4, 5)] * 2
    modes = {module.training for module in model.transformer.encoder.modules()}
    assert modes == {False}
    assert model.training
    assert model.transformer.decoder.training
    assert not any(layer.multihead_attn._hooks.before.functions for layer in model.transformer.decoder.layers)
    for m in map(backend_for(device).to_numpy, maps):
        np.testing.assert_allclose(m.sum(-1), 1, rtol=1e-5)
        assert (m[1, :, :, 2:] == 0).all()
        assert (m[0] > 0).all()
    model.eval()
    layer = model.transformer.decoder.layers[0]
    seen: list[Any] = []
    with layer.multihead_attn.register_forward_hook(lambda module, inputs, output: seen.append((inputs, output[0]))):
        model(source, target)
    (_, memory, *_), output = seen[0]
    width = model.d_model
    attention = layer.multihead_attn
    values = memory.data @ attention.in_proj_weight.data[2 * width :].T + attention.in_proj_bias.data[2 * width :]
    heads = values.reshape(3, 5, 2, 4).transpose(0, 2, 1, 3)
    mixed = (maps[0] @ heads).transpose(0, 2, 1, 3).reshape(3, 4, width)
    expected = mixed @ attention.out_proj.weight.data.T + attention.out_proj.bias.data
    assert_close(output.data, backend_for(device).to_numpy(expected), atol=1e-5)


def test_embeddings_enter_with_variance_one() -> None:
    model = models.EncoderDecoder(500, 500, 64, 1, 1, 1, 4, rng=lamella.Generator(0))
    for table in (model.source_embedding, model.target_embedding):
        assert 0.97 <= float(table.weight.to_numpy().std()) * 8.0 <= 1.03


def test_a_model_learns_to_write_a_sequence_backwards() -> None:
    rng = lamella.Generator(1)
    model = models.EncoderDecoder(6, 6, 32, 4, 1, 1, 64, 0.0, max_len=8, rng=rng)
    optimizer = training.Adam(model.parameters(), lr=3e-3)
    right = 0.0
    for _ in range(150):
        source = rng.integers(2, 6, (32, 5))
        target = np.concatenate([np.ones((32, 1), np.int64), source[:, ::-1]], axis=1)  # 1 starts
        logits = model(source, target[:, :-1])
        loss = L.cross_entropy(logits.reshape(-1, 6), lamella.tensor(target[:, 1:].reshape(-1)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = float((logits.to_numpy().argmax(-1) == target[:, 1:]).mean())
    assert right >= 0.95


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tiny(pad_id=11), ValueError, "EncoderDecoder: pad_id must be a token of the source, got pad_id=11"),
        (lambda: tiny(positions="waves"), ValueError, 'positions must be "sinusoidal" or "learned", got \'waves\''),
        (lambda: models.EncoderDecoder(0, 3), ValueError, "source_vocab must be at least 1, got 0"),
        (lambda: tiny().encode(np.ones(3, int)), ValueError, r"source must have shape \(N, S\), got \(3,\)"),
        (
            lambda: tiny().encode(np.ones((2, 3), int), np.ones(3, int)),
            ValueError,
            r"lengths must be integers of shape \(2,\), got int64 of \(3,\)",
        ),
        (
            lambda: tiny().encode(np.ones((2, 3), int), np.array([1, 4])),
            ValueError,
            r"lengths must be in 0 … 3, the places of source, got \[1, 4\]",
        ),
        (lambda: tiny().encode(np.ones((2, 3), int), np.array([-1, 3])), ValueError, r"in 0 … 3, .* got \[-1, 3\]"),
        (
            lambda: tiny()(np.ones((2, 8), int), np.ones((2, 3), int)),
            ValueError,
            "there are 7 places, got start=0 and 8 more",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
