"""Estimators keep scikit-learn's rules, by its own checks, and learn what its own networks learn."""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_digits, make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.backend import Device
from lamella.interop.sklearn import Autoencoder, BernoulliRBM, LamellaClassifier, LamellaRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = [LamellaClassifier(), LamellaRegressor(), Autoencoder(), BernoulliRBM(n_components=16)]
QUICK = {
    "check_estimators_pickle",
    "check_estimators_dtypes",
    "check_dict_unchanged",
    "check_estimator_sparse_array",
    "check_methods_sample_order_invariance",
    "check_n_features_in_after_fitting",
    "check_parameters_default_constructible",
    "check_sample_weight_equivalence_on_dense_data",
    "check_transformer_preserve_dtypes",
}


def check_name(check: Any) -> str:
    return getattr(check, "func", check).__name__


def quick_checks() -> list[Any]:
    found = []
    for estimator in ESTIMATORS:
        for own, check in estimator_checks_generator(estimator, legacy=True):
            if check_name(check) in QUICK:
                found.append(pytest.param(own, check, id=f"{type(own).__name__}-{check_name(check)}"))
    return found


@pytest.mark.parametrize(("estimator", "check"), quick_checks())
def test_an_estimator_keeps_some_of_scikit_learn_s_rules(estimator: Any, check: Any) -> None:
    check(estimator)


def test_the_quick_checks_are_checks_that_there_are() -> None:
    there = {check_name(check) for estimator in ESTIMATORS for _, check in estimator_checks_generator(estimator)}
    assert there >= QUICK
    assert len(there) > 50


@pytest.mark.slow
@parametrize_with_checks(ESTIMATORS)
def test_an_estimator_keeps_all_of_scikit_learn_s_rules(estimator: Any, check: Any) -> None:
    check(estimator)


# -- classifiers ----------------------------------------------------------------------------------------------------
def blobs(classes: int = 3, examples: int = 120) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_classification(
        examples, 6, n_informative=5, n_redundant=0, n_classes=classes, class_sep=2.0, random_state=0
    )
    return x, y


def quick(**options: Any) -> LamellaClassifier:
    return LamellaClassifier(**{"hidden_layer_sizes": 16, "max_iter": 30, "random_state": 0, **options})


def test_a_classifier_reads_digits_as_well_as_scikit_learn_s() -> None:
    x, y = load_digits(return_X_y=True)
    x, test = x / 16, np.arange(len(y)) % 5 == 0
    options: dict[str, Any] = {
        "hidden_layer_sizes": (64,),
        "max_iter": 25,
        "learning_rate_init": 3e-3,
        "random_state": 0,
    }
    scores = []
    for kind in (LamellaClassifier, sklearn.neural_network.MLPClassifier):
        scores.append(kind(**options).fit(x[~test], y[~test]).score(x[test], y[test]))
    assert scores[0] > 0.95
    assert scores[0] > scores[1] - 0.015


def test_probabilities_are_the_softmax_of_what_the_module_gives() -> None:
    x, y = blobs()
    names = np.array(["ant", "bee", "cow"])
    model = quick(learning_rate_init=3e-2).fit(x, names[y])
    assert model.classes_.tolist() == ["ant", "bee", "cow"]
    logits = model.module_(x).to_numpy()
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    found = model.predict_proba(x)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, e / e.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_allclose(model.predict_log_proba(x), np.log(found))
    np.testing.assert_array_equal(model.predict(x), names[logits.argmax(axis=1)])
    assert model.score(x, names[y]) > 0.9


def test_logarithms_of_probabilities_stay_finite_where_these_are_0() -> None:
    x = np.float32([[-1], [1]])
    model = quick(module=lambda n, k, rng: L.Linear(n, k, rng=rng), max_iter=2).fit(x, [0, 1])
    L.init.assign(model.module_.weight, np.float32([[0], [500]]))
    L.init.assign(model.module_.bias, np.zeros(2, "float32"))
    assert model.predict_proba(x)[0, 1] == 0
    np.testing.assert_allclose(model.predict_log_proba(x), [[0, -500], [-500, 0]])


