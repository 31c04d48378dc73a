"""Bad input: whatever is given in place of what is asked for, the error says what was wrong, and nothing is lost."""

from __future__ import annotations

import copy
import math
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella as lm
import lamella.layers as L
from lamella import Generator, autograd, layers, models, training
from lamella.training import (
    SGD,
    Adam,
    EarlyStopping,
    History,
    KFold,
    ReduceOnPlateau,
    accuracy,
    batches,
    calibration,
    clip_grad_norm,
    confusion_matrix,
    cross_validate,
    evaluate,
    fit,
    format_confusion_matrix,
    load,
    load_checkpoint,
    precision_score,
    r2_score,
    save,
    save_checkpoint,
    split,
    top_k_accuracy,
    train_validation_test_split,
)

X = Generator(7).normal((12, 2))
Y = (X[:, 0] > 0).astype("int64")
T = lm.tensor([[1.26, 2.0], [3.0, 4.0]])


# -- every public name, given what it cannot take -----------------------------------------------------------------
NOT_FUNCTIONS_OF_VALUES = {"no_grad", "enable_grad", "op", "digits"}
PUBLIC = {
    f"{room.__name__.rpartition('.')[2]}.{name}": getattr(room, name)
    for room in (training, layers, models, autograd)
    for name in room.__all__
    if callable(getattr(room, name)) and name not in NOT_FUNCTIONS_OF_VALUES
}
STRANGE: dict[str, Any] = {
    "None": None,
    "text": "a",
    "an empty list": [],
    "an object": object(),
    "a negative number": -1,
    "a fraction": 1.5,
    "NaN": math.nan,
    "a complex array": np.zeros((2, 3, 1), "complex64"),
    "a 0-d array": np.zeros((), "float32"),
    "an array of text": np.array(["x", "y"]),
    "an empty dict": {},
}
SAID = (TypeError, ValueError, KeyError, IndexError, OSError)


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.filterwarnings("ignore")  # NumPy's, of an empty mean
def test_what_is_refused_is_refused_in_words(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for what, value in STRANGE.items():
        for count in (1, 2, 3):
            error: Exception | None = None
            try:
                PUBLIC[name](*[value] * count)
            except SAID as refusal:
                error = refusal
            assert error is None or str(error), (what, count)
            if "UFunc" in type(error).__name__:  # NumPy's own; under it stands which operation it was, and on what
                assert getattr(error, "__notes__", None), (what, count)


MODULES = {name: found for name, found in PUBLIC.items() if isinstance(found, type) and name.startswith("layers.")}
NUMBERS = {"alpha", "beta", "delta", "eps", "init", "label_smoothing", "lambd", "margin", "max_val", "min_val",
           "negative_slope", "p", "std", "threshold"}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, argument)
        for name, module in MODULES.items()
        for argument in getattr(module.__init__, "__code__", types.SimpleNamespace(co_varnames=())).co_varnames
        if argument in NUMBERS
    ],
)
def test_a_number_of_a_layer_is_checked_when_the_layer_is_made(name: str, argument: str) -> None:
    module = MODULES[name]
    code, defaults = module.__init__.__code__, module.__init__.__defaults__ or ()
    needed = code.co_varnames[1 : code.co_argcount - len(defaults)]
    for value in (math.nan, "a", []):
        with pytest.raises((TypeError, ValueError), match=f"{module.__name__}.*{argument}"):
            module(**{**dict.fromkeys(needed, 2), argument: value})


# -- errors by their words ----------------------------------------------------------------------------------------
def linear() -> Any:
    return L.Linear(2, 2, rng=Generator(0))



