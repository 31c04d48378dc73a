"""Rotary position embedding: complex numbers in float64 as the judge, both orders of pairs, every variant."""

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
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants

SOURCE = KERNELS / "rotary.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}
UNIT = {np.float32: 2.0**-23, np.float16: 2.0**-10, ml_dtypes.bfloat16: 2.0**-7, np.float64: 2.0**-50}


def turned(x: Any, angles: Any, interleaved: bool, dim: int) -> Any:
    """(a + i b) exp(i angle) in float64; ``angles``: shape ``(..., T, dim / 2)``, broadcast."""
    y = x.astype(np.float64)
    a, b = (slice(0, dim, 2), slice(1, dim, 2)) if interleaved else (slice(0, dim // 2), slice(dim // 2, dim))
    z = (y[..., a] + 1j * y[..., b]) * np.exp(1j * angles)
    y[..., a], y[..., b] = z.real, z.imag
    return y


def angles(positions: Any, dim: int, theta: float = 10000.0) -> Any:
    return np.asarray(positions, np.float64)[..., None] * theta ** (-2.0 * np.arange(dim // 2) / dim)


def run_variant(text: str, defines: tuple[str, ...], seeds: Any = (0,)) -> None:
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector, interleaved = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"]), macros["INTERLEAVED"] == "1"
    threads, count = 16, 9
    for pairs, rest, width, outer, length, kind in (
        (2, 1, 4, 4, 3, "offset"), (3, 0, 2, 4, 2, "shared"), (1, 2, 1, 6, 5, "each"), (1, 0, 2, 2, 1, "wrong"),
        (5, 0, 8, 2, 2, "offset"),
    ):  # fmt: skip
        dim = 2 * pairs * vector
        cols, rows = dim + rest * vector, outer * length
        rng = np.random.default_rng(cols)
        x, y = rng.standard_normal((rows, cols)).astype(dtype), np.zeros((rows, cols), dtype)
        table = kernels.rotary_table(dim, count).astype(np.float32)
        positions, rows_each, offset = None, rows, 0
        places = np.arange(rows) % length
        if kind == "offset":
            offset = count - length
            place_of = offset + places
        elif kind == "shared":
            positions = np.array([8, 0])
            place_of = positions[places]
        else:
            rows_each = rows // 2  # two sequences
            positions = np.stack([rng.permutation(count)[:length] for _ in range(2)])
            if kind == "wrong":
                positions[1, 0] = 9 if vector > 1 else -1
            place_of = positions[np.arange(rows) // rows_each, places]
        for sign in (1.0, -1.0):
            record = np.zeros(3, np.int64)
            units = (dim // 2 + cols - dim) // vector
            grid = (-(-units // width) * -(-rows // (threads // width)),)
            arguments = (
                x, table, positions, y, record, np.int64(rows), np.int64(length), np.int64(rows_each), np.int32(cols),
                np.int32(dim), np.int64(count), np.int64(offset), np.float32(sign), np.int32(width), np.int64(3),
            )  # fmt: skip
            run_kernel(text, "rotary", grid, (threads,), arguments, defines=defines, seeds=seeds)
            inside = (place_of >= 0) & (place_of < count)
            expected = turned(x, sign * angles(place_of, dim), interleaved, dim)[inside]
            found = y.astype(np.float64)
            error = abs(found[inside] - expected).max()
            assert error <= UNIT[dtype] * abs(expected).max()
            np.testing.assert_array_equal(y[:, dim:].astype(float), x[:, dim:].astype(float))
            assert np.isnan(found[~inside][:, :dim]).all()
            wrong = place_of[~inside]
            np.testing.assert_array_equal(record, [3, wrong[0], count] if wrong.size else [0, 0, 0])


_QUICK = {"DTYPE=bfloat16 VECTOR=8 INTERLEAVED=1"}


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
    for defines in (("DTYPE=float", "VECTOR=4", "INTERLEAVED=1"), ("DTYPE=float", "VECTOR=4", "INTERLEAVED=0"),
                    ("DTYPE=half", "VECTOR=1", "INTERLEAVED=1")):  # fmt: skip
        run_variant(read_source(broken), defines)


_HALVES = (np.float16, ml_dtypes.bfloat16)


# -- the layer, on every device ---------------------------------------------------------------------------------------
def on(device: Device, x: Any) -> Any:
    return backend_for(device).from_numpy(np.asarray(x), device)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dim", [None, 4])
@pytest.mark.parametrize("kind", ["offset", "shared", "each"])
def test_values_and_gradient(interleaved: bool, dim: int | None, kind: str, device: Device) -> None:
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((2, 3, 5, 8), np.float32) for _ in range(2))
    places: Any = {"offset": 7 + np.arange(5), "shared": np.array([3, 1, 4, 1, 5]), "each": rng.integers(0, 99, (2, 5))}
    leaf = lamella.tensor(x, device=device, requires_grad=True)
    given = {"offset": 7} if kind == "offset" else {"positions": on(device, places[kind])}
    y = L.rotary_embedding(leaf, dim=dim, interleaved=interleaved, **given)
    d = dim or 8
    angle = angles(places[kind], d)
    angle = angle[:, None] if kind == "each" else angle
    np.testing.assert_allclose(y.to_numpy(), turned(x, angle, interleaved, d), rtol=1e-5, atol=2e-6)
    y.backward(on(device, dy))
    gradient = backend_for(device).to_numpy(leaf.grad)
    np.testing.assert_allclose(gradient, turned(dy, -angle, interleaved, d), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, *(pytest.param(t, marks=pytest.mark.slow) for t in _HALVES)])
def test_every_dtype_far_out(dtype: Any, device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((2, 4, 16)).astype(dtype)
    y = L.rotary_embedding(on(device, x), offset=50_000).to_numpy()
    assert y.dtype == dtype
    expected = turned(x, angles(50_000 + np.arange(4), 16), False, 16)
    assert abs(y.astype(np.float64) - expected).max() <= UNIT[dtype] * abs(expected).max()


def test_a_piece_at_a_time_is_the_whole(device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 4)).astype(np.float32)
    layer = L.RotaryEmbedding()
    whole = layer(on(device, x)).to_numpy()
    pieces = [layer(on(device, x[:, :, i : i + 2]), offset=i).to_numpy() for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=2), whole)


def test_products_depend_on_the_distance_alone() -> None:
    q, k = (np.random.default_rng(i).standard_normal((1, 8)) for i in (0, 1))

    def product(i: int, j: int) -> float:
        return float((L.rotary_embedding(q, offset=i).data @ L.rotary_embedding(k, offset=j).data.T).item())

    assert product(3, 10) == pytest.approx(product(40, 47), rel=1e-12)
    assert product(3, 10) != pytest.approx(product(3, 11), rel=1e-3)


def test_the_two_orders_are_permutations_of_each_other(device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    order = np.array([0, 2, 4, 6, 1, 3, 5, 7])
    halves = L.rotary_embedding(on(device, x[:, order])).to_numpy()
    np.testing.assert_allclose(halves, L.rotary_embedding(on(device, x), interleaved=True).to_numpy()[:, order])


def test_given_frequencies_take_the_place_of_theta(device: Device) -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    y = L.RotaryEmbedding(frequencies=[0.5, 0.25])(on(device, x)).to_numpy()
    expected = turned(x, np.arange(3)[:, None] * np.array([0.5, 0.25]), False, 4)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_one_launch_each_way_and_a_wrong_position_at_the_next_wait() -> None:
    with lamella.testing.simulator() as sim:
        device = lamella.device("simulator")
        x = lamella.tensor(np.ones((2, 3, 8), np.float32), device=device, requires_grad=True)
        L.rotary_embedding(x)
        sim.reset()
        y = L.rotary_embedding(x)
        y.backward(y.data)
        assert dict(sim.launches) == {"rotary": 2}
        assert sim.synchronizations == 0
        y = L.rotary_embedding(x, on(device, np.array([0, 1, 4096])))
        with pytest.raises(ValueError, match=r"rotary: positions must be in 0 … 4095, got 4096 \(found on simulator"):
            y.to_numpy()
        assert L.rotary_embedding(x, on(device, np.array([0, 1, 4096])), max_positions=4097).to_numpy().size


def test_explain_names_the_variant() -> None:
    x, table = np.ones((3, 16), np.float32), kernels.rotary_table(16, 4).astype(np.float32)
    assert "cpu backend runs no CUDA kernels" in kernels.explain("rotary", x, table)
    with lamella.testing.simulator() as sim:
        a, t = sim.from_numpy(x), sim.from_numpy(table)
        said = kernels.explain("rotary", a, t)
        assert said.startswith("rotary [DTYPE=float VECTOR=4 INTERLEAVED=0], 1 blocks of 256 threads: one read, one wr")
        small = sim.from_numpy(table[:, :4].copy())
        assert "the 2 pairs are no multiple of 4" in kernels.explain("rotary", a, small)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: L.rotary_embedding(x[0, 0]), ValueError, r"x must have shape \(..., T, D\), got \(6,\)"),
        (lambda x: L.rotary_embedding(x, dim=3), ValueError, "dim must be even and at most 6"),
        (lambda x: L.rotary_embedding(x, dim=8), ValueError, "at most 6, the last axis of x, got 8"),
        (lambda x: L.rotary_embedding(x, offset=-1), ValueError, "offset must be at least 0, got -1"),
        (lambda x: L.rotary_embedding(x, np.arange(3.0)), TypeError, "positions must be integers, got float64"),
        (lambda x: L.rotary_embedding(x, np.arange(4)), ValueError, r"positions must have shape \(T,\) or \(N, T\)"),
        (lambda x: L.rotary_embedding(x, np.arange(3), offset=2), ValueError, "offset must be 0 where positions"),
        (lambda x: L.rotary_embedding(x, np.array([0, -2, 1])), ValueError, "positions must be in 0 … 4095, got -2"),
        (lambda x: L.rotary_embedding(x, frequencies=[1.0]), ValueError, "must be 3 numbers for dim=6, got 1"),
        (lambda x: L.rotary_embedding(x.astype(int)), TypeError, "x must be floating point"),
        (lambda x: L.rotary_embedding(None), TypeError, "x must be a tensor or an array, got None"),
        (lambda x: L.rotary_embedding(x, [0, 1, 2]), TypeError, "positions must be a tensor or an array, got a list"),
        (lambda x: L.rotary_embedding(x, theta=0), ValueError, "theta must be positive and finite, got 0"),
        (lambda x: L.rotary_embedding(x, frequencies=3), TypeError, "frequencies must be numbers, .*, got 3"),
        (lambda x: L.RotaryEmbedding(frequencies=[np.inf]), ValueError, r"frequencies must be finite, got \(inf,\)"),
        (lambda x: L.RotaryEmbedding(5), ValueError, "RotaryEmbedding: dim must be even, got 5"),
        (lambda x: kernels.rotary(x, np.ones((4, 6))), ValueError, r"table must be float32 of shape \(length, dim\)"),
        (lambda x: kernels.rotary(x, np.ones((2, 6), "f4")), ValueError, r"positions 0 … 2 must be in 0 … 1, got"),
    ],
)  # fmt: skip
def test_errors_name_argument_rule_and_value(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(np.ones((2, 3, 6), np.float32))
