"""Attention: every query looks at the keys and takes a mean of their values, softmax(Q Kᵀ / √d) V.

- Weights are positive and sum to 1; that of a masked key is 0: under a causal mask nothing depends on what follows.
- Trained to write words backwards, position i looks at position T − 1 − i; a head without positions cannot learn it.
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
from lamella.interop import plot


def by_hand(q, k, v, mask=True, scale=None):
    """Output and weights for arrays (..., T, d); ``mask`` is True where a query may look."""
    scores = np.where(mask, q @ k.mT * (scale or q.shape[-1] ** -0.5), -np.inf)  # (..., L, S)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (p := p / p.sum(axis=-1, keepdims=True)) @ v, p


class Reader(L.Module):
    """Characters, their positions (or none), one head, and a linear layer that names a character for each position."""

    def __init__(self, kinds, length, width, rng):
        self.characters, self.positions = L.Embedding(kinds, width, rng=rng), L.Embedding(length or 1, width, rng=rng)
        self.attention = L.MultiheadAttention(width, 1, batch_first=True, rng=rng)
        self.name, self.length = L.Linear(width, kinds, rng=rng), length

    def forward(self, words):
        x = self.characters(words) + (self.positions(np.arange(self.length)) if self.length else 0)
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


def measure(rng=None, steps=300, widths=(1, 4, 16, 64, 256, 1024), queries=200, keys=16):
    rng, found = rng or lamella.Generator(0), {"widths": widths}
    qk = [(rng.normal((queries, 1, d)), rng.normal((queries, keys, d))) for d in widths]
    for name, power in (("q·k", 0), ("q·k / √d", -0.5)):
        p = [by_hand(q, k, k, scale=k.shape[-1] ** power)[1] for q, k in qk]
        entropy = [float(-(w * np.log(np.maximum(w, 1e-30))).sum(-1).mean() / np.log(keys)) for w in p]
        found[name] = {"entropy / ln S": entropy, "1 − Σ p²": [float(1 - (w**2).sum(-1).mean()) for w in p]}
    found["causal"] = by_hand(*rng.normal((3, 8, 4)), np.tri(8, dtype=bool))[1]
    found["accuracy"], found["reversal"] = reversal(rng, True, steps)
    return found | {"accuracy without positions": reversal(rng, False, steps)[0]}


def draw(found):
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for i, name in enumerate(("causal", "reversal")):
        plot.attention_map(found[name], ax=axes[i]).set_title(name)
    for name, style in (("q·k", "--"), ("q·k / √d", "-")):
        axes[2].semilogx(found["widths"], np.transpose(list(found[name].values())), style, label=list(found[name]))
    axes[2].set(title="q·k (dashed) and q·k / √d", xlabel="width of the head d"), axes[2].legend()
    return figure


if __name__ == "__main__":
    found = measure()
    print({name: value for name, value in found.items() if name != "causal"})
    (folder := Path(*sys.argv[1:] or ["lectures-output"])).mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "attention.png")
