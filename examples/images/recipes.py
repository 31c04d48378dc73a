"""What is trained and how: the network, the optimizer, the epochs and the changes to the images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lamella
import lamella.layers as L
from lamella import models, training


@dataclass(frozen=True)
class Recipe:
    """A network with all that decides how it is trained; the rate goes up and down again in one cycle."""

    model: Callable[[lamella.Generator], Any]
    optimizer: type[training.Optimizer]
    settings: dict[str, Any]  # of the optimizer
    lr: float  # the greatest
    epochs: int
    batch: int = 128
    shift: int = 1  # pixels
    mirror: bool = True
    standardize: bool = True  # give pixels of mean 0 and variance 1 to the network

    def scale(self, images: Any) -> tuple[float, float]:
        """The mean and the standard deviation that pixels are normalised by."""
        return (float(images.mean()), float(images.std())) if self.standardize else (0.0, 1.0)

    def schedule(self, examples: int, epochs: int) -> Callable[[int], float]:
        return training.one_cycle(self.lr, epochs * -(-examples // self.batch), rise=0.25)

    def augment(self, x: Any, rng: lamella.Generator, black: float = 0.0) -> Any:
        """Images moved by a pixel or so, and mirrored or not."""
        x = training.random_shift(x, self.shift, rng=rng, fill=black)
        return training.random_flip(x, rng=rng) if self.mirror else x


SGD = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}

RECIPES = {
    "convnet": Recipe(
        lambda rng: models.convnet(kernel_size=3, channels=(32, 64), hidden=128, dropout=0.25, rng=rng),
        training.AdamW,
        {"weight_decay": 1e-2},
        lr=4e-3,
        epochs=6,
    ),
    "resnet": Recipe(
        lambda rng: models.small_resnet(8, in_channels=1, width=32, rng=rng),
        training.SGD,
        SGD,
        lr=0.1,
        epochs=6,
        shift=0,
    ),
    "densenet": Recipe(
        lambda rng: models.small_densenet(22, 12, in_channels=1, rng=rng), training.SGD, SGD, lr=0.15, epochs=3
    ),
    "digits": Recipe(  # of MNIST: a mirrored 2 is none
        lambda rng: models.digits_convnet(trained=False, rng=rng),
        training.AdamW,
        {"weight_decay": 1e-2},
        lr=2e-3,
        epochs=10,
        batch=64,
        shift=2,
        mirror=False,
        standardize=False,
    ),
}


def learn(
    recipe: Recipe, data: Any, test: Any, *, epochs: int | None = None, seed: int = 0
) -> tuple[Any, training.History]:
    """A trained network and its history."""
    epochs, rng = epochs or recipe.epochs, lamella.Generator(seed)
    mean, std = recipe.scale(data[0])
    model = recipe.model(rng.split(0))
    history = training.fit(
        model,
        (training.normalize(data[0], [mean], [std]), data[1]),
        loss=L.cross_entropy,
        optimizer=recipe.optimizer(model.parameters(), **recipe.settings),
        epochs=epochs,
        batch_size=recipe.batch,
        validation=(training.normalize(test[0], [mean], [std]), test[1]),
        rng=rng.split(1),
        schedule=recipe.schedule(len(data[0]), epochs),
        augment=lambda x, rng: recipe.augment(x, rng, -mean / std),
        explain=False,
    )
    return model, history
