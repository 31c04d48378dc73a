"""`lamella bench`: what it prints, what it refuses, its exit status, and what it calls slower."""

from __future__ import annotations

import io
import json
import os
import random
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
from lamella.backend import get_num_threads
from lamella.benchmarks import (
    bench_softmax,
    ceilings,
    command,
    compare,
    crossover,
    machine,
    page,
    record,
    runner,
    suite,
    table,
    worker,
)
from lamella.benchmarks.case import Case, relative_error
from lamella.benchmarks.library import Apart, LibraryError
from lamella.cli import main

WITHOUT_TIMES = ["--device", "cpu", "--threads", "1", "--seconds", "0.01"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of a test is anybody's last run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(ceilings, "CPU_COPY", 1 << 20)
    monkeypatch.setattr(ceilings, "CPU_SIZE", 64)


class Slowed:
    """A case whose work and answer a test decides."""

    def __init__(self) -> None:
        self.seconds, self.error = 1e-3, 0.0

    def case(self) -> Case:
        def lamella_contender(x: Any) -> Any:
            def run() -> tuple[Any, ...]:
                end = time.process_time() + self.seconds
                while time.process_time() < end:
                    pass
                return (2 * x + np.float32(self.error),)

            return run

        return Case(
            name="twice",
            suite="kernels",
            numbers=lambda rng: (np.linspace(-1, 1, 101, dtype=np.float32),),
            contenders={"lamella": lamella_contender},
            error=lambda results, inputs: relative_error(results[0].astype(np.float64), 2 * inputs[0]),
            values=202,
        )


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> Slowed:
    """The only case that there is."""
    found = Slowed()
    monkeypatch.setattr(command, "select", lambda *arguments: [found.case()])
    return found


# -- the command ------------------------------------------------------------------------------------------------------
def test_a_run_says_where_how_fast_and_how_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    threads = get_num_threads()
    file, html = tmp_path / "r.json", tmp_path / "r.html"
    words = ["bench", *WITHOUT_TIMES, "--filter", "softmax 32×10", "--json", str(file), "--html", str(html)]
    assert main(words) == command.OK
    out = capsys.readouterr().out
    assert all(len(line) <= table.WIDTH for line in out.splitlines() if str(tmp_path) not in line)
    for word in ("machine", "versions", "threads", "copy in memory", "GFLOP/s", "GB/s", "softmax f+b 32×10", "µs"):
        assert word in out
    assert get_num_threads() == threads
    found = json.loads(file.read_text(encoding="utf-8"))
    assert record.complaints(found) == []
    assert {result["name"] for result in found["results"]} >= {"softmax f 32×10", "softmax f+b 32×10"}
    assert all(result["clock"] == "CPU" and len(result["samples"]) >= 10 for result in found["results"])
    assert command.last_file().exists()
    check_page(html.read_text(encoding="utf-8"))


def test_without_a_gpu_its_column_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    if lamella.backend.why_unavailable("cuda") is None:
        pytest.skip("there is a GPU here")
    assert main(["bench", "--threads", "1", "--seconds", "0.01", "--filter", "softmax f 32"]) == command.OK
    out = capsys.readouterr().out
    assert re.search(r"softmax f 32×10 .* none$", out, re.MULTILINE)
    assert "No time on cuda:0: no CUDA device can be used" in out
    assert main(["bench", "--device", "cuda"]) == command.USAGE
    assert "no device answers: cuda:0: " in capsys.readouterr().err


def test_a_wrong_answer_has_no_time_and_status_3(slowed: Slowed, capsys: pytest.CaptureFixture[str]) -> None:
    slowed.error = 1.0
    assert main(["bench", *WITHOUT_TIMES]) == command.WRONG
    out = capsys.readouterr().out
    assert "FAILED twice float32 lamella on cpu: the answer is wrong by 0.5" in out
    assert not re.search(r"^twice ", out, re.MULTILINE)
    slowed.error = float("nan")
    assert main(["bench", *WITHOUT_TIMES]) == command.WRONG


def test_a_slowed_copy_is_a_regression_with_status_1(slowed: Slowed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    slowed.seconds *= (
        4  # its time does not follow the machine's, as the yardstick's does, which may be twice as fast now
    )
    assert main(["bench", *WITHOUT_TIMES, "--compare", "last"]) == command.REGRESSION
    assert re.search(r"^twice .*\+\d+% slower$", capsys.readouterr().out, re.MULTILINE)
    slowed.seconds /= 16
    assert main(["bench", *WITHOUT_TIMES, "--compare", "last"]) == command.OK
    assert re.search(r"^twice .*-\d+% faster$", capsys.readouterr().out, re.MULTILINE)


def test_a_moment_of_slowness_is_measured_again_and_no_regression(slowed: Slowed) -> None:
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    saved = command.read_saved("last")
    for result in saved["results"]:
        del result["yardstick"]
        result["samples"] = [1e-3 * (1 + i / 100) for i in range(10)]
    measuring = runner.Runner(command.devices_of("cpu")[0], 1, seconds=0.01)
    measuring.run([slowed.case()])
    quick = [result["samples"] for result in measuring.results]
    quick[0][:] = [2e-3] * 3  # as if something else had run
    changes = command.judge(measuring, [slowed.case()], (), saved, {**saved, "results": measuring.results})
    assert changes["twice", "float32"].verdict != "slower"


def test_runs_of_another_machine_are_not_compared(slowed: Slowed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    last = command.last_file()
    saved = json.loads(last.read_text(encoding="utf-8"))
    saved["machine"]["processor"] = "abacus"
    last.write_text(json.dumps(saved), encoding="utf-8")
    slowed.seconds *= 2
    assert main(["bench", *WITHOUT_TIMES, "--compare", str(last)]) == command.OK
    assert "its processor was 'abacus'" in " ".join(capsys.readouterr().out.split())


def test_a_comparison_says_since_which_run_or_why_there_is_none(
    slowed: Slowed, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    last = command.last_file()
    saved = json.loads(last.read_text(encoding="utf-8"))
    capsys.readouterr()

    def said() -> str:
        last.write_text(json.dumps(saved), encoding="utf-8")
        main(["bench", *WITHOUT_TIMES, "--compare", "last"])
        out = capsys.readouterr().out
        assert all(len(line) <= table.WIDTH for line in out.splitlines())
        return " ".join(out.split())

    assert f"Changes since the run of {saved['date']}, commit {saved['commit']}." in said()
    saved["results"][0]["threads"] = 2
    assert "cannot be compared: threads: 2 then, now 1." in said()
    saved["results"][0] |= {"threads": 1, "name": "thrice"}
    assert f"the saved run of {saved['date']} has none of these cases." in said()


def test_what_cannot_be_written_is_said_and_no_regression(
    slowed: Slowed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, html = tmp_path / "r.json", tmp_path / "r.html"

    def full(file: Path, found: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(record, "write", full)
        assert main(["bench", *WITHOUT_TIMES, "--json", str(file), "--html", str(html)]) == command.USAGE
    answer = capsys.readouterr()
    assert "r.json: cannot be written: No space left on device" in answer.err
    assert re.search(r"^twice .* ms", answer.out, re.MULTILINE)
    assert html.exists()
    slowed.error = 1.0
    assert main(["bench", *WITHOUT_TIMES, "--json", str(file)]) == command.WRONG
    assert "Not written, since nothing was measured" in capsys.readouterr().out
    assert not file.exists()


def test_an_interrupted_run_prints_what_is_there(
    slowed: Slowed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Any, *arguments: Any) -> None:
        if self.done >= 0.5:
            raise KeyboardInterrupt
        original(self, *arguments)

    original = runner.Runner._on_cpu
    monkeypatch.setattr(runner.Runner, "_on_cpu", interrupted)
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    out = capsys.readouterr().out
    assert re.search(r"^twice .* ms", out, re.MULTILINE)
    assert "Interrupted" in out
    assert all(len(line) <= table.WIDTH for line in out.splitlines())
    assert not command.last_file().exists()


def test_a_run_interrupted_before_its_first_time_prints_no_empty_table(
    slowed: Slowed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ceilings, "measure", interrupt)
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    out = capsys.readouterr().out
    assert "nothing had been measured" in out
    assert "operation" not in out
    monkeypatch.setattr(command, "Runner", interrupt)  # as while a rival starts
    assert main(["bench", *WITHOUT_TIMES]) == command.OK
    assert capsys.readouterr().out.split() == ["Interrupted."]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--filter", "no such thing"], "has 'no such thing' in its name"),
        (["--device", "tpu"], "must be cpu, cuda or both, got 'tpu'"),
        (["--dtype", "float8"], "--dtype: must be some of float64, float32"),
        (["--compare", "nowhere.json"], "--compare: nowhere.json cannot be read"),
        (["--compare", __file__], "is not JSON"),
        (["--json", "no/such/folder/x.json"], "there is no folder"),
        (["--html", "."], ".: is a folder"),
        (["--device", " ,"], "--device: must be cpu, cuda or both, got ' ,'"),
        (["--dtype", " float64,", "--filter", "GELU"], "--dtype: these cases are measured in float32"),
        (["--seconds", "0"], "must be positive"),
        (["--against", "torch", "--python", "no-such-python"], "no-such-python cannot be started"),
        (["crossover", "--filter", "nothing"], "no operation has 'nothing' in its name"),
        (["crossover", "--against", "numpy"], "crossover has no --against, got 'numpy'"),
    ],
)
def test_wrong_usage_has_status_2_and_says_why(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *WITHOUT_TIMES, *words]) == command.USAGE
    assert message in capsys.readouterr().err


def test_a_saved_run_must_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["bench", "--compare", str(tmp_path / "x.json")]) == command.USAGE
    assert "is no saved run: record." in capsys.readouterr().err
    (tmp_path / "x.json").write_text('{"schema": 99}')
    assert main(["bench", "--compare", str(tmp_path / "x.json")]) == command.USAGE
    assert "is no saved run: record.schema: must be 1, got 99" in capsys.readouterr().err


def test_help_has_a_sentence_for_each_option_and_three_examples() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", "from lamella.cli import main; main(['bench', '--help'])"],
        capture_output=True, text=True, check=True, env={"COLUMNS": "80", "PATH": ""},
    ).stdout  # fmt: skip
    options = re.findall(r"^  (--\w+)", answer, re.MULTILINE)
    assert set(options) >= {
        "--suite", "--device", "--dtype", "--against", "--compare", "--json", "--html", "--filter"
    }  # fmt: skip
    for option in options:
        described = re.split(r"\n  (?=--)", answer)[1 + options.index(option)]
        assert len(described.split()) >= 6, f"{option} has no sentence"
    assert len(re.findall(r"^  lamella bench", answer, re.MULTILINE)) == 3
    assert all(len(line) <= 80 for line in answer.splitlines())


def test_progress_is_for_terminals_only() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, written in ((io.StringIO(), False), (Terminal(), True)):
        progress = command.Progress(stream)
        progress("50 %  softmax " + "x" * 200)
        assert bool(stream.getvalue()) == written
        assert len(stream.getvalue()) <= table.WIDTH
        progress.clear()
    assert stream.getvalue().endswith("\r")


@pytest.mark.slow
def test_pytest_benchmark_runs_the_same_cases(tmp_path: Path) -> None:
    file = tmp_path / "report.json"  # pytest-benchmark measures nothing in a process of several
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks", "-k", "softmax-f-32x10 or tape",
         "--benchmark-max-time=0.01", f"--benchmark-json={file}"],
        cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")},
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout
    found = record.results_of(json.loads(file.read_text(encoding="utf-8")))
    assert sorted(one["name"].partition("[")[0] for one in found) == ["bench_log_softmax", "bench_softmax"]
    assert all(one["error"] <= one["bound"] for one in found)


