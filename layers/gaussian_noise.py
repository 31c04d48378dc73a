"""Gaussian noise, for denoising autoencoders."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, add
from ..backend import Generator, as_generator
from .module import Module
from .real import real


class GaussianNoise(Module):
    """``x + noise`` in training, the noise from N(0, std^2); else ``x``. The derivative is 1.

    Args:
        std: standard deviation of the noise, >= 0.
        rng: the stream of noise; a fresh generator by default. The noise is drawn on the host.
    Source: Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders".
    """

    def __init__(self, std: float = 0.1, *, rng: Generator | None = None) -> None:
        self.std = real("GaussianNoise", "std", std)
        if not self.std >= 0:
            raise ValueError(f"GaussianNoise: std must be at least 0, got {std}")
        self.rng = as_generator("GaussianNoise", rng)

    def forward(self, x: Any) -> Any:
        if not self.training or self.std == 0:
            return x
        x = x if isinstance(x, Tensor) else Tensor(x)
        noise = self.rng.normal(tuple(x.shape), 0.0, self.std, device=x.device)
        return add(x, noise.astype(x.dtype, copy=False))

    def extra_repr(self) -> str:
        return f"std={self.std}"
