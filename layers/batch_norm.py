"""Batch normalisation: each channel is brought to mean 0 and variance 1 over the batch and all positions."""

from __future__ import annotations

import math
from typing import Any

from .. import kernels
from ..autograd import Tensor, note_write, op
from ..autograd.tape import require_arrays
from ..backend import Array, is_array, is_repeating
from .real import not_negative, real
from .running_norm import RunningNorm, check_running, follow


@op
def _batch_norm(
    x: Array, weight: Array | None, bias: Array | None, residual: Array | None, frozen: Any, eps: float, relu: bool
) -> Any:
    """``(y, mean, var)``; the statistics carry no gradient."""
    y, mean, var = kernels.batch_norm(x, weight, bias, eps, statistics=frozen, residual=residual, relu=relu)
    result = y if relu else None

    def backward(dy: Array, dmean: Array | None, dvar: Array | None) -> Any:
        dx, dweight, dbias, dresidual = kernels.batch_norm_backward(
            dy, x, mean, var, weight, eps, y=result, frozen=frozen is not None, residual=residual is not None
        )
        return dx, None if weight is None else dweight, None if bias is None else dbias, dresidual

    return (y, mean, var), backward


def batch_norm(
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: Any = 0.1,
    eps: float = 1e-5,
    *,
    residual: Any = None,
    relu: bool = False,
) -> Tensor:
    """``y = relu((x - mean) / sqrt(var + eps) * weight + bias + residual)``; mean and variance of each channel.

    One step on the tape and a pass over memory fewer than its parts. Where :func:`lamella.checkpoint` computes it again
    the running statistics stay.

    Args:
        x: shape ``(N, C, ...)``, floating.
        running_mean, running_var: shape ``(C,)``. In training they move towards the statistics of ``x`` (the variance
            divided by n - 1), in place; else they are used instead. None for both: always the statistics of ``x``.
        weight, bias: shape ``(C,)``, or None.
        training: whether to normalise by the statistics of ``x`` (the variance divided by n).
        momentum: weight of the new statistics in the running ones.
        eps: added to the variance.
        residual: added before the ReLU, of the shape of ``x``; or None.
        relu: whether negative results become 0.
    Raises:
        ValueError: in training with one value a channel or none; or outside of it without running statistics.
    Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
    """
    require_arrays("batch_norm", x=x)
    check_running("batch_norm", x, running_mean, running_var)
    momentum = momentum if is_array(momentum) else real("batch_norm", "momentum", momentum)
    eps = not_negative("batch_norm", "eps", eps)
    if training:
        count = x.size // max(1, x.shape[1]) if x.ndim > 1 else 0
        if count < 2:
            raise ValueError(f"batch_norm: training needs more than one value a channel, got shape {tuple(x.shape)}")
        y, mean, var = _batch_norm(x, weight, bias, residual, None, eps, relu)
        if running_mean is not None and running_var is not None and not is_repeating():
            follow(running_mean, mean.data, momentum)
            follow(running_var, var.data * (count / (count - 1)), momentum)
        return y
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: running_mean and running_var must be given where training is False")
    y, _, _ = _batch_norm(x, weight, bias, residual, (running_mean.data, running_var.data), eps, relu)
    return y


class _BatchNorm(RunningNorm):
    """What BatchNorm1d, BatchNorm2d and BatchNorm3d share."""

    _ndims: tuple[int, ...] = ()
    _shape = ""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats)

    def reset_running_stats(self) -> None:
        """Forget the running statistics: mean 0, variance 1, no batch seen."""
        super().reset_running_stats()
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.data[...] = 0
            note_write(self.num_batches_tracked.data)

    def forward(self, x: Any, residual: Any = None, relu: bool = False) -> Tensor:
        """Normalise; ``residual`` is added before the ``relu``, both in the same step."""
        name = type(self).__name__
        require_arrays(name, x=x)
        if x.ndim not in self._ndims or x.shape[1] != self.num_features:
            expected = self._shape.replace("C", str(self.num_features))
            raise ValueError(f"{name}: x must have shape {expected}, got {tuple(x.shape)}")
        training = self.training or self.running_mean is None
        momentum: Any = self.momentum
        count = self.num_batches_tracked
        if training and count is not None:
            if math.prod((x.shape[0], *x.shape[2:])) < 2:
                raise ValueError(f"{name}: training needs more than one value a channel, got shape {tuple(x.shape)}")
            if momentum is None:
                momentum = 1.0 / (count.data + 1).astype("float32")  # stays on the device: the host need not wait
        y = batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            training,
            0.0 if momentum is None else momentum,
            self.eps,
            residual=residual,
            relu=relu,
        )
        if training and count is not None and not is_repeating():  # a batch that was refused is not counted
            counted = count.data
            counted += 1
            note_write(counted)
        return y


class BatchNorm1d(_BatchNorm):
    """Normalises each channel of ``(N, C)`` or ``(N, C, T)`` over batch and positions, then scales and shifts it.

    In training the statistics are those of the batch, and the running ones follow them; in evaluation the running ones
    are used. ``norm(x, residual=r, relu=True)`` adds ``r`` and applies a ReLU in the same step.

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum: weight of the newest statistics in the running ones; None for the mean of all batches so far.
        affine: whether there are a weight (1 at first) and a bias (0 at first).
        track_running_stats: without them evaluation takes the statistics of its batch too.

    Attributes:
        weight, bias: shape ``(num_features,)``, or None.
        running_mean, running_var: shape ``(num_features,)``; the variance is divided by n - 1. Or None.
        num_batches_tracked: how many batches the running statistics have seen, int64. Or None.
    Raises:
        ValueError: in training with one value a channel: its variance is unknown.
    Source: Ioffe and Szegedy 2015, arXiv 1502.03167.
    """

    _ndims, _shape = (2, 3), "(N, C) or (N, C, T)"


class BatchNorm2d(_BatchNorm):
    """Normalises each channel of ``(N, C, H, W)`` over the batch and all pixels; see :class:`BatchNorm1d`."""

    _ndims, _shape = (4,), "(N, C, H, W)"


class BatchNorm3d(_BatchNorm):
    """Normalises each channel of ``(N, C, D, H, W)`` over the batch and all positions; see :class:`BatchNorm1d`."""

    _ndims, _shape = (5,), "(N, C, D, H, W)"
