"""Module: parameters, buffers and submodules under the names of the attributes that hold them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

from ..autograd import Parameter, Tensor, is_floating, no_grad, note_write
from ..autograd import tensor as as_tensor
from ..autograd.errors import replace_last_context
from ..autograd.hooks import HookHandle
from ..autograd.tensor import LEAF
from ..backend import Array, Device, as_dtype, backend_for, backend_of, cpu_kernel, is_array
from ..backend import device as check_device
from .hooks import ModuleHooks

if TYPE_CHECKING:
    from .summary import Summary


class Buffer(Tensor):
    """State that a module keeps and stores but does not learn, such as a running mean."""

    __slots__ = ()


class Module:
    """A function with parameters: subclass it, assign Parameters, Buffers and Modules to attributes, write ``forward``.

    Lists, tuples and dicts of them are found too; their names are attribute paths: ``blocks.0.weight``.

    Attributes:
        training: True in training (dropout drops), False in evaluation; set by :meth:`train` and :meth:`eval`.
    """

    training: bool = True
    _hooks: ModuleHooks | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself; written by the subclass."""
        raise NotImplementedError(f"{type(self).__name__} has no forward method")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._hooks is not None:
                return self._hooks.call(self, args, kwargs)
            return self.forward(*args, **kwargs)
        except Exception as error:
            extend_path(self, error)
            raise

    # -- what it holds ----------------------------------------------------------------------------------------------
    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor) and value._edge is LEAF and not isinstance(value, Parameter):
            raise TypeError(
                f"{type(self).__name__}.{name}: a tensor that wants its gradient would not be found among the "
                "parameters: assign a Parameter"
            )
        if isinstance(value, (set, frozenset)) and any(isinstance(item, (Module, Parameter)) for item in value):
            raise TypeError(f"{type(self).__name__}.{name}: a set has no order to name its modules by: assign a list")
        object.__setattr__(self, name, value)

    def _members(self) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            yield from _flatten(name, value)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Submodules held directly, with their names."""
        for name, value in self._members():
            if isinstance(value, Module):
                yield name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module (under ``prefix``) and all below it, each once, with their paths."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            children = [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()]
            stack.extend(reversed(children))

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def _named_state(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer under every name it has: a shared one appears under each.

        Raises:
            ValueError: a module contains itself, or two things have one name.
        """
        found: dict[str, Tensor] = {}
        for name, value in _state_below(self, "", ()):
            if found.setdefault(name, value) is not value:
                raise ValueError(f"{type(self).__name__}: two parameters or buffers have the name {name!r}")
        yield from found.items()

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their paths, a shared one once."""
        seen: set[int] = set()
        for name, value in self._named_state():
            if isinstance(value, Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def parameters(self) -> Iterator[Parameter]:
        """Parameters, a shared one once: what an optimizer is given."""
        for _, parameter in self.named_parameters():
            yield parameter

    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(parameter.size for parameter in self.parameters())

    # -- modes ------------------------------------------------------------------------------------------------------
    def train(self, mode: bool = True) -> Any:
        """Training mode for this module and all below it; returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Any:
        """Evaluation mode for this module and all below it; returns the module."""
        return self.train(False)

    def requires_grad_(self, wanted: bool = True) -> Any:
        """Learn the parameters (or freeze them, with ``False``); returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad = wanted
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, device: str | Device | None = None, dtype: Any = None) -> Any:
        """Move parameters and buffers to a device, cast the floating ones to a dtype; returns the module.

        Do this before an optimizer is given the parameters. Gradients are forgotten.
        """
        place = None if device is None else check_device(device)
        for tensor in {id(value): value for _, value in self._named_state()}.values():
            array = tensor.data
            backend = backend_of(array)
            if dtype is not None and is_floating(array.dtype):
                array = array.astype(as_dtype(dtype), copy=False)
            if place is not None and place != backend.device_of(array):
                array = backend_for(place).from_numpy(backend.to_numpy(array), place)
            if array is not tensor.data:
                tensor.data = array
                tensor.grad = None
                if isinstance(tensor, Parameter):
                    tensor._grad_buffer = None  # of an optimizer that was given the parameter before, and will say so
        return self

    def apply(self, function: Callable[[Module], None]) -> Any:
        """Call ``function`` with every module, those below first; returns the module."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    # -- hooks ------------------------------------------------------------------------------------------------------
    def _own_hooks(self) -> ModuleHooks:
        if self._hooks is None:
            self._hooks = ModuleHooks()
        return self._hooks

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(module, inputs)`` before each forward; what it returns, if not None, takes the inputs' place.

        Returns:
            a handle whose ``remove()`` takes the hook away; it is a context manager too.
        """
        return self._own_hooks().before.add(hook)

    def register_forward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(module, inputs, output)`` after each forward; its result, if not None, becomes the output."""
        return self._own_hooks().after.add(hook)

    def register_full_backward_hook(self, hook: Callable[..., Any]) -> HookHandle:
        """Call ``hook(module, grad_inputs, grad_outputs)`` in the backward pass, once the gradients are there.

        ``grad_inputs`` has an entry for each positional input, None for one without a gradient. A result that is not
        None takes its place: a tuple as long, or the one gradient. The arrays must not be written into.
        """
        return self._own_hooks().gradient.add(hook)

    # -- copies -----------------------------------------------------------------------------------------------------
    def __copy__(self) -> Any:
        return self._copied(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A module of its own: what was shared inside stays shared; gradients, hooks and optimizers stay behind."""
        for _, value in self._named_state():
            if id(value) not in memo:
                memo[id(value)] = type(value)(value.data.copy(), requires_grad=value.requires_grad)
        return self._copied(lambda value: copy.deepcopy(value, memo))

    def _copied(self, copy_of: Callable[[Any], Any]) -> Any:
        new = object.__new__(type(self))
        for name, value in vars(self).items():
            if name != "_hooks":
                vars(new)[name] = copy_of(value)
        return new

    def __reduce_ex__(self, protocol: object) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled, because reading a pickle runs code: store its state with "
            "lamella.save(path, module.state_dict()), build the module again, and load_state_dict(lamella.load(path))"
        )

    # -- state ------------------------------------------------------------------------------------------------------
    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by name: what :func:`lamella.save` takes."""
        return {name: value.data.copy() for name, value in self._named_state()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy values in by name, in place; either all of them or, on an error, none.

        A parameter that has several names (tied weights) may come under one of them or under all, as equal values.

        Args:
            state: arrays or tensors by name, on any device.
            strict: names must match exactly; else what fits is taken.
        Returns:
            the missing names and the unexpected names.
        Raises:
            KeyError: names are missing or unexpected, and ``strict``.
            ValueError: a value has another shape, or one parameter gets two different values.
            TypeError: a value is no array, or not of a fitting dtype.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a mapping of names to arrays, got {type(state).__name__}")
        own = dict(self._named_state())
        given = {id(tensor): name for name, tensor in own.items() if name in state}
        missing = [name for name, tensor in own.items() if id(tensor) not in given]
        unexpected = [name for name in state if name not in own]
        if strict and (missing or unexpected):
            raise KeyError(f"load_state_dict: missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}")
        values = {name: _fitting(name, state[name], tensor) for name, tensor in own.items() if name in state}
        for name, value in values.items():
            other = given[id(own[name])]
            if other != name and not _same_bytes(value, values[other]):
                raise ValueError(f"load_state_dict: {name} and {other} are one parameter and must have equal values")
        with no_grad():
            for name, value in values.items():
                own[name].data[...] = value
                note_write(own[name].data)
        return missing, unexpected

    # -- for people -------------------------------------------------------------------------------------------------
    def extra_repr(self) -> str:
        """What stands between the parentheses in ``repr``."""
        return ""

    def summary(self, *input_shapes: Any, dtype: Any = "float32") -> Summary:
        """A table of all layers: output shapes, parameters, memory; ``print(model.summary((32, 3, 28, 28)))``.

        The model runs once on zeros, in evaluation mode and unrecorded; nothing of it changes.

        Args:
            input_shapes: the shape of each input, the batch included; or an example array or tensor.
            dtype: of the zeros; one for all inputs, or a list of one for each (``"int64"`` for token ids).
        """
        from .summary import summarise

        return summarise(self, input_shapes, dtype)

    def diagram(self, *input_shapes: Any, dtype: Any = "float32") -> str:
        """The layers and how they are connected, as a Mermaid flow chart; arguments as in :meth:`summary`."""
        from .summary import diagram

        return diagram(self, input_shapes, dtype)

    @recursive_repr("...")
    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        return "\n  ".join([f"{type(self).__name__}({self.extra_repr()}", *lines]) + "\n)"


def _state_below(module: Module, prefix: str, above: tuple[Module, ...]) -> Iterator[tuple[str, Tensor]]:
    if any(module is other for other in above):
        raise ValueError(
            f"{type(above[0]).__name__}: a module must not contain itself, but {prefix[:-1]!r} is a module above it; "
            "hold the parent weakly (weakref.ref)"
        )
    for name, value in module._members():
        if isinstance(value, Module):
            yield from _state_below(value, f"{prefix}{name}.", (*above, module))
        else:
            yield prefix + name, value


def _flatten(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Modules, parameters and buffers in an attribute: itself, or what a list, tuple or dict holds."""
    if isinstance(value, (Module, Parameter, Buffer)):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _flatten(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(f"{name}.{key}", item)


def _fitting(name: str, value: Any, tensor: Tensor) -> Array:
    """A value as an array on the tensor's device, checked to fit."""
    array = value.data if isinstance(value, Tensor) else value
    if not is_array(array):
        if not hasattr(array, "__dlpack__") and not hasattr(array, "__array_interface__"):
            raise TypeError(f"load_state_dict: {name} must be an array, got {type(value).__name__}")
        array = as_tensor(array.detach() if hasattr(array, "detach") else array).data  # another library's
    if tuple(array.shape) != tensor.shape:
        raise ValueError(f"load_state_dict: {name} must have shape {tensor.shape}, got {tuple(array.shape)}")
    if array.dtype != tensor.dtype and not (is_floating(array.dtype) and is_floating(tensor.dtype)):
        raise TypeError(f"load_state_dict: {name} must have dtype {tensor.dtype}, got {array.dtype}")
    backend, place = backend_of(array), tensor.device
    if backend.device_of(array) != place:
        array = backend_for(place).from_numpy(backend.to_numpy(array), place)
    if array.dtype != tensor.dtype:
        with cpu_kernel():  # without NumPy's warning of an overflow, which is an error below
            array, given = array.astype(tensor.dtype), array
        finite = backend_of(array).xp.isfinite
        if bool((finite(given) & ~finite(array)).any()):
            raise ValueError(f"load_state_dict: {name} has values beyond the range of {tensor.dtype}")
    flags = getattr(tensor.data, "flags", None)
    if not getattr(flags, "writeable", True):
        raise ValueError(f"load_state_dict: {name} cannot be written, its memory is read-only")
    return array


def _same_bytes(a: Array, b: Array) -> bool:
    one, other = (backend_of(x).to_numpy(x) for x in (a, b))
    return bool(one.dtype == other.dtype and one.tobytes() == other.tobytes())


def extend_path(module: Module, error: Exception) -> None:
    """Say, at the end of an error's message, in which module it arose.

    Each module that the error passes through puts its child's name in front: only a parent knows it.
    """
    trail: list[Any] = error.__dict__.get("_lamella_trail", [])
    child = next((name for name, child in module.named_children() if trail and child is trail[-1]), None)
    if child is None:  # the first module it passes, or an error object that is raised again elsewhere
        trail = error.__dict__["_lamella_trail"] = [type(module).__name__]
    else:
        trail.pop()
        trail.insert(1, child)
    place = f"{'.'.join(trail[1:])} ({trail[0]})" if len(trail) > 1 else trail[0]
    replace_last_context(error, f"in module {place}")
    trail.append(module)
