"""Tensor as a NumPy user meets it: making one, operators, methods, NumPy's own functions, and leaving again."""

from __future__ import annotations

import copy
import math
import operator
import pickle
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import Parameter, Tensor, tensor
from lamella.backend import Device, backend_of


def host(t: Tensor) -> np.ndarray:
    return backend_of(t.data).to_numpy(t.data)


# -- making one --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "dtype", "shape"),
    [
        (1.5, "float32", ()),
        (2, "int64", ()),
        (True, "bool", ()),
        ([1.0, 2], "float32", (2,)),
        ([[1, 2], [3, 4]], "int64", (2, 2)),
        ([], "float32", (0,)),
        ([[]], "float32", (1, 0)),
        ((1.0, 2.0), "float32", (2,)),
        (range(3), "int64", (3,)),
        (np.float64(1.5), "float64", ()),
        (np.float16(1.5), "float16", ()),
        (np.ones((2, 0)), "float64", (2, 0)),
        (np.ones(3, "uint8"), "uint8", (3,)),
        ([np.ones(2), np.ones(2)], "float64", (2, 2)),
        ([np.float64(1), 2.0], "float64", (2,)),
        (memoryview(b"ab"), "uint8", (2,)),
        (tensor([1.0]), "float32", (1,)),
        ([tensor(1.0), tensor(2.0)], "float32", (2,)),
    ],
)
def test_values_become_tensors_in_the_dtype_they_have(data: Any, dtype: str, shape: tuple[int, ...]) -> None:
    t = tensor(data)
    assert (t.dtype, t.shape, t.requires_grad, t.is_leaf) == (dtype, shape, False, True)
    assert type(t.data) is np.ndarray


def test_a_named_dtype_is_reached_without_a_detour() -> None:
    assert tensor(0.1, dtype="float64").item() == 0.1
    assert tensor([0.1], dtype=np.float64).tolist() == [0.1]
    assert tensor(2**24 + 1, dtype="int32").item() == 2**24 + 1
    assert tensor(np.ones(2), dtype="float16").dtype == "float16"
    assert tensor([1, 0], dtype=bool).tolist() == [True, False]


def test_values_are_copied_and_wrapped_arrays_are_not() -> None:
    array = np.ones(2)
    copied, wrapped = tensor(array), Tensor(array)
    again = tensor(wrapped)
    array[0] = 5
    assert copied.tolist() == again.tolist() == [1, 1]
    assert wrapped.data is array


@pytest.mark.parametrize(
    "data", ["abc", None, [[1], [1, 2]], object(), {1: 2}, [None], np.array(["a"]), np.array([object()]), ["a"],
             np.zeros(2, "datetime64[s]"), np.zeros(2, [("a", "f4")])],
)  # fmt: skip
def test_what_is_not_numbers_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="tensor: data must be numbers"):
        tensor(data)


@pytest.mark.parametrize("data", [[1.0], 1.0, np.float32(1), None, tensor(1.0)])
def test_the_class_itself_takes_arrays_only(data: Any) -> None:
    with pytest.raises(TypeError, match=r"expected an array of numpy\.ndarray"):
        Tensor(data)


def test_gradients_are_for_floating_leaves() -> None:
    x = tensor([1, 2])
    with pytest.raises(TypeError, match="requires_grad needs a floating dtype, got int64"):
        x.requires_grad = True
    with pytest.raises(TypeError, match="requires_grad needs a floating dtype, got bool"):
        tensor([True], requires_grad=True)
    y = tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match="requires_grad can be set on leaves only"):
        (y * 2).requires_grad = False
    y.requires_grad = False
    assert (y * 2).is_leaf
    assert Parameter(np.ones(2)).requires_grad
    assert not Parameter(np.ones(2), requires_grad=False).requires_grad


def test_tensors_are_made_on_a_device_and_move(device: Device) -> None:
    x = tensor([[1.0, 2.0]], device=device, requires_grad=True)
    assert x.device == device
    assert x.to(device).data is x.data
    y = x.to("cpu") * 3
    assert y.device == Device("cpu")
    y.to(device).sum().backward()
    assert Tensor(x.grad).device == device
    assert host(Tensor(x.grad)).tolist() == [[3, 3]]
    assert tensor(x).device == device
    assert tensor(x, device="cpu").device == Device("cpu")
    with pytest.raises(ValueError, match="device kind must be one of"):
        x.to("nowhere")


