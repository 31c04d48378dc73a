"""Running statistics of a normalisation: what batch and instance norms keep, and how it follows the newest."""

from __future__ import annotations

from typing import Any

from ..autograd import Parameter, Tensor, is_floating, note_write
from ..backend import Array
from . import init
from .lengths import length
from .module import Buffer, Module
from .real import not_negative, real


class RunningNorm(Module):
    """The parameters and buffers of a normalisation of channels, under PyTorch's names.

    Args:
        num_features: the number of channels.
        eps: added to the variance.
        momentum: weight of the newest statistics in the running ones, or None.
        affine: whether there are a weight (1 at first) and a bias (0 at first).
        track_running_stats: whether there are running statistics.
    """

    weight: Parameter | None
    bias: Parameter | None
    running_mean: Buffer | None
    running_var: Buffer | None
    num_batches_tracked: Buffer | None

    _fewest_features = 0

    def __init__(
        self, num_features: int, eps: float, momentum: float | None, affine: bool, track_running_stats: bool
    ) -> None:
        name = type(self).__name__
        self.num_features = length(name, "num_features", num_features, self._fewest_features)
        self.eps = not_negative(name, "eps", eps)
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

    def extra_repr(self) -> str:
        options = f"eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        return f"{self.num_features}, {options}, track_running_stats={self.track_running_stats}"


def check_running(name: str, x: Any, running_mean: Any, running_var: Any) -> None:
    """Raise before anything is changed where the running statistics do not fit ``x``, or only one is there."""
    if (running_mean is None) != (running_var is None):
        raise ValueError(f"{name}: running_mean and running_var must both be given, or both be None")
    for what, running in (("running_mean", running_mean), ("running_var", running_var)):
        if running is None:
            continue
        if not isinstance(running, Tensor):
            raise TypeError(f"{name}: {what} must be a tensor, which is updated in place, got {type(running).__name__}")
        if not is_floating(running.dtype):
            raise TypeError(f"{name}: {what} must be floating, got {running.dtype}")
        if x.ndim > 1 and tuple(running.shape) != (x.shape[1],):
            shapes = f"({x.shape[1]},) for x {tuple(x.shape)}, got {tuple(running.shape)}"
            raise ValueError(f"{name}: {what} must have shape {shapes}")


def follow(running: Tensor, newest: Array, momentum: Any) -> None:
    """Move a running statistic towards the newest, in place."""
    old = running.data
    old += (momentum * (newest - old)).astype(old.dtype, copy=False)
    note_write(old)
