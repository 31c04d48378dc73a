"""Attention: every query looks at the keys and takes a mean of their values, softmax(Q Kᵀ / √d) V.

- The weights of a query are positive and sum to 1; written in NumPy, the formula gives what the layer gives.
- A masked key has weight 0 exactly: under a causal mask nothing depends on what comes later.
- Trained to write a word backwards, position i looks at position T − 1 − i, with all but a few per cent of its weight.
  It needs the positions for that: without them a word is a bag of characters.
- Why √d: q and k of variance 1 have scores q·k of variance d. Undivided, the softmax of wide heads is nearly one-hot:
  its entropy goes to 0, and so does the trace of its Jacobian, 1 − Σ p². Divided by √d, both stay.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import lamella
import lamella.layers as L
from lamella import training


def by_hand(q, k, v, mask=True, scale=None):
    """Output and weights for arrays (..., T, d); ``mask`` is True where a query may look."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = np.where(mask, q @ k.swapaxes(-1, -2) * scale, -np.inf)  # (..., L, S)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (p := p / p.sum(axis=-1, keepdims=True)) @ v, p


class Reader(L.Module):
    """Characters, their positions (or none), one head, and a linear layer that names a character for each position."""

    def __init__(self, kinds, length, width, rng):
        self.characters, self.positions = L.Embedding(kinds, width, rng=rng), L.Embedding(length or 1, width, rng=rng)
        self.attention = L.MultiheadAttention(width, 1, batch_first=True, rng=rng)
        self.name, self.places = L.Linear(width, kinds, rng=rng), np.arange(length)

    def forward(self, words):
        x = self.characters(words) + (self.positions(self.places) if len(self.places) else 0)
        y, self.weights = self.attention(x, x, x)
        return self.name(y).reshape(-1, self.name.out_features)


def reversal(rng, positions, steps, length=8, kinds=10):
    """Accuracy in writing words backwards, and the mean attention, on the last of many random words."""
    model = Reader(kinds, length if positions else 0, 32, rng)
    optimizer = training.Adam(model.parameters(), lr=3e-3)
    for words in rng.integers(0, kinds, (steps, 64, length)):
        logits, backwards = model(words), words[:, ::-1].ravel()
        optimizer.zero_grad()
        L.cross_entropy(logits, backwards).backward()
        optimizer.step()
    return training.accuracy(logits, backwards), model.weights.to_numpy().mean(axis=0)  # words not yet learned from


def measure(rng=None, steps=300, widths=(1, 4, 16, 64, 256, 1024), queries=500, keys=16):
    rng, found = rng or lamella.Generator(0), {"widths": widths}
    for name, power in (("q·k", 0), ("q·k / √d", -0.5)):
        p = [by_hand(*(rng.normal((queries, n, d)) for n in (1, keys, keys)), scale=d**power)[1] for d in widths]
        entropy = [float(-(w * np.log(np.maximum(w, 1e-30))).sum(-1).mean() / np.log(keys)) for w in p]
        found[name] = {"entropy": entropy, "slope": [float(1 - (w**2).sum(-1).mean()) for w in p]}
    found["causal"] = by_hand(*rng.normal((3, 8, 4)), np.tri(8, dtype=bool))[1]
    found["accuracy"], found["reversal"] = reversal(rng, True, steps)
    return found | {"accuracy without positions": reversal(rng, False, steps)[0]}


def draw(found):
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, name in zip(axes[:2], ("causal", "reversal"), strict=True):
        axis.imshow(found[name], vmin=0, vmax=1)
        axis.set(title=f"weights, {name}", xlabel="key", ylabel="query")
    for name, style in (("q·k", "--"), ("q·k / √d", "-")):
        for what, values in found[name].items():
            axes[2].semilogx(found["widths"], values, style, label=f"{what}, {name}")
    axes[2].set(title="why √d", xlabel="width of the head d", ylabel="entropy / ln S, trace of the Jacobian")
    axes[2].legend()
    return figure


if __name__ == "__main__":
    found = measure()
    for name in ("q·k", "q·k / √d", "reversal", "accuracy", "accuracy without positions"):
        print(f"{name}: {found[name]}")
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "attention.png")
