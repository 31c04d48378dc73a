"""Tensor: an array that remembers how it was made. Operators and methods are given to it in ``methods.py``."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from ..backend import Array, Device, as_dtype, backend_for, backend_of
from ..backend import device as check_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Leaf:
    """Stands in ``Tensor._edge`` for 'a leaf that wants its gradient', so that no tensor refers to itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "LEAF"


LEAF = _Leaf()


class Tensor:
    """A plain array and, where a gradient is wanted, its place on the tape.

    Made by :func:`lamella.tensor` and by operations. NumPy manners: operators, ``axis=``, ``keepdims=``, ``shape``,
    indexing, ``len``, ``np.asarray(t)`` on the CPU. ``+=`` makes a new tensor; ``t[...] = value`` writes in place.

    Attributes:
        data: the array itself, ``numpy.ndarray`` or ``cupy.ndarray``. Writing into it by hand goes unseen by the tape;
            ``t[...] = value`` is seen.
        grad: the gradient that :meth:`backward` left here, an array of the same shape, or None.
    """

    __slots__ = ("__weakref__", "_edge", "data", "grad")

    data: Array
    grad: Array | None
    _edge: Any  # a Node, (Node, output index), LEAF, or None; told apart by type(), which checkers do not follow
    _grad_buffer: Array | None = None  # where an optimizer wants a parameter's gradient written

    if TYPE_CHECKING:  # given in methods.py, each an operation of this room
        __add__: Callable[..., Tensor]
        __radd__: Callable[..., Tensor]
        __sub__: Callable[..., Tensor]
        __rsub__: Callable[..., Tensor]
        __mul__: Callable[..., Tensor]
        __rmul__: Callable[..., Tensor]
        __truediv__: Callable[..., Tensor]
        __rtruediv__: Callable[..., Tensor]
        __pow__: Callable[..., Tensor]
        __rpow__: Callable[..., Tensor]
        __matmul__: Callable[..., Tensor]
        __rmatmul__: Callable[..., Tensor]
        __neg__: Callable[..., Tensor]
        __abs__: Callable[..., Tensor]
        __getitem__: Callable[..., Tensor]
        __lt__: Callable[..., Tensor]
        __le__: Callable[..., Tensor]
        __gt__: Callable[..., Tensor]
        __ge__: Callable[..., Tensor]
        backward: Callable[..., None]
        register_hook: Callable[..., Any]
        retain_grad: Callable[..., None]
        astype: Callable[..., Tensor]
        to: Callable[..., Tensor]
        sum: Callable[..., Tensor]
        mean: Callable[..., Tensor]
        var: Callable[..., Tensor]
        std: Callable[..., Tensor]
        max: Callable[..., Tensor]
        min: Callable[..., Tensor]
        argmax: Callable[..., Tensor]
        argmin: Callable[..., Tensor]
        reshape: Callable[..., Tensor]
        transpose: Callable[..., Tensor]
        squeeze: Callable[..., Tensor]
        ravel: Callable[..., Tensor]
        channels_last: Callable[..., Tensor]
        contiguous: Callable[..., Tensor]
        flatten: Callable[..., Tensor]
        T: Tensor
        mT: Tensor

    def __init__(self, data: Array, *, requires_grad: bool = False) -> None:
        """Wrap an array as it is, without a copy.

        Raises:
            TypeError: ``data`` is no array of a registered backend, or a gradient is wanted of an integer dtype.
        """
        backend_of(data)  # raises for anything that is not an array
        self.data = data
        self.grad = None
        self._edge = None
        if requires_grad:
            self.requires_grad = True

    # -- what it is -----------------------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> Any:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def device(self) -> Device:
        return backend_of(self.data).device_of(self.data)

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows to or through this tensor; may be set on leaves."""
        return self._edge is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self._edge is not None and self._edge is not LEAF:
            raise ValueError("requires_grad can be set on leaves only; this tensor was computed: use .detach() first")
        if wanted and not is_floating(self.data.dtype):
            raise TypeError(f"requires_grad needs a floating dtype, got {self.data.dtype}")
        self._edge = LEAF if wanted else None

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was given and not computed with a gradient in view."""
        return self._edge is None or self._edge is LEAF

    def __len__(self) -> int:
        if self.data.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.data.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        for i in range(len(self)):
            yield self[i]

    def __contains__(self, value: Any) -> bool:
        return bool((self.data == value).any())

    def __repr__(self) -> str:
        values = str(backend_of(self.data).to_numpy(self.data)).replace("\n", "\n       ")
        device = self.device
        place = "" if device.kind == "cpu" else f", device='{device}'"
        tail = "" if self._edge is None else ", requires_grad=True"
        return f"{type(self).__name__}({values}, dtype={self.data.dtype}{place}{tail})"

    __hash__ = object.__hash__  # == compares elements, so identity is what a set or dict goes by

    # -- values on the host ---------------------------------------------------------------------------------------
    def to_numpy(self) -> Any:
        """The values as a NumPy array on the host; on the CPU the array itself, not a copy."""
        return backend_of(self.data).to_numpy(self.data)

    def item(self) -> Any:
        """The one value as a Python number; waits for the device."""
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor of one element, got shape {self.data.shape}")
        return self.to_numpy().item()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return operator.index(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(f"the truth of a tensor of shape {self.data.shape} is ambiguous: use .any() or .all()")
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def tolist(self) -> Any:
        """The values as Python numbers in nested lists; waits for the device."""
        return self.to_numpy().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        device = self.device
        if device.kind != "cpu":
            raise TypeError(f"this tensor lives on {device}: call .to_numpy() to copy it to the host")
        if dtype is None or dtype == self.data.dtype:
            return self.data.copy() if copy else self.data
        if copy is False:
            raise ValueError(f"a tensor of {self.data.dtype} cannot be an array of {dtype} without a copy")
        return self.data.astype(dtype)

    def __dlpack__(self, **kwargs: Any) -> Any:
        """Share the memory with another library; the gradient stays behind."""
        return self.data.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.data.__dlpack_device__()

    def __reduce__(self) -> Any:
        """Copying (``copy.deepcopy(model)``) and sending to another process, for leaves only."""
        if not self.is_leaf:
            raise TypeError("a computed tensor cannot be copied or pickled, its place on the tape cannot: detach() it")
        return _rebuild, (type(self), self.data, self.grad, self._edge is LEAF)

    # -- leaving the tape -----------------------------------------------------------------------------------------
    def detach(self) -> Tensor:
        """The same array as a leaf that wants no gradient."""
        return wrap(self.data, None)


class Parameter(Tensor):
    """A leaf that a module learns: ``Parameter(array)`` wants its gradient from the start."""

    __slots__ = ("_grad_buffer",)

    _grad_buffer: Array | None

    def __init__(self, data: Array, *, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad=requires_grad)
        self._grad_buffer = None


_new = object.__new__


def _rebuild(kind: type[Tensor], data: Array, grad: Array | None, requires_grad: bool) -> Tensor:
    t = _new(kind)
    Tensor.__init__(t, data, requires_grad=requires_grad)
    t.grad = grad
    if isinstance(t, Parameter):
        t._grad_buffer = None  # the optimizer's, which stays with the original
    return t


def wrap(data: Array, edge: Any) -> Tensor:
    """A Tensor without the checks of its constructor; for arrays that come out of an operation."""
    t = _new(Tensor)
    t.data = data
    t.grad = None
    t._edge = edge
    return t


def is_floating(dtype: Any) -> bool:
    """Whether a dtype is real floating, bfloat16 included (whose NumPy kind is 'V')."""
    try:
        return dtype.kind == "f" or dtype.name == "bfloat16"
    except AttributeError:
        raise TypeError(f"is_floating: dtype must be a dtype, such as x.dtype, got {dtype!r}") from None


def tensor(data: Any, *, dtype: Any = None, device: str | Device | None = None, requires_grad: bool = False) -> Tensor:
    """A leaf tensor from numbers, lists, arrays, tensors, or anything that speaks DLPack. The values are copied.

    Args:
        data: the values. Python floats become float32, Python integers int64; arrays keep their dtype.
        dtype: the dtype wanted, in any spelling NumPy takes.
        device: where to put it; by default where ``data`` is, and the CPU for plain numbers.
        requires_grad: whether ``backward`` shall leave a gradient here.
    Raises:
        TypeError: the values are not numbers (ragged lists, strings, objects).
        DeviceUnavailableError: the device does not exist here.
    """
    place = None if device is None else check_device(device)
    if hasattr(data, "mask"):
        raise TypeError("tensor: data must not be a masked array, there are no masks here; use data.filled(value)")
    if isinstance(data, Tensor):
        data = data.data
    try:
        backend = backend_of(data)
    except TypeError:
        backend, data = _import(data, dtype)
    array = backend.xp.array(data, dtype=None if dtype is None else as_dtype(dtype))
    if array.dtype.kind not in "biufcV" or array.dtype.hasobject or array.dtype.names:
        raise TypeError(f"tensor: data must be numbers, got dtype {array.dtype}")
    if place is not None and place != backend.device_of(array):
        array = backend_for(place).from_numpy(backend.to_numpy(array), place)
    return Tensor(array, requires_grad=requires_grad)


def _import(data: Any, dtype: Any) -> tuple[Any, Array]:
    """An array on the CPU, or where DLPack says it is, from something that is not yet one of ours."""
    cpu = backend_for("cpu")
    if hasattr(data, "__dlpack_device__"):
        kind = int(data.__dlpack_device__()[0])
        backend = cpu if kind in (1, 3) else backend_for("cuda")  # 1 CPU, 3 pinned host memory, 2 CUDA
        return backend, backend.xp.from_dlpack(data)
    try:
        array = cpu.xp.asarray(data)
    except ValueError as error:
        raise TypeError(f"tensor: data must be numbers in a rectangular shape: {error}") from error
    if array.dtype.kind not in "biufcV" or array.dtype.hasobject:
        raise TypeError(f"tensor: data must be numbers, got {type(data).__name__} of dtype {array.dtype}")
    if dtype is None and array.dtype == "float64" and not _has_dtype(data):
        array = array.astype("float32")
    return cpu, array


def _has_dtype(data: Any) -> bool:
    """Whether values come with a dtype of their own, alone or in lists: arrays and NumPy's scalars, not Python's."""
    while isinstance(data, (list, tuple)) and len(data):
        data = data[0]
    return hasattr(data, "dtype")
