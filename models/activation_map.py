"""Where a network looked: the class-activation map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..autograd import Tensor, no_grad
from ..backend import backend_of, is_array
from ..layers import AdaptiveAvgPool2d, Flatten, Linear, Module, Sequential, interpolate
from ..layers.lengths import length


def class_activation_map(
    model: Module, x: Any, labels: Any = None, *, size: int | Sequence[int] | None = None
) -> Tensor:
    """``M[n, i, j] = sum over k of weight[label n, k] features(x)[n, k, i, j]``: what each place says for a class.

    The mean of the map over its places, plus the class's bias, is the class's logit. The model runs in evaluation mode,
    without gradient.

    Args:
        model: one whose ``features`` are averaged over places and then weighed by a Linear, ``fc`` or ``classifier``,
            as in :class:`ResNet` and :class:`DenseNet`; or a Sequential that ends with ``AdaptiveAvgPool2d(1)``,
            ``Flatten()`` and a Linear.
        x: images, shape ``(N, C, H, W)``.
        labels: a class for each image, integers of shape ``(N,)``; by default the one that the model takes it for.
        size: height and width to which the maps are interpolated, such as those of the images, or one number for both;
            None leaves them as the features have them.
    Returns:
        shape ``(N, h, w)``, or ``(N, *size)``.
    Raises:
        TypeError: the model does not end in that way.
        ValueError: labels are not one class for each image.
    Source: Zhou et al. 2016, "Learning deep features for discriminative localization", arXiv 1512.04150, equation 2.
    """
    features, linear = _parts(model)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            found = features(x if isinstance(x, Tensor) else Tensor(x))
            scores = linear(found.mean(axis=(2, 3)))
    finally:
        for module, mode in modes:
            module.training = mode
    array = found.data
    backend = backend_of(array)
    classes = scores.data.argmax(axis=1) if labels is None else _checked(labels, scores, backend.device_of(array))
    weight = linear.weight.data[classes]  # (N, K)
    maps = (array * weight[:, :, None, None]).sum(axis=1)  # (N, h, w)
    if size is None:
        return Tensor(maps)
    both = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    both = tuple(length("class_activation_map", "size", n, 1) for n in both)
    return interpolate(Tensor(maps[:, None]), both, mode="bilinear")[:, 0]


def _parts(model: Any) -> tuple[Callable[[Any], Tensor], Linear]:
    """What gives the features, and what weighs their means."""
    if isinstance(model, Sequential) and len(model) > 3:
        *_, pool, flatten, linear = model
        means = isinstance(pool, AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1), [1, 1])
        if means and isinstance(flatten, Flatten) and isinstance(linear, Linear):
            return model[:-3], linear
    features = getattr(model, "features", None)
    linear = getattr(model, "fc", getattr(model, "classifier", None))
    if not callable(features) or not isinstance(linear, Linear):
        raise TypeError(
            "class_activation_map: model must average features over places and end in a Linear, as ResNet, DenseNet "
            f"or Sequential(…, AdaptiveAvgPool2d(1), Flatten(), Linear(…)), got {type(model).__name__}"
        )
    return features, linear


def _checked(labels: Any, scores: Tensor, device: Any) -> Any:
    """Classes of the images, where the features are."""
    given = labels if isinstance(labels, Tensor) else Tensor(labels) if is_array(labels) else None
    count, number = scores.shape
    if given is None or given.dtype.kind not in "iu":
        raise TypeError(f"class_activation_map: labels must be an array of integers, got {labels!r}")
    host = given.to("cpu").data
    if host.shape != (count,) or (count and not (host.min() >= 0 and host.max() < number)):
        raise ValueError(
            f"class_activation_map: labels must be one of 0 … {number - 1} for each of {count} images, got {labels!r}"
        )
    return given.to(device).data
