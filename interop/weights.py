"""Weights from public files: one safetensors file or many with an index, and other programs' names made ours.

How names translate is data, a :class:`Names`; ``pretrained.py`` has those of some families.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..autograd import Tensor, tensor
from ..backend import Array, backend_of, is_array
from ..layers import Module
from ..training.checkpoint import each_once, read

ONE_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PREFIXES = ("module.", "_orig_mod.", "transformer.", "model.", "bert.")  # of wrappers, and of models inside models

_MOST_TRIALS = 50  # of one name; wrappers are seldom more than three deep


class Joined(NamedTuple):
    r"""A weight of ours that other files hold in parts.

    Attributes:
        parts: a pattern for each part's name, in the order in which they follow one another along the first axis.
        rows: how many rows each part has.
        name: our name, with ``\1`` for a group of the patterns.
    """

    parts: tuple[str, ...]
    rows: tuple[int, ...]
    name: str


class Names(NamedTuple):
    r"""How the names in a file become ours. Patterns are regular expressions that fit a whole name.

    What no rule fits keeps its name. Before, what wrappers put in front is taken away wherever that makes the name one
    that is known.

    Attributes:
        renamed: pairs of a pattern and what becomes of it, with ``\1`` for a group; the first that fits counts.
        joined: weights that come in parts.
        transposed: patterns of our names whose weights stand transposed in the file.
        ignored: patterns, after the prefix, of what a file may hold and no model needs, such as masks.
        tied: for a name of ours, another name under which the file may have the same values.
        prefixes: what wrappers put in front of every name.
    """

    renamed: tuple[tuple[str, str], ...] = ()
    joined: tuple[Joined, ...] = ()
    transposed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()
    prefixes: tuple[str, ...] = PREFIXES


class Report(NamedTuple):
    """What became of every name: ``print(report)``.

    Attributes:
        taken: our name for each of the file's that was used.
        missing: ours that the file has not, in whole or in part.
        unexpected: the file's that the model has no place for.
        transposed: the file's that were transposed.
        ignored: the file's that no model needs.
        tied: the file's that say again, with equal values, what another one says.
    """

    taken: dict[str, str]
    missing: list[str]
    unexpected: list[str]
    transposed: list[str]
    ignored: list[str]
    tied: list[str]

    def __str__(self) -> str:
        lines = [f"{len(self.taken)} weights taken"]
        for field in self._fields[1:]:
            names = getattr(self, field)
            lines.append(f"{field}: {', '.join(names) if names else 'none'}")
        return "\n".join(lines)


# -- files -----------------------------------------------------------------------------------------------------------
def read_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Arrays by name, on the host, from a safetensors file, an index of several, or the folder that holds either.

    bfloat16 stays what it is. A folder with ``model.safetensors`` needs no index.

    Args:
        path: ``….safetensors``, ``….safetensors.index.json`` or a folder.
    Raises:
        FileNotFoundError: there is no such file, or parts are missing, which are named.
        ValueError: a file is damaged, or the index does not say the truth about the parts or names files elsewhere.
    """
    name = "read_weights"
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name}: path must be text or a path, got {type(path).__name__}")
    place = Path(path)
    if place.is_dir():
        place = _in_folder(place)
    if place.suffix == ".json":
        return _sharded(place)
    return read(name, place)[0]


def _in_folder(folder: Path) -> Path:
    for file in (ONE_FILE, INDEX):
        if (folder / file).is_file():
            return folder / file
    others = sorted(file.name for file in folder.iterdir() if file.suffix in (".bin", ".pt", ".pth", ".ckpt"))
    hint = ""
    if others:
        hint = f"; {', '.join(others)} would run code when read: let the program that wrote it save safetensors instead"
    raise FileNotFoundError(f"read_weights: {folder} must hold {ONE_FILE} or {INDEX}, and holds neither{hint}")


