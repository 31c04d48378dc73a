"""``lamella bench``: measure, check, compare, and say all of it in a table, a record and a page."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from ..backend import Device, backend_for, get_num_threads, set_num_threads, why_unavailable
from . import ceilings, compare, crossover, machine, page, record, table
from .case import EPS
from .library import LibraryError
from .on_device import find_torch
from .runner import Runner, wrong
from .suite import SUITES, select

OK, REGRESSION, USAGE, WRONG = 0, 1, 2, 3
AGAIN = 3  # times that what seems slower is measured again before it is called so

EXAMPLES = """\
examples:
  lamella bench --suite quick
      every part of lamella once, in less than a minute
  lamella bench --filter softmax --against torch --python /opt/torch/python
      softmax beside PyTorch, which lives in another environment
  lamella bench --compare last --html report.html
      what has changed since the last run, with a page of plots

exit status: 0 done; 1 something has become slower; 2 wrong usage;
             3 a wrong answer, which gets no time
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``lamella bench``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    option = parser.add_argument
    option("what", nargs="?", choices=["crossover"], help="at which size the GPU overtakes the CPU, for each operation")
    option("--suite", choices=SUITES, default="", help="measure one part; 'targets' is the table of CPU targets, each "
           "case in processes of its own, with memory (default: kernels, layers and models)")  # fmt: skip
    option("--device", default="cpu,cuda", help="where to measure, separated by commas (default: cpu,cuda)")
    option("--dtype", default="", help="measure only in these dtypes, separated by commas (default: each case's own)")
    option("--filter", default="", metavar="WORDS", help="measure only cases whose names have all of these words")
    option("--against", choices=["torch", "numpy"], default="", help="measure a rival in turns with lamella")
    option("--python", default=sys.executable, help="the interpreter that has the rival (default: this one)")
    option("--threads", type=int, default=0, help="on the CPU; with 1, CPU time is measured instead of wall time "
           "(default: as many as lamella uses)")  # fmt: skip
    option("--seconds", type=float, default=0.6, help="to measure each case for, on each device (default: 0.6)")
    option("--compare", default="", metavar="FILE|last", help="say what has changed since a saved run, or the last one")
    option("--json", type=Path, metavar="FILE", help="write every sample, with the machine and the ceilings, as JSON")
    option("--html", type=Path, metavar="FILE", help="write one page with the tables, rooflines and curves")


def usage(message: str) -> int:
    print(f"lamella bench: {message}", file=sys.stderr)
    return USAGE


def last_file() -> Path:
    """Where a run is kept for ``--compare last``."""
    folder = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(folder) / "lamella" / "bench-last.json"


def unwritable(file: Path) -> str:
    """Why a file cannot be written, or nothing: better said now than after the measuring."""
    folder = file.resolve().parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if file.is_dir():
        return "is a folder"
    return "" if os.access(file if file.exists() else folder, os.W_OK) else "cannot be written"


