"""Everything that needs a GPU, in one command: ``make gpu OUT=folder PART=tests|sanitizer|all``.

Writes dated reports into the folder and exits with 1 where no CUDA device answers, where a part fails, or where it
could check nothing: a report in which no test ran is not a pass. Needs only the standard library to start.

The environment is the Makefile's ``.venv`` with CuPy for this machine's driver. ``LAMELLA_GPU_PYTHON=/path/to/python``
takes an environment that is already complete (lamella, CuPy, pytest and pytest-timeout) and installs nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SANITIZER = "compute-sanitizer"
SANITIZER_TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
# CuPy's memory pool hides overruns from memcheck, so the sanitizer's tests allocate without it.
PYTEST_WITHOUT_POOL = (
    "import cupy, pytest, sys; cupy.cuda.set_allocator(None); cupy.cuda.set_pinned_memory_allocator(None); "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
ASK_CUPY = """
import json, cupy, numpy, lamella
lamella.device("cuda")
properties = cupy.cuda.runtime.getDeviceProperties(0)
print(json.dumps({
    "device": properties["name"].decode(),
    "compute_capability": f"{properties['major']}.{properties['minor']}",
    "multiprocessors": properties["multiProcessorCount"],
    "memory_bytes": properties["totalGlobalMem"],
    "cuda_driver": cupy.cuda.runtime.driverGetVersion(),
    "cuda_runtime": cupy.cuda.runtime.runtimeGetVersion(),
    "nvrtc": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
    "cupy": cupy.__version__,
    "numpy": numpy.__version__,
    "lamella": lamella.__version__,
}))
"""


def cuda_driver_version() -> int:
    """The driver's CUDA version (12080 is 12.8); exits with the reason where no CUDA device answers."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError as error:
        sys.exit(f"make gpu: no CUDA device answers here: the NVIDIA driver's library cannot be loaded ({error})")
    if status := driver.cuInit(0):
        sys.exit(f"make gpu: no CUDA device answers here: the driver's cuInit gave error {status}")
    count, version = ctypes.c_int(), ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        sys.exit("make gpu: no CUDA device answers here: the driver reports none")
    driver.cuDriverGetVersion(ctypes.byref(version))
    if version.value < 12000:
        sys.exit(f"make gpu: the driver supports CUDA {version.value / 1000:.1f}; CuPy's wheels need 12.0 or newer")
    return version.value


def environment(driver_version: int) -> str:
    """The interpreter that runs the tests, with lamella, its test tools and CuPy installed."""
    if given := os.environ.get("LAMELLA_GPU_PYTHON"):
        return given
    extra = "cuda13" if driver_version >= 13000 else "cuda12"
    subprocess.run(["make", f"PYTHON={sys.executable}", ".venv/installed-dev"], cwd=ROOT, check=True)
    python = str(ROOT / ".venv/bin/python")
    print(f"Installing CuPy for the driver's CUDA {driver_version // 1000} ...", flush=True)
    subprocess.run([python, "-m", "pip", "install", "-qq", "-e", f".[dev,{extra}]"], cwd=ROOT, check=True)
    return python


def machine(python: str) -> dict[str, Any]:
    """What was tested, where: no figure without the machine's name."""
    answer = subprocess.run([python, "-c", ASK_CUPY], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(f"make gpu: {answer.stderr.strip().splitlines()[-1]}")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "commit": commit.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "system": platform.platform(),
        **json.loads(answer.stdout),
    }


def read_junit(file: Path) -> dict[str, Any]:
    """Counts and per-test outcomes of a pytest ``--junitxml`` file."""
    tests = []
    for case in xml.etree.ElementTree.parse(file).getroot().iter("testcase"):
        outcome = next((child for child in case if child.tag in {"failure", "error", "skipped"}), None)
        tests.append(
            {
                "name": f"{case.get('classname')}::{case.get('name')}",
                "outcome": "passed" if outcome is None else {"failure": "failed"}.get(outcome.tag, outcome.tag),
                "seconds": float(case.get("time", "0")),
                **({} if outcome is None else {"message": (outcome.get("message") or "")[:2000]}),
            }
        )
    outcomes = [test["outcome"] for test in tests]
    counts = {name: outcomes.count(name) for name in ("passed", "failed", "error", "skipped")}
    return {"counts": counts, "tests": tests}


def verdict(counts: dict[str, int]) -> str:
    """``passed``, ``failed``, or ``nothing ran``: skips alone prove nothing."""
    if counts["failed"] or counts["error"]:
        return "failed"
    return "passed" if counts["passed"] else "nothing ran"


def run_tests(command: list[str], junit: Path, paths: list[str]) -> dict[str, Any]:
    status = subprocess.run(
        [*command, "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={junit}", *paths], cwd=ROOT, check=False
    ).returncode
    if not junit.exists():
        return {"verdict": "failed", "exit_status": status}
    report = read_junit(junit)
    found = verdict(report["counts"])
    if found == "passed" and status:  # a sanitizer's finding, or a crash at exit
        found = "failed"
    return {"verdict": found, "exit_status": status, **report}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the reports")
    parser.add_argument("--part", choices=["all", "tests", "sanitizer"], default="all")
    arguments = parser.parse_args()

    python = environment(cuda_driver_version())
    now = datetime.datetime.now(datetime.UTC)
    stamp = now.strftime("%Y%m%d-%H%M%S")
    report: dict[str, Any] = {"date": now.isoformat(timespec="seconds"), **machine(python), "parts": {}}
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    if arguments.part in {"all", "tests"}:
        junit = out / f"gpu-tests-{stamp}.xml"
        report["parts"]["tests"] = run_tests([python, "-m", "pytest"], junit, [])
    if arguments.part in {"all", "sanitizer"}:
        kernel_tests = [f"tests/test_{kernel.stem}.py" for kernel in sorted((ROOT / "kernels").glob("*.cu"))]
        sanitizer = shutil.which(SANITIZER)
        if sanitizer is None:
            print(f"{SANITIZER} is not on PATH (it comes with the CUDA toolkit): that part was not run", flush=True)
            report["parts"]["sanitizer"] = {"verdict": "not run", "reason": f"{SANITIZER} is not on PATH"}
        for tool in SANITIZER_TOOLS if sanitizer and kernel_tests else ():
            command = [sanitizer, "--tool", tool, "--error-exitcode", "99"]
            command += ["--log-file", str(out / f"sanitizer-{tool}-{stamp}.txt"), python, "-c", PYTEST_WITHOUT_POOL]
            junit = out / f"sanitizer-{tool}-{stamp}.xml"
            report["parts"][tool] = run_tests([*command, "-o", "timeout=3600"], junit, kernel_tests)
            junit.unlink(missing_ok=True)

    file = out / f"gpu-{stamp}.json"
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    verdicts = {name: part["verdict"] for name, part in report["parts"].items()}
    print(f"{report['device']}: {verdicts}\n{file}", flush=True)
    left_out = arguments.part == "all" and verdicts.pop("sanitizer", None) is not None  # the tool is optional there
    if not verdicts or any(found != "passed" for found in verdicts.values()):
        sys.exit("make gpu: failed" if not left_out else "make gpu: failed (the sanitizer was not run)")


if __name__ == "__main__":
    main()
