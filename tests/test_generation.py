"""Writing chooses as transformers does, the same with and without a cache, in a batch and alone, on every device."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models
from lamella.backend import Device, backend_for
from lamella.models import sampling
from lamella.models.beam_search import _Search

from .named_weights import named_weight

FROZEN = np.load(Path(__file__).parent / "fixtures" / "generation.npz")
EOS = 18  # there
LLAMA: dict[str, Any] = {"norm": "rms", "positions": "rotary", "mlp": "swiglu", "bias": False, "num_kv_heads": 1}


def frozen_model() -> models.GPT:
    model = models.GPT(23, 24, 16, 2, 2, rng=lamella.Generator(0))
    model.load_state_dict({key: named_weight(key, value.shape) for key, value in model.state_dict().items()})
    return model


def gpt(vocab: int = 13, max_len: int = 40, device: Device | str = "cpu", **options: Any) -> models.GPT:
    """A model that has no favourite token."""
    model = models.GPT(vocab, max_len, 16, 2, 2, rng=lamella.Generator(0), **options)
    random = np.random.default_rng(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            L.init.assign(parameter, 0.5 * random.standard_normal(parameter.shape))
    return model.to(device)


def reader(vocab: int = 13, max_len: int = 40) -> models.EncoderDecoder:
    model = models.EncoderDecoder(11, vocab, 16, 2, 1, 2, 24, max_len=max_len, rng=lamella.Generator(0))
    random = np.random.default_rng(1)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            L.init.assign(parameter, 0.5 * random.standard_normal(parameter.shape))
    return model.eval()


SOURCE = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])  # 0 is padding


def on(device: Device, array: np.ndarray) -> Any:
    return backend_for(device).from_numpy(array, device)


# -- from scores to a token ------------------------------------------------------------------------------------------
def test_scores_are_changed_as_transformers_changes_them(device: Device) -> None:
    to_numpy = backend_for(device).to_numpy
    scores = on(device, FROZEN["scores"])
    marks = np.zeros(scores.shape, bool)
    np.put_along_axis(marks, FROZEN["ids"], True, axis=1)
    seen = on(device, marks)
    penalized = sampling.penalize_repetition(scores, seen, 1.3)
    for name, found in (
        ("penalty", penalized),
        ("top_k", sampling.keep_top_k(scores, 5)),
        ("top_p", sampling.keep_top_p(scores, 0.8)),
        ("together", sampling.keep_top_p(sampling.keep_top_k(penalized / 0.7, 5), 0.8)),
    ):
        assert found.dtype == np.float32
        np.testing.assert_allclose(to_numpy(found), FROZEN[name], rtol=3e-7, err_msg=name)
    np.testing.assert_array_equal(to_numpy(scores), FROZEN["scores"])


def test_ties_and_ends_of_top_k_and_top_p(device: Device) -> None:
    to_numpy = backend_for(device).to_numpy

    def kept(array: Any) -> list[int]:
        return np.flatnonzero(to_numpy(array)[0] > -math.inf).tolist()

    scores = on(device, np.log(np.float32([[0.1, 0.3, 0.2, 0.2, 0.2]])))
    assert kept(sampling.keep_top_k(scores, 1)) == [1]
    assert kept(sampling.keep_top_k(scores, 2)) == [1, 2, 3, 4]
    assert kept(sampling.keep_top_k(scores, 9)) == [0, 1, 2, 3, 4]
    assert kept(sampling.keep_top_p(scores, 1e-20)) == [1]
    assert kept(sampling.keep_top_p(scores, 0.29)) == [1]
    assert kept(sampling.keep_top_p(scores, 0.31)) == [1, 2, 3, 4]
    assert kept(sampling.keep_top_p(scores, 0.95)) == [0, 1, 2, 3, 4]


def test_a_draw_is_the_first_token_whose_cumulated_probability_is_above_the_uniform(device: Device) -> None:
    rows = np.log(np.float64([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]) + 1e-300).repeat(7, 0)
    rows[:, [0, 2, 5]] = -np.inf
    uniforms = np.array([0.0, 0.2499, 0.2501, 0.5, 0.7499, 0.7501, 1 - 2.0**-53])
    found = sampling.draw(on(device, rows), on(device, uniforms))
    assert backend_for(device).to_numpy(found).tolist() == [1, 1, 3, 3, 3, 4, 4]
    for row in ([np.nan, 1.0], [np.inf, 1.0], [-np.inf, -np.inf]):
        hopeless = on(device, np.float32([row, [0.0, 1.0]]))
        tokens = sampling.draw(hopeless, on(device, np.array([0.5, 0.1])))
        assert backend_for(device).to_numpy(tokens).tolist() == [-1, 0]
        assert backend_for(device).to_numpy(sampling.greatest(hopeless)).tolist() == [-1, 1]


def test_many_draws_have_the_probabilities_of_the_scores() -> None:
    class Always(L.Module):
        """The same scores whatever came before."""

        def forward(self, ids: Any, *, cache: Any, padding: Any, last_only: bool) -> Any:
            return lamella.tensor(np.log(np.float32([[[0.1, 0.6, 0.05, 0.25]]])).repeat(len(ids), 0))

    found = models.generate(Always(), np.zeros((20_000, 1), int), 1, temperature=1.0, rng=lamella.Generator(5))
    share = np.bincount(found[:, 0], minlength=4) / 20_000
    assert abs(share - [0.1, 0.6, 0.05, 0.25]).max() <= 0.015  # four standard deviations
    cooler = models.generate(Always(), np.zeros((20_000, 1), int), 1, temperature=0.5, rng=lamella.Generator(5))
    p = np.array([0.1, 0.6, 0.05, 0.25]) ** 2
    assert abs(np.bincount(cooler[:, 0], minlength=4) / 20_000 - p / p.sum()).max() <= 0.015


# -- whole sequences -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_the_greatest_scores_write_what_transformers_writes(penalty: float) -> None:
    found = models.generate(frozen_model(), FROZEN["prompt"], 12, repetition_penalty=penalty, eos_id=EOS)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, FROZEN[f"greedy/{penalty}"])


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("exponent", ["1.0/True", "1.0/never", "0.0/never", "2.0/never", "-1.0/never"])
def test_beam_search_finds_what_transformers_finds(exponent: str, use_cache: bool) -> None:
    penalty, early = exponent.split("/")
    found = models.beam_search(
        frozen_model(), FROZEN["prompt"], 12, num_beams=3, num_return=2, length_penalty=float(penalty),
        early_stopping=early == "True", eos_id=EOS, use_cache=use_cache,
    )  # fmt: skip
    expected = [row.tolist() for row in FROZEN[f"beam/{exponent}"]]
    expected = [row[: row.index(EOS) + 1] if EOS in row else row for row in expected]
    assert [one.tokens.tolist() for row in found for one in row] == expected
    scores = [one.score for row in found for one in row]
    np.testing.assert_allclose(scores, FROZEN[f"beam/{exponent}/scores"], rtol=2e-6)


DRAWN: dict[str, Any] = {"temperature": 1.0, "top_k": 9, "repetition_penalty": 1.2}


@pytest.mark.parametrize(
    ("options", "how"),
    [({}, {}), (LLAMA, DRAWN), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((LLAMA, {}), ({}, DRAWN)))],
    ids=["GPT-2, greedy", "Llama, drawn", "Llama, greedy", "GPT-2, drawn"],
)
def test_200_tokens_are_the_same_with_and_without_a_cache(options: dict[str, Any], how: dict[str, Any]) -> None:
    model = gpt(max_len=210, **options)
    found = [
        models.generate(model, [[1, 2, 3], [4]], 200, use_cache=use_cache, rng=lamella.Generator(2), **how)
        for use_cache in (True, False)
    ]
    assert found[0].shape == (2, 200)
    assert len(np.unique(found[0])) > 2
    np.testing.assert_array_equal(*found)


def test_200_tokens_of_an_encoder_and_decoder_are_the_same_with_and_without_a_cache() -> None:
    model = reader(max_len=210)
    with lamella.no_grad():
        memory = model.encode(SOURCE)
    found = [
        models.generate(
            model, [[1], [1]], 200, memory=memory, use_cache=use_cache, temperature=1.0, rng=lamella.Generator(2)
        )
        for use_cache in (True, False)
    ]
    assert len(np.unique(found[0])) > 2
    np.testing.assert_array_equal(*found)


def test_a_row_of_a_batch_is_what_it_is_alone(device: Device) -> None:
    for options in ({}, LLAMA):
        model = gpt(device=device, **options)
        ids = [[5, 1, 7, 7], [3], [2, 12]]
        for penalty in (1.0, 0.2):  # below 1 a token in the padding, were it counted, would be taken
            together = models.generate(model, ids, 6, repetition_penalty=penalty)
            for row, prompt in zip(together, ids, strict=True):
                np.testing.assert_array_equal(models.generate(model, prompt, 6, repetition_penalty=penalty), row)
        first = models.generate(model, on(device, np.array(ids[0])), 6, repetition_penalty=penalty)
        np.testing.assert_array_equal(first, together[0])


def test_a_seed_gives_the_same_tokens_on_every_device(device: Device) -> None:
    how: dict[str, Any] = {"temperature": 1.3, "top_k": 11, "top_p": 0.95, "repetition_penalty": 1.1}
    expected = models.generate(gpt(), [[5, 1], [3]], 8, rng=lamella.Generator(4), **how)
    found = models.generate(gpt(device=device), [[5, 1], [3]], 8, rng=lamella.Generator(4), **how)
    np.testing.assert_array_equal(found, expected)
    other = models.generate(gpt(), [[5, 1], [3]], 8, rng=lamella.Generator(5), **how)
    assert not np.array_equal(other, expected)


def test_a_row_ends_with_its_last_token_and_the_writing_with_the_last_row() -> None:
    model = gpt()
    free = models.generate(model, [[5, 1], [3, 3]], 12)
    eos = int(free[0, 3])
    ends = [row.tolist().index(eos) if eos in row else 11 for row in free]
    assert min(ends) < max(ends)  # the rows end at different places
    for pad, more in ((eos, {}), (0, {"pad_id": 0})):
        found = models.generate(model, [[5, 1], [3, 3]], 12, eos_id=eos, **more)
        assert found.shape == (2, max(ends) + 1)
        for row, expected, end in zip(found, free, ends, strict=True):
            np.testing.assert_array_equal(row[: end + 1], expected[: end + 1])
            assert (row[end + 1 :] == pad).all()
    alone = models.generate(model, [5, 1], 12, eos_id=eos)
    np.testing.assert_array_equal(alone, free[0, : ends[0] + 1])


def test_several_tokens_may_end_a_row() -> None:
    model = gpt()
    free = models.generate(model, [[5, 1], [3, 3]], 12)
    first, second = int(free[0, 3]), int(free[1, 6])
    ends = [next((i for i, token in enumerate(row) if token in (first, second)), 11) for row in free]
    assert max(ends) < 11
    found = models.generate(model, [[5, 1], [3, 3]], 12, eos_id=[second, first])
    assert found.shape == (2, max(ends) + 1)
    for row, expected, end in zip(found, free, ends, strict=True):
        np.testing.assert_array_equal(row[: end + 1], expected[: end + 1])
        assert (row[end + 1 :] == second).all()
    for eos_id, message in (([], "eos_id must be a token, a list of at least one"), ([1, -1], "at least 0, got -1")):
        with pytest.raises(ValueError, match=message):
            models.generate(model, [1], 2, eos_id=eos_id)
    with pytest.raises(ValueError, match=r"eos_id must be in 0 … .* got 1000"):
        models.generate(model, [1], 2, eos_id=(1, 1000))


def test_a_beam_of_one_with_several_end_tokens_is_greedy_until_one_of_them() -> None:
    """With as many end tokens as beams and one more, the best continuations could all be ends."""
    model = gpt(vocab=4)
    free = models.generate(model, [1, 3], 6).tolist()
    ends = sorted(set(range(4)) - {free[0]})
    (found,) = models.beam_search(model, [1, 3], 6, num_beams=1, eos_id=ends)[0]
    stop = next((i for i, token in enumerate(free) if token in ends), 5)
    assert found.tokens.tolist() == free[: stop + 1]


def test_a_stream_gives_each_token_as_soon_as_it_is_chosen() -> None:
    model, asked = gpt(dropout=0.5), []
    model.register_forward_pre_hook(lambda module, inputs: asked.append((module.training, *inputs[0].shape)))
    expected = models.generate(model, [5, 1, 2], 5)
    assert asked == [(False, 1, 3), *[(False, 1, 1)] * 4]  # the beginning once, then the new token alone
    asked.clear()
    tokens = models.stream(model, [5, 1, 2], 5)
    found = []
    for count, token in enumerate(tokens, 1):
        assert isinstance(token, int)
        found.append(token)
        assert len(asked) == count
        assert model.training
        assert all(module.training for module in model.modules())
        assert lamella.autograd.is_recording()
    assert found == expected.tolist()
    batch = list(models.stream(model, [[5, 1, 2], [1, 1, 1]], 5))
    np.testing.assert_array_equal(np.stack(batch, axis=1)[0], expected)


class Scores(L.Module):
    """The same scores at each step for all sequences that begin with the same token."""

    def __init__(self, scores: dict[int, list[float]]) -> None:
        self.scores = scores

    def forward(self, ids: Any, *, cache: Any, padding: Any, last_only: bool) -> Any:
        firsts = ids[:, 0] if padding is None else ids[np.arange(len(ids)), padding]
        return lamella.tensor(np.float32([[self.scores[int(first)]] for first in firsts]))


def test_padding_is_not_counted_as_a_repetition() -> None:
    model = Scores({1: [1.0, 0.9, 0.6]})
    found = models.generate(model, [[1, 2, 2], [1]], 2, repetition_penalty=2.0, use_cache=False)
    np.testing.assert_array_equal(found, [[0, 0], [0, 2]])  # where 0 stood in the padding of the second, 2 came first


def test_nothing_and_no_rows_are_written_too() -> None:
    model = gpt()
    assert models.generate(model, [1, 2], 0).shape == (0,)
    assert models.generate(model, [[1, 2], [3]], 0).shape == (2, 0)
    assert models.generate(model, np.zeros((0, 2), int), 3).shape == (0, 3)


# -- the work --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{}, LLAMA], ids=["GPT-2", "Llama"])
def test_the_work_for_a_token_grows_by_the_same_for_each_token_before_it(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, work = gpt(max_len=500, **options).eval(), [0]
    backend = backend_for(lamella.device("cpu"))
    attention, gemm = lamella.kernels.attention, type(backend).gemm

    def counted_attention(q: Any, k: Any, v: Any, **more: Any) -> Any:
        work[0] += q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] * (k.shape[3] + v.shape[3])
        return attention(q, k, v, **more)

    def counted_gemm(self: Any, a: Any, b: Any, out: Any = None) -> Any:
        work[0] += a.shape[0] * a.shape[1] * b.shape[1]
        return gemm(self, a, b, out)

    monkeypatch.setattr(lamella.kernels, "attention", counted_attention)
    monkeypatch.setattr(type(backend), "gemm", counted_gemm)
    needed = []
    for _ in models.stream(model, [1, 2, 3], 400):
        needed.append(work[0])
        work[0] = 0
    each = 2 * 2 * 16  # two layers, keys and values, width 16: multiplications with one token before
    assert needed[1] > each
    assert needed[1:] == [needed[1] + each * i for i in range(399)]


# -- beam search -----------------------------------------------------------------------------------------------------
def every_sequence(logp: Any, vocab: int, eos: list[int], longest: int) -> list[tuple[float, tuple[int, ...]]]:
    """All sequences that end with one of ``eos`` or at the longest length, with their log p, by walking through all."""
    found, open_ = [], [((), 0.0)]
    for place in range(1, longest + 1):
        going = []
        for (tokens, total), token in itertools.product(open_, range(vocab)):
            more = (*tokens, token), total + logp(tokens)[token]
            (found if token in eos or place == longest else going).append(more)
        open_ = going
    return [(total, tokens) for tokens, total in found]


@pytest.mark.parametrize("eos", [2, None, [0, 2]])
@pytest.mark.parametrize("penalty", [1.0, 0.0, -0.5, 3.0])
def test_a_wide_beam_finds_what_an_exhaustive_search_finds(penalty: float, eos: Any) -> None:
    model, start, longest = gpt(vocab=4).eval(), [1, 3], 3

    def logp(tokens: tuple[int, ...]) -> np.ndarray:
        with lamella.no_grad():
            scores = model(np.array([[*start, *tokens]])).to_numpy()[0, -1].astype(np.float64)
        return scores - np.log(np.exp(scores).sum())

    ends = [] if eos is None else [eos] if isinstance(eos, int) else eos
    every = every_sequence(logp, 4, ends, longest)
    ranked = sorted(((total / len(tokens) ** penalty, tokens) for total, tokens in every), reverse=True)
    (found,) = models.beam_search(model, start, longest, num_beams=64, num_return=9, length_penalty=penalty, eos_id=eos)
    assert [tuple(one.tokens) for one in found] == [tokens for _, tokens in ranked[:9]]
    np.testing.assert_allclose([one.score for one in found], [score for score, _ in ranked[:9]], rtol=1e-5)


def test_a_wide_beam_over_an_encoder_and_decoder_finds_the_best_for_each_source() -> None:
    model = reader(vocab=4)
    with lamella.no_grad():
        memory = model.encode(SOURCE)
    for use_cache in (True, False):
        both = models.beam_search(
            model, [[1], [1]], 3, num_beams=48, num_return=4, eos_id=2, memory=memory, use_cache=use_cache
        )
        for row, found in enumerate(both):
            one = memory.take([row])

            def logp(tokens: tuple[int, ...], one: Any = one) -> np.ndarray:
                with lamella.no_grad():
                    scores = model.decode(np.array([[1, *tokens]]), one).to_numpy()[0, -1].astype(np.float64)
                return scores - np.log(np.exp(scores).sum())

            ranked = sorted(((t / len(s), s) for t, s in every_sequence(logp, 4, [2], 3)), reverse=True)
            assert [tuple(h.tokens) for h in found] == [tokens for _, tokens in ranked[:4]]


def test_beams_of_a_batch_are_those_of_its_rows_on_every_device(device: Device) -> None:
    model, ids = gpt(device=device), [[5, 1, 7], [3]]
    how: dict[str, Any] = {"num_beams": 3, "eos_id": 4, "num_return": 3}
    together = models.beam_search(model, ids, 6, **how)
    on_cpu = models.beam_search(gpt(), ids, 6, **how)
    for row, prompt, expected in zip(together, ids, on_cpu, strict=True):
        for others in (models.beam_search(model, prompt, 6, **how)[0], expected):
            assert [one.tokens.tolist() for one in row] == [one.tokens.tolist() for one in others]


def test_an_end_counts_only_among_the_best_of_its_step() -> None:
    search = _Search(2, 5, 1.0, False, (0,))
    search.beams = [(-0.1, (1,)), (-0.2, (2,))]
    going = search.advance(np.array([-1.0, -2.0, -3.0, -4.0]), np.array([0, 3, 5, 8]), 5)  # of 5 tokens 0 ends
    assert going == [(0, 3), (1, 3)]
    assert search.ended == [(-0.5, (1, 0))]
    assert search.beams == [(-2.0, (1, 3)), (-4.0, (2, 3))]


@pytest.mark.parametrize(("penalty", "total", "settled"), [
    (1.0, -2.0, False), (1.0, -5.0, True),  # at best -0.2 or -0.5 with 10 tokens
    (-1.0, -0.12, False), (-1.0, -0.125, True),  # at best -0.48 or -0.5 with 4 tokens
    (0.0, -0.4, False), (0.0, -0.5, True),
])  # fmt: skip
def test_a_search_ends_when_no_beam_can_become_better(penalty: float, total: float, settled: bool) -> None:
    search = _Search(1, 10, penalty, False, (0,))
    search.ended, search.beams = [(-0.5, (0,))], [(total, (1, 1, 1))]
    assert search._settled(3) is settled
    search.early = True
    assert search._settled(3)


def test_a_row_that_can_only_end_leaves_the_others_alone() -> None:
    model = Scores({1: [-math.inf, 0.0, -math.inf], 2: [0.0, -1.0, -1.0]})
    one, other = models.beam_search(model, [[1], [2]], 3, num_beams=2, num_return=2, eos_id=1, use_cache=False)
    assert [hypothesis.tokens.tolist() for hypothesis in one] == [[1]]
    assert len(other) == 2
    assert other[0].tokens.tolist() == [0, 0, 0]


def test_one_beam_is_greedy() -> None:
    model = gpt()
    (found,) = models.beam_search(model, [5, 1], 8, num_beams=1, eos_id=4)[0]
    np.testing.assert_array_equal(found.tokens, models.generate(model, [5, 1], 8, eos_id=4))


# -- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("function", [models.generate, models.stream, models.beam_search])
def test_writing_names_what_is_wrong(function: Any) -> None:
    model, name = gpt(), function.__name__
    for ids, options, message in (
        ([1], {"max_new_tokens": 41}, "the model has 40 places (max_len), got a beginning of 1 and max_new_tokens=41"),
        ([[1], []], {}, "ids must hold at least one token in each sequence, got lengths [1, 0]"),
        (np.zeros((2, 0), int), {}, "ids must have shape (N, T) or (T,) with T at least 1, got (2, 0)"),
        ([], {}, "ids must have shape (N, T) or (T,) with T at least 1, got (0,)"),
        ([[[1]], [[2]]], {}, "ids must be a list of tokens or a list of such lists, got [[[1]], [[2]]]"),
        ([[1, [2]]], {}, "ids must be a list of tokens or a list of such lists, got [[1, [2]]]"),
        ([1, [2]], {}, "ids must be a list of tokens or a list of such lists, got [1, [2]]"),
        ([[1], 2], {}, "ids must be a list of tokens or a list of such lists, got [[1], 2]"),
        ([1], {"eos_id": -1}, "eos_id must be at least 0, got -1"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"{name}: {message}")):
            function(model, ids, **{"max_new_tokens": 4, **options})
    for ids, options, message in (
        ([1.5], {}, "ids must be integers, got float64"),
        ([[1], [1.5, 2]], {}, "ids must be integers, got float64"),
        (["ab", "c"], {}, "ids must be integers, got <U2"),
        ("ab", {}, "ids must be a tensor or an array, got "),
        (3, {}, "ids must be a tensor or an array, got "),
        ([1], {"memory": object()}, "with memory the model must have a method decode, got GPT"),
    ):
        with pytest.raises(TypeError, match=re.escape(f"{name}: {message}")):
            function(model, ids, 4, **options)
    with pytest.raises(ValueError, match=rf"{name}: eos_id must be in 0 … {model.vocab_size - 1}, got 1000$"):
        list(function(model, [1], 4, eos_id=1000))
    with pytest.raises(TypeError, match=f"{name}: model must be a Module, got 3"):
        function(3, [1], 4)
    with pytest.raises(TypeError, match=rf"{name}: memory must be given for an EncoderDecoder: model\.encode"):
        function(reader(), [1], 4)
    with pytest.raises(ValueError, match=rf"{name}: ids must be of one length with memory, got \[1 2\]"):
        function(reader(), [[1], [1, 2]], 4, memory=object())
    L.init.assign(model.wpe.weight, np.full((40, 16), np.nan, np.float32))
    with pytest.raises(FloatingPointError, match=f"{name}: .*scores .*are NaN"):
        list(function(model, [1], 4))


@pytest.mark.parametrize("kind", [np.uint64, np.int16, lamella.tensor])
def test_beginnings_of_different_lengths_may_be_arrays_of_any_integers(kind: Any) -> None:
    rows = [[5, 1], [7], [2, 3, 4]]
    found = models.generate(gpt(), [kind(np.array(row)) for row in rows], 5)
    np.testing.assert_array_equal(found, models.generate(gpt(), rows, 5))


def test_what_fills_a_row_up_need_not_be_a_token_and_the_model_does_not_read_it() -> None:
    model, rows = gpt(), [[5, 1], [7], [2, 3, 4]]
    plain = models.generate(model, rows, 8)
    for eos in plain[:, 1].tolist():
        ended = models.generate(model, rows, 8, eos_id=eos)
        for use_cache in (True, False):
            filled = models.generate(model, rows, 8, eos_id=eos, pad_id=10**6, use_cache=use_cache)
            np.testing.assert_array_equal(np.where(filled == 10**6, eos, filled), ended)
            for row, without in zip(filled, plain, strict=True):
                here = np.flatnonzero(without == eos)
                stop = here[0] + 1 if here.size else len(row)
                np.testing.assert_array_equal(row[:stop], without[:stop])
                assert (row[stop:] == 10**6).all()


def test_who_changes_the_tokens_of_a_stream_does_not_change_what_is_written() -> None:
    model, rows = gpt(), [[5, 1], [7]]
    found = []
    for tokens in models.stream(model, rows, 6):
        found.append(tokens.copy())
        tokens[:] = 0
    np.testing.assert_array_equal(np.stack(found, axis=1), models.generate(model, rows, 6))


def test_sampling_and_beams_name_what_is_wrong() -> None:
    model = gpt()
    assert models.beam_search(model, np.zeros((0, 3), int), 4) == []
    with pytest.raises(TypeError, match="beam_search: early_stopping must be True or False, got 'never'"):
        models.beam_search(model, [1], 4, early_stopping="never")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beam_search: length_penalty must be finite, got inf"):
        models.beam_search(model, [1], 4, length_penalty=math.inf)
    for options, message in (
        ({"top_k": 5}, "temperature must be above 0 with top_k or top_p, which are for draws, got temperature=0.0, "),
        ({"top_p": 0.5}, "temperature must be above 0 with top_k or top_p, which are for draws, got temperature=0.0, "),
        ({"temperature": -1}, "temperature must be at least 0 and finite, got -1"),
        ({"temperature": math.inf}, "temperature must be at least 0 and finite, got inf"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, "top_p must be in (0, 1], got 0.0"),
        ({"repetition_penalty": 0}, "repetition_penalty must be above 0 and finite, got 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"generate: {message}")):
            models.generate(model, [1], 4, **options)
    with pytest.raises(TypeError, match=r"generate: rng must be a lamella\.Generator or None, got 3"):
        models.generate(model, [1], 4, rng=3)  # type: ignore[arg-type]
    for options, message in (
        ({"num_beams": 0}, "num_beams must be at least 1, got 0"),
        ({"num_beams": 2, "num_return": 3}, "num_return must be at most num_beams, got num_return=3, num_beams=2"),
    ):
        with pytest.raises(ValueError, match=re.escape(f"beam_search: {message}")):
            models.beam_search(model, [1], 4, **options)
