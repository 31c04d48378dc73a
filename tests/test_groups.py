"""Parameter groups: PyTorch 2.13's results, rates that keep their ratios, and what may not be changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella.backend import Device
from lamella.training import SGD, Adam, AdamW

from .test_optimizers import START, gradient, parameter, values

FROZEN = np.load(Path(__file__).parent / "fixtures/training.npz", allow_pickle=False)  # fixtures/make_training.py


def grouped(kind: Any, dtype: Any = "float64", device: Device | str = "cpu", **own: Any) -> Any:
    parameters = [parameter(v, dtype, device) for v in START]
    a, b, c = parameters
    groups = [{"params": [a]}, {"params": [b, c], "lr": 0.02, "weight_decay": 0.5, **own}]
    return kind(groups, lr=0.1), parameters


def go_on(optimizer: Any, parameters: list[L.Parameter], steps: range) -> None:
    for t in steps:
        optimizer.lr = 0.1 if t < 4 else 0.05
        optimizer.zero_grad()
        for i, p in enumerate(parameters):
            if (i, t) not in {(1, 1), (1, 3), (2, 5)}:
                p.grad = gradient(t, i, p)
        optimizer.step()


@pytest.mark.parametrize(("kind", "own"), [(AdamW, {}), (SGD, {"momentum": 0.9})])
def test_groups_end_where_pytorchs_end(kind: Any, own: dict[str, Any], device: Device) -> None:
    optimizer, parameters = grouped(kind, device=device, **own)
    go_on(optimizer, parameters, range(1, 7))
    np.testing.assert_allclose(values(parameters), FROZEN[f"groups {kind.__name__.lower()}"], rtol=1e-12, atol=0)


@pytest.mark.parametrize(("kind", "own"), [(AdamW, {}), (SGD, {"momentum": 0.9})])
def test_a_stored_state_goes_on_bit_for_bit(kind: Any, own: dict[str, Any]) -> None:
    optimizer, whole = grouped(kind, **own)
    optimizer.groups[1]["weight_decay"] = 0.25
    go_on(optimizer, whole, range(1, 4))
    state, half = optimizer.state_dict(), [p.to_numpy().copy() for p in whole]
    go_on(optimizer, whole, range(4, 7))
    resumed, fresh = grouped(kind, **own)
    for p, value in zip(fresh, half, strict=True):
        p.data[...] = value
    resumed.load_state_dict(state)
    assert resumed.groups[1]["weight_decay"] == 0.25
    go_on(resumed, fresh, range(4, 7))
    np.testing.assert_array_equal(values(fresh), values(whole))


def test_rates_keep_their_ratios_and_one_set_by_hand_stays() -> None:
    optimizer, _ = grouped(SGD)
    assert [group["lr"] for group in optimizer.groups] == [0.1, 0.02]
    optimizer.lr = 0.0
    assert [group["lr"] for group in optimizer.groups] == [0.0, 0.0]
    optimizer.lr = 1.0
    assert [group["lr"] for group in optimizer.groups] == [1.0, pytest.approx(0.2)]
    optimizer.groups[1]["lr"] = 0.5
    assert [group["lr"] for group in optimizer.groups] == [1.0, 0.5]
    optimizer.lr = 0.5
    assert [group["lr"] for group in optimizer.groups] == [0.5, 0.25]


def test_ratios_of_rates_are_stored_even_while_all_are_zero() -> None:
    optimizer, _ = grouped(SGD)
    optimizer.groups[1]["lr"] = 0.05
    optimizer.lr = 0.0
    resumed, _ = grouped(SGD)
    resumed.load_state_dict(optimizer.state_dict())
    resumed.lr = 0.4
    assert [group["lr"] for group in resumed.groups] == [0.4, pytest.approx(0.2)]


def test_a_changed_hyperparameter_counts_from_the_next_step() -> None:
    first, second = parameter([1.0]), parameter([1.0])
    optimizer = SGD([{"params": first}, {"params": [second], "lr": 0.25}], lr=0.5)
    optimizer.groups[0]["lr"] = 0.125
    optimizer.groups[1]["weight_decay"] = 2.0
    first.grad = second.grad = np.ones(1, "float32")
    optimizer.step()
    assert (float(first), float(second)) == (0.875, 0.25)


def test_a_frozen_body_stays_and_can_be_freed_later(device: Device) -> None:
    body, head = L.Linear(3, 3).to(device), L.Linear(3, 1).to(device)
    body.requires_grad_(False)
    optimizer = Adam([{"params": body.parameters(), "lr": 1e-4}, {"params": head.parameters()}], lr=1e-2)
    x = lamella.tensor(np.ones((2, 3), "float32"), device=device)
    start = body.weight.to_numpy().copy()
    for frozen in (True, False):
        body.requires_grad_(not frozen)
        optimizer.zero_grad()
        head(body(x)).sum().backward()
        optimizer.step()
        assert (body.weight.to_numpy() == start).all() == frozen
    assert int(optimizer.state_dict()["0.steps"]) == 1
    assert int(optimizer.state_dict()["2.steps"]) == 2


P, Q = parameter([1.0]), parameter([2.0])
ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: Adam([{"params": [P], "momentum": 0.1}]), ValueError, "group 0 may have 'params', lr.*got 'momentum'"),
    (lambda: Adam([{"lr": 0.1}]), ValueError, "group 0 must have 'params', got 'lr'"),
    (lambda: Adam([{"params": []}]), ValueError, r"groups\[0\] must hold at least one Parameter"),
    (lambda: Adam([{"params": [P]}, Q]), TypeError, "all Parameters or all dicts, got Parameter at 1"),
    (lambda: Adam({"params": [P]}), TypeError, r"got one dict: write \[it\]"),
    (lambda: Adam([{"params": [P, Q]}, {"params": [Q]}]), ValueError, "in one group, got one in groups 0 and 1"),
    (lambda: Adam([{"params": [P], "lr": -1.0}]), ValueError, "Adam: lr must not be negative and be finite, got -1.0"),
    (lambda: Adam([{"params": [P], "lr": 1.0}], lr=0.0), ValueError, "lr must be above 0 where a group has its own"),
    (lambda: Adam([P]).groups[0].__setitem__("rate", 1), KeyError, "a parameter group has .*lr.*got 'rate'"),
    (lambda: Adam([P]).groups[0].__setitem__("betas", (1, 0)), ValueError, r"betas\[0\] must not be negative and be"),
    (lambda: Adam([P]).groups[0].__delitem__("lr"), TypeError, "cannot be deleted, got 'lr'"),
    (lambda: SGD([P]).groups[0].__setitem__("momentum", 0.9), ValueError, "need velocity; make a new optimizer"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), ERRORS)
def test_a_wrong_group_is_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_state_of_other_groups_is_refused_whole() -> None:
    optimizer, (a, b, c) = grouped(AdamW)
    other = AdamW([{"params": [a, b]}, {"params": [c]}], lr=0.5)
    with pytest.raises(ValueError, match="group 0 must have 2 parameters, got 1"):
        other.load_state_dict(optimizer.state_dict())
    state = other.state_dict()
    state["groups.1.eps"] = np.array(-1.0)
    with pytest.raises(ValueError, match="eps must not be negative"):
        other.load_state_dict(state)
    assert other.lr == 0.5