def _sharded(index: Path) -> dict[str, Array]:
    """The arrays of all parts, each of which must hold exactly what the index says."""
    name = "read_weights"
    place_of = read_json(name, index).get("weight_map")
    if not isinstance(place_of, dict) or not all(isinstance(file, str) for file in place_of.values()):
        raise ValueError(f'{name}: {index} must have a "weight_map" of names to files')
    files = sorted(set(place_of.values()))
    for file in files:
        plain = file == Path(file).name and "\\" not in file and ":" not in file and "\0" not in file
        if not plain or not file.endswith(".safetensors"):
            raise ValueError(f"{name}: {index} must name safetensors files beside it, got {file!r}")
    absent = [file for file in files if not (index.parent / file).is_file()]
    if absent:
        raise FileNotFoundError(
            f"{name}: {index} names {len(files)} files, of which {len(absent)} are missing: {', '.join(absent)}"
        )
    found: dict[str, Array] = {}
    for file in files:
        held = read(name, index.parent / file)[0]
        promised = {key for key, where in place_of.items() if where == file}
        if held.keys() != promised:
            wrong = sorted(held.keys() ^ promised)
            raise ValueError(f"{name}: {index} and {file} do not agree on what the file holds: {', '.join(wrong[:10])}")
        found |= held
    return found


