"""The figures in the page of examples on images are those of the record."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "examples" / "images-20261121.json"
TURN = 5  # steps, as in beside_pytorch.py


def ratio(ours: list[float], theirs: list[float]) -> float:
    turns = range(0, len(ours), TURN)
    return statistics.median(sum(ours[i : i + TURN]) / sum(theirs[i : i + TURN]) for i in turns)


def row(run: dict) -> str:
    """A run as the page's table has it."""
    ours, theirs, last = (run["libraries"][name] for name in ("lamella", "torch", "torch channels-last"))
    cells = [
        run["model"],
        f"{run['examples']:,}",
        str(run["epochs"]),
        f"{ours['accuracy']:.2%}",
        f"{theirs['accuracy']:.2%}",
        f"{ratio(ours['seconds'], theirs['seconds']):.2f}",
        f"{ratio(ours['seconds'], last['seconds']):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def trained_row(model: str, one: dict) -> str:
    return f"| {model} | {one['epochs']} | {one['accuracy']:.2%} | {one['cpu_seconds'] / 60:.1f} | {one['threads']} |"


def test_the_page_has_a_row_for_every_run_of_the_record() -> None:
    page = (ROOT / "examples" / "images" / "README.md").read_text(encoding="utf-8")
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert {run["model"] for run in record["runs"]} == {"convnet", "resnet", "digits"}
    for run in record["runs"]:
        assert row(run) in page
        assert run["machine"]["processor"]
        assert min(len(one["seconds"]) for one in run["libraries"].values()) >= 50
    assert set(record["trained"]) == {"convnet", "resnet"}
    for model, one in record["trained"].items():
        assert trained_row(model, one) in page
