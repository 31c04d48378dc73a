"""Every variant of the kernels of group norm executed on the CPU, and what judges a broken one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lamella.backend import read_source
from lamella.testing import run_kernel

from .kernel_heads import KERNELS, Variant, variants
from .test_layer_norm_kernels import DTYPES
from .test_softmax import unit

SOURCE = KERNELS / "group_norm.cu"
EPS = 1e-3


class Run:
    """One variant: launches its kernels on plain arrays and compares with float64."""

    def __init__(self, text: str, defines: tuple[str, ...], seeds: Iterable[int]) -> None:
        macros = dict(define.partition("=")[::2] for define in defines)
        self.text, self.defines, self.seeds, self.kind = text, defines, tuple(seeds), defines[0]
        self.dtype = np.dtype(DTYPES[macros["DTYPE"]])
        self.macros = {name: int(value) for name, value in macros.items() if value.isdecimal()}

    def launch(self, name: str, grid: int, *arguments: Any) -> None:
        threads = self.macros.get("THREADS", 0)
        block = threads if self.kind == "FINISH" else max(128, threads)
        if "WIDTH" in self.macros:
            block = self.macros["WIDTH"] * self.macros["DEPTH"]
        where = {"defines": self.defines, "seeds": self.seeds, "step_limit": 20_000_000}
        run_kernel(self.text, name, (grid,), (block,), arguments, **where)

    def nothing(self, *shape: int, dtype: Any = np.float32) -> np.ndarray:
        memory = np.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize + 15, np.uint8)
        array = np.ndarray(shape, dtype, buffer=memory, offset=-memory.ctypes.data % 16)
        array[...] = np.nan
        return array

    def place(self, values: np.ndarray) -> np.ndarray:
        array = self.nothing(*values.shape, dtype=self.dtype)
        array[...] = values.astype(self.dtype)
        return array

    def close(self, found: np.ndarray, expected: np.ndarray, size: Any, rounded: float = 0.0) -> None:
        """NaN where NaN is expected, else within some roundings of numbers as large as ``size``."""
        found = found.astype(np.float64)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
        bound = 16 * 2.0**-24 * np.broadcast_to(size, expected.shape) + rounded * np.abs(expected)
        with np.errstate(invalid="ignore"):
            good = (np.abs(found - expected) <= bound) | np.isnan(expected)
        assert good.all(), (self.defines, np.argwhere(~good)[:3], found[~good][:3], expected[~good][:3])

    def chunks(self, values: np.ndarray, chunks: int, span: int) -> list[np.ndarray]:
        """The chunks of images given as (samples, pixels, channels)."""
        return [values[:, i * span : (i + 1) * span] for i in range(chunks)]

    # -- forward -----------------------------------------------------------------------------------------------------
    def forward(self, samples: int, pixels: int, channels: int, groups: int, chunks: int, affine: bool) -> None:
        rng = np.random.default_rng((pixels, channels))
        x = rng.standard_normal((samples, pixels, channels)) * 2 + 1
        x[0] += 100 if self.dtype == np.float32 else 20
        x[-1, -1, 0] = np.nan
        x = self.place(x)
        wide, span = x.astype(np.float64), -(-pixels // chunks)
        partial = self.nothing(samples, chunks, 2, channels)
        sizes = (np.int32(channels), np.int32(groups))
        cut = (np.int32(pixels), np.int32(chunks), np.int32(span))
        tiles = -(-channels // (self.macros["WIDTH"] * self.macros["VECTOR"]))
        grid = samples * chunks * tiles
        self.launch("group_norm_moments", grid, x, partial, sizes[0], *cut)
        for i, part in enumerate(self.chunks(wide, chunks, span)):
            m = part.mean(1)
            self.close(partial[:, i, 0], m, 4 * np.abs(part).max(1))
            self.close(partial[:, i, 1], ((part - m[:, None]) ** 2).sum(1), 1e-3, 1e-4)
        grouped = wide.reshape(samples, pixels, groups, -1)
        m = grouped.mean((1, 3)).astype(np.float32)
        r = (1 / np.sqrt(grouped.var((1, 3)) + EPS)).astype(np.float32)
        weight, bias = (self.place(rng.standard_normal(channels)) if affine else None for _ in "wb")
        y = self.nothing(*x.shape, dtype=self.dtype)
        self.launch("group_norm_apply", grid, x, weight, bias, m, r, y, *sizes, *cut)
        n = (grouped - m[:, None, :, None]) * r[:, None, :, None]
        w, b = (1.0, 0.0) if weight is None else (weight.astype(np.float64), bias.astype(np.float64))
        n = n.reshape(x.shape)
        self.close(y, n * w + b, np.abs(n * w) + np.abs(b), unit(self.dtype))

    # -- backward ----------------------------------------------------------------------------------------------------
    def backward(self, samples: int, pixels: int, channels: int, groups: int, chunks: int, affine: bool) -> None:
        rng = np.random.default_rng((pixels, channels, 1))
        last, vector = self.kind.endswith("LAST"), self.macros["VECTOR"]
        span = -(-pixels // chunks)
        if not last:
            span = -(-span // vector) * vector
        chunks = -(-pixels // span)
        x, dy = (rng.standard_normal((samples, pixels, channels)) + 0.5 for _ in range(2))
        dy[-1, 0, -1] = np.nan
        order = (0, 1, 2) if last else (0, 2, 1)
        x, dy = (self.place(a.transpose(order)) for a in (x, dy))
        dx, partial = self.nothing(*x.shape, dtype=self.dtype), self.nothing(samples, chunks, 2, channels)
        m, r = (rng.random((samples, groups)).astype(np.float32) + shift for shift in (0, 0.5))
        product, total = (rng.standard_normal((samples, groups)).astype(np.float32) for _ in range(2))
        weight = self.place(rng.standard_normal(channels)) if affine else None
        sizes = [np.int32(v) for v in (channels, groups, pixels, chunks, span)]
        if last:
            grid = samples * chunks * -(-channels // (self.macros["WIDTH"] * vector))
        else:
            sizes.insert(0, np.int32(samples))
            grid = -(-samples * chunks * channels // max(1, 128 // self.macros["THREADS"]))
        self.launch("group_norm_sums", grid, dy, x, m, r, partial, *sizes)
        self.launch("group_norm_gradient", grid, dy, x, weight, m, r, product, total, dx, *sizes)

        def of_channel(a: np.ndarray) -> np.ndarray:
            return np.repeat(a.astype(np.float64), channels // groups, axis=1)[:, None]

        wide, g = (a.astype(np.float64).transpose(order) for a in (x, dy))
        n = (wide - of_channel(m)) * of_channel(r)
        for which, terms in ((0, g * n), (1, g)):
            for i, part in enumerate(self.chunks(terms, chunks, span)):
                self.close(partial[:, i, which], part.sum(1), np.abs(part).sum(1))
        g = g * (1.0 if weight is None else weight.astype(np.float64))
        expected = of_channel(r) * (g - of_channel(total) - n * of_channel(product))
        size = np.abs(of_channel(r)) * (np.abs(g) + np.abs(of_channel(total)) + np.abs(n * of_channel(product)))
        self.close(dx.transpose(order), expected, size, unit(self.dtype))

    # -- what is put together ----------------------------------------------------------------------------------------
    def finish(self, samples: int, pixels: int, channels: int, groups: int, chunks: int, affine: bool) -> None:
        rng = np.random.default_rng((pixels, channels, 2))
        span, per_group = -(-pixels // chunks), channels // groups
        x = (rng.standard_normal((samples, pixels, channels)) + rng.standard_normal(channels)).astype(np.float64)
        x[0] += 1e3  # the rounding of the parts' means is what limits the variance here
        partial = self.nothing(samples, chunks, 2, channels)
        for i, part in enumerate(self.chunks(x, chunks, span)):
            partial[:, i, 0] = part.mean(1)
            partial[:, i, 1] = part.var(1) * part.shape[1]
        m, r = (self.nothing(samples, groups) for _ in "mr")
        sizes = [np.int32(v) for v in (channels, groups, pixels, chunks)]
        self.launch("group_norm_statistics", samples * groups, partial, m, r, *sizes, np.int32(span), np.float32(EPS))
        grouped = x.reshape(samples, pixels, groups, per_group)
        self.close(m, grouped.mean((1, 3)), np.abs(grouped).max((1, 3)) / 8)
        expected = 1 / np.sqrt(grouped.var((1, 3)) + EPS)
        self.close(r, expected, expected**3 * np.where(np.arange(samples) == 0, 100, 1)[:, None])

        partial = rng.standard_normal((samples, chunks, 2, channels)).astype(np.float32)
        partial[-1, -1, 0, -1] += 3
        weight, dweight, dbias = (self.place(rng.standard_normal(channels)) if affine else None for _ in range(3))
        product, total = (self.nothing(samples, groups) for _ in range(2))
        grid = samples * groups + -(-channels // 32)
        arguments = (partial, weight, product, total, dweight, dbias, np.int32(samples), *sizes)
        self.launch("group_norm_means", grid, *arguments)
        sums = partial.astype(np.float64).sum(1) * (1.0 if weight is None else weight.astype(np.float64))
        means = sums.reshape(samples, 2, groups, per_group).sum(3) / (per_group * pixels)
        size = np.abs(partial).sum((1, 3)).max() / (per_group * pixels)
        for which, found, of_channel in ((0, product, dweight), (1, total, dbias)):
            self.close(found, means[:, which], size)
            if of_channel is not None:
                terms = partial[:, :, which].astype(np.float64)
                self.close(of_channel, terms.sum((0, 1)), np.abs(terms).sum((0, 1)), unit(self.dtype))


def run_variant(text: str, defines: tuple[str, ...], seeds: Iterable[int] = (0,)) -> None:
    """Run a variant's kernels on awkward shapes and judge the numbers; the simulator judges by a KernelError."""
    run = Run(text, defines, seeds)
    if run.kind == "FINISH":
        for samples, pixels, channels, groups, chunks, affine in (
            (2, 7, 6, 3, 3, True),
            (1, 5, 1, 1, 1, False),
            (3, 40, 70, 2, 5, True),
            (12, 3, 33, 33, 2, True),
        ):
            run.finish(samples, pixels, channels, groups, chunks, affine)
        return
    check = run.forward if run.kind.startswith("FORWARD") else run.backward
    vector, packs = run.macros["VECTOR"], run.macros["PACKS"]
    if run.kind.endswith("LAST"):
        width, depth = run.macros["WIDTH"] * vector, run.macros["DEPTH"]
        check(2, depth * packs * 2 + 3, width + vector, width // vector + 1, 2, True)
        check(2, depth // 2 + 1, vector, vector, 1, False)  # fewer pixels than threads; instances
        check(1, 1, 2 * vector, 1, 1, True)
        check(2, depth + 2, width, 1, 1, False)  # a tile exactly, and a second pack for two threads
    else:
        threads = run.macros["THREADS"]
        check(2, (threads * packs + 3) * vector, 6, 3, 2, True)
        check(3, 3 * vector, 5, 1, 1, False)
        check(1, vector, 3, 3, 1, True)


_QUICK = {"FORWARD_LAST DTYPE=half VECTOR=8 WIDTH=8 DEPTH=32 PACKS=4", "FINISH DTYPE=float THREADS=256"}


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, id=str(variant), marks=() if " ".join(variant.defines) in _QUICK else pytest.mark.slow)
        for variant in variants(SOURCE)[::2]
    ],
)
def test_a_variant_is_right_at_its_edges(variant: Variant) -> None:
    run_variant(read_source(SOURCE), variant.defines)


