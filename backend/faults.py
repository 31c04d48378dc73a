"""Wrong values that a kernel meets, such as an index out of range: noted on the device, raised on the host later.

Looking before the launch would stall the device, and an error cannot leave a kernel. So a kernel that checks values
gets a small array, its device's fault record, and notes the first wrong value in it (``report_fault`` in
``kernels/fault.cuh``). Whenever the host waits for that device anyway (``synchronize``, ``to_numpy``, ``item``) the
record is read, and a fault becomes a ValueError.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from .base import Array, Backend
from .device import Device
from .registry import backend_of

_messages: list[str] = []  # of fault kind i + 1; 0 in a record says that nothing happened
_kinds: dict[str, int] = {}


class _Record:
    """A device's record: (kind, value, limit), int64, and whether a kernel was given it since it was last read."""

    __slots__ = ("array", "pending")

    def __init__(self, array: Array) -> None:
        self.array, self.pending = array, False


_records: WeakKeyDictionary[Backend, dict[Device, _Record]] = WeakKeyDictionary()


def fault_kind(message: str) -> np.int64:
    """The number by which a kernel names a fault: its ``kind`` argument.

    Args:
        message: what the error will say; ``{value}`` stands for the wrong value, ``{limit}`` for the kernel's limit and
            ``{last}`` for ``limit - 1``: ``"embedding: indices must be in 0 … {last}, got {value}"``.
    """
    kind = _kinds.get(message)
    if kind is None:
        _messages.append(message)
        kind = _kinds[message] = len(_messages)
    return np.int64(kind)


def fault_record(like: Array) -> Array:
    """The fault record of the device of ``like``, int64 of shape ``(3,)``, for a kernel that is launched now."""
    backend = backend_of(like)
    device = backend.device_of(like)
    records = _records.setdefault(backend, {})
    record = records.get(device)
    if record is None:
        record = records[device] = _Record(backend.from_numpy(np.zeros(3, np.int64), device))
    record.pending = True
    return record.array


def raise_faults(backend: Backend, device: Device) -> None:
    """Raise what kernels have noted on a device, once; for backends, where they have waited for it.

    Raises:
        ValueError: a kernel met a wrong value; says which, and that later results are not to be used.
    """
    record = _records.get(backend, {}).get(device)
    if record is None or not record.pending:
        return
    record.pending = False
    kind, value, limit = record.array.get().tolist()
    if kind:
        record.array[...] = 0
        said = _messages[kind - 1].format(value=value, limit=limit, last=limit - 1)
        raise ValueError(f"{said} (found on {device} by a kernel that ran before; what came after is not valid)")

