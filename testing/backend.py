"""The device ``"simulator"``: NumPy's memory, CuPy's manners, CUDA kernels executed on the CPU with every check on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ..backend import (
    Array,
    Backend,
    Device,
    MemoryFigures,
    backend_for,
    backend_names,
    forget_kernels,
    raise_faults,
    register_backend,
    unregister_backend,
)
from . import array as device_arrays
from .array import SimulatorArray, activity, call
from .module import MOST_SHARED, RawModule
from .tensor_map import make_tensor_map
from .xp import cupy_like, fill_with_garbage

_DEVICE = Device("simulator")
_MULTIPROCESSORS = 132  # of an H100 or H200


class SimulatorBackend(Backend):
    """The backend behind ``lamella.device("simulator")``.

    Attributes:
        launches: how often each kernel was launched since :meth:`reset`.
        operations: how often each array operation ran that is at least one launch of CuPy's own, or a product.
        log: (launch or operation, the place it came from), in order.
        synchronizations: how often the host waited for a value of the device.
        capability: the compute capability that it claims to have, 10 * major + minor; it executes kernels of every one.
        uses_hopper: whether launchers choose kernels for compute capability 9.0 alone, as on a device they do not yet.
    """

    name = "simulator"
    xp = cupy_like
    array_types = (SimulatorArray,)
    runs_cuda = True

    def __init__(self) -> None:
        self._before: Backend | None = None
        self.capability = 90
        self.uses_hopper = False

    # -- registration and counting -------------------------------------------------------------------------------
    @property
    def launches(self) -> Counter[str]:
        return activity.launches

    @property
    def operations(self) -> Counter[str]:
        return activity.operations

    @property
    def log(self) -> list[tuple[str, str]]:
        return [(what, f"{_short(code.co_filename)} {code.co_name}, line {n}") for what, (code, n) in activity.log]

    @property
    def synchronizations(self) -> int:
        return activity.synchronizations

    def reset(self) -> None:
        """Start counting anew."""
        activity.reset()

    def register(self) -> SimulatorBackend:
        """Serve the device ``"simulator"`` from now on."""
        self._before = backend_for(self.name) if self.name in backend_names() else None
        register_backend(self)
        self.reset()
        return self

    def close(self) -> None:
        """Give up the device and the kernels compiled for it; a simulator that was there before comes back."""
        unregister_backend(self.name)
        forget_kernels(self.name)
        if self._before is not None:
            register_backend(self._before)

    def __enter__(self) -> SimulatorBackend:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- what every backend offers -------------------------------------------------------------------------------
    def devices(self) -> tuple[Device, ...]:
        return (_DEVICE,)

    def device_of(self, array: Array) -> Device:
        return _DEVICE

    def synchronize(self, device: Device) -> None:
        """Everything is done when its call returns; an explicit wait is not counted."""
        raise_faults(self, device)

    def memory(self, device: Device) -> MemoryFigures:
        """Nothing is counted: the arrays lie in NumPy's memory."""
        return MemoryFigures(0, 0, 0)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device = _DEVICE) -> SimulatorArray:
        """Uninitialised memory, filled with NaN so that a read before the first write shows."""
        array = SimulatorArray(np.empty(shape, dtype))
        fill_with_garbage(array)
        return array

    def asarray(self, value: Any, like: Array | None = None) -> SimulatorArray:
        result: SimulatorArray = self.xp.asarray(value)
        return result

    def from_numpy(self, array: Any, device: Device = _DEVICE) -> SimulatorArray:
        copied = SimulatorArray(np.array(array))
        if device_arrays.watch is not None:
            device_arrays.watch.from_host += copied.nbytes
        return copied

    def to_numpy(self, array: SimulatorArray) -> np.ndarray:
        values = array.get()
        raise_faults(self, _DEVICE)
        return values

    def owner(self, array: SimulatorArray) -> Any:
        owner = array._values  # `base` of a simulated array is made anew each time, the host memory below it is not
        while owner.base is not None:
            owner = owner.base
        return owner

    def window(self, array: SimulatorArray, count: int) -> SimulatorArray:
        return SimulatorArray(np.lib.stride_tricks.as_strided(array._values, (count,), (array.itemsize,)))

    def gemm(self, a: Array, b: Array, out: Array | None = None) -> Array:
        """``a @ b``, accumulated in float32 where the operands have 16 bits."""
        for name, operand in (("a", a), ("b", b)):
            if operand.ndim != 2:
                raise ValueError(f"gemm: {name} must have 2 axes, got shape {operand.shape}")
        activity.operate("gemm")
        result = SimulatorArray(_product(a._values, b._values))
        if out is None:
            return result
        out._values[...] = result._values  # the product itself writes there
        return out

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        call("scatter_add", np.add.at, (target, index, values), {})

    def shared_memory(self, device: Device = _DEVICE) -> int:
        return MOST_SHARED

    def multiprocessors(self, device: Device = _DEVICE) -> int:
        return _MULTIPROCESSORS

    def compute_capability(self, device: Device = _DEVICE) -> int:
        return self.capability

    def tensor_map(self, array: Array, box: tuple[int, ...]) -> np.ndarray:
        return make_tensor_map(array, box)

    def compile(self, code: str, options: tuple[str, ...], device: Device = _DEVICE) -> RawModule:
        return RawModule(code, options=options, device_arrays_only=True, on_launch=self._count)

    def _count(self, name: str) -> None:
        activity.launch(name)


def _short(file: str) -> str:
    return "/".join(file.split("/")[-2:])


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    dtype = np.result_type(a, b)
    if dtype.itemsize == 2:
        return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(dtype)
    return np.matmul(a, b)


def simulator() -> SimulatorBackend:
    """Register the device ``"simulator"``: ``with simulator() as sim: …`` gives it up again at the end.

    Inside, ``lamella.device("simulator")`` exists; its arrays and its array module behave as CuPy's, and CUDA kernels
    run on the CPU. ``sim.launches["softmax_forward"]`` and ``sim.synchronizations`` count, ``sim.reset()`` starts anew.
    Without ``with``, the device stays until ``sim.close()``.
    """
    return SimulatorBackend().register()
