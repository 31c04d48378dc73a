"""BERT beyond the frozen numbers of ``test_pretrained.py``: padding, sentences on the sphere, dropout, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lamella
from lamella import models
from lamella.backend import Device, backend_for
from lamella.testing import assert_close


def tiny(**options: Any) -> models.Bert:
    return models.Bert(11, 7, 8, 2, 2, 12, **{"dropout": 0.0, "rng": lamella.Generator(2)} | options)


def ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 11, shape)


def test_the_defaults_are_those_of_bert_base() -> None:
    model = models.Bert(num_layers=1, vocab_size=1)
    assert model.num_parameters() == 109_482_240 - 11 * 7_087_872 - 30_521 * 768
    assert model.encoder.layer[0].attention.output.LayerNorm.eps == 1e-12
    assert model.encoder.layer[0].act.approximate == "none"


def test_what_fills_a_text_up_is_not_seen(device: Device) -> None:
    model = tiny().to(device)
    texts, mask = ids(3, 5), np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    texts, mask, short = (backend_for(device).from_numpy(a, device) for a in (texts, mask, texts[1:2, :2]))
    found = model(texts, mask)
    assert_close(found.data[1:2, :2], model(short).to_numpy(), atol=2e-6)
    assert_close(model(texts, mask == 1).data, found.to_numpy(), atol=0)
    alone = model.sentence_embeddings(short)
    assert_close(model.sentence_embeddings(texts, mask).data[1:2], alone.to_numpy(), atol=1e-6)


def test_sentence_embeddings_are_means_of_length_one_also_of_nothing() -> None:
    model = tiny()
    mask = np.array([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    hidden = model(ids(3, 3), mask).to_numpy()
    mean = np.stack([hidden[0, :2].mean(0), hidden[1].mean(0)])
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    found = model.sentence_embeddings(ids(3, 3), mask)
    np.testing.assert_allclose(found.to_numpy()[:2], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.to_numpy()[2], 0)
    found.sum().backward()
    assert all(np.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_token_types_count_and_are_0_by_default() -> None:
    model = tiny()
    texts = ids(2, 4)
    plain = model(texts).to_numpy()
    np.testing.assert_allclose(model(texts, token_type_ids=np.zeros_like(texts)).to_numpy(), plain, atol=1e-6)
    assert abs(model(texts, token_type_ids=np.ones_like(texts)).to_numpy() - plain).max() > 1e-3


def test_dropout_works_in_training_and_of_the_attention_by_itself() -> None:
    for options in ({"dropout": 0.3}, {"attention_dropout": 0.3}):
        model = tiny(**options)
        assert not np.allclose(model(ids(2, 4)).to_numpy(), model(ids(2, 4)).to_numpy())
        model.eval()
        np.testing.assert_array_equal(model(ids(2, 4)).to_numpy(), model(ids(2, 4)).to_numpy())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tiny()(ids(3)), ValueError, r"Bert: ids must have shape \(N, T\), got \(3,\)"),
        (
            lambda: tiny()(ids(2, 3), np.ones((2, 4))),
            ValueError,
            r"Bert: attention_mask must have shape \(2, 3\), that of ids, got \(2, 4\)",
        ),
        (
            lambda: tiny()(ids(1, 2), np.array([[0.0, -1e9]])),  # a mask to be added, whose 0 would be "no token" here
            TypeError,
            "Bert: attention_mask must be booleans or integers, 1 where there is a token, got float64",
        ),
        (lambda: tiny()(ids(1, 8)), ValueError, "Bert: texts must have at most max_len=7 tokens, got 8"),
        (lambda: tiny(pooler=False).pool(np.ones((1, 2, 8))), ValueError, "made with pooler=False"),
        (lambda: models.Bert(3, 4, 8, 1, 3), ValueError, "num_heads must divide d_model, got num_heads=3, d_model=8"),
        (lambda: tiny(attention_dropout=2.0), ValueError, r"attention_dropout must be a number|must be in \[0, 1\]"),
        (lambda: tiny()("text"), TypeError, "Bert: ids must be"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
