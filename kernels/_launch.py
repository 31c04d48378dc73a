"""From plain arrays to a kernel launch: what the launchers of all kernels share.

CuPy checks nothing at a launch: it passes a Python float as double, ignores strides, and cuts an oversized grid. So a
launcher decides everything in a ``Plan``, made of plain numbers, and only then touches the arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ..backend import Array, Backend, backend_of, get_kernel

FLOATS = ("float16", "bfloat16", "float32", "float64")  # what operations take; kernels: see c_type
LARGEST_GRID = 2**31 - 1  # blocks in x; y and z end at 65535, so long directions belong into x
WIDEST_ACCESS = 16  # bytes that one thread loads or stores at once
OWN_SHARED = 1024  # bytes of a block's shared memory left for what a kernel declares itself: sums of its warps

_C_TYPES: dict[np.dtype[Any], str | None] = {
    np.dtype(np.float32): "float",
    np.dtype(np.float16): "half",
    np.dtype(np.float64): None,
}


class Plan(NamedTuple):
    """What runs for some arguments, and why; ``str(plan)`` is the sentence that :func:`explain` gives.

    Attributes:
        kernel: name of the ``__global__`` function, empty where the plain definition runs.
        defines: the macros that make the variant, as :func:`lamella.backend.get_kernel` takes them.
        grid: number of blocks.
        block: number of threads in a block.
        scalars: the kernel's arguments after its arrays, as NumPy scalars of the declared types, or as arrays of one
            struct.
        because: the reason for this choice, and what keeps a faster one away.
        shared: bytes of dynamic shared memory.
    """

    kernel: str
    defines: tuple[str, ...]
    grid: int
    block: int
    scalars: tuple[np.generic | np.ndarray, ...]
    because: str
    shared: int = 0

    def __str__(self) -> str:
        if not self.kernel:
            return f"plain array definition: {self.because}"
        return f"{self.kernel} [{' '.join(self.defines)}], {self.grid} blocks of {self.block} threads: {self.because}"


class Plans(tuple[Plan, ...]):
    """Plans that run one after the other; ``str(plans)`` names each."""

    __slots__ = ()

    def __str__(self) -> str:
        return "; then ".join(map(str, self))

    @classmethod
    def definition(cls, because: str) -> Plans:
        """Those that launch nothing."""
        return cls((definition_plan(because),))

    def after(self, before: str) -> Plans:
        """The same, with something to say before the reason of the first."""
        return Plans((self[0]._replace(because=before + self[0].because), *self[1:]))


class DeviceSize(NamedTuple):
    """What of a device decides between variants.

    Attributes:
        shared: bytes of shared memory that one block can have.
        multiprocessors: how many there are.
    """

    shared: int
    multiprocessors: int


def size_of_device(array: Array) -> DeviceSize:
    """Of the CUDA device on which ``array`` lives."""
    backend = backend_of(array)
    device = backend.device_of(array)
    return DeviceSize(backend.shared_memory(device), backend.multiprocessors(device))


def definition_plan(because: str) -> Plan:
    """The plan that launches nothing."""
    return Plan("", (), 0, 0, (), because)


def no_cuda(backend: Backend) -> str:
    """Why nothing is launched for arrays of a backend without CUDA."""
    return f"the {backend.name} backend runs no CUDA kernels"


def no_kernel_for(dtype: np.dtype[Any]) -> str:
    """Why nothing is launched for a dtype that :func:`c_type` does not know."""
    return f"there is no kernel for {dtype}, only for float32, float16 and bfloat16"


def c_type(dtype: np.dtype[Any]) -> str | None:
    """The element type's name in the kernel sources, or None where kernels do not take it."""
    try:
        return _C_TYPES[dtype]
    except KeyError:  # bfloat16 is not NumPy's own: known by name, so that nothing has to be imported for it
        return _C_TYPES.setdefault(dtype, "bfloat16" if dtype.name == "bfloat16" else None)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether operations take this dtype: one of FLOATS. A name is slow to ask for."""
    return c_type(dtype) is not None or dtype.name in FLOATS


def same_alignment(*arrays: Array) -> bool:
    """Whether all addresses agree modulo the widest access: rows then have their 16-byte boundaries alike."""
    address = backend_of(arrays[0]).address
    first = address(arrays[0]) % WIDEST_ACCESS
    for array in arrays[1:]:  # noqa: SIM110 (a generator would cost more than its few steps)
        if address(array) % WIDEST_ACCESS != first:
            return False
    return True


def aligned(*arrays: Array) -> bool:
    """Whether every array starts on a boundary of the widest access."""
    address = backend_of(arrays[0]).address
    for array in arrays:  # noqa: SIM110 (likewise)
        if address(array) % WIDEST_ACCESS:
            return False
    return True


def elements_at_a_time(dtype: np.dtype[Any], is_aligned: bool, *lengths: tuple[int, str]) -> tuple[int, str]:
    """How many neighbours one access takes: as many as it holds, where every length is a multiple of that; or 1.

    Args:
        is_aligned: whether all arrays start on a boundary of the widest access.
        lengths: of lines that lie beside each other, and what they are lengths of.
    Returns:
        the number, and why it is 1, or nothing.
    """
    vector = WIDEST_ACCESS // dtype.itemsize
    if not is_aligned:
        return 1, "an array does not start on a 16-byte boundary"
    for length, what in lengths:
        if length % vector:
            return 1, f"the {length} {what} are no multiple of {vector}"
    return vector, ""


def contiguous(backend: Backend, array: Array) -> Array:
    """The array itself (or None), or a C-contiguous copy: kernels see a pointer and no strides."""
    return array if array is None or array.flags.c_contiguous else backend.xp.ascontiguousarray(array)


def blocks(kernel: str, items: int, per_block: int) -> int:
    """The number of blocks that cover ``items``.

    Raises:
        ValueError: more blocks than a grid can have.
    """
    count = -(-items // per_block)
    if count > LARGEST_GRID:
        raise ValueError(f"{kernel}: a grid has at most {LARGEST_GRID} blocks, these arrays need {count}; split them")
    return count


def stream_place(key: int, offset: int) -> tuple[np.uint64, np.uint64, np.int32]:
    """Where random words begin, as kernels that include ``philox.cuh`` take it: the members of its Stream.

    Args:
        key, offset: what :meth:`lamella.Generator.reserve` gave.
    """
    return np.uint64(key), np.uint64(offset >> 2), np.int32(offset & 3)


_NULL = np.uint64(0)  # CuPy passes None as the address 0xffffffff (cupy issue 9046), a number as it is


def launch(source: Path, plan: Plan, backend: Backend, *arrays: Array | None) -> None:
    """Run a plan's kernel on dense arrays of one device, then return without waiting for it.

    Args:
        arrays: the kernel's first arguments; None is a null pointer, but not as the first of them.
    """
    kernel = get_kernel(source, plan.kernel, plan.defines, arrays[0])
    arguments = (*[_NULL if array is None else array for array in arrays], *plan.scalars)
    if len(backend.devices()) == 1:
        _start(kernel, plan, arguments)
    else:
        with arrays[0].device:  # type: ignore[union-attr]  # a kernel runs on the current device, not on its arrays'
            _start(kernel, plan, arguments)


def _start(kernel: Any, plan: Plan, arguments: tuple[Any, ...]) -> None:
    """On the current device: a kernel's limit of shared memory is that device's, too."""
    if plan.shared:
        kernel.max_dynamic_shared_size_bytes = plan.shared
    kernel((plan.grid,), (plan.block,), arguments, shared_mem=plan.shared)


_explained: dict[str, Callable[..., Plan | Plans]] = {}
Select = TypeVar("Select", bound=Callable[..., Plan | Plans])


def explained(operation: str) -> Callable[[Select], Select]:
    """Make a launcher's selector answer for ``explain(operation, …)``."""

    def register(select: Select) -> Select:
        _explained[operation] = select
        return select

    return register


def explain(operation: str, *arrays: Array, **options: Any) -> str:
    """Which kernel runs for these arguments, and why not a faster one: ``explain("softmax", x, axis=0)``.

    Asks the launcher's own selector, so the answer is what a call with these arguments does.

    Args:
        operation: a function of :mod:`lamella.kernels`, by name.
        arrays: its arrays.
        options: its other arguments.
    Raises:
        ValueError: there is no such operation; lists those that there are.
    """
    select = _explained.get(operation)
    if select is None:
        known = ", ".join(map(repr, sorted(_explained)))
        raise ValueError(f"explain: operation must be one of {known}, got {operation!r}")
    return str(select(*arrays, **options))
