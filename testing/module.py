"""CUDA kernels run on the CPU with the call shape of ``cupy.RawModule``: compile, look up, check the launch, run."""

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import read_source
from .array import SimulatorArray
from .compiler import KernelInfo, Library, compile_cuda
from .errors import KernelError
from .tensor_map import described_memory

_CHECK_RACES, _CHECK_UNINITIALIZED, _SHUFFLE_ORDER = 1, 2, 4
_DEFAULT_SHARED, MOST_SHARED = 48 << 10, 227 << 10  # bytes; the second is what one block can have on sm_90
_MOST_THREADS, _MOST_GRID = 1024, ((1 << 31) - 1, 65535, 65535)
_MOST_BLOCK = (1024, 1024, 64)
_FRAMES = 16
_ARGUMENT = re.compile(r"argument (\d+)")
_one_at_a_time = threading.RLock()  # the runtime keeps its state in globals


class _Buffer(ctypes.Structure):
    _fields_ = (
        ("begin", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("writable", ctypes.c_uint32),
        ("argument", ctypes.c_uint32),
    )


class _Launch(ctypes.Structure):  # SimulatorLaunch in runtime.cpp
    _fields_ = (
        ("call", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
        ("touch_shared", ctypes.c_void_p),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("dynamic_shared", ctypes.c_size_t),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_size_t),
        ("seed", ctypes.c_uint64),
        ("step_limit", ctypes.c_uint64),
        ("checks", ctypes.c_uint32),
        ("failed", ctypes.c_uint32),
        ("has_thread", ctypes.c_uint32),
        ("block_at", ctypes.c_uint32 * 3),
        ("thread_at", ctypes.c_uint32 * 3),
        ("image_base", ctypes.c_uint64),
        ("image_begin", ctypes.c_uint64),
        ("image_end", ctypes.c_uint64),
        ("frames", ctypes.c_uint64 * _FRAMES),
        ("other_pc", ctypes.c_uint64),
        ("accesses", ctypes.c_uint64),
        ("switches", ctypes.c_uint64),
        ("steps", ctypes.c_uint64),
        ("kind", ctypes.c_char * 32),
        ("message", ctypes.c_char * 512),
    )


class RawModule:
    """CUDA source text compiled for the CPU; stands in for ``cupy.RawModule``.

    Args:
        code: the source. Kernels are found where they are declared ``extern "C" __global__ void name(…)``.
        options: compiler options; ``-D``, ``-U`` and ``-I`` count.
        device_arrays_only: refuse NumPy arrays as kernel arguments, as CuPy does.
        on_launch: called with the kernel's name at each launch.
    Raises:
        KernelError: the source does not compile, or no C++ compiler is installed.
    """

    def __init__(
        self,
        code: str,
        *,
        options: Sequence[str] = (),
        device_arrays_only: bool = False,
        on_launch: Callable[[str], None] | None = None,
    ) -> None:
        self._library = compile_cuda(code, tuple(options))
        self._device_arrays_only, self._on_launch = device_arrays_only, on_launch

    @property
    def names(self) -> tuple[str, ...]:
        """The kernels that the source declares."""
        return tuple(self._library.kernels)

    def get_function(self, name: str) -> Kernel:
        """The kernel ``name``, to be called as ``kernel(grid, block, args, shared_mem=0)``."""
        info = self._library.kernels.get(name)
        if info is None:
            known = ", ".join(self.names) or "none"
            raise KernelError(
                f'the source declares no kernel extern "C" __global__ void {name}(…); it declares: {known}',
                kind="compile",
            )
        return Kernel(name, info, self._library, self._device_arrays_only, self._on_launch)


class Kernel:
    """One kernel, run by a call.

    Attributes:
        max_dynamic_shared_size_bytes: the most ``shared_mem`` a launch may ask for; to be raised beyond 48 KiB.
        seed: chooses the order in which blocks, warps and lanes run.
        step_limit: basic blocks that all threads together may run before the launch counts as endless.
        check_races: report unordered accesses to one address (the default).
        statistics: checked ``accesses``, thread ``switches`` and ``steps`` of the last launch.
    """

    def __init__(
        self,
        name: str,
        info: KernelInfo,
        library: Library,
        device_arrays_only: bool,
        on_launch: Callable[[str], None] | None,
    ) -> None:
        self.name = name
        self.seed, self.step_limit, self.check_races = 0, 100_000_000, True
        self.statistics: dict[str, int] = {}
        self._info, self._library = info, library
        self._device_arrays_only, self._on_launch = device_arrays_only, on_launch
        self._most_shared = _DEFAULT_SHARED

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._most_shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        if not 0 <= value <= MOST_SHARED:
            raise self._refuse(f"max_dynamic_shared_size_bytes must be at most {MOST_SHARED} (227 KiB), got {value}")
        self._most_shared = int(value)

    def __call__(self, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared_mem: int = 0) -> None:
        """Run the kernel to its end.

        Args:
            grid: number of blocks, one to three axes.
            block: threads in each block, one to three axes.
            args: device arrays, NumPy scalars of exactly the declared types, ``None`` or ``numpy.uint64(0)`` for a null
                pointer, where only device arrays are taken the latter alone.
            shared_mem: bytes of dynamic shared memory.
        Raises:
            KernelError: the launch is refused, or the kernel has a bug that showed.
        """
        launch = _Launch()
        launch.grid[:] = self._extent("grid", grid, _MOST_GRID)
        launch.block[:] = self._extent("block", block, _MOST_BLOCK)
        threads = launch.block[0] * launch.block[1] * launch.block[2]
        if threads > self._info.max_threads:
            rule = (
                "1024"
                if self._info.max_threads == _MOST_THREADS
                else f"its __launch_bounds__ of {self._info.max_threads}"
            )
            raise self._refuse(f"block must have at most {rule} threads, got {tuple(block)} = {threads}")
        if not 0 <= shared_mem <= self._most_shared:
            raise self._refuse(
                f"shared_mem must be at most max_dynamic_shared_size_bytes={self._most_shared}, got {shared_mem}; "
                f"set that attribute first to have up to {MOST_SHARED}"
            )
        pointers, buffers, keep_alive = self._arguments(args)
        launch.call = self._library.address(f"simulator_call_{self._info.index}")
        launch.touch_shared = self._library.address("simulator_touch_shared")
        launch.arguments = ctypes.addressof(pointers)
        launch.buffers, launch.buffer_count = buffers, len(buffers)
        launch.dynamic_shared, launch.seed, launch.step_limit = shared_mem, self.seed, self.step_limit
        launch.checks = _CHECK_UNINITIALIZED | _SHUFFLE_ORDER | (_CHECK_RACES if self.check_races else 0)
        if self._on_launch is not None:
            self._on_launch(self.name)
        with _one_at_a_time:
            self._library.runtime.simulator_launch(ctypes.byref(launch))
        del keep_alive
        self.statistics = {"accesses": launch.accesses, "switches": launch.switches, "steps": launch.steps}
        if launch.failed:
            raise self._error(launch)

    # -- checks before the launch: what a GPU would turn into garbage --------------------------------------------
    def _refuse(self, message: str) -> KernelError:
        return KernelError(f"{self.name}: {message}", kind="launch", kernel=self.name)

    def _extent(self, what: str, given: Sequence[int], most: tuple[int, int, int]) -> tuple[int, int, int]:
        if not isinstance(given, tuple | list) or not 1 <= len(given) <= 3:
            raise self._refuse(f"{what} must be a tuple of one to three integers, got {given!r}")
        for value, limit in zip(given, most, strict=False):
            if not isinstance(value, int | np.integer) or isinstance(value, bool):
                raise self._refuse(f"{what} must hold integers, got {given!r}")
            if not 1 <= value <= limit:
                raise self._refuse(f"{what} must have 1 to {limit} along each axis, got {tuple(given)}")
        x, y, z = (*map(int, given), 1, 1)[:3]
        return x, y, z

    def _arguments(self, args: Sequence[Any]) -> tuple[Any, Any, list[Any]]:
        parameters, types = self._info.parameters, self._info.types
        if len(args) != len(types):
            raise self._refuse(f"takes {len(types)} arguments ({', '.join(parameters)}), got {len(args)}")
        pointers = (ctypes.c_void_p * max(1, len(args)))()
        buffers: list[_Buffer] = []
        keep_alive: list[Any] = []
        for i, (value, declared) in enumerate(zip(args, types, strict=True)):
            if declared.endswith("*"):
                box: Any = ctypes.c_void_p(0)
                if value is None and self._device_arrays_only:
                    why = "is None, of which CuPy makes the address 0xffffffff; write numpy.uint64(0)"
                    raise self._refuse(f"{self._argument(i)} {why}")
                if value is not None and not (isinstance(value, np.uint64) and value == 0):
                    array = self._array(i, value, declared)
                    writable = array.flags.writeable and not declared.startswith("const ")
                    buffers.append(_Buffer(array.ctypes.data, array.nbytes, writable, i))
                    box = ctypes.c_void_p(array.ctypes.data)
                pointers[i] = ctypes.addressof(box)
            else:
                box = self._scalar(i, value, declared)
                pointers[i] = box.ctypes.data
                if declared == "TensorMap":
                    memory = described_memory(box)
                    if memory is None:
                        raise self._refuse(f"{self._argument(i)} must be what make_tensor_map gives, got other bytes")
                    buffers.append(_Buffer(*memory, False, i))
            keep_alive.append(box)
        return pointers, (_Buffer * len(buffers))(*buffers), [keep_alive, args]

    def _argument(self, i: int) -> str:
        return f"argument {i} ({self._info.parameters[i]})"

    def _array(self, i: int, value: Any, declared: str) -> np.ndarray:
        if isinstance(value, SimulatorArray):
            array = value._values
        elif isinstance(value, np.ndarray) and not self._device_arrays_only:
            array = value
        else:
            wanted = "a device array" if self._device_arrays_only else "an array"
            kind = (
                "a host array (numpy.ndarray)" if isinstance(value, np.ndarray) else f"{type(value).__name__} {value!r}"
            )
            raise self._refuse(f"{self._argument(i)} must be {wanted} for {declared}, got {kind}")
        element = declared.removeprefix("const ").removesuffix("*")
        dtype = str(array.dtype)
        if element not in ("any", dtype) and (dtype, element) != ("bool", "uint8"):
            raise self._refuse(f"{self._argument(i)} must have dtype {element}, got {dtype}")
        if not _is_dense(array):
            raise self._refuse(
                f"{self._argument(i)} must be C-contiguous (or channels-last), got strides {array.strides} "
                f"for shape {array.shape} and {array.itemsize}-byte elements"
            )
        return array

    def _scalar(self, i: int, value: Any, declared: str) -> np.ndarray:
        if isinstance(value, SimulatorArray):
            raise self._refuse(f"{self._argument(i)} must be a {declared} by value, got a device array")
        if isinstance(value, np.ndarray):
            if value.size != 1:
                raise self._refuse(
                    f"{self._argument(i)} must be a {declared} by value, got a host array of shape {value.shape}"
                )
            box = np.array(value)
        elif isinstance(value, np.generic):
            box = np.array(value)
        elif type(value) in (bool, int, float):
            box = np.array(value)
            if type(value) is int and declared == "uint64" and value >= 0:
                box = np.array(value, np.uint64)
        else:
            raise self._refuse(f"{self._argument(i)} must be a NumPy scalar of dtype {declared}, got {value!r}")
        size = 128 if declared == "TensorMap" else int(declared.split()[1]) if declared.startswith("struct ") else None
        fits = str(box.dtype) == declared if size is None else box.nbytes == size
        if not fits:
            passed = f"{type(value).__name__} {value!r}, which is passed as {box.dtype} ({box.nbytes} bytes)"
            remedy = f"; write numpy.{declared}(…)" if size is None else ""
            raise self._refuse(f"{self._argument(i)} must be a {declared}, got {passed}{remedy}")
        return box

    # -- reports after it ----------------------------------------------------------------------------------------
    def _error(self, launch: _Launch) -> KernelError:
        lines = self._lines(launch, list(launch.frames))
        others = self._lines(launch, [launch.other_pc])
        text = _ARGUMENT.sub(lambda match: self._argument(int(match[1])), launch.message.decode())
        kind: str = launch.kind.decode()
        places = [f"{file}:{line}" for file, line in dict.fromkeys(lines)]
        where = f" at {places[0]}" if places else ""
        where += f" (called from {', '.join(places[1:])})" if places[1:] else ""
        where += f"; the other access is at {others[0][0]}:{others[0][1]}" if others else ""
        block, thread = tuple(launch.block_at), tuple(launch.thread_at) if launch.has_thread else None
        who = f"block {block}, thread {thread}" if thread else f"block {block}"
        return KernelError(
            f"{self.name}: {kind}: {text}{where} [{who}, seed {self.seed}]",
            kind=kind,
            kernel=self.name,
            file=lines[0][0] if lines else None,
            line=lines[0][1] if lines else None,
            other_line=others[0][1] if others else None,
            block=block,
            thread=thread,
        )

    def _lines(self, launch: _Launch, addresses: list[int]) -> list[tuple[str, int]]:
        # A return address is one past its call.
        inside = [a - 1 - launch.image_base for a in addresses if launch.image_begin <= a < launch.image_end]
        return self._library.source_lines(inside)


def _is_dense(array: np.ndarray) -> bool:
    """Whether the elements lie without gaps in row-major order, or with the channels (axis 1) innermost."""
    return array.flags.c_contiguous or (array.ndim >= 3 and np.moveaxis(array, 1, -1).flags.c_contiguous)


def run_kernel(
    source: str | Path,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    args: Sequence[Any],
    *,
    defines: Iterable[str] = (),
    shared_mem: int = 0,
    seeds: Iterable[int] = (0, 1, 2),
    step_limit: int = 100_000_000,
) -> None:
    """Run a CUDA kernel on NumPy arrays, once for each seed, with every check on.

    Args:
        source: CUDA source text, or the path of a ``.cu`` file (its ``#include "…"`` are followed).
        name: a kernel declared ``extern "C" __global__ void name(…)``.
        grid: number of blocks, one to three axes.
        block: threads in each block, one to three axes.
        args: NumPy arrays, which the kernel may change, and NumPy scalars of exactly the declared types.
        defines: macro definitions such as ``"T=float"``.
        shared_mem: bytes of dynamic shared memory.
        seeds: one run each, in a different order of blocks, warps and lanes. Each run starts from the arrays as they
            were given; what the last one wrote remains.
        step_limit: basic blocks that one run may take before it counts as endless.
    Raises:
        KernelError: the source does not compile, the launch is refused, or a bug showed in one of the runs.
    """
    path = (
        source if isinstance(source, Path) else Path(source) if source.endswith(".cu") and "\n" not in source else None
    )
    code = read_source.__wrapped__(path) if path is not None else str(source)  # a file under work changes between calls
    kernel = RawModule(code, options=[f"-D{define}" for define in defines]).get_function(name)
    kernel.max_dynamic_shared_size_bytes = max(_DEFAULT_SHARED, shared_mem)
    kernel.step_limit = step_limit
    given = [arg.copy() if isinstance(arg, np.ndarray) and arg.flags.writeable else None for arg in args]
    for seed in seeds:
        kernel.seed = seed
        for arg, copy in zip(args, given, strict=True):
            if copy is not None:
                arg[...] = copy
        kernel(grid, block, args, shared_mem)
