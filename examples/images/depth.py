"""Fifty layers with residual connections and without: ``python depth.py`` trains both on 8 × 8 digits, in a minute.

Both are the residual network of He et al. 2015 (arXiv 1512.03385, section 4.2) with batch normalisation, depth 50; the
plain one lacks only the additions. The folder ``--output`` gets a picture: the norm of each gradient of a convolution
before the first step, and the loss of each epoch. scikit-learn brings the digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import lamella
import lamella.layers as L
from lamella import models, training


class PlainBlock(models.BasicBlock):
    """The two convolutions of a block, and nothing added to them."""

    def forward(self, x: Any) -> lamella.Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x), relu=True)), relu=True)


BLOCKS = {"residual": models.BasicBlock, "plain": PlainBlock}


def network(kind: str, blocks: int, width: int, rng: lamella.Generator) -> models.ResNet:
    """Depth 6 blocks + 2."""
    return models.ResNet(BLOCKS[kind], (blocks,) * 3, 10, 1, width=width, small_images=True, rng=rng)


def gradient_norms(model: Any, x: Any, y: Any) -> list[float]:
    """Of the weight of each 3 × 3 convolution, from the image to the classes."""
    model.zero_grad()
    L.cross_entropy(model(x), y).backward()
    weights = [p for name, p in model.named_parameters() if name.endswith(("conv1.weight", "conv2.weight"))]
    norms = [float(np.linalg.norm(np.asarray(weight.grad, dtype="float64"))) for weight in weights]
    model.zero_grad()
    return norms


def measure(blocks: int = 8, width: int = 8, epochs: int = 8, examples: int = 1438, seed: int = 0) -> dict[str, Any]:
    """For each kind the gradient norms at the beginning and what ``fit`` found."""
    images, labels = training.digits()
    rng = lamella.Generator(seed)
    data, test = training.split(
        images.reshape(-1, 1, 8, 8), labels, fractions=(0.8, 0.2), rng=rng.split(0), stratify=labels
    )
    data = tuple(array[:examples] for array in data)
    found = {}
    for kind in BLOCKS:
        model = network(kind, blocks, width, rng.split(1))
        norms = gradient_norms(model, data[0][:256], data[1][:256])
        history = training.fit(
            model,
            data,
            loss=L.cross_entropy,
            optimizer=training.SGD(model.parameters(), lr=0.05, momentum=0.9),
            epochs=epochs,
            validation=test,
            rng=rng.split(2),
            progress=False,
            explain=False,
        )
        found[kind] = {"norms": norms, "history": history}
    return found


def draw(found: dict[str, Any]) -> Any:
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for kind, one in found.items():
        left.semilogy(range(1, len(one["norms"]) + 1), one["norms"], label=kind)
        right.plot(range(1, len(one["history"]) + 1), one["history"]["loss"], label=kind)
    left.set(xlabel="convolution, from the image on", title="norm of the gradient before the first step")
    right.xaxis.get_major_locator().set_params(integer=True)
    right.set(xlabel="epoch", title="cross entropy on the training digits")
    left.legend()
    right.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("images-output"))
    arguments = parser.parse_args()
    found = measure(epochs=arguments.epochs)
    for kind, one in found.items():
        norms, last = one["norms"], one["history"].last
        print(
            f"{kind:<9} gradient norms from {norms[0]:.3g} at the first convolution to {norms[-1]:.3g} at the last "
            f"({norms[0] / norms[-1]:.1f} times); loss {last['loss']:.3f}, accuracy {last['validation_accuracy']:.3f}"
        )
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(arguments.output / "depth.png", dpi=110)
    print(arguments.output / "depth.png")


if __name__ == "__main__":
    main()
