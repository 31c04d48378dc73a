"""The operators and methods of Tensor: each is an operation of this room under NumPy's name."""

from __future__ import annotations

from typing import Any

from . import creation, elementwise, indexing, products, reduction, shape
from .hooks import register_hook, retain_grad
from .tape import backward
from .tensor import Tensor, tensor

__all__ = ["Tensor"]  # complete once this file has run

_T: Any = Tensor  # attributes are added to a class whose annotations declare them


def _reflected(function: Any) -> Any:
    def operator(self: Tensor, other: Any) -> Tensor:
        return function(other, self)

    return operator


for _name, _function in {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "pow": elementwise.power,
    "matmul": products.matmul,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
}.items():
    setattr(_T, f"__{_name}__", _function)
    setattr(_T, f"__r{_name}__", _reflected(_function))

_T.__neg__ = elementwise.negative
_T.__pos__ = elementwise.positive
_T.__abs__ = elementwise.absolute
_T.__eq__ = elementwise.equal
_T.__ne__ = elementwise.not_equal
_T.__lt__ = elementwise.less
_T.__le__ = elementwise.less_equal
_T.__gt__ = elementwise.greater
_T.__ge__ = elementwise.greater_equal
_T.__invert__ = elementwise.bitwise_invert
_T.__getitem__ = indexing.getitem
_T.__setitem__ = indexing.setitem
_T.backward = backward
_T.register_hook = register_hook
_T.retain_grad = retain_grad

_METHODS: tuple[Any, ...] = (
    *(elementwise.exp, elementwise.log, elementwise.sqrt, elementwise.tanh, elementwise.clip, elementwise.astype),
    *(reduction.sum, reduction.mean, reduction.var, reduction.std, reduction.max, reduction.min, reduction.prod),
    *(reduction.argmax, reduction.argmin, reduction.any, reduction.all, reduction.cumsum),
    *(shape.squeeze, shape.ravel, shape.swapaxes, shape.repeat, shape.to, shape.channels_last, shape.contiguous),
    *(indexing.take, products.dot),
)
for _method in _METHODS:
    setattr(_T, _method.__name__, _method)

_T.flatten = shape.ravel
_T.abs = elementwise.absolute
_T.round = elementwise.round


def _reshape(self: Tensor, *lengths: Any) -> Tensor:
    """``x.reshape(2, 3)`` or ``x.reshape((2, 3))``."""
    return shape.reshape(self, lengths[0] if len(lengths) == 1 else lengths)


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """``x.transpose()``, ``x.transpose(1, 0)`` or ``x.transpose((1, 0))``."""
    order: Any = axes
    if len(axes) == 1 and (axes[0] is None or isinstance(axes[0], (tuple, list))):
        order = axes[0]
    return shape.permute_dims(self, tuple(order) if order else None)


_T.reshape = _reshape
_T.transpose = _transpose
_T.T = property(shape.permute_dims, doc="The axes in reverse order.")
_T.mT = property(shape.matrix_transpose, doc="The last two axes exchanged.")


# -- NumPy's functions called on tensors ----------------------------------------------------------------------------

_FUNCTIONS: dict[str, Any] = {
    name: function
    for room in (elementwise, reduction, shape, products, indexing, creation)
    for name, function in vars(room).items()
    if callable(function) and not name.startswith("_") and function.__module__.startswith(__package__ or "")
}


_FUNCTIONS["invert"] = elementwise.bitwise_invert
_FUNCTIONS["around"] = elementwise.round


def _array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """``np.exp(t)`` and ``array + t``: NumPy hands its elementwise functions over; ours are on the tape."""
    function = _FUNCTIONS.get(ufunc.__name__)
    if function is None or method != "__call__" or kwargs:
        raise TypeError(
            f"numpy.{ufunc.__name__} cannot be applied to a tensor in this form; "
            "use an operation of lamella, or t.to_numpy() to leave the tape"
        )
    return function(*inputs)


def _array_function(self: Tensor, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    ours = _FUNCTIONS.get(function.__name__)
    if ours is None:
        raise TypeError(
            f"numpy.{function.__name__} cannot be applied to a tensor: "
            "use an operation of lamella, or t.to_numpy() to leave the tape"
        )
    return ours(*args, **kwargs)


_T.__array_ufunc__ = _array_ufunc
_T.__array_function__ = _array_function
_T.__array_priority__ = 1000


def _copy(self: Tensor) -> Tensor:
    """A leaf of its own memory with the same values."""
    return tensor(self)


_T.copy = _copy
