"""The step kernels: PyTorch's formulas in float64 as the judge, every variant, and what lies outside the pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.testing
from lamella import kernels
from lamella.backend import Device, backend_for, read_source
from lamella.kernels import optimizer_step
from lamella.testing import run_kernel
from lamella.training import SGD, Adam, AdamW

from .kernel_heads import KERNELS, Variant, variants

SOURCE = KERNELS / "optimizer_step.cu"
_DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}
ADAM = (0.8, 0.95, 1e-3, 0.05, 0.3, 0.97)  # beta1, beta2, eps, scale, weight_decay, keep
STEPS = (0.1, 0.9, 0.5, 0.3)  # lr, momentum, gain, weight_decay


def adam64(p: Any, g: Any, m: Any, v: Any, numbers: Any, decay: int) -> Any:
    beta1, beta2, eps, scale, weight_decay, keep = numbers
    if decay == 1:
        g = g + weight_decay * p
    if decay == 2:
        p = keep * p
    m, v = beta1 * m + g, beta2 * v + g * g
    return p - scale * m / (np.sqrt(v) + eps), m, v


def sgd64(p: Any, g: Any, v: Any, numbers: Any, decay: int, momentum: int, nesterov: int) -> Any:
    lr, mu, gain, weight_decay = numbers
    if decay:
        g = g + weight_decay * p
    if not momentum:
        return p - lr * g, v
    v = mu * v + gain * g
    return p - lr * (g + mu * v if nesterov else v), v


def run_variant(text: str, defines: tuple[str, ...], seeds: Any = (0,), blocks: int = 64) -> None:
    """Two stretches with numbers of their own and a gap between them; the second ends in a short piece."""
    macros = dict(define.partition("=")[::2] for define in defines)
    dtype, vector, decay = _DTYPES[macros["DTYPE"]], int(macros["VECTOR"]), int(macros["DECAY"])
    adam = "ADAM" in macros
    half = np.dtype(dtype).itemsize == 2
    piece = 2 * blocks * vector
    stretches = [(0, piece + vector), (piece + 3 * vector, piece + 3 * vector + blocks * vector)]
    size = stretches[1][1] + 2 * vector
    first = ADAM if adam else STEPS
    if not adam and int(macros["NESTEROV"]):
        first = (*STEPS[:2], 1.0, STEPS[3])
    rows = [first, tuple(0.5 * n if n != 1.0 else n for n in first)]
    numbers = np.array(rows, np.float32).ravel()
    pieces = np.array(
        [
            (a, min(a + piece, end), r * len(first))
            for r, (start, end) in enumerate(stretches)
            for a in range(start, end, piece)
        ],
        np.int64,
    )
    for clipped in (False, True):
        rng = np.random.default_rng(size)
        start = rng.standard_normal(size).astype(np.float32)
        p = start.astype(dtype)
        master = start.copy() if half else None
        if half:
            p[3] = 8.0  # written by somebody since the last step
            p[5], master[5] = np.nan, 1.0
        g = (rng.standard_normal(size) * 3).astype(dtype)
        g[1], g[vector + 2] = np.nan, np.inf
        m, v = rng.standard_normal(size).astype(np.float32), rng.random(size).astype(np.float32)
        clip = np.array([7.0, 0.25], np.float32) if clipped else None
        exact = np.where(p.astype(np.float32) == start.astype(dtype), start, p) if half else p
        exact = exact.astype(np.float64)
        expected = [a.astype(np.float64) for a in (exact, m, v)]
        plain = [exact.astype(np.float32), m.copy(), v.copy()]
        for (a, b), row in zip(stretches, rows, strict=True):
            slope = g[a:b].astype(np.float64) * (0.25 if clipped else 1.0)
            narrow = tuple(np.float32(n) for n in row)
            part = [x[a:b] for x in plain]
            with np.errstate(all="ignore"):
                options = (int(macros.get("MOMENTUM", 0)), int(macros.get("NESTEROV", 0)))
                if adam:
                    expected[0][a:b], expected[1][a:b], expected[2][a:b] = adam64(
                        *(x[a:b] for x in expected[:1]), slope, expected[1][a:b], expected[2][a:b],
                        tuple(map(float, narrow)), decay,
                    )  # fmt: skip
                    kind = optimizer_step.DECAYS[decay]
                    scratch = np.empty(b - a, np.float32)
                    wide = slope.astype(np.float32)
                    optimizer_step.adam_definition(np, part[0], wide, tuple(part[1:]), scratch, narrow, kind)
                else:
                    expected[0][a:b], expected[1][a:b] = sgd64(
                        expected[0][a:b], slope, expected[1][a:b], tuple(map(float, narrow)), decay, *options
                    )
                    kind = "gradient" if decay else "none"
                    states = (part[1],) if options[0] else ()
                    scratch = np.empty(b - a, np.float32)
                    wide = slope.astype(np.float32)
                    optimizer_step.sgd_definition(np, part[0], wide, states, scratch, narrow, kind, bool(options[1]))
        before = p.copy()
        given = (p, g, master, m, v) if adam else (p, g, master, m if options[0] else None)
        name = "adam_step" if adam else "sgd_step"
        arguments = (*given, numbers, pieces, clip)
        run_kernel(text, name, (len(pieces),), (blocks,), arguments, defines=defines, seeds=seeds)
        for found, wanted, simple in zip((master if half else p, m, v), expected, plain, strict=True):
            agree(found, wanted, simple)
        if half:
            inside = np.concatenate([np.arange(a, b) for a, b in stretches])
            np.testing.assert_array_equal(p[inside].astype(float), master.astype(dtype)[inside].astype(float))
        outside = np.ones(size, bool)
        for a, b in stretches:
            outside[a:b] = False
        np.testing.assert_array_equal(bits(p)[outside], bits(before)[outside])


def bits(x: Any) -> Any:
    return x.view(np.uint16 if x.dtype.itemsize == 2 else np.uint32)


def agree(found: Any, expected: Any, plain: Any) -> None:
    """At most twice the plain definition's error, element by element of this size, plus a unit in the last place."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite & ~np.isnan(expected)], expected[~finite & ~np.isnan(expected)])
    error, allowed = (abs(x[finite].astype(np.float64) - expected[finite]) for x in (found, plain))
    assert error.max() <= 2 * allowed.max() + 1e-7


