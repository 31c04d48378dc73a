"""The tape: what is recorded, how it is walked, what it keeps alive, and what it refuses."""

from __future__ import annotations

import functools
import gc
import threading
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import autograd
from lamella.backend import Device


def leaf(values: Any, dtype: str = "float64") -> lamella.Tensor:
    return lamella.tensor(values, dtype=dtype, requires_grad=True)


# -- composition -------------------------------------------------------------------------------------------------------


def test_a_composition_that_uses_its_input_three_times_has_the_hand_expanded_gradient() -> None:
    rng = np.random.default_rng(0)
    x, w0, w1, w2 = rng.standard_normal((3, 4)), *(rng.standard_normal((4, 4)) for _ in range(3))
    tx, t0, t1, t2 = map(leaf, (x, w0, w1, w2))

    def h0(x: Any) -> Any:
        return lamella.tanh(x @ t0)

    def h1(y: Any) -> Any:
        return y * y @ t1

    def h2(x: Any, a: Any, b: Any) -> Any:
        return (x * a + b) @ t2

    f = h2(tx, h0(tx), h1(h0(tx)))
    dy = rng.standard_normal((3, 4))
    f.backward(dy)

    # the same by hand
    a = np.tanh(x @ w0)
    inner = x * a + (a * a) @ w1
    dinner = dy @ w2.T
    da = dinner * x
    da_from_b = dinner @ w1.T * 2 * a
    dpre = (da + da_from_b) * (1 - a * a)
    for found, expected in [
        (f.data, inner @ w2),
        (tx.grad, dinner * a + dpre @ w0.T),
        (t0.grad, x.T @ dpre),
        (t1.grad, (a * a).T @ dinner),
        (t2.grad, inner.T @ dy),
    ]:
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_tensor_used_many_times_collects_every_gradient(device: Device) -> None:
    x = lamella.tensor([2.0, 3.0], device=device, requires_grad=True)
    y = x * x + x * 3 + x
    (y + y * y + y).sum().backward()
    v = np.array([2.0, 3.0])
    np.testing.assert_allclose(lamella.Tensor(x.grad).to_numpy(), (2 + 2 * (v * v + 4 * v)) * (2 * v + 4), rtol=1e-6)


def test_gradients_of_a_leaf_are_arrays_of_their_own() -> None:
    a, b, c = leaf([1.0]), leaf([1.0]), leaf([1.0])
    (a + b + c).backward()
    a.grad += 10
    assert b.grad.tolist() == c.grad.tolist() == [1]


def test_leaves_do_not_share_memory_when_an_operation_hands_its_gradients_down() -> None:
    @lamella.op
    def both(x: Any, y: Any) -> Any:
        return (x * 1, y * 1), lambda dx, dy: (dx, dy)

    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y0, y1 = both(a, b)
    (y0 + y1).sum().backward()
    a.grad *= 7
    assert b.grad.tolist() == [1, 1]


def test_a_second_backward_adds_up_and_owns_what_it_adds() -> None:
    x = leaf([1.0, 2.0])
    for _ in range(3):
        (x * x).sum().backward()
    assert x.grad.tolist() == [6, 12]


def test_backward_from_a_leaf_is_its_own_gradient() -> None:
    x = leaf(3.0)
    x.backward()
    assert x.grad.tolist() == 1
    y, dy = leaf([1.0, 2.0]), np.array([5.0, 6.0])
    y.backward(dy)
    y.backward(dy)
    assert y.grad.tolist() == [10, 12]
    assert dy.tolist() == [5, 6]


