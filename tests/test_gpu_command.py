"""`make gpu` must not say that a GPU was tested where none was."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

COMMAND = Path(__file__).resolve().parents[1] / ".ci/gpu.py"

TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert 1 == 2
@pytest.mark.skip(reason="no device")
def test_left_out(): pass
"""


@pytest.fixture(scope="module")
def gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_command", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("require", "status"), [("", 0), ("0", 0), ("1", 1)])
def test_without_a_device_it_says_so_and_fails_only_where_one_is_required(
    require: str, status: int, tmp_path: Path
) -> None:
    answer = subprocess.run(
        [sys.executable, COMMAND, "--out", tmp_path / "out", "--require", require],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # hides the device of a machine that has one
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == status
    assert answer.stderr.startswith("make gpu: no CUDA device answers here: ")
    assert answer.stderr.endswith("; nothing was run\n")
    assert not (tmp_path / "out").exists()


def test_report_counts_what_pytest_did(gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(TESTS)
    junit = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", "test_x.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    report = gpu.read_junit(junit)
    assert {name: report[name] for name in ("passed", "failed", "skipped")} == {"passed": 1, "failed": 1, "skipped": 1}
    assert [failure["name"] for failure in report["failures"]] == ["test_x::test_bad"]
    assert "assert 1 == 2" in report["failures"][0]["message"]
    assert gpu.verdict(report) == "failed"


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"passed": 3, "failed": 0, "skipped": 9}, "passed"),
        ({"passed": 3, "failed": 1, "skipped": 0}, "failed"),
        ({"passed": 0, "failed": 0, "skipped": 9}, "nothing ran"),
        ({"passed": 0, "failed": 0, "skipped": 0}, "nothing ran"),
    ],
)
def test_skips_alone_are_no_pass(gpu: ModuleType, counts: dict[str, int], verdict: str) -> None:
    assert gpu.verdict(counts) == verdict


# -- parts, with a machine and work that are made up -----------------------------------------------------------------
MACHINE: dict[str, Any] = {
    "commit": "abc",
    "machine": {"system": "Linux", "cores": 2, "device": "a GPU"},
    "versions": {"python": "3.12.0"},
}
PASSED = {"verdict": "passed", "passed": 2, "failed": 0, "skipped": 1, "failures": []}
FAILED = {"verdict": "failed", "passed": 2, "failed": 1, "skipped": 0, "failures": [{"name": "t", "message": "no"}]}
SKIPPED = {"verdict": "nothing ran", "passed": 0, "failed": 0, "skipped": 3, "failures": []}


