"""Whole models as cases: written once, for lamella's layers and PyTorch's, whose names and arguments agree.

The judge is the same model in float64 on the CPU, by lamella: it shows what a dtype, a kernel or a device did to the
numbers. That the layers are right is for their tests to show, and PyTorch, judged by the same numbers, shows it again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .case import Case, Run, normal, worst

STEPS = 3  # of a training step, whose losses are judged


class Model(NamedTuple):
    """A model and what is done with it.

    Attributes:
        build: of ``torch.nn`` or ``lamella.layers``: the module.
        forward: of the same, the module and its inputs: the output.
        parameters: shapes of what is learnt, by name.
        training: whether it is a training step (cross entropy with the last input, Adam), else the forward and backward
            passes, with the last input as the gradient of the output.
        lr: of Adam.
    """

    build: Callable[[Any], Any]
    forward: Callable[..., Any]
    parameters: dict[str, tuple[int, ...]]
    training: bool
    lr: float = 1e-4


def weights(rng: Any, model: Model) -> list[Any]:
    """Values for all parameters: biases 0, factors of norms 1, else normals scaled by the number of inputs."""
    found = []
    for name, shape in model.parameters.items():
        if len(shape) > 1:
            found.append(normal(rng, *shape, scale=math.prod(shape[1:]) ** -0.5))
        else:
            found.append(np.full(shape, 0.0 if name.endswith("bias") else 1.0, np.float32))
    return found


def lamella(model: Model) -> Callable[..., Run]:
    def build(*arrays: Any) -> Run:
        import lamella
        from lamella.backend import backend_of

        layers = lamella.layers
        count = len(arrays) - len(model.parameters)
        module = model.build(layers).to(backend_of(arrays[0]).device_of(arrays[0]))
        floating = arrays[count].dtype
        if floating.name != "float32":
            module.to(dtype=floating)
        module.load_state_dict(module.state_dict() | dict(zip(model.parameters, arrays[count:], strict=True)))
        *inputs, last = arrays[:count]
        tensors = [lamella.Tensor(x, requires_grad=x.dtype.kind not in "iub" and not model.training) for x in inputs]
        if not model.training:

            def both() -> tuple[Any, ...]:
                module.zero_grad()
                for x in tensors:
                    x.grad = None
                y = model.forward(layers, module, *tensors)
                y.backward(last)
                return y.data, tensors[0].grad

            return both
        optimizer = lamella.training.Adam(module.parameters(), lr=model.lr)
        labels = lamella.Tensor(last)

        def step() -> tuple[Any, ...]:
            optimizer.zero_grad()
            loss = layers.cross_entropy(model.forward(layers, module, *tensors), labels)
            loss.backward()
            optimizer.step()
            return (loss.data,)

        return step

    return build


def torch_contender(model: Model, channels_last: bool = False, **options: Any) -> Callable[..., Run]:
    def build(torch: Any, wrap: Callable[..., Any], *tensors: Any) -> Run:
        nn = torch.nn
        count = len(tensors) - len(model.parameters)
        floating = tensors[count].dtype
        module = model.build(nn).to(device=tensors[0].device, dtype=floating)
        module.load_state_dict(module.state_dict() | dict(zip(model.parameters, tensors[count:], strict=True)))
        *inputs, last = tensors[:count]
        if channels_last:
            module = module.to(memory_format=torch.channels_last)
            inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
            last = last if model.training else last.contiguous(memory_format=torch.channels_last)
        forward = wrap(lambda *inputs: model.forward(nn, module, *inputs))
        if not model.training:
            inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in inputs]

            def both() -> tuple[Any, ...]:
                module.zero_grad(set_to_none=True)
                for x in inputs:
                    x.grad = None
                y = forward(*inputs)
                y.backward(last)
                return y.detach(), inputs[0].grad

            return both
        optimizer = torch.optim.Adam(module.parameters(), lr=model.lr, **options)

        def step() -> tuple[Any, ...]:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(forward(*inputs), last)
            loss.backward()
            optimizer.step()
            return (loss.detach(),)

        return step

    return build


def mostly(difference: Any, expected: Any) -> float:
    """The error that 95 % of the values stay below, relative to the largest value.

    Among a million values before a ReLU some lie so close to 0 that rounding decides whether they pass, in every
    library; the gradient of their neighbours is then another altogether.
    """
    return float(np.quantile(np.abs(difference), 0.95)) / (float(np.max(np.abs(expected))) or 1.0)


def judge(model: Model) -> Callable[..., float]:
    """The results, by the same model in float64."""

    def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
        run = lamella(model)(*(a if a.dtype.kind in "iub" else a.astype(np.float64) for a in inputs))
        expected = [result for _ in range(STEPS if model.training else 1) for result in run()]
        return worst([mostly(r.astype(np.float64) - e, np.asarray(e)) for r, e in zip(results, expected, strict=True)])

    return error


def model_case(
    name: str, model: Model, numbers: Callable[[Any], tuple[Any, ...]], operations: int, images: bool, **options: Any
) -> Case:
    """A case of a model.

    Args:
        name: as it stands in the table.
        model: the model.
        numbers: draws its inputs, and labels or the gradient of the output.
        operations: of the products in a forward pass; backward has twice as many.
        images: whether PyTorch has another memory format for it, for which its fastest kernels are written.
        options: fields of the case.
    """
    contenders = {"lamella": lamella(model), "torch": torch_contender(model)}
    best: dict[str, Any] = {"fused": True} if model.training else {}
    if best:
        contenders["torch fused"] = torch_contender(model, **best)
    if images:
        contenders["torch channels_last"] = torch_contender(model, channels_last=True, **best)
    size = sum(map(math.prod, model.parameters.values()))
    return Case(
        name=name,
        suite="models",
        numbers=lambda rng: (*numbers(rng), *weights(rng, model)),
        contenders=contenders,
        error=judge(model),
        values=10 * size if model.training else 3 * size,
        operations=3 * operations,
        steps=STEPS if model.training else 1,
        bound=2048.0,  # roundings grow from layer to layer
        **options,
    )
