"""lamella: neural networks on NumPy and CuPy; one layer code, two devices, CUDA kernels you can read.

``import lamella`` brings the arrays, the tape and the kernels; layers, models and training are imported when they are
first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from . import autograd, backend, kernels
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

if TYPE_CHECKING:
    from . import interop, layers, models, training
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
    "interop",
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

_LATER = {room: room for room in ("layers", "models", "training", "interop")} | {"load": "training", "save": "training"}


def __getattr__(name: str) -> object:
    room = _LATER.get(name)
    if room is None:
        raise AttributeError(f"module 'lamella' has no attribute {name!r}")
    module = import_module(f".{room}", __name__)
    return module if name == room else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
