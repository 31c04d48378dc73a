"""Which attention kernel runs for some arrays, and its launch; the kernels are in ``attention.cu``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backend import Array, Backend, current_precision, fault_kind, fault_record
from ._launch import (
    WIDEST_ACCESS,
    Plan,
    blocks,
    c_type,
    contiguous,
    definition_plan,
    launch,
    no_cuda,
    no_kernel_for,
    stream_place,
)

if TYPE_CHECKING:
    from .attention import Options

_SOURCE = Path(__file__).with_name("attention.cu")
BAD_LENGTH = "attention: key_lengths must be in 0 … {limit}, got {value}"
_OLDEST = 80  # compute capability with asynchronous copies and products of bfloat16 and tf32
_LONGEST = 2**30  # queries or keys that the kernels' 32-bit indices reach
_WIDTHS = (32, 64, 128, 256)  # what D and Dv are padded to
_SLICES = {2: 128, 4: 64}  # columns of a result that one block has, by itemsize: what fits the registers
_ROWS_OF_A_WARP = 16
_WARPS = 4
_MOST_PACKED = 64  # rows of a block that may come from several heads
_WANTED_BLOCKS = 512  # enough to keep a large device busy: with fewer, and few rows, the keys are split
_FEWEST_KEYS = 256  # in a part of the keys
_MOST_SPLITS = 64
_MOST_SHARED = 99 << 10  # bytes that a block can have with compute capability 8.6, 8.9 and 12.0

_ROW_STRIDES = np.dtype([(name, np.int64) for name in ("batch", "head", "row")])
_SCORE_STRIDES = np.dtype([(name, np.int64) for name in ("batch", "head", "row", "column")])
_STREAM = np.dtype([("key", np.uint64), ("counter", np.uint64), ("skip", np.int32)], align=True)
_PROBLEM = np.dtype(  # struct Problem in attention.cu
    [
        *((name, _ROW_STRIDES) for name in ("q", "k", "v", "out", "dy", "dq", "dk", "dv")),
        *((name, _SCORE_STRIDES) for name in ("mask", "bias")),
        ("stream", _STREAM),
        *((name, np.int32) for name in ("mask_kind", "bias_kind", "aligned")),
        *(
            (name, np.int32)
            for name in ("batch", "heads", "group", "packed", "queries", "keys", "width", "value_width")
        ),
        *((name, np.int32) for name in ("shift", "splits")),
        *((name, np.int32) for name in ("bias_batch", "bias_heads", "bias_queries", "bias_keys")),
        ("threshold", np.uint32),
        *((name, np.float32) for name in ("scale", "keep_scale")),
    ],
    align=True,
)
_ZEROS: dict[str, Any] = {  # of each field
    **dict.fromkeys(_PROBLEM.names or (), 0),
    **dict.fromkeys(("q", "k", "v", "out", "dy", "dq", "dk", "dv", "stream"), (0, 0, 0)),
    **dict.fromkeys(("mask", "bias"), (0, 0, 0, 0)),
}
_BYTES, _FLOATS, _ELEMENTS = 1, 2, 3  # enum Kind there; 0 is none


class _Case(NamedTuple):
    """What the choice of a kernel depends on, in plain values."""

    dtype: np.dtype[Any]
    shape: tuple[int, int, int, int]  # of the scores
    key_heads: int
    width: int
    value_width: int
    has_options: bool
    tf32: bool

    @property
    def products(self) -> str:
        """How they are computed, in words."""
        return f"products of {self.dtype}{' rounded to tf32' if self.tf32 else ''} on tensor cores"

    @property
    def slice(self) -> int:
        """Columns of a result that one block has."""
        return min(self.padded, _SLICES[self.dtype.itemsize])

    def slices(self, width: int) -> int:
        """Blocks that share the columns of a result."""
        return -(-width // self.slice)

    @property
    def padded(self) -> int:
        """The narrowest WIDTH that holds both widths."""
        return next(width for width in _WIDTHS if width >= max(self.width, self.value_width))

    def defines(self, kernel: str, warps: int, columns: int) -> tuple[str, ...]:
        """The macros of one variant."""
        options = {"OPTIONS": int(self.has_options), "TF32": int(self.tf32), "DTYPE": c_type(self.dtype)}
        sizes = {"WIDTH": self.padded, "SLICE": self.slice, "COLS": columns, "WARPS": warps}
        return (kernel, *(f"{name}={value}" for name, value in {**options, **sizes}.items()))

    def tile_bytes(self, rows: int) -> int:
        """Shared memory for rows of WIDTH; 16 bytes beside each keep eight of them in different banks."""
        return rows * (self.padded * self.dtype.itemsize + WIDEST_ACCESS)


class _Forward(NamedTuple):
    """The forward kernel's launch."""

    plan: Plan
    packed: int
    splits: int


