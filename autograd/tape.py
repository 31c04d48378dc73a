"""The tape: what ``@op`` records on the way forward and ``backward`` walks on the way back.

A node holds no array and no tensor: only the closure that its operation returned does, and it is dropped as soon as it
has run, so memory falls while the walk goes on. Nodes carry a sequence number; sorting by it is a topological order.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from heapq import heappop, heappush
from sys import getrefcount
from typing import Any, TypeVar

from ..backend import (
    Array,
    MixedDevicesError,
    UnknownArrayError,
    backend_for,
    backend_of,
    common_backend,
    is_array,
    is_view,
)
from .broadcast import unbroadcast
from .errors import add_context, describe
from .tensor import LEAF, Tensor, wrap

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    recording = True
    before: Any = None  # (recording, before) of the block around: a stack, so that one object may be entered twice
    unit: Any = None  # the gradient that the walk under way began with, where that is 1


_mode = _Mode()
_sequence = itertools.count(0, -1)


def _references_of_mine() -> int:
    holder = wrap(None, None)
    holder.grad = object()
    held = holder.grad
    return getrefcount(held)


# What getrefcount says of an array that only its owner, a local name and the call hold: 3, or less where the
# interpreter borrows (Python 3.14). Measured, because a number too high by one would change arrays that others see.
_MINE = _references_of_mine()


class no_grad:  # a context manager reads as a word
    """Inside ``with no_grad():`` nothing is recorded, in this thread. Works as a decorator too."""

    __slots__ = ()
    _recording = False

    def __enter__(self) -> None:
        _mode.before = (_mode.recording, _mode.before)
        _mode.recording = self._recording

    def __exit__(self, *exc: object) -> None:
        _mode.recording, _mode.before = _mode.before

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def quiet(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return quiet  # type: ignore[return-value]


class enable_grad(no_grad):
    """Inside ``with enable_grad():`` operations are recorded again, for use within ``no_grad``."""

    __slots__ = ()
    _recording = True


def is_recording() -> bool:
    """Whether operations are put on the tape in this thread."""
    return _mode.recording


class Node:
    """One recorded operation.

    Attributes:
        seq: its place in time, counted down: a node's inputs have greater numbers, so a heap gives the newest first.
        edges: for each positional argument where its gradient goes: a Node, (Node, output index), a leaf, or None.
        backward: the closure from the output's gradient to the inputs' gradients; None once it has run.
        saved: the two values handed to each function of ``backward`` after the gradient; None where they are closures.
        op: the operation, for its name and whether it broadcasts.
        shape: the output's shape; a list of shapes for an operation that returned a tuple.
        dtype: the output's dtype; a list for an operation that returned a tuple.
        grad: what has arrived of the output's gradient during the walk.
    """

    __slots__ = ("backward", "dtype", "edges", "grad", "op", "saved", "seq", "shape")

    seq: int
    edges: Any
    backward: Any
    saved: Any
    op: Any
    shape: Any
    dtype: Any
    grad: Any


_new = object.__new__


def op(function: Callable[..., Any], *, broadcasts: bool = False) -> Callable[..., Any]:
    """Make a differentiable operation of a function on plain arrays; the derivative stands under the formula.

    ``function(*args, **kwargs)`` is called with arrays where it was called with tensors. It returns ``y, backward``.
    ``backward`` is one function, ``backward(dy)``, that gives a tuple: for each positional argument, in order, its
    gradient, or None. Or it is a tuple of functions ``g(dy, out)``, one for each argument, or None: each is called only
    if its argument wants a gradient, and may write it into ``out`` where ``out`` is not None. Arguments at the end may
    be left out. A gradient has the shape and dtype of its argument. An array that is returned is handed over: it must
    not be kept, nor returned twice, unless it is ``dy`` itself.

    An operation with several results returns ``(y0, y1, …), backward``, and ``backward(dy0, dy1, …)`` is called with
    None for a result that no gradient reached.

    ``broadcasts=True`` says that arguments may be broadcast against each other: then a gradient of the result's shape
    is summed over what was repeated, and given the argument's dtype.

    Errors inside are raised again with the operation's name and its arguments' shapes, dtypes and devices.

    Example:
        >>> @op
        ... def square(x):
        ...     return x * x, lambda dy: (2.0 * x * dy,)
    """
    name = function.__name__

    @functools.wraps(function)
    def apply(*args: Any, **kwargs: Any) -> Any:
        if kwargs:
            for value in kwargs.values():
                if isinstance(value, Tensor):
                    args, kwargs = _positional(function, args, kwargs)
                    break
        try:
            arrays, edges, kind, wanted = _unwrap(args)
            result = function(*arrays, **kwargs)
            if type(result) is not tuple or len(result) != 2:
                raise TypeError(f"an op must return (y, backward), got {describe((result,), {})}")
            y, backward = result
        except Exception as error:
            raise _explained(error, name, args, kwargs, function)  # noqa: B904 - the same, or one that chains to it
        if type(y) is not kind:
            if type(y) is tuple:
                y = tuple([_as_array(part, args) for part in y])
                return _several(y, backward, edges if wanted and _mode.recording else None, apply)
            y = _as_array(y, args)
        t = _new(Tensor)
        t.data = y
        t.grad = None
        if wanted and _mode.recording:
            t._edge = node = _new(Node)
            node.seq = next(_sequence)
            node.edges = edges
            node.backward = backward
            node.op = apply
            node.shape = y.shape
            node.dtype = y.dtype
            node.saved = None
            node.grad = None
        else:
            t._edge = None
        return t

    apply.broadcasts = broadcasts  # type: ignore[attr-defined]
    code = function.__code__
    apply.most = sys.maxsize if code.co_flags & inspect.CO_VARARGS else code.co_argcount  # type: ignore[attr-defined]
    return apply


def _unwrap(args: tuple[Any, ...]) -> tuple[list[Any], Any, type | None, bool]:
    """The arrays and edges of a call's arguments, the arrays' type, and whether any wants a gradient."""
    arrays = []
    edges = []
    kind: type | None = None
    wanted = False
    for arg in args:
        if isinstance(arg, Tensor):
            arrays.append(array := arg.data)
            if (edge := arg._edge) is not None:
                wanted = True
                if edge is LEAF:
                    edge = arg
            edges.append(edge)
            if kind is not type(array):
                if kind is not None:
                    require_one_device(args)
                kind = type(array)
        else:
            arrays.append(arg)
            edges.append(None)
    return arrays, edges, kind, wanted


def broadcasting_op(function: Callable[..., Any]) -> Callable[..., Any]:
    """:func:`op` for functions whose arguments are broadcast against each other."""
    return op(function, broadcasts=True)


_NOTHING = (None, None)


def binary_op(
    name: str,
    formula: str,
    compute: Callable[[Any, Any], Array],
    dx: Callable[..., Array],
    dy: Callable[..., Array],
    saves: bool = True,
) -> Callable[[Any, Any], Tensor]:
    """A broadcasting operation ``z = compute(x, y)`` with gradients ``dx(dz, x, y)`` and ``dy(dz, x, y)``.

    It does what :func:`op` does, without closures and loops, because arithmetic is most of what a small network
    records; ``benchmarks/bench_tape.py`` measures it.

    Args:
        name, formula: what the operation is called, and what its docstring says.
        compute: the value, from two arrays, or an array and a number.
        dx, dy: the gradients, each called only if wanted.
        saves: whether the gradients need ``x`` and ``y``; without, they are given None for both.
    """
    gradients = (dx, dy)

    def plain(x: Any, y: Any) -> Any:
        a, b = (x, y) if saves else (None, None)
        return compute(x, y), (lambda dz, out: dx(dz, a, b), lambda dz, out: dy(dz, a, b))

    plain.__name__ = plain.__qualname__ = name
    general = op(plain, broadcasts=True)

    def apply(x: Any, y: Any) -> Tensor:
        if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
            result: Tensor = general(x, y)
            return result
        a = x.data
        b = y.data
        try:
            if type(a) is not type(b):
                require_one_device((x, y))
            z = compute(a, b)
        except Exception as error:
            raise _explained(error, name, (x, y), {})  # noqa: B904 - the same error, or one that chains to it
        if type(z) is not type(a):
            z = _as_array(z, (x,))
        t = _new(Tensor)
        t.data = z
        t.grad = None
        e = x._edge
        f = y._edge
        if (e is not None or f is not None) and _mode.recording:
            t._edge = node = _new(Node)
            node.seq = next(_sequence)
            node.edges = (x if e is LEAF else e, y if f is LEAF else f)
            node.backward = gradients
            node.saved = (a, b) if saves else _NOTHING
            node.op = general
            node.shape = z.shape
            node.dtype = z.dtype
            node.grad = None
        else:
            t._edge = None
        return t

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"``{formula}``."
    return apply


def _several(y: tuple[Any, ...], backward: Any, edges: Any, operation: Any) -> tuple[Tensor, ...]:
    if edges is None:
        return tuple(wrap(part, None) for part in y)
    node = _new(Node)
    node.seq = next(_sequence)
    node.edges = edges
    node.backward = backward
    node.op = operation
    node.shape = [part.shape for part in y]
    node.dtype = [part.dtype for part in y]
    node.saved = None
    node.grad = None
    return tuple(wrap(part, (node, i)) for i, part in enumerate(y))


def _positional(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Move keyword arguments into their positions, so that tensors among them have an edge."""
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args, bound.kwargs


