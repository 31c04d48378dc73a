"""Activations: a function, its derivative, and what the derivative does to learning.

- The backward pass is the closed form of the derivative: σ' = σ (1 − σ), tanh' = 1 − tanh², ReLU' = 1{x > 0}, …
- Sigmoids saturate: σ' ≤ 1/4, so d of them in a row leave a gradient of at most 4⁻ᵈ; ReLUs leave 1 where x > 0.
- A ReLU is dead if it is 0 for every example: no gradient. After small weights, biases of 0.1 keep ReLUs alive, 0 not.
- Zero-centred: for inputs N(0, 1) the mean of tanh is 0, of σ 1/2, of ReLU 1/√(2π).
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import expit

import lamella
import lamella.layers as L
from lamella import training

DERIVATIVES = {  # those of the others stand in the test of this lecture
    "sigmoid": lambda x: expit(x) * (1 - expit(x)),
    "tanh": lambda x: 1 - np.tanh(x) ** 2,
    "relu": lambda x: x > 0,
}
NAMES = "sigmoid tanh relu gelu elu silu leaky_relu celu selu mish softplus softsign softshrink hardshrink tanhshrink "
NAMES += "logsigmoid hardsigmoid hardswish hardtanh relu6 step sign"
FUNCTIONS = {name: getattr(L, name) for name in NAMES.split()}
FUNCTIONS |= {"swish": lambda x: L.swish(x, 2.0), "threshold": lambda x: L.threshold(x, 1.0, -0.5)}
FUNCTIONS["prelu"] = lambda x: L.prelu(x, np.full(1, 0.25, x.dtype))


def dead_units(bias, rng, epochs):  # the share of each of five layers
    x, y = training.digits()
    model = lamella.models.mlp(64, 100, 100, 100, 100, 100, 10, rng=rng)
    for layer in model[::2]:
        L.init.assign(layer.weight, L.init.normal(layer.weight.shape, std=0.01, rng=rng))
        L.init.assign(layer.bias, L.init.constant(layer.bias.shape, bias))
    optimizer = training.SGD(model.parameters(), lr=0.1)
    training.fit(model, (x, y), loss=L.cross_entropy, optimizer=optimizer, epochs=epochs, rng=rng, progress=False)
    return [float((model[:end](x).to_numpy() == 0).all(axis=0).mean()) for end in (2, 4, 6, 8, 10)]


def measure(rng=None, examples=1_000_000, epochs=3, depth=8):
    rng, x = rng or lamella.Generator(0), np.linspace(-7, 7, 700)
    inputs, dead = rng.normal(examples), {bias: dead_units(bias, rng, epochs) for bias in (0, 0.1)}
    found = {"x": x, "y": {}, "slope": {}, "mean": {}, "row": {}, "dead": dead}
    for name, f in FUNCTIONS.items():
        found["y"][name], found["mean"][name] = f(x).to_numpy(), float(f(inputs).mean())
        found["slope"][name] = lamella.grad(lambda x, f=f: f(x).sum())(x).to_numpy()
        found["row"][name] = [float(lamella.grad(L.Sequential(*[f] * d))(np.ones(1))) for d in range(depth + 1)]
    return found


def draw(found):
    figure = plt.figure(figsize=(16, 9), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2, 1))
    left.suptitle("Activations f (solid) and their derivatives f′ (dashed), from our backward pass")
    for name, axis in zip(FUNCTIONS, left.subplots(5, 5, sharex=True, sharey=True).flat, strict=True):
        axis.plot(found["x"], found["y"][name], found["x"], found["slope"][name], "--")
        axis.set(title=name, ylim=(-1.8, 2.2))
    row, dead, mean = right.subplots(3)
    row.semilogy(np.transpose([found["row"][name] for name in DERIVATIVES]), "o-", label=list(DERIVATIVES))
    row.set(title="Sigmoids in a row lose the gradient", xlabel="activations in a row", ylabel="gradient at x = 1")
    dead.plot(list("12345"), np.transpose(list(found["dead"].values())), "o-", label=["bias 0", "bias 0.1"])
    dead.set(title="After small weights a bias of 0.1 keeps ReLUs alive", xlabel="layer", ylabel="dead units (share)")
    row.legend(), dead.legend()
    mean.bar(NAMES.split()[:6], [found["mean"][name] for name in NAMES.split()[:6]])
    mean.set(title="Of these only tanh is zero-centred", ylabel="mean of f(x) for x from N(0, 1)")
    return figure


if __name__ == "__main__":
    found = measure()
    worst = max(abs(found["slope"][name] - f(found["x"])).max() for name, f in DERIVATIVES.items())
    print(f"backward pass and closed form differ by at most {worst:.1e}; dead ReLUs by bias and layer: {found['dead']}")
    for name in DERIVATIVES:
        print(f"{name}: gradient of eight in a row {found['row'][name][-1]:.1e}, mean {found['mean'][name]:.3f}")
    folder = Path(*sys.argv[1:] or ["lectures-output"])
    folder.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "activations.png")
