"""For tests: CUDA kernels executed on the CPU with every check on, a simulated device, and comparisons that NaN fails.

Needs GCC's C++ compiler; never imported by the library itself.
"""

if not __name__.startswith("lamella."):
    raise ImportError(f"'{__name__}' is a room of lamella: write 'from lamella import testing'")

from .array import SimulatorArray
from .backend import SimulatorBackend, simulator
from .compare import assert_close
from .errors import KernelError
from .memory import MemoryWatch
from .module import RawModule, run_kernel
from .tensor_map import make_tensor_map

__all__ = [
    "KernelError",
    "MemoryWatch",
    "RawModule",
    "SimulatorArray",
    "SimulatorBackend",
    "assert_close",
    "make_tensor_map",
    "run_kernel",
    "simulator",
]
