"""Which attention runs by the instructions of compute capability 9.0, and its launch; see ``attention_hopper.cu``."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, fault_kind, fault_record
from ._launch import WIDEST_ACCESS, Plan, blocks, c_type, contiguous, launch
from .attention_cuda import BAD_LENGTH, dense, has_rows

if TYPE_CHECKING:
    from .attention import Options

_SOURCE = Path(__file__).with_name("attention_hopper.cu")
_CAPABILITY = 90  # its instructions are those of this one alone: neither older nor newer devices have them
_FEWEST_QUERIES = 64  # fewer do not fill one warpgroup's rows
_LONGEST = 2**30  # queries or keys that the kernels' 32-bit indices reach
_GROUP_ROWS, _PANEL = 64, 64  # rows that a warpgroup multiplies, columns of one tile copy
_BLOCK_ROWS, _THREADS = 128, 384  # two warpgroups multiply, one copies
_ALIGNMENT = 1024  # bytes, of tiles in shared memory
_ITEM, _WORD, _BARRIER = 2, 4, 8  # bytes
_ARCHITECTURE = "-arch=sm_90a"

_ROW_STRIDES = np.dtype([(name, np.int64) for name in ("batch", "head", "row")], align=True)
_ROWS = ("out", "dy", "dq", "dk", "dv")
_PROBLEM = np.dtype(  # struct Problem in attention_hopper.cu
    [
        *((name, _ROW_STRIDES) for name in _ROWS),
        *((name, np.int32) for name in ("batch", "heads", "group", "queries", "keys", "shift", "padded")),
        ("scale", np.float32),
    ],
    align=True,
)


class _Tiles(NamedTuple):
    """How a block divides its work: rows of the streamed tiles, and buffers in turn."""

    columns: int
    stages: int

    def shared(self, width: int, kept: int) -> int:
        """Bytes of shared memory: ``kept`` tiles with the block's rows, two streams of tiles, and their barriers."""
        rows = kept * _BLOCK_ROWS + 2 * self.stages * self.columns
        return _ALIGNMENT + rows * width * _ITEM + _BARRIER * (1 + 4 * self.stages)


# By the width of the heads: what the registers and 227 KiB of shared memory hold. Not measured yet.
_FORWARD = {64: _Tiles(128, 4), 128: _Tiles(128, 2), 256: _Tiles(80, 2)}
_BACKWARD = {64: _Tiles(64, 4), 128: _Tiles(64, 2)}
FORWARD_WIDTHS, BACKWARD_WIDTHS = tuple(_FORWARD), tuple(_BACKWARD)


class _Case(NamedTuple):
    """What a launch depends on, in plain values."""

    dtype: np.dtype[Any]
    shape: tuple[int, int, int, int]  # of the scores
    key_heads: int
    width: int


def why_not(
    backend: Backend, q: Array, k: Array, v: Array, options: Options, widths: Collection[int] = FORWARD_WIDTHS
) -> str | None:
    """The reason against these kernels, or None where they take these arrays.

    Args:
        widths: of heads that the kernels take.
    """
    if c_type(q.dtype) not in ("half", "bfloat16"):
        return "it takes float16 and bfloat16"
    capability = backend.compute_capability(backend.device_of(q))
    if capability != _CAPABILITY:
        return f"it needs compute capability {_CAPABILITY / 10}, this device has {capability / 10}"
    if q.shape[3] not in widths or v.shape[3] != q.shape[3]:
        return f"it takes widths of {', '.join(map(str, widths))}, the same for keys and values"
    if options.mask is not None or options.bias is not None or options.dropout > 0:
        return "it knows neither mask nor bias nor dropout"
    if not math.prod(options.shape) or not _FEWEST_QUERIES <= options.shape[2] <= _LONGEST >= options.shape[3]:
        return f"it takes {_FEWEST_QUERIES} to {_LONGEST} queries"
    if not all(_can_be_copied(backend, array) for array in (q, k, v)):
        return "the rows of q, k or v do not all begin at multiples of 16 bytes"
    if not backend.uses_hopper:
        return "it has not run on hardware yet, CupyBackend(use_hopper=True) chooses it"
    return None


