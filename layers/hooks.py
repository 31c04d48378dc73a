"""Hooks of a module: functions that are called before it, after it, and when its gradients are there."""

from __future__ import annotations

from typing import Any

from ..autograd import Tensor, is_recording, op
from ..autograd.hooks import Hooks, like


class ModuleHooks:
    """The hooks of one module; a module without any has none of these.

    Attributes:
        before: called as ``hook(module, inputs)``; a result that is not None takes the inputs' place.
        after: called as ``hook(module, inputs, output)``; a result that is not None takes the output's place.
        gradient: called in the backward pass as ``hook(module, grad_inputs, grad_outputs)``.
    """

    __slots__ = ("after", "before", "gradient")

    def __init__(self) -> None:
        self.before, self.after, self.gradient = Hooks(), Hooks(), Hooks()

    def call(self, module: Any, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """``module.forward`` with all hooks around it."""
        for hook in tuple(self.before.functions):
            changed = hook(module, inputs)
            if changed is not None:
                inputs = changed if isinstance(changed, tuple) else (changed,)
        watch = _Watch(self.gradient, module) if self.gradient.functions and is_recording() else None
        passed = inputs if watch is None else watch.inputs(inputs)
        y = module.forward(*passed, **keywords)
        for hook in tuple(self.after.functions):
            changed = hook(module, passed, y)
            if changed is not None:
                y = changed
        return y if watch is None else watch.outputs(y)


class _Watch:
    """Stands before and behind a module on the tape and calls its gradient hooks in one backward pass."""

    def __init__(self, hooks: Hooks, module: Any) -> None:
        self._hooks, self._module = hooks, module
        self._grad_outputs: tuple[Any, ...] = ()
        self._input_wanted = False

    def inputs(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        places = [i for i, x in enumerate(inputs) if isinstance(x, Tensor)]
        self._input_wanted = any(inputs[i].requires_grad for i in places)
        if not self._input_wanted:
            return inputs

        def backward(*dys: Any) -> Any:
            grads: list[Any] = [None] * len(inputs)
            for i, dy in zip(places, dys, strict=True):
                grads[i] = dy
            grads = self._call(grads)
            return tuple(grads[i] for i in places)

        @op
        def module_inputs(*arrays: Any) -> Any:
            return arrays, backward

        passed = list(inputs)
        for i, x in zip(places, module_inputs(*(inputs[i] for i in places)), strict=True):
            passed[i] = x
        return tuple(passed)

    def outputs(self, y: Any) -> Any:
        parts = y if isinstance(y, (tuple, list)) else (y,)
        places = [i for i, part in enumerate(parts) if isinstance(part, Tensor) and part.requires_grad]
        if not places:
            return y

        def backward(*dys: Any) -> Any:
            grads: list[Any] = [None] * len(parts)
            for i, dy in zip(places, dys, strict=True):
                grads[i] = dy
            self._grad_outputs = tuple(grads)
            if not self._input_wanted:  # no gradient goes on to the inputs, so this is the end
                self._call([None])
            return dys

        @op
        def module_outputs(*arrays: Any) -> Any:
            return arrays, backward

        passed = list(parts)
        for i, part in zip(places, module_outputs(*(parts[i] for i in places)), strict=True):
            passed[i] = part
        return type(y)(passed) if isinstance(y, (tuple, list)) else passed[0]

    def _call(self, grads: list[Any]) -> list[Any]:
        for hook in tuple(self._hooks.functions):
            changed = hook(self._module, tuple(grads), self._grad_outputs)
            if changed is None:
                continue
            changed = changed if isinstance(changed, tuple) else (changed,)
            if len(changed) != len(grads):
                raise ValueError(f"a hook must return None or {len(grads)} gradients, got {len(changed)}")
            grads = [g if c is None or g is None else like(c, g).copy() for c, g in zip(changed, grads, strict=True)]
        return grads
