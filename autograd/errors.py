"""What an error message says about where it happened: operation, shapes, dtypes, devices, module path."""

from __future__ import annotations

from typing import Any

from ..backend import backend_of
from .tensor import Tensor


def describe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The arguments of a call in a few words each: ``float32 (32, 9) on cpu, axis=-1``."""
    return ", ".join([_one(arg) for arg in args] + [f"{name}={_one(value)}" for name, value in kwargs.items()])


def _one(value: Any) -> str:
    array = value.data if isinstance(value, Tensor) else value
    if isinstance(array, (tuple, list)) and len(array) <= 8:
        return "[" + ", ".join(_one(item) for item in array) + "]"
    if hasattr(array, "dtype") and hasattr(array, "shape"):
        try:
            return f"{array.dtype} {tuple(array.shape)} on {backend_of(array).device_of(array)}"
        except TypeError:
            return f"{type(array).__module__}.{type(array).__qualname__} {array.dtype} {tuple(array.shape)}"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def add_context(error: BaseException, context: str) -> None:
    """Put a line of context under an error's message, keeping its type.

    The message itself is extended where an exception prints its first argument; others get a note (PEP 678).
    """
    if _prints_its_argument(error):
        error.args = (f"{error.args[0]}\n  {context}", *error.args[1:])
    else:
        error.add_note("  " + context)


def replace_last_context(error: BaseException, context: str) -> None:
    """Like :func:`add_context`, but called again for the same error it replaces the line that it wrote before."""
    before = error.__dict__.get("_lamella_context")
    if before is None:
        add_context(error, context)
    elif _prints_its_argument(error):
        error.args = (error.args[0].replace(before, context), *error.args[1:])
    else:
        error.__notes__ = [note.replace(before, context) for note in error.__notes__]
    error.__dict__["_lamella_context"] = context


def _prints_its_argument(error: BaseException) -> bool:
    plain = type(error).__str__ in (Exception.__str__, BaseException.__str__, ValueError.__str__)
    return plain and bool(error.args) and isinstance(error.args[0], str)
