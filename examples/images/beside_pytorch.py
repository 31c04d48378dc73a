"""The same training in lamella and in PyTorch: ``python beside_pytorch.py convnet --python /path/to/python``.

Weights to begin with, images after their random changes, order of batches, rates, epochs and threads are the same;
dropout masks are each library's own. Each library has a process. The first ``--timed`` steps are done in turns, also by
PyTorch with channels-last images; with one thread CPU time is measured, with more wall time. Then PyTorch goes on to
the end, and so does lamella, or its accuracy is taken from what ``fashion_mnist.py`` trained: ``--trained FILE``.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from recipes import RECIPES

import lamella
from lamella import training
from lamella.benchmarks import machine

TURN = 5  # steps that a library does before the next one's turn


class Apart:
    """A library in a process of its own."""

    def __init__(self, python: str, library: str, threads: int) -> None:
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self.process = subprocess.Popen(
            [python, str(Path(__file__).with_name("trainer.py")), library, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **dict.fromkeys(variables, str(threads))},
        )
        self.seconds: list[float] = []
        self.version = self.answer()["version"]

    def answer(self) -> dict:
        for line in self.process.stdout:
            if line.startswith("@"):
                return json.loads(line[1:])
        raise SystemExit(f"a library's process ended with exit status {self.process.wait()}; its message is above")

    def ask(self, **order) -> dict:
        print(json.dumps(order), file=self.process.stdin, flush=True)
        return self.answer()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def epoch_of(recipe, x, y, rng, folder):
    """The images of an epoch in the order of its batches, changed as ``fit`` changes them, in files."""
    order = rng.permutation(len(x))
    changes, size = rng.spawn(), recipe.batch
    x, y = x[order], y[order]
    parts = [recipe.augment(x[i : i + size], changes.split(i // size)) for i in range(0, len(x), size)]
    return files_of(folder, "learned", np.concatenate(parts), y)


def files_of(folder, name, x, y):
    files = {"x": str(folder / f"{name}-x.npy"), "labels": str(folder / f"{name}-labels.npy")}
    np.save(files["x"], x)
    np.save(files["labels"], y)
    return files


def pixels(images):
    return np.round(images * 255).astype("uint8")


def compare(name, data, test, *, python, epochs, timed, threads, seed, folder, train_lamella=True):
    """For each library its version, the seconds of its timed steps and, where it was trained, its accuracy."""
    recipe, generator = RECIPES[name], lamella.Generator(seed)
    scale = dict(zip(("mean", "std"), recipe.scale(data[0]), strict=True))
    x, y, judge = pixels(data[0]), data[1], files_of(folder, "test", pixels(test[0]), test[1])
    state = recipe.model(generator.split(0)).state_dict()
    np.savez(folder / "start.npz", **{key: np.asarray(value) for key, value in state.items()})
    begin = {"start": str(folder / "start.npz"), "name": name}
    begin |= {"optimizer": recipe.optimizer.__name__, "settings": recipe.settings}
    sides = {"lamella": (sys.executable, "contiguous_format"), "torch": (python, "contiguous_format")}
    sides["torch channels-last"] = (python, "channels_last")
    found, running = {}, {}
    for side, (interpreter, layout) in sides.items():
        running[side] = Apart(interpreter, side.split()[0], threads)
        running[side].ask(**begin, layout=layout)
        found[side] = {"version": running[side].version, "seconds": []}
    rng, steps = generator.split(1), -(-len(x) // recipe.batch)
    rate = recipe.schedule(len(x), max(epochs, 1))
    for epoch in range(max(epochs, 1)):
        files = epoch_of(recipe, x, y, rng, folder)

        def learn(side, first, last, epoch=epoch, files=files):
            rates = [rate(epoch * steps + i) for i in range(first, last)]
            return running[side].ask(**files, **scale, rates=rates, first=first, batch=recipe.batch)["seconds"]

        done = 0
        if epoch == 0:
            for done in range(0, min(timed, steps), TURN):
                turn = done // TURN % len(sides)
                for side in [*sides][turn:] + [*sides][:turn]:  # each comes first in its turn
                    found[side]["seconds"] += learn(side, done, min(done + TURN, steps))
            done = min(done + TURN, steps)
            keep = {"lamella", "torch"} if train_lamella else {"torch"}
            for side in [*running]:
                if side not in keep or not epochs:
                    running.pop(side).close()
        for side in running:
            learn(side, done, steps)
            print(f"{side}: epoch {epoch + 1} of {epochs} is done", flush=True)
    for side, process in running.items():
        found[side]["accuracy"] = process.ask(**judge, **scale)["accuracy"]
        process.close()
    return found


def ratio(ours, theirs):
    """The median of our time over theirs, turn by turn."""
    turns = range(0, len(ours), TURN)
    return statistics.median(sum(ours[i : i + TURN]) / sum(theirs[i : i + TURN]) for i in turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=[name for name in RECIPES if name != "densenet"])
    parser.add_argument("--python", required=True, help="an interpreter with NumPy and torch")
    parser.add_argument("--json", type=Path, help="the record; a run of the same model in it is replaced")
    parser.add_argument("--epochs", type=int, help="0: time only (default: as the recipe says)")
    parser.add_argument("--timed", type=int, default=100, help="steps that are timed (default: 100)")
    parser.add_argument("--examples", type=int, default=60_000, help="to learn from (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trained", type=Path, help="weights that fashion_mnist.py has trained in the same way")
    arguments = parser.parse_args()
    name = arguments.model
    (x, y), test = training.mnist5k() if name == "digits" else training.fashion_mnist()
    data = x[: arguments.examples], y[: arguments.examples]
    epochs = RECIPES[name].epochs if arguments.epochs is None else arguments.epochs
    with tempfile.TemporaryDirectory() as folder:
        found = compare(
            name, data, test, python=arguments.python, epochs=epochs, timed=arguments.timed,
            threads=arguments.threads, seed=arguments.seed, folder=Path(folder),
            train_lamella=arguments.trained is None,
        )  # fmt: skip
    if arguments.trained is not None:
        words = training.load_metadata(arguments.trained)
        history = json.loads(words["history"])
        if len(history) != epochs:
            raise SystemExit(f"--trained must be of {epochs} epochs, got {len(history)}")
        found["lamella"]["accuracy"] = history[-1]["validation_accuracy"]
        found["lamella"]["trained"] = {key: float(words[key]) for key in ("cpu_seconds", "wall_seconds", "threads")}
    for side, one in found.items():
        told = f"{statistics.median(one['seconds']) * 1e3:.1f} ms a step"
        told += f", lamella's over it {ratio(found['lamella']['seconds'], one['seconds']):.2f}"
        print(f"{side} {one['version']}: {told}" + (f", accuracy {one['accuracy']:.4f}" if "accuracy" in one else ""))
    if arguments.json is not None:
        record = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        run = {
            "model": name, "epochs": epochs, "examples": len(data[0]), "seed": arguments.seed,
            "threads": arguments.threads, "clock": "CPU" if arguments.threads == 1 else "wall",
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"), "commit": machine.commit(),
            "machine": machine.describe(), "versions": machine.versions(),
            "libraries": {
                side: {**one, "seconds": [round(s, 5) for s in one["seconds"]]} for side, one in found.items()
            },
        }  # fmt: skip
        same = ("model", "seed", "examples", "epochs", "threads")
        others = [one for one in record.get("runs", []) if any(one[key] != run[key] for key in same)]
        arguments.json.write_text(json.dumps({**record, "runs": [*others, run]}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
