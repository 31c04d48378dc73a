"""Validation: how large a network should be, and how long it should train, is seen on data that it does not learn from.

- Underfitting: with too few units the errors on training, validation and test data are all large.
- Overfitting: with many units the training error falls below the noise; the validation error falls, and rises again.
- Early stopping goes back to the epoch of the least validation loss. Test data, which had no say, confirm the choice.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

NOISE = 0.16  # its variance, so the least mean squared error to be expected
GRID = np.linspace(-1, 1, 201, dtype="float32")[:, None]


def sine(examples, rng):
    x = rng.uniform((examples, 1), -1, 1)
    return x, np.sin(4 * x) + NOISE**0.5 * rng.normal((examples, 1))


def learn(width, parts, rng, epochs):
    """All losses by epoch, the epoch with the least validation loss, and the curves learned by then and at the end."""
    model = lamella.models.mlp(1, width, width, 1, activation=L.Tanh, rng=rng)
    found = {"test": [], "curves": {}}

    def look(state):
        found["test"].append(float(L.mse_loss(model(parts["test"][0]), parts["test"][1])))
        found["curves"]["last epoch"] = model(GRID).to_numpy()

    best, optimizer = training.EarlyStopping(patience=None), training.Adam(model.parameters(), lr=0.01)
    history = training.fit(
        model, parts["train"], loss=L.mse_loss, optimizer=optimizer, epochs=epochs, validation=parts["validation"],
        batch_size=200, callbacks=[look, best], rng=rng, progress=False,
    )  # fmt: skip
    found["curves"]["best epoch"] = model(GRID).to_numpy()  # early stopping has gone back to it
    return found | {"train": history["loss"], "validation": history["validation_loss"], "best": best.best_epoch}


def measure(rng=None, widths=(1, 2, 4, 8, 32, 128), epochs=1500):
    rng = rng or lamella.Generator(0)
    parts = {name: sine(size, rng) for name, size in {"train": 30, "validation": 200, "test": 1000}.items()}
    return {"runs": {width: learn(width, parts, rng, epochs) for width in widths}, "train": parts["train"]}


def draw(found):
    figure, (capacity, losses, curves) = plt.subplots(1, 3, figsize=(19, 5.5), layout="constrained")
    widths, runs = list(found["runs"]), list(found["runs"].values())
    large = runs[-1]
    for part in ("train", "validation", "test"):
        capacity.loglog(widths, [run[part][-1] for run in runs], "o-", label=part)
        losses.loglog(range(1, len(large[part]) + 1), large[part], label=part)
    losses.axvline(large["best"], color="black", linestyle=":", label=f"epoch {large['best']}, the best")
    capacity.set(title="Too few units underfit, many overfit", xlabel="units in each of two hidden layers")
    losses.set(title=f"{widths[-1]} units: when to stop", xlabel="epoch")
    for axis in (capacity, losses):
        axis.axhline(NOISE, color="grey", linestyle="--", label="noise")
        axis.set(ylabel="mean squared error")
    curves.plot(*found["train"], "k.", label="30 examples")
    curves.plot(GRID, np.sin(4 * GRID), color="grey", linestyle="--", label="without noise")
    for name, y in large["curves"].items():
        curves.plot(GRID, y, label=f"{widths[-1]} units, {name}")
    curves.set(title="The noise is learned by heart", xlabel="x", ylabel="y")
    for axis in (capacity, losses, curves):
        axis.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    for width, run in found["runs"].items():
        ends = [f"{part} {run[part][-1]:.3f}" for part in ("train", "validation", "test")]
        print(f"{width} units: at the end", *ends, f"at epoch {run['best']} test {run['test'][run['best'] - 1]:.3f}")
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "validation.png")
