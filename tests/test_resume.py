"""Checkpoints of runs: resumed anywhere, a run ends bit for bit where it would have ended; damaged ones are refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import Generator
from lamella.backend import Device
from lamella.training import (
    SGD,
    Adam,
    EarlyStopping,
    History,
    ReduceOnPlateau,
    batches,
    cosine,
    fit,
    load,
    load_checkpoint,
    save,
    save_checkpoint,
)

X = Generator(7).normal((60, 2))
Y = (X[:, 0] * X[:, 1] > 0).astype("int64")


class Stopped(Exception):
    """Stands for a power cut."""


def network(seed: int = 0, device: Device | str = "cpu") -> Any:
    rng = Generator(seed)
    layers = (L.Linear(2, 8, rng=rng), L.ReLU(), L.Dropout(0.3, rng=rng.split(1)), L.Linear(8, 2, rng=rng))
    return L.Sequential(*layers).to(device)


def run(
    path: Path | None,
    kind: Any = Adam,
    stop: int | None = None,
    seed: int = 0,
    data: Any = (X, Y),
    **options: Any,
) -> Any:
    """Model, optimizer, generator and history of a run that is stopped in its step ``stop``, or not."""
    model, rng, history = network(seed), Generator(seed + 3), History()
    momentum = {"momentum": 0.9} if kind is SGD else {"weight_decay": 0.01}
    optimizer = kind(model.parameters(), lr=0.5 * seed + 0.01, **momentum)
    calls: list[int] = []

    def loss(logits: Any, labels: Any) -> Any:
        if model.training:
            calls.append(1)
            if len(calls) == stop:
                raise Stopped
        return L.cross_entropy(logits, labels)

    given: dict[str, Any] = {"epochs": 5, "batch_size": 16, "schedule": cosine(0.05, 20, warmup=3)}
    given |= {"validation": (X, Y), "callbacks": [EarlyStopping(patience=None)], "clip_norm": 0.5}
    given |= options
    with contextlib.suppress(Stopped):
        fit(
            model, data, loss=loss, optimizer=optimizer, rng=rng, history=history, progress=False, checkpoint=path,
            **given,
        )  # fmt: skip
    return model, optimizer, rng, history


def fingerprint(parts: Any) -> list[Any]:
    model, optimizer, rng, history = parts
    states = [(name, array.tobytes()) for state in (model, optimizer) for name, array in state.state_dict().items()]
    figures = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in history.epochs]
    return [states, rng.state, model._order[2].rng.state, figures]


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_resumed_at_ten_random_steps_each_a_run_ends_bit_for_bit(kind: Any, tmp_path: Path) -> None:
    whole = fingerprint(run(None, kind))
    stops = np.random.default_rng(1).integers(2, 21, 10)
    for i, stop in enumerate(stops.tolist()):
        path = tmp_path / str(i)
        run(path, kind, stop, every=1 + i % 3)
        if not path.exists():  # stopped before the first
            assert stop <= 1 + i % 3
        resumed = run(path, kind, seed=1, every=1 + i % 3, resume=True) if path.exists() else run(path, kind)
        assert fingerprint(resumed) == whole, stop


def test_a_run_may_be_stopped_again_and_again(tmp_path: Path) -> None:
    whole = fingerprint(run(None))
    for seed, stop in enumerate([4, 3, 5, 6]):
        run(tmp_path / "a", stop=stop, seed=seed, every=1, resume=True)
    assert fingerprint(run(tmp_path / "a", seed=9, resume=True)) == whole
    assert fingerprint(run(tmp_path / "a", seed=9, resume=True)) == whole  # nothing is left to do


def test_batches_from_elsewhere_go_on_where_they_were(tmp_path: Path) -> None:
    def data(epoch: int) -> Any:
        return batches(X, Y, batch_size=16, rng=Generator(8).split(epoch))

    whole = fingerprint(run(None, data=data))
    for stop in (3, 4, 7):
        run(tmp_path / str(stop), stop=stop, data=data, every=1)
        assert fingerprint(run(tmp_path / str(stop), seed=1, data=data, resume=True)) == whole, stop


def test_epochs_can_be_added(tmp_path: Path) -> None:
    run(tmp_path / "a", epochs=2, callbacks=[])
    assert fingerprint(run(tmp_path / "a", seed=1, callbacks=[], resume=True)) == fingerprint(run(None, callbacks=[]))


def test_callbacks_decide_as_in_the_whole_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"schedule": None, "epochs": 12}

    def callbacks() -> list[Any]:
        return [
            ReduceOnPlateau(0.5, patience=1, threshold=0.2, cooldown=1),
            EarlyStopping(3, "validation_accuracy", True),
        ]

    whole = run(None, SGD, callbacks=callbacks(), **options)
    assert len(whole[3]) < 12
    assert whole[1].lr < 0.01
    for stop in (7, 11, 15, 19):
        path = tmp_path / str(stop)
        run(path, SGD, stop, callbacks=callbacks(), **options)
        for _ in range(2):  # the second time it has ended already
            resumed = run(path, SGD, seed=1, callbacks=callbacks(), resume=True, **options)
            assert fingerprint(resumed) == fingerprint(whole), stop


def test_an_interrupted_epoch_leaves_the_checkpoint_of_the_last(tmp_path: Path) -> None:
    model = network()

    def interrupt(logits: Any, labels: Any) -> Any:
        if (tmp_path / "a").exists() and model.training:
            raise KeyboardInterrupt
        return L.cross_entropy(logits, labels)

    with pytest.raises(KeyboardInterrupt):
        fit(
            model, (X, Y), loss=interrupt, optimizer=Adam(model.parameters()), epochs=3, rng=Generator(0),
            checkpoint=tmp_path / "a", progress=False,
        )  # fmt: skip
    assert load_checkpoint(tmp_path / "a", model=network(1))["epoch"] == 2


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_parameters_that_are_not_finite_do_not_replace_a_checkpoint(tmp_path: Path) -> None:
    run(tmp_path / "a", stop=3, every=2)
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(FloatingPointError, match=r"parameter 0.weight holds .* after step 4; .*a is left as it was"):
        run(tmp_path / "a", SGD, every=4, schedule=lambda step: 1e39 if step == 3 else 1e-3)
    assert (tmp_path / "a").read_bytes() == before


# -- the file -----------------------------------------------------------------------------------------------------
def test_everything_comes_back(tmp_path: Path, device: Device) -> None:
    model, rng = network(device=device), Generator(5)
    optimizer = Adam(model.parameters(), lr=0.25)
    rng.state = (5, (1 << 65) + 3)
    model._order[2].rng.state = (9, 77)
    extra = {"epoch": 3, "names": ["a", None], "rate": 0.1, "mean": np.arange(3.0)}
    save_checkpoint(tmp_path / "a", model=model, optimizer=optimizer, rng=rng, extra=extra)
    fresh, other = network(4, device), Generator()
    adam = Adam(fresh.parameters())
    found = load_checkpoint(tmp_path / "a", model=fresh, optimizer=adam, rng=other)
    np.testing.assert_array_equal(found.pop("mean"), np.arange(3.0))
    assert found == {"epoch": 3, "names": ["a", None], "rate": 0.1}
    assert other.state == rng.state
    assert fresh._order[2].rng.state == (9, 77)
    assert adam.lr == 0.25
    for p, q in zip(model.parameters(), fresh.parameters(), strict=True):
        np.testing.assert_array_equal(p.to_numpy(), q.to_numpy())
    assert "model.0.weight" in load(tmp_path / "a")
    assert list(model.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias"]


def test_a_model_alone_can_be_taken_out(tmp_path: Path) -> None:
    model = network()
    save_checkpoint(tmp_path / "a", model=model, optimizer=Adam(model.parameters()))
    load_checkpoint(tmp_path / "a", model=network(1))
    with pytest.raises(KeyError, match="was saved without rng"):
        load_checkpoint(tmp_path / "a", rng=Generator())


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    model = network()
    save_checkpoint(tmp_path / "a", model=model, optimizer=SGD(model.parameters(), lr=0.1))
    other = network(1)
    adam, before = Adam(other.parameters()), other.state_dict()
    with pytest.raises(KeyError, match=r"Adam.load_state_dict: missing"):
        load_checkpoint(tmp_path / "a", model=other, optimizer=adam)
    with pytest.raises(KeyError, match=r"random states: missing \['0.rng'\], unexpected \['2.rng'\]"):
        load_checkpoint(tmp_path / "a", model=L.Sequential(L.Dropout(0.5), L.Linear(2, 2)))
    assert all((before[name] == array).all() for name, array in other.state_dict().items())


def test_a_checkpoint_without_its_digest_is_refused(tmp_path: Path) -> None:
    model = network()
    save_checkpoint(tmp_path / "a", model=model)
    content = (tmp_path / "a").read_bytes()
    content = content.replace(b"lamella.sha256", b"lamella.sha255").replace(b"lamella.seal", b"lamella.sail")
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match=r"load_checkpoint: .*a is damaged or no checkpoint: it has no digest"):
        load_checkpoint(tmp_path / "a", model=model)


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"extra\['a'\] must be an array, a tensor or what JSON has, got set"):
        save_checkpoint(tmp_path / "a", extra={"a": {1}})
    save(tmp_path / "b", {"x": np.ones(2)})
    with pytest.raises(ValueError, match=r"b must be a checkpoint of version 1, .*got another file"):
        load_checkpoint(tmp_path / "b")
    save_checkpoint(tmp_path / "c", model=network(), optimizer=SGD(network().parameters()), rng=Generator(0))
    for options, message in [
        ({"every": 2, "checkpoint": None}, "every needs a checkpoint"),
        ({"every": 0}, "every must be at least 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            run(options.pop("checkpoint", tmp_path / "d"), **options)
    with pytest.raises(KeyError, match=r"Adam.load_state_dict: missing"):
        run(tmp_path / "c", resume=True)
    model = network()
    with pytest.raises(ValueError, match="rng must be another generator than those of the model's modules"):
        fit(
            model, (X, Y), loss=L.cross_entropy, optimizer=SGD(model.parameters()), epochs=1,
            rng=model._order[2].rng, checkpoint=tmp_path / "e",
        )  # fmt: skip


# -- mutated files ------------------------------------------------------------------------------------------------
def mutated(whole: bytes, other: bytes, rng: Any) -> bytes:
    """A file with flipped bits, cut short, spliced with another, with moved pieces, or with a hostile header."""
    length = int.from_bytes(whole[:8], "little")
    kind = rng.integers(7)
    content = bytearray(whole)
    place = int(rng.integers(len(whole)))
    if kind == 0:
        for position in rng.integers(len(whole), size=rng.integers(1, 6)):
            content[position] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        return whole[:place]
    elif kind == 2:
        return whole[:place] + other[place:]
    elif kind == 3:
        end = min(len(whole), place + int(rng.integers(1, 64)))
        to = int(rng.integers(len(whole)))
        piece = content[place:end]
        del content[place:end]
        content[to:to] = piece
    elif kind == 4:  # a bit of the header, where the words are that say what follows
        content[8 + int(rng.integers(length))] ^= 1 << int(rng.integers(8))
    elif kind == 5:
        content[:8] = int(rng.integers(0, 1 << 62) >> rng.integers(0, 62)).to_bytes(8, "little")
    else:  # a header whose entries say something else, and whose digest is gone or another's
        words = json.loads(whole[8 : 8 + length])
        name = rng.choice([key for key in words if key != "__metadata__"])
        change = rng.integers(5)
        if change == 0:
            words["__metadata__"].pop("lamella.sha256")
            words["__metadata__"].pop("lamella.seal")
        elif change == 1:
            words[name]["shape"] = [*words[name]["shape"][::-1], 1]
        elif change == 2:
            words[name]["dtype"] = str(rng.choice(["I32", "F16", "BF16", "U8", "F64", "O"]))
        elif change == 3:
            words[f"{name}x"] = words.pop(name)
        else:
            words[name]["data_offsets"] = [int(v) for v in rng.integers(-9, len(whole) * 2, 2)]
        header = json.dumps(words).encode()
        return len(header).to_bytes(8, "little") + header + whole[8 + length :]
    return bytes(content)


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_mutated_checkpoint_never_loads_wrongly(count: int, tmp_path: Path) -> None:
    files, states = [], []
    for seed in (0, 1):
        model = network(seed)
        optimizer = Adam(model.parameters())
        model(lamella.tensor(X[:4])).sum().backward()
        optimizer.step()
        save_checkpoint(tmp_path / "a", model=model, optimizer=optimizer, rng=Generator(seed), extra={"epoch": seed})
        files.append((tmp_path / "a").read_bytes())
        states.append({name: array.tobytes() for name, array in model.state_dict().items()})
    rng = np.random.default_rng(count)
    refused = 0
    model = network(2)
    optimizer, generator = Adam(model.parameters()), Generator(2)
    untouched = {name: array.tobytes() for name, array in model.state_dict().items()}
    for i in range(count):
        content = mutated(*files, rng)
        (tmp_path / "m").write_bytes(content)
        try:
            extra = load_checkpoint(tmp_path / "m", model=model, optimizer=optimizer, rng=generator)
        except (ValueError, KeyError):
            refused += 1
            assert {name: array.tobytes() for name, array in model.state_dict().items()} == untouched, i
        else:
            which = int(content == files[1])  # a splice in the first bytes, which are alike, is the other file whole
            assert extra == {"epoch": which}, i
            assert {name: array.tobytes() for name, array in model.state_dict().items()} == states[which], i
            assert generator.state == (which, 0)
            untouched = states[which]
    assert refused > 0.8 * count
