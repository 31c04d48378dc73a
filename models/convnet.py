"""The plain convolutional network: convolutions and poolings, then linear layers."""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import Generator, as_generator
from ..layers import Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential
from ..layers.drop import check_probability
from ..layers.lengths import length


def convnet(
    image: Sequence[int] = (1, 28, 28),
    num_classes: int = 10,
    *,
    channels: Sequence[int] = (32, 64),
    kernel_size: int = 5,
    hidden: int = 128,
    dropout: float = 0.0,
    rng: Generator | None = None,
) -> Sequential:
    """For each entry of ``channels`` a convolution, ReLU and 2 x 2 max pooling; a hidden layer; the classes.

    Args:
        image: channels, height and width of the images.
        num_classes: length of the output.
        channels: of each convolution, which keeps the size; each pooling halves it.
        kernel_size: of the convolutions, odd.
        hidden: length of the hidden layer.
        dropout: probability of dropping a hidden value.
        rng: draws the initial values and the dropout masks; a fresh generator by default.
    Returns:
        a Sequential that maps ``(N, *image)`` to ``(N, num_classes)``.
    Raises:
        ValueError: the image is too small for so many poolings, or the kernel size is even.
    Source: LeCun et al. 1998 (LeNet-5), with max pooling and ReLU.
    """
    rng, dropout = as_generator("convnet", rng), check_probability("convnet", dropout, "dropout")
    for what, numbers in (("image", image), ("channels", channels)):
        if not isinstance(numbers, (tuple, list)):
            raise TypeError(f"convnet: {what} must be a tuple or list of integers, got {numbers!r}")
    image = tuple(length("convnet", "image", n) for n in image)
    channels = tuple(length("convnet", "channels", n, 1) for n in channels)
    if len(image) != 3 or min(image[1:]) >> len(channels) < 1 or not channels:
        raise ValueError(
            f"convnet: image must be (channels, height, width), large enough to be halved for each of channels="
            f"{channels}, got {image}"
        )
    kernel_size = length("convnet", "kernel_size", kernel_size)
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"convnet: kernel_size must be odd, got {kernel_size}")
    before, height, width = image
    parts: list[object] = []
    for after in channels:
        parts += [Conv2d(before, after, kernel_size, padding=kernel_size // 2, rng=rng), ReLU(), MaxPool2d(2)]
        before, height, width = after, height // 2, width // 2
    parts += [Flatten(), Linear(before * height * width, hidden, rng=rng), ReLU()]
    if dropout:
        parts.append(Dropout(dropout, rng=rng.spawn()))
    return Sequential(*parts, Linear(hidden, num_classes, rng=rng))
