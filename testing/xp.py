"""The array module of the simulated device: the names and keywords of CuPy 14.2, computed by NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .array import SimulatorArray, activity, call
from .cupy_names import SUBMODULES, cupy_names

# Functions that make device arrays of host data, or ask about types: host arrays may come in.
_HOST_ARRAYS = {
    *("array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "copy"),
    *("can_cast", "result_type", "isscalar", "iscomplexobj", "isrealobj", "ndim", "shape", "size", "issubdtype"),
}
_WAITS = {"nonzero", "argwhere", "flatnonzero", "unique", "extract", "unique_values", "unique_counts", "isin_count"}
_GIVE_ARRAYS = {"allclose", "array_equal", "array_equiv"}  # 0-d arrays on CuPy, Python's bool on NumPy
_GARBAGE = {"empty", "empty_like"}
_NOT_MODELLED = {"random"}


class _Function:
    """One function of the module."""

    def __init__(self, name: str, function: Any) -> None:
        self._name, self._function = name, function
        self.__name__ = name.rpartition(".")[2]
        self.__doc__ = function.__doc__

    def __repr__(self) -> str:
        return f"<cupy.{self._name} as the simulator has it>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._name
        signature = cupy_names()[name]
        if signature is not None:
            signature.check(name, args, kwargs)
        kwargs.pop("blocking", None)
        if name in _WAITS or (name == "where" and len(args) == 1):
            activity.synchronizations += 1
        result = call("", self._function, args, kwargs, host_arrays=name in _HOST_ARRAYS)
        if name in _GIVE_ARRAYS:
            return SimulatorArray(np.asarray(result))
        if name in _GARBAGE:
            fill_with_garbage(result)
        return result


class _Ufunc(_Function):
    """An elementwise function, with the methods that CuPy's have."""

    def __getattr__(self, method: str) -> Any:
        if method in ("nin", "nout", "nargs"):
            return getattr(self._function, method)
        if method not in ("at", "reduce", "accumulate", "reduceat", "outer"):
            raise AttributeError(f"cupy.{self._name} has no attribute {method!r}")
        function = getattr(self._function, method)
        return lambda *args, **kwargs: call("", function, args, kwargs)


class CupyLike:
    """A module that has what CuPy 14.2 has: other names raise AttributeError, other keywords TypeError.

    Args:
        prefix: ``""`` for ``cupy`` itself, ``"linalg."`` for ``cupy.linalg``.
        module: NumPy's module that does the work.
    """

    def __init__(self, prefix: str, module: Any) -> None:
        self._prefix, self._module = prefix, module
        self.__name__ = f"cupy.{prefix}".rstrip(".")

    def __repr__(self) -> str:
        return f"<module '{self.__name__}' as the simulator has it>"

    def __dir__(self) -> list[str]:
        prefix = self._prefix
        names = [name.removeprefix(prefix) for name in cupy_names() if name.startswith(prefix)]
        return [name for name in names if "." not in name]

    def __getattr__(self, name: str) -> Any:
        value = self._find(name)
        setattr(self, name, value)
        return value

    def _find(self, name: str) -> Any:
        qualified = self._prefix + name
        if name.startswith("_") or qualified not in cupy_names():
            raise AttributeError(f"module '{self.__name__}' has no attribute {name!r} (CuPy 14.2)")
        if not self._prefix:
            if name == "ndarray":
                return SimulatorArray
            if name == "asnumpy":
                return _asnumpy
            if name == "get_array_module":
                return lambda *args: self if any(isinstance(arg, SimulatorArray) for arg in args) else np
            if name in SUBMODULES and name not in _NOT_MODELLED:
                return CupyLike(f"{name}.", getattr(np, name))
        value = getattr(self._module, name, None)
        if qualified in _NOT_MODELLED or (value is None and name != "newaxis"):
            raise NotImplementedError(f"the simulator does not model cupy.{qualified}")
        if isinstance(value, np.ufunc):
            return _Ufunc(qualified, value)
        if callable(value) and not isinstance(value, type):
            return _Function(qualified, value)
        return value


def _asnumpy(a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True) -> Any:
    return a.get(stream, order, out) if isinstance(a, SimulatorArray) else np.asarray(a, order=order)  # type: ignore[call-overload]


def fill_with_garbage(array: SimulatorArray) -> None:
    """What uninitialised memory may hold: NaN, and the smallest integer."""
    values = array._values
    kind = values.dtype.kind
    if kind == "b":
        values[...] = True
    elif kind in "iu":
        values[...] = np.iinfo(values.dtype).min if kind == "i" else np.iinfo(values.dtype).max
    elif kind in "fc" or values.dtype.name == "bfloat16":
        values[...] = np.nan


cupy_like = CupyLike("", np)
