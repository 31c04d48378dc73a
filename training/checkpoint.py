"""Arrays by name in one safetensors file: written whole or not at all, and never read wrongly.

A file is written beside its place, forced to the disk, read back and compared, and then moved there: whatever happens,
the path holds the old file or the new one. A digest over names, dtypes, shapes, values and metadata stands in the
file's metadata, twice, under two names; it is compared when the file is read. A file with one of them is damaged. Files
of other programs have none and are read without that check.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..autograd import Tensor
from ..backend import Array, backend_for, backend_of

_DIGESTS = ("lamella.sha256", "lamella.seal")  # two, so that damage to one name does not pass for a foreign file
_DTYPES = {
    "BOOL": "bool",
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    "BF16": "bfloat16",
}  # as the file spells them, as NumPy does


def save(path: str | os.PathLike[str], state: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays by name: ``save("model.safetensors", model.state_dict())``.

    On any error the path keeps what it held, and nothing else is left in the folder. (A process that is killed while
    writing may leave a file whose name starts with a dot and ends in ``.part``.)

    Args:
        path: the file; an existing one is replaced in one move. The folder must exist.
        state: arrays or tensors by name, on any device.
        metadata: words about them, text by text.
    Raises:
        TypeError: a name or a value is not of these kinds, or a dtype has no place in the format.
        ValueError: a name or a text cannot be written in UTF-8, or is one that save writes itself.
        OSError: the file cannot be written.
    """
    if not isinstance(state, Mapping):
        hint = "; pass model.state_dict()" if hasattr(state, "state_dict") else ""
        raise TypeError(f"save: state must be a mapping of names to arrays, got {type(state).__name__}{hint}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"save: metadata must map text to text, got {type(metadata).__name__}")
    target = writable("save", "path", path)
    arrays = {name: _checked(name, value) for name, value in state.items()}
    words = dict(metadata or {})
    for name, text in words.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError(f"save: metadata must map text to text, got {name!r}: {text!r}")
        if name in _DIGESTS:
            raise ValueError(f"save: metadata must not use the name {name}, which save writes itself")
        _check_text("metadata", name)
        _check_text("metadata", text)
    words.update(dict.fromkeys(_DIGESTS, _digest(arrays, words)))

    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    part = target.with_name(f".lamella.{os.urandom(8).hex()}.part")  # a name that is short whatever the path's is
    try:
        try:
            with open(part, "xb") as new:
                mode = stat.S_IMODE(os.fstat(new.fileno()).st_mode)  # any new file's; save_file gives the owner his
        except OSError as error:
            raise type(error)(error.errno, f"save: {error.strerror}", os.fspath(path)) from None
        try:
            save_file(arrays, part, words)
        except SafetensorError as error:
            raise OSError(f"save: {os.fspath(path)} could not be written: {error}") from error
        os.chmod(part, mode)
        _to_disk(part, os.O_RDWR)
        try:
            read("save", part, sealed=True)  # what stands there is what was meant
        except ValueError as error:
            raise OSError(f"save: {os.fspath(path)} was not written as it should have been: {error}") from error
        os.replace(part, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    if os.name == "posix":
        _to_disk(target.parent, os.O_RDONLY)


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read arrays by name, from :func:`save` or any safetensors file: ``model.load_state_dict(load(path))``.

    Returns:
        NumPy arrays on the CPU, each of its own memory.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, damaged or no safetensors file, or holds a dtype that NumPy has not.
    """
    return read("load", path)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The words that :func:`lamella.save` was given; the file is checked as :func:`lamella.load` checks it."""
    return read("load", path)[1]


def read(
    caller: str, path: str | os.PathLike[str], sealed: bool = False
) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata; a ``sealed`` file must have its digest."""
    import json

    import ml_dtypes  # noqa: F401 - teaches NumPy the name bfloat16
    from safetensors import SafetensorError, safe_open

    xp = backend_for("cpu").xp
    arrays = {}
    _check_path(caller, "path", path)
    with open(path, "rb") as file:
        try:
            with safe_open(path, "numpy"):  # checks the whole header against the file's length
                pass
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8), object_pairs_hook=each_once)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{caller}: {os.fspath(path)} is not a whole safetensors file: {error}") from error
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            if entry["dtype"] not in _DTYPES:
                raise ValueError(
                    f"{caller}: {os.fspath(path)}: {name} has dtype {entry['dtype']}, which NumPy does not have"
                )
            dtype = xp.dtype(_DTYPES[entry["dtype"]]).newbyteorder("<")
            try:
                array = xp.empty(entry["shape"], dtype)  # read straight into its own memory: the file is held once
            except (ValueError, OverflowError) as error:
                raise ValueError(
                    f"{caller}: {os.fspath(path)}: {name} has a shape that NumPy cannot have: {error}"
                ) from error
            first, end = entry["data_offsets"]
            file.seek(start + first)
            if end - first != array.nbytes or file.readinto(array.reshape(-1).view("uint8").data) != array.nbytes:
                raise ValueError(f"{caller}: {os.fspath(path)} is not a whole safetensors file: {name} is cut short")
            arrays[name] = array.astype(dtype.newbyteorder("="), copy=False)
    words = dict(header.get("__metadata__") or {})
    found = {words.pop(name, None) for name in _DIGESTS}
    if found == {None}:
        if sealed:
            raise ValueError(f"{caller}: {os.fspath(path)} is damaged or no checkpoint: it has no digest")
    elif found != {_digest(arrays, words)}:
        raise ValueError(
            f"{caller}: {os.fspath(path)} is damaged: its content does not have the digest that was saved with it"
        )
    return arrays, words


def writable(caller: str, name: str, path: Any) -> Path:
    """Where a file can be put: behind a link the file is replaced, not the link.

    Raises:
        TypeError: ``path`` is no path. OSError: its folder does not exist, or it is a folder itself.
    """
    _check_path(caller, name, path)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"{caller}: the folder of {name} must exist", os.fspath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, f"{caller}: {name} must be a file, got a folder", os.fspath(path))
    return target


def _check_path(caller: str, name: str, path: Any) -> None:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{caller}: {name} must be text or a path, got {type(path).__name__}")


def _checked(name: Any, value: Any) -> Array:
    """The value as a contiguous little-endian host array."""
    if not isinstance(name, str) or name == "__metadata__":
        raise TypeError(f"save: names must be text, and not __metadata__, got {name!r}")
    _check_text("names", name)
    array = value.data if isinstance(value, Tensor) else value
    xp = backend_for("cpu").xp
    if isinstance(array, xp.generic):
        array = xp.asarray(array)
    try:
        backend = backend_of(array)
    except TypeError:
        raise TypeError(
            f"save: {name} must be an array or a tensor, got {type(value).__name__}; "
            "numbers go in as arrays, text as metadata"
        ) from None
    if array.dtype.name not in _DTYPES.values():
        raise TypeError(f"save: {name} must have one of the dtypes {', '.join(_DTYPES.values())}, got {array.dtype}")
    host = backend.to_numpy(array)
    return xp.ascontiguousarray(host, host.dtype.newbyteorder("<")).reshape(array.shape)


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"save: {what} must be text that UTF-8 has, got {text!r}: {error.reason}") from None


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads``: an object; of two entries with one name another reader may see the other one."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has {name!r} twice")
        found[name] = value
    return found


def _digest(arrays: Mapping[str, Array], words: Mapping[str, str]) -> str:
    """SHA-256 over everything that a reader gets, in the order of the names."""
    import hashlib
    import json

    digest = hashlib.sha256(json.dumps(sorted(words.items())).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        digest.update(array.reshape(-1).view("uint8").data)
    return digest.hexdigest()


def _to_disk(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
