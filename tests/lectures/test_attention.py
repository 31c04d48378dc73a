"""The claims of ``examples/lectures/attention.py``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L


@pytest.fixture(scope="module")
def found(lecture: ModuleType) -> dict[str, Any]:
    return lecture.measure(rng=lamella.Generator(0), steps=200)


@pytest.fixture
def qkv() -> list[Any]:
    return list(np.random.default_rng(0).standard_normal((3, 2, 7, 4)))


def test_the_formula_gives_what_the_layer_gives(lecture: ModuleType, qkv: list[Any]) -> None:
    for mask in (True, np.tri(7, dtype=bool)):
        out, p = lecture.by_hand(*qkv, mask)
        theirs = L.scaled_dot_product_attention(*qkv, None if mask is True else mask).to_numpy()
        np.testing.assert_allclose(out, theirs, atol=1e-14)
        np.testing.assert_allclose(p.sum(axis=-1), 1)
        assert (p >= 0).all()


def test_three_tokens_worked_out_on_paper(lecture: ModuleType) -> None:
    q, k, v = np.array([[2.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]), np.array([[1.0], [10.0], [100.0]])
    e = np.exp(2**0.5)  # the scores are 0, 2 / √2, 0
    out, p = lecture.by_hand(q, k, v)
    np.testing.assert_allclose(p, [[1 / (e + 2), e / (e + 2), 1 / (e + 2)]])
    np.testing.assert_allclose(out, [[(1 + 10 * e + 100) / (e + 2)]])


def test_under_a_causal_mask_nothing_depends_on_what_follows(found: dict[str, Any], qkv: list[Any]) -> None:
    assert (found["causal"][np.triu_indices(8, 1)] == 0).all()
    q, k, v = (lamella.tensor(array, requires_grad=True) for array in qkv)
    L.scaled_dot_product_attention(q, k, v, is_causal=True)[:, 3].sum().backward()
    for tensor in (k, v):
        assert (tensor.grad[:, 4:] == 0).all()
        assert (tensor.grad[:, :4] != 0).any(axis=(0, 2)).all()


def test_a_head_that_writes_backwards_looks_at_the_mirrored_position(found: dict[str, Any]) -> None:
    assert found["accuracy"] > 0.99
    weights = found["reversal"][np.arange(8), 7 - np.arange(8)]
    assert weights.min() > 0.9
    assert found["accuracy without positions"] < 0.5


def test_the_root_of_d_keeps_entropy_and_slope(found: dict[str, Any]) -> None:
    for what in ("entropy / ln S", "1 − Σ p²"):
        plain, scaled = (np.array(found[name][what]) for name in ("q·k", "q·k / √d"))
        assert (np.diff(plain) < 0).all()
        assert plain[-1] < 0.1
        assert scaled.min() > 0.8
        assert np.ptp(scaled) < 0.05
    rng = np.random.default_rng(0)
    for d in (4, 256):
        scores = (rng.standard_normal((20_000, d)) * rng.standard_normal((20_000, d))).sum(axis=1)
        assert scores.var() == pytest.approx(d, rel=0.1)


def test_the_trace_of_the_jacobian_is_one_minus_the_sum_of_squares() -> None:
    x = np.array([0.3, -1.0, 2.0, 0.0])
    trace = sum(lamella.grad(lambda x, i=i: L.softmax(x)[i])(x).to_numpy()[i] for i in range(4))
    assert trace == pytest.approx(1 - (L.softmax(x).to_numpy() ** 2).sum())
