"""Checkpoints: what was saved comes back, a damaged file never does, and a failed save leaves the old file."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device
from lamella.training import load, load_metadata, save

DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    ml_dtypes.bfloat16,
]  # fmt: skip


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return sorted(a) == sorted(b) and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_values_shapes_and_dtypes_come_back(tmp_path: Path, dtype: Any) -> None:
    x = (np.arange(24) * 1.25 - 7).astype(dtype)
    state = {
        "plain": x,
        "scalar": x[5:6].reshape(()),
        "empty": x[:0].reshape(0, 3),
        "transposed": x.reshape(2, 3, 4).T,
        "every third": x[::3],
        "backwards": x[::-1],
    }
    save(tmp_path / "a.safetensors", state)
    found = load(tmp_path / "a.safetensors")
    assert same(found, state)
    assert all(type(array) is np.ndarray and array.flags.writeable for array in found.values())


def test_bytes_of_the_other_order_come_back_as_numbers(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": np.arange(5, dtype=">f4")})
    np.testing.assert_array_equal(load(tmp_path / "a")["x"], np.arange(5, dtype="f4"))


def test_a_model_comes_back_on_every_device(tmp_path: Path, device: Device) -> None:
    model, fresh = (L.Linear(3, 2, rng=lamella.Generator(seed)).to(device) for seed in (1, 2))
    save(tmp_path / "model.safetensors", model.state_dict())
    found = load(str(tmp_path / "model.safetensors"))
    assert all(type(array) is np.ndarray for array in found.values())
    fresh.load_state_dict(found)
    np.testing.assert_array_equal(fresh.weight.to_numpy(), model.weight.to_numpy())
    save(tmp_path / "tensor", {"w": model.weight})
    np.testing.assert_array_equal(load(tmp_path / "tensor")["w"], model.weight.to_numpy())


def test_metadata_comes_back(tmp_path: Path) -> None:
    save(tmp_path / "a", {}, {"epoch": "7", "ünicode": "“ok”"})
    assert load_metadata(tmp_path / "a") == {"epoch": "7", "ünicode": "“ok”"}
    assert load(tmp_path / "a") == {}


def test_files_of_and_for_other_programs(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    x = np.arange(6, dtype="float32").reshape(2, 3)
    save_file({"x": x}, tmp_path / "theirs")
    assert same(load(tmp_path / "theirs"), {"x": x})
    assert load_metadata(tmp_path / "theirs") == {}
    save(tmp_path / "ours", {"x": x})
    assert same(load_file(tmp_path / "ours"), {"x": x})


# -- damaged files ------------------------------------------------------------------------------------------------
STATE = {"weight": np.arange(6, dtype="float32").reshape(2, 3), "steps": np.array(3)}


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "whole", STATE, {"a": "b"})
    content = (tmp_path / "whole").read_bytes()
    for length in range(len(content)):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(ValueError, match="cut is not a whole safetensors file"):
            load(tmp_path / "cut")
    (tmp_path / "long").write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="long is not a whole safetensors file"):
        load(tmp_path / "long")


def test_no_flipped_bit_gives_other_arrays(tmp_path: Path) -> None:
    save(tmp_path / "whole", STATE, {"a": "b"})
    content = (tmp_path / "whole").read_bytes()
    refused = 0
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            (tmp_path / "flipped").write_bytes(flipped)
            try:
                found = load(tmp_path / "flipped")
            except ValueError:
                refused += 1
            else:
                assert same(found, STATE), (position, bit)
    assert refused >= 0.8 * 8 * len(content)


def test_no_flipped_bit_takes_the_seal_off(tmp_path: Path) -> None:
    save(tmp_path / "whole", {"x": np.arange(3, dtype="int8")}, {"a": "b"})
    content = (tmp_path / "whole").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            (tmp_path / "flipped").write_bytes(flipped)
            try:
                found, words = load(tmp_path / "flipped"), load_metadata(tmp_path / "flipped")
            except ValueError:
                continue
            assert same(found, {"x": np.arange(3, dtype="int8")})
            assert words == {"a": "b"}
            told = json.loads(flipped[8 : 8 + length])["__metadata__"]
            assert {"lamella.sha256", "lamella.seal"} <= told.keys(), (position, bit)


def header(text: bytes, data: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + data


HOSTILE = {
    "empty": b"",
    "nonsense": b"PK\x03\x04 this is a zip file, or so it says",
    "pickle": b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    "header of 2**63 bytes": b"\xff" * 7 + b"\x7f" + b"{}",
    "not JSON": header(b"{not json}"),
    "a list": header(b"[1, 2]"),
    "deep": header(b"[" * 100_000),
    "outside": header(b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', b"\0" * 8),
    "negative": header(b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', b"\0" * 4),
    "shape too great": header(b'{"x":{"dtype":"F32","shape":[1000],"data_offsets":[0,4]}}', b"\0" * 4),
    "overflow": header(b'{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', b"\0" * 4),
    "overlap": header(
        b'{"x":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"y":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
        b"\0" * 6,
    ),
    "hole": header(b'{"x":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}', b"\0" * 4),
    "70 axes": header(b'{"x":{"dtype":"U8","shape":[' + b"1," * 69 + b'1],"data_offsets":[0,1]}}', b"\0"),
    "too great for NumPy": header(
        b'{"x":{"dtype":"U8","shape":[0,9223372036854775807,2],"data_offsets":[0,0]}}'
    ),
    "a name twice": header(
        b'{"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"x":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
        b"\0",
    ),
    "metadata twice": header(b'{"__metadata__":{"a":"1","a":"2"}}'),
    "one digest": header(b'{"__metadata__":{"lamella.seal":"1"}}'),
    "two digests": header(b'{"__metadata__":{"lamella.seal":"1","lamella.sha256":"2"}}'),
    "unknown dtype": header(b'{"x":{"dtype":"O","shape":[1],"data_offsets":[0,8]}}', b"\0" * 8),
    "dtype NumPy has not": header(b'{"x":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}', b"\0"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "hostile.safetensors").write_bytes(HOSTILE[name])
    with pytest.raises(ValueError, match=r"load: .*hostile\.safetensors"):
        load(tmp_path / "hostile.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        load(tmp_path / "nothing.safetensors")


WRONG: list[tuple[dict[Any, Any], Any, type[Exception], str]] = [
    ({"x": [1.0, 2.0]}, None, TypeError, "save: x must be an array or a tensor, got list"),
    ({"x": 3}, None, TypeError, "save: x must be an array or a tensor, got int"),
    ({"x": np.array(["a"])}, None, TypeError, "save: x must have one of the dtypes bool, .*, got <U1"),
    ({"x": np.array([None])}, None, TypeError, "save: x must have one of the dtypes .*, got object"),
    ({"x": np.ones(2, complex)}, None, TypeError, "got complex128"),
    ({3: np.ones(2)}, None, TypeError, "names must be text, and not __metadata__, got 3"),
    ({"__metadata__": np.ones(2)}, None, TypeError, "got '__metadata__'"),
    ({}, {"epoch": 3}, TypeError, "metadata must map text to text, got 'epoch': 3"),
    ({}, {"lamella.sha256": "0"}, ValueError, "must not use the name lamella.sha256"),
    ({}, {"lamella.seal": "0"}, ValueError, "must not use the name lamella.seal"),
    ({"a\ud800": np.ones(2)}, None, ValueError, r"save: names must be text that UTF-8 has, got 'a\\ud800'"),
    ({}, {"a\ud800": "b"}, ValueError, r"save: metadata must be text that UTF-8 has, got 'a\\ud800'"),
    ({}, {"a": "\udfff"}, ValueError, r"save: metadata must be text that UTF-8 has, got '\\udfff'"),
]


@pytest.mark.parametrize(("state", "metadata", "error", "message"), WRONG)
def test_what_cannot_be_saved_leaves_the_old_file(
    tmp_path: Path, state: Any, metadata: Any, error: type[Exception], message: str
) -> None:
    save(tmp_path / "a", STATE)
    with pytest.raises(error, match=message):
        save(tmp_path / "a", state, metadata)
    assert same(load(tmp_path / "a"), STATE)
    assert os.listdir(tmp_path) == ["a"]


# -- a save that fails --------------------------------------------------------------------------------------------
def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["safetensors.numpy.save_file", "os.fsync", "os.replace", "os.open"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_while_saving_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, existing: bool
) -> None:
    if existing:
        save(tmp_path / "a", STATE)
    with monkeypatch.context() as patch:
        patch.setattr(failing, full_disk)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path / "a", {"x": np.ones(3)})
    assert os.listdir(tmp_path) == ["a"] * existing
    if existing:
        assert same(load(tmp_path / "a"), STATE)


@pytest.mark.skipif(sys.platform != "linux", reason="a limit that is simple to set there")
def test_a_disk_that_is_full_in_the_middle_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    import resource

    save(tmp_path / "a", STATE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"save: .*a could not be written: .*File too large"):
            save(tmp_path / "a", {"x": np.ones(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["a"]
    assert same(load(tmp_path / "a"), STATE)


def test_a_file_that_reads_back_otherwise_does_not_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.numpy

    def careless(arrays: Any, path: Path, words: Any) -> None:
        write(arrays, path, words)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    save(tmp_path / "a", STATE)
    write = safetensors.numpy.save_file
    monkeypatch.setattr(safetensors.numpy, "save_file", careless)
    with pytest.raises(OSError, match=r"save: .*a was not written as it should have been: .* is damaged"):
        save(tmp_path / "a", {"x": np.ones(3)})
    assert os.listdir(tmp_path) == ["a"]
    assert same(load(tmp_path / "a"), STATE)


def test_the_file_is_on_the_disk_before_it_takes_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (done.append(name), real(*args))[1])
    save(tmp_path / "a", STATE)
    assert done == ["fsync", "replace", "fsync"]  # the file, its name, the folder


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_link_stays_a_link_and_a_new_file_has_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "real")
    save(tmp_path / "link", STATE)
    assert (tmp_path / "link").is_symlink()
    assert same(load(tmp_path / "deep" / "real"), STATE)
    (tmp_path / "usual").touch()
    assert (tmp_path / "deep" / "real").stat().st_mode == (tmp_path / "usual").stat().st_mode


SAVE_FOR_EVER = """
import sys, numpy, itertools
from lamella.training import save
for i in itertools.count(1):
    save(sys.argv[1], {"x": numpy.full(200_000, i), "y": numpy.array(i)})
    if i == 1:
        print("started", flush=True)
"""


def test_a_process_killed_while_saving_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    for wait in (0.0, 0.013, 0.029):
        with subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            time.sleep(wait)
            process.send_signal(signal.SIGKILL)
        found = load(path)
        assert (found["x"] == found["y"]).all()
        assert len(found["x"]) == 200_000


def test_the_format_holds_no_code(tmp_path: Path) -> None:
    save(tmp_path / "a", STATE)
    content = (tmp_path / "a").read_bytes()
    words = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(words) == {"__metadata__", "weight", "steps"}
