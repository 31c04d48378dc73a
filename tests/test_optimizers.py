"""Optimizers: against PyTorch 2.13's results, the definitions in float64, and what flat arrays could break."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lamella
import lamella.layers as L
import lamella.testing
from lamella.backend import Device, backend_for
from lamella.training import SGD, Adagrad, Adam, AdamW, NormalizedGradientDescent, Optimizer, RMSprop

START = [[0.5, -1.0, 2.0], [0.25], [[1.0, -0.75]]]

# Six steps in float64; the rate is halved from the fourth on; the second parameter has no gradient in steps 1 and 3,
# the third none in step 5. Computed once by PyTorch 2.13.0 with the gradients of `gradient` below.
PYTORCH: dict[str, tuple[Any, dict[str, Any], list[float]]] = {
    "sgd": (SGD, {}, [
        0.48933280858178174, -0.9265722549952957, 2.090013551299698, 0.34794948260087766, 1.0460287633011138,
        -0.7699312950859126,
    ]),
    "sgd decay": (SGD, {"weight_decay": 0.3}, [
        0.430802562258645, -0.8008034219995681, 1.826905085309544, 0.32691177237024255, 0.9249702620970928,
        -0.6894665276815264,
    ]),
    "momentum": (SGD, {"momentum": 0.9}, [
        0.30757207360514854, -0.911562251337803, 2.2879941654507956, 0.38200369990295685, 1.2136894499216642,
        -0.6155866406005576,
    ]),
    "dampening": (SGD, {"momentum": 0.9, "dampening": 0.5, "weight_decay": 0.3}, [
        0.1287552859538945, -0.8092383030275446, 1.7843846108228056, 0.39041755651722193, 1.0015428182723096,
        -0.38717211896511305,
    ]),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.3}, [
        0.16810804370779828, -0.4568386274318367, 1.4864973775874297, 0.3993673108739589, 0.8517008223421625,
        -0.44032204779647843,
    ]),
    "adam": (Adam, {}, [
        0.34850933388152877, -1.0191215035057686, 2.24258811650203, 0.3609472230504482, 1.2185685117878309,
        -0.6099322442977723,
    ]),
    "adam eps": (Adam, {"betas": (0.8, 0.95), "eps": 0.05, "weight_decay": 0.3}, [
        0.32441008595807047, -0.8854286740296234, 1.836344005518035, 0.3374019646017632, 1.085970138083949,
        -0.5733803198162551,
    ]),
    "adam beta 0": (Adam, {"betas": (0.0, 0.9)}, [
        0.5121946344869359, -0.9375553931260441, 2.1540535651866026, 0.3619345982394612, 1.0957225020689598,
        -0.8046304411245795,
    ]),
    "adamw": (AdamW, {"weight_decay": 0.3}, [
        0.29769411589242556, -0.8857645337707556, 1.968724552735139, 0.3383972159098547, 1.0889516442749745,
        -0.5358568538915748,
    ]),
}  # fmt: skip
LATER: dict[str, tuple[Any, dict[str, Any]]] = {
    "rmsprop": (RMSprop, {}),
    "rmsprop momentum": (RMSprop, {"alpha": 0.9, "eps": 0.05, "momentum": 0.8, "weight_decay": 0.3}),
    "rmsprop centered": (RMSprop, {"alpha": 0.8, "eps": 0.05, "centered": True}),
    "rmsprop all": (
        RMSprop, {"alpha": 0.8, "eps": 0.1, "centered": True, "momentum": 0.5, "weight_decay": 0.3},
    ),
    "adagrad": (Adagrad, {}),
    "adagrad decay": (
        Adagrad, {"lr_decay": 0.2, "initial_accumulator_value": 0.5, "eps": 0.01, "weight_decay": 0.3},
    ),
}  # fmt: skip
FROZEN = np.load(Path(__file__).parent / "fixtures/training.npz", allow_pickle=False)  # fixtures/make_training.py
PYTORCH |= {name: (*given, FROZEN[f"optimizer {name}"].tolist()) for name, given in LATER.items()}


def parameter(values: Any, dtype: Any = "float32", device: Device | str = "cpu") -> L.Parameter:
    return L.Parameter(lamella.tensor(np.array(values), dtype=dtype, device=device).data)


def gradient(t: int, i: int, like: L.Parameter) -> Any:
    values = np.array([math.sin(1.7 * t + i + j) for j in range(like.size)]).reshape(like.shape)
    return lamella.tensor(values, dtype=like.dtype, device=like.device).data


def run(kind: Any, options: dict[str, Any], dtype: Any, device: Device | str, steps: range = range(1, 7)) -> Any:
    parameters = [parameter(values, dtype, device) for values in START]
    optimizer = kind(parameters, lr=0.1, **options)
    go_on(optimizer, parameters, steps)
    return optimizer, parameters


def go_on(optimizer: Optimizer, parameters: list[L.Parameter], steps: range) -> None:
    for t in steps:
        optimizer.lr = 0.1 if t < 4 else 0.05
        optimizer.zero_grad()
        for i, p in enumerate(parameters):
            if (i, t) not in {(1, 1), (1, 3), (2, 5)}:
                p.grad = gradient(t, i, p)
        optimizer.step()


def values(parameters: list[L.Parameter]) -> Any:
    return np.concatenate([p.to_numpy().astype("float64").ravel() for p in parameters])


@pytest.mark.parametrize("name", PYTORCH)
def test_six_steps_end_where_pytorch_ends(name: str, device: Device) -> None:
    kind, options, expected = PYTORCH[name]
    _, parameters = run(kind, options, "float64", device)
    np.testing.assert_allclose(values(parameters), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", PYTORCH)
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("float16", 2e-3), (ml_dtypes.bfloat16, 2e-2)])
def test_other_dtypes_come_as_near_as_they_can(name: str, dtype: Any, error: float) -> None:
    kind, options, expected = PYTORCH[name]
    _, parameters = run(kind, options, dtype, "cpu")
    assert all(p.dtype == dtype for p in parameters)
    assert np.abs(values(parameters) - expected).max() <= error


@pytest.mark.parametrize("name", PYTORCH)
def test_a_stored_state_goes_on_bit_for_bit(name: str) -> None:
    kind, options, _ = PYTORCH[name]
    _, whole = run(kind, options, "float32", "cpu")
    optimizer, half = run(kind, options, "float32", "cpu", range(1, 4))
    fresh = [parameter(p.to_numpy()) for p in half]
    other = {"momentum": 0.4, "centered": True}  # what decides which state is kept; the rest comes from the file
    resumed = kind(fresh, lr=7.0, **{key: value for key, value in other.items() if key in options})
    resumed.load_state_dict(optimizer.state_dict())
    go_on(resumed, fresh, range(4, 7))
    np.testing.assert_array_equal(values(fresh), values(whole))


def test_float16_state_goes_on_bit_for_bit() -> None:
    _, whole = run(Adam, {}, "float16", "cpu")
    optimizer, half = run(Adam, {}, "float16", "cpu", range(1, 4))
    fresh = [parameter(p.to_numpy(), "float16") for p in half]
    resumed = Adam(fresh)
    resumed.load_state_dict(optimizer.state_dict())
    go_on(resumed, fresh, range(4, 7))
    np.testing.assert_array_equal(values(fresh), values(whole))


def test_small_float16_steps_add_up() -> None:
    p = parameter([1.0], "float16")
    optimizer = SGD([p], lr=1e-4)  # half a float16 spacing is 2.4e-4 there: rounded after each step, nothing would move
    for _ in range(100):
        p.grad = gradient(1, 0, p) * 0 + 1
        optimizer.step()
    assert abs(float(p) - 0.99) <= 5e-4


def test_a_float16_value_written_by_hand_is_kept() -> None:
    p = parameter([1.0, 2.0], "float16")
    optimizer = SGD([p], lr=0.5)
    p.data[0] = 8.0
    p.grad = p.data * 0 + 1
    optimizer.step()
    np.testing.assert_array_equal(p.data, [7.5, 1.5])


def test_chunks_and_threads_change_no_bit() -> None:
    size = 600_001
    start, g = np.sin(np.arange(size, dtype="float32")), np.cos(np.arange(size, dtype="float32"))
    whole, pieces = parameter(start), [parameter(part) for part in np.array_split(start, 40)]
    many = Adam([whole], weight_decay=0.1)
    few = [Adam([piece], weight_decay=0.1) for piece in pieces]
    for _ in range(2):
        whole.grad = g
        many.step()
        for piece, part, optimizer in zip(pieces, np.array_split(g, 40), few, strict=True):
            piece.grad = part
            optimizer.step()
    assert many._flats[0].in_chunks
    assert not few[0]._flats[0].in_chunks
    np.testing.assert_array_equal(whole.data, np.concatenate([piece.data for piece in pieces]))


def test_backward_writes_into_the_flat_gradient(device: Device) -> None:
    model = L.Sequential(L.Linear(3, 4), L.ReLU(), L.Linear(4, 1)).to(device)
    optimizer = SGD(model.parameters(), lr=0.1)
    x = lamella.tensor(np.ones((5, 3), "float32"), device=device)
    before = values(list(model.parameters()))
    for _ in range(2):
        optimizer.zero_grad()
        assert all(p.grad is None for p in model.parameters())
        model(x).sum().backward()
        assert all(p.grad is p._grad_buffer for p in model.parameters())
    gradients = np.concatenate([backend_for(device).to_numpy(p.grad).ravel() for p in model.parameters()])
    assert np.abs(gradients).max() > 0
    optimizer.step()
    np.testing.assert_allclose(values(list(model.parameters())), before - 0.1 * gradients, rtol=1e-6, atol=1e-7)


def test_gradients_add_up_until_they_are_forgotten() -> None:
    p = parameter([1.0, 2.0])
    SGD([p], lr=0.1)
    for _ in range(3):
        (p * 2.0).sum().backward()
    np.testing.assert_array_equal(p.grad, [6.0, 6.0])


def test_a_step_between_forward_and_backward_is_noticed() -> None:
    p = parameter([1.0, 2.0])
    optimizer = SGD([p], lr=0.1)
    (p * p).sum().backward()
    late = (p * p).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        late.backward()


def test_a_replaced_value_is_taken_in() -> None:
    p = parameter([1.0, 2.0])
    optimizer = SGD([p], lr=0.5)
    for start in (10.0, 30.0):
        optimizer.zero_grad()
        (p * 2.0).sum().backward()
        p.data = np.array([start, start + 1.0], "float32")
        optimizer.step()
        np.testing.assert_array_equal(p.data, [start - 1.0, start])
        assert p.data.base is not None


def test_two_optimizers_may_share_a_parameter() -> None:
    p = parameter([1.0])
    first, second = SGD([p], lr=1.0), SGD([p], lr=0.25)
    for optimizer, expected in [(first, 0.0), (second, -0.25), (first, -1.25)]:
        optimizer.zero_grad()
        p.sum().backward()
        optimizer.step()
        assert float(p) == expected


def test_a_parameter_given_twice_is_updated_once() -> None:
    p = parameter([1.0])
    optimizer = SGD([p, p], lr=0.5)
    p.grad = np.ones(1, "float32")
    optimizer.step()
    assert float(p) == 0.5
    assert len(optimizer.parameters) == 1


def test_parameters_of_two_dtypes_are_updated() -> None:
    parameters = [parameter([1.0]), parameter([1.0], "float64"), parameter([2.0])]
    optimizer = SGD(parameters, lr=0.5)
    for p in parameters:
        p.grad = np.ones(1, p.dtype)
    optimizer.step()
    assert [float(p) for p in parameters] == [0.5, 0.5, 1.5]
    assert parameters[1].dtype == "float64"


def test_each_parameter_starts_on_a_cache_line() -> None:
    parameters = [parameter(np.ones(n), dtype) for n in (1, 3, 17) for dtype in ("float16", "float32", "float64")]
    Adam(parameters)
    assert all(p.data.ctypes.data % 16 == 0 for p in parameters)
    starts = [p.data.ctypes.data for p in parameters if p.dtype == "float32"]
    assert all((start - starts[0]) % 64 == 0 for start in starts)


@pytest.mark.parametrize("name", [*PYTORCH, "normalized"])
def test_a_step_waits_for_nothing(name: str) -> None:
    kind, options = (NormalizedGradientDescent, {}) if name == "normalized" else PYTORCH[name][:2]
    with lamella.testing.simulator() as sim:
        optimizer, _ = run(kind, options, "float32", "simulator", range(1, 3))
        sim.reset()
        optimizer.step()
        assert sim.synchronizations == 0


def test_a_step_costs_the_same_number_of_operations_for_any_number_of_parameters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    updates: list[int] = []
    update = Adam._update
    monkeypatch.setattr(Adam, "_update", lambda *args: (updates.append(args[2].size), update(*args))[1])
    parameters = [parameter([1.0, 2.0]) for _ in range(20)]
    optimizer = Adam(parameters)
    for p in parameters:
        p.grad = p.data * 0
    optimizer.step()
    assert len(updates) == 1
    parameters[7].grad = None
    optimizer.step()
    assert len(updates) == 3  # what lies before it, and behind it


def test_no_gradient_means_no_change() -> None:
    p = parameter([1.0])
    optimizer = Adam([p], weight_decay=0.5)
    optimizer.step()
    assert float(p) == 1.0
    assert int(optimizer.state_dict()["0.steps"]) == 0


def test_rate_zero_moves_nothing_and_counts() -> None:
    p = parameter([1.0, 2.0])
    optimizer = Adam([p], lr=0.0)
    p.grad = np.array([0.0, 3.0], "float32")
    optimizer.step()
    np.testing.assert_array_equal(p.data, [1.0, 2.0])
    assert int(optimizer.state_dict()["0.steps"]) == 1


@pytest.mark.parametrize("length", [1e-15, 1e-4, 3.0, 1e15])
def test_a_normalised_step_has_the_length_of_the_rate(length: float, device: Device) -> None:
    parameters = [parameter(values, device=device) for values in ([0.5, -1.0], [[2.0]])]
    optimizer = NormalizedGradientDescent(parameters, lr=0.25)
    for p, g in zip(parameters, ([2.0, -1.0], [[-2.0]]), strict=True):
        p.grad = parameter(g, device=device).data * length
    optimizer.step()
    np.testing.assert_allclose(values(parameters), [0.5 - 0.5 / 3, -1 + 0.25 / 3, 2 + 0.5 / 3], rtol=1e-6)


def test_a_normalised_step_stays_where_the_gradient_is_zero_and_shows_nan() -> None:
    p = parameter([1.0, 2.0])
    optimizer = NormalizedGradientDescent([p], lr=0.25)
    for g, expected in [([0.0, 0.0], [1.0, 2.0]), ([math.nan, 1.0], [math.nan, math.nan])]:
        p.grad = np.array(g, "float32")
        optimizer.step()
        np.testing.assert_array_equal(p.data, expected)


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda: SGD([]), ValueError, "parameters must hold at least one Parameter, got none"),
    (lambda: SGD([lamella.tensor([1.0])]), TypeError, r"parameters\[0\] must be a Parameter, got Tensor"),
    (lambda: Adam(parameter([1.0])), TypeError, r"got one Parameter: write \[it\]"),
    (lambda: SGD([parameter([1.0])], lr=-0.1), ValueError, "SGD: lr must not be negative and be finite, got -0.1"),
    (lambda: SGD([parameter([1.0])], lr=math.nan), ValueError, "SGD: lr must be a number, got nan"),
    (lambda: SGD([parameter([1.0])], lr="1"), TypeError, "SGD: lr must be a number, got '1'"),
    (lambda: SGD([parameter([1.0])], momentum=-1), ValueError, "momentum must not be negative"),
    (lambda: SGD([parameter([1.0])], nesterov=True), ValueError, "nesterov needs momentum above 0"),
    (lambda: Adam([parameter([1.0])], betas=(0.9, 1.0)), ValueError, r"betas\[1\] must not be negative and be below 1"),
    (lambda: Adam([parameter([1.0])], betas=0.9), TypeError, "betas must be a pair of numbers, got 0.9"),
    (lambda: AdamW([parameter([1.0])], eps=-1.0), ValueError, "AdamW: eps must not be negative"),
    (lambda: RMSprop([parameter([1.0])], alpha=1.0), ValueError, "RMSprop: alpha must not be negative and be below 1"),
    (lambda: Adagrad([parameter([1.0])], lr_decay=-1), ValueError, "Adagrad: lr_decay must not be negative"),
    (lambda: AdamW([parameter([1.0])], weight_decay=math.inf), ValueError, "weight_decay .* be finite, got inf"),
]


@pytest.mark.parametrize(("make", "error", "message"), ERRORS)
def test_a_wrong_argument_is_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("replace", [lambda p: p.data.astype("float64"), lambda p: p.data.reshape(2, 1)])
def test_a_parameter_that_changed_its_kind_says_what_to_do(replace: Any) -> None:
    p = parameter([1.0, 2.0])
    optimizer = SGD([p], lr=0.1)
    p.data = replace(p)
    with pytest.raises(ValueError, match=r"parameter 0: data must stay float32 of shape \(2,\) on cpu.*new optimizer"):
        optimizer.step()


def test_a_state_of_another_model_is_refused_whole() -> None:
    stored = Adam([parameter([1.0, 2.0])], lr=0.25).state_dict()
    one, two = Adam([parameter([1.0])]), Adam([parameter([1.0, 2.0]), parameter([1.0])])
    with pytest.raises(ValueError, match=r"0.gradient_sum must have shape \(1,\), got \(2,\)"):
        one.load_state_dict(stored)
    with pytest.raises(KeyError, match=r"missing \['1.steps', '1.gradient_sum', '1.square_sum'\], unexpected nothing"):
        two.load_state_dict(stored)
    assert one.lr == two.lr == 1e-3


IMPOSSIBLE: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "steps below 0": ("0.steps", np.array(-1), ValueError, r"0\.steps must not be negative, got -1"),
    "part of a step": ("0.steps", np.array(2.7), TypeError, r"0\.steps must be an integer, got float64"),
    "steps true": ("0.steps", np.array(True), TypeError, r"0\.steps must be an integer, got bool"),
    "complex": ("0.gradient_sum", np.ones(3, complex), TypeError, r"0\.gradient_sum must be floating, got complex128"),
    "integers": ("1.square_sum", np.ones(2, "int64"), TypeError, r"1\.square_sum must be floating, got int64"),
    "NaN sum": ("0.gradient_sum", np.array([0, np.nan, 0]), ValueError, r"0\.gradient_sum must not be NaN"),
    "NaN squares": ("1.square_sum", np.array([np.nan, 0]), ValueError, r"1\.square_sum must not be NaN"),
    "bfloat16 NaN": ("1.square_sum", np.array([np.nan, 0], ml_dtypes.bfloat16), ValueError, "1.square_sum must not be"),
    "squares below 0": ("1.square_sum", np.array([0.0, -1]), ValueError, r"1\.square_sum must not be negative, got -1"),
    "NaN share": ("groups.0.share", np.array(np.nan), ValueError, r"groups\.0\.share must not be NaN"),
    "endless share": ("groups.0.share", np.array(np.inf), ValueError, r"groups\.0\.share must be finite, got inf"),
    "share below 0": ("groups.0.share", np.array(-1.0), ValueError, r"groups\.0\.share must not be negative, got -1"),
    "complex rate": ("lr", np.array(1j), TypeError, "lr must be floating, got complex128"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_a_state_that_no_optimizer_can_have_stored_changes_nothing(case: str) -> None:
    name, value, error, message = IMPOSSIBLE[case]
    optimizer = Adam([parameter([1.0, 2, 3], "float32"), parameter([4.0, 5], "float32")])
    before = optimizer.state_dict()
    for look in (optimizer.check_state_dict, optimizer.load_state_dict):
        with pytest.raises(error, match=f"Adam.load_state_dict: {message}"):
            look({**before, "lr": np.array(0.5), name: value})
    after = optimizer.state_dict()
    assert all(after[key].tobytes() == before[key].tobytes() for key in before)


def test_state_of_another_float_and_infinite_sums_are_taken() -> None:
    optimizer = Adam([parameter([1.0, 2], "float32")])
    state = {**optimizer.state_dict(), "0.steps": np.array(3, "int32"), "0.square_sum": np.array([1.0, np.inf])}
    optimizer.load_state_dict(state)
    assert optimizer.state_dict()["0.steps"] == 3
    np.testing.assert_array_equal(optimizer.state_dict()["0.square_sum"], np.array([1, np.inf], "float32"))
