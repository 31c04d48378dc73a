"""Instance normalisation: each channel of each sample is brought to mean 0 and variance 1."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..autograd.tape import require_arrays
from ..backend import Array, is_repeating
from .batch_norm import batch_norm
from .group_norm import group_norm
from .real import not_negative, real
from .running_norm import RunningNorm, check_running, follow


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
    momentum, eps = real("instance_norm", "momentum", momentum), not_negative("instance_norm", "eps", eps)
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
        follow(running_mean, mean.data.mean(axis=0), momentum)
        follow(running_var, (rstd.data**-2 - eps).mean(axis=0) * (count / (count - 1)), momentum)
    return y


class _InstanceNorm(RunningNorm):
    """What InstanceNorm1d, InstanceNorm2d and InstanceNorm3d share."""

    _fewest_features = 1
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
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

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
