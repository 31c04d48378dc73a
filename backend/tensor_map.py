"""The descriptor of an array for Hopper's tensor memory accelerator: 128 bytes that a kernel takes by value.

Made by the driver's ``cuTensorMapEncodeTiled``. Unproven: not yet run on hardware.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

import numpy as np

_DTYPES = {"float16": 6, "bfloat16": 9}  # CU_TENSOR_MAP_DATA_TYPE_*
_NO_INTERLEAVE, _SWIZZLE_128, _PROMOTE_256, _FILL_ZEROS = 0, 3, 3, 0
_BYTES, _ALIGNMENT = 128, 64


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


@lru_cache(maxsize=4096)
def encode_tensor_map(
    address: int, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]
) -> np.ndarray:
    """What a kernel takes for a ``const __grid_constant__ TensorMap``: tiles in the swizzle of 128 bytes.

    Args:
        address: of the first element, a multiple of 16.
        dtype: ``"float16"`` or ``"bfloat16"``.
        shape: lengths of 2 to 5 axes.
        strides: in bytes, multiples of 16 along all axes but the last, whose elements lie side by side.
        box: lengths of a tile, at most 256 along each axis; its rows have 128 bytes.
    Raises:
        RuntimeError: the driver does not take these values.
    """
    rank = len(shape)
    storage = ctypes.create_string_buffer(_BYTES + _ALIGNMENT)
    aligned = -(-ctypes.addressof(storage) // _ALIGNMENT) * _ALIGNMENT
    # Along an axis of one element nothing is stepped, and the driver asks for a stride all the same.
    steps = [16 if n == 1 else stride for n, stride in zip(shape[:-1], strides[:-1], strict=True)]
    status = _driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(aligned), _DTYPES[dtype], rank, ctypes.c_void_p(address),
        (ctypes.c_uint64 * rank)(*shape[::-1]), (ctypes.c_uint64 * (rank - 1))(*steps[::-1]),
        (ctypes.c_uint32 * rank)(*box[::-1]), (ctypes.c_uint32 * rank)(*[1] * rank),
        _NO_INTERLEAVE, _SWIZZLE_128, _PROMOTE_256, _FILL_ZEROS,
    )  # fmt: skip
    if status:
        raise RuntimeError(
            f"cuTensorMapEncodeTiled gave error {status} for {dtype} at {address:#x}, shape {shape}, strides {strides} "
            f"in bytes, box {box}"
        )
    return np.frombuffer(ctypes.string_at(aligned, _BYTES), "V128")
