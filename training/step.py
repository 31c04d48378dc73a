"""One update: forward, loss, backward, clipping, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..autograd import Tensor
from ..backend import Array, Device, backend_for
from ..layers import Module
from .optimizer import Optimizer


class Step:
    """What :func:`fit` does with each batch.

    Args:
        model, loss, optimizer, schedule, clip_norm: as for :func:`fit`.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Optimizer,
        schedule: Callable[[int], float] | None,
        clip_norm: float | None,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.schedule, self.clip_norm = schedule, clip_norm
        self.device = device_of(model)

    def __call__(self, batch: Any, number: int) -> Array:
        """The whole of it; ``number`` counts the updates of all epochs from 0. Gives the loss, 0-d, not waited for."""
        value = self.forward(batch, number)
        self.backward(value)
        self.update()
        return value.data

    def forward(self, batch: Any, number: int) -> Tensor:
        inputs, targets = batch
        device = self.device
        if device is not None:
            inputs, targets = moved(inputs, device), moved(targets, device)
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(number)
        value = self.loss(self.model(inputs), targets)
        if not isinstance(value, Tensor) or value.data.size != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            kind = ValueError if isinstance(value, Tensor) else TypeError
            raise kind(f"fit: loss must return a tensor of one element, got {got}")
        return value

    def backward(self, value: Tensor) -> None:
        self.optimizer.zero_grad()
        value.backward()

    def update(self) -> None:
        if self.clip_norm is None:
            self.optimizer.step()
        else:
            self.optimizer.step(max_norm=self.clip_norm)



def device_of(model: Module) -> Device | None:
    """Where the model's first parameter lives; None for a model without parameters."""
    return next((parameter.device for parameter in model.parameters()), None)


def moved(batch: Tensor, device: Device) -> Tensor:
    """The batch on a device; itself where it is there."""
    if batch.device == device:
        return batch
    return Tensor(backend_for(device).from_numpy(batch.to_numpy(), device))