CREATED = [
    (lambda d: lamella.zeros(3, device=d), np.zeros(3, "float32")),
    (lambda d: lamella.zeros((2, 0), "int64", device=d), np.zeros((2, 0), "int64")),
    (lambda d: lamella.ones((), "float16", device=d), np.ones((), "float16")),
    (lambda d: lamella.ones([2, 3], device=d), np.ones((2, 3), "float32")),
    (lambda d: lamella.full((2, 2), 7.5, device=d), np.full((2, 2), 7.5, "float32")),
    (lambda d: lamella.zeros((600, 600), device=d), np.zeros((600, 600), "float32")),
    (lambda d: lamella.arange(4, device=d), np.arange(4)),
    (lambda d: lamella.arange(1, 2, 0.25, device=d), np.arange(1, 2, 0.25, "float32")),
    (lambda d: lamella.arange(5, 0, -2, "int32", device=d), np.arange(5, 0, -2, "int32")),
    (lambda d: lamella.linspace(0, 1, 5, device=d), np.linspace(0, 1, 5, dtype="float32")),
    (lambda d: lamella.eye(2, 3, device=d), np.eye(2, 3, dtype="float32")),
    (lambda d: lamella.zeros_like(lamella.ones((2, 1), "float64", device=d)), np.zeros((2, 1))),
    (lambda d: lamella.ones_like(lamella.zeros(2, device=d), "int64"), np.ones(2, "int64")),
    (lambda d: lamella.full_like(lamella.zeros(2, device=d), -1), np.full(2, -1, "float32")),
]


@pytest.mark.parametrize(("make", "expected"), CREATED)
def test_creation_gives_the_values_asked_for(device: Device, make: Any, expected: np.ndarray) -> None:
    t = make(device)
    assert (t.device, t.dtype, t.shape, t.requires_grad) == (device, expected.dtype, expected.shape, False)
    assert np.array_equal(host(t), expected)


def test_created_tensors_may_want_gradients() -> None:
    x = lamella.zeros(2, requires_grad=True)
    (x * 3).sum().backward()
    assert x.grad.tolist() == [3, 3]


# -- operators ---------------------------------------------------------------------------------------------------------

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow]
COMPARISONS = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]


@pytest.mark.parametrize("op", [*ARITHMETIC, *COMPARISONS, operator.matmul], ids=lambda op: op.__name__)
def test_operators_work_with_arrays_on_either_side(op: Any) -> None:
    a, b = np.array([[1.0, 2.0], [3.0, 0.5]]), np.array([[2.0, 2.0], [0.25, 4.0]])
    expected = op(a, b)
    for found in (op(tensor(a), tensor(b)), op(tensor(a), b), op(a, tensor(b))):
        assert isinstance(found, Tensor)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(host(found), expected)
    x = tensor(b, requires_grad=True)
    y = op(a, x)
    if y.requires_grad:
        assert lamella.gradcheck(lambda t: op(a, t), b) if op not in (operator.floordiv, operator.mod) else True
    else:
        assert op in COMPARISONS


@pytest.mark.parametrize("op", [*ARITHMETIC, *COMPARISONS], ids=lambda op: op.__name__)
@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int64(2), True])
def test_operators_work_with_numbers_on_either_side(device: Device, op: Any, number: Any) -> None:
    a = np.array([1.0, 2.0, 3.5])
    x = tensor(a, device=device)
    np.testing.assert_allclose(host(op(x, number)), op(a, number), rtol=1e-15)
    np.testing.assert_allclose(host(op(number, x)), op(number, a), rtol=1e-15)


