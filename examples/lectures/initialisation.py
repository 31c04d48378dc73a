"""Initialisation: the weights at the start decide whether a deep network can learn at all.

- Units that start equal stay equal, whatever they learn. With all weights 0 nothing learns but the last bias.
- Small weights, N(0, 0.01²): the values, and with them the gradients, shrink by a factor in each layer.
- Large weights, N(0, 1): most tanh units saturate at ±1, values of ReLUs explode, and so do the gradients of both.
- Glorot's variance 2/(fan_in + fan_out) suits tanh, He's 2/fan_in suits ReLU: values and gradients keep their size.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

STARTS = {"large, N(0, 1)": L.init.normal, "Glorot": L.init.glorot_normal, "He": L.init.he_normal}
STARTS["small, N(0, 0.01²)"] = lambda shape, rng: L.init.normal(shape, std=0.01, rng=rng)


def network(activation, start, sizes, rng):
    model = lamella.models.mlp(*sizes, activation=activation, rng=rng)
    for layer in model[::2]:
        L.init.assign(layer.weight, start(layer.weight.shape, rng=rng))
        L.init.assign(layer.bias, L.init.zeros(layer.bias.shape))
    return model


def statistics(model, rng, examples):  # by layer: values, their and their gradients' standard deviations
    y, values = rng.normal((examples, model.to(dtype="float64")[0].in_features)).astype("float64"), []
    for linear, activation in zip(model[:-1:2], model[1::2], strict=True):
        values.append(activation(linear(values[-1] if values else y)))
        values[-1].retain_grad()
    values[-1].backward(rng.normal(y.shape).astype("float64"))
    return [(y.to_numpy().ravel(), y.to_numpy().std(), y.grad.std()) for y in values]


def learned(value, rng, epochs):  # the first layer's weights, from weights that are all equal
    data = training.digits()
    model = network(L.Tanh, lambda shape, rng: L.init.constant(shape, value), (64, 30, 10), rng)
    optimizer = training.SGD(model.parameters(), lr=0.1)
    training.fit(model, data, loss=L.cross_entropy, optimizer=optimizer, epochs=epochs, rng=rng, progress=False)
    return model[0].weight.to_numpy()


def measure(rng=None, depth=20, width=100, examples=300, epochs=10):
    rng, found = rng or lamella.Generator(0), {"from equal weights": {}}
    for activation in (L.Tanh, L.ReLU):
        models = {name: network(activation, start, [width] * (depth + 2), rng) for name, start in STARTS.items()}
        found[activation.__name__] = {name: statistics(model, rng, examples) for name, model in models.items()}
    return found | {"from equal weights": {value: learned(value, rng, epochs) for value in (0.0, 0.01)}}


def draw(found):
    figure, axes = plt.subplots(2, 3, figsize=(17, 9), layout="constrained")
    for row, activation in zip(axes, ("Tanh", "ReLU"), strict=True):
        for axis, column, what in ((row[0], 1, "values"), (row[1], 2, "gradients")):
            for name, layers in found[activation].items():
                axis.semilogy(range(1, len(layers) + 1), [layer[column] for layer in layers], ".-", label=name)
            axis.set(title=f"{activation}: {what}", xlabel="layer", ylabel="standard deviation")
    middle = [layers[len(layers) // 2][0] for layers in found["Tanh"].values()]
    axes[0, 2].hist(middle, 20, range=(-1, 1), histtype="step", log=True)
    axes[0, 2].set(title="Large weights saturate tanh", xlabel="value in the middle layer", ylabel="how many")
    axes[1, 2].imshow(found["from equal weights"][0.01], aspect="auto")
    axes[1, 2].set(title="Learned from equal weights: 30 times one unit", xlabel="pixel", ylabel="unit")
    axes[0, 0].legend()
    return figure


if __name__ == "__main__":
    found = measure()
    for activation in ("Tanh", "ReLU"):
        for name, layers in found[activation].items():
            print(activation, name, "values", *[f"{layer[1]:.0e}" for layer in layers[::6]], end=" ")
            print("gradients", *[f"{layer[2]:.0e}" for layer in layers[::6]])
    print("units from equal weights differ by", np.ptp(found["from equal weights"][0.01], axis=0).max())
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "initialisation.png")
