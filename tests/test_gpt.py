"""GPT computes its definition with every option, in one go, in pieces with a cache, and with padding at the left."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models
from lamella.backend import Device, backend_for
from lamella.benchmarks import bench_gpt
from lamella.testing import assert_close

V, LONGEST, D, LAYERS, HEADS = 19, 12, 16, 2, 4
LLAMA: dict[str, Any] = {"norm": "rms", "positions": "rotary", "mlp": "swiglu", "bias": False, "tied": False}
OPTIONS: dict[str, dict[str, Any]] = {
    "GPT-2": {},
    "Llama": {**LLAMA, "num_kv_heads": 2, "head_dim": 6, "dim_feedforward": 20, "eps": 1e-3, "rope_theta": 50.0},
    "mixed": {"positions": "rotary", "rope_frequencies": (1.0, 0.3), "num_kv_heads": 1, "bias": False},
}


def small(name: str, device: Device | str = "cpu", **more: Any) -> models.GPT:
    """A model whose parameters are all far from 0 and 1."""
    model = models.GPT(V, LONGEST, D, LAYERS, HEADS, **{"rng": lamella.Generator(0), **OPTIONS[name], **more})
    random = np.random.default_rng(1)
    for parameter in model.parameters():
        L.init.assign(parameter, parameter.to_numpy() + 0.2 * random.standard_normal(parameter.shape))
    return model.to(device).eval()


def some_ids(*shape: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, V, shape)


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


def definition(model: models.GPT, name: str, ids: np.ndarray) -> np.ndarray:
    """The scores in float64, one sequence, one head and one query at a time."""
    w = {key: value.astype(np.float64) for key, value in model.state_dict().items()}
    options = {"norm": "layer", "positions": "learned", "mlp": "gelu", "eps": 1e-5, **OPTIONS[name]}
    kv_heads, d = options.get("num_kv_heads", HEADS), options.get("head_dim", D // HEADS)
    theta = options.get("rope_theta", 10000.0)
    frequencies = options.get("rope_frequencies", [theta ** (-2 * i / d) for i in range(d // 2)])

    def affine(path: str, x: np.ndarray) -> np.ndarray:
        return x @ w[f"{path}.weight"].T + w.get(f"{path}.bias", 0.0)

    def norm(path: str, x: np.ndarray) -> np.ndarray:
        if options["norm"] == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + options["eps"])
        return x * w[f"{path}.weight"] + w.get(f"{path}.bias", 0.0)

    def turned(x: np.ndarray, place: int) -> np.ndarray:
        if options["positions"] == "learned":
            return x
        a, b, angles = x[: d // 2], x[d // 2 :], place * np.array(frequencies)
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)])

    def attention(path: str, x: np.ndarray) -> np.ndarray:
        qkv = affine(f"{path}.c_attn", x)
        q, k, v = np.split(qkv, [HEADS * d, (HEADS + kv_heads) * d], axis=1)
        out = np.zeros((len(x), HEADS * d))
        for head in range(HEADS):
            other = head // (HEADS // kv_heads)
            for i in range(len(x)):
                query = turned(q[i, head * d : (head + 1) * d], i)
                keys = [turned(k[j, other * d : (other + 1) * d], j) for j in range(i + 1)]
                p = np.exp([query @ key / math.sqrt(d) for key in keys])
                out[i, head * d : (head + 1) * d] = p / p.sum() @ v[: i + 1, other * d : (other + 1) * d]
        return affine(f"{path}.c_proj", out)

    def network(path: str, x: np.ndarray) -> np.ndarray:
        wide = affine(f"{path}.c_fc", x)
        if options["mlp"] == "gelu":
            wide = 0.5 * wide * (1 + np.tanh(math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)))
        else:
            gate = affine(f"{path}.c_gate", x)
            wide = wide * gate / (1 + np.exp(-gate))
        return affine(f"{path}.c_proj", wide)

    found = []
    for row in ids:
        x = w["wte.weight"][row]
        if options["positions"] == "learned":
            x = x + w["wpe.weight"][: len(row)]
        for i in range(LAYERS):
            x = x + attention(f"h.{i}.attn", norm(f"h.{i}.ln_1", x))
            x = x + network(f"h.{i}.mlp", norm(f"h.{i}.ln_2", x))
        found.append(norm("ln_f", x) @ w.get("lm_head.weight", w["wte.weight"]).T)
    return np.array(found)


@pytest.mark.parametrize("name", OPTIONS)
def test_it_computes_the_definition(name: str, device: Device) -> None:
    model, ids = small(name, device), some_ids(2, 7)
    expected = definition(model.to("cpu"), name, ids)
    model.to(device)
    assert_close(model(on(device, ids)).data, expected, atol=3e-6 * abs(expected).max())
    last = model(on(device, ids), last_only=True)
    assert_close(last.data, expected[:, -1:], atol=3e-6 * abs(expected).max())


@pytest.mark.parametrize("name", OPTIONS)
def test_in_pieces_with_a_cache_it_gives_the_same(name: str, device: Device) -> None:
    model, ids = small(name, device), some_ids(2, 9)
    with lamella.no_grad():
        whole = model(on(device, ids)).to_numpy()
        cache = L.KVCache()
        found = []
        for start, stop in ((0, 4), (4, 5), (5, 6), (6, 9)):
            assert cache.length == start
            found.append(model(on(device, ids[:, start:stop]), cache=cache).to_numpy())
    np.testing.assert_allclose(np.concatenate(found, axis=1), whole, atol=5e-6 * abs(whole).max())


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
@pytest.mark.parametrize("cached", [False, True])
def test_what_stands_in_padding_changes_nothing(name: str, cached: bool, device: Device) -> None:
    model = small(name, device)
    ids, padding = some_ids(3, 7), np.array([0, 5, 2])
    with lamella.no_grad():
        alone = [model(on(device, row[None, left:])).to_numpy()[0] for row, left in zip(ids, padding, strict=True)]
        cache = L.KVCache() if cached else None
        parts = [ids[:, :3], ids[:, 3:4], ids[:, 4:]] if cached else [ids]
        found = [model(on(device, part), cache=cache, padding=padding).to_numpy() for part in parts]
    for row, expected, left in zip(np.concatenate(found, axis=1), alone, padding, strict=True):
        np.testing.assert_allclose(row[left:], expected, atol=5e-6 * abs(expected).max())


def test_the_loss_is_the_cross_entropy_of_the_next_tokens_and_its_slope_that_of_the_parameters() -> None:
    for name in OPTIONS:
        model, ids = small(name).to(dtype="float64"), some_ids(2, 6)
        labels = ids[:, 1:].copy()
        labels[0, 2] = -100
        scores = model(ids[:, :-1])
        expected = L.cross_entropy(scores.reshape(-1, V), labels.reshape(-1))
        loss = model.loss(ids[:, :-1], labels)
        assert abs(float(loss) - float(expected)) <= 1e-12
        loss.backward()
        random, step, slope = np.random.default_rng(3), 1e-5, 0.0
        ways = [random.standard_normal(parameter.shape) for parameter in model.parameters()]
        for parameter, way in zip(model.parameters(), ways, strict=True):
            assert parameter.grad is not None
            slope += float((parameter.grad * way).sum())
        values = []
        for sign in (1, -2):
            for parameter, way in zip(model.parameters(), ways, strict=True):
                L.init.assign(parameter, parameter.to_numpy() + sign * step * way)
            values.append(float(model.loss(ids[:, :-1], labels)))
        assert abs((values[0] - values[1]) / (2 * step) - slope) <= 1e-6 * max(1.0, abs(slope))


def test_it_starts_as_gpt_2_does() -> None:
    model = models.GPT(500, 200, 64, 8, 4, rng=lamella.Generator(0))
    for path, value in model.state_dict().items():
        if path.endswith("bias"):
            assert not value.any()
        elif value.ndim == 1:
            assert (value == 1).all()
        else:
            std = 0.02 / 4 if path.endswith("c_proj.weight") else 0.02  # 4 = sqrt(2 · 8)
            assert abs(value.std() / std - 1) <= 0.05, path


def test_it_drops_in_training_only_and_repeats_with_its_generator() -> None:
    ids = some_ids(2, 5)
    model = models.GPT(V, LONGEST, D, 1, HEADS, dropout=0.3, rng=lamella.Generator(0))
    first, second = model(ids).to_numpy(), model(ids).to_numpy()
    assert not np.array_equal(first, second)
    again = models.GPT(V, LONGEST, D, 1, HEADS, dropout=0.3, rng=lamella.Generator(0))
    np.testing.assert_array_equal(again(ids).to_numpy(), first)
    model.eval()
    np.testing.assert_array_equal(model(ids).to_numpy(), model(ids).to_numpy())


def test_each_of_the_four_places_of_dropout_drops() -> None:
    ids = some_ids(2, 5)
    for place in ("embeddings", "attention", "first branch", "second branch"):
        model = models.GPT(V, LONGEST, D, 1, HEADS, dropout=0.0, rng=lamella.Generator(0))
        block, before = model.h[0], model(ids).to_numpy()
        if place == "attention":
            block.attn.dropout = 0.5
        else:
            {"embeddings": model.drop, "first branch": block.drop_1, "second branch": block.drop_2}[place].p = 0.5
        assert not np.allclose(model(ids).to_numpy(), before, atol=1e-3), place
        np.testing.assert_array_equal(model.eval()(ids).to_numpy(), before)


@pytest.mark.parametrize("options", [{}, {**LLAMA, "dropout": 0.0}], ids=["GPT-2", "Llama"])
def test_it_learns_a_sequence_by_heart(options: dict[str, Any]) -> None:
    model = models.GPT(V, LONGEST, D, 1, 2, **{"dropout": 0.0, **options}, rng=lamella.Generator(0))
    ids = some_ids(2, LONGEST)
    optimizer = lamella.training.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[0] > 0.9 * math.log(V)
    assert losses[-1] < 0.2


def test_the_sizes_of_gpt_2_are_those_of_its_docstrings() -> None:
    for make, d, layers in (
        (models.gpt2, 768, 12),
        (models.gpt2_medium, 1024, 24),
        (models.gpt2_large, 1280, 36),
        (models.gpt2_xl, 1600, 48),
    ):
        numbers = [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", make.__doc__ or "")]
        count = (50257 + 1024) * d + layers * (12 * d * d + 13 * d) + 2 * d
        assert numbers[-3:] == [layers, d, count]


@pytest.mark.slow
def test_gpt_2_has_its_published_number_of_parameters() -> None:
    model = models.gpt2(rng=lamella.Generator(0))
    assert model.num_parameters() == 124_439_808
    assert model.h[0].attn.c_attn.weight.shape == (2304, 768)


def test_it_names_what_is_wrong() -> None:
    model = small("GPT-2")
    for options, message in (
        ({"num_kv_heads": 3}, "GPT: num_kv_heads must divide num_heads, got num_kv_heads=3, num_heads=4"),
        (
            {"positions": "rotary", "rope_frequencies": [1.0]},
            "GPT: rope_frequencies must be head_dim / 2 = 2 numbers, got 1",
        ),
        ({"norm": "batch"}, 'GPT: norm must be "layer" or "rms", got \'batch\''),
        ({"positions": "rotary", "head_dim": 5}, "GPT: head_dim must be even for rotary positions, got 5"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            models.GPT(V, LONGEST, D, LAYERS, HEADS, **options)
    with pytest.raises(ValueError, match="GPT: num_heads must divide d_model, got num_heads=3, d_model=16"):
        models.GPT(V, LONGEST, D, LAYERS, 3)
    with pytest.raises(ValueError, match=r"GPT: ids must have shape \(N, T\), got \(3,\)"):
        model(some_ids(3))
    with pytest.raises(ValueError, match="GPT: sequences must have at most max_len=12 tokens, got 13"):
        model(some_ids(1, 13))
    with lamella.no_grad():
        cache = L.KVCache()
        model(some_ids(1, 10), cache=cache)
        with pytest.raises(ValueError, match="max_len=12 tokens, got 3 after 10 in the cache"):
            model(some_ids(1, 3), cache=cache)
        with pytest.raises(ValueError, match="max_len=12 tokens, got 13"):
            model(some_ids(1, 13), padding=np.array([0]))
        assert model(some_ids(1, 13), padding=np.array([1])).shape == (1, 13, V)
    with pytest.raises(ValueError, match=r"GPT: padding must be 1 integers, one for each sequence, got \[1, 2\]"):
        model(some_ids(1, 3), padding=[1, 2])
    with pytest.raises(ValueError, match=r"GPT: padding must not be negative, got \[-1\]"):
        model(some_ids(1, 3), padding=[-1])
    with pytest.raises(RuntimeError, match=r"does not go through a cache; work under lamella\.no_grad"):
        model(some_ids(1, 3), cache=L.KVCache())


@pytest.mark.parametrize(
    "case", [bench_gpt.step_case(2, 5, 7, 8, 2, 2), bench_gpt.token_case(6, 7, 8, 2, 2)], ids=["step", "token"]
)
def test_its_benchmarks_give_the_right_answer(case: Any) -> None:
    numbers = case.numbers(np.random.default_rng(0))
    run = case.contenders["lamella"](*numbers)
    results = tuple(np.asarray(r) for _ in range(case.steps) for r in run())
    assert case.error(results, numbers) <= case.allowed("float32")
    assert case.error(tuple(1.01 * r for r in results), numbers) > case.allowed("float32")