_QUICK = {
    "ADAM DTYPE=float VECTOR=4 DECAY=2",
    "ADAM DTYPE=bfloat16 VECTOR=8 DECAY=1",
    "SGD DTYPE=half VECTOR=8 MOMENTUM=1 NESTEROV=1 DECAY=1",
}


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for variant in variants(SOURCE)
    ],
)
def test_a_variant_is_right(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines)


def judge(broken: Path, number: int) -> None:
    """`make mutants` calls this: small blocks, each kernel with every branch."""
    text = read_source(broken)
    for defines in (
        "ADAM DTYPE=float VECTOR=4 DECAY=1", "ADAM DTYPE=half VECTOR=8 DECAY=2", "ADAM DTYPE=float VECTOR=4 DECAY=0",
        "SGD DTYPE=half VECTOR=8 MOMENTUM=1 NESTEROV=1 DECAY=1",
        "SGD DTYPE=float VECTOR=4 MOMENTUM=1 NESTEROV=0 DECAY=1",
        "SGD DTYPE=float VECTOR=4 MOMENTUM=0 NESTEROV=0 DECAY=0",
    ):  # fmt: skip
        run_variant(text, tuple(defines.split()), blocks=8)


# -- the public functions ---------------------------------------------------------------------------------------------


_SIMPLER = ("sgd", "momentum")
_WITH_COPY = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in (np.float16, ml_dtypes.bfloat16)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, *_WITH_COPY])
@pytest.mark.parametrize("rule", ["adam", "nesterov", *(pytest.param(r, marks=pytest.mark.slow) for r in _SIMPLER)])
def test_functions_agree_with_float64_on_every_device(rule: str, dtype: Any, device: Device) -> None:
    backend = backend_for(device)
    rng = np.random.default_rng(0)
    work = np.float32 if np.dtype(dtype).itemsize == 2 else dtype
    p, g, m, v = (rng.standard_normal(9000 // 32 * 32).astype(work) for _ in range(4))
    p, g, v = p.astype(dtype).astype(work), g.astype(dtype).astype(work), abs(v)
    row = np.array(ADAM if rule == "adam" else (0.1, 0.9, 1.0, 0.3), work)
    pieces = kernels.step_pieces([(0, 4160), (4160, p.size)], len(row))
    numbers = np.concatenate([row, row])
    master = p.copy() if np.dtype(dtype).itemsize == 2 else None
    given = [p.astype(dtype), g.astype(dtype), m, v, numbers, pieces]
    on = [backend.from_numpy(a, device) for a in given]
    copy = None if master is None else backend.from_numpy(master, device)
    if rule == "adam":
        kernels.adam_step(*on, decay="parameter", master=copy)
        expected = adam64(*(a.astype(np.float64) for a in (p, g, m, v)), ADAM, 2)[0]
    else:
        momentum = rule != "sgd"
        kernels.sgd_step(
            on[0], on[1], on[2] if momentum else None, *on[4:], nesterov=rule == "nesterov", decay="gradient",
            master=copy,
        )  # fmt: skip
        wide = (a.astype(np.float64) for a in (p, g, m))
        expected = sgd64(*wide, (0.1, 0.9, 1.0, 0.3), 1, momentum, rule == "nesterov")[0]
    found = backend.to_numpy(on[0] if copy is None else copy)
    np.testing.assert_allclose(found, expected, rtol=1e-12 if dtype == np.float64 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [SGD, Adam, AdamW])
def test_a_group_is_updated_by_one_launch_also_with_gaps(kind: Any, dtype: str) -> None:
    with lamella.testing.simulator() as sim:
        parameters = [
            lamella.Parameter(lamella.tensor(np.ones(n), dtype=dtype, device="simulator").data) for n in (5, 70, 3)
        ]
        optimizer = kind(parameters, lr=0.5)
        for missing in (None, 1):
            for i, p in enumerate(parameters):
                p.grad = None if i == missing else p.data * 0 + 1
            before = parameters[1].to_numpy().copy()
            sim.reset()
            optimizer.step()
            assert sum(sim.launches.values()) == 1
            assert sim.synchronizations == 0
            assert (parameters[1].to_numpy() == before).all() == (missing == 1)
        assert optimizer._flats[0].flush_steps() == [2, 1, 2]


def test_a_subclass_with_a_formula_of_its_own_is_not_overruled() -> None:
    class Backwards(SGD):
        def _update(self, xp: Any, p: Any, g: Any, *rest: Any) -> None:
            p += g

    with lamella.testing.simulator() as sim:
        p = lamella.Parameter(lamella.tensor([1.0], device="simulator").data)
        optimizer = Backwards([p])
        p.grad = p.data * 0 + 2
        optimizer.step()
        assert float(p) == 3.0
        assert not sim.launches


def arrays(n: int = 32, dtype: str = "float32") -> list[Any]:
    return [np.ones(n, dtype), np.ones(n, dtype), np.ones(n, "float32"), np.ones(n, "float32")]


PIECES = np.array([[0, 32, 0]])


def test_explain_names_the_kernel_or_the_reason() -> None:
    numbers = np.ones(6, "float32")
    said = kernels.explain("adam_step", *arrays(), numbers, PIECES)
    assert said == "plain array definition: the cpu backend runs no CUDA kernels"
    with lamella.testing.simulator() as sim:
        on = [sim.from_numpy(a) for a in (*arrays(), numbers, PIECES)]
        said = kernels.explain("adam_step", *on, decay="parameter")
        assert said.startswith("adam_step [ADAM DTYPE=float VECTOR=4 DECAY=2], 1 blocks of 256 threads: one launch")
        short = [sim.from_numpy(np.ones(33, "float32"))[1:] for _ in range(4)]
        assert "16-byte boundary" in kernels.explain("adam_step", *short, *on[4:])
        said = kernels.explain("sgd_step", on[0], on[1], None, on[4], on[5])
        assert said.startswith("sgd_step [SGD DTYPE=float VECTOR=4 MOMENTUM=0 NESTEROV=0 DECAY=0]")
        wide = [sim.from_numpy(a.astype("float64")) for a in (*arrays(), numbers)]
        assert "no kernel for float64" in kernels.explain("adam_step", *wide, on[5])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: np.ones((4, 8), "float32")}, ValueError, r"g must be contiguous of the shape of p, \(4, 8\), got shape"),
        ({1: np.ones(32)}, ValueError, "p must be 1-D and contiguous, g of its dtype, got float32"),
        ({2: np.ones(31, "float32")}, ValueError, r"state 0 must be contiguous of the shape of p, \(32,\), got shape"),
        ({3: np.ones(32)}, TypeError, "state 1 must be float32 for p of float32, got float64"),
        ({4: np.ones(6)}, TypeError, "numbers must be float32 for p of float32, got float64"),
        ({"decay": "l2"}, ValueError, "decay must be one of none, gradient, parameter, got 'l2'"),
        ({"master": np.ones(32, "float32")}, ValueError, "master must be given for 16-bit p and for no other"),
    ],
)
def test_bad_input_is_refused(change: Any, error: type[Exception], message: str) -> None:
    given: dict[Any, Any] = dict(enumerate([*arrays(), np.ones(6, "float32"), PIECES])) | change
    options = {key: given.pop(key) for key in ("decay", "master") if key in given}
    with pytest.raises(error, match=f"adam_step: {message}"):
        kernels.adam_step(*given.values(), **options)


def test_sgd_refuses_what_it_has_not() -> None:
    p, g, v, _ = arrays()
    with pytest.raises(ValueError, match='decay must be "none" or "gradient", got "parameter"'):
        kernels.sgd_step(p, g, v, np.ones(4, "float32"), PIECES, decay="parameter")
    with pytest.raises(ValueError, match="nesterov needs velocity, got None"):
        kernels.sgd_step(p, g, None, np.ones(4, "float32"), PIECES, nesterov=True)
