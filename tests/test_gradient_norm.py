"""The norm of many arrays and their shortening: against float64, bit for bit again, and nothing waited for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.testing
from lamella import kernels
from lamella.backend import Device, backend_for, read_source
from lamella.testing import run_kernel
from lamella.training import SGD, Adam, AdamW, clip_grad_norm

from .kernel_heads import KERNELS, Variant, variants

SOURCE = KERNELS / "gradient_norm.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}


def run_variant(text: str, defines: tuple[str, ...], sizes: Any, seeds: Any = (0,)) -> None:
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"])
    for size in sizes:
        rng = np.random.default_rng(size)
        x = rng.standard_normal(size).astype(dtype)
        exact = x.astype(np.float64)
        blocks = 2 if size > 256 * vector else 1
        partial = np.full(blocks + 1, 7.0, np.float32)
        run_kernel(text, "square_sum", (blocks,), (256,), (x, partial, np.int64(size)), defines=defines, seeds=seeds)
        np.testing.assert_allclose(partial[:-1].sum(), (exact**2).sum(), rtol=4e-7 * math.log2(size + 2))
        assert partial[-1] == 7.0
        if blocks == 2:
            assert partial[:2].min() > 0.3 * partial[:2].max(), "the blocks share the work"
        clip = np.array([9.0, 0.3], np.float32)
        plain = x.astype(np.float32) * clip[1]
        run_kernel(text, "scale", (blocks,), (256,), (x, clip, np.int64(size)), defines=defines, seeds=seeds)
        np.testing.assert_array_equal(x, plain.astype(dtype))
    for count in (1, 256, 600):
        partial = np.random.default_rng(count).random(count).astype(np.float32)
        norm = math.sqrt(partial.astype(np.float64).sum())
        for max_norm in (norm / 2, norm * (1 - 1e-3), 3 * norm):
            result = np.full(2, np.nan, np.float32)
            arguments = (partial, result, np.int32(count), np.float32(max_norm))
            run_kernel(text, "clip_factor", (1,), (256,), arguments, defines=defines, seeds=seeds)
            np.testing.assert_allclose(result, [norm, min(1.0, max_norm / (norm + 1e-6))], rtol=4e-6)
    for value, expected in ((math.nan, [math.nan, math.nan]), (math.inf, [math.inf, 0.0]), (0.0, [0.0, 1.0])):
        result = np.full(2, 5.0, np.float32)
        arguments = (np.array([value], np.float32), result, np.int32(1), np.float32(1e-9 if value else 2e-6))
        run_kernel(text, "clip_factor", (1,), (256,), arguments, defines=defines, seeds=seeds)
        np.testing.assert_array_equal(result, np.array(expected, np.float32))
    small = np.full(2, 5.0, np.float32)  # the 1e-6 shows
    arguments = (np.zeros(1, np.float32), small, np.int32(1), np.float32(1e-7))
    run_kernel(text, "clip_factor", (1,), (256,), arguments, defines=defines, seeds=seeds)
    np.testing.assert_allclose(small, [0.0, 0.1], rtol=1e-6)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, id=str(v), marks=() if "DTYPE=bfloat16" in v.defines else pytest.mark.slow)
        for v in variants(SOURCE)
    ],
)
def test_a_variant_is_right(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines, (1, 31, 33, 1024, 4097, 50257))


def judge(broken: Path, number: int) -> None:
    """`make mutants` calls this."""
    for defines in (("DTYPE=float", "VECTOR=4"), ("DTYPE=half", "VECTOR=8")):
        run_variant(read_source(broken), defines, (1, 3, 11, 4101))


def norm64(arrays: list[Any]) -> float:
    return math.sqrt(sum((a.astype(np.float64) ** 2).sum() for a in arrays))


@pytest.mark.parametrize(
    "dtype", [np.float32, np.float64, ml_dtypes.bfloat16, pytest.param(np.float16, marks=pytest.mark.slow)]
)
def test_the_norm_of_several_arrays(dtype: Any, device: Device) -> None:
    backend = backend_for(device)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n).astype(dtype) for n in (1, 33, 9000)]
    on = [backend.from_numpy(a, device) for a in arrays]
    norm = kernels.gradient_norm(on)
    assert norm.shape == ()
    np.testing.assert_allclose(backend.to_numpy(norm), norm64(arrays), rtol=1e-6)
    record = kernels.clip_record(on, 5.0)
    for g in on:
        kernels.scale_by(g, record)
    factor = 5.0 / (norm64(arrays) + 1e-6)
    for g, before in zip(on, arrays, strict=True):
        scaled = backend.to_numpy(g).astype(np.float64)
        # half a unit in the last place of a rounded product, and of the factor
        spacing = {2: 2.0**-8, 4: 2.0**-22, 8: 2.0**-50}[np.dtype(dtype).itemsize]
        np.testing.assert_allclose(scaled, before.astype(np.float64) * factor, rtol=spacing, atol=1e-7)


@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_a_step_with_max_norm_is_clipping_and_a_step(kind: Any, max_norm: float, device: Device) -> None:
    both = []
    for at_once in (True, False):
        values = [np.sin(np.arange(n, dtype="float32")) for n in (5, 40)]
        parameters = [lamella.Parameter(lamella.tensor(v, device=device).data) for v in values]
        optimizer = kind([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.02}], lr=0.1)
        norms = []
        for step in (1, 2):
            for p in parameters:
                p.grad = p.data * step
            if at_once:
                norms.append(float(optimizer.step(max_norm=max_norm)))
            else:
                norms.append(float(clip_grad_norm(optimizer, max_norm)))
                assert optimizer.step() is None
        both.append((norms, [p.to_numpy() for p in parameters]))
    np.testing.assert_array_equal(both[0][0], both[1][0])
    for a, b in zip(both[0][1], both[1][1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_clipped_step_is_three_launches_and_waits_for_nothing() -> None:
    with lamella.testing.simulator() as sim:
        ones = (np.ones(n, "float32") for n in (5, 40))
        parameters = [lamella.Parameter(lamella.tensor(x, device="simulator").data) for x in ones]
        optimizer = AdamW(parameters)
        for p in parameters:
            p.grad = p.data * 2
        sim.reset()
        norm = optimizer.step(max_norm=1.0)
        assert dict(sim.launches) == {"square_sum": 1, "clip_factor": 1, "adam_step": 1}
        assert sim.synchronizations == 0
        assert abs(float(norm) - 2 * math.sqrt(45)) <= 1e-5


def test_max_norm_without_gradients_is_norm_zero_and_a_wrong_one_is_refused() -> None:
    optimizer = SGD([lamella.Parameter(np.ones(2, "float32"))])
    assert float(optimizer.step(max_norm=1.0)) == 0.0
    with pytest.raises(ValueError, match=r"SGD.step: max_norm must be above 0, got -1"):
        optimizer.step(max_norm=-1)


def test_explain_says_how_or_why_not() -> None:
    x = np.ones(8, "float32")
    assert "runs no CUDA kernels" in kernels.explain("gradient_norm", [x])
    with lamella.testing.simulator() as sim:
        on = sim.from_numpy(x)
        assert "partial sums of 2 arrays, one launch each" in kernels.explain("gradient_norm", [on, on])
        assert "no kernel for float64" in kernels.explain("gradient_norm", [on, sim.from_numpy(np.ones(3))])
        assert "not contiguous" in kernels.explain("gradient_norm", [on[::2]])
        assert "several devices" in kernels.explain("gradient_norm", [on, x])