def test_float32_stays_float32() -> None:
    x, y = blobs()
    model = quick(max_iter=2).fit(x.astype("float32"), y)
    assert {array.dtype.name for array in model.module_.state_dict().values()} == {"float32"}
    assert model.predict_proba(x).dtype == np.float32


def test_pipelines_grid_searches_and_cross_validation_take_the_estimators() -> None:
    x, y = blobs(2)
    pipeline = make_pipeline(StandardScaler(), quick(max_iter=10))
    search = GridSearchCV(
        pipeline, {"lamellaclassifier__learning_rate_init": [1e-6, 3e-2]}, cv=2, scoring="neg_log_loss"
    ).fit(x, y)
    assert search.best_params_ == {"lamellaclassifier__learning_rate_init": 3e-2}
    assert search.predict(x[:3]).shape == (3,)
    codes = make_pipeline(StandardScaler(), Autoencoder(3, max_iter=5, random_state=0), quick(max_iter=10))
    assert len(cross_val_score(codes, x, y, cv=2)) == 2
    assert codes[:2].fit(x).get_feature_names_out().tolist() == ["autoencoder0", "autoencoder1", "autoencoder2"]


def test_a_weight_of_three_is_as_good_as_three_copies() -> None:
    x, y = blobs()
    weights = np.where(y == 0, 3, 1)
    weighted = quick().fit(x, y, sample_weight=weights)
    repeated = quick().fit(x.repeat(weights, axis=0), y.repeat(weights))
    assert len(x.repeat(weights, axis=0)) <= 200  # one batch each
    np.testing.assert_allclose(weighted.predict_proba(x), repeated.predict_proba(x), rtol=1e-6)
    plain = quick().fit(x, y)
    assert abs(weighted.predict_proba(x) - plain.predict_proba(x)).max() > 1e-2


def test_class_weights_multiply_sample_weights() -> None:
    x, y = blobs()
    y = np.where(np.arange(len(y)) < 80, 0, y)  # many of class 0
    counts = np.bincount(y)
    by_hand = quick().fit(x, y, sample_weight=(len(y) / (3 * counts))[y])
    for weights in ("balanced", dict(enumerate(len(y) / (3 * counts)))):
        np.testing.assert_allclose(
            quick(class_weight=weights).fit(x, y).predict_proba(x), by_hand.predict_proba(x), rtol=1e-9
        )
    both = quick(class_weight={0: 2.0}).fit(x, y, sample_weight=np.where(y == 1, 5.0, 1.0))
    expected = quick().fit(x, y, sample_weight=np.array([2.0, 5.0, 1.0])[y])
    np.testing.assert_allclose(both.predict_proba(x), expected.predict_proba(x), rtol=1e-9)


def test_partial_fit_learns_from_a_stream() -> None:
    x, y = blobs()
    model = quick(learning_rate_init=1e-2)
    with pytest.raises(ValueError, match="classes must be given in the first call of partial_fit"):
        model.partial_fit(x[:10], y[:10])
    for _ in range(20):
        for part in np.array_split(np.arange(len(x)), 4):
            model.partial_fit(x[part], y[part], classes=[0, 1, 2])
    assert model.score(x, y) > 0.9
    assert model.n_iter_ == 80
    with pytest.raises(ValueError, match=r"y must hold classes of \[0, 1, 2\], got \[7\]"):
        model.partial_fit(x[:1], [7])
    with pytest.raises(ValueError, match=r"classes must be those of the first call, \[0, 1, 2\], got \[0, 1\]"):
        model.partial_fit(x, y, classes=[0, 1])
    with pytest.raises(ValueError, match="class_weight must be a dict for partial_fit"):
        quick(class_weight="balanced").partial_fit(x, y, classes=[0, 1, 2])


