"""Universal approximation: a hidden layer that is wide enough comes as close to a function as you like.

- Built: σ(w (x − s)) with a large weight w is a step at s, the difference of two a bump. N bumps as high as f in their
  middles, 2 N hidden units, are never further from f than about max|f'|/(2 N).
- Trained: the error falls with the width as well, and fewer units are enough.
Function and construction are those of M. Nielsen, "Neural Networks and Deep Learning", chapter 4.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

POINTS = np.linspace(0, 1, 1001)[:, None]


def f(x):
    return 0.2 + 0.4 * x**2 + 0.3 * x * np.sin(15 * x) + 0.05 * np.cos(50 * x)


def built(bumps, steepness=1e4):
    edges = np.linspace(0, 1, bumps + 1)
    heights = f((edges[:-1] + edges[1:]) / 2)
    edges[[0, -1]] = -1, 2  # the outer bumps reach beyond [0, 1]
    model = L.Sequential(L.Linear(1, 2 * bumps), L.Sigmoid(), L.Linear(2 * bumps, 1, bias=False)).to(dtype="float64")
    L.init.assign(model[0].weight, np.full((2 * bumps, 1), steepness * bumps))
    L.init.assign(model[0].bias, -steepness * bumps * np.stack([edges[:-1], edges[1:]], axis=1).ravel())  # up, down
    L.init.assign(model[2].weight, np.stack([heights, -heights], axis=1).reshape(1, -1))
    return model


def trained(width, rng, steps):
    model = L.Sequential(L.Linear(1, width, rng=rng), L.Tanh(), L.Linear(width, 1, rng=rng)).to(dtype="float64")
    L.init.assign(model[0].weight, L.init.normal((width, 1), std=30, rng=rng))
    L.init.assign(model[0].bias, -model[0].weight.to_numpy()[:, 0] * rng.uniform(width))  # it bends within [0, 1]
    options = {"optimizer": training.Adam(model.parameters()), "schedule": training.cosine(0.01, steps)}
    data = POINTS[::4], f(POINTS[::4])
    training.fit(model, data, loss=L.mse_loss, epochs=steps, batch_size=len(POINTS), progress=False, **options)
    return model


def measure(rng=None, bumps=(5, 10, 20, 40, 80, 160), widths=(2, 4, 8, 16, 32, 64), seeds=3, steps=2000):
    rng, found = rng or lamella.Generator(0), {"trained": {}}
    found["built"] = {2 * number: [built(number)(POINTS).to_numpy()] for number in bumps}
    for width in widths:
        found["trained"][width] = [trained(width, rng, steps)(POINTS).to_numpy() for _ in range(seeds)]
    return found | {"slope": float(abs(np.diff(f(POINTS), axis=0)).max() / (POINTS[1] - POINTS[0]).item())}


def errors(curves):  # by width, the median of the seeds
    return {width: float(np.median([abs(y - f(POINTS)).max() for y in ys])) for width, ys in curves.items()}


def draw(found):
    figure, axes = plt.subplots(1, 3, figsize=(18, 5.5), layout="constrained")
    for axis, kind, widths in ((axes[0], "built", {20, 80}), (axes[1], "trained", {4, 8, 64})):
        axis.plot(POINTS, f(POINTS), "k", linewidth=3, alpha=0.3, label="f")
        for width in sorted(found[kind].keys() & widths):
            axis.plot(POINTS, found[kind][width][0], label=f"{width} hidden units")
        axis.set(title=f"Weights {kind}", xlabel="x", ylabel="y")
        axes[2].loglog(list(found[kind]), list(errors(found[kind]).values()), "o-", label=kind)
    units = np.array(list(found["built"]))
    axes[2].loglog(units, found["slope"] / units, "k--", label="max|f′| / units")
    axes[2].set(title="More units, less error", xlabel="hidden units", ylabel="greatest error on [0, 1]")
    for axis in axes:
        axis.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    for kind in ("built", "trained"):
        print(kind, "greatest error by hidden units:", {width: f"{e:.3f}" for width, e in errors(found[kind]).items()})
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "universal_approximation.png")