# -- mutants: `make mutants` calls judge ------------------------------------------------------------------------------
_SMALL = (  # enough to reach every line; blocks smaller than any that is launched, for speed
    "FORWARD_LAST DTYPE=float VECTOR=4 WIDTH=8 DEPTH=4 PACKS=2",
    "FORWARD_LAST DTYPE=float VECTOR=1 WIDTH=8 DEPTH=4 PACKS=4",
    "BACKWARD_LAST DTYPE=float VECTOR=4 WIDTH=8 DEPTH=4 PACKS=2",
    "BACKWARD_PLANES DTYPE=float VECTOR=4 THREADS=32 PACKS=2",
    "BACKWARD_PLANES DTYPE=float VECTOR=1 THREADS=128 PACKS=2",
    "FINISH DTYPE=float THREADS=64",
)


def judge(broken: Path, number: int) -> None:
    """Run the variants that see line ``number`` of a changed file; an exception says that a change was noticed."""
    inside: list[str] = []
    for line in broken.read_text(encoding="utf-8").splitlines()[:number]:
        if line.startswith("#if"):
            inside.append(line)
        elif line.startswith("#endif"):
            inside.pop()
    for defines in _SMALL:
        if not inside or defines.split()[0] in inside[-1]:
            run_variant(read_source(broken), tuple(defines.split()), seeds=(0, 1))