def forward_plan(backend: Backend, q: Array, k: Array, v: Array, options: Options) -> Plan:
    """The kernel that :func:`forward` launches for these arrays; none where the definition has to do."""
    if (why := _why_none(backend, q, v, options)) is not None:
        return definition_plan(why)
    return _forward(_case(q, k, v, options)).plan


def forward(backend: Backend, q: Array, k: Array, v: Array, options: Options, out: Array, lse: Array) -> None:
    """Launch what :func:`forward_plan` says; ``out`` has any strides, ``lse`` is C-contiguous."""
    plan, packed, splits = _forward(_case(q, k, v, options))
    memory, fields = _problem(backend, options, {"q": q, "k": k, "v": v, "out": out}, ("q", "k", "v"))
    problem = _struct({**fields, "packed": packed, "splits": splits})
    part, part_lse, result = None, lse, memory["out"]
    if splits > 1:
        device = backend.device_of(q)
        part = backend.empty((splits, *options.shape[:3], v.shape[3]), np.float32, device)
        part_lse = backend.empty((splits, *options.shape[:3]), np.float32, device)
    arrays = (*(memory[name] for name in ("q", "k", "v", "mask", "bias", "lengths")), result, part_lse, part)
    plan = plan._replace(scalars=(fault_kind(BAD_LENGTH), problem))
    launch(_SOURCE, plan, backend, *arrays, None if memory["lengths"] is None else fault_record(q))
    if part is not None:
        rows = math.prod(options.shape[:3])
        launch(_SOURCE, _rowwise("attention_combine", q.dtype, rows, problem), backend, part, part_lse, result, lse)


def backward_plan(backend: Backend, q: Array, k: Array, v: Array, options: Options) -> Plan:
    """The first of the kernels that :func:`backward` launches; none where the definition has to do."""
    if (why := _why_none(backend, q, v, options)) is not None:
        return definition_plan(why)
    return _backward(_case(q, k, v, options))[0]


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
) -> Array | None:
    """Launch the kernels that write ``dq, dk, dv``, which may have any strides; returns the gradient of the bias."""
    plans = _backward(_case(q, k, v, options))
    device = backend.device_of(q)
    wanted, found = (dq, dk, dv), []
    for array in wanted:
        found.append(array if has_rows(array) else backend.empty(array.shape, array.dtype, device))
    rows = dict(zip(("q", "k", "v", "out", "dy", "dq", "dk", "dv"), (q, k, v, out, dy, *found), strict=True))
    memory, fields = _problem(backend, options, rows, ("q", "k", "v", "dy"))
    problem = _struct(fields)
    lse = contiguous(backend, lse)
    delta = backend.empty(options.shape[:3], np.float32, device)
    plan = _rowwise("attention_backward_delta", q.dtype, math.prod(options.shape[:3]), problem)
    launch(_SOURCE, plan, backend, memory["dy"], memory["out"], delta)
    given = (*(memory[name] for name in ("q", "k", "v", "mask", "bias", "lengths", "dy")), lse, delta)
    results: list[tuple[Array | None, ...]] = [(memory["dq"],), (memory["dk"], memory["dv"])]
    dbias = None
    if options.bias is not None:
        dbias = backend.empty(options.bias.shape, np.float32, device)
        results.append((dbias,))
        plans = (*plans, _backward_bias(_case(q, k, v, options), options.bias.shape))
    for plan, result in zip(plans, results, strict=True):
        launch(_SOURCE, plan._replace(scalars=(problem,)), backend, *given, *result)
    for place, array in zip(wanted, found, strict=True):
        if place is not array:
            place[...] = array
    return dbias


# -- the choice ------------------------------------------------------------------------------------------------------


def _why_none(backend: Backend, q: Array, v: Array, options: Options) -> str | None:
    """The reason for the definition, or None where the kernels take these arrays."""
    if not backend.runs_cuda:
        return no_cuda(backend)
    if c_type(q.dtype) is None:
        return no_kernel_for(q.dtype)
    capability = backend.compute_capability(backend.device_of(q))
    if capability < _OLDEST:
        return f"the kernels need compute capability {_OLDEST / 10}, this device has {capability / 10}"
    if not math.prod(options.shape) or not v.shape[3]:
        return "the result is empty or there are no keys, nothing is launched"
    if max(q.shape[3], v.shape[3]) > _WIDTHS[-1]:
        return f"heads of width {max(q.shape[3], v.shape[3])}, the kernels take at most {_WIDTHS[-1]}"
    if max(options.shape[2:]) > _LONGEST:
        return f"{max(options.shape[2:])} queries or keys, the kernels index at most {_LONGEST}"
    return None


