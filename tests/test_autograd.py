"""Every differentiable operation, from one table: its values are NumPy's, its gradients are central differences'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import autograd
from lamella.backend import Device, backend_for


@dataclass
class Case:
    """``operation(*inputs, **options)`` and what NumPy makes of the same.

    Args:
        inputs: arrays in float64, or anything else that is passed as it is.
        options: keyword arguments.
        reference: takes NumPy arrays; by default NumPy's function of the operation's name.
        listed: the arrays are given as one list.
    """

    inputs: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    reference: Callable[..., Any] | None = None
    listed: bool = False


def values(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    """Values without ties, none of them nearer than 0.01 to 0."""
    x = np.random.default_rng(seed + 31 * len(shape) + sum(shape)).uniform(low, high, shape)
    return np.where(np.abs(x) < 0.01, 0.3, x)


def over(*shapes: tuple[int, ...], low: float = -2.0, high: float = 2.0, reference: Any = None) -> list[Case]:
    return [Case((values(*shape, low=low, high=high),), {}, reference) for shape in shapes]


def pairs(low: float = -2.0, high: float = 2.0, reference: Any = None) -> list[Case]:
    return [
        Case((values(*a, low=low, high=high), values(*b, low=low, high=high, seed=9)), {}, reference)
        for a, b in [((), ()), ((3,), ()), ((2, 3), (3,)), ((2, 1, 3), (4, 1)), ((0, 3), (1, 3)), ((1, 5), (5, 1))]
    ]


SHAPES = [(), (1,), (7,), (2, 3), (3, 0, 2), (2, 1, 5)]


def reductions(reference: Any = None, empty: bool = True, several_axes: bool = True, **options: Any) -> list[Case]:
    x = values(2, 3, 4)
    cases = [
        Case((values(),), options, reference),
        Case((values(1),), options, reference),
        Case((x,), options, reference),
        Case((x,), {"axis": 0, **options}, reference),
        Case((x,), {"axis": -1, "keepdims": True, **options}, reference),
        Case((values(3, 5).T,), {"axis": 0, **options}, reference),
        Case((x,), {"keepdims": True, **options}, reference),
        Case((values(2, 0, 3),), {"axis": 0, **options}, reference),
    ]
    if several_axes:
        cases += [
            Case((x,), {"axis": (0, -1), **options}, reference),
            Case((x,), {"axis": (2, 1), "keepdims": True, **options}, reference),
            Case((x,), {"axis": (), **options}, reference),
        ]
    if empty:
        cases.append(Case((values(2, 0, 3),), {"axis": 1, **options}, reference))
    return cases


def np_logsumexp(x: np.ndarray, axis: Any = None, keepdims: bool = False) -> np.ndarray:
    return np.log(np.exp(x).sum(axis=axis, keepdims=keepdims))


def np_split(x: np.ndarray, sections: Any, axis: int = 0) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, sections, axis))


def np_permute(x: np.ndarray, axes: Any = None) -> np.ndarray:
    return np.transpose(x, axes)


INDEX = np.array([[2, 0, 2], [1, 1, -1]])

CASES: dict[str, list[Case]] = {
    "add": pairs(),
    "subtract": pairs(),
    "multiply": pairs(),
    "divide": pairs(0.3, 2.0),
    "power": [*pairs(0.3, 2.0), *(Case((values(2, 3, low=0.3), c)) for c in (0, 1, 2, 3, -1, 0.5, 2.5)),
              Case((values(4), 3)), Case((2.0, values(3, 2)))],
    "floor_divide": pairs(0.3, 2.0),
    "remainder": [Case((values(2, 3), 0.7)), Case((np.array([5.3, -5.3, 1.1]), np.array([2.0, 2.0, -0.8])))],
    "maximum": [*pairs(), Case((values(5), 0.5)), Case((0.5, values(5)))],
    "minimum": [*pairs(), Case((values(5), 0.5)), Case((0.5, values(5)))],
    "clip": [Case((values(3, 4), -0.5, 0.7)), Case((values(5), None, 0.1)),
             Case((values(5), 0.1), {}, lambda x, low: np.clip(x, low, None)),
             Case((values(3, 4), values(4, low=-1, high=-0.1), values(3, 1, low=0.1, high=1))),
             Case((values(6), 0.5, -0.5))],
    "where": [Case((values(2, 3) > 0, values(2, 3), values(3, seed=3))), Case((values(4) > 0, values(4), 0.0)),
              Case((np.array(True), values(), values(2)))],
    "negative": over(*SHAPES),
    "positive": over(*SHAPES),
    "absolute": over(*SHAPES),
    "sign": over(*SHAPES),
    "floor": over(*SHAPES),
    "ceil": over(*SHAPES),
    "trunc": over(*SHAPES),
    "rint": over(*SHAPES),
    "round": [*over(*SHAPES), Case((values(3, 5),), {"decimals": 1}), Case((values(3, 5),), {"decimals": -1})],
    "square": over(*SHAPES),
    "exp": over(*SHAPES),
    "exp2": over(*SHAPES),
    "expm1": over(*SHAPES),
    "sin": over(*SHAPES),
    "cos": over(*SHAPES),
    "tan": over(*SHAPES, low=-1.0, high=1.0),
    "sinh": over(*SHAPES),
    "cosh": over(*SHAPES),
    "tanh": over(*SHAPES),
    "arctan": over(*SHAPES),
    "arcsinh": over(*SHAPES),
    "arcsin": over(*SHAPES, low=-0.8, high=0.8),
    "arccos": over(*SHAPES, low=-0.8, high=0.8),
    "arctanh": over(*SHAPES, low=-0.8, high=0.8),
    "arccosh": over(*SHAPES, low=1.2, high=3.0),
    "log": over(*SHAPES, low=0.3),
    "log2": over(*SHAPES, low=0.3),
    "log10": over(*SHAPES, low=0.3),
    "log1p": over(*SHAPES, low=-0.5),
    "sqrt": over(*SHAPES, low=0.3),
    "reciprocal": over(*SHAPES, low=0.3),
    "sum": reductions(),
    "mean": reductions(empty=False),
    "var": [*reductions(empty=False), Case((values(3, 5),), {"axis": 1, "correction": 1}),
            Case((values(3, 5),), {"axis": (0, 1), "ddof": 1})],
    "std": [*(c for c in reductions(empty=False, several_axes=False) if c.inputs[0].size > 1),
            Case((values(3, 5),), {"axis": 1, "correction": 1.5})],
    "max": reductions(empty=False),
    "min": reductions(empty=False),
    "prod": [*reductions(several_axes=False), Case((np.array([2.0, 0.0, 3.0]),)),
             Case((np.array([[2.0, 0.0], [0.0, 0.0]]),), {"axis": 1})],
    "cumsum": [Case((values(4),)), Case((values(2, 3),)), Case((values(2, 3),), {"axis": 0}),
               Case((values(2, 3),), {"axis": -1}),
               Case((values(2, 0),), {"axis": 1})],
    "logsumexp": reductions(np_logsumexp, empty=False),
    "reshape": [Case((values(2, 3), (3, 2))), Case((values(2, 3), -1)), Case((values(), (1, 1))),
                Case((values(0, 3), (3, 0, 5))), Case((values(2, 3).T, (6,)))],
    "ravel": over(*SHAPES),
    "permute_dims": [Case((values(2, 3, 4),), {}, np_permute), Case((values(2, 3, 4), (1, 2, 0)), {}, np_permute),
                     Case((values(2, 3, 4), (-1, 0, -2)), {}, np_permute), Case((values(),), {}, np_permute)],
    "matrix_transpose": [Case((values(2, 3),)), Case((values(2, 0, 3),))],
    "swapaxes": [Case((values(2, 3, 4), 0, -1)), Case((values(2, 3), 1, 1))],
    "moveaxis": [Case((values(2, 3, 4), 0, -1)), Case((values(2, 3, 4), -1, 0)), Case((values(2, 3, 4), 1, 1))],
    "expand_dims": [Case((values(2, 3), 0)), Case((values(2, 3), -1)), Case((values(), 0))],
    "squeeze": [Case((values(1, 3, 1),)), Case((values(1, 3, 1), 0)), Case((values(1, 3, 1), (0, -1))),
                Case((values(2),))],
    "broadcast_to": [Case((values(3, 1), (2, 3, 4))), Case((values(), (2, 2))), Case((values(3), (0, 3)))],
    "flip": [Case((values(2, 3),)), Case((values(2, 3), 0)), Case((values(2, 3), (0, -1)))],
    "roll": [Case((values(2, 3), 2)), Case((values(2, 3), -1, 1)), Case((values(2, 3), (1, 2), (0, 1)))],
    "repeat": [Case((values(2, 3), 2, 0)), Case((values(2, 3), 3, -1)), Case((values(2, 3), 0, 1))],
    "tril": [Case((values(3, 4),)), Case((values(2, 3, 3), -1)), Case((values(3, 2), 1))],
    "triu": [Case((values(3, 4),)), Case((values(2, 3, 3), -1)), Case((values(3, 2), 1))],
    "concat": [Case((values(2, 3), values(1, 3)), {}, np.concatenate, True),
               Case((values(2, 3), values(2, 0), values(2, 1)), {"axis": -1}, np.concatenate, True),
               Case((values(2, 3), values(4)), {"axis": None}, np.concatenate, True)],
    "stack": [Case((values(2, 3), values(2, 3, seed=1)), {}, None, True), Case((values(3),), {"axis": -1}, None, True),
              Case((values(), values(seed=1)), {}, None, True)],
    "split": [Case((values(6, 2), 3), {}, np_split), Case((values(2, 5), (1, 3), -1), {}, np_split),
              Case((values(2, 5), (0, 0, 5), 1), {}, np_split)],
    "take": [Case((values(4), INDEX)), Case((values(4, 3), INDEX, 0)), Case((values(2, 4), INDEX, -1)),
             Case((values(3, 4), INDEX)), Case((values(3, 4), 1, 0))],
    "take_along_axis": [Case((values(2, 4), INDEX, 1)), Case((values(2, 4), INDEX[:1], -1)),
                        Case((values(3, 3), INDEX, 0))],
    "matmul": [Case((values(*a), values(*b, seed=4))) for a, b in
               [((2, 3), (3, 4)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3, 4)),
                ((5, 2, 3), (5, 3, 4)), ((5, 1, 2, 3), (4, 3, 1)), ((2, 3), (5, 3, 4)), ((3,), (5, 3, 4)),
                ((5, 2, 3), (3,)), ((2, 0), (0, 3)),
                ((4, 2, 0), (0, 3)), ((0, 2, 3), (3, 4)), ((1, 1), (1, 1)), ((0, 3), (3, 0)), ((4, 2, 0), (0,))]],
    "dot": [Case((values(3), values(3, seed=1))), Case((values(2, 3), values(3, 4))), Case((values(), values(2, 3)))],
    "outer": [Case((values(3), values(4))), Case((values(2, 2), values(3)))],
    "vecdot": [Case((values(2, 3), values(3)), {}, lambda x, y: (x * y).sum(-1))],
    "tensordot": [Case((values(2, 3, 4), values(3, 4, 5))), Case((values(2, 3), values(4)), {"axes": 0}),
                  Case((values(2, 3, 4), values(4, 5, 2)), {"axes": ((0, -1), (2, 0))})],
    "einsum": [Case(("ij,jk->ik", values(2, 3), values(3, 4))), Case(("ij->j", values(2, 3))),
               Case(("ij", values(2, 3))), Case(("bij,bkj->ikb", values(2, 3, 4), values(2, 5, 4))),
               Case(("i,j,ij->", values(2), values(3), values(2, 3))),
               Case(("ij,k->k", values(2, 3), values(4))), Case((",i->i", values(), values(3)))],
}  # fmt: skip

ALIASES = {
    "abs": "absolute", "pow": "power", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh", "cumulative_sum": "cumsum", "transpose": "permute_dims",
    "concatenate": "concat",
}  # fmt: skip
OFF_THE_TAPE = {
    *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isnan", "isinf", "isfinite"),
    *("logical_and", "logical_or", "logical_xor", "logical_not"),
    *("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_invert"),
    *("argmax", "argmin", "any", "all"),
    *("arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "zeros", "zeros_like"),
}
MACHINERY = {
    *("Parameter", "Tensor", "tensor", "checkpoint", "enable_grad", "grad", "gradcheck", "is_floating", "is_recording"),
    *("is_unit", "no_grad", "note_write", "op"),
}


def test_the_table_holds_every_exported_operation() -> None:
    assert set(CASES) | set(ALIASES) | OFF_THE_TAPE | MACHINERY == set(autograd.__all__)


def test_both_spellings_are_one_function() -> None:
    assert all(getattr(lamella, alias) is getattr(lamella, name) for alias, name in ALIASES.items())


ALL = [pytest.param(name, case, id=f"{name}-{i}") for name, cases in CASES.items() for i, case in enumerate(cases)]
FIRST = [pytest.param(name, cases[min(2, len(cases) - 1)], id=name) for name, cases in CASES.items()]


def is_differentiated(x: Any) -> bool:
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def operation(name: str, case: Case) -> Callable[..., Any]:
    function = getattr(lamella, name)
    return lambda *args: function(list(args), **case.options) if case.listed else function(*args, **case.options)


def expected(name: str, case: Case, inputs: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
    reference = case.reference or getattr(np, name)
    result = reference(list(inputs), **case.options) if case.listed else reference(*inputs, **case.options)
    return tuple(map(np.asarray, result)) if isinstance(result, tuple) else (np.asarray(result),)


def as_tuple(result: Any) -> tuple[lamella.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def put(x: Any, device: Device, dtype: str = "float64", requires_grad: bool = True) -> Any:
    """An array as a tensor, what is differentiated in the dtype asked for; anything else as it is."""
    if is_differentiated(x):
        return lamella.tensor(x, dtype=dtype, device=device, requires_grad=requires_grad)
    return lamella.tensor(x, device=device) if isinstance(x, np.ndarray) else x


def host(array: Any) -> np.ndarray:
    array = array.data if isinstance(array, lamella.Tensor) else array
    return lamella.backend.backend_of(array).to_numpy(array)


@pytest.mark.parametrize(("name", "case"), ALL)
def test_values_are_numpys(device: Device, name: str, case: Case) -> None:
    found = as_tuple(operation(name, case)(*(put(x, device) for x in case.inputs)))
    wanted = expected(name, case, case.inputs)
    assert len(found) == len(wanted)
    for y, z in zip(found, wanted, strict=True):
        assert y.device == device
        assert y.shape == z.shape
        assert y.dtype == z.dtype
        assert isinstance(y.data, backend_for(device).array_types)
        np.testing.assert_allclose(host(y), z, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "case"), ALL)
def test_gradients_are_central_differences(device: Device, name: str, case: Case) -> None:
    assert lamella.gradcheck(operation(name, case), *(put(x, device) for x in case.inputs))


@pytest.mark.parametrize(("name", "case"), FIRST)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dtypes_are_kept_forward_and_backward(device: Device, name: str, case: Case, dtype: str) -> None:
    rounded = tuple(x.astype(dtype).astype("float64") if is_differentiated(x) else x for x in case.inputs)
    narrow = [put(x, device, dtype) for x in rounded]
    wide = [put(x, device, "float64") for x in rounded]
    ys, zs = as_tuple(operation(name, case)(*narrow)), as_tuple(operation(name, case)(*wide))
    bound = 64 * np.finfo(dtype).eps
    for y, z in zip(ys, zs, strict=True):
        assert y.dtype == dtype
        np.testing.assert_allclose(host(y), host(z), rtol=bound, atol=bound)
        y.backward(lamella.ones_like(y), retain_graph=True)
        z.backward(lamella.ones_like(z), retain_graph=True)
    for x, wide_x in zip(narrow, wide, strict=True):
        if isinstance(x, lamella.Tensor) and x.requires_grad:
            assert (x.grad.dtype, x.grad.shape) == (x.dtype, x.shape)
            assert isinstance(x.grad, backend_for(device).array_types)
            np.testing.assert_allclose(host(x.grad), host(wide_x.grad), rtol=bound, atol=bound)


@pytest.mark.parametrize(("name", "case"), FIRST)
def test_inputs_and_the_given_gradient_are_left_as_they_were(device: Device, name: str, case: Case) -> None:
    inputs = [put(x, device) for x in case.inputs]
    before = [host(x).copy() if isinstance(x, lamella.Tensor) else x for x in inputs]
    for y in as_tuple(operation(name, case)(*inputs)):
        dy = lamella.ones_like(y).data
        y.backward(dy, retain_graph=True)
        assert (host(dy) == 1).all()
    for x, held in zip(inputs, before, strict=True):
        if isinstance(x, lamella.Tensor):
            np.testing.assert_array_equal(host(x), held)


@pytest.mark.parametrize(("name", "case"), FIRST)
def test_memory_layout_does_not_change_the_result(name: str, case: Case) -> None:
    def strided(x: Any) -> Any:
        if not is_differentiated(x):
            return x
        spread = np.full(tuple(2 * n for n in x.shape), np.nan)
        view = spread[(..., *(slice(None, None, 2) for _ in x.shape))][(..., *(slice(None, None, -1) for _ in x.shape))]
        view[...] = x
        return view

    cpu = lamella.device("cpu")
    results = []
    for inputs in (case.inputs, tuple(map(strided, case.inputs))):
        args = [lamella.Tensor(x, requires_grad=True) if is_differentiated(x) else put(x, cpu) for x in inputs]
        ys = as_tuple(operation(name, case)(*args))
        for y in ys:
            y.backward(lamella.ones_like(y), retain_graph=True)
        results.append([*ys, *(x.grad for x in args if isinstance(x, lamella.Tensor) and x.grad is not None)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(host(a), host(b), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("einsum", "where")])
def test_arrays_and_no_grad_give_tensors_that_want_no_gradient(name: str) -> None:
    case = CASES[name][-1]
    off = as_tuple(operation(name, case)(*(lamella.tensor(x) if is_differentiated(x) else x for x in case.inputs)))
    with lamella.no_grad():
        quiet = as_tuple(operation(name, case)(*(put(x, lamella.device("cpu")) for x in case.inputs)))
    for y in (*off, *quiet):
        assert isinstance(y, lamella.Tensor)
        assert not y.requires_grad
        with pytest.raises(RuntimeError, match="this tensor has no gradient"):
            y.backward()


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if len(c[0].inputs) == 1 and not c[0].listed])
def test_operations_take_plain_arrays(device: Device, name: str) -> None:
    array = backend_for(device).from_numpy(CASES[name][0].inputs[0], device)
    for y in as_tuple(getattr(lamella, name)(array, **CASES[name][0].options)):
        assert isinstance(y.data, backend_for(device).array_types)


@pytest.mark.parametrize("operand", [2, 2.5, True, np.float32(2)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_python_numbers_never_widen(operand: float, dtype: str) -> None:
    x = lamella.tensor([1.5, 2.5], dtype=dtype)
    if isinstance(operand, np.float32):
        dtype = str(np.result_type(dtype, "float32"))
    for y in (x + operand, operand + x, x - operand, operand - x, x * operand, operand * x, x / operand, operand / x,
              x // operand, x % operand, lamella.maximum(x, operand), lamella.clip(x, operand, None),
              lamella.where(x > 2, x, operand)):  # fmt: skip
        assert y.dtype == dtype


@pytest.mark.parametrize("exponent", [2, 3, 0.5, np.float64(3), np.float32(0.5), np.int64(2), np.int32(3), True])
def test_any_number_may_be_an_exponent(exponent: Any) -> None:
    x = lamella.tensor([1.5, 2.5], requires_grad=True)
    y = x**exponent
    assert y.dtype == "float32"
    np.testing.assert_allclose(host(y), host(x) ** float(exponent), rtol=1e-6)
    y.sum().backward()
    np.testing.assert_allclose(x.grad, float(exponent) * host(x) ** (float(exponent) - 1), rtol=1e-6)


def test_integers_have_means_and_variances_in_float32(device: Device) -> None:
    x = lamella.tensor([1, 2, 4], device=device)
    for name in ("mean", "var", "std", "logsumexp"):
        y = getattr(lamella, name)(x)
        assert y.dtype == "float32"
        reference = {"logsumexp": np_logsumexp}.get(name) or getattr(np, name)
        assert abs(float(y) - reference(np.array([1.0, 2.0, 4.0]))) <= 1e-6
    assert lamella.sum(x).dtype == "int64"


def test_sums_of_half_precision_do_not_overflow_or_stall() -> None:
    x = lamella.ones(100_000, "float16", requires_grad=True)
    assert float(lamella.mean(x)) == 1
    assert float(lamella.logsumexp(lamella.zeros(100_000, "float16"))) == pytest.approx(np.log(1e5), rel=1e-3)
    (x.max() * 1024).backward()  # 100,000 ties: their number does not fit float16
    np.testing.assert_allclose(x.grad, 1024 / 100_000, rtol=1e-3)


def test_equal_values_share_the_gradient() -> None:
    x = lamella.tensor([3.0, 1.0, 3.0, 3.0], requires_grad=True)
    x.max().backward()
    np.testing.assert_allclose(x.grad, [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)
    a, b = lamella.tensor([1.0, 2.0], requires_grad=True), lamella.tensor([1.0, 5.0], requires_grad=True)
    lamella.maximum(a, b).sum().backward()
    assert a.grad.tolist() == [0.5, 0]
    assert b.grad.tolist() == [0.5, 1]


@pytest.mark.parametrize("x", [[-np.inf, -np.inf], [1000.0, 1000.0], [-np.inf, 0.0], [-2000.0, -2001.0]])
def test_logsumexp_neither_overflows_nor_makes_nan(x: list[float]) -> None:
    t = lamella.tensor(x, dtype="float64", requires_grad=True)
    y = lamella.logsumexp(t)
    y.backward()
    assert float(y) == np.logaddexp(*x)
    total = t.grad.sum()
    assert total == (0 if np.isneginf(x).all() else pytest.approx(1))


def test_a_cast_to_integers_lets_no_gradient_through() -> None:
    x = lamella.tensor([1.7, 2.2], requires_grad=True)
    assert not x.astype("int64").requires_grad
    assert not x.astype(bool).requires_grad
    (x.astype("float64") * x.astype("int64")).sum().backward()
    assert x.grad.tolist() == [1, 2]
    assert x.grad.dtype == "float32"


def test_gradients_cross_mixed_dtypes_in_each_tensors_own() -> None:
    x = lamella.tensor([0.1, 0.2], requires_grad=True)
    w = lamella.tensor([1.0, 2.0], dtype="float64", requires_grad=True)
    seen = []

    @lamella.op
    def watch(a: Any) -> Any:
        return a * 1, lambda dy: (seen.append(dy.dtype.name), dy)[1:]

    y = lamella.exp(watch(lamella.exp(x))) * w
    assert y.dtype == "float64"
    y.sum().backward()
    assert seen == ["float32"]
    assert x.grad.dtype == "float32"
    assert w.grad.dtype == "float64"
    np.testing.assert_allclose(w.grad, np.exp(np.exp([0.1, 0.2])), rtol=1e-6)


# -- indexing ----------------------------------------------------------------------------------------------------------

INDICES = {
    "an integer": 1,
    "a negative integer": -1,
    "a NumPy integer": np.int64(1),
    "a slice": slice(None, None, 2),
    "backwards": (slice(None), slice(None, None, -1)),
    "an ellipsis": (..., 0),
    "a new axis": (None, 1, None),
    "everything": (),
    "nothing": slice(0, 0),
    "a list": [0, 2, 0, 0],
    "duplicates": np.array([[2, 2], [2, 0]]),
    "two arrays": (np.array([0, 0, 1]), np.array([3, 3, 0])),
    "array and slice": (slice(1, None), np.array([1, 1])),
    "an empty array": np.zeros(0, np.int64),
    "a mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "a mask of rows": np.array([True, False, True]),
    "a mask of nothing": np.zeros((3, 4), bool),
    "True": True,
    "a tensor": lamella.tensor([1, 1]),
    "a tensor among others": (lamella.tensor([1, 1]), slice(2)),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_indexing_is_numpys_and_duplicates_add_up(device: Device, index: Any) -> None:
    def plain(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(plain, part))
        return part.data if isinstance(part, lamella.Tensor) else part

    def there(part: Any) -> Any:
        if isinstance(part, tuple):
            return tuple(map(there, part))
        return lamella.tensor(part, device=device) if isinstance(part, np.ndarray | lamella.Tensor) else part

    x = values(3, 4)
    y = lamella.tensor(x, device=device)[there(index)]
    np.testing.assert_array_equal(host(y), x[plain(index)])
    assert lamella.gradcheck(lambda t: t[there(index)], put(x, device))


def test_a_wrong_index_says_where() -> None:
    x = lamella.ones((2, 3))
    for bad in (5, (0, 0, 0), np.array([7]), 1.5, "a"):
        with pytest.raises(IndexError, match=r"in _?getitem\(float32 \(2, 3\) on cpu, "):
            x[bad]
    for call in (lambda: x.take([9], 0), lambda: lamella.take_along_axis(x, np.array([[4]]), 1)):
        with pytest.raises(IndexError, match="out of bounds"):
            call()


WRONG_AXES = {
    "take": lambda x: lamella.take(x, [0], 2),
    "take_along_axis": lambda x: lamella.take_along_axis(x, np.array([[0]]), -3),
    "repeat": lambda x: lamella.repeat(x, 2, 2),
    "moveaxis": lambda x: lamella.moveaxis(x, 0, 2),
    "swapaxes": lambda x: lamella.swapaxes(x, 0, -3),
    "split": lambda x: lamella.split(x, 1, 2),
    "sum": lambda x: lamella.sum(x, 2),
    "max": lambda x: lamella.max(x, (0, 2)),
    "cumsum": lambda x: lamella.cumsum(x, 2),
    "concat": lambda x: lamella.concat([x, x], 2),
    "flip": lambda x: lamella.flip(x, 2),
    "expand_dims": lambda x: lamella.expand_dims(x, 4),
    "permute_dims": lambda x: lamella.permute_dims(x, (0, 2)),
}


@pytest.mark.parametrize("call", WRONG_AXES.values(), ids=WRONG_AXES.keys())
def test_an_axis_that_is_not_there_is_refused(call: Callable[[Any], Any]) -> None:
    with pytest.raises(ValueError, match=r"axis|repeated|out of"):  # NumPy's AxisError is a ValueError
        call(lamella.ones((2, 3)))


def test_indices_of_another_length_are_refused_not_cut() -> None:
    x = lamella.ones((4, 3))
    with pytest.raises(IndexError, match="broadcast"):
        lamella.take_along_axis(x, np.zeros((2, 1), int), 1)
    with pytest.raises(ValueError, match="indices must have x's 2 dimensions, got 1"):
        lamella.take_along_axis(x, np.zeros(4, int), 1)
