"""Instance normalisation: each channel of each sample is brought to mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Parameter, Tensor, no_grad, note_write, op
from ..autograd.tape import require_arrays
from ..backend import Array, is_repeating
from . import init
from .batch_norm import batch_norm, check_running
from .group_norm import group_norm
from .lengths import length
from .module import Buffer, Module
from .real import real


@op
def _with_statistics(x: Array, weight: Array | None, bias: Array | None, eps: float) -> Any:
    """``(y, mean, rstd)``; the statistics carry no gradient."""
    y, mean, rstd = kernels.group_norm(x, x.shape[1], weight, bias, eps)

    def backward(dy: Array, dmean: Array | None, drstd: Array | None) -> Any:
        dx, dweight, dbias = kernels.group_norm_backward(dy, x, mean, rstd, weight)
        return dx, None if weight is None else dweight, None if bias is None else dbias

    return (y, mean, rstd), backward


def instance_norm(
    x: Any,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``y = (x - mean) / sqrt(var + eps) * weight + bias``; mean and variance of each channel of each sample.

    Args:
        x: shape ``(N, C, ...)`` with at least one axis of positions, floating.
        running_mean, running_var: shape ``(C,)``; with ``use_input_stats`` they move towards the mean over the samples
            of the statistics of ``x`` (the variance divided by n - 1), in place; else they are used instead.
        weight, bias: shape ``(C,)``, or None.
        use_input_stats: whether to normalise by the statistics of ``x`` (the variance divided by n).
        momentum: weight of the new statistics in the running ones.
        eps: added to the variance.
    Raises:
        ValueError: a channel has one value, or there are no running statistics to use.
    Source: Ulyanov, Vedaldi and Lempitsky 2016, arXiv 1607.08022.
    """
    require_arrays("instance_norm", x=x)
    check_running("instance_norm", x, running_mean, running_var)
    momentum, eps = real("instance_norm", "momentum", momentum), real("instance_norm", "eps", eps)
    if x.ndim < 3:
        raise ValueError(f"instance_norm: x must have shape (N, C, ...) with positions, got {tuple(x.shape)}")
    if not use_input_stats:
        if running_mean is None:
            raise ValueError("instance_norm: running_mean and running_var must be given without use_input_stats")
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    count = math.prod(x.shape[2:])
    if count < 2:
        raise ValueError(f"instance_norm: a channel must have more than one value, got shape {tuple(x.shape)}")
    if running_mean is None or running_var is None:
        result: Tensor = group_norm(x, x.shape[1], weight, bias, eps)
        return result
    y, mean, rstd = _with_statistics(x, weight, bias, eps)
    if x.shape[0] and not is_repeating():
        with no_grad():
            var = (rstd.data**-2 - eps).mean(axis=0) * (count / (count - 1))
            for running, new in ((running_mean, mean.data.mean(axis=0)), (running_var, var)):
                old = running.data
                old += (momentum * (new - old)).astype(old.dtype, copy=False)
                note_write(old)
    return y


class _InstanceNorm(Module):
    """What InstanceNorm1d, InstanceNorm2d and InstanceNorm3d share."""

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None

    _ndim = 0  # of a batch; one less for a single sample
    _shape = ""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
    ) -> None:
        name = type(self).__name__
        self.num_features = length(name, "num_features", num_features, 1)
        self.eps = real(name, "eps", eps)
        self.momentum = None if momentum is None else real(name, "momentum", momentum)
        shape = (self.num_features,)
        self.weight = Parameter(init.ones(shape)) if affine else None
        self.bias = Parameter(init.zeros(shape)) if affine else None
        self.running_mean = self.running_var = self.num_batches_tracked = None
        if track_running_stats:
            self.running_mean, self.running_var = Buffer(init.zeros(shape)), Buffer(init.ones(shape))
            self.num_batches_tracked = Buffer(init.zeros(()).astype("int64"))

    @property
    def affine(self) -> bool:
        return self.weight is not None

    @property
    def track_running_stats(self) -> bool:
        return self.running_mean is not None

    def reset_running_stats(self) -> None:
        """Forget the running statistics: mean 0, variance 1."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1)):
            if buffer is not None:
                buffer.data[...] = value
                note_write(buffer.data)

    def forward(self, x: Any) -> Tensor:
        name = type(self).__name__
        require_arrays(name, x=x)
        single = x.ndim == self._ndim - 1
        if x.ndim not in (self._ndim, self._ndim - 1) or x.shape[0 if single else 1] != self.num_features:
            expected = self._shape.replace("C", str(self.num_features))
            raise ValueError(f"{name}: x must have shape {expected}, got {tuple(x.shape)}")
        y = instance_norm(
            x[None] if single else x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or self.running_mean is None,
            self.momentum or 0.0,
            self.eps,
        )
        return y[0] if single else y

    def extra_repr(self) -> str:
        options = f"eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        return f"{self.num_features}, {options}, track_running_stats={self.track_running_stats}"


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each sample of ``(N, C, T)``, or of one sample ``(C, T)``.

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum: weight of the newest statistics in the running ones; with None they stay as they are.
        affine: whether there are a weight (1 at first) and a bias (0 at first).
        track_running_stats: whether evaluation uses running statistics, which follow those of the samples in training.

    Attributes:
        weight, bias: shape ``(num_features,)``, or None.
        running_mean, running_var: shape ``(num_features,)``; the variance is divided by n - 1. Or None.
        num_batches_tracked: stands in the state as in PyTorch, where nothing counts it either. Or None.
    Source: Ulyanov, Vedaldi and Lempitsky 2016, arXiv 1607.08022.
    """

    _ndim, _shape = 3, "(N, C, T) or (C, T)"


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each sample of ``(N, C, H, W)``, or of one; see :class:`InstanceNorm1d`."""

    _ndim, _shape = 4, "(N, C, H, W) or (C, H, W)"


class InstanceNorm3d(_InstanceNorm):
    """Normalises each channel of each sample of ``(N, C, D, H, W)``, or of one; see :class:`InstanceNorm1d`."""

    _ndim, _shape = 5, "(N, C, D, H, W) or (C, D, H, W)"