def _as_array(y: Any, args: tuple[Any, ...]) -> Array:
    """NumPy gives a scalar where an operation leaves no axis; a tensor holds an array."""
    if is_array(y):
        return y  # on another device, or of an operation on plain arrays
    for arg in args:
        array = arg.data if isinstance(arg, Tensor) else arg
        if hasattr(array, "strides"):
            return backend_of(array).asarray(y, array)
    return y


def require_one_device(args: tuple[Any, ...]) -> None:
    """Raise MixedDevicesError if tensors among the arguments live on different devices."""
    arrays = [arg.data for arg in args if isinstance(arg, Tensor)]
    if len(arrays) > 1:
        common_backend(*arrays)


def _explained(
    error: Exception, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], function: Any = None
) -> Exception:
    """The error with the call it came from; where devices were mixed, that is said instead of what came of it."""
    if isinstance(error, (AttributeError, UnknownArrayError)):  # of a list that was taken for an array, most likely
        declared = () if function is None else inspect.signature(function).parameters.values()
        names = [one.name for one in declared if one.kind < inspect.Parameter.VAR_POSITIONAL]
        places = [*names, *(f"argument {i + 1}" for i in range(len(names), len(args)))]
        given = [*zip(places, args, strict=False), *kwargs.items()]
        for place, arg in given:
            if arg is error.obj and not isinstance(arg, Tensor) and not is_array(arg):
                found = not_an_array(name, place, arg)
                found.__cause__ = error
                return found
    try:
        require_one_device(args)
    except MixedDevicesError as mixed:
        mixed.__cause__ = None if mixed.args == error.args else error
        error = mixed
    add_context(error, f"in {name}({describe(args, kwargs)})")
    return error


