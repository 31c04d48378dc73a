"""Channels as pixels, pixels as channels, and channels in another order."""

from __future__ import annotations

import math
from typing import Any

from ..autograd import Tensor
from ..autograd.shape import permute_dims, reshape
from ..autograd.tape import require_arrays
from .lengths import length
from .module import Module


def pixel_shuffle(x: Any, upscale_factor: int) -> Tensor:
    """``y[..., c, r h + i, r w + j] = x[..., c r² + r i + j, h, w]`` with ``r = upscale_factor``.

    Args:
        x: shape ``(..., C r², H, W)``.
        upscale_factor: r.
    Returns:
        shape ``(..., C, r H, r W)``.
    Source: Shi et al. 2016, "Real-time single image and video super-resolution", arXiv 1609.05158.
    """
    r = length("pixel_shuffle", "upscale_factor", upscale_factor, 1)
    _check("pixel_shuffle", x)
    if x.shape[-3] % (r * r):
        raise ValueError(f"pixel_shuffle: channels must be a multiple of {r}² = {r * r}, got shape {tuple(x.shape)}")
    *lead, c, h, w = x.shape
    many = math.prod(lead)
    y = permute_dims(reshape(x, (many, c // (r * r), r, r, h, w)), (0, 1, 4, 2, 5, 3))
    return reshape(y, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(x: Any, downscale_factor: int) -> Tensor:
    """The inverse of :func:`pixel_shuffle`: shape ``(..., C, r H, r W)`` becomes ``(..., C r², H, W)``."""
    r = length("pixel_unshuffle", "downscale_factor", downscale_factor, 1)
    _check("pixel_unshuffle", x)
    *lead, c, h, w = x.shape
    if h % r or w % r:
        raise ValueError(f"pixel_unshuffle: height and width must be multiples of {r}, got shape {tuple(x.shape)}")
    many = math.prod(lead)
    y = permute_dims(reshape(x, (many, c, h // r, r, w // r, r)), (0, 1, 3, 5, 2, 4))
    return reshape(y, (*lead, c * r * r, h // r, w // r))


def channel_shuffle(x: Any, groups: int) -> Tensor:
    """Channels of ``groups`` groups taken in turn: channel ``g C/groups + i`` goes to ``i groups + g``.

    Args:
        x: shape ``(N, C, ...)`` with at least one more axis.
        groups: divides C.
    Source: Zhang et al. 2018, "ShuffleNet", arXiv 1707.01083.
    """
    groups = length("channel_shuffle", "groups", groups, 1)
    require_arrays("channel_shuffle", x=x)
    if x.ndim < 3 or x.shape[1] % groups:
        raise ValueError(
            f"channel_shuffle: x must have shape (N, C, ...) with C a multiple of groups={groups}, got {tuple(x.shape)}"
        )
    n, c, *rest = x.shape
    y = permute_dims(reshape(x, (n, groups, c // groups, *rest)), (0, 2, 1, *range(3, x.ndim + 1)))
    return reshape(y, (n, c, *rest))


def _check(function: str, x: Any) -> None:
    require_arrays(function, x=x)
    if x.ndim < 3:
        raise ValueError(f"{function}: x must have shape (..., C, H, W), got {tuple(x.shape)}")


class PixelShuffle(Module):
    """``(..., C r², H, W)`` becomes ``(..., C, r H, r W)``; see :func:`pixel_shuffle`."""

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = length("PixelShuffle", "upscale_factor", upscale_factor, 1)

    def forward(self, x: Any) -> Tensor:
        return pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """``(..., C, r H, r W)`` becomes ``(..., C r², H, W)``: the inverse of :class:`PixelShuffle`."""

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = length("PixelUnshuffle", "downscale_factor", downscale_factor, 1)

    def forward(self, x: Any) -> Tensor:
        return pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """Channels of ``groups`` groups taken in turn; see :func:`channel_shuffle`."""

    def __init__(self, groups: int) -> None:
        self.groups = length("ChannelShuffle", "groups", groups, 1)

    def forward(self, x: Any) -> Tensor:
        return channel_shuffle(x, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
