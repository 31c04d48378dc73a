"""Residual networks: ResNet-18 to ResNet-152 for large images, and the narrow ones for 28 x 28 and 32 x 32.

Parameters have torchvision's names, so its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Tensor
from ..backend import Generator, as_generator
from ..layers import AdaptiveAvgPool2d, BatchNorm2d, Conv2d, Linear, MaxPool2d, Module, Sequential, flatten, init
from ..layers.lengths import length


class BasicBlock(Module):
    """``relu(x' + bn2(conv2(relu(bn1(conv1(x))))))`` with two 3 x 3 convolutions; x' is x or a 1 x 1 convolution of it.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        stride: of the first convolution, and of the shortcut.
        rng: draws the weights.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1, *, rng: Generator) -> None:
        self.conv1 = conv(in_channels, channels, 3, stride, rng=rng)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, rng=rng)
        self.bn2 = BatchNorm2d(channels)
        self.downsample = _shortcut(in_channels, channels, stride, rng)

    def forward(self, x: Any) -> Tensor:
        y = self.bn1(self.conv1(x), relu=True)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn2(self.conv2(y), residual=shortcut, relu=True)


class Bottleneck(Module):
    """The same with 1 x 1, 3 x 3 and 1 x 1 convolutions, the last four times as wide; the stride is that of the 3 x 3.

    Args:
        in_channels: channels of the input.
        channels: channels inside; the output has four times as many.
        stride: of the 3 x 3 convolution, and of the shortcut.
        rng: draws the weights.
    """

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1, *, rng: Generator) -> None:
        self.conv1 = conv(in_channels, channels, 1, rng=rng)
        self.bn1 = BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, stride, rng=rng)
        self.bn2 = BatchNorm2d(channels)
        self.conv3 = conv(channels, 4 * channels, 1, rng=rng)
        self.bn3 = BatchNorm2d(4 * channels)
        self.downsample = _shortcut(in_channels, 4 * channels, stride, rng)

    def forward(self, x: Any) -> Tensor:
        y = self.bn1(self.conv1(x), relu=True)
        y = self.bn2(self.conv2(y), relu=True)
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.bn3(self.conv3(y), residual=shortcut, relu=True)


class ResNet(Module):
    """A first convolution, stages of residual blocks each at half the size of the one before, mean over places, linear.

    Args:
        block: BasicBlock or Bottleneck.
        blocks: how many of them in each stage.
        num_classes: length of the output.
        in_channels: of the images.
        width: channels of the first stage; each stage doubles them.
        small_images: begin with a 3 x 3 convolution at full size (He et al. 2015, section 4.2) instead of a 7 x 7 of
            stride 2 and a max pooling of stride 2.
        rng: draws the initial values; a fresh generator by default.
    Source: He et al. 2015, arXiv 1512.03385; the stride of the bottleneck as in torchvision (version 1.5).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        *,
        width: int = 64,
        small_images: bool = False,
        rng: Generator | None = None,
    ) -> None:
        rng = as_generator("ResNet", rng)
        if not blocks or any(count < 1 for count in blocks):
            raise ValueError(f"ResNet: blocks must be at least one number of at least 1, got {blocks}")
        num_classes, in_channels = (
            length("ResNet", "num_classes", num_classes),
            length("ResNet", "in_channels", in_channels),
        )
        width = length("ResNet", "width", width)
        self.conv1 = conv(in_channels, width, 3, rng=rng) if small_images else conv(in_channels, width, 7, 2, rng=rng)
        self.bn1 = BatchNorm2d(width)
        self.maxpool = None if small_images else MaxPool2d(3, 2, 1)
        self.stages = len(blocks)
        channels = width
        for stage, count in enumerate(blocks):
            out, stage_blocks = width << stage, []
            for i in range(count):
                stage_blocks.append(block(channels, out, 2 if stage and not i else 1, rng=rng))
                channels = out * block.expansion
            setattr(self, f"layer{stage + 1}", Sequential(*stage_blocks))
        self.avgpool = AdaptiveAvgPool2d(1)
        self.fc = Linear(channels, num_classes, rng=rng)

    def features(self, x: Any) -> Tensor:
        """What the last stage gives, ``(N, C, H, W)``: the class-activation map weighs these channels."""
        x = self.bn1(self.conv1(x), relu=True)
        if self.maxpool is not None:
            x = self.maxpool(x)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x

    def forward(self, x: Any) -> Tensor:
        return self.fc(flatten(self.avgpool(self.features(x)), 1))


def resnet18(num_classes: int = 1000, *, rng: Generator | None = None) -> ResNet:
    """ResNet with 18 layers, 11.7 million parameters; images ``(N, 3, H, W)``, at best of 224 x 224."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, rng=rng)


def resnet34(num_classes: int = 1000, *, rng: Generator | None = None) -> ResNet:
    """ResNet with 34 layers, 21.8 million parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, rng=rng)


def resnet50(num_classes: int = 1000, *, rng: Generator | None = None) -> ResNet:
    """ResNet with 50 layers, 25.6 million parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, rng=rng)


def resnet101(num_classes: int = 1000, *, rng: Generator | None = None) -> ResNet:
    """ResNet with 101 layers, 44.5 million parameters."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, rng=rng)


def resnet152(num_classes: int = 1000, *, rng: Generator | None = None) -> ResNet:
    """ResNet with 152 layers, 60.2 million parameters."""
    return ResNet(Bottleneck, (3, 8, 36, 3), num_classes, rng=rng)


def small_resnet(
    depth: int = 20, num_classes: int = 10, in_channels: int = 3, *, width: int = 16, rng: Generator | None = None
) -> ResNet:
    """A ResNet for images of 28 x 28 or 32 x 32: three stages of ``width``, twice and four times as many channels.

    Args:
        depth: number of layers with weights, ``6 n + 2``.
        num_classes, in_channels, width, rng: as for :class:`ResNet`.
    Raises:
        ValueError: there is no such depth.
    Source: He et al. 2015, arXiv 1512.03385, section 4.2.
    """
    blocks, rest = divmod(length("small_resnet", "depth", depth) - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"small_resnet: depth must be 6 n + 2, such as 8, 14 or 20, got {depth}")
    return ResNet(
        BasicBlock, (blocks, blocks, blocks), num_classes, in_channels, width=width, small_images=True, rng=rng
    )


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, *, rng: Generator) -> Conv2d:
    """A convolution without bias that keeps the size at stride 1, drawn by He's rule from the outputs."""
    made = Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False, rng=rng)
    init.assign(made.weight, init.he_normal(made.weight.shape, mode="fan_out", rng=rng))
    return made


def _shortcut(in_channels: int, channels: int, stride: int, rng: Generator) -> Sequential | None:
    if stride == 1 and in_channels == channels:
        return None
    return Sequential(conv(in_channels, channels, 1, stride, rng=rng), BatchNorm2d(channels))