@pytest.mark.parametrize("op", [operator.and_, operator.or_, operator.xor], ids=lambda op: op.__name__)
@pytest.mark.parametrize(("a", "b"), [([True, False, True], [True, True, False]), ([6, 5, 0], [3, 4, 1])])
def test_bit_operators_are_numpys(op: Any, a: list[Any], b: list[Any]) -> None:
    expected = op(np.array(a), np.array(b))
    for found in (op(tensor(a), tensor(b)), op(tensor(a), np.array(b)), op(np.array(a), tensor(b))):
        assert found.tolist() == expected.tolist()
        assert found.dtype == expected.dtype
    assert op(True, tensor(b)).tolist() == op(True, np.array(b)).tolist()
    assert (~tensor(a)).tolist() == (~np.array(a)).tolist()
    with pytest.raises(TypeError):
        op(tensor([1.0]), tensor([1.0]))


def test_augmented_assignment_makes_a_new_tensor() -> None:
    x = y = tensor([1.0, 2.0])
    x += 1
    assert y.tolist() == [1, 2]
    assert x.tolist() == [2, 3]


def test_comparisons_tell_nan_and_want_no_gradient() -> None:
    x = tensor([1.0, math.nan, 3.0], requires_grad=True)
    assert (x == x).tolist() == [True, False, True]
    assert (x != x).tolist() == [False, True, False]
    assert lamella.isnan(x).tolist() == [False, True, False]
    assert lamella.isfinite(x / 0.0 if False else x).tolist() == [True, False, True]
    assert not (x > 2).requires_grad
    assert lamella.logical_not(x).dtype == bool
    assert lamella.logical_and(tensor([1.0, 0.0]), tensor([2.0, 1.0])).tolist() == [True, False]
    assert (tensor(3.0) == 3).shape == ()


# -- methods and attributes --------------------------------------------------------------------------------------------

REDUCTIONS = ("sum", "mean", "var", "std", "max", "min", "prod", "argmax", "argmin", "any", "all")
OTHERS = ("ravel", "flatten", "squeeze", "copy", "tolist", "transpose", "round", "cumsum")
METHODS = [
    *(operator.methodcaller(name) for name in (*REDUCTIONS, *OTHERS)),
    *(operator.methodcaller(name, axis=0) for name in (*REDUCTIONS, "cumsum")),
    *(operator.attrgetter(name) for name in ("shape", "ndim", "size", "nbytes", "T", "mT")),
    lambda a: a.sum(axis=1, keepdims=True),
    lambda a: a.reshape(3, 2),
    lambda a: a.reshape((3, 2)),
    lambda a: a.reshape([3, -1]),
    lambda a: a.reshape(-1),
    lambda a: a.transpose(1, 0),
    lambda a: a.transpose((1, 0)),
    lambda a: a.transpose(None),
    lambda a: a.swapaxes(0, 1),
    lambda a: a.repeat(2, axis=0),
    lambda a: a.astype("float32"),
    lambda a: a.astype(int),
    lambda a: a.clip(0.2, 0.8),
    lambda a: a.clip(min=0.2),
    lambda a: a.take([0, 2], axis=1),
    lambda a: a.take([0, 5]),
    lambda a: a.dot(a.T),
    lambda a: len(a),
    lambda a: [row.tolist() for row in a],
    lambda a: [[float(v) for v in row] for row in a],
    lambda a: a[0, 1].item(),
    lambda a: f"{a[0, 1]:.3f}",
    lambda a: int(a[1, 2]),
    lambda a: bool(a[0, 0]),
    lambda a: 0.5 in a,
    lambda a: abs(a - 0.5),
    lambda a: -a,
    lambda a: +a,
    lambda a: math.sqrt(a[0, 1]),
    lambda a: ["a", "b", "c"][a.argmax(axis=1)[0]],
    lambda a: list(range(a.argmax())),
]  # fmt: skip


@pytest.mark.parametrize("use", METHODS)
def test_methods_are_those_of_arrays(use: Any) -> None:
    array = np.random.default_rng(3).uniform(0, 1, (2, 3))
    found, expected = use(tensor(array)), use(array)
    if isinstance(found, Tensor):
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(host(found), expected, rtol=1e-14)
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_the_truth_the_length_and_the_value_of_many_are_refused() -> None:
    x = tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"the truth of a tensor of shape \(2,\) is ambiguous: use \.any\(\)"):
        bool(x)
    with pytest.raises(ValueError, match=r"item\(\) needs a tensor of one element, got shape \(2,\)"):
        float(x)
    with pytest.raises(TypeError, match=r"len\(\) of a 0-d tensor"):
        len(tensor(1.0))
    with pytest.raises(TypeError, match="0-d"):
        list(tensor(1.0))
    with pytest.raises(TypeError, match="integer"):
        range(tensor(1.5))


