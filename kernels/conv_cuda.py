"""Which kernels convolve on a CUDA device: direct sums for few channels in a group, else gathered matrix products."""

from __future__ import annotations

from types import ModuleType

from ..backend import Array, Backend
from . import direct_conv, implicit_gemm
from ._launch import Plan, c_type, definition_plan
from .windows import Windows


def forward(
    backend: Backend, x: Array, weight: Array, bias: Array | None, geometry: Windows, groups: int, y: Array
) -> bool:
    """``y = conv(x, weight) + bias`` where there is a kernel for it; False where the definition has to do it."""
    chosen, _ = _choose(backend, x, weight.shape[1], weight.shape[0] // groups, groups)
    if chosen is None:
        return False
    chosen.forward(backend, x, weight, bias, geometry, groups, y)
    return True


def backward_data(backend: Backend, dy: Array, weight: Array, geometry: Windows, groups: int, dx: Array) -> bool:
    """The gradient of ``x`` likewise."""
    chosen, _ = _choose(backend, dy, weight.shape[1], weight.shape[0] // groups, groups)
    if chosen is None:
        return False
    chosen.backward_data(backend, dy, weight, geometry, groups, dx)
    return True


def backward_weight(
    backend: Backend, dy: Array, x: Array, geometry: Windows, groups: int, workspace: int, dweight: Array
) -> bool:
    """The gradient of the weight likewise."""
    chosen, _ = _choose(backend, x, dweight.shape[1], dweight.shape[0] // groups, groups)
    if chosen is None:
        return False
    chosen.backward_weight(backend, dy, x, geometry, groups, dweight, workspace)
    return True


def explain_forward(
    backend: Backend, x: Array, weight: Array, bias: Array | None, geometry: Windows, groups: int
) -> Plan:
    """What :func:`forward` launches, and why."""
    chosen, because = _choose(backend, x, weight.shape[1], weight.shape[0] // groups, groups)
    if chosen is None:
        return definition_plan(because)
    plan: Plan = chosen.plan_forward(x, weight, bias, geometry, groups)
    return plan._replace(because=plan.because + because)


def _choose(backend: Backend, x: Array, channels: int, outputs: int, groups: int) -> tuple[ModuleType | None, str]:
    """The file of kernels for these channels of a group, and why no other."""
    if not backend.runs_cuda:
        return None, f"the {backend.name} backend runs no CUDA kernels"
    if c_type(x.dtype) is None:
        return None, f"there is no kernel for {x.dtype}, only for float32, float16 and bfloat16"
    if groups > 1 and max(channels, outputs) <= direct_conv.MOST_CHANNELS:
        return direct_conv, ""
    if (capability := backend.compute_capability(backend.device_of(x))) < implicit_gemm.OLDEST:
        oldest, here = implicit_gemm.OLDEST / 10, capability / 10
        return None, f"gathered products need compute capability {oldest}, the device has {here}"
    return implicit_gemm, ""
