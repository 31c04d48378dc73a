"""Embedding: what is looked up, what flows back, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella import kernels
from lamella.backend import Device, backend_for, read_source
from lamella.testing import assert_close, run_kernel

from .kernel_heads import KERNELS, Variant, variants


def on(device: Device, array: Any) -> Any:
    return backend_for(device).from_numpy(np.asarray(array), device)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (7,), (2, 3), (2, 0, 3), (300, 40)], ids=str)
@pytest.mark.parametrize("dim", [1, 3, 511, 512, 700])
def test_values_and_gradient_keep_their_definition(shape: tuple[int, ...], dim: int, device: Device) -> None:
    if dim > 3 and len(shape) == 2 and shape[0] > 100 and device.kind != "cpu":
        pytest.skip("one long case is enough")
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 11, shape)
    weight, dy = (rng.standard_normal(s, dtype=np.float32) for s in ((11, dim), (*shape, dim)))
    y = kernels.embedding(on(device, indices), on(device, weight))
    np.testing.assert_array_equal(backend_for(device).to_numpy(y), weight[indices])
    dweight = kernels.embedding_backward(on(device, dy), on(device, indices), 11)
    expected = np.zeros((11, dim))
    np.add.at(expected, indices.reshape(-1), dy.reshape(-1, dim).astype(np.float64))
    assert_close(dweight, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_every_integer_dtype_is_taken(kind: str, device: Device) -> None:
    layer = L.Embedding(300, 2).to(device)
    indices = np.array([[0, 100], [100, 7]], kind)
    y = layer(on(device, indices))
    np.testing.assert_array_equal(y.to_numpy(), layer.weight.to_numpy()[indices.astype(int)])
    y.sum().backward()
    counts = np.bincount(indices.astype(int).reshape(-1), minlength=300).astype(np.float32)
    np.testing.assert_array_equal(backend_for(device).to_numpy(layer.weight.grad)[:, 0], counts)


def test_the_padding_row_is_zero_and_stays_zero(device: Device) -> None:
    layer = L.Embedding(5, 3, padding_idx=-2).to(device)
    assert layer.padding_idx == 3
    assert not layer.weight.to_numpy()[3].any()
    y = layer(on(device, np.array([3, 0, 3, 1])))
    assert not y.to_numpy()[[0, 2]].any()
    y.sum().backward()
    np.testing.assert_array_equal(
        backend_for(device).to_numpy(layer.weight.grad)[:, 0], np.array([1, 1, 0, 0, 0], np.float32)
    )


def test_the_gradient_is_added_up_in_the_order_of_the_indices() -> None:
    dy = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    wide = np.concatenate([dy] * 150, axis=1)  # long rows take the other way
    indices = np.zeros(5000, np.int64)
    one, other = kernels.embedding_backward(dy, indices, 1), kernels.embedding_backward(wide, indices, 1)
    total = np.zeros(4, np.float32)
    for row in dy:
        total += row
    np.testing.assert_array_equal(one[0], total)
    np.testing.assert_array_equal(other[0, :4], total)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_gradients_are_added_up_in_float32(dtype: Any, device: Device) -> None:
    layer = L.Embedding(2, 1).to(device, dtype=dtype)
    layer(on(device, np.zeros(3001, np.int64))).sum().backward()
    # one by one in float16 the sum would stick at 2048, in bfloat16 at 256
    assert abs(float(backend_for(device).to_numpy(layer.weight.grad)[0, 0]) - 3001) <= 8


def test_initial_values_are_normal() -> None:
    w = L.Embedding(200, 100, rng=lamella.Generator(0)).weight.to_numpy()
    assert abs(w.mean()) < 0.03
    assert abs(w.std() - 1) < 0.02


def test_it_writes_its_gradient_into_an_optimizers_buffer() -> None:
    layer = L.Embedding(4, 2, rng=lamella.Generator(0))
    before = layer.weight.to_numpy().copy()
    optimizer = lamella.training.SGD(layer.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        layer(np.array([1, 1, 3])).sum().backward()
        optimizer.step()
    expected = before - 2 * 0.5 * np.array([[0], [2], [0], [1]], np.float32)
    assert_close(layer.weight.to_numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: L.Embedding(5, 2)(np.array([0, 5])), ValueError, r"indices must be in 0 … 4, got 5"),
        (lambda: L.Embedding(5, 2)(np.array([-1, 0])), ValueError, r"indices must be in 0 … 4, got -1"),
        (lambda: L.Embedding(5, 2)(np.array([0.0])), TypeError, "indices must be integers, got float64"),
        (lambda: L.Embedding(5, 2)(np.array([True])), TypeError, "indices must be integers, got bool"),
        (lambda: L.Embedding(5, 2, padding_idx=5), ValueError, "padding_idx must be in -5 … 4, got 5"),
        (lambda: L.Embedding(0, 2), ValueError, "num_embeddings must be at least 1, got 0"),
        (lambda: L.Embedding(3, 2.0), TypeError, "embedding_dim must be an int, got 2.0"),
        (lambda: L.embedding(np.array([0]), np.ones(3)), ValueError, r"weight must have shape \(num_embeddings"),
    ],
)
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("wrong", [3, -1, -(2**40)])
def test_on_a_device_a_wrong_index_gives_nan_and_raises_at_the_next_wait(wrong: int) -> None:
    with lamella.testing.simulator() as sim:
        layer = L.Embedding(3, 2).to("simulator")
        sim.reset()
        y = layer(on(lamella.device("simulator"), np.array([0, wrong])))
        assert sim.synchronizations == 0
        with pytest.raises(ValueError, match=rf"embedding: indices must be in 0 … 2, got {wrong} \(found on simulator"):
            y.to_numpy()
        assert not np.isnan(y.to_numpy()[0]).any()
        assert np.isnan(y.to_numpy()[1]).all()


def test_float64_on_a_device_has_no_kernel_and_gives_nan() -> None:
    with lamella.testing.simulator():
        layer = L.Embedding(3, 2).to("simulator", dtype="float64")
        y = layer(on(lamella.device("simulator"), np.array([0, 3, -1]))).to_numpy()
    assert not np.isnan(y[0]).any()
    assert np.isnan(y[1:]).all()


# -- kernels ----------------------------------------------------------------------------------------------------------
SOURCE = KERNELS / "embedding.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}


def run_variant(text: str, defines: tuple[str, ...], seeds: Any = (0,)) -> None:
    """Forward and backward with short and long runs of one index, which end within chunks and at their ends."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"])
    integer = np.int32 if macros["INDEX_BYTES"] == "4" else np.int64
    count, chunk, threads = 6, 4, 16
    for width, packs, given in (
        (2, 3, [5, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 1, -1, 6, 4]),
        (4, 2, [1] * 8 + [0] * 4 + [2, 3, 3, 0]),
        (1, 1, [2]),
        (1, 1, [1, 1, 0, 1, 9, 9, 9, 9, 9]),
    ):
        rng = np.random.default_rng(len(given))
        cols = packs * vector
        indices = rng.permutation(given).astype(integer)
        rows = len(indices)
        weight, dy = (rng.standard_normal((n, cols)).astype(dtype) for n in (count, rows))
        tiles, depth = -(-packs // width), threads // width
        y, record = np.zeros((rows, cols), dtype), np.zeros(3, np.int64)
        sizes = tuple(map(np.int64, (rows, cols, count)))
        grid = -(-rows // depth) * tiles
        arguments = (indices, weight, y, record, *sizes, np.int32(width), np.int64(5))
        run_kernel(text, "embedding_forward", (grid,), (threads,), arguments, defines=defines, seeds=seeds)
        inside = (indices >= 0) & (indices < count)
        np.testing.assert_array_equal(y[inside], weight[indices[inside]])
        assert np.isnan(y[~inside].astype(float)).all()
        if inside.all():
            assert not record.any()
        else:
            assert record[0] == 5
            assert record[1] in indices[~inside]
            assert record[2] == count
        keys = np.zeros(rows + 1, np.int64)
        arguments = (indices, keys, sizes[0], sizes[2])
        run_kernel(text, "embedding_keys", (2,), (threads,), arguments, defines=defines, seeds=seeds)
        np.testing.assert_array_equal(keys[:-1], (np.where(inside, indices, count).astype(int) << 32) + np.arange(rows))
        assert keys[-1] == 0
        keys = np.sort(keys[:-1])
        for padding in (-1, 2):
            dweight = np.full((count, cols), 7.0).astype(dtype)
            partial = np.full((2 * -(-rows // chunk), cols), np.nan, np.float32)
            numbers = (*sizes, np.int64(padding), np.int32(width), np.int32(chunk))
            chunks = -(-rows // chunk)
            grid = (-(-chunks // depth) * tiles,)
            arguments = (keys, dy, dweight, partial, *numbers)
            run_kernel(text, "embedding_chunks", grid, (threads,), arguments, defines=defines, seeds=seeds)
            arguments = (keys, partial, dweight, *numbers)
            run_kernel(text, "embedding_joined", grid, (threads,), arguments, defines=defines, seeds=seeds)
            for row in range(count):
                if row == padding or row not in indices:
                    np.testing.assert_array_equal(dweight[row].astype(float), 7.0)
                else:
                    exact = dy[indices == row].astype(np.float64).sum(axis=0)
                    plain = dy[indices == row].astype(np.float32).sum(axis=0).astype(dtype).astype(float)
                    error = abs(dweight[row].astype(np.float64) - exact).max()
                    assert error <= 2 * abs(plain - exact).max() + 2e-6


_QUICK = {"INDEX_BYTES=4 DTYPE=float VECTOR=4", "INDEX_BYTES=8 DTYPE=bfloat16 VECTOR=1"}


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, id=str(v), marks=() if " ".join(v.defines) in _QUICK else pytest.mark.slow)
        for v in variants(SOURCE)
    ],
)
def test_a_variant_is_right(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines, seeds=(0, 1))


def judge(broken: Path, number: int) -> None:
    """`make mutants` calls this."""
    for defines in (("INDEX_BYTES=8", "DTYPE=half", "VECTOR=8"), ("INDEX_BYTES=4", "DTYPE=float", "VECTOR=1")):
        run_variant(read_source(broken), defines, seeds=(0, 1))


def test_a_long_gradient_repeats_bit_for_bit_and_is_accurate() -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 7, 1000)
    indices[200:700] = 3
    dy = (rng.standard_normal((1000, 12)) * 100).astype(np.float32)
    expected = np.zeros((7, 12))
    np.add.at(expected, indices, dy.astype(np.float64))
    with lamella.testing.simulator() as sim:
        device = lamella.device("simulator")
        found = [
            sim.to_numpy(kernels.embedding_backward(on(device, dy), on(device, indices), 7, padding_idx=-2))
            for _ in range(2)
        ]
    np.testing.assert_array_equal(found[0], found[1])
    expected[5] = 0
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-2)
    plain = kernels.embedding_backward(dy, indices, 7, padding_idx=5)
    assert abs(found[0] - expected).max() <= 2 * abs(plain - expected).max()


def test_launches_are_few_and_nothing_waits() -> None:
    with lamella.testing.simulator() as sim:
        layer = L.Embedding(50, 8).to("simulator")
        indices = on(lamella.device("simulator"), np.arange(100) % 50)
        sim.reset()
        y = layer(indices)
        y.backward(y.data * 0 + 1)
        assert dict(sim.launches) == {
            "embedding_forward": 1, "embedding_keys": 1, "embedding_chunks": 1, "embedding_joined": 1,
        }  # fmt: skip
        assert sim.synchronizations == 0
        assert (sim.to_numpy(layer.weight.grad) == 2).all()


def test_explain_names_the_variant() -> None:
    indices, weight = np.arange(3), np.ones((5, 6), np.float32)
    assert "cpu backend runs no CUDA kernels" in kernels.explain("embedding", indices, weight)
    with lamella.testing.simulator() as sim:
        i, w = sim.from_numpy(indices), sim.from_numpy(weight)
        said = kernels.explain("embedding", i, w)
        assert said.startswith("embedding_forward [INDEX_BYTES=8 DTYPE=float VECTOR=1]")
        assert "because the 6 columns are no multiple of 4" in said
        said = kernels.explain("embedding_backward", sim.from_numpy(np.ones((3, 8), np.float32)), i, 5)
        assert said.startswith("embedding_chunks [INDEX_BYTES=8 DTYPE=float VECTOR=4], 1 blocks of 256 threads")
        assert "64 sorted indices added up by 2 threads" in said
        assert "no kernel for float64" in kernels.explain("embedding", i, w.astype("float64"))
        assert "nothing is launched" in kernels.explain("embedding", i[:0], w)
