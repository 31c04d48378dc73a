"""Double descent: the test error rises to a peak where a model just fits every example, and falls again beyond.

Random features: a hidden layer that is drawn and never trained, φ(x) = relu(W x) of width p, and on it least squares,
β = pinv(Φ) y, which is of least norm once p ≥ n. A fifth of the n training labels are drawn anew.

- The training error reaches 0 at the interpolation threshold p = n and stays there.
- The test error peaks at p = n, where the only exact fit goes through all the noise with a large ‖β‖.
- Beyond, more features give a smaller ‖β‖ and a smaller test error, in the end below the best of p < n.
- Both layers trained: the median of the seeds peaks within a factor of two of n K / (64 + K) hidden units (K outputs).

Source: Belkin et al. 2019, "Reconciling modern machine-learning practice and the bias-variance trade-off".
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training


def noisy_digits(rng, n):
    """n training images, a fifth of their labels drawn anew, and 1,000 test images; targets one-hot."""
    images, labels = training.digits()
    y, order = np.eye(10, dtype="float32"), rng.permutation(len(images))
    x, train, test = images - images.mean(axis=0), order[:n], order[-1000:]
    noisy = np.where(rng.uniform(n) < 0.2, rng.integers(0, 10, n), labels[train])
    return x[train], y[noisy], x[test], y[labels[test]]


def random_features(rng, data, width):
    """Training error, test error and norm of the weights of least squares on ``width`` random features."""
    layer, (x, y, x_test, y_test) = L.Linear(64, width, bias=False, rng=rng), data
    L.init.assign(layer.weight, L.init.he_normal(layer.weight.shape, rng=rng))
    with lamella.no_grad():
        phi, phi_test = (L.relu(layer(lamella.tensor(a))).to_numpy().astype("float64") for a in (x, x_test))
    beta = np.linalg.lstsq(phi, y, rcond=None)[0]  # of least norm where p > n
    return np.mean((phi @ beta - y) ** 2), np.mean((phi_test @ beta - y_test) ** 2), np.linalg.norm(beta)


def trained(rng, data, units, steps):
    """Training and test error of a network with one hidden layer, trained on all examples at once."""
    model, options = lamella.models.mlp(64, units, 10, rng=rng), {"loss": L.mse_loss, "batch_size": len(data[0])}
    options |= {"optimizer": training.Adam(model.parameters()), "schedule": training.cosine(1e-2, steps)}
    training.fit(model, data[:2], epochs=steps, progress=False, **options)
    return [training.evaluate(model, pair, loss=L.mse_loss)["loss"] for pair in (data[:2], data[2:])]


def measure(rng=None, seeds=5, n=(200, 100), widths=(20, 40, 80, 140, 180, 200, 220, 280, 400, 800, 2000, 4000),
            units=(2, 4, 6, 8, 10, 13, 20, 40, 100, 200), steps=1500):  # fmt: skip
    rng, fixed, learned = rng or lamella.Generator(0), [], []
    for seed in range(seeds):
        data, fewer = noisy_digits(rng.split(seed, 0), n[0]), noisy_digits(rng.split(seed, 1), n[1])
        fixed.append([random_features(rng.split(seed, 2, width), data, width) for width in widths])
        learned.append([trained(rng.split(seed, 3, width), fewer, width, steps) for width in units])
    return {"random features": {"size": widths, "threshold": n[0], "errors": np.array(fixed)},  # (seeds, widths, 3)
            "trained hidden units": {"size": units, "threshold": n[1] * 10 / 74, "errors": np.array(learned)}}


def draw(found):
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, name, curves in zip(axes, found, found.values(), strict=True):
        for i, what in enumerate(("training", "test")):
            low, middle, high = np.maximum(np.quantile(curves["errors"][:, :, i], (0, 0.5, 1), axis=0), 1e-4)
            axis.errorbar(curves["size"], middle, (middle - low, high - middle), marker="o", capsize=3, label=what)
        axis.axvline(curves["threshold"], color="grey", linestyle=":", label="threshold")
        axis.set(xscale="log", yscale="log", xlabel=name, ylabel="squared error (median, range of the seeds)")
        axis.legend()
    return figure


if __name__ == "__main__":
    for name, curves in (found := measure()).items():
        peaks = [curves["size"][i] for i in curves["errors"][:, :, 1].argmax(axis=1)]
        print(f"{name}: the test error of each seed peaks at {peaks}; threshold {curves['threshold']:.0f}")
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "double_descent.png")
