"""Why nonlinearity: linear layers one after another are one linear layer, and one linear layer cannot be XOR.

- W₂ (W₁ x + b₁) + b₂ = W x + b with W = W₂ W₁ and b = W₂ b₁ + b₂ (not b₁ + b₂), and so on.
- On XOR the best linear model says 1/2 everywhere: weights 0, mean squared error 1/4. No training helps it.
- Two ReLUs are enough, by hand: w · max(0, W x + c) is 0, 1, 1, 0 for W = [[1, 1], [1, 1]], c = [0, −1], w = [1, −2].
- Training finds such weights where there is a tanh between the layers, and finds 1/2 where there is none.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training

X, Y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
NETWORKS = {"two linear layers": L.Identity, "tanh between them": L.Tanh}


def collapse(layers):  # into one
    weight, bias = np.eye(layers[0].in_features), np.zeros(layers[0].in_features)
    for layer in layers:
        weight, bias = layer.weight.to_numpy() @ weight, layer.weight.to_numpy() @ bias + layer.bias.to_numpy()
    return weight, bias


def by_hand():  # Goodfellow, Bengio and Courville, "Deep Learning", section 6.1
    model = L.Sequential(L.Linear(2, 2), L.ReLU(), L.Linear(2, 1)).to(dtype="float64")
    values = {"0.weight": [[1, 1], [1, 1]], "0.bias": [0, -1], "2.weight": [[1, -2]], "2.bias": [0]}
    model.load_state_dict({name: np.array(value, "float64") for name, value in values.items()})
    return model


def measure(rng=None, depth=6, epochs=500, seeds=5):
    rng = rng or lamella.Generator(0)
    stack = L.Sequential(*[L.Linear(20, 20, rng=rng) for _ in range(depth)]).to(dtype="float64")
    (weight, bias), x = collapse(stack), rng.normal((100, 20)).astype("float64")
    found = {"collapse_error": float(abs(stack(x).to_numpy() - (x @ weight.T + bias)).max())}
    found["least_squares"] = np.linalg.lstsq(np.c_[X, np.ones(4)], Y)[0].ravel()
    found["by_hand"], found["hidden"] = by_hand()(X).to_numpy().ravel(), by_hand()[:2](X).to_numpy()
    found["losses"], found["models"] = {name: [] for name in NETWORKS}, {}
    for name, activation in NETWORKS.items():
        for _ in range(seeds):
            model = lamella.models.mlp(2, 8, 1, activation=activation, rng=rng).to(dtype="float64")
            optimizer = training.Adam(model.parameters(), lr=0.03)
            history = training.fit(model, (X, Y), loss=L.mse_loss, optimizer=optimizer, epochs=epochs, progress=False)
            found["losses"][name].append(history["loss"])
        found["models"][name] = model
    return found


def draw(found):
    figure, ((linear, tanh), (hidden, losses)) = plt.subplots(2, 2, figsize=(12, 10), layout="constrained")
    plane = np.stack(np.meshgrid(*[np.linspace(-0.5, 1.5, 101)] * 2), axis=-1)
    for axis, colour, (name, model) in zip((linear, tanh), ("C3", "C0"), found["models"].items(), strict=True):
        areas = axis.pcolormesh(*plane.T, model(plane).to_numpy()[..., 0].T, vmin=-0.5, vmax=1.5, cmap="RdBu_r")
        axis.set(title=f"Learned by {name}", xlabel="x₁", ylabel="x₂")
        losses.semilogy(np.transpose(found["losses"][name]), color=colour)[0].set_label(name)
    figure.colorbar(areas, ax=[linear, tanh], label="output (XOR is 0 or 1)")
    hidden.axline((0.5, 0), slope=0.5, color="grey", linestyle="--", label="h₁ − 2 h₂ = 1/2")
    hidden.set(title="Two ReLUs by hand: a line separates", xlabel="h₁ = max(0, x₁ + x₂)", ylabel="h₂ = max(0, h₁ − 1)")
    for axis, points in zip((linear, tanh, hidden), (X, X, found["hidden"]), strict=True):
        axis.scatter(*points.T, c=Y, cmap="RdBu_r", edgecolors="black", s=120, zorder=2)
    losses.axhline(0.25, color="grey", linestyle="--", label="1/4, the least a linear model has")
    losses.set(title="Linear layers never pass 1/4", xlabel="epoch", ylabel="mean squared error")
    hidden.legend(), losses.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    print(f"six linear layers and the one that they are differ by {found['collapse_error']:.0e}")
    print("XOR: best linear model", found["least_squares"].round(3), "two ReLUs by hand", found["by_hand"])
    print("mean squared errors:", {name: [f"{run[-1]:.2g}" for run in runs] for name, runs in found["losses"].items()})
    folder = Path(*sys.argv[1:] or ["lectures-output"])
    folder.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "nonlinearity.png")
