"""IDX files: whole ones are read as they were written, and every other one is refused with a reason."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from lamella import training

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    """The format as its description has it."""
    head = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (3, 4, 5), (2, 0, 3), ()])
def test_an_array_comes_back_as_written(shape: tuple[int, ...], dtype: str, packed: bool, tmp_path: Path) -> None:
    array = (np.random.default_rng(0).standard_normal(shape) * 50).astype(dtype)
    data = idx_bytes(np.asarray(array))
    path = tmp_path / "values-ubyte"
    path.write_bytes(gzip.compress(data) if packed else data)
    found = training.read_idx(path)
    assert found.dtype == np.dtype(dtype)
    assert found.dtype.isnative
    assert found.flags.owndata
    np.testing.assert_array_equal(found, array)


WHOLE = idx_bytes(np.arange(24, dtype="int32").reshape(2, 3, 4))
HUGE = bytes([0, 0, 0x0E, 4]) + b"\xff" * 16  # a shape of 2**128 numbers


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "got none"),
        (b"\0\0\x0c", "got 00 00 0c"),
        (b"\0\1\x0c\3" + WHOLE[4:], "got 00 01 0c 03"),
        (b"\0\0\x0a\3" + WHOLE[4:], "got 00 00 0a 03"),
        (WHOLE[:10], "lengths of its 3 axes"),
        (WHOLE[:-1], "takes 96 bytes"),
        (WHOLE + b"\0", "must end after the 96 bytes"),
        (HUGE, "more than it can hold"),
        (bytes([0, 0, 8, 65]) + b"\0\0\0\1" * 65 + b"\0", "no array that can be made: .* 65"),
        (bytes([0, 0, 8, 4]) + b"\0" * 4 + b"\xff" * 12, "no array that can be made: array is too big"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(data: bytes, message: str, packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(ValueError, match=rf"read_idx: {path}.*{message}"):
        training.read_idx(path)


@pytest.mark.parametrize("length", [3, 11, 20, -9, -1])
def test_a_compressed_file_that_is_cut_short_is_refused(length: int, tmp_path: Path) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(WHOLE)[:length])
    with pytest.raises(ValueError, match="cut short"):
        training.read_idx(path)


def test_a_compressed_file_whose_bytes_were_changed_is_refused(tmp_path: Path) -> None:
    path, data = tmp_path / "x.gz", bytearray(gzip.compress(WHOLE))
    data[-6] ^= 1  # of its check sum
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cut short or damaged.*CRC"):
        training.read_idx(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        training.read_idx(tmp_path / "nowhere")
