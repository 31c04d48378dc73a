"""What a model looks like: a table of its layers, and a diagram of how they are connected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..autograd import Parameter, Tensor, enable_grad, is_floating, no_grad, op
from ..backend import Device, Generator, backend_for, backend_of, is_array
from ..backend import device as check_device
from .module import Buffer, Module


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        path: the module's name in the model, empty for the model itself.
        depth: how far below the model it stands.
        kind: its class.
        output: shapes of its results, as text.
        calls: how often it was called.
        parameters: how many numbers it learns itself, without the modules below it and those counted further up.
        frozen: how many of these have ``requires_grad`` off.
        note: where it was counted, if further up.
    """

    path: str
    depth: int
    kind: str
    output: str
    calls: int
    parameters: int
    frozen: int
    note: str


@dataclass(frozen=True)
class Summary:
    """A table of all layers: ``print(summary)``.

    Attributes:
        rows: the lines, the model first, then what it holds, in order.
        parameters: how many numbers the model learns, shared ones counted once.
        frozen: how many of these have ``requires_grad`` off.
        parameter_bytes, buffer_bytes: memory of the parameters, and of the buffers.
        activation_bytes: memory of all layers' outputs for this input, an array that several return counted once;
            training keeps about so much, and its gradients as much again.
        inputs: the inputs, in words.
    """

    rows: tuple[Row, ...]
    parameters: int
    frozen: int
    parameter_bytes: int
    buffer_bytes: int
    activation_bytes: int
    inputs: str

    def __str__(self) -> str:
        lines = [("Layer", "Output", "Parameters")]
        for row, branch in zip(self.rows, _branches([row.depth for row in self.rows]), strict=True):
            name = f"{row.path.rpartition('.')[2]} {row.kind}".lstrip()
            output = row.output + (f" ×{row.calls}" if row.calls > 1 else "")
            lines.append((branch + name, output, _count(row)))
        width = [max(len(line[i]) for line in lines) for i in range(3)]
        table = [f"{a:{width[0]}}  {b:{width[1]}}  {c:>{width[2]}}".rstrip() for a, b, c in lines]
        rule = "─" * (sum(width) + 4)
        frozen = f" ({self.parameters - self.frozen:,} trainable, {self.frozen:,} frozen)" if self.frozen else ""
        buffers = f", buffers {_bytes(self.buffer_bytes)}" if self.buffer_bytes else ""
        return "\n".join(
            [
                table[0],
                rule,
                *table[1:],
                rule,
                f"Parameters   {self.parameters:,}{frozen}",
                f"Memory       parameters {_bytes(self.parameter_bytes)}{buffers}, "
                f"layer outputs {_bytes(self.activation_bytes)}",
                f"Input        {self.inputs}",
            ]
        )


def _count(row: Row) -> str:
    if row.note:
        return row.note
    if not row.parameters:
        return "–"
    if row.frozen == row.parameters:
        return f"{row.parameters:,} frozen"
    return f"{row.parameters:,}" + (f" ({row.frozen:,} frozen)" if row.frozen else "")


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def _branches(depths: list[int]) -> list[str]:
    """The lines of a tree in front of each row."""
    found = []
    for i, depth in enumerate(depths):
        text = ""
        for level in range(1, depth + 1):
            following = next((d for d in depths[i + 1 :] if d <= level), 0)
            if level == depth:
                text += "├─ " if following == level else "└─ "
            else:
                text += "│  " if following == level else "   "
        found.append(text)
    return found


