"""Beam search: the sequences whose probability is greatest, among those whose beginnings were among the best."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..backend import Array, backend_of
from ..kernels import log_softmax
from ..layers import Module
from ..layers.lengths import length
from ..layers.real import real
from .generation import Decoder, end_tokens, host_library, prompts


class Hypothesis(NamedTuple):
    """A sequence that beam search found.

    Attributes:
        tokens: the new tokens, int64 on the host; the last is an ``eos_id`` where the sequence ended.
        score: ``log p(tokens) / len(tokens) ** length_penalty``.
    """

    tokens: Array
    score: float


def beam_search(
    model: Module,
    ids: Any,
    max_new_tokens: int,
    *,
    num_beams: int = 4,
    num_return: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
    eos_id: int | Sequence[int] | None = None,
    memory: Any = None,
    use_cache: bool = True,
) -> list[list[Hypothesis]]:
    """The best sequences of tokens after ``ids`` that a search over ``num_beams`` beginnings at a time finds.

    At each step every beginning is continued by every token, and the best ``num_beams`` that do not end go on; those
    that end, among the best ``num_beams`` of the step, are kept. Wide enough a beam finds what an exhaustive search
    would. Sequences that have not ended at ``max_new_tokens`` count as well.

    Args:
        model, ids, memory, use_cache: as for :func:`generate`.
        max_new_tokens: the longest sequence, at least 1, ``eos_id`` counted.
        num_beams: how many beginnings are followed for each row of ``ids``.
        num_return: how many sequences are returned for each, at most ``num_beams``.
        length_penalty: the exponent of the length by which a logarithm of a probability, which is negative, is divided:
            above 0 favours long sequences, 0 compares probabilities.
        early_stopping: end a row as soon as ``num_beams`` sequences have ended; else only when no beginning can become
            better than these.
        eos_id: a sequence ends with this token, or with one of these; None: at ``max_new_tokens``.
    Returns:
        for each row of ``ids`` (for one where it is one sequence) its sequences, the best first.
    Raises:
        ValueError: an argument is out of its range, or the model has not that many places.
        FloatingPointError: scores are NaN.
    Source: Wu et al. 2016, arXiv 1609.08144, section 7; the exponent as in transformers.
    """
    name = "beam_search"
    prompt, padding, _ = prompts(name, ids)
    steps, width = length(name, "max_new_tokens", max_new_tokens, 1), length(name, "num_beams", num_beams, 1)
    wanted = length(name, "num_return", num_return, 1)
    if wanted > width:
        raise ValueError(f"{name}: num_return must be at most num_beams, got {num_return=}, {num_beams=}")
    penalty = real(name, "length_penalty", length_penalty)
    if not math.isfinite(penalty):
        raise ValueError(f"{name}: length_penalty must be finite, got {penalty}")
    if not isinstance(early_stopping, bool):
        raise TypeError(f"{name}: early_stopping must be True or False, got {early_stopping!r}")
    ends = end_tokens(name, eos_id)
    decoder = Decoder(name, model, prompt, padding, memory, steps, use_cache, ends)
    if not len(prompt):
        return []
    searches = [_Search(width, steps, penalty, early_stopping, ends) for _ in prompt]
    new, beams = prompt, 1  # one beam a row at first: all would be alike
    enough = max(2, 1 + len(set(ends))) * width  # of them width do not end
    for _ in range(steps):
        logp = log_softmax(decoder.scores(new), -1)  # (rows · beams, V)
        values, places = _best(logp.reshape(len(prompt), beams, -1), searches, enough)
        rows, tokens = [], []
        for i, search in enumerate(searches):
            for beam, token in search.advance(values[i], places[i], logp.shape[1]):
                rows.append(i * beams + beam)
                tokens.append(token)
        if all(search.over for search in searches):
            break
        decoder.reorder(rows)
        new, beams = host_library().asarray(tokens, "int64")[:, None], width
    return [search.result(wanted) for search in searches]


class _Search:
    """The search of one row: its beams, and the sequences that have ended."""

    def __init__(self, width: int, steps: int, penalty: float, early: bool, ends: tuple[int, ...]) -> None:
        self.width, self.steps, self.penalty, self.early, self.ends = width, steps, penalty, early, ends
        self.beams: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # log p and tokens, the best first
        self.ended: list[tuple[float, tuple[int, ...]]] = []  # a heap of the best, the worst of them first
        self.over = False

    def advance(self, values: Any, places: Any, vocabulary: int) -> list[tuple[int, int]]:
        """Take the best continuations, given in order: the beam and the token of each that goes on."""
        if self.over:
            return [(0, 0)] * self.width  # computed beside the others, and not looked at
        going: list[tuple[float, tuple[int, ...]]] = []
        chosen: list[tuple[int, int]] = []
        for rank, (total, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
            beam, token = divmod(place, vocabulary)
            if total == -math.inf or len(going) == self.width:
                break
            tokens = (*self.beams[beam][1], token)
            if token in self.ends:
                if rank < self.width:
                    self._keep(total, tokens)
            else:
                going.append((total, tokens))
                chosen.append((beam, token))
        written = len(self.beams[0][1]) + 1
        self.beams = going
        self.over = written == self.steps or not going or (len(self.ended) == self.width and self._settled(written))
        missing = self.width - len(going)
        self.beams += [(-math.inf, ())] * missing  # a small vocabulary has fewer continuations at first
        return chosen + [(0, 0)] * missing

    def _keep(self, total: float, tokens: tuple[int, ...]) -> None:
        heapq.heappush(self.ended, (total / len(tokens) ** self.penalty, tokens))
        if len(self.ended) > self.width:
            heapq.heappop(self.ended)

    def _settled(self, written: int) -> bool:
        """Whether no beam can become better than the worst that has ended: log p only falls."""
        if self.early:
            return True
        kindest = self.steps if self.penalty > 0 else written + 1
        return self.beams[0][0] / kindest**self.penalty <= self.ended[0][0]

    def result(self, wanted: int) -> list[Hypothesis]:
        if self.beams and len(self.beams[0][1]) == self.steps:
            for total, tokens in self.beams:
                if total > -math.inf:
                    self._keep(total, tokens)
        best = sorted(self.ended, reverse=True)[:wanted]
        return [Hypothesis(host_library().asarray(tokens, "int64"), score) for score, tokens in best]


def _best(logp: Array, searches: list[_Search], count: int) -> tuple[Any, Any]:
    """The best ``log p(beam) + log p(token)`` of each row and their places among beams and tokens, in order.

    Of equal ones the first comes first, on every device.
    """
    backend = backend_of(logp)
    xp, (rows, beams, vocabulary) = backend.xp, logp.shape
    before = host_library().asarray([[0.0 if s.over else total for total, _ in s.beams[:beams]] for s in searches])
    totals = logp.astype("float64") + backend.from_numpy(before, backend.device_of(logp))[:, :, None]
    totals = totals.reshape(rows, beams * vocabulary)
    if not bool(xp.isfinite(totals.max(axis=1)).all()):
        raise FloatingPointError("beam_search: the scores are NaN or all -inf")
    count = min(count, beams * vocabulary)
    places = xp.argpartition(-totals, count - 1, axis=1)[:, :count]
    values = xp.take_along_axis(totals, places, axis=1)
    places, values = (backend.to_numpy(a) for a in (places, values))
    order = host_library().lexsort((places, -values), axis=1)
    return tuple(host_library().take_along_axis(a, order, axis=1) for a in (values, places))
