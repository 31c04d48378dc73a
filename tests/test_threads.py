"""Parallel regions on the CPU: every item once, and the process as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import lamella
from lamella.backend import cpu_kernel, get_num_threads, parallel, set_num_threads, threads


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(3)
    yield
    set_num_threads(before)


def settings() -> tuple[object, ...]:
    threads._pool.blas = threads._pool.blas or threads._Blas()
    return threads._pool.blas.get(), np.getbufsize(), tuple(np.geterr().items())


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 7, 100, 1001])
@pytest.mark.parametrize("grain", [0, 1, 3, 50, 10_000])
def test_parts_cover_the_range_exactly_once(length: int, grain: int) -> None:
    parts = []
    parallel(lambda start, stop: parts.append((start, stop)), length, grain)
    assert sorted(i for start, stop in parts for i in range(start, stop)) == list(range(length))
    assert len(parts) <= 3
    assert len(parts) == 1 or min(stop - start for start, stop in parts) >= grain


@pytest.mark.usefixtures("three_threads")
def test_parts_run_on_threads_of_their_own_at_once() -> None:
    meeting = threading.Barrier(3, timeout=20)  # broken unless all three are inside together
    names = []

    def work(start: int, stop: int) -> None:
        meeting.wait()
        names.append(threading.current_thread().name)

    parallel(work, 3)
    assert len(names) == 3
    assert names.count("lamella-worker") == 2


def test_one_thread_starts_no_helper() -> None:
    code = (
        "import threading, numpy as np, lamella\n"
        "from lamella.backend import parallel, backend_for\n"
        "lamella.set_num_threads(1)\n"
        "parallel(lambda a, b: None, 1000)\n"
        "x = np.ones((300, 300), 'float32')\n"
        "backend_for('cpu').gemm(x, x)\n"
        "print(threading.active_count())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_exception_arrives_after_every_part_has_ended(failing: int) -> None:
    ended = []

    def work(start: int, stop: int) -> None:
        if start == failing:
            raise KeyError(f"part {failing}")
        time.sleep(0.02)
        ended.append(start)

    before = settings()
    with pytest.raises(KeyError, match=f"part {failing}"):
        parallel(work, 3)
    assert len(ended) == 2
    assert settings() == before
    done = []
    parallel(lambda start, stop: done.append(stop - start), 3)  # the workers live on
    assert sum(done) == 3


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where a shell started this process in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
@pytest.mark.usefixtures("three_threads", "interruptible")
def test_after_an_interruption_no_part_writes_and_later_regions_are_whole() -> None:
    main_ended, ended = threading.Event(), []

    def work(start: int, stop: int) -> None:
        if start:
            main_ended.wait(10)
            time.sleep(0.05)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # Ctrl-C while it waits for the others
            time.sleep(0.1)
            ended.append(start)
        else:
            main_ended.set()

    with pytest.raises(KeyboardInterrupt):
        parallel(work, 3)
    assert len(ended) == 2
    for _ in range(50):
        values = np.zeros(300)

        def fill(start: int, stop: int, values: np.ndarray = values) -> None:
            time.sleep(0.0005)
            values[start:stop] += 1

        parallel(fill, 300)
        assert (values == 1).all()


@pytest.mark.usefixtures("three_threads")
def test_a_region_inside_a_region_runs_in_its_own_thread() -> None:
    values = np.zeros((3, 5), np.int64)

    def inner(row: int) -> None:
        here = threading.get_ident()

        def add(start: int, stop: int) -> None:
            assert threading.get_ident() == here
            values[row, start:stop] += 1

        parallel(add, 5)

    parallel(lambda start, stop: [inner(row) for row in range(start, stop)], 3)
    assert (values == 1).all()


@pytest.mark.usefixtures("three_threads")
def test_two_python_threads_at_once_both_get_whole_results() -> None:
    wrong = []
    before = settings()

    def run(number: int) -> None:
        for _ in range(60):
            values = np.zeros(1000)

            def add(start: int, stop: int, values: np.ndarray = values) -> None:
                values[start:stop] += number

            parallel(add, 1000)
            if not (values == number).all():
                wrong.append(number)

    users = [threading.Thread(target=run, args=(i,)) for i in (1, 2, 3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert wrong == []
    assert settings() == before


def test_settings_are_other_inside_a_kernel_and_restored_after(three_threads: None) -> None:
    before = settings()
    with np.errstate(over="raise"), np.errstate(divide="warn"):
        outside = settings()
        with cpu_kernel():
            with cpu_kernel():
                pass
            inside = settings()
            np.float32(1e38) * np.float32(10)  # quiet, and so is NaN that flows through
        assert settings() == outside
        with pytest.raises(ZeroDivisionError), cpu_kernel():
            raise ZeroDivisionError
        assert settings() == outside
    assert inside[0] == 1
    assert inside[1] == 512
    assert set(dict(inside[2]).values()) == {"ignore"}
    assert settings() == before


@pytest.mark.usefixtures("three_threads")
def test_floating_point_warnings_stay_quiet_in_every_part() -> None:
    values = np.zeros(30, np.float32)
    parallel(lambda start, stop: np.divide(1, values[start:stop], out=values[start:stop]), 30)
    assert np.isinf(values).all()


def test_blas_threads_are_really_set() -> None:
    blas = threads._Blas()
    before = blas.get()
    if before == 1:
        blas.set(2)
        changed, inside = blas.get(), None
        if changed == 1:
            pytest.skip("this BLAS has no thread setting, or one thread only")
    with cpu_kernel():
        inside = blas.get()
    after = blas.get()
    blas.set(before)
    assert inside == 1
    assert after == (before if before != 1 else changed)


def test_large_products_are_split_and_right(three_threads: None) -> None:
    rng = np.random.default_rng(0)
    for rows, inner, columns in [(333, 65, 77), (65, 130, 333), (2, 1 << 14, 64), (1, 1 << 20, 1), (129, 129, 129)]:
        a = rng.standard_normal((rows, inner), np.float32)
        b = rng.standard_normal((columns, inner), np.float32).T  # not contiguous
        expected = a.astype("float64") @ b.astype("float64")
        bound = 1e-6 * np.abs(a.astype("float64")) @ np.abs(b.astype("float64"))
        found = lamella.backend.backend_for("cpu").gemm(a, b)
        assert found.dtype == np.float32
        assert (np.abs(found - expected) <= bound).all()
        out = np.empty((rows, columns), np.float32)
        assert lamella.backend.backend_for("cpu").gemm(a, b, out) is out
        assert np.array_equal(out, found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_helpers_of_its_own() -> None:
    code = """
