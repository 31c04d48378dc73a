"""Autoencoders on digits: x comes back from a code h = f(x) as y = g(h); what the code cannot hold is lost.

- Linear: at its least error g's weight spans the first k principal components (angles < 1e-3 rad); the error is PCA's.
- With hidden layers k numbers hold more: the error on images not learned from is below PCA's.
- Denoising: what has learned to give x from x + noise cleans images far better than what has never seen noise.
- Sparse: a code longer than x may learn a copy. With Ω(h) in the loss, Σ|h| or KL(ρ ‖ mean of h), few units are on.
- Convolutional: below PCA's error with less than half the parameters of the deep one, as the image shares them.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.interop import plot

error = training.mean_squared_error
PENALTIES = {"none": lambda h: 0.0, "L1": models.l1_penalty, "KL": lambda h: models.kl_penalty(h, rho=0.05)}


def learn(model, x, rng, epochs, omega=PENALTIES["none"]):
    schedule, optimizer = training.cosine(3e-3, epochs * -(-len(x) // 64)), training.Adam(model.parameters())
    options = {"optimizer": optimizer, "epochs": epochs, "schedule": schedule, "rng": rng, "progress": False}
    training.fit(model, (x, x), loss=lambda y, x: L.mse_loss(y, x) + 1e-3 * omega(model.encode(x)), **options)
    return model


def measure(rng=None, steps=4000, epochs=200, lengths=(8, 16, 32)):
    rng, x, errors, angles = rng or lamella.Generator(0), training.digits()[0], {}, []
    x, test = x[np.arange(len(x)) % 5 > 0], x[::5]
    mean, found = x.mean(axis=0), {"lengths": lengths, "errors": errors, "angles": angles, "clean": test}
    axes = np.linalg.svd(x - mean, full_matrices=False)[2]
    for k in lengths:
        linear, deep = models.autoencoder(64, k, rng=rng), models.autoencoder(64, 128, k, rng=rng)
        sgd, options = training.SGD(linear.parameters(), momentum=0.99), {"epochs": steps, "batch_size": len(x)}
        options |= {"schedule": training.warm_up(training.constant(6.0), 500), "rng": rng, "progress": False}
        training.fit(linear, (x - mean, x - mean), loss=L.mse_loss, optimizer=sgd, **options)
        spanned = np.linalg.qr(linear.decoder[0].weight.to_numpy().astype("float64"))[0]
        beside = spanned - axes[:k].T @ (axes[:k] @ spanned)  # its singular values are the sines of the angles
        angles.append(float(np.arcsin(np.linalg.norm(beside, 2))))
        errors[f"PCA, k = {k}"] = (((test - mean) @ axes[k:].T) ** 2).sum() / test.size
        errors[f"linear, k = {k}"] = error(linear(test - mean), test - mean)
        errors[f"deep, k = {k}"] = error(learn(deep, x, rng, epochs)(test), test)
    conv, images = models.conv_autoencoder((1, 8, 8), 16, channels=(16,), rng=rng), test.reshape(-1, 1, 8, 8)
    errors["convolutional, k = 16"] = error(learn(conv, x.reshape(-1, 1, 8, 8), rng, epochs // 3)(images), images)
    found["noisy"] = test + rng.normal(test.shape, 0.0, 0.4)
    for name, noise in (("plain", None), ("denoising", L.GaussianNoise(0.4, rng=rng.spawn()))):
        model = learn(models.autoencoder(64, 128, 32, noise=noise, rng=rng), x, rng, epochs)
        found[name] = model(found["noisy"]).to_numpy()
        errors[f"{name}, noisy images"] = error(found[name], test)
    for name, omega in PENALTIES.items():
        model = learn(models.autoencoder(64, 100, code_activation=L.Sigmoid, rng=rng), x, rng, epochs, omega)
        errors[f"Ω: {name}"], found[f"Ω: {name}"] = error(model(test), test), model.encode(test).to_numpy()
    return found


def draw(found):
    figure, (left, images, on) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for name, line in {"PCA": "o-", "linear": "x--", "deep": "o-"}.items():
        left.semilogy(found["lengths"], [found["errors"][f"{name}, k = {k}"] for k in found["lengths"]], line)
    left.set(title="Error on held-out digits", xlabel="length of the code", ylabel="mean squared error")
    rows = np.stack([found[name][:10] for name in ("clean", "noisy", "plain", "denoising")]).reshape(-1, 8, 8)
    plot.image_grid(rows, columns=10, low=0, high=1, ax=images).set(title="Rows: clean, noisy, plain, denoising")
    for name in PENALTIES:
        on.hist(found[f"Ω: {name}"].ravel(), 40, density=True, histtype="step", label=f"Ω: {name}")
    on.set(title="Values of 100 hidden units", xlabel="h", ylabel="density", yscale="log")
    left.legend(["PCA", "linear", "deep"]), on.legend()
    return figure


if __name__ == "__main__":
    found = measure()
    print("\n".join(f"error of {name}: {error:.4f}" for name, error in found["errors"].items()))
    print("angles:", found["angles"], "on:", {name: (found[f"Ω: {name}"] > 0.1).mean().item() for name in PENALTIES})
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "autoencoders.png")