def summarise(model: Module, inputs: tuple[Any, ...], dtype: Any = "float32") -> Summary:
    """What :meth:`Module.summary` returns."""
    xs = _inputs(model, inputs, dtype)
    shapes: dict[int, list[str]] = {}
    outputs: list[Any] = []  # kept until the end, so that memory is not counted twice for being used again

    def after(module: Module, _: Any, y: Any) -> None:
        shapes.setdefault(id(module), []).append(_shape(y))
        outputs.extend(_tensors(y))

    with _undisturbed(model), no_grad():
        handles = [module.register_forward_hook(after) for module in model.modules()]
        try:
            model(*xs)
        finally:
            for handle in handles:
                handle.remove()
    arrays = {id(owner): owner.nbytes for owner in (backend_of(y.data).owner(y.data) for y in outputs)}
    given = {id(backend_of(x.data).owner(x.data)) for x in xs}
    state = {id(value): value for _, value in model._named_state()}.values()
    parameters = [value for value in state if isinstance(value, Parameter)]
    return Summary(
        tuple(_rows(model, shapes)),
        sum(p.size for p in parameters),
        sum(p.size for p in parameters if not p.requires_grad),
        sum(p.nbytes for p in parameters),
        sum(value.nbytes for value in state if isinstance(value, Buffer)),
        sum(size for owner, size in arrays.items() if owner not in given),
        ", ".join(f"{x.dtype} {tuple(x.shape)}" for x in xs) + f" on {xs[0].device}",
    )


def _rows(model: Module, shapes: dict[int, list[str]]) -> Iterator[Row]:
    counted: dict[int, str] = {}  # parameters and modules that stand further up, and where
    stack: list[tuple[str, int, Module]] = [("", 0, model)]
    while stack:
        path, depth, module = stack.pop()
        calls = shapes.get(id(module), [])
        below = list(module.named_children())
        output = " or ".join(dict.fromkeys(calls)) or ("" if below else "not called")  # a list of modules never is
        kind = type(module).__name__
        if id(module) in counted:
            yield Row(path, depth, kind, output, len(calls), 0, 0, f"as {counted[id(module)]}")
            continue
        counted[id(module)] = path or "the model"
        own, shared = [], ""
        for name, value in module._members():
            if isinstance(value, Parameter) and id(value) in counted:
                shared = f"as {counted[id(value)]}"
            elif isinstance(value, Parameter):
                counted[id(value)] = f"{path}.{name}".lstrip(".")
                own.append(value)
        frozen = sum(p.size for p in own if not p.requires_grad)
        note = "" if own else shared
        yield Row(path, depth, kind, output, len(calls), sum(p.size for p in own), frozen, note)
        stack.extend((f"{path}.{name}".lstrip("."), depth + 1, child) for name, child in reversed(below))


def _inputs(model: Module, given: tuple[Any, ...], dtype: Any) -> list[Tensor]:
    """Zeros of each shape, on the model's device; arrays and tensors as they are."""
    if not given:
        raise TypeError("summary: at least one input shape must be given, the batch included, such as (32, 784)")
    dtypes = list(dtype) if isinstance(dtype, (list, tuple)) else [dtype] * len(given)
    if len(dtypes) != len(given):
        raise ValueError(f"summary: dtype must be one, or one for each of the {len(given)} inputs, got {dtype}")
    place: Device = next((value.device for _, value in model._named_state()), check_device("cpu"))
    backend = backend_for(place)
    found = []
    for shape, kind in zip(given, dtypes, strict=True):
        if isinstance(shape, Tensor):
            found.append(Tensor(shape.data))
        elif is_array(shape):
            found.append(Tensor(shape))
        elif isinstance(shape, (tuple, list)) and all(isinstance(n, int) for n in shape):
            zeros = backend.empty(tuple(shape), backend.xp.dtype(kind), place)
            zeros[...] = 0
            found.append(Tensor(zeros))
        else:
            raise TypeError(f"summary: each input must be a shape such as (32, 784), or an array, got {shape!r}")
    return found


