"""Benchmarks side by side with PyTorch: what is judged, what is reported, and that both sides run."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella.backend import Device, backend_for
from lamella.benchmarks import (
    bench_adam,
    bench_add_layer_norm,
    bench_attention,
    bench_batch_norm,
    bench_conv2d,
    bench_cross_entropy,
    bench_dropout,
    bench_embedding,
    bench_gelu,
    bench_group_norm,
    bench_layer_norm,
    bench_linear_cross_entropy,
    bench_log_softmax,
    bench_matmul,
    bench_max_pool,
    bench_mlp,
    bench_rms_norm,
    bench_softmax,
    contest,
    on_device,
    record,
    suite,
    timer,
)
from lamella.benchmarks.case import Case, chunks, relative_error

from .fake_torch import FakeTorch

SMALL = [
    *bench_softmax.cases(3, 40),
    *bench_log_softmax.cases(3, 10),
    *bench_layer_norm.cases(70, 32),
    *bench_rms_norm.cases(3, 16),
    *bench_group_norm.cases(2, 64, 3, 3),
    *bench_gelu.cases("GELU", bench_gelu.GELU, 2, 50),
    *bench_gelu.cases("ReLU", bench_gelu.RELU, 2, 50),
    *bench_cross_entropy.cases(70, 9),
    bench_linear_cross_entropy.case(7, 5, 9),
    *bench_embedding.cases(7, 5, 4),
    *bench_batch_norm.cases(3, 4, 2, 2),
    *bench_max_pool.cases(2, 3, 4),
    *bench_add_layer_norm.cases(5, 8),
    *bench_dropout.cases(50, 40),
    bench_matmul.case((3, 4), (4, 5)),
    bench_matmul.case((2, 3, 4), (2, 4, 5)),
    bench_adam.case("small", [(3, 5), (7,)]),
    *bench_attention.cases(1, 2, 9, 4, causal=False),
    *bench_attention.cases(1, 2, 9, 4, causal=True),
    *bench_conv2d.cases(2, 3, 4, 5, kernel=3, stride=2),
    bench_mlp.case((4, 5, 3), 6, 1e-3, classes=True),
    bench_mlp.case((4, 5, 1), 6, 1e-3, classes=False),
]


HERE = [case for case in SMALL if not suite.missing(case)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds, by the clock: the simulator has no events."""
    monkeypatch.setattr(timer, "ROUNDS", (2, 2))
    monkeypatch.setattr(timer, "timer", lambda backend: time.perf_counter)
    monkeypatch.setattr(timer, "flush", lambda backend, device: lambda: None)


def measure(case: Case, device: Device, torch: Any, dtype: str = "float32") -> tuple[list[Any], list[Any]]:
    return contest.measure(case, dtype, backend_for(device), device, torch, lambda name: name not in contest.ON_CUDA)


@pytest.mark.parametrize("case", HERE, ids=str)
def test_every_contender_of_every_operation_gives_the_right_answer(case: Case, device: Device, quick: None) -> None:
    torch = FakeTorch()
    results, failures = measure(case, device, torch)
    assert failures == []
    names = [result["library"] for result in results]
    assert names[0] == "lamella"
    assert names[-1] == "torch compile"
    assert set(names) == {name for name in case.contenders if name not in {"numpy", *contest.ON_CUDA}} | {names[-1]}
    for result in results:
        assert len(result["samples"]) == 2
        assert 0 <= result["error"] <= result["bound"]
    assert "compile" in torch.calls
    assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_numbers_are_judged_as_they_are_rounded(dtype: str, quick: None) -> None:
    for case in (*bench_softmax.cases(3, 40), bench_matmul.case((3, 4), (4, 5))):
        results, failures = measure(case, lamella.device("cpu"), None, dtype)
        assert failures == []
        assert results[0]["bytes"] == case.values * 2


def test_the_numpy_contender_is_the_definition() -> None:
    for case in SMALL:
        if "numpy" in case.contenders:
            numbers = case.numbers(np.random.default_rng(1))
            run = case.contenders["numpy"](*numbers)
            assert case.error(tuple(r for _ in range(case.steps) for r in run()), numbers) <= case.allowed("float32")


# -- a case of its own, whose contenders can be made wrong ------------------------------------------------------------
def twice(error: float = 0.0, torch_error: float = 0.0, torch_raises: str = "") -> Case:
    """y = 2 x, by a lamella and a PyTorch that are wrong by as much."""

    def torch_contender(torch: Any, wrap: Any, x: Any) -> Any:
        if torch_raises:
            raise RuntimeError(torch_raises)
        timed = wrap(lambda x: 2 * x.inner.data + np.float32(torch_error))
        return lambda: (timed(x),)

    return Case(
        name="twice",
        suite="kernels",
        numbers=lambda rng: (np.linspace(-1, 1, 101, dtype=np.float32),),
        contenders={"lamella": lambda x: lambda: (2 * x + np.float32(error),), "torch": torch_contender},
        error=lambda results, inputs: relative_error(results[0].astype(np.float64), 2 * inputs[0]),
        values=202,
    )


CPU = lamella.device("cpu")


@pytest.mark.parametrize("error", [1.0, math.nan, 1e-4])
def test_a_wrong_answer_has_no_time(error: float, quick: None) -> None:
    results, (failure,) = measure(twice(error), CPU, None)
    assert results == []
    assert failure["name"] == "twice float32 lamella"
    assert "no time is given" in failure["message"]