def test_backward_functions_are_called_with_arrays_also_for_numbers() -> None:
    seen = []

    @lamella.op
    def watch(x: Any) -> Any:
        return x.sum(), lambda dy: (seen.append((type(dy), dy.shape)), np.full(x.shape, dy))[1:]

    @lamella.op
    def watch_two(x: Any) -> Any:
        return (x.sum(), x * 1), lambda a, b: (seen.append((type(a), a.shape)), np.full(x.shape, a))[1:]

    x = leaf([1.0, 2.0])
    (watch(x) * 2 * 3).backward()
    total = watch_two(x)[0]
    assert isinstance(total.data, np.ndarray)
    (total * 2.0).backward()
    assert seen == [(np.ndarray, ()), (np.ndarray, ())]
    assert x.grad.tolist() == [8, 8]


# -- what is kept alive ------------------------------------------------------------------------------------------------


def test_memory_is_freed_while_the_walk_goes_on() -> None:
    freed = []

    @lamella.op
    def step(x: Any, number: int) -> Any:
        held = np.array(x)
        weakref.finalize(held, freed.append, number)

        def backward(dy: Any) -> Any:
            # everything recorded after this operation is gone by now
            order.append((number, sorted(freed)))
            return (dy * held.dtype.type(1),)

        return x * 1, backward

    order: list[Any] = []
    y = leaf(np.ones(4))
    for i in range(5):
        y = step(y, i)
    y.sum().backward()
    assert [number for number, _ in order] == [4, 3, 2, 1, 0]
    for number, gone in order:
        assert gone == list(range(number + 1, 5))
    assert sorted(freed) == [0, 1, 2, 3, 4]


def test_backward_needs_little_more_memory_than_forward_left() -> None:
    size = 1 << 15  # below the smallest recycled array, which tracemalloc counts as its block
    x = leaf(np.ones(size))
    tracemalloc.start()
    y = x
    for _ in range(20):
        y = lamella.sin(y)
    held = tracemalloc.get_traced_memory()[0]
    dy = np.ones(size)
    y.backward(dy)
    peak = tracemalloc.get_traced_memory()[1]
    del y
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert 20 * 8 * size <= held <= 22 * 8 * size
    assert peak <= held + 6 * 8 * size
    assert left <= 4 * 8 * size  # dy, the gradient


def test_a_tensor_frees_its_graph_without_the_garbage_collector() -> None:
    gc.disable()
    try:
        array = np.ones(3)
        alive = weakref.ref(array)
        x = lamella.Tensor(array, requires_grad=True)
        y = lamella.exp(x * x).sum()
        y.backward()
        del array, x, y
        assert alive() is None
        array = np.ones(3)
        alive = weakref.ref(array)
        y = lamella.exp(lamella.Tensor(array, requires_grad=True) * 2)  # never walked
        del array, y
        assert alive() is None
    finally:
        gc.enable()


def test_nodes_hold_no_array() -> None:
    y = lamella.add(leaf([1.0]), leaf([2.0]))
    assert autograd.tape._held_arrays([y._edge.shape, y._edge.dtype, y._edge.grad, y._edge.op]) == []


@pytest.mark.parametrize("walked", [True, False])
def test_a_chain_of_100_000_operations_does_not_overflow_the_stack(walked: bool) -> None:
    x = leaf([1.0, 2.0])
    y = x
    for _ in range(100_000):
        y = y + 1.0
    if walked:
        y.sum().backward()
        assert x.grad.tolist() == [1, 1]
    del y  # nor does freeing it


# -- walking twice -----------------------------------------------------------------------------------------------------


def test_a_freed_graph_is_not_walked_again() -> None:
    x = leaf([1.0])
    y = lamella.exp(x)
    y.backward()
    with pytest.raises(RuntimeError, match="the graph at exp was already walked and freed; pass retain_graph=True"):
        y.backward()
    z = lamella.exp(x)
    a, b = z * 2, z * 3
    a.backward()
    with pytest.raises(RuntimeError, match="the graph at exp was already walked"):
        b.backward()


def test_a_retained_graph_is_walked_again() -> None:
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [6, 12]
    with pytest.raises(RuntimeError, match="already walked"):
        y.backward()