def test_early_stopping_ends_before_the_last_epoch_with_the_best_state() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 10)), rng.integers(0, 2, 80)  # nothing to be learned
    model = quick(early_stopping=True, validation_fraction=0.25, max_iter=300, learning_rate_init=1e-2).fit(x, y)
    judged = model.history_["validation_loss"]
    assert model.n_iter_ == len(judged) < 100
    best = int(np.argmin(judged))
    assert best < len(judged) - 10
    again = quick(early_stopping=True, validation_fraction=0.25, max_iter=best + 1, learning_rate_init=1e-2).fit(x, y)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


def test_early_stopping_judges_by_every_class_in_its_share() -> None:
    x, y, seen = np.zeros((20, 2), "float32"), np.repeat([0, 1], [18, 2]), []

    def loss(outputs: Any, labels: Any, reduction: str = "mean") -> Any:
        seen.append(np.bincount(labels.to_numpy()).tolist())
        return L.cross_entropy(outputs, labels, reduction=reduction)

    for seed in range(5):
        options: dict[str, Any] = {"early_stopping": True, "validation_fraction": 0.5, "max_iter": 1}
        quick(loss=loss, random_state=seed, **options).fit(x, y)
    assert len(seen) >= 10  # to learn from, and to judge by
    assert seen == [[9, 1]] * len(seen)


def test_training_that_was_not_finished_is_said() -> None:
    x, y = blobs()
    with pytest.warns(ConvergenceWarning, match="max_iter=3 epochs were over before the loss had settled"):
        quick(max_iter=3).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert quick(max_iter=500, tol=1e-2).fit(x, y).n_iter_ < 500


def test_warm_start_goes_on_and_a_new_fit_begins_anew() -> None:
    x, y = blobs()
    whole = quick(max_iter=6).fit(x, y)
    halves = quick(max_iter=3, warm_start=True).fit(x, y).fit(x, y)
    np.testing.assert_array_equal(halves.predict_proba(x), whole.predict_proba(x))
    assert halves.n_iter_ == 6
    anew = quick(max_iter=3).fit(x, y)
    first = anew.predict_proba(x)
    np.testing.assert_array_equal(anew.fit(x, y).predict_proba(x), first)
    with pytest.raises(ValueError, match="with warm_start the classes must be those of the first fit"):
        halves.fit(x, y + 1)


