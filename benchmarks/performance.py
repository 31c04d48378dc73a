"""Writes ``docs/performance.md`` from ``benchmarks/results``: ``python -m lamella.benchmarks.performance``.

No figure in that document is typed; a test writes it again and compares.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import record, table
from .compare import quartiles, ratio_by_rounds

ROOT = Path(__file__).resolve().parents[1]
RESULTS, DOCUMENT = ROOT / "benchmarks/results", ROOT / "docs/performance.md"

# The row of the table of targets -> the ratios to PyTorch's default and to its best way that must be reached.
MUST: dict[str, tuple[float, float | None]] = {
    "W1 MLP": (0.25, None),
    "W2 MLP": (0.85, 1.3),
    "W3 LeNet": (1.0, 1.25),
    "W4a ResNet block": (0.95, 1.15),
    "W4b conv f": (0.65, None),
    "W4b conv f+b": (0.75, None),
    "W5 encoder block": (1.1, None),
    "W6 softmax f": (1.6, None),
    "W6 softmax f+b": (1.7, None),
    "W6 layer norm f": (2.5, None),
    "W6 layer norm f+b": (2.3, None),
    "W6 GELU f": (0.8, None),
    "W6 GELU f+b": (0.7, None),
    "W6 cross entropy f": (1.0, None),
    "W6 cross entropy f+b": (0.65, None),
    "W7 attention f": (1.1, None),
    "W7 attention f+b": (1.05, None),
    "W7 causal attention f+b": (0.95, None),
}
MEMORY_MUST = 0.85  # of PyTorch's peak above its imports, in every row

HEAD = """\
# Performance

Written by `python -m lamella.benchmarks.performance` from the records in `benchmarks/results`; no figure is typed.
Every answer was compared with its definition in float64 before its time was taken. How the figures came about, and
how to get your own, says [Working on lamella](../CONTRIBUTING.md#benchmarks).
"""
NOTHING_YET = "\nThere is no record yet.\n"


def document(records: list[dict[str, Any]], targets: dict[str, str]) -> str:
    """The document of some records, newest first.

    Args:
        records: as :mod:`.record` keeps them.
        targets: of each case that is in the table of targets, its row there.
    """
    parts = [HEAD]
    for found in sorted(records, key=lambda one: one["date"], reverse=True):
        parts += [*where(found), *(of_targets(found, targets) if "targets" in found["part"] else of_all(found))]
        if found["failures"]:
            parts += ["", "Not measured:", ""]
            parts += [f"- {one['name']}: {_cell(one['message'])}" for one in found["failures"]]
    return "\n".join(parts).rstrip() + "\n" + (NOTHING_YET if not records else "")


def where(found: dict[str, Any]) -> list[str]:
    """The machine, as a heading and a paragraph."""
    machine = found["machine"]
    device = machine["device"] if machine["device"] != "none" else machine.get("processor", machine["system"])
    threads = {(one["threads"], one["clock"]) for one in found["results"] if "threads" in one}
    said = "".join(f" {count} thread{'s' * (count > 1)}, {clock} time." for count, clock in sorted(threads))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    limits = [
        f"{name} {table.seconds(one['value']) if one['unit'] == 's' else table.rate(one['value'], one['unit'])}"
        for name, one in found["ceilings"].items()
    ]
    load = machine.get("clocks", {}).get("load")
    return [
        "",
        f"## {device}, {found['date'][:10]}: {found['part']}",
        "",
        f"{machine['cores']} cores, {machine['system']}.{said} {versions}. Commit {found['commit']}."
        + (f" Load of the machine when it began: {load}." if load else ""),
        "",
        f"Ceilings in the same run: {'; '.join(limits)}.",
    ]


def of_targets(found: dict[str, Any], targets: dict[str, str]) -> list[str]:
    """Our time over PyTorch's default and over its best way, what must be reached, and the same for memory."""
    lines = [
        "",
        "Time and peak memory over PyTorch's, each library in a process of its own, in turns; lower is better. "
        "In bold: what is not reached.",
        "",
        "| target | lamella | ÷ default | must | ÷ best | must | memory | must |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (name, _), row in table.rows_of(found["results"]).items():
        ours, default = row.get(("lamella", "cpu")), row.get(("torch", "cpu"))
        if ours is None or default is None or not targets.get(name):
            continue
        must, must_best = MUST[targets[name]]
        ratio = ratio_by_rounds(ours["samples"], default["samples"])
        best = max(
            ratio_by_rounds(ours["samples"], one["samples"])
            for (library, _), one in row.items()
            if library.startswith("torch")
        )
        cells = [targets[name], table.seconds(quartiles(ours["samples"])[1]), _judged(ratio, must), f"{must:g}"]
        cells += [_judged(best, must_best), f"{must_best:g}" if must_best else ""]
        if ours.get("peak_bytes") and default.get("peak_bytes"):
            cells += [_judged(ours["peak_bytes"] / default["peak_bytes"], MEMORY_MUST), f"{MEMORY_MUST:g}"]
        else:
            cells += [table.NOTHING, f"{MEMORY_MUST:g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _judged(ratio: float, must: float | None) -> str:
    told = table.digits(ratio)
    return told if must is None or ratio <= must else f"**{told}**"


def of_all(found: dict[str, Any]) -> list[str]:
    """Each operation with its time, its share of the ceiling, and its time over each rival's in the same run."""
    rows = table.rows_of(found["results"])
    rivals = list(dict.fromkeys(library for row in rows.values() for library, _ in row if library != "lamella"))
    ceilings = table.Ceilings(found["ceilings"])
    heads = ["operation", "device", "lamella", "rate", "of ceiling", *(f"÷ {rival}" for rival in rivals)]
    lines = ["", f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for key, row in rows.items():
        for (library, kind), ours in row.items():
            if library != "lamella":
                continue
            least, which = ceilings.least_seconds(ours)
            median = quartiles(ours["samples"])[1]
            amount, unit = (ours["operations"], "FLOP/s") if which == "gemm" else (ours["bytes"], "B/s")
            cells = [
                table.label(*key),
                ours["device"],
                table.seconds(median),
                table.rate(amount / median, unit) if amount else table.NOTHING,
                f"{least / median:.0%}" if least else table.NOTHING,
            ]
            for rival in rivals:
                theirs = row.get((rival, kind))
                told = table.digits(ratio_by_rounds(ours["samples"], theirs["samples"])) if theirs else table.NOTHING
                cells.append(told)
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "/")


def saved() -> list[dict[str, Any]]:
    """The records in ``benchmarks/results``.

    Raises:
        ValueError: a file there is none; says which and why.
    """
    found = []
    for file in sorted(RESULTS.glob("*.json")):
        one = json.loads(file.read_text(encoding="utf-8"))
        if wrong := record.complaints(one):
            raise ValueError(f"{file}: {wrong[0]}")
        found.append(one)
    return found


def targets_of_suite() -> dict[str, str]:
    """The row of the table of targets of each case that is in it."""
    from . import suite

    return {case.name: case.target for stem in suite.stems() for case in suite.cases_of(stem) if case.target}


def main() -> None:
    if not DOCUMENT.parent.is_dir():
        raise SystemExit(f"{DOCUMENT.name} belongs to a checkout of lamella, and there is no folder {DOCUMENT.parent}")
    DOCUMENT.write_text(document(saved(), targets_of_suite()), encoding="utf-8")
    print(DOCUMENT)


if __name__ == "__main__":
    main()
