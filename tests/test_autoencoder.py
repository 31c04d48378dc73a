"""Autoencoders: their form, what noise and penalties do, and the linear one beside principal components."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.backend import Device

RNG = np.random.default_rng(0)


def train(model: lamella.layers.Module, x: lamella.Tensor, optimizer: training.Optimizer, steps: int) -> list[float]:
    """Full-batch descent on the squared error; the loss before each step."""
    found = []
    for _ in range(steps):
        loss = L.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss))
    return found


def principal_angles(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Between the spaces of the columns, in radians: small ones by their sines, which cosines would lose."""
    q, r = (np.linalg.qr(columns.astype("float64"))[0] for columns in (a, b))
    return np.arcsin(np.clip(np.linalg.svd(r - q @ (q.T @ r), compute_uv=False), 0, 1))


def test_the_decoder_mirrors_the_encoder() -> None:
    model = models.autoencoder(12, 7, 3, code_activation=L.Tanh, output_activation=L.Sigmoid, rng=lamella.Generator(0))
    assert [type(part) for part in model.encoder] == [L.Linear, L.ReLU, L.Linear, L.Tanh]
    assert [type(part) for part in model.decoder] == [L.Linear, L.ReLU, L.Linear, L.Sigmoid]
    assert [part.weight.shape for part in model.decoder if isinstance(part, L.Linear)] == [(7, 3), (12, 7)]
    x = RNG.random((5, 12), "float32")
    h = model.encode(x)
    assert h.shape == (5, 3)
    np.testing.assert_array_equal(model.decode(h).to_numpy(), model(x).to_numpy())
    assert models.autoencoder(4, 2).num_parameters() == 4 * 2 + 2 + 2 * 4 + 4


def test_tied_weights_are_one_parameter_with_the_sum_of_both_gradients(device: Device) -> None:
    tied = models.autoencoder(6, 4, 3, activation=L.Tanh, tied=True, rng=lamella.Generator(0)).to(device)
    free = models.autoencoder(6, 4, 3, activation=L.Tanh, rng=lamella.Generator(0)).to(device)
    state = tied.state_dict()
    free.load_state_dict(
        {name: value.T if name in ("decoder.0.weight", "decoder.2.weight") else value for name, value in state.items()}
    )
    x = lamella.tensor(RNG.random((5, 6), "float32"), device=device)
    np.testing.assert_allclose(tied(x).to_numpy(), free(x).to_numpy(), rtol=1e-5, atol=1e-6)
    for model in (tied, free):
        L.mse_loss(model(x), x).backward()

    def gradient(model: models.Autoencoder, name: str) -> np.ndarray:
        return lamella.Tensor(dict(model.named_parameters())[name].grad).to_numpy()

    for down, up in (("encoder.0.weight", "decoder.2.weight"), ("encoder.2.weight", "decoder.0.weight")):
        both = gradient(free, down) + gradient(free, up).T
        np.testing.assert_allclose(gradient(tied, down), both, rtol=1e-4, atol=1e-6)
    assert tied.num_parameters() == 6 * 4 + 4 * 3 + 4 + 3 + 4 + 6
    other = copy.deepcopy(tied)
    assert other.decoder[2].weight is other.encoder[0].weight
    assert other.decoder[2].weight is not tied.encoder[0].weight
    train(tied, x, training.Adam(tied.parameters()), 2)
    assert tied.decoder[0].weight is tied.encoder[2].weight
    assert tied.decoder[2].weight is tied.encoder[0].weight


@pytest.mark.parametrize("tied", [False, True])
def test_the_linear_autoencoder_spans_the_subspace_of_the_first_principal_components(tied: bool) -> None:
    x = training.digits()[0]
    x = x - x.mean(axis=0)
    axes = np.linalg.svd(x.astype("float64"), full_matrices=False)[2][:8]
    model = models.autoencoder(64, 8, tied=tied, rng=lamella.Generator(0))
    optimizer = training.SGD(model.parameters(), lr=2.0 if tied else 4.0, momentum=0.97)
    losses = train(model, lamella.tensor(x), optimizer, 900)
    weight = model.decoder[0].weight.to_numpy()
    angles = principal_angles(weight.T if tied else weight, axes.T)
    assert angles.max() < 1e-3
    least = ((x - x @ axes.T @ axes) ** 2).mean()
    assert least * (1 - 1e-6) <= losses[-1] <= least * (1 + 1e-5)
    assert principal_angles(axes[:7].T, axes[1:].T).max() == pytest.approx(np.pi / 2)  # the ruler tells spaces apart


