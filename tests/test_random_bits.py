"""Random words by a kernel: the bits that the host computes, wherever in the stream, in one launch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella.testing
from lamella.backend import Device, Generator, backend_for, random_bits, read_source
from lamella.testing import run_kernel

from .kernel_heads import KERNELS

SOURCE = KERNELS / "random_bits.cu"
KEY = 0xFEDCBA9876543210
PLACES = [(0, 1), (1, 4), (2, 7), (3, 64), (4 * (2**32 - 2) + 1, 40), (2**66 - 33, 33)]


def run(text: str, seeds: Any = (0,)) -> None:
    for offset, count in PLACES:
        words = np.full(count + 2, 7, np.uint32)
        scalars = (np.uint64(KEY), np.uint64(offset // 4), np.int32(offset % 4), np.int64(count))
        run_kernel(text, "random_bits", (-(-count // 32),), (8,), (words, *scalars), defines=("WORDS=4",), seeds=seeds)
        np.testing.assert_array_equal(words[:-2], random_bits(KEY, offset, count))
        np.testing.assert_array_equal(words[-2:], 7)


def test_the_words_are_those_of_the_host() -> None:
    run(read_source(SOURCE), seeds=(0, 1))


def judge(broken: Path, number: int) -> None:
    """`make mutants` calls this."""
    run(read_source(broken))


@pytest.mark.parametrize(("offset", "count"), [*PLACES, (5, 0), (6, 3000)])
def test_a_device_gives_the_same_words_in_one_launch(offset: int, count: int, device: Device) -> None:
    backend = backend_for(device)
    words = random_bits(KEY, offset, count, device)
    if isinstance(backend, lamella.testing.SimulatorBackend):
        assert backend.launches["random_bits"] == bool(count)
        assert not backend.operations
    assert words.dtype == np.uint32
    np.testing.assert_array_equal(backend.to_numpy(words), random_bits(KEY, offset, count))


def test_a_generator_uses_it() -> None:
    with lamella.testing.simulator() as sim:
        uniform = Generator(3).uniform((5, 7), device="simulator")
        assert sim.launches["random_bits"] == 1
        np.testing.assert_array_equal(sim.to_numpy(uniform), Generator(3).uniform((5, 7)))
