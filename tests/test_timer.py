"""The benchmarks' timer on a device that answers before its work is done, and the record's rules."""

from __future__ import annotations

import copy
import json
import queue
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lamella.backend import Backend, Device
from lamella.benchmarks import record, timer

WORK = 2e-3  # seconds


class AsynchronousDevice(Backend):
    """A stream as a thread: what is asked of it returns at once and happens later, in order. Events as CuPy's."""

    name = "asynchronous"
    runs_cuda = True

    def __init__(self) -> None:
        self._stream: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        self.done: list[str] = []
        stream = self._stream

        class Event:
            def __init__(self) -> None:
                self._passed, self.moment = threading.Event(), 0.0

            def record(self) -> None:
                stream.put(self._pass)

            def _pass(self) -> None:
                self.moment = time.perf_counter()
                self._passed.set()

            def synchronize(self) -> None:
                assert self._passed.wait(10)

        self.xp = SimpleNamespace(
            cuda=SimpleNamespace(
                Event=Event,
                get_elapsed_time=lambda start, end: (end.moment - start.moment) * 1e3,
                Device=lambda index: SimpleNamespace(attributes={"L2CacheSize": 1 << 10}),
            )
        )

    def _work(self) -> None:
        while (task := self._stream.get()) is not None:
            task()

    def close(self) -> None:
        self._stream.put(None)
        self._thread.join()

    def launch(self, what: str, seconds: float) -> None:
        def work() -> None:
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:  # sleep would oversleep
                time.sleep(0)
            self.done.append(what)

        self._stream.put(work)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Any:
        return SimpleNamespace(fill=lambda value: self.launch(f"flush {shape[0]}", 5e-4))

    def to_numpy(self, array: Any) -> Any:
        return array


@pytest.fixture
def stream() -> Iterator[AsynchronousDevice]:
    backend = AsynchronousDevice()
    yield backend
    backend.close()


def samples(benchmark: Any) -> list[float]:
    return benchmark.stats.stats.data


def run(stream: AsynchronousDevice, benchmark: Any, error: float = 0.0) -> None:
    timer.measure(benchmark, stream, Device("asynchronous"), lambda: stream.launch("work", WORK), error, bound=1e-6)


@pytest.fixture
def benchmark_with_stamps(request: pytest.FixtureRequest, stream: AsynchronousDevice, monkeypatch: Any) -> Any:
    monkeypatch.setattr(timer, "SECONDS", 0.2)
    request.node.add_marker(pytest.mark.benchmark(timer=timer.timer(stream)))
    benchmark = request.getfixturevalue("benchmark")
    if benchmark.disabled:
        pytest.skip("pytest-benchmark is switched off: --benchmark-disable, or several workers")
    return benchmark


def test_work_that_returns_at_once_is_timed_to_its_end(stream: AsynchronousDevice, benchmark_with_stamps: Any) -> None:
    seconds = []
    for _ in range(5):  # the quickest: a busy machine may take the processor away in between
        start = time.perf_counter()
        stream.launch("work", WORK)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) <= WORK / 4  # the stand-in is asynchronous
    run(stream, benchmark_with_stamps)
    undisturbed = statistics.quantiles(samples(benchmark_with_stamps), n=10)[0]  # a busy machine takes longer
    assert abs(undisturbed - WORK) <= 0.05 * WORK
    assert benchmark_with_stamps.extra_info == {"device": "asynchronous", "error": 0.0, "bound": 1e-6}


def test_the_cache_is_flushed_before_every_round(stream: AsynchronousDevice, benchmark_with_stamps: Any) -> None:
    run(stream, benchmark_with_stamps)
    rounds = len(samples(benchmark_with_stamps)) + 3  # and the warm-up
    assert stream.done[1:] == [f"flush {1 << 30}", "work"] * rounds  # after the estimate


def test_a_wrong_answer_has_no_time(stream: AsynchronousDevice, benchmark_with_stamps: Any) -> None:
    with pytest.raises(AssertionError, match="wrong by 1, allowed is 1e-06: no time is given"):
        run(stream, benchmark_with_stamps, error=1.0)
    with pytest.raises(AssertionError, match="wrong by nan"):
        run(stream, benchmark_with_stamps, error=float("nan"))
    assert stream.done == []
    assert benchmark_with_stamps.stats is None
    benchmark_with_stamps.pedantic(lambda: None)  # pytest-benchmark warns of a fixture without use


# -- the record ------------------------------------------------------------------------------------------------------
RECORD: dict[str, Any] = {
    "schema": 1,
    "date": "2026-01-31T12:00:00+00:00",
    "commit": "abc",
    "part": "bench",
    "machine": {"system": "Linux", "cores": 2, "device": "a GPU", "memory_bytes": 1 << 30},
    "versions": {"python": "3.12.1"},
    "ceilings": {"copy": {"value": 3e12, "unit": "B/s", "samples": [1e-3, 1.1e-3]}},
    "results": [
        {"name": "softmax", "library": "lamella", "device": "cuda:0", "samples": [1e-3], "error": 1e-7, "bound": 1e-6}
    ],
    "checks": {"tests": {"verdict": "passed", "passed": 3, "failed": 0, "skipped": 1}},
    "failures": [],
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The record with one field set, or left out where value is None."""
    result = copy.deepcopy(RECORD)
    *folders, name = [int(word) if word.isdecimal() else word for word in path.split(".")]
    place: Any = result
    for folder in folders:
        place = place[folder]
    if value is None:
        del place[name]
    else:
        place[name] = value
    return result


def test_a_record_is_written_and_read_back(tmp_path: Path) -> None:
    record.write(tmp_path / "r.json", RECORD)
    assert json.loads((tmp_path / "r.json").read_text()) == RECORD


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("machine.device", None, "record.machine.device: is missing"),
        ("machine.nickname", "x", "record.machine.nickname: no such field"),
        ("machine.cores", "2", "record.machine.cores: must be int, got str '2'"),
        ("machine.cores", True, "record.machine.cores: must be int, got bool True"),
        ("schema", 2, "record.schema: must be 1, got 2"),
        ("results", {}, "record.results: must be a list, got dict"),
        ("results.0.samples", [], "record.results[0].samples: must be one or more positive seconds, got []"),
        ("results.0.samples", [0.0], "record.results[0].samples: must be one or more positive seconds, got [0.0]"),
        ("results.0.samples", None, "record.results[0].samples: is missing"),
        ("results.0.error", 1.0, "record.results[0].error: must be at most bound=1e-06, got 1.0"),
        ("results.0.error", float("nan"), "record.results[0].error: must be at most bound=1e-06, got nan"),
        ("ceilings.copy.samples", [], "record.ceilings.copy.samples: must be one or more positive seconds, got []"),
        ("checks.tests.passed", None, "record.checks.tests.passed: is missing"),
    ],
)
def test_what_is_no_record_is_not_written(path: str, value: Any, complaint: str, tmp_path: Path) -> None:
    assert record.complaints(changed(path, value)) == [complaint]
    with pytest.raises(ValueError, match="would be no record"):
        record.write(tmp_path / "r.json", changed(path, value))
    assert not list(tmp_path.iterdir())


def test_benchmarks_without_a_checked_answer_are_no_results() -> None:
    checked = {"name": "a", "stats": {"data": [1.0]}, "extra_info": {"device": "cpu", "error": 0.0, "bound": 1e-6}}
    unchecked = {"name": "b", "stats": {"data": [1.0]}, "extra_info": {}}
    assert [one["name"] for one in record.results_of({"benchmarks": [checked, unchecked]})] == ["a"]
