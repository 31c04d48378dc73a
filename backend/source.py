"""The text of a CUDA kernel file with its ``.cuh`` headers pasted in: the one door to a compiled kernel.

CuPy's disk cache keys on the text it is given and does not see what an include contains, so headers of the house are
pasted; ``#line`` keeps compiler messages and simulator reports pointing at the real file and line.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from .base import Array
from .device import Device
from .registry import backend_of

_INCLUDE = re.compile(r'^[ \t]*#include "([^"]+)"[ \t]*$', re.MULTILINE)


@cache
def read_source(path: Path) -> str:
    """The file's text with every ``#include "x.cuh"`` replaced by that file, once each."""
    return _paste(path, set())


def _paste(path: Path, seen: set[Path]) -> str:
    seen.add(path)
    lines = [f'#line 1 "{path}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = _INCLUDE.match(line)
        if not match:
            lines.append("" if line.strip() == "#pragma once" else line)
            continue
        header = path.parent / match[1]
        if header not in seen:
            lines.append(_paste(header, seen))
        lines.append(f'#line {number + 1} "{path}"')
    return "\n".join(lines)


_modules: dict[tuple[Path, tuple[str, ...], Device], Any] = {}
_kernels: dict[tuple[Path, str, tuple[str, ...], Device], Any] = {}


def get_kernel(path: Path, name: str, defines: tuple[str, ...], like: Array) -> Any:
    """A kernel of ``path`` compiled for the device of ``like``: ``kernel(grid, block, args, shared_mem=0)``.

    Args:
        path: the ``.cu`` file.
        name: an ``extern "C" __global__`` function in it.
        defines: macro definitions such as ``"DTYPE=float"``, and compiler options, which begin with ``-``; they choose
            the variant.
        like: an array on the device that will run it.
    """
    backend = backend_of(like)
    device = backend.device_of(like)
    key = (path, name, defines, device)
    kernel = _kernels.get(key)
    if kernel is None:
        module = _modules.get((path, defines, device))
        if module is None:
            options = tuple(define if define.startswith("-") else f"-D{define}" for define in defines)
            module = _modules[path, defines, device] = backend.compile(read_source(path), options, device)
        kernel = _kernels[key] = module.get_function(name)
    return kernel


def forget_kernels(kind: str) -> None:
    """Drop every kernel compiled for one device kind (when a test backend goes away)."""
    caches: tuple[dict[Any, Any], ...] = (_kernels, _modules)
    for kept in caches:
        for key in [key for key in kept if key[-1].kind == kind]:
            del kept[key]
