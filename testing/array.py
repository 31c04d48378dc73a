"""Arrays of the simulated device: they hold host memory and behave as ``cupy.ndarray`` does, not as NumPy's.

The class holds a NumPy array rather than deriving from it: ``numpy.asarray`` turns a derived array into a host array
without asking, and that is the very mistake to catch.
"""

from __future__ import annotations

import operator
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .cupy_names import cupy_names

_SCALARS = (bool, int, float, complex, np.generic)
_WAITS = {
    "nonzero",
    "item",
    "tolist",
    "tobytes",
    "tofile",
    "dump",
    "dumps",
}  # methods that end in host memory or need a count
_NO_CONVERSION = (
    "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
)


watch: Any = None  # a MemoryWatch, where one is entered
_LONGEST_LOG = 20_000


@dataclass
class Activity:
    """What happened on the simulated device.

    Attributes:
        launches: how often each kernel was launched.
        operations: how often each array operation was called that launches one of CuPy's own kernels, or cuBLAS
            (``gemm``), or copies from the host; at least one launch each.
        synchronizations: how often the host waited for a value: ``float(x)``, ``if x``, ``x.get()``, boolean masks …
        log: the newest launches and operations, in order, each with the code and the line it came from.
    """

    launches: Counter[str] = field(default_factory=Counter)
    operations: Counter[str] = field(default_factory=Counter)
    synchronizations: int = 0
    log: deque[tuple[str, tuple[Any, int]]] = field(default_factory=lambda: deque(maxlen=_LONGEST_LOG))

    def reset(self) -> None:
        self.launches.clear()
        self.operations.clear()
        self.log.clear()
        self.synchronizations = 0

    def launch(self, kernel: str) -> None:
        self.launches[kernel] += 1
        self.log.append((kernel, _place()))

    def operate(self, name: str) -> None:
        if name not in _NO_LAUNCH:
            self.operations[name] += 1
            self.log.append((name, _place()))


_own_code: dict[Any, bool] = {}  # by code object: whether it is the simulator's or the launcher's


def _place() -> tuple[Any, int]:
    """The innermost function outside the simulator and the launcher, and its line."""
    frame: Any = sys._getframe(2)
    while True:
        code = frame.f_code
        own = _own_code.get(code)
        if own is None:
            file = Path(code.co_filename)
            own = _own_code[code] = file.parent.name == "testing" or file.name in _LAUNCHERS
        if not own or frame.f_back is None:
            return code, frame.f_lineno
        frame = frame.f_back


_LAUNCHERS = {"_launch.py", "source.py", "base.py"}

# What makes a view, asks, or only takes memory: nothing runs on the device. (reshape and ravel copy where they must.)
_NO_LAUNCH = {
    *("reshape", "ravel", "transpose", "squeeze", "swapaxes", "moveaxis", "rollaxis", "expand_dims", "broadcast_to"),
    *("permute_dims", "matrix_transpose", "flip", "rot90", "atleast_1d", "atleast_2d", "atleast_3d", "view"),
    *("empty", "empty_like", "ndim", "shape", "size", "result_type", "can_cast", "isscalar", "may_share_memory"),
    *("broadcast_arrays", "broadcast_shapes", "split", "array_split", "issubdtype", "iscomplexobj", "isrealobj"),
    *("shares_memory", "real", "diagonal", "common_type", "min_scalar_type", "item", "tolist", "tobytes"),
}


activity = Activity()


