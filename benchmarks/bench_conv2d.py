"""Convolution of images forward, and forward with backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lamella.benchmarks.case import Case, Operation, Run, normal, pair


def _windows(x: Any, kernel: int, stride: int, padding: int) -> Any:
    """Each pixel's neighbourhood, shape (N, C, H', W', K, K)."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    return np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))[:, :, ::stride, ::stride]


def operation(stride: int, padding: int) -> Operation:
    def definition(x: Any, weight: Any) -> Any:
        windows = _windows(x, weight.shape[-1], stride, padding)
        return np.moveaxis(np.tensordot(windows, weight, ((1, 4, 5), (1, 2, 3))), -1, 1)  # (N, F, H', W')

    def derivative(dy: Any, x: Any, weight: Any) -> tuple[Any, ...]:
        kernel = weight.shape[-1]
        dweight = np.tensordot(dy, _windows(x, kernel, stride, padding), ((0, 2, 3), (0, 2, 3)))  # (F, C, K, K)
        height, width = x.shape[2] + 2 * padding, x.shape[3] + 2 * padding
        dx = np.zeros((*x.shape[:2], height, width))
        for i in range(kernel):
            for j in range(kernel):  # where the kernel's element (i, j) lay on the image
                part = np.moveaxis(np.tensordot(dy, weight[:, :, i, j], ((1,), (0,))), -1, 1)
                rows = slice(i, i + stride * (dy.shape[2] - 1) + 1, stride)
                dx[:, :, rows, slice(j, j + stride * (dy.shape[3] - 1) + 1, stride)] += part
        return dx[:, :, padding : height - padding, padding : width - padding], dweight

    return Operation(
        lambda layers, x, weight: layers.conv2d(x, weight, stride=stride, padding=padding),
        lambda torch, x, weight: torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding),
        definition,
        derivative,
    )


def channels_last(build: Callable[..., Run]) -> Callable[..., Run]:
    """PyTorch's other memory format of images, for which its fastest convolutions are written."""

    def turned(torch: Any, wrap: Callable[..., Any], *tensors: Any) -> Run:
        return build(torch, wrap, *(t.contiguous(memory_format=torch.channels_last) for t in tensors))

    return turned


def cases(
    batch: int, channels: int, filters: int, size: int, kernel: int = 3, stride: int = 1, **options: Any
) -> list[Case]:
    padding = kernel // 2
    after = (size + 2 * padding - kernel) // stride + 1
    x, y, weight = (batch, channels, size, size), (batch, filters, after, after), (filters, channels, kernel, kernel)

    def numbers(rng: Any) -> tuple[Any, ...]:
        return normal(rng, *x), normal(rng, *weight, scale=(channels * kernel * kernel) ** -0.5), normal(rng, *y)

    found = pair(
        f"conv{kernel}{f'/{stride}' if stride > 1 else ''}",
        f"{batch}×{channels}→{filters} {size}²",
        operation(stride, padding),
        numbers,
        (batch * channels * size * size + batch * filters * after * after) // 2,
        suite="layers",
        operations=2 * batch * filters * after * after * channels * kernel * kernel,
        needs=("layers.conv2d",),
        bound=512.0,  # a fast algorithm (Winograd) gives up some digits for its speed
        **options,
    )
    for case in found:
        case.contenders["torch channels_last"] = channels_last(case.contenders["torch"])
    return found


RESNET50 = [  # channels, filters, image, kernel, stride
    (64, 64, 56, 3, 1),
    (128, 128, 28, 3, 1),
    (256, 256, 14, 3, 1),
    (512, 512, 7, 3, 1),
    (256, 512, 56, 1, 2),
    (64, 256, 56, 1, 1),
    (1024, 256, 14, 1, 1),
    (3, 64, 224, 7, 2),
]
CASES = [
    *cases(4, 32, 32, 14, quick=True),
    *cases(16, 128, 128, 28, targets=("W4b conv f", "W4b conv f+b")),
    *(
        case
        for channels, filters, size, kernel, stride in RESNET50
        for case in cases(
            64, channels, filters, size, kernel, stride, devices=("cuda",), dtypes=("float32", "tf32", "bfloat16")
        )
    ),
]


def bench_conv2d(case: Case, measure: Callable[[Case], None]) -> None:
    measure(case)
