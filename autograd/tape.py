"""The tape: what ``@op`` records on the way forward and ``backward`` walks on the way back.

A node holds no array and no tensor: only the closure that its operation returned does, and it is dropped as soon as it
has run, so memory falls while the walk goes on. Nodes carry a sequence number; sorting by it is a topological order.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
import weakref
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

from ..backend import Array, backend_of, common_backend
from .errors import add_context, describe
from .tensor import LEAF, Tensor, wrap

F = TypeVar("F", bound=Callable[..., Any])


class _Mode(threading.local):
    recording = True


_mode = _Mode()
_sequence = itertools.count(1)
_by_sequence = attrgetter("seq")


class no_grad:  # a context manager reads as a word
    """Inside ``with no_grad():`` nothing is recorded, in this thread. Works as a decorator too."""

    __slots__ = ("_before",)

    def __enter__(self) -> None:
        self._before = _mode.recording
        _mode.recording = False

    def __exit__(self, *exc: object) -> None:
        _mode.recording = self._before

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def quiet(*args: Any, **kwargs: Any) -> Any:
            with no_grad():
                return function(*args, **kwargs)

        return quiet  # type: ignore[return-value]


class enable_grad(no_grad):
    """Inside ``with enable_grad():`` operations are recorded again, for use within ``no_grad``."""

    __slots__ = ()

    def __enter__(self) -> None:
        self._before = _mode.recording
        _mode.recording = True


def is_recording() -> bool:
    """Whether operations are put on the tape in this thread."""
    return _mode.recording


class Node:
    """One recorded operation.

    Attributes:
        seq: its place in time; a node's inputs have smaller numbers.
        edges: for each positional argument where its gradient goes: a Node, (Node, output index), a leaf, or None.
        backward: the closure from the output's gradient to the inputs' gradients; None once it has run.
        name: the operation's name, for messages.
        shape: the output's shape; a list of shapes for an operation that returned a tuple.
        grad: what has arrived of the output's gradient during the walk.
        owned: whether ``grad`` may be added to in place.
    """

    __slots__ = ("backward", "edges", "grad", "name", "owned", "seq", "shape")

    seq: int
    edges: Any
    backward: Callable[..., Any] | None
    name: str
    shape: Any
    grad: Any
    owned: bool


_new = object.__new__


def _record(edges: Any, backward: Callable[..., Any], name: str, shape: Any) -> Node:
    node = _new(Node)
    node.seq = next(_sequence)
    node.edges = edges
    node.backward = backward
    node.name = name
    node.shape = shape
    node.grad = None
    return node


def op(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a differentiable operation of a function on plain arrays; the derivative stands under the formula.

    ``function(*args, **kwargs)`` is called with arrays where it was called with tensors. It returns ``y, backward``,
    where ``backward(dy)`` gives a tuple: for each positional argument, in order, its gradient, or None; arguments at
    the end may be left out. A gradient may also be given as a function ``g(out)`` that makes it: it is called only if
    that argument wants a gradient, and writes into ``out`` where ``out`` is not None. A gradient has the shape and
    dtype of its argument. An array that ``backward`` returns is handed over: it must not be kept, nor returned twice,
    unless it is ``dy`` itself.

    An operation with several results returns ``(y0, y1, …), backward``, and ``backward(dy0, dy1, …)`` is called with
    None for a result that no gradient reached.

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
        arrays = []
        edges = []
        kind = None
        wanted = False
        for arg in args:
            if type(arg) is Tensor or isinstance(arg, Tensor):
                array = arg.data
                arrays.append(array)
                edge = arg._edge
                if edge is not None:
                    wanted = True
                    if edge is LEAF:
                        edge = arg
                edges.append(edge)
                if kind is not type(array):
                    if kind is not None:
                        _one_device(name, args)
                    kind = type(array)
            else:
                arrays.append(arg)
                edges.append(None)
        try:
            y, backward = function(*arrays, **kwargs)
        except Exception as error:
            _one_device(name, args)
            add_context(error, f"in {name}({describe(args, kwargs)})")
            raise
        if type(y) is tuple:
            return _several(y, backward, edges, name, wanted)
        if type(y) is not kind:
            y = _as_array(y, args)
        t = _new(Tensor)
        t.data = y
        t.grad = None
        if wanted and _mode.recording:
            t._edge = node = _new(Node)
            node.seq = next(_sequence)
            node.edges = edges
            node.backward = backward
            node.name = name
            node.shape = y.shape
            node.grad = None
        else:
            t._edge = None
        return t

    return apply


def _several(y: tuple[Any, ...], backward: Any, edges: Any, name: str, wanted: bool) -> tuple[Tensor, ...]:
    if not (wanted and _mode.recording):
        return tuple(wrap(part, None) for part in y)
    node = _record(edges, backward, name, [part.shape for part in y])
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
    for arg in args:
        if isinstance(arg, Tensor):
            return backend_of(arg.data).asarray(y, arg.data)
    return y


def _one_device(name: str, args: tuple[Any, ...]) -> None:
    arrays = [arg.data for arg in args if isinstance(arg, Tensor)]
    if len(arrays) > 1:
        try:
            common_backend(*arrays)
        except ValueError as error:
            add_context(error, f"in {name}({describe(args, {})})")
            raise


# -- writing in place ---------------------------------------------------------------------------------------------

_written: dict[int, tuple[int, int, int, Any]] = {}  # id of owner -> (sequence number, first byte, end, weak owner)
_last_write = 0  # sequence number of the newest in-place write anywhere


def note_write(array: Array) -> None:
    """Tell the tape that ``array`` was changed in place: a later backward that needs its old values raises.

    Costs nothing to operations recorded after the write: each node's number is compared with the newest write's.
    """
    global _last_write
    owner = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    _last_write = next(_sequence)
    key = id(owner)
    known = _written.get(key)
    reference = known[3] if known is not None else weakref.ref(owner, lambda _: _written.pop(key, None))
    start, stop = _extent(array)
    if known is not None:  # one entry for each owner: the union of what was written
        start, stop = min(start, known[1]), max(stop, known[2])
    _written[key] = (_last_write, start, stop, reference)


def _extent(array: Array) -> tuple[int, int]:
    """First byte and end of the memory an array spans."""
    interface = getattr(array, "__cuda_array_interface__", None) or array.__array_interface__
    start = stop = interface["data"][0]
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
    for array in _held_arrays(node.backward):
        start, stop = _extent(array)
        for seq, first, end, _ in list(_written.values()):
            if seq > node.seq and first < stop and start < end:
                raise RuntimeError(
                    f"backward of {node.name} needs an array of shape {array.shape}, dtype {array.dtype} that was "
                    "changed in place after it was used; change a copy, or call backward first"
                )


def _held_arrays(held: Any) -> list[Array]:
    found: list[Array] = []
    stack = [held]
    while stack:
        item = stack.pop()
        if isinstance(item, (tuple, list)):
            stack.extend(item)
        elif isinstance(item, functools.partial):
            stack.extend((item.func, item.args))
        elif getattr(item, "__closure__", None):
            for cell in item.__closure__:
                try:
                    stack.append(cell.cell_contents)
                except ValueError:  # an empty cell
                    continue
        elif hasattr(item, "__array_interface__") or hasattr(item, "__cuda_array_interface__"):
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
    if gradient is None:
        if data.size != 1:
            raise ValueError(f"backward: gradient must be given for a tensor of shape {data.shape}")
        g = backend_of(data).xp.ones_like(data)
    else:
        g = gradient.data if isinstance(gradient, Tensor) else gradient
        common_backend(data, g)
        if g.shape != data.shape:
            raise ValueError(f"backward: gradient must have the tensor's shape {data.shape}, got {g.shape}")
        if g.dtype != data.dtype:
            raise TypeError(f"backward: gradient must have the tensor's dtype {data.dtype}, got {g.dtype}")
        g = g.copy()
    if edge is LEAF:
        _give_leaf(self, g, True)
        return
    root = edge[0] if type(edge) is tuple else edge
    nodes = _reachable(root)
    _give(edge, g)
    try:
        _walk(nodes, retain_graph)
    except BaseException:
        for node in nodes:  # what has arrived so far must not be counted in a second attempt
            node.grad = None
        raise


def _reachable(root: Node) -> list[Node]:
    """All nodes below ``root``, oldest first."""
    nodes = [root]
    seen = {root}
    for node in nodes:  # grows while it is walked
        for edge in node.edges:
            kind = type(edge)
            if kind is tuple:
                edge = edge[0]
            elif kind is not Node:
                continue
            if edge not in seen:
                seen.add(edge)
                nodes.append(edge)
    nodes.sort(key=_by_sequence)
    return nodes


def _walk(nodes: list[Node], retain_graph: bool) -> None:
    """Run each node's backward, newest first, and hand its results down."""
    while nodes:
        node = nodes.pop()
        dy = node.grad
        if dy is None:  # no gradient reached it
            continue
        node.grad = None
        run = node.backward
        if run is None:
            raise RuntimeError(
                f"backward: the graph at {node.name} was already walked and freed; "
                "pass retain_graph=True to the first backward to walk it twice"
            )
        if node.seq < _last_write:
            _check_unwritten(node)
        edges = node.edges
        if not retain_graph:
            node.backward = None  # what the closure holds is free once it has run
            node.edges = ()
        try:
            grads = run(*dy) if type(node.shape) is list else run(dy)
            for edge, g in zip(edges, grads, strict=False):
                if edge is None or g is None:
                    continue
                if type(edge) is Node:
                    if callable(g):
                        g = g(None)
                    if g.shape != edge.shape:
                        raise _wrong_shape(edge.shape, g)
                    held = edge.grad
                    if held is None:
                        edge.grad = g
                        edge.owned = False
                    elif edge.owned:
                        held += g
                    else:
                        edge.grad = held + g
                        edge.owned = g.shape != ()  # the sum of two 0-d NumPy arrays is a scalar
                elif type(edge) is tuple:
                    _give(edge, g(None) if callable(g) else g)
                elif callable(g):
                    _give_leaf(edge, g(edge._grad_buffer if edge.grad is None else None), True)
                else:
                    _give_leaf(edge, g, g is not dy and g.base is None)
        except Exception as error:
            add_context(error, f"in the backward pass of {node.name}, gradient {describe((dy,), {})}")
            raise
        run = dy = grads = g = None