CALLS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "batches rng": (lambda: batches(X, batch_size=2, rng=0), TypeError, r"batches: rng must be .*got 0; Generator"),
    "split rng": (lambda: split(X, fractions=(0.5, 0.5), rng=0), TypeError, "split: rng must be"),
    "split fractions": (lambda: split(X, fractions=0.5, rng=None), TypeError, "fractions must be the share.*got 0.5"),
    "split text": (lambda: split(X, fractions=("a", 1), rng=None), TypeError, "each of fractions .*number, got 'a'"),
    "three parts": (
        lambda: train_validation_test_split(X, test="a", rng=None), TypeError, "test must be a number, got 'a'",
    ),
    "folds rng": (lambda: KFold(3, 0), TypeError, "KFold: rng must be a lamella.Generator"),
    "folds of a number": (lambda: next(KFold(3).split(3)), TypeError, "KFold.split: x must have a length, got int"),
    "a model": (
        lambda: Adam(linear()), TypeError,
        r"Adam: parameters must be an iterable of Parameters, got Linear; pass model.parameters\(\)",
    ),
    "a model in a group": (
        lambda: SGD([{"params": linear()}]), TypeError, r"'params' of group 0 .*got Linear; pass model.parameters\(\)",
    ),
    "no parameters": (lambda: Adam(None), TypeError, "got NoneType"),
    "clip": (lambda: clip_grad_norm(linear(), 1.0), TypeError, r"got Linear; pass model.parameters\(\)"),
    "lr": (lambda: Adam(linear().parameters(), lr=np.ones(2)), TypeError, "Adam: lr must be a number, got array"),
    "patience": (lambda: EarlyStopping("a"), TypeError, "EarlyStopping: patience must be an integer, got 'a'"),
    "monitor": (lambda: EarlyStopping(monitor=3), TypeError, "monitor must be the name of a figure.*got 3"),
    "plateau": (lambda: ReduceOnPlateau("a"), TypeError, "ReduceOnPlateau: factor must be a number, got 'a'"),
    "constant": (lambda: training.constant("a"), TypeError, "constant: lr must be a number, got 'a'"),
    "decay_by_step": (lambda: training.decay_by_step(1, 2, None), TypeError, "factor must be a number, got None"),
    "decay_at_steps": (lambda: training.decay_at_steps(1, 3), TypeError, "milestones must be a list of steps, got 3"),
    "milestone": (lambda: training.decay_at_steps(1, ["a"]), TypeError, "a milestone must be an integer, got 'a'"),
    "exponential": (lambda: training.exponential(1, math.nan), ValueError, "factor must be a number, got nan"),
    "polynomial": (lambda: training.polynomial(1, 3, "a"), TypeError, "power must be a number, got 'a'"),
    "cosine": (lambda: training.cosine(1, "a"), TypeError, "cosine: steps must be an integer, got 'a'"),
    "cosine warmup": (lambda: training.cosine(1, 5, 0.5), TypeError, "cosine: warmup must be an integer, got 0.5"),
    "cosine_restarts": (lambda: training.cosine_restarts(1, 5, 1, "a"), TypeError, "final must be a number, got 'a'"),
    "warm_up": (lambda: training.warm_up(0.1, 5), TypeError, r"schedule must be a function .*got 0.1; constant\(lr\)"),
    "one_cycle": (lambda: training.one_cycle(1, 9, "a"), TypeError, "one_cycle: rise must be a number, got 'a'"),
    "one_cycle factor": (lambda: training.one_cycle(1, 9, div_factor=0), ValueError, "must be above 0, got 0 and"),
    "module state": (lambda: linear().load_state_dict(None), TypeError, "state must be a mapping.*got NoneType"),
    "module list": (lambda: linear().load_state_dict([1]), TypeError, "state must be a mapping.*got list"),
    "optimizer state": (
        lambda: SGD(linear().parameters()).load_state_dict(None), TypeError, "state must be a mapping.*got NoneType",
    ),
    "optimizer list": (lambda: SGD(linear().parameters()).load_state_dict([]), TypeError, "mapping.*got list"),
    "deepcopy": (
        lambda: copy.deepcopy(SGD(linear().parameters())), TypeError, r"SGD: .*copied.*load_state_dict\(optimizer.",
    ),
    "huge label": (
        lambda: confusion_matrix(np.array([0]), np.array([10**7])), ValueError, "at most 20000, got 10000001; number",
    ),
    "huge num_classes": (
        lambda: confusion_matrix(Y, Y, 10**6), ValueError, "num_classes must be at most 20000, got 1000000",
    ),
    "label beyond": (lambda: confusion_matrix(np.array([0]), np.array([9]), 3), ValueError, r"in 0 … 2, got 9"),
    "num_classes": (lambda: confusion_matrix(Y, Y, "a"), TypeError, "num_classes must be an integer, got 'a'"),
    "matrix of text": (lambda: format_confusion_matrix("ab"), ValueError, r"shape \(K, K\), got str"),
    "figure": (
        lambda: History([{"loss": 1.0}])["validation_loss"], KeyError, "epoch 1 has the figures loss, got 'valid",
    ),
    "last of none": (lambda: History().last, IndexError, "at least one epoch, got none"),
    "predicted": (lambda: accuracy([1], Y), TypeError, "accuracy: predicted must be an array or a tensor"),
    "labels": (lambda: accuracy(Y, [1]), TypeError, "accuracy: labels must be an array or a tensor"),
    "k": (lambda: top_k_accuracy(X, Y, "a"), TypeError, "top_k_accuracy: k must be an integer, got 'a'"),
    "bins": (lambda: calibration(X, Y, 0.5), TypeError, "calibration: bins must be an integer, got 0.5"),
    "zero_division": (lambda: precision_score(Y, Y, "macro", X), ValueError, "zero_division must be 0 or 1"),
    "r2": (lambda: r2_score(X, None), TypeError, "r2_score: targets must be an array or a tensor"),
    "folds of nothing": (
        lambda: cross_validate(linear, None, loss=L.cross_entropy, optimizer=Adam, epochs=1), TypeError,
        r"data must be a pair \(x, y\) .*got NoneType",
    ),
    "sum of a list": (lambda: lm.sum([1.0, 2.0]), TypeError, "sum: x must be a tensor.*got a list"),
    "sum of None": (lambda: lm.sum(None), TypeError, "sum: x must be a tensor or an array, got None"),
    "matmul": (lambda: lm.matmul([[1.0]], T), TypeError, "matmul: x must be a tensor.*got a list"),
    "einsum": (lambda: lm.einsum("ij,jk->ik", [[1.0]], T), TypeError, "einsum: operand 1 .*got a list"),
    "einsum letters": (lambda: lm.einsum(T, T), TypeError, "einsum: subscripts must be text"),
    "labels in a list": (lambda: L.cross_entropy(T, [0, 1]), TypeError, "cross_entropy: labels .*got a list"),
    "labels by name": (lambda: L.cross_entropy(T, labels=[0, 1]), TypeError, "cross_entropy: labels .*got a list"),
    "swapaxes": (lambda: lm.swapaxes([[1.0]], 0, 1), TypeError, "swapaxes: x must be a tensor.*got a list"),
    "stack": (lambda: lm.stack([[1.0], [2.0]]), TypeError, r"stack: tensors\[0\] must be a tensor.*got a list"),
    "two names": (lambda: lm.var(T, correction=1, ddof=1), TypeError, "var: ddof is another name of correction"),
    "round": (lambda: lm.round(T, "a"), TypeError, "integer"),
    "shape": (lambda: lm.zeros("ab"), TypeError, "shape must be an integer or a tuple of integers, got 'ab'"),
    "dropout": (lambda: L.dropout([1.0]), TypeError, "dropout: x must be a tensor or an array, got a list"),
    "flatten": (lambda: L.flatten([1.0]), TypeError, "flatten: x must be a tensor or an array, got a list"),
    "mlp": (lambda: models.mlp(2, 2, activation=None), TypeError, "mlp: activation must make a module.*got None"),
    "mlp dropout": (lambda: models.mlp(2, 2, dropout="a"), TypeError, "mlp: dropout must be a number in .*got 'a'"),
    "k of folds": (
        lambda: cross_validate(linear, (X, Y), "a", loss=L.cross_entropy, optimizer=Adam, epochs=1), TypeError,
        "KFold: k must be an integer, got 'a'",
    ),
    "modules": (lambda: L.ModuleDict([1]), TypeError, "modules must be a mapping of names to modules"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_the_error_names_argument_rule_and_value(name: str) -> None:
    call, error, message = CALLS[name]
    with pytest.raises(error, match=message):
        call()


# -- fit ----------------------------------------------------------------------------------------------------------
FITS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a function": ({"model": lambda x: x}, TypeError, "model must be a Module, got <lambda>"),
    "no optimizer": ({"optimizer": Adam}, TypeError, "optimizer must be an Optimizer, such as Adam"),
    "loss": ({"loss": None}, TypeError, "loss must be a function"),
    "loss gives a float": ({"loss": lambda z, y: 1.0}, TypeError, "must return a tensor of one element, got float"),
    "loss gives many": ({"loss": lambda z, y: z}, ValueError, r"a tensor of one element, got shape \(4, 2\)"),
    "seed": ({"rng": 0}, TypeError, r"fit: rng must be .*got 0; Generator\(seed\)"),
    "epochs": ({"epochs": 1.5}, TypeError, "fit: epochs must be an integer, got 1.5"),
    "batch_size": ({"batch_size": "a"}, TypeError, "fit: batch_size must be an integer, got 'a'"),
    "every": ({"every": 0.5}, TypeError, "fit: every must be an integer, got 0.5"),
    "schedule": ({"schedule": 0.1}, TypeError, "schedule must be a function of the step, got 0.1"),
    "callbacks": ({"callbacks": EarlyStopping()}, TypeError, "callbacks must be a list"),
    "callback": ({"callbacks": [3]}, TypeError, r"callbacks must be a list .*got \[3\]"),
    "metrics": ({"metrics": accuracy}, TypeError, "metrics must be a dict of functions by name"),
    "clip_norm": ({"clip_norm": "a"}, TypeError, "fit: clip_norm must be a number, got 'a'"),
    "history": ({"history": []}, TypeError, r"history must be a History to append to, got \[\]"),
    "path": ({"checkpoint": 3}, TypeError, "fit: checkpoint must be text or a path, got int"),
    "folder": ({"checkpoint": "no/x"}, FileNotFoundError, "fit: the folder of checkpoint must exist.*no/x"),
    "resume": ({"resume": True}, ValueError, "resume needs a checkpoint"),
    "another model's": (
        {"optimizer": SGD(linear().parameters(), 1.0)}, ValueError, "optimizer must hold parameters of model",
    ),
    "lists": ({"validation": (X.tolist(), Y.tolist())}, TypeError, "validation must be a pair .*list, list; lamella.t"),
    "text": ({"validation": "ab"}, TypeError, "validation must be a pair .*got str"),
    "a batch": ({"validation": [(X, Y, Y)]}, TypeError, "each batch must be a pair"),
    "lengths": ({"validation": (X, Y[:3])}, ValueError, r"same number of examples, got \[12, 3\]"),
    "target shape": ({"validation": (X, X[:, :1])}, ValueError, r"labels \(N, ...\), .*got \(4, 2\) and \(4, 1\)"),
    "input shape": ({"validation": (X[:, :1], Y)}, ValueError, "in module Linear"),
    "metric": ({"validation": (X, Y), "metrics": {"m": lambda z, y: z}}, ValueError, "m must be one number, got shape"),
}  # fmt: skip