def test_lamella_may_be_twice_as_wrong_as_torch_and_no_more(quick: None) -> None:
    for error, right in ((1.9e-6, True), (2.2e-6, False)):
        results, failures = measure(twice(2 * error, torch_error=2e-6), CPU, FakeTorch())
        assert ("lamella" in {result["library"] for result in results}) == right
        assert bool(failures) != right
    results, _ = measure(twice(5e-7, torch_error=0.0), CPU, FakeTorch())  # some roundings where torch makes no error
    assert "lamella" in {result["library"] for result in results}


def test_a_torch_that_is_wrong_allows_nothing(quick: None) -> None:
    results, failures = measure(twice(0.5, torch_error=1.0), CPU, FakeTorch())
    assert results == []
    assert len(failures) == 3


def test_a_compiler_that_fails_is_an_error_in_the_record(quick: None) -> None:
    results, (failure,) = measure(twice(), CPU, FakeTorch("no triton"))
    assert [result["library"] for result in results] == ["lamella", "torch"]
    assert failure["name"] == "twice float32 torch compile"
    assert failure["message"].startswith("RuntimeError: no triton (")


def test_forced_attention_backends_are_asked_for(quick: None) -> None:
    torch = FakeTorch()
    measure(bench_attention.cases(1, 1, 4, 4, causal=True)[0], CPU, torch)
    assert {"FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"} <= set(torch.calls)


def test_contenders_take_turns(quick: None) -> None:
    said: list[str] = []
    contest.take_turns({"a": lambda: said.append("a"), "b": lambda: said.append("b")}, backend_for(CPU), CPU)
    assert said == ["a"] * contest.WARM_UP + ["b"] * contest.WARM_UP + ["a", "b"] * 2


# -- the command ------------------------------------------------------------------------------------------------------
def test_a_bundle_leaves_a_report_that_makes_a_record(tmp_path: Path, quick: None) -> None:
    report = tmp_path / "report.json"
    on_device.main([str(report), "softmax", "0", "--device", "cpu", "--filter", "32×10"])
    found = json.loads(report.read_text(encoding="utf-8"))
    assert [result["name"] for result in found["results"]] == ["softmax f 32×10", "softmax f+b 32×10"]
    whole = {
        "schema": record.SCHEMA,
        "date": "2026-01-31T12:00:00+00:00",
        "commit": "abc",
        "part": "bench",
        "machine": {"system": "Linux", "cores": 2, "device": "none"},
        "versions": {},
        "checks": {},
        **found,
    }
    assert record.complaints(whole) == []


def test_bundles_hold_all_work_once() -> None:
    for kind in ("cpu", "cuda"):
        held: list[tuple[str, str]] = []
        for bundle in on_device.bundles(kind)[1:]:
            stem, first = bundle.split()
            work = on_device.work_of(stem, kind)[int(first) : int(first) + on_device.BUNDLE]
            held += [(case.name, dtype) for case, dtype in work]
        assert len(held) == len(set(held))
        every = {(case.name, dtype) for case in suite.select(kinds=(kind,)) for dtype in case.dtypes}
        assert set(held) == every


# -- the judge --------------------------------------------------------------------------------------------------------
def test_relative_error_lets_no_nan_pass() -> None:
    assert relative_error(np.float64([1, 2]), np.float64([1, 4])) == 0.5
    assert math.isnan(relative_error(np.float64([math.nan, 2]), np.float64([1, 2])))
    with pytest.raises(ValueError, match=r"the answer has shape \(1,\), expected \(2,\)"):
        relative_error(np.float64([1]), np.float64([1, 2]))


def test_rows_are_judged_from_first_to_last() -> None:
    (some,) = chunks(np.zeros((1000, 3)), all_rows=False)
    assert some[0] == 0
    assert some[-1] == 999
    assert len(some) == 64
    every = np.concatenate([np.arange(1000)[rows] for rows in chunks(np.zeros((1000, 5000)), all_rows=True)])
    assert every.tolist() == list(range(1000))


@pytest.mark.parametrize("case", [case for case in HERE if "dropout" not in case.name], ids=str)
def test_every_judge_notices_a_wrong_result(case: Case) -> None:
    numbers = case.numbers(np.random.default_rng(0))
    run = case.contenders["lamella"](*(array.copy() for array in numbers))
    results = [np.array(r, np.float64) for _ in range(case.steps) for r in run()]
    assert case.error(tuple(results), numbers) <= case.allowed("float32")
    for i, result in enumerate(results):
        worse = [*results]
        worse[i] = result + 1e-3 * (np.abs(result).max() + 1e-30)
        assert not case.error(tuple(worse), numbers) <= case.allowed("float32"), f"result {i}"


def test_dropout_is_judged_by_its_two_values_and_its_share() -> None:
    x, dy = (np.random.default_rng(0).standard_normal((100, 100)) for _ in range(2))
    kept = np.random.default_rng(1).random((100, 100)) >= bench_dropout.P
    y, dx = x * kept / (1 - bench_dropout.P), dy * kept / (1 - bench_dropout.P)
    assert bench_dropout.error((y, dx), (x, dy)) <= 1e-12
    assert math.isnan(bench_dropout.error((x / (1 - bench_dropout.P),), (x, dy)))  # nothing dropped
    assert bench_dropout.error((x * kept,), (x, dy)) > 0.01  # not scaled
    assert bench_dropout.error((y, dy / (1 - bench_dropout.P)), (x, dy)) > 0.1  # the gradient of what was dropped
