"""lamella: neural networks on NumPy and CuPy; one layer code, two devices, CUDA kernels you can read."""

from . import autograd, backend, kernels, layers, models, training
from .autograd import *  # noqa: F403 - the array functions: lamella.exp, lamella.concat, lamella.where
from .backend import (
    Device,
    DeviceUnavailableError,
    Generator,
    MixedDevicesError,
    available_devices,
    device,
    get_num_threads,
    precision,
    set_num_threads,
)
from .training import load, save

__version__ = "0.1.0"

__all__ = [
    "Device",
    "DeviceUnavailableError",
    "Generator",
    "MixedDevicesError",
    "__version__",
    "autograd",
    "available_devices",
    "backend",
    "device",
    "get_num_threads",
    "kernels",
    "layers",
    "load",
    "models",
    "precision",
    "save",
    "set_num_threads",
    "training",
]
__all__ += autograd.__all__
