"""Is it slower than before? What two sets of samples allow to say, and "undecided" where they do not."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

SMALLEST = 0.05  # a change of the median below this is none, however sharp the samples are


def quartiles(samples: list[float]) -> tuple[float, float, float]:
    """The values below which a quarter, half and three quarters of the samples lie."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return low, middle, high


def spread(samples: list[float]) -> float:
    """Half the distance of the quartiles, as a share of the median."""
    low, middle, high = quartiles(samples)
    return (high - low) / 2 / middle


class Change(NamedTuple):
    """How much longer it takes now.

    Attributes:
        ratio: of the medians, less one: 0.25 is a quarter longer.
        verdict: ``"slower"``, ``"faster"``, ``"same"`` or, where the quartiles overlap, ``"undecided"``.
    """

    ratio: float
    verdict: str


def change(before: list[float], now: list[float]) -> Change:
    """What has changed between two sets of samples of the same work.

    Undecided where the quartiles overlap, and where the slower set has a sample as quick as the quicker set's lower
    quartile: code that has become slower has no such moments, a machine that was disturbed has.
    """
    low_before, median_before, high_before = quartiles(before)
    low, median, high = quartiles(now)
    ratio = median / median_before - 1
    overlap = low <= high_before and low_before <= high
    if overlap or (min(now) <= low_before if ratio > 0 else min(before) <= low):
        return Change(ratio, "undecided")
    if abs(ratio) < SMALLEST:
        return Change(ratio, "same")
    return Change(ratio, "slower" if ratio > 0 else "faster")


def change_of(before: dict[str, Any], now: dict[str, Any]) -> Change:
    """What has changed between two results; where both have a yardstick, it has to say the same.

    A machine is now quicker, now slower, for reasons that are none of the code's: work that never changes shows it. So
    the times as they are, and the times over the median of the yardstick beside them, must agree on a verdict.
    """
    plain = change(before["samples"], now["samples"])
    if not (before.get("yardstick") and now.get("yardstick")):
        return plain
    over = change(_over_yardstick(before), _over_yardstick(now))
    return over if over.verdict == plain.verdict else Change(over.ratio, "undecided")


def _over_yardstick(result: dict[str, Any]) -> list[float]:
    yardstick = statistics.median(result["yardstick"])
    return [seconds / yardstick for seconds in result["samples"]]


def ratio_by_rounds(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of samples that were taken in turns, one round after the other."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=False))


Key = tuple[str, str, str, str]  # name, dtype, library, device


def key_of(result: dict[str, Any]) -> Key:
    """What a result is of, the same in every run."""
    return result["name"], result.get("dtype", "float32"), result["library"], result["device"]


def comparable(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Why two records cannot be compared, or nothing: times of different machines say nothing about the code."""
    for name in ("system", "processor", "cores", "device"):
        if before["machine"].get(name) != now["machine"].get(name):
            return f"its {name} was {before['machine'].get(name)!r}, here it is {now['machine'].get(name)!r}"
    for one in ("threads", "clock"):
        saved = {result.get(one) for result in before["results"] if result["device"] == "cpu"}
        current = {result.get(one) for result in now["results"] if result["device"] == "cpu"}
        if saved and current and saved != current:
            before_and_now = (" and ".join(sorted(map(str, some))) for some in (saved, current))
            return f"{one}: {' then, now '.join(before_and_now)}"
    return ""