import os, sys, numpy as np, lamella
from lamella.backend import parallel
lamella.set_num_threads(2)
def total():
    values = np.zeros(1000)
    def add(start, stop):
        values[start:stop] += 1
    parallel(add, 1000)
    return values.sum()
assert total() == 1000
if child := os.fork():
    _, status = os.waitpid(child, 0)
    assert total() == 1000
    sys.exit(os.waitstatus_to_exitcode(status))
os._exit(0 if total() == 1000 else 3)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("count", "kind", "message"),
    [
        (0, ValueError, "count must be at least 1, got 0"),
        (-2, ValueError, "count must be at least 1, got -2"),
        (1.5, TypeError, "count must be an int, got 1.5"),
        (True, TypeError, "count must be an int, got True"),
        ("2", TypeError, "count must be an int, got '2'"),
    ],
)
def test_bad_thread_counts_are_refused(count: object, kind: type[Exception], message: str) -> None:
    before = get_num_threads()
    with pytest.raises(kind, match=message):
        set_num_threads(count)
    assert get_num_threads() == before


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"OMP_NUM_THREADS": "3"}, 3),
        ({"OPENBLAS_NUM_THREADS": "5"}, 5),
        ({"OMP_NUM_THREADS": "0", "OPENBLAS_NUM_THREADS": "x"}, None),
    ],
)
def test_thread_count_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: int | None
) -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert threads._default_threads() == (expected or len(os.sched_getaffinity(0)))
