"""Backpropagation by hand: two inputs, two hidden and two output units, every number beside the tape's.

- Forwards: net_h = W x + b;  out_h = σ(net_h);  net_o = V out_h + c;  out_o = σ(net_o);  E = Σ (target − out_o)²/2.
- Backwards: δ_o = (out_o − target) out_o (1 − out_o); dE/dV = δ_o out_hᵀ; δ_h = Vᵀδ_o out_h (1 − out_h); dE/dW = δ_h xᵀ
- The tape finds the same numbers. Gradient descent with rate 1/2 makes E smaller at each step, in 10,000 nearly 0.
The values are those of M. Mazur, "A step by step backpropagation example", 2015.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L

X, TARGET = np.array([0.05, 0.10]), np.array([0.01, 0.99])
START = {"W": [[0.15, 0.20], [0.25, 0.30]], "b": [0.35, 0.35], "V": [[0.40, 0.45], [0.50, 0.55]], "c": [0.60, 0.60]}


def forward(p, sigmoid):  # of arrays or of tensors
    values = {"net_h": p["W"] @ X + p["b"]}
    values["out_h"] = sigmoid(values["net_h"])
    values["net_o"] = p["V"] @ values["out_h"] + p["c"]
    values["out_o"] = sigmoid(values["net_o"])
    return values | {"E": ((TARGET - values["out_o"]) ** 2).sum() / 2}


def by_hand():
    y = forward(START, lambda z: 1 / (1 + np.exp(-z)))
    d = {"E": 1.0, "out_o": y["out_o"] - TARGET}
    d["c"] = d["net_o"] = d["out_o"] * y["out_o"] * (1 - y["out_o"])
    d["out_h"] = np.transpose(START["V"]) @ d["net_o"]
    d["b"] = d["net_h"] = d["out_h"] * y["out_h"] * (1 - y["out_h"])
    return y, d | {"V": np.outer(d["net_o"], y["out_h"]), "W": np.outer(d["net_h"], X)}


def measure(rng=None, steps=10_000):
    p = {name: lamella.Parameter(np.array(values)) for name, values in START.items()}
    y, optimizer = forward(p, L.sigmoid), lamella.training.SGD([p["W"], p["V"]], lr=0.5)
    for value in y.values():
        value.retain_grad()
    y["E"].backward()
    by_tape = {name: y[name].to_numpy() for name in y}, {name: t.grad.copy() for name, t in (y | p).items()}
    errors = [float(y["E"])]
    for _ in range(steps):
        optimizer.step()
        optimizer.zero_grad()
        y = forward(p, L.sigmoid)
        y["E"].backward()
        errors.append(float(y["E"]))
    return {"by_hand": by_hand(), "by_tape": by_tape, "errors": errors, "weights": p, "out_o": y["out_o"].to_numpy()}


def draw(found):
    figure, (network, descent) = plt.subplots(1, 2, figsize=(17, 7), layout="constrained", width_ratios=(2, 1))
    (y, d), style = found["by_tape"], {"ha": "center", "va": "center", "bbox": {"fc": "white", "ec": "white"}}
    for i, to, start in np.ndindex(2, 2, 2):
        network.plot([i, i + 1], [-start, -to], color="lightgrey", zorder=0)
        text = f"{START['WV'[i]][to][start]:.2f}\n{d['WV'[i]][to, start]:+.5f}"
        network.text(i + 0.35, -0.65 * start - 0.35 * to, text, **style)
    style["bbox"] = {"boxstyle": "circle", "fc": "lightyellow"}
    units = (X, d["net_h"] @ START["W"]), (y["out_h"], d["net_h"]), (y["out_o"], d["net_o"])
    for i, row in np.ndindex(3, 2):
        network.text(i, -row, f"{'xho'[i]}{row + 1}\n{units[i][0][row]:.4f}\n{units[i][1][row]:+.4f}", **style)
    network.set(title="Below each value its gradient (units: by net input)", xticks=[], yticks=[], ylim=(-1.2, 0.2))
    descent.loglog(found["errors"])
    descent.set(title="Gradient descent with rate 1/2", xlabel="step", ylabel="E")
    return figure


if __name__ == "__main__":
    found = measure()
    for name, value in found["by_hand"][1].items():
        print(f"dE/d{name} by hand {np.ravel(value)} by tape {found['by_tape'][1][name].ravel()}")
    print("E at first, after a step, at the end:", *found["errors"][:2], found["errors"][-1])
    folder = Path(*sys.argv[1:] or ["lectures-output"])
    folder.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "backpropagation.png")
