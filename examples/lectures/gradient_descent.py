"""Gradient descent and its kin on one surface: the mean squared error of a line w x + b, where x is not centred.

- On a surface with curvatures from μ to λ, descent on all data converges for rates below 2/λ and diverges above.
- At best an error shrinks by (κ − 1)/(κ + 1) a step, κ = λ/μ, at the rate 2/(λ + μ); with momentum by √κ in κ's place.
- Mini-batches: their gradient is right on average, with a variance like 1/size; at a constant rate they never settle.
- Normalised descent makes steps of one length, so it never settles either; Adam's first is the rate in each direction.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

METHODS = {  # optimizer, rate of the path that is drawn, examples in a batch
    "all data": (training.SGD, 0.16, None),
    "momentum 0.5": (lambda p, lr: training.SGD(p, lr=lr, momentum=0.5), 0.23, None),
    "mini-batches of 8": (training.SGD, 0.05, 8),
    "normalised": (training.NormalizedGradientDescent, 0.1, None),
    "Adam": (training.Adam, 0.1, None),
}


def descend(x, y, optimizer, rate, size=None, rng=None, steps=100):
    """Each w, dw, b, db from (−1, 2) on; gradients of all examples, or of ``size`` that are drawn for each step."""
    model, path = L.Linear(1, 1).to(dtype="float64"), []
    model.load_state_dict({"weight": np.full((1, 1), -1.0), "bias": np.full(1, 2.0)})
    optimizer = optimizer(model.parameters(), lr=rate)
    for _ in range(steps + 1):
        drawn = slice(None) if size is None else rng.integers(0, len(x), (size,))
        optimizer.zero_grad()
        L.mse_loss(model(x[drawn]), y[drawn]).backward()
        path.append(np.concatenate([v.ravel() for p in model.parameters() for v in (p.to_numpy(), p.grad)]))
        optimizer.step()
    return np.array(path)


def measure(rng=None, steps=100, rates=25):
    rng, rates = rng or lamella.Generator(0), np.geomspace(1e-3, 1, rates)
    x = rng.normal((256, 1), mean=2.0).astype("float64")
    y, columns = 2 * x - 1 + 0.5 * rng.normal((256, 1)), np.c_[x, np.ones(256)]
    best = np.linalg.lstsq(columns, y)[0].ravel()
    found = {"x": x, "y": y, "best": best, "rates": rates, "path": {}, "excess": {}, "sweep": {}}
    found["curvatures"] = np.linalg.eigvalsh(2 * columns.T @ columns / 256)
    for name, (optimizer, rate, size) in METHODS.items():
        paths = [descend(x, y, optimizer, lr, size, rng, steps)[:, ::2] for lr in (rate, *rates)]
        excess = [(((path - best) @ columns.T) ** 2).mean(axis=1) for path in paths]  # of the error over the least
        found["path"][name], found["excess"][name], found["sweep"][name] = paths[0], excess[0], np.array(excess)[1:, -1]
    return found


def draw(found):
    figure, (surface, excess, sweep) = plt.subplots(1, 3, figsize=(20, 6.5), layout="constrained")
    w, b = np.meshgrid(np.linspace(-1.5, 4, 101), np.linspace(-4, 3.5, 101))
    errors = ((w[..., None] * found["x"].T + b[..., None] - found["y"].T) ** 2).mean(axis=-1)
    surface.contourf(w, b, np.log(errors), 25, cmap="Greys")
    for name in METHODS:
        surface.plot(*found["path"][name].T, ".-", label=name)
        excess.semilogy(found["excess"][name])
        sweep.loglog(found["rates"], found["sweep"][name], ".-", label=name)
    surface.plot(*found["best"], "k*", markersize=15)
    surface.set(title="Mean squared error, least at the star", xlabel="w", ylabel="b", xlim=(-1.5, 4))
    excess.set(title="Momentum is fastest; steps of one length do not settle", xlabel="step", ylabel="excess error")
    sweep.axvline(2 / found["curvatures"][-1], color="grey", linestyle="--", label="2/λ")
    sweep.set(title="After 100 steps: all data diverge above 2/λ", xlabel="learning rate", ylim=(1e-12, 1e3))
    surface.legend(), sweep.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    print("curvatures", found["curvatures"])
    for name, excess in found["excess"].items():
        print(f"{name}: error above the least at first {excess[0]:.1e}, then {excess[50]:.1e}, {excess[-1]:.1e}")
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "gradient_descent.png")