def _case(q: Array, k: Array, v: Array, options: Options) -> _Case:
    has_options = options.mask is not None or options.bias is not None or options.dropout > 0
    tf32 = q.dtype.itemsize == 4 and current_precision() == "tf32"
    return _Case(q.dtype, options.shape, k.shape[1], q.shape[3], v.shape[3], has_options, tf32)


@lru_cache(maxsize=1024)
def _forward(case: _Case) -> _Forward:
    batch, heads, queries, keys = case.shape
    group = heads // case.key_heads
    packed = group if group * queries <= _MOST_PACKED else 1
    rows = packed * queries
    warps = 1 if rows <= _ROWS_OF_A_WARP else _WARPS
    columns = {2: 32 if case.padded == 256 else 64, 4: 16 if case.padded >= 128 else 32}[case.dtype.itemsize]
    grid = blocks("attention", rows, warps * _ROWS_OF_A_WARP) * case.slices(case.value_width)
    grid *= batch * heads // packed
    splits = 1
    if warps == 1 and grid < _WANTED_BLOCKS:
        splits = max(1, min(-(-_WANTED_BLOCKS // grid), keys // _FEWEST_KEYS, _MOST_SPLITS))
    because = f"{case.products}, {warps * _ROWS_OF_A_WARP} queries against {columns} keys at a time"
    if packed > 1:
        because += f", of the {packed} heads that share a key"
    if splits > 1:
        because += f"; the keys in {splits} parts, which attention_combine puts together"
    shared = case.tile_bytes(warps * _ROWS_OF_A_WARP + 2 * columns)
    defines = case.defines("FORWARD", warps, columns)
    grid = blocks("attention", grid * splits, 1)
    return _Forward(Plan("attention_forward", defines, grid, 32 * warps, (), because, shared), packed, splits)


@lru_cache(maxsize=1024)
def _backward(case: _Case) -> tuple[Plan, ...]:
    """For the gradients of queries and of keys and values."""
    batch, heads, queries, keys = case.shape
    warps, columns, shared = _tiles(case, 2, 4)
    rows = warps * _ROWS_OF_A_WARP
    because = (
        f"products of {case.dtype}{' rounded to tf32' if case.tf32 else ''} on tensor cores, {rows} by {columns}; "
    )
    because += (
        "the weights are computed again once for the queries and once for the keys, so nothing is added atomically"
    )
    plans = []
    for name, length, count, width in (
        ("queries", queries, batch * heads, case.width),
        ("keys", keys, batch * case.key_heads, max(case.width, case.value_width)),
    ):
        grid = blocks("attention_backward", -(-length // rows) * case.slices(width) * count, 1)
        defines = case.defines(f"BACKWARD_{name.upper()}", warps, columns)
        plans.append(Plan(f"attention_backward_{name}", defines, grid, 32 * warps, (), because, shared))
    return tuple(plans)


@lru_cache(maxsize=1024)
def _backward_bias(case: _Case, shape: tuple[int, int, int, int]) -> Plan:
    """For the gradient of a bias of this shape: a block has a tile of it and walks over what it was broadcast over."""
    batch, heads, queries, keys = shape
    warps, columns, shared = _tiles(case, 2, 2)
    grid = batch * heads * -(-queries // (warps * _ROWS_OF_A_WARP)) * -(-keys // columns)
    defines = case.defines("BACKWARD_BIAS", warps, columns)
    return Plan("attention_backward_bias", defines, blocks("attention_backward", grid, 1), 32 * warps, (), "", shared)


def _tiles(case: _Case, resident: int, streamed: int) -> tuple[int, int, int]:
    """Warps of a block, columns of a tile and bytes of shared memory, the largest that a block can have everywhere.

    Args:
        resident: tiles with 16 rows for each warp.
        streamed: tiles with a row for each column.
    """
    for warps, columns in ((4, 32), (2, 16), (1, 16)):
        shared = case.tile_bytes(resident * warps * _ROWS_OF_A_WARP + streamed * columns) + 16 * columns
        if shared <= _MOST_SHARED:
            break
    return warps, columns, shared


def _rowwise(kernel: str, dtype: np.dtype[Any], rows: int, problem: Any) -> Plan:
    """A kernel that has one warp for each query of each head."""
    defines = ("ROWWISE", f"DTYPE={c_type(dtype)}")
    return Plan(kernel, defines, blocks("attention", rows, _WARPS), 32 * _WARPS, (np.int64(rows), problem), "")


# -- arrays as the kernels take them ---------------------------------------------------------------------------------


def _problem(
    backend: Backend, options: Options, rows: Mapping[str, Array], loaded: tuple[str, ...]
) -> tuple[dict[str, Array | None], dict[str, Any]]:
    """The arrays as memory without gaps, and what ``struct Problem`` says of them.

    Args:
        rows: arrays of shape ``(batch, heads, length, width)`` by their names in the struct.
        loaded: those that the kernels read 16 bytes at a time where all of them are aligned.
    """
    batch, heads, queries, keys = options.shape
    fields: dict[str, Any] = {
        "batch": batch,
        "heads": heads,
        "queries": queries,
        "keys": keys,
        "group": heads // rows["k"].shape[1],
        "width": rows["q"].shape[3],
        "value_width": rows["v"].shape[3],
        "packed": 1,
        "splits": 1,
        "scale": options.scale,
        "keep_scale": 1.0,
        "stream": (0, 0, 0),
        "aligned": 1,
        "shift": max(-queries, min(keys, options.causal_offset + 1)) if options.causal else keys,
    }
    memory: dict[str, Array | None] = {"mask": None, "bias": None, "lengths": None}
    for name, array in rows.items():
        memory[name], strides = dense(backend, array)
        fields[name] = strides[:3]
        if name in loaded:
            apart = WIDEST_ACCESS // array.dtype.itemsize  # elements
            if backend.address(memory[name]) % WIDEST_ACCESS or any(stride % apart for stride in strides[:3]):
                fields["aligned"] = 0
    for name, scores in (("mask", options.mask), ("bias", options.bias)):
        if scores is not None:
            memory[name], fields[name], fields[f"{name}_kind"] = _scores(backend, scores, rows["q"].dtype)
    if options.key_lengths is not None:
        memory["lengths"] = backend.xp.ascontiguousarray(options.key_lengths.astype(np.int64, copy=False))
    if options.bias is not None:
        names = ("bias_batch", "bias_heads", "bias_queries", "bias_keys")
        fields.update(zip(names, options.bias.shape, strict=True))
    if options.dropout > 0:
        threshold = round(options.dropout * 2.0**32)
        dropped = threshold >> 32  # every word, and a threshold of 32 bits could not say so
        fields["threshold"] = min(threshold, 2**32 - 1)
        fields["keep_scale"] = 0.0 if dropped else 1.0 / (1.0 - options.dropout)
        fields["stream"] = stream_place(options.seed, options.offset)
    return memory, fields


def _struct(fields: Mapping[str, Any]) -> np.ndarray:
    """``struct Problem`` as a kernel's argument."""
    return np.array(tuple(fields.get(name, zero) for name, zero in _ZEROS.items()), _PROBLEM)


def dense(backend: Backend, array: Array) -> tuple[Array, tuple[int, ...]]:
    """The memory of rows and its strides in elements; a copy where the last axis is not contiguous."""
    if not has_rows(array):
        array = backend.xp.ascontiguousarray(array)
    return _window(backend, array)


def has_rows(array: Array) -> bool:
    """Whether the elements along the last axis are neighbours, and the kernels can step along the others."""
    strides, itemsize = array.strides, array.itemsize
    if strides[-1] != itemsize and array.shape[-1] != 1:
        return False
    return all(stride >= 0 and stride % itemsize == 0 for stride in strides)


def _window(backend: Backend, array: Array) -> tuple[Array, tuple[int, ...]]:
    """The memory that strides reach, and these in elements: 0 along an axis of one element, none is negative."""
    shape, itemsize = array.shape, array.itemsize
    strides = tuple(0 if n == 1 else stride // itemsize for n, stride in zip(shape, array.strides, strict=True))
    if not array.flags.c_contiguous:
        count = 1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        array = backend.window(array, count)
    return array, strides


def _scores(backend: Backend, array: Array, dtype: np.dtype[Any]) -> tuple[Array, tuple[int, ...], int]:
    """A mask or bias: memory, strides with 0 along axes that are broadcast, and what it is made of."""
    if array.dtype.kind == "b":
        kind = _BYTES
    elif array.dtype == np.float32:
        kind = _FLOATS
    elif array.dtype == dtype:
        kind = _ELEMENTS
    else:
        array, kind = array.astype(np.float32), _FLOATS
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = backend.xp.ascontiguousarray(array)
    return (*_window(backend, array), kind)
