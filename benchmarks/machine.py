"""Whose figures these are: the machine, its versions, its clocks as far as it tells them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..backend import backend_for, why_unavailable


def processor() -> str:
    """The CPU's name."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def clocks() -> dict[str, str]:
    """What the machine tells of clocks, load and throttling, for people; empty where it tells nothing."""
    found = {}
    with suppress(ImportError, OSError, NotImplementedError):
        import psutil

        if frequency := psutil.cpu_freq():
            found["CPU clock"] = f"{frequency.current:.0f} MHz"
    counts = list(Path("/sys/devices/system/cpu").glob("cpu*/thermal_throttle/core_throttle_count"))
    with suppress(OSError, ValueError):
        if counts:
            found["CPU throttled"] = f"{sum(int(file.read_text()) for file in counts)} times since it started"
    with suppress(OSError, AttributeError):
        found["load"] = f"{os.getloadavg()[0]:.1f} of {cores()} cores"
    if why_unavailable("cuda") is None and (tool := shutil.which("nvidia-smi")):
        query = "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active"
        with suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run(
                [tool, query, "--format=csv,noheader"], capture_output=True, text=True, timeout=10, check=True
            )
            found["GPU clocks"] = answer.stdout.splitlines()[0].strip()
    return found


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Of Python, lamella, and what the devices stand on."""
    from .. import __version__

    found = {"lamella": __version__, "Python": platform.python_version(), **backend_for("cpu").versions()}
    if why_unavailable("cuda") is None:
        found |= backend_for("cuda").versions()
    return found


def describe() -> dict[str, Any]:
    """The ``machine`` of a record."""
    found: dict[str, Any] = {
        "system": platform.platform(),
        "processor": processor(),
        "cores": cores(),
        "device": "none",
    }
    if why_unavailable("cuda") is None:
        backend = backend_for("cuda")
        found["device"] = backend.versions().get("cuda:0", "unknown")
        found["memory_bytes"] = backend.memory(backend.devices()[0]).total
    return found


def commit() -> str:
    """Of the source that runs, where it is a checkout of git; else the version."""
    from .. import __version__

    folder = Path(__file__).resolve().parent
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        if (folder.parent / "pyproject.toml").exists():
            return answer.stdout.strip()
    return f"lamella {__version__}"
