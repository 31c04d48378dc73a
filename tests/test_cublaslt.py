"""The cuBLASLt binding: every call judged by a library that checks the header's rules and does the products itself.

The same bodies run on a GPU where one answers (mark ``gpu``); until they have, the binding is not the default.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lamella.backend import Device, cublaslt, precision, why_unavailable
from lamella.backend.cublaslt import EPILOGUES, CublasLt, CublasLtError, CublasLtUnsupportedError, aux_like
from lamella.backend.cupy_backend import CupyBackend

from .fake_cublaslt import SIGNATURES, FakeCublasLt, FakeCuda, gelu, gelu_slope, tf32

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]

# From cublasLt.h and cublas_api.h 12.9.3 (the same in 13.1.0) and library_types.h 13.0, printed by a C++ program.
HEADER = {
    "CUBLASLT_EPILOGUE_DEFAULT": 1, "CUBLASLT_EPILOGUE_RELU": 2, "CUBLASLT_EPILOGUE_BIAS": 4,
    "CUBLASLT_EPILOGUE_RELU_BIAS": 6, "CUBLASLT_EPILOGUE_RELU_AUX_BIAS": 134, "CUBLASLT_EPILOGUE_GELU": 32,
    "CUBLASLT_EPILOGUE_GELU_BIAS": 36, "CUBLASLT_EPILOGUE_GELU_AUX_BIAS": 164, "CUBLASLT_EPILOGUE_DRELU_BGRAD": 152,
    "CUBLASLT_EPILOGUE_DGELU_BGRAD": 208, "CUBLASLT_EPILOGUE_BGRADA": 256, "CUBLASLT_EPILOGUE_BGRADB": 512,
    "CUDA_R_16F": 2, "CUDA_R_16BF": 14, "CUDA_R_32F": 0, "CUDA_R_64F": 1,
    "CUBLAS_COMPUTE_32F": 68, "CUBLAS_COMPUTE_32F_PEDANTIC": 69, "CUBLAS_COMPUTE_32F_FAST_TF32": 77,
    "CUBLAS_COMPUTE_64F": 70, "CUBLAS_OP_N": 0, "CUBLAS_OP_T": 1,
    "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT": 5, "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET": 6,
    "CUBLASLT_MATMUL_DESC_TRANSA": 3, "CUBLASLT_MATMUL_DESC_TRANSB": 4, "CUBLASLT_MATMUL_DESC_EPILOGUE": 7,
    "CUBLASLT_MATMUL_DESC_BIAS_POINTER": 8, "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER": 11,
    "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD": 12, "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": 1,
    "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK": 3, "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES": 5,
    "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE": 2, "CUBLAS_STATUS_NOT_SUPPORTED": 15,
    "CUBLAS_STATUS_INVALID_VALUE": 7, "CUBLAS_STATUS_ARCH_MISMATCH": 8,
}  # fmt: skip


@dataclass
class Place:
    """A binding, and the way to its device and back."""

    lt: CublasLt
    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    fake: Any = None  # the library, where it is not the real one
    cuda: Any = None


def fake_place() -> Place:
    cuda = FakeCuda()
    fake = FakeCublasLt(cuda)
    return Place(CublasLt(cuda, fake), cuda.put, lambda array: array.get(), fake, cuda)


@pytest.fixture
def fake() -> Iterator[Place]:
    place = fake_place()
    yield place
    if place.fake.broken:
        raise place.fake.broken[0]
    place.fake.answers.clear()
    place.lt.close()
    assert not place.fake.objects, "descriptors, layouts or handles were left behind"


@pytest.fixture(params=["fake", pytest.param("cuda", marks=pytest.mark.gpu)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "fake":
        yield request.getfixturevalue("fake")
        return
    if (reason := why_unavailable("cuda")) is not None:
        pytest.skip(reason)
    backend = CupyBackend(use_cublaslt=True)
    assert backend.cublaslt is not None
    yield Place(backend.cublaslt, lambda values: backend.from_numpy(values, Device("cuda")), backend.to_numpy)
    backend.cublaslt.close()


def drawn(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def wide(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float64)


def close(got: np.ndarray, expected: np.ndarray, dtype: Any, depth: int = 1) -> None:
    """Within the rounding of one dtype, and of float32 sums of ``depth`` terms."""
    accumulated = float(np.finfo(np.float64 if dtype == np.float64 else np.float32).eps) * depth
    bound = (2 * float(ml_dtypes.finfo(dtype).eps) + accumulated) * (np.abs(expected).max(initial=0.0) + 1)
    assert got.shape == expected.shape
    assert np.abs(wide(got) - expected).max(initial=0.0) <= bound


# -- the constants -------------------------------------------------------------------------------------------------
def test_values_are_those_of_the_header() -> None:
    assert {name: kind.code for name, kind in EPILOGUES.items()} == {
        "bgrad_a": HEADER["CUBLASLT_EPILOGUE_BGRADB"],  # their B is our a
        "bgrad_b": HEADER["CUBLASLT_EPILOGUE_BGRADA"],
        "": HEADER["CUBLASLT_EPILOGUE_DEFAULT"],
        **{
            name: HEADER[f"CUBLASLT_EPILOGUE_{name.upper()}"]
            for name in EPILOGUES if name not in ("", "bgrad_a", "bgrad_b")
        },
    }  # fmt: skip
    types = {"float16": "16F", "bfloat16": "16BF", "float32": "32F", "float64": "64F"}
    assert {name: HEADER[f"CUDA_R_{end}"] for name, end in types.items()} == cublaslt._CUDA_TYPE
    compute = {"float32": "32F", "strict": "32F_PEDANTIC", "tf32": "32F_FAST_TF32"}
    assert {name: HEADER[f"CUBLAS_COMPUTE_{end}"] for name, end in compute.items()} == cublaslt._COMPUTE_32F
    for name, value in {
        "CUBLAS_COMPUTE_64F": cublaslt._COMPUTE_64F,
        "CUBLAS_OP_N": cublaslt._OP_N,
        "CUBLAS_OP_T": cublaslt._OP_T,
        "CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT": cublaslt._LAYOUT_BATCH_COUNT,
        "CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET": cublaslt._LAYOUT_BATCH_STEP,
        "CUBLASLT_MATMUL_DESC_TRANSA": cublaslt._DESC_TRANSA,
        "CUBLASLT_MATMUL_DESC_TRANSB": cublaslt._DESC_TRANSB,
        "CUBLASLT_MATMUL_DESC_EPILOGUE": cublaslt._DESC_EPILOGUE,
        "CUBLASLT_MATMUL_DESC_BIAS_POINTER": cublaslt._DESC_BIAS,
        "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER": cublaslt._DESC_AUX,
        "CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD": cublaslt._DESC_AUX_LD,
        "CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES": cublaslt._PREF_WORKSPACE,
        "CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK": cublaslt._PREF_REDUCTION,
        "CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES": cublaslt._PREF_ALIGNMENT_A,
        "CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE": cublaslt._REDUCE_IN_COMPUTE_TYPE,
    }.items():
        assert HEADER[name] == value, name
    assert {HEADER[f"CUBLAS_STATUS_{end}"] for end in ("NOT_SUPPORTED", "INVALID_VALUE", "ARCH_MISMATCH")} == (
        cublaslt._CANNOT
    )


def test_structures_have_the_sizes_of_the_header() -> None:
    result = cublaslt._HeuristicResult
    assert ctypes.sizeof(cublaslt._Algorithm) == 64
    assert (ctypes.sizeof(result), result.workspace.offset, result.state.offset, result.waves.offset) == (
        96,
        64,
        72,
        76,
    )


def test_arguments_have_the_widths_of_the_header() -> None:
    def widths(types: list[Any]) -> list[int]:
        return [ctypes.sizeof(kind) for kind in types]

    assert {name: widths(types) for name, types in SIGNATURES.items()} == {
        name: widths(types) for name, types in cublaslt._PROTOTYPES.items()
    }


# -- products ------------------------------------------------------------------------------------------------------
SIDES = [(1, 1, 1), (3, 4, 5), (1, 7, 5), (5, 7, 1), (5, 1, 7), (33, 17, 65), (129, 64, 31)]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(("m", "k", "n"), SIDES)
def test_products_agree_with_float64(m: int, k: int, n: int, dtype: Any, place: Place) -> None:
    a, b = drawn((m, k), dtype), drawn((k, n), dtype, 1)
    got = place.lt.matmul(place.put(a), place.put(b))
    assert got.dtype == dtype
    close(place.get(got), wide(a) @ wide(b), dtype, k)


VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda x: x,
    "transposed": lambda x: x.T,
    "rows of a wider array": lambda x: x[:, 1:-2],
    "every second row": lambda x: x[::2],
    "rows of a transposed array": lambda x: x.T[1:, 2:],
    "one row": lambda x: x[2:3],
    "one column": lambda x: x[:, 3:4],
    "one row of a transposed array": lambda x: x.T[2:3],
    "one element": lambda x: x[1:2, 3:4],
    "a vector as one row": lambda x: x[1][None],
    "one of every second column": lambda x: x[:, ::2][:, 1:2],
}


@pytest.mark.parametrize("right", VIEWS)
@pytest.mark.parametrize("left", VIEWS)
def test_views_are_taken_without_a_copy(left: str, right: str, place: Place) -> None:
    a, b = drawn((8, 13), np.float32), drawn((8, 13), np.float32, 1)
    x, y = VIEWS[left](a), VIEWS[right](b).T  # (…, K): the second is cut to fit
    k = min(x.shape[1], y.shape[0])
    device_x, device_y = VIEWS[left](place.put(a))[:, :k], VIEWS[right](place.put(b)).T[:k]
    assert place.lt.why_not(device_x, device_y) is None
    close(place.get(place.lt.matmul(device_x, device_y)), wide(x[:, :k]) @ wide(y[:k]), np.float32, k)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((4, 3, 5), (4, 5, 2)),
        ((4, 3, 5), (5, 2)),  # one matrix for all
        ((3, 5), (4, 5, 2)),
        ((2, 3, 4, 5), (2, 3, 5, 6)),
        ((2, 3, 4, 5), (2, 1, 5, 6)),  # the second axis is repeated: two axes cannot be one
        ((2, 1, 4, 5), (1, 3, 5, 6)),
        ((1, 4, 5), (1, 5, 3)),
        ((2, 3, 1, 1), (3, 1, 1)),
    ],
    ids=str,
)
def test_stacks_agree_with_float64(left: tuple[int, ...], right: tuple[int, ...], dtype: Any, place: Place) -> None:
    a, b = drawn(left, dtype), drawn(right, dtype, 1)
    close(place.get(place.lt.matmul(place.put(a), place.put(b))), wide(a) @ wide(b), dtype, left[-1])


def test_heads_of_attention_are_read_where_they_lie(place: Place) -> None:
    q, k = drawn((2, 5, 3, 4), np.float16), drawn((2, 6, 3, 4), np.float16, 1)  # (B, T, h, D)
    heads = [place.put(x).transpose(0, 2, 1, 3) for x in (q, k)]  # (B, h, T, D)
    scores = place.lt.matmul(heads[0], heads[1].swapaxes(-1, -2))
    close(place.get(scores), np.einsum("bqhd,bkhd->bhqk", wide(q), wide(k)), np.float16, 4)
    if place.fake:
        assert [product["count"] for product in place.fake.products] == [3, 3]  # the longer axis in one call


def test_a_stack_that_lies_in_one_piece_is_one_call(fake: Place) -> None:
    a, b = drawn((2, 1, 3, 4, 5), np.float32), drawn((2, 1, 3, 5, 4), np.float32, 1)
    close(fake.get(fake.lt.matmul(fake.put(a), fake.put(b))), wide(a) @ wide(b), np.float32, 5)
    assert [product["count"] for product in fake.fake.products] == [6]


@pytest.mark.parametrize("view", ["whole", "rows of a wider array", "transposed", "stack", "transposed stack"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_out_is_written_or_added_to(accumulate: bool, view: str, place: Place) -> None:
    stack = (2,) if "stack" in view else ()
    a, b = drawn((*stack, 3, 4), np.float32), drawn((*stack, 4, 5), np.float32, 1)
    cut: Callable[[Any], Any] = {
        "whole": lambda x: x,
        "rows of a wider array": lambda x: x[:, 2:7],
        "transposed": lambda x: x.T,
        "stack": lambda x: x,
        "transposed stack": lambda x: x.swapaxes(-1, -2),
    }[view]
    shape = (3, 9) if "wider" in view else (*stack, 5, 3) if "transposed" in view else (*stack, 3, 5)
    before = drawn(shape, np.float32, 2)
    whole = place.put(before)
    out = cut(whole)
    assert place.lt.matmul(place.put(a), place.put(b), out, accumulate=accumulate) is out
    expected = before.copy()
    cut(expected)[...] = wide(a) @ wide(b) + (cut(before) if accumulate else 0)
    close(place.get(whole), wide(expected), np.float32, 4)  # and nothing beside it was touched


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_sum_of_nothing(accumulate: bool, place: Place) -> None:
    out = place.put(np.ones((2, 3), np.float32))
    place.lt.matmul(
        place.put(np.ones((2, 0), np.float32)), place.put(np.ones((0, 3), np.float32)), out, accumulate=accumulate
    )
    np.testing.assert_array_equal(place.get(out), float(accumulate))
    empty = place.lt.matmul(place.put(np.ones((0, 4), np.float32)), place.put(np.ones((4, 3), np.float32)))
    assert empty.shape == (0, 3)


def test_memory_that_is_badly_aligned(place: Place) -> None:
    a, b = drawn((3, 9), np.float16), drawn((5, 3), np.float16, 1)
    aligned = place.lt.matmul(place.put(a)[:, :5], place.put(b))
    shifted = place.lt.matmul(place.put(a)[:, 1:6], place.put(b))  # 2 bytes further on: another algorithm
    close(place.get(aligned), wide(a[:, :5]) @ wide(b), np.float16, 5)
    close(place.get(shifted), wide(a[:, 1:6]) @ wide(b), np.float16, 5)


# -- precision -----------------------------------------------------------------------------------------------------
def test_tf32_is_used_where_it_is_allowed_and_nowhere_else(place: Place) -> None:
    a, b = drawn((40, 64), np.float32), drawn((64, 40), np.float32, 1)
    x, y = place.put(a), place.put(b)
    exact = wide(a) @ wide(b)

    def error() -> float:
        return float(np.abs(wide(place.get(place.lt.matmul(x, y))) - exact).max())

    with precision("tf32"):
        rough = error()
    assert error() <= 1e-4 < 2e-3 <= rough <= 5e-2
    with precision("strict"):
        assert error() <= 1e-4
    if place.fake:
        assert [product["compute"] for product in place.fake.products] == [77, 68, 69]
        assert rough == pytest.approx(np.abs(tf32(a) @ tf32(b) - exact).max(), rel=1e-3)


# -- epilogues -----------------------------------------------------------------------------------------------------
EPILOGUE_SIDES = [(1, 3, 1), (5, 7, 3), (6, 4, 129), (33, 8, 8)]


@pytest.mark.parametrize(("m", "k", "n"), EPILOGUE_SIDES)
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=lambda dtype: np.dtype(dtype).name)
def test_activation_with_bias_forward_and_backward(
    activation: str, dtype: Any, m: int, k: int, n: int, place: Place
) -> None:
    a, b, bias = drawn((m, k), dtype), drawn((k, n), dtype, 1), drawn((n,), dtype, 2)
    forward = f"{activation}_aux_bias"
    shape, aux_dtype = aux_like(forward, m, n, dtype)
    aux = place.put(np.zeros(shape, aux_dtype))
    z = wide(a) @ wide(b) + wide(bias)
    y = np.maximum(z, 0) if activation == "relu" else gelu(z)
    for epilogue, extra in ((forward, aux), (f"{activation}_bias", None)):
        got = place.lt.matmul(place.put(a), place.put(b), epilogue=epilogue, bias=place.put(bias), aux=extra)
        close(place.get(got), y, dtype, k)
    # backward: dz = (dy w) * slope(z), dbias = sum of dz over rows
    dy, w = drawn((m, 4), dtype, 3), drawn((4, n), dtype, 4)
    slope = (z > 0) if activation == "relu" else gelu_slope(wide(z.astype(dtype)))
    dz = wide(dy) @ wide(w) * slope
    dbias = place.put(np.zeros(n, dtype))
    got = place.lt.matmul(place.put(dy), place.put(w), epilogue=f"d{activation}_bgrad", bias=dbias, aux=aux)
    close(place.get(got), dz, dtype, 4)
    close(place.get(dbias), dz.sum(0), dtype, 4 * m)


@pytest.mark.parametrize("epilogue", ["relu", "gelu", "bias"])
@pytest.mark.parametrize(("m", "k", "n"), EPILOGUE_SIDES)
def test_simple_epilogues(epilogue: str, m: int, k: int, n: int, place: Place) -> None:
    a, b, bias = drawn((k, m), np.float32), drawn((n, k), np.float32, 1), drawn((n,), np.float32, 2)
    z = wide(a.T) @ wide(b.T)
    expected = {"relu": np.maximum(z, 0), "gelu": gelu(z), "bias": z + bias}[epilogue]
    vector = place.put(bias) if epilogue == "bias" else None
    close(place.get(place.lt.matmul(place.put(a).T, place.put(b).T, epilogue=epilogue, bias=vector)), expected, "f4", k)


def test_each_call_uses_its_own_bias(place: Place) -> None:
    a, b = drawn((3, 4), np.float32), drawn((4, 5), np.float32, 1)
    x, y = place.put(a), place.put(b)
    for seed in range(3):  # one problem, prepared once
        bias = drawn((5,), np.float32, seed)
        got = place.lt.matmul(x, y, epilogue="bias", bias=place.put(bias))
        close(place.get(got), wide(a) @ wide(b) + bias, np.float32, 4)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(("epilogue", "axis"), [("bgrad_a", 1), ("bgrad_b", 0)])
@pytest.mark.parametrize(("m", "k", "n"), EPILOGUE_SIDES)
def test_bias_gradients_of_an_operand(
    epilogue: str, axis: int, m: int, k: int, n: int, accumulate: bool, place: Place
) -> None:
    dy, x = drawn((k, m), np.float32), drawn((k, n), np.float32, 1)  # dweight = dy^T x, dbias = dy.sum(0)
    before = drawn((m, n), np.float32, 2)
    out, vector = place.put(before), place.put(np.zeros(m if epilogue == "bgrad_a" else n, np.float32))
    place.lt.matmul(place.put(dy).T, place.put(x), out, accumulate=accumulate, epilogue=epilogue, bias=vector)
    close(place.get(out), wide(dy.T) @ wide(x) + (wide(before) if accumulate else 0), np.float32, k)
    close(place.get(vector), wide(dy.T if epilogue == "bgrad_a" else x).sum(axis), np.float32, k)


# -- what is remembered, and capture -------------------------------------------------------------------------------
def test_a_problem_is_prepared_once(fake: Place) -> None:
    b = fake.put(drawn((4, 5), np.float32, 1))
    for seed in range(3):
        a = drawn((3, 4), np.float32, seed)
        close(fake.get(fake.lt.matmul(fake.put(a), b)), wide(a) @ wide(fake.get(b)), np.float32, 4)
    assert fake.fake.calls["cublasLtMatmulAlgoGetHeuristic"] == 1
    assert fake.fake.calls["cublasLtMatmul"] == 3
    assert fake.fake.calls["cublasLtCreate"] == 1


def test_forgotten_problems_give_their_descriptors_back(fake: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublaslt, "_MAX_LAUNCHES", 2)
    for n in (1, 2, 3, 4, 1):
        fake.lt.matmul(fake.put(drawn((3, 4), np.float32)), fake.put(drawn((4, n), np.float32)))
    kinds = [thing.kind for thing in fake.fake.objects.values()]
    assert sorted(kinds) == ["desc"] * 2 + ["handle"] + ["layout"] * 6


def test_each_stream_has_its_own_workspace(fake: Place) -> None:
    a, b = fake.put(drawn((3, 4), np.float32)), fake.put(drawn((4, 5), np.float32))
    for stream in (7, 8, 7):
        fake.cuda.stream = stream
        fake.lt.matmul(a, b)
    assert len(fake.lt._workspaces) == 2
    assert [product["stream"] for product in fake.fake.products] == [7, 8, 7]


def test_capture_needs_a_warm_up_on_the_same_stream(fake: Place) -> None:
    a, b = fake.put(drawn((3, 4), np.float32)), fake.put(drawn((4, 5), np.float32))
    out = fake.put(np.zeros((3, 5), np.float32))
    fake.cuda.capturing = True
    with pytest.raises(CublasLtError, match=r"this product was not prepared before the capture began; run the step"):
        fake.lt.matmul(a, b, out)
    fake.cuda.capturing = False
    fake.lt.matmul(a, b, out)
    fake.cuda.capturing, fake.cuda.stream = True, 8
    with pytest.raises(CublasLtError, match="this stream has no workspace before the capture"):
        fake.lt.matmul(a, b, out)
    fake.cuda.stream = 7
    fake.lt.matmul(a, b, out)
    fake.cuda.capturing = False
    close(fake.get(out), wide(fake.get(a)) @ wide(fake.get(b)), np.float32, 4)


@pytest.mark.gpu
def test_a_captured_product_replays() -> None:
    if (reason := why_unavailable("cuda")) is not None:
        pytest.skip(reason)
    backend = CupyBackend(use_cublaslt=True)
    assert backend.cublaslt is not None
    a, b = drawn((33, 64), np.float16), drawn((64, 65), np.float16, 1)
    x, y = (backend.from_numpy(values, Device("cuda")) for values in (a, b))
    out = backend.empty((33, 65), np.dtype(np.float16), Device("cuda"))
    stream = backend.xp.cuda.Stream(non_blocking=True)
    with stream:
        backend.cublaslt.matmul(x, y, out)
        stream.synchronize()
        stream.begin_capture()
        backend.cublaslt.matmul(x, y, out)
        graph = stream.end_capture()
        x[...] = x * 2
        graph.launch(stream)
        stream.synchronize()
    close(backend.to_numpy(out), 2 * wide(a) @ wide(b), np.float16, 64)


# -- what is refused -----------------------------------------------------------------------------------------------
def test_why_not_names_the_reason(fake: Place) -> None:
    a, b = fake.put(drawn((4, 6), np.float32)), fake.put(drawn((6, 4), np.float32))
    ints = fake.put(np.ones((4, 6), np.int32))
    stack = fake.put(drawn((2, 6, 4), np.float32))
    assert fake.lt.why_not(a, b) is None
    for reason, x, y, more in (
        ("dtypes must be one of float16, bfloat16, float32, float64 for both operands, got int32", ints, b, {}),
        ("got float32 and float16", a, b.astype(np.float16), {}),
        ("a must have contiguous rows or columns", a[:, ::2], b[:3], {}),
        ("b must not run backwards", a, b[::-1], {}),
        ("out must have contiguous rows", a, b, {"out": fake.put(drawn((4, 8), np.float32))[:, ::2]}),
        ("epilogue='relu' is for single matrices", a, stack, {"epilogue": "relu"}),
        ("epilogue='relu' of an empty product", a[:0], b, {"epilogue": "relu"}),
    ):
        said = fake.lt.why_not(x, y, **more)
        assert said is not None
        assert reason in said
        with pytest.raises(CublasLtUnsupportedError) as caught:
            fake.lt.matmul(x, y, **more)
        assert str(caught.value) == said
    repeated = fake.cuda.put(np.ones((1, 4), np.float32))
    repeated._values = np.broadcast_to(repeated._values, (6, 4))
    assert "b must have contiguous rows or columns" in str(fake.lt.why_not(a, repeated))


@pytest.mark.parametrize("status", [7, 8, 15, None])
def test_a_device_that_cannot_is_a_reason_and_is_asked_once(status: int | None, fake: Place) -> None:
    a, b = fake.put(drawn((4, 6), np.float32)), fake.put(drawn((6, 4), np.float32))
    fake.fake.finds = False
    if status is not None:
        fake.fake.answers["cublasLtMatmulAlgoGetHeuristic"] = status
    expected = "it found no algorithm" if status is None else f"CUBLAS_STATUS_{cublaslt._STATUS[status]} ({status})"
    assert expected in str(fake.lt.why_not(a, b))
    assert expected in str(fake.lt.why_not(a, b))
    assert fake.fake.calls["cublasLtMatmulAlgoGetHeuristic"] == 1


@pytest.mark.parametrize("function", ["cublasLtCreate", "cublasLtMatrixLayoutCreate", "cublasLtMatmulDescSetAttribute",
                                      "cublasLtMatmulPreferenceCreate", "cublasLtMatmulAlgoGetHeuristic",
                                      "cublasLtMatmul"])  # fmt: skip
def test_a_failing_call_is_named_with_its_status(function: str, fake: Place) -> None:
    a, b = fake.put(drawn((4, 6), np.float32)), fake.put(drawn((6, 4), np.float32))
    fake.fake.answers[function] = 13
    with pytest.raises(CublasLtError, match=rf"{function}.*: CUBLAS_STATUS_EXECUTION_FAILED \(13\)"):
        fake.lt.matmul(a, b)


def test_a_callers_mistake_is_an_error_everywhere(fake: Place) -> None:
    a, b = fake.put(drawn((4, 6), np.float32)), fake.put(drawn((6, 3), np.float32))
    vector = fake.put(np.ones(4, np.float32))
    for message, call in (
        (r"got \(4, 6\) and \(4, 6\)", lambda: fake.lt.matmul(a, a)),
        (r"out must be float32 of shape \(4, 3\), got float32 of \(6, 3\)", lambda: fake.lt.matmul(a, b, b)),
        ("accumulate=True needs out", lambda: fake.lt.matmul(a, b, accumulate=True)),
        ("epilogue must be one of .*, got 'tanh'", lambda: fake.lt.matmul(a, b, epilogue="tanh")),
        ("epilogue='bias' needs bias", lambda: fake.lt.matmul(a, b, epilogue="bias")),
        ("epilogue='' takes no bias", lambda: fake.lt.matmul(a, b, bias=vector)),
        (
            r"bias must be float32, contiguous, of shape \(3,\)",
            lambda: fake.lt.matmul(a, b, epilogue="bias", bias=vector),
        ),
        (
            "accumulate=True and epilogue='relu' exclude",
            lambda: fake.lt.matmul(a, b, fake.put(np.ones((4, 3), np.float32)), accumulate=True, epilogue="relu"),
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="'bias' takes no aux"):
        aux_like("bias", 3, 4, np.float32)


# -- the library and the backend -----------------------------------------------------------------------------------
def test_a_missing_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"no {name}")

    monkeypatch.setattr(cublaslt, "import_module", missing)
    monkeypatch.setattr(cublaslt.ctypes, "CDLL", missing)
    with pytest.raises(CublasLtError, match=r"pip install nvidia-cublas-cu12 .*no libcublasLt\.so\.12"):
        cublaslt.load_library(12)
    with pytest.raises(CublasLtError, match=r"CUDA 13 was not found; install it: pip install nvidia-cublas \("):
        cublaslt.load_library(13)


def test_a_library_of_another_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(cublasLtGetVersion=ctypes.CFUNCTYPE(ctypes.c_size_t)(lambda: 131000))
    monkeypatch.setattr(cublaslt, "import_module", lambda name: SimpleNamespace(load_nvidia_dynamic_lib=found))
    monkeypatch.setattr(cublaslt.ctypes, "CDLL", lambda name: library)
    assert cublaslt.load_library(13) is library
    with pytest.raises(CublasLtError, match="must be of CUDA 12, as CuPy is, found version 131000"):
        cublaslt.load_library(12)


def found(name: str) -> Any:
    return SimpleNamespace(abs_path=f"lib{name}.so")


def test_the_backend_takes_cupy_where_the_binding_does_not(fake: Place) -> None:
    backend = object.__new__(CupyBackend)  # without a driver the constructor refuses
    backend.xp = SimpleNamespace(matmul=lambda a, b, out=None: "CuPy's")
    a, b = fake.put(drawn((2, 4, 6), np.float16)), fake.put(drawn((2, 6, 4), np.float16))
    backend.cublaslt = None
    assert backend.gemm(a[0], b[0]) == "CuPy's"
    backend.cublaslt = fake.lt
    close(fake.get(backend.gemm(a[0], b[0])), wide(fake.get(a[0])) @ wide(fake.get(b[0])), np.float16, 6)
    close(fake.get(backend.matmul(a, b)), wide(fake.get(a)) @ wide(fake.get(b)), np.float16, 6)
    close(fake.get(backend.matmul(a, b[0])), wide(fake.get(a)) @ wide(fake.get(b[0])), np.float16, 6)
    assert fake.fake.calls["cublasLtMatmul"] == 3  # a stack times one matrix is one product
    assert fake.fake.products[-1]["count"] == 1
    assert backend.gemm(a[0][:, ::2], b[0][:3]) == "CuPy's"
