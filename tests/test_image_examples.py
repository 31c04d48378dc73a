"""The examples on images: each runs, on few images, and what they promise of accuracy holds."""

from __future__ import annotations

import importlib
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import lamella
from lamella import models, training

EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "images"
NAMES = sorted(file.stem for file in EXAMPLES.glob("*.py"))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports one of the scripts by its name, as if it ran in its folder."""
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.syspath_prepend(EXAMPLES)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield load
    for name in NAMES:
        sys.modules.pop(name, None)


def few(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images of which class k has a bright row at height 2 k + 4."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.uniform(0, 0.2, (count, 1, 28, 28)).astype("float32")
    images[np.arange(count), 0, 2 * labels + 4] = 1
    return np.round(images * 255).astype("float32") / 255, labels


@pytest.mark.parametrize(
    "model",
    ["convnet", pytest.param("resnet", marks=pytest.mark.slow), pytest.param("densenet", marks=pytest.mark.slow)],
)
def test_fashion_mnist_trains_saves_and_draws(
    model: str, example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = example("fashion_mnist")
    monkeypatch.setattr(training, "fashion_mnist", lambda folder: (few(640), few(20, 1)))
    arguments = ["fashion_mnist.py", "--model", model, "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--epochs", "1"])
    script.main()
    told = capsys.readouterr().out
    pictures = {"curves", "filters", "confusion", "mistakes"} | ({"activation"} if model != "convnet" else set())
    for picture in pictures:
        file = tmp_path / f"fashion-{model}-{picture}.png"
        assert file.read_bytes().startswith(b"\x89PNG")
        assert str(file) in told
        file.unlink()
    weights = tmp_path / f"fashion-{model}.safetensors"
    (line,) = (line for line in told.splitlines() if "accuracy" in line)
    monkeypatch.setattr(sys, "argv", [*arguments, "--weights", str(weights)])
    script.main()
    assert line in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.png"))) == len(pictures)


def test_digits_writes_weights_that_the_shipped_network_could_have(
    example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "mnist5k", lambda: (few(640), few(20, 1)))
    monkeypatch.setattr(sys, "argv", ["digits.py", "--epochs", "1", "--output", str(tmp_path)])
    example("digits").main()
    state = lamella.load(tmp_path / "digits_convnet.safetensors")
    shipped = lamella.load(EXAMPLES.parents[1] / "models" / "digits_convnet.safetensors")
    assert {name: (a.shape, a.dtype) for name, a in state.items()} == {
        name: (a.shape, a.dtype) for name, a in shipped.items()
    }
    assert len(list(tmp_path.glob("digits-*.png"))) == 4


@pytest.mark.slow
def test_the_trainer_beside_pytorch_learns_what_fit_learns(example: Any, tmp_path: Path) -> None:
    recipes, beside, trainer = example("recipes"), example("beside_pytorch"), example("trainer")
    recipe, data = recipes.RECIPES["resnet"], few(384)
    model, history = recipes.learn(recipe, data, few(20, 1), epochs=2, seed=3)

    generator = lamella.Generator(3)
    side = trainer.Lamella(lamella.get_num_threads())
    side.start(
        "resnet", recipe.model(generator.split(0)).state_dict(), recipe.optimizer.__name__, recipe.settings, "any"
    )
    rng, rate, (mean, std) = generator.split(1), recipe.schedule(384, 2), recipe.scale(data[0])
    for epoch in range(2):
        files = beside.epoch_of(recipe, beside.pixels(data[0]), data[1], rng, tmp_path)
        x, y = np.load(files["x"]), np.load(files["labels"])
        for i in range(3):
            batch = (x[128 * i : 128 * i + 128].astype("float32") / 255 - mean) / std
            side.step(batch.astype("float32"), y[128 * i : 128 * i + 128], rate(3 * epoch + i))
    for name, value in model.state_dict().items():
        found = np.asarray(side.model.state_dict()[name], dtype="float64")
        assert abs(found - value).max() <= 1e-3 * max(abs(value).max(), 1e-3), name
    assert len(history) == 2


def test_the_gradient_of_fifty_layers_explodes_without_residual_connections(example: Any) -> None:
    depth, (images, labels) = example("depth"), training.digits()
    spread = {}
    for kind in depth.BLOCKS:
        model = depth.network(kind, 8, 4, lamella.Generator(0))
        norms = depth.gradient_norms(model, images[:64].reshape(-1, 1, 8, 8), labels[:64])
        assert len(norms) == 49  # and the linear layer
        spread[kind] = norms[0] / norms[-1]
    assert spread["plain"] >= 10 * spread["residual"]


@pytest.mark.slow
def test_fifty_layers_learn_worse_without_residual_connections(example: Any) -> None:
    depth = example("depth")
    found = depth.measure(epochs=3)
    last = {kind: one["history"].last for kind, one in found.items()}
    assert last["residual"]["loss"] <= 0.6 * last["plain"]["loss"]
    assert last["residual"]["validation_accuracy"] >= last["plain"]["validation_accuracy"] + 0.2
    assert depth.draw(found).axes[0].get_yscale() == "log"


# -- the network that comes with the package ------------------------------------------------------------------------
def test_the_shipped_network_is_small_and_ready_to_predict() -> None:
    """How well, test_cli.py asks of ``lamella demo --model convnet``."""
    assert (EXAMPLES.parents[1] / "models" / "digits_convnet.safetensors").stat().st_size <= 1 << 20
    model = models.digits_convnet()
    assert not model.training
    assert model.num_parameters() == 253_514


def test_the_untrained_network_is_another_one_in_training_mode() -> None:
    model, trained = models.digits_convnet(trained=False, rng=lamella.Generator(0)), models.digits_convnet()
    assert model.training
    assert list(model.state_dict()) == list(trained.state_dict())
    assert not np.allclose(np.asarray(model.state_dict()["1.weight"]), np.asarray(trained.state_dict()["1.weight"]))


@pytest.mark.slow
def test_the_digits_network_learns_to_read_97_5_percent_on_the_median_of_three_seeds(example: Any) -> None:
    recipes, (data, test) = example("recipes"), training.mnist5k()
    reached = [recipes.learn(recipes.RECIPES["digits"], data, test, seed=seed)[1] for seed in range(3)]
    assert statistics.median(history.last["validation_accuracy"] for history in reached) >= 0.975