# -- a rival in a process of its own ----------------------------------------------------------------------------------
def test_numpy_is_measured_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--filter", "MLP 9", "--against", "numpy"]
    assert main(["bench", *WITHOUT_TIMES, *words]) == command.OK
    assert re.search(r"^MLP step 9-16-8-1 .* none +\d", capsys.readouterr().out, re.MULTILINE)


def test_a_rival_sees_the_work_and_nothing_of_lamella() -> None:
    code = (
        "from lamella.benchmarks import worker; worker.without_lamella();\n"
        "import sys\nfor name in list(sys.modules):\n"
        "    if name.startswith('lamella.') and name != 'lamella.benchmarks': del sys.modules[name]\n"
        "import importlib\nfrom lamella.benchmarks import suite\n"
        "print(sum(len(suite.cases_of(stem)) for stem in suite.stems()))\n"
        "print(*sorted(name for name in sys.modules if name.startswith('lamella')))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    count, modules = answer.stdout.splitlines()
    assert int(count) > 50
    assert all(name.startswith(("lamella.benchmarks", "lamella")) for name in modules.split())
    assert "lamella.backend" not in modules.split()


def test_a_library_that_is_missing_is_said() -> None:
    with pytest.raises(LibraryError, match="ModuleNotFoundError: No module named 'no_such_library'"):
        Apart(sys.executable, "no_such_library", 1)


def test_memory_is_told_by_a_process_of_its_own() -> None:
    library = Apart(sys.executable, "numpy", 1)
    try:
        case = bench_softmax.CASES[4]
        results, peak = library.set_up(case, "numpy", "float32")
        assert results[0].shape == (4096, 1000)
        if worker.resident():
            assert peak >= 2 * results[0].nbytes  # the input and the result
            assert peak <= 40 * results[0].nbytes
        assert all(seconds > 0 for seconds in library.sample())
        with pytest.raises(LibraryError, match="KeyError: 'nobody'"):
            library.set_up(case, "nobody", "float32")
        assert min(library.sample()) > 0  # it lives on
    finally:
        library.close()


# -- what two sets of samples allow to say ----------------------------------------------------------------------------
def test_quartiles_that_overlap_decide_nothing() -> None:
    before = [1.0, 1.1, 1.2, 1.3, 1.4]
    assert compare.change(before, [1.2, 1.3, 1.4, 1.5, 1.6]).verdict == "undecided"
    assert compare.change(before, [1.4, 1.5, 1.6, 1.7, 1.8]) == (pytest.approx(1 / 3), "slower")
    assert compare.change(before, [0.5, 0.6, 0.7, 0.8, 0.9]).verdict == "faster"
    assert compare.change([1.0, 1.001, 1.002], [1.01, 1.011, 1.012]).verdict == "same"
    assert compare.change([1.0], [1.0]).verdict == "undecided"
    assert compare.change(before, [1.0, 1.5, 1.6, 1.7, 1.8, 1.9]).verdict == "undecided"  # once it was as quick
    assert compare.change([0.5, 1.5, 1.6, 1.7, 1.8], [0.5, 0.6, 0.7, 0.8]).verdict == "undecided"


def test_a_slow_moment_of_the_whole_machine_is_no_change() -> None:
    before = {"samples": [1.0, 1.1, 1.2], "yardstick": [0.1, 0.11, 0.12]}
    slow = {"samples": [2.0, 2.2, 2.4], "yardstick": [0.2, 0.22, 0.24]}
    assert compare.change_of(before, slow).verdict == "undecided"
    moody = {"samples": before["samples"], "yardstick": slow["yardstick"]}
    assert compare.change_of(before, moody) == (pytest.approx(-0.5), "undecided")  # the yardstick alone decides nothing
    assert compare.change_of(before, {"samples": slow["samples"]}).verdict == "slower"
    assert compare.change_of(before, {**slow, "yardstick": before["yardstick"]}) == (pytest.approx(1), "slower")


def samples_like_a_machine(rng: random.Random, median: float, count: int = 20) -> list[float]:
    """Times with a tail to the right, and now and then a moment of something else."""
    return [median * (1 + rng.gammavariate(2, 0.01) + (rng.random() < 0.05) * rng.random()) for _ in range(count)]


def test_the_same_code_is_called_slower_in_at_most_5_of_100_runs() -> None:
    rng = random.Random(0)
    wrong = sum(
        compare.change(samples_like_a_machine(rng, 1e-3), samples_like_a_machine(rng, 1e-3)).verdict
        in {"slower", "faster"}
        for _ in range(1000)
    )
    assert wrong <= 50


def test_a_tenth_slower_is_found() -> None:
    rng = random.Random(1)
    found = sum(
        compare.change(samples_like_a_machine(rng, 1e-3), samples_like_a_machine(rng, 1.1e-3)).verdict == "slower"
        for _ in range(100)
    )
    assert found >= 95


def test_ratios_are_taken_round_by_round() -> None:
    assert compare.ratio_by_rounds([1.0, 20.0, 3.0], [2.0, 40.0, 6.0]) == 0.5


# -- tables and pages -------------------------------------------------------------------------------------------------
def result(name: str, library: str, device: str, samples: list[float], **more: Any) -> dict[str, Any]:
    return {
        "name": name, "library": library, "device": device, "dtype": "float32", "samples": samples, "error": 1e-7,
        "bound": 1e-6, "bytes": 1 << 20, "operations": 0, **more,
    }  # fmt: skip


RESULTS = [
    result("softmax f 32×10", "lamella", "cpu", [1e-3, 1.1e-3, 1.2e-3]),
    result("softmax f 32×10", "torch", "cpu", [2e-3, 2.2e-3, 2.4e-3]),
    result("softmax f 32×10", "lamella", "cuda:0", [1e-5, 1.1e-5, 1.2e-5]),
    result("softmax f 32×10", "torch", "cuda:0", [1e-5, 1.1e-5, 1.2e-5]),
    result("conv1/2 f+b 64×256→512 56²", "lamella", "cuda:0", [1e-2], dtype="bfloat16", operations=1 << 40),
]
CEILINGS = {
    "cpu copy": {"value": 1e10, "unit": "B/s", "samples": [1.0]},
    "cpu gemm float32": {"value": 1e11, "unit": "FLOP/s", "samples": [1.0]},
    "cuda:0 copy": {"value": 4e12, "unit": "B/s", "samples": [1.0]},
    "cuda:0 gemm float32": {"value": 5e13, "unit": "FLOP/s", "samples": [1.0]},
    "cuda:0 gemm bfloat16": {"value": 8e14, "unit": "FLOP/s", "samples": [1.0]},
}


def test_times_of_both_devices_stand_in_one_row_of_80_columns() -> None:
    changes = {("softmax f 32×10", "float32"): compare.Change(0.25, "slower")}
    lines = table.times(RESULTS, "torch", True, changes)
    assert all(len(line) <= table.WIDTH for line in lines)
    row = lines[2].split()
    assert row == ["softmax", "f", "32×10", "1.10", "ms", "5%", "11.0", "µs", "5%", "100×", "1.00", "+25%", "slower"]
    assert all(len(line) <= table.WIDTH for line in table.times(RESULTS, "torch", False, changes))
    assert "0.50" in table.times([r for r in RESULTS if r["device"] == "cpu"], "torch", False, {})[2]


def test_rates_are_read_against_the_ceiling_that_decides() -> None:
    lines = table.rates(RESULTS, table.Ceilings(CEILINGS))
    assert all(len(line) <= table.WIDTH for line in lines)
    assert lines[2].split()[-6:] == ["cpu", "953", "MB/s", "10%", "1e-07", "1e-06"]
    assert lines[4].split()[-6:] == ["cuda:0", "110", "TFLOP/s", "14%", "1e-07", "1e-06"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.234e-9, "1.23 ns"), (9.999e-7, "1.00 µs"), (1.5e-5, "15.0 µs"), (0.25, "250 ms"), (3, "3.00 s"), (99.97, "100 s")],  # noqa: E501
)  # fmt: skip
def test_seconds_have_three_digits_and_a_unit(value: float, text: str) -> None:
    assert table.seconds(value) == text


