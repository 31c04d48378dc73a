"""Densely connected networks: every layer sees the results of all before it.

Parameters have torchvision's names, so its state dicts load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import Parameter, Tensor, concat
from ..backend import Generator, as_generator
from ..layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Linear,
    MaxPool2d,
    Module,
    flatten,
    init,
)
from ..layers.drop import check_probability
from ..layers.lengths import length


class DenseLayer(Module):
    """``conv2(relu(norm2(conv1(relu(norm1(x))))))``: 1 x 1 to ``bottleneck * growth`` channels, 3 x 3 to ``growth``."""

    def __init__(self, in_channels: int, growth: int, bottleneck: int, dropout: float, rng: Generator) -> None:
        self.norm1 = BatchNorm2d(in_channels)
        self.conv1 = _conv(in_channels, bottleneck * growth, 1, rng=rng)
        self.norm2 = BatchNorm2d(bottleneck * growth)
        self.conv2 = _conv(bottleneck * growth, growth, 3, padding=1, rng=rng)
        self.dropout = Dropout(dropout, rng=rng.spawn()) if dropout else None

    def forward(self, x: Any) -> Tensor:
        y = self.conv1(self.norm1(x, relu=True))
        y = self.conv2(self.norm2(y, relu=True))
        return y if self.dropout is None else self.dropout(y)


class DenseBlock(Module):
    """Layers, each of which is given all results so far side by side; so is the result."""

    def __init__(
        self, layers: int, in_channels: int, growth: int, bottleneck: int, dropout: float, rng: Generator
    ) -> None:
        self.layers = layers
        for i in range(layers):
            layer = DenseLayer(in_channels + i * growth, growth, bottleneck, dropout, rng)
            setattr(self, f"denselayer{i + 1}", layer)

    def forward(self, x: Any) -> Tensor:
        for i in range(self.layers):
            x = concat((x, getattr(self, f"denselayer{i + 1}")(x)), axis=1)
        return x


class Transition(Module):
    """Between blocks: fewer channels by a 1 x 1 convolution, half the size by mean pooling."""

    def __init__(self, in_channels: int, out_channels: int, rng: Generator) -> None:
        self.norm = BatchNorm2d(in_channels)
        self.conv = _conv(in_channels, out_channels, 1, rng=rng)
        self.pool = AvgPool2d(2, 2)

    def forward(self, x: Any) -> Tensor:
        return self.pool(self.conv(self.norm(x, relu=True)))


class _Features(Module):
    """The convolutional part, up to the last normalisation."""

    def __init__(
        self,
        growth_rate: int,
        blocks: Sequence[int],
        num_init_features: int,
        bn_size: int,
        in_channels: int,
        drop_rate: float,
        small_images: bool,
        rng: Generator,
    ) -> None:
        channels = num_init_features
        if small_images:
            self.conv0 = _conv(in_channels, channels, 3, padding=1, rng=rng)
        else:
            self.conv0 = _conv(in_channels, channels, 7, 2, 3, rng=rng)
            self.norm0, self.pool0 = BatchNorm2d(channels), MaxPool2d(3, 2, 1)
        self.blocks, self.small_images = len(blocks), small_images
        for i, layers in enumerate(blocks, start=1):
            setattr(self, f"denseblock{i}", DenseBlock(layers, channels, growth_rate, bn_size, drop_rate, rng))
            channels += layers * growth_rate
            if i < len(blocks):
                setattr(self, f"transition{i}", Transition(channels, channels // 2, rng))
                channels //= 2
        self.channels = channels
        setattr(self, f"norm{len(blocks) + 1}", BatchNorm2d(channels))

    def forward(self, x: Any) -> Tensor:
        x = self.conv0(x)
        if not self.small_images:
            x = self.pool0(self.norm0(x, relu=True))
        for i in range(1, self.blocks + 1):
            x = getattr(self, f"denseblock{i}")(x)
            if i < self.blocks:
                x = getattr(self, f"transition{i}")(x)
        return getattr(self, f"norm{self.blocks + 1}")(x, relu=True)


class DenseNet(Module):
    """A first convolution, dense blocks with transitions between them, mean over places, linear.

    Args:
        growth_rate: channels that each layer adds.
        blocks: layers in each block.
        num_init_features: channels of the first convolution.
        bn_size: channels inside a layer, in growth rates.
        num_classes: length of the output.
        in_channels: of the images.
        drop_rate: probability of dropping a value after each layer.
        small_images: begin with a 3 x 3 convolution at full size instead of a 7 x 7 of stride 2 and a max pooling.
        rng: draws the initial values and the dropout masks; a fresh generator by default.
    Source: Huang et al. 2016, arXiv 1608.06993 (DenseNet-BC, compression 0.5).
    """

    def __init__(
        self,
        growth_rate: int = 32,
        blocks: Sequence[int] = (6, 12, 24, 16),
        num_init_features: int = 64,
        bn_size: int = 4,
        num_classes: int = 1000,
        in_channels: int = 3,
        drop_rate: float = 0.0,
        *,
        small_images: bool = False,
        rng: Generator | None = None,
    ) -> None:
        name, rng = "DenseNet", as_generator("DenseNet", rng)
        if not blocks or any(layers < 1 for layers in blocks):
            raise ValueError(f"DenseNet: blocks must be at least one number of at least 1, got {blocks}")
        self.features = _Features(
            length(name, "growth_rate", growth_rate),
            blocks,
            length(name, "num_init_features", num_init_features),
            length(name, "bn_size", bn_size),
            length(name, "in_channels", in_channels),
            check_probability(name, drop_rate, "drop_rate"),
            small_images,
            rng,
        )
        self.avgpool = AdaptiveAvgPool2d(1)
        classes = length(name, "num_classes", num_classes)
        self.classifier = Linear(self.features.channels, classes, rng=rng)
        self.classifier.bias = Parameter(init.zeros((classes,)))

    def forward(self, x: Any) -> Tensor:
        return self.classifier(flatten(self.avgpool(self.features(x)), 1))


def densenet121(num_classes: int = 1000, *, rng: Generator | None = None) -> DenseNet:
    """DenseNet with 121 layers, 8.0 million parameters; images ``(N, 3, H, W)``, at best of 224 x 224."""
    return DenseNet(num_classes=num_classes, rng=rng)


def small_densenet(
    depth: int = 40,
    growth_rate: int = 12,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    drop_rate: float = 0.0,
    rng: Generator | None = None,
) -> DenseNet:
    """A DenseNet-BC for images of 28 x 28 or 32 x 32: three blocks.

    Args:
        depth: number of layers with weights, ``6 n + 4``.
        growth_rate, num_classes, in_channels, drop_rate, rng: as for :class:`DenseNet`.
    Raises:
        ValueError: there is no such depth.
    """
    layers, rest = divmod(length("small_densenet", "depth", depth) - 4, 6)
    if rest or layers < 1:
        raise ValueError(f"small_densenet: depth must be 6 n + 4, such as 10, 22 or 40, got {depth}")
    return DenseNet(
        growth_rate,
        (layers, layers, layers),
        2 * growth_rate,
        num_classes=num_classes,
        in_channels=in_channels,
        drop_rate=drop_rate,
        small_images=True,
        rng=rng,
    )


def _conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, *, rng: Generator
) -> Conv2d:
    """A convolution without bias, drawn by He's rule."""
    made = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False, rng=rng)
    init.assign(made.weight, init.he_normal(made.weight.shape, rng=rng))
    return made