def test_random_state_decides_everything() -> None:
    x, y = blobs()
    one, same, other = (quick(random_state=seed, batch_size=32).fit(x, y).predict_proba(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert abs(one - other).max() > 1e-3


def test_names_of_features_are_remembered_and_sparse_data_refused() -> None:
    pandas = pytest.importorskip("pandas")
    x, y = blobs()
    frame = pandas.DataFrame(x, columns=list("abcdef"))
    model = quick(max_iter=2).fit(frame, y)
    assert model.feature_names_in_.tolist() == list("abcdef")
    assert model.n_features_in_ == 6
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[list("fedcba")])
    with pytest.raises(TypeError, match="dense data is required"):
        quick().fit(csr_array(x), y)


def small_convnet(in_features: int, out_features: int, *, rng: lamella.Generator) -> L.Module:
    return L.Sequential(
        L.Conv2d(in_features, 4, 3, padding=1, rng=rng),
        L.BatchNorm2d(4),
        L.ReLU(),
        L.MaxPool2d(2),
        L.Flatten(),
        L.Linear(4 * 16, out_features, rng=rng),
    )


def test_a_function_that_makes_a_module_and_images() -> None:
    x, y = training.digits()
    x = x[:300].reshape(-1, 1, 8, 8)
    model = quick(module=small_convnet, learning_rate_init=1e-2, max_iter=15).fit(x, y[:300])
    assert model.score(x, y[:300]) > 0.95
    assert isinstance(model.module_[0], L.Conv2d)


def test_a_module_is_trained_as_a_copy() -> None:
    x, y = blobs()
    module = models.mlp(6, 8, 3, rng=lamella.Generator(0)).to(dtype="float64")
    before = module.state_dict()
    model = quick(module=module, alpha=0.0, max_iter=5).fit(x, y)
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
        assert abs(model.module_.state_dict()[name] - value).max() > 0
    expected = copy.deepcopy(module)
    optimizer = training.Adam(expected.parameters(), lr=1e-3)
    for _ in range(5):
        loss = L.cross_entropy(expected(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(model.module_(x).to_numpy(), expected(x).to_numpy(), rtol=1e-9)
    with pytest.raises(TypeError, match="give a function that makes it"):
        pickle.dumps(model)
    assert clone(model).get_params()["module"] is not module


@pytest.mark.slow
def test_alpha_pulls_weights_to_zero_as_scikit_learn_s_does() -> None:
    x, y = make_regression(100, 5, random_state=0)
    y /= y.std()
    options: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 1500, "learning_rate_init": 1e-2, "tol": 0.0}
    norms = []
    for alpha in (0.0, 100.0):
        own = LamellaRegressor(alpha=alpha, random_state=0, **options).fit(x, y)
        theirs = sklearn.neural_network.MLPRegressor(alpha=alpha / 2, random_state=0, **options).fit(x, y)
        found = sum(float((p.to_numpy() ** 2).sum()) for p in own.module_.parameters() if p.ndim == 2)
        norms.append((found, sum(float((w**2).sum()) for w in theirs.coefs_)))
    (free, _), (own_norm, their_norm) = norms
    assert own_norm < 0.5 * free
    assert own_norm == pytest.approx(their_norm, rel=0.05)


@pytest.mark.parametrize("estimator", [quick(), LamellaRegressor(random_state=0, max_iter=5)], ids=["clf", "reg"])
def test_a_pickled_estimator_predicts_and_goes_on_as_the_original(estimator: Any) -> None:
    x, y = blobs()
    original = clone(estimator).fit(x, y)
    data = pickle.dumps(original)
    assert b"Sequential" not in data  # no module is in it
    restored = pickle.loads(data)
    np.testing.assert_array_equal(restored.predict(x), original.predict(x))
    for model in (original, restored):
        model.partial_fit(x, y)
    for one, other in zip(original.module_.parameters(), restored.module_.parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data)


def noisy(in_features: int, out_features: int, *, rng: lamella.Generator) -> L.Module:
    return L.Sequential(L.Linear(in_features, 8, rng=rng), L.Dropout(0.5, rng=rng.spawn()), L.Linear(8, out_features))


NOISY = [
    quick(dropout=0.5, max_iter=3, warm_start=True),
    quick(module=noisy, max_iter=3, warm_start=True),
    Autoencoder(noise=0.5, max_iter=3, warm_start=True, random_state=0),
]


@pytest.mark.parametrize("estimator", NOISY, ids=["mlp", "module", "autoencoder"])
def test_masks_and_noise_go_on_where_the_pickled_estimator_was(estimator: Any) -> None:
    x, y = blobs()
    original = clone(estimator).fit(x, y)
    restored = pickle.loads(pickle.dumps(original))
    for model in (original, restored):
        model.fit(x, y)
    for one, other in zip(original.module_.parameters(), restored.module_.parameters(), strict=True):
        np.testing.assert_array_equal(one.data, other.data)


LATER: list[dict[str, Any]] = [
    {"activation": "tanh"},
    {"hidden_layer_sizes": (5,)},
    {"optimizer": training.SGD, "alpha": 0.0},
    {"module": noisy},
]


@pytest.mark.parametrize("later", LATER)
def test_what_was_set_after_fit_does_not_change_what_was_pickled(later: dict[str, Any]) -> None:
    x, y = blobs()
    original = quick(max_iter=3).fit(x, y)
    expected = original.predict_proba(x)
    restored = pickle.loads(pickle.dumps(original.set_params(**later)))
    np.testing.assert_array_equal(restored.predict_proba(x), expected)
    assert restored.get_params() == original.get_params()
    again = pickle.loads(pickle.dumps(restored))  # and a copy of the copy
    np.testing.assert_array_equal(again.predict_proba(x), expected)


def test_an_rbm_is_restored_whose_size_was_set_after_fit() -> None:
    x = (np.arange(24).reshape(6, 4) % 3 == 0).astype("float64")
    original = BernoulliRBM(3, n_iter=2, random_state=0).fit(x)
    expected = original.transform(x)
    restored = pickle.loads(pickle.dumps(original.set_params(n_components=7)))
    np.testing.assert_array_equal(restored.transform(x), expected)


def test_a_classifier_learns_on_every_device(device: Device) -> None:
    x, y = blobs(2, 12)
    options: dict[str, Any] = {"hidden_layer_sizes": (2,), "max_iter": 1, "learning_rate_init": 1e-2}
    expected = quick(**options).fit(x.astype("float32"), y)
    model = quick(device=str(device), **options).fit(x.astype("float32"), y, sample_weight=np.ones(12))
    assert next(model.module_.parameters()).device == device
    found = model.predict_proba(x)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected.predict_proba(x), rtol=1e-4)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).predict_proba(x), found)


