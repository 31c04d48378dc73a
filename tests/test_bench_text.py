"""The benchmarks of text models judge what they time."""

from __future__ import annotations

import numpy as np
import pytest

from lamella.benchmarks import bench_text
from lamella.benchmarks.case import Case


@pytest.mark.slow
@pytest.mark.parametrize("case", bench_text.CASES, ids=str)
def test_the_answer_is_right_and_a_wrong_one_is_noticed(case: Case) -> None:
    numbers = case.numbers(np.random.default_rng(0))
    run = case.contenders["lamella"](*numbers)
    results = run()
    assert case.error(results, numbers) <= case.allowed("float32")
    wrong = [np.array(r, copy=True) for r in results]
    wrong[-1] = wrong[-1] * np.float32(1.01)
    assert not case.error(tuple(wrong), numbers) <= case.allowed("float32")


@pytest.mark.slow
def test_the_steps_that_are_timed_drop_and_learn() -> None:
    numbers = bench_text.SPELLER.numbers(np.random.default_rng(0))
    one, other = (bench_text.SPELLER.contenders["lamella"](*numbers) for _ in range(2))
    first, again = one(), other()
    np.testing.assert_array_equal(np.array(first), np.array(again))
    second, third = np.array(one()), np.array(other())
    assert (second != third).any()  # random masks
    for _ in range(6):
        last = one()
    assert np.mean(last) < np.mean(first)
