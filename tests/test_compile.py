"""Every kernel file compiles for every architecture it names, within the registers and spills its head allows.

Runs without a GPU and without a driver, where NVRTC's wheels are installed. The first and last variant of each line in
a head compile for every architecture, those between for one of them in turn; ``LAMELLA_COMPILE=all`` takes every pair.
"""

from __future__ import annotations

import os
import re

import pytest

from lamella.backend import read_source
from lamella.testing import nvrtc

from .kernel_heads import KERNELS, Variant, architectures, complaints, dealt_registers, touched_too_early, variants

_FILES = sorted(KERNELS.glob("*.cu"))
_ALL = [
    (variant, architecture)
    for file in _FILES
    for number, variant in enumerate(variants(file))
    for turn, architecture in enumerate(architectures(file))
    if variant.is_extreme or turn == number % len(architectures(file)) or os.environ.get("LAMELLA_COMPILE") == "all"
]


def _is_quick(variant: Variant, architecture: str) -> bool:
    """A kernel for 90a alone takes the compiler seconds."""
    return variant.is_first if architecture == "90a" else variant.is_extreme and architecture in ("75", "90")


_CASES = [
    pytest.param(
        variant,
        architecture,
        id=f"{variant}-sm_{architecture}",
        marks=() if _is_quick(variant, architecture) else pytest.mark.slow,
    )
    for variant, architecture in _ALL
]


@pytest.mark.parametrize("file", _FILES, ids=lambda file: file.name)
def test_a_kernel_file_names_its_architectures_and_budget(file):
    assert architectures(file), f"{file.name} needs a line '// architectures: 75 80 …' in its head"
    assert variants(file), f"{file.name} needs a line '// compile: … -> N registers, 0 spills' in its head"
    assert file.with_suffix(".py").exists(), f"{file.name} needs its definition and launcher beside it"


@pytest.mark.parametrize(("variant", "architecture"), _CASES)
def test_a_variant_compiles_within_its_budget(variant: Variant, architecture: str):
    if (missing := nvrtc.why_missing()) is not None:
        pytest.skip(missing)
    compiled = nvrtc.compile_cuda(read_source(KERNELS / variant.file), variant.defines, architecture)
    assert compiled.ok, compiled.log
    assert not complaints(compiled.log), compiled.log
    assert compiled.registers, f"no kernel is left by {variant.defines}"
    for kernel, registers in compiled.registers.items():
        assert registers <= variant.registers, f"{kernel} uses {registers} registers, {variant.registers} are allowed"
        assert compiled.spills[kernel] <= variant.spills, f"{kernel} spills {compiled.spills[kernel]} bytes"
    for kernel, (threads, copying, multiplying) in dealt_registers(compiled.ptx).items():
        registers = compiled.registers[kernel]
        assert copying <= registers <= multiplying
        assert 128 * copying + (threads - 128) * multiplying <= threads * registers
    assert not touched_too_early(compiled.ptx)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(v, id=str(v), marks=() if {"TF32", "VECTOR=1"} <= {*v.defines} else pytest.mark.slow)
        for file in _FILES
        for v in variants(file)
        if v.is_extreme
    ],
)
def test_a_variant_compiles_with_cuda_13(variant: Variant):
    """Its registers are others, and its front end reads what that of CUDA 12 leaves out."""
    if (missing := nvrtc.why_missing(13)) is not None:
        pytest.skip(missing)
    path = KERNELS / variant.file
    architecture = "90" if "90" in architectures(path) else architectures(path)[0]
    compiled = nvrtc.compile_cuda(read_source(path), variant.defines, architecture, cuda=13)
    assert compiled.ok, compiled.log
    assert not complaints(compiled.log), compiled.log
    if architecture == "90a":  # registers are dealt out by the kernel itself, so a spill is a mistake in any release
        assert max(compiled.spills.values()) <= variant.spills, compiled.spills
        assert not touched_too_early(compiled.ptx)


