"""Sentences as points on a sphere, by a public encoder of the BERT family and its own tokenizer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..autograd import no_grad
from ..backend import Array, Device, backend_for
from ..backend import device as check_device
from ..layers.lengths import length
from ..models import Bert
from .pretrained import load_pretrained
from .weights import read_json

_STAGES = {"Transformer", "Pooling", "Normalize"}  # that we do; the last one always


class SentenceEncoder:
    """Gives sentences of like meaning embeddings that point the same way.

    ::

        encoder = SentenceEncoder("path/to/all-MiniLM-L6-v2")
        a, b = encoder.encode(["The cat sits on the mat.", "A feline is resting on a rug."])
        a @ b  # the cosine of the angle between them, from -1 to 1

    Args:
        folder: holds ``config.json``, weights and ``tokenizer.json``, as sentence-transformers writes them.
        device: where the model runs.

    Attributes:
        model: the :class:`lamella.models.Bert`.
        tokenizer: of the library ``tokenizers``.
        max_tokens: longer texts are cut to this many.
    Raises:
        ModuleNotFoundError: ``tokenizers`` is not installed. FileNotFoundError: a file is missing.
        ValueError: the folder describes something else than a mean over the tokens of a BERT.
    """

    def __init__(self, folder: str | os.PathLike[str], device: str | Device = "cpu") -> None:
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "SentenceEncoder: texts are cut into tokens by the library tokenizers, which is not installed: "
                "pip install 'lamella[hf]'"
            ) from error
        place = Path(folder)
        if not (place / "tokenizer.json").is_file():
            raise FileNotFoundError(f"SentenceEncoder: {folder} must hold tokenizer.json, and does not")
        _check_stages(place)
        model = load_pretrained(place)
        if not isinstance(model, Bert):
            raise ValueError(f"SentenceEncoder: {folder} must hold a BERT, got a {type(model).__name__}")
        self.model = model.to(check_device(device))
        self.device = check_device(device)
        self.max_tokens = model.max_len
        if (place / "sentence_bert_config.json").is_file():
            said = read_json("SentenceEncoder", place / "sentence_bert_config.json").get("max_seq_length")
            if said is not None:
                self.max_tokens = min(self.max_tokens, length("SentenceEncoder", "max_seq_length", said, 1))
        self.tokenizer = Tokenizer.from_file(os.fspath(place / "tokenizer.json"))
        self.tokenizer.enable_truncation(self.max_tokens)  # the file may say less
        self.tokenizer.no_padding()

    def encode(self, sentences: Sequence[str], batch_size: int = 32) -> Array:
        """An embedding of length 1 for each sentence: float32 on the host, shape ``(N, D)``.

        Args:
            sentences: texts; those of about one length are read together, whatever their order.
            batch_size: how many at a time.
        """
        size = length("SentenceEncoder.encode", "batch_size", batch_size, 1)
        texts = list(sentences)
        if isinstance(sentences, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError(f"SentenceEncoder.encode: sentences must be a list of texts, got {sentences!r}")
        xp = backend_for("cpu").xp
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda i: len(tokens[i]))
        found = xp.empty((len(texts), self.model.d_model), "float32")
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            longest = max(len(tokens[i]) for i in rows)
            ids, mask = (xp.zeros((len(rows), longest), "int64") for _ in range(2))
            for row, i in enumerate(rows):
                ids[row, : len(tokens[i])] = tokens[i]
                mask[row, : len(tokens[i])] = 1
            backend = backend_for(self.device)
            given = (backend.from_numpy(array, self.device) for array in (ids, mask))
            with no_grad():
                found[rows] = self.model.sentence_embeddings(*given).to_numpy()
        return found

    def __repr__(self) -> str:
        return f"SentenceEncoder({self.model.d_model} numbers, texts of at most {self.max_tokens} tokens)"


def _check_stages(folder: Path) -> None:
    """Refuse what is more or other than a mean over tokens."""
    import json

    modules, pooling = folder / "modules.json", folder / "1_Pooling" / "config.json"
    if modules.is_file():
        kinds = [str(stage.get("type", "")).rpartition(".")[2] for stage in json.loads(modules.read_text("utf-8"))]
        if not _STAGES.issuperset(kinds):
            raise ValueError(f"SentenceEncoder: the stages must be among {', '.join(sorted(_STAGES))}, got {kinds}")
    if pooling.is_file():
        said: dict[str, Any] = read_json("SentenceEncoder", pooling)
        chosen = sorted(key for key, value in said.items() if key.startswith("pooling_mode_") and value is True)
        if chosen and chosen != ["pooling_mode_mean_tokens"]:
            raise ValueError(f"SentenceEncoder: pooling must be the mean over tokens, got {', '.join(chosen)}")