def not_an_array(caller: str, name: str, value: Any) -> TypeError:
    """What to raise where an argument is no array."""
    got = "None" if value is None else f"a {type(value).__name__}; lamella.tensor makes one"
    return TypeError(f"{caller}: {name} must be a tensor or an array, got {got}")


def require_arrays(caller: str, **arguments: Any) -> None:
    """Raise TypeError unless all these arguments are tensors or arrays."""
    for name, value in arguments.items():
        if not isinstance(value, Tensor):
            try:
                backend_of(value)
            except TypeError as error:
                raise not_an_array(caller, name, value) from error


# -- writing in place ---------------------------------------------------------------------------------------------

class _Written:
    """Writes into the memory of one owner: (sequence number, first byte, end) of each, and the extent of the whole."""

    __slots__ = ("owner", "whole", "writes")

    def __init__(self, owner: Callable[[], Any]) -> None:
        self.owner = owner
        self.whole: tuple[int, int] | None = None
        self.writes: list[tuple[int, int, int]] = []


_MOST_WRITES = 16  # kept apart for one owner; beyond, they count as one write to all the memory they span
_written: dict[int, _Written] = {}  # by id of the owner of the memory
_last_write = 1  # sequence number of the newest in-place write anywhere; numbers count down


def note_write(array: Array) -> None:
    """Tell the tape that ``array`` was changed in place: a later backward that needs its old values raises.

    Costs nothing to operations recorded after the write: each node's number is compared with the newest write's.
    """
    global _last_write
    _last_write = seq = next(_sequence)
    known = _written.get(id(array))
    if known is not None and known.whole is not None and known.owner() is array:  # an optimizer's buffer, once a step
        known.writes = [(seq, *known.whole)]
        return
    owner = backend_of(array).owner(array)
    start, stop = _extent(array)
    key = id(owner)
    known = _written.get(key)
    if known is None:
        known = _written[key] = _Written(weakref.ref(owner, lambda _: _written.pop(key, None)))
    if owner is array:
        known.whole = (start, stop)
    writes = [write for write in known.writes if not (start <= write[1] and write[2] <= stop)]
    writes.append((seq, start, stop))
    if len(writes) > _MOST_WRITES:
        writes = [(seq, min(first for _, first, _ in writes), max(end for _, _, end in writes))]
    known.writes = writes