def forward_plan(q: Array, k: Array, options: Options) -> Plan:
    """The kernel that :func:`forward` launches."""
    return _forward(_Case(q.dtype, options.shape, k.shape[1], q.shape[3]))


def forward(backend: Backend, q: Array, k: Array, v: Array, options: Options, out: Array, lse: Array) -> None:
    """Launch what :func:`forward_plan` says; ``lse`` is C-contiguous."""
    columns = _FORWARD[q.shape[3]].columns
    maps = (_map(backend, q, _GROUP_ROWS), _map(backend, k, columns), _map(backend, v, columns))
    memory, strides = dense(backend, out)
    lengths = _lengths(backend, options)
    problem = _problem(k, options, out=strides[:3])
    plan = forward_plan(q, k, options)._replace(scalars=(*maps, fault_kind(BAD_LENGTH), problem))
    launch(_SOURCE, plan, backend, memory, lse, lengths, None if lengths is None else fault_record(q))


def backward_plan(q: Array, k: Array, options: Options) -> Plan:
    """The first of the large kernels that :func:`backward` launches."""
    return _backward(_Case(q.dtype, options.shape, k.shape[1], q.shape[3]))[0]


def backward(
    backend: Backend,
    dy: Array,
    q: Array,
    k: Array,
    v: Array,
    out: Array,
    lse: Array,
    options: Options,
    dq: Array,
    dk: Array,
    dv: Array,
) -> None:
    """Launch the kernels that write ``dq, dk, dv``, which may have any strides."""
    columns, device = _BACKWARD[q.shape[3]].columns, backend.device_of(q)
    dy, out = (a if _can_be_copied(backend, a) else backend.xp.ascontiguousarray(a) for a in (dy, out))
    found = [a if _has_words(backend, a) else backend.empty(a.shape, a.dtype, device) for a in (dq, dk, dv)]
    memory, strides = {}, {}
    for name, array in zip(_ROWS, (out, dy, *found), strict=True):
        memory[name], steps = dense(backend, array)
        strides[name] = steps[:3]
    problem = _problem(k, options, **strides)
    batch, heads, queries, _ = options.shape
    rows = batch * heads * _padded(queries)
    statistics = backend.empty((2, rows), np.float32, device)
    plan = _statistics(q.dtype, q.shape[3], rows)._replace(scalars=(np.int64(rows), problem))
    launch(_SOURCE, plan, backend, memory["dy"], memory["out"], contiguous(backend, lse), statistics)
    lengths = _lengths(backend, options)
    of_queries, of_keys = _backward(_Case(q.dtype, options.shape, k.shape[1], q.shape[3]))
    for plan, results, rows_of_queries, rows_of_keys in (
        (of_queries, ("dq",), _GROUP_ROWS, columns),
        (of_keys, ("dk", "dv"), columns, _GROUP_ROWS),
    ):
        sides = ((q, rows_of_queries), (k, rows_of_keys), (v, rows_of_keys), (dy, rows_of_queries))
        plan = plan._replace(scalars=(*(_map(backend, array, rows) for array, rows in sides), problem))
        launch(_SOURCE, plan, backend, *(memory[name] for name in results), statistics, lengths)
    for place, array in zip((dq, dk, dv), found, strict=True):
        if place is not array:
            place[...] = array


def _can_be_copied(backend: Backend, array: Array) -> bool:
    """Whether the copy engine can step along the axes: it counts in 16 bytes, and not backwards."""
    if array.strides[-1] != array.itemsize or backend.address(array) % WIDEST_ACCESS:
        return False
    steps = (stride for n, stride in zip(array.shape[:-1], array.strides[:-1], strict=True) if n > 1)
    return all(stride > 0 and stride % WIDEST_ACCESS == 0 for stride in steps)


