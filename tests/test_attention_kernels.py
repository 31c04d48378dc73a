"""The attention kernels executed on the CPU: tiles and their edges, widths, strides; and what judges a broken one."""

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
from lamella import kernels, precision
from lamella.backend import get_kernel
from lamella.kernels import attention_cuda
from lamella.testing import SimulatorBackend, simulator

from .kernel_heads import KERNELS
from .test_attention import boolean, minus_infinity, normal, oracle

SOURCE = KERNELS / "attention.cu"
_DTYPES = {"float": np.dtype(np.float32), "half": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_UNITS = {"float": 4e-6, "half": 2.0**-9, "bfloat16": 2.0**-6, "tf32": 2.0**-9}


@contextmanager
def _seeded(seed: int, broken: Path = SOURCE, sections: Collection[str] = ()) -> Iterator[None]:
    """The order of blocks, warps and lanes that ``seed`` gives, and some sections of the file from ``broken``."""
    launch = attention_cuda.launch

    def seeded(path: Path, plan: Any, backend: Any, *arrays: Any) -> None:
        path = broken if plan.defines[0] in sections else path
        get_kernel(path, plan.kernel, plan.defines, arrays[0]).seed = seed
        launch(path, plan, backend, *arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_cuda, "launch", seeded)
        yield


def _arrays(dtype: np.dtype, b: int, h: int, hk: int, tq: int, tk: int, d: int, dv: int) -> list[np.ndarray]:
    """q, k, v and dy."""
    shapes = [(b, h, tq, d), (b, hk, tk, d), (b, hk, tk, dv), (b, h, tq, dv)]
    return [normal(*shape, seed=i).astype(dtype) for i, shape in enumerate(shapes)]


def _computed(sim: SimulatorBackend, arrays: list[Any], options: dict[str, Any]) -> list[np.ndarray | None]:
    """out, lse, dq, dk, dv and dbias by the kernels; NumPy arrays are moved, in memory they keep their order."""

    def on(a: Any) -> Any:
        return sim.from_numpy(a) if isinstance(a, np.ndarray) else a

    q, k, v, dy = map(on, arrays)
    given = {name: on(value) for name, value in options.items()}
    assert "attention_forward" in kernels.explain("attention", q, k, v, **given)
    out, lse = kernels.attention(q, k, v, **given, return_lse=True)
    assert "attention_backward_queries" in kernels.explain("attention_backward", dy, q, k, v, out, lse, **given)
    found = [out, lse, *kernels.attention_backward(dy, q, k, v, out, lse, **given)]
    return [None if a is None else sim.to_numpy(a) for a in found]


def _agree(found: list[np.ndarray | None], expected: tuple[Any, ...], unit: float) -> None:
    for name, a, e in zip(("out", "lse", "dq", "dk", "dv", "dbias"), found, expected, strict=True):
        if e is None:
            continue
        assert a.shape == e.shape, name
        bound = 1e-5 if name == "lse" and unit < _UNITS["tf32"] else unit
        a = a.astype(np.float64)
        np.testing.assert_array_equal(np.isneginf(a), np.isneginf(e), name)
        a, e = np.nan_to_num(a, neginf=0, nan=1e30), np.nan_to_num(e, neginf=0)
        error = np.abs(a - e).max(initial=0)
        assert error <= bound * max(1.0, np.abs(e).max(initial=0)), f"{name}: {error}"


def _check(sim: SimulatorBackend, ctype: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    arrays = _arrays(_DTYPES[ctype], *shape)
    _agree(_computed(sim, arrays, options), oracle(*arrays, **options), _UNITS[ctype])


# -- the cases that mutants are judged by: small, and every line of every kernel is reached ---------------------------


def _causal_and_lengths(sim: SimulatorBackend) -> None:
    """Two tiles of queries, three of keys, the last of one row; aligned, with widths that are not those of a tile."""
    q, k, v, dy = _arrays(_DTYPES["half"], 2, 2, 1, 65, 129, 24, 40)
    q *= 16  # where a maximum is missed, a weight is more than half can hold
    options = {"causal": True, "causal_offset": 64, "key_lengths": np.array([129, 65])}
    _agree(_computed(sim, [q, k, v, dy], options), oracle(q, k, v, dy, **options), _UNITS["half"])


def _all_options(sim: SimulatorBackend) -> None:
    """Two slices of columns, rows that are not aligned; the bias has a sum over heads and queries as its gradient."""
    options = {"mask": boolean(1, 2, 34, 37), "bias": normal(2, 1, 1, 37, seed=5).astype(np.float32)}
    options |= {"dropout": 0.3, "dropout_key": (7, 2**34 + 3), "scale": -0.3, "key_lengths": np.array([37, 30])}
    _check(sim, "float", (2, 2, 2, 34, 37, 70, 100), options)


def _few_queries(sim: SimulatorBackend) -> None:
    """The keys in two parts, of which one batch needs no more than one, and the next none."""
    q, k, v, dy = _arrays(_DTYPES["bfloat16"], 3, 4, 2, 3, 600, 8, 16)
    q, k = abs(q), -(2 + abs(k)) * 48  # scores far below 0, and of the first part more than exp can hold below those
    k[:, :, :320] *= 2  # of the second
    options = {"key_lengths": np.array([600, 10, 0]), "causal": True, "causal_offset": 590}
    found = _computed(sim, [q, k, v, dy], options)
    _agree(found, oracle(q, k, v, dy, **options), _UNITS["bfloat16"])
    options["key_lengths"] = sim.from_numpy(options["key_lengths"])
    wide = (sim.from_numpy(a) for a in (q, k, np.tile(v, 3)))  # more columns than a warp has lanes
    np.testing.assert_array_equal(sim.to_numpy(kernels.attention(*wide, **options)), np.tile(found[0], 3))
    assert sim.launches["attention_combine"] == 2


def _hidden_is_not_finite(sim: SimulatorBackend) -> None:
    """Infinity and NaN in what a part of the queries, or keys, does not see; and what sees nothing at all."""
    q, k, v, dy = _arrays(_DTYPES["half"], 1, 2, 2, 19, 40, 24, 32)
    seen = np.ones((19, 40), bool)
    seen[:, [3, 30]] = False
    seen[[2, 17]] = False
    k[:, 0, 3], v[:, 0, 30], k[:, 1, 30], v[:, 1, 3] = np.nan, np.inf, -np.inf, np.nan
    q[:, 0, 2], dy[:, 0, 17], q[:, 1, 17], dy[:, 1, 2] = np.nan, np.nan, np.inf, np.inf
    mask = np.where(seen, normal(19, 40, seed=8), -np.inf).astype(np.float16)
    options = {"mask": mask, "bias": normal(2, 19, 1, seed=5).astype(np.float16)}
    options |= {"dropout": 1e-9, "dropout_key": (1, 2)}
    _agree(_computed(sim, [q, k, v, dy], options), oracle(q, k, v, dy, **options), _UNITS["half"])


def _one_option(sim: SimulatorBackend) -> None:
    """Each by itself; the last query of the first tile sees one key of the last tile."""
    bias, mask = normal(65, 70, seed=5).astype(np.float16), boolean(65, 70)
    for option in ({"bias": bias}, {"mask": mask}, {"dropout": 0.3, "dropout_key": (5, 1)}):
        _check(sim, "half", (1, 2, 1, 65, 70, 8, 8), {**option, "causal": True, "causal_offset": 1})


def _visible_is_not_finite(sim: SimulatorBackend) -> None:
    """A NaN shows in the columns and the rows that see it, and nowhere else."""
    for ctype, bad in (("half", np.nan), ("float", np.inf), ("bfloat16", -np.inf)):
        q, k, v, _ = _arrays(_DTYPES[ctype], 1, 1, 1, 20, 20, 8, 16)
        places = ((11, 5), (7, 8), (3, 12), (18, 15))
        for key, column in places:
            v[0, 0, key, column] = bad
        out = sim.to_numpy(kernels.attention(*map(sim.from_numpy, (q, k, v)), causal=True))[0, 0].astype(np.float32)
        for key, column in places:
            assert not np.isfinite(out[key:, column]).any()
            out[key:, column] = 0
        assert np.isfinite(out).all()


CASES: dict[str, Callable[[SimulatorBackend], None]] = {
    "causal and lengths": _causal_and_lengths,
    "all options": _all_options,
    "few queries": _few_queries,
    "hidden, not finite": _hidden_is_not_finite,
    "one option": _one_option,
    "visible, not finite": _visible_is_not_finite,
}


@pytest.mark.parametrize("case", [*list(CASES)[:-1], pytest.param("visible, not finite", marks=pytest.mark.slow)])
def test_the_kernels_keep_the_definition(case: str) -> None:
    with simulator() as sim:
        CASES[case](sim)


_SECTIONS = {"FORWARD", "BACKWARD_QUERIES", "BACKWARD_KEYS", "BACKWARD_BIAS", "ROWWISE"}


def sections(lines: list[str], number: int, names: set[str] = _SECTIONS) -> set[str]:
    """Of the sections ``names`` of a file those that a line belongs to: each is compiled with a macro of its name."""
    inside = [names]
    for line in lines[:number]:
        named = names & set(re.findall(r"\w+", line))
        if line.startswith("#ifndef"):
            inside.append(inside[-1] - named)
        elif line.startswith("#if"):
            inside.append(inside[-1] & named)
        elif line.startswith("#else"):
            inside.append(inside[-2] - inside.pop())
        elif line.startswith("#endif"):
            inside.pop()
    return inside[-1]


def judge(broken: Path, number: int) -> None:
    """Run the cases on a changed file in three orders; an exception says that the change was noticed."""
    changed = sections(broken.read_text(encoding="utf-8").splitlines(), number)
    with simulator() as sim:
        for case in CASES.values():
            for seed in range(3):
                sim.reset()
                try:
                    with _seeded(seed, broken, changed):
                        case(sim)
                except ValueError as error:  # a kernel has noted a fault where there is none
                    raise AssertionError(str(error)) from error


@pytest.mark.slow
def test_intact_kernels_raise_no_alarm_over_many_seeds() -> None:
    with simulator() as sim:
        for case in CASES.values():
            for seed in range(8):
                sim.reset()
                with _seeded(seed):
                    case(sim)


# -- every variant ----------------------------------------------------------------------------------------------------
_WIDTHS = [(1, 1), (40, 8), (64, 64), (80, 128), (128, 80), (200, 256), (256, 64)]


@pytest.mark.slow
@pytest.mark.parametrize("widths", _WIDTHS, ids=str)
@pytest.mark.parametrize("ctype", _DTYPES)
def test_every_width_keeps_the_definition(ctype: str, widths: tuple[int, int]) -> None:
    with simulator() as sim:
        _check(sim, ctype, (1, 2, 1, 21, 35, *widths), {"causal": True, "causal_offset": 14})
        options = {"bias": minus_infinity(boolean(21, 35)), "dropout": 0.2, "dropout_key": (3, 5)}
        _check(sim, ctype, (1, 2, 1, 21, 35, *widths), options)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1, 1, 17, 33, 8, 8), (1, 1, 1, 17, 33, 200, 80)], ids=str)
