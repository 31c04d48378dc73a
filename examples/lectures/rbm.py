"""Restricted Boltzmann machines: p(v, h) = exp(b·v + c·h + h·W v) / Z, stochastic units, learning without targets.

- ∂ log p(v) / ∂W is E[h vᵀ] under the data minus that under the model. Where Z is a sum over few states both are exact,
  and small steps along the gradient raise the likelihood each time.
- CD-k takes the second term from k Gibbs steps begun at the data, persistent CD from chains that never end: neither is
  the gradient, and yet both end far above where they began.
- On digits, 16 hidden units are few enough to know Z (2^16 states): the likelihood of binary images not learned from
  is above that of independent pixels. Gaussian visible units learn real values alike.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
from lamella import models, training
from lamella.interop import plot

HOW = {"exact gradient": 0, "CD-1": 1, "CD-10": 10, "persistent CD": 1}  # Gibbs steps


def learn(rbm, x, how, epochs, lr, rng, judge=None):  # the exact mean of log p(judge) before each epoch
    optimizer, chain, curve = training.SGD(rbm.parameters(), lr=lr), None, []
    for epoch in range(epochs):
        curve += [] if judge is None else [float(rbm.log_likelihood(judge).mean())]
        optimizer.lr = lr * (1 - 0.9 * epoch / epochs)
        for (v,) in training.batches(x, batch_size=70, rng=rng):
            if how == "exact gradient":
                loss, end = -rbm.log_likelihood(v).mean(), None
            else:
                loss, end = rbm.contrastive_divergence(v, chain, steps=HOW[how])
            chain = end if how == "persistent CD" else None
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return np.array(curve)


def measure(rng=None, steps=800, epochs=120, chains=36):
    rng, bits, found = rng or lamella.Generator(0), np.arange(8)[:, None] >> np.arange(3) & 1, {}
    bars = np.unique([*np.repeat(bits, 3, axis=1), *np.tile(bits, 3)], axis=0).astype("float32")  # 14 of 3 x 3 pixels
    weight = rng.normal((8, 9), 0.0, 0.3)
    for how in HOW:
        rbm = models.RBM(9, 8, rng=rng)
        lamella.layers.init.assign(rbm.weight, weight)
        found[how] = learn(rbm, np.tile(bars, (5, 1)), how, steps, 0.5, rng, bars)
    test, binary = np.arange(1797) % 5 == 0, ((x := training.digits()[0]) > 0.5).astype("float32")
    on, real = binary[~test].mean(axis=0).clip(1e-3, 1 - 1e-3), (x - x[~test].mean(axis=0)) / x[~test].std()
    found["independent"] = np.log(np.where(binary[test] > 0, on, 1 - on)).sum(axis=1).mean()
    for visible, images, lr in (("bernoulli", binary, 0.2), ("gaussian", real, 0.03)):
        rbm = models.RBM(64, 16, visible=visible, rng=rng)
        found[visible] = learn(rbm, images[~test], "persistent CD", epochs, lr, rng, images[test])
    wide = models.RBM(64, 100, rng=rng)
    learn(wide, binary[~test], "persistent CD", epochs, 0.1, rng)
    samples = wide.visible_mean(wide.sample_hidden(wide.sample(chains)))  # after 1000 Gibbs steps
    return found | {"filters": wide.weight.to_numpy()[:chains], "samples": samples.to_numpy().reshape(-1, 8, 8)}


def draw(found):
    figure, (small, large, samples, filters) = plt.subplots(1, 4, figsize=(17, 4.5), layout="constrained")
    small.plot(np.transpose([found[how] for how in HOW]), label=list(HOW))
    small.axhline(-np.log(14), color="0.7", label="the most there is: -log 14")
    small.set(title="Bars and stripes: exact log-likelihood", xlabel="step")
    large.plot(found["bernoulli"], label="RBM, 16 hidden units")
    large.axhline(found["independent"], color="0.7", label=f"independent pixels: {found['independent']:.2f}")
    large.set(title="Held-out digits: exact log-likelihood", xlabel="epoch")
    small.legend(), large.legend()
    plot.image_grid(found["samples"], ax=samples).set(title="Samples, 100 hidden units")
    plot.filters(found["filters"], image=(8, 8), ax=filters).set(title="Their filters")
    return figure


if __name__ == "__main__":
    found = measure()
    for name, curve in ((name, found[name]) for name in (*HOW, "bernoulli", "gaussian")):
        print(f"{name}: log-likelihood {curve[0]:.3f}, then {curve[-1]:.3f}, least change {np.diff(curve).min():.1e}")
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "rbm.png")