def _wrong_shape(shape: Any, g: Array) -> ValueError:
    return ValueError(f"a gradient must have the shape of its argument, {shape}, got {g.shape}")


def _give(edge: Any, g: Array) -> None:
    """Add a gradient to a node's, out of place."""
    if type(edge) is not tuple:
        edge.grad = g if edge.grad is None else edge.grad + g
        return
    node, i = edge
    if g.shape != node.shape[i]:
        raise _wrong_shape(node.shape[i], g)
    if node.grad is None:
        node.grad = [None] * len(node.shape)
    node.grad[i] = g if node.grad[i] is None else node.grad[i] + g


def _give_leaf(leaf: Tensor, g: Array, fresh: bool) -> None:
    """Add a gradient to a leaf's; ``fresh`` says that nobody else holds the array."""
    data = leaf.data
    if g.shape != data.shape:
        raise _wrong_shape(data.shape, g)
    if g.dtype != data.dtype:
        raise TypeError(f"a gradient must have the dtype of its argument, {data.dtype}, got {g.dtype}")
    if type(g) is not type(data):  # a NumPy scalar
        g = backend_of(data).asarray(g, data)
    buffer = leaf._grad_buffer
    if leaf.grad is None:
        if buffer is not None:
            if g is not buffer:
                buffer[...] = g
            leaf.grad = buffer
        else:
            leaf.grad = g if fresh else g.copy()
    elif leaf.grad is buffer:
        buffer += g
    else:
        total = leaf.grad + g
        leaf.grad = total if type(total) is type(data) else backend_of(data).asarray(total, data)