@contextmanager
def _undisturbed(model: Module) -> Iterator[None]:
    """Evaluation mode; afterwards modes, random streams, buffers and hooks are what they were."""
    modules = list(model.modules())
    modes = [("training" in vars(module), module.training) for module in modules]
    unhooked = [module for module in modules if "_hooks" not in vars(module)]
    streams = [value for module in modules for value in vars(module).values() if isinstance(value, Generator)]
    places = [stream.state for stream in streams]
    buffers = [value for _, value in model._named_state() if isinstance(value, Buffer)]
    contents = [(buffer.data, buffer.data.copy()) for buffer in buffers]
    model.eval()
    try:
        yield
    finally:
        for module, (own, mode) in zip(modules, modes, strict=True):
            module.training = mode
            if not own:
                del module.training
        for module in unhooked:
            vars(module).pop("_hooks", None)
        for stream, state in zip(streams, places, strict=True):
            stream.state = state
        for buffer, (array, content) in zip(buffers, contents, strict=True):
            array[...] = content
            buffer.data = array


def _tensors(y: Any) -> list[Tensor]:
    if isinstance(y, Tensor):
        return [y]
    if isinstance(y, (tuple, list)):
        return [t for part in y for t in _tensors(part)]
    if isinstance(y, dict):
        return [t for part in y.values() for t in _tensors(part)]
    return []


def _shape(y: Any) -> str:
    if isinstance(y, (tuple, list)):
        return ", ".join(map(_shape, y))
    return str(tuple(y.shape)) if hasattr(y, "shape") else type(y).__name__


# -- the diagram -----------------------------------------------------------------------------------------------------


def diagram(model: Module, inputs: tuple[Any, ...], dtype: Any = "float32") -> str:
    """What :meth:`Module.diagram` returns.

    The connections are read off the tape: the model runs once recorded, and each operation on the tape belongs to the
    innermost module in which it was made. Operations outside of any layer, such as the sum of a residual connection,
    stand for themselves.
    """
    xs = _inputs(model, inputs, dtype)
    chart = _Chart(model, xs)
    parameters = list(model.parameters())
    frozen = [p for p in parameters if not p.requires_grad]
    with _undisturbed(model), enable_grad():
        handles: list[Any] = []
        try:
            for x in xs:
                x.requires_grad = is_floating(x.dtype)
            for p in frozen:  # what comes from a frozen embedding would not be on the tape
                p.requires_grad = is_floating(p.dtype)
            for module in model.modules():
                handles.append(module.register_forward_pre_hook(chart.enter))
                handles.append(module.register_forward_hook(chart.leave))
            chart.finish(model(*xs))
        finally:
            for handle in handles:
                handle.remove()
            for p in frozen:
                p.requires_grad = False
    return chart.text()


@op
def _passed(*arrays: Any) -> Any:
    """The same arrays as a new place on the tape, so that a layer that returns its input can be seen there."""
    return arrays, lambda *dys: dys


class _Group:
    """A module with modules inside, during one call: a frame in the diagram."""

    def __init__(self, path: str, title: str) -> None:
        self.path, self.title = path, title
        self.parts: list[str | _Group] = []  # boxes and frames, in the order in which they came


