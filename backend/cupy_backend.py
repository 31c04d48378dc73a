"""CuPy as a backend: CUDA devices. Imported only when a CUDA device is asked for.

Written against CuPy 14.2 and its documentation; not yet run on hardware.
"""

from __future__ import annotations

from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import numpy as np

from .base import Array, Backend, DeviceUnavailableError, MemoryFigures
from .cublaslt import CublasLt, CublasLtUnsupportedError, load_library
from .device import Device
from .faults import raise_faults
from .tensor_map import encode_tensor_map

_INSTALL = "install one of them: pip install 'lamella[cuda12]' or pip install 'lamella[cuda13]', to match the driver"


class CupyBackend(Backend):
    """Arrays in device memory, one compute stream, kernels compiled by NVRTC at first use.

    Args:
        use_cublaslt: do matrix products by :mod:`.cublaslt` where it can, by CuPy elsewhere. Unproven: the binding has
            not yet run on hardware, so it is not the default.
        use_hopper: let launchers choose kernels written for compute capability 9.0 alone, such as
            ``attention_hopper.cu``. Unproven: they have not yet run on hardware, so it is not the default.
    Raises:
        CublasLtError: ``use_cublaslt`` was asked for, and the library is missing or of another CUDA version.
        DeviceUnavailableError: CuPy is missing, or there is no driver, no device or no NVRTC; says which.
    """

    name = "cuda"
    runs_cuda = True

    def __init__(self, use_cublaslt: bool = False, use_hopper: bool = False) -> None:
        if find_spec("cupy") is None:
            raise DeviceUnavailableError(f"no CUDA device can be used: CuPy is not installed; {_INSTALL}")
        try:
            import cupy
            import cupyx
        except Exception as error:  # an unwritable cache folder or a broken install raises all sorts of things
            raise DeviceUnavailableError(f"no CUDA device can be used: importing CuPy failed: {error}") from error
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except RuntimeError as error:  # CUDARuntimeError, or a runtime library that was not found
            raise DeviceUnavailableError(f"no CUDA device can be used: the driver answered: {error}") from error
        if count == 0:
            raise DeviceUnavailableError("no CUDA device can be used: the driver reports none")
        try:
            cupy.cuda.nvrtc.getVersion()
        except RuntimeError as error:
            raise DeviceUnavailableError(
                f"no CUDA device can be used: the kernel compiler NVRTC is missing ({error}); {_INSTALL}"
            ) from error
        self.xp = cupy
        self.array_types = (cupy.ndarray,)
        self._cupyx = cupyx
        self._devices = tuple(Device("cuda", index) for index in range(count))
        self._shared: dict[Device, int] = {}
        self._multiprocessors: dict[Device, int] = {}
        self._capabilities = tuple(int(cupy.cuda.Device(index).compute_capability) for index in range(count))
        self.cublaslt: CublasLt | None = None
        if use_cublaslt:
            self.cublaslt = CublasLt(cupy, load_library(cupy.cuda.runtime.runtimeGetVersion() // 1000))
        self.multiplies_tf32 = self.cublaslt is not None
        self.uses_hopper = use_hopper

    def devices(self) -> tuple[Device, ...]:
        return self._devices

    def device_of(self, array: Array) -> Device:
        return self._devices[array.device.id]

    def synchronize(self, device: Device) -> None:
        with self.xp.cuda.Device(device.index):
            self.xp.cuda.get_current_stream().synchronize()
        raise_faults(self, device)

    def memory(self, device: Device) -> MemoryFigures:
        with self.xp.cuda.Device(device.index):
            pool = self.xp.get_default_memory_pool()
            _, total = self.xp.cuda.runtime.memGetInfo()
            return MemoryFigures(pool.used_bytes(), pool.total_bytes(), total)

    def versions(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime

        def spelled(version: int) -> str:  # 12090 -> 12.9
            return f"{version // 1000}.{version % 1000 // 10}"

        found = {
            "CuPy": self.xp.__version__,
            "CUDA driver": spelled(runtime.driverGetVersion()),
            "CUDA runtime": spelled(runtime.runtimeGetVersion()),
            "NVRTC": ".".join(map(str, self.xp.cuda.nvrtc.getVersion())),
        }
        for device in self._devices:
            properties = runtime.getDeviceProperties(device.index)
            name = properties["name"].decode()
            found[str(device)] = f"{name}, compute capability {properties['major']}.{properties['minor']}"
        return found

    def empty(self, shape: tuple[int, ...], dtype: Any, device: Device) -> Array:
        with self.xp.cuda.Device(device.index):
            return self.xp.empty(shape, dtype)

    def asarray(self, value: Any, like: Array | None = None) -> Array:
        if like is None:
            return self.xp.asarray(value)
        with like.device:
            return self.xp.asarray(value)

    def from_numpy(self, array: Any, device: Device) -> Array:
        with self.xp.cuda.Device(device.index):
            return self.xp.array(np.asarray(array), blocking=True)

    def to_numpy(self, array: Array) -> Any:
        values = array.get()
        raise_faults(self, self.device_of(array))
        return values

    def window(self, array: Array, count: int) -> Array:
        return self.xp.ndarray((count,), array.dtype, array.data)

    def gemm(self, a: Array, b: Array, out: Array | None = None) -> Array:
        if self.cublaslt is not None:
            with suppress(CublasLtUnsupportedError):
                return self.cublaslt.matmul(a, b, out)
        return self.xp.matmul(a, b, out=out)

    def matmul(self, a: Array, b: Array) -> Array:
        if self.cublaslt is not None and b.ndim > 2:
            with suppress(CublasLtUnsupportedError):
                return self.cublaslt.matmul(a, b)
        return super().matmul(a, b)

    def compute_capability(self, device: Device) -> int:
        return self._capabilities[device.index or 0]

    def scatter_add(self, target: Array, index: Any, values: Array) -> None:
        self._cupyx.scatter_add(target, index, values)

    def shared_memory(self, device: Device) -> int:
        found = self._shared.get(device)
        if found is None:
            attributes = self.xp.cuda.Device(device.index).attributes
            found = self._shared[device] = attributes["MaxSharedMemoryPerBlockOptin"]
        return found

    def multiprocessors(self, device: Device) -> int:
        found = self._multiprocessors.get(device)
        if found is None:
            attributes = self.xp.cuda.Device(device.index).attributes
            found = self._multiprocessors[device] = attributes["MultiProcessorCount"]
        return found

    def tensor_map(self, array: Array, box: tuple[int, ...]) -> Any:
        return encode_tensor_map(array.data.ptr, array.dtype.name, array.shape, array.strides, box)

    def compile(self, code: str, options: tuple[str, ...], device: Device) -> Any:
        with self.xp.cuda.Device(device.index):
            module = self.xp.RawModule(code=code, options=("--std=c++17", *options))
            module.compile()
            return module
