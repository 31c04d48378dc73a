"""Kernels with one token broken: what every test of a kernel has to notice.

A mutant changes one token of one line: a comparison moved by one or turned, an arithmetic operator or a constant
exchanged, a barrier removed, a mask cut, a maximum turned, a neutral element made ordinary. ``make mutants`` runs each
kernel's tests against them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OPERATORS = {
    " < ": (" <= ", " > "),
    " > ": (" >= ", " < "),
    " <= ": (" < ",),
    " >= ": (" > ",),
    " == ": (" != ",),
    " != ": (" == ",),
    " && ": (" || ",),
    " || ": (" && ",),
    " + ": (" - ",),
    " - ": (" + ",),
    " * ": (" + ",),
    " / ": (" * ",),
    " % ": (" / ",),
    " += ": (" -= ",),
    " -= ": (" += ",),
    " *= ": (" /= ",),
}
_MUTATIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    *((re.escape(operator), others) for operator, others in _OPERATORS.items()),
    (r"\b__sync(threads|warp)\([^;]*\);", ("",)),
    (r"\b0xf{8}u?\b", ("0x7fffffffu",)),
    (r"\bfmaxf\b", ("fminf",)),
    (r"\bfminf\b", ("fmaxf",)),
    (r"-INFINITY\b", ("0.f",)),
    (r"(?<!float )\bkLowest\b", ("0.f",)),
    (r"(?<![\w.])0\.f\b", ("1.f",)),
    (r"(?<![\w.])1\.f\b", ("2.f",)),
)
_INTEGER = re.compile(r"(?<![\w.])\d+(?![\w.])")
_NO_CODE = ("//", "#", "template", "extern")  # at the beginning of a line

# File -> mutated line -> why it computes the same. A line here that a test notices makes `make mutants` fail.
EQUIVALENT: dict[str, dict[str, str]] = {
    "softmax.cu": {
        "constexpr int kBlock = THREADS <= 128 ? 128 : THREADS;": "128 threads are 128 either way",
        "head = wanted <= length ? wanted : length;": "both are the same number there",
        "for (int first = row.lane; first <= row.packs; first += kStep) {": "one more step, no lane has a pack",
        "for (int first = tile.depth; first <= tile.length; first += DEPTH * PACKS) {": "one more step, all beyond",
        "__device__ inline float exponential(float x) { return sizeof(T) != 4 ? expf(x) : __expf(x); }": "one function",
        "if (DEPTH >= 1) {": "one part put together is that part",
    },
}


@dataclass(frozen=True)
class Mutant:
    """One line of a file, changed.

    Args:
        file: the kernel's file.
        number: the line's number, from 1.
        column: where the change begins, from 0.
        line: the mutated line, without its comment.
        before: the line as it stands in the file.
    """

    file: Path
    number: int
    column: int
    line: str
    before: str

    def __str__(self) -> str:
        return f"kernels/{self.file.name}:{self.number}: {self.line.strip() or f'removed: {self.before.strip()}'}"

    @property
    def reason(self) -> str | None:
        """Why this mutant computes the same, where that is known."""
        return EQUIVALENT.get(self.file.name, {}).get(self.line.strip())

    def write(self, folder: Path) -> Path:
        """The broken file in ``folder``, beside copies of the headers that it includes."""
        for header in self.file.parent.glob("*.cuh"):
            (folder / header.name).write_bytes(header.read_bytes())
        lines = self.file.read_text(encoding="utf-8").splitlines()
        lines[self.number - 1] = self.line
        broken = folder / self.file.name
        broken.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return broken


def mutants(file: Path) -> Iterator[Mutant]:
    """Every mutant of a kernel's file, in the order of its lines."""
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith(_NO_CODE) or line.lstrip().startswith("#"):
            continue
        code = line.partition("//")[0].rstrip()
        for start, end, replacement in sorted(_changes(code)):
            yield Mutant(file, number, start, code[:start] + replacement + code[end:], code)


def _changes(code: str) -> Iterator[tuple[int, int, str]]:
    for pattern, replacements in _MUTATIONS:
        for match in re.finditer(pattern, code):
            for replacement in replacements:
                yield match.start(), match.end(), replacement
    for match in _INTEGER.finditer(code):
        for other in {int(match[0]) + 1, max(0, int(match[0]) - 1)} - {int(match[0])}:
            yield match.start(), match.end(), str(other)