# -- regressors -----------------------------------------------------------------------------------------------------
def test_a_regressor_predicts_one_number_or_several() -> None:
    x, y = make_regression(150, 5, n_targets=2, noise=1.0, random_state=0)
    y /= y.std(axis=0)
    options: dict[str, Any] = {"hidden_layer_sizes": (32,), "learning_rate_init": 1e-2, "random_state": 0}
    several = LamellaRegressor(**options).fit(x, y)
    assert several.predict(x).shape == (150, 2)
    assert several.score(x, y) > 0.95
    one = LamellaRegressor(**options).fit(x, y[:, 0])
    assert one.predict(x).shape == (150,)
    assert one.score(x, y[:, 0]) > 0.95
    with pytest.raises(ValueError, match="y must have 2 outputs, as before, got 1"):
        several.partial_fit(x, y[:, 0])


def test_a_regressor_takes_another_loss_optimizer_and_weights() -> None:
    x = np.zeros((4, 1))
    y, weights = np.array([0.0, 0.0, 4.0, 100.0]), [1.0, 1.0, 2.0, 0.0]
    options: dict[str, Any] = {"module": bias_only, "optimizer": training.SGD, "learning_rate_init": 0.1, "alpha": 0.0}
    mean = LamellaRegressor(max_iter=300, tol=0.0, **options).fit(x, y, sample_weight=weights)
    assert mean.predict(x[:1]).item() == pytest.approx(2.0, rel=1e-6)
    assert isinstance(mean.optimizer_, training.SGD)
    huber = LamellaRegressor(loss=L.huber_loss, max_iter=300, tol=0.0, **options).fit(x, [0.0, 0.0, 0.5, 100.0])
    # where the slope is 0: three residuals in the middle, one worth 1: 3 m - 0.5 = 1
    assert huber.predict(x[:1]).item() == pytest.approx(0.5, rel=1e-3)


def bias_only(in_features: int, out_features: int, *, rng: lamella.Generator) -> L.Module:
    return L.Linear(in_features, out_features, rng=rng)


# -- transformers ---------------------------------------------------------------------------------------------------
def test_the_linear_autoencoder_gives_back_as_much_as_principal_components() -> None:
    x = training.digits()[0][:600]
    x -= x.mean(axis=0)
    axes = np.linalg.svd(x, full_matrices=False)[2][:4]
    least = ((x - x @ axes.T @ axes) ** 2).mean()
    model = Autoencoder(
        4, optimizer=with_momentum, learning_rate_init=4.0, max_iter=200, tol=0.0, batch_size=600, random_state=0
    ).fit(x)
    codes = model.transform(x)
    assert codes.shape == (600, 4)
    assert codes.dtype == np.float32
    np.testing.assert_allclose(((model.inverse_transform(codes) - x) ** 2).mean(), -model.score(x), rtol=1e-5)
    assert least <= -model.score(x) < 1.001 * least


