"""Every lecture script measures, draws, is short, listed, and has a test of its claims in ``tests/lectures``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

import lamella

from .lectures.scripts import FOLDER, NAMES, load

matplotlib.use("Agg")  # no windows

# A setting for each script's measure() that takes about a second at most; the claims are tested in tests/lectures.
SMALL: dict[str, dict[str, Any]] = {
    "autoencoders": {"steps": 2, "epochs": 3, "lengths": (8,)},
    "rbm": {"steps": 3, "epochs": 1, "chains": 4},
    "activations": {"examples": 100, "epochs": 1, "depth": 2},
    "backpropagation": {"steps": 10},
    "depth": {"deepest": 5, "depth": 3, "widths": (2, 8)},
    "gradient_descent": {"steps": 5, "rates": 2},
    "initialisation": {"depth": 3, "examples": 10, "epochs": 1},
    "linear_models": {"steps": 2},
    "model_selection": {"sets": 2, "trials": 2, "epochs": 1, "draws": 5},
    "nonlinearity": {"epochs": 2, "seeds": 1},
    "universal_approximation": {"bumps": (5, 10), "widths": (2,), "seeds": 1, "steps": 2},
    "validation": {"widths": (1, 2), "epochs": 2},
    "attention": {"steps": 2, "queries": 5},
    "convolution": {"steps": 2, "epochs": 1},
    "double_descent": {"seeds": 2, "n": (20, 20), "widths": (10, 20, 30), "units": (2, 5), "steps": 2},
    "dropout_batch_norm": {"seeds": 1, "epochs": 1, "batches": 3, "rates": (0.1, 1.0), "descent": 1},
    "residual": {"seeds": 1, "depth": 3, "epochs": 1},
}


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


def test_every_lecture_is_listed_and_has_a_test_of_its_claims() -> None:
    assert sorted(SMALL) == NAMES
    table = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((\w+)\.py\)", table)) == NAMES
    for name in NAMES:
        assert (Path(__file__).parent / f"lectures/test_{name}.py").is_file(), f"no test of the claims of {name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_lecture_is_a_short_program_that_says_what_it_claims(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert len(ast.get_docstring(ast.parse(text)) or "") > 100
    assert 'if __name__ == "__main__":' in text
    assert f'"{name}.png"' in text


@pytest.mark.parametrize("name", NAMES)
def test_a_lecture_measures_and_draws(name: str, tmp_path: Path) -> None:
    script = load(name)
    found = script.measure(rng=lamella.Generator(0), **SMALL[name])
    assert isinstance(found, dict)
    figure = script.draw(found)
    figure.savefig(tmp_path / "picture.png", dpi=40)
    drawn = matplotlib.image.imread(tmp_path / "picture.png")
    assert np.isfinite(drawn).all()
    assert drawn.std() > 0.01, "an empty picture"
    for axis in figure.axes:
        said = axis.get_title() or axis.get_xlabel() or axis.get_ylabel() or not axis.axison
        assert said, "an axis with no word on it"
