"""Dropout and batch norm: two layers that do one thing in training and another in evaluation.

- Dropout sets a value to 0 with probability p and divides the others by 1 − p: noise of mean x and of variance
  x² p / (1 − p). In evaluation it does nothing.
- It regularises: of a network that learns 300 digits with 30 % random labels by heart, dropout of a half leaves fewer
  of the wrong labels learned and more of the new digits right, for every seed.
- Batch norm in training brings each channel to mean 0 and variance 1 over the batch, so a result depends on the whole
  batch; in evaluation it does not: the running statistics, r ← (1 − m) r + m b, have come to those of all the data.
- Nine linear layers learn the digits at rates between 0.01 and 1 with batch norm between them, without it at none.

Source: Srivastava et al. 2014, "Dropout"; Ioffe and Szegedy 2015, arXiv 1502.03167.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training


def regularised(rng, p, epochs, n=300, noise=0.3):
    """Share of the wrong labels that are learned, and of new digits that are read correctly."""
    (x, labels), streams = training.digits(), [rng.split(i) for i in range(5)]  # the same data for every p
    train, new = np.split(streams[0].permutation(len(x)), [n])
    given = np.where(streams[1].uniform(n) < noise, streams[2].integers(0, 10, n), labels[train])
    wrong = given != labels[train]
    model = lamella.models.mlp(64, 256, 256, 10, dropout=p, rng=streams[3])
    options = {"optimizer": training.Adam(model.parameters()), "rng": streams[4], "batch_size": 32, "progress": False}
    training.fit(model, (x[train], given), loss=L.cross_entropy, epochs=epochs, **options)
    return training.accuracy(model(x[train][wrong]), given[wrong]), training.accuracy(model(x[new]), labels[new])


def losses(rng, batch_norm, lr, epochs, depth=8):
    """Training loss of nine linear layers after each epoch of plain gradient descent."""
    norms = [L.BatchNorm1d(64) if batch_norm else L.Identity() for _ in range(depth)]
    layers = [module for norm in norms for module in (L.Linear(64, 64, rng=rng), norm, L.ReLU())]
    model = L.Sequential(*layers, L.Linear(64, 10, rng=rng))
    options = {"optimizer": training.SGD(model.parameters(), lr=lr), "rng": rng, "progress": False}
    return training.fit(model, training.digits(), loss=L.cross_entropy, epochs=epochs, **options)["loss"]


def measure(rng=None, seeds=3, epochs=100, batches=100, rates=(0.01, 0.1, 1.0), descent=5):
    rng, norm, found = rng or lamella.Generator(0), L.BatchNorm1d(1), {"mean": [], "variance": [], "rates": rates}
    found["dropped"] = L.dropout(np.ones(100_000, "f"), 0.5, rng=rng).to_numpy()
    for _ in range(batches):
        norm(rng.normal((64, 1), 5, 2))
        found["mean"].append(norm.running_mean.item())
        found["variance"].append(norm.running_var.item())
    found["dropout"] = {p: np.array([regularised(rng.split(i), p, epochs) for i in range(seeds)]) for p in (0.0, 0.5)}
    for name, wanted in (("without", False), ("with", True)):
        found[name] = [losses(rng.split(9), wanted, lr, descent)[-1] for lr in rates]
    return found


def draw(found):
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    axes[0].hist(found["dropped"][:1000], bins=[-0.5, 0.5, 1.5, 2.5], rwidth=0.8)
    axes[0].set(title="1,000 ones after dropout, p = 1/2", xlabel="value")
    for name in ("mean", "variance"):
        axes[1].plot(found[name], label=f"running {name}")
    axes[1].set(title="batch norm sees N(5, 2²)", xlabel="batch")
    for p, shares in found["dropout"].items():
        axes[2].plot(("wrong labels learned", "new digits right"), shares.T, "o-", color=f"C{int(2 * p)}")
    axes[2].set(title="dropout 0 (blue), 1/2 (orange), seeds", ylabel="share")
    for name in ("without", "with"):
        axes[3].semilogx(found["rates"], found[name], "o-", label=f"{name} batch norm")
    axes[3].set(title="nine layers after five epochs", xlabel="learning rate", ylabel="training loss")
    axes[1].legend(), axes[3].legend()
    return figure


if __name__ == "__main__":
    found = measure()
    print({name: found[name] for name in ("dropout", "rates", "without", "with")})
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "dropout_batch_norm.png")