def test_tensors_are_keys_by_identity() -> None:
    x, y = tensor(1.0), tensor(1.0)
    assert {x: 1, y: 2}[y] == 2
    assert len({x, y, x}) == 2


def test_unknown_attributes_cannot_be_set() -> None:
    with pytest.raises(AttributeError):
        tensor(1.0).gradient = 3


def test_what_a_tensor_shows(device: Device) -> None:
    x = tensor([[1.0, 2.0], [3.0, 4.0]], device=device, requires_grad=True)
    shown = repr(x)
    place = "" if device.kind == "cpu" else f", device='{device}'"
    assert shown == f"Tensor([[1. 2.]\n        [3. 4.]], dtype=float32{place}, requires_grad=True)"
    assert repr(Parameter(np.ones(1, "float32"))) == "Parameter([1.], dtype=float32, requires_grad=True)"
    assert repr(tensor([])) == "Tensor([], dtype=float32)"
    assert str(tensor(1)) == "Tensor(1, dtype=int64)"
    assert f"{tensor(1)}" == "Tensor(1, dtype=int64)"
    assert f"{tensor(1.25):.1f}" == "1.2"


# -- NumPy's functions -------------------------------------------------------------------------------------------------

NUMPY_CALLS = [
    np.exp, np.sum, np.mean, np.std, np.abs, np.sqrt, np.square, np.transpose, np.ravel, np.cumsum, np.flip, np.isnan,
    np.argmax, np.any, np.zeros_like, np.ones_like, np.squeeze, np.tril, np.sign, np.round, np.prod, np.max,
    lambda a: np.add(a, 1.0), lambda a: np.multiply(2.0, a), lambda a: np.sum(a, axis=0, keepdims=True),
    lambda a: np.maximum(a, 0.5), lambda a: np.where(a > 0.5, a, 0.0), lambda a: np.clip(a, 0.2, 0.8),
    lambda a: np.concatenate([a, a]), lambda a: np.stack([a, a], axis=1), lambda a: np.matmul(a, a.T),
    lambda a: np.dot(a, a.T), lambda a: np.einsum("ij,kj->ik", a, a), lambda a: np.reshape(a, (3, 2)),
    lambda a: np.expand_dims(a, 0), lambda a: np.moveaxis(a, 0, 1), lambda a: np.take(a, [0, 5]),
    lambda a: np.take(a, [0, 2], axis=1), lambda a: np.outer(a, a), lambda a: np.tensordot(a, a),
    lambda a: np.power(a, 2),
    lambda a: np.full_like(a, 3.0), lambda a: np.broadcast_to(a, (2, 2, 3)), lambda a: np.swapaxes(a, 0, 1),
    lambda a: np.invert(a > 0.5), lambda a: np.logical_and(a > 0.1, a < 0.5), lambda a: np.float64(2) * a,
    lambda a: np.take_along_axis(a, np.array([[0], [1]]), 1), lambda a: np.repeat(a, 2, 1), lambda a: np.roll(a, 1, 0),
    lambda a: np.var(a, axis=1, correction=1), lambda a: np.max(a, axis=(0, 1)), lambda a: np.floor_divide(a, 0.3),
]  # fmt: skip


@pytest.mark.parametrize("call", NUMPY_CALLS)
def test_numpys_functions_on_tensors_stay_on_the_tape_and_give_numpys_values(call: Any) -> None:
    array = np.random.default_rng(4).uniform(0.1, 1, (2, 3))
    found, expected = call(tensor(array)), call(array)
    assert isinstance(found, Tensor)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(host(found), expected, rtol=1e-14)