@pytest.mark.parametrize(
    "variant",
    [v for v in variants(KERNELS / "softmax.cu") if v.is_extreme and "VECTOR=1" not in v.defines],
    ids=str,
)
def test_softmax_moves_16_bytes_at_a_time(variant: Variant):
    if (missing := nvrtc.why_missing()) is not None:
        pytest.skip(missing)
    ptx = nvrtc.compile_cuda(read_source(KERNELS / variant.file), variant.defines, "90").ptx
    kernels = re.findall(r"\.entry (\w+)(.*?)(?=\.entry|\Z)", ptx, re.DOTALL)
    split = "SPLIT" in variant.defines
    assert len(kernels) == (7 if split else 4)  # softmax and log-softmax, forward and backward; parts of them
    for name, body in kernels:
        narrow = re.findall(r"\b(?:ld|st)\.global(?!\.v4\.(?:f32|u32|b32|s32))\S*", body)
        # Single elements at the ends of a row: forward reads 1 and writes 1, backward reads 2 and writes 1.
        at_most = 0 if "STRIDED" in variant.defines else 3 if "backward" in name else 2
        at_most += split and (2 if "forward" in name else 1)  # and what is known of parts
        assert len(narrow) <= at_most, f"{name}: {narrow}"


_PRODUCTS = """
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f1, %f2}, %rd1, %rd2, 1, 1, 1, 0, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f3, %f4}, {%r1, %r2}, %rd2, 1, 1, 1, 0;
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 1;
    mul.f32 %f5, %f1, %f6;
    wgmma.wait_group.sync.aligned 0;
    add.f32 %f3, %f3, %f6;
    wgmma.fence.sync.aligned;
    wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%f3, %f4}, %rd1, %rd2, 1, 1, 1, 0, 0;"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("%f1, %f6", "%f3, %f6", "mul.f32 %f5, %f3, %f6;"),  # the sum of a product that may be under way
        ("mul.f32 %f5", "@%p1 mul.f32 %f4", "@%p1 mul.f32 %f4, %f1, %f6;"),
        ("%f5, %f1, %f6", "%r1, %r7, %r8", "mul.f32 %r1, %r7, %r8;"),  # its left operand
        ("aligned 0;", "aligned 1;", "add.f32 %f3, %f3, %f6;"),
        ("%f6;\n    wgmma.fence.sync.aligned;", "%f6;", "wgmma.mma_async"),
    ],
)
def test_the_check_sees_what_is_touched_too_early(old, new, said):
    found = touched_too_early(_PRODUCTS.replace(old, new))
    assert len(found) == bool(said), found
    assert all(line.startswith(said) for line in found)


def test_the_check_sees_registers_that_are_dealt_out():
    ptx = """.visible .entry first(
        .maxntid 384, 1, 1
        setmaxnreg.dec.sync.aligned.u32 24;
        setmaxnreg.inc.sync.aligned.u32 240;
    .visible .entry second(
        .maxntid 128, 1, 1"""
    assert dealt_registers(ptx) == {"first": (384, 24, 240)}


def test_the_check_sees_products_that_do_not_overlap():
    """Accumulators that are read before the wait: the compiler then waits after each product, and says so."""
    if (missing := nvrtc.why_missing()) is not None:
        pytest.skip(missing)
    header = read_source(KERNELS / "hopper_compat.cuh")
    hasty = """extern "C" __global__ void __launch_bounds__(128) hasty(float* x, unsigned long long a) {
        float d[32] = {};
        for (int i = 0; i < 4; ++i) {
            wgmma_fence();
            wgmma_m64k16<half>(d, a, a + i);
            wgmma_commit();
            d[0] += x[i];
        }
        wgmma_wait<0>();
        for (int i = 0; i < 32; ++i) x[i * 128 + threadIdx.x] = d[i];
    }"""
    compiled = nvrtc.compile_cuda(f"{header}\n{hasty}", (), "90a")
    assert compiled.ok, compiled.log
    assert any("serialized" in line for line in complaints(compiled.log)), compiled.log


def test_the_check_sees_an_error_and_a_spill():
    if (missing := nvrtc.why_missing()) is not None:
        pytest.skip(missing)
    broken = nvrtc.compile_cuda('extern "C" __global__ void broken(float* x) { x[0] = y; }', (), "75")
    assert not broken.ok
    assert "kernel.cu(1): error" in broken.log
    spilling = """extern "C" __global__ void __launch_bounds__(1024) spilling(float* x) {
        float v[128];
        for (int i = 0; i < 128; ++i) v[i] = x[i * 1024 + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < 128; ++i) x[i * 1024 + threadIdx.x] = v[127 - i] * v[i];
    }"""
    compiled = nvrtc.compile_cuda(spilling, (), "75")
    assert compiled.ok
    assert compiled.registers["spilling"] <= 64
    assert compiled.spills["spilling"] > 0