class Progress:
    """A line that says what is being done, written over itself on a terminal, and nowhere else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._shown = stream, stream.isatty()
        self._start = time.perf_counter()

    def __call__(self, text: str) -> None:
        if self._shown:
            line = f"{time.perf_counter() - self._start:4.0f} s  {text}"[: table.WIDTH - 1]
            self._stream.write(f"\r{line:<{table.WIDTH - 1}}")
            self._stream.flush()

    def clear(self) -> None:
        if self._shown:
            self._stream.write("\r" + " " * (table.WIDTH - 1) + "\r")
            self._stream.flush()


def read_saved(name: str) -> dict[str, Any]:
    """A saved run.

    Raises:
        ValueError: there is none, or it is no record; says why.
    """
    file = last_file() if name == "last" else Path(name)
    try:
        saved: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--compare: {file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"--compare: {file} is not JSON: {error}") from None
    if found := record.complaints(saved):
        raise ValueError(f"--compare: {file} is no saved run: {found[0]}")
    return saved


def devices_of(text: str) -> tuple[list[Device], list[str]]:
    """The devices that answer, and for each that does not why.

    Raises:
        ValueError: a name is none of a device that can be measured.
    """
    found, reasons = [], []
    for name in filter(None, (part.strip() for part in text.split(","))):
        device = Device.parse(name)
        if device.kind not in {"cpu", "cuda"}:
            raise ValueError(f"--device: must be cpu, cuda or both, got {name!r}")
        reason = why_unavailable(device.kind)
        if reason is None and device not in backend_for(device).devices():
            reason = f"there is no {device}"
        if device in found:
            continue
        if reason is None:
            found.append(device)
        else:
            reasons.append(f"{device}: {reason}")
    if not found and not reasons:
        raise ValueError(f"--device: must be cpu, cuda or both, got {text!r}")
    return found, reasons


def run(options: argparse.Namespace, out: TextIO | None = None) -> int:
    """``lamella bench``; the exit status."""
    out = out or sys.stdout
    try:
        devices, reasons = devices_of(options.device)
        saved = read_saved(options.compare) if options.compare else None
        dtypes = tuple(filter(None, (part.strip() for part in options.dtype.split(","))))
        if unknown := [dtype for dtype in dtypes if dtype not in EPS]:
            raise ValueError(f"--dtype: must be some of {', '.join(EPS)}, got {unknown[0]!r}")
        if options.threads < 0:
            raise ValueError(f"--threads: must be positive, got {options.threads}")
        if not options.seconds > 0:
            raise ValueError(f"--seconds: must be positive, got {options.seconds}")
    except ValueError as error:
        return usage(str(error))
    if not devices:
        return usage(f"no device answers: {'; '.join(reasons)}")
    for file in filter(None, (options.json, options.html)):
        if why := unwritable(file):
            return usage(f"{file}: {why}")
    before = get_num_threads()
    set_num_threads(options.threads or before)
    try:
        if options.what == "crossover":
            return crossover.run(devices, reasons, options, out)
        return _bench(options, devices, reasons, saved, dtypes, out)
    except LibraryError as error:
        return usage(f"--against {options.against}: {options.python}: {error}")
    except KeyboardInterrupt:  # before the first measurement, or again while what there is was printed
        say("Interrupted.", out)
        return OK
    finally:
        set_num_threads(before)


def _bench(
    options: argparse.Namespace,
    devices: list[Device],
    reasons: list[str],
    saved: dict[str, Any] | None,
    dtypes: tuple[str, ...],
    out: TextIO,
) -> int:
    cases = select(options.suite, options.filter, tuple({device.kind for device in devices}))
    if not cases:
        return usage(f"no case of suite {options.suite or 'all'!r} has {options.filter!r} in its name")
    if dtypes and not any(set(dtypes) & set(case.dtypes) for case in cases):
        there_are = ", ".join(dtype for dtype in EPS if any(dtype in case.dtypes for case in cases))
        return usage(f"--dtype: these cases are measured in {there_are}, got {options.dtype!r}")
    targets = options.suite == "targets"
    progress = Progress(sys.stderr)
    runner = Runner(
        devices,
        get_num_threads(),
        options.against,
        options.python,
        seconds=options.seconds * (5 if targets else 1),
        passes=1 if targets else 2,
        apart=targets,
        say=progress,
        lamella_python=sys.executable,
    )
    gpu = any(device.kind == "cuda" for device in devices)
    if gpu and options.against == "torch":
        runner.torch = find_torch(backend_for("cuda"))
    found = empty_record(f"bench {options.suite}".strip(), runner)
    say_where(found, runner, out)
    interrupted, changes = False, {}
    try:
        for device in devices:
            progress(f"ceilings of {device}")
            found["ceilings"] |= ceilings.measure(backend_for(device), device)
        say_ceilings(found["ceilings"], devices, out)
        runner.run(cases, dtypes)
        if saved is not None:
            changes = judge(runner, cases, dtypes, saved, found)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        runner.close()
        progress.clear()
    found["results"] = [result for result in runner.results if result["samples"]]
    found["failures"] = runner.failures
    say_results(found, options, gpu, reasons, changes, out)
    if interrupted:
        what = "this is what was measured until then" if found["results"] else "nothing had been measured until then"
        say(f"Interrupted: {what}. It is not kept as the last run.", out)
    if saved is not None and found["results"] and (changes or not interrupted):
        say_what_was_compared(saved, found, changes, out)
    written = keep(found, options, changes, out)
    if not interrupted and found["results"]:
        keep_as_last(found, out)
    if wrong(runner.failures):
        return WRONG
    if not written:
        return USAGE
    return REGRESSION if any(change.verdict == "slower" for change in changes.values()) else OK


def empty_record(part: str, runner: Runner) -> dict[str, Any]:
    """A record of this machine in which nothing has been measured yet."""
    return {
        "schema": record.SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "part": part,
        "machine": {**machine.describe(), "clocks": machine.clocks()},
        "versions": machine.versions() | runner.versions,
        "ceilings": {},
        "results": [],
        "checks": {},
        "failures": [],
    }


def judge(
    runner: Runner, cases: list[Any], dtypes: tuple[str, ...], saved: dict[str, Any], found: dict[str, Any]
) -> dict[Any, compare.Change]:
    """The change of each case. What seems slower is measured again: a regression is what stays one."""
    before = {compare.key_of(result): result for result in saved["results"]}
    found = {**found, "results": runner.results}
    if compare.comparable(saved, found):
        return {}
    changes: dict[Any, compare.Change] = {}
    for attempt in range(AGAIN + 1):
        for result in runner.results:
            key = compare.key_of(result)
            row = key[:2]
            if key[2] != "lamella" or key not in before or not result["samples"]:
                continue
            now = compare.change_of(before[key], result)
            worse = row in changes and changes[row].verdict == "slower"
            if attempt == 0:
                changes[row] = now if not worse else changes[row]
            elif worse:
                changes[row] = now
        slower = {name for (name, _), change in changes.items() if change.verdict == "slower"}
        if not slower or attempt == AGAIN:
            break
        runner.run([case for case in cases if case.name in slower], dtypes)
    return changes


# -- what is said ----------------------------------------------------------------------------------------------------
def say(text: str, out: TextIO) -> None:
    """A paragraph below the tables, as wide as they may be."""
    print("\n" + "\n".join(wrapped(text, table.WIDTH)), file=out)


def say_what_was_compared(
    saved: dict[str, Any], found: dict[str, Any], changes: dict[Any, compare.Change], out: TextIO
) -> None:
    """Since which run the changes are, or why none is told."""
    if why := compare.comparable(saved, found):
        say(f"No change is told, for the saved run cannot be compared: {why}.", out)
    elif changes:
        say(f"Changes since the run of {saved['date']}, commit {saved['commit']}.", out)
    else:
        say(f"No change is told, for the saved run of {saved['date']} has none of these cases.", out)


def say_where(found: dict[str, Any], runner: Runner, out: TextIO) -> None:
    """The machine, before any figure."""
    where = found["machine"]
    clock = ceilings.clock_of(runner.threads)[0]
    rows = [
        ("machine", f"{where['processor']}, {where['cores']} cores"),
        ("GPU", where["device"]),
        ("system", where["system"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        ("commit", found["commit"]),
        ("threads", f"{runner.threads}, {clock} time on the CPU"),
        *where["clocks"].items(),
    ]
    for name, text in rows:
        for i, line in enumerate(wrapped(text, table.WIDTH - 15)):
            print(f"{name if i == 0 else '':<15}{line}", file=out)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most so many letters, broken at spaces."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def say_ceilings(found: dict[str, Any], devices: list[Device], out: TextIO) -> None:
    """What each device can do at most, measured now."""
    print("\nCeilings, measured now", file=out)
    for name, ceiling in found.items():
        unit = ceiling["unit"]
        told = table.seconds(ceiling["value"]) if unit == "s" else table.rate(ceiling["value"], unit)
        words = {"copy": "copy in memory, read and written", "call": "one call"}
        device, _, what = name.partition(" ")
        if what == "call":
            words["call"] = "launch of an empty kernel" if device != "cpu" else "addition of two numbers by NumPy"
        print(f"  {device:<8}{words.get(what, what.replace('gemm', 'matrix product')):<38}{told:>14}", file=out)


def say_results(
    found: dict[str, Any],
    options: argparse.Namespace,
    gpu: bool,
    reasons: list[str],
    changes: dict[Any, compare.Change],
    out: TextIO,
) -> None:
    """The tables, what failed, and why there is no GPU."""
    parts = [
        ("Times: median of all samples, ± half the distance of the quartiles",
         table.times(found["results"], options.against, gpu, changes)),
        ("Rates, and the largest error against float64",
         table.rates(found["results"], table.Ceilings(found["ceilings"]))),
        ("Memory: peak above what the imports took", table.memory(found["results"], options.against or "torch")),
    ]  # fmt: skip
    for title, lines in parts:
        if len(lines) > 2:  # more than its head
            print("\n".join(["", title, *lines]), file=out)
    for reason in reasons:
        say(f"No time on {reason}", out)
    for failure in found["failures"]:
        say(f"FAILED {failure['name']}: {failure['message']}", out)


def keep(
    found: dict[str, Any],
    options: argparse.Namespace,
    changes: dict[Any, compare.Change],
    out: TextIO,
    families: dict[str, tuple[str, int]] | None = None,
) -> bool:
    """Write the files that were asked for; whether none of them was refused."""

    def write_page(file: Path) -> None:
        file.write_text(page.page(found, options.against, changes, families), encoding="utf-8")

    all_written = True
    for file, write in ((options.json, lambda file: record.write(file, found)), (options.html, write_page)):
        if not file:
            continue
        if not found["results"]:
            say(f"Not written, since nothing was measured: {file}", out)
            continue
        try:
            write(file)
        except OSError as error:  # the disk is full, or the folder has gone since the start
            usage(f"{file}: cannot be written: {error.strerror}")
            all_written = False
        else:
            print(f"\nWritten: {file}", file=out)
    return all_written


def keep_as_last(found: dict[str, Any], out: TextIO) -> None:
    """Write the file for ``--compare last``."""
    last = last_file()
    try:
        last.parent.mkdir(parents=True, exist_ok=True)
        record.write(last, found)
    except OSError as error:
        print(f"\nNot kept for --compare last: {error}", file=out)