def _extent(array: Array) -> tuple[int, int]:
    """First byte and end of the memory an array spans."""
    start = stop = backend_of(array).address(array)
    for length, stride in zip(array.shape, array.strides, strict=True):
        if length == 0:
            return start, start
        if stride < 0:
            start += (length - 1) * stride
        else:
            stop += (length - 1) * stride
    return start, stop + array.itemsize


def _check_unwritten(node: Node) -> None:
    """Raise if an array that this node's closure holds was written in place after the node was recorded."""
    since = [write for known in list(_written.values()) for write in known.writes if write[0] < node.seq]
    for array in _held_arrays((node.backward, node.saved)):
        start, stop = _extent(array)
        for _, first, end in since:
            if first < stop and start < end:
                raise RuntimeError(
                    f"backward of {node.op.__name__} needs an array of shape {array.shape}, dtype {array.dtype} "
                    "that was changed in place after it was used; change a copy, or call backward first"
                )


def _held_arrays(held: Any) -> list[Array]:
    """The arrays in a function's closure and defaults, and in the functions and containers that it holds."""
    found: list[Array] = []
    seen: set[int] = set()  # a function may hold itself
    stack = [held]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (tuple, list)):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, functools.partial):
            stack.extend((item.func, item.args, item.keywords))
        elif isinstance(item, Tensor):
            stack.append(item.data)
        elif hasattr(item, "__closure__"):
            stack.extend((item.__defaults__ or (), item.__kwdefaults__ or {}))
            for cell in item.__closure__ or ():
                try:
                    stack.append(cell.cell_contents)
                except ValueError:  # an empty cell
                    continue
        elif is_array(item):
            found.append(item)
    return found


# -- the walk -----------------------------------------------------------------------------------------------------


def backward(self: Tensor, gradient: Any = None, *, retain_graph: bool = False) -> None:
    """Compute the gradient of this tensor with respect to every leaf that wants one, and add it to ``leaf.grad``.

    Args:
        gradient: the gradient with respect to this tensor, an array or tensor of its shape; 1 for a scalar.
        retain_graph: keep what the walk needs, so that it can be walked again; else memory is freed as it goes.
    Raises:
        RuntimeError: nothing was recorded, the graph was already walked and freed, or a needed array was changed.
        ValueError: ``gradient`` is missing for a tensor of more than one element, or has another shape.
    """
    edge = self._edge
    if edge is None:
        raise RuntimeError(
            "backward: this tensor has no gradient: none of what it was computed from has requires_grad=True, "
            "or it was computed under no_grad"
        )
    data = self.data
    unit = None
    if gradient is None:
        if data.size != 1:
            raise ValueError(f"backward: gradient must be given for a tensor of shape {data.shape}")
        g = unit = backend_of(data).xp.ones_like(data)
    else:
        g = gradient.data if isinstance(gradient, Tensor) else gradient
        common_backend(data, g)
        if g.shape != data.shape:
            raise ValueError(f"backward: gradient must have the tensor's shape {data.shape}, got {g.shape}")
        if g.dtype != data.dtype:
            raise TypeError(f"backward: gradient must have the tensor's dtype {data.dtype}, got {g.dtype}")
    if edge is LEAF:
        _give_leaf(None, self, g, g, False)
        return
    pending: list[tuple[int, Node]] = []
    if type(edge) is tuple:
        _give_output(edge[0], edge, g, pending)
    else:
        edge.grad = g
        pending.append((edge.seq, edge))
    before, _mode.unit = _mode.unit, unit
    try:
        _walk(pending, retain_graph)
    except BaseException:
        for _, node in pending:  # what has arrived so far must not be counted in a second attempt
            node.grad = None
        raise
    finally:
        _mode.unit = before


def is_unit(dy: Array) -> bool:
    """Whether a gradient is the 1 with which ``backward()`` began, so that nothing need be multiplied by it.

    Known without a look at its value, which would wait for the device. Another gradient of 1 is not recognised.
    """
    return dy is _mode.unit