def _has_words(backend: Backend, array: Array) -> bool:
    """Whether the kernels can step along the axes of a result and write it four bytes at a time."""
    even = all(stride % _WORD == 0 for stride in array.strides[:-1])
    return has_rows(array) and even and backend.address(array) % _WORD == 0


def _padded(queries: int) -> int:
    """Queries of one head in the statistics, so that every tile has its own."""
    return -(-queries // _BLOCK_ROWS) * _BLOCK_ROWS


@lru_cache(maxsize=1024)
def _forward(case: _Case) -> Plan:
    batch, heads, queries, _ = case.shape
    tiles = _FORWARD[case.width]
    grid = blocks("attention", -(-queries // _BLOCK_ROWS) * batch * heads, 1)
    shared = tiles.shared(case.width, 1)
    because = (
        f"products of {case.dtype} by warpgroups (wgmma), {_BLOCK_ROWS} queries against {tiles.columns} keys at a "
        f"time, copied ahead into {tiles.stages} buffers"
    )
    return Plan("attention_hopper_forward", _defines("FORWARD", case, tiles), grid, _THREADS, (), because, shared)


@lru_cache(maxsize=1024)
def _backward(case: _Case) -> tuple[Plan, Plan]:
    """For the gradients of queries and of keys and values."""
    batch, heads, queries, keys = case.shape
    tiles = _BACKWARD[case.width]
    because = (
        f"products of {case.dtype} by warpgroups (wgmma), {_BLOCK_ROWS} by {tiles.columns}; the weights are computed "
        "again once for the queries and once for the keys, so nothing is added atomically"
    )
    plans = []
    for name, length, count in (("queries", queries, batch * heads), ("keys", keys, batch * case.key_heads)):
        grid = blocks("attention_backward", -(-length // _BLOCK_ROWS) * count, 1)
        shared = tiles.shared(case.width, 2) + (2 * tiles.stages * tiles.columns * 4 if name == "keys" else 0)
        defines = _defines(f"BACKWARD_{name.upper()}", case, tiles)
        kernel = f"attention_hopper_backward_{name}"
        plans.append(Plan(kernel, defines, grid, _THREADS, (), because, shared))
    return plans[0], plans[1]


@lru_cache(maxsize=1024)
def _statistics(dtype: np.dtype[Any], width: int, rows: int) -> Plan:
    """A warp for each query of each head."""
    defines = ("STATISTICS", f"DTYPE={c_type(dtype)}", f"WIDTH={width}", _ARCHITECTURE)
    return Plan("attention_hopper_statistics", defines, blocks("attention", rows, 4), 128, (), "")


def _defines(kernel: str, case: _Case, tiles: _Tiles) -> tuple[str, ...]:
    """The macros of one variant, and the instructions it is compiled for."""
    sizes = {"WIDTH": case.width, "COLS": tiles.columns, "STAGES": tiles.stages}
    macros = (f"{name}={value}" for name, value in {"DTYPE": c_type(case.dtype), **sizes}.items())
    return (kernel, *macros, _ARCHITECTURE)


# -- arguments -------------------------------------------------------------------------------------------------------


def _map(backend: Backend, array: Array, rows: int) -> Any:
    """A tensor map whose tiles have so many rows of one head."""
    return backend.tensor_map(array, (1, 1, rows, _PANEL))


def _lengths(backend: Backend, options: Options) -> Array | None:
    if options.key_lengths is None:
        return None
    return backend.xp.ascontiguousarray(options.key_lengths.astype(np.int64, copy=False))


def _problem(k: Array, options: Options, **strides: tuple[int, ...]) -> np.ndarray:
    """``struct Problem`` as a kernel's argument."""
    batch, heads, queries, keys = options.shape
    shift = max(-queries, min(keys, options.causal_offset + 1)) if options.causal else keys
    sizes = (batch, heads, heads // k.shape[1], queries, keys, shift, _padded(queries))
    return np.array((*(strides.get(name, (0, 0, 0)) for name in _ROWS), *sizes, options.scale), _PROBLEM)
