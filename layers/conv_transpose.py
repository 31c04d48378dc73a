"""Transposed convolution: the map that takes a convolution's gradient back, used to make images larger."""

from __future__ import annotations

from typing import Any

from .. import kernels
from ..autograd import Tensor, op
from ..backend import Array, Generator
from ..kernels.windows import per_axis
from .conv import ConvBase, batch_of


@op
def _conv_transpose(
    x: Array, weight: Array, bias: Array | None, image: tuple[int, ...], options: dict[str, Any]
) -> Any:
    y = kernels.conv_backward_data(x, weight, image, **options)
    if bias is not None:
        y += bias.reshape(-1, *(1,) * len(image))
    kernel = weight.shape[2:]
    return y, (
        lambda dy, out: kernels.conv(dy, weight, **options),
        lambda dy, out: kernels.conv_backward_weight(x, dy, kernel, out=out, **options),
        lambda dy, out: kernels.conv_backward_bias(dy, out),
    )


def _conv_transpose_axes(
    name: str,
    axes: int,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    x, alone = batch_of(name, axes, x, weight)
    stride, dilation = per_axis(name, "stride", stride, axes, 1), per_axis(name, "dilation", dilation, axes, 1)
    padding = per_axis(name, "padding", padding, axes)
    output_padding = per_axis(name, "output_padding", output_padding, axes)
    for extra, s, d in zip(output_padding, stride, dilation, strict=True):
        if extra >= max(s, d):
            raise ValueError(
                f"{name}: output_padding must be smaller than stride or dilation, got output_padding={output_padding}, "
                f"stride={stride}, dilation={dilation}"
            )
    if x.shape[1] != weight.shape[0]:
        raise ValueError(
            f"{name}: weight must have shape (C, F / groups, *kernel) for x (N, C, ...), got {tuple(weight.shape)} and "
            f"{tuple(x.shape)}"
        )
    image = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1 + extra
        for n, s, p, d, k, extra in zip(
            x.shape[2:], stride, padding, dilation, weight.shape[2:], output_padding, strict=True
        )
    )
    if any(n < 1 for n in image):
        raise ValueError(f"{name}: nothing is left of x {tuple(x.shape)}: the output would have lengths {image}")
    if bias is not None and (tuple(bias.shape) != (weight.shape[1] * groups,) or bias.dtype != weight.dtype):
        raise ValueError(
            f"{name}: bias must be {weight.dtype} of shape {(weight.shape[1] * groups,)}, got {bias.dtype} of "
            f"{tuple(bias.shape)}"
        )
    pairs = [(p, p - extra) for p, extra in zip(padding, output_padding, strict=True)]
    options = {"stride": stride, "padding": pairs, "dilation": dilation, "groups": groups}
    y: Tensor = _conv_transpose(x, weight, bias, image, options)
    return y[0] if alone else y


def conv_transpose1d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """``y[n, f, j] = bias[f] + sum of weight[c, f, k] * x[n, c, i]``, where ``stride i + dilation k = j + padding``.

    What :func:`conv1d` with the same numbers does to gradients: each value of ``x`` lays the kernel down, ``stride``
    apart, and what overlaps is added.

    Args:
        x: shape ``(N, C, L)`` or ``(C, L)``.
        weight: shape ``(C, F / groups, K)``.
        bias: shape ``(F,)``, or None.
        stride: how far apart the kernels are laid.
        padding: so many values are cut off at both ends.
        output_padding: so many fewer are cut off at the far end; smaller than stride or dilation. A convolution of
            stride s gives one length for s input lengths, this says which of them is meant.
        groups: the channels form so many groups. dilation: from one value of the kernel to the next.
    Returns:
        shape ``(N, F, L')`` with ``L' = (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1``.
    Raises:
        TypeError: a dtype does not fit. ValueError: a shape or number does not fit; says which.
    """
    return _conv_transpose_axes(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of :func:`conv2d`, from ``(N, C, H, W)`` or ``(C, H, W)``; see :func:`conv_transpose1d`."""
    return _conv_transpose_axes(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """The transpose of :func:`conv3d`, from ``(N, C, D, H, W)`` or without N; arguments as :func:`conv_transpose1d`."""
    return _conv_transpose_axes(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


class _ConvTranspose(ConvBase):
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        rng: Generator | None = None,
    ) -> None:
        name = type(self).__name__
        if padding_mode != "zeros":
            raise ValueError(f"{name}: padding_mode must be 'zeros', got {padding_mode!r}")
        self._set_up(in_channels, out_channels, kernel_size, stride, dilation, groups, bias, padding_mode, rng)
        self.padding = per_axis(name, "padding", padding, self.axes)
        self.output_padding = per_axis(name, "output_padding", output_padding, self.axes)

    def forward(self, x: Any, output_size: Any = None) -> Tensor:
        """``output_size``: the spatial lengths wanted, in place of ``output_padding``."""
        self._check(x)
        extra = self.output_padding if output_size is None else self._padding_for(x, output_size)
        return _conv_transpose_axes(
            f"conv_transpose{self.axes}d",
            self.axes,
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            extra,
            self.groups,
            self.dilation,
        )

    def _padding_for(self, x: Any, output_size: Any) -> tuple[int, ...]:
        name, axes = type(self).__name__, self.axes
        wanted = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * axes
        wanted = per_axis(name, "output_size", wanted[-axes:] if len(wanted) == x.ndim else wanted, axes)
        extra = []
        for n, want, s, p, d, k in zip(
            x.shape[-axes:], wanted, self.stride, self.padding, self.dilation, self.kernel_size, strict=True
        ):
            least = (n - 1) * s - 2 * p + d * (k - 1) + 1
            if not least <= want < least + s:
                raise ValueError(
                    f"{name}: output_size must be {least} … {least + s - 1} for an input length of {n}, got {want}"
                )
            extra.append(want - least)
        return tuple(extra)

    def extra_repr(self) -> str:
        given = self._repr(self.padding)
        if any(self.output_padding):
            given.insert(1, f"output_padding={self.output_padding}")
        return ", ".join(given)


class ConvTranspose1d(_ConvTranspose):
    """Lays learned kernels down, ``stride`` apart, and adds what overlaps; see :func:`conv_transpose1d`.

    Args:
        in_channels: C of the input. out_channels: of the output.
        kernel_size, stride, dilation: an integer, or one for each axis.
        padding: so many values are cut off at both ends of each axis.
        output_padding: so many fewer at the far end.
        groups: divides both numbers of channels.
        bias: whether a learned constant is added to each output channel.
        padding_mode: ``"zeros"``.
        rng: draws the initial values, U(±1/sqrt(out_channels / groups * kernel)) as in PyTorch.

    Attributes:
        weight: shape ``(in_channels, out_channels / groups, *kernel_size)``.
        bias: shape ``(out_channels,)``, or None.
    """

    axes = 1


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of images ``(N, C, H, W)``; arguments as :class:`ConvTranspose1d`."""

    axes = 2


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution of volumes ``(N, C, D, H, W)``; arguments as :class:`ConvTranspose1d`."""

    axes = 3