def with_momentum(parameters: Any, lr: float) -> training.SGD:
    return training.SGD(parameters, lr=lr, momentum=0.95)


def test_the_autoencoder_s_options_reach_its_module() -> None:
    x = training.digits()[0][:100]
    options: dict[str, Any] = {"hidden_layer_sizes": (12,), "max_iter": 3, "random_state": 0}
    model = Autoencoder(5, tied=True, noise=0.1, code_activation="logistic", **options).fit(x)
    assert model.module_.decoder[0].weight is model.module_.encoder[2].weight
    assert model.module_.noise.std == 0.1
    assert 0 < model.transform(x).min() < model.transform(x).max() < 1
    sparse = {
        weight: Autoencoder(
            20, penalty="l1", penalty_weight=weight, learning_rate_init=1e-2, max_iter=60, random_state=0
        ).fit(x)
        for weight in (0.0, 0.1)
    }
    assert abs(sparse[0.1].transform(x)).mean() < 0.3 * abs(sparse[0.0].transform(x)).mean()
    with pytest.raises(ValueError, match="penalty must be None, 'l1' or 'kl', got 'l2'"):
        Autoencoder(penalty="l2").fit(x)
    with pytest.raises(ValueError, match=r"code_activation must be 'logistic' for penalty 'kl', .* got 'identity'"):
        Autoencoder(penalty="kl").fit(x)  # whose means are no probabilities
    assert Autoencoder(penalty="kl", code_activation="logistic", max_iter=2).fit(x).n_iter_ == 2


