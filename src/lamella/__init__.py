"""lamella: neural networks on NumPy and CuPy; one layer code, two devices, CUDA kernels you can read."""

from . import autograd, backend
from .autograd import *  # noqa: F403 - the array functions: lamella.exp, lamella.concat, lamella.where
from .backend import Generator, available_devices, device, precision, set_num_threads

__version__ = "0.1.0"
