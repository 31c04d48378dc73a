"""Residual and dense connections: depth 50, plain, residual and dense, on handwritten digits.

- Plain, x ← f(x): the first layer's gradient is a product of 50 Jacobians. Weights of PyTorch's default scale leave
  less than 1e-15 of it, and nothing is learned: the loss stays at ln 10.
- He's scale √(2 / n) keeps the plain gradient's size, and yet that network learns slower than the next two.
- Residual, x ← x + f(x), Jacobian 1 + f′: the first gradient is about as large as the last, and f = 0 is the identity.
- Dense, x ← [x, f(x)]: what a layer found reaches the end untouched, and so does the gradient on its way back; each
  layer adds a few units only, so the same depth has fewer parameters.

Source: He et al. 2015, arXiv 1512.03385; Huang et al. 2016, arXiv 1608.06993.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

KINDS = ("plain", "plain, He's scale", "residual", "dense")


def network(kind, depth, rng, width=32, growth=4):
    """64 pixels to ``width`` units, ``depth`` blocks of a ReLU and a linear layer, and 10 classes."""
    blocks, size = [], width
    for _ in range(depth):
        layer = L.Linear(size, growth if kind == "dense" else width, rng=rng)
        if kind == "plain, He's scale":
            L.init.assign(layer.weight, L.init.he_normal(layer.weight.shape, rng=rng))
        block = L.Sequential(L.ReLU(), layer)
        if kind == "dense":
            block, size = L.DenseConnection(block), size + growth
        blocks.append(L.Residual(block) if kind == "residual" else block)
    return L.Sequential(L.Linear(64, width, rng=rng), *blocks, L.Linear(size, 10, rng=rng))


def gradient_norms(model, x, y):
    """The norm of the gradient of each block's weight before any training."""
    L.cross_entropy(model(x), y).backward()
    return [float(np.linalg.norm(next(block.parameters()).grad)) for block in model[1:-1]]


def measure(rng=None, seeds=3, depth=50, epochs=10):
    rng, (x, y), found = rng or lamella.Generator(0), training.digits(), {}
    for kind in KINDS:
        runs = []
        for stream in map(rng.split, range(seeds)):
            model = network(kind, depth, stream)
            norms = gradient_norms(model, x, y)
            options = {"optimizer": training.Adam(model.parameters(), lr=1e-3), "rng": stream, "progress": False}
            history = training.fit(model, (x, y), loss=L.cross_entropy, epochs=epochs, **options)
            runs.append((norms, history["loss"]))
        norms, losses = (np.array(curves) for curves in zip(*runs, strict=True))  # (seeds, depth), (seeds, epochs)
        found[kind] = {"gradient norms": norms, "losses": losses, "parameters": model.num_parameters()}
    return found


def draw(found):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    words = (("block", "gradient norm before training"), ("epoch", "training loss"))
    for axis, name, (across, up) in zip(axes, ("gradient norms", "losses"), words, strict=True):
        for kind in found:
            curves = found[kind][name]
            axis.semilogy(range(1, curves.shape[1] + 1), np.median(curves, axis=0), label=kind)
        axis.set(xlabel=across, ylabel=up)
    axes[0].legend()
    return figure


if __name__ == "__main__":
    found = measure()
    for kind, runs in found.items():
        ratio, loss = np.median(runs["gradient norms"][:, 0] / runs["gradient norms"][:, -1]), runs["losses"][:, -1]
        print(f"{kind}: first gradient / last {ratio:.1e}, losses {loss.round(3)}, {runs['parameters']} parameters")
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "residual.png")
