"""Whole networks have the shapes, parameters and behaviour that their names promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lamella
import lamella.layers as L
from lamella import models

from .named_weights import images, named_weight

FROZEN = Path(__file__).parent / "fixtures" / "models.npz"


def test_mlp_9_16_8_1_has_305_parameters_and_an_activation_after_each_but_the_last() -> None:
    model = models.mlp(9, 16, 8, 1)
    assert model.num_parameters() == 305
    assert [type(part) for part in model] == [L.Linear, L.ReLU, L.Linear, L.ReLU, L.Linear]


def test_mlp_computes_the_nested_formula() -> None:
    model = models.mlp(4, 3, 2, activation=L.Tanh, rng=lamella.Generator(1))
    x = np.random.default_rng(0).standard_normal((5, 4), dtype=np.float32)
    first, second = model[0], model[2]
    hidden = np.tanh(x @ first.weight.to_numpy().T + first.bias.to_numpy())
    expected = hidden @ second.weight.to_numpy().T + second.bias.to_numpy()
    np.testing.assert_allclose(model(x).to_numpy(), expected, rtol=1e-6, atol=1e-7)


def test_mlp_drops_hidden_values_in_training_only_and_in_each_layer_differently() -> None:
    model = models.mlp(4, 64, 64, 2, dropout=0.5, rng=lamella.Generator(1))
    drops = [part for part in model if isinstance(part, L.Dropout)]
    assert len(drops) == 2
    assert drops[0].rng.state != drops[1].rng.state
    x = np.ones((3, 4), np.float32)
    assert not np.array_equal(model(x).to_numpy(), model(x).to_numpy())
    model.eval()
    np.testing.assert_array_equal(model(x).to_numpy(), model(x).to_numpy())


def test_mlp_of_one_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mlp: features must be at least two lengths.*got \(4,\)"):
        models.mlp(4)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet18", 11_689_512),
        pytest.param("resnet34", 21_797_672, marks=pytest.mark.slow),
        pytest.param("resnet50", 25_557_032, marks=pytest.mark.slow),
        pytest.param("densenet121", 7_978_856, marks=pytest.mark.slow),
    ],
)
def test_a_network_with_torchvisions_weights_gives_torchvisions_output(name: str, parameters: int) -> None:
    frozen = np.load(FROZEN)
    model = getattr(models, name)(rng=lamella.Generator(0))
    assert model.num_parameters() == parameters
    state = model.state_dict()
    assert sorted(state) == frozen[f"{name}/keys"].tolist()
    model.load_state_dict({key: named_weight(key, value.shape) for key, value in state.items()})
    x = images()
    training = model(x).to_numpy()[:, :50]
    expected = frozen[f"{name}/training"]
    assert abs(training - expected).max() <= 1e-3 * abs(expected).max()
    model.load_state_dict({key: named_weight(key, value.shape) for key, value in state.items()})
    model.eval()
    found, expected = model(x).to_numpy(), frozen[name]
    assert abs(found - expected).max() <= 1e-4 * abs(expected).max()
    last = model(lamella.tensor(x).channels_last()).to_numpy()
    assert abs(last - expected).max() <= 1e-4 * abs(expected).max()


@pytest.mark.parametrize(("name", "parameters"), [("resnet101", 44_549_160), ("resnet152", 60_192_808)])
@pytest.mark.slow
def test_deep_networks_have_torchvisions_number_of_parameters(name: str, parameters: int) -> None:
    assert getattr(models, name)(rng=lamella.Generator(0)).num_parameters() == parameters


SMALL = {
    "convnet": (lambda rng: models.convnet(dropout=0.1, rng=rng), 1, 28),
    "small_resnet": (lambda rng: models.small_resnet(8, in_channels=1, rng=rng), 1, 28),
    "small_densenet": (lambda rng: models.small_densenet(10, 8, rng=rng), 3, 32),
}


def losses(name: str, device: lamella.backend.Device, count: int, size: int, steps: int) -> list[float]:
    """The loss before each of some steps on random images with one label each."""
    make, channels, _ = SMALL[name]
    rng = np.random.default_rng(0)
    model = make(lamella.Generator(1)).to(device)
    x = lamella.tensor(rng.standard_normal((count, channels, size, size)).astype(np.float32), device=device)
    labels = lamella.tensor(np.arange(count) % 10, device=device)
    optimizer = lamella.training.Adam(model.parameters(), lr=1e-2)
    found = []
    for _ in range(steps):
        loss = L.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss))
    return found


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_learn_sixteen_images_by_heart(name: str) -> None:
    found = losses(name, lamella.device("cpu"), 16, SMALL[name][2], 20)
    assert found[-1] < 0.5 * found[0]


@pytest.mark.slow
def test_a_network_learns_alike_on_every_device(device: lamella.backend.Device) -> None:
    expected = losses("small_resnet", lamella.device("cpu"), 2, 8, 2)
    np.testing.assert_allclose(losses("small_resnet", device, 2, 8, 2), expected, rtol=1e-3)


def test_networks_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"small_resnet: depth must be 6 n \+ 2, such as 8, 14 or 20, got 18"):
        models.small_resnet(18)
    with pytest.raises(ValueError, match=r"small_densenet: depth must be 6 n \+ 4, such as 10, 22 or 40, got 41"):
        models.small_densenet(41)
    with pytest.raises(ValueError, match=r"convnet: image must be .*, got \(1, 3, 28\)"):
        models.convnet((1, 3, 28))
    with pytest.raises(TypeError, match="convnet: image must be a tuple or list of integers, got 'abc'"):
        models.convnet("abc")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"convnet: channels must be an integer, got 1\.5"):
        models.convnet(channels=(1.5,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="convnet: kernel_size must be an integer, got '5'"):
        models.convnet(kernel_size="5")  # type: ignore[arg-type]
    for network in (models.small_resnet, models.small_densenet):
        with pytest.raises(TypeError, match=f"{network.__name__}: depth must be an integer, got '8'"):
            network("8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="convnet: kernel_size must be odd, got 4"):
        models.convnet(kernel_size=4)
    with pytest.raises(ValueError, match=r"ResNet: blocks must be .*, got \(\)"):
        models.ResNet(models.BasicBlock, ())
