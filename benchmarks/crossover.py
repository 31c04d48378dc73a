"""From which size on the GPU is faster: each operation over sizes, on both devices."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from ..backend import Device, get_num_threads
from . import (
    bench_attention,
    bench_cross_entropy,
    bench_gelu,
    bench_layer_norm,
    bench_matmul,
    bench_softmax,
    runner,
    table,
)
from .case import Case
from .compare import quartiles

SIZES = tuple(4**power for power in range(5, 13))  # elements of the input, 1,024 to 16.8 million


def _side(size: int) -> int:
    return 2 ** (round(math.log2(size)) // 2)


# operation -> the case of a size
OPERATIONS: dict[str, Callable[[int], Case]] = {
    "softmax": lambda size: bench_softmax.cases(size // _side(size), _side(size))[0],
    "layer norm": lambda size: bench_layer_norm.cases(size // _side(size), _side(size))[0],
    "GELU": lambda size: bench_gelu.cases("GELU", bench_gelu.GELU, size // _side(size), _side(size))[0],
    "cross entropy f+b": lambda size: bench_cross_entropy.cases(size // _side(size), _side(size))[1],
    "matmul": lambda size: bench_matmul.case((_side(size), _side(size)), (_side(size), _side(size))),
    "attention f": lambda size: bench_attention.cases(1, 4, max(4, size // 256), 64, causal=False)[0],
}
LARGEST = {"attention f": 4**10, "matmul": 4**12}


class Point(NamedTuple):
    """Seconds at one size."""

    size: int
    seconds: float


def crossing(cpu: list[Point], gpu: list[Point]) -> float | None:
    """The size from which on the GPU is faster, to all greater sizes; 0 where it always is, None where it never is.

    Between two sizes the times are taken as straight lines over logarithms.
    """
    pairs = sorted((a.size, math.log(a.seconds / b.seconds)) for a in cpu for b in gpu if a.size == b.size)
    if not pairs or pairs[-1][1] <= 0:  # log(CPU / GPU): positive where the GPU is faster
        return None
    for (size, gain), (greater, later) in zip(reversed(pairs[:-1]), reversed(pairs[1:]), strict=True):
        if gain <= 0:
            share = -gain / (later - gain)
            return math.exp(math.log(size) + share * math.log(greater / size))
    return 0.0


def lines_of(points: dict[str, dict[str, list[Point]]]) -> list[str]:
    """The table: a row for each operation, with the time at the smallest and largest size on each device."""
    head = f"{'operation':<20}{'sizes':>18}{'CPU time':>20}{'GPU is faster from':>22}"
    lines = [head, "─" * len(head)]
    for name, devices in points.items():
        cpu, gpu = devices.get("cpu", []), devices.get("cuda", [])
        any_device = cpu or gpu
        if not any_device:
            continue
        sizes = (
            f"{any_device[0].size:,} … {any_device[-1].size:,}" if len(any_device) > 1 else f"{any_device[0].size:,}"
        )
        sizes = sizes if len(sizes) <= 18 else f"4^{_power(any_device[0].size)} … 4^{_power(any_device[-1].size)}"
        times = f"{table.seconds(cpu[0].seconds)} … {table.seconds(cpu[-1].seconds)}" if cpu else table.NOTHING
        if not gpu:
            told = "no GPU here"
        elif not cpu:
            told = "no CPU times"
        else:
            size = crossing(cpu, gpu)
            told = "never, up to here" if size is None else "the smallest" if size == 0 else f"{size:,.0f} elements"
        lines.append(f"{name:<20}{sizes:>18}{times:>20}{told:>22}")
    return lines


def _power(size: int) -> int:
    return round(math.log(size, 4))


def run(devices: list[Device], reasons: list[str], options: Any, out: TextIO) -> int:
    """``lamella bench crossover``; the exit status."""
    from . import command

    for option in ("suite", "dtype", "against", "compare"):
        if getattr(options, option):
            return command.usage(f"crossover has no --{option}, got {getattr(options, option)!r}")
    words = options.filter.lower().split()
    wanted = {name: build for name, build in OPERATIONS.items() if all(word in name.lower() for word in words)}
    if not wanted:
        return command.usage(f"no operation has {options.filter!r} in its name; there are {', '.join(OPERATIONS)}")
    progress = command.Progress(sys.stderr)
    measuring = runner.Runner(devices, get_num_threads(), seconds=options.seconds / 4, passes=1, say=progress)
    found = command.empty_record("crossover", measuring)
    command.say_where(found, measuring, out)
    print(file=out)
    cases: list[Case] = []
    place: dict[str, tuple[str, int]] = {}
    for name, build in wanted.items():
        for size in (size for size in SIZES if size <= LARGEST.get(name, SIZES[-1])):
            cases.append(build(size))
            place[cases[-1].name] = name, size
    interrupted = False
    try:
        measuring.run(cases, ("float32",))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        measuring.close()
        progress.clear()
    points: dict[str, dict[str, list[Point]]] = {name: {} for name in wanted}
    for result in measuring.results:
        if result["samples"]:
            name, size = place[result["name"]]
            kind = result["device"].partition(":")[0]
            points[name].setdefault(kind, []).append(Point(size, quartiles(result["samples"])[1]))
    print("\n".join(lines_of(points)), file=out)
    if interrupted:
        command.say("Interrupted: this is what was measured until then.", out)
    for reason in reasons:
        command.say(f"No time on {reason}", out)
    found["results"] = [result for result in measuring.results if result["samples"]]
    found["failures"] = measuring.failures
    for failure in measuring.failures:
        command.say(f"FAILED {failure['name']}: {failure['message']}", out)
    written = command.keep(found, options, {}, out, place)
    if runner.wrong(measuring.failures):
        return command.WRONG
    return command.OK if written else command.USAGE