@pytest.mark.parametrize("name", FITS)
def test_fit_refuses_before_a_weight_has_changed(name: str) -> None:
    options, error, message = FITS[name]
    model = linear()
    before = model.state_dict()
    given = {"model": model, "data": (X, Y), "loss": L.cross_entropy, "optimizer": SGD(model.parameters(), 1.0)}
    given |= {"epochs": 1, "batch_size": 4, "progress": False, "rng": Generator(0), **options}
    model, data = given.pop("model"), given.pop("data")
    with pytest.raises(error, match=message):
        fit(model, data, **given)
    if isinstance(model, L.Module):
        assert all(np.array_equal(array, before[key]) for key, array in model.state_dict().items())


def test_evaluate_and_a_refused_fit_put_each_mode_back() -> None:
    model = L.Sequential(linear(), L.Dropout(0.5), linear()).train()
    model[1].eval()
    evaluate(model, (X, Y), loss=L.cross_entropy)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    with pytest.raises(ZeroDivisionError):
        evaluate(model, (X, Y), loss=lambda z, y: 1 / 0)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    model.eval()
    model[1].train()
    evaluate(model, (X, Y), loss=L.cross_entropy)
    assert [module.training for module in model.modules()] == [False, False, True, False]


def test_accuracy_of_one_label_per_place_and_none_where_targets_are_no_classes() -> None:
    scores = np.zeros((2, 3, 4, 5), "float32")
    scores[:, 1] = 1.0
    labels = np.ones((2, 4, 5), "int64")
    labels[0, 0, 0] = 2
    assert accuracy(scores, labels) == 39 / 40
    assert top_k_accuracy(scores, labels, 3) == 1.0
    assert confusion_matrix(scores, labels).sum() == 40

    places = L.Sequential(L.Linear(2, 6, rng=Generator(0)), L.Unflatten(1, (2, 3)))
    found = evaluate(places, (X, np.zeros((12, 3), "int64")), loss=L.cross_entropy)
    assert set(found) == {"loss", "accuracy"}
    count = evaluate(linear(), (X, np.zeros((12, 2), "int64")), loss=lambda z, y: L.mse_loss(z, y.astype("float32")))
    assert set(count) == {"loss"}


