"""The attention kernels for compute capability 9.0, executed on the CPU: tiles, buffers in turn, what is hidden.

No GPU has run them yet, so they are chosen where ``uses_hopper`` says so and nowhere else; the test marked ``gpu`` says
it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
from lamella import kernels, layers
from lamella.backend import Backend, Device, get_kernel, why_unavailable
from lamella.backend.cupy_backend import CupyBackend
from lamella.benchmarks import bench_attention, contest
from lamella.kernels import attention_hopper
from lamella.testing import SimulatorBackend, simulator

from .kernel_heads import KERNELS
from .test_attention import normal, oracle
from .test_attention_kernels import rounded, sections, separate_operations

SOURCE = KERNELS / "attention_hopper.cu"
HALF, BF16 = np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)
_SECTIONS = {"FORWARD", "BACKWARD_QUERIES", "BACKWARD_KEYS", "STATISTICS"}
_UNITS = {HALF: 2.0**-9, BF16: 2.0**-6}


@contextmanager
def hopper(seed: int = 0, broken: Path = SOURCE, changed: Collection[str] = ()) -> Iterator[SimulatorBackend]:
    """The simulator with these kernels, in an order that ``seed`` gives; some sections of the file from ``broken``."""
    launch = attention_hopper.launch

    def seeded(path: Path, plan: Any, backend: Any, *arrays: Any) -> None:
        path = broken if plan.defines[0] in changed else path
        get_kernel(path, plan.kernel, plan.defines, arrays[0]).seed = seed
        launch(path, plan, backend, *arrays)

    with simulator() as sim, pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_hopper, "launch", seeded)
        sim.uses_hopper = True
        yield sim


def _arrays(dtype: np.dtype, b: int, h: int, hk: int, tq: int, tk: int, d: int) -> list[np.ndarray]:
    """q, k, v and dy."""
    shapes = [(b, h, tq, d), (b, hk, tk, d), (b, hk, tk, d), (b, h, tq, d)]
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


def _computed(sim: Backend, arrays: list[Any], options: dict[str, Any], gradients: bool = True) -> list[np.ndarray]:
    """out, lse, and but for heads of 256 dq, dk and dv by the kernels; NumPy arrays are moved."""

    def on(a: Any) -> Any:
        return sim.from_numpy(a, Device(sim.name)) if isinstance(a, np.ndarray) else a

    q, k, v, dy = map(on, arrays)
    given = {name: on(value) for name, value in options.items()}
    said = kernels.explain("attention", q, k, v, **given)
    assert said.startswith("attention_hopper_forward"), said
    out, lse = kernels.attention(q, k, v, **given, return_lse=True)
    found = [out, lse]
    if not gradients:
        return [sim.to_numpy(a) for a in found]
    said = kernels.explain("attention_backward", dy, q, k, v, out, lse, **given)
    if q.shape[3] in attention_hopper.BACKWARD_WIDTHS:
        assert said.startswith("attention_hopper_backward_queries"), said
        found += kernels.attention_backward(dy, q, k, v, out, lse, **given)[:3]
    else:
        assert "not attention_hopper_backward: it takes widths of 64, 128, the same" in said
    return [sim.to_numpy(a) for a in found]


def _agree(found: list[np.ndarray], expected: tuple[Any, ...], unit: float) -> None:
    for name, a, e in zip(("out", "lse", "dq", "dk", "dv"), found, expected, strict=False):
        if e is None:
            continue
        assert a.shape == e.shape, name
        a = a.astype(np.float64)
        np.testing.assert_array_equal(np.isneginf(a), np.isneginf(e), name)
        a, e = np.nan_to_num(a, neginf=0, nan=1e30), np.nan_to_num(e, neginf=0)
        error, bound = np.abs(a - e).max(initial=0), 1e-5 if name == "lse" else unit
        assert error <= bound * max(1.0, np.abs(e).max(initial=0)), f"{name}: {error}"


def _check(sim: SimulatorBackend, dtype: np.dtype, shape: tuple[int, ...], **options: Any) -> None:
    arrays = _arrays(dtype, *shape)
    _agree(_computed(sim, arrays, options), oracle(*arrays, **options), _UNITS[dtype])


# -- the cases that mutants are judged by: small, and every line is reached --------------------------------------------


def _open_keys(sim: SimulatorBackend) -> None:
    """Two blocks of queries, two heads to a key head; the buffers in a second round, the last tile ragged."""
    q, k, v, dy = _arrays(BF16, 1, 2, 1, 129, 270, 128)
    k[:, :, 5] *= 40  # the largest scores come late
    _agree(_computed(sim, [q, k, v, dy], {}), oracle(q, k, v, dy), _UNITS[BF16])


def _causal_and_lengths(sim: SimulatorBackend) -> None:
    """Some tiles are hidden from the first queries only; one batch has an end inside a tile, one has no keys."""
    q, k, v, dy = _arrays(HALF, 3, 2, 2, 130, 700, 64)
    q *= 16  # where a maximum is missed, a weight is more than half can hold
    options = {"causal": True, "causal_offset": 560, "key_lengths": np.array([700, 97, 0])}
    _agree(_computed(sim, [q, k, v, dy], options), oracle(q, k, v, dy, **options), _UNITS[HALF])


def _blind_and_backwards(sim: SimulatorBackend) -> None:
    """The last query of the first tile is the first that sees a key; the smallest product is the largest score."""
    _check(sim, HALF, (1, 2, 1, 128, 131, 64), causal=True, causal_offset=-63, scale=-0.4)


def _hidden_is_not_finite(sim: SimulatorBackend) -> None:
    """Infinity and NaN in keys and values of which each is seen by some queries, or by none."""
    for dtype, bad in ((HALF, np.inf), (BF16, np.nan)):
        q, k, v, dy = _arrays(dtype, 1, 1, 1, 140, 170, 128)
        v[0, 0, [10, 44, 81, 139], [0, 127, 66, 9]] = bad, -np.inf, np.nan, np.inf
        k[0, 0, 160:], v[0, 0, 165:] = np.nan, bad
        k[0, 0, 141] = np.inf
        options = {"causal": True, "key_lengths": np.array([160])}
        found = _computed(sim, [q, k, v, dy], options, gradients=False)
        out = found[0][0, 0].astype(np.float64)
        for key, column in ((10, 0), (44, 127), (81, 66), (139, 9)):
            assert not np.isfinite(out[key:, column]).any()
            out[key:, column] = 0
            v[0, 0, key, column] = 0
        k[0, 0, 141:] = v[0, 0, 160:] = 0
        expected = oracle(q, k, v, dy, **options)
        for key, column in ((10, 0), (44, 127), (81, 66), (139, 9)):
            expected[0][0, 0, key:, column] = 0
        _agree([out[None, None], found[1]], expected, _UNITS[dtype])


def _gradients_not_finite(sim: SimulatorBackend) -> None:
    """NaN where nothing is seen changes nothing; that of one query shows in its row, and in what it sees."""
    q, k, v, dy = _arrays(HALF, 1, 1, 1, 140, 170, 64)
    k[0, 0, 160:], v[0, 0, 163:] = np.nan, np.inf
    q[0, 0, 1], dy[0, 0, 2] = np.inf, np.nan  # these see nothing
    dy[0, 0, 100, 7], dy[0, 0, 131, 60] = np.nan, np.inf  # these see the keys up to 97, and up to 128
    q[0, 0, 136, 5] = np.nan  # up to 133
    options = {"causal": True, "causal_offset": -3, "key_lengths": np.array([160])}
    found = _computed(sim, [q, k, v, dy], options)
    out, lse, dq, dk, dv = (a.astype(np.float64)[0, 0] for a in found)
    k[0, 0, 160:] = v[0, 0, 160:] = q[0, 0, 1] = dy[0, 0, 2] = 0
    dy[0, 0, 100, 7] = dy[0, 0, 131, 60] = q[0, 0, 136, 5] = 0
    expected = oracle(q, k, v, dy, **options)
    for array, rows, columns in (
        (out, [136], slice(None)),
        (lse[:, None], [136], slice(None)),
        (dq, [100, 131, 136], slice(None)),
        (dk, slice(134), slice(None)),
        (dv, slice(134), slice(None)),
    ):
        assert not np.isfinite(array[rows, columns]).any()
    _agree(
        [np.delete(a, r, 0) for a, r in ((out, 136), (lse, 136), (dq, [100, 131, 136]))],
        tuple(np.delete(e[0, 0], r, 0) for e, r in zip(expected, (136, 136, [100, 131, 136]), strict=False)),
        _UNITS[HALF],
    )
    for a, e in ((dk, expected[3]), (dv, expected[4])):
        assert np.abs(a[134:] - e[0, 0, 134:]).max() <= _UNITS[HALF] * max(1, np.abs(e[0, 0, 134:]).max())


def _gradients_of_values_not_finite(sim: SimulatorBackend) -> None:
    """One element of dy is a column of dv, down to the last key that its query sees."""
    q, k, v, dy = _arrays(BF16, 1, 1, 1, 140, 150, 128)
    dy[0, 0, 130, 77] = -np.inf
    found = _computed(sim, [q, k, v, dy], {"causal": True})
    dv, dq = found[4].astype(np.float64)[0, 0], found[2].astype(np.float64)[0, 0]
    assert not np.isfinite(dv[:131, 77]).any()
    assert not np.isfinite(dq[130]).any()
    dy[0, 0, 130, 77] = 0
    expected = oracle(q, k, v, dy, causal=True)
    dv[:131, 77] = expected[4][0, 0, :131, 77]
    dq[130] = expected[2][0, 0, 130]
    _agree([None, None, dq, None, dv], (None, None, expected[2][0, 0], None, expected[4][0, 0]), _UNITS[BF16])


def _key_behind_the_last_query(sim: SimulatorBackend) -> None:
    """What only a query that does not exist would see, in a tile that has such queries, has no gradient."""
    q, k, v, dy = _arrays(HALF, 1, 1, 1, 100, 140, 64)
    k[0, 0, 101], v[0, 0, 105, 3] = np.nan, np.inf
    found = _computed(sim, [q, k, v, dy], {"causal": True})
    k[0, 0, 101] = v[0, 0, 105] = 0
    _agree(found, oracle(q, k, v, dy, causal=True), _UNITS[HALF])


def _wide_heads(sim: SimulatorBackend) -> None:
    _check(sim, HALF, (1, 1, 1, 64, 161, 256), causal=True, causal_offset=130)


CASES: dict[str, Callable[[SimulatorBackend], None]] = {
    "causal and lengths": _causal_and_lengths,
    "blind and backwards": _blind_and_backwards,
    "hidden, not finite": _hidden_is_not_finite,
    "gradients, not finite": _gradients_not_finite,
    "a key behind the last query": _key_behind_the_last_query,
    "gradients of values, not finite": _gradients_of_values_not_finite,
    "wide heads": _wide_heads,
    "open keys": _open_keys,
}


_SLOW = ("open keys", "gradients of values, not finite")


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow if c in _SLOW else ()) for c in CASES])
def test_the_kernels_keep_the_definition(case: str) -> None:
    with hopper() as sim:
        CASES[case](sim)


def judge(broken: Path, number: int) -> None:
    """Run the cases on a changed file in three orders; an exception says that the change was noticed."""
    changed = sections(broken.read_text(encoding="utf-8").splitlines(), number, _SECTIONS)
    for case in CASES.values():
        for seed in range(3):
            try:
                with hopper(seed, broken, changed) as sim:
                    case(sim)
            except ValueError as error:  # a kernel has noted a fault where there is none
                raise AssertionError(str(error)) from error


@pytest.mark.slow
def test_intact_kernels_raise_no_alarm_over_many_seeds() -> None:
    for case in CASES.values():
        for seed in range(3, 7):
            with hopper(seed) as sim:
                case(sim)


# -- every variant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [pytest.param(HALF, marks=pytest.mark.slow), BF16], ids=str)
@pytest.mark.parametrize(
    "width", [pytest.param(64, marks=pytest.mark.slow), pytest.param(128, marks=pytest.mark.slow), 256]
)
def test_every_width_keeps_the_definition(width: int, dtype: np.dtype) -> None:
    with hopper() as sim:
        _check(sim, dtype, (1, 4, 2, 65, 300, width))
        _check(sim, dtype, (2, 2, 1, 65, 100, width), causal=True, causal_offset=36, key_lengths=np.array([100, 81]))


@pytest.mark.slow
@pytest.mark.parametrize("keys", [1, 15, 127, 128, 129, 255, 256, 257])
@pytest.mark.parametrize("queries", [64, 127, 128, 129])
def test_the_edges_of_tiles_keep_the_definition(queries: int, keys: int) -> None:
    with hopper() as sim:
        for options in ({}, {"causal": True, "causal_offset": keys - queries}, {"key_lengths": np.array([keys - 1])}):
            _check(sim, HALF, (1, 1, 1, queries, keys, 64), **options)


@pytest.mark.parametrize("dtype", [HALF, pytest.param(BF16, marks=pytest.mark.slow)], ids=str)
def test_the_error_is_at_most_twice_that_of_separate_operations(dtype: np.dtype) -> None:
    arrays = _arrays(dtype, 1, 2, 2, 80, 200, 64)
    expected = oracle(*arrays)
    plain = separate_operations(*arrays)
    with hopper() as sim:
        found = _computed(sim, arrays, {})
    for a, b, e in zip(found, plain, expected, strict=False):
        if b is not None:
            assert np.abs(a - e).max() <= 2 * np.abs(rounded(b, dtype) - e).max() + 2.0**-22


def test_the_results_are_those_of_the_kernels_for_every_device() -> None:
    """Both round the weights once; the order of their sums differs. Each repeats its own bit for bit."""
    q, k, v, dy = _arrays(HALF, 2, 4, 2, 100, 260, 64)
    options = {"causal": True, "causal_offset": 150, "key_lengths": np.array([260, 130])}
    with hopper() as sim:
        found = _computed(sim, [q, k, v, dy], options)
        launched = dict.fromkeys(("forward", "statistics", "backward_queries", "backward_keys"), 1)
        assert sim.launches == {f"attention_hopper_{name}": count for name, count in launched.items()}
        sim.uses_hopper = False
        given = {**options, "key_lengths": sim.from_numpy(options["key_lengths"])}
        on = [sim.from_numpy(a) for a in (q, k, v, dy)]
        out, lse = kernels.attention(*on[:3], **given, return_lse=True)
        others = [out, lse, *kernels.attention_backward(on[3], *on[:3], out, lse, **given)[:3]]
        for a, b in zip(found, map(sim.to_numpy, others), strict=True):
            unit = 4e-6 if a.dtype == np.float32 else 2.0**-9
            np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), atol=unit, rtol=unit)
    with hopper(seed=5) as sim:
        for a, b in zip(found, _computed(sim, [q, k, v, dy], options), strict=True):
            np.testing.assert_array_equal(a, b)


# -- strides, faults, the choice --------------------------------------------------------------------------------------


def test_packed_heads_are_read_where_they_lie() -> None:
    """q, k and v as thirds of one projection, as a layer has them; results lie as these do."""
    packed = normal(2, 66, 3, 2, 64, seed=1).astype(np.float16)
    q, k, v = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    with hopper() as sim:
        on = sim.from_numpy(packed)
        arrays = [on[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
        dy = sim.from_numpy(np.ascontiguousarray(q.transpose(0, 2, 1, 3))).transpose(0, 2, 1, 3)
        _agree(_computed(sim, [*arrays, dy], {}), oracle(q, k, v, q), _UNITS[HALF])
        assert kernels.attention(*arrays).transpose(0, 2, 1, 3).flags.c_contiguous


def test_a_layer_gives_the_same_by_these_kernels() -> None:
    """Self-attention of packed projections: gradients are written into one array, where they belong."""
    x = normal(2, 70, 128, seed=3).astype(np.float16)
    results = []
    for uses_hopper in (False, True):
        with hopper() as sim:
            sim.uses_hopper = uses_hopper
            layer = layers.MultiheadAttention(128, 2, batch_first=True, rng=lamella.Generator(0))
            layer.to("simulator", dtype="float16")
            tensor = lamella.tensor(x, device="simulator", requires_grad=True)
            y, _ = layer(tensor, tensor, tensor, is_causal=True, need_weights=False)
            (y * y).sum().backward()
            assert ("attention_hopper_backward_keys" in sim.launches) is uses_hopper
            assert ("attention_backward_keys" in sim.launches) is not uses_hopper
            gradients = [tensor.grad, *(parameter.grad for parameter in layer.parameters())]
            results.append([sim.to_numpy(a).astype(np.float64) for a in (y.data, *gradients)])
    for one, other in zip(*results, strict=True):
        assert np.abs(one - other).max() <= 2.0**-9 * max(1, np.abs(one).max())


def test_gradients_go_where_they_are_wanted_and_any_strides_come() -> None:
    """Thirds of one array that begin at odd elements; dy is one number for all, out is reversed in memory."""
    q, k, v, _ = _arrays(HALF, 1, 2, 2, 66, 66, 64)
    dy = np.full((1, 2, 66, 64), 0.25, np.float16)
    expected = oracle(q, k, v, dy)
    with hopper() as sim:
        on = [sim.from_numpy(a) for a in (q, k, v)]
        out, lse = kernels.attention(*on, return_lse=True)
        flipped = sim.from_numpy(np.ascontiguousarray(sim.to_numpy(out)[:, :, ::-1]))[:, :, ::-1]
        packed = sim.from_numpy(np.full((1, 66, 3, 2, 66), 7, np.float16))
        grads = tuple(packed[:, :, i, :, 1:65].transpose(0, 2, 1, 3) for i in range(3))
        same = sim.xp.broadcast_to(sim.from_numpy(np.float16([0.25])), dy.shape)
        found = kernels.attention_backward(same, *on, flipped, lse, grads=grads)
        assert sim.launches["attention_hopper_backward_keys"] == 1
        assert all(a is b for a, b in zip(found, grads, strict=False))
        _agree([None, None, *map(sim.to_numpy, grads)], (None, None, *expected[2:]), _UNITS[HALF])
        around = sim.to_numpy(packed)
        assert (around[..., [0, 65]] == 7).all()


def test_a_length_out_of_range_is_raised_when_the_host_next_waits() -> None:
    q, k, v, _ = _arrays(HALF, 2, 1, 1, 64, 3, 64)
    with hopper() as sim:
        for length in (-1, 4, 2**40):
            lengths = sim.from_numpy(np.array([3, length]))
            kernels.attention(*map(sim.from_numpy, (q, k, v)), key_lengths=lengths)
            with pytest.raises(ValueError, match=f"key_lengths must be in 0 … 3, got {length} .found on simulator"):
                sim.synchronize(lamella.device("simulator"))


def _explained(sim: SimulatorBackend, arrays: list[Any], **options: Any) -> str:
    given = {name: sim.from_numpy(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    return kernels.explain("attention", *(sim.from_numpy(a) for a in arrays[:3]), **given)


@pytest.mark.parametrize(
    ("dtype", "shape", "options", "said"),
    [
        (HALF, (1, 2, 2, 65, 9, 64), {}, r"forward .*WIDTH=64 .*-arch=sm_90a\], 2 blocks of 384 .*wgmma.*128 queries"),
        (BF16, (1, 2, 2, 129, 9, 256), {}, r"forward .*DTYPE=bfloat16 WIDTH=256 COLS=80 .*\], 4 blocks of 384"),
        (np.float32, (1, 1, 1, 64, 9, 64), {}, "not attention_hopper_forward: it takes float16 and bfloat16"),
        (HALF, (1, 1, 1, 64, 9, 32), {}, "not attention_hopper_forward: it takes widths of 64, 128, 256"),
        (HALF, (1, 1, 1, 64, 9, 64), {"mask": np.ones((64, 9), bool)}, "it knows neither mask nor bias nor dropout"),
        (HALF, (1, 1, 1, 64, 9, 64), {"bias": np.ones((64, 9), np.float16)}, "neither mask nor bias nor dropout"),
        (HALF, (1, 1, 1, 64, 9, 64), {"dropout": 0.1, "dropout_key": (1, 2)}, "neither mask nor bias nor dropout"),
        (HALF, (1, 1, 1, 63, 9, 64), {}, "not attention_hopper_forward: it takes 64 to 1073741824 queries"),
    ],
)
def test_explain_says_what_runs_and_why(dtype: Any, shape: tuple[int, ...], options: dict[str, Any], said: str) -> None:
    with hopper() as sim:
        assert re.search(said, _explained(sim, _arrays(dtype, *shape), **options))


def test_explain_names_widths_that_differ_and_rows_that_cannot_be_copied() -> None:
    q, k, v, _ = _arrays(HALF, 1, 2, 2, 64, 9, 64)
    with hopper() as sim:
        assert "it takes widths of" in _explained(sim, [q, k, v[..., :32]])
        for arrays in (
            [q, k, np.pad(v, ((0, 0),) * 3 + ((0, 4),))[..., :64]],  # rows 136 bytes apart
            [np.pad(q, ((0, 0),) * 3 + ((8, 0),))[..., 4:68], k, v],  # from byte 8 on
        ):
            on = [sim.from_numpy(a.base if a.base is not None and a.base.ndim == 4 else a) for a in arrays]
            views = [o[..., 4:68] if o.shape[3] == 72 else o[..., :64] for o in on]
            said = kernels.explain("attention", *views)
            assert "do not all begin at multiples of 16 bytes" in said
            assert said.startswith("attention_forward")
        on = [sim.from_numpy(a) for a in (q, k, v)]
        on[1] = sim.xp.broadcast_to(on[1][:, :1], k.shape)  # one head for all: the copy engine takes no step of 0
        assert "multiples of 16 bytes" in kernels.explain("attention", *on)


def test_it_is_not_chosen_before_it_has_run_on_hardware() -> None:
    arrays = _arrays(HALF, 1, 1, 1, 64, 9, 64)
    with simulator() as sim:
        said = _explained(sim, arrays)
        assert said.startswith("attention_forward")
        assert said.endswith("it has not run on hardware yet, CupyBackend(use_hopper=True) chooses it")
        kernels.attention(*map(sim.from_numpy, arrays[:3]))
        assert set(sim.launches) == {"attention_forward"}
        q, k, v, dy = map(sim.from_numpy, arrays)
        out, lse = kernels.attention(q, k, v, return_lse=True)
        kernels.attention_backward(dy, q, k, v, out, lse)
        assert "attention_backward_keys" in sim.launches
        assert not [name for name in sim.launches if "hopper" in name]
        said = kernels.explain("attention_backward", dy, q, k, v, out, lse)
        assert said.endswith("it has not run on hardware yet, CupyBackend(use_hopper=True) chooses it")
        sim.reset()
        sim.uses_hopper = True
        sim.capability = 100
        assert "it needs compute capability 9.0, this device has 10.0" in _explained(sim, arrays)
        kernels.attention(*map(sim.from_numpy, arrays[:3]))
        assert set(sim.launches) == {"attention_forward"}


def test_the_benchmark_measures_them_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contest, "take_turns", lambda runs, *_: {name: [1.0] for name in runs})  # only judged
    case = bench_attention.cases(1, 1, 66, 64, causal=True, dtypes=("bfloat16", "float16"))[1]
    with simulator() as sim:
        results, failures = contest.measure(case, "float16", sim, lamella.device("simulator"))
        assert not failures
        assert [result["library"] for result in results] == ["lamella", "hopper"]
        assert sim.launches["attention_hopper_backward_keys"] > 0 < sim.launches["attention_backward_keys"]
        assert not sim.uses_hopper
        sim.capability = 80
        assert contest.names_of(case, None, sim.compute_capability()) == ["lamella"]


# -- on a GPU ---------------------------------------------------------------------------------------------------------
_ON_GPU: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 4, 2, 300, 700, 64), {}),
    ((2, 4, 2, 300, 700, 128), {"causal": True, "causal_offset": 400}),
    ((2, 4, 2, 300, 700, 128), {"key_lengths": np.array([700, 97])}),
    ((1, 4, 1, 300, 300, 256), {"causal": True}),
    ((1, 2, 2, 300, 131, 64), {"causal": True, "causal_offset": -7, "scale": -0.4}),
]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [HALF, BF16], ids=str)
@pytest.mark.parametrize(("shape", "options"), _ON_GPU)
def test_a_gpu_keeps_the_definition(shape: tuple[int, ...], options: dict[str, Any], dtype: np.dtype) -> None:
    if (reason := why_unavailable("cuda")) is not None:
        pytest.skip(reason)
    before = lamella.backend.backend_for("cuda")
    if before.compute_capability(Device("cuda", 0)) != 90:
        pytest.skip("these kernels need compute capability 9.0")
    backend = CupyBackend(use_hopper=True)
    lamella.backend.register_backend(backend)
    try:
        arrays = _arrays(dtype, *shape)
        _agree(_computed(backend, arrays, options), oracle(*arrays, **options), _UNITS[dtype])
    finally:
        lamella.backend.register_backend(before)
