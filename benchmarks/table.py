"""The measurements as a person reads them: two tables of at most 80 columns, a unit at every figure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .compare import Change, quartiles, ratio_by_rounds, spread

WIDTH = 80
NAME = 28
_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
NOTHING = "–"


def seconds(value: float) -> str:
    """``1.23 ms``: three digits and a unit."""
    factor, unit = next(((f, u) for f, u in _UNITS if value >= f * 0.9995), _UNITS[-1])
    return f"{digits(value / factor)} {unit}"


def digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def rate(value: float, unit: str) -> str:
    """``12.3 GB/s``."""
    factor, prefix = next(((f, p) for f, p in _PREFIXES if value >= f * 0.9995), _PREFIXES[-1])
    return f"{digits(value / factor)} {prefix}{unit}"


def count_of_bytes(value: float) -> str:
    """``12.3 MiB``."""
    for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= factor:
            return f"{digits(value / factor)} {unit}"
    return f"{value:.0f} B"


def change_text(change: Change | None) -> str:
    """``+25% slower``; the size of a change that is not decided is not told."""
    if change is None:
        return NOTHING
    if change.verdict == "undecided":
        return "undecided"
    return f"{change.ratio:+.0%} {change.verdict}"


class Ceilings:
    """What the devices can do, from a record."""

    def __init__(self, found: dict[str, dict[str, Any]]) -> None:
        self._found = found

    def of(self, device: str, what: str) -> float:
        """A ceiling's value, or 0 where it was not measured."""
        return float(self._found.get(f"{device} {what}", {"value": 0.0})["value"])

    def least_seconds(self, result: dict[str, Any]) -> tuple[float, str]:
        """The time below which the work cannot be done, and whether ``"copy"`` or ``"gemm"`` decides it."""
        device, dtype = result["device"], result.get("dtype", "float32")
        copy, gemm = self.of(device, "copy"), self.of(device, f"gemm {dtype}")
        if not copy or not gemm:
            return 0.0, "gemm" if result["operations"] else "copy"
        by_bytes = result["bytes"] / copy
        by_products = result["operations"] / gemm
        return (by_products, "gemm") if by_products > by_bytes else (by_bytes, "copy")


def label(name: str, dtype: str) -> str:
    """The work's name with its dtype, where that is not float32, in at most NAME letters."""
    short = {"float32": "", "bfloat16": "bf16", "float16": "f16", "float64": "f64", "tf32": "tf32"}[dtype]
    return f"{name} {short}".strip() if len(name) + len(short) < NAME else f"{name[: NAME - len(short) - 2]}… {short}"


def rows_of(results: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]]:
    """Results by (name, dtype), then by (library, kind of device)."""
    found: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    for result in results:
        if result["samples"]:
            kind = result["device"].partition(":")[0]
            found.setdefault((result["name"], result.get("dtype", "float32")), {})[result["library"], kind] = result
    return found


def times(results: list[dict[str, Any]], rival: str, gpu: bool, changes: dict[Any, Change]) -> list[str]:
    """Times with their spread (half the distance of the quartiles), the ratio to the rival, the change.

    Args:
        results: of a record.
        rival: whose time ours is divided by, or nothing.
        gpu: whether there is a GPU; without one its columns are left out, the lines below the table say why.
        changes: by (name, dtype), of lamella on the GPU where there is one, else on the CPU.
    """
    head = f"{'operation':<{NAME}}{'CPU time':>9}{'±':>4}{'GPU time':>9}"
    if gpu:
        head += f"{'±':>4}{'GPU ×':>6}"
    if rival:
        head += f"{'÷' + rival:>7}"
    head += f"{'change':>13}" if changes else ""
    lines = [head, "─" * len(head)]
    for (name, dtype), row in rows_of(results).items():
        cpu, cuda = row.get(("lamella", "cpu")), row.get(("lamella", "cuda"))
        if cpu is None and cuda is None:
            continue
        line = f"{label(name, dtype):<{NAME}}" + _time(cpu)
        if gpu:
            line += _time(cuda)
            both = cpu and cuda and quartiles(cpu["samples"])[1] / quartiles(cuda["samples"])[1]
            line += f"{f'{both:.3g}×' if both else NOTHING:>6}"
        else:
            line += f"{'none':>9}"
        if rival:
            kind = "cuda" if cuda else "cpu"
            ours, theirs = row.get(("lamella", kind)), row.get((rival, kind))
            told = digits(ratio_by_rounds(ours["samples"], theirs["samples"])) if ours and theirs else NOTHING
            line += f"{told:>7}"
        line += f"{change_text(changes.get((name, dtype))):>13}" if changes else ""
        lines.append(line.rstrip())
    return lines


def _time(result: dict[str, Any] | None) -> str:
    if result is None:
        return f"{NOTHING:>9}{'':>4}"
    return f"{seconds(quartiles(result['samples'])[1]):>9}{min(spread(result['samples']), 0.99):>4.0%}"


def rates(results: list[dict[str, Any]], ceilings: Ceilings) -> list[str]:
    """What was moved or computed in a second, the share of the ceiling, the error of the answer and its bound."""
    head = f"{'operation':<{NAME}}{'device':>8}{'rate':>13}{'of ceiling':>11}{'error':>9}{'allowed':>9}"
    lines = [head, "─" * len(head)]
    for (name, dtype), row in rows_of(results).items():
        for (library, _), result in row.items():
            if library != "lamella":
                continue
            least, which = ceilings.least_seconds(result)
            median = quartiles(result["samples"])[1]
            told = rate(result["operations"] / median, "FLOP/s") if which == "gemm" else rate(
                result["bytes"] / median, "B/s"
            )  # fmt: skip
            share = f"{least / median:.0%}" if least else NOTHING
            lines.append(
                f"{label(name, dtype):<{NAME}}{result['device']:>8}{told:>13}{share:>11}"
                f"{result['error']:>9.0e}{result['bound']:>9.0e}"
            )
    return lines


def memory(results: list[dict[str, Any]], rival: str) -> list[str]:
    """Peak memory above the imports, of both, where each worked in a process of its own."""
    head = f"{'operation':<{NAME}}{'lamella':>12}{rival:>12}{'ratio':>8}"
    lines = [head, "─" * len(head)]
    for (name, dtype), row in rows_of(results).items():
        ours, theirs = row.get(("lamella", "cpu"), {}), row.get((rival, "cpu"), {})
        if ours.get("peak_bytes") and theirs.get("peak_bytes"):
            a, b = ours["peak_bytes"], theirs["peak_bytes"]
            lines.append(f"{label(name, dtype):<{NAME}}{count_of_bytes(a):>12}{count_of_bytes(b):>12}{a / b:>8.2f}")
    return lines if len(lines) > 2 else []
