"""Floor 1: which array library, which device; moving data, products, randomness, threads, memory, kernels."""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import backend'")

from .base import Array, Backend, DeviceUnavailableError, MemoryFigures, MixedDevicesError
from .buffers import is_view
from .device import Device
from .dtypes import as_dtype
from .faults import fault_kind, fault_record, raise_faults
from .memory_format import empty_images, in_format, is_channels_last, pixels, planes
from .numpy_backend import NumpyBackend
from .philox import (
    Generator,
    as_generator,
    is_repeating,
    philox4x32,
    random_bits,
    remember_draws,
    repeat_draws,
    set_bits_kernel,
)
from .precision import current_precision, precision
from .registry import (
    UnknownArrayError,
    available_devices,
    backend_for,
    backend_names,
    backend_of,
    common_backend,
    device,
    is_array,
    register_backend,
    register_loader,
    unregister_backend,
    why_unavailable,
)
from .scalars import StepScalars
from .source import forget_kernels, get_kernel, read_source
from .threads import cpu_kernel, get_num_threads, parallel, set_num_threads


def _load_cupy() -> Backend:
    from .cupy_backend import CupyBackend

    return CupyBackend()


register_backend(NumpyBackend())
register_loader("cuda", _load_cupy)

__all__ = [
    "Array",
    "Backend",
    "Device",
    "DeviceUnavailableError",
    "Generator",
    "MemoryFigures",
    "MixedDevicesError",
    "StepScalars",
    "UnknownArrayError",
    "as_dtype",
    "as_generator",
    "available_devices",
    "backend_for",
    "backend_names",
    "backend_of",
    "common_backend",
    "cpu_kernel",
    "current_precision",
    "device",
    "empty_images",
    "fault_kind",
    "fault_record",
    "forget_kernels",
    "get_kernel",
    "get_num_threads",
    "in_format",
    "is_array",
    "is_channels_last",
    "is_repeating",
    "is_view",
    "parallel",
    "philox4x32",
    "pixels",
    "planes",
    "precision",
    "raise_faults",
    "random_bits",
    "read_source",
    "register_backend",
    "register_loader",
    "remember_draws",
    "repeat_draws",
    "set_bits_kernel",
    "set_num_threads",
    "unregister_backend",
    "why_unavailable",
]
