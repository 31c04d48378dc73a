"""Checkpoints of a run: model, optimizer, random states and what else there is, in one file; all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..autograd import Tensor
from ..backend import Array, Generator, as_generator, is_array
from ..layers import Module
from .checkpoint import read, save
from .optimizer import Optimizer
from .random_state import generators_of, state_from_array, state_to_array

_FORMAT = "lamella.checkpoint"
_VERSION = "1"


def save_checkpoint(
    path: str | os.PathLike[str],
    *,
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    rng: Generator | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write all that a run needs to go on bit for bit; as :func:`lamella.save` writes, whole or not at all.

    The file holds ``model.<name>``, ``optimizer.<name>``, and the random states: ``random.<path>`` of every Generator
    that a module of the model holds (Dropout's ``rng``), ``rng`` of the one given here.

    Args:
        path: the file; an existing one is replaced in one move.
        model, optimizer: their ``state_dict`` and, of the model's modules, the random states.
        rng: the generator that shuffles the data.
        extra: more, by name: arrays and tensors, or whatever JSON has (numbers, text, lists, dicts, None).
    Raises:
        TypeError: something in ``extra`` is neither. OSError: the file cannot be written.
    """
    import json

    _check_kinds("save_checkpoint", model, optimizer, rng)
    if extra is not None and not isinstance(extra, Mapping):
        raise TypeError(f"save_checkpoint: extra must be a mapping of names to values, got {type(extra).__name__}")
    arrays: dict[str, Any] = {}
    if model is not None:
        arrays |= {f"model.{name}": array for name, array in model.state_dict().items()}
        arrays |= {f"random.{path}": state_to_array(found) for path, found in generators_of(model).items()}
    if optimizer is not None:
        arrays |= {f"optimizer.{name}": array for name, array in optimizer.state_dict().items()}
    if rng is not None:
        arrays["rng"] = state_to_array(rng)
    words = {}
    for name, value in (extra or {}).items():
        if isinstance(value, Tensor) or is_array(value):
            arrays[f"extra.{name}"] = value
        else:
            try:
                words[name] = json.loads(json.dumps(value))
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"save_checkpoint: extra[{name!r}] must be an array, a tensor or what JSON has, "
                    f"got {type(value).__name__}: {error}"
                ) from None
    save(path, arrays, {_FORMAT: _VERSION, "extra": json.dumps(words)})


def load_checkpoint(
    path: str | os.PathLike[str],
    *,
    model: Module | None = None,
    optimizer: Optimizer | None = None,
    rng: Generator | None = None,
) -> dict[str, Any]:
    """Put a run back where :func:`save_checkpoint` left it; on an error nothing is changed.

    What the file holds and is not asked for is left alone: ``load_checkpoint(path, model=model)`` is enough to predict.

    Returns:
        what was given as ``extra``.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no checkpoint, or a shape is another than in the model or optimizer.
        KeyError: something asked for, or a name in it, is missing or unexpected.
    """
    import json

    _check_kinds("load_checkpoint", model, optimizer, rng)
    arrays, words = read("load_checkpoint", path, sealed=True)
    if words.get(_FORMAT) != _VERSION:
        raise ValueError(
            f"load_checkpoint: {os.fspath(path)} must be a checkpoint of version {_VERSION}, as save_checkpoint writes "
            f"it, got {words.get(_FORMAT, 'another file; lamella.load reads arrays by name')}"
        )
    parts: dict[str, dict[str, Array]] = {"model": {}, "optimizer": {}, "random": {}, "extra": {}}
    for name, array in arrays.items():
        kind, _, rest = name.partition(".")
        if kind in parts:
            parts[kind][rest] = array
    for name, asked, there in (
        ("model", model is not None, bool(parts["model"])),
        ("optimizer", optimizer is not None, bool(parts["optimizer"])),
        ("rng", rng is not None, "rng" in arrays),
    ):
        if asked and not there:
            raise KeyError(f"load_checkpoint: {os.fspath(path)} was saved without {name}")
    own = {} if model is None else generators_of(model)
    if model is not None and set(own) != set(parts["random"]):
        missing, unexpected = sorted(set(own) - set(parts["random"])), sorted(set(parts["random"]) - set(own))
        raise KeyError(
            f"load_checkpoint: random states: missing {missing or 'nothing'}, unexpected {unexpected or 'nothing'}"
        )
    if optimizer is not None:
        optimizer.check_state_dict(parts["optimizer"])
    if model is not None:
        model.load_state_dict(parts["model"])
        for name, generator in own.items():
            generator.state = state_from_array(parts["random"][name])
    if optimizer is not None:
        optimizer.load_state_dict(parts["optimizer"])
    if rng is not None:
        rng.state = state_from_array(arrays["rng"])
    return {**json.loads(words["extra"]), **parts["extra"]}


def _check_kinds(caller: str, model: Any, optimizer: Any, rng: Any) -> None:
    for name, value, kind in (("model", model, Module), ("optimizer", optimizer, Optimizer)):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{caller}: {name} must be of class {kind.__name__} or None, got {value!r}")
    as_generator(caller, rng)
