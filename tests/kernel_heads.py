"""What the head of a ``.cu`` file promises, in a form that tests can read.

    // architectures: 75 80 90
    // compile: FLAG NAME=a|b A,B=1,2|3,4 -> 64 registers, 0 spills

A ``compile`` line stands for every combination of its alternatives; ``A,B=1,2|3,4`` sets both macros together.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import lamella.kernels

KERNELS = Path(lamella.kernels.__file__).parent
_LINE = re.compile(r"^// compile: (.*) -> (\d+) registers, (\d+) spills$", re.MULTILINE)
_REGISTER = re.compile(r"%(?:f|r|rd)\d+")
_ARCHITECTURES = re.compile(r"^// architectures: ([\w ]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Variant:
    """One way to compile a file: its macros, and what the compiler may use for each kernel."""

    file: str
    defines: tuple[str, ...]
    registers: int
    spills: int
    is_extreme: bool  # first or last combination of its line: the quick check takes these
    is_first: bool

    def __str__(self) -> str:
        return f"{self.file}[{' '.join(self.defines)}]"


def architectures(path: Path) -> tuple[str, ...]:
    found = _ARCHITECTURES.search(path.read_text(encoding="utf-8"))
    return tuple(found[1].split()) if found else ()


def variants(path: Path) -> list[Variant]:
    result = []
    for text, registers, spills in _LINE.findall(path.read_text(encoding="utf-8")):
        combinations = list(itertools.product(*map(_alternatives, text.split())))
        for number, combination in enumerate(combinations):
            defines = tuple(itertools.chain.from_iterable(combination))
            extreme = number in (0, len(combinations) - 1)
            result.append(Variant(path.name, defines, int(registers), int(spills), extreme, number == 0))
    return result


def _alternatives(token: str) -> list[tuple[str, ...]]:
    names, equals, values = token.partition("=")
    if not equals:
        return [(token,)]
    result = []
    for value in values.split("|"):
        pairs = zip(names.split(","), value.split(","), strict=True)
        result.append(tuple(f"{name}={one}" for name, one in pairs))
    return result


def complaints(log: str) -> list[str]:
    """What in a compiler's log says that the code is not what it reads like.

    ptxas only mentions that it waits after each wgmma ("serialized"), or that it leaves setmaxnreg out ("ignored").
    """
    return [line for line in log.splitlines() if re.search(r"warning|serializ|ignored|Performance Loss", line)]


def dealt_registers(ptx: str) -> dict[str, tuple[int, int, int]]:
    """Of kernels that deal out registers: threads of a block; registers of one that copies, of one that multiplies.

    One warpgroup copies. By the PTX ISA the first number is at most what a thread has at launch, the second at least
    that, and where all together want more than the block has, the kernel waits for ever.
    """
    found = {}
    for name, body in re.findall(r"\.entry (\w+)(.*?)(?=\.entry|\Z)", ptx, re.DOTALL):
        words = (r"\.maxntid", r"setmaxnreg\.dec\S*", r"setmaxnreg\.inc\S*")
        numbers = [int(number[1]) for word in words if (number := re.search(word + r" (\d+)", body))]
        if len(numbers) == 3:
            found[name] = (numbers[0], numbers[1], numbers[2])
    return found


def touched_too_early(ptx: str) -> list[str]:
    """Instructions that use registers of a warpgroup's product under way, or products that follow them without a fence.

    To the compiler a product is finished when it is issued, so nothing but the order in which it happens to put the
    instructions keeps others from its registers. Read from top to bottom: no product outlasts a round of its loop.
    """
    groups: list[set[str]] = []  # registers of those that were committed, the oldest first
    issued: set[str] = set()  # and of those that were not yet
    changed: set[str] = set()  # by others, since the last fence
    found = []
    for line in map(str.strip, ptx.splitlines()):
        if line.startswith((".entry", ".visible .entry")):
            groups, issued, changed = [], set(), set()
        elif product := re.match(r"wgmma\.mma_async\S* \{([^}]*)\}, (?:\{([^}]*)\})?", line):
            registers = set(_REGISTER.findall(f"{product[1]} {product[2] or ''}"))
            found += [line] * bool(registers & changed)
            issued |= registers
        elif line.startswith("wgmma.fence"):
            changed = set()
        elif line.startswith("wgmma.commit_group"):
            groups, issued = [*groups, issued], set()
        elif left := re.match(r"wgmma\.wait_group\S* (\d+)", line):
            groups = groups[max(0, len(groups) - int(left[1])) :]
        elif instruction := re.match(r"(?:@!?%p\d+ )?[a-z]\S*\s+(.*);", line):
            found += [line] * bool(issued.union(*groups) & set(_REGISTER.findall(instruction[1])))
            written = re.match(r"\{[^}]*\}|%[a-z]+\d+", instruction[1])
            changed |= set(_REGISTER.findall(written[0])) if written else set()
    return found