def test_numpys_functions_are_differentiated() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    np.sum(np.exp(x) * np.array([1.0, 2.0], "float32")).backward()
    np.testing.assert_allclose(x.grad, np.exp([1.0, 2.0]) * [1, 2], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (np.linalg.norm, r"numpy\.norm cannot be applied to a tensor: use an operation of lamella, or t\.to_numpy"),
        (np.sort, r"numpy\.sort cannot be applied to a tensor"),
        (np.add.reduce, r"numpy\.add cannot be applied to a tensor in this form"),
        (lambda t: np.exp(t, out=np.ones(2)), r"numpy\.exp cannot be applied to a tensor in this form"),
        (np.hypot.outer and (lambda t: np.hypot(t, t)), r"numpy\.hypot cannot be applied"),
        (lambda t: operator.iadd(np.ones(2), t), r"numpy\.add cannot be applied to a tensor in this form"),
    ],
)
def test_what_numpy_cannot_do_with_tensors_says_the_way_out(call: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(tensor([1.0, 2.0], requires_grad=True))


# -- leaving -----------------------------------------------------------------------------------------------------------


def test_arrays_come_out_of_cpu_tensors_without_a_copy_and_of_others_not_silently(device: Device) -> None:
    x = tensor([1.0, 2.0], device=device, requires_grad=True)
    assert x.to_numpy().tolist() == [1, 2]
    if device.kind != "cpu":
        with pytest.raises(TypeError, match=rf"this tensor lives on {device}: call \.to_numpy\(\)"):
            np.asarray(x)
        return
    assert np.asarray(x) is x.data
    assert np.array(x) is not x.data
    assert np.asarray(x, dtype="float64").dtype == "float64"
    assert np.asarray(x, dtype="float32", copy=False) is x.data
    assert np.asarray(x, copy=True) is not x.data
    with pytest.raises(ValueError, match="cannot be an array of float64 without a copy"):
        np.asarray(x, dtype="float64", copy=False)


def test_dlpack_shares_memory_outwards_and_copies_inwards() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    shared = np.from_dlpack(x)
    assert np.shares_memory(shared, x.data)

    class Foreign:
        """An array of another library."""

        def __init__(self, array: np.ndarray) -> None:
            self._array = array

        def __dlpack__(self, **kwargs: Any) -> Any:
            return self._array.__dlpack__(**kwargs)

        def __dlpack_device__(self) -> tuple[int, int]:
            return self._array.__dlpack_device__()

    array = np.arange(3.0)
    y = tensor(Foreign(array))
    array[0] = 9
    assert y.tolist() == [0, 1, 2]
    assert y.dtype == "float64"
    assert y.data.flags.writeable


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
@pytest.mark.parametrize("kind", [Tensor, Parameter])
def test_copies_of_leaves_learn_as_the_leaf_does(again: Any, kind: type[Tensor]) -> None:
    x = kind(np.array([1.0, 2.0]), requires_grad=True)
    x.grad = np.array([5.0, 5.0])
    y = again(x)
    assert type(y) is kind
    assert y.requires_grad
    assert y.is_leaf
    assert y.grad.tolist() == [5, 5]
    y.grad = None
    (y * y).sum().backward()
    assert y.grad.tolist() == [2, 4]
    assert x.grad.tolist() == [5, 5]
    assert np.shares_memory(x.data, y.data) == (again is copy.copy)
    assert not again(tensor(1.0)).requires_grad


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_computed_tensor_is_not_copied_with_its_graph(again: Any) -> None:
    with pytest.raises(TypeError, match=r"a computed tensor cannot be copied or pickled.*detach\(\) it"):
        again(tensor([1.0], requires_grad=True) * 2)


def test_copy_and_detach_leave_the_tape() -> None:
    x = tensor([1.0, 2.0], requires_grad=True)
    y = x * 2
    assert y.detach().data is y.data
    assert not y.detach().requires_grad
    assert not np.shares_memory(y.copy().data, y.data)


def test_a_masked_array_is_refused_and_keeps_its_mask() -> None:
    with pytest.raises(TypeError, match="must not be a masked array"):
        lamella.tensor(np.ma.array([1.0, 2.0], mask=[False, True]))
