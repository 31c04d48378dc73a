"""Which backend serves which array type and which device name: one dict look-up each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .base import Array, Backend, DeviceUnavailableError, MixedDevicesError
from .device import Device

_by_type: dict[type, Backend] = {}
_by_name: dict[str, Backend] = {}
_loaders: dict[str, Callable[[], Backend]] = {}


def register_backend(backend: Backend) -> None:
    """Make ``backend`` serve its array types and ``lamella.device(backend.name)``; replaces an earlier one."""
    unregister_backend(backend.name)
    _by_name[backend.name] = backend
    for array_type in backend.array_types:
        _by_type[array_type] = backend


def register_loader(name: str, load: Callable[[], Backend]) -> None:
    """Name a backend that is imported only when its device is asked for; ``load`` may raise DeviceUnavailableError."""
    _loaders[name] = load


def unregister_backend(name: str) -> None:
    """Forget a backend; unknown names are ignored."""
    backend = _by_name.pop(name, None)
    if backend is not None:
        for array_type in backend.array_types:
            _by_type.pop(array_type, None)


def backend_names() -> tuple[str, ...]:
    """Every device kind that is registered, loaded or not."""
    return tuple(dict.fromkeys((*_by_name, *_loaders)))


def backend_named(name: str) -> Backend:
    """The backend of one device kind, loaded when first asked for."""
    backend = _by_name.get(name)
    if backend is None:
        load = _loaders.get(name)
        if load is None:
            raise ValueError(f"device kind must be one of {', '.join(backend_names())}, got {name!r}")
        backend = load()
        register_backend(backend)
    return backend


class UnknownArrayError(TypeError):
    """A value of no array library that is registered.

    Attributes:
        obj: the value.
    """

    obj: Any = None


def backend_of(array: Array) -> Backend:
    """The backend to which an array belongs, found by its exact type.

    Raises:
        TypeError: the type is not an array type of any registered backend.
    """
    backend = _by_type.get(type(array))
    return backend if backend is not None else _unknown_type(array)


def is_array(value: Any) -> bool:
    """Whether a value is an array of a registered backend."""
    return type(value) in _by_type


def _unknown_type(array: Array) -> Backend:
    kind = type(array)
    if kind.__module__.partition(".")[0] == "cupy" and "cuda" not in _by_name:
        backend = backend_named("cuda")  # a CuPy user's array arrives before any device was asked for
        if kind in backend.array_types:
            return backend
    error = UnknownArrayError(
        f"expected an array of {', '.join(t.__module__ + '.' + t.__qualname__ for t in _by_type)}, "
        f"got {kind.__module__}.{kind.__qualname__}; convert it with lamella.tensor(…) or numpy.asarray(…)"
    )
    error.obj = array
    raise error


def common_backend(*arrays: Array) -> Backend:
    """The one backend of several arrays on one device.

    Raises:
        MixedDevicesError: two of them live on different devices; names both.
    """
    first = backend_of(arrays[0])
    device = None
    for array in arrays[1:]:
        other = backend_of(array)
        if other is first and len(first.devices()) == 1:
            continue
        device = device or first.device_of(arrays[0])
        if other is not first or other.device_of(array) != device:
            raise MixedDevicesError(
                f"all arrays must be on one device, got {device} and {other.device_of(array)}; "
                "move one with .to(device) first"
            )
    return first


def device(name: str | Device) -> Device:
    """Check that a device exists here and return it: ``lamella.device("cuda:1")``.

    Raises:
        DeviceUnavailableError: the machine has no such device; says what is missing.
        ValueError: the name is not ``"kind"`` or ``"kind:index"`` of a registered kind.
    """
    wanted = Device.parse(name)
    found = backend_named(wanted.kind).devices()
    if wanted not in found:
        raise DeviceUnavailableError(
            f"device {wanted} does not exist here; available: {', '.join(map(str, found))}"
        )
    return wanted


def available_devices() -> tuple[Device, ...]:
    """Every device that works on this machine, the CPU first."""
    found: list[Device] = []
    for name in backend_names():
        try:
            found.extend(backend_named(name).devices())
        except DeviceUnavailableError:
            continue
    return tuple(found)


def why_unavailable(name: str) -> str | None:
    """The reason why no device of a kind works here, or None where one does."""
    try:
        backend_named(name).devices()
    except DeviceUnavailableError as error:
        return str(error)
    return None


def backend_for(place: str | Device | Any) -> Backend:
    """The backend that serves a device or device name."""
    return backend_named(Device.parse(place).kind)