def test_memory_is_told_where_both_worked_apart() -> None:
    pair = [{**RESULTS[0], "peak_bytes": 1 << 20}, {**RESULTS[1], "peak_bytes": 4 << 20}]
    assert table.memory(pair, "torch")[2].split()[-5:] == ["1.00", "MiB", "4.00", "MiB", "0.25"]
    assert table.memory(RESULTS, "torch") == []


class Checker(HTMLParser):
    """Every tag is closed, and nothing is loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert tag not in {"script", "link", "img", "iframe"}
        assert not {"src", "href", "xlink:href"} & {name for name, _ in attributes}
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> set[str]:
    assert "url(" not in text
    assert "@import" not in text
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker.seen


def test_a_page_draws_rooflines_and_curves_and_loads_nothing() -> None:
    sizes = [
        result(name, "lamella", device, [seconds])
        for device, factor in (("cpu", 1), ("cuda:0", 0.1))
        for name, seconds in (("a", 1e-4 * factor), ("b", 1e-3 * factor), ("c <&> d", 1e-2 * factor))
    ]
    found = {
        "date": "2026", "part": "bench", "commit": "abc", "versions": {"NumPy": "2"}, "ceilings": CEILINGS,
        "machine": {"system": "Linux", "cores": 2, "device": "none"}, "results": [*RESULTS, *sizes],
        "failures": [{"name": "x <b>", "message": "no"}],
    }  # fmt: skip
    families = {"a": ("family", 1), "b": ("family", 1000), "c <&> d": ("family", 10**6)}
    text = page.page(found, "torch", {("a", "float32"): compare.Change(0.5, "slower")}, families)
    assert {"svg", "polyline", "circle", "table"} <= check_page(text)
    assert text.count("<svg") == 3  # a roofline for each device, and the family's curves
    assert "<h3>family</h3>" in text
    assert "+50% slower" in text
    assert "c &lt;&amp;&gt; d" in text


def test_grid_lines_say_their_powers() -> None:
    assert [page.power(value) for value in (1.0, 10.0, 1e9, 1e11)] == ["1", "10", "1 G", "100 G"]


# -- the size at which the GPU overtakes ------------------------------------------------------------------------------
def points(*seconds: float) -> list[crossover.Point]:
    return [crossover.Point(10**i, value) for i, value in enumerate(seconds, start=1)]


def test_the_crossing_lies_between_the_sizes_around_it() -> None:
    assert crossover.crossing(points(1, 10, 100), points(10, 10.0, 10)) == pytest.approx(100)
    assert crossover.crossing(points(1, 10), points(3.1622776601683795, 3.1622776601683795)) == pytest.approx(10**1.5)
    assert crossover.crossing(points(1, 10), points(0.1, 0.1)) == 0
    assert crossover.crossing(points(1, 2), points(3, 4)) is None
    assert crossover.crossing(points(2, 1, 2), points(1, 2, 1)) == pytest.approx(10**2.5)  # for good, not for once
    assert crossover.crossing(points(1), []) is None


def test_the_crossover_table_has_a_row_for_each_operation() -> None:
    lines = crossover.lines_of({"softmax": {"cpu": points(1, 10, 100), "cuda": points(10, 10, 10)}, "none": {}})
    assert len(lines) == 3
    assert lines[2].endswith("100 elements")
    assert all(len(line) <= table.WIDTH for line in lines)


def test_crossover_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(crossover, "SIZES", (4**5, 4**6, 4**7))
    html = tmp_path / "x.html"
    assert main(["bench", "crossover", *WITHOUT_TIMES, "--filter", "SoftMax", "--html", str(html)]) == command.OK
    out = capsys.readouterr().out
    assert re.search(r"^machine .* cores$", out, re.MULTILINE)
    assert re.search(r"^softmax +1,024 … 16,384 .* no GPU here$", out, re.MULTILINE)
    assert "<h3>softmax</h3>" in html.read_text(encoding="utf-8")


def test_every_operation_has_a_case_of_every_size() -> None:
    for name, build in crossover.OPERATIONS.items():
        names = {build(size).name for size in crossover.SIZES}
        assert len(names) == len(crossover.SIZES), name


# -- the suite --------------------------------------------------------------------------------------------------------
def test_cases_have_names_of_their_own_that_fit_the_table() -> None:
    every = [case for stem in suite.stems() for case in suite.cases_of(stem)]
    names = [(case.name, case.dtypes, case.devices) for case in every]
    assert len(set(names)) == len(names)
    assert max(len(case.name) for case in every) < table.NAME
    assert {case.suite for case in every} == {"kernels", "layers", "models"}
    assert {case.suite for case in every if case.quick} == {"kernels", "layers", "models"}


def test_a_case_that_needs_what_is_not_there_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    every = [case for stem in suite.stems() for case in suite.cases_of(stem)]
    needing = next(case for case in every if case.needs == ("layers.conv2d",))
    assert suite.missing(Case(**{**vars(needing), "needs": ("layers.no_such_layer",)})) == "layers.no_such_layer"
    assert suite.missing(every[0]) == ""


def test_the_machine_has_a_name() -> None:
    assert machine.describe()["processor"]
    assert machine.describe()["cores"] >= 1
    assert machine.commit()
    assert "NumPy" in machine.versions()


@pytest.mark.parametrize("tf32", [False, True], ids=["IEEE products only", "tf32"])
def test_ceilings_are_measured_on_the_simulator_too(tf32: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings.timer, "timer", lambda backend: time.perf_counter)
    monkeypatch.setattr(ceilings.timer, "flush", lambda backend, device: lambda: None)
    with lamella.testing.simulator() as backend:
        backend.multiplies_tf32 = tf32
        found = ceilings.measure(backend, lamella.device("simulator"), seconds=0.001, copied=1 << 12, size=16)
        assert backend.launches["nothing"] >= 500
    assert set(found) == {
        "simulator copy", "simulator call",
        *(f"simulator gemm {dtype}" for dtype in ("float32", *(("tf32",) if tf32 else ()), "bfloat16", "float16")),
    }  # fmt: skip
    assert all(ceiling["value"] > 0 for ceiling in found.values())
