"""Which cases there are: those in the ``CASES`` of each ``bench_*.py`` beside this file."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .case import Case

SUITES = ("kernels", "layers", "models", "quick", "targets")


def stems() -> list[str]:
    """``softmax`` for each ``bench_softmax.py`` that lists cases."""
    files = sorted(Path(__file__).parent.glob("bench_*.py"))
    return [file.stem.removeprefix("bench_") for file in files if "\nCASES = [" in file.read_text(encoding="utf-8")]


def cases_of(stem: str) -> list[Case]:
    """The cases of ``bench_<stem>.py``, with or without what they need."""
    found: list[Case] = import_module(f"lamella.benchmarks.bench_{stem}").CASES
    return found


def stem_of(case: Case) -> str:
    """Where a case is defined."""
    return next(stem for stem in stems() if any(case.name == one.name for one in cases_of(stem)))


def missing(case: Case) -> str:
    """The first name that a case needs and lamella does not have, or package that is not installed, or nothing."""
    import lamella

    for name in case.needs:
        place: Any = lamella
        for part in name.split("."):
            if not hasattr(place, part):
                return name
            place = getattr(place, part)
    return next((name for name in case.packages if find_spec(name) is None), "")


def select(suite: str = "", words: str = "", kinds: tuple[str, ...] = ("cpu", "cuda")) -> list[Case]:
    """The cases that can run: of a suite, with every word of ``words`` in the name, on one of the kinds of device."""
    found = []
    for case in (case for stem in stems() for case in cases_of(stem)):
        if suite and suite not in (case.suite, "quick" * case.quick, "targets" * bool(case.target)):
            continue
        if not all(word.lower() in case.name.lower() for word in words.split()):
            continue
        if any(kind in case.devices for kind in kinds) and not missing(case):
            found.append(case)
    return found
