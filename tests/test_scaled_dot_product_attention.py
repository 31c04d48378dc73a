"""Scaled dot-product attention as a layer: shapes, masks, the same dropout everywhere, and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.autograd import gradcheck
from lamella.backend import Device, backend_for
from lamella.testing import assert_close


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on(device: Device, *arrays: np.ndarray) -> tuple[Any, ...]:
    return tuple(backend_for(device).from_numpy(a, device) for a in arrays)


def test_dropout_is_what_dropping_from_materialised_weights_gives(device: Device) -> None:
    q, k, v = (lamella.tensor(normal(2, 3, n, 4, seed=n), device=device, requires_grad=True) for n in (5, 6, 6 + 0))
    dy = on(device, normal(2, 3, 5, 4, seed=9))[0]
    fused = L.scaled_dot_product_attention(q, k, v, dropout_p=0.4, rng=lamella.Generator(3))
    fused.backward(dy)
    found = [leaf.grad for leaf in (q, k, v)]
    for leaf in (q, k, v):
        leaf.grad = None
    weights = L.softmax(lamella.autograd.matmul(q, k.transpose((0, 1, 3, 2))) * 0.5)
    plain = lamella.autograd.matmul(L.dropout(weights, 0.4, rng=lamella.Generator(3)), v)
    plain.backward(dy)
    assert_close(fused.data, plain.to_numpy(), atol=2e-6)
    for a, leaf in zip(found, (q, k, v), strict=True):
        assert_close(a, backend_for(device).to_numpy(leaf.grad), atol=5e-6)


def test_dropout_moves_its_stream_by_one_word_a_weight_and_repeats() -> None:
    q, rng = normal(2, 3, 4, 8), lamella.Generator(1)
    one = L.scaled_dot_product_attention(q, q, q, dropout_p=0.5, rng=rng).to_numpy()
    assert rng.state == (1, 2 * 3 * 4 * 4)
    other = L.scaled_dot_product_attention(q, q, q, dropout_p=0.5, rng=rng).to_numpy()
    assert not np.array_equal(one, other)
    rng.state = (1, 0)
    np.testing.assert_array_equal(L.scaled_dot_product_attention(q, q, q, dropout_p=0.5, rng=rng).to_numpy(), one)


@pytest.mark.parametrize("axes", [(), (2,), (2, 3), (2, 1, 3), (1, 2, 1, 3)], ids=str)
@pytest.mark.parametrize("mask", [(4, 5), (1, 5), (3, 4, 5), (1, 1, 1, 4, 5)], ids=str)
def test_any_number_of_leading_axes(axes: tuple[int, ...], mask: tuple[int, ...], device: Device) -> None:
    if len(mask) > len(axes) + 2 or (len(mask) == 3 and axes[-1] != 3):
        pytest.skip("the mask does not broadcast")
    q, k, v = normal(*axes, 4, 2), normal(*axes, 5, 2, seed=1), normal(*axes, 5, 3, seed=2)
    visible = np.random.default_rng(3).random(mask) < 0.7
    scores = np.where(visible, (q.astype(float) @ k.swapaxes(-1, -2)) / np.sqrt(2), -1e30)
    p = np.exp(scores - scores.max(-1, keepdims=True)) * visible
    expected = p / np.maximum(p.sum(-1, keepdims=True), 1e-30) @ v
    found = L.scaled_dot_product_attention(*on(device, q, k, v), on(device, visible)[0])
    assert_close(found.data, expected, atol=2e-6)


def test_derivatives_agree_with_central_differences_the_masks_too(device: Device) -> None:
    q, k, v, mask = (normal(*s, seed=i).astype(float) for i, s in enumerate([(2, 2, 3), (2, 3, 3), (2, 3, 2), (2, 3)]))

    def attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return L.scaled_dot_product_attention(q, k, v, mask, 0.2, True, 0.8, rng=lamella.Generator(0))

    gradcheck(attention, *on(device, q, k, v, mask))


def test_neighbouring_heads_share_a_key() -> None:
    q, k = normal(1, 4, 3, 2), normal(1, 2, 5, 2, seed=1)
    repeated = np.repeat(k, 2, axis=1)
    found = L.scaled_dot_product_attention(q, k, k, enable_gqa=True)
    assert_close(found.data, L.scaled_dot_product_attention(q, repeated, repeated).to_numpy(), atol=1e-6)


def test_a_query_that_sees_nothing_gives_0_and_moves_nothing(device: Device) -> None:
    q, k, v = (lamella.tensor(normal(1, 2, 3, 4, seed=i), device=device, requires_grad=True) for i in range(3))
    mask = np.array([[True, True, False], [False, False, False], [False, True, False]])
    y = L.scaled_dot_product_attention(q, k, v, on(device, mask)[0])
    y.sum().backward()
    to_numpy = backend_for(device).to_numpy
    assert not y.to_numpy()[:, :, 1].any()
    assert not to_numpy(q.grad)[:, :, 1].any()
    assert not to_numpy(k.grad)[:, :, 2].any()
    assert not to_numpy(v.grad)[:, :, 2].any()
    assert to_numpy(v.grad)[:, :, :2].all()


MEMORY = """
import numpy as np
import lamella, lamella.layers as L
x = np.random.default_rng(0).standard_normal((1, 1, 16384, 16), dtype=np.float32)
q, k, v = (lamella.tensor(x, requires_grad=True) for _ in range(3))
y = L.scaled_dot_product_attention(q, k, v, **{options})
y.backward(np.ones_like(x))
assert np.isfinite(q.grad).all()
print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", ["{'is_causal': True}", "{'attn_mask': np.ones((1, 16384), bool)}"])
def test_memory_is_linear_in_the_length(options: str) -> None:
    """16,384 places: their weights alone would take 1 GB."""
    if not Path("/proc/self/status").exists():  # what getrusage says includes the parent's memory at the fork
        pytest.skip("this system does not tell a process's peak memory")
    run = subprocess.run(
        [sys.executable, "-c", MEMORY.format(options=options)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= 250 * 1024, f"{run.stdout} KB"


ones = np.ones((2, 4, 3, 8), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: f(None, ones, ones), TypeError, "query must be a tensor or an array, got None"),
        (lambda f: f(ones, ones, ones[0]), ValueError, r"must have shape \(\.\.\., length, width\)"),
        (lambda f: f(ones[0, 0, 0], ones[0, 0, 0], ones[0, 0, 0]), ValueError, r"got \[\(8,\), \(8,\), \(8,\)\]"),
        (lambda f: f(ones, ones[:, :2], ones[:, :2]), ValueError, "enable_gqa allows fewer heads of key and value"),
        (lambda f: f(ones, ones[:1], ones[:1], enable_gqa=True), ValueError, "but for the number of heads"),
        (lambda f: f(ones, ones, ones, dropout_p=2), ValueError, r"dropout_p must be in \[0, 1\], got 2"),
        (lambda f: f(ones, ones, ones, ones[0, 0, :, :3].astype(int)), TypeError, "mask must be boolean or floating"),
        (lambda f: f(ones, ones, ones, np.ones((5, 3), bool)), ValueError, r"mask must be broadcastable .*\(5, 3\)"),
        (lambda f: f(ones, ones, ones, [[True]]), TypeError, "attn_mask must be a tensor or an array, got a list"),
        (lambda f: f(ones, ones, ones, scale="a"), TypeError, "attention: scale must be a number, got 'a'"),
        (lambda f: f(ones, ones, ones, scale=float("nan")), ValueError, "attention: scale must be a number, got nan"),
        (lambda f: f(ones, ones, ones, rng=3), TypeError, "rng must be a lamella.Generator or None, got 3"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(L.scaled_dot_product_attention)
