"""Steps of Adam and gradient descent on flat arrays, many stretches in a launch; kernels in ``optimizer_step.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, Backend, backend_of, common_backend
from ._launch import WIDEST_ACCESS, Plan, aligned, c_type, definition_plan, explained, launch, no_cuda, no_kernel_for

_SOURCE = Path(__file__).with_name("optimizer_step.cu")
_PIECE = 1 << 12  # elements that one block updates
_THREADS = 256
DECAYS = ("none", "gradient", "parameter")


def has_step_kernel(backend: Backend, dtype: Any) -> bool:
    """Whether parameters of this dtype are updated by a kernel on this backend's devices."""
    return backend.runs_cuda and c_type(np.dtype(dtype)) is not None


def step_pieces(stretches: Sequence[tuple[int, int]], numbers: int) -> Any:
    """What each block of a step kernel updates, for the host to move to the device.

    Args:
        stretches: (first element, end) of each, multiples of 16 bytes that do not overlap.
        numbers: how many numbers each stretch has; those of stretch ``r`` start at ``r * numbers``.
    Returns:
        int64, shape ``(blocks, 3)``: first element, end, first number.
    """
    rows = [
        (first, min(first + _PIECE, end), r * numbers)
        for r, (start, end) in enumerate(stretches)
        for first in range(start, end, _PIECE)
    ]
    return np.array(rows, np.int64).reshape(-1, 3)


def adam_step(
    p: Array, g: Array, m: Array, v: Array, numbers: Array, pieces: Array, *, decay: str = "none",
    master: Array | None = None, clip: Array | None = None,
) -> None:  # fmt: skip
    """``M = β₁ M + g``, ``V = β₂ V + g²``, ``p = p - scale · M / (√V + eps)``, in place, for every piece.

    Args:
        p, g: parameters and gradients, 1-D, one dtype; ``g`` is only read.
        m, v: M and V, float32 (float64 where ``p`` is).
        numbers: for each stretch ``beta1, beta2, eps, scale, weight_decay, keep``, 1-D, of the dtype of ``m``.
        pieces: from :func:`step_pieces`, on the device.
        decay: ``"gradient"`` adds ``weight_decay · p`` to ``g``, ``"parameter"`` takes ``p = keep · p`` first.
        master: float32 copy of a 16-bit ``p``, in which the step is computed.
        clip: (norm, factor), or None; ``g`` is multiplied by the factor.
    """
    plan = _select_adam(p, g, m, v, numbers, pieces, decay=decay, master=master, clip=clip)
    if plan.kernel:
        launch(_SOURCE, plan, backend_of(p), p, g, master, m, v, numbers, pieces, clip)
    elif len(pieces):
        _by_definition(adam_definition, p, g, (m, v), numbers, pieces, 6, master, clip, decay)


def sgd_step(
    p: Array, g: Array, velocity: Array | None, numbers: Array, pieces: Array, *, nesterov: bool = False,
    decay: str = "none", master: Array | None = None, clip: Array | None = None,
) -> None:  # fmt: skip
    """``v = momentum · v + gain · g``, ``p = p - lr · v``, in place, for every piece; without ``velocity`` v is g.

    Args:
        p, g, pieces, master, clip: as for :func:`adam_step`.
        velocity: v, float32, or None.
        numbers: for each stretch ``lr, momentum, gain, weight_decay``.
        nesterov: ``p = p - lr · (g + momentum · v)``; gain must be 1.
        decay: ``"gradient"`` adds ``weight_decay · p`` to ``g``.
    """
    plan = _select_sgd(p, g, velocity, numbers, pieces, nesterov=nesterov, decay=decay, master=master, clip=clip)
    if plan.kernel:
        launch(_SOURCE, plan, backend_of(p), p, g, master, velocity, numbers, pieces, clip)
    elif len(pieces):
        states = () if velocity is None else (velocity,)
        _by_definition(sgd_definition, p, g, states, numbers, pieces, 4, master, clip, decay, nesterov)


def adam_definition(
    xp: Any, p: Array, g: Array, states: tuple[Array, ...], scratch: Array, numbers: Sequence[Any], decay: str
) -> None:
    """One stretch in array operations; ``scratch`` is as long as ``p``, and each number is 0-d."""
    m, v = states
    beta1, beta2, eps, scale, weight_decay, keep = numbers
    if decay == "gradient":
        xp.multiply(p, weight_decay, out=scratch)
        scratch += g
        g = scratch
    elif decay == "parameter":
        p *= keep
    m *= beta1
    m += g
    v *= beta2
    v += xp.multiply(g, g, out=scratch)
    root = xp.sqrt(v, out=scratch)
    root += eps
    step = xp.divide(m, root, out=scratch)
    step *= scale
    p -= step


def sgd_definition(
    xp: Any, p: Array, g: Array, states: tuple[Array, ...], scratch: Array, numbers: Sequence[Any], decay: str,
    nesterov: bool, damped: bool = True,
) -> None:  # fmt: skip
    """One stretch in array operations; ``nesterov`` and ``damped=False`` say that gain is 1, which saves a pass."""
    lr, momentum, gain, weight_decay = numbers
    if decay == "gradient":
        g = xp.add(xp.multiply(p, weight_decay, out=scratch), g, out=scratch)
    if states:
        (v,) = states
        v *= momentum
        v += xp.multiply(g, gain, out=scratch) if damped and not nesterov else g
        if nesterov:
            p -= xp.multiply(g, lr, out=scratch)
            p -= xp.multiply(xp.multiply(v, momentum, out=scratch), lr, out=scratch)
            return
        g = v
    p -= xp.multiply(g, lr, out=scratch)


