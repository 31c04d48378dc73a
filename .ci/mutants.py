"""Do the tests notice a broken kernel? ``make mutants``, ``make mutants N=20``, ``make mutants KERNEL=softmax``.

Breaks one token of a kernel's file at a time (``tests/mutants.py``) and runs that kernel's tests in the simulator,
each in a process of its own: ``judge(file, line)`` of ``tests/test_<stem>_kernels.py`` or of
``tests/test_<stem>.py``, else the quick simulator tests of the latter. A mutant is noticed when a test fails or does
not end; one that does not compile is not counted. Exits with 1 where less than 97 % of the mutants that compute
something else are noticed, where a mutant that is listed as equivalent is noticed, and where the tests fail on the
file as it is. A header that several kernels include is broken too where ``tests/test_<stem>_kernels.py`` judges it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # tests are imported as the package `tests`

from tests.mutants import Mutant, mutants  # noqa: E402

WANTED = 0.97
TIMEOUT = 120.0  # seconds for a mutant that is caught in a loop; the tests of one file take less
NOTICED, INVALID = 3, 4  # exit status of a judge


def judge(broken: Path, kernel: Path, number: int) -> int:
    """Run the kernel's tests against the broken file, in this process; the exit status."""
    from lamella.testing import KernelError

    try:
        for name in (f"test_{kernel.stem}_kernels", f"test_{kernel.stem}"):
            if not (ROOT / f"tests/{name}.py").exists():
                continue
            tests = importlib.import_module(f"tests.{name}")
            if hasattr(tests, "judge"):
                tests.judge(broken, number)
                return 0
        return _run_pytest(broken, kernel)
    except KernelError as error:
        return INVALID if error.kind == "compile" else NOTICED
    except AssertionError:
        return NOTICED


def _run_pytest(broken: Path, kernel: Path) -> int:
    import pytest

    from lamella.backend import source

    paste, compile_errors = source._paste, []
    source._paste = lambda path, seen: paste(broken if path == kernel else path, seen)

    class Watch:
        def pytest_exception_interact(self, call: pytest.CallInfo[object]) -> None:
            if call.excinfo is not None and getattr(call.excinfo.value, "kind", "") == "compile":
                compile_errors.append(call)

    words = ["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not gpu", "-k", "simulator"]
    status = pytest.main([*words, str(ROOT / f"tests/test_{kernel.stem}.py")], plugins=[Watch()])
    if compile_errors:
        return INVALID
    return {pytest.ExitCode.OK: 0, pytest.ExitCode.TESTS_FAILED: NOTICED}.get(status, 1)


def verdict(mutant: Mutant) -> str:
    """``killed``, ``survived``, ``invalid`` (does not compile), or ``broken``: the tests did not run."""
    with tempfile.TemporaryDirectory() as folder:
        return judged_apart(mutant.write(Path(folder)), mutant.file, mutant.number)


def judged_apart(broken: Path, kernel: Path, number: int) -> str:
    """The verdict on a file, from a process of its own."""
    command = [sys.executable, __file__, "--judge", str(broken), str(kernel), str(number)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        answer = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return "killed"
    if answer.returncode < 0:  # a signal: the kernel took the process with it
        return "killed"
    found = {0: "survived", NOTICED: "killed", INVALID: "invalid"}.get(answer.returncode, "broken")
    if found == "broken":
        print(answer.stdout[-2000:], answer.stderr[-2000:], file=sys.stderr)
    return found


def sample(kernels: list[Path], number: int, seed: int) -> list[Mutant]:
    """``number`` mutants drawn from all kernels, or every one where it is 0."""
    everything = [mutant for kernel in kernels for mutant in mutants(kernel)]
    if not number or number >= len(everything):
        return everything
    drawn = random.Random(seed).sample(range(len(everything)), number)
    return [everything[i] for i in sorted(drawn)]


def report(mutant: Mutant, found: str) -> str:
    """One line: what became of a mutant."""
    if mutant.reason is None or found == "invalid":
        return f"{found:10} {mutant}"
    return f"{'equivalent' if found == 'survived' else 'NOTICED   '} {mutant}  ({mutant.reason})"


def complaint(outcomes: list[tuple[Mutant, str]], wanted: float = WANTED) -> str | None:
    """Why the run fails, or None: enough killed, nothing in the list that is noticed, something judged."""
    judged = [found for mutant, found in outcomes if mutant.reason is None and found in {"killed", "survived"}]
    if any(found == "broken" for _, found in outcomes):
        return "tests did not run"
    if any(mutant.reason is not None and found == "killed" for mutant, found in outcomes):
        return "a mutant that is listed as equivalent was noticed: take it from the list"
    if not judged:
        return "nothing was judged"
    if not judged.count("killed") >= wanted * len(judged):
        return f"less than {wanted:.0%} of the mutants were noticed"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=0, help="how many mutants to draw; 0 takes all")
    parser.add_argument("--seed", type=int, default=0, help="chooses them")
    parser.add_argument("--wanted", type=float, default=WANTED, help="part of the mutants that must be noticed")
    parser.add_argument("--kernel", default="", help="a kernel's stem; all kernels without it")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--judge", nargs=3, metavar=("BROKEN", "KERNEL", "LINE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.judge:
        broken, kernel, line = arguments.judge
        sys.exit(judge(Path(broken), Path(kernel), int(line)))

    import lamella.kernels

    folder, wanted = Path(lamella.kernels.__file__).resolve().parent, arguments.kernel or "*"
    headers = [h for h in folder.glob(f"{wanted}.cuh") if (ROOT / f"tests/test_{h.stem}_kernels.py").exists()]
    kernels = sorted([*folder.glob(f"{wanted}.cu"), *headers])
    if not kernels:
        sys.exit(f"make mutants: no kernels/{arguments.kernel or '*'}.cu")
    chosen, start = sample(kernels, arguments.number, arguments.seed), time.monotonic()
    for kernel, number in {mutant.file: mutant.number for mutant in chosen}.items():
        if (found := judged_apart(kernel, kernel, number)) != "survived":
            sys.exit(f"make mutants: the tests of kernels/{kernel.name} do not pass on the file as it is ({found})")
    outcomes = []
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutant, found in zip(chosen, pool.map(verdict, chosen), strict=True):
            outcomes.append((mutant, found))
            print(report(mutant, found), flush=True)
    judged = [found for mutant, found in outcomes if mutant.reason is None and found in {"killed", "survived"}]
    listed = sum(mutant.reason is not None for mutant, _ in outcomes)
    invalid = sum(found == "invalid" for _, found in outcomes)
    print(
        f"{judged.count('killed')} of {len(judged)} mutants noticed; besides these {listed} equivalent, {invalid} that "
        f"do not compile; {time.monotonic() - start:.0f} s, seed {arguments.seed}"
    )
    if (why := complaint(outcomes, arguments.wanted)) is not None:
        sys.exit(f"make mutants: {why}")


if __name__ == "__main__":
    main()
