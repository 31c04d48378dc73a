"""What an array library has to offer so that lamella runs on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product, zip_longest
from typing import Any

from .device import Device
from .dtypes import is_half

Array = Any  # numpy.ndarray, cupy.ndarray, or an array type of a registered backend


class DeviceUnavailableError(RuntimeError):
    """A device was asked for that this machine cannot offer; the message says why."""


class MixedDevicesError(ValueError):
    """Arrays of two devices met in one operation; the message names both."""


def stacked_shape(a: Array, b: Array) -> tuple[int, ...]:
    """The leading axes of the product of two stacks of matrices, broadcast as NumPy does.

    Raises:
        ValueError: the operands are not stacks of matrices that fit.
    """
    if a.ndim < 2 or b.ndim < 2 or a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: shapes must be (..., M, K) and (..., K, N), got {a.shape} and {b.shape}")
    lengths = []
    for m, n in zip_longest(reversed(a.shape[:-2]), reversed(b.shape[:-2]), fillvalue=1):
        if m != n and 1 not in (m, n):
            raise ValueError(f"matmul: leading axes must broadcast, got shapes {a.shape} and {b.shape}")
        lengths.append(n if m == 1 else m)
    return tuple(reversed(lengths))


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Bytes of one device's memory, as its backend sees them.

    Args:
        used: bytes in arrays that are alive.
        reserved: bytes that the backend's pool holds, used or free.
        total: bytes of the device; 0 where unknown.
    """

    used: int
    reserved: int
    total: int


class Backend:
    """One array library: creation, movement, products, kernels, memory.

    A subclass is registered once with :func:`register_backend`; it is found again by ``type(array)``.
    Shapes, dtypes and strides follow NumPy. Every method that creates an array takes the device it is created on.

    Attributes:
        name: the device kind it serves, as in ``lamella.device(name)``.
        xp: the array module, with NumPy's function names.
        array_types: the exact array classes that belong to this backend.
        runs_cuda: whether :meth:`compile` works, so that launchers take their CUDA branch.
        multiplies_tf32: whether :meth:`gemm` heeds ``precision("tf32")``.
        uses_hopper: whether launchers choose kernels for compute capability 9.0 alone (wgmma and tile copies). None of
            these has run on hardware, so it is off unless asked for.
    """

    name: str
    xp: Any
    array_types: tuple[type, ...]
    runs_cuda: bool = False
    multiplies_tf32: bool = False
    uses_hopper: bool = False

    # -- devices -------------------------------------------------------------------------------------------------
    def devices(self) -> tuple[Device, ...]:
        """The usable devices of this kind.

        Raises:
            DeviceUnavailableError: there is none; says why.
        """
        raise NotImplementedError

    def device_of(self, array: Array) -> Device:
        """The device on which ``array`` lives."""
        raise NotImplementedError

    def synchronize(self, device: Device) -> None:
        """Wait until everything that was started on ``device`` is done; raises what kernels noted in the meantime."""
        raise NotImplementedError

    def memory(self, device: Device) -> MemoryFigures:
        raise NotImplementedError

    def versions(self) -> dict[str, str]:
        """Names and versions of what this backend stands on, for people: ``{"NumPy": "2.4.6", …}``."""
        return {}

    # -- creation and movement ----------------------------------------------------------------------------------
    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
        raise NotImplementedError

    def asarray(self, value: Any, like: Array | None = None) -> Array:
        """A number, scalar or array as an array of this backend, on the device of ``like``; not copied if it is one."""
        raise NotImplementedError

    def from_numpy(self, array: Any, device: Device) -> Array:
        """A copy of a host array on ``device``; host memory may be reused as soon as this returns."""
        raise NotImplementedError

    def to_numpy(self, array: Array) -> Any:
        """The values as a NumPy array on the host (waits for them)."""
        raise NotImplementedError

    def owner(self, array: Array) -> Any:
        """The object that lives as long as the array's memory: the same for all views of it. Can be held weakly."""
        while hasattr(array.base, "dtype"):  # below the last array may lie a bytearray, which no weakref takes
            array = array.base
        return array

    def address(self, array: Array) -> int:
        """Where the array's first element lies, in bytes."""
        pointer: int = array.data.ptr
        return pointer

    def window(self, array: Array, count: int) -> Array:
        """``count`` elements in a row from the array's first one on, not copied: for kernels that are told strides."""
        raise NotImplementedError

    # -- arithmetic that NumPy and CuPy do not offer under one name ---------------------------------------------
    def gemm(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """The matrix product ``a @ b`` of 2-D arrays, ``(M, K) @ (K, N) -> (M, N)``, the one door for all products."""
        raise NotImplementedError

    def matmul(self, a: Array, b: Array) -> Array:
        """The products of stacks of matrices, ``(..., M, K) @ (..., K, N) -> (..., M, N)``; leading axes broadcast.

        A stack times one matrix is one large :meth:`gemm`. Stacks of 16-bit floats are done matrix by matrix: NumPy
        gives bfloat16 products as float32, CuPy (14.2) copies float16 to float32 and refuses bfloat16.
        """
        if b.ndim == 2:  # not -1: an empty array fits every number of rows
            rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
            return self.gemm(rows, b).reshape(*a.shape[:-1], b.shape[-1])
        dtype = self.xp.result_type(a.dtype, b.dtype)
        if not is_half(dtype):
            return self.xp.matmul(a, b)
        stack = stacked_shape(a, b)
        lefts = self.xp.broadcast_to(a, (*stack, *a.shape[-2:]))
        rights = self.xp.broadcast_to(b, (*stack, *b.shape[-2:]))
        out = self.empty((*stack, a.shape[-2], b.shape[-1]), dtype, self.device_of(a))
        for index in product(*map(range, stack)):
            self.gemm(lefts[index], rights[index], out[index])
        return out

    def sum_rows(self, a: Array, out: Array | None = None) -> Array:
        """The sum over axis 0 of a 2-D array, ``(N, D) -> (D,)``: the gradient of a bias; 16-bit floats in float32."""
        if a.dtype.itemsize > 2:
            return a.sum(axis=0, out=out)
        total = a.sum(axis=0, dtype="float32")
        if out is None:
            return total.astype(a.dtype)
        out[...] = total
        return out

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        """``target[index] += values`` with every duplicate index counted, in place."""
        raise NotImplementedError

    # -- CUDA kernels -------------------------------------------------------------------------------------------
    def shared_memory(self, device: Device) -> int:
        """Bytes of shared memory that one block of a kernel can have on ``device``."""
        raise NotImplementedError(f"the {self.name} backend runs no CUDA kernels")

    def multiprocessors(self, device: Device) -> int:
        """How many multiprocessors ``device`` has: a block of a kernel runs on one of them."""
        raise NotImplementedError(f"the {self.name} backend runs no CUDA kernels")

    def compute_capability(self, device: Device) -> int:
        """What instructions the device has, as 10 * major + minor: 90 for compute capability 9.0; 0 without CUDA."""
        return 0

    def tensor_map(self, array: Array, box: tuple[int, ...]) -> Any:
        """The argument that describes an array to the copy engine of capability 9.0, for tiles of shape ``box``.

        The kernel's launch has to come while the array is alive. Rows begin at multiples of 16 bytes, those of a tile
        have 128.
        """
        raise NotImplementedError(f"the {self.name} backend runs no CUDA kernels")

    def compile(self, code: str, options: tuple[str, ...], device: Device) -> Any:
        """Compile CUDA text; the result's ``get_function(name)`` gives ``kernel(grid, block, args, shared_mem=0)``."""
        raise NotImplementedError(f"the {self.name} backend runs no CUDA kernels")
