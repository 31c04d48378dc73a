"""Conformance cases of the activations."""

from __future__ import annotations

import lamella.layers as L

from .layer_case import Case, values


def _elementwise(make: type[L.Module], *args: float, scale: float = 1.0) -> Case:
    return Case(lambda: make(*args), (values(3, 4) * scale,), (3, 4))


CASES: dict[str, Case] = {
    "CELU": _elementwise(L.CELU, 1.3),
    "ELU": _elementwise(L.ELU, 0.7),
    "GELU": _elementwise(L.GELU),
    "GLU": Case(L.GLU, (values(3, 4),), (3, 2)),
    "Hardshrink": _elementwise(L.Hardshrink),
    "Hardsigmoid": _elementwise(L.Hardsigmoid, scale=3.0),
    "Hardswish": _elementwise(L.Hardswish, scale=3.0),
    "Hardtanh": _elementwise(L.Hardtanh),
    "LeakyReLU": _elementwise(L.LeakyReLU),
    "LogSigmoid": _elementwise(L.LogSigmoid),
    "LogSoftmax": _elementwise(L.LogSoftmax),
    "Mish": _elementwise(L.Mish),
    "PReLU": Case(lambda: L.PReLU(4), (values(3, 4, 2),), (3, 4, 2)),
    "ReLU": _elementwise(L.ReLU),
    "ReLU6": _elementwise(L.ReLU6, scale=6.0),
    "SELU": _elementwise(L.SELU),
    "SiLU": _elementwise(L.SiLU),
    "Sigmoid": _elementwise(L.Sigmoid),
    "Sign": _elementwise(L.Sign),
    "Softmax": _elementwise(L.Softmax),
    "Softplus": _elementwise(L.Softplus, 1.5),
    "Softshrink": _elementwise(L.Softshrink),
    "Softsign": _elementwise(L.Softsign),
    "Step": _elementwise(L.Step),
    "Swish": _elementwise(L.Swish, 1.3),
    "Tanh": _elementwise(L.Tanh),
    "Tanhshrink": _elementwise(L.Tanhshrink),
    "Threshold": _elementwise(L.Threshold, 0.1, 2.0),
}
