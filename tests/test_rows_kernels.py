"""What judges a broken ``rows.cuh``: kernels of two files that walk along rows by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lamella.backend import read_source
from lamella.testing import KernelError

from . import test_reduce_kernels, test_softmax_kernels
from .kernel_heads import KERNELS

_SOFTMAX = (
    "REGISTERS DTYPE=float VECTOR=4 THREADS=8 PACKS=2",
    "REGISTERS DTYPE=float VECTOR=1 THREADS=1 PACKS=2",
    "STREAMED DTYPE=half VECTOR=8 THREADS=128 PACKS=2 CACHED=0",
)
_REDUCE = ("ROWS DTYPE=float VECTOR=4 THREADS=8 PACKS=2",)


def judge(broken: Path, number: int) -> None:
    """Run small variants of the kernels that include a changed file; an exception says that a change was noticed."""
    for tests, stem, variants in (
        (test_softmax_kernels, "softmax", _SOFTMAX),
        (test_reduce_kernels, "reduce", _REDUCE),
    ):
        source = broken.with_name(f"{stem}.cu")
        if not source.exists():
            shutil.copy(KERNELS / source.name, source)
        for defines in variants:
            tests.run_variant(read_source(source), tuple(defines.split()), seeds=(0, 1))


def test_the_judge_hears_of_a_broken_file_and_accepts_it_as_it_is(tmp_path: Path) -> None:
    for file in KERNELS.glob("*.cuh"):
        shutil.copy(file, tmp_path)
    judge(tmp_path / "rows.cuh", 1)
    (tmp_path / "broken").mkdir()
    right, wrong = "return start + head + ", "return start + head + 1 + "  # a pack that begins one element too late
    for file in tmp_path.glob("*.cuh"):
        text = file.read_text(encoding="utf-8")
        assert file.name != "rows.cuh" or text.count(right) == 1
        (tmp_path / "broken" / file.name).write_text(text.replace(right, wrong), encoding="utf-8")
    with pytest.raises((AssertionError, KernelError)):
        judge(tmp_path / "broken" / "rows.cuh", 1)
