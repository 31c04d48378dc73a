"""The measurements as one page that needs nothing else: tables, rooflines, and times over sizes, drawn as SVG."""

from __future__ import annotations

import math
import re
from html import escape
from typing import Any

from . import suite, table
from .compare import Change, quartiles, ratio_by_rounds

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--faint:#68707a;--line:#d5d9de;
--a:#0b62b8;--b:#c2410c;--c:#15803d}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--paper:#16191d;--faint:#9aa2ab;--line:#3a4048;--a:#6db3ff;--b:#ff9a5c;--c:#6fd08c}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.6rem;margin-bottom:0}h2{font-size:1.2rem;margin-top:2.2rem}h3{font-size:1rem;margin:1rem 0 .2rem}
p.note{color:var(--faint);font-size:.9rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child,td.left{text-align:left}
table.plain td{white-space:normal;text-align:left}
th{font-weight:600;color:var(--faint)}
svg{max-width:100%;height:auto;display:block}
svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg .faint{fill:var(--faint)}svg .grid{stroke:var(--line)}
svg .a{stroke:var(--a)}svg .b{stroke:var(--b)}svg .c{stroke:var(--c)}
svg circle.a{fill:var(--a);stroke:none}svg circle.b{fill:var(--b);stroke:none}svg circle.c{fill:var(--c);stroke:none}
svg .curve{fill:none;stroke-width:2}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));gap:1rem}
.failed{color:var(--b)}
"""


class Plot:
    """A drawing with logarithmic axes.

    Args:
        x, y: the least and greatest values.
        size: in pixels.
        x_label, y_label: what is drawn, with its unit.
    """

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int], x_label: str, y_label: str
    ) -> None:
        self._x, self._y = (tuple(map(math.log10, _wider(*limits))) for limits in (x, y))
        self._size = size
        self._left, self._right, self._top, self._bottom = 66, 12, 12, 44
        self._labels = x_label, y_label
        self.parts: list[str] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point lies, in pixels."""
        width, height = self._size
        across = (math.log10(x) - self._x[0]) / (self._x[1] - self._x[0])
        up = (math.log10(y) - self._y[0]) / (self._y[1] - self._y[0])
        return (
            self._left + across * (width - self._left - self._right),
            height - self._bottom - up * (height - self._top - self._bottom),
        )

    def line(self, points: list[tuple[float, float]], kind: str) -> None:
        """A curve through points."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (self.at(*point) for point in points))
        self.parts.append(f'<polyline class="curve {kind}" points="{path}"/>')

    def dot(self, x: float, y: float, kind: str, title: str, number: str = "", left: bool = False) -> None:
        """A point, with what it is as its title, and a number on its right or left side."""
        across, down = self.at(x, y)
        self.parts.append(
            f'<circle class="{kind}" cx="{across:.1f}" cy="{down:.1f}" r="4"><title>{escape(title)}</title></circle>'
        )
        if number:
            place = f'x="{across - 7:.1f}" text-anchor="end"' if left else f'x="{across + 7:.1f}"'
            self.parts.append(f'<text {place} y="{down + 4:.1f}">{escape(number)}</text>')

    def text(self, x: float, y: float, words: str, anchor: str = "end", below: bool = False) -> None:
        """Words above a point, or below it."""
        across, down = self.at(x, y)
        down += 24 if below else 0
        self.parts.append(
            f'<text class="faint" x="{across:.1f}" y="{down - 6:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
        )

    def svg(self, title: str, x_unit: Any, y_unit: Any) -> str:
        """The drawing; ``x_unit`` and ``y_unit`` spell a value at a grid line."""
        width, height = self._size
        grid = []
        for value in _decades(*self._x):
            across, _ = self.at(value, 10 ** self._y[0])
            bottom = height - self._bottom
            grid.append(f'<line class="grid" x1="{across:.1f}" x2="{across:.1f}" y1="{self._top}" y2="{bottom}"/>'
                        f'<text class="faint" x="{across:.1f}" y="{bottom + 16}" text-anchor="middle">'
                        f'{escape(x_unit(value))}</text>')  # fmt: skip
        for value in _decades(*self._y):
            _, down = self.at(10 ** self._x[0], value)
            grid.append(f'<line class="grid" x1="{self._left}" x2="{width - self._right}" y1="{down:.1f}" '
                        f'y2="{down:.1f}"/><text class="faint" x="{self._left - 6}" y="{down + 4:.1f}" '
                        f'text-anchor="end">{escape(y_unit(value))}</text>')  # fmt: skip
        middle = self._left + (width - self._left - self._right) / 2
        labels = (f'<text x="{middle:.0f}" y="{height - 8}" text-anchor="middle">{escape(self._labels[0])}</text>'
                  f'<text transform="rotate(-90 14 {height / 2:.0f})" x="14" y="{height / 2:.0f}" '
                  f'text-anchor="middle">{escape(self._labels[1])}</text>')  # fmt: skip
        return (f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
                f'aria-label="{escape(title)}">{"".join(grid)}{"".join(self.parts)}{labels}</svg>')  # fmt: skip


def _wider(low: float, high: float) -> tuple[float, float]:
    return low / 1.6, high * 1.6


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten within logarithmic limits, every second or third where there are many."""
    powers = list(range(math.ceil(low), math.floor(high) + 1))
    return [10.0**power for power in powers[:: -(-len(powers) // 7) or 1]]


def roofline(results: list[dict[str, Any]], ceilings: table.Ceilings, device: str, numbers: dict[Any, int]) -> str:
    """Each operation of one device below what memory and products allow."""
    copy, gemm = ceilings.of(device, "copy"), ceilings.of(device, "gemm float32")
    points = []
    for result in results:
        if result["device"] != device or result["library"] != "lamella" or not result["bytes"]:
            continue
        width = {"float32": 4, "tf32": 4, "float64": 8}.get(result["dtype"], 2)
        operations = max(result["operations"], result["bytes"] // width)
        rate = operations / quartiles(result["samples"])[1]
        points.append((operations / result["bytes"], rate, result))
    if not points or not copy or not gemm:
        return ""
    ridge = gemm / copy
    left = min(0.2, *(x for x, _, _ in points))
    right = max(4 * ridge, *(x for x, _, _ in points))
    top = max(gemm, *(y for _, y, _ in points))
    plot = Plot((left, right), (min(y for _, y, _ in points), top), (900, 420),
                "operations for each byte that has to be moved", "operations in a second")  # fmt: skip
    plot.line([(left, left * copy), (ridge, gemm), (right, gemm)], "c")
    plot.text(right, gemm, f"products {table.rate(gemm, 'FLOP/s')}")
    middle = math.sqrt(left * ridge)
    plot.text(middle, middle * copy, f"   copy {table.rate(copy, 'B/s')}", "start", below=True)
    for i, (x, y, result) in enumerate(sorted(points, key=lambda point: point[:2])):
        key = (result["name"], result["dtype"])
        median = quartiles(result["samples"])[1]
        share = ceilings.least_seconds(result)[0] / median
        title = f"{table.label(*key)}: {table.seconds(median)}, {share:.0%} of the ceiling"
        plot.dot(x, y, "a", title, str(numbers[key]), left=i % 2 == 1)
    return plot.svg(f"roofline of {device}", lambda value: f"{value:g}", power)


def power(value: float) -> str:
    """A power of ten at a grid line: ``10 G``."""
    return re.sub(r"\.0+(?= )", "", table.rate(value, "")).strip()


def curves(results: list[dict[str, Any]], rival: str, families: dict[str, tuple[str, int]]) -> str:
    """Times over sizes, of operations that were measured at three sizes or more; where lines cross, one overtakes."""
    found: dict[str, dict[tuple[str, str], list[tuple[float, float]]]] = {}
    for result in results:
        family, size = families.get(result["name"], ("", 0))
        kind = result["device"].partition(":")[0]
        if family and size and result["dtype"] == "float32" and result["library"] in {"lamella", rival}:
            point = (float(size), quartiles(result["samples"])[1])
            found.setdefault(family, {}).setdefault((result["library"], kind), []).append(point)
    drawings = []
    classes = {("lamella", "cpu"): "a", ("lamella", "cuda"): "c", (rival, "cpu"): "b", (rival, "cuda"): "b"}
    for family, lines in found.items():
        if not any(len({x for x, _ in points}) >= 3 for points in lines.values()):
            continue
        every = [point for points in lines.values() for point in points]
        plot = Plot((min(x for x, _ in every), max(x for x, _ in every)),
                    (min(y for _, y in every), max(y for _, y in every)), (420, 270), "elements", "time")  # fmt: skip
        for key, points in lines.items():
            points = sorted(points)
            plot.line(points, classes.get(key, "b"))
            for x, y in points:
                plot.dot(x, y, classes.get(key, "b"), f"{key[0]} on {key[1]}, {x:,.0f} elements: {table.seconds(y)}")
        drawing = plot.svg(f"{family} over sizes", power, lambda v: re.sub(r"\.0+(?= )", "", table.seconds(v)))
        drawings.append(f"<div><h3>{escape(family)}</h3>{drawing}</div>")
    if not drawings:
        return ""
    kinds = sorted({kind for lines in found.values() for kind in lines})
    colours = {"a": "blue", "b": "orange", "c": "green"}
    said = ", ".join(f"{colours[classes.get(kind, 'b')]} {kind[0]} on {kind[1]}" for kind in kinds)
    return (f'<h2>Times over sizes</h2><p class="note">{escape(said)}. Where two lines cross, one overtakes the other.'
            f'</p><div class="curves">{"".join(drawings)}</div>')  # fmt: skip


def families_of_suite() -> dict[str, tuple[str, int]]:
    """What each case of the suite has in common with others, and its size."""
    return {case.name: (case.family, case.size) for stem in suite.stems() for case in suite.cases_of(stem)}


def page(
    found: dict[str, Any],
    rival: str = "",
    changes: dict[Any, Change] | None = None,
    families: dict[str, tuple[str, int]] | None = None,
) -> str:
    """The page of a record, as HTML.

    Args:
        found: the record.
        rival: whose ratio is shown, or nothing.
        changes: by (name, dtype), against a saved run.
        families: of each case, what it has in common with others, and its size; by default those of the suite.
    """
    families = families_of_suite() if families is None else families
    ceilings, results, changes = table.Ceilings(found["ceilings"]), found["results"], changes or {}
    rows = table.rows_of(results)
    numbers = {key: i for i, key in enumerate(rows, start=1)}
    where = found["machine"]
    work = {(one["threads"], one["clock"]) for one in results if "threads" in one}
    threads = ", ".join(f"{count}, {clock} time on the CPU" for count, clock in sorted(work))
    facts = {
        "machine": f"{where.get('processor', where['system'])}, {where['cores']} cores",
        "GPU": where["device"],
        "system": where["system"],
        "versions": ", ".join(f"{name} {version}" for name, version in found["versions"].items()),
        "commit": found["commit"],
        **({"threads": threads} if threads else {}),
        **where.get("clocks", {}),
        **{name: table.seconds(one["value"]) if one["unit"] == "s" else table.rate(one["value"], one["unit"])
           for name, one in found["ceilings"].items()},
    }  # fmt: skip
    about = "".join(f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in facts.items())
    head = ["operation", "no.", "device", "median", "±", "rate", "of ceiling", "error", "allowed"]
    head += [f"÷ {rival}"] if rival else []
    head += ["change"] if changes else []
    body = []
    for key, row in rows.items():
        for (library, kind), result in row.items():
            if library != "lamella":
                continue
            low, median, high = quartiles(result["samples"])
            least, which = ceilings.least_seconds(result)
            cells = [
                table.label(*key),
                str(numbers[key]),
                result["device"],
                table.seconds(median),
                f"{(high - low) / 2 / median:.0%}",
                table.rate(result["operations"] / median, "FLOP/s") if which == "gemm"
                else table.rate(result["bytes"] / median, "B/s"),
                f"{least / median:.0%}" if least else table.NOTHING,
                f"{result['error']:.0e}",
                f"{result['bound']:.0e}",
            ]  # fmt: skip
            if rival:
                theirs = row.get((rival, kind))
                told = ratio_by_rounds(result["samples"], theirs["samples"]) if theirs else None
                cells.append(table.digits(told) if told else table.NOTHING)
            if changes:
                cells.append(table.change_text(changes.get(key)))
            body.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    drawings = []
    for device in dict.fromkeys(result["device"] for result in results):
        if drawing := roofline(results, ceilings, device, numbers):
            drawings.append(
                f'<h2>Roofline of {escape(device)}</h2><p class="note">The line is what copying and multiplying '
                "matrices reached on this machine in this run; the numbers are those of the table. Where there are no "
                "products, a value that is moved counts as one operation; an algorithm that gets by with fewer "
                f'products than the definition has may lie above.</p><div class="wide">{drawing}</div>'
            )
    failures = "".join(
        f'<p class="failed">{escape(failure["name"])}: {escape(failure["message"])}</p>'
        for failure in found["failures"]
    )
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f"<title>lamella bench, {escape(found['date'])}</title>"
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>lamella bench</h1><p class="note">{escape(found["part"])}, {escape(found["date"])}</p>'
        f'<table class="plain">{about}</table>'
        f'<h2>Times</h2><p class="note">Median of all samples; ± is half the distance of the quartiles. Every answer '
        f'was compared with float64 before its time was taken.</p>{failures}<div class="wide"><table><tr>'
        f"{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{''.join(body)}</table></div>"
        f"{''.join(drawings)}{curves(results, rival, families)}</body></html>\n"
    )
