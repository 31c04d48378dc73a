"""`make gpu` must not say that a GPU was tested where none was."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

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


def test_without_a_device_it_says_so_and_fails(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, COMMAND, "--out", tmp_path / "out"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # hides the device of a machine that has one
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("make gpu: no CUDA device answers here: ")
    assert not (tmp_path / "out").exists()


def test_report_counts_what_pytest_did(gpu: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(TESTS)
    junit = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", "test_x.py"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    report = gpu.read_junit(junit)
    assert report["counts"] == {"passed": 1, "failed": 1, "error": 0, "skipped": 1}
    assert "assert 1 == 2" in report["tests"][1]["message"]
    assert gpu.verdict(report["counts"]) == "failed"


@pytest.mark.parametrize(
    ("counts", "verdict"),
    [
        ({"passed": 3, "failed": 0, "error": 0, "skipped": 9}, "passed"),
        ({"passed": 3, "failed": 0, "error": 1, "skipped": 0}, "failed"),
        ({"passed": 0, "failed": 0, "error": 0, "skipped": 9}, "nothing ran"),
        ({"passed": 0, "failed": 0, "error": 0, "skipped": 0}, "nothing ran"),
    ],
)
def test_skips_alone_are_no_pass(gpu: ModuleType, counts: dict[str, int], verdict: str) -> None:
    assert gpu.verdict(counts) == verdict
