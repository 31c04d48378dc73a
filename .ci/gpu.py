"""Everything that needs a GPU, in one command: ``make gpu OUT=folder PART=tests|conformance|sanitizer|bench|all``.

A part takes at most eight minutes; what it did not reach it leaves to the next call of the same command, which goes on
where this one ended (as long as the commit, the files and the device are the same). A finished part writes one dated
file into the folder, in the form of ``benchmarks/record.py``. Not yet run on hardware.

Exit status 0: everything passed; or no CUDA device answers, which is said, and with ``REQUIRE=1`` is 1. 1: something
failed, or nothing could be checked: a report in which no test ran is not a pass. 3: not finished, call again.

Needs only the standard library to start. Where this interpreter has CuPy, an environment on top of its packages is made
without network; else the Makefile's ``.venv`` with CuPy for this machine's driver. ``LAMELLA_GPU_PYTHON=/path/to/it``
takes an interpreter whose environment is complete (lamella, CuPy, pytest and its plugins) and installs nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import xml.etree.ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def _load(name: str) -> ModuleType:
    """A module of the benchmarks that needs the standard library only: this interpreter may have no lamella."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"benchmarks/{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"benchmarks/{name}.py cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


record = _load("record")
PARTS = ("tests", "conformance", "sanitizer", "bench")
LIMIT = 8 * 60.0  # seconds for one part in one call
WORTH_STARTING = 60.0  # seconds that must be left to begin another item
UNFINISHED = 3  # exit status
TOGETHER = 8  # test files in one process: CuPy takes seconds to start
SANITIZER = "compute-sanitizer"
SANITIZER_TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# CuPy's memory pool hides overruns from memcheck, so the sanitizer's tests allocate without it.
PYTEST_WITHOUT_POOL = (
    "import cupy, pytest, sys; cupy.cuda.set_allocator(None); cupy.cuda.set_pinned_memory_allocator(None); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
ASK_CUPY = """
import json, os, sys, cupy, numpy, lamella
lamella.device("cuda")
properties = cupy.cuda.runtime.getDeviceProperties(0)
print(json.dumps({
    "machine": {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "memory_bytes": properties["totalGlobalMem"],
    },
    "versions": {
        "python": sys.version.split()[0],
        "cuda_driver": str(cupy.cuda.runtime.driverGetVersion()),
        "cuda_runtime": str(cupy.cuda.runtime.runtimeGetVersion()),
        "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        "cupy": cupy.__version__,
        "numpy": numpy.__version__,
        "lamella": lamella.__version__,
    },
}))
"""


class NoDevice(Exception):
    """No CUDA device answers here; says why."""


def cuda_driver_version() -> int:
    """The driver's CUDA version (12080 is 12.8).

    Raises:
        NoDevice: no CUDA device answers; the message is the reason.
    """
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError as error:
        raise NoDevice(f"the NVIDIA driver's library cannot be loaded ({error})") from error
    if status := driver.cuInit(0):
        raise NoDevice(f"the driver's cuInit gave error {status}")
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise NoDevice("the driver reports none")
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < 12000:
        sys.exit(f"make gpu: the driver supports CUDA {version.value / 1000:.1f}; CuPy's wheels need 12.0 or newer")
    return version.value


def environment(driver_version: int) -> str:
    """The interpreter that runs the tests, with lamella, its test tools and CuPy installed."""
    if given := os.environ.get("LAMELLA_GPU_PYTHON"):
        return given
    if importlib.util.find_spec("cupy") is not None:
        return environment_without_network()
    extra = "cuda13" if driver_version >= 13000 else "cuda12"
    subprocess.run(["make", f"PYTHON={sys.executable}", ".venv/installed-dev"], cwd=ROOT, check=True)
    python = str(ROOT / ".venv/bin/python")
    print(f"Installing CuPy for the driver's CUDA {driver_version // 1000} ...", flush=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", "-e", f".[dev,{extra}]"], cwd=ROOT, check=True)
    return python


def environment_without_network() -> str:
    """An environment that sees this interpreter's packages, with lamella installed and nothing downloaded.

    It has no pip of its own: Python 3.11 would put an old setuptools beside that, before the one that is installed.
    """
    missing = [
        name
        for name in ("numpy", "safetensors", "ml_dtypes", "pip", "setuptools", "pytest", "pytest_timeout")
        if importlib.util.find_spec(name) is None
    ]
    if "setuptools" not in missing and int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:
        missing.append("setuptools>=77")
    if missing:
        sys.exit(
            f"make gpu: {sys.executable} has CuPy and lacks {', '.join(missing)}: install what is missing beside it"
        )
    folder = ROOT / ".venv/gpu"
    python = str(folder / "bin/python")
    if not Path(python).exists():
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(folder)], check=True
        )
        if sys.prefix != sys.base_prefix:  # "system" is then the interpreter below this one's environment
            see_packages(folder, Path(sysconfig.get_paths()["purelib"]))
    install = ["-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation", "-e", "."]
    subprocess.run([python, *install], cwd=ROOT, check=True)
    return python


def see_packages(environment: Path, packages: Path) -> None:
    """Make an environment see another one's packages.

    CuPy looks for NVIDIA's wheels in an environment's own folder only, not along ``sys.path``, so they are linked.
    """
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = environment / f"lib/{version}/site-packages"
    (own / "beneath.pth").write_text(f"{packages}\n", encoding="utf-8")
    if (packages / "nvidia").is_dir():
        (own / "nvidia").symlink_to(packages / "nvidia")


def commit() -> str:
    """What is tested, by git; ``unknown`` in a copy without its history, or without git."""
    if shutil.which("git") is None:
        return "unknown"
    command = ["git", "describe", "--always", "--dirty"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"


def sources(root: Path = ROOT) -> str:
    """A number for what the files say: a commit does not tell changes on top of it, or no commit is known."""
    digest = hashlib.sha256()
    for file in sorted(root.glob("[!.]*/**/*")):
        if file.suffix in {".py", ".cu", ".cuh", ".h", ".cpp"}:
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def ask_machine(python: str) -> dict[str, Any]:
    """What is tested, where: no figure without the machine's name."""
    answer = subprocess.run([python, "-c", ASK_CUPY], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"make gpu: {answer.stderr.strip().splitlines()[-1]}")
    found = json.loads(answer.stdout)
    found["machine"]["system"] = platform.platform()
    return {"commit": commit(), **found}


# -- what one item says ----------------------------------------------------------------------------------------------
def read_junit(file: Path) -> dict[str, Any]:
    """Counts and failures of a pytest ``--junitxml`` file; an error counts as a failure."""
    counts, failures = {"passed": 0, "failed": 0, "skipped": 0}, []
    for case in xml.etree.ElementTree.parse(file).getroot().iter("testcase"):
        outcome = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
        if outcome is None or outcome.tag == "skipped":
            counts["passed" if outcome is None else "skipped"] += 1
            continue
        counts["failed"] += 1
        name = f"{case.get('classname')}::{case.get('name')}"
        failures.append({"name": name, "message": (outcome.get("message") or "")[:2000]})
    return {**counts, "failures": failures}


def verdict(counts: dict[str, Any]) -> str:
    """``passed``, ``failed``, or ``nothing ran``: skips alone prove nothing."""
    if counts["failed"]:
        return "failed"
    return "passed" if counts["passed"] else "nothing ran"


def run(command: list[str], seconds: float) -> int | None:
    """The exit status, or None where the time was over."""
    try:
        return subprocess.run(command, cwd=ROOT, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        return None


def run_pytest(launcher: list[str], words: list[str], name: str, seconds: float) -> dict[str, Any]:
    """One pytest process over tests marked ``gpu``: counts, failures, verdict."""
    with tempfile.TemporaryDirectory() as folder:
        junit = Path(folder) / "junit.xml"
        status = run([*launcher, "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={junit}", *words], seconds)
        if status is None or not junit.exists():
            message = f"not finished after {seconds:.0f} s" if status is None else f"no report, exit status {status}"
            failures = [{"name": name, "message": message}]
            counts = {"verdict": "failed", "passed": 0, "failed": 1, "skipped": 0, "failures": failures}
            return counts | {"cut_off": status is None}
        report = read_junit(junit)
    found = verdict(report)
    if found == "passed" and status:  # a sanitizer's finding, or a crash at exit
        found = "failed"
        report["failures"].append({"name": name, "message": f"every test passed and the exit status was {status}"})
    return {"verdict": found, **report}


# -- the parts: each is a list of items, done one by one -------------------------------------------------------------
def conformance_files() -> list[str]:
    """The laws of every layer, and of every wrapper of an instruction."""
    found = {ROOT / "tests/test_layers.py", *(ROOT / "tests").glob("test_*conformance*.py")}
    return [file.relative_to(ROOT).as_posix() for file in sorted(found)]


def test_files() -> list[str]:
    """Every other test file in which the word device, gpu or cuda stands."""
    files = [file.relative_to(ROOT).as_posix() for file in sorted((ROOT / "tests").glob("test_*.py"))]
    word = re.compile(r"\b(device|gpu|cuda)\b")
    return [
        file
        for file in files
        if file not in conformance_files() and word.search((ROOT / file).read_text(encoding="utf-8"))
    ]


def items(part: str, python: str = sys.executable) -> list[str]:
    """What a part consists of, by name; the interpreter that runs it knows the benchmarks."""
    if part == "tests":
        files = test_files()
        return [" ".join(files[i : i + TOGETHER]) for i in range(0, len(files), TOGETHER)]
    if part == "conformance":
        return conformance_files()
    if part == "sanitizer":
        stems = [kernel.stem for kernel in sorted((ROOT / "kernels").glob("*.cu"))]
        return [f"{tool} tests/test_{stem}.py" for stem in stems for tool in SANITIZER_TOOLS]
    answer = subprocess.run([*on_device(python)], cwd=ROOT, capture_output=True, text=True, check=True)
    return answer.stdout.splitlines()


def on_device(python: str, *words: str) -> list[str]:
    return [python, "-m", "lamella.benchmarks.on_device", *words]


def do(part: str, item: str, python: str, out: Path, seconds: float) -> dict[str, Any]:
    """Do one item; ``check``, ``failures`` and, of benchmarks, ``results`` and ``ceilings``."""
    if part in {"tests", "conformance"}:
        return run_pytest([python, "-m", "pytest"], item.split(), item, seconds)
    if part == "sanitizer":
        tool, file = item.split()
        log = out / f"sanitizer-{tool}-{Path(file).stem}.txt"
        command = [SANITIZER, "--tool", tool, "--error-exitcode", "99", "--log-file", str(log)]
        return run_pytest([*command, python, "-c", PYTEST_WITHOUT_POOL], ["-o", "timeout=3600", file], item, seconds)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        return measured(item, run(on_device(python, str(report), *item.split()), seconds), report)


def measured(item: str, status: int | None, report: Path) -> dict[str, Any]:
    """What a bundle of benchmarks gave. A rival's failure is written down; lamella's makes the part fail.

    Args:
        item: the bundle's name.
        status: how it ended; None where its time was over. What was measured until then is kept.
        report: the file that it wrote.
    """
    found: dict[str, Any] = {"ceilings": {}, "results": [], "failures": []}
    if report.exists():
        found = json.loads(report.read_text(encoding="utf-8"))
    ours = [failure for failure in found["failures"] if " torch" not in failure["name"]]
    if status != 0:
        message = f"exit status {status}" if status is not None else "not finished in time"
        ours.append({"name": item, "message": message})
        found["failures"].append(ours[-1])
    counts = {"passed": len(found["results"]) + len(found["ceilings"]), "failed": len(ours), "skipped": 0}
    return {"verdict": verdict(counts), **counts, **found, "cut_off": status is None}


def go_on(part: str, wanted: list[str], progress: Path, key: dict[str, str], work: Any) -> dict[str, Any] | None:
    """Do what is not done yet, for at most LIMIT seconds; everything's outcome, or None where some is left.

    Args:
        part: its name.
        wanted: its items.
        progress: the file that holds what is done.
        key: commit, files and device; what was done under another one is done again.
        work: ``work(item, seconds)`` does one.
    """
    done: dict[str, Any] = {}
    cut_off: list[str] = []  # what did not end in its time: done once more, with the kernels that CuPy has kept
    if progress.exists():
        before = json.loads(progress.read_text(encoding="utf-8"))
        if before["key"] == key:
            done, cut_off = before["done"], before.get("cut_off", [])
    end, first = time.monotonic() + LIMIT, True
    for item in wanted:
        left = end - time.monotonic()
        if item in done:
            continue
        found = None if left < WORTH_STARTING and not first else work(item, left)
        again = found is None or (found.get("cut_off") and item not in cut_off)
        if found is not None:
            if again:
                cut_off.append(item)
            else:
                done[item] = found
            progress.write_text(json.dumps({"key": key, "done": done, "cut_off": cut_off}), encoding="utf-8")
        if again:
            print(f"{part}: {len(done)} of {len(wanted)} done; the same command goes on from there", flush=True)
            return None
        first = False
    return done


def part_record(part: str, found: dict[str, Any], done: dict[str, Any], now: datetime.datetime) -> dict[str, Any]:
    """The outcomes of all items as one record."""
    counts = ("verdict", "passed", "failed", "skipped")
    return {
        "schema": record.SCHEMA,
        "date": now.isoformat(timespec="seconds"),
        "part": part,
        **found,
        "ceilings": {k: v for one in done.values() for k, v in one.get("ceilings", {}).items()},
        "results": [result for one in done.values() for result in one.get("results", [])],
        "checks": {item: {name: one[name] for name in counts} for item, one in done.items()},
        "failures": [failure for one in done.values() for failure in one.get("failures", [])],
    }


def run_part(part: str, python: str, found: dict[str, Any], out: Path) -> int:
    """One part's exit status; writes its record when it is finished."""
    if part == "sanitizer" and shutil.which(SANITIZER) is None:
        print(
            f"sanitizer: {SANITIZER} is not on PATH (it comes with the CUDA toolkit): that part was not run", flush=True
        )
        return 1
    progress = out / f"progress-{part}.json"
    key = {"commit": found["commit"], "sources": sources(), "device": found["machine"]["device"]}
    done = go_on(part, items(part, python), progress, key, lambda item, left: do(part, item, python, out, left))
    if done is None:
        return UNFINISHED
    now = datetime.datetime.now(datetime.UTC)
    file = out / f"gpu-{part}-{now:%Y%m%d-%H%M%S}.json"
    record.write(file, part_record(part, found, done, now))
    progress.unlink(missing_ok=True)
    totals = {name: sum(one[name] for one in done.values()) for name in ("passed", "failed", "skipped")}
    result = verdict(totals)
    if any(one["verdict"] == "failed" for one in done.values()):
        result = "failed"
    print(f"{found['machine']['device']}: {part}: {result}, {totals}\n{file}", flush=True)
    return 0 if result == "passed" else 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the reports")
    parser.add_argument("--part", choices=["all", *PARTS], default="all")
    parser.add_argument("--require", default="", help="fail where no CUDA device answers, unless empty or 0")
    arguments = parser.parse_args()

    try:
        driver_version = cuda_driver_version()
    except NoDevice as reason:
        print(f"make gpu: no CUDA device answers here: {reason}; nothing was run", file=sys.stderr)
        sys.exit(int(arguments.require not in {"", "0"}))
    python = environment(driver_version)
    found = ask_machine(python)
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    parts = PARTS if arguments.part == "all" else (arguments.part,)
    status = {part: run_part(part, python, found, out) for part in parts}
    if any(status.values()):
        said = {0: "passed", UNFINISHED: "not finished"}
        print("make gpu: " + ", ".join(f"{part} {said.get(one, 'failed')}" for part, one in status.items()))
    sys.exit(1 if 1 in status.values() else max(status.values()))


if __name__ == "__main__":
    main()
