"""The 128-byte argument that describes an array to the tensor memory accelerator, for kernels run on the CPU."""

from __future__ import annotations

import struct

import numpy as np

from .array import SimulatorArray

_MAGIC = 0x70616D656C6974  # simulator_tensor_map in runtime.h
_SWIZZLE_BYTES = 128
_MOST_BOX = 256  # elements along each axis, as cuTensorMapEncodeTiled has it
_MOST_AXES = 4
_DTYPES = ("float16", "bfloat16", "float32")


def make_tensor_map(array: np.ndarray | SimulatorArray, box: tuple[int, ...], *, swizzle: bool = True) -> np.ndarray:
    """What a kernel of :mod:`lamella.testing` takes for a ``const __grid_constant__ TensorMap``.

    The rules are those of ``cuTensorMapEncodeTiled``, which makes this argument for a GPU. The map names the array's
    memory and keeps it from nothing: the array has to live as long as the map is used.

    Args:
        array: two to four axes, of which the last has its elements side by side; float16, bfloat16 or float32.
        box: lengths of one tile along each axis.
        swizzle: 16-byte units of a tile's row change places by the row's number modulo 8, as ``wgmma`` reads them;
            a tile's row then has 128 bytes.
    Raises:
        ValueError: the array or the box breaks a rule of the hardware.
    """
    values = array._values if isinstance(array, SimulatorArray) else array
    if not 2 <= values.ndim <= _MOST_AXES or values.dtype.name not in _DTYPES or 0 in values.shape:
        raise ValueError(
            f"make_tensor_map: array must have 2 to {_MOST_AXES} axes of {', '.join(_DTYPES)} and an element, "
            f"got shape {values.shape} of {values.dtype}"
        )
    address, size = values.ctypes.data, values.itemsize
    # Along an axis of one element nothing is stepped, and the hardware asks for a stride all the same.
    strides = [16 if n == 1 else stride for n, stride in zip(values.shape[:-1], values.strides[:-1], strict=True)]
    if address % 16 or values.strides[-1] != size or any(stride % 16 or stride <= 0 for stride in strides):
        raise ValueError(
            "make_tensor_map: rows must begin at multiples of 16 bytes and have their columns side by side, "
            f"got address {address:#x}, strides {values.strides} and {size}-byte elements"
        )
    if len(box) != values.ndim or not all(1 <= n <= _MOST_BOX for n in box) or box[-1] * size % 16:
        raise ValueError(
            f"make_tensor_map: box must be 1 to {_MOST_BOX} along each of {values.ndim} axes with rows of a multiple "
            f"of 16 bytes, got {box}"
        )
    if swizzle and box[-1] * size != _SWIZZLE_BYTES:
        raise ValueError(
            f"make_tensor_map: a swizzled box has rows of {_SWIZZLE_BYTES} bytes, got {box[-1]} columns of {size} bytes"
        )
    absent = _MOST_AXES - values.ndim
    lengths, steps = [*values.shape[::-1], *[1] * absent], [*strides[::-1], *[0] * absent]
    sides = [*box[::-1], *[1] * absent]
    words = (_MAGIC, address, size, int(swizzle), values.ndim, *lengths, *steps, *sides)
    return np.frombuffer(struct.pack("<16Q", *words), "V128")


def described_memory(tensor_map: np.ndarray) -> tuple[int, int] | None:
    """Address and bytes of the array that a map from :func:`make_tensor_map` describes; None for anything else."""
    magic, address, size, _, _, *rest = struct.unpack("<16Q", tensor_map.tobytes())
    lengths, strides = rest[:4], rest[4:7]
    reach = sum((n - 1) * stride for n, stride in zip(lengths[1:], strides, strict=True))
    return (address, reach + lengths[0] * size) if magic == _MAGIC else None
