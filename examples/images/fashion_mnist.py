"""Clothing told apart: ``python fashion_mnist.py --model resnet`` trains a network on Fashion-MNIST and draws it.

Needs Debian's package ``dataset-fashion-mnist``, or ``--data`` with the folder of its four files, and matplotlib. The
folder ``--output`` gets the trained weights with their history, and the pictures: curves, filters, confusion matrix,
mistakes, and of the residual and the dense network class-activation maps. ``--weights FILE`` draws them again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pictures
from recipes import RECIPES, learn

import lamella
from lamella import training
from lamella.benchmarks import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", choices=["convnet", "resnet", "densenet"], default="convnet")
    parser.add_argument("--epochs", type=int, help="default: as the recipe says")
    parser.add_argument("--examples", type=int, default=60_000, help="to learn from (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--output", type=Path, default=Path("images-output"))
    parser.add_argument("--weights", type=Path, help="of an earlier run, to be drawn")
    parser.add_argument("--json", type=Path, help="a record to write the accuracy and the seconds into")
    arguments = parser.parse_args()
    stem, recipe = f"fashion-{arguments.model}", RECIPES[arguments.model]
    (x, y), test = training.fashion_mnist(arguments.data)
    data = x[: arguments.examples], y[: arguments.examples]
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.weights is None:
        start, cpu = time.perf_counter(), time.process_time()
        model, history = learn(recipe, data, test, epochs=arguments.epochs, seed=arguments.seed)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        words = {"history": json.dumps(history.epochs), "threads": str(lamella.get_num_threads())}
        words |= {"cpu_seconds": f"{cpu:.1f}", "wall_seconds": f"{wall:.1f}"}
        lamella.save(arguments.output / f"{stem}.safetensors", model.state_dict(), words)
    else:
        model, words = recipe.model(lamella.Generator(0)), training.load_metadata(arguments.weights)
        model.load_state_dict(lamella.load(arguments.weights))
        history = training.History(json.loads(words["history"]))
    accuracy = history.last["validation_accuracy"]
    print(
        f"{arguments.model}: accuracy {accuracy:.4f} on {len(test[0]):,} held-out images after {len(history)} epochs; "
        f"{words['wall_seconds']} s, {words['cpu_seconds']} s of CPU time, threads: {words['threads']}"
    )
    if arguments.json is not None:
        record = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        seconds = {name: float(words[name]) for name in ("cpu_seconds", "wall_seconds")}
        one = {"epochs": len(history), "accuracy": accuracy, **seconds, "threads": int(words["threads"])}
        record.setdefault("trained", {})[arguments.model] = {**one, "machine": machine.describe()}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    mean, std = recipe.scale(data[0])
    given = training.normalize(test[0], [mean], [std])
    for file in pictures.draw(
        arguments.output, stem, model, history, test[0], given, test[1], training.FASHION_CLASSES
    ):
        print(file)


if __name__ == "__main__":
    main()