# -- files --------------------------------------------------------------------------------------------------------
def test_save_says_what_it_wants_and_names_the_path_that_was_given(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state must be a mapping.*got Linear; pass model.state_dict\(\)"):
        save(tmp_path / "x", linear())
    with pytest.raises(TypeError, match="metadata must map text to text, got list"):
        save(tmp_path / "x", {}, ["a"])
    with pytest.raises(TypeError, match="save: path must be text or a path, got NoneType"):
        save(None, {})
    with pytest.raises(FileNotFoundError, match=r"the folder of path must exist.*no/x'") as missing:
        save(tmp_path / "no/x", {})
    assert ".part" not in str(missing.value)
    with pytest.raises(IsADirectoryError, match="path must be a file, got a folder"):
        save(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="gone"):
        load(tmp_path / "gone")
    with pytest.raises(TypeError, match="load: path must be text or a path, got int"):
        load(0)
    for options in ({"model": 3}, {"optimizer": linear()}, {"rng": 0}, {"extra": [1]}):
        with pytest.raises(TypeError, match=f"save_checkpoint: {next(iter(options))} must be"):
            save_checkpoint(tmp_path / "x", **options)
    with pytest.raises(TypeError, match="load_checkpoint: model must be of class Module"):
        load_checkpoint(tmp_path / "x", model=3)
    assert list(tmp_path.iterdir()) == []


def test_any_legal_name_and_numpys_scalars_can_be_saved(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 240)
    save(path, {"a": np.float32(1.5), "b": np.int64(3), "c": np.float64(0.1)})
    found = load(path)
    assert {name: (array.shape, array.dtype.name, array.item()) for name, array in found.items()} == {
        "a": ((), "float32", 1.5), "b": ((), "int64", 3), "c": ((), "float64", 0.1),
    }  # fmt: skip


def test_load_holds_a_file_once(tmp_path: Path) -> None:
    state = {str(i): np.full(1 << 18, i, "float32") for i in range(8)}
    save(tmp_path / "x", state)
    size = sum(array.nbytes for array in state.values())
    tracemalloc.start()
    try:
        found = load(tmp_path / "x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert all(np.array_equal(found[name], state[name]) for name in state)
    assert peak <= 1.2 * size


# -- NumPy's manners ----------------------------------------------------------------------------------------------
def test_rounding_axes_and_ddof_are_numpys() -> None:
    host = T.to_numpy()
    for mine in (np.round(T, 1), np.around(T, 1), T.round(1), lm.round(T, decimals=1)):
        np.testing.assert_array_equal(mine.to_numpy(), np.round(host, 1))
    np.testing.assert_array_equal(T.round().to_numpy(), np.round(host))
    np.testing.assert_array_equal(lm.sum(T, axis=[0, 1]).to_numpy(), host.sum(axis=(0, 1)))
    np.testing.assert_allclose(np.var(T, ddof=1).to_numpy(), np.var(host, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(T.std(axis=0, ddof=1).to_numpy(), np.std(host, axis=0, ddof=1), rtol=1e-6)
    np.testing.assert_allclose(lm.var(T, correction=1).to_numpy(), np.var(host, ddof=1), rtol=1e-6)


def test_an_empty_confusion_matrix_has_a_text() -> None:
    assert "predicted" in format_confusion_matrix(np.zeros((0, 0), "int64"))
