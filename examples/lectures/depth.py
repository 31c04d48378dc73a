"""Advantages of depth: folding a line d times makes 2ᵈ pieces, and a shallow network needs a unit for each of them.

- Two ReLUs are a tent, g(x) = 2 max(0, x) − 4 max(0, x − 1/2). Composed d times, so with 2 d units in d layers, it is a
  sawtooth of 2ᵈ linear pieces on [0, 1] exactly.
- A hidden layer of m ReLUs has at most m + 1 pieces and crosses 1/2 no more often, so of the 2ᵈ + 1 ends of the pieces
  it takes at least (2ᵈ − 1 − m)/2 for the wrong side of 1/2, however it is fitted; 2ᵈ units are enough.
Source: M. Telgarsky, "Benefits of depth in neural networks", 2016.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella.layers as L

POINTS = np.linspace(0, 1, 2**10 + 1)[:, None]


def sawtooth(depth):  # the weights between two layers are a tent's output weights, once for each unit that follows
    layers = [L.Linear(1, 2), *(L.Linear(2, 2) for _ in range(depth - 1)), L.Linear(2, 1)]
    for i, layer in enumerate(layers):
        L.init.assign(layer.weight, np.ones((layer.out_features, 1)) * ([[1.0]] if i == 0 else [[2.0, -4.0]]))
        L.init.assign(layer.bias, np.array([0, -0.5])[: layer.out_features])
    return L.Sequential(layers[0], *(part for layer in layers[1:] for part in (L.ReLU(), layer))).to(dtype="float64")


def fitted(units, y):
    """One hidden layer of ReLUs that bend at equal distances, with the output weights that come closest to y."""
    model = L.Sequential(L.Linear(1, units), L.ReLU(), L.Linear(units, 1)).to(dtype="float64")
    L.init.assign(model[0].weight, np.ones((units, 1)))
    L.init.assign(model[0].bias, -np.arange(units) / units)
    weights = np.linalg.lstsq(np.c_[model[:2](POINTS).to_numpy(), np.ones(len(POINTS))], y)[0]
    L.init.assign(model[2].weight, weights[:-1].T)
    L.init.assign(model[2].bias, weights[-1])
    return model


def measure(rng=None, deepest=8, depth=6, widths=(2, 4, 8, 16, 32, 48, 56, 60, 63, 64, 96, 128)):
    found = {"y": {d: sawtooth(d)(POINTS).to_numpy() for d in range(1, deepest + 1)}, "wrong": {}, "error": {}}
    found["pieces"] = {d: int((abs(np.diff(y[:, 0], 2)) > 1e-9).sum()) + 1 for d, y in found["y"].items()}
    model, ends = sawtooth(depth), np.linspace(0, 1, 2**depth + 1)[:, None]
    for units in widths:
        shallow = fitted(units, model(POINTS).to_numpy())
        found["wrong"][units] = int(((shallow(ends) > 0.5) != (model(ends) > 0.5)).sum())
        found["error"][units] = float(L.mse_loss(shallow(POINTS), model(POINTS)))
    return found | {"deep units": 2 * depth, "least": {units: max(0, (2**depth - 1 - units) / 2) for units in widths}}


def draw(found):
    figure, (curves, pieces, wrong) = plt.subplots(1, 3, figsize=(18, 5.5), layout="constrained")
    for d in sorted({1, 3, 5} & set(found["y"])):
        curves.plot(POINTS, found["y"][d] + 0.6 * d, label=f"{2 * d} units in {d} layer{'s' * (d > 1)}")
    curves.set(title="Tents composed, drawn one above another", xlabel="x", ylabel="network", yticks=[])
    units = 2 * np.array(list(found["pieces"]))
    pieces.semilogy(units, list(found["pieces"].values()), "o-", label="deep, two units a layer")
    pieces.semilogy(units, units + 1, "--", label="one hidden layer, at most")
    pieces.set(title="Depth doubles the pieces with every layer", xlabel="hidden units", ylabel="linear pieces")
    wrong.plot(list(found["wrong"]), list(found["wrong"].values()), "o-", label="one hidden layer, fitted")
    wrong.plot(list(found["least"]), list(found["least"].values()), "--", label="the least that is possible")
    wrong.plot(found["deep units"], 0, "k*", markersize=15, label="deep")
    wrong.set(title="Ends of pieces on the wrong side of 1/2", xlabel="hidden units", ylabel="how many")
    for axis in (curves, pieces, wrong):
        axis.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    print("linear pieces by layers of two units:", found["pieces"])
    print("ends on the wrong side by units of one hidden layer:", found["wrong"])
    print("its mean squared error:", {units: f"{error:.0e}" for units, error in found["error"].items()})
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "depth.png")