def take_over_written(xp: Any, master: Array, p: Array) -> None:
    """Bring a float32 copy up to date: where ``p`` is not what it rounds to, somebody has written a value."""
    xp.copyto(master, p.astype(master.dtype), where=master.astype(p.dtype) != p)


def _by_definition(
    step: Any, p: Array, g: Array, states: tuple[Array, ...], numbers: Array, pieces: Array, count: int,
    master: Array | None, clip: Array | None, *options: Any,
) -> None:  # fmt: skip
    """Piece by piece in array operations; waits for ``pieces``."""
    backend = backend_of(p)
    xp = backend.xp
    for first, end, number in backend.to_numpy(pieces).tolist():
        part = slice(first, end)
        work = p[part] if master is None else master[part]
        if master is not None:
            take_over_written(xp, work, p[part])
        slope = g[part].astype(work.dtype)
        if clip is not None:
            slope *= clip[1].astype(work.dtype)
        these = [numbers[number + i] for i in range(count)]
        step(xp, work, slope, tuple(state[part] for state in states), xp.empty_like(work), these, *options)
        if master is not None:
            p[part] = work


# -- the choice of a kernel ------------------------------------------------------------------------------------------


@explained("adam_step")
def _select_adam(
    p: Array, g: Array, m: Array, v: Array, numbers: Array, pieces: Array, *, decay: str = "none",
    master: Array | None = None, clip: Array | None = None,
) -> Plan:  # fmt: skip
    return _select("adam_step", (f"DECAY={_decay('adam_step', decay)}",), p, g, (m, v), numbers, pieces, master, clip)


@explained("sgd_step")
def _select_sgd(
    p: Array, g: Array, velocity: Array | None, numbers: Array, pieces: Array, *, nesterov: bool = False,
    decay: str = "none", master: Array | None = None, clip: Array | None = None,
) -> Plan:  # fmt: skip
    if decay == "parameter":
        raise ValueError('sgd_step: decay must be "none" or "gradient", got "parameter"')
    if nesterov and velocity is None:
        raise ValueError("sgd_step: nesterov needs velocity, got None")
    states = () if velocity is None else (velocity,)
    defines = (f"MOMENTUM={len(states)}", f"NESTEROV={int(nesterov)}", f"DECAY={_decay('sgd_step', decay)}")
    return _select("sgd_step", defines, p, g, states, numbers, pieces, master, clip)


def _decay(function: str, decay: str) -> int:
    if decay not in DECAYS:
        raise ValueError(f"{function}: decay must be one of {', '.join(DECAYS)}, got {decay!r}")
    return DECAYS.index(decay)


def _select(
    function: str, defines: tuple[str, ...], p: Array, g: Array, states: tuple[Array, ...], numbers: Array,
    pieces: Array, master: Array | None, clip: Array | None,
) -> Plan:  # fmt: skip
    copies = states if master is None else (*states, master)
    backend = common_backend(p, g, *copies, numbers, pieces, *(() if clip is None else (clip,)))
    for name, array in (("g", g), *((f"state {i}", state) for i, state in enumerate(states)), ("master", master)):
        if array is not None and (array.shape != p.shape or not array.flags.c_contiguous):
            raise ValueError(
                f"{function}: {name} must be contiguous of the shape of p, {p.shape}, got shape {array.shape}"
            )
    if p.ndim != 1 or not p.flags.c_contiguous or g.dtype != p.dtype:
        raise ValueError(
            f"{function}: p must be 1-D and contiguous, g of its dtype, got {p.dtype} of {p.shape} and {g.dtype}"
        )
    half = p.dtype.itemsize == 2
    if half != (master is not None):
        raise ValueError(f"{function}: master must be given for 16-bit p and for no other, got p of {p.dtype}")
    work = "float32" if half else p.dtype
    for name, array in (*((f"state {i}", state) for i, state in enumerate(copies)), ("numbers", numbers)):
        if array.dtype != work:
            raise TypeError(f"{function}: {name} must be {work} for p of {p.dtype}, got {array.dtype}")
    if not len(pieces):
        return definition_plan("there is nothing to update, nothing is launched")
    if not backend.runs_cuda:
        return definition_plan(no_cuda(backend))
    if c_type(p.dtype) is None:
        return definition_plan(no_kernel_for(p.dtype))
    if not aligned(p, g, *copies):
        return definition_plan("an array does not start on a 16-byte boundary")
    return _plan(function, defines, p.dtype, len(pieces))


@lru_cache(maxsize=1024)
def _plan(function: str, defines: tuple[str, ...], dtype: np.dtype, count: int) -> Plan:
    vector = WIDEST_ACCESS // dtype.itemsize
    rule = "ADAM" if function == "adam_step" else "SGD"
    variant = (rule, f"DTYPE={c_type(dtype)}", f"VECTOR={vector}", *defines)
    copy = ", in float32 copies" if dtype.itemsize == 2 else ""
    return Plan(function, variant, count, _THREADS, (), f"one launch for {count} pieces of the flat arrays{copy}")