def _walk(pending: list[tuple[int, Node]], retain_graph: bool) -> None:
    """Run each node's backward, newest first, and hand its results down.

    ``pending`` is a heap of the nodes that a gradient has reached. A node's users are all newer than the node, so once
    it is the newest nothing more can reach it.
    """
    while pending:
        node = heappop(pending)[1]
        dy = node.grad
        node.grad = None
        run = node.backward
        if run is None:
            raise RuntimeError(
                f"backward: the graph at {node.op.__name__} was already walked and freed; "
                "pass retain_graph=True to the first backward to walk it twice"
            )
        if node.seq > _last_write:
            _check_unwritten(node)
        if not node.shape:
            dy = _as_0d(dy)
        edges = node.edges
        saved = node.saved
        if not retain_graph:
            node.backward = node.saved = None  # what they hold is free once they have run
            node.edges = ()
        try:
            if saved is not None:
                separate = False
                first, second = saved
                grads = run
            else:
                separate = type(run) is tuple
                grads = run if separate else run(dy) if type(node.shape) is tuple else run(*dy)
                if len(grads) > node.op.most:
                    raise ValueError(f"backward must give at most {node.op.most} gradients, got {len(grads)}")
            for edge, g in zip(edges, grads):  # noqa: B905 - an operation may leave out the last gradients
                if edge is None or g is None:
                    continue
                kind = type(edge)
                if saved is not None:
                    g = g(dy, first, second)
                if kind is Node:
                    if separate:
                        g = g(dy, None)
                    if g.dtype is not edge.dtype or g.shape != edge.shape:
                        g = _fit(node, g, edge.shape, edge.dtype)
                    held = edge.grad
                    if held is None:
                        edge.grad = g
                        heappush(pending, (edge.seq, edge))
                    elif getrefcount(held) == _MINE and (held.base is None or not is_view(held)):
                        held += g
                        edge.grad = held  # a NumPy scalar is not changed in place
                    else:
                        edge.grad = held + g
                elif kind is tuple:
                    _give_output(node, edge, g(dy, None) if separate else g, pending)
                else:
                    _give_leaf(node, edge, g, dy, separate)
        except Exception as error:
            add_context(error, f"in the backward pass of {node.op.__name__}, gradient {describe((dy,), {})}")
            raise
        run = dy = grads = g = saved = first = second = None


def _as_0d(g: Any) -> Array:
    """NumPy's arithmetic makes scalars of 0-d arrays; a backward is called with arrays."""
    return g if hasattr(g, "__setitem__") else backend_for("cpu").asarray(g)


def _fit(node: Node | None, g: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """A gradient summed over what was broadcast, and in its argument's dtype; raises where neither was the cause."""
    if node is not None and node.op.broadcasts:
        return unbroadcast(g, shape, dtype)
    if g.shape != shape:
        raise ValueError(f"a gradient must have the shape of its argument, {shape}, got {g.shape}")
    if g.dtype != dtype:
        raise TypeError(f"a gradient must have the dtype of its argument, {dtype}, got {g.dtype}")
    return g  # equal dtypes need not be one object


def _give_output(node: Node, edge: tuple[Node, int], g: Array, pending: list[tuple[int, Node]]) -> None:
    """Add a gradient to that of one output of an operation with several."""
    parent, i = edge
    if g.dtype is not parent.dtype[i] or g.shape != parent.shape[i]:
        g = _fit(node, g, parent.shape[i], parent.dtype[i])
    if not g.shape:
        g = _as_0d(g)
    if parent.grad is None:
        parent.grad = [None] * len(parent.shape)
        heappush(pending, (parent.seq, parent))
    held = parent.grad[i]
    parent.grad[i] = g if held is None else held + g


def _give_leaf(node: Node | None, leaf: Tensor, g: Any, dy: Any, separate: bool) -> None:
    """Add a gradient to a leaf's: into the optimizer's buffer where there is one, else into an array of its own."""
    data = leaf.data
    before = leaf.grad
    buffer = leaf._grad_buffer
    if separate:
        g = g(dy, buffer if before is None else None)
    if g.dtype is not data.dtype or g.shape != data.shape:
        g = _fit(node, g, data.shape, data.dtype)
    if before is None:
        if buffer is None:
            if type(g) is not type(data):  # a NumPy scalar
                g = backend_of(data).asarray(g, data)
            handed_down = g is dy or (type(dy) is list and any(g is part for part in dy))  # it may go elsewhere too
            leaf.grad = g.copy() if handed_down or is_view(g) else g
            return
        if g is not buffer:
            buffer[...] = g
        leaf.grad = buffer
    elif before is buffer or (getrefcount(before) == _MINE and (before.base is None or not is_view(before))):
        before += g
    else:
        total = before + g
        leaf.grad = total if type(total) is type(data) else backend_of(data).asarray(total, data)
