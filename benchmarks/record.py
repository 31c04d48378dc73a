"""The one form in which measurements are kept: what was measured on which machine, with every raw sample.

A record is a JSON object; :func:`complaints` says what is wrong with one. A figure without the machine's name, its
samples and the error of its answer is no figure, so a record that lacks one of them is not written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMA = 1

# Field -> its type, or the fields below it. A list's one element describes each of its elements; a dict with the key
# "*" holds any names. "?" behind a name: may be left out. Samples are seconds.
FIELDS: dict[str, Any] = {
    "schema": int,
    "date": str,  # ISO 8601, UTC
    "commit": str,
    "part": str,
    "machine": {
        "system": str,
        "cores": int,
        "device": str,  # "none" where no GPU answered
        "compute_capability?": str,
        "multiprocessors?": int,
        "memory_bytes?": int,
        "processor?": str,
        "clocks?": {"*": str},
    },
    "versions": {"*": str},  # Python, NumPy, lamella, and on a GPU its driver, CUDA, CuPy
    "ceilings": {"*": {"value": float, "unit": str, "samples": [float]}},  # measured on this machine in this run
    "results": [
        {
            "name": str,
            "library": str,
            "device": str,
            "samples": [float],
            "error": float,
            "bound": float,
            "yardstick?": [float],  # seconds of the same work of NumPy, measured beside each sample
            "dtype?": str,
            "bytes?": int,  # that have to be moved at least
            "operations?": int,  # multiplications and additions of its products
            "threads?": int,
            "clock?": str,  # "wall" or "CPU", where a host's processor works
            "peak_bytes?": int,  # of memory above what the imports took
        }
    ],
    "checks": {"*": {"verdict": str, "passed": int, "failed": int, "skipped": int}},  # test runs
    "failures": [{"name": str, "message": str}],
}


def complaints(record: Any) -> list[str]:
    """What keeps ``record`` from being one, each as ``where: rule, got value``; an empty list where nothing does."""
    if isinstance(record, dict) and record.get("schema", SCHEMA) != SCHEMA:  # its fields may be others
        return [f"record.schema: must be {SCHEMA}, got {record['schema']!r}"]
    found = list(_compare("record", record, FIELDS))
    if found:
        return found
    measured = {f"record.results[{i}]": result for i, result in enumerate(record["results"])}
    for where, result in measured.items():
        if not result["error"] <= result["bound"]:
            found.append(f"{where}.error: must be at most bound={result['bound']}, got {result['error']}")
    measured |= {f"record.ceilings.{name}": ceiling for name, ceiling in record["ceilings"].items()}
    for where, result in measured.items():
        if not result["samples"] or not all(0 < seconds < math.inf for seconds in result["samples"]):
            found.append(f"{where}.samples: must be one or more positive seconds, got {result['samples'][:5]}")
    return found


def _compare(where: str, value: Any, wanted: Any) -> Iterator[str]:
    if isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{where}: must be a list, got {type(value).__name__}"
            return
        for i, element in enumerate(value):
            yield from _compare(f"{where}[{i}]", element, wanted[0])
    elif isinstance(wanted, dict):
        if not isinstance(value, dict):
            yield f"{where}: must be an object, got {type(value).__name__}"
        elif "*" in wanted:
            for name, element in value.items():
                yield from _compare(f"{where}.{name}", element, wanted["*"])
        else:
            names = {name.rstrip("?"): name for name in wanted}
            for name in value.keys() - names.keys():
                yield f"{where}.{name}: no such field"
            for name, spelled in names.items():
                if name in value:
                    yield from _compare(f"{where}.{name}", value[name], wanted[spelled])
                elif not spelled.endswith("?"):
                    yield f"{where}.{name}: is missing"
    elif isinstance(value, bool) or not isinstance(value, (int, float) if wanted is float else wanted):
        yield f"{where}: must be {wanted.__name__}, got {type(value).__name__} {value!r}"


def write(file: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON.

    Raises:
        ValueError: it is none; says why. Nothing is written.
    """
    if found := complaints(record):
        raise ValueError(f"{file.name} would be no record: {'; '.join(found)}")
    file.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def results_of(pytest_benchmark: dict[str, Any]) -> list[dict[str, Any]]:
    """The results in a file of ``pytest --benchmark-json``; benchmarks that checked no answer are left out."""
    return [
        {
            "name": one["name"],
            "library": "lamella",
            "device": one["extra_info"]["device"],
            "samples": one["stats"]["data"],
            "error": one["extra_info"]["error"],
            "bound": one["extra_info"]["bound"],
        }
        for one in pytest_benchmark["benchmarks"]
        if "error" in one["extra_info"]
    ]