def test_an_exception_in_the_middle_leaves_no_stale_gradient_behind() -> None:
    fail = [True]

    @lamella.op
    def unreliable(x: Any) -> Any:
        def backward(dy: Any) -> Any:
            if fail[0]:
                raise ArithmeticError("not today")
            return (dy,)

        return x * 1, backward

    x = leaf([1.0, 2.0])
    a = x * 2  # reached before the failure, and waiting when it comes
    y0, _ = lamella.split(x * 5, 2)
    z = unreliable(a) + a + lamella.concat([y0, y0])
    with pytest.raises(ArithmeticError, match="not today\n  in the backward pass of unreliable, gradient float64"):
        z.sum().backward(retain_graph=True)
    assert x.grad is None
    fail[0] = False
    z = unreliable(a) + a + lamella.concat([y0, y0])
    z.sum().backward()
    assert x.grad.tolist() == [4 + 10, 4]


# -- recording or not --------------------------------------------------------------------------------------------------


def test_no_grad_nests_and_goes_back() -> None:
    x = leaf([1.0])
    quiet, loud = lamella.no_grad(), lamella.enable_grad()
    with quiet:
        assert not (x * 2).requires_grad
        with quiet:  # one object entered twice
            assert not lamella.is_recording()
        assert not lamella.is_recording()
        with loud:
            assert (x * 2).requires_grad
        assert not lamella.is_recording()
    assert lamella.is_recording()
    with pytest.raises(ZeroDivisionError), quiet:
        raise ZeroDivisionError
    assert lamella.is_recording()


def test_no_grad_and_enable_grad_decorate_functions() -> None:
    @lamella.no_grad()
    def quiet(depth: int = 0) -> list[bool]:
        """Docs."""
        return [lamella.is_recording(), *(quiet(depth - 1) if depth else [])]

    @lamella.enable_grad()
    def loud() -> bool:
        return lamella.is_recording()

    assert quiet(2) == [False, False, False]
    assert quiet.__doc__ == "Docs."
    assert lamella.is_recording()
    with lamella.no_grad():
        assert loud()
        assert not lamella.is_recording()


def test_recording_is_each_threads_own() -> None:
    shared = lamella.no_grad()
    inside, leave = threading.Event(), threading.Event()
    seen = []

    def other() -> None:
        seen.append(lamella.is_recording())
        with shared:
            inside.set()
            leave.wait(10)
        seen.append(lamella.is_recording())

    thread = threading.Thread(target=other)
    with lamella.no_grad():
        thread.start()
        inside.wait(10)
        with shared:
            leave.set()
            thread.join()
        assert not lamella.is_recording()
    assert lamella.is_recording()
    assert seen == [True, True]


def test_threads_walk_their_own_graphs_at_once() -> None:
    results: dict[int, Any] = {}

    def run(number: int) -> None:
        x = leaf(np.full(100, float(number)))
        for _ in range(20):
            y = x
            for _ in range(10):
                y = y * 1.0 + x
            y.sum().backward()
        results[number] = x.grad

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((results[i] == 20 * 11).all() for i in range(4))


# -- backward's own arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "kind", "message"),
    [
        (None, ValueError, r"gradient must be given for a tensor of shape \(2,\)"),
        (np.ones(3), ValueError, r"gradient must have the tensor's shape \(2,\), got \(3,\)"),
        (np.ones((1, 2)), ValueError, r"shape \(2,\), got \(1, 2\)"),
        (np.ones(2, "float32"), TypeError, "gradient must have the tensor's dtype float64, got float32"),
        ([1.0, 1.0], TypeError, r"expected an array of numpy\.ndarray.*got builtins\.list"),
        (1.0, TypeError, r"got builtins\.float"),
    ],
)
def test_a_gradient_that_does_not_fit_is_refused(gradient: Any, kind: type[Exception], message: str) -> None:
    x = leaf([1.0, 2.0])
    with pytest.raises(kind, match=message):
        (x * 2).backward(gradient)
    assert x.grad is None


