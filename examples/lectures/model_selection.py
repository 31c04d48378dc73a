"""Model selection: how good a way of training is, how sure that is, and which of many is best.

- k-fold cross-validation: each example judges once and trains k − 1 times. The mean of the folds varies less from one
  data set to the next than one split does: by about √(variance of the folds / k), rather by more, for the folds'
  training sets overlap.
- Search over learning rate, width and depth: first comes the rate. Below 0.001 too little is learned in the time, above
  0.1 nothing at all; between them units help.
- The best of many looks better than it is, for it was chosen for its luck as well: keep test data for the very end.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training


def search(x, y, rng, trials, epochs):
    """Random settings of networks that learn 200 digits, and which of the other digits each of them reads."""
    settings, right = [], []
    for _ in range(trials):
        rate, width = 10 ** float(rng.uniform((), -4, 0)), int(2 ** rng.uniform((), 2, 7))
        depth = int(rng.integers(1, 4))
        model = lamella.models.mlp(64, *[width] * depth, 10, rng=rng)
        options = {"optimizer": training.Adam(model.parameters(), lr=rate), "epochs": epochs, "rng": rng}
        training.fit(model, (x[:200], y[:200]), loss=L.cross_entropy, progress=False, **options)
        settings.append((rate, width, depth))
        right.append(model(x[200:]).to_numpy().argmax(axis=1) == y[200:])
    return np.array(settings), np.array(right)


def measure(rng=None, sets=11, trials=40, epochs=15, draws=500):
    rng, (x, y), folds, best = rng or lamella.Generator(0), training.digits(), [], []
    order = rng.permutation(len(x))
    x, y = x[order], y[order]
    for i in range(sets):  # of 163 or 164 digits, no two of which share one
        folds.append(training.cross_validate(
            lambda rng: lamella.models.mlp(64, 32, 10, rng=rng), (x[i::11], y[i::11]), 5, loss=L.cross_entropy,
            optimizer=lambda parameters: training.Adam(parameters, lr=0.01), epochs=epochs, rng=rng))  # fmt: skip
    settings, right = search(x, y, rng, trials, epochs)
    for _ in range(draws):  # 50 digits choose, the others tell
        order = rng.permutation(right.shape[1])
        scores = right[:, order[:50]].mean(axis=1)
        best.append((scores.max(), right[scores.argmax(), order[50:]].mean()))
    return {"folds": folds, "settings": settings, "accuracies": right.mean(axis=1), "best": np.array(best)}


def draw(found):
    figure, (folds, search, luck) = plt.subplots(1, 3, figsize=(19, 5.5), layout="constrained")
    for i, result in enumerate(found["folds"]):
        folds.plot([i] * 5, result["accuracy"], ".", color="lightgrey")
        folds.errorbar(i, result.mean["accuracy"], result.standard_error["accuracy"], fmt="o", color="C0", capsize=4)
    folds.set(title="Folds, their mean and its standard error", xlabel="data set of 163 digits", ylabel="accuracy")
    (rates, widths, depths), errors = found["settings"].T, 1 - found["accuracies"]
    dots = search.scatter(rates, errors, c=np.log2(widths), s=40 * depths)
    search.set(title="Random settings; larger dots are deeper", xlabel="learning rate", ylabel="error on unseen digits")
    search.set(xscale="log", yscale="log")
    figure.colorbar(dots, label="width, log₂")
    luck.hist(found["best"], 15, label=["on the 50 digits that chose it", "on the others"])
    luck.set(title="The best of many looks better than it is", xlabel="accuracy", ylabel="draws of 50 digits")
    luck.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    means = [result.mean["accuracy"] for result in found["folds"]]
    print("accuracy by five folds on eleven data sets:", *found["folds"], sep="\n  ")
    single = [result["accuracy"][0] for result in found["folds"]]
    print(f"standard deviation of one fold {np.std(single, ddof=1):.4f}, of the means {np.std(means, ddof=1):.4f}")
    print("the best of forty settings seems and is on average:", *found["best"].mean(axis=0).round(4))
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "model_selection.png")
