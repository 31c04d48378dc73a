"""Recycled memory: nobody can see that a block was used before, and no block is used twice at once."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

import lamella
from lamella.backend import backend_for
from lamella.backend.buffers import SMALLEST, BufferPool, _size_class, is_view

LENGTH = SMALLEST // 4  # float32 numbers of the smallest recycled array


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (LENGTH,), (3, LENGTH // 2 + 1), (1, LENGTH, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "float16"])
def test_arrays_are_as_numpy_makes_them(shape: tuple[int, ...], dtype: str) -> None:
    array, expected = BufferPool().empty(shape, dtype), np.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert (array.shape, array.strides, array.dtype) == (expected.shape, expected.strides, expected.dtype)
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.flags.aligned


def test_large_arrays_start_at_a_cache_line() -> None:
    pool = BufferPool()
    assert all(address(pool.empty((LENGTH + i,), "float32")) % 64 == 0 for i in range(5))


def test_a_dropped_array_is_recycled() -> None:
    pool = BufferPool()
    first = pool.empty((LENGTH,), "float32")
    where = address(first)
    del first
    assert address(pool.empty((LENGTH // 2, 2), "int32")) == where
    assert pool.figures()[1] == _size_class(SMALLEST)


HOLDERS = {
    "the array": lambda a: a,
    "a view": lambda a: a[1:5],
    "a view of a view": lambda a: a[::2].reshape(-1, 2).T[0],
    "an empty view": lambda a: a[:0],
    "a memoryview": memoryview,
    "a slice of a memoryview": lambda a: memoryview(a)[3:4],
    "bytes that NumPy reads": lambda a: np.frombuffer(a, "uint8"),
    "another library by DLPack": np.from_dlpack,
    "a DLPack capsule": lambda a: a.__dlpack__(),
    "a flat iterator": lambda a: a.flat,
    "an element's field": lambda a: a.view("int32").real,
    "a tensor": lambda a: lamella.Tensor(a),
    "a tensor's view": lambda a: lamella.Tensor(a)[2:].reshape(-1, 1),
    "a closure": lambda a: lambda: a,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_memory_is_not_used_again_while_anything_refers_to_it(hold) -> None:
    pool = BufferPool()
    array = pool.empty((LENGTH,), "float32")
    where = address(array)
    holder = hold(array)
    del array
    others = [pool.empty((LENGTH,), "float32") for _ in range(3)]
    assert where not in [address(other) for other in others]
    del holder
    gc.collect()
    assert address(pool.empty((LENGTH,), "float32")) == where


def test_values_survive_everything_that_is_asked_of_the_pool_meanwhile() -> None:
    pool = BufferPool()
    kept = []
    for i in range(30):
        array = pool.empty((LENGTH + 1000 * (i % 3),), "float32")
        array.fill(i)
        if i % 3 == 0:
            kept.append((i, array[5:-5]))
    assert all((view == i).all() for i, view in kept)


def test_threads_never_share_a_block() -> None:
    pool = BufferPool()
    failures: list[str] = []

    def work(number: int) -> None:
        for round_ in range(60):
            array = pool.empty((LENGTH,), "float32")
            array[::4096] = number + round_ * 100
            view = array[::4096]
            del array
            pool.empty((LENGTH,), "float32")[::4096] = -1
            if not (view == number + round_ * 100).all():
                failures.append(f"thread {number}, round {round_}")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    assert pool.figures()[1] <= 12 * _size_class(SMALLEST)


def test_figures_count_used_and_held_bytes() -> None:
    pool = BufferPool()
    size = _size_class(SMALLEST)
    a, b = pool.empty((LENGTH,), "float32"), pool.empty((LENGTH,), "float32")
    assert pool.figures() == (2 * size, 2 * size)
    del b
    assert pool.figures() == (size, 2 * size)
    pool.trim()
    assert pool.figures() == (size, size)
    a[...] = 1
    del a
    pool.trim(size)
    assert pool.figures() == (0, size)
    pool.trim()
    assert pool.figures() == (0, 0)


def test_free_memory_beyond_the_limit_is_given_back_at_the_next_request() -> None:
    size = _size_class(SMALLEST)
    pool = BufferPool(limit=2 * size)
    arrays = [pool.empty((LENGTH,), "float32") for _ in range(6)]
    assert pool.figures() == (6 * size, 6 * size)
    del arrays
    again = pool.empty((LENGTH,), "float32")  # a recycled block: still the others go
    assert pool.figures() == (size, 3 * size)
    del again
    large = pool.empty((8 * LENGTH,), "float32")  # larger than the limit: nothing stays beside it
    assert pool.figures()[1] == large.nbytes
    del large
    small = pool.empty((LENGTH,), "float32")
    assert pool.figures() == (size, size)
    del small


@pytest.mark.parametrize("nbytes", [SMALLEST, SMALLEST + 1, 3 * SMALLEST - 1, 10**8 + 7])
def test_at_most_an_eighth_of_a_block_is_left_unused(nbytes: int) -> None:
    assert nbytes <= _size_class(nbytes) <= 1.125 * nbytes


def test_the_cpu_reports_its_pool() -> None:
    backend = backend_for("cpu")
    before = backend.memory(lamella.device("cpu")).used
    array = backend.empty((LENGTH,), "float32", lamella.device("cpu"))
    figures = backend.memory(lamella.device("cpu"))
    assert figures.used - before == _size_class(array.nbytes)
    assert figures.reserved >= figures.used
    assert figures.total >= figures.reserved


def test_a_recycled_array_counts_as_whole_and_what_is_cut_from_it_as_a_view() -> None:
    array = BufferPool().empty((1000, 1000), "float32")
    assert not is_view(array)
    assert not is_view(np.ones(3))
    for view in (array[1:], array.reshape(-1), array.T, array[1:][1:], np.ones(3)[1:]):
        assert is_view(view)


def test_a_large_gradient_is_handed_to_its_leaf_without_a_copy() -> None:
    large = []

    @lamella.op
    def recorded(x: np.ndarray) -> object:
        def backward(dy: np.ndarray) -> tuple[np.ndarray]:
            dx = lamella.backend.backend_of(x).empty(x.shape, x.dtype, lamella.device("cpu"))
            dx[...] = dy
            large.append(address(dx))
            return (dx,)

        return x.copy(), backward

    x = lamella.tensor(np.ones((1000, 1000), np.float32), requires_grad=True)
    recorded(x).backward(np.ones((1000, 1000), np.float32))
    assert address(x.grad) == large[0]


def test_the_whole_of_an_array_that_nobody_else_holds_is_no_view() -> None:
    pool = BufferPool()
    large = pool.empty((1 << 10, 1 << 10), np.float32)
    assert not is_view(large)
    assert not is_view(np.empty(3))
    assert is_view(large[1:])
    assert is_view(large.reshape(-1))  # `large` holds it too
    assert is_view(np.broadcast_to(np.empty(1), (5,)))
    assert is_view(np.empty((2, 3)).T)
    small_alone, large_alone = is_view(np.empty(6).reshape(2, 3)), is_view(pool.empty((1 << 20,), "f4").reshape(2, -1))
    assert not small_alone  # pytest's assert would hold the array before reshape
    assert not large_alone