class SimulatorArray:
    """An array on the simulated device, as ``cupy.ndarray`` is one on a GPU.

    It survives every operation: reductions and full indexing give 0-d arrays, never NumPy scalars. Host arrays are
    refused in operations, implicit conversion to NumPy raises, and the host's waits are counted. One thing is kinder
    than CuPy: an index array that points outside raises IndexError, where CuPy wraps it round silently. One thing is
    stricter: CuPy takes 0-d host arrays in comparisons.

    Args:
        values: the memory; it is shared, not copied.
    """

    __slots__ = ("_values",)
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, values: np.ndarray) -> None:
        if values.dtype.kind not in "biufcV" or values.dtype.char == "g":
            raise ValueError(f"Unsupported dtype {values.dtype}")  # as CuPy says it
        self._values = values
        if watch is not None:
            watch.saw(values)

    # -- attributes ----------------------------------------------------------------------------------------------
    @property
    def dtype(self) -> Any:
        return self._values.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    @shape.setter
    def shape(self, shape: tuple[int, ...]) -> None:
        self._values = self._values.reshape(shape, copy=False)

    @property
    def strides(self) -> tuple[int, ...]:
        return self._values.strides

    @property
    def ndim(self) -> int:
        return self._values.ndim

    @property
    def size(self) -> int:
        return self._values.size

    @property
    def device(self) -> SimulatedDevice:
        return SimulatedDevice()

    @property
    def data(self) -> DevicePointer:
        return DevicePointer(self._values.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Where the memory lies, as CuPy's arrays say it (the address is one of the host's)."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._values.ctypes.data, False),
            "strides": None if self._values.flags.c_contiguous else self.strides,
            "version": 3,
        }

    @property
    def base(self) -> SimulatorArray | None:
        return None if self._values.base is None else SimulatorArray(self._values.base)

    def __getattr__(self, name: str) -> Any:
        """Methods and attributes that cupy.ndarray has; NumPy does the work."""
        qualified = f"ndarray.{name}"
        if name.startswith("_") or qualified not in cupy_names():
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r} (CuPy 14.2)")
        if name == "ptp":
            return lambda *args, **kwargs: call("ndarray.ptp", np.ptp, (self, *args), kwargs)
        if not hasattr(self._values, name):
            raise NotImplementedError(f"the simulator does not model cupy.ndarray.{name}")
        value = getattr(self._values, name)
        if not callable(value):
            return wrap(value, ((self._values, self),))

        def method(*args: Any, **kwargs: Any) -> Any:
            if name in _WAITS:
                activity.synchronizations += 1
            return call(qualified, value, args, kwargs, owner=self)

        return method

    # -- movement and waits --------------------------------------------------------------------------------------
    def get(
        self, stream: Any = None, order: str = "C", out: np.ndarray | None = None, blocking: bool = True
    ) -> np.ndarray:
        """The values in host memory; waits for them."""
        activity.synchronizations += 1
        if watch is not None:
            watch.to_host += self._values.nbytes
        if out is None:
            return self._values.copy(order)  # type: ignore[arg-type]
        out[...] = self._values
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        """Copy a host array of the same shape and dtype here."""
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"{arr.dtype} array cannot be set to {self.dtype} array")
        if arr.shape != self.shape:
            raise ValueError(f"Shape mismatch. Old shape: {self.shape}, new shape: {arr.shape}")
        self._values[...] = arr

    def item(self, *index: int) -> Any:
        activity.synchronizations += 1
        return self._values.item(*index)

    def __bool__(self) -> bool:
        activity.synchronizations += 1
        return bool(self._values)

    def __int__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __repr__(self) -> str:
        return repr(self.get())

    def __str__(self) -> str:
        return str(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.item() if self.ndim == 0 else self.get(), spec)

    # -- as a container ------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[SimulatorArray]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> SimulatorArray:
        parts = _index(key)
        if any(isinstance(part, (np.ndarray, list)) for part in parts):
            activity.operate("getitem by indices")
        result = self._values[parts]
        if not isinstance(result, np.ndarray):
            result = self._values[(*parts, ...)]  # a view, as CuPy gives; NumPy gives a copied scalar
        return SimulatorArray(result)

    def __setitem__(self, key: Any, value: Any) -> None:
        activity.operate("setitem")
        with np.errstate(all="ignore"):
            self._values[_index(key)] = unwrap(value, [])

    def __copy__(self) -> SimulatorArray:
        return SimulatorArray(self._values.copy())

    def __deepcopy__(self, memo: Any) -> SimulatorArray:
        return SimulatorArray(self._values.copy())

    # -- NumPy's protocols ---------------------------------------------------------------------------------------
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise TypeError(_NO_CONVERSION)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if f"{ufunc.__name__}" not in cupy_names():
            return NotImplemented
        for value in inputs:
            if not isinstance(value, (SimulatorArray, np.ndarray, *_SCALARS)):
                return NotImplemented
        if isinstance(kwargs.get("out"), tuple) and ufunc.nout == 1:
            (kwargs["out"],) = kwargs["out"]
        return call(ufunc.__name__ if method == "__call__" else "", getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        from .xp import cupy_like

        if not all(issubclass(kind, SimulatorArray | np.ndarray) for kind in types):
            return NotImplemented
        target: Any = cupy_like
        try:
            for part in (*func.__module__.split(".")[1:], func.__name__):
                target = getattr(target, part)
        except AttributeError:
            return NotImplemented
        return target(*args, **kwargs)


@dataclass(frozen=True)
class SimulatedDevice:
    """What ``x.device`` says: CuPy's has an ``id`` and is a context manager."""

    id: int = 0

    def __enter__(self) -> SimulatedDevice:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


@dataclass(frozen=True)
class DevicePointer:
    """What ``x.data`` says: the address of the first element."""

    ptr: int


# -- the way in and out: host arrays stay outside ----------------------------------------------------------------
def unwrap(value: Any, seen: list[tuple[np.ndarray, SimulatorArray]], host_arrays: bool = False) -> Any:
    """The NumPy values of a device array, or of the device arrays in a list or tuple; refuses host arrays."""
    if isinstance(value, SimulatorArray):
        seen.append((value._values, value))
        return value._values
    if isinstance(value, np.ndarray) and not host_arrays:
        raise TypeError(
            f"Unsupported type {np.ndarray}: a host array cannot meet device arrays, move it to the device first"
        )
    if type(value) in (list, tuple):
        return type(value)(unwrap(item, seen, host_arrays) for item in value)
    return value


def wrap(value: Any, seen: Any = ()) -> Any:
    """A NumPy result as a device array; scalars become 0-d, and an argument that came back is that very argument."""
    if isinstance(value, np.ndarray | np.generic):
        for values, original in seen:
            if values is value:
                return original
        return SimulatorArray(np.asarray(value))
    if isinstance(value, tuple | list):
        items = [wrap(item, seen) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def call(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    owner: SimulatorArray | None = None,
    host_arrays: bool = False,
) -> Any:
    """Run a NumPy function on device arrays, with the parameters that CuPy's function of that name has.

    CuPy gives no floating-point warnings, so there are none here.
    """
    signature = cupy_names().get(name)
    if signature is not None:
        signature.check(name, args, kwargs)
    seen = [] if owner is None else [(owner._values, owner)]
    plain = [unwrap(value, seen, host_arrays) for value in args]
    named = {key: unwrap(value, seen, host_arrays) for key, value in kwargs.items()}
    if function is np.matmul and any(values.ndim > 2 and values.dtype.name == "bfloat16" for values, _ in seen):
        raise TypeError("CuPy 14.2 has no products of stacks of bfloat16 matrices; use Backend.matmul")
    with np.errstate(all="ignore"):
        result = wrap(function(*plain, **named), seen)
    called = name.rpartition(".")[2] or getattr(function, "__name__", "")
    if called in _MAY_GIVE_BACK and any(result is original for _, original in seen):
        return result
    activity.operate(called if seen else "copy from the host")
    return result


_MAY_GIVE_BACK = {"asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "astype"}  # without a copy


def _index(key: Any) -> tuple[Any, ...]:
    """A key for NumPy. Host arrays and lists may come in, as on CuPy; for a boolean mask the host waits, to count."""
    parts = key if isinstance(key, tuple) else (key,)
    plain = tuple(unwrap(part, [], host_arrays=True) for part in parts)
    if any(getattr(part, "dtype", None) == np.bool_ and getattr(part, "ndim", 0) for part in plain):
        activity.synchronizations += 1
    return plain


# -- operators ---------------------------------------------------------------------------------------------------
def _operator(ufunc: np.ufunc, reflected: bool = False) -> Callable[[Any, Any], Any]:
    def method(self: SimulatorArray, other: Any) -> Any:
        if not isinstance(other, SimulatorArray):
            if getattr(other, "__array_ufunc__", 0) is None:
                return NotImplemented
            if not isinstance(other, (np.ndarray, *_SCALARS)):
                return NotImplemented
        return call(ufunc.__name__, ufunc, (other, self) if reflected else (self, other), {})

    return method


def _in_place(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    def method(self: SimulatorArray, other: Any) -> Any:
        if getattr(other, "__array_ufunc__", 0) is None:
            return NotImplemented
        return call(ufunc.__name__, ufunc, (self, other), {"out": self})

    return method


for _name, _ufunc in {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "truediv": np.true_divide,
    "floordiv": np.floor_divide,
    "mod": np.remainder,
    "pow": np.power,
    "matmul": np.matmul,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "lshift": np.left_shift,
    "rshift": np.right_shift,
    "divmod": np.divmod,
}.items():
    setattr(SimulatorArray, f"__{_name}__", _operator(_ufunc))
    setattr(SimulatorArray, f"__r{_name}__", _operator(_ufunc, reflected=True))
    if _name != "divmod":
        setattr(SimulatorArray, f"__i{_name}__", _in_place(_ufunc))
for _name, _ufunc in {
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}.items():
    setattr(SimulatorArray, f"__{_name}__", _operator(_ufunc))
for _name, _ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}.items():
    setattr(SimulatorArray, f"__{_name}__", lambda self, _ufunc=_ufunc: call(_ufunc.__name__, _ufunc, (self,), {}))