class _Chart:
    def __init__(self, model: Module, xs: list[Tensor]) -> None:
        self._paths = {id(module): path for path, module in model.named_modules()}
        self._boxes: list[str] = []
        self._arrows: dict[tuple[str, str], None] = {}  # in order, each once
        self._root = _Group("", "")
        # the frames in which we are, the tape nodes of their inputs, and the newest operation before them
        self._open: list[tuple[_Group, set[Any], int]] = []
        self._box_of: dict[Any, str] = {}  # tape node -> box
        self._sources = {id(x): self._box(self._root, f'(["input {tuple(x.shape)}"])') for x in xs}

    def _box(self, group: _Group, text: str) -> str:
        name = f"n{len(self._boxes)}"
        self._boxes.append(name)
        group.parts.append(name + text)
        return name

    def enter(self, module: Module, inputs: tuple[Any, ...]) -> None:
        path = self._paths[id(module)]
        around = f"{self._open[-1][0].path}." if self._open else ""
        title = _label(f"{path.removeprefix(around).lstrip('.')} {type(module).__name__}".lstrip())
        self._open.append((_Group(path, title), {_node(x) for x in _tensors(inputs)}, _now()))

    def leave(self, module: Module, inputs: tuple[Any, ...], y: Any) -> Any:
        group, before, since = self._open.pop()
        outside = self._open[-1][0] if self._open else self._root
        if next(module.named_children(), None) is None:  # a layer: one box, whatever operations it is made of
            shape = _shape(y)
            box = self._box(outside, f'["{group.title}<br/>{shape}"]')
            if isinstance(y, Tensor) and y.requires_grad:
                y = _passed(y)[0]
            self._claim(_tensors(y), before, since, lambda node: box)
            for x in _tensors(inputs):
                if not x.requires_grad and id(x) in self._sources:
                    self._arrows[self._sources[id(x)], box] = None
            return y
        if outside is self._root and not self._open:  # the model itself needs no frame
            self._root.parts.extend(group.parts)
            group = self._root
        else:
            outside.parts.append(group)
        self._claim(
            _tensors(y), before, since, lambda node: self._box(group, f'(("{_label(node.op.__name__.strip("_"))}"))')
        )
        return None

    def _claim(self, ys: list[Tensor], before: set[Any], since: int, box_for: Callable[[Any], str]) -> None:
        """Give a box to every operation between a module's inputs and outputs that has none yet.

        The walk goes on through operations that have one: between two layers there may be others. It ends at what is
        older than the call, so that a tensor kept from elsewhere does not bring in what its own module draws.
        """
        found, seen, stack = [], set(before), [_node(y) for y in ys]
        while stack:
            node = stack.pop()
            if node is None or node in seen or (node in self._box_of and _age(node) < since):
                continue
            seen.add(node)
            if node not in self._box_of:
                found.append(node)
            stack.extend(_source(edge) for edge in node.edges if not isinstance(edge, Tensor))
        for node in sorted(found, key=_age):
            self._box_of[node] = box_for(node)

    def finish(self, y: Any) -> None:
        """Draw the arrows, the oldest operation's first, and the outputs."""
        for node in sorted(self._box_of, key=_age):
            box = self._box_of[node]
            for edge in node.edges:
                origin = self._sources.get(id(edge)) if isinstance(edge, Tensor) else self._box_of.get(_source(edge))
                if origin and origin != box:
                    self._arrows[origin, box] = None
        for t in _tensors(y):
            box = self._box(self._root, f'(["output {tuple(t.shape)}"])')
            origin = self._box_of.get(_node(t)) or self._sources.get(id(t))
            if origin:
                self._arrows[origin, box] = None

    def text(self) -> str:
        lines = ["flowchart TD", *_lines(self._root, 1, iter(range(1, len(self._boxes) + 1)))]
        return "\n".join([*lines, *(f"  {a} --> {b}" for a, b in self._arrows)])


def _lines(group: _Group, depth: int, numbers: Iterator[int]) -> Iterator[str]:
    indent = "  " * depth
    for part in group.parts:
        if isinstance(part, str):
            yield indent + part
        elif part.parts:
            yield f'{indent}subgraph g{next(numbers)}["{part.title}"]'
            yield from _lines(part, depth + 1, numbers)
            yield f"{indent}end"


def _age(node: Any) -> int:
    return -int(node.seq)  # numbers on the tape count down


def _now() -> int:
    """The age of an operation recorded now."""
    x = Tensor(backend_for("cpu").xp.zeros(()))
    x.requires_grad = True
    with enable_grad():  # the call may stand in no_grad
        return _age(_node(_passed(x)[0]))


def _node(x: Tensor) -> Any:
    """The operation on the tape that made a tensor; None for a leaf."""
    edge = _source(x._edge)
    return edge if hasattr(edge, "edges") else None


def _source(edge: Any) -> Any:
    return edge[0] if type(edge) is tuple else edge


def _label(text: str) -> str:
    return text.replace('"', "#quot;")