def test_noise_spoils_the_input_in_training_only() -> None:
    model = models.autoencoder(6, 3, noise=L.GaussianNoise(0.5, rng=lamella.Generator(1)), rng=lamella.Generator(0))
    x = RNG.random((4, 6), "float32")
    clean = model.decode(model.encode(x)).to_numpy()
    assert abs(model(x).to_numpy() - clean).max() > 1e-2
    model.eval()
    np.testing.assert_array_equal(model(x).to_numpy(), clean)


@pytest.mark.parametrize("image", [(1, 8, 8), (2, 7, 10)])
def test_the_convolutional_autoencoder_gives_images_of_the_size_it_got(image: tuple[int, ...]) -> None:
    model = models.conv_autoencoder(image, 5, channels=(3, 4, 6), rng=lamella.Generator(0))
    x = RNG.random((2, *image), "float32")
    assert model.encode(x).shape == (2, 5)
    assert model(x).shape == (2, *image)


def test_the_convolutional_autoencoder_stays_on_its_device(device: Device) -> None:
    image = (2, 5, 1)
    model = models.conv_autoencoder(image, 5, channels=(3,), rng=lamella.Generator(0)).to(device)
    x = lamella.tensor(RNG.random((2, *image), "float32"), device=device)
    assert model.encode(x).shape == (2, 5)
    assert model(x).shape == (2, *image)
    assert model(x).device == device


def test_the_convolutional_autoencoder_learns() -> None:
    model = models.conv_autoencoder(
        (1, 8, 8), 8, channels=(4, 8), output_activation=L.Sigmoid, rng=lamella.Generator(0)
    )
    x = lamella.tensor(training.digits()[0][:100].reshape(-1, 1, 8, 8))
    losses = train(model, x, training.Adam(model.parameters(), lr=2e-2), 100)
    assert losses[-1] < 0.4 * losses[0]


def test_penalties_are_those_of_their_formulas() -> None:
    h = RNG.random((7, 5)) * 0.8 + 0.1
    assert float(models.l1_penalty(lamella.tensor(h - 0.5))) == pytest.approx(abs(h - 0.5).sum() / 7)
    mean, rho = h.mean(axis=0), 0.2
    expected = (rho * np.log(rho / mean) + (1 - rho) * np.log((1 - rho) / (1 - mean))).sum()
    assert float(models.kl_penalty(lamella.tensor(h), rho)) == pytest.approx(expected)
    assert float(models.kl_penalty(lamella.tensor(np.full((3, 4), 0.05)))) == pytest.approx(0.0, abs=1e-12)
    assert lamella.gradcheck(models.kl_penalty, h)
    assert lamella.gradcheck(models.l1_penalty, h - 0.55)
    assert np.isfinite(float(models.kl_penalty(lamella.tensor(np.zeros((2, 3))))))


@pytest.mark.parametrize("penalty", [models.l1_penalty, models.kl_penalty], ids=lambda f: f.__name__)
def test_a_penalty_makes_codes_sparse(penalty: Any) -> None:
    x = lamella.tensor(training.digits()[0][:200])
    shares = []
    for weight in (0.0, 3e-3):
        model = models.autoencoder(64, 80, code_activation=L.Sigmoid, rng=lamella.Generator(0))
        optimizer = training.Adam(model.parameters(), lr=1e-2)
        for _ in range(100):
            loss = L.mse_loss(model(x), x) + weight * penalty(model.encode(x))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shares.append(float((model.encode(x).to_numpy() > 0.5).mean()))
    assert shares[1] < 0.5 * shares[0]


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: models.autoencoder(8), ValueError, r"features must be at least two lengths, input and code, got \(8,\)"),
    (lambda: models.autoencoder(8, 0), ValueError, "features must be at least 1, got 0"),
    (lambda: models.autoencoder(8, 2, activation=L.ReLU()), TypeError, "activation must make a module"),
    (lambda: models.autoencoder(8, 4, 2, activation=None), TypeError, "activation must make a module.*got None"),
    (lambda: models.Autoencoder(L.ReLU(), None), TypeError, "decoder must be a Module, got None"),
    (lambda: models.TiedLinear(L.ReLU()), TypeError, "layer must be a Linear, got ReLU"),
    (lambda: models.conv_autoencoder((8, 8)), ValueError, r"image must be \(channels, height, width\), got \(8, 8\)"),
    (lambda: models.conv_autoencoder(channels=()), TypeError, "channels must be a tuple or list"),
    (lambda: models.kl_penalty(lamella.zeros((2, 2)), 1.0), ValueError, "rho must be between 0 and 1, got 1.0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_what_makes_no_sense_is_refused(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
