"""Which attention runs by the instructions of compute capability 9.0, and its launch; see ``attention_hopper.cu``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, fault_kind, fault_record
from ._launch import WIDEST_ACCESS, Plan, blocks, c_type, launch
from .attention_cuda import BAD_LENGTH, dense

if TYPE_CHECKING:
    from .attention import Options

_SOURCE = Path(__file__).with_name("attention_hopper.cu")
_CAPABILITY = 90  # its instructions are those of this one alone: neither older nor newer devices have them
_FEWEST_QUERIES = 64  # fewer do not fill one warpgroup's rows
_LONGEST = 2**30  # queries or keys that the kernels' 32-bit indices reach
_GROUP_ROWS, _PANEL = 64, 64  # rows that a warpgroup multiplies, columns of one tile copy
_GROUP_THREADS = 128
_ALIGNMENT = 1024  # bytes, of tiles in shared memory
_BARRIER = 8  # bytes
_ARCHITECTURE = "-arch=sm_90a"

_ROW_STRIDES = np.dtype([(name, np.int64) for name in ("batch", "head", "row")], align=True)
_RESULTS = ("out",)
_PROBLEM = np.dtype(  # struct Problem in attention_hopper.cu
    [
        *((name, _ROW_STRIDES) for name in _RESULTS),
        *((name, np.int32) for name in ("batch", "heads", "group", "queries", "keys", "shift")),
        ("scale", np.float32),
    ],
    align=True,
)


class _Tiles(NamedTuple):
    """How a block divides its work: rows of the streamed tiles, warpgroups that multiply, buffers in turn."""

    columns: int
    groups: int
    stages: int


# By the width of the heads: what the registers and 227 KiB of shared memory hold. Not measured yet.
_FORWARD = {64: _Tiles(128, 2, 4), 128: _Tiles(128, 2, 2), 256: _Tiles(80, 2, 2)}


class _Case(NamedTuple):
    """What a launch depends on, in plain values."""

    dtype: np.dtype[Any]
    shape: tuple[int, int, int, int]  # of the scores
    width: int


def why_not(backend: Backend, q: Array, k: Array, v: Array, options: Options) -> str | None:
    """The reason against these kernels, or None where they take these arrays."""
    if c_type(q.dtype) not in ("half", "bfloat16"):
        return "it takes float16 and bfloat16"
    capability = backend.compute_capability(backend.device_of(q))
    if capability != _CAPABILITY:
        return f"it needs compute capability {_CAPABILITY / 10}, this device has {capability / 10}"
    if q.shape[3] not in _FORWARD or v.shape[3] != q.shape[3]:
        return f"it takes widths of {', '.join(map(str, _FORWARD))}, the same for keys and values"
    if options.mask is not None or options.bias is not None or options.dropout > 0:
        return "it knows neither mask nor bias nor dropout"
    if not math.prod(options.shape) or not _FEWEST_QUERIES <= options.shape[2] <= _LONGEST >= options.shape[3]:
        return f"it takes {_FEWEST_QUERIES} to {_LONGEST} queries"
    if not all(_can_be_copied(backend, array) for array in (q, k, v)):
        return "the rows of q, k or v do not all begin at multiples of 16 bytes"
    if not backend.uses_hopper:
        return "it has not run on hardware yet, CupyBackend(use_hopper=True) chooses it"
    return None


def forward_plan(q: Array, options: Options) -> Plan:
    """The kernel that :func:`forward` launches."""
    return _forward(_Case(q.dtype, options.shape, q.shape[3]))


def forward(backend: Backend, q: Array, k: Array, v: Array, options: Options, out: Array, lse: Array) -> None:
    """Launch what :func:`forward_plan` says; ``out`` has rows without gaps, ``lse`` is C-contiguous."""
    columns = _FORWARD[q.shape[3]].columns
    maps = _maps(backend, {_GROUP_ROWS: (q,), columns: (k, v)})
    memory, strides = dense(backend, out)
    lengths = _lengths(backend, options)
    problem = _problem(k, options, out=strides[:3])
    plan = forward_plan(q, options)._replace(scalars=(*maps, fault_kind(BAD_LENGTH), problem))
    launch(_SOURCE, plan, backend, memory, lse, lengths, None if lengths is None else fault_record(q))


def _can_be_copied(backend: Backend, array: Array) -> bool:
    """Whether the copy engine can step along the axes: it counts in 16 bytes, and not backwards."""
    if array.strides[-1] != array.itemsize or backend.address(array) % WIDEST_ACCESS:
        return False
    steps = (stride for n, stride in zip(array.shape[:-1], array.strides[:-1], strict=True) if n > 1)
    return all(stride > 0 and stride % WIDEST_ACCESS == 0 for stride in steps)


@lru_cache(maxsize=1024)
def _forward(case: _Case) -> Plan:
    batch, heads, queries, _ = case.shape
    tiles = _FORWARD[case.width]
    rows = tiles.groups * _GROUP_ROWS
    grid = blocks("attention", blocks("attention", queries, rows) * batch * heads, 1)
    row_bytes = 2 * case.width
    shared = _ALIGNMENT + (rows + 2 * tiles.stages * tiles.columns) * row_bytes + _BARRIER * (1 + 4 * tiles.stages)
    because = (
        f"products of {case.dtype} by warpgroups (wgmma), {rows} queries against {tiles.columns} keys at a time, "
        f"copied ahead into {tiles.stages} buffers"
    )
    return Plan(
        "attention_hopper_forward", _defines("FORWARD", case, tiles), grid, _threads(tiles), (), because, shared
    )


def _defines(kernel: str, case: _Case, tiles: _Tiles) -> tuple[str, ...]:
    """The macros of one variant, and the instructions it is compiled for."""
    sizes = {"WIDTH": case.width, "COLS": tiles.columns, "GROUPS": tiles.groups, "STAGES": tiles.stages}
    macros = (f"{name}={value}" for name, value in {"DTYPE": c_type(case.dtype), **sizes}.items())
    return (kernel, *macros, _ARCHITECTURE)


def _threads(tiles: _Tiles) -> int:
    """Those of the warpgroups that multiply, and of the one that copies."""
    return (tiles.groups + 1) * _GROUP_THREADS


# -- arguments -------------------------------------------------------------------------------------------------------


def _maps(backend: Backend, arrays: Mapping[int, tuple[Array, ...]]) -> tuple[Any, ...]:
    """Tensor maps of arrays by the rows of their tiles, which lie in one head."""
    return tuple(backend.tensor_map(array, (1, 1, rows, _PANEL)) for rows, some in arrays.items() for array in some)


def _lengths(backend: Backend, options: Options) -> Array | None:
    if options.key_lengths is None:
        return None
    return backend.xp.ascontiguousarray(options.key_lengths.astype(np.int64, copy=False))


def _problem(k: Array, options: Options, **strides: tuple[int, ...]) -> np.ndarray:
    """``struct Problem`` as a kernel's argument."""
    batch, heads, queries, keys = options.shape
    shift = max(-queries, min(keys, options.causal_offset + 1)) if options.causal else keys
    sizes = (batch, heads, heads // k.shape[1], queries, keys, shift)
    return np.array((*(strides.get(name, (0, 0, 0)) for name in _RESULTS), *sizes, options.scale), _PROBLEM)
