"""As much of PyTorch as the benchmarks ask for, done by lamella: so that the rival's side of them runs in CI.

A tensor holds a lamella Tensor; names, signatures and the manner of calling are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np

import lamella
from lamella.backend import backend_of


class Tensor:
    def __init__(self, inner: lamella.Tensor) -> None:
        self.inner = inner

    requires_grad = property(lambda self: self.inner.requires_grad)
    shape = property(lambda self: self.inner.shape)
    device = property(lambda self: self.inner.device)
    dtype = property(lambda self: self.inner.dtype)
    data = property(lambda self: self)

    @property
    def grad(self) -> Tensor | None:
        return None if self.inner.grad is None else Tensor(lamella.Tensor(self.inner.grad))

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self.inner.grad = None if value is None else value.inner.data

    def detach(self) -> Tensor:
        return Tensor(lamella.Tensor(self.inner.data))

    def clone(self) -> Tensor:
        return Tensor(lamella.Tensor(self.inner.data.copy()))

    def requires_grad_(self, wanted: bool = True) -> Tensor:
        self.inner.requires_grad = wanted
        return self

    def is_floating_point(self) -> bool:
        return self.inner.dtype.kind not in "iub"

    def element_size(self) -> int:
        return self.inner.dtype.itemsize

    def float(self) -> Tensor:
        return Tensor(lamella.Tensor(self.inner.data.astype(np.float32)))

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> Any:
        return backend_of(self.inner.data).to_numpy(self.inner.data)

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self.inner.reshape(*shape))

    def __add__(self, other: Tensor) -> Tensor:
        return Tensor(self.inner + other.inner)

    def __getitem__(self, key: Any) -> Tensor:
        return Tensor(self.inner[key])

    def backward(self, dy: Tensor | None = None) -> None:
        self.inner.backward(None if dy is None else dy.inner.data)

    def contiguous(self, memory_format: str) -> Tensor:
        assert memory_format == "channels last"
        return self

    def copy_(self, other: Tensor) -> None:
        self.inner.data[...] = other.inner.data

    def zero_(self) -> None:
        self.inner.data[...] = 0


def does(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """A function of lamella tensors as one of these."""

    def on_tensors(*args: Any, **kwargs: Any) -> Tensor:
        return Tensor(function(*(a.inner if isinstance(a, Tensor) else a for a in args), **kwargs))

    return on_tensors


def attention(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    @lamella.op
    def attended(q: Any, k: Any, v: Any) -> Any:
        out, lse = lamella.kernels.attention(q, k, v, causal=is_causal, return_lse=True)
        return out, lambda dy: lamella.kernels.attention_backward(dy, q, k, v, out, lse, causal=is_causal)[:3]

    return does(attended)(q, k, v)


class Linear:
    def __init__(self, before: int, after: int, device: Any, dtype: Any) -> None:
        self.inner = lamella.layers.Linear(before, after).to(device)
        self.weight, self.bias = Tensor(self.inner.weight), Tensor(self.inner.bias)


class ReLU:
    def __init__(self) -> None:
        self.inner = lamella.layers.ReLU()


class Sequential:
    def __init__(self, *layers: Any) -> None:
        self.inner = lamella.layers.Sequential(*(layer.inner for layer in layers))

    def __call__(self, x: Tensor) -> Tensor:
        return does(self.inner)(x)

    def parameters(self) -> list[Tensor]:
        return [Tensor(parameter) for parameter in self.inner.parameters()]


def optimizer(kind: str) -> Callable[..., Any]:
    def build(parameters: list[Tensor], lr: float, fused: Any = None, foreach: Any = None, **options: Any) -> Any:
        inner = [
            p.inner if isinstance(p.inner, lamella.Parameter) else lamella.Parameter(p.inner.data) for p in parameters
        ]
        for mine, theirs in zip(parameters, inner, strict=True):
            mine.inner = theirs
        return getattr(lamella.training, kind)(inner, lr=lr, **options)

    return build


class FakeTorch:
    """The module; ``calls`` counts compilations and forced attention backends."""

    channels_last = "channels last"

    def __init__(self, compile_error: str = "") -> None:
        self.calls: list[str] = []
        layers = lamella.layers
        flags = SimpleNamespace(allow_tf32=True, benchmark=False)
        self.backends = SimpleNamespace(cuda=SimpleNamespace(matmul=flags), cudnn=flags)
        self.cuda = SimpleNamespace(is_available=lambda: False)
        self.compiler = SimpleNamespace(reset=lambda: self.calls.append("reset"))
        self.softmax, self.log_softmax, self.relu = map(does, (layers.softmax, layers.log_softmax, layers.relu))
        self.matmul = does(lamella.Tensor.__matmul__)
        functional = {
            name: does(getattr(layers, name))
            for name in (
                "layer_norm", "rms_norm", "group_norm", "batch_norm", "gelu", "dropout", "mse_loss", "cross_entropy",
                "conv2d", "max_pool2d", "linear", "embedding",
            )
        }  # fmt: skip
        self.nn = SimpleNamespace(
            functional=SimpleNamespace(scaled_dot_product_attention=attention, **functional),
            attention=SimpleNamespace(
                SDPBackend=SimpleNamespace(
                    FLASH_ATTENTION="FLASH_ATTENTION",
                    CUDNN_ATTENTION="CUDNN_ATTENTION",
                    EFFICIENT_ATTENTION="EFFICIENT_ATTENTION",
                    MATH="MATH",
                ),
                sdpa_kernel=self._sdpa_kernel,
            ),
            Linear=Linear,
            ReLU=ReLU,
            Sequential=Sequential,
        )
        self.optim = SimpleNamespace(Adam=optimizer("Adam"), AdamW=optimizer("AdamW"))
        self._compile_error = compile_error

    @contextmanager
    def _sdpa_kernel(self, backends: list[str]) -> Iterator[None]:
        self.calls += backends
        yield

    def compile(self, function: Any, mode: str) -> Any:
        assert mode == "max-autotune-no-cudagraphs"
        if self._compile_error:
            raise RuntimeError(self._compile_error)
        self.calls.append("compile")
        return function

    def from_dlpack(self, array: Any) -> Tensor:
        return Tensor(lamella.Tensor(array))

    def no_grad(self) -> Any:
        return lamella.no_grad()