def test_tf32_is_used_where_it_is_allowed_and_nowhere_else(shape: tuple[int, ...]) -> None:
    arrays = _arrays(_DTYPES["float"], *shape)
    expected = oracle(*arrays)
    with simulator() as sim:
        with precision("tf32"):
            found = _computed(sim, arrays, {})
        _agree(found, expected, _UNITS["tf32"])
        assert np.abs(found[0] - expected[0]).max() > 1e-5
        _agree(_computed(sim, arrays, {}), expected, _UNITS["float"])


def rounded(a: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return a.astype(dtype).astype(np.float64)


def separate_operations(q: Any, k: Any, v: Any, dy: Any) -> tuple[Any, ...]:
    """Products, softmax and derivative one after the other, each rounded to the dtype once; in the oracle's order."""
    dtype, scale = q.dtype, q.shape[3] ** -0.5
    q, k, v, dy = (a.astype(np.float64) for a in (q, k, v, dy))
    scores = rounded(q @ k.swapaxes(2, 3) * scale, dtype)
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p = rounded(p / p.sum(-1, keepdims=True), dtype)
    out = rounded(p @ v, dtype)
    dp = rounded(dy @ v.swapaxes(2, 3), dtype)
    ds = rounded(p * (dp - (dy * out).sum(-1, keepdims=True)), dtype)
    return out, None, ds @ k * scale, ds.swapaxes(2, 3) @ q * scale, p.swapaxes(2, 3) @ dy


@pytest.mark.parametrize("ctype", ["half", *(pytest.param(c, marks=pytest.mark.slow) for c in ("bfloat16", "float"))])
def test_the_error_is_at_most_twice_that_of_separate_operations(ctype: str) -> None:
    dtype = _DTYPES[ctype]
    arrays = _arrays(dtype, 1, 2, 2, 40, 70, 32, 32)
    expected = oracle(*arrays)
    plain = separate_operations(*arrays)
    with simulator() as sim:
        found = _computed(sim, arrays, {})
    for a, b, e in zip(found, plain, expected, strict=False):
        if b is not None:
            floor = 2.0**-21 if ctype == "float" else 2.0**-22  # three products of tf32 for one of float
            assert np.abs(a - e).max() <= 2 * np.abs(rounded(b, dtype) - e).max() + floor


# -- strides ----------------------------------------------------------------------------------------------------------


def test_packed_heads_are_read_where_they_lie() -> None:
    """q, k and v as thirds of one projection, as a layer has them; results lie as these do."""
    packed = normal(2, 18, 3, 2, 8, seed=1).astype(np.float32)
    q, k, v = (packed[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    dy = normal(2, 18, 2, 8, seed=2).astype(np.float32).transpose(0, 2, 1, 3)
    mask = np.ones((18, 40), bool)[:, ::2][:, :18]
    mask[:, 3] = False
    expected = oracle(q, k, v, dy, mask=mask)
    with simulator() as sim:
        on = sim.from_numpy(packed)
        arrays = [on[:, :, i].transpose(0, 2, 1, 3) for i in range(3)]
        wide = sim.from_numpy(np.repeat(mask, 2, axis=1))[:, ::2]
        arrays.append(sim.from_numpy(np.ascontiguousarray(dy.transpose(0, 2, 1, 3))).transpose(0, 2, 1, 3))
        _agree(_computed(sim, arrays, {"mask": wide}), expected, _UNITS["float"])
        out = kernels.attention(*arrays[:3], mask=wide)
        assert out.transpose(0, 2, 1, 3).flags.c_contiguous


@pytest.mark.parametrize("which", ["reversed", "every second column", "one head for all"])
def test_any_strides_give_the_same(which: str) -> None:
    arrays = _arrays(_DTYPES["float"], 1, 2, 2, 5, 6, 8, 8)
    with simulator() as sim:
        on = [sim.from_numpy(a) for a in arrays]
        if which == "reversed":
            on = [sim.from_numpy(np.ascontiguousarray(a[:, :, ::-1]))[:, :, ::-1] for a in arrays]
        elif which == "every second column":
            on = [sim.from_numpy(np.repeat(a, 2, axis=3))[..., ::2] for a in arrays]
        else:
            arrays[1][:, 1] = arrays[1][:, 0]
            on[1] = sim.xp.broadcast_to(sim.from_numpy(arrays[1][:, :1]), arrays[1].shape)
        _agree(_computed(sim, on, {}), oracle(*arrays), _UNITS["float"])


def test_a_bias_of_float64_is_rounded_and_its_gradient_is_not_lost() -> None:
    arrays = _arrays(_DTYPES["float"], 1, 2, 2, 5, 6, 8, 8)
    with simulator() as sim:
        found = _computed(sim, arrays, {"bias": normal(5, 6, seed=3)})
        _agree(found, oracle(*arrays, bias=normal(5, 6, seed=3)), _UNITS["float"])
        assert found[5].dtype == np.float64


def test_a_length_out_of_range_is_raised_when_the_host_next_waits() -> None:
    q, k, v, _ = _arrays(_DTYPES["float"], 2, 1, 1, 2, 3, 4, 4)
    with simulator() as sim:
        for length in (-1, 4, 2**40):
            lengths = sim.from_numpy(np.array([3, length]))
            kernels.attention(*map(sim.from_numpy, (q, k, v)), key_lengths=lengths)
            with pytest.raises(ValueError, match=f"key_lengths must be in 0 … 3, got {length} .found on simulator"):
                lamella.backend.backend_for(lamella.device("simulator")).synchronize(lamella.device("simulator"))


# -- the choice -------------------------------------------------------------------------------------------------------


def _explained(sim: SimulatorBackend, dtype: Any, shape: tuple[int, ...], **options: Any) -> str:
    q, k, v, _ = (sim.from_numpy(a) for a in _arrays(np.dtype(dtype), *shape))
    return kernels.explain("attention", q, k, v, **options)


@pytest.mark.parametrize(
    ("dtype", "shape", "said"),
    [
        (np.float16, (1, 2, 2, 65, 9, 64, 64), r"attention_forward .*WIDTH=64 .*WARPS=4\], 4 blocks of 128 .* float16"),
        (np.float32, (1, 2, 2, 17, 9, 65, 9), r"attention_forward .*WIDTH=128 SLICE=64 .*\], 2 blocks of 128"),
        (np.float32, (1, 2, 2, 17, 9, 9, 65), r"attention_forward .*WIDTH=128 SLICE=64 .*\], 4 blocks of 128"),
        (np.float16, (1, 8, 2, 4, 2000, 8, 8), r"WARPS=1\], 14 blocks of 32 .* 4 heads that share .* in 7 parts"),
        (np.float64, (1, 1, 1, 2, 2, 2, 2), "plain array definition: there is no kernel for float64"),
        (np.float16, (1, 1, 1, 2, 2, 2, 257), "plain array definition: heads of width 257, the kernels take"),
        (np.float16, (1, 1, 1, 2, 0, 2, 2), "plain array definition: the result is empty or there are no keys"),
    ],
)
def test_explain_says_what_runs_and_why(dtype: Any, shape: tuple[int, ...], said: str) -> None:
    with simulator() as sim:
        assert re.search(said, _explained(sim, dtype, shape))


def test_older_devices_and_other_backends_get_the_definition() -> None:
    with simulator() as sim:
        sim.capability = 75
        assert "need compute capability 8.0, this device has 7.5" in _explained(sim, np.float16, (1, 1, 1, 2, 2, 2, 2))
        q, k, v, dy = (sim.from_numpy(a) for a in _arrays(np.dtype(np.float16), 1, 1, 1, 2, 2, 2, 2))
        out, lse = kernels.attention(q, k, v, return_lse=True)
        kernels.attention_backward(dy, q, k, v, out, lse)
        assert not sim.launches
    x = np.ones((1, 1, 2, 2))
    assert "the cpu backend runs no CUDA kernels" in kernels.explain("attention", x, x, x)
