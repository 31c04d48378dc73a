"""The 128-byte argument that describes a matrix to the tensor memory accelerator, for kernels run on the CPU."""

from __future__ import annotations

import struct

import numpy as np

from .array import SimulatorArray

_MAGIC = 0x70616D656C6974  # simulator_tensor_map in runtime.h
_SWIZZLE_BYTES = 128
_MOST_BOX = 256  # elements along each axis, as cuTensorMapEncodeTiled has it
_DTYPES = ("float16", "bfloat16", "float32")


def make_tensor_map(array: np.ndarray | SimulatorArray, box: tuple[int, int], *, swizzle: bool = True) -> np.ndarray:
    """What a kernel of :mod:`lamella.testing` takes for a ``const __grid_constant__ TensorMap``.

    The rules are those of ``cuTensorMapEncodeTiled``, which makes this argument for a GPU. The map names the array's
    memory and keeps it from nothing: the array has to live as long as the map is used.

    Args:
        array: a matrix ``(rows, columns)`` whose columns lie side by side; float16, bfloat16 or float32.
        box: rows and columns of one tile.
        swizzle: 16-byte units of a tile's row change places by the row's number modulo 8, as ``wgmma`` reads them;
            a tile's row then has 128 bytes.
    Raises:
        ValueError: the array or the box breaks a rule of the hardware.
    """
    values = array._values if isinstance(array, SimulatorArray) else array
    if values.ndim != 2 or values.dtype.name not in _DTYPES or 0 in values.shape:
        raise ValueError(
            f"make_tensor_map: array must be a matrix of {', '.join(_DTYPES)}, "
            f"got shape {values.shape} of {values.dtype}"
        )
    address, (row_bytes, step), size = values.ctypes.data, values.strides, values.itemsize
    if address % 16 or step != size or row_bytes % 16 or row_bytes < values.shape[1] * size:
        raise ValueError(
            "make_tensor_map: rows must begin at multiples of 16 bytes and have their columns side by side, "
            f"got address {address:#x}, strides {values.strides} and {size}-byte elements"
        )
    rows, columns = box
    if not (1 <= rows <= _MOST_BOX and 1 <= columns <= _MOST_BOX) or columns * size % 16:
        raise ValueError(
            f"make_tensor_map: box must be 1 to {_MOST_BOX} along each axis with rows of a multiple of 16 bytes, "
            f"got {box}"
        )
    if swizzle and columns * size != _SWIZZLE_BYTES:
        raise ValueError(
            f"make_tensor_map: a swizzled box has rows of {_SWIZZLE_BYTES} bytes, got {columns} columns of {size} bytes"
        )
    height, width = values.shape
    words = (_MAGIC, address, width, height, row_bytes, columns, rows, size, int(swizzle), *[0] * 7)
    return np.frombuffer(struct.pack("<16Q", *words), "V128")


def described_memory(tensor_map: np.ndarray) -> tuple[int, int] | None:
    """Address and bytes of the matrix that a map from :func:`make_tensor_map` describes; None for anything else."""
    magic, address, width, height, row_bytes, _, _, size, *_ = struct.unpack("<16Q", tensor_map.tobytes())
    return (address, (height - 1) * row_bytes + width * size) if magic == _MAGIC else None