def test_codes_are_checked_as_data_are() -> None:
    model = Autoencoder(3, max_iter=2, random_state=0).fit(training.digits()[0][:50])
    assert model.inverse_transform([[0, 1, 2]]).shape == (1, 64)
    with pytest.raises(ValueError, match=r"Autoencoder: X must hold codes of n_components=3, got \(2, 4\)"):
        model.inverse_transform(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        model.inverse_transform(np.zeros(3))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        model.inverse_transform(np.full((1, 3), np.nan))


def test_an_autoencoder_s_module_has_to_be_one() -> None:
    x = np.zeros((20, 4), "float32")
    with pytest.raises(TypeError, match="module must be a function that makes one, got Autoencoder"):
        Autoencoder(module=models.autoencoder(4, 2)).fit(x)
    with pytest.raises(TypeError, match=r"module must make a models.Autoencoder, got Linear from it"):
        Autoencoder(4, module=lambda n, k, rng: L.Linear(n, k, rng=rng)).fit(x)


def binary_digits() -> np.ndarray:
    return (training.digits()[0] > 0.5).astype("float64")


def test_the_rbm_computes_what_scikit_learn_s_computes_from_the_same_parameters() -> None:
    x = binary_digits()[:50]
    theirs = sklearn.neural_network.BernoulliRBM(8, n_iter=1, random_state=0).fit(x)
    own = BernoulliRBM(8, n_iter=0).fit(x)
    own.module_.load_state_dict(
        {
            "weight": theirs.components_,
            "hidden_bias": theirs.intercept_hidden_,
            "visible_bias": theirs.intercept_visible_,
        }
    )
    np.testing.assert_allclose(own.transform(x), theirs.transform(x), rtol=1e-9)
    np.testing.assert_array_equal(own.components_, theirs.components_)
    theirs.set_params(random_state=np.random.RandomState(0))  # theirs turns over one unit at random: many times
    drawn = np.array([theirs.score_samples(x) for _ in range(400)])
    noise = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (abs(drawn.mean(axis=0) - own.score_samples(x)) <= 5 * noise).all()
    assert set(np.unique(own.gibbs(x))) == {0.0, 1.0}


@pytest.mark.slow
def test_the_rbm_learns_digits_as_well_as_scikit_learn_s() -> None:
    x = binary_digits()
    options: dict[str, Any] = {"learning_rate": 0.06, "n_iter": 10, "batch_size": 10, "random_state": 0}
    theirs = sklearn.neural_network.BernoulliRBM(64, **options).fit(x)
    judge = BernoulliRBM(64, n_iter=0).fit(x)
    judge.module_.load_state_dict(
        {
            "weight": theirs.components_,
            "hidden_bias": theirs.intercept_hidden_,
            "visible_bias": theirs.intercept_visible_,
        }
    )
    before, expected = BernoulliRBM(64, n_iter=0).fit(x).score_samples(x).mean(), judge.score_samples(x).mean()
    for persistent in (True, False):
        found = BernoulliRBM(64, persistent=persistent, **options).fit(x).score_samples(x).mean()
        assert found > before + 0.8 * (expected - before)


def test_the_rbm_goes_on_after_it_was_pickled(capsys: pytest.CaptureFixture[str]) -> None:
    x = binary_digits()[:100]
    model = BernoulliRBM(8, n_iter=2, random_state=0, verbose=True).fit(x)
    assert capsys.readouterr().out.count("pseudo-likelihood") == 2
    restored = pickle.loads(pickle.dumps(model))
    for machine in (model, restored):
        machine.partial_fit(x)
    np.testing.assert_array_equal(restored.components_, model.components_)
    assert model.get_feature_names_out()[-1] == "bernoullirbm7"


# -- what is refused ------------------------------------------------------------------------------------------------
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"activation": "step"}, ValueError, "LamellaClassifier: activation must be one of identity, .*got 'step'"),
    ({"hidden_layer_sizes": (0,)}, ValueError, "hidden_layer_sizes must be at least 1, got 0"),
    ({"max_iter": 0}, ValueError, "max_iter must be at least 1, got 0"),
    ({"batch_size": "all"}, TypeError, "batch_size must be an integer, got 'all'"),
    ({"alpha": -1.0}, ValueError, "alpha must be at least 0, got -1.0"),
    ({"tol": -1.0}, ValueError, "tol must be at least 0, got -1.0"),
    ({"module": lambda a, b, rng: None}, TypeError, "module must be a Module or make one, got NoneType from it"),
    ({"early_stopping": True, "validation_fraction": 1.0}, ValueError, "validation_fraction must be between 0 and 1"),
    (
        {"early_stopping": True, "validation_fraction": 1e-4},
        ValueError,
        "LamellaClassifier: validation_fraction must leave examples to learn from and to judge by, got 0.0001 for",
    ),
    ({"device": "tpu"}, ValueError, "tpu"),
    ({"optimizer": "adam"}, TypeError, "optimizer must make one, such as training.SGD, got 'adam'"),
    (
        {"module": lambda n, k, rng: L.Linear(n, k + 1, rng=rng)},
        ValueError,
        r"module must give one logit for each of 3 classes, so of one example \(1, 3\), got \(1, 4\)",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD)
def test_what_makes_no_sense_is_refused_by_fit(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    model = quick(**options)
    with pytest.raises(kind, match=message):
        model.fit(*blobs())


def test_weights_that_leave_nothing_and_models_that_know_nothing_are_refused() -> None:
    x, y = blobs()
    with pytest.raises(ValueError, match="at least one weight above 0"):
        quick(class_weight=dict.fromkeys(range(3), 0.0)).fit(x, y)
    with pytest.raises(NotFittedError):
        quick().predict(x)


def test_a_missing_scikit_learn_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("sklearn", "lamella.interop.sklearn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'lamella\[sklearn\]'"):
        importlib.import_module("lamella.interop.sklearn")