def test_backward_without_anything_recorded_says_why() -> None:
    with pytest.raises(RuntimeError, match="none of what it was computed from has requires_grad=True"):
        lamella.tensor(1.0).backward()


# -- operations of the user's own --------------------------------------------------------------------------------------


def test_an_operation_may_give_fewer_gradients_and_none() -> None:
    @lamella.op
    def pick(x: Any, y: Any, times: int, *, plus: float = 0.0) -> Any:
        """Docs."""
        return x * times + plus + 0 * y, lambda dy: (dy * times,)

    x, y = leaf([1.0]), leaf([2.0])
    z = pick(x, y, 3, plus=1.0)
    z.backward()
    assert z.data.tolist() == [4]
    assert x.grad.tolist() == [3]
    assert y.grad is None
    assert (pick.__name__, pick.__doc__) == ("pick", "Docs.")


def test_tensors_given_by_keyword_get_their_gradient() -> None:
    @lamella.op
    def scale(x: Any, by: Any = 2.0, *, shift: float = 0.0) -> Any:
        return x * by + shift, lambda dy: (dy * by, dy * x)

    x, by = leaf([3.0]), leaf([5.0])
    scale(x, by=by, shift=1.0).backward()
    scale(by=by, x=x).backward()
    assert x.grad.tolist() == [10]
    assert by.grad.tolist() == [6]


def test_an_operation_with_several_results_is_told_which_gradients_came() -> None:
    calls = []

    @lamella.op
    def thirds(x: Any) -> Any:
        def backward(*dys: Any) -> Any:
            calls.append([None if dy is None else dy.tolist() for dy in dys])
            return (sum(k * dy for k, dy in enumerate(dys, 1) if dy is not None),)

        return (x, x * 2, x * 3), backward

    x = leaf([1.0])
    a, b, c = thirds(x)
    assert all(y.requires_grad for y in (a, b, c))
    (a + a + c * 10).backward()
    b2 = thirds(x)[1]
    b2.backward()
    assert calls == [[[2.0], None, [10.0]], [None, [1.0], None]]
    assert x.grad.tolist() == [2 + 30 + 2]


@pytest.mark.parametrize("into_node", [True, False])
@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (lambda dy: dy[:1], ValueError, r"shape of its argument, \(2,\), got \(1,\)"),
        (lambda dy: dy.sum(), ValueError, r"shape of its argument, \(2,\), got \(\)"),
        (lambda dy: dy.astype("float32"), TypeError, "dtype of its argument, float64, got float32"),
    ],
)
def test_a_gradient_of_the_wrong_shape_or_dtype_names_the_operation(
    wrong: Any, kind: type[Exception], message: str, into_node: bool
) -> None:
    @lamella.op
    def careless(x: Any) -> Any:
        return x * 2, lambda dy: (wrong(dy),)

    x = leaf([1.0, 2.0])
    with pytest.raises(kind, match=message + r"\n  in the backward pass of careless"):
        careless(x + 1 if into_node else x).sum().backward()
    assert x.grad is None


def test_separate_gradient_functions_run_only_where_a_gradient_is_wanted() -> None:
    called = []

    @lamella.op
    def product(x: Any, y: Any) -> Any:
        return x * y, (
            lambda dy, out: (called.append("x"), dy * y)[1],
            lambda dy, out: (called.append("y"), dy * x)[1],
        )

    product(leaf([2.0]), lamella.tensor([3.0], dtype="float64")).backward()
    assert called == ["x"]


def test_an_error_tells_the_call_with_shapes_dtypes_and_devices(device: Device) -> None:
    x = lamella.tensor(np.ones((2, 3), "float32"), device=device)
    with pytest.raises(ValueError, match=r"\n  in matmul\(float32 \(2, 3\) on .*, float32 \(2, 3\) on ") as caught:
        x @ x
    assert str(device) in str(caught.value)
    with pytest.raises(ValueError, match=r"in sum\(float32 \(2, 3\) on .*, axis=7\)"):
        x.sum(axis=7)


