"""Restricted Boltzmann machines against sums over all states, written out in float64."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import models, training
from lamella.backend import Device

D, H = 5, 4


def machine(
    visible: str = "bernoulli", features: int = D, hidden: int = H, dtype: str = "float64", scale: float = 0.8
) -> models.RBM:
    """A machine whose parameters are far from 0, so that every term of the energy counts."""
    rbm = models.RBM(features, hidden, visible=visible, rng=lamella.Generator(3))
    draw = np.random.default_rng(7)
    rbm.to(dtype=dtype)
    rbm.load_state_dict({name: draw.normal(0, scale, value.shape) for name, value in rbm.state_dict().items()})
    return rbm


def states(count: int) -> np.ndarray:
    return np.array(list(itertools.product([0.0, 1.0], repeat=count)))


def energies(rbm: models.RBM, v: np.ndarray, h: np.ndarray) -> np.ndarray:
    """E(v, h) of all pairs, (len(v), len(h)), by the definition."""
    weight, b, c = (array.to_numpy() for array in (rbm.weight, rbm.visible_bias, rbm.hidden_bias))
    own = -v @ b if rbm.visible == "bernoulli" else ((v - b) ** 2).sum(axis=1) / 2
    return own[:, None] - (h @ c)[None, :] - v @ weight.T @ h.T


def bars_and_stripes(size: int = 3) -> np.ndarray:
    """All images whose rows, or whose columns, are all black or all white; each once."""
    rows = [np.repeat(bits[:, None], size, axis=1).ravel() for bits in states(size)]
    columns = [np.repeat(bits[None, :], size, axis=0).ravel() for bits in states(size)]
    return np.unique(np.array(rows + columns), axis=0)


def test_energies_and_the_partition_function_are_those_of_the_sum_over_all_states() -> None:
    rbm = machine()
    v, h = states(D), states(H)
    table = energies(rbm, v, h)
    pairs = rbm.energy(np.repeat(v, len(h), axis=0), np.tile(h, (len(v), 1))).to_numpy()
    np.testing.assert_allclose(pairs, table.ravel(), rtol=1e-12)
    np.testing.assert_allclose(rbm.free_energy(v).to_numpy(), -np.log(np.exp(-table).sum(axis=1)), rtol=1e-9)
    log_z = math.log(np.exp(-table).sum())
    assert float(rbm.log_partition()) == pytest.approx(log_z, rel=1e-9)
    assert float(lamella.exp(rbm.log_likelihood(v)).sum()) == pytest.approx(1.0, rel=1e-9)
    wide = machine(features=3, hidden=6)
    assert float(wide.log_partition()) == pytest.approx(
        math.log(np.exp(-energies(wide, states(3), states(6))).sum()), rel=1e-9
    )


def test_the_density_of_gaussian_units_integrates_to_one() -> None:
    rbm = machine("gaussian", features=2, hidden=3)
    line = np.linspace(-12, 12, 241)
    v = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    table = energies(rbm, v, states(3))
    cell = (line[1] - line[0]) ** 2
    assert float(rbm.log_partition()) == pytest.approx(math.log(np.exp(-table).sum() * cell), rel=1e-9)
    assert np.exp(rbm.log_likelihood(v).to_numpy()).sum() * cell == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_each_layer_given_the_other_is_the_conditional_of_the_joint(visible: str) -> None:
    rbm = machine(visible)
    v, h = states(D), states(H)
    weights = np.exp(-energies(rbm, v, h))
    expected = weights @ h / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(rbm(v).to_numpy(), expected, rtol=1e-9)
    if visible == "bernoulli":
        expected = weights.T @ v / weights.sum(axis=0)[:, None]
    else:
        expected = rbm.visible_bias.to_numpy() + h @ rbm.weight.to_numpy()  # where E(·, h) is least
        least = energies(rbm, expected, h).diagonal()
        assert (energies(rbm, expected + 1e-3, h).diagonal() > least).all()
    np.testing.assert_allclose(rbm.visible_mean(h).to_numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("visible", "features", "hidden"), [("bernoulli", 5, 4), ("bernoulli", 3, 6), ("gaussian", 3, 4)]
)
def test_the_gradient_of_the_exact_log_likelihood_agrees_with_central_differences(
    visible: str, features: int, hidden: int
) -> None:
    rbm = machine(visible, features, hidden)
    v = np.random.default_rng(0).random((6, features)).round(0 if visible == "bernoulli" else 3)
    rbm.log_likelihood(v).mean().backward()

    def log_likelihood() -> float:
        """By the definition: from the table of all pairs where v is binary, from all h (an integral each) where not."""
        if visible == "bernoulli":
            log_z = np.log(np.exp(-energies(rbm, states(features), states(hidden))).sum())
        else:
            h = states(hidden)
            mean = rbm.visible_bias.to_numpy() + h @ rbm.weight.to_numpy()
            log_z = np.log(np.exp(-energies(rbm, mean, h).diagonal()).sum()) + features / 2 * math.log(2 * math.pi)
        return float(np.log(np.exp(-energies(rbm, v, states(hidden))).sum(axis=1)).mean() - log_z)

    for parameter in rbm.parameters():
        values, numeric = parameter.data, np.empty(parameter.shape)
        for place in np.ndindex(values.shape):
            before = values[place]
            values[place] = before + 1e-5
            up = log_likelihood()
            values[place] = before - 1e-5
            numeric[place] = (up - log_likelihood()) / 2e-5
            values[place] = before
        np.testing.assert_allclose(parameter.grad, numeric, atol=1e-8)


def test_many_states_are_summed_in_chunks_with_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = machine(), machine()
    whole.log_partition().backward()
    monkeypatch.setattr(models.rbm, "_CHUNK", 5)
    value = parts.log_partition()
    value.backward()
    assert float(value) == pytest.approx(float(whole.log_partition()), rel=1e-12)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        np.testing.assert_allclose(one.grad, other.grad, rtol=1e-12)


def test_pseudo_log_likelihood_is_the_sum_of_the_conditionals() -> None:
    rbm = machine()
    v = states(D)
    log_p = -rbm.free_energy(v).to_numpy()
    expected = np.zeros(len(v))
    for i in range(D):
        turned = v.copy()
        turned[:, i] = 1 - turned[:, i]
        other = -rbm.free_energy(turned).to_numpy()
        expected += log_p - np.logaddexp(log_p, other)
    np.testing.assert_allclose(rbm.pseudo_log_likelihood(v).to_numpy(), expected, rtol=1e-9)


def test_stochastic_units_are_on_as_often_as_their_probability_says(device: Device) -> None:
    rbm = machine(dtype="float32").to(device)
    count = 4000 if device.kind == "cpu" else 500
    v = lamella.tensor(np.tile(np.float32([1, 0, 1, 1, 0]), (count, 1)), device=device)
    h = rbm.sample_hidden(v).to_numpy()
    assert h.dtype == np.float32
    assert set(np.unique(h)) == {0.0, 1.0}
    bound = 4 * 0.5 / math.sqrt(count)
    assert (abs(h.mean(axis=0) - rbm(v).to_numpy()[0]) <= bound).all()
    mean = rbm.visible_mean(rbm.sample_hidden(v[:1])).to_numpy()
    assert mean.shape == (1, D)
    assert not np.array_equal(rbm.sample_hidden(v).to_numpy(), h)


def test_gaussian_units_have_the_mean_and_the_variance_that_they_should() -> None:
    rbm = machine("gaussian", dtype="float32")
    h = np.tile(np.float32([1, 0, 0, 1]), (4000, 1))
    v = rbm.sample_visible(h).to_numpy()
    assert v.dtype == np.float32
    assert (abs(v.mean(axis=0) - rbm.visible_mean(h[:1]).to_numpy()[0]) <= 4 / math.sqrt(4000)).all()
    assert (abs(v.std(axis=0) - 1) <= 4 / math.sqrt(8000)).all()


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_every_device_draws_the_same_states_and_gets_the_same_gradients(visible: str, device: Device) -> None:
    found = []
    for place in (lamella.device("cpu"), device):
        rbm = models.RBM(9, 6, visible=visible, rng=lamella.Generator(5)).to(place)
        v = lamella.tensor(np.random.default_rng(0).random((8, 9), "float32").round(), device=place)
        loss, chain = rbm.contrastive_divergence(v, steps=2)
        assert chain.device == place
        loss.backward()
        gradients = [rbm.weight.grad, rbm.visible_bias.grad, rbm.hidden_bias.grad]
        found.append([chain.to_numpy(), *(lamella.Tensor(array).to_numpy() for array in gradients)])
    for expected, array in zip(*found, strict=True):
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-6)


def test_contrastive_divergence_is_the_difference_of_the_statistics_of_data_and_chain() -> None:
    """dF/dW = -p(h | v) v, so the gradient is that of the chain minus that of the data."""
    rbm = machine()
    v = states(D)[5:13]
    loss, chain = rbm.contrastive_divergence(v, steps=3)
    loss.backward()
    end = chain.to_numpy()
    data, model = rbm(v).to_numpy(), rbm(end).to_numpy()
    np.testing.assert_allclose(rbm.weight.grad, (model.T @ end - data.T @ v) / len(v), atol=1e-12)
    np.testing.assert_allclose(rbm.visible_bias.grad, (end - v).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(rbm.hidden_bias.grad, (model - data).mean(axis=0), atol=1e-12)


def test_a_persistent_chain_goes_on_where_it_was() -> None:
    """Units that copy one another for certain leave every chain where it began."""
    rbm = models.RBM(3, 3)
    bias = np.full(3, -50, "float32")
    rbm.load_state_dict({"weight": 100 * np.eye(3, dtype="float32"), "visible_bias": bias, "hidden_bias": bias})
    data, chain = states(3)[:4].astype("float32"), states(3)[[5, 7]].astype("float32")
    np.testing.assert_array_equal(rbm.contrastive_divergence(data, chain, steps=3)[1], chain)
    np.testing.assert_array_equal(rbm.contrastive_divergence(data, steps=3)[1], data)


def gradient(rbm: models.RBM, loss: lamella.Tensor) -> np.ndarray:
    rbm.zero_grad()
    loss.backward()
    return np.concatenate([parameter.grad.ravel() for parameter in rbm.parameters()])


def test_more_steps_of_contrastive_divergence_come_nearer_to_the_exact_gradient() -> None:
    rbm = machine(scale=2.0)
    v = states(D)[[3, 9, 17, 30]]
    exact = gradient(rbm, -rbm.log_likelihood(v).mean())
    many = np.tile(v, (4000, 1))
    errors = [abs(gradient(rbm, rbm.contrastive_divergence(many, steps=k)[0]) - exact).max() for k in (1, 2, 20)]
    noise = 5 * 0.5 / math.sqrt(len(many))  # a statistic lies in 0 … 1: its standard deviation is at most 0.5
    assert errors[0] > 2 * errors[1]
    assert errors[0] > 2 * noise
    assert errors[2] <= noise


def test_long_chains_sample_the_model_itself() -> None:
    rbm = machine()
    v = states(D)
    found = rbm.sample(8000, 50).to_numpy()
    probabilities = np.exp(rbm.log_likelihood(v).to_numpy())
    numbers = found @ (2.0 ** np.arange(D)[::-1])
    shares = np.bincount(numbers.astype(int), minlength=len(v)) / len(found)
    assert (abs(shares - probabilities) <= 5 * np.sqrt(probabilities / len(found)) + 1e-4).all()


def test_steps_along_the_exact_gradient_raise_the_likelihood_each_time() -> None:
    data = bars_and_stripes()
    rbm = machine(features=9, hidden=8)
    optimizer = training.SGD(rbm.parameters(), lr=0.2)
    found = []
    for _ in range(60):
        loss = -rbm.log_likelihood(data).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(-float(loss))
    assert (np.diff(found) > 0).all()
    assert found[-1] > found[0] + 0.3


def likelihoods(seed: int, persistent: bool, visible: str = "bernoulli", steps: int = 300) -> tuple[float, float]:
    """Exact mean log-likelihood of the data before and after training by contrastive divergence."""
    data = bars_and_stripes().astype("float32")
    rng = lamella.Generator(seed)
    if visible == "gaussian":
        data = (data - data.mean(axis=0)) / data.std(axis=0)
    rbm = models.RBM(9, 8, visible=visible, rng=rng)
    optimizer = training.Adam(rbm.parameters(), lr=0.02)
    with lamella.no_grad():
        before = float(rbm.log_likelihood(data).mean())
    many, chain = np.tile(data, (4, 1)), None
    for _ in range(steps):
        loss, end = rbm.contrastive_divergence(many, chain)
        chain = end if persistent else None
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with lamella.no_grad():
        return before, float(rbm.log_likelihood(data).mean())


@pytest.mark.parametrize("seed", range(5))
def test_contrastive_divergence_ends_at_a_higher_likelihood_than_it_began(seed: int) -> None:
    before, after = likelihoods(seed, persistent=False)
    assert after > before + 0.5


@pytest.mark.parametrize(("persistent", "visible"), [(True, "bernoulli"), (False, "gaussian"), (True, "gaussian")])
def test_persistent_chains_and_gaussian_units_learn_too(persistent: bool, visible: str) -> None:
    before, after = likelihoods(0, persistent, visible)
    assert after > before + 0.5


def test_state_has_the_field_s_names_and_the_generator_continues_in_a_checkpoint() -> None:
    rbm = models.RBM(6, 2, rng=lamella.Generator(0))
    assert {name: value.shape for name, value in rbm.state_dict().items()} == {
        "weight": (2, 6),
        "visible_bias": (6,),
        "hidden_bias": (2,),
    }
    assert isinstance(rbm.rng, lamella.Generator)
    assert repr(rbm) == "RBM(6, 2, visible='bernoulli')"


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: models.RBM(0, 2), ValueError, "RBM: visible_features must be at least 1, got 0"),
    (lambda: models.RBM(2, 2, visible="relu"), ValueError, "visible must be 'bernoulli' or 'gaussian', got 'relu'"),
    (lambda: models.RBM(2, 2, rng=0), TypeError, "rng must be a lamella.Generator or None, got 0"),
    (lambda: models.RBM(3, 2)(np.zeros((4, 2), "float32")), ValueError, r"v must have shape \(N, 3\), got \(4, 2\)"),
    (lambda: models.RBM(30, 25).log_partition(), ValueError, "a layer must have at most 24 units, got 25"),
    (
        lambda: models.RBM(3, 2, visible="gaussian").pseudo_log_likelihood(np.zeros((1, 3), "float32")),
        ValueError,
        "visible must be 'bernoulli', got 'gaussian'",
    ),
    (
        lambda: models.RBM(3, 2).contrastive_divergence(np.zeros((1, 3), "float32"), steps=0),
        ValueError,
        "steps must be at least 1, got 0",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_what_makes_no_sense_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
