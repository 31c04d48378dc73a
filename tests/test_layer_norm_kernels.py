"""Every variant of the kernels of layer and RMS norm executed on the CPU, and what judges a broken one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from lamella.backend import random_bits, read_source
from lamella.kernels import Dropout
from lamella.kernels._norm_cuda import NOTHING_DROPPED, divisor, dropout_scalars
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants
from .test_softmax import unit

SOURCE = KERNELS / "layer_norm.cu"
DTYPES = {"float": np.float32, "half": np.float16, "bfloat16": ml_dtypes.bfloat16}
EPS = 1e-3


class Run:
    """One variant: launches its kernels on plain arrays and compares with float64."""

    def __init__(self, text: str, defines: tuple[str, ...], seeds: Iterable[int]) -> None:
        macros = dict(define.partition("=")[::2] for define in defines)
        self.text, self.defines, self.seeds, self.kind = text, defines, tuple(seeds), defines[0]
        self.dtype = np.dtype(DTYPES[macros["DTYPE"]])
        self.unit = unit(self.dtype)
        self.macros = {name: int(value) for name, value in macros.items() if value.isdecimal()}
        self.fused = bool(self.macros.get("FUSED"))

    def launch(self, name: str, grid: int, arguments: tuple[Any, ...], shared: int = 0) -> None:
        block = self.macros.get("WIDTH", 0) * self.macros.get("DEPTH", 0) or max(128, self.macros["THREADS"])
        where = {"defines": self.defines, "seeds": self.seeds, "shared_mem": shared, "step_limit": 20_000_000}
        run_kernel(self.text, name, (grid,), (block,), arguments, **where)

    def place(self, values: np.ndarray) -> np.ndarray:
        """In this variant's dtype, on a 16-byte boundary where packs are read, beside one where they are not."""
        beside = 0 if self.macros["VECTOR"] > 1 else 1
        memory = np.empty((values.size + 1) * self.dtype.itemsize + 15, np.uint8)
        start = -memory.ctypes.data % 16 + beside * self.dtype.itemsize
        array = np.ndarray(values.shape, self.dtype, buffer=memory, offset=start)
        array[...] = values.astype(self.dtype)
        return array

    def nothing(self, *shape: int, dtype: Any = None) -> np.ndarray:
        return self.place(np.full(shape, np.nan)) if dtype is None else np.full(shape, np.nan, dtype)

    # -- what has to come out ----------------------------------------------------------------------------------------
    def rows(self, rows: int, cols: int) -> np.ndarray:
        """Values whose rows are hard in different ways: a mean that hides the variance, constants, NaN, infinity."""
        x = np.random.default_rng((rows, cols)).standard_normal((rows, cols)) * 2 + 1
        far = 1e6 if self.dtype == np.float32 else 200
        for row, change in enumerate((lambda r: r + far, lambda r: r - far / 8, lambda r: r * 0 + 3)):
            if row < rows - 1:
                x[row] = change(x[row])
        if rows > 4:
            x[3, 0] = np.nan
            x[4, -1] = np.inf
        return x

    def drop(self, x: np.ndarray, dropped: Dropout) -> np.ndarray:
        words = random_bits(dropped.key, dropped.offset, x.size).reshape(x.shape)
        return np.where(words >= dropped.threshold, x * dropped.scale, 0)

    def close(self, found: np.ndarray, expected: np.ndarray, size: Any, rounded: float | None = None) -> None:
        """NaN where NaN is expected, else within a few roundings of numbers as large as ``size``, and one of dtype."""
        found = found.astype(np.float64)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        bound = 16 * 2.0**-24 * np.broadcast_to(size, expected.shape)
        bound = bound + (self.unit if rounded is None else rounded) * np.abs(expected)
        with np.errstate(invalid="ignore"):
            good = (np.abs(found - expected) <= bound) | (found == expected) | np.isnan(expected)
        assert good.all(), (self.defines, np.argwhere(~good)[:3], found[~good][:3], expected[~good][:3])

    # -- forward -----------------------------------------------------------------------------------------------------
    def forward(self, rows: int, cols: int, *, affine: bool, centred: bool, values: int = 0, dropped: Dropout) -> None:
        rng = np.random.default_rng(cols)
        x, y = self.place(self.rows(rows, cols)), self.nothing(rows, cols)
        groups, per_group = (2, cols // values) if values else (0, 0)
        weight = bias = residual = total = None
        if affine:
            weight, bias = (self.place(rng.standard_normal(groups * per_group or cols)) for _ in range(2))
        z = x.astype(np.float64)
        if self.fused:
            total = self.nothing(rows, cols)
            with np.errstate(invalid="ignore"):
                z = self.drop(z, dropped)
            if affine:
                residual = self.place(rng.standard_normal((rows, cols)))
                z += residual
        mean = self.nothing(rows, dtype=np.float32) if centred else None
        rstd = self.nothing(rows, dtype=np.float32)
        scalars = (np.int64(rows), np.int32(cols))
        by_channel = (np.int32(groups), np.int32(per_group), *divisor(max(1, values)))
        if self.kind == "FORWARD_SPLIT":
            width = self.macros["THREADS"] * self.macros["PACKS"] * self.macros["VECTOR"]
            pieces = -(-cols // width)
            parts = self.nothing(rows * pieces, 3, dtype=np.float32)
            scalars = (*scalars, np.int32(pieces), np.int32(width))
            arguments = (x, residual, total, parts, *scalars, np.int32(centred), *dropout_scalars(dropped))
            self.launch("norm_forward_pieces", rows * pieces, arguments)
            held = x if total is None else total
            arguments = (held, weight, bias, parts, y, mean, rstd, *scalars, np.float32(EPS), *by_channel)
            self.launch("norm_forward_apply", rows * pieces, arguments)
        else:
            shared = cols * self.dtype.itemsize if self.kind == "FORWARD_SHARED" else 0
            per_block = max(1, 128 // self.macros["THREADS"])
            arrays = (x, residual, weight, bias, total, y, mean, rstd)
            arguments = (*arrays, *scalars, np.float32(EPS), *dropout_scalars(dropped), *by_channel)
            self.launch(f"norm_{self.kind.lower()}", -(-rows // per_block), arguments, shared)
        if total is not None:
            self.close(total, z, np.abs(x.astype(np.float64)) + np.abs(z) if residual is not None else 0)
            z = total.astype(np.float64)
        with np.errstate(invalid="ignore"):
            m = z.mean(1, keepdims=True) if centred else 0.0
            r = 1 / np.sqrt(((z - m) ** 2).mean(1, keepdims=True) + EPS)
            n = (z - m) * r
        if mean is not None:
            self.close(mean, np.where(np.isfinite(m), m, np.nan)[:, 0], np.abs(z).mean(1), 2.0**-24)
        self.close(rstd, r[:, 0], 0, 2.0**-20)
        channel = (np.arange(rows)[:, None] % 2) * per_group + np.arange(cols) // max(1, values)
        w, b = (1.0, 0.0) if not affine else (a.astype(np.float64) for a in (weight, bias))
        if values and affine:
            w, b = w[channel], b[channel]
        with np.errstate(invalid="ignore"):
            self.close(y, n * w + b, (1 + np.abs(n)) * np.abs(w) + np.abs(b))

    # -- backward ----------------------------------------------------------------------------------------------------
    def backward(
        self, rows: int, cols: int, *, affine: bool, centred: bool, chunks: int, dropped: Dropout, bad: bool = False
    ) -> None:
        rng = np.random.default_rng((rows, cols, 1))
        z, dy = (self.place(rng.standard_normal((rows, cols)) + 0.5) for _ in range(2))
        if bad:
            z[rows // 2, 0] = np.nan
        weight = self.place(rng.standard_normal(cols) + 0.25) if affine else None
        wide = z.astype(np.float64)
        m = wide.mean(1, keepdims=True).astype(np.float32) if centred else None
        c = wide if m is None else wide - m
        r = (1 / np.sqrt((c * c).mean(1, keepdims=True) + EPS)).astype(np.float32)
        dsum = dresidual = dx = None
        if not self.fused:
            dx = self.nothing(rows, cols)
        elif affine:
            dx, dresidual = self.nothing(rows, cols), self.nothing(rows, cols)
            dsum = self.place(rng.standard_normal((rows, cols)))
        else:  # nothing wants the gradient of x
            dresidual = self.nothing(rows, cols)
        mean = None if m is None else m[:, 0].copy()
        rstd = r[:, 0].copy()
        scalars = (np.int64(rows), np.int32(cols))
        partial = self.nothing(chunks, 2, cols, dtype=np.float32)
        before = (dy, z, weight, mean, rstd)
        after = (dsum, dx, dresidual, partial)
        if self.kind == "BACKWARD_SPLIT":
            width = self.macros["THREADS"] * self.macros["PACKS"] * self.macros["VECTOR"]
            pieces = -(-cols // width)
            parts = self.nothing(rows * pieces, 2, dtype=np.float32)
            scalars = (*scalars, np.int32(pieces), np.int32(width))
            self.launch("norm_backward_pieces", rows * pieces, (*before, parts, *scalars))
            arguments = (*before, parts, *after, *scalars, *dropout_scalars(dropped))
            self.launch("norm_backward_apply", chunks * pieces, arguments)
        else:
            arguments = (*before, *after, *scalars, *dropout_scalars(dropped))
            self.launch("norm_backward_registers", chunks, arguments)
        n = c * r
        g = dy.astype(np.float64) * (1.0 if weight is None else weight.astype(np.float64))
        dz = r * (g - n * (g * n).mean(1, keepdims=True) - (g.mean(1, keepdims=True) if centred else 0.0))
        size = np.abs(r) * (np.abs(g).max(1, keepdims=True) * (1 + np.abs(n).max(1, keepdims=True)) ** 2)
        if dsum is not None:
            dz = dz + dsum.astype(np.float64)
        if dresidual is not None:
            self.close(dresidual, dz, size)
        if dx is not None:
            with np.errstate(invalid="ignore"):
                self.close(dx, self.drop(dz, dropped) if self.fused else dz, 2 * size)
        if not bad:
            for which, term in ((0, dy.astype(np.float64) * n), (1, dy.astype(np.float64))):
                self.close(partial[:, which].astype(np.float64).sum(0), term.sum(0), np.abs(term).sum(0), 0)

    # -- the sums over blocks ----------------------------------------------------------------------------------------
    def columns(self, blocks: int, cols: int, wanted: tuple[bool, bool]) -> None:
        partial = np.random.default_rng(blocks).standard_normal((blocks, 2, cols)).astype(np.float32)
        found = [np.full(cols, np.nan, self.dtype) if want else None for want in wanted]
        scalars = (np.int32(blocks), np.int32(cols))
        self.launch("norm_backward_columns", -(-cols // self.macros["WIDTH"]), (partial, *found, *scalars))
        for which, array in enumerate(found):
            if array is not None:
                terms = partial[:, which].astype(np.float64)
                self.close(array, terms.sum(0), np.abs(terms).sum(0))


def run_variant(text: str, defines: tuple[str, ...], seeds: Iterable[int] = (0,)) -> None:
    """Run a variant's kernels on awkward shapes and judge the numbers; the simulator judges by a KernelError."""
    run = Run(text, defines, seeds)
    if run.kind == "COLUMNS":
        for blocks, cols in ((1, 1), (37, 45)):
            run.columns(blocks, cols, (True, True))
        run.columns(16, 32, (False, True))
        run.columns(5, 3, (True, False))
        return
    vector, threads, packs = (run.macros[name] for name in ("VECTOR", "THREADS", "PACKS"))
    capacity, per_block = threads * packs * vector, max(1, 128 // threads)
    place = (2**63 + 5, 2**40 + 3)  # in this stream one of the first words is the threshold itself
    nothing, some = (
        NOTHING_DROPPED,
        Dropout(min(random_bits(*place, 7), key=lambda w: abs(w / 2**32 - 0.4)) / 2**32, *place),
    )
    if "SPLIT" in run.kind:
        lengths = (vector, 2 * capacity + vector * 3, 34 * capacity if capacity <= 512 else capacity)
    elif "SHARED" in run.kind:
        lengths = (vector, threads * vector + vector, 2 * threads * packs * vector + 3 * vector)
    else:
        lengths = (capacity, capacity // 2 + vector, vector)
    rows = per_block + 6
    for i, cols in enumerate(lengths):
        plain, full = {"affine": False, "centred": i != 1}, {"affine": True, "centred": i != 2}
        if run.kind.startswith("FORWARD"):
            run.forward(rows, cols, **full, dropped=some)
            run.forward(rows, cols, **plain, dropped=nothing)
            if not run.fused:
                values = cols // 3 if cols % (3 * vector) == 0 else cols // vector // 2 * vector
                if values and cols % values == 0:
                    run.forward(7, cols, **full, values=values, dropped=nothing)
        else:
            run.backward(2 * per_block + 1, cols, **full, chunks=2, dropped=some)
            run.backward(per_block + 1, cols, **plain, chunks=2 if i else 1, dropped=nothing)
            run.backward(3, cols, **full, chunks=1, dropped=Dropout(1.0, 0, 0), bad=True)


_QUICK = {
    "FORWARD_REGISTERS DTYPE=half VECTOR=8 THREADS=8 PACKS=1 FUSED=1",
    "BACKWARD_REGISTERS DTYPE=bfloat16 VECTOR=8 THREADS=8 PACKS=1 FUSED=1",
    "COLUMNS DTYPE=half WIDTH=32 DEPTH=16",
}


def is_chosen(number: int, variant: Variant) -> bool:
    """Each rung of the ladders with all that is fused, of 16-bit floats every third."""
    if " ".join(variant.defines) in _QUICK:
        return True
    return "FUSED=0" not in variant.defines if "DTYPE=float" in variant.defines else number % 3 == 0


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for number, variant in enumerate(variants(SOURCE))
        if is_chosen(number, variant)
    ],
)
def test_a_variant_is_right_at_its_edges(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines)


def test_the_division_by_a_product_is_exact() -> None:
    rng = np.random.default_rng(0)
    n = np.concatenate([rng.integers(0, 2**31, 2000), np.arange(2000), 2**31 - 1 - np.arange(2000)]).astype(np.uint64)
    for number in (1, 2, 3, 5, 7, 49, 64, 196, 3136, 65535, 2**20 + 7, 2**30, 2**30 - 1):
        magic, shift = divisor(number)
        quotient = ((n * np.uint64(magic) >> np.uint64(32)) + n) >> np.uint64(shift)
        np.testing.assert_array_equal(quotient, n // np.uint64(number))


# -- mutants: `make mutants` calls judge ------------------------------------------------------------------------------
_SMALL = (  # enough to reach every line; blocks smaller than any that is launched, for speed
    "FORWARD_REGISTERS DTYPE=float VECTOR=4 THREADS=8 PACKS=2 FUSED=1",
    "FORWARD_REGISTERS DTYPE=float VECTOR=1 THREADS=1024 PACKS=1 FUSED=0",
    "FORWARD_REGISTERS DTYPE=float VECTOR=1 THREADS=1 PACKS=4 FUSED=0",
    "FORWARD_SHARED DTYPE=float VECTOR=4 THREADS=128 PACKS=2 FUSED=1",
    "FORWARD_SPLIT DTYPE=float VECTOR=1 THREADS=128 PACKS=2 FUSED=1",
    "BACKWARD_REGISTERS DTYPE=float VECTOR=4 THREADS=8 PACKS=2 FUSED=1",
    "BACKWARD_REGISTERS DTYPE=float VECTOR=1 THREADS=128 PACKS=2 FUSED=0",
    "BACKWARD_SPLIT DTYPE=float VECTOR=1 THREADS=128 PACKS=2 FUSED=1",
    "COLUMNS DTYPE=float WIDTH=8 DEPTH=4",
)


def judge(broken: Path, number: int) -> None:
    """Run the variants that see line ``number`` of a changed file; an exception says that a change was noticed."""
    inside: list[set[str]] = []
    for line in broken.read_text(encoding="utf-8").splitlines()[:number]:
        if line.startswith("#if"):
            words = {word.strip("()") for word in line.replace("defined", " ").split()} - {"#if", "#ifdef", "||"}
            kinds = {defines.split()[0] for defines in _SMALL}
            inside.append(kinds - {"COLUMNS"} if line.startswith("#ifndef") else words & kinds)
        elif line.startswith("#endif"):
            inside.pop()
    for defines in _SMALL:
        if not inside or defines.split()[0] in inside[-1]:
            run_variant(read_source(broken), tuple(defines.split()), seeds=(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("variant", variants(SOURCE)[3::60], ids=str)
def test_intact_kernels_raise_no_alarm_over_10_seeds(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines, seeds=range(10))
