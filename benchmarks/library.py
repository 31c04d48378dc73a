"""A library that takes part in a comparison on the CPU: here in this process, or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from .case import Case
from .suite import stem_of
from .worker import Station


class LibraryError(Exception):
    """A library could not do what it was asked; the message is its own."""


class Here:
    """lamella in this process."""

    def __init__(self, threads: int) -> None:
        self._station = Station("lamella", threads)
        self.version = ""

    def set_up(self, case: Case, contender: str, dtype: str) -> tuple[list[Any], int]:
        """The first results of a case; memory is not told, since everything else shares this process."""
        try:
            results, _ = self._station.set_up(case, contender, dtype)
            self.repeats = self._station.repeats()
        except Exception as error:
            raise LibraryError(f"{type(error).__name__}: {error}") from error
        return results, 0

    def sample(self) -> tuple[float, float]:
        """Seconds of one run, and of the yardstick beside it."""
        return self._station.sample(self.repeats)

    def close(self) -> None:
        """Nothing was opened."""


class Apart:
    """A library in a process of its own, spoken to by lines of JSON.

    Args:
        python: an interpreter that has it, and NumPy.
        library: ``"lamella"``, ``"numpy"`` or ``"torch"``.
        threads: that it may use.
    Raises:
        LibraryError: it cannot be imported there; says why.
    """

    def __init__(self, python: str, library: str, threads: int) -> None:
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self._folder = tempfile.TemporaryDirectory(prefix="lamella-bench-")
        try:
            self._process = subprocess.Popen(
                [python, str(Path(__file__).with_name("worker.py")), library, str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env={**os.environ, **dict.fromkeys(variables, str(threads)), "PYTHONIOENCODING": "utf-8"},
                start_new_session=True,  # Ctrl-C is for the one who prints the table
            )
        except OSError as error:
            self._folder.cleanup()
            raise LibraryError(f"{python} cannot be started: {error}") from error
        try:
            self.version = self._answer()["version"]
        except LibraryError:
            self.close()
            raise

    def _answer(self) -> dict[str, Any]:
        while self._process.stdout is not None and (line := self._process.stdout.readline()):
            if line.startswith("@"):  # a library may print what it likes
                answer: dict[str, Any] = json.loads(line[1:])
                if "error" in answer:
                    raise LibraryError(answer["error"])
                return answer
        raise LibraryError(f"the process ended with exit status {self._process.wait()}")

    def _ask(self, **order: Any) -> dict[str, Any]:
        try:
            print(json.dumps(order), file=self._process.stdin, flush=True)
        except OSError as error:
            raise LibraryError(f"the process ended with exit status {self._process.wait()}") from error
        return self._answer()

    def set_up(self, case: Case, contender: str, dtype: str) -> tuple[list[Any], int]:
        """The first results of a case of the suite, and the peak of memory above what the imports took."""
        answer = self._ask(
            stem=stem_of(case), name=case.name, contender=contender, dtype=dtype, folder=self._folder.name
        )
        self.repeats = answer["repeats"]
        return [np.load(file, allow_pickle=False) for file in answer["files"]], answer["peak"]

    def sample(self) -> tuple[float, float]:
        """Seconds of one run, and of the yardstick beside it."""
        run, yardstick = self._ask(repeats=self.repeats)["seconds"]
        return run, yardstick

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()
