"""Matrix products, single and in stacks, through the backend's door and, on CUDA, through the cuBLASLt binding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lamella.backend import Backend, Device, as_dtype, backend_for

SHAPES = [((512, 512), (512, 512)), ((4096, 1024), (1024, 1024)), ((32, 128, 64), (32, 64, 128))]
ROUNDING = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}


@pytest.fixture(params=["default", "cublaslt"])
def backend(request: pytest.FixtureRequest, device: Device) -> Backend:
    """The backend that multiplies; asked for before ``measure``, which a skipped benchmark must not have begun."""
    if request.param == "default":
        return backend_for(device)
    if device.kind != "cuda":
        pytest.skip("cuBLASLt is for CUDA devices")
    from lamella.backend.cupy_backend import CupyBackend  # not before a device has answered

    return CupyBackend(use_cublaslt=True)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def bench_matmul(
    left: tuple[int, ...],
    right: tuple[int, ...],
    dtype: str,
    device: Device,
    backend: Backend,
    measure: Callable[..., None],
) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape, dtype=np.float32).astype(as_dtype(dtype)) for shape in (left, right))
    x, y = (backend.from_numpy(values, device) for values in (a, b))
    expected = a.astype(np.float64) @ b.astype(np.float64)
    bound = (ROUNDING[dtype] + 2.0**-23 * left[-1] ** 0.5) * np.abs(expected).max()
    measure(lambda: backend.matmul(x, y), expected, atol=bound)
