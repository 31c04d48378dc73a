"""Where arrays live: ``Device("cpu")``, ``Device("cuda:1")``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Device:
    """A place that holds arrays; used only to create and to move them.

    Args:
        kind: the registered backend's name: ``"cpu"``, ``"cuda"``, in tests ``"simulator"``.
        index: which of several devices of that kind, from 0.
    """

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, text: str | Device) -> Device:
        """Read ``"cpu"``, ``"cuda"`` or ``"cuda:1"``; says nothing about whether the device exists."""
        if isinstance(text, Device):
            return text
        if not isinstance(text, str):
            raise TypeError(f"device must be a string such as 'cpu' or 'cuda:0', or a Device, got {text!r}")
        kind, colon, index = text.partition(":")
        if not kind or (colon and not index.isdecimal()):
            raise ValueError(f"device must read 'kind' or 'kind:index' such as 'cpu' or 'cuda:0', got {text!r}")
        return cls(kind, int(index) if colon else 0)

    def __str__(self) -> str:
        return f"{self.kind}:{self.index}" if self.index or self.kind == "cuda" else self.kind