@pytest.fixture
def worked(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A part of three items, a clock that each moves by five minutes, and the names of those that were done."""
    names: list[str] = []

    def do(part: str, item: str, python: str, out: Path, seconds: float) -> dict[str, Any]:
        names.append(item)
        return PASSED

    monkeypatch.setattr(gpu, "do", do)
    monkeypatch.setattr(gpu, "items", lambda part, python: ["a", "b", "c"])
    monkeypatch.setattr(gpu.time, "monotonic", lambda: 300.0 * len(names))
    return names


def test_a_part_ends_in_time_and_goes_on_where_it_ended(gpu: ModuleType, worked: list[str], tmp_path: Path) -> None:
    assert gpu.run_part("tests", "python", MACHINE, tmp_path) == gpu.UNFINISHED
    assert worked == ["a", "b"]
    assert [file.name for file in tmp_path.iterdir()] == ["progress-tests.json"]
    assert gpu.run_part("tests", "python", MACHINE, tmp_path) == 0
    assert worked == ["a", "b", "c"]
    (file,) = tmp_path.iterdir()
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["machine"] == MACHINE["machine"]
    assert written["checks"] == {item: {k: v for k, v in PASSED.items() if k != "failures"} for item in "abc"}


def test_changed_files_are_seen(gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / ".venv/lib").mkdir(parents=True)
    file = tmp_path / "kernels/softmax.cu"
    file.write_text("one", encoding="utf-8")
    before = gpu.sources(tmp_path)
    (tmp_path / ".venv/lib/other.py").write_text("not ours", encoding="utf-8")
    assert gpu.sources(tmp_path) == before
    file.write_text("two", encoding="utf-8")
    assert gpu.sources(tmp_path) != before


def test_changed_files_begin_anew_where_the_commit_is_the_same(
    gpu: ModuleType, worked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for said in ("one", "two"):
        monkeypatch.setattr(gpu, "sources", lambda said=said: said)
        gpu.run_part("tests", "python", MACHINE, tmp_path)
    assert worked == ["a", "b", "a", "b"]


@pytest.mark.parametrize("other", [{"commit": "def"}, {"machine": {**MACHINE["machine"], "device": "another"}}])
def test_another_commit_or_device_begins_anew(
    other: dict[str, Any], gpu: ModuleType, worked: list[str], tmp_path: Path
) -> None:
    gpu.run_part("tests", "python", MACHINE, tmp_path)
    gpu.run_part("tests", "python", MACHINE | other, tmp_path)
    assert worked == ["a", "b", "a", "b"]


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([PASSED, SKIPPED, PASSED], 0),
        ([PASSED, FAILED, PASSED], 1),
        ([SKIPPED, SKIPPED, SKIPPED], 1),
        ([PASSED, {**PASSED, "verdict": "failed"}, PASSED], 1),
    ],
)
def test_a_part_passes_when_something_ran_and_nothing_failed(
    outcomes: list[dict[str, Any]], status: int, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = iter(outcomes)
    monkeypatch.setattr(gpu, "items", lambda part, python: ["a", "b", "c"])
    monkeypatch.setattr(gpu, "do", lambda *arguments: next(left))
    assert gpu.run_part("conformance", "python", MACHINE, tmp_path) == status
    assert len(list(tmp_path.glob("gpu-conformance-*.json"))) == 1


@pytest.mark.parametrize(("times", "status"), [(1, 0), (2, 1)])
@pytest.mark.parametrize("slow", ["a", "b"])
def test_an_item_that_did_not_end_is_done_once_more(
    slow: str, times: int, status: int, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    began: list[str] = []

    def do(part: str, item: str, python: str, out: Path, seconds: float) -> dict[str, Any]:
        began.append(item)
        return {**FAILED, "cut_off": True} if item == slow and began.count(slow) <= times else PASSED

    monkeypatch.setattr(gpu, "do", do)
    monkeypatch.setattr(gpu, "items", lambda part, python: ["a", "b"])
    assert gpu.run_part("tests", "python", MACHINE, tmp_path) == gpu.UNFINISHED
    assert gpu.run_part("tests", "python", MACHINE, tmp_path) == status
    assert began == sorted(["a", "b", slow])


def test_an_environment_on_top_of_another_finds_the_wheels_of_nvidia(gpu: ModuleType, tmp_path: Path) -> None:
    packages, own = tmp_path / "packages", Path(f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    for folder in (packages / "nvidia/cu13", tmp_path / "environment" / own):
        folder.mkdir(parents=True)
    gpu.see_packages(tmp_path / "environment", packages)
    assert (tmp_path / "environment" / own / "beneath.pth").read_text(encoding="utf-8").split() == [str(packages)]
    assert (tmp_path / "environment" / own / "nvidia/cu13").is_dir()


def test_parts_name_what_exists(gpu: ModuleType) -> None:
    tests, laws = " ".join(gpu.items("tests")).split(), gpu.items("conformance")
    assert "tests/test_softmax.py" in tests
    assert "tests/test_layers.py" in laws
    assert not set(tests) & set(laws)
    assert "memcheck tests/test_softmax.py" in gpu.items("sanitizer")
    for name in {*tests, *laws, *(item.split()[1] for item in gpu.items("sanitizer"))}:
        assert (gpu.ROOT / name).is_file()


def test_benchmarks_come_in_bundles_that_name_what_exists(gpu: ModuleType) -> None:
    bundles = [item.split() for item in gpu.items("bench")]
    assert bundles[0] == ["ceilings", "0"]
    assert ["softmax", "0"] in bundles
    assert ["softmax", "4"] in bundles
    for stem, _ in bundles[1:]:
        assert (gpu.ROOT / f"benchmarks/bench_{stem}.py").is_file()


RESULT = {"name": "a", "library": "lamella", "device": "cuda:0", "samples": [1e-3], "error": 0.0, "bound": 1e-6}


@pytest.mark.parametrize(
    ("status", "who", "verdict", "failures"),
    [
        (0, "", "passed", 0),
        (0, "a float32 torch compile", "passed", 1),
        (0, "a float32 lamella", "failed", 1),
        (None, "", "failed", 1),
        (1, "a float32 torch", "failed", 2),
    ],
)
def test_a_rival_that_fails_is_written_down_and_what_was_measured_is_kept(
    status: int | None, who: str, verdict: str, failures: int, gpu: ModuleType, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    failed = [{"name": who, "message": "no"}] if who else []
    report.write_text(json.dumps({"ceilings": {}, "results": [RESULT], "failures": failed}))
    found = gpu.measured("softmax 0", status, report)
    assert found["verdict"] == verdict
    assert found["results"] == [RESULT]
    assert len(found["failures"]) == failures
    written = gpu.part_record("bench", MACHINE, {"softmax 0": found}, gpu.datetime.datetime.now(gpu.datetime.UTC))
    assert gpu.record.complaints(written) == []


def test_a_bundle_that_leaves_no_report_has_failed(gpu: ModuleType, tmp_path: Path) -> None:
    found = gpu.measured("softmax 0", 1, tmp_path / "nothing.json")
    assert found["verdict"] == "failed"
    assert found["failures"] == [{"name": "softmax 0", "message": "exit status 1"}]


def test_an_item_that_does_not_end_is_a_failure(gpu: ModuleType) -> None:
    forever = [sys.executable, "-c", "import time; time.sleep(60)"]
    assert gpu.run_pytest(forever, [], "a", 0.2)["failures"] == [{"name": "a", "message": "not finished after 0 s"}]


def test_an_item_without_a_report_is_a_failure(gpu: ModuleType) -> None:
    found = gpu.run_pytest([sys.executable, "-c", "raise SystemExit(7)"], [], "a", 60)
    assert found["failures"] == [{"name": "a", "message": "no report, exit status 7"}]
    assert found["verdict"] == "failed"
