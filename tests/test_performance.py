"""docs/performance.md is what the records say, and the records are records."""

from __future__ import annotations

from typing import Any

import pytest

from lamella.benchmarks import performance, record


def test_the_document_is_written_from_the_records() -> None:
    written = performance.document(performance.saved(), performance.targets_of_suite())
    assert performance.DOCUMENT.read_text(encoding="utf-8") == written, "python -m lamella.benchmarks.performance"


def test_every_target_has_its_case() -> None:
    targets = performance.targets_of_suite()
    assert set(targets.values()) == set(performance.MUST)
    assert len(targets) == len(performance.MUST)


def result(library: str, seconds: float, peak: int = 0) -> dict[str, Any]:
    return {
        "name": "GELU f 4096×4096", "library": library, "device": "cpu", "dtype": "float32",
        "samples": [seconds] * 3, "error": 0.0, "bound": 1e-6, "bytes": 1 << 20, "operations": 0, "threads": 1,
        "clock": "CPU", **({"peak_bytes": peak} if peak else {}),
    }  # fmt: skip


def made_up(part: str, *results: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": record.SCHEMA,
        "date": "2026-01-31T12:00:00+00:00",
        "commit": "abc",
        "part": part,
        "machine": {"system": "Linux", "cores": 2, "device": "none", "processor": "abacus"},
        "versions": {"NumPy": "2"},
        "ceilings": {
            "cpu copy": {"value": 1e10, "unit": "B/s", "samples": [1.0]},
            "cpu gemm float32": {"value": 1e11, "unit": "FLOP/s", "samples": [1.0]},
        },
        "results": list(results),
        "checks": {},
        "failures": [{"name": "a", "message": "no\n| x"}],
    }


@pytest.mark.parametrize(
    ("seconds", "peak", "row"),
    [
        (0.5, 80, "| W6 GELU f | 500 ms | 0.50 | 0.8 | 1.00 |  | 0.80 | 0.85 |"),
        (0.9, 90, "| W6 GELU f | 900 ms | **0.90** | 0.8 | 1.80 |  | **0.90** | 0.85 |"),
    ],
)
def test_what_is_not_reached_stands_in_bold(seconds: float, peak: int, row: str) -> None:
    ours, theirs = result("lamella", seconds, peak), result("torch", 1.0, 100)
    text = performance.document(
        [made_up("bench targets", ours, theirs, result("torch fused", 0.5))], performance.targets_of_suite()
    )
    assert row in text
    assert "## abacus, 2026-01-31: bench targets" in text
    assert "1 thread, CPU time." in text
    assert "- a: no / x" in text


def test_other_records_show_ceilings_and_rivals() -> None:
    found = made_up("bench", result("lamella", 1e-3), result("torch", 2e-3), result("torch compile", 1e-3))
    text = performance.document([found], {})
    assert "| operation | device | lamella | rate | of ceiling | ÷ torch | ÷ torch compile |" in text
    assert "| GELU f 4096×4096 | cpu | 1.00 ms | 1.05 GB/s | 10% | 0.50 | 1.00 |" in text


def test_without_records_it_says_so() -> None:
    assert "There is no record yet." in performance.document([], {})
