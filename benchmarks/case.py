"""What a benchmark is: one piece of work, its numbers, who can do it, how its answer is judged, what it has to move.

Nothing here, nor at the top of a ``bench_*.py``, imports lamella or a rival: the definitions of the work are read by a
rival's process too, in an environment that has only NumPy and the rival.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "tf32": 2.0**-10, "float16": 2.0**-10, "bfloat16": 2.0**-7}
_DRAWN = 1 << 24  # normals that are drawn; a larger array repeats them
_JUDGED = 1 << 21  # values of the first argument that are judged at a time
_ASCII = str.maketrans({" ": "-", "×": "x", "→": "-", "²": "", ",": ""})  # pytest spells other letters as escapes
_ROWS_JUDGED = 64  # rows that are judged where each row's answer depends on that row alone

Run = Callable[[], tuple[Any, ...]]  # does the work once and returns its results, arrays of the contender


@dataclass(frozen=True)
class Case:
    """One piece of work that is timed.

    Attributes:
        name: as it stands in the table, at most 27 characters, unique.
        suite: ``"kernels"``, ``"layers"`` or ``"models"``.
        numbers: draws the inputs, arrays of float32 or integers, from a ``numpy.random.Generator``.
        contenders: who can do it. ``"lamella"``, and what else is not a rival, is given arrays of a device, ``"numpy"``
            arrays; ``"torch"``, and each other name that begins with it, the module ``torch``, a wrapper for the timed
            function, and tensors. Each returns a ``Run``.
        error: largest error of the results, given on the host in float64 with the inputs as the dtype rounds them,
            relative to the largest true value.
        values: elements of the dtype that have to be read or written at least.
        operations: multiplications and additions of its products; 0 where memory decides.
        bound: largest error that is allowed, in units of the dtype's rounding.
        steps: how many runs, each from where the one before ended, give the results that are judged.
        dtypes: those it is measured in.
        devices: kinds of device it is measured on; a large one is for GPUs.
        quick: whether it belongs to the quick suite.
        target: its row in the table of CPU targets, empty where it is in none.
        needs: names in lamella without which there is no such case yet, as ``"layers.conv2d"``.
        packages: installed packages without which its numbers cannot be had.
        family, size: what it has in common with the same work on other sizes, and its size among them.
    """

    name: str
    suite: str
    numbers: Callable[[Any], tuple[Any, ...]]
    contenders: dict[str, Callable[..., Run]]
    error: Callable[[tuple[Any, ...], tuple[Any, ...]], float]
    values: int
    operations: int = 0
    bound: float = 64.0
    steps: int = 1
    dtypes: tuple[str, ...] = ("float32",)
    devices: tuple[str, ...] = ("cpu", "cuda")
    quick: bool = False
    target: str = ""
    needs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    family: str = ""
    size: int = 0

    def __str__(self) -> str:
        return self.name.translate(_ASCII)

    def bytes(self, dtype: str) -> int:
        """Bytes that have to be moved at least."""
        return self.values * {"float64": 8, "float32": 4, "tf32": 4}.get(dtype, 2)

    def allowed(self, dtype: str) -> float:
        """The largest relative error that is allowed."""
        return self.bound * EPS[dtype]


def normal(rng: Any, *shape: int, scale: float = 1.0) -> Any:
    """Random normals in float32; of a very large array only the first part is drawn, the rest repeats it."""
    size = math.prod(shape)
    drawn = rng.standard_normal(min(size, _DRAWN), dtype=np.float32)
    drawn *= np.float32(scale)
    return drawn.reshape(shape) if size <= _DRAWN else np.resize(drawn, shape)


def relative_error(found: Any, expected: Any) -> float:
    """max |found - expected| / max |expected|; NaN where either has one, so that ``error <= bound`` fails."""
    if found.shape != expected.shape:
        raise ValueError(f"the answer has shape {found.shape}, expected {expected.shape}")
    if not expected.size:
        return 0.0
    largest = float(np.max(np.abs(expected)))
    return float(np.max(np.abs(found - expected))) / (largest or 1.0)


def worst(errors: Iterator[float] | list[float]) -> float:
    """The largest error, NaN among them first."""
    found = list(errors)
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


def chunks(array: Any, all_rows: bool) -> Iterator[Any]:
    """Indices of rows to judge: every row, some at a time, or a few that are spread over the array."""
    count = len(array)
    if not all_rows and count > _ROWS_JUDGED:
        yield np.unique(np.linspace(0, count - 1, _ROWS_JUDGED).astype(int))
        return
    step = max(1, _JUDGED * count // max(array.size, 1))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


# -- an operation y = f(x, *parameters), forward and with its gradient -----------------------------------------------
@dataclass(frozen=True)
class Operation:
    """A differentiable function in lamella and in PyTorch, with its definition in float64.

    Attributes:
        lamella: of ``lamella.layers`` and tensors.
        torch: of ``torch`` and tensors.
        definition: of arrays.
        derivative: of dy and the arrays: the gradient of each.
        batched: how many of the arguments have the rows of the first one; the gradients of the others add up over rows.
    """

    lamella: Callable[..., Any]
    torch: Callable[..., Any]
    definition: Callable[..., Any]
    derivative: Callable[..., tuple[Any, ...]]
    batched: int = 1


def lamella_forward(function: Callable[..., Any]) -> Callable[..., Run]:
    """``function(layers, *tensors)`` without a tape."""

    def build(*arrays: Any) -> Run:
        import lamella

        tensors = [lamella.Tensor(array) for array in arrays]

        def run() -> tuple[Any, ...]:
            with lamella.no_grad():
                return (function(lamella.layers, *tensors).data,)

        return run

    return build


def lamella_backward(function: Callable[..., Any]) -> Callable[..., Run]:
    """``function(layers, *tensors)`` and its gradient from dy, the last array."""

    def build(*arrays: Any) -> Run:
        import lamella

        tensors = [lamella.Tensor(array, requires_grad=array.dtype.kind not in "iub") for array in arrays[:-1]]
        wanted = [tensor for tensor in tensors if tensor.requires_grad]

        def run() -> tuple[Any, ...]:
            for tensor in wanted:
                tensor.grad = None
            y = function(lamella.layers, *tensors)
            y.backward(arrays[-1])
            return (y.data, *(tensor.grad for tensor in wanted))

        return run

    return build


def torch_forward(function: Callable[..., Any]) -> Callable[..., Run]:
    """``function(torch, *tensors)`` without a tape."""

    def build(torch: Any, wrap: Callable[..., Any], *tensors: Any) -> Run:
        timed = wrap(lambda *inputs: function(torch, *inputs))

        def run() -> tuple[Any, ...]:
            with torch.no_grad():
                return (timed(*tensors),)

        return run

    return build


def torch_backward(function: Callable[..., Any]) -> Callable[..., Run]:
    """``function(torch, *tensors)`` and its gradient from dy, the last tensor."""

    def build(torch: Any, wrap: Callable[..., Any], *tensors: Any) -> Run:
        timed = wrap(lambda *inputs: function(torch, *inputs))
        inputs = [t.detach().requires_grad_(t.is_floating_point()) for t in tensors[:-1]]
        wanted = [tensor for tensor in inputs if tensor.requires_grad]

        def run() -> tuple[Any, ...]:
            for tensor in wanted:
                tensor.grad = None
            y = timed(*inputs)
            y.backward(tensors[-1])
            return (y.detach(), *(tensor.grad for tensor in wanted))

        return run

    return build


def forward_error(work: Operation) -> Callable[..., float]:
    """Judges y by the definition, on rows that are spread over the array."""

    def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
        def of_rows(rows: Any) -> float:
            arguments = [a[rows] if i < work.batched else a for i, a in enumerate(inputs)]
            return relative_error(results[0][rows].astype(np.float64), work.definition(*arguments))

        return worst([of_rows(rows) for rows in chunks(inputs[0], all_rows=False)])

    return error


def backward_error(work: Operation) -> Callable[..., float]:
    """Judges y and each gradient; those of parameters need every row."""

    def error(results: tuple[Any, ...], inputs: tuple[Any, ...]) -> float:
        *arguments, dy = inputs
        parameters = len(arguments) - work.batched
        totals: list[Any] = [0.0] * parameters
        errors = []
        for rows in chunks(inputs[0], all_rows=parameters > 0):
            some = [a[rows] if i < work.batched else a for i, a in enumerate(arguments)]
            gradients = work.derivative(dy[rows], *some)
            expected = [work.definition(*some), *gradients[: work.batched]]
            errors += [
                relative_error(r[rows].astype(np.float64), e)
                for r, e in zip(results[: work.batched + 1], expected, strict=True)
            ]
            totals = [total + g for total, g in zip(totals, gradients[work.batched :], strict=True)]
        errors += [
            relative_error(r.astype(np.float64), total)
            for r, total in zip(results[work.batched + 1 :], totals, strict=True)
        ]
        return worst(errors)

    return error


def pair(
    name: str, label: str, work: Operation, numbers: Callable[[Any], tuple[Any, ...]], elements: int, **options: Any
) -> list[Case]:
    """The operation forward, and forward with backward.

    Args:
        name: of the operation.
        label: of its sizes.
        work: the operation.
        numbers: draws its arguments and, last, dy.
        elements: of x, which is as large as y. Forward reads x and writes y; backward reads dy and x (or y) and writes
            dx: five times the elements in all.
        options: fields of both cases; ``targets`` gives the rows of the table of targets, forward first.
    """
    targets = options.pop("targets", ("", ""))
    operations = options.pop("operations", 0)
    forward = Case(
        name=f"{name} f {label}",
        numbers=lambda rng: numbers(rng)[:-1],
        contenders={"lamella": lamella_forward(work.lamella), "torch": torch_forward(work.torch)},
        error=forward_error(work),
        values=2 * elements,
        operations=operations,
        family=f"{name} f",
        size=elements,
        target=targets[0],
        **options,
    )
    backward = Case(
        name=f"{name} f+b {label}",
        numbers=numbers,
        contenders={"lamella": lamella_backward(work.lamella), "torch": torch_backward(work.torch)},
        error=backward_error(work),
        values=5 * elements,
        operations=3 * operations,
        family=f"{name} f+b",
        size=elements,
        target=targets[1],
        **options,
    )
    return [forward, backward]


def with_numpy(case: Case, build: Callable[..., Run]) -> Case:
    """The case with a bare NumPy contender: ``build(*arrays)``."""
    return Case(**{**vars(case), "contenders": {**case.contenders, "numpy": build}})