def read_json(caller: str, path: Path) -> dict[str, Any]:
    """An object from a JSON file, each of whose names stands there once."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{caller}: {path} is not a whole JSON file: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{caller}: {path} must hold an object, got {type(found).__name__}")
    return found


# -- names -----------------------------------------------------------------------------------------------------------
def load_weights(
    model: Module,
    weights: Mapping[str, Any] | str | os.PathLike[str],
    names: Names | None = None,
    *,
    strict: bool = True,
) -> Report:
    """Copy weights with other programs' names into a model, in place: either all of them or, on an error, none.

    Args:
        model: whose parameters and buffers they become, on its device and in its dtypes.
        weights: arrays by name, or where :func:`read_weights` finds them.
        names: how names translate; by default only what wrappers put in front is taken away.
        strict: every parameter and buffer must be found, under one of its names, and every weight be used or ignored by
            ``names``; else what fits is taken.
    Returns:
        what became of every name.
    Raises:
        KeyError: names are missing or unexpected, and ``strict``; all of them are named.
        TypeError: ``names`` has a text where there should be a tuple of them.
        ValueError: a shape does not fit, two weights have one place, or tied weights differ.
    """
    name = "load_weights"
    if not isinstance(model, Module):
        raise TypeError(f"{name}: model must be a Module, got {type(model).__name__}")
    if names is not None:
        _check_names(name, names)
    if not isinstance(weights, Mapping):
        weights = read_weights(weights)
    if others := [key for key in weights if not isinstance(key, str)]:
        raise TypeError(f"{name}: weights must map texts to arrays, got {others[0]!r} as a name")
    own = dict(model._named_state())
    state, report = translated(weights, {key: value.shape for key, value in own.items()}, names or Names())
    found = {id(own[key]) for key in state}
    report.missing[:] = [key for key in report.missing if id(own.get(key)) not in found]  # a shared one has many names
    if strict and (report.missing or report.unexpected):
        said = (f"{what}: {', '.join(getattr(report, what)) or 'none'}" for what in ("missing", "unexpected"))
        raise KeyError(f"{name}: {'; '.join(said)}")
    model.load_state_dict(state, strict=False)
    return report


def _check_names(caller: str, names: Any) -> None:
    """Refuse a text where there should be several, which would be taken letter by letter and fit nothing."""
    if not isinstance(names, Names):
        raise TypeError(f"{caller}: names must be a Names, got {type(names).__name__}")
    for field in ("transposed", "ignored", "prefixes"):
        if not _are_texts(getattr(names, field)):
            raise TypeError(f"{caller}: names.{field} must be a tuple of texts, got {getattr(names, field)!r}")
    for field in ("renamed", "tied"):
        pairs = getattr(names, field)
        if not isinstance(pairs, (tuple, list)) or not all(_are_texts(pair) and len(pair) == 2 for pair in pairs):
            raise TypeError(f"{caller}: names.{field} must be a tuple of pairs of texts, got {pairs!r}")


def _are_texts(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(text, str) for text in value)


class _Place(NamedTuple):
    """Where a name of the file belongs: nowhere where ``ours`` is None.

    Attributes:
        ours: our name.
        part: which one, of a weight that comes in parts, which have ``rows``.
        again: whether another name of the file says the same.
    """

    ours: str | None
    part: int = 0
    rows: tuple[int, ...] | None = None
    again: bool = False


def translated(
    weights: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], names: Names
) -> tuple[dict[str, Any], Report]:
    """The weights by our names, in our layout, and what became of every name.

    Args:
        weights: arrays by the file's names.
        shapes: of what the model has, by our names.
        names: how names translate.
    """
    report = Report({}, [], [], [], [], [])
    sources: dict[str, dict[int, str]] = {}  # for each of our names the file's, by part
    rows: dict[str, tuple[int, ...]] = {}  # of those that come in parts
    again: list[tuple[str, str]] = []
    for theirs in weights:
        place = _place(theirs, shapes, names)
        if place is None:
            report.unexpected.append(theirs)
        elif place.ours is None:
            report.ignored.append(theirs)
        elif place.again:
            again.append((theirs, place.ours))
        elif (other := sources.setdefault(place.ours, {}).setdefault(place.part, theirs)) != theirs:
            raise ValueError(f"load_weights: {other} and {theirs} have one place in the model, {place.ours}")
        elif place.rows is not None:
            rows[place.ours] = place.rows
    for theirs, ours in again:
        first = sources.setdefault(ours, {0: theirs})[0]
        if first == theirs:
            continue
        if not _same(_array(weights[first]), _array(weights[theirs])):
            raise ValueError(f"load_weights: {first} and {theirs} are one weight in the model, {ours}, but they differ")
        report.tied.append(theirs)
    state: dict[str, Any] = {}
    for ours, shape in shapes.items():
        held, heights = sources.get(ours, {}), rows.get(ours)
        if len(held) < (1 if heights is None else len(heights)):
            having = f" (of its {len(heights)} parts there are {', '.join(held.values())})" if heights else ""
            report.missing.append(ours + having)
            continue
        parts = []
        for number, theirs in sorted(held.items()):
            part = shape if heights is None else (heights[number], *shape[1:])
            parts.append(_turned(ours, theirs, _array(weights[theirs]), part, names, report))
            report.taken[theirs] = ours
        state[ours] = parts[0] if len(parts) == 1 else backend_of(parts[0]).xp.concatenate(parts)
    return state, report


def _place(theirs: str, shapes: Mapping[str, Any], names: Names) -> _Place | None:
    """Where a name belongs, or None where it is not known.

    The name is tried as it stands, then without a prefix, then without another one, and so on.
    """
    waiting = [".".join(word for word in theirs.split(".") if word != "_orig_mod")]  # torch.compile's, anywhere
    for left in waiting:  # which grows
        if any(re.fullmatch(pattern, left) for pattern in names.ignored):
            return _Place(None)
        for joined in names.joined:
            for part, pattern in enumerate(joined.parts):
                if (match := re.fullmatch(pattern, left)) and (ours := match.expand(joined.name)) in shapes:
                    return _Place(ours, part, joined.rows)
        matches = ((re.fullmatch(pattern, left), replacement) for pattern, replacement in names.renamed)
        ours = next((match.expand(replacement) for match, replacement in matches if match), left)
        if ours in shapes:
            return _Place(ours)
        for ours, other in names.tied:
            if left == other and ours in shapes:
                return _Place(ours, again=True)
        if len(waiting) > _MOST_TRIALS:  # a name made to be tried for ever
            return None
        waiting += [left.removeprefix(prefix) for prefix in names.prefixes if left.startswith(prefix)]
    return None


def _turned(ours: str, theirs: str, array: Array, shape: tuple[int, ...], names: Names, report: Report) -> Array:
    """The weight in our layout, its shape checked."""
    turned = any(re.fullmatch(pattern, ours) for pattern in names.transposed)
    if tuple(array.shape) != (shape[::-1] if turned else shape):
        how = f"{shape[::-1]}, to be transposed" if turned else shape
        raise ValueError(f"load_weights: {theirs} must have shape {how} for {ours}, got {tuple(array.shape)}")
    if not turned:
        return array
    report.transposed.append(theirs)
    return array.T


def _array(value: Any) -> Array:
    """What a Tensor holds, an array, or another library's as ours."""
    if isinstance(value, Tensor) or is_array(value):
        return value.data if isinstance(value, Tensor) else value
    return tensor(value.detach() if hasattr(value, "detach") else value).data


def _same(a: Array, b: Array) -> bool:
    one, other = (backend_of(x).to_numpy(x) for x in (a, b))
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
