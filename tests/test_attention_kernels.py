"""The attention kernels executed on the CPU: tiles and their edges, every variant, strides; and what judges a broken one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lamella import kernels, precision
from lamella.backend import backend_for, get_kernel
from lamella.kernels import attention_cuda
from lamella.testing import SimulatorBackend, simulator

from .test_attention import boolean, minus_infinity, normal, oracle

BF16 = np.dtype(ml_dtypes.bfloat16)
_UNITS = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}  # last places of 1
_TF32 = 2.0**-10


@contextmanager
def _seeds(seed: int, source: Path = attention_cuda._SOURCE) -> Iterator[None]:
    """The kernels of ``source``, in the order of blocks, warps and lanes that ``seed`` gives."""
    before, launch = attention_cuda._SOURCE, attention_cuda.launch

    def seeded(path: Path, plan: Any, backend: Any, *arrays: Any) -> None:
        get_kernel(path, plan.kernel, plan.defines, arrays[0]).seed = seed
        launch(path, plan, backend, *arrays)

    attention_cuda._SOURCE, attention_cuda.launch = source, seeded
    try:
        yield
    finally:
        attention_cuda._SOURCE, attention_cuda.launch = before, launch


def _rounded(a: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return a.astype(dtype).astype(np.float64)


def _arrays(dtype: Any, b: int, h: int, hk: int, tq: int, tk: int, d: int, dv: int) -> list[np.ndarray]:
    shapes = [(b, h, tq, d), (b, hk, tk, d), (b, hk, tk, dv), (b, h, tq, dv)]
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


def _check_forward(sim: SimulatorBackend, arrays: list[Any], options: dict[str, Any], unit: float) -> None:
    """Values and lse of arrays on the host against float64, within the rounding of the weights and of the result."""
    q, k, v, _ = arrays
    expected, lse64 = oracle(*arrays, **options)[:2]
    given = {name: sim.from_numpy(a) if isinstance(a, np.ndarray) else a for name, a in options.items()}
    out, lse = kernels.attention(*(sim.from_numpy(a) for a in (q, k, v)), **given, return_lse=True)
    assert out.dtype == q.dtype
    out, lse = sim.to_numpy(out).astype(np.float64), sim.to_numpy(lse)
    assert np.abs(out - expected).max() <= 2 * unit * max(1.0, np.abs(expected).max())
    np.testing.assert_array_equal(np.isneginf(lse), np.isneginf(lse64))
    finite = np.isfinite(lse64)
    assert np.abs(lse - lse64)[finite].max(initial=0) <= max(1e-5, unit if unit == _TF32 else 0)