def test_errors_keep_their_type_and_say_the_context_once() -> None:
    class OddError(Exception):
        def __str__(self) -> str:
            return "odd"

    @lamella.op
    def broken(x: Any, error: Exception) -> Any:
        raise error

    x = lamella.ones(2)
    for error in (OddError(1, 2), KeyError("k"), OSError(2, "no file"), ValueError(), ZeroDivisionError("by zero")):
        with pytest.raises(type(error)) as caught:
            broken(x, error)
        assert caught.value is error
        said = "\n".join([str(error), *getattr(error, "__notes__", [])])
        assert said.count("in broken(float32 (2,) on cpu, ") == 1


def test_mixed_devices_are_both_named_with_the_call(device: Device) -> None:
    if device.kind == "cpu":
        pytest.skip("one device has no mixture")
    here, there = lamella.ones(3), lamella.ones(3, device=device)
    calls = [lambda: here + there, lambda: there @ here, lambda: lamella.concat([here, there]), lambda: here < there]
    for call in calls:
        with pytest.raises(lamella.backend.MixedDevicesError, match=f"got (cpu and {device}|{device} and cpu)"):
            call()


# -- writing in place --------------------------------------------------------------------------------------------------


def test_an_array_changed_after_use_is_detected() -> None:
    x = leaf([1.0, 2.0])
    y = lamella.exp(x) * x
    with lamella.no_grad():
        x[0] = 5.0
    with pytest.raises(RuntimeError, match=r"backward of multiply needs an array of shape \(2,\), dtype float64 .*ch"):
        y.sum().backward()


