"""``kernels.explain`` knows every operation that has a kernel, and names what is launched."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import kernels
from lamella.kernels import _launch
from lamella.layers.relu import ReLU

# Public, and not to be asked about.
_WITHOUT_A_CHOICE = {
    "Activation": "a description",
    "Dropout": "a description",
    "explain": "the question itself",
    "attention_weights": "array operations and products on every device",
    "attention_weights_backward": "likewise",
    "conv_backward_bias": "array operations on every device",
    "conv_backward_data": "told by conv",
    "conv_backward_weight": "told by conv",
    "im2col": "one kernel, a step of conv",
    "col2im": "likewise",
    "max_pool_indices": "array operations on every device",
    "random_bits_kernel": "one kernel, which nothing chooses",
    "rotary_table": "made on the host",
    "step_pieces": "made on the host",
}
_BY_ANOTHER_NAME = {"conv1d": "conv", "conv2d": "conv", "conv3d": "conv"}
_OF_LAYERS = ("nll_loss", "prelu", "prelu_backward", "swish", "swish_backward")


def test_every_operation_with_a_kernel_can_be_asked_about():
    known = set(_launch._explained)
    public = {name for name in kernels.__all__ if not name.endswith("_definition")}
    assert public - set(_WITHOUT_A_CHOICE) - known == set(), "explain does not know these"
    assert set(_WITHOUT_A_CHOICE) <= public - known, "explain knows these, or they are gone"
    assert known - public == {*_BY_ANOTHER_NAME, *_OF_LAYERS}


def rows(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


_LABELS = np.array([1, 0, 4, 2, -100, 3])
_X, _W = rows(6, 9), rows(9, seed=1)
_LONG = rows(2, 1 << 15)
_IMAGES = rows(2, 5, 3, seed=2)
CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "softmax": ("softmax", (_X,), {}),
    "softmax of few long rows": ("softmax", (_LONG,), {}),
    "softmax along another axis": ("softmax", (_IMAGES,), {"axis": 1}),
    "softmax_backward": ("softmax_backward", (_X, _X), {}),
    "log_softmax": ("log_softmax", (_X,), {}),
    "log_softmax_backward": ("log_softmax_backward", (_LONG, _LONG), {}),
    "masked_softmax": ("masked_softmax", (_X,), {"p": 0.5, "key": 3}),
    "masked_softmax_backward": ("masked_softmax_backward", (_X, _X), {}),
    "cross_entropy": ("cross_entropy", (_X, _LABELS), {"reduction": "none"}),
    "cross_entropy of few long rows": ("cross_entropy", (_LONG, _LABELS[:2]), {"reduction": "none"}),
    "cross_entropy of images": ("cross_entropy", (_IMAGES, _LABELS.reshape(2, 3)), {"reduction": "none"}),
    "cross_entropy_backward": ("cross_entropy_backward", (np.array(1, np.float32), _X, _LABELS), {"reduction": "sum"}),
    "label_total": ("label_total", (_LABELS, None, _X, -100, 9), {}),
    "scale_gradient": ("scale_gradient", (_X, np.array(2, np.float32)), {}),
    "layer_norm": ("layer_norm", (_X, _W), {}),
    "layer_norm_backward": ("layer_norm_backward", (_X, _X, rows(6), rows(6), _W), {}),
    "rms_norm": ("rms_norm", (_X, _W), {}),
    "rms_norm_backward": ("rms_norm_backward", (_X, _X, rows(6), _W), {}),
    "dropout_add_layer_norm": ("dropout_add_layer_norm", (_X, _X, _W), {}),
    "dropout_add_rms_norm": ("dropout_add_rms_norm", (_X, _X, _W), {}),
    "activation_forward": ("activation_forward", (_X, ReLU().fused_form()), {"bias": _W}),
    "activation_backward": ("activation_backward", (_X, _X, ReLU().fused_form()), {"bias": _W}),
    "glu": ("glu", (rows(4, 8),), {}),
    "embedding": ("embedding", (np.array([1, 0, 3]), _X), {}),
    "rotary": ("rotary", (rows(2, 3, 2, 8), kernels.rotary_table(8, 16).astype(np.float32)), {}),
    "reduce": ("reduce", ("logsumexp", _X), {"axis": 1}),
    "sum_rows": ("sum_rows", (_X,), {}),
    "scale_by": ("scale_by", (_X, rows(2)), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_explained_is_what_is_launched(name: str) -> None:
    operation, arguments, options = CASES[name]
    with lamella.testing.simulator() as sim:

        def put(value: Any) -> Any:
            return sim.from_numpy(value) if isinstance(value, np.ndarray) else value

        given, named = [put(a) for a in arguments], {key: put(value) for key, value in options.items()}
        said = kernels.explain(operation, *given, **named)
        sim.reset()
        getattr(kernels, operation)(*given, **named)
        assert re.findall(r"(?:^|; then )(\w+) \[", said) == list(sim.launches)
    on_cpu = kernels.explain(operation, *arguments, **options)
    assert on_cpu == "plain array definition: the cpu backend runs no CUDA kernels"


def test_losses_are_explained_with_what_stands_around_them() -> None:
    with lamella.testing.simulator() as sim:
        x, w, labels = (sim.from_numpy(a) for a in (rows(6, 4), rows(9, 4), _LABELS))
        said = kernels.explain("linear_cross_entropy", x, w, labels, chunk=4, gradients=True)
        assert said.startswith("cross_entropy_rows [REGISTERS LABELS DTYPE=float")
        assert "for each 4 of 6 rows, behind their product with the weight; losses and gradient of labels" in said
        assert "losses of labels" in kernels.explain("linear_cross_entropy", x, w, labels)
        said = kernels.explain("nll_loss", x, labels)
        assert said.startswith("nll_losses [SMALL DTYPE=float THREADS=512], 1 blocks of 512 threads: one thread")
        assert "no kernel for float64" in kernels.explain("nll_loss", x.astype("float64"), labels)
    assert "runs no CUDA kernels" in kernels.explain("nll_loss", rows(6, 4), _LABELS)
    assert "runs no CUDA kernels" in kernels.explain("linear_cross_entropy", rows(6, 4), rows(9, 4), _LABELS)
