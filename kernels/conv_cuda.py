"""Which kernels convolve on a CUDA device: direct sums, gathered products, or columns and the library's product."""

from __future__ import annotations

import math

from ..backend import Array, Backend, current_precision
from . import direct_conv, im2col_gemm, implicit_gemm
from ._launch import Plan, c_type, definition_plan, no_cuda, no_kernel_for
from .conv_geometry import backward_sums, forward_axes
from .windows import Windows

_GATHER = {"direct": direct_conv.gather, "implicit": implicit_gemm.gather}
_MANY_OUTPUTS = 128  # so many output channels pay for writing and reading columns: an estimate, not measured yet


def forward(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Windows,
    groups: int,
    relu: bool,
    workspace: int,
    y: Array,
) -> bool:
    """``y = conv(x, weight) + bias`` where there is a kernel for it; False where the definition has to do it.

    With ``relu`` its negative values become 0.
    """
    way, _ = _choose(backend, x, weight.shape[1], weight.shape[0] // groups, groups, geometry, y.shape[2:], workspace)
    if way in _GATHER:
        axes = forward_axes(geometry, x.shape[2:], y.shape[2:])
        grouped = weight.reshape(groups, -1, *weight.shape[1:])
        _GATHER[way](backend, x, grouped, bias, axes, y, relu=relu)
    elif way == "columns":
        im2col_gemm.forward(backend, x, weight, bias, geometry, relu, workspace, y)
    return bool(way)


def backward_data(
    backend: Backend, dy: Array, weight: Array, geometry: Windows, groups: int, workspace: int, dx: Array
) -> bool:
    """The gradient of ``x`` likewise."""
    way, _ = _choose(backend, dy, weight.shape[1], weight.shape[0] // groups, groups, geometry, dy.shape[2:], workspace)
    if way in _GATHER:  # a gathered sum over dy for each remainder of the position by the stride
        for taps, axes, first, step in backward_sums(weight, geometry, groups, dy, dx):
            _GATHER[way](backend, dy, taps, None, axes, dx, first, step)
    elif way == "columns":
        im2col_gemm.backward_data(backend, dy, weight, geometry, workspace, dx)
    return bool(way)


def backward_weight(
    backend: Backend, dy: Array, x: Array, geometry: Windows, groups: int, workspace: int, dweight: Array
) -> bool:
    """The gradient of the weight likewise."""
    channels, outputs = dweight.shape[1], dweight.shape[0] // groups
    way, _ = _choose(backend, x, channels, outputs, groups, geometry, dy.shape[2:], workspace)
    if way == "direct":
        direct_conv.backward_weight(backend, dy, x, geometry, groups, dweight, workspace)
    elif way == "implicit":
        implicit_gemm.backward_weight(backend, dy, x, geometry, groups, dweight, workspace)
    elif way == "columns":
        im2col_gemm.backward_weight(backend, dy, x, geometry, workspace, dweight)
    return bool(way)


def explain_forward(
    backend: Backend,
    x: Array,
    weight: Array,
    bias: Array | None,
    geometry: Windows,
    groups: int,
    workspace: int,
    counts: tuple[int, ...],
) -> Plan:
    """What :func:`forward` launches, and why."""
    way, because = _choose(backend, x, weight.shape[1], weight.shape[0] // groups, groups, geometry, counts, workspace)
    if way == "direct":
        plan = direct_conv.plan_forward(x, weight, bias, geometry, groups)
    elif way == "implicit":
        plan = implicit_gemm.plan_forward(x, weight, bias, geometry, groups)
    elif way == "columns":
        plan = im2col_gemm.plan_forward(x, geometry, counts, workspace)
    else:
        return definition_plan(because)
    return plan._replace(because=f"{because}; {plan.because}")


def _choose(
    backend: Backend,
    x: Array,
    channels: int,
    outputs: int,
    groups: int,
    geometry: Windows,
    counts: tuple[int, ...],
    workspace: int,
) -> tuple[str, str]:
    """The way for these channels of a group, or "" for the definition, and the reason; one for all three directions."""
    if not backend.runs_cuda:
        return "", no_cuda(backend)
    if c_type(x.dtype) is None:
        return "", no_kernel_for(x.dtype)
    if groups > 1 and max(channels, outputs) <= direct_conv.MOST_CHANNELS:
        return "direct", "few channels in a group"
    capability = backend.compute_capability(backend.device_of(x))
    old = capability < implicit_gemm.OLDEST
    because = f"gathered products need compute capability 8.0, the device has {capability / 10}"
    if x.dtype.itemsize == 4 and groups == 1:  # with 16 bits the columns of a gradient would be rounded one by one
        of_one = math.prod(counts) * geometry.size * channels * x.dtype.itemsize
        many = outputs >= _MANY_OUTPUTS and current_precision() != "tf32"
        if (old or many) and of_one <= workspace:
            return "columns", because if old else "float32 products outside of tf32, and many output channels"
    return ("", because) if old else ("implicit", "no columns are stored")