WRITES = {
    "a view of it": lambda x: lamella.Tensor(x.data[1:])[0:1].__setitem__(0, 9.0),
    "a transposed view": lambda x: lamella.Tensor(x.data.reshape(2, 1).T).__setitem__((0, 0), 9.0),
    "an optimizer": lambda x: (x.data.__setitem__(slice(None), 9.0), lamella.note_write(x.data)),
    "an optimizer by a view": lambda x: (x.data.__setitem__(0, 9.0), lamella.note_write(x.data[:1])),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_writes_through_views_are_detected(write: Any) -> None:
    x = leaf([1.0, 2.0])
    y = (x * x).sum()
    write(x)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


HOLDERS = {
    "the closure": lambda x: lambda dy: (dy * x,),
    "a default": lambda x: lambda dy, x=x: (dy * x,),
    "a keyword default": lambda x: lambda dy, *, x=x: (dy * x,),
    "a partial": lambda x: functools.partial(lambda x, dy: (dy * x,), x),
    "a partial's keyword": lambda x: functools.partial(lambda dy, x: (dy * x,), x=x),
    "a list in a dict": lambda x: (lambda held: lambda dy: (dy * held["x"][0],))({"x": [x]}),
    "a function in the closure": lambda x: (lambda inner: lambda dy: (inner(dy),))(lambda dy: dy * x),
    "one of several functions": lambda x: (lambda dy, out: dy * x,),
    "a tensor": lambda x: (lambda t: lambda dy: (dy * t.data,))(lamella.Tensor(x)),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_changed_arrays_are_found_wherever_backward_holds_them(hold: Any) -> None:
    @lamella.op
    def half_square(x: Any) -> Any:
        return x * x / 2, hold(x)

    x = leaf([1.0, 2.0])
    half_square(x).sum().backward()
    assert x.grad.tolist() == [1, 2]
    y = half_square(x).sum()
    with lamella.no_grad():
        x[...] = 0
    with pytest.raises(RuntimeError, match="backward of half_square needs an array"):
        y.backward()


def test_a_backward_that_holds_itself_is_looked_through_once() -> None:
    @lamella.op
    def recursive(x: Any) -> Any:
        def backward(dy: Any, depth: int = 1) -> Any:
            return backward(dy, depth - 1) if depth else (dy + 0 * x,)

        return x * 1, backward

    x = leaf([1.0])
    y = recursive(x)
    lamella.note_write(np.ones(3))
    y.backward()
    assert x.grad.tolist() == [1]


def test_harmless_writes_are_not_reported() -> None:
    x, other = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    buffer = np.zeros((4, 2))
    row = lamella.Tensor(buffer[0])
    y = lamella.exp(x) * row + x
    with lamella.no_grad():
        other[...] = 0.0  # another array
        x[...] = 7.0  # exp holds its result, add holds nothing
    lamella.note_write(buffer[1])  # a neighbour in the same memory
    lamella.note_write(buffer[3])
    y.sum().backward()
    z = (x * row).sum()  # recorded after the writes
    z.backward()
    assert row.grad is None


def test_a_write_between_two_others_is_not_blamed_on_what_lies_between() -> None:
    buffer = np.zeros((3, 2))
    lamella.note_write(buffer[0])
    x = leaf([1.0, 2.0])
    y = (x * lamella.Tensor(buffer[0])).sum()  # after the write to row 0
    lamella.note_write(buffer[2])  # must not make row 0 look newly written
    y.backward()


def test_many_writes_to_one_memory_stay_few_and_are_still_found() -> None:
    buffer = np.zeros((100, 2))
    x = leaf([1.0, 2.0])
    y = (x * lamella.Tensor(buffer[50])).sum()
    for row in buffer:
        lamella.note_write(row)
    assert len(autograd.tape._written[id(buffer)].writes) <= autograd.tape._MOST_WRITES
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    key = id(buffer)
    del buffer, row, y
    assert key not in autograd.tape._written


@pytest.mark.parametrize("memory", [bytearray(16), memoryview(bytearray(16))], ids=["bytearray", "memoryview"])
def test_memory_that_numpy_does_not_own_may_be_written(memory: Any) -> None:
    w = lamella.Parameter(np.frombuffer(memory, "float64"))
    y = (w * w).sum()
    with lamella.no_grad():
        w[0] = 3.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    (w * w).sum().backward()
    assert w.grad.tolist() == [6, 0]


def test_what_is_on_the_tape_is_not_written() -> None:
    x = leaf([1.0, 2.0])
    y = x * 2
    for target in (x, y):
        with pytest.raises(RuntimeError, match=r"a tensor on the tape cannot be written in place: use lamella\.where"):
            target[0] = 1.0
    with lamella.no_grad(), pytest.raises(RuntimeError, match="on the tape cannot be written"):
        y[0] = 1.0
    free = lamella.zeros(2, "float64")
    with pytest.raises(RuntimeError, match="a value on the tape cannot be written in place, its gradient would be"):
        free[0] = y[0]
    free[0] = y[0].detach()
    assert free.data.tolist() == [2, 0]


# -- checkpoint --------------------------------------------------------------------------------------------------------


def test_a_checkpoint_has_the_same_gradients_also_of_parameters_inside() -> None:
    rng = np.random.default_rng(1)
    w = lamella.Parameter(rng.standard_normal((4, 4)))
    calls = []

    def block(x: Any, y: Any, times: int) -> Any:
        calls.append(lamella.is_recording())
        return lamella.tanh(x @ w) * y * times

    gradients = []
    for run in (block, lambda *args: lamella.checkpoint(block, *args)):
        x, y = leaf(np.ones((3, 4))), leaf(np.full((3, 4), 2.0))
        w.grad = None
        z = run(x * 1, y, 3)
        (z * z).sum().backward()
        gradients.append((z.data, x.grad, y.grad, w.grad))
    for plain, again in zip(*gradients, strict=True):
        np.testing.assert_array_equal(plain, again)
    assert calls == [True, False, True]


def test_a_checkpoint_of_data_alone_trains_the_parameters_inside() -> None:
    w = lamella.Parameter(np.ones(3))
    lamella.checkpoint(lambda x: (x * w).sum(), lamella.tensor([1.0, 2.0, 3.0], dtype="float64")).backward()
    assert w.grad.tolist() == [1, 2, 3]
    with lamella.no_grad():
        assert not lamella.checkpoint(lambda x: x * w, lamella.ones(3, "float64")).requires_grad


def test_a_checkpoint_holds_less_memory() -> None:
    def block(x: Any) -> Any:
        for _ in range(10):
            x = lamella.sin(x)
        return x

    def held(run: Any) -> int:
        x = leaf(np.ones(1 << 14))
        tracemalloc.start()
        y = run(x)
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        y.sum().backward()
        return memory

    assert held(lambda x: lamella.checkpoint(block, x)) <= 0.25 * held(block)


def test_a_parameter_changed_before_its_checkpoint_is_recomputed_is_detected() -> None:
    w = lamella.Parameter(np.ones(3))
    y = lamella.checkpoint(lambda x: x * w, leaf(np.ones(3)))
    with lamella.no_grad():
        w[...] = 2.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_checkpoint_refuses_what_it_cannot_do() -> None:
    with pytest.raises(TypeError, match="checkpoint: at least one input must be a tensor"):
        lamella.checkpoint(lambda x: x, 1.0)
    with pytest.raises(TypeError, match="checkpoint: the function must return one tensor, got tuple"):
        lamella.checkpoint(lambda x: (x, x), lamella.ones(1))


# -- grad and gradcheck ------------------------------------------------------------------------------------------------


def test_grad_gives_the_derivative_of_a_function() -> None:
    cube = lamella.grad(lambda x: x**3)
    assert float(cube(2.0)) == 12
    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    dx, dy = lamella.grad(lambda x, y, k: (x * y * k).sum(), (0, 1))(x, y, k=2.0)
    assert dx.data.tolist() == [6, 8]
    assert dy.data.tolist() == [2, 4]
    assert dx.dtype == "float64"
    assert lamella.grad(lambda x, y: y * 1.0)(x, lamella.tensor(3.0)).data.tolist() == [0, 0]
    with lamella.no_grad():
        assert float(cube(lamella.tensor(2.0))) == 12


def test_grad_leaves_its_arguments_alone() -> None:
    x = leaf([1.0, 2.0])
    lamella.grad(lambda t: (t * t).sum())(x)
    assert x.grad is None


def test_grad_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match=r"grad: the function must return one element, got shape \(2,\)"):
        lamella.grad(lambda x: x * 2)(np.ones(2))
    with pytest.raises(TypeError, match="grad: the function must return a tensor, got float"):
        lamella.grad(lambda x: 1.0)(np.ones(2))
    with pytest.raises(TypeError, match="requires_grad needs a floating dtype, got int64"):
        lamella.grad(lambda x: x * 2)(3)
    with pytest.raises(NotImplementedError, match="no gradient of a gradient"):
        lamella.grad(lamella.grad(lambda x: x**3))(2.0)


def planted(derivative: Any) -> Any:
    @lamella.op
    def square(x: Any) -> Any:
        return x * x, lambda dy: (derivative(x, dy),)

    return square


WRONG = {
    "a factor": lambda x, dy: dy * x,
    "a sign": lambda x, dy: -2 * x * dy,
    "a constant": lambda x, dy: 2 * x * dy + 1e-3,
    "one element": lambda x, dy: 2 * x * dy * (np.arange(x.size) != 3),
    "the upstream gradient left out": lambda x, dy: 2 * x,
    "NaN": lambda x, dy: dy * np.nan,
    "one NaN": lambda x, dy: np.where(np.arange(x.size) == 2, np.nan, 2 * x * dy),
    "infinite": lambda x, dy: dy * np.inf,
    "missing": lambda x, dy: None,
}


@pytest.mark.parametrize("derivative", WRONG.values(), ids=WRONG.keys())
def test_gradcheck_finds_a_planted_wrong_derivative(derivative: Any) -> None:
    with pytest.raises(AssertionError, match=r"gradcheck: input 0, element \d+ of shape \(5,\): backward gives"):
        lamella.gradcheck(planted(derivative), np.linspace(0.5, 1.5, 5))


def test_gradcheck_passes_right_derivatives_and_checks_every_input_and_result() -> None:
    right = planted(lambda x, dy: 2 * x * dy)
    x = np.linspace(-1.0, 1.0, 5)
    assert lamella.gradcheck(right, x.astype("float32"))
    assert lamella.gradcheck(lambda x: (right(x), x * 3, lamella.ones(2)), x)
    assert lamella.gradcheck(right, np.ones((0, 3)))
    with lamella.no_grad():
        assert lamella.gradcheck(right, x)
    wrong = planted(lambda x, dy: 3 * x * dy)
    for call in (lambda a, b: right(a) + wrong(b), lambda a, b: (right(a), wrong(b))):
        with pytest.raises(AssertionError, match="gradcheck: input 1, element"):
            lamella.gradcheck(call, x, x)
    with pytest.raises(TypeError, match="at least one input must be a floating array or tensor"):
        lamella.gradcheck(right, np.arange(3), 2)


def test_gradcheck_looks_at_large_inputs_here_and_there() -> None:
    calls = []

    def count(x: Any) -> Any:
        calls.append(1)
        return x * 2

    assert lamella.gradcheck(count, np.ones(1001), max_elements=10)
    assert len(calls) <= 21


# -- what a stranger found ------------------------------------------------------------------------------------------


def test_checkpoint_drops_the_same_values_when_it_computes_again(device: Device) -> None:
    import lamella.layers as L

    linear = L.Linear(50, 50, rng=lamella.Generator(0)).to(device)
    drop = L.Dropout(0.5, rng=lamella.Generator(1))
    x = lamella.tensor(np.ones((1, 50), np.float32), device=device, requires_grad=True)
    y = lamella.checkpoint(lambda x: drop(linear(x)), x)
    after_forward = drop.rng.state
    y.sum().backward()
    to_numpy = lamella.backend.backend_for(device).to_numpy
    np.testing.assert_array_equal(to_numpy(linear.bias.grad) != 0, y.to_numpy()[0] != 0)
    assert drop.rng.state == after_forward  # the next step draws on, as without checkpoint


def test_checkpoint_of_a_function_that_draws_otherwise_the_second_time_says_so() -> None:
    rng, calls = lamella.Generator(0), []

    def fickle(x: lamella.Tensor) -> lamella.Tensor:
        calls.append(1)
        return x * rng.uniform(2 if len(calls) == 1 else 3).sum().item()

    x = lamella.tensor([1.0], requires_grad=True)
    with pytest.raises(RuntimeError, match="must draw the same random numbers"):
        lamella.checkpoint(fickle, x).backward()


@pytest.mark.parametrize("wrong", [lambda x: x * x, lambda x: (x, x, x), lambda x: [x, None]])
def test_an_op_that_forgets_its_backward_is_told_so(wrong: Any) -> None:
    x = lamella.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(TypeError, match=r"an op must return \(y, backward\), got"):
        lamella.op(wrong)(x)


def test_more_gradients_than_arguments_are_refused() -> None:
    @lamella.op
    def double(x: Any) -> Any:
        return 2 * x, lambda dy: (2 * dy, 2 * dy)

    with pytest.raises(ValueError, match="at most 1 gradients, got 2"):
        double(lamella.tensor([1.0], requires_grad=True)).backward()
