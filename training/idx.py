"""IDX files, in which MNIST and its relatives are kept: a magic number, the lengths of the axes, the values."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

from ..backend import Array, backend_for

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_DEFLATE = 1032  # no byte of a gzip file gives more than so many


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array that an IDX file holds, plain or compressed by gzip: ``read_idx("train-images-idx3-ubyte.gz")``.

    The file's third byte names the dtype, the fourth the number of axes; then come their lengths as big-endian 32-bit
    integers and the values, the last axis running fastest.

    Returns:
        a NumPy array of its own memory, in this machine's byte order.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no IDX file, cut short, damaged, or longer than its header says.
    Source: Y. LeCun, "The MNIST database of handwritten digits", the description of the format.
    """
    path = Path(path)
    size = path.stat().st_size
    try:
        with open(path, "rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rb") if packed else open(path, "rb") as file:
            return _array(file, path, size * _DEFLATE if packed else size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"read_idx: {path} is cut short or damaged: {error}") from error


def _array(file: Any, path: Path, limit: int) -> Array:
    """The array of an open file that holds at most ``limit`` bytes."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            f"read_idx: {path} is no IDX file: its first bytes must be 0, 0, a dtype of "
            f"{', '.join(map(hex, _DTYPES))} and the number of axes, got {magic.hex(' ') or 'none'}"
        )
    header = file.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise ValueError(f"read_idx: {path} is cut short: the lengths of its {magic[3]} axes are not all there")
    shape = tuple(int.from_bytes(header[i : i + 4], "big") for i in range(0, len(header), 4))
    xp = backend_for("cpu").xp
    dtype = xp.dtype(_DTYPES[magic[2]])
    count = math.prod(shape) * dtype.itemsize
    if count > limit:
        raise ValueError(f"read_idx: {path} is cut short: shape {shape} takes {count:,} bytes, more than it can hold")
    values = file.read(count)
    if len(values) < count:
        raise ValueError(f"read_idx: {path} is cut short: shape {shape} takes {count:,} bytes, got {len(values):,}")
    if file.read(1):
        raise ValueError(f"read_idx: {path} must end after the {count:,} bytes of shape {shape}, and goes on")
    try:
        array = xp.frombuffer(values, dtype).reshape(shape)
    except ValueError as error:  # more axes than NumPy has, or no values and an endless axis
        raise ValueError(f"read_idx: {path} holds no array that can be made: {error}") from error
    return array.astype(dtype.newbyteorder("="))
